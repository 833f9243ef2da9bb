# %% [markdown]
# # 06 · AIFI: attention, where the map is small
#
# **Paper** RT-DETR §4.2, Eq. 1 · **Chapter** `rtdetr_lab/aifi.py` · **Before this** [05
# backbone](05_backbone.ipynb)
#
# A cell of S5 reads only its own square of the picture. One transformer layer lets every cell of S5
# attend to all others. After this notebook you can explain why the paper uses attention on S5 only,
# how a cell gets its position, and what changes without positions.

# %% tags=["imports"]
from dataclasses import replace

import matplotlib.pyplot as plt
import torch

import rtdetr_lab as lab
from rtdetr_lab.aifi import AIFI, AIFIConfig, AIFILayer
from rtdetr_lab.layers import sine_2d, sine_2d_authors
from rtdetr_lab.notebook import check, chelsea, cost, count_good, online, seeded, shapes, source
from rtdetr_lab.viz.attention import attention_of_pixel, attention_per_head, position_similarity

# %%
generator = seeded()
model = lab.load_pretrained("nano")
aifi = model.encoder.aifi
images, targets = shapes(*range(8))  # 320 × 320 pixels: S5 has 10 × 10 cells
WEIGHTS = "encoder.aifi.layers.0.self_attn.weights"

# %% [markdown]
# ## The end, first
#
# The star marks a cell in the large triangle. The bright cells are those it attends to (mean of the
# six heads). We would expect attention to its neighbours, or to the other shapes. But it attends to
# the border of the map. The brightest cells lie in a corner that contains no shape.

# %%
# alt: A scene with a large triangle and a star on it. Cells along the left and lower border are
#   bright, most of all the lower left corner; cells on the shapes are nearly dark.
with torch.no_grad(), lab.record(model) as seen:
    prediction = model(images)
weights = seen[WEIGHTS]  # picture, head, cell, cell
triangle = (184, 214)
fig, ax = plt.subplots(figsize=(4.2, 3.8), layout="compressed")
ax = attention_of_pixel(weights[3], images[3], (10, 10), triangle, ax=ax)
ax.set_title("a cell of the triangle attends to the border", fontsize=10)

# %%
row, column = 214 // 32, 184 // 32
cell = row * 10 + column
print(f"row {row}, column {column}: its weights sum to", weights[3, :, cell].sum(-1).mean().item())
assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)

# %% [markdown]
# ## The question
#
# In DETR's transformer encoder every cell attends to every cell. With $N$ cells these are $N^2$
# pairs. DETR has one map with stride 32. A detector with three maps has 21 times as many cells.

# %%
cells = {"S3": 80 * 80, "S4": 40 * 40, "S5": 20 * 20}  # at 640 × 640
every = sum(cells.values())
print(f"all: {every:,} cells, {every**2:,} pairs; S5: {cells['S5']} cells, {cells['S5'] ** 2:,}")
assert every**2 == 441 * cells["S5"] ** 2

# %% [markdown]
# The paper's answer is attention on S5 alone. Cells of S3 show edges and textures, which matter
# little to distant cells. S5 shows parts and objects, which matter to each other. A 1 × 1
# convolution projects S5 to $D$ channels, and we still call it $S_5$. *flat* makes a list of its
# cells, and *reshape* makes a map again. $P$ is a position embedding of each cell:
#
# $$ F_5 = \mathrm{reshape}(\mathrm{AIFI}(Q = K = \mathrm{flat}(S_5) + P,\;
#    V = \mathrm{flat}(S_5))) \tag{06.1} $$
#
# (Elsewhere $P$ counts sampling points. The paper's Eq. 1 leaves $P$ out; the authors' code has
# it.) AIFI stands for "attention-based intra-scale feature interaction" (a scale is a map: S3, S4
# or S5). It is one ordinary transformer layer. Why is $P$ added to $Q$ and $K$, but not to $V$?
#
# ## By hand, on 3 × 3 cells
#
# We take nine cells with two numbers each. One corner is bright, and the other cells are dark. The
# score of a pair of cells is the dot product of their contents. Each cell returns the mean of all
# contents, weighted by the softmax of its scores.

# %%
bright, dark = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0])
content = torch.stack([bright, *[dark] * 8])  # 9 cells, row by row


def attend(query, key, value):
    return (query @ key.T).softmax(-1) @ value


result = attend(content, content, content)
print("the bright cell returns", [round(v, 2) for v in result[0].tolist()])
print("each dark cell returns ", [round(v, 2) for v in result[1].tolist()])
e = torch.tensor(4.0).exp()
assert torch.isclose(result[0, 0], 2 * e / (e + 8)), "score 2 · 2 = 4 with itself, 0 with others"

# %% [markdown]
# The bright cell attends mostly to itself. The dark cells attend to all cells equally. No cell
# knows which cells are its neighbours. If we shuffle the cells, we get the same results, shuffled.

# %%
order = torch.randperm(9, generator=generator)
assert torch.allclose(attend(content[order], content[order], content[order]), result[order])

# %% [markdown]
# So the cells need positions. RT-DETR embeds a position as sines and cosines of row $y$ and column
# $x$, at $D/4$ frequencies $f_i$, with $i = 0, \dots, D/4 - 1$. They go from 1 down to nearly
# $1/\tau$, with the temperature $\tau = 10{,}000$. Each of the four parts has one number per
# frequency:
#
# $$ P_{(y,x)} = [\,\sin y f_i,\; \cos y f_i,\; \sin x f_i,\; \cos x f_i\,], \qquad
#    f_i = \tau^{-4i/D} \tag{06.2} $$

# %%
place = sine_2d(3, 3, 8)[0]  # 9 cells, D = 8: two frequencies, 1 and 0.01
y, x = 2, 1
f = torch.tensor([1.0, 0.01])
by_hand = torch.cat([(y * f).sin(), (y * f).cos(), (x * f).sin(), (x * f).cos()])
print("row 2, column 1:", [round(v, 3) for v in by_hand.tolist()])
assert torch.allclose(place[y * 3 + x], by_hand)

# %% [markdown]
# Now we add positions to queries and keys. The dark cells have the same content, but now they
# return different results.

# %%
both = torch.cat([content, place], dim=-1)  # side by side instead of added: easier to read
result = attend(both, both, content)
print("weight on the bright corner, for each cell:")
print((result[:, 0] / 2).view(3, 3))
assert result[1, 0] > result[5, 0] > result[8, 0], "a cell nearer to the corner reads more of it"

# %% [markdown]
# The results contain only content, because $V$ has no $P$. Positions decide which cell attends to
# which, but they are not passed on.
#
# ## The real module

# %%
source(AIFILayer.forward)

# %%
source(AIFI.forward)

# %% [markdown]
# Our `attend` is one head of this layer. We recompute the weights of head 0 from the layer's own
# matrices, on random features:

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
# First we look at $P$ alone: how similar are the embeddings of two cells? Cells in rows or columns
# near the marked cell are similar to it. Cells near it in row *and* column are the most similar.

# %%
# alt: A 10 by 10 heat map of similarity with one cell. There is a bright cross along its row and
#   column. It is brightest at the cell and gets darker with distance.
positions = sine_2d(10, 10, 96)[0]
ax = position_similarity(positions, (10, 10), (row, column))
ax.set_title("positions are alike in the same row and column", fontsize=10)

# %%
alike = torch.cosine_similarity(positions, positions[cell], dim=-1).view(10, 10)
print("along its row:", [round(v, 2) for v in alike[row].tolist()])
assert alike.flatten().argmax() == cell
assert torch.allclose(alike[row, column - 3], alike[row - 3, column], atol=1e-4)

# %% [markdown]
# Then we look at the six heads, for the same cell of the triangle.

# %%
# alt: Six small panels of the same scene, one per head. In heads 2 and 3 a few cells at the border
#   and in the lower left corner are bright; the other heads are dim everywhere.
axes = attention_per_head(weights[3], images[3], (10, 10), triangle)
axes[0].figure.suptitle("six heads of one cell (★): the weight lies on the border", fontsize=10)

# %%
entropy = -(weights * weights.clamp(min=1e-12).log()).sum(-1)
print("cells a head attends to:", [round(n) for n in entropy.mean((0, 2)).exp().tolist()])
y, x = torch.arange(100) // 10, torch.arange(100) % 10
rim = (y == 0) | (y == 9) | (x == 0) | (x == 9)
on_rim = weights[..., rim].sum(-1)
print(f"cells on the border: {rim.float().mean():.0%}, weight on them: {on_rim.mean():.0%}")
assert on_rim.mean() > 0.6 > rim.float().mean()
assert (on_rim.mean((0, 2)) > 0.5).all(), "every head, over eight pictures"

# %% [markdown]
# (We count the cells that a head attends to as $e$ to the power of the entropy of its weights.
# Equal weights on $n$ cells, and none on the others, give exactly $n$.) The heads attend to a third
# to a half of the map, and put two thirds of their weight on its border. One explanation: the
# weights must sum to 1. A cell that needs nothing from the others can put its weight on a useless
# cell. If so, `nano` does not need what attention returns. Does it?
#
# ## Predict, then break it
#
# We edit the attention of `nano`, and count the good boxes (score above 0.5, IoU above 0.75) on
# eight pictures. **Predict** how many of its 53 good boxes are left, (a) if every cell attends to
# all cells equally, (b) if every cell attends only to itself, (c) without positions, (d) with
# shuffled positions, (e) if $F_5$ is all zeros.


# %%
def edited(name, edit):
    with torch.no_grad(), lab.record(model, keep=[], edit={name: edit}):
        return count_good(model(images), targets)


def placed(positions):
    """Count good boxes with other positions."""
    before, aifi.cfg = aifi.cfg, replace(aifi.cfg, positions=positions)
    with torch.no_grad():
        count = count_good(model(images), targets)
    aifi.cfg = before
    return count


# %%
shuffle = torch.randperm(100, generator=generator)
counts = {"untouched": count_good(prediction, targets)}
counts["(a) all equally"] = edited(WEIGHTS, lambda w: torch.full_like(w, 1 / 100))
counts["(b) only itself"] = edited(WEIGHTS, lambda w: torch.eye(100).expand_as(w))
counts["(c) no positions"] = placed(None)
counts["(d) shuffled"] = placed(lambda *size: sine_2d(*size)[:, shuffle])
counts["(e) F5 blank"] = edited("encoder.aifi.F5", torch.zeros_like)
print(f"of {targets.num_boxes} shapes")
counts

# %% [markdown]
# Almost nothing happens. But the edits do change $F_5$ a lot, and without positions the heads no
# longer find the border:

# %%
blind = replace(aifi.cfg, positions=None).build(96).eval()
blind.load_state_dict(aifi.state_dict())
with torch.no_grad():
    given = model.encoder.project[2](seen["backbone.S5"])
    with lab.record(blind) as unplaced:
        change = (blind(given) - aifi(given)).norm() / aifi(given).norm()
on_rim = unplaced["layers.0.self_attn.weights"][..., rim].sum(-1).mean()
print(f"without positions F5 changes by {change:.0%}; weight on the border: {on_rim:.0%}")
assert change > 0.2
assert on_rim < 0.45, "the heads find the border by its positions"
assert all(abs(n - counts["untouched"]) <= 2 for n in counts.values())

# %% [markdown]
# `nano` does not need the output of AIFI. Its shapes are placed at random, so one shape tells
# nothing about another, and the outline of a shape is enough to classify it. *A layer that exists
# is not always used.* A picture of its attention does not show whether it is used; only an edit
# does.
#
# Is AIFI useless, then? On COCO a keyboard makes a mouse beside it more likely. There the paper
# measures (Table 3; ResNet-50, 12 epochs) 44.9 AP with attention within each of the three maps, and
# 43.0 AP without an encoder. With convolutions across the maps as well, attention within each map
# gives 46.4 AP in 12.2 ms, and attention on S5 alone gives 46.8 AP in 7.9 ms. So it depends on the
# data whether attention helps.
#
# **A last test** does not depend on the data. The authors' code lists the positions column by
# column, but the cells row by row. **Predict** what happens on 10 × 10 cells, and on 6 × 10.

# %%
for height, width in ((10, 10), (6, 10)):
    ours, theirs = sine_2d(height, width, 96)[0], sine_2d_authors(height, width, 96)[0]
    wrong = int((ours != theirs).any(-1).sum())
    print(f"{height} × {width}: {wrong} of {height * width} cells get a wrong position")

# %%
theirs = replace(aifi.cfg, positions=sine_2d_authors).build(96).eval()
theirs.load_state_dict(aifi.state_dict())
for name, cut in {"square": images, "rectangle": images[:, :, 64:256]}.items():
    with torch.no_grad():
        given = model.encoder.project[2](model.backbone(cut)[-1])
        change = float((theirs(given) - aifi(given)).norm() / aifi(given).norm())
    print(f"{name}, {given.shape[2]} × {given.shape[3]} cells: F5 changes by {change:.0%}")
    assert (change == 0) == (name == "square")

# %% [markdown]
# Why do they agree on a square? Two things differ. The authors list the cells column by column, and
# we row by row. And the first half of their embedding is about the column, that of ours about the
# row. So on a map of $H$ × $W$ cells our entry $n$ has $\lfloor n/W \rfloor$ in its first half and
# $n \bmod W$ in its second. Theirs has $\lfloor n/H \rfloor$ and $n \bmod H$. If $H = W$, these are
# the same two numbers. But on 2 × 3 cells, row 1 and column 0 is entry $n = 3$: ours has (1, 0),
# theirs (1, 1). RT-DETR is tested at 640 × 640, where both orders agree. The authors' code even
# keeps the positions (and the anchors of notebook 09) of 640 × 640 for other sizes. A picture of
# 512 × 800 also has 400 cells on S5. So it gets these positions, which are wrong for it, and no
# error is raised. At 800 × 800 the number of cells differs, and the code stops with an error. Our
# order is the correct one; theirs is an option (`docs/differences.md`).
#
# ## What it costs
#
# We count one layer of RT-DETR ($D = 256$) over S5, and over all cells of the three maps together.

# %%
with torch.device("meta"):
    layer = AIFIConfig().build(256).layers[0]
    on_s5 = cost(layer, torch.rand(1, 400, 256), torch.rand(1, 400, 256))
    on_all = cost(layer, torch.rand(1, 8400, 256), torch.rand(1, 8400, 256))
once, often = (part.flops / 1e9 for part in (on_s5, on_all))
print(f"S5 {once:.2f} GFLOPs, all {often:.1f}: {often / once:.0f} times as many")
on_s5

# %% [markdown]
# With 21 times as many cells, the layer costs 108 times as much. The feed-forward part and the
# projections grow with $N$. The products (queries × keys, weights × values) grow with $N^2$. The
# whole backbone of r50 does 71 GFLOPs (notebook 05); this one layer over three maps would do more.

# %%
assert on_all.flops > 70.6e9 > 50 * on_s5.flops
assert on_all.rows[2][2] == 21 * on_s5.rows[2][2], "feed-forward: proportional to N"

# %% [markdown]
# ## Exercises
#
# **1.** Divide the number of pairs that AIFI compares at 1280 × 1280 pixels by the number at
# 640 × 640. What is the result?

# %%
answer = ...

# %% tags=["solution"]
check(answer, (40 * 40) ** 2 / (20 * 20) ** 2, hint="Four times as many cells.")

# %% [markdown]
# **2.** We store the attention weights of 8 heads over all 8,400 cells as 32-bit numbers. How many
# GB (10⁹ bytes) do they take?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 8 * 8400**2 * 4 / 1e9, hint="8 · N² numbers of 4 bytes.", tolerance=0.01)

# %% [markdown]
# **3.** We mirror S5 from left to right. Does AIFI without positions then return the old $F_5$,
# mirrored? And AIFI with positions? Answer with a pair such as `(True, True)`.

# %%
answer = ...

# %% tags=["solution"]
s5, mirrored = torch.randn(1, 96, 10, 10, generator=generator), []
for module in (blind, aifi):
    with torch.no_grad():
        mirrored.append(torch.allclose(module(s5.flip(-1)), module(s5).flip(-1), atol=1e-4))
check(answer, tuple(mirrored), hint="Mirroring is one way to shuffle cells.")

# %% [markdown]
# ## With real weights, if there is a network
#
# RT-DETR-R18 was trained on COCO, where distant things matter to each other. To which cells does
# the cell of the cat's eye attend?

# %% tags=["varies"]
if online():
    real, photo = lab.load_pretrained("r18"), chelsea((640, 640))
    with torch.no_grad(), lab.record(real, keep=WEIGHTS) as of_cat:
        real(photo)
    attention_per_head(of_cat[WEIGHTS][0], photo[0], (20, 20), (250, 230))

# %% [markdown]
# **Next**: [07 · CCFF](07_ccff.ipynb). AIFI has mixed the cells of S5. Next we mix the maps with
# each other, in a cheaper way than attention.
