# %% [markdown]
# # 06 · AIFI: attention, where the map is small
#
# **Paper** RT-DETR §4.2, Eq. 1 · **Chapter** `rtdetr_lab/aifi.py` ·
# **Before this** [05 backbone](05_backbone.ipynb)
#
# A cell of S5 has seen its own square of the picture. One transformer layer lets all cells of S5
# ask each other. Afterwards you can say why only they are asked, how a cell is told where it is,
# and what happens to the answer when it is not.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import torch

import rtdetr_lab as lab
from rtdetr_lab.aifi import AIFI, AIFIConfig, AIFILayer
from rtdetr_lab.layers import sine_2d, sine_2d_authors
from rtdetr_lab.notebook import check, chelsea, cost, count_good, online, seeded, shapes, source
from rtdetr_lab.viz.attention import attention_of_pixel, attention_per_head, position_similarity

generator = seeded()
model = lab.load_pretrained("nano")
aifi = model.encoder.aifi
images, targets = shapes(*range(8))  # 320 × 320 pixels: S5 has 10 × 10 cells
WEIGHTS = "encoder.aifi.layers.0.self_attn.weights"

# %% [markdown]
# ## The end, first
#
# The star is a cell in the large triangle. The glow is the attention it pays to the other cells,
# the mean of six heads. One would expect it to look around itself, or at the other shapes. It looks
# at the rim, and most at a corner where nothing is.

# %%
# alt: A scene with a large triangle and a star on it. Cells along the left and lower rim glow, the
#   lower left corner most; cells on the shapes hardly do.
with torch.no_grad(), lab.record(model) as seen:
    prediction = model(images)
weights = seen[WEIGHTS]  # picture, head, cell, cell
triangle = (184, 214)
fig, ax = plt.subplots(figsize=(4.2, 3.8), layout="compressed")
ax = attention_of_pixel(weights[3], images[3], (10, 10), triangle, ax=ax)

# %%
row, column = 214 // 32, 184 // 32
cell = row * 10 + column
print(f"row {row}, column {column}; its weights sum to", weights[3, :, cell].sum(-1).mean().item())
assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)

# %% [markdown]
# ## The question
#
# In DETR a transformer encoder relates every cell to every other. With $N$ cells that is $N^2$
# pairs. DETR had one map of stride 32. A detector with three maps has 21 times as many cells.

# %%
cells = {"S3": 80 * 80, "S4": 40 * 40, "S5": 20 * 20}  # at 640 × 640
every = sum(cells.values())
print(f"all: {every:,} cells, {every**2:,} pairs; S5: {cells['S5']} cells, {cells['S5'] ** 2:,}")
assert every**2 == 441 * cells["S5"] ** 2

# %% [markdown]
# The paper's answer is to ask S5 alone. Cells of S3 are edges and textures, and have little to say
# to the far end of the picture; S5 holds parts and objects, and those do. With $P$ a code of each
# cell's place, and $S_5$ as a list of cells,
#
# $$ F_5 = \mathrm{reshape}(\mathrm{AIFI}(Q = K = \mathrm{flat}(S_5) + P,\;
#    V = \mathrm{flat}(S_5))) \tag{06.1} $$
#
# "Attention-based intra-scale feature interaction" is its name, and one ordinary transformer layer
# is what it is. Why is $P$ in $Q$ and $K$, and not in $V$?
#
# ## By hand, on 3 × 3 cells
#
# Nine cells with two numbers each, a bright corner and darkness elsewhere. Every cell scores every
# cell by the product of their contents, and takes the mean of all, weighted by softmax.

# %%
bright, dark = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0])
content = torch.stack([bright, *[dark] * 8])  # 9 cells, row by row


def attend(query, key, value):
    return (query @ key.T).softmax(-1) @ value


heard = attend(content, content, content)
print("the bright cell hears", [round(v, 2) for v in heard[0].tolist()])
print("each of the others   ", [round(v, 2) for v in heard[1].tolist()])
e = torch.tensor(4.0).exp()
assert torch.isclose(heard[0, 0], 2 * e / (e + 8)), "its own score is 2 · 2 = 4, the others' 0"

# %% [markdown]
# The bright cell listens to itself, the dark ones to all alike. Nobody knows who is a neighbour of
# whom. Shuffle the cells, and the same answers come back, shuffled.

# %%
order = torch.randperm(9, generator=generator)
assert torch.allclose(attend(content[order], content[order], content[order]), heard[order])

# %% [markdown]
# Place has to be told. RT-DETR's code is sines and cosines of row $y$ and column $x$, at $D/4$
# frequencies from 1 down to nearly $1/T$, with $T = 10{,}000$:
#
# $$ P_{(y,x)} = [\,\sin y f_i,\; \cos y f_i,\; \sin x f_i,\; \cos x f_i\,], \qquad
#    f_i = T^{-4i/D} \tag{06.2} $$

# %%
place = sine_2d(3, 3, 8)[0]  # 9 cells, D = 8: two frequencies, 1 and 0.01
y, x = 2, 1
f = torch.tensor([1.0, 0.01])
by_hand = torch.cat([(y * f).sin(), (y * f).cos(), (x * f).sin(), (x * f).cos()])
print("row 2, column 1:", [round(v, 3) for v in by_hand.tolist()])
assert torch.allclose(place[y * 3 + x], by_hand)

# %% [markdown]
# Now give it to queries and keys. The dark cells, alike in content, hear different things.

# %%
told = torch.cat([content, place], dim=-1)  # content beside place, to keep the example readable
heard = attend(told, told, content)
print("bright share heard in each cell:")
print((heard[:, 0] / 2).view(3, 3))
assert heard[1, 0] > heard[5, 0] > heard[8, 0], "the nearer the bright corner, the more of it"

# %% [markdown]
# What they hear is content alone, because $V$ has no $P$: place decides who listens to whom, and is
# not a thing that is said.
#
# ## The real module

# %%
source(AIFILayer.forward)

# %%
source(AIFI.forward)

# %% [markdown]
# Our three lines by hand are one head of it. Recomputed from the layer's own matrices, on one
# picture:

# %%
s5 = torch.randn(1, 96, 10, 10, generator=generator)
tokens, layer = s5.flatten(2).transpose(1, 2), aifi.layers[0]
with torch.no_grad():
    where = tokens + sine_2d(10, 10, 96)
    q, k = layer.self_attn.q_proj(where), layer.self_attn.k_proj(where)
    mine = (q[0, :, :16] @ k[0, :, :16].T / 16**0.5).softmax(-1)  # 6 heads of 16 channels
    with lab.record(aifi) as inside:
        aifi(s5)
assert torch.allclose(inside["layers.0.self_attn.weights"][0, 0], mine, atol=1e-5)

# %% [markdown]
# ## Look inside
#
# First $P$ alone: how alike are the codes of the cells? Rows and columns near the starred cell
# resemble it, and what resembles it in both resembles it most.

# %%
# alt: A 10 by 10 heat map of similarity with one cell: a bright cross through its row and column,
#   brightest at the cell, fading with distance.
positions = sine_2d(10, 10, 96)[0]
ax = position_similarity(positions, (10, 10), (row, column))

# %%
alike = torch.cosine_similarity(positions, positions[cell], dim=-1).view(10, 10)
print("along its row:", [round(v, 2) for v in alike[row].tolist()])
assert alike.flatten().argmax() == cell
assert torch.allclose(alike[row, column - 3], alike[row - 3, column], atol=1e-4)

# %% [markdown]
# Then the six heads, for the same cell of the triangle.

# %%
# alt: Six small panels of the same scene, one per head. Heads 2 and 3 light a few cells at the rim
#   and in the lower left corner; the others are dim everywhere.
axes = attention_per_head(weights[3], images[3], (10, 10), triangle)

# %%
entropy = -(weights * weights.clamp(min=1e-12).log()).sum(-1)
print("cells a head listens to:", [round(n) for n in entropy.mean((0, 2)).exp().tolist()])
y, x = torch.arange(100) // 10, torch.arange(100) % 10
rim = (y == 0) | (y == 9) | (x == 0) | (x == 9)
on_rim = weights[..., rim].sum(-1)
print(f"cells on the rim: {rim.float().mean():.0%}, weight on them: {on_rim.mean():.0%}")
assert on_rim.mean() > 0.6 > rim.float().mean()
assert (on_rim.mean((0, 2)) > 0.5).all(), "every head, over eight pictures"

# %% [markdown]
# (The first line is $e$ to the entropy: a head with equal weights on so many cells would have it.)
# All heads spread over a third to a half of the map, and give two thirds of their weight to its
# rim. One reading: softmax has to spend its 1 somewhere, and a cell with nothing to ask spends it
# where it does no harm. Is that so?
#
# ## Predict, then break it
#
# We ask `nano`, and count good boxes (score above 0.5, IoU above 0.75) on eight pictures.
# **Predict** how many of its 53 good boxes are left, (a) if every cell listens to all alike, (b) if
# every cell listens only to itself, (c) without positions, (d) with the positions of a shuffled
# map, (e) if $F_5$ is blanked altogether.


# %%
def edited(name, edit):
    with torch.no_grad(), lab.record(model, keep=[], edit={name: edit}):
        return count_good(model(images), targets)


def placed(positions):
    """The model with another code of places."""
    before, aifi.cfg = aifi.cfg, replace(aifi.cfg, positions=positions)
    with torch.no_grad():
        count = count_good(model(images), targets)
    aifi.cfg = before
    return count


# %%
shuffle = torch.randperm(100, generator=generator)
counts = {"untouched": count_good(prediction, targets)}
counts["(a) all alike"] = edited(WEIGHTS, lambda w: torch.full_like(w, 1 / 100))
counts["(b) only itself"] = edited(WEIGHTS, lambda w: torch.eye(100).expand_as(w))
counts["(c) no positions"] = placed(None)
counts["(d) shuffled"] = placed(lambda *size: sine_2d(*size)[:, shuffle])
counts["(e) F5 blank"] = edited("encoder.aifi.F5", torch.zeros_like)
print(f"of {targets.num_boxes} shapes")
counts

# %% [markdown]
# Nothing happens. Not because the edits are not felt: they change $F_5$ a good deal, and without
# positions the heads no longer find the rim.

# %%
blind = replace(aifi.cfg, positions=None).build(96).eval()
blind.load_state_dict(aifi.state_dict())
with torch.no_grad():
    given = model.encoder.project[2](seen["backbone.S5"])
    with lab.record(blind) as unplaced:
        change = (blind(given) - aifi(given)).norm() / aifi(given).norm()
on_rim = unplaced["layers.0.self_attn.weights"][..., rim].sum(-1).mean()
print(f"without positions F5 moves by {change:.0%} of its length; weight on the rim: {on_rim:.0%}")
assert change > 0.2
assert on_rim < 0.45, "it was by its position that the rim was found"
assert all(abs(n - counts["untouched"]) <= 2 for n in counts.values())

# %% [markdown]
# `nano` does not need what AIFI says. Its shapes are scattered at random, so one tells nothing
# about another, and an outline is enough to name a shape. *That a layer is there does not show that
# it is used*, and a picture of its attention, handsome or not, does not either; only the edit does.
#
# Is AIFI useless, then? On COCO, where a keyboard speaks for a mouse beside it, the paper measures
# (Table 3; ResNet-50, 12 epochs): attention within every scale gives 44.9 AP, against 43.0 without
# an encoder. And once convolutions join the scales, attention on S5 alone gives 46.8, on all three
# 46.4, and it takes 7.9 ms instead of 12.2. A world decides what is worth learning in it.
#
# **Once more**, and this one is a property of the module and not of a world. The authors' code lays
# $P$ out column by column, beside cells that go row by row. **Predict** the consequence on 10 × 10
# cells, and on 6 × 10.

# %%
for height, width in ((10, 10), (6, 10)):
    ours, theirs = sine_2d(height, width, 96)[0], sine_2d_authors(height, width, 96)[0]
    wrong = int((ours != theirs).any(-1).sum())
    print(f"{height} × {width}: {wrong} of {height * width} cells are told another place")

# %%
theirs = replace(aifi.cfg, positions=sine_2d_authors).build(96).eval()
theirs.load_state_dict(aifi.state_dict())
for name, cut in {"square": images, "rectangle": images[:, :, 64:256]}.items():
    with torch.no_grad():
        given = model.encoder.project[2](model.backbone(cut)[-1])
        change = float((theirs(given) - aifi(given)).norm() / aifi(given).norm())
    print(f"{name}, {given.shape[2]} × {given.shape[3]} cells: F5 moves by {change:.0%}")
    assert (change == 0) == (name == "square")

# %% [markdown]
# On squares the two orders are the same thing, which is how it could stay unseen: RT-DETR is
# tested at 640 × 640. Ours is the right one, and theirs an option (`docs/differences.md`).
#
# ## What it costs
#
# The same layer of RT-DETR ($D = 256$), over S5 and over all three maps.

# %%
with torch.device("meta"):
    layer = AIFIConfig().build(256).layers[0]
    on_s5 = cost(layer, torch.rand(1, 400, 256), torch.rand(1, 400, 256))
    on_all = cost(layer, torch.rand(1, 8400, 256), torch.rand(1, 8400, 256))
once, often = (part.flops / 1e9 for part in (on_s5, on_all))
print(f"S5 {once:.2f} GFLOPs, all {often:.1f}: {often / once:.0f} times as many")
on_s5

# %% [markdown]
# Twenty-one times as many cells cost 108 times as much: the feed-forward half and the projections
# grow with $N$, the products of queries with keys and weights with values grow with $N^2$. All of
# r50's backbone does 71 GFLOPs (notebook 05): over three maps, this one layer would do more.

# %%
assert on_all.flops > 70.6e9 > 50 * on_s5.flops
assert on_all.rows[2][2] == 21 * on_s5.rows[2][2], "feed-forward: proportional to N"

# %% [markdown]
# ## Exercises
#
# **1.** A picture of 1280 × 1280. How many times as many pairs does AIFI weigh as at 640 × 640?

# %%
answer = ...

# %% tags=["solution"]
check(answer, (40 * 40) ** 2 / (20 * 20) ** 2, hint="Four times as many cells.")

# %% [markdown]
# **2.** If somebody wrote down the weights of 8 heads over all 8,400 cells in 32-bit numbers: how
# many GB (10⁹ bytes)?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 8 * 8400**2 * 4 / 1e9, hint="8 · N² numbers of 4 bytes.", tolerance=0.01)

# %% [markdown]
# **3.** The picture is mirrored, left to right, and so is S5. AIFI without positions: is its answer
# the old one, mirrored? And with positions? Answer a pair such as `(True, True)`.

# %%
answer = ...

# %% tags=["solution"]
s5, mirrored = torch.randn(1, 96, 10, 10, generator=generator), []
for module in (blind, aifi):
    with torch.no_grad():
        mirrored.append(torch.allclose(module(s5.flip(-1)), module(s5).flip(-1), atol=1e-4))
check(answer, tuple(mirrored), hint="A mirror is one way to shuffle cells.")

# %% [markdown]
# ## With real weights, if there is a network
#
# RT-DETR-R18 has a world in which far things matter. Where does the cat's eye look?

# %% tags=["varies"]
if online():
    real, photo = lab.load_pretrained("r18"), chelsea((640, 640))
    with torch.no_grad(), lab.record(real, keep=WEIGHTS) as of_cat:
        real(photo)
    attention_per_head(of_cat[WEIGHTS][0], photo[0], (20, 20), (250, 230))

# %% [markdown]
# **Next**: [07 · CCFF](07_ccff.ipynb). S5 has talked to itself. Now the maps have to talk to each
# other, and for that there is a cheaper way than attention.
