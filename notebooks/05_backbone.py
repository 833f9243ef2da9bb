# %% [markdown]
# # 05 · Backbone: from pixels to three maps
#
# **Paper** RT-DETR §4.1; ResNet (He et al. 2016); variant D: "Bag of Tricks" §4.2 · **Chapter**
# `rtdetr_lab/backbone.py` · **Before this** [04 losses](04_losses.ipynb)
#
# Everything after the backbone works on three small maps and never sees the picture again.
# Afterwards you can say what each map knows, how far it sees, and why a norm that is frozen may be
# the best or the worst choice.

# %%
from collections import OrderedDict
from copy import deepcopy
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
from torch import nn

import rtdetr_lab as lab
from rtdetr_lab.backbone import ResNetD, Shortcut
from rtdetr_lab.layers import FrozenBatchNorm2d
from rtdetr_lab.notebook import check, chelsea, cost, count_good, online, seeded, shapes, source
from rtdetr_lab.rtdetr import rtdetr_r18, rtdetr_r34, rtdetr_r50, rtdetr_r101
from rtdetr_lab.viz.canvas import heat, show_picture
from rtdetr_lab.viz.features import feature_maps

# %%
generator = seeded()
model = lab.load_pretrained("nano")
images, targets = shapes(*range(8))  # 320 × 320 pixels

# %% [markdown]
# ## The end, first
#
# A cat, and what `nano` makes of it: 32 × 32, 16 × 16 and 8 × 8 cells. Bright is where much is
# said. `nano` has only ever seen painted shapes, yet its maps answer to the cat: eyes,
# nose and the stripes of the forehead on S3, patches on S5.

# %%
# alt: A photograph of a cat and three heat maps of it, of 32, 16 and 8 cells a side. The finest
#   one is bright at eyes, nose and forehead, the coarsest only bright and dark patches.
cat = chelsea((256, 256))
with torch.no_grad(), lab.record(model) as seen:
    model(cat)
levels = ("S3", "S4", "S5")
axes = feature_maps([seen[f"backbone.{level}"][0] for level in levels], cat[0])

# %%
for level, stride in zip(levels, model.backbone.strides, strict=True):
    print(level, "stride", stride, tuple(seen[f"backbone.{level}"].shape))
assert seen["backbone.S5"].shape[-1] == 256 // 32

# %% [markdown]
# ## The question
#
# A detector needs *what* and *where*. A network that halves its map again and again trades one for
# the other: cells get fewer, channels more. RT-DETR keeps three maps on the way, with strides 8,
# 16 and 32. At 640 × 640 they have 80² + 40² + 20² = 8,400 cells.
#
# The halving is done by residual blocks: a branch $F$ of convolutions, beside a shortcut $G$,
#
# $$ y = \mathrm{act}\bigl(F(x) + G(x)\bigr), \qquad
#    G = \begin{cases} x & \text{same shape} \\
#        \mathrm{norm}(W\,\mathrm{pool}(x)) & \text{first block of a stage} \end{cases}
#    \tag{05.1} $$
#
# In two places the first ResNet is careless with its pixels: its stem is a single coarse
# convolution, and its $G$ with stride 2 reads one cell in four. Variant D, known as ResNet-vd,
# repairs both.

# %% [markdown]
# ## By hand, on 3 × 3 cells
#
# The shortcut with stride 2 on nine cells: the plain one, and the mean of 2 × 2. At the rim the
# last window is cut, and its mean is over the cells that exist.

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
print(
    "cells a plain shortcut never reads:",
    sorted(set(range(1, 10)) - set(plain.int().flatten().tolist())),
)

# %% [markdown]
# The stem: one 7 × 7 against three 3 × 3, the first with stride 2. A layer with kernel $k$ widens
# the square that one value sees by $k - 1$ steps, and a step is as many pixels as the strides
# before it multiply to.


# %%
def reach(layers):
    """Side of the square that one value sees; `layers` are (kernel, stride), in order."""
    side, step = 1, 1
    for kernel, stride in layers:
        side, step = side + (kernel - 1) * step, step * stride
    return side


small = [(3, 2), (3, 1), (3, 1)]
print("one 7 × 7 sees", reach([(7, 2)]), "pixels; three 3 × 3 see", reach(small))
assert reach(small) == 3 + 2 * 2 + 2 * 2

# %% [markdown]
# More is seen, and with an activation after each of three steps instead of one.
#
# ## The real module

# %%
source(Shortcut)

# %%
source(ResNetD.forward)

# %% [markdown]
# ## Look inside: how far does a cell see?
#
# Put the whole backbone through `reach`. A cell of S5 has a stride of 32 pixels, and sees far more.


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
print("nano's S3, S4, S5 see squares of", sides, "pixels")

# %% [markdown]
# That is what *can* matter. What does? We ask the gradient: how much would the middle cell of each
# map change with each pixel?

# %%
# alt: The same picture three times, with a glow around its middle: small for S3, wider for S4 and
#   S5, and always brightest in the centre of its square.
picture = images[3:4].clone().requires_grad_()
energy = []
for m in model.backbone(picture):
    centre = m[0, :, m.shape[2] // 2, m.shape[3] // 2].square().sum()
    energy.append(torch.autograd.grad(centre, picture, retain_graph=True)[0][0].square().sum(0))
fig, axes = plt.subplots(1, 3, figsize=(7, 2.5), layout="compressed")
for ax, level, e in zip(axes, levels, energy, strict=True):
    show_picture(ax, images[3], quiet=0.8)
    glow = nn.functional.avg_pool2d(e[None, None], 8)[0, 0].sqrt()
    heat(ax, glow, (320, 320))
    ax.set_title(f"middle cell of {level}", fontsize=9)

# %%
for level, side, e in zip(levels, sides, energy, strict=True):
    rows = e.sum(1).nonzero().flatten()
    first, last = int(rows.min()), int(rows.max())
    low, high = first + side // 4, last + 1 - side // 4
    share = (e[low:high, low:high].sum() / e.sum()).item()
    print(f"{level}: {last - first + 1} pixels wide, {share:.0%} of it in the middle quarter")
    assert last - first + 1 == side
    assert share > 0.8

# %% [markdown]
# The gradient ends exactly where `reach` says, and nearly all of it lies in a square of half the
# side. That is known as the *effective* receptive field (Luo et al. 2016): many paths lead from
# the centre to the cell, one from the corner.
#
# ## Predict, then break it
#
# **First, the norm.** A backbone that brings ImageNet's weights brings ImageNet's statistics too,
# and is trained with both frozen: detectors see few pictures at once, too few to measure anything.
# Per channel that norm is a fixed straight line,
#
# $$ \mathrm{norm}(x) = \gamma\,\frac{x - \mu}{\sqrt{v + \varepsilon}} + \beta \tag{05.2} $$
#
# and a new one starts with $\mu = 0, v = 1, \gamma = 1, \beta = 0$. Now train from scratch, with
# it frozen. **Predict**: features are in good health when their spread (standard deviation) is
# about 1, and He's rule for drawing filters was made for that. What is it on S5 of r18? Of r101?

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

# %%
assert spread["rtdetr_r101"][0] > 1000 > 10 > spread["rtdetr_r18"][0]
assert all(0.5 < live < 2 for _, live in spread.values())

# %% [markdown]
# Every residual block *adds* its branch to what came before, and nothing ever scales it back: 8
# blocks are harmless, 33 multiply by thousands. Live norms end at 1, whatever the depth. The
# sharpest way to say that the frozen one normalises nothing: make the picture ten times darker.

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
# Frozen from scratch the whole network is a ReLU network without bias, so a tenth goes in and
# exactly a tenth comes out. That is why `nano`, which was trained from nothing, has live norms.
#
# **Second, the maps.** We blank one map at a time in the trained `nano`, and count good boxes
# (score above 0.5, IoU above 0.75) on eight pictures. **Predict**: which one is missed most, which
# least? The shapes are 17 to 174 pixels wide.


# %%
def good_boxes(model):
    with torch.no_grad():
        return count_good(model(images), targets)


def without(level):
    """Empties one map on its way out. (An edit of the tap `backbone.S4` would reach S5 as well.)"""

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

# %% [markdown]
# Not one box survives without S3, and one is lost without S5. This world is small: what a shape is
# can be read off its outline, and nothing far away says more. On photographs it is otherwise, as
# the paper's ablation shows (notebook 08). Keep the number in mind, the next three notebooks will
# meet it again.

# %%
assert counts["no S3"] < counts["no S4"] < counts["no S5"]
assert counts["no S5"] >= counts["untouched"] - 3

# %% [markdown]
# **Third, variant D.** Give the trained `nano` plain shortcuts, which read one cell in four. And,
# beside it, forget the statistics that its norms have gathered.


# %%
class OneInFour(nn.Module):
    def forward(self, x):
        return x[..., ::2, ::2]


plain, forgetful = deepcopy(model), deepcopy(model)
for stage in plain.backbone.stages[1:]:
    stage[0].shortcut.pool = OneInFour()
for m in forgetful.backbone.modules():
    if isinstance(m, nn.BatchNorm2d):
        m.reset_running_stats()
counts |= {"plain shortcuts": good_boxes(plain), "no statistics": good_boxes(forgetful)}
counts

# %% [markdown]
# Seven boxes for a shortcut that the weights were not trained for: neighbouring cells resemble each
# other. The statistics are another matter; a trained filter is worth nothing without them.

# %%
assert counts["untouched"] > counts["plain shortcuts"] > 0 == counts["no statistics"]

# %% [markdown]
# ## What it costs
#
# ResNet-50-D at 640 × 640, stage by stage. (`meta` tensors have shapes and no values, so counting
# takes no time.)

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
# Parameters sit at the coarse end, because channels double; work is spread, because cells get
# fewer at the same time. All of RT-DETR-R50 does 138 GFLOPs, so the backbone is half of it.
#
# ## Exercises
#
# **1.** RT-DETR leaves S2 (stride 4) alone. At 640 × 640, how many times as many cells does it have
# as S3, S4 and S5 together?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 160**2 / (80**2 + 40**2 + 20**2), hint="640 / 4 = 160 cells a side.", tolerance=0.02)

# %% [markdown]
# **2.** How many pixels wide is the square that a cell of ResNet-18-D's S5 sees? Is a picture of
# 640 pixels covered by one?

# %%
answer = ...

# %% tags=["solution"]
with torch.device("meta"):
    check(answer, reach_of(rtdetr_r18().backbone.build(), 4), hint="`reach_of`, with 4 stages.")

# %% [markdown]
# **3.** A picture of 333 × 500 pixels, none of which may be dropped. What is the shape (height,
# width) of S5?

# %%
answer = ...

# %% tags=["solution"]
with torch.no_grad():
    coarsest = model.backbone(torch.zeros(1, 3, 333, 500))[-1]
check(answer, tuple(coarsest.shape[-2:]), hint="One cell for every stride that has begun.")

# %% [markdown]
# ## With real weights, if there is a network
#
# ResNet-18-D has learned ImageNet, and then COCO. It knows cats.

# %% tags=["varies"]
if online():
    real, photo = lab.load_pretrained("r18"), chelsea((640, 640))
    with torch.no_grad():
        feature_maps([m[0] for m in real.backbone(photo)], photo[0])
    plt.show()

# %% [markdown]
# **Next**: [06 · AIFI](06_aifi.ipynb). The cells of S5 see up to the rim of their square, and each
# only its own. What if they could ask each other?
