# %% [markdown]
# # 10 · Deformable attention: where to look, and how much
#
# **Paper** Deformable DETR §4.1, Eq. 3; RT-DETRv2 §2.1 · **Chapters**
# `rtdetr_lab/deformable_attention.py`, `rtdetr_lab/samplers.py` · **Before this** [09 query
# selection](09_query_selection.ipynb)
#
# A query has a starting box. Now it reads the picture. After this notebook you can explain how many
# values one query reads, which tensors decide *where* it reads, and which decide *how much* each
# value counts.

# %% tags=["imports"]
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import rtdetr_lab as lab
from rtdetr_lab.deformable_attention import DeformableAttention
from rtdetr_lab.notebook import check, chelsea, cost, count_good, online, seeded, shapes, source
from rtdetr_lab.samplers import Bilinear, Discrete, Naive, SamplingPlan
from rtdetr_lab.viz.canvas import new_axes
from rtdetr_lab.viz.cells import cells_of_tokens, centres_of_cells
from rtdetr_lab.viz.sampling import close_up, sampling_of_query, sampling_panels, sampling_points
from rtdetr_lab.viz.slider import slider

# %%
generator = seeded()
model = lab.load_pretrained("nano")
images, targets = shapes(*range(8))  # 320 × 320 pixels, 2,100 tokens

# %% [markdown]
# ## The end, first
#
# We show one query in three decoder layers. Each mark is a sampling point. Its area shows its
# weight, and its colour shows the level that it reads. (O3, O4 and O5 are the encoder's outputs.
# They have the strides of S3, S4 and S5: 8, 16 and 32.) The dashed frame is the reference box of
# the layer.

# %%
# alt: Three close-ups of one shape, one per decoder layer. Marks of three colours lie on and around
#   the reference box. In every layer they have other places and sizes.
with torch.no_grad(), lab.record(model) as seen:
    prediction = model(images)
scene = F.avg_pool2d(images[7], 3, 1, 1, count_include_pad=False)  # less noise
query = int(prediction.logits[7].amax(-1).argmax())  # the highest score of picture 7
looks = {f"layer {i}": sampling_of_query(seen, i, query, (4, 4, 4), picture=7) for i in range(3)}
view = close_up(list(looks.values()), (320, 320))
fig, axes = plt.subplots(1, 3, figsize=(5.6, 2.7), layout="compressed")
sampling_panels(looks, scene, view=view, axes=axes)
fig.suptitle("In every layer the query reads at other points of its shape", fontsize=11)

# %% [markdown]
# ## The question
#
# In DETR a query attends to *every* token. For the 8,400 tokens of RT-DETR it would compute 8,400
# weights, and nearly all would be close to zero. In deformable attention the query chooses where to
# look. Two linear layers predict $P$ offsets $o$ and $P$ weights $A$ for each of $M$ heads. Their
# input is the content of the query plus its position (notebook 11). Of the $P$ points of a head,
# $K_l$ lie on level $l$. Here there are 4 on each of 3 levels, so $P = 12$. The reference box has
# the centre $c$ and the size $(w, h)$. Point $k$ of head $m$ lies at
#
# $$ p_{mk} = c + \frac{o_{mk}}{K_l} \cdot \frac{(w, h)}{2} \tag{10.1} $$
#
# where $l$ is the level of the point. The output is a weighted sum of the values read there:
#
# $$ \mathrm{out} = \sum_m W_m \sum_{k=1}^{P} A_{mk} \, x\langle p_{mk} \rangle, \qquad
#    \sum_k A_{mk} = 1 \tag{10.2} $$
#
# $x\langle p \rangle$ is the value that the head reads at $p$, *between* the cells of the projected
# map $x$. The softmax runs over all $P$ points, all levels together. $W_m$ is the part of the
# output projection for head $m$.
#
# So the box sets the centre and the unit. The unit is half a side of the box divided by $K_l$, so a
# point with the offset $K_l$ lies on the edge. The query sets the direction of a point, and the
# number of units.

# %% [markdown]
# ## By hand, on 3 × 3 cells
#
# We take one level of nine cells with the values 0 … 8, one head, and two points. In a row of three
# cells, cell $i$ has its centre at $(i + \frac12)/3$. The first point lies in the middle of the
# picture, exactly at the centre of cell 4. The second lies halfway between cells 4 and 5.

# %%
value = torch.arange(9.0).reshape(1, 9, 1, 1)  # B N M d
locations = torch.tensor([[1 / 2, 1 / 2], [2 / 3, 1 / 2]]).reshape(1, 1, 1, 2, 2)
weights = torch.tensor([0.25, 0.75]).reshape(1, 1, 1, 2)
by_hand = 0.25 * 4 + 0.75 * (4 + 5) / 2
out = Bilinear()(value, [(3, 3)], [2], SamplingPlan(locations, weights))
print(f"by hand {by_hand}, module {out.item():.4f}")
assert abs(out.item() - by_hand) < 1e-6

# %% [markdown]
# A point that is not on a centre reads four cells, weighted by nearness. Cells outside the map
# count as zero. (`samplers.py` has an example with numbers.) The value changes smoothly with the
# point, so there is a gradient. *This* is how the offsets are learned.

# %%
point = torch.tensor([0.6, 0.45], requires_grad=True)
plan = SamplingPlan(point.reshape(1, 1, 1, 1, 2), torch.ones(1, 1, 1, 1))
Bilinear()(value, [(3, 3)], [1], plan).sum().backward()
print("d value / d (x, y) =", point.grad)

# %% [markdown]
# One cell to the right adds 1, and one cell down adds 3. A cell is a third of the picture, so the
# gradient is 3 and 9.
#
# ## The real module
#
# First the module computes where and how much. This step does not read the feature maps.

# %%
source(DeformableAttention.plan)

# %%
source(DeformableAttention.forward)

# %% [markdown]
# The sampler reads the values. It is an argument, so we can replace it. `Naive` computes the sum of
# Eq. 10.2 with plain loops. We use it to check the fast one.

# %%
attention = model.decoder.layers[0].cross_attn
content = torch.randn(1, 4, 96, generator=generator)
boxes = torch.rand(1, 4, 4, generator=generator) * 0.5 + 0.25
memory, maps_small = torch.randn(1, 84, 96, generator=generator), [(8, 8), (4, 4), (2, 2)]
with torch.no_grad():
    fast = attention(content, boxes, memory, maps_small)
    attention.sampler = Naive()
    slow = attention(content, boxes, memory, maps_small)
    attention.sampler = Bilinear()
print("equal up to rounding:", torch.allclose(fast, slow, atol=1e-5))
assert torch.allclose(fast, slow, atol=1e-5)

# %% [markdown]
# ## Look inside
#
# There are six heads. Training starts from a star: head $m$ looks in the direction with the angle
# $2\pi m / M$. The slider shows where the points of each head lie after training. Each head has its
# own edge or corner.


# %%
def draw(head):
    ax = sampling_points(looks["layer 2"], scene, head, view, new_axes(None, 4, 3.4))
    ax.set_title(f"Head {head} reads on its own side", fontsize=11)


alt = "Sampling points of one head in the last layer; each head has its own side"
slider(draw, alt, dpi=120, head=range(6))

# %%
weights = seen["decoder.layers.2.cross_attn.weights"]
shares = weights.unflatten(-1, (3, 4)).sum(-1).mean((0, 1, 2))
points = weights[0, 0].numel()
print(f"points per query and layer: {points}, cells behind them: {4 * points}, tokens: 2100")
print("share of the weight on O3, O4, O5:", [round(s, 2) for s in shares.tolist()])
assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)

# %% [markdown]
# In one layer a query reads $6 \cdot 12 = 72$ points. These are at most 288 cells with 16 channels
# each, or 4,608 numbers. Three layers read three times. In RT-DETR a query reads $8 \cdot 12 = 96$
# points per layer, for pictures of any size. *Where* it reads is in `locations`, computed from
# `sampling_offsets` and the reference box. *How much* is in `weights`, from `attention_weights`.
#
# ## Predict, then break it
#
# We break the attention in five ways. On eight pictures we count the shapes with a good box (score
# above 0.5, IoU above 0.75).
#
# **Predict** the order, from harmless to fatal: (a) all points have the same weight; (b) all points
# of a head move to their mean; (c) every head takes the points of its neighbour; (d) the query
# reads only O3; (e) only O5.


# %%
def broken(name, edit):
    where = [f"decoder.layers.{i}.cross_attn.{name}" for i in range(3)]
    with torch.no_grad(), lab.record(model, keep=[], edit=dict.fromkeys(where, edit)):
        return count_good(model(images), targets)


# %%
def only(level):
    mask = torch.arange(3).repeat_interleave(4) == level
    return lambda w: w * mask / (w * mask).sum(-1, keepdim=True)


counts = {"untouched": count_good(prediction, targets)}
counts["(a) equal weights"] = broken("weights", lambda w: torch.full_like(w, 1 / 12))
counts["(b) one mean point"] = broken("locations", lambda p: p.mean(3, True).expand_as(p))
counts["(c) the neighbour's points"] = broken("locations", lambda p: p.roll(1, dims=2))
counts["(d) only O3"] = broken("weights", only(0))
counts["(e) only O5"] = broken("weights", only(2))
print(f"of {sum(targets.counts)} shapes")
counts

# %% [markdown]
# The weights (*how much*) matter, but the locations (*where*) matter most. With equal weights
# nearly half of the good boxes are left. If all points of a head lie at one place, only one good
# box is left. A box head needs to know where the edges are, and it learns this from points at the
# edges. (c) leaves none, because the values of each head are made for *its own* places. (d) and (e)
# change only weights. But a point with weight zero is not read, so they also change *where* the
# query reads. O3 alone works well: a box is given by its edges, and O3 is fine enough for the edges
# of small and large shapes. O5 alone finds nothing.

# %%
assert counts["untouched"] > counts["(d) only O3"] > counts["(a) equal weights"]
assert counts["(a) equal weights"] > 5 * counts["(b) one mean point"]

# %% [markdown]
# ## v1, v2, discrete
#
# In RT-DETRv2 every level can have its own number of points. RT-DETRv2 also has a *discrete*
# sampler that every accelerator can run: it reads the one cell that contains the point. (A point
# outside the map reads the nearest border cell. The authors' code reads half a cell further right
# and down: `samplers.py`.) The points stay the same. The crosses mark the centres of the cells that
# are read.

# %%
# alt: Two panels. Left, the points as bilinear sampling reads them. Right, a line leads from each
#   point to the centre of the cell that discrete sampling reads. On coarse levels lines are long.
maps, looked = [(40, 40), (20, 20), (10, 10)], looks["layer 2"]
where = looked.locations[None, None]  # as for one picture and one query
cells = Discrete().cells(where, maps, (4, 4, 4))[0, 0]
reads = centres_of_cells(cells_of_tokens(cells, maps), maps, (1, 1))
discrete = replace(looked, reads=reads)
fig, axes = plt.subplots(1, 2, figsize=(5.6, 3.5), layout="compressed")
sampling_panels({"bilinear": looked, "discrete": discrete}, scene, view=view, axes=axes)
fig.suptitle("Discrete: the centre of a cell is read, not the point", fontsize=11)

# %% [markdown]
# A *trained* model loses good boxes if we only replace its sampler:

# %%
for layer in model.decoder.layers:
    layer.cross_attn.sampler = Discrete()
with torch.no_grad():
    counts["discrete"] = count_good(model(images), targets)
for layer in model.decoder.layers:
    layer.cross_attn.sampler = Bilinear()
print({name: counts[name] for name in ("untouched", "discrete")})
assert counts["discrete"] < counts["untouched"]

# %% [markdown]
# So the paper fine-tunes the model with the new sampler, and then loses only 0.5 AP (RT-DETRv2-S,
# Table 4). Reading a cell by its index has no gradient with respect to the index, so the offsets
# are frozen.
#
# ## What it costs

# %%
cost(attention, content, boxes, memory, maps_small)

# %% [markdown]
# The layers for offsets and weights are small. The largest part is the projection of the *memory*,
# and it grows with the picture. The table leaves out the sampler, whose work does not grow.
#
# ## Exercises
#
# **1.** RT-DETR-R18 has 300 queries, 8 heads, 3 levels with 4 points each, and 3 decoder layers.
# How many points does it read for one picture?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 300 * 8 * 3 * 4 * 3, hint="RT-DETRv2's Table 3 gives this number.")

# %% [markdown]
# **2.** A reference box has the centre (0.5, 0.5) and the size (0.2, 0.4). One level has 4 points.
# At which location (x, y) is a point with the offset (4, 0)?

# %%
answer = ...

# %% tags=["solution"]
centre, size, offset = torch.tensor([0.5, 0.5]), torch.tensor([0.2, 0.4]), torch.tensor([4.0, 0])
check(answer, centre + offset / 4 * size / 2, hint="Eq. 10.1: the fourth step reaches the edge.")

# %% [markdown]
# **3.** A query gets the *content* of another query, but keeps its reference box. What changes: the
# centre of its points, their pattern, or both? Answer "centre", "pattern" or "both".

# %%
answer = ...

# %% tags=["solution"]
with torch.no_grad():
    own = attention.plan(content, boxes).locations
    other = attention.plan(content.roll(1, dims=1), boxes).locations
check(answer, "centre" if torch.allclose(own, other) else "pattern", hint="Read Eq. 10.1 again.")

# %% [markdown]
# ## With real weights, if there is a network

# %% tags=["varies"]
if online():
    real, photo = lab.load_pretrained("r18"), chelsea((640, 640))
    with torch.no_grad(), lab.record(real, keep="decoder.*") as of_cat:
        best = int(real(photo).logits[0].amax(-1).argmax())
    panels = {f"layer {i}": sampling_of_query(of_cat, i, best, (4, 4, 4)) for i in range(3)}
    sampling_panels(panels, photo[0])
    plt.show()

# %% [markdown]
# **Next**: [11 · The decoder](11_decoder.ipynb). Every layer reads around the box that the layer
# before it predicted. What does every layer add?
