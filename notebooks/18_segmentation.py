# %% [markdown]
# # 18 · Segmentation: a mask for every query
#
# **Paper** DETR §4.2 and Fig. 8; panoptic quality: Kirillov et al. 2019, §4 · **Chapter**
# `rtdetr_lab/detr/segmentation.py`, `detr/mask_head.py`, `images/panoptic.py` · **Before this**
# [02 DETR](02_detr.ipynb)
#
# To predict masks, DETR needs only a small head on top. The difficult part comes after it: masks
# overlap, but a pixel belongs to one segment. After this notebook you can explain how a query gets
# a mask, which query gets a pixel under the two common rules, and why a segment that is half right
# counts as two mistakes.

# %% tags=["imports"]
import matplotlib.pyplot as plt
import torch

import rtdetr_lab as lab
from rtdetr_lab.backbone import BasicBlock
from rtdetr_lab.data.segment_map import SegmentMap, TrueSegment
from rtdetr_lab.data.shapes import SHAPE_NAMES, VAL, ShapesDataset
from rtdetr_lab.detr.mask_head import MaskAttention
from rtdetr_lab.detr.resnet import ResNetConfig
from rtdetr_lab.detr.segmentation import SegmentationConfig
from rtdetr_lab.detr.transformer import DETRDecoderConfig, DETREncoderConfig
from rtdetr_lab.evaluation.panoptic import PanopticQuality
from rtdetr_lab.images.panoptic import ByArea, ByOverlap, panoptic, semantic
from rtdetr_lab.notebook import check, cost, seeded, shapes, source
from rtdetr_lab.structures import Prediction
from rtdetr_lab.viz.canvas import as_rgb
from rtdetr_lab.viz.panoptic import show_segments

# %%
generator = seeded()

# %% [markdown]
# ## The end, first
#
# We use no network yet. We take the *true* masks of a picture as the masks of the queries, each
# with a score of 0.95, and let the last step assign the pixels.


# %%
def drawn(masks, labels, scores, num_classes):
    """Make a prediction from mask probabilities and one label and score per query."""
    p = torch.full((len(labels), num_classes + 1), 1e-6)
    for q, (label, score) in enumerate(zip(labels, scores, strict=True)):
        p[q, label], p[q, -1] = score, 1 - score
    logits = torch.logit(torch.as_tensor(masks).clamp(1e-4, 1 - 1e-4))
    return Prediction(p.log()[None], torch.rand(1, len(labels), 4), (), masks=logits[None])


sample = ShapesDataset(seed=VAL, with_masks=True)[3]
labels = sample.labels.tolist()
truth = drawn(sample.masks.float(), labels, [0.95] * len(labels), len(SHAPE_NAMES))

# %%
# alt: The painted picture with seven shapes filled, each with its name and score. The whole
#   background is filled in the colour of the large triangle, too.
(found,) = panoptic(truth, [sample.image.shape[-2:]])
ax = show_segments(as_rgb(sample.image), found, SHAPE_NAMES)
ax.set_title("seven segments are right; the background has no query of its own", fontsize=10)
ax.figure.set_size_inches(5.6, 5.8)
assert (found.ids > 0).all(), "every pixel has an owner"

# %% [markdown]
# The seven shapes are right, but every pixel of the background belongs to a triangle. No query
# claims the background: all masks are 0.0001 there. But the *highest* value wins, however low it
# is. So a panoptic model must also be trained on stuff, that is on regions such as sky and grass,
# with a query for each. Otherwise the background goes to some query by accident.

# %% [markdown]
# ## The question
#
# The content of a query describes its object. The cells of the encoder describe what belongs
# together. For every head $m$, we multiply the content $c_q$ of a query with every cell $m_x$:
#
# $$ A_{q,m,x} = \operatorname{softmax}_{m,x} \frac{(W_q c_q)_m \cdot (W_k m_x)_m}{\sqrt{D/M}}
#    \tag{18.1} $$
#
# These $M$ coarse maps are stacked on the features of the picture. A small pyramid of convolutions
# (FPN) enlarges them three times, and each time adds a finer map of the backbone. The result is a
# mask with stride 4.
#
# How do we measure a result in which every pixel belongs to one segment? A predicted segment
# matches a true segment of the same category if their IoU is **greater than** 0.5. Matched segments
# are true positives ($TP$), other predicted ones false positives ($FP$), other true ones false
# negatives ($FN$). The panoptic quality of a category is
#
# $$ \mathrm{PQ} = \frac{\sum_{TP} \mathrm{IoU}}{|TP|} \cdot
#    \frac{|TP|}{|TP| + \frac12 |FP| + \frac12 |FN|} \tag{18.2} $$
#
# ## By hand, on 3 × 3 pixels
#
# There are a cat on the left (class 0), a dog on the right (class 1), and grass below (class 2,
# "stuff"). The dog's mask, with the value 0.8, also covers half of the cat. The cat's own mask is
# 0.9 there.

# %%
masks = torch.full((3, 3, 3), 0.1)
masks[0, :2, :2] = 0.9
masks[1, :2, 1:] = 0.8
masks[2, 2] = 0.9
prediction = drawn(masks, [0, 1, 2], [0.95, 0.9, 0.95], 3)
owner = (masks * torch.tensor([0.95, 0.9, 0.95])[:, None, None]).argmax(0)
print("by score × mask:", owner.tolist())
print("semantic       :", semantic(prediction, [(3, 3)])[0].tolist())
assert torch.equal(owner, semantic(prediction, [(3, 3)])[0])

# %% [markdown]
# **Predict.** `ByOverlap()`, the rule of transformers, gives every pixel to the highest product of
# score and mask, as above. Then it keeps a segment only if *more than 0.8* of its own mask is left.
# The dog gets two of the four pixels of its mask. Which segment gets these two pixels?

# %%
(by_overlap,) = panoptic(prediction, [(3, 3)], stuff={2}, rule=ByOverlap())
print(by_overlap.ids.tolist(), [(s.id, s.label) for s in by_overlap.segments])
assert by_overlap.ids[0, 2] == 0

# %% [markdown]
# No segment gets them. The rule removes the dog, but does not give its pixels to another segment.
# `ByArea()`, the authors' rule, takes the queries with a score above 0.85, and gives **every**
# pixel to one of them, by the mask alone. It removes all segments with 4 pixels or fewer, and
# starts again with the remaining queries.
#
# **Predict.** How many of our three segments remain?

# %%
for max_small in (0, 2, 3, 4):
    (by_area,) = panoptic(prediction, [(3, 3)], stuff={2}, rule=ByArea(max_small=max_small))
    print(f"more than {max_small} pixels:", by_area.ids.tolist())
assert not by_area.segments

# %% [markdown]
# With the authors' limit of 4, none remains: cat, dog and grass have 4, 2 and 3 pixels. A limit in
# *pixels* is meant for pictures with a width of hundreds of pixels. On a thumbnail it leaves an
# empty result, without any error.
#
# **Quality.** Now we evaluate a result that gives one pixel of the dog to the cat:

# %%
things = (TrueSegment(1, 0), TrueSegment(2, 1), TrueSegment(3, 2))
true = SegmentMap(torch.tensor([[1, 1, 2], [1, 1, 2], [3, 3, 3]]), things)
predicted = SegmentMap(torch.tensor([[1, 1, 1], [1, 1, 2], [3, 3, 3]]), things)
iou = {"cat": 4 / 5, "dog": 1 / 2, "grass": 3 / 3}
by_hand = (0.8 * 1 + 0 + 1.0 * 1) / 3  # the dog does not match: 1/2 does not exceed 0.5

quality = PanopticQuality(stuff_ids={2})
quality.add(true, predicted)
print({name: round(value, 3) for name, value in quality.scores().items()})
print("dog:", quality.counts[1])
assert abs(quality.scores()["PQ"] - by_hand) < 1e-12

# %% [markdown]
# One wrong pixel of nine costs 0.4 of the quality. The cat loses a fifth, the dog everything. The
# dog is missed (FN), *and* the segment found in its place is wrong (FP). Two predicted segments
# cannot both have an IoU above 0.5 with the same true segment. Therefore Eq. 18.2 needs no matching
# algorithm.
#
# ## The real module

# %%
source(MaskAttention.forward)

# %% [markdown]
# ## Look inside
#
# `flatten(2)` comes before the softmax, so heads and cells *together* sum to one. Take two heads
# and three cells, one of them padding. Head 1 has the larger scores.

# %%
attend = MaskAttention(2, num_heads=2)
for projection in (attend.q_proj, attend.k_proj):
    torch.nn.init.eye_(projection.weight)
content, cells = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[1.0, 1.0], [0.0, 1.0], [9.0, 9.0]]])
padding = torch.tensor([[[False, False, True]]])
with torch.no_grad():
    weights = attend(content, cells, padding, (1, 3))[0, 0, :, 0]
by_hand = torch.tensor([[1.0, 0.0, -torch.inf], [2.0, 2.0, -torch.inf]]).exp()
print(weights)
assert torch.allclose(weights, by_hand / by_hand.sum())

# %% [markdown]
# In ordinary attention the weights of each head sum to 1. Here the heads of a query compete, and
# head 0 gets only a fifth.

# %%
print("share of the heads:", weights.sum(1))
assert weights[0].sum() < 0.21

# %% [markdown]
# ## What it costs
#
# We count a small, untrained DETR with twelve queries (training does not change the cost).

# %%
cfg = SegmentationConfig(
    len(SHAPE_NAMES),
    dim=32,
    backbone=ResNetConfig(
        (1, 1, 1, 1),
        (16, 16, 24, 32),
        BasicBlock,
        stem_width=16,
        outputs=(1, 2, 3, 4),
        norm=torch.nn.BatchNorm2d,
    ),
    encoder=DETREncoderConfig(1, 4, 64, dropout=0.0),
    decoder=DETRDecoderConfig(12, 2, 4, 64, dropout=0.0),
    num_mask_heads=4,
)
model, (images, _) = cfg.build().eval(), shapes(3)
costs = cost(model, images)
costs

# %%
with torch.no_grad(), lab.record(model) as seen:
    answer = model(images)
head = next(flops for name, _, flops in costs.rows if name == "mask_head")
print("masks:", tuple(answer.masks.shape), " share of the mask head:", f"{head / costs.flops:.0%}")
assert answer.masks.shape[-2:] == (80, 80)
assert torch.allclose(seen["mask_attention.weights"].flatten(2).sum(-1), torch.ones(1, 12))

# %% [markdown]
# The head predicts a mask for *every* query, also for the many without an object. Each mask passes
# through its own pyramid, so the cost grows with the number of queries. Therefore the paper trains
# the head last, on a frozen detector.
#
# ## The same for every RT-DETR
#
# RT-DETR has 300 queries, so five convolutions for each would be too slow. `masks/query_masks.py`
# convolves once per picture: every pixel gets an embedding $p_x$, and every query one, $e_q$, from
# its content $c_q$. A pixel belongs to a query if the two agree, and if it lies in the box:
#
# $$ m_{q,x} = e_q \cdot p_x - s\, d(x, b_q), \qquad e_q = \mathrm{MLP}(c_q) \tag{18.3} $$
#
# $d$ is the distance of a pixel from the box of the query, and 0 inside. `nano-seg` is the embedded
# nano with such a head. Only the head was trained, so its boxes are those of nano, bit for bit.

# %%
# alt: The picture with seven shapes filled in colours that follow their outlines, with boxes, names
#   and scores; the large triangle is open where another shape covers it.
detector = lab.Detector.from_pretrained("nano-seg")
fig, ax = plt.subplots(figsize=(5.6, 5.8), layout="compressed")
detector(as_rgb(sample.image)).plot(ax)
ax.set_title("a mask for every box: boxes stay those of nano", fontsize=10)

# %% [markdown]
# **Predict.** Mask logits are linear in the embedding of the query. What does the mask become if we
# set all embeddings to zero?

# %%
with lab.record(detector.model, edit={"mask_head.embed": torch.zeros_like}):
    boxes_only = detector(as_rgb(sample.image))
filled = [mask.sum() for mask in boxes_only.masks]
print("no mask has a pixel:", not any(filled))
assert not any(filled), "the logits are 0 in the box and negative outside: never more than 0"

# %% [markdown]
# ## Exercises
#
# **1.** A result assigns one of the three grass pixels to no segment (id 0). All other pixels are
# right. What is the PQ?

# %%
answer = ...

# %% tags=["solution"]
quality = PanopticQuality(stuff_ids={2})
ids = torch.tensor([[1, 1, 2], [1, 1, 2], [3, 3, 0]])
quality.add(true, SegmentMap(ids, things))
check(answer, quality.scores()["PQ"], hint="Cat 1, dog 1, grass 2/3.")

# %% [markdown]
# **2.** How many of our three segments does `ByOverlap(min_kept=0.4)` keep?

# %%
answer = ...

# %% tags=["solution"]
(kept,) = panoptic(prediction, [(3, 3)], stuff={2}, rule=ByOverlap(min_kept=0.4))
check(answer, len(kept.segments), hint="The dog keeps 2 of 4 pixels.")

# %% [markdown]
# **3.** There are eight heads and 10 × 10 cells, and all scores are equal. What is one weight of
# Eq. 18.1?

# %%
answer = ...

# %% tags=["solution"]
flat = torch.zeros(8 * 100).softmax(0)
check(answer, flat[0].item(), hint="One softmax over heads and cells together.", tolerance=1e-6)

# %% [markdown]
# **Next**: [00 · The tour](00_tour.ipynb), or your own pictures: `rtdetr_lab.detr.segmentation` and
# `rtdetr_lab.data.coco_panoptic` train and evaluate a model that predicts masks.
