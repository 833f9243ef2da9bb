# %% [markdown]
# # 12 · Denoising: teach with objects that are nearly right
#
# **Paper** DN-DETR §4; contrastive: DINO §3.3; the numbers: RT-DETR Table A · **Chapter**
# `rtdetr_lab/denoising.py` · **Before this** [11 decoder](11_decoder.ipynb)
#
# In training the decoder gets extra queries: noisy copies of the ground truth. After this notebook
# you can explain what they are for, which queries may attend to them, and why no query can copy the
# answer.

# %% tags=["imports"]
import matplotlib.pyplot as plt
import torch

import rtdetr_lab as lab
from rtdetr_lab.boxes import inverse_sigmoid, iou, paired_iou, xyxy_from_cxcywh
from rtdetr_lab.decoder import DecoderConfig
from rtdetr_lab.denoising import ContrastiveDenoising, DenoisingConfig, who_may_not_see
from rtdetr_lab.notebook import check, cost, seeded, shapes, source
from rtdetr_lab.structures import Denoised, LayerPrediction, Prediction, Targets
from rtdetr_lab.viz.canvas import new_axes
from rtdetr_lab.viz.denoising import mask_matrix, noised_boxes
from rtdetr_lab.viz.palette import BLUE, GREEN, ORANGE

# %%
seeded()
model = lab.load_pretrained("nano")
images, targets = shapes(*range(8))

# %% [markdown]
# ## The end, first
#
# The picture has seven shapes, in white. Each gets two noisy copies: a **positive** with little
# noise and a **negative** with more. The decoder learns to restore the object from a positive, and
# to predict "nothing" for a negative.

# %%
# alt: A painted picture with seven shapes in white frames. A dashed blue box overlaps each shape.
#   Orange frames are further away, larger, or thin.
picture = Targets(targets.labels[3:4], targets.boxes[3:4])
batch = model.denoising(picture, num_matching=100)
axes = new_axes(None, 5.2, 4.8)
ax = noised_boxes(batch, picture.boxes[0], images[3], group=6, ax=axes)
ax.set_title("Every object gets a near copy and a far copy", fontsize=11)

# %% [markdown]
# ## The question
#
# A query learns from the object that it is matched with (notebook 03). Early in training this
# object changes from epoch to epoch (DN-DETR §3). How can the decoder learn to correct boxes before
# the matching is stable? It can skip the matching: the object of a denoising query is *known*. Its
# content is an embedding of the object's label. With probability 1/4 a random label is embedded
# instead; the target of the loss stays the true label. (1/4 is half of `label_noise`, which is
# 0.5.) Its reference is the object's box with noise. Every corner coordinate moves by $\Delta$ (not
# the step of notebook 11), in a random direction:
#
# $$ \text{positive: } |\Delta| < \tfrac12 \lambda\, s, \qquad
#    \text{negative: } \tfrac12 \lambda\, s \le |\Delta| < \lambda\, s \tag{12.1} $$
#
# $s$ is the side of the box: width for x, height for y. $\lambda = 1$. $|\Delta|$ is uniform in
# its range. The corners are then clipped to the picture.
#
# But a denoising query carries an answer, and a query that attends to it could copy this answer.
# Queries exchange information only in self-attention, so one mask there is enough. A **group** has
# one positive and one negative of every object. $g_i$ is the group of query $i$, and $-1$ for a
# **matching** query (a usual query, which takes part in the matching). Query $i$ must not attend to
# query $j$ if ($\wedge$ means *and*)
#
# $$ \mathrm{blocked}_{ij} = (g_i \ne g_j) \wedge (g_j \ge 0) \tag{12.2} $$
#
# ## By hand: noise
#
# One object has the corners (0.3, 0.4) and (0.7, 0.6), so $s$ is 0.4 for x and 0.2 for y. We take
# $|\Delta|$ from the middle of its range: a quarter of $s$ for a positive, three quarters for a
# negative.

# %%
corners = torch.tensor([0.3, 0.4, 0.7, 0.6])
half = torch.tensor([0.4, 0.2, 0.4, 0.2]) / 2
print("positive, all to the right and down:", corners + (0.5 + 0) * half)
print("negative, all to the right and down:", corners + (0.5 + 1) * half)
inwards = torch.tensor([1, 1, -1, -1])
print("negative, all inwards:              ", corners + inwards * (0.5 + 1) * half)

# %% [markdown]
# The edges of the last box have changed places: its left edge is at 0.6, its right edge at 0.4. If
# both edges of a negative move inwards, they *always* meet or pass each other, because each moves
# by at least half of the side. The width is then negative, and `inverse_sigmoid` clamps it to 0.
# Each edge moves inwards with probability 1/2, so both do with probability 1/4: a quarter of the
# negatives have no width, and a quarter have no height.
#
# ## By hand: who may see whom
#
# There are one object, two groups and two matching queries. A group has a positive and a negative,
# so there are six queries. A row is a query that attends, a column is a query that it attends to.

# %%
group = [0, 0, 1, 1, -1, -1]
by_hand = [[g_i != g_j and g_j >= 0 for g_j in group] for g_i in group]
names = ["g0 +", "g0 -", "g1 +", "g1 -", "m", "m"]
for name, row in zip(names, by_hand, strict=True):
    print(f"{name:5}", " ".join("blocked" if b else "   ·   " for b in row))

# %% [markdown]
# Only queries of the same group attend to a denoising query. All queries attend to the matching
# queries.
#
# ## The real module

# %%
source(who_may_not_see)

# %%
assert torch.equal(who_may_not_see(1, 2, 2), torch.tensor(by_hand))
source(ContrastiveDenoising._noised_boxes)

# %% [markdown]
# How many groups are there? $N$ is a budget of positives (elsewhere $N$ counts tokens). $T$ is the
# number of objects in the fullest picture of the batch, and $R_{\max}$ is a limit for crowds:
#
# $$ G = \max\bigl(1, \min(\lfloor N / T \rfloor, \lfloor R_{\max} / (2T) \rfloor)\bigr), \qquad
#    R = 2\,G\,T \tag{12.3} $$
#
# $G$ is the number of groups, and $R$ that of denoising queries: about 200 for most pictures, with
# RT-DETR's $N = 100$ and $R_{\max} = 600$. `nano` has $N = 50$. (The chapter has a table.) This is
# the mask of our picture:

# %%
# alt: A matrix. Seven small open squares lie along the diagonal, and an open band on the right. All
#   other cells are blocked.
assert batch.num_groups == 50 // 7, "nano has N = 50"
ax = mask_matrix(batch.blocked, batch.num_queries, batch.num_groups)
ax.figure.suptitle("Only its own group attends to a denoising query", fontsize=11)

# %% [markdown]
# ## Look inside
#
# What does nano predict for its denoising queries? They exist in training mode only. We set this
# mode for the model but not for its parts, so the norms do not update their statistics.

# %%
torch.manual_seed(0)
model.training = True
with torch.no_grad():
    taught = model(images, targets)
model.training = False

# %%
noised = taught.denoising.batch
real, positive = noised.target_index >= 0, noised.is_positive
negative = real & ~positive
pairs = list(zip(targets.boxes, targets.labels, noised.target_index.clamp(min=0), strict=True))
truth = torch.stack([boxes[i] for boxes, _, i in pairs])
label = torch.stack([labels[i] for _, labels, i in pairs])


def overlap(boxes):
    return paired_iou(xyxy_from_cxcywh(boxes).flatten(0, 1), xyxy_from_cxcywh(truth).flatten(0, 1))


# %%
start = overlap(noised.reference_logits.sigmoid()).view(real.shape)
print("positive, negative")
print(f"start:   IoU {start[positive].mean():.2f}, {start[negative].mean():.2f}")
for i, layer in enumerate(taught.denoising.layers):
    after, score = overlap(layer.boxes).view(real.shape), layer.logits.sigmoid().amax(-1)
    ious, scores = ([x[kind].mean() for kind in (positive, negative)] for x in (after, score))
    print(f"layer {i}: IoU {ious[0]:.2f}, {ious[1]:.2f}; score {scores[0]:.2f}, {scores[1]:.2f}")

# %% [markdown]
# Positives start at a mean IoU of 0.40 and end at 0.89. Negatives are rejected, not repaired: a
# negative has only a class loss, which asks for a low score, and no box loss. So the decoder learns
# which boxes are close enough. The figure shows all denoising queries:

# %%
# alt: Scatter of the last layer's score against the IoU at the start. Orange negatives have an IoU
#   below 0.3, mostly with low scores. Blue positives have 0 to 0.8, mostly with scores near 0.9.
fig, ax = plt.subplots(figsize=(5.4, 3.1), layout="compressed")
ax.scatter(start[positive], score[positive], s=10, color=BLUE, marker="o", label="positive")
ax.scatter(start[negative], score[negative], s=10, color=ORANGE, marker="^", label="negative")
ax.set(xlabel="IoU of the noisy box with its object", ylabel="score after the last layer")
ax.set(xlim=(-0.02, 1), ylim=(0, 1))
ax.set_title("Near copies end as sure objects, far ones as background", fontsize=11)
ax.legend(frameon=False, loc="center right")

# %%
drawn_anew, last = positive & (noised.labels != label), taught.denoising.layers[-1]
restored = (last.logits.argmax(-1) == label)[drawn_anew].float().mean()
print(f"{int(drawn_anew.sum())} positives got a wrong label; {restored:.0%} end at the right class")
assert restored > 0.9
assert score[positive].mean() > 5 * score[negative].mean()

# %% [markdown]
# The decoder does not copy the label that it gets: it uses the picture. This is the purpose of the
# wrong labels.
#
# ## Predict, then break it
#
# First we check that no matching query copies. 84 denoising queries run together with the 100
# matching queries (14 shapes in the fullest picture: 3 groups of 28). **Predict**: by how much do
# they change the predictions of the matching queries?

# %%
with torch.no_grad():
    alone = model(images)
change = max((alone.boxes - taught.boxes).abs().max(), (alone.logits - taught.logits).abs().max())
print(f"with {noised.num_queries} denoising queries: largest change {change:.4f}")
assert change < 1e-4

# %% [markdown]
# They change nothing: matching queries behave in training as at inference, where there are no
# answers. Now we break the mask in two ways. **Transposed** is the easiest mistake: matching
# queries attend to all denoising queries. **Dropped** blocks nothing: all queries attend to all.
#
# To see a decoder copy, we remove everything else. We train a small decoder of one layer on **blank
# pictures**. The invented ground truth says that each holds one object, of one of four classes, at
# a random place. The pictures show nothing. So a matching query that cannot copy must guess, and is
# right in one of four cases.

# %%
QUERIES, CLASSES, PICTURES, DIM = 9, 4, 16, 32
places = torch.cartesian_prod(*2 * [torch.tensor([0.2, 0.5, 0.8])])  # one query on each of 3 × 3
start_logits = inverse_sigmoid(torch.cat([places, torch.full((9, 2), 0.3)], 1)).expand(16, 9, 4)
blank = torch.zeros(PICTURES, 4, DIM)  # the memory of blank pictures


def invented():
    """Make up one object per picture; no picture shows it."""
    labels = torch.randint(CLASSES, (PICTURES, 1))
    centre, size = torch.rand(PICTURES, 1, 2) * 0.5 + 0.25, torch.rand(PICTURES, 1, 2) * 0.2 + 0.2
    return Targets(tuple(labels), tuple(torch.cat([centre, size], -1)))


# %%
def answer_of(parts, batch, mask):
    """Run one decoder layer on the denoising queries and the matching queries."""
    decoder, _, own = parts
    content = torch.cat([batch.content, own.weight.expand(PICTURES, QUERIES, DIM)], 1)
    reference_logits = torch.cat([batch.reference_logits, start_logits], 1)
    (out,) = decoder(content, reference_logits, blank, [(2, 2)], mask(batch.blocked))
    count = batch.num_queries
    denoised = LayerPrediction(out.logits[:, :count], out.boxes[:, :count])
    last = LayerPrediction(out.logits[:, count:], out.boxes[:, count:])
    return Prediction(last.logits, last.boxes, (last,), denoising=Denoised((denoised,), batch))


def right_classes(prediction, targets):
    """Return the share of pictures in which the highest score is at the right class."""
    predicted = prediction.logits.flatten(1).argmax(1) % CLASSES
    return (predicted == torch.cat(targets.labels)).float().mean().item()


# %%
def train_on_nothing(mask, num_steps=60):
    """Return the share of right classes at every step, and the trained parts."""
    torch.manual_seed(0)
    decoder = DecoderConfig(DIM, 1, num_heads=4, ffn_dim=64, num_levels=1).build(CLASSES)
    denoising = DenoisingConfig(num_queries=4).build(CLASSES, DIM)
    own = torch.nn.Embedding(QUERIES, DIM)
    parts, criterion = torch.nn.ModuleList([decoder, denoising, own]), model.cfg.criterion.build()
    optimizer, curve = torch.optim.AdamW(parts.parameters(), lr=3e-3), []
    for _ in range(num_steps):
        targets = invented()
        prediction = answer_of(parts, denoising(targets, QUERIES), mask)
        optimizer.zero_grad()
        sum(criterion(prediction, targets).values()).backward()
        optimizer.step()
        curve.append(right_classes(prediction, targets))
    return torch.tensor(curve), parts


# %% [markdown]
# **Predict** the share of right classes at the end, for each of the three masks.

# %%
# alt: Three curves over 60 training steps. With the right mask the share stays near one in four.
#   It rises steeply in the first 20 steps with the mask dropped, to nearly one, and with the mask
#   transposed, to about nine in ten.
masks = {"right": lambda b: b, "transposed": lambda b: b.T, "dropped": torch.zeros_like}
runs = {name: train_on_nothing(mask) for name, mask in masks.items()}
fig, ax = plt.subplots(figsize=(5.4, 3), layout="compressed")
styles = {"right": (BLUE, "-"), "transposed": (ORANGE, "--"), "dropped": (GREEN, ":")}
for name, (curve, _) in runs.items():
    color, dash = styles[name]
    ax.plot(curve.unfold(0, 5, 1).mean(-1), color=color, ls=dash, label=f"mask {name}")
ax.axhline(1 / CLASSES, color="#808080", lw=1, label="guess: 1 in 4")
ax.set(xlabel="training step (mean of 5)", ylabel="share of right classes", ylim=(0, 1.05))
ax.set_title("With a wrong mask, queries copy the answers", fontsize=11)
ax.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.58))
shares = {name: curve[-20:].mean().item() for name, (curve, _) in runs.items()}
print({name: f"{share:.0%}" for name, share in shares.items()})  # may differ: ± 10 of 60
assert shares["right"] < 0.4
assert min(shares["transposed"], shares["dropped"]) > 0.8

# %% [markdown]
# Without the mask the decoder predicts the class of an object that no picture shows. It copies. At
# inference there is nothing to copy. We test the same weights with the denoising queries blocked:

# %%
denoising = runs["dropped"][1][1]
with torch.no_grad():
    tests = [invented() for _ in range(40)]
    answers = [answer_of(runs["dropped"][1], denoising(t, QUERIES), masks["right"]) for t in tests]
honest = sum(map(right_classes, answers, tests)) / len(tests)
print("trained without the mask, blocked in the test: right in fewer than 40 %:", honest < 0.4)
assert honest < 0.4

# %% [markdown]
# And why must groups not attend to each other? Averaging removes noise. One positive is a poor box.
# The mean of an object's positives over all groups has twice the IoU of one positive, and nothing
# in the picture is needed to compute it: the copies of one object lie near each other, and most
# have its label.

# %%
one = Targets(targets.labels[5:6], targets.boxes[5:6])  # one shape: 50 groups
torch.manual_seed(0)
copies = model.denoising(one, 100)
boxes = xyxy_from_cxcywh(copies.reference_logits[0, copies.is_positive[0]].sigmoid())
object_box = xyxy_from_cxcywh(one.boxes[0])
single, mean = iou(boxes, object_box).mean(), iou(boxes.mean(0, keepdim=True), object_box)
print(f"IoU of a copy {single:.2f}; of the mean of {len(boxes)} copies {mean.item():.2f}")
assert mean > 1.8 * single

# %% [markdown]
# Inside a group, a positive and a negative of one object may attend to each other: the mean of two
# copies is still noisy. Denoising queries may also attend to *matching* queries, which have seen no
# answer.
#
# ## What it costs
#
# We compare training mode, with the shapes of the first picture, and eval mode:

# %%
first = Targets(targets.labels[:1], targets.boxes[:1])
model.training = True
in_training = cost(model, images[:1], first)
model.training = False
at_inference = cost(model, images[:1])
decoder = {n: c.rows[-2][2] for n, c in {"train": in_training, "eval": at_inference}.items()}
print({name: f"{flops / 1e6:.0f} MFLOPs" for name, flops in decoder.items()})
print(f"of the whole model: {in_training.flops / at_inference.flops - 1:.1%} more")
assert decoder["train"] > 1.3 * decoder["eval"]
in_training

# %% [markdown]
# The only parameters are an embedding: ten rows, one per class, and one for padding that stays 0.
#
# ## Exercises
#
# **1.** RT-DETR has $N = 100$ and $R_{\max} = 600$. The fullest picture of a batch has 30 objects.
# How many denoising queries does *every* picture of the batch get, with padding?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 2 * 30 * DenoisingConfig().num_groups(30), hint="Eq. 12.3 gives three groups.")

# %% [markdown]
# **2.** What share of the negatives keeps both its width and its height? (Take objects far from the
# edge of the picture.)

# %%
answer = ...

# %% tags=["solution"]
check(answer, (1 - 1 / 4) ** 2, hint="Both edges of an axis move inwards with probability 1/4.")

# %% [markdown]
# **3.** How many of the 36 pairs in "By hand: who may see whom" are blocked?

# %%
answer = ...

# %% tags=["solution"]
check(answer, int(who_may_not_see(1, 2, 2).sum()), hint="Count row by row in the table above.")

# %% [markdown]
# **Next**: [13 · The complete model](13_complete_model.ipynb). We know all parts. Now we put them
# together, and train one step.
