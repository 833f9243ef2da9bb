# %% [markdown]
# # 07 · CCFF: coarse and fine maps exchange features, by convolutions
#
# **Paper** RT-DETR §4.2, Fig. 5 ("CCFM" in the preprint); RepVGG (Ding et al. 2021) · **Chapter**
# `rtdetr_lab/ccff.py` · **Before this** [06 AIFI](06_aifi.ipynb)
#
# CCFF (CNN-based cross-scale feature fusion) mixes S3, S4 and F5 without any attention. After this
# notebook you can draw its two paths, test which of them a detector needs, and merge two
# convolutions into one.

# %% tags=["imports"]
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn

import rtdetr_lab as lab
from rtdetr_lab.ccff import CCFF, CCFFConfig, CSPRepLayer, RepVggBlock, upsample_to
from rtdetr_lab.kernels.folding import fused, side_by_side
from rtdetr_lab.notebook import check, cost, count_hits, seeded, shapes, source
from rtdetr_lab.viz.features import feature_stages

# %%
generator = seeded()
model = lab.load_pretrained("nano")
ccff = model.encoder.ccff
images, targets = shapes(*range(8))  # 320 × 320 pixels

# %% [markdown]
# ## The end, first
#
# Columns are levels, and rows are stages: the maps that enter CCFF, the maps after the top-down
# path, and the maps after the bottom-up path. The decoder reads the last row. There the large
# triangle is bright on the two coarse levels as well. (F5 is evenly bright because AIFI ends in a
# layer norm: the feature vectors of its cells have nearly the same length.)

# %%
# alt: Nine heat maps of one scene: three levels before CCFF, after the top-down path, after the
#   bottom-up path. On the finest level the outlines of shapes are bright at every stage. F5 has
#   nearly the same strength everywhere. At the end the middle of the large triangle is bright on
#   both coarse levels.
with torch.no_grad(), lab.record(model) as seen:
    prediction = model(images)
    entering = [p(seen[f"backbone.S{n}"])[3] for n, p in enumerate(model.encoder.project, 3)]
entering[2] = seen["encoder.aifi.F5"][3]
ways = ("top_down", "bottom_up")
down, up = ([seen[f"encoder.ccff.{way}.{n}"][3] for n in range(3)] for way in ways)
stages = {"S3, S4, F5": entering, "top-down: F": down, "bottom-up: O": up}
axes = feature_stages(stages, images[3], shared=True)
axes[1].figure.suptitle("edges on the fine map, objects on the coarse ones", fontsize=10)

# %% [markdown]
# ## The question
#
# S3 has 16 times as many cells as S5, and shows where every edge is. A cell of S5 reads a large
# square of the picture, and can show what is there. A small object needs both. CCFF goes top-down
# first, from coarse to fine, and then bottom-up:
#
# ```
# F5─lateral─F̂5───────────────────────fuse─O5
#            ↓ up ×2                  ↑ stride 2
# S4────────fuse─F4─lateral─F̂4───fuse─O4
#                           ↓ up  ↑ stride 2
# S3───────────────────────fuse───O3 = F3
# ```
#
# Arrows down are top-down, arrows up are bottom-up; `fuse` stacks the maps that enter it.
#
# $$ \hat F_l = \mathrm{lateral}(F_l), \quad
#    F_l = \mathrm{fuse}([\,\uparrow_2 \hat F_{l+1},\, S_l]), \quad
#    O_{l+1} = \mathrm{fuse}([\downarrow_2 O_l,\, \hat F_{l+1}]), \quad O_3 = F_3 \tag{07.1} $$
#
# $F_5$ comes from AIFI; then we compute $F_4$, $F_3 = O_3$, $O_4$ and $O_5$. A lateral is a 1 × 1
# convolution, $\uparrow_2$ repeats every cell 2 × 2, and $\downarrow_2$ is a 3 × 3 convolution with
# stride 2. The square brackets stack two maps along the channels, and a block of convolutions
# (fuse) mixes them. A cell is mixed only with cells near its place, so the work grows with $N$ and
# not with $N^2$. Fuse contains RepVGG blocks. They lead to a second question: how can a layer train
# as two convolutions and run as one?
#
# ## By hand, on 3 × 3 cells
#
# **Upsampling.** Every cell of a 2 × 2 map is repeated 2 × 2, and the result is cut to 3 × 3. Cell
# $i$ of the fine map reads cell $\lfloor i/2 \rfloor$ of the coarse map, for every size.

# %%
coarse, fine = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.empty(1, 1, 3, 3)
upsample_to(coarse, fine)[0, 0]

# %%
rows = [[coarse[0, 0, i // 2, j // 2].item() for j in range(3)] for i in range(3)]
assert upsample_to(coarse, fine)[0, 0].tolist() == rows

# %% [markdown]
# **Two branches.** A 3 × 3 convolution computes the differences from the four neighbours. A 1 × 1
# convolution multiplies the cell by three. The two results are added.

# %%
x = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
dense = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
pointwise = torch.tensor(3.0).view(1, 1, 1, 1)
two = F.conv2d(x, dense, padding=1) + F.conv2d(x, pointwise)
two[0, 0]

# %% [markdown]
# The middle cell is $2 + 4 + 6 + 8 - 4 \cdot 5 + 3 \cdot 5 = 15$. One kernel multiplies the cell
# itself by $-4$, the other by 3. So a single kernel with $-4 + 3 = -1$ in its middle is enough ($*$
# is a convolution, and pad puts zeros around $W_1$):
#
# $$ W_3 * x + W_1 * x = \bigl(W_3 + \mathrm{pad}(W_1)\bigr) * x \tag{07.2} $$

# %%
merged = dense + F.pad(pointwise, (1, 1, 1, 1))
one = F.conv2d(x, merged, padding=1)
print(merged[0, 0])
assert torch.equal(one, two)

# %% [markdown]
# The results are exactly equal. This also works with a batch norm in each branch: in eval mode a
# batch norm multiplies each channel by a constant and adds a constant, so it can be merged into
# kernel and bias. Why have two branches at all? Because they *train* differently: each has its own
# norm. RepVGG's authors found that such a sum trains better than a single convolution.
#
# ## The real module

# %%
source(RepVggBlock)

# %%
source(side_by_side)

# %%
source(CSPRepLayer.forward)

# %% [markdown]
# One path has a 1 × 1 convolution and three RepVGG blocks, the other only a 1 × 1 convolution. The
# two are added. Now the top-down path and the bottom-up path:

# %%
source(CCFF._top_down)

# %%
source(CCFF._bottom_up)

# %% [markdown]
# We merge the twelve RepVGG blocks of the trained `nano`, and test whether its output changes.


# %%
def all_merged(ccff):
    """Merge every RepVGG block into one convolution. Changes `ccff`."""
    for layer in (*ccff.top_down, *ccff.bottom_up):
        layer.blocks = nn.Sequential(*[fused(block) for block in layer.blocks])
    return ccff


merged = lab.load_pretrained("nano")
all_merged(merged.encoder.ccff)
with torch.no_grad():
    difference = merged.encoder(merged.backbone(images))[0] - seen["encoder.ccff.bottom_up.0"]
print("O3 is the same, except for rounding:", bool(difference.abs().max() < 1e-3))
assert difference.abs().max() < 1e-3

# %% [markdown]
# **Predict**: what if we activate *each branch* first, and then add? It looks like a small change.
# Can we still merge the two convolutions?

# %%
each = F.silu(F.conv2d(x, dense, padding=1)) + F.silu(F.conv2d(x, pointwise))
print("add, then activate:", [round(v, 2) for v in F.silu(two).flatten().tolist()])
print("activate, then add:", [round(v, 2) for v in each.flatten().tolist()])
assert not torch.allclose(each, F.silu(one), atol=0.5)

# %% [markdown]
# No. An activation is not linear: the sum of two activations is not the activation of the sum.
# Merging works only because the activation comes *after* the sum.
#
# ## Look inside
#
# Which cells depend on which? The gradient shows it: which cells of the input maps can change the
# middle cell of an output map?

# %%
entering = [m[None].requires_grad_() for m in entering]
reached = {}
for name, out in zip(("O3", "O4", "O5"), ccff(entering), strict=True):
    middle = out[0, :, out.shape[2] // 2, out.shape[3] // 2].square().sum()
    grads = torch.autograd.grad(middle, entering, retain_graph=True)
    reached[name] = [float((g[0].abs().sum(0) > 0).float().mean()) for g in grads]
    shares = dict(zip(("S3", "S4", "F5"), reached[name], strict=True))
    print(name, "depends on", {level: f"{share:.1%}" for level, share in shares.items()})
assert all(share > 0 for shares in reached.values() for share in shares), "none is ignored"
assert reached["O3"][0] < reached["O4"][0] < reached["O5"][0]

# %% [markdown]
# Every output depends on every input level (S3, S4 and F5). O3 is ready after the top-down path,
# and its cell depends only on the cells near it in these maps. (But every cell of F5 depends on all
# cells of S5, because of AIFI.) O5 is computed last and depends on the most cells.
#
# ## Predict, then break it
#
# We cut the connections. We sort the shapes by size, and count those that get a good box (score
# above 0.5, IoU above 0.75). **Predict** for each cut which sizes suffer: (a) the upsampled maps of
# the top-down path are zero; (b) the downsampled maps of the bottom-up path are zero; (c) the
# downsampled maps are not zero, but shifted one cell to the right.


# %%
def by_size(prediction):
    """Count good boxes and shapes per size: below 40, 40 to 80, above 80 pixels."""
    good = count_hits(prediction, targets, 0.75) > 0
    side = 320 * torch.cat(targets.boxes)[:, 2:].prod(1).sqrt()
    size = torch.bucketize(side, torch.tensor([40.0, 80.0]))
    return size[good].bincount(minlength=3).tolist(), size.bincount().tolist()


# %%
def wired(coming_down=lambda x: x, going_up=lambda x: x):
    """Count good boxes with changed connections between the levels."""

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
cut = {"untouched": before, "(a) no top-down": wired(coming_down=torch.zeros_like)}
cut["(b) no bottom-up"] = wired(going_up=torch.zeros_like)
cut["(c) bottom-up shifted"] = wired(going_up=lambda x: x.roll(1, dims=-1))
print("small, medium, large:", there)
cut

# %% [markdown]
# We said above that small objects need the meaning from the coarse maps. This is the usual reason
# for a top-down path. In `nano` they do not need it: without the path, almost no box is lost. The
# outline of a shape shows its class, and `nano` hardly needs S5 (notebooks 05 and 06).
#
# But `nano` needs the bottom-up path. Without it no large shape gets a good box, but only few small
# shapes lose theirs. So in `nano`, O4 and O5 get their information about large shapes from the
# finer maps. *The name of a level does not tell where its content comes from.* (c) shows that the
# bottom-up path carries positions: we shift its maps by one cell, and about 30 % of the good boxes
# are lost.

# %%
assert sum(cut["(a) no top-down"]) >= sum(before) - 2
assert cut["(b) no bottom-up"][2] == 0
assert cut["(b) no bottom-up"][0] >= before[0] - 4
assert sum(cut["(c) bottom-up shifted"]) < 0.75 * sum(before)

# %% [markdown]
# The paper measures both paths together on COCO (Table 3; ResNet-50, 12 epochs): 44.9 AP with
# attention within each scale and nothing across, and 46.4 AP with such paths (PANet) added.
#
# ## What it costs
#
# We count CCFF at 640 × 640: in RT-DETR-R50, the same with its blocks merged, and in r18, where the
# blocks have half the channels:


# %%
def on_meta(expansion, change=lambda ccff: ccff):
    with torch.device("meta"):
        maps = [torch.rand(1, 256, side, side) for side in (80, 40, 20)]
        return cost(change(CCFFConfig(expansion).build(256, 3).eval()), maps)


costs = {"r50": on_meta(1.0), "r50, merged": on_meta(1.0, all_merged), "r18": on_meta(0.5)}
for name, c in costs.items():
    print(f"{name:12} {c.params / 1e6:5.2f} M parameters {c.flops / 1e9:6.2f} GFLOPs")

# %% [markdown]
# CCFF takes 47 of r50's 138 GFLOPs, and AIFI takes 0.8. So these convolutions are cheap only when
# compared with attention over all cells (85 GFLOPs, notebook 06). In the smaller models the blocks
# have half the channels inside, and CCFF does a third of the work. The paper (§4.4) scales its
# encoder by the number of RepVGG blocks and by the width $D$; a larger $D$ makes AIFI more
# expensive, too. Merging saves few operations, because a 1 × 1 costs a ninth of a 3 × 3. But it
# saves a second pass over the map, its norm, and the sum.

# %%
assert costs["r18"].flops < 0.34 * costs["r50"].flops
assert 0.85 < costs["r50, merged"].flops / costs["r50"].flops < 0.95

# %% [markdown]
# ## Exercises
#
# **1.** A 3 × 3 kernel has 2 in all nine places. The 1 × 1 kernel of the other branch is 5. What is
# in the middle of the merged kernel?

# %%
answer = ...

# %% tags=["solution"]
nine = F.pad(torch.full((1, 1), 5.0), (1, 1, 1, 1)) + 2
check(answer, nine[1, 1], hint="Eq. 07.2.")

# %% [markdown]
# **2.** Which of these can be merged into one convolution? "a": the sum of a 3 × 3, a 1 × 1 and the
# input itself. "b": a 1 × 1, then a 3 × 3. "c": a 1 × 1, a ReLU, then a 3 × 3. Answer with a set,
# such as `{"a", "c"}`.

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
# **3.** We cut the bottom-up path only from O4 to O5, and keep it from O3 to O4. How many of the
# large shapes still get a good box?

# %%
answer = ...

# %% tags=["solution"]
hook = ccff.downsample[1].register_forward_hook(lambda m, x, out: torch.zeros_like(out))
with torch.no_grad():
    counts, _ = by_size(model(images))
hook.remove()
check(answer, counts[2], hint="`ccff.downsample[1]`, as in `wired`.")

# %% [markdown]
# **Next**: [08 · The hybrid encoder](08_hybrid_encoder.ipynb). We put the two parts together,
# attention within S5 and convolutions across the scales, and compare them with other encoders.
