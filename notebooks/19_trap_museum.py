# %% [markdown]
# # 19 · The trap museum
#
# **Paper** RT-DETR, RT-DETRv2, DETR: what they leave open · **Code** `docs/differences.md` lists
# all of them · **Before this** [13 the complete model](13_complete_model.ipynb)
#
# Two public implementations load the same weights and still disagree, mostly where nobody looks:
# rectangles, empty batches, several processes. None of the exhibits raises an error. Each is set up
# the right way and the wrong way, and has a label: *how you would have noticed*.

# %%
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
# How alike is the position embedding of one cell to those of all others? It should be most like its
# neighbours. Left in the order of the tokens, row by row; right as the authors' code lays it out,
# column by column, and handed to the same tokens.

# %%
# alt: Two maps of 6 rows and 10 columns. Left a bright spot around the marked cell; right
#   bright cells are scattered over the map in a slanted pattern.
fig, axes = plt.subplots(1, 2, figsize=(6, 2.1), layout="compressed")
for ax, order in zip(axes, (sine_2d, sine_2d_authors), strict=True):
    own = order(6, 10, 96)[0]
    alike = (own @ own[25] / own.norm(dim=1) / own[25].norm()).view(6, 10)
    ax.imshow(alike, cmap="cividis")
    ax.plot(5, 2, "s", mfc="none", mec="white", ms=13)
    ax.set(title=order.__name__, xticks=[], yticks=[])

# %% [markdown]
# **Predict**: what does the wrong order cost a trained model on square pictures, and what on
# pictures of 192 × 320?

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
# On squares nothing, as both orders are then the same. On rectangles the *count* is the same too,
# 40 and 40: fewer than on squares, but not because of the order. Look at the logits instead: some
# move by more than five. A score that is a count over eight pictures does not see it; equality
# does.
#
# *How you would have noticed*: not at all at 640 × 640. Test every layout on a map whose height and
# width differ.
#
# ## The question
#
# Why are there such traps at all? Because a loss goes down anyway. A network with a misplaced
# position, a halved gradient, a loss divided by the wrong number still learns, only less. What
# catches them is a property: equal on a permuted input, equal on two processes, finite, of the
# right sign. So at every exhibit, ask which property is broken.
#
# ## By hand: exhibit 2, divided by the wrong number
#
# Losses are divided by the number of objects. Two processes hold a picture with 1 and one with 9
# objects, and every box is wrong by the same 0.1. Then gradients are averaged over processes.

# %%
wrong_by = torch.full((10, 4), 0.1, requires_grad=True)
truth = torch.zeros(10, 4)
alone = {}
for name, counts in {"own objects": (1, 9), "mean of both": (5, 5)}.items():
    parts = l1_loss(wrong_by[:1], truth[:1], counts[0]), l1_loss(wrong_by[1:], truth[1:], counts[1])
    (gradient,) = torch.autograd.grad(sum(parts) / 2, wrong_by)
    alone[name] = (gradient[0, 0] / gradient[1, 0]).item()
    print(f"divided by {name:12}: the lonely object pulls {alone[name]:.0f} × as hard as others")
assert round(alone["own objects"]) == 9
assert round(alone["mean of both"]) == 1

# %% [markdown]
# *How you would have noticed*: compare the gradient of two processes with that of one big batch.
# (In transformers RT-DETR divides by a process's own number.)
#
# ## The real module: exhibit 3, a clamp that only squares survive
#
# Discrete sampling turns a location into a row and a column and keeps both on the map:

# %%
source(Discrete.cells)

# %% [markdown]
# The authors' code clamps *both* by the height minus one. **Predict**: on a map of 20 rows and 40
# columns, for which part of all points does that read another cell?

# %%
where = torch.rand(1, 1, 1, 10_000, 2, generator=generator)
right = Discrete().cells(where, [(20, 40)], [10_000])
row, column = right // 40, right % 40
clamped = row * 40 + column.clamp(max=20 - 1)
share = (clamped != right).float().mean().item()
print(f"misread: {share:.1%} of the points; on 40 × 40 none")
assert abs(share - 0.5) < 0.02

# %% [markdown]
# The right half of the picture is read from its middle column, and nothing is out of range.
# *How you would have noticed*: mirror a picture, and ask for the mirrored answer.
#
# ## Look inside: exhibit 4, boxes of padded pictures
#
# DETR pads pictures to a common canvas. Is a box a fraction of the picture, or of the canvas? The
# authors say picture; whoever fine-tuned with transformers' image processor has learned canvas.

# %%
box = torch.tensor([[[0.4, 0.5, 0.4, 0.3]]])
filled = torch.tensor([[1.0, 0.6]])  # the picture fills 60 % of the canvas in width
as_picture, as_canvas = (f(box, filled)[0] for f in (of_the_picture, of_the_canvas))
print("as a fraction of the picture:", as_picture[0], " of the canvas:", as_canvas[0])
agreement = paired_iou(xyxy_from_cxcywh(as_picture), xyxy_from_cxcywh(as_canvas)).item()
print(f"IoU of the two readings: {agreement:.2f}")
assert agreement < 0.5

# %% [markdown]
# *How you would have noticed*: evaluate with batch size 1, where nothing is padded. If AP rises, it
# is this.
#
# ## Exhibit 5: (w, h) or (h, w)
#
# The authors' RT-DETR takes the sizes of pictures as (width, height), their DETR as (height,
# width).

# %%
with torch.no_grad():
    answer = model(wide[:1])
good, bad = postprocess(answer, [(192, 320)])[0], postprocess(answer, [(320, 192)])[0]
kept = paired_iou(good.boxes_xyxy, bad.boxes_xyxy).mean().item()
print(f"{len(good.scores)} boxes each, mean IoU of right and swapped: {kept:.2f}")
assert torch.equal(good.scores, bad.scores)
assert kept < 0.5

# %% [markdown]
# Scores and labels are perfect; COCO's AP is close to nothing, or, on nearly square pictures, only
# a little low. *How you would have noticed*: draw one box on one picture that is not square.
#
# ## Exhibit 6: infinite anchors
#
# An anchor that nearly touches the edge is invalid: its logit is set to infinity and its token to
# zero, but it *stays in the top-k*. An improvement suggests itself: multiply by the mask.

# %%
logits, valid = anchors(((80, 80), (40, 40), (20, 20)))
outside, masked = ~valid[:, 0], logits * valid
print(f"{int(outside.sum())} of {len(valid)} are invalid; as a box: {logits[outside][0].sigmoid()}")
print("multiplied by the mask:", masked[outside][0])
assert masked.isnan().any()
assert logits.sigmoid().isfinite().all()

# %% [markdown]
# Infinity times zero is not a number, and one NaN in a top-k or a loss spreads everywhere. Kept
# infinite, the sigmoid makes finite numbers of it, a box around the lower right corner. *How you
# would have noticed*: pictures of 320 px have no invalid anchor, those of 640 have 316. Test at the
# size you ship.

# %%
maps = {n: tuple((n // s, n // s) for s in (8, 16, 32)) for n in (320, 640, 1280)}
invalid = {n: int((~anchors(m)[1]).sum()) for n, m in maps.items()}
print(invalid)
assert invalid == {320: 0, 640: 316, 1280: 1580}

# %% [markdown]
# ## Predict, then break it: exhibit 7, no positions in eval mode
#
# Authors cache the position embedding of the size given in advance; transformers, given that size,
# leaves the embedding out in eval mode. **Predict**: how many shapes does nano lose without
# positions in its AIFI layer?

# %%
blind = rebuilt("encoder.aifi.positions", None)
with torch.no_grad():
    moved = (model(images).logits - blind(images).logits).abs().max().item()
print(f"with positions {square[0]}, without {found(blind)}; a logit moves by up to {moved:.2f}")
assert moved > 1

# %% [markdown]
# None! The logits change, some by a lot, and the count does not. Convolutions before and after AIFI
# know where they are without being told, and shapes can be named without asking where they lie. So
# such a mistake may live for years; a large model on real pictures need not be as forgiving.
#
# *How you would have noticed*: run the same picture in training and in eval mode (norms frozen,
# dropout 0); the answers have to be equal.
#
# ## Exhibit 8: who learns from a bad box
#
# transformers detaches the box between layers for the loss too; the authors do not (notebook 11).
# The forward pass is the same to the last bit. The gradients of the box heads:

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
# test of the forward pass cannot see it.
#
# ## Exhibit 9: a batch without any object
#
# Then there is nothing to denoise. Leave it out, and the label embedding gets no gradient, and in
# distributed training the other processes wait for it for ever.

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
# *How you would have noticed*: after any `backward()`, no parameter's gradient is `None`.
#
# ## Exhibit 10: normalised twice
#
# DETR's decoder ends in a layer norm. With `auxiliary_loss=True` transformers normalises what is
# handed from layer to layer, and after the last layer once more: inference changes with a switch
# that is about training. On fresh weights, a test finds nothing:

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
# *How you would have noticed*: test with weights that were shaken. A fresh norm is the identity on
# what is normalised, a fresh bias is zero, a fresh box head keeps its box: they hide mistakes.
#
# ## In the cellar: numbers that are not what they seem
#
# - The frames per second of the papers are TensorRT's in FP16 on a T4; PyTorch gives about a third.
# - The model card of r18 shows the detections of r50.
# - "Logits of `num_classes` + 1" in the documentation of RT-DETR are `num_classes`.
# - The last of transformers' `_aux_` losses is not a decoder layer's, it is the encoder's.
#
# ## What it costs
#
# Nothing, and that is the trouble: right and wrong have the same parameters and operations, so no
# table shows the difference.

# %%
right, wrong = cost(model, images[:1]), cost(authors.eval(), images[:1])
print(right.params, wrong.params, right.flops == wrong.flops)
assert right.rows == wrong.rows

# %% [markdown]
# ## Exercises
#
# **1.** On a map of 20 rows and 40 columns the clamp misreads half of the points. How large is the
# part on 30 rows and 40 columns?

# %%
answer = ...

# %% tags=["solution"]
check(answer, (40 - 30) / 40, hint="Columns 30 … 39 are read as column 29.")

# %% [markdown]
# **2.** Four processes hold 1, 3, 5 and 7 objects. By which number does each have to divide?

# %%
answer = ...

# %% tags=["solution"]
check(answer, sum((1, 3, 5, 7)) / 4, hint="Gradients are averaged over processes afterwards.")

# %% [markdown]
# **3.** Of how many cells of a 6 × 10 map does the authors' order get the position right?

# %%
answer = ...

# %% tags=["solution"]
same = (sine_2d(6, 10, 96) == sine_2d_authors(6, 10, 96)).all(-1)
check(answer, int(same.sum()), hint="The n-th cell by rows and by columns: when is it the same?")

# %% [markdown]
# **Next**: you have seen everything that is here. [The tour](00_tour.ipynb) looks different now; or
# put a trap of your own into `docs/differences.md`.
