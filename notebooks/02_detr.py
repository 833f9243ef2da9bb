# %% [markdown]
# # 02 · DETR: detection as a set
#
# **Paper** DETR (arXiv 2005.12872) §3 and §A.4 · **Chapter** `rtdetr_lab/detr/model.py`,
# `detr/transformer.py`, `detr/positions.py` · **Before this** [01 boxes](01_boxes.ipynb)
#
# DETR attends to a picture with a hundred learned vectors and predicts all boxes at once. It has no
# sliding windows and no duplicates to remove. After this notebook you can explain what an object
# query is, how padding is kept out of the predictions, and which parts of DETR make it slow to
# train. RT-DETR replaces exactly these parts.

# %% tags=["imports"]
import matplotlib.pyplot as plt
import torch

import rtdetr_lab as lab
from rtdetr_lab.backbone import BasicBlock
from rtdetr_lab.data.shapes import SHAPE_NAMES
from rtdetr_lab.detr.model import DETRConfig, cardinality_error
from rtdetr_lab.detr.positions import SinePositions
from rtdetr_lab.detr.resnet import ResNetConfig
from rtdetr_lab.detr.transformer import DETRDecoderConfig, DETRDecoderLayer, DETREncoderConfig
from rtdetr_lab.layers import Attention
from rtdetr_lab.losses import CrossEntropy
from rtdetr_lab.notebook import check, cost, seeded, shapes, source
from rtdetr_lab.viz import attention, canvas, matching

# %%
seeded()
images, targets = shapes(3)  # 320 × 320 pixels, seven shapes

# %% [markdown]
# ## The end, first
#
# DETR trains for 500 epochs on COCO. We have only seconds. So a DETR with 77 thousand parameters
# and twelve queries overfits **one picture**. This is not a detector, but its mistakes show
# why a real one needs such a long training. (Rounding differs between processors, and 160 training
# steps amplify the difference. Your figures will look a little different, but our statements still
# hold.)

# %%
cfg = DETRConfig(
    len(SHAPE_NAMES),
    dim=32,
    backbone=ResNetConfig(
        (1, 1, 1, 1), (16, 16, 24, 32), BasicBlock, stem_width=16, norm=torch.nn.BatchNorm2d
    ),
    encoder=DETREncoderConfig(1, 4, 64, dropout=0.0),
    decoder=DETRDecoderConfig(12, 2, 4, 64, dropout=0.0),
)
model, criterion = cfg.build(), cfg.criterion.build()
matcher = cfg.criterion.matcher.build()


# %%
def look(model, images, **more):
    with torch.no_grad(), lab.record(model.eval()) as seen:
        return model(images, **more), seen


untaught, at_first = look(model, images)
optimizer = torch.optim.AdamW(model.train().parameters(), lr=2e-3)
who = []
for _ in range(160):
    answer = model(images, targets)
    queries, objects = next(iter(matcher(answer, targets)))
    who.append(queries[objects.argsort()])
    optimizer.zero_grad()
    sum(criterion(answer, targets).values()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()

# %%
# alt: A painted picture. Each of the seven shapes has a frame, and beside it the dashed box and the
#   number of the query that is matched with it.
prediction, seen = look(model, images)
queries, objects = next(iter(matcher(prediction, targets)))
boxes = prediction.boxes[0], targets.boxes[0]
ax = matching.matched_boxes(*boxes, queries, objects, images[0])
ax.set_title("seven objects, and the one query that is matched with each", fontsize=10)

# %% [markdown]
# ## The question
#
# A backbone turns the picture into 10 × 10 cells, and in the encoder every cell attends to every
# cell. $m_n$ is cell $n$ after the encoder. A query $q$ is just a learned vector $p_q$, and its
# content $c_q$ starts at **zero**. In every decoder layer the queries attend to each other, and
# then to *all* cells:
#
# $$ \mathrm{weights}_{q,n} = \mathrm{softmax}_n\bigl((c_q + p_q)^\top W_q^\top W_k
#    (m_n + P_n) / \sqrt d\bigr) \tag{02.1} $$
#
# $P_n$ is the position of cell $n$ (in later notebooks $P$ counts sampling points), and $d$ is the
# width of a head. A position is a fraction of the picture, and padding is not counted:
#
# $$ y_r = s \cdot \frac{\#\{\text{cells above and here}\}}{\#\{\text{cells of the column}\}},
#    \qquad P = \bigl[\sin(y\, \omega_k), \cos(y\, \omega_k)\bigr]_k \oplus
#    \bigl[\sin(x\, \omega_k), \cos(x\, \omega_k)\bigr]_k, \qquad \omega_k = \tau^{-4k/D}
#    \tag{02.2} $$
#
# with $s = 2\pi$ and the temperature $\tau = 10{,}000$. Two heads read the content of each query.
# One predicts a box. The other predicts one of $C + 1$ classes; the last class is "no object",
# $\varnothing$. The cheapest one-to-one matching (notebook 03) decides which query takes which
# object. All other queries, the large majority, must predict "no object". They get a tenth of the
# weight, so that they do not dominate the loss:
#
# $$ L_{\text{class}} = \frac{-\sum_q w_q \log \hat p_q(t_q)}{\sum_q w_q}, \qquad
#    w_q = 0.1 \text{ where } t_q = \varnothing \text{, else } 1 \tag{02.3} $$
#
# Here $t_q$ is the target class of query $q$, and $\hat p_q$ are its predicted probabilities.
#
# ## By hand
#
# **Positions.** Take a row of three cells; the last one is padding. The picture is two cells wide,
# so its columns are at $\pi$ and $2\pi$. The width of the canvas does not matter.

# %%
padding = torch.tensor([[[False, False, True]]])
P = SinePositions().build(4)(padding)[0]  # sin y, cos y, sin x, cos x
print(P[:2])
assert torch.allclose(P[:2], torch.tensor([[0.0, 1, 0, -1], [0, 1, 0, 1]]), atol=1e-4)

# %% [markdown]
# **Attention.** Take one query and three cells. The third cell is blocked. Without the mask it
# would have the highest score.

# %%
query, cells = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
score = torch.tensor([1.0, 0.0, -torch.inf]) / 2**0.5  # query · cell, the third blocked
by_hand = score.exp() / score.exp().sum()
attend = Attention(2, num_heads=1)
for projection in (attend.q_proj, attend.k_proj, attend.v_proj):
    torch.nn.init.eye_(projection.weight)
with torch.no_grad(), lab.record(attend) as inside:
    attend(query[None], cells[None], cells[None], padding)
print("by hand:", by_hand, " module:", inside["weights"][0, 0, 0])
assert torch.allclose(inside["weights"][0, 0, 0], by_hand)

# %% [markdown]
# **The loss.** Take three queries, two classes and "no object". Query 0 is matched with an object
# of class 1. Queries 1 and 2 should predict "no object", but query 2 does not.

# %%
p = torch.tensor([[0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2]])
parts = -torch.tensor([0.7, 0.8, 0.2]).log()
by_hand = (parts[0] + 0.1 * parts[1] + 0.1 * parts[2]) / 1.2
is_class = torch.zeros(1, 3, 3, dtype=torch.bool)
is_class[0, 0, 1] = True
module = CrossEntropy(no_object=0.1)(p.log()[None], is_class, torch.zeros(1, 3), 1.0)
print(f"by hand {by_hand:.4f}, module {module:.4f}")
assert torch.isclose(module, by_hand)

# %% [markdown]
# ## The real module
#
# This is a decoder layer. `query_positions` is $p$, the learned vectors. Every layer adds them
# again.

# %%
source(DETRDecoderLayer.forward)

# %% [markdown]
# ## Look inside
#
# To how many cells does a query effectively attend? $\exp$ of the entropy of its weights tells us:
# it is 100 if the weights are equal on all cells, and 1 if one cell has all the weight. We compare
# it before and after our 160 steps:


# %%
def cells_seen(record, name):
    weights = record[name][0]
    return (-(weights * weights.clamp_min(1e-12).log()).sum(-1)).exp().mean().item()


names = {"encoder": "encoder.layers.0.self_attn.weights"}
names |= {f"decoder {i}": f"decoder.layers.{i}.cross_attn.weights" for i in range(2)}

# %%
# alt: Two bars each, before and after, for the encoder and two decoder layers, of up to 100 cells.
#   Before, all are nearly 100. After, the bar of the encoder is a little shorter, and the bars of
#   the decoder are clearly shorter.
cells = {part: [cells_seen(record, n) for record in (at_first, seen)] for part, n in names.items()}
fig, ax = plt.subplots(figsize=(5, 1.8), layout="compressed")
for row, pair in enumerate(cells.values()):
    ax.barh([row - 0.2, row + 0.2], pair, 0.36, color=["#999999", "#0072B2"])
ax.set(yticks=range(3), yticklabels=cells, xlabel="cells attended to, of 100", xlim=(0, 100))
ax.set_title("the decoder learns to look at fewer cells (grey before, blue after)", fontsize=10)
ax.invert_yaxis()
assert min(before for before, _ in cells.values()) > 85
assert 30 < min(after for _, after in cells.values())
assert max(cells["decoder 0"][1], cells["decoder 1"][1]) < 80 < cells["encoder"][1]

# %% [markdown]
# At first every query attends to all cells almost equally. So its result is an average of the whole
# picture, and the gradient is spread over the whole picture, too. The query has to *find* its place
# among all cells, and 160 steps are far too few. Deformable attention (notebook 10) instead reads a
# few points around a reference box.

# %%
# alt: Two panels with the picture and the attention of one query over its 10 by 10 cells. The
#   attention is even before training and uneven after it.
largest = targets.boxes[0][:, 2:].prod(1).argmax()
query = int(queries[objects == largest])
axes = canvas.new_grid(None, 2, 2, 1.0)
for ax, record, title in zip(axes, (at_first, seen), ("before", "after"), strict=True):
    size = canvas.show_picture(ax, images[0], quiet=0.8)
    weights = record[names["decoder 0"]][0, :, query].mean(0).unflatten(0, (10, 10))
    drawn = canvas.heat(ax, weights, size, vmax=0.05)
    ax.set_title(f"query {query}, {title}", fontsize=9)
canvas.scale_bar(drawn, axes, "attention weight")

# %% [markdown]
# This query is matched with the large triangle. It does not need to attend to its object, because
# it *remembers* this picture. The next experiments depend on this.
#
# To which cells does the middle cell of the picture attend in the encoder?

# %%
# alt: The picture, covered by the encoder's attention of the middle cell. It is spread over nearly
#   all cells.
ax = attention.attention_of_pixel(
    seen[names["encoder"]][0], images[0], (10, 10), (165, 165), ax=canvas.new_axes(None, 4, 4.6)
)
ax.set_title("the middle cell attends to nearly all cells", fontsize=10)

# %% [markdown]
# **Which query takes which object?** The matching is computed again in every step. While it
# changes, a query is pulled towards one object now and another one later. Denoising (notebook 12)
# avoids this problem.

# %%
# alt: A curve over 160 steps. It is the share of the seven objects whose query changes in a step.
#   It falls from one or two in ten to nearly none.
changes = (torch.stack(who).diff(dim=0) != 0).float().mean(1)
fig, ax = plt.subplots(figsize=(5, 2), layout="compressed")
ax.plot(changes.unfold(0, 20, 1).mean(-1))
ax.set(xlabel="step (mean of 20)", ylabel="share of objects", ylim=(0, None))
ax.set_title("objects that change their query in a step", fontsize=10)
assert changes[:40].mean() > 2 * changes[120:].mean()

# %% [markdown]
# ## Padding that truly masks
#
# The pictures of a batch share one canvas, and a smaller picture does not fill it. We put ours on a
# canvas of 384 × 448 pixels, fill the rest with noise, and pass a mask of the padding. Then we
# repeat this with other noise.


# %%
def on_canvas():
    filled = torch.rand(1, 3, 384, 448)
    filled[:, :, :320, :320] = images
    return filled


padding = torch.ones(1, 384, 448, dtype=torch.bool)
padding[:, :320, :320] = False
masked = [look(model, on_canvas(), padding=padding)[0].boxes for _ in range(2)]
exposed = [look(model, on_canvas())[0].boxes for _ in range(2)]
print("masked, the boxes are the same to the last bit:", torch.equal(*masked))
print("not masked:", torch.equal(*exposed))
print("masked, as if there were no canvas:", torch.equal(masked[0], prediction.boxes))
assert torch.equal(*masked)
assert 1e-4 < (exposed[0] - exposed[1]).abs().max()
assert 1e-5 < (masked[0] - prediction.boxes).abs().max() < 0.05

# %% [markdown]
# What lies under the mask changes **not one bit**. But the canvas itself changes the result a
# little: the zeros that the backbone's convolutions add at the edge now lie further away from the
# picture.
#
# ## Predict, then break it
#
# **Predict.** We give all twelve queries the *same* learned vector, that of the query for the large
# triangle. Do they spread over the seven shapes, because they attend to each other? Do they all
# predict the same? Or nothing?

# %%
learned = model.decoder.query_positions.data.clone()
model.decoder.query_positions.data[:] = learned[query]
equal, _ = look(model, images)
model.decoder.query_positions.data[:] = learned
print(f"spread of the twelve boxes: {equal.boxes.std(1).max():.4f}")
assert torch.allclose(equal.boxes, equal.boxes[:, :1], atol=1e-5)

# %% [markdown]
# All twelve queries predict the same box. Content starts at zero, so $p_q$ is the *only* difference
# between queries. Self-attention between equal queries changes nothing. So the vector is the query.
#
# **Predict** again: we give the model another picture, with a single shape. How far do the boxes of
# the twelve queries move, on average, from their boxes in the known picture?

# %%
other, one_shape = shapes(5)
elsewhere, _ = look(model, other)
moved = (elsewhere.boxes - prediction.boxes).abs().mean().item()
apart = (prediction.boxes[0, :, None] - prediction.boxes[0]).abs().mean().item()
error = cardinality_error(elsewhere, one_shape).item()
print("they move less than half the distance between two boxes:", moved < apart / 2)
print("more than half of the twelve queries still name a shape:", 1 + error > 6)
assert moved < apart / 2
assert error > 5

# %% [markdown]
# They hardly move, and most of them still predict a shape: $p_q$ remembers *where* the object
# was and does not need the picture. So a query of DETR is a usual place and size, the same for
# every picture. Only thousands of training pictures teach it to attend to the picture. RT-DETR
# instead takes its queries from the tokens of the picture (notebook 09).
#
# ## What it costs

# %%
cost(model, images)

# %% [markdown]
# At 100 cells the transformer costs almost nothing. But in the encoder every cell attends to every
# cell. This is the number of weights for a picture of 800 × 1066:

# %%
for name, stride in (("S5", 32), ("S5, dilated (DC5)", 16), ("S3", 8)):
    count = -(-800 // stride) * -(-1066 // stride)
    print(f"{name}: {count:,} cells, {count**2 / 1e6:,.1f} million weights per head and layer")

# %% [markdown]
# S3, which small objects need, is too expensive. Therefore DETR has **one** coarse map. RT-DETR has
# three, and uses dense attention on the coarsest only (notebooks 06 and 07). We have now seen three
# reasons why DETR is slow: dense attention in the encoder, dense attention of the queries, and a
# matching that keeps changing.
#
# ## Exercises
#
# **1.** There are a hundred queries and seven objects, and every query has the same cross-entropy.
# What share of $L_{\text{class}}$ (Eq. 02.3) comes from "no object"?

# %%
answer = ...

# %% tags=["solution"]
weights = torch.tensor([1.0] * 7 + [0.1] * 93)
check(answer, (weights[7:].sum() / weights.sum()).item(), hint="93 queries have a weight of 0.1.")

# %% [markdown]
# **2.** We reverse the order of the learned vectors. Does the loss change by more than rounding?
# Answer `True` or `False`.

# %%
answer = ...

# %% tags=["solution"]
model.decoder.query_positions.data[:] = learned.flip(0)
flipped, _ = look(model, images)
model.decoder.query_positions.data[:] = learned
before, after = (sum(criterion(p, targets).values()).item() for p in (prediction, flipped))
check(answer, abs(after - before) > 1e-3, hint="The matching does not depend on their order.")

# %% [markdown]
# **3.** A row has five cells, and the fifth is padding. What is the column angle of the third cell,
# in units of $2\pi$?

# %%
answer = ...

# %% tags=["solution"]
row = torch.tensor([[[False, False, False, False, True]]])
angle = (~row).cumsum(2)[0, 0, 2] / (~row).sum()
check(answer, angle.item(), hint="Count cells of the picture, not of the canvas.")

# %% [markdown]
# `docs/results/ablations/detr-vs-rtdetr.md` compares DETR and RT-DETR after training on the same
# pictures.
#
# **Next**: [03 · Matching](03_matching.ipynb). Which query is matched with which object?
