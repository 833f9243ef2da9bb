# %% [markdown]
# # 19 · The trap museum
#
# **Paper** RT-DETR, RT-DETRv2, DETR: what they leave open · **Code** `docs/differences.md` lists
# all of them · **Before this** [13 the complete model](13_complete_model.ipynb)
#
# Two public implementations load the same weights and still disagree. They disagree mostly in cases
# that are rarely tested: rectangles, empty batches, several processes. No exhibit raises an error.
# We show each one done right and done wrong, with a label: *how you would have noticed*.

# %% tags=["imports"]
import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn.functional import interpolate

import rtdetr_lab as lab
from rtdetr_lab.boxes import paired_iou, xyxy_from_cxcywh
from rtdetr_lab.config import replace_at
from rtdetr_lab.decoder import look_forward_once
from rtdetr_lab.images.postprocess import of_the_canvas, of_the_picture, postprocess
from rtdetr_lab.layers import sine_2d, sine_2d_authors
from rtdetr_lab.losses import l1_loss
from rtdetr_lab.notebook import check, cost, count_found, seeded, shapes, source
from rtdetr_lab.query_selection import anchors
from rtdetr_lab.samplers import Discrete
from rtdetr_lab.structures import Targets

# %%
generator = seeded()
model = lab.load_pretrained("nano")
images, targets = shapes(*range(8))
wide = interpolate(images, (192, 320), mode="bilinear", antialias=True)


# %%
def found(model, images=images):
    with torch.no_grad():
        return count_found(model.eval()(images), targets)


def rebuilt(path, value):
    other = replace_at(model.cfg, path, value).build()
    other.load_state_dict(model.state_dict())
    return other.eval()


# %% [markdown]
# ## The end, first: exhibit 1, positions on a rectangle
#
# How similar is the position embedding of one cell to the embeddings of all others? It should be
# most similar to its neighbours. On the left, positions are in the order of the tokens, row by row.
# On the right, they are in the order of the authors' code, column by column, but for the same
# tokens.

# %%
# alt: Two maps of 6 rows and 10 columns. Left, a bright spot around the marked cell. Right, bright
#   cells are scattered over the map in a slanted pattern.
fig, axes = plt.subplots(1, 2, figsize=(5.6, 2.4), layout="compressed")
for ax, order in zip(axes, (sine_2d, sine_2d_authors), strict=True):
    own = order(6, 10, 96)[0]
    alike = (own @ own[25] / own.norm(dim=1) / own[25].norm()).view(6, 10)
    drawn = ax.imshow(alike, cmap="cividis", vmin=0.5, vmax=1)
    ax.plot(5, 2, "s", mfc="none", mec="white", ms=13)
    near = "near" if order is sine_2d else "scattered"
    ax.set_title(f"{order.__name__}: similar cells are {near}", fontsize=9)
    ax.set(xlabel="column", ylabel="row")
fig.colorbar(drawn, ax=axes, label="cosine with □", fraction=0.03)

# %% [markdown]
# **Predict**: how many shapes does a trained model lose with the wrong order, on square pictures
# and on pictures of 192 × 320?

# %%
authors = rebuilt("encoder.aifi.positions", sine_2d_authors)
square, rectangle = (found(model), found(authors)), (found(model, wide), found(authors, wide))
with torch.no_grad():
    moved = (model(wide).logits - authors(wide).logits).abs().max().item()
print(f"of {targets.num_boxes} shapes, (right, wrong): square {square}, rectangle {rectangle}")
print(f"largest difference of a logit on the rectangle: {moved:.2f}")
assert torch.equal(sine_2d(10, 10, 96), sine_2d_authors(10, 10, 96))
assert square[0] == square[1]

# %% [markdown]
# On squares it loses none, because there both orders are the same. On rectangles the *count* does
# not change either: 40 and 40. This is less than on squares, but not because of the order. Look at
# the logits instead: some change by more than five. A count over eight pictures does not show this.
# A test for equality does.
#
# *How you would have noticed*: not at all at 640 × 640. Test every layout on a map whose height and
# width differ.
#
# ## The question
#
# Why do such traps exist at all? Because the loss falls anyway. A network with a wrong position, a
# halved gradient, or a loss divided by the wrong number still learns, only worse. To find such a
# mistake we test a property: the result is equal on a permuted input, equal on two processes,
# finite, or of the right sign. So at every exhibit, find the property that is broken.
#
# ## By hand: exhibit 2, divided by the wrong number
#
# Losses are divided by the number of objects. One process has a picture with 1 object, another has
# a picture with 9 objects, and every box is wrong by the same 0.1. Afterwards the gradients are
# averaged over the processes.

# %%
wrong_by = torch.full((10, 4), 0.1, requires_grad=True)
truth = torch.zeros(10, 4)
alone = {}
for name, counts in {"own objects": (1, 9), "mean of both": (5, 5)}.items():
    parts = l1_loss(wrong_by[:1], truth[:1], counts[0]), l1_loss(wrong_by[1:], truth[1:], counts[1])
    (gradient,) = torch.autograd.grad(sum(parts) / 2, wrong_by)
    alone[name] = (gradient[0, 0] / gradient[1, 0]).item()
    print(f"divided by {name:12}: gradient of the single object, {alone[name]:.0f} × the others'")
assert round(alone["own objects"]) == 9
assert round(alone["mean of both"]) == 1

# %% [markdown]
# *How you would have noticed*: compare the gradient of two processes with the gradient of one large
# batch. (In transformers, each process of RT-DETR divides by its own number of objects.)
#
# ## The real module: exhibit 3, a clamp that is right only on squares
#
# Discrete sampling turns a location into a row and a column, and clamps both to the map:

# %%
source(Discrete.cells)

# %% [markdown]
# The authors' code clamps *both* to the height minus one. **Predict**: on a map of 20 rows and 40
# columns, what share of all points then reads another cell?

# %%
where = torch.rand(1, 1, 1, 10_000, 2, generator=generator)
right = Discrete().cells(where, [(20, 40)], [10_000])
row, column = right // 40, right % 40
clamped = row * 40 + column.clamp(max=20 - 1)
share = (clamped != right).float().mean().item()
print(f"misread: {share:.1%} of the points; on 40 × 40 none")
assert abs(share - 0.5) < 0.02

# %% [markdown]
# All points in the right half of the picture read its middle column, and no index is out of range.
# *How you would have noticed*: mirror a picture, and compare the result with the mirrored boxes.
#
# ## Look inside: exhibit 4, boxes of padded pictures
#
# DETR pads pictures to a common canvas. Is a box a fraction of the picture, or of the canvas? In
# the authors' code it is a fraction of the picture. A model that was fine-tuned with transformers'
# image processor has learned fractions of the canvas.

# %%
box = torch.tensor([[[0.4, 0.5, 0.4, 0.3]]])
filled = torch.tensor([[1.0, 0.6]])  # the picture fills 60 % of the canvas in width
as_picture, as_canvas = (f(box, filled)[0] for f in (of_the_picture, of_the_canvas))
print("as a fraction of the picture:", as_picture[0], " of the canvas:", as_canvas[0])
agreement = paired_iou(xyxy_from_cxcywh(as_picture), xyxy_from_cxcywh(as_canvas)).item()
print(f"IoU of the two boxes: {agreement:.2f}")
assert agreement < 0.5

# %% [markdown]
# *How you would have noticed*: evaluate with batch size 1, where no picture is padded. If AP rises,
# you have found this mistake.
#
# ## Exhibit 5: (w, h) or (h, w)
#
# The authors' RT-DETR takes the sizes of pictures as (width, height). Their DETR takes them as
# (height, width).

# %%
with torch.no_grad():
    answer = model(wide[:1])
good, bad = postprocess(answer, [(192, 320)])[0], postprocess(answer, [(320, 192)])[0]
kept = paired_iou(good.boxes_xyxy, bad.boxes_xyxy).mean().item()
print(f"{len(good.scores)} boxes each, mean IoU of right and swapped: {kept:.2f}")
assert torch.equal(good.scores, bad.scores)
assert kept < 0.5

# %% [markdown]
# Scores and labels are perfect, but COCO's AP is almost zero. On nearly square pictures AP is only
# a little low. *How you would have noticed*: draw one box on one picture that is not square.
#
# ## Exhibit 6: infinite anchors
#
# An anchor that nearly touches the edge is invalid. Its logit is set to infinity and its token to
# zero, but it *stays in the top-k*. It may seem better to multiply the logits by the mask:

# %%
logits, valid = anchors(((80, 80), (40, 40), (20, 20)))
outside, masked = ~valid[:, 0], logits * valid
print(f"{int(outside.sum())} of {len(valid)} are invalid; as a box: {logits[outside][0].sigmoid()}")
print("multiplied by the mask:", masked[outside][0])
assert masked.isnan().any()
assert logits.sigmoid().isfinite().all()

# %% [markdown]
# Infinity times zero is not a number (NaN), and one NaN in a top-k or a loss spreads everywhere.
# But the sigmoid of infinity is finite: the result is a box around the lower right corner. *How you
# would have noticed*: pictures of 320 px have no invalid anchor, pictures of 640 px have 316. Test
# at the size that you use.

# %%
maps = {n: tuple((n // s, n // s) for s in (8, 16, 32)) for n in (320, 640, 1280)}
invalid = {n: int((~anchors(m)[1]).sum()) for n, m in maps.items()}
print(invalid)
assert invalid == {320: 0, 640: 316, 1280: 1580}

# %% [markdown]
# ## Predict, then break it: exhibit 7, no positions in eval mode
#
# The authors' code caches the position embedding for a size given in advance. If transformers gets
# this size, it leaves the embedding out in eval mode. **Predict**: how many shapes does nano lose
# without positions in its AIFI layer?

# %%
blind = rebuilt("encoder.aifi.positions", None)
with torch.no_grad():
    moved = (model(images).logits - blind(images).logits).abs().max().item()
print(f"with positions {square[0]}, without {found(blind)}; a logit moves by up to {moved:.2f}")
assert moved > 1

# %% [markdown]
# None! The logits change, some by a lot, but the count does not. The convolutions before and after
# AIFI can find positions without an embedding, and the class of a shape does not depend on its
# place. So such a mistake can stay for years. A large model on real pictures may be less robust.
#
# *How you would have noticed*: run the same picture in training mode and in eval mode (with frozen
# norms and dropout 0). The outputs must be equal.
#
# ## Exhibit 8: which head learns from a bad box
#
# transformers detaches the box between layers for the loss, too. The authors do not (notebook 11).
# The forward pass is the same to the last bit, but the gradients of the box heads differ:

# %%
some = Targets(targets.labels[:2], targets.boxes[:2])
norms = {}
for name, rule in {"twice": model.cfg.decoder.box_gradient, "once": look_forward_once}.items():
    torch.manual_seed(0)
    learner = rebuilt("decoder.box_gradient", rule).train()
    terms = learner.cfg.criterion.build()(learner(images[:2], some), some)
    sum(terms.values()).backward()
    norms[name] = [head.layers[-1].weight.grad.norm().item() for head in learner.decoder.box_heads]
    print(f"look forward {name:5}", [round(n, 1) for n in norms[name]])
assert norms["twice"][2] == norms["once"][2]
assert norms["twice"][0] > 1.3 * norms["once"][0]

# %% [markdown]
# *How you would have noticed*: compare gradients with the reference, not only outputs. A parity
# test of the forward pass cannot find it.
#
# ## Exhibit 9: a batch without any object
#
# Such a batch has nothing to denoise. If we leave denoising out, the label embedding gets no
# gradient. In distributed training the other processes then wait for this gradient forever.

# %%
nothing = Targets((torch.empty(0).long(),) * 2, (torch.empty(0, 4),) * 2)
embedding = {}
for name, hint in {"with a padded group": nothing, "left out": None}.items():
    learner.zero_grad(set_to_none=True)
    terms = learner.cfg.criterion.build()(learner(images[:2], hint), nothing)
    sum(terms.values()).backward()
    gradient = learner.denoising.label_embedding.weight.grad
    embedding[name] = None if gradient is None else gradient.abs().max().item()
    noise = sum(t.item() for n, t in terms.items() if "denoising" in n)
    print(f"{name:19} largest gradient: {embedding[name]}, denoising loss: {noise}")
assert embedding == {"with a padded group": 0.0, "left out": None}

# %% [markdown]
# *How you would have noticed*: after any `backward()`, no parameter may have a gradient of `None`.
#
# ## Exhibit 10: normalised twice
#
# DETR's decoder ends in a layer norm. With `auxiliary_loss=True` transformers also normalises the
# content that passes from layer to layer. The output of the last layer is then normalised twice. So
# a switch for training changes the result of inference. With fresh weights, a test finds nothing:

# %%
x = torch.randn(5, 8, generator=generator)
norm, changes = nn.LayerNorm(8), {}
for name in ("fresh", "trained"):
    if name == "trained":
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.bias)
    changes[name] = (norm(norm(x)) - norm(x)).abs().max().item()
    print(f"{name:8} the second norm changes values by up to {changes[name]:.1e}")
assert changes["fresh"] < 1e-4 < changes["trained"]

# %% [markdown]
# *How you would have noticed*: test with weights that were changed at random. With fresh weights, a
# second norm changes nothing, biases are zero, and a box head keeps its box. All of these hide
# mistakes.
#
# ## In the cellar: numbers that are not what they seem
#
# - The papers measure frames per second with TensorRT in FP16 on a T4. PyTorch reaches about a
#   third.
# - The model card of r18 shows the detections of r50.
# - The documentation of RT-DETR says "logits of `num_classes` + 1". In fact they are `num_classes`.
# - The last of transformers' `_aux_` losses belongs to the encoder, not to a decoder layer.
#
# ## What it costs
#
# It costs nothing, and this is the problem: right and wrong have the same parameters and
# operations, so no table shows the difference.

# %%
right, wrong = cost(model, images[:1]), cost(authors.eval(), images[:1])
print(right.params, wrong.params, right.flops == wrong.flops)
assert right.rows == wrong.rows

# %% [markdown]
# ## Exercises
#
# **1.** On a map of 20 rows and 40 columns, half of the points read a wrong cell because of the
# clamp. How large is this share on 30 rows and 40 columns?

# %%
answer = ...

# %% tags=["solution"]
check(answer, (40 - 30) / 40, hint="Columns 30 … 39 are read as column 29.")

# %% [markdown]
# **2.** Four processes have 1, 3, 5 and 7 objects. By which number must each process divide?

# %%
answer = ...

# %% tags=["solution"]
check(answer, sum((1, 3, 5, 7)) / 4, hint="Gradients are averaged over processes afterwards.")

# %% [markdown]
# **3.** For how many cells of a 6 × 10 map does the authors' order give the right position?

# %%
answer = ...

# %% tags=["solution"]
same = (sine_2d(6, 10, 96) == sine_2d_authors(6, 10, 96)).all(-1)
check(answer, int(same.sum()), hint="Which cell n is the same by rows and by columns?")

# %% [markdown]
# **Next**: you have read all notebooks. Read [the tour](00_tour.ipynb) again with what you know
# now, or add a trap of your own to `docs/differences.md`.
