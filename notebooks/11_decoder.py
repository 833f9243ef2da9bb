# %% [markdown]
# # 11 · The decoder: what does every layer add?
#
# **Paper** RT-DETR §4.1, Table 5; Deformable DETR §A.4; DINO §3.5 · **Chapter**
# `rtdetr_lab/decoder.py` · **Before this** [10 deformable attention](10_deformable_attention.ipynb)
#
# A hundred queries start from the boxes that their tokens proposed. After this notebook you can
# explain how a layer moves a box, what each layer adds, why no step after the decoder removes
# duplicates, and which loss reaches which step.

# %% tags=["imports"]
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
from rtdetr_lab.viz.canvas import new_axes
from rtdetr_lab.viz.refinement import box_trails, refinement_curves

# %%
generator = seeded()
model = lab.load_pretrained("nano")
images, targets = shapes(*range(12))
criterion = model.cfg.criterion.build()

# %% [markdown]
# ## The end, first
#
# We show the queries that are matched with the shapes of one picture. A dashed frame is the
# reference box at the start. A solid frame is the box after three layers. Dots mark the centre at
# the start and after each layer. This notebook is about the decoder alone, so we keep its input in
# `given`.

# %%
# alt: Seven shapes of a painted scene. Each has a loose dashed box and a tight solid box. A short
#   trail of dots joins the centres of the two boxes.
given = []
hook = model.decoder.register_forward_pre_hook(lambda _, inputs: given.extend(inputs))
with torch.no_grad(), lab.record(model) as seen:
    prediction = model(images)
hook.remove()
steps = [prediction.proposals.layer, *prediction.layers]
pairs = criterion.matcher(prediction.layers[-1], targets)
boxes = torch.stack([step.boxes[3] for step in steps])
calm = nn.functional.avg_pool2d(images[3], 3, 1, 1, count_include_pad=False)  # less noise
fig, ax = plt.subplots(figsize=(4.6, 4.8), layout="compressed")
ax = box_trails(boxes, calm, pairs.queries[3].tolist(), ax)
ax.set_title("Three layers turn loose boxes into tight ones", fontsize=11)

# %% [markdown]
# ## The question
#
# A query carries *content* (what) and a *reference box* (where). In every layer the queries first
# exchange information (self-attention). Then each query reads the picture around its box
# (deformable attention), and computes its new content (feed-forward network). At the end a box head
# moves the box $b$. It adds a step $\Delta$ to the logits of the four numbers, not to the numbers:
#
# $$ b^{(i+1)} = \sigma\bigl(\Delta^{(i)} + \sigma^{-1}(b^{(i)})\bigr) \tag{11.1} $$
#
# ($i$ counts layers from 0, as in the figures: layer 0 moves the proposed box $b^{(0)}$ by
# $\Delta^{(0)}$ to $b^{(1)}$.) A layer gets its box through the position of the query, an embedding
# that a small network computes:
#
# $$ \text{position}^{(i)} = \mathrm{MLP}(b^{(i)}) \tag{11.2} $$
#
# Deformable DETR calls this *iterative refinement*. There are three layers here, and six in
# RT-DETR-R50. If the first layer already sees the object, what do the others do?

# %% [markdown]
# ## By hand, on three boxes
#
# The logit of a number $p$ is the logarithm of its odds, $p : (1 - p)$. So a step of $\ln 2$
# doubles the odds. We apply it to three boxes with the widths 0.02, 0.2 and 0.8:

# %%
widths = torch.tensor([0.02, 0.2, 0.8])
odds = 2 * widths / (1 - widths)
by_hand = odds / (1 + odds)
moved = move(torch.full((1, 3, 4), 2.0).log(), widths[None, :, None].expand(1, 3, 4))[0, :, 2]
print("by hand:", by_hand, " move:", moved)
assert torch.allclose(by_hand, moved)

# %% [markdown]
# The small width nearly doubles. The large one grows by a tenth, and it can never pass 1. In logits
# a step is *relative* for small boxes, so one box head works for objects of all sizes. (For $x$ and
# $y$ the logits only keep the centre in the picture.) The steps of three layers simply add up:

# %%
deltas = torch.tensor([[0.9, 0.0, 0.7, 0.7], [0.3, 0.1, 0.2, -0.2], [0.1, 0.0, 0.0, 0.1]])
box = torch.tensor([0.9, 0.5, 0.1, 0.1])
for delta in deltas:
    box = move(delta[None, None], box[None, None])[0, 0]
    print(box)
at_once = (deltas.sum(0) + inverse_sigmoid(torch.tensor([0.9, 0.5, 0.1, 0.1]))).sigmoid()
assert torch.allclose(box, at_once, atol=1e-6)

# %% [markdown]
# One large step would give the same box. Why do we need three? Because each layer *looks again*,
# around the box of the layer before.
#
# ## The real module

# %%
source(DecoderLayer.forward)

# %%
source(Decoder.forward)

# %% [markdown]
# `move` is Eq. 11.1. The last two lines of the loop pass its box to the next layer. Every layer
# computes a box, class logits, and a new reference. `judged` has the same numbers as `start`. Only
# its gradient can differ: see "Who learns from a bad box?". *Every layer has its own heads and its
# own loss*. So each layer is a detector, together with the layers before it.
#
# ## Look inside
#
# We count three things on twelve pictures. **found**: shapes that have a box with a score above 0.5
# and an IoU above 0.5. **tight**: the same with an IoU above 0.9. **repeated**: the duplicates,
# that is, all further found boxes of the same shape.


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
# alt: IoU with the matched object, for the steps reference, layer 0, 1, 2. Each query has a grey
#   line. Their mean rises steeply in layer 0, and little after it.
matched = [step.boxes[pairs.flat] for step in steps]
ax = refinement_curves(torch.stack(matched), pairs.gather(targets.boxes), new_axes(None, 3.4, 5.6))
ax.set_title("Layer 0 makes the large step, later layers small ones", fontsize=11)

# %%
pixels = [320 * (b - a).abs().mean().item() for a, b in pairwise(matched)]
print("pixels that a coordinate moves in layer 0, 1, 2:", [round(p, 1) for p in pixels])
assert pixels[0] > 3 * pixels[1] > 3 * pixels[2] / 2
assert layers["proposals"]["tight"] < layers["layer 0"]["tight"] < layers["layer 2"]["tight"]

# %% [markdown]
# Layer 0 makes the large move, five pixels per coordinate. The later layers make small moves, and
# these make boxes tight. No proposal is tight, but 29, 52 and 64 boxes of layers 0, 1 and 2 are.
# Layer 0 finds five shapes fewer than the proposals. Layer 1 finds 13 more than layer 0, but adds
# duplicates. Layer 2 removes most of them. So the layers differ in *what* they do, not only in how
# well they do it.
#
# ## Who attends to whom
#
# We take the last layer of picture 3. Here is the query with the highest score, and the twelve
# queries to which it attends most:

# %%
# alt: One box in blue. Lines lead from it to twelve other queries, which have dashed boxes.
best = int(prediction.logits[3].amax(-1).argmax())
attention = seen["decoder.layers.2.self_attn.weights"][3]
fig, ax = plt.subplots(figsize=(4.2, 4.6), layout="compressed")
ax = query_links(attention, prediction.boxes[3], calm, best, ax=ax)
fig.suptitle("A query attends to rivals and to similar shapes", fontsize=11)

# %% [markdown]
# The twelve queries lie in a few places. Some lie on the same shape: only one of them should keep
# a high score. Others lie on the two other round shapes, and on a corner of the triangle.

# %% [markdown]
# ## Predict, then break it
#
# **Cut self-attention**: every query attends to itself only, in one layer and then in all.
#
# **Predict**: which cut gives more duplicates: in the first layer, or in the last, after two layers
# of self-attention? And which cut also *loses* most shapes?


# %%
def only_itself(weights):
    return torch.eye(weights.shape[-1]).expand_as(weights)


def edited(edit):
    with torch.no_grad(), lab.record(model.decoder, keep=[], edit=edit):
        return tally(model.decoder(*given)[-1])


cut = {"in none": tally(prediction)}
for name, where in {"in layer 0": "0", "in layer 2": "2", "in all": "*"}.items():
    cut[name] = edited({f"layers.{where}.self_attn.weights": only_itself})
    print(f"cut {name:11}", cut[name])

# %% [markdown]
# Without a cut there were 83 found, 64 tight, 14 repeated. The cut in layer 2 is the worst in every
# count. Later layers partly repair what a cut in layer 0 breaks, but no layer comes after the last.
# The cut in layer 2 also loses 19 shapes. Perhaps a query becomes sure only when it sees that the
# object is still free. A cut in all layers is no worse than a cut in the last one. No step
# after the decoder removes duplicates; *self-attention* does it.

# %%
assert min(cut[n]["repeated"] for n in cut if n != "in none") > 3 * cut["in none"]["repeated"]
assert cut["in layer 2"]["repeated"] > cut["in layer 0"]["repeated"]

# %% [markdown]
# **Never look again**: layers 1 and 2 get the box that layer 0 *got*, the proposal. They read
# around *this* box and move *this* box. Nothing else changes.
#
# **Predict**: which count falls more, found or tight?

# %%
start = seen["decoder.reference.0"]
again = {"1, 2": edited({f"reference.{i}": lambda _: start for i in (1, 2)})}
again["2"] = edited({"reference.2": lambda _: start})
for name, counts in again.items():
    print(f"first reference box in layer {name:5}", counts)
assert again["2"]["tight"] < layers["layer 2"]["tight"] / 4 < again["2"]["found"]

# %% [markdown]
# Of 64 tight boxes, 4 are left in one experiment and 5 in the other. With the first reference box
# in both layers, the model finds 31 shapes, even fewer than the 75 of its proposals. Layers 1 and 2
# expect a box that nearly fits. They take small steps and read close to the edges. With a loose
# box, neither works. So layers 1 and 2 cannot correct a box from far away. Refinement is a *second
# look*, from a better place.
#
# **Rearrange the layers.** Layer 2 makes boxes tight. Are they tighter if it runs twice? And if
# every layer is a detector, does the order matter?
#
# **Predict** the counts for 0-1-2-2 (the last layer twice), 0-2 (without the middle one) and 2-1-0.

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
# With the last layer twice, the model finds eight shapes more and has five tight boxes more. But it
# has four times the duplicates. Training has balanced scores and duplicates for exactly three
# layers, each in its place. Without layer 1 the model finds as many shapes as after layer 0. A few
# more boxes are tight, and there are six times the duplicates of 0-1-2. In reverse order one shape
# is found: layer 2 has never met a proposal in training. You can stop early, but not rearrange.

# %%
assert orders["0122"]["repeated"] > 2 * orders["012"]["repeated"]
assert orders["210"]["found"] < 5 < orders["02"]["found"]

# %% [markdown]
# ## Who learns from a bad box?
#
# Layer 1 starts from the box of layer 0. If the box of layer 1 is bad, which *box head* learns from
# the loss? (All earlier *layers* learn from it through the content, which is not detached between
# layers.) The reference is detached, so perhaps only the head of layer 1. But with DINO's *look
# forward twice* the loss of a layer also reaches the step before it. `decoder.py` has a drawing of
# both rules. We compute the gradient that the box loss of each layer (rows) sends to each box head
# (columns).


# %%
def print_gradients(rule):
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
    print_gradients(one)
model.decoder.cfg = replace(model.decoder.cfg, box_gradient=rule)
model = model.eval()

# %%
assert rows[:3] == [[True, False, False], [True, True, False], [False, True, True]]
assert rows[3:] == [[True, False, False], [False, True, False], [False, False, True]]

# %% [markdown]
# Both rules give the same diagonal, and the same numbers in the forward pass. Looking forward twice
# adds the entries left of the diagonal. Here the loss of layer 1 gives box head 0 about as much
# gradient as the loss of layer 0. So an early layer also learns to predict a box that is a good
# start for the *next* layer. The authors train like this. The library transformers detaches the
# reference, so it looks forward once. The same weights work in both, but training runs differ
# (notebook 19).
#
# ## What it costs
#
# Layer 0 alone is a detector, and so are layers 0 and 1. So we can choose the depth *after*
# training:

# %%
depth = {k: cost(model.trim(k).eval(), images[:1]).rows for k in (1, 2, 3)}
for k, parts in depth.items():
    _, params, flops = parts[-2]
    share = flops / parts[-1][2]
    found = layers[f"layer {k - 1}"]
    print(f"{k} layers: {params:,} parameters, {flops / 1e6:.0f} MFLOPs ({share:.0%})", found)
assert depth[3][-2][2] == 3 * depth[1][-2][2]

# %% [markdown]
# RT-DETR's Table 5 gives such numbers for R50, trained with six layers and run with fewer: 53.1 AP
# with six layers at 9.3 ms, 52.4 with three at 7.9 ms, 49.1 with one at 7.0 ms.
#
# ## Exercises
#
# **1.** A box has the width 0.5. What is its width after a step of $\ln 3$?

# %%
answer = ...

# %% tags=["solution"]
check(answer, move(torch.tensor([[[3.0] * 4]]).log(), torch.full((1, 1, 4), 0.5))[0, 0, 2], "Odds!")

# %% [markdown]
# **2.** RT-DETR-R50 has 300 queries, 8 heads and six decoder layers. How many self-attention
# weights does it compute for one picture, in all layers together?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 6 * 8 * 300 * 300, hint="Every query attends to every query, in every head.")

# %% [markdown]
# **3.** A decoder has six layers and looks forward twice. Which box heads does the box loss of
# layer 4 reach? Answer with a set of numbers. The first layer is layer 0.

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
# **Next**: [12 · Denoising](12_denoising.ipynb). Every layer has a loss, and this loss needs a
# matching. Early in training the matching is nearly random. What can we teach without it?
