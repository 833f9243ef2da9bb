# %% [markdown]
# # 04 · Losses: what is an error, and what should a score mean?
#
# **Paper** RT-DETR §4.3 and Table A; varifocal: Zhang et al. 2021, Eq. 2; focal: Lin et al. 2017,
# Eq. 5; boxes: DETR §A.2 · **Chapters** `rtdetr_lab/losses.py`, `rtdetr_lab/criterion.py` ·
# **Before this** [03 matching](03_matching.ipynb)
#
# The matching has said who answers for what. Two questions are left: is the box right, and is the
# score right? Afterwards you can say what makes RT-DETR's score *aware of the IoU*, and what it
# would mean if it were not.

# %%
import matplotlib.pyplot as plt
import torch

import rtdetr_lab as lab
from rtdetr_lab.boxes import paired_iou, xyxy_from_cxcywh
from rtdetr_lab.criterion import Criterion
from rtdetr_lab.losses import BinaryCrossEntropy, CrossEntropy, Focal, Varifocal, giou_loss, l1_loss
from rtdetr_lab.notebook import check, cost, milliseconds, seeded, shapes, source
from rtdetr_lab.structures import Targets
from rtdetr_lab.viz.palette import BLUE, GREEN, ORANGE
from rtdetr_lab.viz.training import layer_losses

# %%
seeded()
model = lab.load_pretrained("nano")
criterion = model.cfg.criterion.build()
images, targets = shapes(*range(8))

# %% [markdown]
# ## The end, first
#
# The class loss of a query that has been matched, over its score. The three curves belong to three
# *boxes*: one that overlaps its object by 0.3, one by 0.6, one by 0.9. Each has its minimum where
# the score says how good the box is.

# %%
# alt: Three curves of loss over score with minima marked at 0.3, 0.6 and 0.9. The better the box,
#   the higher the curve at small scores.
scores = torch.linspace(0.01, 0.99, 99)
yes = torch.ones(1, 1, 1, dtype=torch.bool)
fig, ax = plt.subplots(figsize=(6, 2.8), layout="compressed")
for q, color, dash in ((0.3, GREEN, ":"), (0.6, ORANGE, "--"), (0.9, BLUE, "-")):
    iou = torch.full((1, 1), q)
    loss = torch.stack([Varifocal()(p.logit().view(1, 1, 1), yes, iou, 1.0) for p in scores])
    ax.plot(scores, loss, color=color, ls=dash, label=f"IoU {q}")
    ax.plot(scores[loss.argmin()], loss.min(), "o", color=color)
ax.set(xlabel="score at the object's class", ylabel="varifocal loss", ylim=(0, 2.5))
ax.legend(frameon=False)

# %% [markdown]
# ## The question
#
# What should a classifier say about a query? The plain answer is 1 at the object's class and 0
# elsewhere, by **cross-entropy**. Of 100 queries × 10 classes nearly all are "elsewhere", so
# **focal** loss turns down what is already right, with $p_t$ the score of the right answer:
#
# $$ \mathcal L_{\text{focal}} = -\alpha_t\, (1 - p_t)^\gamma \log p_t \tag{04.2} $$
#
# Both say *whether* there is an object. But scores are used to **rank**, by the top-k before the
# decoder and by whoever reads the detections, and the best ranked should be the best boxed.
# **Varifocal** loss asks the score to be the IoU $q$ of the query's *own* box:
#
# $$ \mathcal L_{\text{varifocal}} = \begin{cases}
#    -q \bigl(q \log p + (1-q) \log (1-p)\bigr) & \text{matched, at its class} \\
#    -\alpha\, p^\gamma \log(1-p) & \text{everywhere else} \end{cases} \tag{04.1} $$
#
# The box itself is judged by distance and by overlap,
#
# $$ \mathcal L_{L1} = \|b - \hat b\|_1, \qquad
#    \mathcal L_{\text{giou}} = 1 - \mathrm{GIoU}(b, \hat b) \tag{04.3} $$
#
# and everything is added up, over all layers and terms, per object of the batch:
#
# $$ \mathcal L = \frac{1}{\text{objects}} \sum_{\text{layers}} \mathcal L_{\text{varifocal}}
#    + 5\, \mathcal L_{L1} + 2\, \mathcal L_{\text{giou}} \tag{04.4} $$
#
# ## By hand, on 3 × 3 scores
#
# Three queries, three classes. Query 0 answers for an object of class 1, with an IoU of 0.6.

# %%
p = torch.tensor([[0.1, 0.5, 0.2], [0.1, 0.1, 0.8], [0.1, 0.1, 0.1]])
is_class = torch.zeros(1, 3, 3, dtype=torch.bool)
is_class[0, 0, 1] = True
iou = torch.tensor([[0.6, 0.0, 0.0]])

by_hand = -0.75 * p**2 * (1 - p).log()
q = 0.6
by_hand[0, 1] = -q * (q * p[0, 1].log() + (1 - q) * (1 - p[0, 1]).log())
print(by_hand)
print(f"sum {by_hand.sum():.4f}, module {Varifocal()(p.logit()[None], is_class, iou, 1.0):.4f}")
assert torch.allclose(by_hand.sum(), Varifocal()(p.logit()[None], is_class, iou, 1.0))

# %% [markdown]
# One false claim, the 0.8 of query 1, weighs more than all the rest. The six scores of 0.1 and 0.2
# are hardly heard: that is the factor $p^\gamma$.
#
# DETR's own is a softmax over the classes *and* "nothing", in which "nothing" counts a tenth:

# %%
logits = torch.randn(1, 3, 4)  # three classes and, last, "nothing"
matched = torch.zeros(1, 3, 4, dtype=torch.bool)
matched[0, 0, 1] = True
log_p = logits[0].log_softmax(-1)
by_hand = -(log_p[0, 1] + 0.1 * log_p[1, 3] + 0.1 * log_p[2, 3]) / (1 + 0.1 + 0.1)
assert torch.allclose(by_hand, CrossEntropy()(logits, matched, iou, 1.0))
print(f"by hand {by_hand:.4f}")

# %% [markdown]
# ## The real module

# %%
source(Varifocal)

# %%
source(Criterion._terms)

# %% [markdown]
# *This* makes the score IoU-aware: `iou[matched]`, the target of the class loss, is measured on
# the boxes of this very step, detached. As a box gets better, its score is asked to rise with it.
#
# ## Look inside
#
# **Boxes that miss.** Four boxes move towards their object, a square of side 0.1 at $x = 0.8$. The
# first three do not touch it. What does each loss say about the direction?


# %%
def slope(loss, x):
    """Value and slope along x for a box at x."""
    box = torch.tensor([[x, 0.5, 0.1, 0.1]], requires_grad=True)
    value = loss(box, torch.tensor([[0.8, 0.5, 0.1, 0.1]]))
    value.backward()
    return f"{value.item():.2f} ({box.grad[0, 0].item():+.1f})"


def iou_loss(a, b):
    return (1 - paired_iou(xyxy_from_cxcywh(a), xyxy_from_cxcywh(b))).sum()


# %%
box_losses = {
    "L1": lambda a, b: l1_loss(a, b, 1.0),
    "GIoU": lambda a, b: giou_loss(a, b, 1.0),
    "IoU": iou_loss,
}
for name, loss in box_losses.items():
    print(f"{name:5}", "   ".join(f"x = {x}: {slope(loss, x)}" for x in (0.2, 0.45, 0.6, 0.75)))

# %% [markdown]
# Where nothing overlaps, 1 - IoU is 1 and flat: no direction. L1 always pulls with the same force.
# GIoU pulls from everywhere, weakly from afar (0.4) and strongly when it matters (8.9).
#
# Why not L1 alone? Two boxes, a large and a small one, each shifted by a quarter of its width:

# %%
for side in (0.4, 0.04):
    wanted = torch.tensor([[0.5, 0.5, side, side]])
    box = wanted + torch.tensor([[side / 4, 0, 0, 0]])
    print(
        f"side {side}: L1 {l1_loss(box, wanted, 1.0):.2f}, GIoU {giou_loss(box, wanted, 1.0):.2f}"
    )

# %% [markdown]
# The same mistake; L1 forgives it in the small object to nine tenths, GIoU does not see the size.
#
# **All terms.** nano in training mode, with its denoising queries (notebook 12), on eight pictures.
# Every decoder layer is a detector and is judged as one, and so are the proposals.

# %%
# alt: Stacked bars of class, L1 and GIoU loss for the proposals, three layers and three denoising
#   layers. The proposals pay most; from layer to layer it gets less.
model.training = True  # not its parts: the norms keep their statistics
with torch.no_grad():
    prediction = model(images, targets)
model.training = False
terms = criterion(prediction, targets)
places = {"proposals": ".proposals", "layer 0": ".layer0", "layer 1": ".layer1", "last": ""}
places |= {f"denoising {i}": f".denoising{i}" for i in range(3)}
kinds = {"class": "class", "L1": "l1", "GIoU": "giou"}
bars = {name: [terms[kind + at].item() for at in places.values()] for name, kind in kinds.items()}
ax = layer_losses(bars, [name.replace(" ", "\n") for name in places])

# %%
print(f"{len(terms)} terms, together {sum(terms.values()):.2f}")
judged = [sum(terms[kind + at].item() for kind in kinds.values()) for at in places.values()]
assert judged[0] > judged[1] > judged[2] > judged[3]
assert judged[4] > judged[5] > judged[6]

# %% [markdown]
# **Who is heard?** 62 scores of 8,000 have an object. We add up the gradients that they get, and
# those of the other 7,938, for three class losses at nano's answers.


# %%
def matching_of(layer):
    """Where the matched scores are, and the IoU of every query's box."""
    pairs = criterion.matcher(layer, targets)
    pair = layer.boxes[pairs.flat], pairs.gather(targets.boxes)
    iou = torch.zeros(layer.logits.shape[:2])
    iou[pairs.flat] = paired_iou(*map(xyxy_from_cxcywh, pair))
    is_class = torch.zeros_like(layer.logits, dtype=torch.bool)
    is_class[(*pairs.flat, pairs.gather(targets.labels))] = True
    return is_class, iou


is_class, iou = matching_of(prediction.layers[-1])
for loss in (BinaryCrossEntropy(), Focal(), Varifocal()):
    logits = prediction.logits.clone().requires_grad_()
    loss(logits, is_class, iou, 62.0).backward()
    objects, others = logits.grad[is_class].abs().sum(), logits.grad[~is_class].abs().sum()
    print(f"{type(loss).__name__:18} objects {objects:.2f}, background {others:.2f}")

# %% [markdown]
# By plain cross-entropy the background of a *trained* model still shouts the objects down, 14 to
# one. With focal loss it is six to one; with varifocal the objects lead.
#
# **Per object.** Picture 5 holds one shape, picture 0 fourteen. The batch of both divides by 15, so
# every object counts the same, in whatever company it is.


# %%
def total(*pictures):
    truth = [[kind[i] for i in pictures] for kind in (targets.labels, targets.boxes)]
    with torch.no_grad():
        prediction = model(images[list(pictures)])
    return sum(criterion(prediction, Targets(*truth)).values()).item()


one, fourteen, both = total(5), total(0), total(0, 5)
print(f"one {one:.3f}, fourteen {fourteen:.3f}; both {both:.3f}, mean {(one + fourteen) / 2:.3f}")
assert abs(both - (1 * one + 14 * fourteen) / 15) < 1e-3

# %% [markdown]
# The mean of the two pictures' losses is another number: there the single shape would count as much
# as fourteen together.
#
# ## Predict, then break it
#
# Take the IoU out of the target: `iou_target=False`, and everything else as it was. To see what a
# score then *means*, think of queries that look exactly alike to the network, so that they must get
# one score, although their fates differ:
#
# | kind      | fates                                              |
# |-----------|----------------------------------------------------|
# | good      | always matched, IoU 0.9                            |
# | poor      | always matched, IoU 0.5                            |
# | mixed     | matched, half of them with IoU 0.3, half with 0.9  |
# | half      | half of them matched with IoU 0.9, half not at all |
# | rare      | one in ten matched with IoU 0.9                    |
#
# **Predict** the score at which learning comes to rest, for all five: with the IoU target, and
# without. For "mixed" and "half", is it the mean?


# %%
def rest(loss, ious):
    """The score at which the gradients of all fates cancel; an IoU of None is no match."""
    logits = torch.linspace(0.001, 0.999, 999).logit().requires_grad_()
    is_class = torch.tensor([q is not None for q in ious])
    iou = torch.tensor([q or 0.0 for q in ious])
    shape = len(ious), 999
    answers = logits.expand(shape)[..., None]
    loss(
        answers, is_class[:, None].expand(shape)[..., None], iou[:, None].expand(shape), 1.0
    ).backward()
    rising = (logits.grad >= 0).nonzero()
    return round(logits[rising[0, 0] if len(rising) else -1].sigmoid().item(), 2)


fates = {"good": [0.9], "poor": [0.5], "mixed": [0.3, 0.9], "half": [0.9, None]}
fates["rare"] = [0.9] + 9 * [None]

# %%
losses = {"varifocal": Varifocal(), "varifocal, no IoU": Varifocal(iou_target=False)}
losses |= {"focal": Focal(), "cross-entropy": BinaryCrossEntropy()}
resting = {}
for name, loss in losses.items():
    resting[name] = {kind: rest(loss, ious) for kind, ious in fates.items()}
    print(f"{name:18}", resting[name])

# %% [markdown]
# Without the IoU in the target, good, poor and mixed are the same: 1 (the end of our scale). Such a
# score answers "will I be matched?", and cross-entropy gives exactly the share that is. It cannot
# put 0.9 before 0.5; worse, a poor box that is always matched ranks *before* a good one that is
# matched half of the time. With the IoU the order is turned round: half (0.66) before poor (0.5).
#
# The varifocal score is no plain mean, though. "Mixed" rests at 0.75 and not at 0.6, since a good
# fate weighs more than a poor one: $E[q^2] / E[q]$. And "rare" at 0.4 and not at 0.09: the
# background's $\alpha p^\gamma$ is too soft to hold it down. Varifocal scores are good for ranking;
# they are no probabilities.

# %%
assert resting["varifocal"]["half"] > resting["varifocal"]["poor"]
for name in ("varifocal, no IoU", "focal", "cross-entropy"):
    assert resting[name]["good"] == resting[name]["poor"] > resting[name]["half"]
assert abs(resting["varifocal"]["mixed"] - (0.3**2 + 0.9**2) / (0.3 + 0.9)) < 0.01

# %% [markdown]
# And the real model? nano has a score and a box for each of 62 matched queries. **Predict**: how
# many of these scores does the loss push *down*, with the IoU as target, and without?

# %%
pushed_down = {}
for name in ("varifocal", "varifocal, no IoU"):
    logits = prediction.logits.clone().requires_grad_()
    losses[name](logits, is_class, iou, 62.0).backward()
    pushed_down[name] = int((logits.grad[is_class] > 0).sum())
score = prediction.logits.sigmoid()[is_class]
overlap = iou[is_class.any(-1)]
print(f"mean score {score.mean():.2f}, mean IoU {overlap.mean():.2f}")
pushed_down

# %%
likeness = torch.corrcoef(torch.stack([score, overlap]))[0, 1]
print(f"correlation of score and IoU: {likeness:.2f}")
assert pushed_down["varifocal"] == int((score > overlap).sum()) > 0
assert pushed_down["varifocal, no IoU"] == 0

# %% [markdown]
# Only the IoU target ever tells a matched query that it is *too* sure.
#
# ## What it costs
#
# Nothing at inference: no loss has a parameter, and none is computed there. One training step of
# nano judges four sets of matched answers and three of denoising queries. Against the model:

# %%
cost(model, images[:1])

# %% tags=["varies"]
forward = milliseconds(lambda: model(images[:1]), repeat=3)
judge = milliseconds(lambda: criterion(prediction, targets), repeat=3)
print(f"one picture through the model {forward:.0f} ms; judging eight of them {judge:.0f} ms")

# %% [markdown]
# ## Exercises
#
# **1.** A matched query has the score 0.5 and a box of IoU 0.7. What is the gradient of its
# varifocal loss with respect to its *logit*?

# %%
answer = ...

# %% tags=["solution"]
logit = torch.zeros(1, 1, 1, requires_grad=True)
Varifocal()(logit, yes, torch.tensor([[0.7]]), 1.0).backward()
check(answer, logit.grad.item(), hint="For cross-entropy towards q it is p - q; here times q.")

# %% [markdown]
# **2.** A matched query has a box that misses its object altogether. What is that gradient then?

# %%
answer = ...

# %% tags=["solution"]
logit = torch.zeros(1, 1, 1, requires_grad=True)
Varifocal()(logit, yes, torch.tensor([[0.0]]), 1.0).backward()
check(answer, logit.grad.item(), hint="Put q = 0 into Eq. 04.1.")

# %% [markdown]
# **3.** Two squares of one size lie side by side and touch along an edge. What is their GIoU loss?

# %%
answer = ...

# %% tags=["solution"]
left, right = torch.tensor([[0.4, 0.5, 0.2, 0.2]]), torch.tensor([[0.6, 0.5, 0.2, 0.2]])
check(answer, giou_loss(left, right, 1.0).item(), hint="The box around both is full: GIoU = IoU.")

# %% [markdown]
# **Next**: [05 · Backbone](05_backbone.ipynb). We know what is asked of the network. Now to the
# network: how does it see?
