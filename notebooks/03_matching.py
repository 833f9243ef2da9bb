# %% [markdown]
# # 03 · Matching: which query answers for which object?
#
# **Paper** DETR §3.1, Eq. 1 and §A.2; instability: DN-DETR §3; the weights: RT-DETR Table A ·
# **Chapter** `rtdetr_lab/matching.py` · **Before this** [02 DETR](02_detr.ipynb)
#
# A detector makes a hundred predictions for seven objects. Before we can compute a loss, we must
# decide which prediction is *for* which object. After this notebook you can explain why this is one
# decision and not seven, and what happens when training makes it again in every step.

# %% tags=["imports"]
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
from rtdetr_lab.viz.canvas import new_axes
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
# The picture has seven shapes. Seven of nano's hundred queries *answer for* them: each must predict
# one shape. A query is only an index: in other pictures query 7 answers for other shapes.

# %%
# alt: A painted picture. Each of seven shapes has a frame. Almost on top of it lies the dashed box
#   of the query that answers for it, with the number of that query.
queries, objects = next(pair for i, pair in enumerate(matcher(prediction, targets)) if i == 3)
ax = new_axes(None, 5.2, 4.8)
figures.matched_boxes(prediction.boxes[3], targets.boxes[3], queries, objects, images[3], ax)
ax.set_title("Exactly one query answers for each shape", fontsize=11)

# %% [markdown]
# ## The question
#
# In older detectors every box near an object answers for it, and duplicates are deleted afterwards.
# A detector without this step must *learn* to answer once. So each object $t$ is matched with
# exactly one query $\sigma(t)$, and no query gets two objects. All other queries learn to predict
# "nothing". The assignment $\hat\sigma$ has the lowest total cost:
#
# $$ \hat\sigma = \arg\min_\sigma \sum_t \mathcal C_{\sigma(t), t} \tag{03.1} $$
#
# $\mathcal C_{q,t}$ is the cost of matching query $q$ with object $t$. It has three parts: the
# class, the distance of the boxes $b$ (object) and $\hat b$ (query), and their overlap:
#
# $$ \mathcal C = 2\, \mathcal C_{\text{class}} + 5\, \|b - \hat b\|_1
#               - 2\, \mathrm{GIoU}(b, \hat b) \tag{03.2} $$
#
# Take the smallest box around both boxes: GIoU is the IoU minus the fraction of this box that
# neither covers (notebook 01). The class cost is the focal loss of saying "yes" minus that of
# saying "no". A focal loss is a cross-entropy times a factor that is small where the score is
# already right (notebook 04). $p$ is the query's score at the object's class, $\gamma = 2$ and
# $\alpha = 0.25$. The second sign is a plus, because the loss of "no" has its own minus:
#
# $$ \mathcal C_{\text{class}} = -\alpha (1-p)^\gamma \log p
#    + (1-\alpha)\, p^\gamma \log(1-p) \tag{03.3} $$
#
# ## By hand, on 3 × 3 costs
#
# Rows are three queries, columns are three objects. Query 0 is the cheapest for every object.

# %%
table = torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 6.0, 9.0]])
for sigma in permutations(range(3)):
    total = sum(table[q, t].item() for t, q in enumerate(sigma))
    print(f"objects 0, 1, 2 go to queries {sigma}: {total:g}")

# %% [markdown]
# The cheapest pair is (query 0, object 0), with cost 1. If we take it first, then the cheapest of
# the other pairs (a *greedy* search), the total is $1 + 4 + 9 = 14$: the *worst* of the six. In the
# best matching, query 0 gets object 2, because object 2 costs most with the other queries.

# %%
queries, objects = cheapest(table)
print("query → object:", dict(zip(queries.tolist(), objects.tolist(), strict=True)))
assert table[queries, objects].sum() == 10

# %% [markdown]
# For three objects and three queries there are 6 matchings. For seven objects and a hundred queries
# there are about $8 \cdot 10^{13}$. We cannot try them all. The Hungarian algorithm finds the same
# minimum in polynomial time.
#
# Now we compute the class cost for three scores: a query that is not sure (0.5), one that is sure
# of the class (0.9), and one that is sure that the class is wrong (0.1).

# %%
p = torch.tensor([0.5, 0.9, 0.1])
by_hand = -0.25 * (1 - p) ** 2 * p.log() + 0.75 * p**2 * (1 - p).log()
module = FocalCost()(torch.logit(p)[:, None], torch.tensor([0]))[:, 0]
print("by hand:", by_hand, " module:", module)
assert torch.allclose(by_hand, module, atol=1e-5)

# %% [markdown]
# A cost can be negative. This does no harm, because only differences count. The cost is lowest for
# the query that is sure, near zero for the undecided one, and high for the one that is wrong.
#
# ## The real module

# %%
source(HungarianMatcher.cost_matrix)

# %%
source(cheapest)

# %% [markdown]
# The matching runs picture by picture, without gradients (`no_grad`). It decides which query
# answers for an object. The losses of notebook 04, with gradients, measure *how well* it answers.
#
# ## Look inside
#
# Here are the costs of the picture above, for the matched queries and the cheapest of the others.


# %%
def costs_of(layer, picture, matcher=matcher):
    truth = targets.labels[picture], targets.boxes[picture]
    return matcher.cost_matrix(layer.logits[picture], layer.boxes[picture], *truth)


# %%
# alt: A matrix of costs, 14 queries by 7 objects. In every column one cell has a frame. Its cost is
#   clearly the lowest of the column.
costs = costs_of(prediction, 3)
queries, objects = cheapest(costs)
names = [SHAPE_NAMES[label] for label in targets.labels[3].tolist()]
ax = figures.cost_matrix(costs, queries, objects, names)
ax.set_title("In every column the framed match is by far the cheapest", fontsize=11)

# %%
runner_up = costs.topk(2, dim=0, largest=False).values.diff(dim=0)[0]
print("gap between the two cheapest queries:", [round(gap, 1) for gap in runner_up.tolist()])
assert costs.argmin(0).tolist() == queries[objects.argsort()].tolist()

# %% [markdown]
# In a trained model the objects do not compete: each has its own best query.
#
# **From layer to layer.** Every decoder layer has its own loss, so every layer has its own
# matching. So do the encoder's proposals (notebook 09). Does an object keep its query?

# %%
# alt: One line per object over proposals and three layers. Six lines are horizontal. One jumps by
#   one query after the proposals.
steps = [prediction.proposals.layer, *prediction.layers]
pairs = [cheapest(costs_of(step, 3)) for step in steps]
matches = figures.matches_of(*zip(*pairs, strict=True))
step_names = ["proposals", *(f"layer {i}" for i in range(3))]
labels = [f"{t} {name}" for t, name in enumerate(names)]
ax = figures.matches_over_steps(matches, step_names, labels, new_axes(None, 3.4, 5.6))
ax.set_title("Almost every object keeps its query through all layers", fontsize=11)

# %%
changes = []
for picture in range(8):
    pairs = [cheapest(costs_of(step, picture)) for step in steps]
    changes.append(figures.matches_of(*zip(*pairs, strict=True)))
share = figures.instability(torch.cat(changes, dim=1))
print(f"of {targets.num_boxes} objects, {share:.0%} get another query from one layer to the next")
assert share < 0.2

# %% [markdown]
# **From step to step.** An untrained model is different. We train nano from scratch on four small
# pictures. For comparison, we also continue to train the trained nano. A query starts from one
# *token*, a cell of the encoder: query 0 from the token with the highest score (notebook 09). The
# scores change in training, so we note which token answers for each object, not which query.


# %%
def answering_tokens(prediction, targets):
    pairs = zip(prediction.proposals.index, matcher(prediction, targets), strict=True)
    return torch.cat([token[queries[objects.argsort()]] for token, (queries, objects) in pairs])


# %%
def watch_training(model, lr, num_steps):
    """Train, and return the token that answers for each object, step by step."""
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
# **Predict**: at the beginning of training, what share of the objects gets another token in one
# step?

# %%
# alt: Two curves over training steps: the share of objects that get another token than in the step
#   before. From scratch it starts near 0.8 and falls. In the trained model it stays low.
chosen = [3, 4, 6, 7]
few = F.interpolate(images[chosen], (128, 128), mode="bilinear", antialias=True)
few_targets = Targets(*([kind[i] for i in chosen] for kind in (targets.labels, targets.boxes)))
torch.manual_seed(0)
watched = {"from scratch": watch_training(rtdetr_nano(10).build(), 1e-3, 15)}
watched["trained"] = watch_training(lab.load_pretrained("nano"), 1e-4, 7)
moved = {name: (rows[1:] != rows[:-1]).float().mean(1) for name, rows in watched.items()}
fig, ax = plt.subplots(figsize=(5.6, 3.2), layout="compressed")
for (name, share), color in zip(moved.items(), (ORANGE, BLUE), strict=True):
    ax.plot(share, color=color, marker=".", label=name)
ax.set(xlabel="training step", ylabel="share of objects with a new token", ylim=(-0.03, 1))
ax.set_title("Early in training, most objects change their token", fontsize=11)
ax.legend(frameon=False)

# %%
first, last = (moved["from scratch"][steps].mean() for steps in (slice(5), slice(-5, None)))
assert first > 0.4 > 0.2 > moved["trained"].mean()
assert last < 0.75 * first

# %% [markdown]
# At first, at least half of the objects get another token in every step. What a token learns in one
# step is lost for its object in the next. DN-DETR measures this from epoch to epoch, and calls it
# *instability*. Denoising (notebook 12) avoids it: denoising queries need no matching.
# (Your curve from scratch will differ: training amplifies the rounding of a processor.)
#
# **More objects than queries.** With $Q$ queries and $T > Q$ objects, the $Q$ pairs with the
# lowest total cost are matched, and some objects get no query.

# %%
model.num_queries = 5
with torch.no_grad():
    five = model(images)
model.num_queries = 100
queries, objects = cheapest(costs_of(five, 3))
unanswered = set(range(7)) - {*objects.tolist()}
print(f"{len(queries)} pairs for {len(names)} objects; without a query: {unanswered}")
assert len(queries) == 5

# %% [markdown]
# There is no error and no warning, but no query learns from the other two objects. So $Q$ must be
# larger than the number of objects in any picture.
#
# ## Predict, then break it
#
# **Greedy instead of Hungarian.** The 3 × 3 example was chosen to make greedy fail. In how many of
# eight real pictures does greedy find a more expensive matching: for the trained nano, and for an
# untrained one? And with 10 queries, not 100?


# %%
def greedy(costs):
    """Take the cheapest remaining pair again and again; return the total cost."""
    costs, total = costs.clone(), 0.0
    for _ in range(min(costs.shape)):
        query, target = divmod(int(costs.argmin()), costs.shape[1])
        total += costs[query, target].item()
        costs[query], costs[:, target] = torch.inf, torch.inf
    return total


def excess(prediction):
    """Return in how many pictures greedy costs more than the optimum, and how much at most."""
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
worse = {"trained": excess(prediction), "untrained": excess(raw), "10 queries": excess(ten)}
worse

# %%
assert worse["trained"][0] == 0 < worse["10 queries"][0] <= worse["untrained"][0]

# %% [markdown]
# For the trained model greedy is *never* worse: the objects do not compete, so the order does not
# matter. The Hungarian algorithm is needed where they compete: early in training, and among many
# objects.
#
# **Other weights.** Could we match by boxes only, because the class has its own loss? Or by class?
#
# **Predict**: are the matched boxes of "only L1" much better than with all three costs? And do the
# matched queries still predict the right class?


# %%
def judged(weights):
    """Return mean IoU and mean score of the matched pairs, and how many pairs are as usual."""
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
# With L1 only, the IoU of the matched boxes rises by one hundredth, but *half of the objects get
# another query*: the mean score falls from 0.75 to 0.41. Several queries have a good box for each
# object, and only the class cost knows which of them has learned a high score. If we matched by
# boxes only, the next step would raise the score of a duplicate, and lower the score of the right
# query. With class only, a third of the objects get another query, often one that lies on another
# shape of the same class. If we swap the weights 2 and 5, almost nothing changes.

# %%
assert outcome["2 and 5 swapped"][2] > 0.9 * targets.num_boxes
assert outcome["only L1"][0] > outcome["all three"][0] > outcome["only class"][0] + 0.2
assert outcome["only L1"][1] < 0.7 * outcome["all three"][1]

# %% [markdown]
# ## What it costs
#
# At inference it costs nothing, because there is no matching. Training matches every layer and the
# proposals. It does this on the CPU, while the accelerator waits. Without the matching, the model
# costs this:

# %%
cost(model, images[:1])

# %% [markdown]
# Here is the time for 300 queries and 10, 100 or 300 objects, with random costs. Yours will differ.

# %% tags=["varies"]
for num_objects in (10, 100, 300):
    some = torch.rand(300, num_objects)
    print(f"{num_objects:3} objects: {milliseconds(lambda some=some: cheapest(some)):.2f} ms")

# %% [markdown]
# The time is small, but each step needs it for every layer and every picture. So the module moves
# the costs of all pictures to the CPU in one transfer.
#
# ## Exercises
#
# **1.** There are three queries and two objects. The costs for (object 0, object 1) are (1, 3) for
# query 0, (2, 9) for query 1, and (4, 6) for query 2. Which query answers for object 1?

# %%
answer = ...

# %% tags=["solution"]
queries, objects = cheapest(torch.tensor([[1.0, 3.0], [2.0, 9.0], [4.0, 6.0]]))
check(answer, int(queries[objects == 1]), hint="There are six matchings; the best one costs 5.")

# %% [markdown]
# **2.** We add a constant to all costs in the *column of one object*. There are enough queries. Can
# the matching change? Answer `True` or `False`.

# %%
answer = ...

# %% tags=["solution"]
before, after = cheapest(costs), cheapest(costs + torch.tensor([100.0, 0, 0, 0, 0, 0, 0]))
check(answer, not torch.equal(before[0], after[0]), hint="Every matching contains it exactly once.")

# %% [markdown]
# **3.** Can it change if we add 100 to all costs in the *row* of one matched query?

# %%
answer = ...

# %% tags=["solution"]
raised = costs.clone()
raised[before[0][0]] += 100
check(answer, not torch.equal(before[0], cheapest(raised)[0]), hint="93 other queries are free.")

# %% [markdown]
# **Next**: [04 · Losses](04_losses.ipynb). We know which query answers for which object. How wrong
# are its class and its box?
