# %% [markdown]
# # 10 · Deformable attention: where to look, and how much
#
# **Paper** Deformable DETR §4.1, Eq. 3; RT-DETRv2 §2.1 · **Chapters**
# `rtdetr_lab/deformable_attention.py`, `rtdetr_lab/samplers.py` ·
# **Before this** [09 query selection](09_query_selection.ipynb)
#
# A query knows where to start. Now it reads the picture. Afterwards you can say how many values one
# query reads, which tensors decide *where*, and which decide *how much*.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import torch

import rtdetr_lab as lab
from rtdetr_lab.deformable_attention import DeformableAttention
from rtdetr_lab.notebook import check, chelsea, cost, count_good, online, seeded, shapes, source
from rtdetr_lab.samplers import Bilinear, Discrete, Naive, SamplingPlan
from rtdetr_lab.viz.cells import cells_of_tokens, centres_of_cells
from rtdetr_lab.viz.sampling import close_up, sampling_of_query, sampling_panels, sampling_points
from rtdetr_lab.viz.slider import slider

generator = seeded()
model = lab.load_pretrained("nano")
images, targets = shapes(*range(8))  # 320 × 320 pixels, 2,100 tokens

# %% [markdown]
# ## The end, first
#
# One query, three decoder layers. A mark is one read: its area is its weight, its colour the level
# it reads from. The dashed frame is the reference box that the layer starts from.

# %%
# alt: Three close-ups of one shape, one per decoder layer. Marks of three colours lie on and
#   around the reference box; in every layer they take other places and sizes.
with torch.no_grad(), lab.record(model) as seen:
    prediction = model(images)
query = int(prediction.logits[3].amax(-1).argmax())  # the surest one of picture 3
looks = {f"layer {i}": sampling_of_query(seen, i, query, (4, 4, 4), picture=3) for i in range(3)}
view = close_up(list(looks.values()), (320, 320))
axes = sampling_panels(looks, images[3], view=view)

# %% [markdown]
# ## The question
#
# In DETR a query attends to *every* token: a weight for each of 8,400 of them, nearly all close to
# zero. Deformable attention asks the query itself. Two linear maps of its content $q$ (in the
# decoder with the position of notebook 11 added) give, for each of $M$ heads, $P$ offsets $o$ and
# $P$ weights $A$. The $P$ points of a head are shared out: $K$ on each level, here 4 on each of 3,
# so $P = 12$. With $c$ and $(w, h)$ the centre and size of the reference box, head $m$ looks at
#
# $$ p_{mk} = c + \frac{o_{mk}}{K} \cdot \frac{(w, h)}{2} \tag{10.1} $$
#
# and takes home a mixture of what it finds there, where $x\langle p \rangle$ is the head's share of
# the projected map of the point's level, read *between* its cells. $k$ runs over all $P$ points,
# and so does the softmax, all levels together; $W_m$ is head $m$'s part of the output projection:
#
# $$ \mathrm{out} = \sum_{m} W_m \sum_{k} A_{mk}\, x\langle p_{mk} \rangle, \qquad
#    \sum_k A_{mk} = 1 \tag{10.2} $$
#
# So the box says around which place and in how large strides; the content says which way.

# %% [markdown]
# ## By hand, on 3 × 3 cells
#
# One level of nine cells with the values 0 … 8, one head, two points. Cell $i$ of three has its
# centre at $(i + \frac12)/3$. The first point is the middle of the picture: exactly cell 4. The
# second lies halfway between cells 4 and 5.

# %%
value = torch.arange(9.0).reshape(1, 9, 1, 1)  # B N M d
locations = torch.tensor([[1 / 2, 1 / 2], [2 / 3, 1 / 2]]).reshape(1, 1, 1, 2, 2)
weights = torch.tensor([0.25, 0.75]).reshape(1, 1, 1, 2)
by_hand = 0.25 * 4 + 0.75 * (4 + 5) / 2
out = Bilinear()(value, [(3, 3)], [2], SamplingPlan(locations, weights))
print(f"by hand {by_hand}, module {out.item():.4f}")
assert abs(out.item() - by_hand) < 1e-6

# %% [markdown]
# A point that does not sit on a centre reads four cells, weighted by nearness. Move it off the map
# and the missing cells count as zero. Where the reading changes smoothly with the point, there is a
# gradient: *that* is how offsets are learned.

# %%
point = torch.tensor([0.6, 0.45], requires_grad=True)
plan = SamplingPlan(point.reshape(1, 1, 1, 1, 2), torch.ones(1, 1, 1, 1))
Bilinear()(value, [(3, 3)], [1], plan).sum().backward()
print("d value / d (x, y) =", point.grad)

# %% [markdown]
# One step right is worth 1, a step down 3, and a step is a third of the picture: hence 3 and 9.
#
# ## The real module
#
# First where and how much. Nothing here has seen the feature maps yet.

# %%
source(DeformableAttention.plan)

# %%
source(DeformableAttention.forward)

# %% [markdown]
# The sampler reads; it is a value, so another can take its place. `Naive` is Eq. 10.2 written as
# three loops, and the check of the fast one.

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
print("the same, but for rounding:", torch.allclose(fast, slow, atol=1e-5))
assert torch.allclose(fast, slow, atol=1e-5)

# %% [markdown]
# ## Look inside
#
# Six heads, each with a direction of its own. Training began from a star (head $m$ at angle
# $2\pi m / M$). What was left of it, one head at a time: each has an edge or a corner of its own.

# %%
slider(
    lambda head: sampling_points(looks["layer 2"], images[3], head=head, view=view),
    alt="Sampling points of one head in the last layer; each head looks at its own side",
    head=range(6),
    dpi=56,
)

# %%
weights = seen["decoder.layers.2.cross_attn.weights"]
shares = weights.unflatten(-1, (3, 4)).sum(-1).mean((0, 1, 2))
points = weights[0, 0].numel()
print(f"points per query and layer: {points}, cells behind them: {4 * points}, tokens: 2100")
print("share of the weight on S3, S4, S5:", [round(s, 2) for s in shares.tolist()])
assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)

# %% [markdown]
# So much for one query in one layer: $6 \cdot 12 = 72$ points, so at most 288 cells with 16
# channels each, 4,608 numbers; three layers read three times. In RT-DETR it is $8 \cdot 12 = 96$
# points, and it stays 96 however large the picture is. *Where* is in `locations`, made by
# `sampling_offsets` and the reference box; *how much* in `weights`, made by `attention_weights`.
#
# ## Predict, then break it
#
# Five ways to break it, on eight pictures; we count the shapes that end in a good box (score above
# 0.5, IoU above 0.75).
#
# **Predict** the order, from harmless to fatal: (a) every point counts the same; (b) all points of
# a head move to their mean; (c) every head takes the points of its neighbour; (d) only level S3 may
# be read; (e) only S5.


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
counts["(d) only S3"] = broken("weights", only(0))
counts["(e) only S5"] = broken("weights", only(2))
print(f"of {sum(targets.counts)} shapes")
counts

# %% [markdown]
# *How much* matters, *where* is everything. With equal weights nearly half of the good boxes
# survive; with the points of each head drawn together to one spot, one does. What a box head needs
# to know is where the edges are, and it learns that by reading at the edges. (c) leaves none: the
# value each head carries is made for *its* place. (d) and (e) edit weights, but a weight of zero is
# a point not read. S3 alone does well, these shapes being small; S5 alone is blind.

# %%
assert counts["untouched"] > counts["(d) only S3"] > counts["(a) equal weights"]
assert counts["(a) equal weights"] > 5 * counts["(b) one mean point"]

# %% [markdown]
# ## v1, v2, discrete
#
# RT-DETRv2 lets every level have its own number of points, and offers a reading that any
# accelerator can do: take the cell that contains the point, no mixing. The points stay the same;
# the crosses are the centres of the cells that are really read.

# %%
# alt: Two panels. Left, the points as bilinear sampling reads them. Right, a line leads from each
#   point to the centre of the cell that discrete sampling reads; on coarse levels lines are long.
maps, looked = [(40, 40), (20, 20), (10, 10)], looks["layer 2"]
where = looked.locations[None, None]  # as for one picture and one query
cells = Discrete().cells(where, maps, (4, 4, 4))[0, 0]
reads = centres_of_cells(cells_of_tokens(cells, maps), maps, (1, 1))
discrete = replace(looked, reads=reads)
axes = sampling_panels({"bilinear": looked, "discrete": discrete}, images[3], view=view)

# %% [markdown]
# Swapping the sampler of a *trained* model costs boxes:

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
# That is why the paper fine-tunes for it, and then loses only 0.5 AP (RT-DETRv2-S, Table 4). A
# gather has no gradient by its index, so the offsets are frozen meanwhile.
#
# ## What it costs

# %%
cost(attention, content, boxes, memory, maps_small)

# %% [markdown]
# The maps from content to offsets and weights are small. Projecting the *memory* is the largest
# part, and it grows with the picture; reading, which the table leaves out, does not.
#
# ## Exercises
#
# **1.** RT-DETR-R18: 300 queries, 8 heads, 3 levels with 4 points, 3 layers. How many points are
# read for one picture?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 300 * 8 * 3 * 4 * 3, hint="It stands in RT-DETRv2's Table 3.")

# %% [markdown]
# **2.** A reference box has the centre (0.5, 0.5) and the size (0.2, 0.4). One level has 4 points.
# Where does an offset of (4, 0) lead? Give (x, y).

# %%
answer = ...

# %% tags=["solution"]
centre, size, offset = torch.tensor([0.5, 0.5]), torch.tensor([0.2, 0.4]), torch.tensor([4.0, 0])
check(answer, centre + offset / 4 * size / 2, hint="Eq. 10.1: the fourth step reaches the edge.")

# %% [markdown]
# **3.** A query's *content* is replaced by that of another one, its reference box stays. Which
# changes: the centre the points lie around, their pattern, or both? Answer "centre", "pattern" or
# "both".

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
# **Next**: [11 · The decoder](11_decoder.ipynb). Reading happens in every layer, each around the
# box that the layer before has left. What does every layer add?
