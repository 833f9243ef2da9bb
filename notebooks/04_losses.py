# %% [markdown]
# # 04 · Losses: what is an error, and what should a score mean?
#
# **Paper** RT-DETR §4.3 and Table A; varifocal: Zhang et al. 2021, Eq. 2; focal: Lin et al. 2017,
# Eq. 5; boxes: DETR §A.2 · **Chapters** `rtdetr_lab/losses.py`, `rtdetr_lab/criterion.py` ·
# **Before this** [03 matching](03_matching.ipynb)
#
# The matching has decided which query answers for which object. Two questions are left: is the box
# right, and is the score right? After this notebook you can explain what makes RT-DETR's score
# *aware of the IoU*, and what a score means without that.

# %% tags=["imports"]
import matplotlib.pyplot as plt
import torch

import rtdetr_lab as lab
from rtdetr_lab.boxes import paired_iou, xyxy_from_cxcywh
from rtdetr_lab.criterion import Criterion
from rtdetr_lab.losses import BinaryCrossEntropy, CrossEntropy, Focal, Varifocal, giou_loss, l1_loss
from rtdetr_lab.notebook import check, cost, milliseconds, seeded, shapes, source
from rtdetr_lab.structures import Targets
from rtdetr_lab.viz.canvas import new_axes
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
# The figure shows the class loss of a matched query for every score. The three curves belong to
# three *boxes*: their IoU with the object is 0.3, 0.6 and 0.9. Each curve has its minimum where the
# score equals the IoU.

# %%
# alt: Three curves of loss against score, with their minima marked at 0.3, 0.6 and 0.9. The better
#   the box, the higher the curve at small scores.
scores = torch.linspace(0.01, 0.99, 99)
yes = torch.ones(1, 1, 1, dtype=torch.bool)
fig, ax = plt.subplots(figsize=(5.6, 3.2), layout="compressed")
for q, color, dash in ((0.3, GREEN, ":"), (0.6, ORANGE, "--"), (0.9, BLUE, "-")):
    iou = torch.full((1, 1), q)
    loss = torch.stack([Varifocal()(p.logit().view(1, 1, 1), yes, iou, 1.0) for p in scores])
    ax.plot(scores, loss, color=color, ls=dash, label=f"IoU {q}")
    ax.plot(scores[loss.argmin()], loss.min(), "o", color=color)
ax.set(xlabel="score at the object's class", ylabel="varifocal loss", ylim=(0, 2.5))
ax.set_title("The loss is lowest where the score equals the IoU", fontsize=11)
ax.legend(frameon=False)

# %% [markdown]
# ## The question
#
# What should the class head predict for a query? The plain answer is 1 at the object's class and 0
# elsewhere. This is **cross-entropy**. But nearly all of the 100 queries × 10 classes are
# "elsewhere". So **focal** loss gives little weight to predictions that are already right:
#
# $$ \mathcal L_{\text{focal}} = -\alpha_t\, (1 - p_t)^\gamma \log p_t \tag{04.1} $$
#
# $p_t$ is the probability that the query gives to the right answer: its score $p$ at the object's
# class, $1 - p$ elsewhere. (This $t$ stands for *target*; in notebook 03 it was an object.)
# $\alpha_t$ is $\alpha$ at the object's class and $1 - \alpha$ elsewhere.
#
# Both losses teach *whether* there is an object. But scores are used to **rank**: the query
# selection ranks tokens, and the user ranks detections. The highest score should belong to the best
# box. **Varifocal** loss has a different target: $q$, the IoU of the query's *own* box
# (in notebook 03 it was the index of a query):
#
# $$ \mathcal L_{\text{varifocal}} = \begin{cases}
#    -q \bigl(q \log p + (1-q) \log (1-p)\bigr) & \text{matched, at its class} \\
#    -\alpha\, p^\gamma \log(1-p) & \text{everywhere else} \end{cases} \tag{04.2} $$
#
# Two losses judge the box itself, by distance and by overlap:
#
# $$ \mathcal L_{L1} = \|b - \hat b\|_1, \qquad
#    \mathcal L_{\text{giou}} = 1 - \mathrm{GIoU}(b, \hat b) \tag{04.3} $$
#
# The total is a sum over all layers, divided by the number of objects in the batch:
#
# $$ \mathcal L = \frac{1}{\text{objects}} \sum_{\text{layers}} \Bigl(
#    w_{\text{class}} \mathcal L_{\text{class}} + w_{L1} \sum_t \|b_t - \hat b_t\|_1
#    + w_{\text{giou}} \sum_t \bigl(1 - \mathrm{GIoU}(b_t, \hat b_t)\bigr) \Bigr) \tag{04.4} $$
#
# (Varifocal: $\alpha = 0.75$, $\gamma = 2$. Focal: $\alpha = 0.25$.) Here $t$ is an object again,
# and $\hat b_t$ is the box of the query that answers for it. In RT-DETR the class loss is
# varifocal, summed over all scores, and the weights $w$ are 1, 5 and 2. (Denoising layers train
# every object once per group, so they are divided by objects × groups: notebook 12.)
#
# ## By hand, on 3 × 3 scores
#
# Three queries, three classes. Query 0 is matched with an object of class 1, and its box has IoU
# 0.6.

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
# One wrong score, the 0.8 of query 1, costs more than all the others together. The seven scores of
# 0.1 and 0.2 cost almost nothing, because of the factor $p^\gamma$.
#
# DETR itself uses a softmax over the classes *and* "no object". "No object" has the weight 0.1:

# %%
logits = torch.randn(1, 3, 4)  # three classes; the last column is "no object"
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
# The line that begins with `iou[matched]` makes the score IoU-aware: it computes the target of the
# class loss from the detached boxes of the same step. When a box gets better, the target of its
# score rises.
#
# ## Look inside
#
# **Boxes that miss.** The object is a square of side 0.1 at $x = 0.8$. We put a box of the same
# size at four positions. The first three do not touch the object. Does the gradient of each loss
# show the direction to it?


# %%
def slope(loss, x):
    """Return the value of a loss, and its slope along x, for a box at x."""
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
# Without an overlap, 1 - IoU is always 1, so its gradient is zero. The slope of L1 is the same
# everywhere. GIoU has a slope everywhere: it is small far away (0.4), and large close to the object
# (8.9).
#
# Why not L1 alone? We shift a large and a small box, each by a quarter of its width:

# %%
for side in (0.4, 0.04):
    wanted = torch.tensor([[0.5, 0.5, side, side]])
    box = wanted + torch.tensor([[side / 4, 0, 0, 0]])
    print(
        f"side {side}: L1 {l1_loss(box, wanted, 1.0):.2f}, GIoU {giou_loss(box, wanted, 1.0):.2f}"
    )

# %% [markdown]
# The mistake is the same. For the small object, L1 is ten times smaller. GIoU does not depend on
# the size.
#
# **All terms.** We run `nano` in training mode on eight pictures, with its denoising queries
# (notebook 12). Every decoder layer makes a full prediction, so every layer has its own loss. The
# encoder's proposals have one too.

# %%
# alt: Stacked bars of class, L1 and GIoU loss for the proposals, three layers and three denoising
#   layers. The proposals have the highest loss; it falls from layer to layer.
model.training = True  # only this flag: the norms inside stay in eval mode
with torch.no_grad():
    prediction = model(images, targets)
model.training = False
terms = criterion(prediction, targets)
places = {"proposals": ".proposals", "layer 0": ".layer0", "layer 1": ".layer1", "last": ""}
places |= {f"denoising {i}": f".denoising{i}" for i in range(3)}
kinds = {"class": "class", "L1": "l1", "GIoU": "giou"}
bars = {name: [terms[kind + at].item() for at in places.values()] for name, kind in kinds.items()}
labels = [name.replace("denoising", "noised").replace(" ", "\n") for name in places]
ax = layer_losses(bars, labels, new_axes(None, 3.6, 5.6))
ax.figure.suptitle("The loss falls from layer to layer", fontsize=11)

# %%
print(f"{len(terms)} terms, together {sum(terms.values()):.2f}")
judged = [sum(terms[kind + at].item() for kind in kinds.values()) for at in places.values()]
assert judged[0] > judged[1] > judged[2] > judged[3]
assert judged[4] > judged[5] > judged[6]

# %% [markdown]
# **Where does the gradient go?** Of 8,000 scores, 62 belong to an object. We add up the absolute
# gradients of these 62 and of the other 7,938, for three class losses of nano's prediction.


# %%
def matching_of(layer):
    """Return a mask of the matched scores, and the IoU of every query's box."""
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
# With plain cross-entropy the background gets 14 times the gradient of the objects, even in a
# *trained* model. With focal loss the factor is about six. With varifocal the objects get more than
# the background.
#
# **Per object.** Picture 5 has one shape, picture 0 has fourteen. A batch of both divides by 15. So
# every object counts the same, in a full picture and in a nearly empty one.


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
# The mean of the two pictures' losses is a different number: in it, the single shape counts as much
# as the fourteen together.
#
# ## Predict, then break it
#
# We take the IoU out of the target with `iou_target=False`, and change nothing else. What does a
# score *mean* then? We imagine five kinds of queries. Queries of one kind look exactly alike to the
# network. So they must all get the same score, although their outcomes can differ:
#
# | kind      | outcomes                                                  |
# |-----------|-----------------------------------------------------------|
# | good      | all matched with IoU 0.9                                  |
# | poor      | all matched with IoU 0.5                                  |
# | mixed     | all matched, half of them with IoU 0.3, half with IoU 0.9 |
# | half      | half of them matched with IoU 0.9, the others unmatched   |
# | rare      | one in ten matched with IoU 0.9, the others unmatched     |
#
# **Predict** the score at the end of training, for all five kinds: with the IoU target, and without
# it. For "mixed" and "half", is it the mean IoU (unmatched counts as 0)?


# %%
def rest(loss, ious):
    """Return the score at which the gradients of all outcomes cancel; IoU None means unmatched."""
    logits = torch.linspace(0.001, 0.999, 999).logit().requires_grad_()
    is_class = torch.tensor([q is not None for q in ious])
    iou = torch.tensor([q or 0.0 for q in ious])
    shape = len(ious), 999
    predicted = logits.expand(shape)[..., None]
    loss(
        predicted, is_class[:, None].expand(shape)[..., None], iou[:, None].expand(shape), 1.0
    ).backward()
    rising = (logits.grad >= 0).nonzero()
    return round(logits[rising[0, 0] if len(rising) else -1].sigmoid().item(), 2)


outcomes = {"good": [0.9], "poor": [0.5], "mixed": [0.3, 0.9], "half": [0.9, None]}
outcomes["rare"] = [0.9] + 9 * [None]

# %%
losses = {"varifocal": Varifocal(), "varifocal, no IoU": Varifocal(iou_target=False)}
losses |= {"focal": Focal(), "cross-entropy": BinaryCrossEntropy()}
resting = {}
for name, loss in losses.items():
    resting[name] = {kind: rest(loss, ious) for kind, ious in outcomes.items()}
    print(f"{name:18}", resting[name])

# %% [markdown]
# Without the IoU in the target, good, poor and mixed get the same score: 1 (the highest we try).
# Such a score tells how often a query is matched (with cross-entropy it is exactly that fraction).
# It cannot rank IoU 0.9 above 0.5. Worse, a poor box that is always matched ranks *above* a good
# box that is matched half of the time. With the IoU target the order is reversed: half (0.66) ranks
# above poor (0.5).
#
# But the varifocal score is not a plain mean. "Mixed" ends at 0.75 and not at 0.6, because the
# weight $q$ makes a good outcome count more: where all outcomes are matched, the sum of the
# gradients, $\sum q\,(p - q)$, is zero at $p = \sum q^2 / \sum q$. "Rare" ends at 0.4 and not at
# its mean IoU 0.09, because the background's weight $\alpha p^\gamma$ is too small to pull it down
# further. Varifocal scores are good for ranking, but they are not probabilities.

# %%
assert resting["varifocal"]["half"] > resting["varifocal"]["poor"]
for name in ("varifocal, no IoU", "focal", "cross-entropy"):
    assert resting[name]["good"] == resting[name]["poor"] > resting[name]["half"]
assert abs(resting["varifocal"]["mixed"] - (0.3**2 + 0.9**2) / (0.3 + 0.9)) < 0.01

# %% [markdown]
# And a real model? `nano` predicts a score and a box for each of the 62 matched queries.
# **Predict**: how many of these scores does the loss push *down*, with the IoU target and without?

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
# The loss can lower the score of a matched query that is *too* sure, but only with the IoU target.
#
# ## What it costs
#
# Losses cost nothing at inference: they have no parameters, and are not computed there. A training
# step of `nano` computes the losses of four matched predictions (proposals and three layers) and of
# three denoising predictions. For comparison, the cost of the model:

# %%
cost(model, images[:1])

# %% tags=["varies"]
forward = milliseconds(lambda: model(images[:1]), repeat=3)
judge = milliseconds(lambda: criterion(prediction, targets), repeat=3)
print(f"model, one picture: {forward:.0f} ms; losses, eight pictures: {judge:.0f} ms")

# %% [markdown]
# ## Exercises
#
# **1.** A matched query has the score 0.5, and its box has IoU 0.7. What is the gradient of its
# varifocal loss with respect to its *logit*?

# %%
answer = ...

# %% tags=["solution"]
logit = torch.zeros(1, 1, 1, requires_grad=True)
Varifocal()(logit, yes, torch.tensor([[0.7]]), 1.0).backward()
check(answer, logit.grad.item(), hint="Cross-entropy with target q gives p - q; here times q.")

# %% [markdown]
# **2.** The box of a matched query does not overlap its object at all. What is this gradient now?

# %%
answer = ...

# %% tags=["solution"]
logit = torch.zeros(1, 1, 1, requires_grad=True)
Varifocal()(logit, yes, torch.tensor([[0.0]]), 1.0).backward()
check(answer, logit.grad.item(), hint="Set q = 0 in Eq. 04.2.")

# %% [markdown]
# **3.** Two squares of the same size lie side by side and share an edge. What is their GIoU loss?

# %%
answer = ...

# %% tags=["solution"]
left, right = torch.tensor([[0.4, 0.5, 0.2, 0.2]]), torch.tensor([[0.6, 0.5, 0.2, 0.2]])
check(answer, giou_loss(left, right, 1.0).item(), hint="They fill the box around both: GIoU = IoU.")

# %% [markdown]
# **Next**: [05 · Backbone](05_backbone.ipynb). We know what the network must predict. Now we
# look at the network itself: how does it read a picture?
