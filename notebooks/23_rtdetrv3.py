# %% [markdown]
# # 23 · RT-DETRv3: more to learn from every picture
#
# **Paper** RT-DETRv3 (arXiv 2409.08475) §3, Tables 1 and 4 · **Chapter**
# `rtdetr_lab/successors/rtdetrv3.py` · **Before this** [12 denoising](12_denoising.ipynb), [22
# DEIM](22_deim.ipynb)
#
# RT-DETRv3 leaves the detector as it is. In training it adds three kinds of positives: predictions
# that have an object to learn. After this notebook you can count them, say which part of the
# network each kind teaches, and prove that nothing of it is left at inference.

# %% tags=["imports"]
import matplotlib.pyplot as plt
import torch
from matplotlib.colors import ListedColormap

import rtdetr_lab as lab
from rtdetr_lab.boxes import cxcywh_from_xyxy
from rtdetr_lab.notebook import check, cost, num_parameters, seeded, shapes, source
from rtdetr_lab.query_selection import anchors
from rtdetr_lab.successors.rtdetrv3 import (
    DenseCriterion,
    DensePrediction,
    RTDETRv3,
    TaskAligned,
    as_rtdetrv3,
    random_blocks,
)
from rtdetr_lab.viz.canvas import show_picture
from rtdetr_lab.viz.marks import frame_box, key_above, key_below, line_key, mark_key, matrix
from rtdetr_lab.viz.palette import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, YELLOW

# %%
generator = seeded()
nano = lab.load_pretrained("nano")
images, targets = shapes(*range(8))
CELLS = [(40, 40), (20, 20), (10, 10)]

# %% [markdown]
# ## The end, first
#
# RT-DETR asks one query for each object. RT-DETRv3 also asks *cells* of the maps: every object
# teaches the cells inside it that are best at its class and its box already. We let the trained
# `nano` answer in every cell, and draw which cells would learn each object.

# %%
# alt: A scene of shapes with a box around each. Inside every box lie up to thirteen dots of the
#   colour of the box, in a small cluster. Small shapes have fewer dots.
picture = 3
with torch.no_grad(), lab.record(nano, keep="proposal_head.*") as seen:
    nano(images)
start, _ = anchors(tuple(CELLS))
boxes = seen["proposal_head.box_logits"].sigmoid()
dense = DensePrediction(seen["proposal_head.logits"], boxes, start.sigmoid()[:, :2])
cells = TaskAligned()(dense, targets)
fig, ax = plt.subplots(figsize=(4.2, 4.4), layout="compressed")
size, colors = show_picture(ax, images[picture], quiet=0.6), (SKY, ORANGE, GREEN, PURPLE, YELLOW)
for t, box in enumerate(targets.boxes[picture]):
    frame_box(ax, box, size, colors[t % 5], width=1.4)
    learn = cells.queries[picture][cells.objects[picture] == t]
    x, y = 320 * dense.centres[learn].T
    ax.scatter(x, y, s=16, color=colors[t % 5], edgecolors="#000000", linewidths=0.5, zorder=3)
ax.set_title("Each object teaches up to 13 cells (dots)", fontsize=11)

# %%
pairs = zip(cells.objects, targets.counts, strict=True)
per_object = torch.cat([torch.bincount(o, minlength=n) for o, n in pairs])
print(f"{len(per_object)} objects; at most {int(per_object.max())} cells for each")
assert per_object.max() <= 13

# %% [markdown]
# ## The question
#
# With three objects in a picture, three of 300 queries learn an object. All others learn "nothing".
# So the decoder sees few good examples, and the maps before it learn only through these few
# queries. How can a picture teach more, without a change of the detector? RT-DETRv3 has three
# answers:
#
# | kind          | teaches     | how                                                              |
# |---------------|-------------|------------------------------------------------------------------|
# | masked groups | the decoder | three more sets of queries; a query is blind to a random tenth   |
# | one-to-many   | the decoder | one more set, in which every object is asked for four times      |
# | dense head    | the maps    | every cell predicts; each object teaches up to 13                |
#
# A masked group draws a mask. Query $i$ may not attend to query $j$ where it is true:
#
# $$ \mathrm{blocked}_{ij} = (u_{ij} < p) \wedge (i \ne j), \qquad u_{ij} \sim U(0, 1),\quad
#    p = 0.1 \tag{23.1} $$
#
# The dense head chooses cells by how well they do already (*task-aligned*). With $s$ the score of
# the object's class:
#
# $$ a = s^{\alpha} \cdot \mathrm{IoU}^{\beta} \cdot [\text{the centre of the cell is inside}],
#    \qquad \alpha = 1,\ \beta = 6 \tag{23.2} $$
#
# ## By hand, on 3 × 3 cells
#
# One object covers the left two thirds of a picture of 3 × 3 cells, so it contains the centres of
# six cells. We let two cells learn. Cell 4, in the middle, has the best box. Cell 0 has a high
# score and a poor box, cell 3 is in between, and cell 2 is perfect but outside:

# %%
centres = torch.tensor([[(x + 0.5) / 3, (y + 0.5) / 3] for y in range(3) for x in range(3)])
thing = cxcywh_from_xyxy(torch.tensor([[0.0, 0.0, 2 / 3, 1.0]]))
scores = torch.full((9,), 0.1)
widths = torch.full((9,), 0.2)  # boxes that are too narrow: IoU = width / (2/3)
scores[[0, 2, 3, 4]] = torch.tensor([0.9, 0.9, 0.5, 0.5])
widths[[0, 2, 3, 4]] = torch.tensor([0.3, 2 / 3, 0.5, 0.6])
wide = torch.stack([torch.zeros(9), torch.zeros(9), widths, torch.ones(9)], 1)
iou = widths / (2 / 3)
inside = (centres[:, 0] < 2 / 3).float()
aligned = scores * iou**6 * inside
print("a, cell by cell:", [round(v, 3) for v in aligned.tolist()])
answer = DensePrediction(scores.logit().view(1, 9, 1), cxcywh_from_xyxy(wide)[None], centres)
truth = type(targets)((torch.zeros(1, dtype=torch.long),), (thing,))
chosen = TaskAligned(num_cells=2)(answer, truth).queries[0].tolist()
print("chosen:", chosen)
assert chosen == sorted(aligned.topk(2).indices.tolist()) == [3, 4]

# %% [markdown]
# The exponent 6 makes the box decide: cell 0 has nearly twice the score, and a tenth of $a$.
#
# ## The real module

# %%
source(RTDETRv3.predict)

# %%
source(TaskAligned.__call__)

# %%
source(DenseCriterion.__call__)

# %% [markdown]
# ## Look inside: the groups
#
# We turn `nano` into a v3. It keeps all of its weights; new are the heads that only training needs.

# %%
cfg = as_rtdetrv3(nano.cfg)
model = cfg.build()
missing = model.load_state_dict(nano.state_dict(), strict=False).missing_keys
print("new parts:", sorted({name.split(".")[0] for name in missing}))
print(f"{cfg.num_groups} masked groups, {cfg.num_many} queries for one-to-many")
blocked = random_blocks(100, cfg.perturbation)
share = blocked.float().mean().item()
assert not blocked.diagonal().any()
assert abs(share - 0.1) < 0.02

# %% [markdown]
# One call of the decoder with a mask could serve all groups: a query sees its own group only, and
# in a masked group not even all of that. (We call the decoder once per group, which gives the same
# numbers.) Such a mask for groups of 30, without the denoising queries of notebook 12:

# %%
# alt: A square matrix of 135 queries. Four blocks on the diagonal are blue, all else is grey. The
#   first and the last, larger block are plain; the two between are sprinkled with grey dots.
sizes = [30, 30, 30, 45]
whole = torch.ones(sum(sizes), sum(sizes), dtype=torch.bool)
first = 0
for group, count in enumerate(sizes):
    own = random_blocks(count, 0.1 if group in (1, 2) else 0.0)
    whole[first : first + count, first : first + count] = own
    first += count
fig, ax = plt.subplots(figsize=(4.8, 4.9), layout="compressed")
matrix(ax, ~whole.numpy(), cmap=ListedColormap(["#D9D9D9", BLUE]))
names, middles = ["main", "group 1", "group 2", "one-to-many"], [15, 45, 75, 112]
ax.set_xticks(middles, names, fontsize=9)
ax.set_yticks(middles, names, fontsize=9, rotation=90, va="center")
ax.set(xlabel="query that is attended to", ylabel="query that attends")
fig.suptitle("A query attends to its own group only", fontsize=11)
key_above(ax, 2, handles=[mark_key("may attend", BLUE, "s"), mark_key("blocked", "#D9D9D9", "s")])

# %% [markdown]
# ## Count the positives
#
# We run the new model in training mode on the eight pictures, and count how many predictions of a
# decoder layer, or of the dense head, learn an object.

# %%
model.eval().training = True  # only this flag: the norms inside stay in eval mode
with torch.no_grad():
    made = model(images, targets)
model.training = False
criterion = cfg.criterion.build()
matcher = criterion.matcher


def count(layer, truth):
    return sum(len(q) for q in matcher(layer, truth).queries)


positives = {"main": count(made.layers[-1], targets)}
positives["masked groups"] = sum(count(group.layers[-1], targets) for group in made.groups)
positives["one-to-many"] = count(made.many.layers[-1], targets.repeated(cfg.criterion.copies))
positives["dense head"] = int(per_object.sum())  # with nano's own answers, as in the first figure
print({name: n for name, n in positives.items() if name != "dense head"})

# %%
# alt: Four horizontal bars of positives for 62 objects: 62 for the main queries, 186 for the masked
#   groups, 248 for one-to-many, and more than 700 for the dense head.
fig, ax = plt.subplots(figsize=(5.6, 2.7), layout="compressed")
bars = ax.barh(list(positives), list(positives.values()), color=[BLUE, SKY, ORANGE, VERMILLION])
ax.bar_label(bars, padding=3)
ax.invert_yaxis()
ax.set(xlabel="positives for 62 objects (a layer; dense head: once)", xlim=(0, 850))
fig.suptitle("Where RT-DETR has 62 positives, v3 has 20 times as many", fontsize=11)

# %%
assert positives["masked groups"] == 3 * 62 == 3 * positives["main"]
assert positives["one-to-many"] == 4 * 62
assert sum(positives.values()) > 15 * positives["main"]

# %% [markdown]
# One-to-many asks for every object four times, and the matching stays one-to-one: it matches
# copies. Which four queries of `nano` would answer for the largest shape of a picture?

# %%
# alt: A scene of shapes. Around the largest shape four boxes are drawn nearly on top of each other,
#   each of another query; the legend has their scores.
with torch.no_grad():
    answer = nano(images)
four = matcher(answer.layers[-1], targets.repeated(4))
largest = int(targets.boxes[picture][:, 2:].prod(1).argmax())
count_of = targets.counts[picture]
mine = four.queries[picture][four.objects[picture] % count_of == largest]
surety = answer.logits[picture, mine].sigmoid().amax(-1).tolist()
fig, ax = plt.subplots(figsize=(4.5, 4.9), layout="compressed")
size, keys = show_picture(ax, images[picture], quiet=0.5), []
for query, score, color in zip(mine.tolist(), surety, (SKY, ORANGE, PURPLE, YELLOW), strict=True):
    frame_box(ax, answer.boxes[picture, query], size, color, width=1.8)
    keys.append(line_key(f"score {score:.2f}", color))
key_below(ax, keys, columns=2)
ax.set_title("One-to-many: four queries learn one shape", fontsize=11)

# %% [markdown]
# `nano` was trained to have *one* query per shape. So two of the four have low scores. (The second
# is half sure: `nano` finds this triangle twice, as notebook 13 shows.) One-to-many would teach all
# four to be sure: **it teaches duplicates**. Therefore it has queries of its own, which are thrown
# away.

# %%
sure = answer.logits[picture, mine].sigmoid().amax(-1).sort(descending=True).values
print("two of the four have less than a quarter of the best score:", bool(sure[2] < sure[0] / 4))
assert sure[2] < sure[0] / 4

# %% [markdown]
# ## Predict, then break it
#
# **Predict**: the new heads have random weights. How far do the boxes of the v3 model differ from
# those of `nano` in eval mode? What if we destroy the new heads, with NaN everywhere?

# %%
model.eval()
with torch.no_grad():
    before = model(images)
    for name, weight in model.named_parameters():
        if name in missing:
            weight.fill_(float("nan"))
    after = model(images)
print("v3 is nano, to the last bit:", torch.equal(before.boxes, answer.boxes))
print("and with NaN in the new heads:", torch.equal(after.boxes, answer.boxes))
assert torch.equal(before.logits, answer.logits)
assert torch.equal(after.logits, answer.logits)

# %% [markdown]
# Nothing of v3 is used in eval mode. What it gives is in the weights of the other parts. For R18
# the paper measures (Table 4, 72 epochs) 46.5 AP without, 47.4 with the dense head, 47.5 with
# one-to-many, 47.5 with masked groups, and 48.1 AP with all three. After 12 epochs the gap to
# RT-DETR is larger: 41.5 against 38.7 (Table 1).
#
# ## What it costs
#
# Parameters that only training has, and more decoder queries in every step:

# %%
extra = sum(num_parameters(getattr(model, n)) for n in {name.split(".")[0] for name in missing})
queries = 100 + cfg.num_groups * 100 + cfg.num_many
print(f"{extra:,} parameters for training only; {queries} queries in a step instead of 100")
assert cost(model, images[:1]).flops == cost(nano, images[:1]).flops
assert queries == 550

# %% [markdown]
# A step therefore needs several times the work of the decoder. For R18 the decoder is a small part
# of a step, so its time grows less.
#
# ## Exercises
#
# **1.** A picture has seven objects. How many positives does a decoder layer of v3 have for it,
# with the main queries, three masked groups and one-to-many together?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 7 + 3 * 7 + 4 * 7, hint="Once, three times, and four copies.")

# %% [markdown]
# **2.** The class score of a cell is 0.8, its IoU 0.5; the score of another is 0.1, its IoU 0.75.
# Divide $a$ of the second by $a$ of the first. Which one learns?

# %%
answer = ...

# %% tags=["solution"]
check(answer, (0.1 * 0.75**6) / (0.8 * 0.5**6), hint="Eq. 23.2: the IoU counts to the power of 6.")

# %% [markdown]
# **3.** A masked group has 300 queries and blocks a tenth of the pairs, but never the diagonal. How
# many pairs are blocked on average?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 0.1 * (300 * 300 - 300), hint="300² pairs without 300 on the diagonal.")

# %% [markdown]
# **Next**: the page `docs/line.md` shows the whole line, from DETR to DEIM, with its numbers. The
# [trap museum](19_trap_museum.ipynb) shows mistakes that raise no error.
