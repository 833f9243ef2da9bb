# %% [markdown]
# # 07 · CCFF: coarse and fine maps talk, by convolutions
#
# **Paper** RT-DETR §4.2, Fig. 5 ("CCFM" in the preprint); RepVGG (Ding et al. 2021) · **Chapter**
# `rtdetr_lab/ccff.py` · **Before this** [06 AIFI](06_aifi.ipynb)
#
# S5 is told what S3 sees, and S3 what S5 knows, without a single attention weight. Afterwards you
# can draw the two ways that news takes, say which one a detector of yours depends on, and turn two
# convolutions into one.

# %%
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn

import rtdetr_lab as lab
from rtdetr_lab.ccff import CCFF, CCFFConfig, CSPRepLayer, RepVggBlock, upsample_to
from rtdetr_lab.kernels.folding import fused, side_by_side
from rtdetr_lab.notebook import check, cost, count_hits, seeded, shapes, source
from rtdetr_lab.viz.features import feature_stages

generator = seeded()
model = lab.load_pretrained("nano")
ccff = model.encoder.ccff
images, targets = shapes(*range(8))  # 320 × 320 pixels

# %% [markdown]
# ## The end, first
#
# Rows are stages, columns are levels. First the maps as they come in, then after the way down, then
# after the way up, which is what everything later reads. Now the large triangle shines on S4 and S5
# as well. (F5 is evenly bright at first because AIFI ends in a layer norm: its cells differ in
# direction, not in length.)

# %%
# alt: Nine heat maps of one scene: three levels before CCFF, after the way down, after the way up.
#   On S3 outlines of shapes stand out at every stage; F5 begins evenly bright; after the way up
#   the middle of the large triangle is bright on S4 and S5.
with torch.no_grad(), lab.record(model) as seen:
    prediction = model(images)
    entering = [p(seen[f"backbone.S{n}"])[3] for n, p in enumerate(model.encoder.project, 3)]
entering[2] = seen["encoder.aifi.F5"][3]
ways = ("top_down", "bottom_up")
down, up = ([seen[f"encoder.ccff.{way}.{n}"][3] for n in range(3)] for way in ways)
axes = feature_stages({"S3, S4, F5": entering, "top-down": down, "bottom-up": up}, images[3])

# %% [markdown]
# ## The question
#
# S3 has 64 times as many cells as S5 and knows where every edge is. S5 has seen most of the picture
# and may know what it is. A small object needs both. The news goes down, from coarse to fine, and
# then up again:
#
# ```
# F5 ──lateral──┬────────────────────── cat ─ fuse ── P5
#               ↑2                       │
# S4 ────────  cat ─ fuse ──lateral──┬── cat ─ fuse ──↓2
#                                    ↑2   │
# S3 ────────────────────────────── cat ─ fuse ──↓2── P3
#         top-down: what              bottom-up: where
# ```
#
# $$ T_l = \mathrm{fuse}([\,\uparrow_2 \hat T_{l+1},\, S_l]), \quad \hat T = \mathrm{lateral}(T),
#    \qquad O_{l+1} = \mathrm{fuse}([\downarrow_2 O_l,\, \hat T_{l+1}]) \tag{07.1} $$
#
# Every step joins two maps by concatenation and lets a block of convolutions mix them. Each cell
# talks to the cells that lie over and under it, so the work grows with $N$ and not with $N^2$. The
# block is made of RepVGG blocks, which bring a second question: how can a layer be trained as two
# convolutions and run as one?
#
# ## By hand, on 3 × 3 cells
#
# **Up.** Every cell of a 2 × 2 map is repeated, and what sticks out is cut. Cell $i$ of the fine
# map reads cell $\lfloor i/2 \rfloor$ of the coarse one, whatever the size.

# %%
coarse, fine = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.empty(1, 1, 3, 3)
upsample_to(coarse, fine)[0, 0]

# %%
rows = [[coarse[0, 0, i // 2, j // 2].item() for j in range(3)] for i in range(3)]
assert upsample_to(coarse, fine)[0, 0].tolist() == rows

# %% [markdown]
# **Two branches.** A 3 × 3 convolution takes differences with the four neighbours, a 1 × 1 beside
# it triples the cell, and the results are added.

# %%
x = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
dense = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
pointwise = torch.tensor(3.0).view(1, 1, 1, 1)
two = F.conv2d(x, dense, padding=1) + F.conv2d(x, pointwise)
two[0, 0]

# %% [markdown]
# The middle cell: $2 + 4 + 6 + 8 - 4 \cdot 5 + 3 \cdot 5 = 15$. Nothing stops us from collecting
# what multiplies the cell itself, $-4 + 3 = -1$, into one kernel:
#
# $$ W_3 * x + W_1 * x = \bigl(W_3 + \mathrm{pad}(W_1)\bigr) * x \tag{07.2} $$

# %%
merged = dense + F.pad(pointwise, (1, 1, 1, 1))
one = F.conv2d(x, merged, padding=1)
print(merged[0, 0])
assert torch.equal(one, two)

# %% [markdown]
# Exactly equal. A batch norm in each branch does not hinder it: in eval mode it is a factor and a
# summand per channel, and goes into kernel and bias. What for, then, are two branches? For
# training, where they *learn* differently: each has a norm of its own, and RepVGG's authors found
# that such sums train better than the one convolution they can become.
#
# ## The real module

# %%
source(RepVggBlock)

# %%
source(side_by_side)

# %%
source(CSPRepLayer.forward)

# %% [markdown]
# Three RepVGG blocks on one path, nothing but a 1 × 1 on the other, and a sum. Then the two ways:

# %%
source(CCFF._top_down)

# %%
source(CCFF._bottom_up)

# %% [markdown]
# Merge the twelve RepVGG blocks of the trained `nano` and see whether anything has changed.


# %%
def all_merged(ccff):
    """Its RepVGG blocks, each as one convolution. Changes `ccff`."""
    for layer in (*ccff.top_down, *ccff.bottom_up):
        layer.blocks = nn.Sequential(*[fused(block) for block in layer.blocks])
    return ccff


merged = lab.load_pretrained("nano")
all_merged(merged.encoder.ccff)
with torch.no_grad():
    difference = merged.encoder(merged.backbone(images))[0] - seen["encoder.ccff.bottom_up.0"]
print("the same on P3, but for rounding:", bool(difference.abs().max() < 1e-3))
assert difference.abs().max() < 1e-3

# %% [markdown]
# **Predict**: somebody activates *each branch* and adds then. It looks like a detail. Can it still
# be merged?

# %%
each = F.silu(F.conv2d(x, dense, padding=1)) + F.silu(F.conv2d(x, pointwise))
print("activated together:", [round(v, 2) for v in F.silu(two).flatten().tolist()])
print("activated apart:   ", [round(v, 2) for v in each.flatten().tolist()])
assert not torch.allclose(each, F.silu(one), atol=0.5)

# %% [markdown]
# No: a sum of bends is not a bend of the sum. That the activation comes *after* the sum is what the
# whole trick stands on.
#
# ## Look inside
#
# Who hears whom? We ask the gradient: which cells of the maps that come in could change the middle
# cell of a map that goes out?

# %%
entering = [m[None].requires_grad_() for m in entering]
heard = {}
for name, out in zip(("P3", "P4", "P5"), ccff(entering), strict=True):
    middle = out[0, :, out.shape[2] // 2, out.shape[3] // 2].square().sum()
    grads = torch.autograd.grad(middle, entering, retain_graph=True)
    heard[name] = [float((g[0].abs().sum(0) > 0).float().mean()) for g in grads]
    shares = dict(zip(("S3", "S4", "F5"), heard[name], strict=True))
    print(name, "hears of", {level: f"{share:.1%}" for level, share in shares.items()})
assert all(share > 0 for shares in heard.values() for share in shares), "everybody hears all levels"
assert heard["P3"][0] < heard["P4"][0] < heard["P5"][0]

# %% [markdown]
# Every level hears every level. P3 is done after the way down and hears its neighbourhood, P5 comes
# last and hears most.
#
# ## Predict, then break it
#
# We cut the wires. The shapes are sorted by their size, and we count those that end in a good box
# (score above 0.5, IoU above 0.75). **Predict** for each which sizes suffer: (a) nothing comes down
# from coarse to fine; (b) nothing goes up from fine to coarse; (c) what goes up arrives one cell to
# the right.


# %%
def by_size(prediction):
    """Good boxes per size of shape: below 40, 40 to 80, above 80 pixels."""
    good = count_hits(prediction, targets, 0.75) > 0
    side = 320 * torch.cat(targets.boxes)[:, 2:].prod(1).sqrt()
    size = torch.bucketize(side, torch.tensor([40.0, 80.0]))
    return size[good].bincount(minlength=3).tolist(), size.bincount().tolist()


# %%
def wired(coming_down=lambda x: x, going_up=lambda x: x):
    """Good boxes if messages between levels are changed."""

    def sent(coarse, fine):
        return coming_down(upsample_to(coarse, fine))

    hooks = [d.register_forward_hook(lambda m, x, out: going_up(out)) for d in ccff.downsample]
    with torch.no_grad(), patch("rtdetr_lab.ccff.upsample_to", sent):
        counts, _ = by_size(model(images))
    for hook in hooks:
        hook.remove()
    return counts


# %%
before, there = by_size(prediction)
cut = {"untouched": before, "(a) nothing comes down": wired(coming_down=torch.zeros_like)}
cut["(b) nothing goes up"] = wired(going_up=torch.zeros_like)
cut["(c) one cell to the right"] = wired(going_up=lambda x: x.roll(1, dims=-1))
print("small, medium, large:", there)
cut

# %% [markdown]
# The textbook's reason for a way down, and ours above, is that small objects need to be told what
# they are. In `nano` they do not; cutting it costs nothing. Shapes are named by their outlines, and
# what S5 could tell has turned out to be idle before (notebooks 05 and 06).
#
# The way up is the one it lives on. Without it no large shape gets a good box, and small ones
# hardly notice: what P4 and P5 know about large shapes has come from S3. *The name of a level does
# not tell where its knowledge comes from.* (c) shows that it is place that goes up: the same news,
# one cell aside, and three boxes in ten are gone.

# %%
assert sum(cut["(a) nothing comes down"]) >= sum(before) - 2
assert cut["(b) nothing goes up"][2] == 0
assert cut["(b) nothing goes up"][0] >= before[0] - 4
assert sum(cut["(c) one cell to the right"]) < 0.75 * sum(before)

# %% [markdown]
# On COCO, the paper (Table 3; ResNet-50, 12 epochs) counts the ways together: 44.9 AP with
# attention within each scale and nothing across, 46.4 with a fusion of this kind added.
#
# ## What it costs
#
# In RT-DETR-R50, at 640 × 640, against half the width inside the blocks (r18), and merged:


# %%
def on_meta(expansion, change=lambda ccff: ccff):
    with torch.device("meta"):
        maps = [torch.rand(1, 256, side, side) for side in (80, 40, 20)]
        return cost(change(CCFFConfig(expansion).build(256, 3).eval()), maps)


costs = {"r50": on_meta(1.0), "r50, merged": on_meta(1.0, all_merged), "r18": on_meta(0.5)}
for name, c in costs.items():
    print(f"{name:12} {c.params / 1e6:5.2f} M parameters {c.flops / 1e9:6.2f} GFLOPs")

# %% [markdown]
# 47 of r50's 138 GFLOPs are spent here, and 0.8 in AIFI: convolutions are cheap beside attention
# over all cells (85, notebook 06), and not otherwise. The width inside the blocks is therefore how
# the paper scales its encoder: half of it is a third of the work. Merging saves little *work*, for
# a 1 × 1 is a ninth of a 3 × 3; what it saves is a second pass over the map, its norm, and the sum.

# %%
assert costs["r18"].flops < 0.34 * costs["r50"].flops
assert 0.85 < costs["r50, merged"].flops / costs["r50"].flops < 0.95

# %% [markdown]
# ## Exercises
#
# **1.** A 3 × 3 kernel has 2 in every place, beside it a 1 × 1 with 5. What is the middle of the
# merged kernel?

# %%
answer = ...

# %% tags=["solution"]
nine = F.pad(torch.full((1, 1), 5.0), (1, 1, 1, 1)) + 2
check(answer, nine[1, 1], hint="Eq. 07.2.")

# %% [markdown]
# **2.** Which can be merged into one convolution? "a": a 3 × 3, a 1 × 1 and the input itself,
# added. "b": a 1 × 1, then a 3 × 3. "c": a 1 × 1, a ReLU, then a 3 × 3. Answer a set, such as
# `{"a", "c"}`.

# %%
answer = ...

# %% tags=["solution"]
wide, thin = (torch.randn(4, 4, k, k, generator=generator) for k in (3, 1))
made = {
    "a": lambda x: F.conv2d(x, wide, padding=1) + F.conv2d(x, thin) + x,
    "b": lambda x: F.conv2d(F.conv2d(x, thin), wide, padding=1),
    "c": lambda x: F.conv2d(F.conv2d(x, thin).relu(), wide, padding=1),
}
x, y = torch.randn(2, 1, 4, 5, 5, generator=generator)
linear = {name for name, f in made.items() if torch.allclose(f(x + y), f(x) + f(y), atol=1e-3)}
check(answer, linear, hint="A convolution of a sum is the sum of the convolutions.")

# %% [markdown]
# **3.** Only the news from S4 up to S5 is cut; that from S3 to S4 stays. How many of the large
# shapes keep a good box?

# %%
answer = ...

# %% tags=["solution"]
hook = ccff.downsample[1].register_forward_hook(lambda m, x, out: torch.zeros_like(out))
with torch.no_grad():
    counts, _ = by_size(model(images))
hook.remove()
check(answer, counts[2], hint="`ccff.downsample[1]`, as in `wired`.")

# %% [markdown]
# **Next**: [08 · The hybrid encoder](08_hybrid_encoder.ipynb). Attention within S5, convolutions
# across: put together, and compared with what else could be done.
