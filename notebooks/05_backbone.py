# %% [markdown]
# # 05 · Backbone: from pixels to three maps
#
# **Paper** RT-DETR §4.1; ResNet (He et al. 2016); variant D: "Bag of Tricks" §4.2 · **Chapter**
# `rtdetr_lab/backbone.py` · **Before this** [04 losses](04_losses.ipynb)
#
# All later parts of the model read three small maps, and never the picture itself. After this
# notebook you can explain what each map contains, how many pixels one cell reads, and when a frozen
# batch norm is a good choice or a bad one.

# %% tags=["imports"]
from collections import OrderedDict
from copy import deepcopy
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn

import rtdetr_lab as lab
from rtdetr_lab.backbone import ResNetD, Shortcut
from rtdetr_lab.layers import FrozenBatchNorm2d
from rtdetr_lab.notebook import check, chelsea, cost, count_good, online, seeded, shapes, source
from rtdetr_lab.rtdetr import rtdetr_r18, rtdetr_r34, rtdetr_r50, rtdetr_r101
from rtdetr_lab.viz.canvas import heat, scale_bar, show_picture
from rtdetr_lab.viz.features import feature_maps
from rtdetr_lab.viz.marks import frame_corners, key_below, line_key
from rtdetr_lab.viz.palette import SKY

# %%
generator = seeded()
model = lab.load_pretrained("nano")
images, targets = shapes(*range(8))  # 320 × 320 pixels

# %% [markdown]
# ## The end, first
#
# The figure shows a cat and the three maps that `nano` makes of it: 32 × 32, 16 × 16 and 8 × 8
# cells. A bright cell has large features (root mean square over the channels). `nano` was trained
# on painted shapes only, but its maps respond to the cat. On S3 we see eyes, nose and the stripes
# of the forehead; on S5 we see only bright and dark patches.

# %%
# alt: A photograph of a cat and three heat maps of it, of 32, 16 and 8 cells a side. The finest
#   one is bright at eyes, nose and forehead, the coarsest only bright and dark patches.
cat = chelsea((256, 256))
with torch.no_grad(), lab.record(model) as seen:
    model(cat)
levels = ("S3", "S4", "S5")
fig, axes = plt.subplots(2, 2, figsize=(5, 4.8), layout="compressed")
feature_maps([seen[f"backbone.{level}"][0] for level in levels], cat[0], axes=axes)
fig.suptitle("From map to map the cat loses its details", fontsize=11)

# %%
for level, stride in zip(levels, model.backbone.strides, strict=True):
    print(level, "stride", stride, tuple(seen[f"backbone.{level}"].shape))
assert seen["backbone.S5"].shape[-1] == 256 // 32

# %% [markdown]
# ## The question
#
# A detector needs to know *what* and *where*. A network that halves its map again and again loses
# *where* and gains *what*: it has fewer and fewer cells, but more and more channels. RT-DETR uses
# three of these maps, with strides 8, 16 and 32: 8,400 cells at 640 × 640.
#
# The first convolutions (the *stem*) and a max pool together have stride 4. Four *stages* (chains
# of residual blocks) follow. Stages 2 to 4 halve the map in their first block, and return S3, S4
# and S5. A block activates (act) the sum of a branch $F$ of convolutions and a shortcut $G$:
#
# $$ y = \mathrm{act}\bigl(F(x) + G(x)\bigr), \qquad
#    G = \begin{cases} x & \text{other blocks} \\
#        \mathrm{norm}(W\,\mathrm{pool}(x)) & \text{first block of a stage} \end{cases}
#    \tag{05.1} $$
#
# $W$ is a 1 × 1 convolution. In the first ResNet the stem is one large convolution with stride 2,
# and $W$ with stride 2 reads only one cell in four. Variant D, also called ResNet-vd, has three
# small convolutions in the stem, and takes the mean of 2 × 2 cells before $W$.

# %% [markdown]
# ## By hand, on 3 × 3 cells
#
# We apply both shortcuts with stride 2 to nine cells: the plain one, and the mean of 2 × 2. At the
# border a window is incomplete; its mean is over the cells inside the map.

# %%
x = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
plain = x[..., ::2, ::2]
by_hand = torch.tensor([[(1 + 2 + 4 + 5) / 4, (3 + 6) / 2], [(7 + 8) / 2, 9.0]])
print("plain:", plain.flatten().tolist(), "  mean:", by_hand.flatten().tolist())

# %%
shortcut = Shortcut(1, 1, 2, FrozenBatchNorm2d)
nn.init.ones_(shortcut.conv.weight)
with torch.no_grad():
    assert torch.allclose(shortcut(x)[0, 0], by_hand, atol=1e-3)
unread = sorted(set(range(1, 10)) - set(plain.int().flatten().tolist()))
print("cells that a plain shortcut never reads:", unread)

# %% [markdown]
# Now the stem: one 7 × 7 against three 3 × 3, the first of them with stride 2. How large is the
# square of pixels that one value depends on? A layer with kernel size $k$ widens this square by
# $k - 1$ steps. The length of a step, in pixels, is the product of all strides before that layer.


# %%
def reach(layers):
    """Return the side of the square that one value reads; `layers` are (kernel, stride)."""
    side, step = 1, 1
    for kernel, stride in layers:
        side, step = side + (kernel - 1) * step, step * stride
    return side


small = [(3, 2), (3, 1), (3, 1)]
print("side of the square: one 7 × 7", reach([(7, 2)]), "pixels, three 3 × 3", reach(small))
assert reach(small) == 3 + 2 * 2 + 2 * 2

# %% [markdown]
# The three small convolutions read a larger square, and there are three activations instead of one.
#
# ## The real module

# %%
source(Shortcut)

# %%
source(ResNetD.forward)

# %% [markdown]
# ## Look inside: how far does a cell see?
#
# We apply `reach` to the whole backbone. Cells of S5 are 32 pixels apart, but read larger squares.


# %%
def reach_of(backbone, num_stages):
    parts = nn.Sequential(backbone.stem, backbone.pool, *backbone.stages[:num_stages])
    layers = []
    for name, m in parts.named_modules():
        if isinstance(m, nn.Conv2d | nn.MaxPool2d) and "shortcut" not in name:
            numbers = [v if isinstance(v, int) else v[0] for v in (m.kernel_size, m.stride)]
            layers.append(tuple(numbers))
    return reach(layers)


sides = [reach_of(model.backbone, stages) for stages in (2, 3, 4)]
print("side of the square that a cell of nano's S3, S4, S5 reads:", sides, "pixels")

# %% [markdown]
# These are the pixels that *can* matter. Which of them do? The gradient shows how much the middle
# cell of each map changes with each pixel.

# %%
# alt: The same picture three times, with a bright area around its middle: small for S3, wider for
#   S4 and S5. A dashed square surrounds it, and it is always brightest in the centre.
picture = images[3:4].clone().requires_grad_()
energy = []
for m in model.backbone(picture):
    centre = m[0, :, m.shape[2] // 2, m.shape[3] // 2].square().sum()
    energy.append(torch.autograd.grad(centre, picture, retain_graph=True)[0][0].square().sum(0))
fig, axes = plt.subplots(1, 3, figsize=(5.6, 2.6), layout="compressed")
fig.suptitle("The pixels in the middle of the square matter most", fontsize=11)
for ax, level, e in zip(axes, levels, energy, strict=True):
    show_picture(ax, images[3], quiet=0.8)
    glow = nn.functional.avg_pool2d(e[None, None], 8)[0, 0].sqrt()
    drawn = heat(ax, glow / glow.max(), (320, 320))
    low, high = e.sum(1).nonzero().aminmax()
    frame_corners(ax, torch.stack([low, low, high + 1, high + 1]), SKY, "--", 1.2)
    ax.set_title(f"middle cell of {level}", fontsize=9)
scale_bar(drawn, list(axes), "gradient (its maximum is 1)")
key_below(list(axes), [line_key("pixels that can matter", SKY, "--")])

# %%
for level, side, e in zip(levels, sides, energy, strict=True):
    rows = e.sum(1).nonzero().flatten()
    first, last = int(rows.min()), int(rows.max())
    low, high = first + side // 4, last + 1 - side // 4
    share = (e[low:high, low:high].sum() / e.sum()).item()
    width = last - first + 1
    print(f"{level}: gradient {width} pixels wide, {share:.0%} of it in the middle quarter")
    assert width == side
    assert share > 0.8

# %% [markdown]
# The gradient ends exactly where `reach` says. Nearly all of it (squared and summed) lies in a
# square of half the side. This is the *effective* receptive field (Luo et al. 2016): a
# pixel in the centre reaches the cell through many chains of filters, a corner only through one.
#
# ## Predict, then break it
#
# **First, the norm.** A backbone with weights from ImageNet also brings the statistics (mean and
# variance) of ImageNet. Its norms usually stay frozen while the detector is trained: a batch has
# few pictures, and the statistics of few pictures are noisy. A frozen norm only multiplies each
# channel by a constant and adds a constant. Mean $\mu$, variance $v$, scale $\gamma$ (not the
# exponent of notebook 04) and shift $\beta$ come from ImageNet:
#
# $$ \mathrm{norm}(x) = \gamma\,\frac{x - \mu}{\sqrt{v + \varepsilon}} + \beta \tag{05.2} $$
#
# A new norm starts with $\mu = 0, v = 1, \gamma = 1, \beta = 0$. What happens if we start from
# random weights and freeze all norms like this? Training works well if the features have a spread
# (standard deviation) of about 1; the initialisation by He et al. (2015) was made for that.
# **Predict**: what is the spread on S5 of r18? And of r101?

# %%
views = torch.cat([chelsea((64, 64)), chelsea((64, 64)).flip(-1)])
spread = {}
for preset in (rtdetr_r18, rtdetr_r34, rtdetr_r50, rtdetr_r101):
    torch.manual_seed(0)
    frozen = preset().backbone.build()
    live = replace(preset().backbone, norm=nn.BatchNorm2d).build()  # trains: batch statistics
    with torch.no_grad():
        pair = [float(backbone(views)[-1].std()) for backbone in (frozen, live)]
    spread[preset.__name__] = pair
    print(f"{preset.__name__:12} frozen {pair[0]:8.2f}   live {pair[1]:.2f}")
assert spread["rtdetr_r101"][0] > 1000 > 10 > spread["rtdetr_r18"][0]
assert all(0.5 < live < 2 for _, live in spread.values())

# %% [markdown]
# Every residual block *adds* its branch to its input, and with frozen norms nothing scales the sum
# down. The 8 blocks of r18 are harmless; the 33 blocks of r101 give a spread of thousands. With
# live norms (they use the statistics of the batch) the spread is about 1 at every depth. The new
# frozen norm normalises nothing. We test this with a picture that is ten times darker.

# %%
dark = {}
for name, norm in {"frozen": FrozenBatchNorm2d, "live": nn.BatchNorm2d}.items():
    torch.manual_seed(0)
    backbone = replace(rtdetr_r18().backbone, norm=norm).build()
    with torch.no_grad():
        dark[name] = float(backbone(views)[-1].norm() / backbone(views / 10)[-1].norm())
print({name: f"{ratio:.2f} times weaker" for name, ratio in dark.items()})
assert abs(dark["frozen"] - 10) < 1e-3
assert abs(dark["live"] - 1) < 0.1

# %% [markdown]
# With new frozen norms no layer adds a constant, and
# $\mathrm{ReLU}(x / 10) = \mathrm{ReLU}(x) / 10$. So a tenth of the input gives exactly a tenth of
# the output. This is why `nano`, which started from random weights, has live norms.
#
# And why are ImageNet's norms frozen? In training a live norm takes $\mu$ and $v$ from its batch,
# so the features of a picture depend on the *other* pictures. We take one picture, and choose the
# other pictures of its batch eight times at random. **Predict**: how far does S5 move, in percent,
# with a batch of 2? And with a batch of 16?


# %%
def wobble(batch_size):
    """Return the mean distance of S5 from its mean over eight batches, relative to that mean."""
    S5 = []
    for _ in range(8):
        companions = pictures[1 + torch.randperm(32, generator=generator)[: batch_size - 1]]
        S5.append(live(torch.cat([pictures[:1], companions]))[-1][0])
    mean = torch.stack(S5).mean(0)
    return sum(float((one - mean).norm() / mean.norm()) for one in S5) / 8


pictures = F.avg_pool2d(shapes(*range(33))[0], 2)  # 160 × 160 pixels
live = deepcopy(model.backbone).train()
with torch.no_grad():
    wobbles = {batch_size: wobble(batch_size) for batch_size in (2, 4, 8, 16)}
print({f"batch of {n}": f"{share:.0%}" for n, share in wobbles.items()})  # may differ: ± 3 of 20
assert 1.5 * wobbles[16] < 1.5 * wobbles[8] < wobbles[2]

# %% [markdown]
# With a batch of 2, the detector would learn from features that change with the other picture.
# Large detectors have few pictures per device: they freeze norms or share statistics over devices.
#
# **Second, the maps.** We set one map at a time to zero in the trained `nano`, and count the good
# boxes (score above 0.5, IoU above 0.75) on eight pictures. **Predict**: without which map do we
# lose the most boxes, and without which the fewest? The shapes are 17 to 174 pixels wide. (A *tap*
# is a place in the model where `lab.record` reads or edits a tensor.)


# %%
def good_boxes(model):
    with torch.no_grad():
        return count_good(model(images), targets)


def without(level):
    """Set one output map to zero. (An edit of the tap `backbone.S4` would change S5 as well.)"""

    def hook(backbone, inputs, maps):
        return [m * (name != level) for name, m in zip(levels, maps, strict=True)]

    return model.backbone.register_forward_hook(hook)


# %%
counts = {"untouched": good_boxes(model)}
for level in levels:
    handle = without(level)
    counts[f"no {level}"] = good_boxes(model)
    handle.remove()
print(f"of {targets.num_boxes} shapes:", counts)
assert counts["no S3"] < counts["no S4"] < counts["no S5"]
assert counts["no S5"] >= counts["untouched"] - 3

# %% [markdown]
# Without S3 no good box is left; without S5 only one is lost. The world of `nano` is simple: the
# outline of a shape shows its class, and nothing far away adds to it. On photographs context does
# help, as the paper's ablation shows (notebook 08). Remember these numbers for notebooks 06 to 08.
#
# **Third, variant D.** We give the trained `nano` plain shortcuts, which read one cell in four. In
# a second copy we reset the statistics of the norms.

# %%
plain, reset = deepcopy(model), deepcopy(model)
for stage in plain.backbone.stages[1:]:
    stage[0].shortcut.pool = nn.MaxPool2d(1, stride=2)  # reads one cell in four
for m in reset.backbone.modules():
    if isinstance(m, nn.BatchNorm2d):
        m.reset_running_stats()
counts |= {"plain shortcuts": good_boxes(plain), "no statistics": good_boxes(reset)}
counts

# %% [markdown]
# The plain shortcut costs only seven boxes, although the weights were not trained for it:
# neighbouring cells are similar. But without the statistics, the trained filters find nothing.

# %%
assert counts["untouched"] > counts["plain shortcuts"] > 0 == counts["no statistics"]

# %% [markdown]
# ## What it costs
#
# We count each stage of ResNet-50-D at 640 × 640. (`meta` tensors have shapes, but no values.)

# %%
with torch.device("meta"):
    backbone, picture = rtdetr_r50().backbone.build(), torch.rand(1, 3, 640, 640)
    stages = [("stem", nn.Sequential(backbone.stem, backbone.pool))]
    stages += [(f"S{i}", stage) for i, stage in enumerate(backbone.stages, start=2)]
    total = cost(nn.Sequential(OrderedDict(stages)), picture)
total

# %%
params, flops = ({name: row[i] for name, *row in total.rows} for i in (0, 1))
print(
    f"S5: {params['S5'] / total.params:.0%} of parameters, {flops['S5'] / total.flops:.0%} of work"
)
assert params["S5"] > 0.6 * total.params
assert flops["S5"] < 0.2 * total.flops

# %% [markdown]
# Most parameters are in the coarse stages, because the channels double from stage to stage. The
# work is spread more evenly, because the number of cells falls at the same time. RT-DETR-R50 as a
# whole does 138 GFLOPs; the backbone's 71 are half of it.
#
# ## Exercises
#
# **1.** RT-DETR does not use S2 (stride 4). At 640 × 640, divide the number of cells of S2 by that
# of S3, S4 and S5 together. What is the result?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 160**2 / (80**2 + 40**2 + 20**2), hint="640 / 4 = 160 cells a side.", tolerance=0.02)

# %% [markdown]
# **2.** How many pixels wide is the square that a cell of ResNet-18-D's S5 reads? Does one such
# square cover a picture of 640 pixels?

# %%
answer = ...

# %% tags=["solution"]
with torch.device("meta"):
    check(answer, reach_of(rtdetr_r18().backbone.build(), 4), hint="`reach_of`, with 4 stages.")

# %% [markdown]
# **3.** A picture has 333 × 500 pixels (height × width), and the backbone drops no pixel. What is
# the shape (height, width) of S5?

# %%
answer = ...

# %% tags=["solution"]
with torch.no_grad():
    coarsest = model.backbone(torch.zeros(1, 3, 333, 500))[-1]
check(answer, tuple(coarsest.shape[-2:]), hint="Divide by 32 and round up.")

# %% [markdown]
# ## With real weights, if there is a network
#
# This ResNet-18-D was trained on ImageNet and then on COCO. Both contain cats.

# %% tags=["varies"]
if online():
    real, photo = lab.load_pretrained("r18"), chelsea((640, 640))
    with torch.no_grad():
        feature_maps([m[0] for m in real.backbone(photo)], photo[0])
    plt.show()

# %% [markdown]
# **Next**: [06 · AIFI](06_aifi.ipynb). A cell of S5 reads only its own square of the picture. What
# if all cells of S5 could attend to each other?
