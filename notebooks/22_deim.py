# %% [markdown]
# # 22 · DEIM: listen to poor matches, and have more matches
#
# **Paper** DEIM (arXiv 2412.04234) §3, Tables 4 to 6 · **Chapter** `rtdetr_lab/successors/deim.py`
# · **Before this** [04 losses](04_losses.ipynb), [21 D-FINE](21_dfine.ipynb)
#
# DEIM changes no network. It changes what a network learns from: the weight of a poor match in the
# loss, and the number of matches in a picture. After this notebook you can explain why varifocal
# loss hardly hears a poor match, what a score means with DEIM's loss, and what mosaic and mixup do
# to the number of positives.

# %% tags=["imports"]
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import rtdetr_lab as lab
from rtdetr_lab.boxes import paired_iou, scale_boxes, xyxy_from_cxcywh
from rtdetr_lab.config import diff
from rtdetr_lab.losses import Varifocal
from rtdetr_lab.notebook import check, cost, count_found, seeded, shapes, source
from rtdetr_lab.structures import Targets
from rtdetr_lab.successors.deim import MatchabilityAware, matchability_aware
from rtdetr_lab.viz.canvas import show_picture
from rtdetr_lab.viz.marks import frame_corners
from rtdetr_lab.viz.palette import BLUE, GREEN, ORANGE, VERMILLION

# %%
generator = seeded()
nano = lab.load_pretrained("nano")
criterion = nano.cfg.criterion.build()
images, targets = shapes(*range(8))
yes = torch.ones(1, 1, 1, dtype=torch.bool)

# %% [markdown]
# ## The end, first
#
# How hard does the loss pull at the score of a matched query? We draw the slope along the logit,
# for a query that is quite sure (score 0.8), over the IoU of its box. Above 0 the loss pulls the
# score down. Look at the left end, where the box is poor: varifocal loss pulls hardly or not at
# all. The matchability-aware loss (MAL) pulls the hardest there.


# %%
def slope(loss, score, iou):
    """Return the slope of the loss of one match along its logit."""
    logit = torch.tensor(score).logit().view(1, 1, 1).requires_grad_()
    loss(logit, yes, torch.tensor([[iou]]), 1.0).backward()
    return logit.grad.item()


# %%
# alt: Slope over IoU for two losses, at a score of 0.8. Varifocal starts at 0 for IoU 0, rises to
#   0.16 at IoU 0.4 and falls below 0 after 0.8. MAL starts at 0.8 and falls steadily to -0.2.
ious = [i / 50 for i in range(51)]
losses = {"varifocal": Varifocal(), "MAL": MatchabilityAware()}
fig, ax = plt.subplots(figsize=(5.6, 3.2), layout="compressed")
for (name, loss), color, dash in zip(losses.items(), (BLUE, VERMILLION), ("--", "-"), strict=True):
    ax.plot(ious, [slope(loss, 0.8, q) for q in ious], dash, color=color, lw=2, label=name)
ax.axhline(0, color="#808080", lw=0.8)
ax.set(xlabel="IoU of the box with its object", ylabel="slope of the loss along the logit")
ax.annotate("above 0: the loss lowers the score", (0.03, 0.3))
ax.annotate("below 0: it raises the score", (0.03, -0.14))
ax.set(xlim=(0, 1), ylim=(-0.25, 0.85))
ax.set_title("Only MAL corrects a sure score on a poor box", fontsize=11)
ax.legend(frameon=False)

# %%
assert slope(losses["varifocal"], 0.8, 0.0) == 0
assert slope(losses["MAL"], 0.8, 0.0) > 0.79
assert abs(slope(losses["varifocal"], 0.8, 0.95) - slope(losses["MAL"], 0.8, 0.95)) < 0.03

# %% [markdown]
# ## The question
#
# One-to-one matching gives every object exactly one query. Early in training its box is poor: an
# IoU of 0.1 or 0.2. Varifocal loss (Eq. 04.2) weighs a match with its IoU $q$, so such a match
# counts little. But a poor match with a high score is the worst case: it will be shown to a user.
# MAL gives every match the weight 1. The quality is in the target alone, raised to $\gamma = 1.5$:
#
# $$ \mathcal L_{\text{MAL}} = \begin{cases}
#    -\bigl(q^\gamma \log p + (1 - q^\gamma) \log (1-p)\bigr) & \text{matched, at its class} \\
#    -p^\gamma \log(1-p) & \text{everywhere else} \end{cases} \tag{22.1} $$
#
# ## By hand, on 3 × 3 scores
#
# Three queries and three classes. Query 0 is matched with class 1, and its box has IoU 0.2.

# %%
p = torch.tensor([[0.1, 0.5, 0.2], [0.1, 0.1, 0.8], [0.1, 0.1, 0.1]])
is_class = torch.zeros(1, 3, 3, dtype=torch.bool)
is_class[0, 0, 1] = True
iou = torch.tensor([[0.2, 0.0, 0.0]])
by_hand = -(p**1.5) * (1 - p).log()
wanted = 0.2**1.5
by_hand[0, 1] = -(wanted * p[0, 1].log() + (1 - wanted) * (1 - p[0, 1]).log())
print(by_hand)
print("the match alone: MAL", round(by_hand[0, 1].item(), 2), "varifocal", round(0.2 * 0.6931, 2))
assert torch.allclose(by_hand.sum(), MatchabilityAware()(p.logit()[None], is_class, iou, 1.0))

# %% [markdown]
# ## The real module

# %%
source(MatchabilityAware)

# %%
source(matchability_aware)

# %% [markdown]
# It is one value of the criterion, so it fits every RT-DETR and every D-FINE:

# %%
for preset in (lab.rtdetrv2_r18, lab.dfine_s):
    print(f"{preset.__name__:13} {list(diff(preset(), matchability_aware(preset())))}")

# %% [markdown]
# ## Look inside: how poor are matches?
#
# We match the eight pictures twice: with a new `nano` whose weights are random, and with the
# trained one. For every match we note the IoU of its box.


# %%
def matches(model):
    """Return the logits of the last layer, the mask of matched scores, and the IoU of each box."""
    with torch.no_grad():
        layer = model(images).layers[-1]
    pairs = criterion.matcher(layer, targets)
    iou, is_class = torch.zeros(layer.logits.shape[:2]), torch.zeros_like(layer.logits).bool()
    pair = layer.boxes[pairs.flat], pairs.gather(targets.boxes)
    iou[pairs.flat] = paired_iou(*map(xyxy_from_cxcywh, pair))
    is_class[(*pairs.flat, pairs.gather(targets.labels))] = True
    return layer.logits, is_class, iou


torch.manual_seed(0)
models = {"new": nano.cfg.build().eval(), "trained": nano}
matched = {name: matches(model) for name, model in models.items()}
quality = {name: iou[is_class.any(-1)] for name, (_, is_class, iou) in matched.items()}

# %%
# alt: Two histograms of the IoU of 62 matches. Those of the new model lie mostly below 0.1, and
#   none above 0.6. Those of the trained model pile up above 0.9.
fig, axes = plt.subplots(1, 2, figsize=(5.6, 2.8), layout="compressed", sharey=True)
fig.suptitle("A new model has poor matches, a trained one good ones", fontsize=11)
for ax, (name, values) in zip(axes, quality.items(), strict=True):
    ax.hist(values, bins=20, range=(0, 1), color=BLUE if name == "new" else GREEN)
    ax.set(xlabel="IoU of the matched box")
    ax.set_title(f"{name} model", fontsize=10)
axes[0].set_ylabel("number of matches")

# %%
print("median IoU of the new model is below 0.5:", bool(quality["new"].median() < 0.5))
print("median IoU of the trained model is above 0.8:", bool(quality["trained"].median() > 0.8))
assert quality["new"].median() < 0.5 < 0.8 < quality["trained"].median()

# %% [markdown]
# Which matches do the two losses hear? We give all matches of the new model the score 0.5, and add
# up the slopes of those below and above an IoU of 0.3:

# %%
heard = {}
for name, loss in losses.items():
    slopes = [abs(slope(loss, 0.5, q)) for q in quality["new"].tolist()]
    poor = [s for s, q in zip(slopes, quality["new"].tolist(), strict=True) if q < 0.3]
    heard[name] = sum(poor) / len(poor)
ratio = heard["MAL"] / heard["varifocal"]
print(f"a match with an IoU below 0.3 pulls at least 5 times as hard with MAL: {ratio > 5}")
assert ratio > 5

# %% [markdown]
# ## Predict, then break it: what does a score mean?
#
# As in notebook 04 we imagine kinds of queries that the network cannot tell apart, and ask at which
# score all gradients cancel. *Poor* queries are all matched with IoU 0.3, *good* ones with 0.9. For
# *half*, one of two is matched with IoU 0.9 and the other is unmatched. **Predict** the three
# scores for MAL: is a poor query now ranked lower or higher than with varifocal? And *half*?


# %%
def rest(loss, ious):
    """Return the score at which the gradients of all outcomes cancel; IoU None means unmatched."""
    logits = torch.linspace(0.001, 0.999, 999).logit().requires_grad_()
    predicted = logits.expand(len(ious), 999)[..., None]
    is_class = torch.tensor([q is not None for q in ious])[:, None, None].expand(-1, 999, 1)
    overlap = torch.tensor([q or 0.0 for q in ious])[:, None].expand(-1, 999)
    loss(predicted, is_class, overlap, 1.0).backward()
    rising = (logits.grad >= 0).nonzero()
    return round(logits[rising[0, 0]].sigmoid().item(), 2)


kinds = {"poor": [0.3], "good": [0.9], "half": [0.9, None], "mixed": [0.3, 0.9]}
resting = {name: {k: rest(loss, q) for k, q in kinds.items()} for name, loss in losses.items()}
for name, scores in resting.items():
    print(f"{name:9}", scores)

# %% [markdown]
# With MAL a poor query rests at $0.3^{1.5} \approx 0.165$, not at 0.3: lower and so further away
# from a good one (0.85). *Half* is pulled down too, because the background has no $\alpha = 0.75$
# any more and a smaller exponent. And *mixed* is a plain mean of its targets: every outcome counts
# the same, where varifocal lets the good one count three times as much.

# %%
assert abs(resting["MAL"]["poor"] - 0.3**1.5) < 0.011
assert abs(resting["MAL"]["mixed"] - (0.3**1.5 + 0.9**1.5) / 2) < 0.011
assert resting["MAL"]["half"] < resting["varifocal"]["half"]

# %% [markdown]
# ## Dense one-to-one: more matches from the data
#
# The other half of DEIM. One-to-one matching trains as many queries as there are objects: a few of
# 100 or 300. RT-DETRv3 ([23](23_rtdetrv3.ipynb)) asks for every object several times. DEIM keeps
# one-to-one, and puts more *objects* into a picture. **Mosaic** puts four pictures into one, at
# half size. **Mixup** shows two pictures on top of each other. By hand, without random crops:


# %%
def mosaic(i):
    """Put the pictures i … i + 3 (of eight, in a ring) into one, at half size."""
    four = [(i + k) % 8 for k in range(4)]
    small = F.avg_pool2d(images[four], 2)
    picture = torch.cat([torch.cat(list(small[:2]), 2), torch.cat(list(small[2:]), 2)], 1)
    moved = []
    for k, n in enumerate(four):
        place = torch.tensor([(k % 2) / 2, (k // 2) / 2, 0, 0])
        moved.append(targets.boxes[n] / 2 + place)
    return picture, torch.cat([targets.labels[n] for n in four]), torch.cat(moved)


def mixup(i):
    """Show the pictures i and i + 1 on top of each other."""
    j = (i + 1) % 8
    both = [torch.cat([kind[i], kind[j]]) for kind in (targets.labels, targets.boxes)]
    return (images[i] + images[j]) / 2, *both


# %%
# alt: Two pictures: four scenes in a square, and two scenes that shine through each other. Both
#   have many boxes.
made = {"mosaic": mosaic(0), "mixup": mixup(0)}
fig, axes = plt.subplots(1, 2, figsize=(4.4, 2.7), layout="compressed")
fig.suptitle(f"One scene has {targets.counts[0]} objects, these have more", fontsize=11)
for ax, (name, (picture, labels, boxes)) in zip(axes, made.items(), strict=True):
    size = show_picture(ax, picture)
    for corners in scale_boxes(xyxy_from_cxcywh(boxes), size):
        frame_corners(ax, corners, ORANGE, "-", 1, edge=0.8)
    ax.set_title(f"{name}: {len(labels)} objects", fontsize=10)

# %% [markdown]
# **Predict**: eight pictures have 62 objects. How many matches does a decoder layer learn from in a
# batch of eight plain pictures? In a batch of eight mosaics? Eight mixups?

# %%
batches = {"plain": (images, targets)}
for name, mix in {"mosaic": mosaic, "mixup": mixup}.items():
    parts = [mix(i) for i in range(8)]
    truth = Targets(tuple(part[1] for part in parts), tuple(part[2] for part in parts))
    batches[name] = torch.stack([part[0] for part in parts]), truth
positives, shares = {}, {}
for name, (pictures, truth) in batches.items():
    with torch.no_grad():
        answer = nano(pictures)
    pairs = criterion.matcher(answer.layers[-1], truth)
    positives[name] = sum(len(q) for q in pairs.queries)
    shares[name] = count_found(answer, truth) / truth.num_boxes
    print(f"{name:7} {positives[name]:4} matches a layer")
assert positives["mosaic"] == 4 * positives["plain"]
assert positives["mixup"] == 2 * positives["plain"]
assert max(shares["mosaic"], shares["mixup"]) < 0.75 * shares["plain"]

# %% [markdown]
# Mosaic gives four times as many matches from as many pixels, and no query answers twice, so
# nothing has to be suppressed. The price: the pictures look unlike those in use. `nano`, which
# never saw any like them, finds only about half of their objects. A model that was trained on them
# alone would have the opposite problem. So DEIM uses them for a part of the pictures only.
#
# The paper's numbers, after 12 epochs (Table 4): without both 49.6 AP, mixup 50.1, mosaic 50.4,
# both 50.4. RT-DETRv2-R50 has 53.4 after 72 epochs. With dense one-to-one it has 53.6 after 36, and
# with MAL 53.9 (Table 6).
#
# ## What it costs
#
# Nothing at inference. A model that is trained with MAL is the same network:

# %%
twin = matchability_aware(nano.cfg).build().eval()
twin.load_state_dict(nano.state_dict())
with torch.no_grad():
    same = torch.equal(twin(images).logits, nano(images).logits)
print("equal to the last bit:", same)
assert same
assert cost(twin, images[:1]).rows == cost(nano, images[:1]).rows

# %% [markdown]
# ## Exercises
#
# **1.** A matched query has the score 0.5, and its box has IoU 0.25. What is the slope of MAL along
# its logit?

# %%
answer = ...

# %% tags=["solution"]
check(answer, slope(losses["MAL"], 0.5, 0.25), hint="Cross-entropy: p minus the target q^1.5.")

# %% [markdown]
# **2.** For a box with IoU 0.49, to which score does MAL pull its query?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 0.49**1.5, hint="The target is a power of the IoU.")

# %% [markdown]
# **3.** Pictures have 7 objects each on average. Every picture of a batch of 32 becomes a mosaic of
# four, and then half of the batch is mixed up with another one. How many matches does a layer have?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 32 * 7 * 4 * 1.5, hint="Mosaic: times 4. Mixup doubles half of the pictures.")

# %% [markdown]
# **Next**: [23 · RT-DETRv3](23_rtdetrv3.ipynb) gets more matches in another way: it asks for every
# object several times. The page `docs/line.md` shows how the models follow each other.
