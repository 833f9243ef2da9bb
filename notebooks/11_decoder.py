# %% [markdown]
# # 11 · The decoder: what does every layer add?
#
# **Paper** RT-DETR §4.1, Table 5; Deformable DETR §A.4; DINO §3.4 · **Chapter**
# `rtdetr_lab/decoder.py` · **Before this** [10 deformable attention](10_deformable_attention.ipynb)
#
# A hundred queries start from the boxes their tokens proposed. Afterwards you can say how a box is
# moved, what each layer adds, why nothing has to remove duplicates, and which loss teaches whom.

# %%
from dataclasses import replace
from itertools import pairwise

import matplotlib.pyplot as plt
import torch
from torch import nn

import rtdetr_lab as lab
from rtdetr_lab.boxes import inverse_sigmoid
from rtdetr_lab.decoder import Decoder, DecoderConfig, DecoderLayer, look_forward_once, move
from rtdetr_lab.notebook import check, chelsea, cost, count_hits, online, seeded, shapes, source
from rtdetr_lab.structures import Prediction
from rtdetr_lab.viz.attention import query_links
from rtdetr_lab.viz.refinement import box_trails, refinement_curves

# %%
generator = seeded()
model = lab.load_pretrained("nano")
images, targets = shapes(*range(12))
criterion = model.cfg.criterion.build()

# %% [markdown]
# ## The end, first
#
# The queries that answer for the shapes of one picture. Dashed is the reference box a query starts
# from, the solid frame what is left after three layers; dots mark the centre after each of them.
# This notebook is about the decoder alone, so we keep what it is `given`.

# %%
# alt: Seven shapes of a painted scene. A dashed box lies loosely around each, a solid one
#   tightly; a short trail of dots joins their centres.
given = []
hook = model.decoder.register_forward_pre_hook(lambda _, inputs: given.extend(inputs))
with torch.no_grad(), lab.record(model) as seen:
    prediction = model(images)
hook.remove()
steps = [prediction.proposals.layer, *prediction.layers]
pairs = criterion.matcher(prediction.layers[-1], targets)
boxes = torch.stack([step.boxes[3] for step in steps])
fig, ax = plt.subplots(figsize=(4.6, 4.8), layout="compressed")
ax = box_trails(boxes, images[3], pairs.queries[3].tolist(), ax)

# %% [markdown]
# ## The question
#
# A query is two things: *content* (what) and a *reference box* (where). Every layer asks: who else
# is looking at this? (self-attention between queries), what is there? (deformable attention around
# the box), so what is it? (feed-forward). Then a box head moves the box $b$. It does not add to
# numbers in $(0, 1)$, but to their logits:
#
# $$ b^{(i)} = \sigma\bigl(\Delta^{(i)} + \sigma^{-1}(b^{(i-1)})\bigr) \tag{11.1} $$
#
# And the next layer is told, in the query's position, where the box is now:
#
# $$ \text{position}^{(i)} = \mathrm{MLP}(b^{(i-1)}) \tag{11.2} $$
#
# Deformable DETR calls this *iterative refinement*. Three layers here, six in RT-DETR-R50. If the
# first already sees the object, what are the others for?

# %% [markdown]
# ## By hand, on three boxes
#
# The logit of a number is the logarithm of its odds, $p : (1 - p)$. So a step of $\ln 2$ doubles
# the odds. Three boxes whose width is 0.02, 0.2 and 0.8 take it:

# %%
widths = torch.tensor([0.02, 0.2, 0.8])
odds = 2 * widths / (1 - widths)
by_hand = odds / (1 + odds)
moved = move(torch.full((1, 3, 4), 2.0).log(), widths[None, :, None].expand(1, 3, 4))[0, :, 2]
print("by hand:", by_hand, " move:", moved)
assert torch.allclose(by_hand, moved)

# %% [markdown]
# The small width nearly doubles, the large one grows by a tenth and cannot pass 1. One box head
# serves objects of all sizes, because a step in logits is *relative* where boxes are small. (For
# $x$ and $y$ it only keeps the centre in the picture.) Three layers in a row simply add their
# steps:

# %%
deltas = torch.tensor([[0.9, 0.0, 0.7, 0.7], [0.3, 0.1, 0.2, -0.2], [0.1, 0.0, 0.0, 0.1]])
box = torch.tensor([0.9, 0.5, 0.1, 0.1])
for delta in deltas:
    box = move(delta[None, None], box[None, None])[0, 0]
    print(box)
at_once = (deltas.sum(0) + inverse_sigmoid(torch.tensor([0.9, 0.5, 0.1, 0.1]))).sigmoid()
assert torch.allclose(box, at_once, atol=1e-6)

# %% [markdown]
# So what is the point of three steps, when one could take them all? That a layer *looks again* from
# where the step before has led.
#
# ## The real module

# %%
source(DecoderLayer.forward)

# %%
source(Decoder.forward)

# %% [markdown]
# `move` is Eq. 11.1, and the last two lines of the loop send its box round. Three things come out
# of every turn: a box, class logits, and a new reference. `judged` is the same box with another
# gradient, see "Who learns from a bad box?". *Every layer has heads of its own and is judged by a
# loss of its own*; it is a detector, and so is any number of first layers.
#
# ## Look inside
#
# We count three things over twelve pictures. **found**: shapes that have a box with a score above
# 0.5 and an IoU above 0.5. **tight**: the same with an IoU above 0.9. **repeated**: further such
# boxes on a shape that is found already.


# %%
def tally(answer):
    hits, tight = (count_hits(answer, targets, overlap) for overlap in (0.5, 0.9))
    counts = {"found": hits > 0, "tight": tight > 0, "repeated": (hits - 1).clamp(min=0)}
    return {name: int(count.sum()) for name, count in counts.items()}


names = ["proposals", "layer 0", "layer 1", "layer 2"]
layers = {name: tally(step) for name, step in zip(names, steps, strict=True)}
print(f"of {targets.num_boxes} shapes")
for name in names:
    print(f"{name:10}", layers[name])

# %%
# alt: IoU with the own object over the steps reference, layer 0, 1, 2. Grey lines, one per query,
#   and their mean, which rises steeply in layer 0 and little after it.
matched = [step.boxes[pairs.flat] for step in steps]
ax = refinement_curves(torch.stack(matched), pairs.gather(targets.boxes))

# %%
pixels = [320 * (b - a).abs().mean().item() for a, b in pairwise(matched)]
print("pixels that a coordinate moves in layer 0, 1, 2:", [round(p, 1) for p in pixels])
assert pixels[0] > 3 * pixels[1] > 3 * pixels[2] / 2
assert layers["proposals"]["tight"] < layers["layer 0"]["tight"] < layers["layer 2"]["tight"]

# %% [markdown]
# Layer 0 makes the large move, five pixels per coordinate; later ones do the fine work, and that is
# what "tight" is made of: none, 29, 52, 64. Layer 0 even finds five shapes fewer than the proposals
# did. Layer 1 finds 13 more, and pays with duplicates, most of which layer 2 takes back. So layers
# differ in *what* they do, not only in how well.
#
# ## Who listens to whom
#
# Inside the last layer, the surest query of picture 3 and the twelve it listens to most:

# %%
# alt: One box in blue; lines lead from it to twelve other queries, whose boxes are drawn dashed.
best = int(prediction.logits[3].amax(-1).argmax())
heard = seen["decoder.layers.2.self_attn.weights"][3]
fig, ax = plt.subplots(figsize=(4.2, 4.6), layout="compressed")
ax = query_links(heard, prediction.boxes[3], images[3], best, ax=ax)

# %% [markdown]
# Twelve queries on a handful of places: on the same shape, where it has to be settled who answers;
# on the two other round ones; on a corner of the triangle.

# %% [markdown]
# ## Predict, then break it
#
# **Cut self-attention**: every query hears itself alone, in one layer and then in all.
#
# **Predict**: where does deafness produce more duplicates: in the first layer, where queries meet,
# or in the last, after they have talked twice? And which cut also *loses* most shapes?


# %%
def only_itself(weights):
    return torch.eye(weights.shape[-1]).expand_as(weights)


def edited(edit):
    with torch.no_grad(), lab.record(model.decoder, keep=[], edit=edit):
        return tally(model.decoder(*given)[-1])


deaf = {"in none": tally(prediction)}
for name, where in {"in layer 0": "0", "in layer 2": "2", "in all": "*"}.items():
    deaf[name] = edited({f"layers.{where}.self_attn.weights": only_itself})
    print(f"deaf {name:11}", deaf[name])

# %% [markdown]
# Uncut it was 83 found, 64 tight, 14 repeated. The cut in layer 2 is the worst in every count. What
# layer 0 leaves unsettled is partly repaired by those after it; what the last layer leaves stays.
# And it loses 19 shapes too: perhaps a query that cannot hear that nobody else takes the object is
# less sure of itself. Deaf everywhere is no worse than deaf at the end. No step after the decoder
# removes duplicates; *this* is the step.

# %%
assert min(deaf[n]["repeated"] for n in deaf if n != "in none") > 3 * deaf["in none"]["repeated"]
assert deaf["in layer 2"]["repeated"] > deaf["in layer 0"]["repeated"]

# %% [markdown]
# **Never look again**: layers 1 and 2 are given the box that layer 0 was *given*, the proposal,
# look around *that*, and move *that*. Nothing else changes.
#
# **Predict** what suffers more, finding or tightness.

# %%
start = seen["decoder.reference.0"]
again = {"1, 2": edited({f"reference.{i}": lambda _: start for i in (1, 2)})}
again["2"] = edited({"reference.2": lambda _: start})
for name, counts in again.items():
    print(f"first reference box in layer {name:5}", counts)
assert again["2"]["tight"] < layers["layer 2"]["tight"] / 4 < again["2"]["found"]

# %% [markdown]
# Tightness: of 64 tight boxes 4 or 5 are left. And with the first reference box in both layers the
# model finds fewer shapes than its proposals did without any layer (75). Layers 1 and 2 expect a
# box that nearly fits: they take small steps, they read close to the edges, and from a loose box
# neither is right. Refinement is not a correction that a layer computes from afar, it is a *second
# look* from a better place.
#
# **Rearrange the layers.** If layer 2 tightens, should it not tighten more when it runs twice? And
# if every layer is a detector, does their order matter?
#
# **Predict** for 0-1-2-2 (the last twice), 0-2 (the middle left out) and 2-1-0.

# %%
own = {name: getattr(model.decoder, name) for name in ("layers", "class_heads", "box_heads")}
orders = {}
for order in ("012", "0122", "02", "210"):
    for name, modules in own.items():
        setattr(model.decoder, name, nn.ModuleList(modules[int(i)] for i in order))
    with torch.no_grad():
        orders[order] = tally(model.decoder(*given)[-1])
    print("-".join(order).ljust(8), orders[order])
for name, modules in own.items():
    setattr(model.decoder, name, modules)

# %% [markdown]
# The last layer twice does find more, eight shapes, and tightens five boxes; but duplicates are
# four times as many. Scores and duplicates were balanced for exactly three layers, each in its
# place. Without layer 1 the last one finds as many as layer 0 did, a few of them tighter, with six
# times the duplicates of 0-1-2. Backwards one shape is left: layer 2 has never seen a raw proposal.
# You may stop early, not rearrange.

# %%
assert orders["0122"]["repeated"] > 2 * orders["012"]["repeated"]
assert orders["210"]["found"] < 5 < orders["02"]["found"]

# %% [markdown]
# ## Who learns from a bad box?
#
# Layer 1 starts from the box of layer 0. If it ends badly, who is to blame? The reference is
# detached, so layer 1 alone? DINO's *look forward twice* lets the loss of a layer also reach the
# step before it. Below: the gradient that the box loss of each layer (rows) sends to each box head
# (columns), by either rule.


# %%
def blame(rule):
    model.decoder.cfg = replace(model.decoder.cfg, box_gradient=rule)
    answers = model.decoder.train()(*given)
    terms = criterion(Prediction(answers[-1].logits, answers[-1].boxes, answers), targets)
    for suffix in (".layer0", ".layer1", ""):
        model.zero_grad()
        (terms["l1" + suffix] + terms["giou" + suffix]).backward(retain_graph=True)
        grads = [h.layers[-1].weight.grad for h in model.decoder.box_heads]
        print([0.0 if g is None else round(g.norm().item(), 1) for g in grads])
        rows.append([g is not None and bool(g.any()) for g in grads])


rows, rule = [], model.decoder.cfg.box_gradient
for name, one in {"look forward twice": rule, "look forward once": look_forward_once}.items():
    print(name)
    blame(one)
model.decoder.cfg = replace(model.decoder.cfg, box_gradient=rule)
model = model.eval()

# %%
assert rows[:3] == [[True, False, False], [True, True, False], [False, True, True]]
assert rows[3:] == [[True, False, False], [False, True, False], [False, False, True]]

# %% [markdown]
# The diagonal is the same by both rules, and so is every number of the forward pass. Looking
# forward twice adds the entries beside it: here layer 1's loss pulls at box head 0 as hard as layer
# 0's own does. An early layer is thus taught to leave a box from which the *next* one does well.
# The authors train so, transformers detaches; weights fit both, training runs do not (notebook 19).
#
# ## What it costs
#
# Since any number of first layers is a detector, depth can be chosen *after* training:

# %%
depth = {k: cost(model.trim(k).eval(), images[:1]).rows for k in (1, 2, 3)}
for k, parts in depth.items():
    _, params, flops = parts[-2]
    share = flops / parts[-1][2]
    found = layers[f"layer {k - 1}"]
    print(f"{k} layers: {params:,} parameters, {flops / 1e6:.0f} MFLOPs ({share:.0%})", found)
assert depth[3][-2][2] == 3 * depth[1][-2][2]

# %% [markdown]
# RT-DETR's Table 5 says the same for R50, trained with six layers and run with fewer: 53.1 AP with
# six at 9.3 ms, 52.4 with three at 7.9 ms, 49.1 with one at 7.0 ms.
#
# ## Exercises
#
# **1.** A box is 0.5 wide. Which width does a step of $\ln 3$ give it?

# %%
answer = ...

# %% tags=["solution"]
check(answer, move(torch.tensor([[[3.0] * 4]]).log(), torch.full((1, 1, 4), 0.5))[0, 0, 2], "Odds!")

# %% [markdown]
# **2.** RT-DETR-R50: 300 queries, 8 heads, six layers. How many self-attention weights are there
# between queries for one picture, in all layers together?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 6 * 8 * 300 * 300, hint="Every query listens to every query, in every head.")

# %% [markdown]
# **3.** A decoder of six layers that looks forward twice. Which box heads does the box loss of
# layer 4 reach? Answer with a set of numbers, the first layer being 0.

# %%
answer = ...

# %% tags=["solution"]
six = Decoder(DecoderConfig(dim=8, num_heads=2, ffn_dim=8), num_classes=2).train()
memory = torch.randn(1, 84, 8, generator=generator)
layered = six(torch.randn(1, 5, 8), torch.zeros(1, 5, 4), memory, [(8, 8), (4, 4), (2, 2)])
layered[4].boxes.sum().backward()
reached = {i for i, h in enumerate(six.box_heads) if h.layers[-1].weight.grad is not None}
check(answer, reached, hint="Look at the rows of the matrix above.")

# %% [markdown]
# ## With real weights, if there is a network

# %% tags=["varies"]
if online():
    real, photo = lab.load_pretrained("r18"), chelsea((640, 640))
    with torch.no_grad():
        cat = real(photo)
    sure = (cat.logits[0].sigmoid().amax(-1) > 0.5).nonzero()[:, 0].tolist()
    trail = torch.stack([cat.proposals.boxes[0], *(layer.boxes[0] for layer in cat.layers)])
    box_trails(trail, photo[0], sure)
    plt.show()

# %% [markdown]
# **Next**: [12 · Denoising](12_denoising.ipynb). Every layer has a loss, and early in training the
# matching behind it is nearly random. What can be taught without a matching?
