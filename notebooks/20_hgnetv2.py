# %% [markdown]
# # 20 · HGNetv2: a backbone that forgets nothing inside a block
#
# **Paper** RT-DETR §5.2, Table 2 (L and X); the block: VoVNet (Lee et al. 2019) §3; light
# convolutions: MobileNet (Howard et al. 2017) §3.1 · **Chapter**
# `rtdetr_lab/successors/hgnetv2.py` · **Before this** [05 backbone](05_backbone.ipynb), [14
# RT-DETRv2](14_rtdetrv2.ipynb)
#
# RT-DETR was published with two backbones. The second one makes the models L and X, and later all
# of D-FINE. After this notebook you can explain what a block of it keeps, why it can afford filters
# of 5 × 5 cells, and what L saves beside R50.

# %% tags=["imports"]
from collections import OrderedDict
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
from torch import nn

import rtdetr_lab as lab
from rtdetr_lab.config import diff, replace_at
from rtdetr_lab.notebook import check, chelsea, cost, num_parameters, seeded, source
from rtdetr_lab.rtdetr import rtdetr_r50, rtdetr_r101
from rtdetr_lab.successors.hgnetv2 import (
    HGBlock,
    HGNetV2Config,
    Stem,
    hgnetv2_b4,
    hgnetv2_b5,
    rtdetr_l,
    rtdetr_x,
)
from rtdetr_lab.viz.canvas import heat, new_axes, show_picture
from rtdetr_lab.viz.marks import key_above
from rtdetr_lab.viz.palette import BLUE, ORANGE, SKY, VERMILLION
from rtdetr_lab.viz.speed import part_bars

# %%
generator = seeded()
B4 = hgnetv2_b4()

# %% [markdown]
# ## The end, first
#
# We look at one block of RT-DETR-L. It belongs to stage 3, where a cell is 16 pixels wide, and has
# six layers with 5 × 5 filters. The block keeps seven maps: its input and the six results. For the
# middle cell of each map, the bright area shows the pixels that can change it. (The weights are
# random. *Which* pixels a cell can read does not depend on the weights.)

# %%
# alt: Eight panels. The first is a photograph of a cat. The others show it in grey with a bright
#   square in the middle: one cell for x0, then wider and wider, up to most of the picture for x6.
block = HGBlock(B4, 3, 512, residual=False)
given = torch.randn(1, 512, 40, 40, generator=generator).requires_grad_()
kept = [given]
for layer in block.layers:
    kept.append(layer(kept[-1]))
middles = [m[0, :, 20, 20].square().sum() for m in kept]
reads = [torch.autograd.grad(m, given, retain_graph=True)[0][0].any(0) for m in middles]
fig, axes = plt.subplots(2, 4, figsize=(5.2, 3.3), layout="compressed")
fig.suptitle("One block keeps seven maps, each reads wider (in cells)", fontsize=11)
show_picture(axes[0, 0], chelsea((640, 640))[0])
axes[0, 0].set_title("640 × 640", fontsize=9)
for number, (ax, seen) in enumerate(zip(axes.flat[1:], reads, strict=True)):
    show_picture(ax, chelsea((640, 640))[0], quiet=0.8)
    heat(ax, seen.float(), (640, 640))
    ax.set_title(f"$x_{number}$: {int(seen.any(0).sum())} wide", fontsize=9)

# %%
widths = [int(seen.any(0).sum()) for seen in reads]
print("cells a side:", widths)
assert widths == [1 + 4 * layer for layer in range(7)]

# %% [markdown]
# A ResNet hands on only its last map. This block hands on all seven together. So the next block
# gets a fine detail (one cell wide) and its surroundings (25 cells, 400 pixels) side by side.
#
# ## The question
#
# What changes between RT-DETR-R50 and RT-DETR-L? One value:

# %%
changed = diff(rtdetr_r50(), rtdetr_l())
print(set(changed))
assert set(changed) == {"backbone"}

# %% [markdown]
# A ResNet block *adds* what it computed to its input (Eq. 05.1). After the sum, the next block can
# no longer tell the two apart. HGNetv2 *stacks* instead. Every layer reads the one before it. In
# the end all of them, and the input, are mixed by two 1 × 1 convolutions:
#
# $$ x_k = \mathrm{layer}_k(x_{k-1}), \qquad
#    y = W_{\text{excite}} \circ W_{\text{squeeze}}\,[x_0, x_1, \dots, x_n]\ (+\,x_0) \tag{20.1} $$
#
# Squeeze narrows the stack to half the width of the stage, excite widens it to all of it. From the
# second block of a stage on, $x_0$ is added too. But a stack of seven maps is wide. How can it be
# cheap? Stages 3 and 4 have **light** layers: a 1 × 1 convolution mixes channels, then a depthwise
# one (each channel alone) mixes cells. For widths $C_i \to C_o$ these are the weights:
#
# $$ k^2\, C_i\, C_o \quad\text{(dense)} \qquad\text{and}\qquad
#    C_i\, C_o + k^2\, C_o \quad\text{(light)} \tag{20.2} $$
#
# ## By hand, on 3 × 3 cells
#
# We take one channel, and two layers that add up a window of 3 × 3 cells. Only the corner of the
# map is 1. The stack has three maps, and a mixture with the weights 1, -1 and 0 keeps what a single
# layer added:

# %%
x0 = torch.zeros(1, 1, 3, 3)
x0[..., 0, 0] = 1
window = nn.Conv2d(1, 1, 3, padding=1, bias=False)
nn.init.ones_(window.weight)
with torch.no_grad():
    x1 = window(x0)
    x2 = window(x1)
stack = torch.cat([x0, x1, x2], dim=1)
ring = (stack * torch.tensor([-1.0, 1.0, 0.0]).view(1, 3, 1, 1)).sum(1)
print(ring[0], "\nx2:", x2[0, 0])
assert ring[0, 0, 0] == 0
assert ring[0, 1, 1] == 1

# %% [markdown]
# $x_2$ alone does not show which cell was 1. From the stack, one subtraction shows the neighbours
# without the cell itself. Now the weights of a light layer, with $3 \to 3$ channels and 3 × 3
# cells. Eq. 20.2 gives $9 \cdot 3 \cdot 3 = 81$ and $3 \cdot 3 + 9 \cdot 3 = 36$:

# %%
tiny = replace(B4, mid_widths=(3, 3, 3, 3), kernels=(3, 3, 3, 3))
dense, light = (num_parameters(tiny.layer(stage, 3)) for stage in (2, 3))
print(f"dense {dense}, light {light} weights")
assert (dense, light) == (81, 36)

# %% [markdown]
# ## The real module

# %%
source(HGBlock)

# %%
source(HGNetV2Config.layer)

# %%
source(Stem.forward)

# %% [markdown]
# All seven maps of the block that we drew go into the squeeze:

# %%
with torch.no_grad():
    stacked = torch.cat(kept, dim=1)
    print("channels:", [m.shape[1] for m in kept], "together", stacked.shape[1])
    assert torch.equal(block.aggregation(stacked), block(given))
assert stacked.shape[1] == 512 + 6 * 192

# %% [markdown]
# ## Look inside: where does the stem look?
#
# A filter of 2 × 2 has no centre cell, and the stem has such filters. It pads the map on the right
# and below. Does it look too far to the right? We compare with the stem of ResNet-D: which pixels
# can change the cell in row 40, column 40? Its own pixels are 160 … 163.


# %%
def pixels_read(stem):
    """Return the first and the last column of pixels that the stem's cell (40, 40) can read."""
    picture = torch.rand(1, 3, 320, 320, generator=generator).requires_grad_()
    cell = stem(picture)[0, :, 40, 40]
    gradient = torch.autograd.grad(cell.square().sum(), picture)[0][0]
    columns = gradient.abs().sum((0, 1)).nonzero().flatten()
    return int(columns.min()), int(columns.max())


# %%
resnet = rtdetr_r50().backbone.build()
read = {"ResNet-D": pixels_read(nn.Sequential(resnet.stem, resnet.pool))}
read["HGNetv2"] = pixels_read(Stem(B4))
for name, (first, last) in read.items():
    middle = (first + last) / 2 - 161.5
    print(f"{name:8} reads columns {first} … {last}; its middle is {middle:+.1f} pixels off")

# %%
# alt: Two bars over an axis of pixel columns, and a grey band at columns 160 to 164 for the cell.
#   ResNet-D's bar lies mostly left of the band, HGNetv2's is centred on it and shorter.
fig, ax = plt.subplots(figsize=(5.6, 2.5), layout="compressed")
ax.axvspan(160, 164, color="#808080", alpha=0.35, label="the cell's own pixels")
colors = dict(zip(read, (SKY, VERMILLION), strict=True))
for row, (name, (first, last)) in enumerate(read.items()):
    ax.barh(row, last + 1 - first, left=first, height=0.5, color=colors[name])
    ax.plot((first + last + 1) / 2, row, "k|", ms=14, mew=2, label="middle" * (row == 0))
ax.set(yticks=[0, 1], yticklabels=read, xlabel="column of the picture (pixels)")
ax.set(xlim=(152, 170), ylim=(-0.5, 1.5), xticks=range(152, 171, 4))
fig.suptitle("ResNet-D's stem reads too far left, HGNetv2's does not", fontsize=11)
key_above(ax, 2)

# %% [markdown]
# It is the other way round. A 3 × 3 filter with stride 2 and one row of padding looks half a step
# to the left and up. Two of them and a max pool move ResNet-D's square by 1.5 pixels. The 2 × 2
# filters of HGNetv2 look to the right, and undo most of it. (Both networks learn to live with such
# a shift. It is a reason why a backbone cannot be mirrored exactly.)

# %%
middles = {name: abs((first + last) / 2 - 161.5) for name, (first, last) in read.items()}
assert middles == {"ResNet-D": 1.5, "HGNetv2": 0.5}

# %% [markdown]
# ## Predict, then break it
#
# **First, a broken layer.** The third of six layers returns only zeros. In a plain chain of layers
# nothing that comes later knows the input any more. **Predict**: how many of the seven maps of a
# block still depend on the input? Does its output?


# %%
def depends(result, source):
    total = result.square().sum()
    gradient = torch.autograd.grad(total, source, retain_graph=True, allow_unused=True)[0]
    return gradient is not None and bool((gradient != 0).any())


broken = HGBlock(B4, 3, 512, residual=False)
for weight in broken.layers[2].parameters():
    nn.init.zeros_(weight)
given = torch.randn(1, 512, 8, 8, generator=generator).requires_grad_()
maps = [given]
for layer in broken.layers:
    maps.append(layer(maps[-1]))
alive = [depends(m, given) for m in maps]
print("maps that know the input:", [f"x{k}" for k, known in enumerate(alive) if known])
print("chain:", alive[-1], " block:", depends(broken(given), given))

# %%
assert alive == [True, True, True, False, False, False, False]
assert depends(broken(given), given)

# %% [markdown]
# Three maps are left, and with them the output. The same holds for gradients: in training every
# layer gets a gradient past all layers above it.
#
# **Second, the light layers.** B4, the backbone of L, has 13.5 million parameters. It has light
# layers in stages 3 and 4. **Predict**: how many would it have if all layers were dense? And if all
# were light?

# %%
counts = {}
with torch.device("meta"):
    for name, stages in {"dense everywhere": (), "as in L": (3, 4), "light": (1, 2, 3, 4)}.items():
        counts[name] = num_parameters(replace(B4, light=stages).build())
for name, count in counts.items():
    print(f"{name:17} {count / 1e6:5.1f} M")
assert counts["dense everywhere"] > 4.5 * counts["as in L"]
assert counts["as in L"] < 1.05 * counts["light"]

# %% [markdown]
# Without light layers the backbone would have nearly five times as many parameters, and more than
# the whole of RT-DETR-R50. But making the first two stages light too saves almost nothing: they are
# narrow. So there the designers kept dense filters, which mix channels and cells at once.
#
# How does it depend on the size of the filter? For 192 channels, as in stage 3:

# %%
# alt: Two rising curves of parameters over filter sizes 1 to 9, on a logarithmic axis. The dense
#   one rises from 37 thousand to 3 million, the light one stays between 37 and 52 thousand.
sizes, width = [1, 3, 5, 7, 9], 192
curves = {"dense": [k * k * width * width for k in sizes]}
curves["light"] = [width * width + k * k * width for k in sizes]
fig, ax = plt.subplots(figsize=(5.6, 3.2), layout="compressed")
looks, beside = (("o-", -28), ("s--", 9)), {"textcoords": "offset points", "ha": "right"}
for (name, values), (style, shift) in zip(curves.items(), looks, strict=True):
    ax.plot(sizes, values, style, color=BLUE if name == "dense" else ORANGE)
    ax.annotate(f"{name} layer", (9, values[-1]), (0, shift), **beside)
arrow = {"arrowstyle": "->"}
place = {"xytext": (5, 130_000), "ha": "center", "arrowprops": arrow}
ax.annotate("stage 3 of B4", (5, curves["light"][2]), **place)
ax.set(yscale="log", xticks=sizes, xlabel="side of the filter (cells)", ylabel="weights")
ax.set_title("A light layer pays almost nothing for a larger filter", fontsize=11)

# %%
light = num_parameters(B4.layer(3, 192))
print(f"5 × 5 cells: dense {curves['dense'][2]:,}, light {light:,}")
assert light == curves["light"][2]
assert curves["dense"][2] / light > 22

# %% [markdown]
# **Third, another family.** A backbone is a value. **Predict**: what must change in `nano`, which
# has a ResNet-D, to work with an HGNetv2?

# %%
small = HGNetV2Config(
    stem=(16, 24),
    widths=(32, 64, 96, 128),
    mid_widths=(16, 16, 32, 32),
    depths=(1, 1, 1, 1),
    num_layers=(3, 3, 3, 3),
    norm=nn.BatchNorm2d,
)
other = replace_at(lab.rtdetr_nano(10), "backbone", small)
model, nano = other.build().eval(), lab.rtdetr_nano(10).build().eval()
with torch.no_grad():
    prediction = model(torch.rand(1, 3, 256, 256, generator=generator))
same = [n for n, part in nano.named_children() if n != "backbone"]
same = {n: num_parameters(getattr(model, n)) == num_parameters(getattr(nano, n)) for n in same}
print("boxes", tuple(prediction.boxes.shape), " other parts unchanged:", all(same.values()))
assert all(same.values())

# %% [markdown]
# Nothing. The widths of the three maps are the same, and so are the strides. The taps `backbone.S3`
# to `backbone.S5`, and with them all visualizers, work as before.
#
# ## What it costs
#
# We count R50 and L, R101 and X, at 640 × 640.

# %%
totals = {}
with torch.device("meta"):
    for preset in (rtdetr_r50, rtdetr_l, rtdetr_r101, rtdetr_x):
        made, picture = preset().build().eval(), torch.rand(1, 3, 640, 640)
        totals[preset.__name__] = cost(made, picture)
for name, total in totals.items():
    backbone = total.rows[0]
    print(f"{name:11} {total.params / 1e6:4.1f} M, {total.flops / 1e9:5.1f} GFLOPs;", end=" ")
    print(f"backbone {backbone[1] / 1e6:4.1f} M, {backbone[2] / 1e9:5.1f} GFLOPs")

# %%
# alt: Four bars of GFLOPs, split into backbone, encoder, decoder and the rest. L is shorter than
#   R50 and X shorter than R101; only the part of the backbone differs within a pair.
bars = {}
for name, total in totals.items():
    work = {part: flops / 1e9 for part, _, flops in total.rows}
    shown = {part: work[part] for part in ("backbone", "encoder", "decoder")}
    bars[name.removeprefix("rtdetr_")] = shown | {"the rest": work["all"] - sum(shown.values())}
ax = part_bars(bars, "GFLOPs at 640 × 640 (training form)", new_axes(None, 3, 5.6))
ax.figure.suptitle("L and X save in the backbone, and nowhere else", fontsize=11)

# %% [markdown]
# The paper gives L 53.0 AP at 114 FPS and R50 53.1 AP at 108 FPS; X 54.8 AP and R101 54.3 AP, both
# at 74 FPS (Table 2; T4, TensorRT, FP16). So L has the quality of R50 with a quarter fewer
# parameters and a fifth fewer operations, but is only 5 % faster: a depthwise filter does few
# operations for every byte that it reads (notebook 17).

# %%
saved = 1 - totals["rtdetr_l"].params / totals["rtdetr_r50"].params
print(f"L has {saved:.0%} fewer parameters than R50")
assert 0.2 < saved < 0.25
assert totals["rtdetr_l"].rows[1] == totals["rtdetr_r50"].rows[1], "the same encoder"

# %%
with torch.device("meta"):
    net = B4.build()
    stages = [("stem", net.stem), *((f"S{i + 2}", s) for i, s in enumerate(net.stages))]
    table = cost(nn.Sequential(OrderedDict(stages)), torch.rand(1, 3, 640, 640))
table

# %% [markdown]
# Stage 3 (S4) has three blocks, and most of the work. It is the map where most objects of COCO are
# a few cells wide.
#
# ## Exercises
#
# **1.** A light layer of stage 4 of B4 has 384 channels in and out and a 5 × 5 filter. How many
# times fewer weights does it have than a dense one?

# %%
answer = ...

# %% tags=["solution"]
times = 25 * 384 * 384 / num_parameters(B4.layer(4, 384))
check(answer, times, hint="Eq. 20.2 with k = 5.", tolerance=0.02)

# %% [markdown]
# **2.** How many channels enter the squeeze of the *second* block of stage 3? Its input has 1024.

# %%
answer = ...

# %% tags=["solution"]
second = HGBlock(B4, 3, 1024, residual=True).aggregation[0].conv.in_channels
check(answer, second, hint="The input, and six layers of 192 channels.")

# %% [markdown]
# **3.** B5, the backbone of X, has how many convolutions in the layers of its blocks (without
# squeeze, excite, stem and the halving)? A light layer has two.

# %%
answer = ...

# %% tags=["solution"]
B5 = hgnetv2_b5()
of_stages = [6 * depth * (2 if n in B5.light else 1) for n, depth in enumerate(B5.depths, start=1)]
check(answer, sum(of_stages), hint="Depths 1, 2, 5, 2; six layers each; stages 3 and 4 are light.")

# %% [markdown]
# **Next**: [21 · D-FINE](21_dfine.ipynb) takes this backbone, and lets every edge of a box say how
# sure it is. The page `docs/line.md` shows all models of this line.
