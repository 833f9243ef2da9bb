# %% [markdown]
# # 21 · D-FINE: every edge says how sure it is
#
# **Paper** D-FINE (arXiv 2410.13842) §4.1, §4.2, Table 3 · **Chapters**
# `rtdetr_lab/successors/fdr.py`, `rtdetr_lab/successors/dfine_losses.py`,
# `rtdetr_lab/successors/gelan.py`, `rtdetr_lab/successors/dfine.py` · **Before this** [11
# decoder](11_decoder.ipynb), [20 HGNetv2](20_hgnetv2.ipynb)
#
# RT-DETR answers with a box. It cannot say that the left edge is sharp, and that the right one is
# hidden. D-FINE predicts a *distribution* for each edge. After this notebook you can read such a
# distribution, explain how the layers add it up, and say what its losses teach.

# %% tags=["imports"]
import matplotlib.pyplot as plt
import torch

import rtdetr_lab as lab
from rtdetr_lab.boxes import xyxy_from_cxcywh
from rtdetr_lab.config import replace_at
from rtdetr_lab.data.batch import collate
from rtdetr_lab.data.shapes import TRAIN, VAL, ShapesConfig, ShapesDataset
from rtdetr_lab.notebook import check, cost, count_found, seeded, source
from rtdetr_lab.structures import Prediction, Targets
from rtdetr_lab.successors.dfine_losses import DFINECriterionConfig, edge_error
from rtdetr_lab.successors.fdr import FDRConfig, FDRDecoder, edges_away, moved_edges
from rtdetr_lab.viz.canvas import show_picture
from rtdetr_lab.viz.marks import frame_box, key_below, line_key, steps
from rtdetr_lab.viz.palette import BLUE, GREEN, VERMILLION, YELLOW

# %% [markdown]
# ## A D-FINE in half a minute
#
# A decoder is a value. So we give `nano` the decoder and the criterion of D-FINE, and keep all of
# its trained weights that fit: backbone, encoder, proposals, and parts of the decoder. (We give the
# loss FGL more weight than the paper, 1 instead of 0.15, because we have so few steps.)

# %%
generator = seeded()
nano = lab.load_pretrained("nano")
cfg = replace_at(nano.cfg, "decoder", FDRConfig(96, 3, 6, ffn_dim=192, num_points=4))
cfg = replace_at(cfg, "criterion", DFINECriterionConfig(fgl_weight=1.0))
cfg = replace_at(replace_at(cfg, "denoising", None), "selection.num_queries", 20)
model = cfg.build().eval()
own, given = model.state_dict(), dict(nano.state_dict())
for name in [n for n in given if n.startswith("decoder.box_heads.0")]:
    given[name.replace("box_heads.0", "start_head")] = given[name]  # the box of the first layer
fits = {n: t for n, t in given.items() if n in own and own[n].shape == t.shape}
model.load_state_dict(fits, strict=False)
print(f"{len(fits)} of {len(own)} tensors are nano's")

# %% [markdown]
# The pictures have one or two shapes. In every second one a grey curtain, 60 pixels wide, hides a
# part of the first shape. The true box is that of the *whole* shape: a hidden edge can be guessed.

# %%
plain = {"distractors": 0, "texture": 0, "light": 0.1, "noise": 0.02, "min_visible": 0.95}
sides = {"min_side": 44, "max_side": 80, "small_share": 0, "crowding": 0}
easy = ShapesConfig(size=160, max_objects=2, **sides, **plain)


# %%
def scenes(seed, count):
    """Return pictures, targets, and the first and last column of the curtains (-1: none)."""
    world = ShapesDataset(easy, seed=seed, count=count + count // 8)
    batch = collate([sample for sample in world if len(sample.labels)][:count])
    curtains = torch.full((count, 2), -1)
    for i in range(0, count, 2):
        left, _, right, _ = (xyxy_from_cxcywh(batch.targets.boxes[i][0]) * 160).tolist()
        share = 0.35 + 0.4 * torch.rand((), generator=generator).item()
        first = int(left + share * (right - left))
        batch.images[i, :, :, first : first + 60] = 0.5
        curtains[i] = torch.tensor([first, first + 60])
    return batch.images, batch.targets, curtains


# %% [markdown]
# Only the decoder learns. What the parts before it return stays, so we compute it once.


# %%
def see(images):
    """Return what the decoder reads, and the proposals."""
    read = []
    hook = model.decoder.register_forward_pre_hook(lambda _, inputs: read.extend(inputs))
    with torch.no_grad():
        proposals = model(images).proposals
    hook.remove()
    return read, proposals


def answer_to(read, proposals):
    layers = model.decoder(*read)
    return Prediction(layers[-1].logits, layers[-1].boxes, layers, proposals)


# %%
STEPS = 220
images, targets, _ = scenes(TRAIN, 240)
batches = []
for part in (slice(first, first + 8) for first in range(0, 240, 8)):
    batches.append((*see(images[part]), Targets(targets.labels[part], targets.boxes[part])))
images, targets, curtains = scenes(VAL, 64)
seen = see(images)

# %% [markdown]
# We note the **spread** of every edge, for 64 new pictures, while the decoder learns: the standard
# deviation of its distribution, in pixels.

# %%
criterion = cfg.criterion.build()


def edges_of(prediction):
    """Return spread and error of each edge (pixels) per layer, and which edges are hidden."""
    pairs = criterion.matcher(prediction.layers[-1], targets)
    true = xyxy_from_cxcywh(pairs.gather(targets.boxes)) * 160
    first, last = curtains[pairs.flat[0]].unbind(-1)
    hidden = torch.zeros(len(true), 4, dtype=torch.bool)
    hidden[:, 2] = (first < true[:, 2]) & (true[:, 2] <= last)
    spreads, errors = [], []
    for layer in prediction.layers:
        p = layer.corner_logits[pairs.flat].softmax(-1)
        away = layer.distances - (p @ layer.distances)[..., None]
        size = 160 * layer.start.boxes[pairs.flat][:, [2, 3, 2, 3]]
        spreads.append((p * away**2).sum(-1).sqrt() * size)
        errors.append((xyxy_from_cxcywh(layer.boxes[pairs.flat]) * 160 - true).abs())
    return torch.stack(spreads), torch.stack(errors), hidden


# %%
torch.manual_seed(0)
optimizer = torch.optim.AdamW(model.decoder.parameters(), lr=3e-3, weight_decay=1e-4)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, STEPS)
history = []
for step in range(STEPS):
    if step % 20 == 0:
        with torch.no_grad():
            history.append(edges_of(answer_to(*seen)))
    *read, truth = batches[step % len(batches)]
    model.decoder.train()
    terms = criterion(answer_to(*read), truth)
    optimizer.zero_grad()
    sum(terms.values()).backward()
    torch.nn.utils.clip_grad_norm_(model.decoder.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    model.decoder.eval()

# %%
with torch.no_grad():
    prediction = model(images)
history.append(edges_of(prediction))
spreads, errors, hidden = history[-1]
assert count_found(prediction, targets) > 0.5 * targets.num_boxes

# %% [markdown]
# ## The end, first
#
# Two shapes that the model has never seen. Above and beside each picture stand the distributions of
# its four edges, one curve per layer. On the left all edges can be seen: four narrow peaks. On the
# right a curtain hides the right edge, and its distribution is lower and wider. (The curves of the
# three layers nearly coincide; below we see why.)

# %%
pairs = criterion.matcher(prediction.layers[-1], targets)
picture, query = pairs.flat
start = prediction.layers[0].start.boxes[pairs.flat]
truth = pairs.gather(targets.boxes)
good = errors[-1].max(1).values < 8
ratio = spreads[-1][:, 2] / spreads[-1][:, [0, 1, 3]].mean(1)
unsure = int((ratio * (good & hidden[:, 2])).argmax())
open_to_view = good & (curtains[picture, 0] < 0)
clear = int((spreads[-1].max(1).values + 100 * ~open_to_view).argmin())


def curves(layer, pair):
    """Return for each edge the pixels of its distances, and the probability per pixel in %."""
    p = layer.corner_logits[picture[pair], query[pair]].softmax(-1)
    corners = 160 * xyxy_from_cxcywh(start[pair])
    sides = (corners[2:] - corners[:2]).repeat(2) * torch.tensor([-1, -1, 1, 1])
    places = corners[:, None] + sides[:, None] * layer.distances
    return places, 100 * p / torch.gradient(places, dim=1)[0].abs()


# %%
def draw(pair, ax):
    show_picture(ax, images[picture[pair]], quiet=0.5)
    above, beside = ax.inset_axes((0, 1.03, 1, 0.35)), ax.inset_axes((1.03, 0, 0.35, 1))
    for layer, color in zip(prediction.layers, steps(3), strict=True):
        (left, top, right, bottom), density = curves(layer, pair)
        above.plot(left, density[0], right, density[2], color=color)
        beside.plot(density[1], top, density[3], bottom, color=color)
    above.set(xlim=(0, 160), ylim=(0, 30), xticks=[], yticks=[0, 15, 30], ylabel="%")
    beside.set(ylim=(160, 0), xlim=(0, 30), yticks=[], xticks=[0, 15, 30], xlabel="% per pixel")
    frame_box(ax, prediction.boxes[picture[pair], query[pair]], (160, 160), steps(3)[2])
    frame_box(ax, truth[pair], (160, 160), GREEN, "--", 1.2)


# %%
# alt: Two pictures of a shape with its box, and curves above and beside each: on the left four
#   narrow peaks; on the right the right edge, behind a grey curtain, has a low and wide curve.
fig, axes = plt.subplots(1, 2, figsize=(4.8, 3), layout="constrained")
fig.suptitle("An edge that is hidden has a wide distribution", fontsize=11)
titles = {"four visible edges": clear, "the right edge is hidden": unsure}
for ax, (title, pair) in zip(axes, titles.items(), strict=True):
    draw(pair, ax)
    ax.set_title(title, y=1.4, fontsize=10)
keys = [line_key(f"layer {i}", color) for i, color in enumerate(steps(3))]
key_below(list(axes), [*keys, line_key("truth", GREEN, "--")])
assert spreads[-1][hidden].mean() > 1.3 * spreads[-1][~hidden].mean()

# %% [markdown]
# ## The question
#
# A decoder layer of RT-DETR moves a box by a step of four numbers (Eq. 11.1). How can it also say
# how sure it is? D-FINE lets the first layer predict a box $b^{(0)}$ as before. This box then
# stays. For each of its four edges every layer predicts 33 *scores*, one for each distance $W(n)$
# in a fixed table. Scores of later layers are **added** to those before:
#
# $$ s^{(i)} = s^{(i-1)} + \mathrm{head}_i(q_i + \bar q_{i-1}), \qquad
#    d^{(i)} = \sum_{n=0}^{N} W(n)\, \mathrm{softmax}(s^{(i)})_n \tag{21.2} $$
#
# ($q_i$ is the content of the query after layer $i$, $\bar q_{i-1}$ the detached one before; $N$ is
# 32.) The mean distance $d$ moves the edge away from the centre, in parts of the box's size:
#
# $$ x_1 = c_x - \bigl(\tfrac12 + d_{\text{left}}\bigr)\, w, \qquad
#    x_2 = c_x + \bigl(\tfrac12 + d_{\text{right}}\bigr)\, w \tag{21.3} $$
#
# ## By hand, on 3 distances
#
# We take a table of three: in by half the width, stay, out by half the width. The first layer is
# unsure, and leans to "out". The second adds 2 to the score of "stay":

# %%
table = torch.tensor([-0.5, 0.0, 0.5])
s0 = torch.tensor([0.0, 0.0, 1.0])
s1 = s0 + torch.tensor([0.0, 2.0, 0.0])
for name, s in {"layer 0": s0, "layer 1": s1}.items():
    p = s.softmax(-1)
    d = (p * table).sum()
    print(name, "probabilities", [round(v, 2) for v in p.tolist()], f"distance {d:+.3f}")
moved = moved_edges(torch.tensor([0.5, 0.5, 0.2, 0.4]), torch.tensor([0.0, 0.0, d, 0.0]))
assert torch.isclose(xyxy_from_cxcywh(moved)[2], 0.5 + (0.5 + d) * 0.2)

# %% [markdown]
# Adding scores multiplies probabilities: a later layer confirms an earlier one, or overrules it.
#
# The real table (Eq. 21.4, `rtdetr_lab/successors/fdr.py`) is fine in the middle, because most
# edges need small steps: the first is 1.9 % of the size. It is coarse at the ends: the last is 100
# %.
#
# **What teaches a distribution?** The loss FGL. The true edge lies between two distances of the
# table, and these two bins share the target ($\omega$ is the part of the upper one):
#
# $$ \mathcal L_{\text{FGL}} = \frac1{\text{pairs}} \sum_t \mathrm{IoU}_t \sum_{\text{4 edges}}
#    \bigl(-(1 - \omega) \log p_n - \omega \log p_{n+1}\bigr), \qquad
#    \omega = \frac{d^* - W(n)}{W(n+1) - W(n)} \tag{21.7} $$
#
# ## The real module

# %%
source(FDRDecoder.forward)

# %% [markdown]
# A gate in each layer replaces the sum after cross-attention (Eq. 21.6), and the box losses of all
# layers share their pairs (Eq. 21.9). The chapters have both.
#
# ## Look inside: sharp and unsure
#
# How did the distributions become narrow? At the start all scores are zero, so all 33 distances are
# equally likely. And is the spread **honest**? For the right panel we sort all edges by their
# spread into five groups of equal size, and compare with the error that the model really makes.

# %%
order = spreads[-1].flatten().argsort()
groups = [(spreads[-1].flatten()[g].mean(), errors[-1].flatten()[g].mean()) for g in order.chunk(5)]
assert groups[-1][1] > 2 * groups[0][1]
for of in (hidden, ~hidden):
    first, second, third = (s[of].mean() for s in spreads)
    assert first > second > third

# %%
# alt: Three panels. Spread falls over training steps, less for hidden edges, and by a few percent a
#   layer. Mean error over predicted spread rises from about 2 to 8 pixels, near a diagonal.
fig, (left, middle, right) = plt.subplots(1, 3, figsize=(5.4, 2.5), layout="compressed")
fig.suptitle("Wide distributions are hidden edges, and larger errors", fontsize=11)
for name, color, style in (("hidden", VERMILLION, "o-"), ("visible", BLUE, "s--")):
    last = [s[-1][h == (name == "hidden")].mean().item() for s, _, h in history]
    left.plot([min(20 * i, STEPS) for i in range(len(last))], last, style, ms=3, color=color)
    per_layer = torch.stack([s[hidden == (name == "hidden")].mean() for s in spreads])
    middle.plot(range(3), 100 * per_layer / per_layer[0], style, ms=5, color=color, label=name)
right.plot(*zip(*groups, strict=True), "^-", color="#000000")
right.plot([0, 10], [0, 10], ":", color="#808080", label="error = spread")
left.set(xlabel="training step", ylabel="spread (pixels)", ylim=(0, None))
middle.set(xlabel="decoder layer", xticks=range(3), ylabel="spread (% of layer 0)", ylim=(80, 101))
right.set(xlabel="spread (pixels)", ylabel="mean error (pixels)")
left.set_title("training narrows", fontsize=10)
middle.set_title("so do layers", fontsize=10)
right.set_title("spread is honest", fontsize=10)
middle.legend(title="edges", frameon=False, fontsize=9)
right.legend(frameon=False, fontsize=8, loc="lower right", handlelength=1, borderpad=0)

# %% [markdown]
# Every layer narrows the distributions, but only a little: the second new loss, DDF, teaches the
# earlier layers the distribution of the last one (Eq. 21.8). So the first layer is nearly as sharp
# as the last, at no cost at inference. A hidden edge stays wide: it can only be guessed.
#
# The spread is honest: edges with a wide distribution are wrong by more. No label says which edge
# is unsure; the model learned it from boxes. LQE tells the score, from the largest probabilities of
# the edges (Eq. 21.5; after our few steps it adds nearly 0).
#
# ## Predict, then break it
#
# In this small decoder the means of the distributions are near 0: the first box $b^{(0)}$ learned
# from the same true boxes, and is as good as the last. (In the paper the distributions and their
# losses also improve AP, from 53.0 to 54.0: Table 3.) But the mean hides what the distribution
# knows. We draw each edge at random from its distribution, twelve times. **Predict**: how will the
# twelve boxes look, for the shape with four sharp edges, and for the one behind the curtain?

# %%
# alt: The same two pictures with twelve thin boxes each. On the left they lie on top of each other.
#   On the right their right edges are spread behind the curtain, the other edges lie together.
p = prediction.layers[-1].corner_logits[pairs.flat].softmax(-1)
drawn = torch.multinomial(p.flatten(0, 1), 12, replacement=True, generator=generator)
away = prediction.layers[-1].distances[drawn].unflatten(0, (-1, 4)).transpose(1, 2)
sampled = moved_edges(start[:, None].expand(-1, 12, 4), away)
fig, axes = plt.subplots(1, 2, figsize=(3.8, 2.5), layout="compressed")
fig.suptitle("Twelve boxes agree, except at a hidden edge", fontsize=10)
for ax, (title, pair) in zip(axes, titles.items(), strict=True):
    size = show_picture(ax, images[int(picture[pair])], quiet=0.4)
    for box in sampled[pair]:
        frame_box(ax, box, size, YELLOW, width=0.8)
    frame_box(ax, truth[pair], size, GREEN, "--", 1.6)
    ax.set_title(title, fontsize=9)
key_below(list(axes), [line_key("drawn", YELLOW), line_key("truth", GREEN, "--")])

# %%
apart = 160 * xyxy_from_cxcywh(sampled)[..., 2].std(1)
print("right edges of the twelve boxes lie further apart:", bool(apart[unsure] > 2 * apart[clear]))
assert apart[unsure] > 2 * apart[clear]

# %% [markdown]
# One mean per edge would be a single box in both cases.
#
# ## What it costs
#
# We compare RT-DETR-L and D-FINE-L, which have the same backbone, at 640 × 640.

# %%
totals = {}
with torch.device("meta"):
    for preset in (lab.rtdetr_l, lab.dfine_l):
        made, given = preset().build().eval(), torch.rand(1, 3, 640, 640)
        totals[preset.__name__] = cost(made, given)
for name, total in totals.items():
    parts = {part: round(flops / 1e9, 1) for part, _, flops in total.rows if flops}
    print(f"{name:9} {total.params / 1e6:.1f} M, GFLOPs: {parts}")
assert totals["dfine_l"].flops < 0.9 * totals["rtdetr_l"].flops

# %% [markdown]
# D-FINE-L does less work. Its neck has half the width (`gelan.py`). Its attention reads the memory
# without a value and an output projection (0.6 AP less; the gate brings 0.4 back). 132 numbers per
# query instead of four are cheap. So speed is bought first, and paid back by the distributions.
#
# ## Exercises
#
# **1.** The right edge of a box that is 200 pixels wide gets all of its probability at $n = 24$. By
# how many pixels does it move?

# %%
answer = ...

# %% tags=["solution"]
move = 200 * FDRConfig().distances(torch.zeros(1))[24].item()
check(answer, move, hint="Eq. 21.4 with m = 8, a = ½, r = 4.", tolerance=0.02)

# %% [markdown]
# **2.** All 33 scores of an edge are equal. What is its part of FGL (before the IoU), wherever the
# true edge lies?

# %%
answer = ...

# %% tags=["solution"]
flat = edge_error(torch.zeros(1, 4, 33), prediction.layers[0].distances, torch.rand(1, 4))
check(answer, flat[0, 0].item(), hint="The two shares sum to 1; every probability is 1/33.")

# %% [markdown]
# **3.** The box is (0.5, 0.5, 0.2, 0.4), the object (0.5, 0.5, 0.3, 0.4). By which distance must
# the left edge move, as a part of the width of the box?

# %%
answer = ...

# %% tags=["solution"]
wanted = edges_away(torch.tensor([0.5, 0.5, 0.2, 0.4]), torch.tensor([0.5, 0.5, 0.3, 0.4]))
check(answer, wanted[0].item(), hint="Half of the 0.1 that is missing, divided by 0.2.")

# %% [markdown]
# **Next**: [22 · DEIM](22_deim.ipynb) changes only what a model learns from: poor matches.
