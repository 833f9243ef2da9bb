# %% [markdown]
# # 03 · Matching: which query answers for which object?
#
# **Paper** DETR §3.1, Eq. 1 and §A.2; instability: DN-DETR §3.2; the weights: RT-DETR Table A ·
# **Chapter** `rtdetr_lab/matching.py` · **Before this** [02 DETR](02_detr.ipynb)
#
# A detector gives a hundred answers for seven objects. Before anyone can say how wrong they are,
# somebody has to say which answer is *for* which object. Afterwards you can say why that is one
# decision and not seven, and what happens while it is made anew in every step.

# %%
from itertools import permutations

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import rtdetr_lab as lab
from rtdetr_lab.boxes import paired_iou, xyxy_from_cxcywh
from rtdetr_lab.data.shapes import SHAPE_NAMES
from rtdetr_lab.matching import FocalCost, HungarianMatcher, MatcherConfig, cheapest
from rtdetr_lab.notebook import check, cost, milliseconds, seeded, shapes, source
from rtdetr_lab.rtdetr import rtdetr_nano
from rtdetr_lab.structures import Targets
from rtdetr_lab.viz import matching as figures
from rtdetr_lab.viz.palette import BLUE, ORANGE

# %%
seeded()
model, matcher = lab.load_pretrained("nano"), MatcherConfig().build()
images, targets = shapes(*range(8))
with torch.no_grad():
    prediction = model(images)

# %% [markdown]
# ## The end, first
#
# Seven shapes, and the seven of nano's hundred queries that answer for them. A query is an index;
# that it is number 7 that answers for the large triangle is this picture's business alone.

# %%
# alt: A painted picture. Each of seven shapes has a frame, a dashed box of the query that answers
#   for it lying almost on top, and the number of that query.
queries, objects = next(pair for i, pair in enumerate(matcher(prediction, targets)) if i == 3)
ax = figures.matched_boxes(prediction.boxes[3], targets.boxes[3], queries, objects, images[3])

# %% [markdown]
# ## The question
#
# Older detectors let every box near an object answer for it, and delete the duplicates afterwards.
# A detector that shall not need this must be *taught* to answer once. So each object $t$ is given
# to exactly one query $\sigma(t)$, no query gets two, and everyone else learns to say "nothing":
#
# $$ \hat\sigma = \arg\min_{\sigma \text{ one-to-one}} \sum_t \mathcal C_{\sigma(t), t}
#    \tag{03.1} $$
#
# What it costs to let query $q$ answer for object $t$ weighs three things, the class, the distance
# and the overlap of the boxes:
#
# $$ \mathcal C_{q,t} = 2\, \mathcal C^{\text{class}}_{q,t} + 5\, \|b_t - \hat b_q\|_1
#    - 2\, \mathrm{GIoU}(b_t, \hat b_q) \tag{03.2} $$
#
# with the class cost as the difference of two focal losses, that of saying "yes" minus that of
# saying "no", where $p$ is the query's score at the object's class:
#
# $$ \mathcal C^{\text{class}} = -\alpha (1-p)^\gamma \log p + (1-\alpha)\, p^\gamma \log(1-p)
#    \tag{03.3} $$
#
# ## By hand, on 3 × 3 costs
#
# Three queries (rows), three objects (columns). Query 0 is the best for every object.

# %%
table = torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 6.0, 9.0]])
for sigma in permutations(range(3)):
    total = sum(table[q, t].item() for t, q in enumerate(sigma))
    print(f"objects 0, 1, 2 go to queries {sigma}: {total:g}")

# %% [markdown]
# The cheapest pair of all is (query 0, object 0), at 1. Whoever takes it first, and then the
# cheapest of what is left, ends at $1 + 4 + 9 = 14$: the *worst* of the six. The best gives query 0
# to the object that can least do without it.

# %%
queries, objects = cheapest(table)
print("query → object:", dict(zip(queries.tolist(), objects.tolist(), strict=True)))
assert table[queries, objects].sum() == 10

# %% [markdown]
# Three objects have 6 permutations, seven objects and a hundred queries about $8 \cdot 10^{13}$.
# Nobody tries them all: the Hungarian algorithm finds the same minimum in polynomial time.
#
# Now the class cost, for a query that is undecided, one that is sure, and one that is sure not:

# %%
p = torch.tensor([0.5, 0.9, 0.1])
by_hand = -0.25 * (1 - p) ** 2 * p.log() + 0.75 * p**2 * (1 - p).log()
module = FocalCost()(torch.logit(p)[:, None], torch.tensor([0]))[:, 0]
print("by hand:", by_hand, " module:", module)
assert torch.allclose(by_hand, module, atol=1e-5)

# %% [markdown]
# A cost may be negative: only differences count. A sure query is a bargain, an undecided one costs
# next to nothing, and one that is sure of the contrary is dear.
#
# ## The real module

# %%
source(HungarianMatcher.cost_matrix)

# %%
source(cheapest)

# %% [markdown]
# The whole batch is matched picture by picture, under `no_grad`: which query answers is a fact of
# this step. Only how *well* it answers is differentiated, by the losses of notebook 04.
#
# ## Look inside
#
# The costs of the picture above: the matched queries, and the cheapest of the others.


# %%
def costs_of(layer, picture, matcher=matcher):
    truth = targets.labels[picture], targets.boxes[picture]
    return matcher.cost_matrix(layer.logits[picture], layer.boxes[picture], *truth)


# %%
# alt: A matrix of costs, 14 queries by 7 objects. In every column one cell is framed, clearly
#   cheaper than the rest of the column.
costs = costs_of(prediction, 3)
queries, objects = cheapest(costs)
names = [SHAPE_NAMES[label] for label in targets.labels[3].tolist()]
ax = figures.cost_matrix(costs, queries, objects, names)

# %%
runner_up = costs.topk(2, dim=0, largest=False).values.diff(dim=0)[0]
print("the best of each column is ahead by", [round(gap, 1) for gap in runner_up.tolist()])
assert costs.argmin(0).tolist() == queries[objects.argsort()].tolist()

# %% [markdown]
# In a trained model the columns do not compete: each has a favourite, and no two the same one.
#
# **From layer to layer.** Every decoder layer is judged, so every layer is matched anew, and so are
# the encoder's proposals. Does an object keep its query?

# %%
# alt: One line per object over four steps, proposals and three layers. Six lines are level; one
#   jumps by one query after the proposals.
steps = [prediction.proposals.layer, *prediction.layers]
pairs = [cheapest(costs_of(step, 3)) for step in steps]
matches = figures.matches_of(*zip(*pairs, strict=True))
step_names = ["proposals", *(f"layer {i}" for i in range(3))]
ax = figures.matches_over_steps(
    matches, step_names, [f"{t} {name}" for t, name in enumerate(names)]
)

# %%
changes = []
for picture in range(8):
    pairs = [cheapest(costs_of(step, picture)) for step in steps]
    changes.append(figures.matches_of(*zip(*pairs, strict=True)))
share = figures.instability(torch.cat(changes, dim=1))
print(f"of {targets.num_boxes} objects in 8 pictures, {share:.0%} change hands from step to step")
assert share < 0.2

# %% [markdown]
# **From step to step.** A model that has learned nothing yet is another matter. Here nano learns
# four small pictures from scratch, and beside it the trained nano goes on training. After every
# step we look which *token* answers for each object (indices of queries are places in a ranking,
# and would change with the ranking).


# %%
def answering_tokens(prediction, targets):
    pairs = zip(prediction.proposals.index, matcher(prediction, targets), strict=True)
    return torch.cat([token[queries[objects.argsort()]] for token, (queries, objects) in pairs])


# %%
def watch_training(model, lr, num_steps):
    """Who answers for each object, step by step."""
    torch.manual_seed(0)
    criterion, rows = model.cfg.criterion.build(), []
    model.train().num_queries = 50
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    for _ in range(num_steps):
        prediction = model(few, few_targets)
        rows.append(answering_tokens(prediction, few_targets))
        optimizer.zero_grad()
        sum(criterion(prediction, few_targets).values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
    return torch.stack(rows)


# %% [markdown]
# **Predict**: how large is the share of objects that change hands in one step of training, at the
# beginning?

# %%
# alt: Two curves over training steps, the share of objects that get another token than the step
#   before. From scratch it starts near 0.8 and falls; trained it stays low.
chosen = [3, 4, 6, 7]
few = F.interpolate(images[chosen], (128, 128), mode="bilinear", antialias=True)
few_targets = Targets(*([kind[i] for i in chosen] for kind in (targets.labels, targets.boxes)))
torch.manual_seed(0)
watched = {"from scratch": watch_training(rtdetr_nano(10).build(), 1e-3, 15)}
watched["trained"] = watch_training(lab.load_pretrained("nano"), 1e-4, 7)
moved = {name: (rows[1:] != rows[:-1]).float().mean(1) for name, rows in watched.items()}
fig, ax = plt.subplots(figsize=(6, 2.6), layout="compressed")
for (name, share), color in zip(moved.items(), (ORANGE, BLUE), strict=True):
    ax.plot(share, color=color, marker=".", label=name)
ax.set(xlabel="step of training", ylabel="share that changed hands", ylim=(-0.03, 1))
ax.legend(frameon=False)

# %%
first, last = (moved["from scratch"][steps].mean() for steps in (slice(5), slice(-5, None)))
assert first > 0.4 > 0.2 > moved["trained"].mean()
assert last < 0.75 * first

# %% [markdown]
# At first about half of the objects get a new token in every step: what a query learns now is
# taken from it in the next. This is DN-DETR's *instability*, and why there is denoising
# (notebook 12), which needs no matching. (No digits here: training multiplies the rounding of a
# processor, so your curve from scratch will differ from ours, and tell the same.)
#
# **More objects than queries.** Then somebody goes unanswered: the cheapest min(Q, T) pairs.

# %%
model.num_queries = 5
with torch.no_grad():
    five = model(images)
model.num_queries = 100
queries, objects = cheapest(costs_of(five, 3))
unanswered = set(range(7)) - {*objects.tolist()}
print(f"{len(queries)} pairs for {len(names)} objects; unanswered: {unanswered}")
assert len(queries) == 5

# %% [markdown]
# No error, no warning, and no lesson about the other two. $Q$ has to be larger than any picture
# is full.
#
# ## Predict, then break it
#
# **Greedy instead of Hungarian.** The 3 × 3 example was made to be nasty. On eight real pictures,
# in how many does greedy choose a dearer assignment: for the trained nano, and for an untrained
# one? And with 10 queries in place of 100?


# %%
def greedy(costs):
    """Total when the cheapest pair that is left is taken, again and again."""
    costs, total = costs.clone(), 0.0
    for _ in range(min(costs.shape)):
        query, target = divmod(int(costs.argmin()), costs.shape[1])
        total += costs[query, target].item()
        costs[query], costs[:, target] = torch.inf, torch.inf
    return total


def dearer(prediction):
    """Pictures in which greedy is worse than the optimum, and by how much at most."""
    all_costs = [costs_of(prediction, i) for i in range(8)]
    gaps = [greedy(c) - c[cheapest(c)].sum().item() for c in all_costs]
    return sum(gap > 1e-3 for gap in gaps), round(max(gaps), 1)


# %%
torch.manual_seed(0)
untrained = rtdetr_nano(10).build().eval()
model.num_queries = 10
with torch.no_grad():
    raw, ten = untrained(images), model(images)
model.num_queries = 100
worse = {"trained": dearer(prediction), "untrained": dearer(raw), "10 queries": dearer(ten)}
worse

# %%
assert worse["trained"][0] == 0 < worse["10 queries"][0] <= worse["untrained"][0]

# %% [markdown]
# For the trained model greedy is *never* worse: the objects do not compete, so it does not matter
# who chooses first. The algorithm earns its keep where they do: at the beginning, and in crowds.
#
# **Other weights.** Suppose matching is done by boxes alone (the class has its own loss, after
# all), or by class alone.
#
# **Predict**: are the matched boxes of "only L1" much better than with all three? And do matched
# queries still say the right class?


# %%
def judged(weights):
    """Mean IoU and mean score of the matched pairs, and how many pairs are as usual."""
    other, overlaps, scores, same = MatcherConfig(*weights).build(), [], [], 0
    for i, (boxes, labels) in enumerate(zip(targets.boxes, targets.labels, strict=True)):
        queries, objects = cheapest(costs_of(prediction, i, other))
        pair = prediction.boxes[i, queries], boxes[objects]
        overlaps.append(paired_iou(*map(xyxy_from_cxcywh, pair)))
        scores.append(prediction.logits[i, queries, labels[objects]].sigmoid())
        usual = (x.tolist() for x in cheapest(costs_of(prediction, i)))
        pair_of = queries.tolist(), objects.tolist()
        same += len({*zip(*pair_of, strict=True)} & {*zip(*usual, strict=True)})
    mean_iou, mean_score = (torch.cat(x).mean().item() for x in (overlaps, scores))
    return mean_iou, mean_score, same


# %%
weights = {"all three": (2, 5, 2), "2 and 5 swapped": (5, 2, 2), "only class": (2, 0, 0)}
weights |= {"only L1": (0, 5, 0), "only GIoU": (0, 0, 2)}
outcome = {name: judged(w) for name, w in weights.items()}
for name, (overlap, score, same) in outcome.items():  # may differ: as usual ± 3 of 30
    print(f"{name:15} IoU {overlap:.3f}, score {score:.2f}, pairs as usual {same}")

# %% [markdown]
# By L1 alone the matched boxes get better by one hundredth, and *half of the objects go to another
# query*: the mean score falls from 0.75 to 0.41. Several queries box every object well; only the
# class cost sees which of them has learned to speak up. Matched by boxes alone, the next step would
# teach a silent duplicate to say "yes" and the speaker to be silent. By class alone a third of the
# objects go to another query, often one that means another shape of the same class. Swapping 2 and
# 5, in contrast, changes next to nothing.

# %%
assert outcome["2 and 5 swapped"][2] > 0.9 * targets.num_boxes
assert outcome["only L1"][0] > outcome["all three"][0] > outcome["only class"][0] + 0.2
assert outcome["only L1"][1] < 0.7 * outcome["all three"][1]

# %% [markdown]
# ## What it costs
#
# Nothing at inference: nobody matches there. In training it is done for every layer and for the
# proposals, on the CPU, while the accelerator waits. A model's cost is this, without it:

# %%
cost(model, images[:1])

# %% [markdown]
# The time in milliseconds for 300 queries and 10, 100, 300 objects of random cost (yours will
# differ):

# %% tags=["varies"]
for num_objects in (10, 100, 300):
    some = torch.rand(300, num_objects)
    print(f"{num_objects:3} objects: {milliseconds(lambda some=some: cheapest(some)):.2f} ms")

# %% [markdown]
# Small, and as often per step as there are layers and pictures. That is why the module moves the
# costs of all pictures to the CPU in one transfer.
#
# ## Exercises
#
# **1.** Costs: query 0 (1, 3), query 1 (2, 9), query 2 (4, 6), the pairs being objects 0 and 1.
# Which query answers for object 1?

# %%
answer = ...

# %% tags=["solution"]
queries, objects = cheapest(torch.tensor([[1.0, 3.0], [2.0, 9.0], [4.0, 6.0]]))
check(answer, int(queries[objects == 1]), hint="Six ways to choose; the best costs 5.")

# %% [markdown]
# **2.** A constant is added to all costs of *one object's column* (and there are enough queries).
# Can the assignment change? Answer `True` or `False`.

# %%
answer = ...

# %% tags=["solution"]
before, after = cheapest(costs), cheapest(costs + torch.tensor([100.0, 0, 0, 0, 0, 0, 0]))
check(answer, not torch.equal(before[0], after[0]), hint="Every assignment pays it exactly once.")

# %% [markdown]
# **3.** And if a constant is added to all costs of the *row* of one matched query, say 100?

# %%
answer = ...

# %% tags=["solution"]
dear = costs.clone()
dear[before[0][0]] += 100
check(
    answer, not torch.equal(before[0], cheapest(dear)[0]), hint="93 queries are waiting for a turn."
)

# %% [markdown]
# **Next**: [04 · Losses](04_losses.ipynb). Now that everyone knows whom they answer for: how wrong
# are they?
