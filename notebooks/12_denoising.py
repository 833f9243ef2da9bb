# %% [markdown]
# # 12 · Denoising: teach with objects that are nearly right
#
# **Paper** DN-DETR §4; contrastive: DINO §3.3; the numbers: RT-DETR Table A · **Chapter**
# `rtdetr_lab/denoising.py` · **Before this** [11 decoder](11_decoder.ipynb)
#
# While it learns, the decoder gets extra queries that have been told the answer, slightly wrong.
# Afterwards you can say what they are for, who may look at them, and why nobody can copy.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import torch

import rtdetr_lab as lab
from rtdetr_lab.boxes import inverse_sigmoid, iou, paired_iou, xyxy_from_cxcywh
from rtdetr_lab.decoder import DecoderConfig
from rtdetr_lab.denoising import ContrastiveDenoising, DenoisingConfig, who_may_not_see
from rtdetr_lab.notebook import check, cost, count_good, seeded, shapes, source
from rtdetr_lab.structures import Denoised, LayerPrediction, Prediction, Targets
from rtdetr_lab.viz.denoising import mask_matrix, noised_boxes, who_sees_whom
from rtdetr_lab.viz.palette import BLUE, GREEN, ORANGE

seeded()
model = lab.load_pretrained("nano")
images, targets = shapes(*range(8))

# %% [markdown]
# ## The end, first
#
# Seven shapes, white. Every one gets two spoilt copies: a **positive** that is a little off, and a
# **negative** that is far off. The decoder shall turn positives back into the object, and say
# "nothing here" to negatives.

# %%
# alt: A painted picture with seven shapes framed in white. Around each lies a dashed blue box that
#   overlaps it; orange frames are farther off, larger, or thin.
picture = Targets(targets.labels[3:4], targets.boxes[3:4])
batch = model.denoising(picture, num_matching=100)
ax = noised_boxes(batch, picture.boxes[0], images[3])

# %% [markdown]
# ## The question
#
# A query learns from the object that the matching gives to it (notebook 03), and early in training
# the matching gives it another one in every epoch (DN-DETR §3.2). How can the decoder learn to
# correct boxes before anyone has settled who corrects which? By skipping the matching: a denoising
# query *knows* its object. Its content is an embedding of the label, which with probability 1/4 is
# drawn anew; its reference is the object's box with every corner coordinate $c$ pushed to one side
# or the other,
#
# $$ \tilde c = \mathrm{clip}_{[0, 1]}\bigl(c \pm (u + n)\, \tfrac12 \lambda s\bigr), \qquad
#    u \sim U[0, 1) \tag{12.1} $$
#
# where $s$ is the width or height, $\lambda = 1$, and $n$ is 0 for a positive, 1 for a negative.
#
# But a query that carries an answer is a danger: any other query that sees it can copy. Queries
# meet in self-attention only: a mask there is enough. A **group** is one positive and negative of
# every object. With $g_i$ the group of query $i$, $-1$ for **matching** queries, the usual ones,
#
# $$ \mathrm{blocked}_{ij} = (g_i \ne g_j) \wedge (g_j \ge 0) \tag{12.2} $$
#
# ## By hand: noise
#
# One object, corners (0.3, 0.4) and (0.7, 0.6), so $s$ is 0.4 across and 0.2 down. All $u = 0.5$.

# %%
corners = torch.tensor([0.3, 0.4, 0.7, 0.6])
half = torch.tensor([0.4, 0.2, 0.4, 0.2]) / 2
print("positive, all to the right and down:", corners + (0.5 + 0) * half)
print("negative, all to the right and down:", corners + (0.5 + 1) * half)
inwards = torch.tensor([1, 1, -1, -1])
print("negative, all inwards:              ", corners + inwards * (0.5 + 1) * half)

# %% [markdown]
# The last one is inside out: left edge 0.6, right edge 0.4. Edges that both move inwards *always*
# pass each other in a negative, since each moves by at least half the side; the logit takes what is
# below zero as zero. Two coins decide: a quarter of negatives have no width, a quarter no height.
#
# ## By hand: who may see whom
#
# One object, two groups, two matching queries. A group has a positive and a negative, so there are
# six queries; row $i$ looks, column $j$ is looked at.

# %%
group = [0, 0, 1, 1, -1, -1]
by_hand = [[g_i != g_j and g_j >= 0 for g_j in group] for g_i in group]
names = ["g0 +", "g0 -", "g1 +", "g1 -", "m", "m"]
for name, row in zip(names, by_hand, strict=True):
    print(f"{name:5}", " ".join("blocked" if b else "   ·   " for b in row))

# %% [markdown]
# Two rules: the columns of a group are open to itself only, those of matching queries to everybody.
#
# ## The real module

# %%
source(who_may_not_see)

# %%
assert torch.equal(who_may_not_see(1, 2, 2), torch.tensor(by_hand))
source(ContrastiveDenoising._noised_boxes)

# %% [markdown]
# How many groups? There is a budget of $N$ positives; $T$ is the number of objects in the fullest
# picture of the batch, and $R_{\max}$ a limit for crowds:
#
# $$ G = \max\bigl(1, \min(\lfloor N / T \rfloor, \lfloor R_{\max} / 2T \rfloor)\bigr), \qquad
#    R = 2\,G\,T \tag{12.3} $$

# %%
paper = DenoisingConfig()  # N = 100, at most 600
for size in (1, 7, 49, 51, 100, 300):
    groups = paper.num_groups(size)
    print(f"T = {size:3}: {groups:3} groups, {2 * groups * size:3} queries")
assert batch.num_groups == 50 // 7, "nano has a budget of 50"

# %% [markdown]
# About 200 for most pictures, 102 at least, more in a crowd. The mask for ours, drawn, in words:

# %%
# alt: Two matrices. Left, the mask: seven small open squares along the diagonal, an open band on
#   the right, the rest blocked. Right, the same for three groups in words.
fig, (left, right) = plt.subplots(1, 2, figsize=(7, 3.8), layout="compressed")
mask_matrix(batch.blocked, batch.num_queries, batch.num_groups, ax=left)
ax = who_sees_whom(batch.blocked, batch.num_queries, batch.num_groups, ax=right)

# %% [markdown]
# ## Look inside
#
# What does nano make of its denoising queries? They exist in training mode only. We switch that on
# for the model but not for its parts, so that its norms keep their statistics.


# %%
def with_answers(images, targets, mask=lambda blocked: blocked):
    """A training-mode forward pass, with another mask if wanted."""
    torch.manual_seed(0)  # the same noise every time

    def masked(module, inputs, out):
        return replace(out, blocked=mask(out.blocked))

    hook = model.denoising.register_forward_hook(masked)
    model.training = True
    with torch.no_grad():
        prediction = model(images, targets)
    model.training = False
    hook.remove()
    return prediction


# %%
taught = with_answers(images, targets)
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
print(
    f"start:   IoU {start[positive].mean():.2f}, {start[negative].mean():.2f}  (positive, negative)"
)
for number, layer in enumerate(taught.denoising.layers):
    after, score = overlap(layer.boxes).view(real.shape), layer.logits.sigmoid().amax(-1)
    ious, scores = ([x[kind].mean() for kind in (positive, negative)] for x in (after, score))
    print(
        f"layer {number}: IoU {ious[0]:.2f}, {ious[1]:.2f}; score {scores[0]:.2f}, {scores[1]:.2f}"
    )

# %% [markdown]
# Positives start at an IoU of 0.40 and are given back at 0.89. Negatives are not repaired, they
# are rejected: only a low score was asked. "This close is mine", "this far is not". All queries:

# %%
# alt: Scatter of the last layer's score over the IoU at the start. Orange negatives lie at IoU
#   below 0.3, most scores low. Blue positives lie from 0 to 0.8, most near a score of 0.9.
fig, ax = plt.subplots(figsize=(6, 3), layout="compressed")
ax.scatter(start[positive], score[positive], s=10, color=BLUE, marker="o", label="positive")
ax.scatter(start[negative], score[negative], s=10, color=ORANGE, marker="^", label="negative")
ax.set(xlabel="IoU of the spoilt box with its object", ylabel="score after the last layer")
ax.legend(frameon=False, loc="lower right")

# %%
drawn_anew, last = positive & (noised.labels != label), taught.denoising.layers[-1]
restored = (last.logits.argmax(-1) == label)[drawn_anew].float().mean()
print(f"{int(drawn_anew.sum())} positives were told a wrong class; {restored:.0%} name the right")
assert restored > 0.9
assert score[positive].mean() > 5 * score[negative].mean()

# %% [markdown]
# The decoder does not believe the label it is told: it looks. That is what wrong labels are for.
#
# ## Predict, then break it
#
# First, that nobody copies. **Predict**: by how much do the answers of the 100 matching queries
# change when 84 denoising queries go along (14 shapes in the fullest picture: 3 groups of 28)?

# %%
with torch.no_grad():
    alone = model(images)
change = max((alone.boxes - taught.boxes).abs().max(), (alone.logits - taught.logits).abs().max())
print(f"{noised.num_queries} denoising queries went along; largest change: {change:.4f}")
assert change < 1e-4

# %% [markdown]
# Not at all: matching queries behave in training as at inference, where no one knows an answer. Now
# the mask goes, once **transposed**, the easiest mistake to make, so that matching queries see all
# the answers; and once dropped, so that all see all.
#
# **Predict**: nano is trained, and now the answers lie open before it. Do more shapes get a good
# box (score above 0.5, IoU above 0.75), as many, or fewer?

# %%
masks = {"right": lambda b: b, "transposed": lambda b: b.T, "dropped": torch.zeros_like}
answers = {name: with_answers(images, targets, mask) for name, mask in masks.items()}
counts = {name: count_good(answer, targets) for name, answer in answers.items()}
print(f"of {targets.num_boxes} shapes:", counts)
assert counts["right"] > counts["transposed"] > counts["dropped"]

# %% [markdown]
# Fewer! A model trained with the mask has never learned to read the answers; to it they are a crowd
# of strangers. A decoder that *grows up* without the mask is another matter.
#
# To catch it red-handed, we take away everything else. A small decoder of one layer looks at
# **blank pictures**: each is said to hold one object, of one of four classes, somewhere. Nothing
# can be seen, so an honest matching query can only guess, and be right one time in four.

# %%
QUERIES, CLASSES, PICTURES, DIM = 9, 4, 16, 32
places = torch.cartesian_prod(*2 * [torch.tensor([0.2, 0.5, 0.8])])  # a query on each of 3 × 3
start_logits = inverse_sigmoid(torch.cat([places, torch.full((9, 2), 0.3)], 1)).expand(16, 9, 4)
blank = torch.zeros(PICTURES, 4, DIM)  # the memory of pictures with nothing on them


def invented():
    """Objects that are in no picture."""
    labels = torch.randint(CLASSES, (PICTURES, 1))
    centre, size = torch.rand(PICTURES, 1, 2) * 0.5 + 0.25, torch.rand(PICTURES, 1, 2) * 0.2 + 0.2
    return Targets(tuple(labels), tuple(torch.cat([centre, size], -1)))


# %%
def answer_of(parts, batch, mask):
    """One decoder layer; the matching queries' answers, and those of the denoising queries."""
    decoder, _, own = parts
    content = torch.cat([batch.content, own.weight.expand(PICTURES, QUERIES, DIM)], 1)
    reference_logits = torch.cat([batch.reference_logits, start_logits], 1)
    (out,) = decoder(content, reference_logits, blank, [(2, 2)], mask(batch.blocked))
    count = batch.num_queries
    told = LayerPrediction(out.logits[:, :count], out.boxes[:, :count])
    last = LayerPrediction(out.logits[:, count:], out.boxes[:, count:])
    return Prediction(last.logits, last.boxes, (last,), denoising=Denoised((told,), batch))


def named_right(prediction, targets):
    """Share of pictures in which the surest query names the class of the object."""
    said = prediction.logits.flatten(1).argmax(1) % CLASSES
    return (said == torch.cat(targets.labels)).float().mean().item()


# %%
def train_on_nothing(mask, num_steps=60):
    """Share of objects named right at every step, and after it without denoising queries."""
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
        curve.append(named_right(prediction, targets))
    return torch.tensor(curve), parts


# %% [markdown]
# **Predict**: the share of right names at the end, for each of the three masks.

# %%
# alt: Three curves over 60 training steps. With the right mask the share stays around one in four;
#   with the mask transposed or dropped it rises to nearly one within 20 steps.
runs = {name: train_on_nothing(mask) for name, mask in masks.items()}
fig, ax = plt.subplots(figsize=(6, 2.8), layout="compressed")
styles = {"right": (BLUE, "-"), "transposed": (ORANGE, "--"), "dropped": (GREEN, ":")}
for name, (curve, _) in runs.items():
    color, dash = styles[name]
    ax.plot(curve.unfold(0, 5, 1).mean(-1), color=color, ls=dash, label=f"mask {name}")
ax.set(xlabel="step", ylabel="classes named right", ylim=(0, 1.05))
ax.legend(frameon=False)
shares = {name: curve[-20:].mean().item() for name, (curve, _) in runs.items()}
print({name: f"{share:.0%}" for name, share in shares.items()})  # may differ: ± 10 of 60
assert shares["right"] < 0.4
assert min(shares["transposed"], shares["dropped"]) > 0.8

# %% [markdown]
# Without the mask the decoder names what is on a blank picture. And with nobody to copy from, as at
# inference? The same weights, the denoising queries hidden:

# %%
denoising = runs["dropped"][1][1]
with torch.no_grad():
    tests = [invented() for _ in range(40)]
    answers = [answer_of(runs["dropped"][1], denoising(t, QUERIES), masks["right"]) for t in tests]
honest = sum(map(named_right, answers, tests)) / len(tests)
print("the cheat, when it cannot copy, is right in fewer than four of ten:", honest < 0.4)
assert honest < 0.4

# %% [markdown]
# And why may groups not see each other? Noise averages out. A single positive is a poor box; the
# mean of an object's positives over all groups is twice as good, without a look at the picture.

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
# That they see the *matching* ones is harmless: those never hear an answer that they could pass on.
#
# ## What it costs
#
# In training mode, with the shapes of the first picture, and in eval mode:

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
# Ten rows of an embedding are all there is to learn, one per class; that of padding stays 0.
#
# ## Exercises
#
# **1.** RT-DETR's budget is $N = 100$. The fullest picture of a batch has 30 objects. How many
# denoising queries does *every* picture of the batch get, padding included?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 2 * 30 * paper.num_groups(30), hint="Eq. 12.3: three groups fit.")

# %% [markdown]
# **2.** What share of the negatives (of objects far from the picture's edge) has neither lost its
# width nor its height?

# %%
answer = ...

# %% tags=["solution"]
check(answer, (1 - 1 / 4) ** 2, hint="Both edges of an axis move inwards with probability 1/4.")

# %% [markdown]
# **3.** One object, two groups, two matching queries, as above. How many of 36 pairs are blocked?

# %%
answer = ...

# %% tags=["solution"]
check(answer, int(who_may_not_see(1, 2, 2).sum()), hint="Count row by row in the table above.")

# %% [markdown]
# **Next**: [13 · The complete model](13_complete_model.ipynb). All parts are on the table; we put
# them together, and take one step of training.
