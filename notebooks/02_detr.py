# %% [markdown]
# # 02 · DETR: detection as a set
#
# **Paper** DETR (arXiv 2005.12872) §3 and §A.4 · **Chapter** `rtdetr_lab/detr/model.py`,
# `detr/transformer.py`, `detr/positions.py` · **Before this** [01 boxes](01_boxes.ipynb)
#
# A hundred learned vectors ask a picture "what is yours?" and answer all at once: no windows, no
# duplicates to delete. Afterwards you can say what an object query is, what keeps padding out of
# the answers, and which parts of DETR made it slow to learn. RT-DETR replaces exactly those.

# %%
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

seeded()
images, targets = shapes(3)  # 320 × 320 pixels, seven shapes

# %% [markdown]
# ## The end, first
#
# DETR needs 500 epochs of COCO. We have seconds: a DETR of 77 thousand parameters, with twelve
# queries, learns **one picture** by heart. That is no detector, and what it does wrong will show
# what a real one needs so long for. (Rounding differs from processor to processor, and 160 steps of
# training make much of it: your figures will look a little different. What we say of them holds.)

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
# alt: A painted picture. Seven shapes are framed, each with a dashed box of the query that answers
#   for it and the number of that query.
prediction, seen = look(model, images)
queries, objects = next(iter(matcher(prediction, targets)))
boxes = prediction.boxes[0], targets.boxes[0]
ax = matching.matched_boxes(*boxes, queries, objects, images[0])

# %% [markdown]
# ## The question
#
# A backbone makes 10 × 10 cells of the picture, the encoder lets every cell $m_n$ listen to every
# other. A query $q$ is nothing but a learned vector $p_q$; its content $c_q$ starts at **zero**. In
# every decoder layer the queries listen to each other, then to *all* cells:
#
# $$ w_{q,n} = \operatorname{softmax}_n \frac{(c_q + p_q)^\top W_q^\top W_k (m_n + P_n)}{\sqrt d}
#    \tag{02.1} $$
#
# $P_n$ says where a cell is, as a fraction of the picture, padding not counted:
#
# $$ y_r = 2\pi\, \frac{\#\{\text{cells above and here}\}}{\#\{\text{cells of the column}\}}, \qquad
#    P = [\sin y\omega_k, \cos y\omega_k]_k \oplus [\sin x\omega_k, \cos x\omega_k]_k
#    \tag{02.2} $$
#
# Two heads read each query's content: a box, and one of $C + 1$ classes, the last being "no
# object". The cheapest one-to-one matching (notebook 03) says who answers for which object.
# Everyone else, the large majority, must say "no object", $\varnothing$; so that they do not drown
# the rest, they weigh a tenth:
#
# $$ L_{\text{class}} = \frac{-\sum_q w_q \log \hat p_q(t_q)}{\sum_q w_q}, \qquad
#    w_q = 0.1 \text{ where } t_q = \varnothing \text{, else } 1 \tag{02.3} $$
#
# ## By hand
#
# **Positions**: a row of three cells, the last one padding. The picture is two cells wide, so the
# columns are at $\pi$ and $2\pi$, whatever the canvas.

# %%
padding = torch.tensor([[[False, False, True]]])
P = SinePositions().build(4)(padding)[0]  # sin y, cos y, sin x, cos x
print(P[:2])
assert torch.allclose(P[:2], torch.tensor([[0.0, 1, 0, -1], [0, 1, 0, 1]]), atol=1e-4)

# %% [markdown]
# **Attention**: one query, three cells, and the third is blocked. Its score would have won.

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
# **The loss**: three queries, two classes and "nothing". Query 0 answers for an object of class 1;
# queries 1 and 2 should say nothing, and query 2 does not.

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
# A decoder layer. `query_positions` is $p$, the learned vectors, added anew in every layer.

# %%
source(DETRDecoderLayer.forward)

# %% [markdown]
# ## Look inside
#
# On how many cells does an attention effectively look? $\exp$ of its entropy says so: 100 if it is
# even over all cells, 1 if it sees a single one. Before and after our 160 steps:


# %%
def cells_seen(record, name):
    weights = record[name][0]
    return (-(weights * weights.clamp_min(1e-12).log()).sum(-1)).exp().mean().item()


names = {"encoder": "encoder.layers.0.self_attn.weights"}
names |= {f"decoder {i}": f"decoder.layers.{i}.cross_attn.weights" for i in range(2)}

# %%
# alt: Two bars each, before and after, for the encoder and two decoder layers, of up to 100
#   cells. Before, all are nearly 100; after, the encoder's is a little shorter, those of the
#   decoder clearly so.
cells = {part: [cells_seen(record, n) for record in (at_first, seen)] for part, n in names.items()}
fig, ax = plt.subplots(figsize=(5, 1.8), layout="compressed")
for row, pair in enumerate(cells.values()):
    ax.barh([row - 0.2, row + 0.2], pair, 0.36, color=["#999999", "#0072B2"])
ax.set(yticks=range(3), yticklabels=cells, xlabel="cells (grey before, blue after)", xlim=(0, 100))
ax.invert_yaxis()
assert min(before for before, _ in cells.values()) > 85
assert 30 < min(after for _, after in cells.values())
assert max(cells["decoder 0"][1], cells["decoder 1"][1]) < 80 < cells["encoder"][1]

# %% [markdown]
# At first every query looks everywhere alike: an answer mixed from the whole picture, with a
# gradient to match. It has to *find* its place among all cells, and 160 steps do not bring it far.
# Deformable attention (notebook 10) reads a few points beside a reference box instead.

# %%
# alt: Two panels: the picture with the attention of one query over its 10 by 10 cells, even before
#   learning, uneven afterwards.
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
# This query answers for the large triangle. It need not look at its object: it *knows* this
# picture. Remember that below.
#
# And the encoder: where does the cell in the middle of the picture look?

# %%
# alt: The picture with the encoder's attention of the middle cell laid over it, spread over nearly
#   all cells.
ax = attention.attention_of_pixel(
    seen[names["encoder"]][0], images[0], (10, 10), (165, 165), ax=canvas.new_axes(None, 4, 4.6)
)

# %% [markdown]
# **Who answers?** The matching is made anew in every step. While it changes its mind, a query is
# pulled to one object now and to another then; denoising (notebook 12) goes around that.

# %%
# alt: A curve over 160 steps: the share of the seven objects that change hands in a step, falling
#   from one or two in ten to nearly none.
changes = (torch.stack(who).diff(dim=0) != 0).float().mean(1)
fig, ax = plt.subplots(figsize=(5, 2), layout="compressed")
ax.plot(changes.unfold(0, 20, 1).mean(-1))
ax.set(xlabel="step", ylabel="share that changes hands", ylim=(0, None))
assert changes[:40].mean() > 2 * changes[120:].mean()

# %% [markdown]
# ## Padding that truly masks
#
# A batch is one canvas; smaller pictures end early. We put ours on a canvas of 384 × 448 pixels,
# fill the rest with noise, and say where the picture ends. Then we take other noise.


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
# What is under the mask changes **not one bit**. That there is a canvas does change a little: the
# backbone's convolutions see an edge of zeros elsewhere than before.
#
# ## Predict, then break it
#
# **Predict.** We give all twelve queries the *same* learned vector, that of the query whose answer
# is best. Do they spread over the seven shapes, listening to each other? All say the same? Nothing?

# %%
learned = model.decoder.query_positions.data.clone()
model.decoder.query_positions.data[:] = learned[query]
equal, _ = look(model, images)
model.decoder.query_positions.data[:] = learned
print(f"spread of the twelve boxes: {equal.boxes.std(1).max():.4f}")
assert torch.allclose(equal.boxes, equal.boxes[:, :1], atol=1e-5)

# %% [markdown]
# Twelve times one answer. Content starts at zero, so that $p_q$ is *all* that tells queries apart:
# self-attention among equals changes nothing. The vector is the query.
#
# **Predict** again: the model sees another picture, with a single shape. How far do the boxes of
# the twelve queries move, on average, from those of the picture it knows?

# %%
other, one_shape = shapes(5)
elsewhere, _ = look(model, other)
moved = (elsewhere.boxes - prediction.boxes).abs().mean().item()
apart = (prediction.boxes[0, :, None] - prediction.boxes[0]).abs().mean().item()
error = cardinality_error(elsewhere, one_shape).item()
print("they move less than half as far as two of them are apart:", moved < apart / 2)
print(f"queries that speak: too many by {error:.0f}")  # may differ: too many by ± 2 of 9
assert moved < apart / 2

# %% [markdown]
# They hardly move, and nearly all of them still name a shape: $p_q$ remembers *where* the object
# was, without looking. That is what a query of DETR is: a place (and size) it is used to, the same
# for every picture. Only thousands of pictures teach it to look. RT-DETR takes its queries from the
# picture's own tokens (notebook 09).
#
# ## What it costs

# %%
cost(model, images)

# %% [markdown]
# At 100 cells the transformer is nearly free. But the encoder compares all with all. For a picture
# of 800 × 1066:

# %%
for name, stride in (("S5", 32), ("S5, dilated (DC5)", 16), ("S3", 8)):
    count = -(-800 // stride) * -(-1066 // stride)
    print(f"{name}: {count:,} cells, {count**2 / 1e6:,.1f} million weights per head and layer")

# %% [markdown]
# S3, which small objects need, is out of reach: so DETR has **one** coarse map, and RT-DETR three,
# with dense attention on the coarsest only (notebooks 06 and 07). Together with the two lessons
# above, dense looks and a matching that wavers, that is why DETR is slow.
#
# ## Exercises
#
# **1.** A hundred queries, seven objects, and every query has the same cross-entropy. Which share
# of $L_{\text{class}}$ (Eq. 02.3) comes from "no object"?

# %%
answer = ...

# %% tags=["solution"]
weights = torch.tensor([1.0] * 7 + [0.1] * 93)
check(answer, (weights[7:].sum() / weights.sum()).item(), hint="93 queries weigh 0.1 each.")

# %% [markdown]
# **2.** Somebody reverses the order of the learned vectors. Does the loss change by more than
# rounding? Answer `True` or `False`.

# %%
answer = ...

# %% tags=["solution"]
model.decoder.query_positions.data[:] = learned.flip(0)
flipped, _ = look(model, images)
model.decoder.query_positions.data[:] = learned
before, after = (sum(criterion(p, targets).values()).item() for p in (prediction, flipped))
check(answer, abs(after - before) > 1e-3, hint="It is a set: who answers is found by matching.")

# %% [markdown]
# **3.** At which column angle (in units of $2\pi$) lies the third cell of a row of five, if the
# fifth is padding?

# %%
answer = ...

# %% tags=["solution"]
row = torch.tensor([[[False, False, False, False, True]]])
angle = (~row).cumsum(2)[0, 0, 2] / (~row).sum()
check(answer, angle.item(), hint="Count cells of the picture, not of the canvas.")

# %% [markdown]
# How long DETR takes beside RT-DETR, on equal pictures: `docs/results/ablations/detr-vs-rtdetr.md`.
#
# **Next**: [03 · Matching](03_matching.ipynb). Which query answers for which object?
