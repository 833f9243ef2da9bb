# %% [markdown]
# # 17 · Speed: where the time goes, and how to take it out
#
# **Paper** RT-DETR §3 (what suppression costs), Fig. 2, Tables 1 and 5 · **Code**
# `rtdetr_lab/deployment/` · **Before this** [16 ablations](16_ablations.ipynb)
#
# How soon does a model say what it says? Afterwards you can tell what limits each part of it, name
# three ways to compute less for the same answer, and show what doing without suppression saves.

# %%
import copy
from dataclasses import replace
from functools import partial
from time import process_time

import torch
from torch import nn

import rtdetr_lab as lab
from rtdetr_lab.boxes import xyxy_from_cxcywh
from rtdetr_lab.data.batch import First, collate
from rtdetr_lab.data.shapes import DEFAULT, VAL, ShapesDataset, draw
from rtdetr_lab.deployment.backends import PyTorch

# %%
from rtdetr_lab.deployment.bench.nms import dense_answer, greedy, nms
from rtdetr_lab.deployment.bench.parts import PARTS, seconds_of, work_of
from rtdetr_lab.deployment.bench.roofline import ceilings
from rtdetr_lab.deployment.bench.timing import interleaved
from rtdetr_lab.deployment.fastest import fastest, offered
from rtdetr_lab.deployment.form import deploy, same
from rtdetr_lab.deployment.precision import drift
from rtdetr_lab.evaluation.coco import coco_metrics, coco_truth
from rtdetr_lab.evaluation.evaluate import coco_detections, evaluate
from rtdetr_lab.images.postprocess import Found, postprocess, ranked_table, suppress
from rtdetr_lab.kernels.embedding_bag_samplers import BilinearBag, GatherFirst
from rtdetr_lab.kernels.folding import fold
from rtdetr_lab.kernels.onednn import pack
from rtdetr_lab.model import by_sigmoid
from rtdetr_lab.notebook import check, cost, seeded, source
from rtdetr_lab.viz.speed import part_bars, roofline, time_lines

# %%
generator = seeded()
nano = lab.load_pretrained("nano")  # for answers
r18 = lab.rtdetr_r18().build().eval()  # for times: they do not depend on what a model has learned
photo = torch.rand(1, 3, 320, 320, generator=generator)
world = First(ShapesDataset(seed=VAL), 24)  # validation pictures of 320 × 320 pixels
samples = list(world)
images = collate(samples).images

# %% [markdown]
# ## The end, first
#
# One model, r18, three times the same answer: as it is trained; in its *deploy form*; with weights
# that lie as the processor wants them. Times on this page are processor time.

# %% tags=["varies"]
# alt: Three horizontal bars of milliseconds, each split into backbone, encoder, to_memory,
#   proposals and decoder; every bar is shorter than the one above it.
deployed = deploy(r18)
packed = pack(deploy(r18), photo, torch.float32)
forms = {"training form": r18, "deploy form": deployed, "packed": packed}
taken = {name: seconds_of(form, photo, 6, process_time) for name, form in forms.items()}
ax = part_bars({n: {p: 1e3 * s for p, s in parts.items()} for n, parts in taken.items()})

# %%
with torch.inference_mode():
    trained, sooner = r18(photo), packed(photo)
assert torch.allclose(trained.boxes, sooner.boxes, atol=1e-3), "the same boxes"

# %% [markdown]
# ## The question
#
# A part of a model has $F$ floating-point operations to do and $M$ bytes to move: weights, inputs,
# outputs. A machine does $P$ operations and moves $B$ bytes per second. Both can overlap, so
#
# $$ t \ge \max\Bigl(\frac{F}{P}, \frac{M}{B}\Bigr) \tag{17.1} $$
#
# There are three ways to be sooner: come closer to the limit, have less to do, or leave a part out.
# Which of them is left for a detector?
#
# ## By hand: what is not needed
#
# **A norm that stands still.** In eval mode a batch norm multiplies and shifts by constants, and a
# convolution $W$ before it does so too. One convolution does both:
#
# $$ W' = \frac{\gamma}{\sqrt{v + \varepsilon}}\, W, \qquad
#    b' = \beta - \frac{\gamma\,\mu}{\sqrt{v + \varepsilon}} \tag{17.2} $$
#
# On 3 × 3 cells with the values 0 … 8 and a 3 × 3 filter of ones the middle cell becomes 36. With
# $\mu = 6$, $v = 4$, $\gamma = 3$, $\beta = 1$ the norm makes $3 \cdot (36 - 6) / 2 + 1 = 46$ of
# it. Folded, the filter is 1.5 everywhere, and the bias is $1 - 3 \cdot 6 / 2 = -8$:

# %%
cells = torch.arange(9.0).reshape(1, 1, 3, 3)
conv, norm = nn.Conv2d(1, 1, 3, bias=False), nn.BatchNorm2d(1, eps=0.0).eval()
with torch.no_grad():
    conv.weight.fill_(1)
    norm.running_mean[0], norm.running_var[0], norm.weight[0], norm.bias[0] = 6, 4, 3, 1
    folded = fold(conv, norm)
    two_steps, one_step = norm(conv(cells)), folded(cells)
print(two_steps.item(), one_step.item(), folded.weight[0, 0, 0, 0].item(), folded.bias.item())
assert two_steps.item() == one_step.item() == 46

# %% [markdown]
# A RepVGG block (07) has a 1 × 1 beside its 3 × 3 convolution. After folding both are linear, and
# the 1 × 1 is added to the middle of the 3 × 3 (Eq. 07.2).
#
# **Reading before projecting.** Deformable attention (10) projects *every* token with $W$ and then
# reads a few of them, weighted by $A_k$. Both steps are linear, so their order is free:
#
# $$ \sum_k A_k \bigl(W x_{p_k} + b\bigr) = W \sum_k A_k\, x_{p_k} + b \sum_k A_k \tag{17.3} $$
#
# Three tokens with three channels, one query that reads the first and the last:

# %%
tokens = torch.tensor([[1.0, 0, 0], [5, 5, 5], [0, 1, 2]])
w, b = torch.tensor([[1.0, 0, 1], [0, 2, 0], [1, 1, 1]]), torch.tensor([0.0, 1, 0])
share = torch.tensor([0.25, 0, 0.5])
project_first = share @ (tokens @ w.T + b)
read_first = w @ (share @ tokens) + b * share.sum()
print(project_first.tolist(), read_first.tolist())
assert torch.equal(project_first, read_first)

# %% [markdown]
# On the left $W$ is applied three times, on the right once. In r18 at 640 pixels it is 8,400 times
# on the left, and 300 on the right: each of 8 heads projects its own sum with an eighth of $W$.
#
# ## The real module

# %%
source(fold)

# %%
source(GatherFirst.forward)

# %% [markdown]
# `baddbmm` is the right side of Eq. 17.3, all heads at once. Both ways on one layer of r18, with
# random content:

# %%
attention, maps = r18.decoder.layers[0].cross_attn, [(40, 40), (20, 20), (10, 10)]
memory = torch.randn(1, 2100, 256, generator=generator)
content = torch.randn(1, 300, 256, generator=generator)
places = torch.rand(1, 300, 4, generator=generator)
later = GatherFirst(attention, BilinearBag())
with torch.no_grad():
    difference = later(content, places, memory, maps) - attention(content, places, memory, maps)
both = [cost(form, content, places, memory, maps).flops for form in (attention, later)]
print(f"project first {both[0] / 1e6:.0f} MFLOPs, read first {both[1] / 1e6:.0f}")
assert difference.abs().max() < 1e-4

# %% [markdown]
# The price is not in these numbers: a head that reads before the projection reads rows of 256
# channels and not its own 32. On a CPU that is a bargain. On a GPU, where products are nearly free
# and reading is not, the deploy form keeps the chapter's order.
#
# ## Look inside: what is left to do
#
# **Predict.** Norms are folded, RepVGG blocks merged, boxes computed for 300 tokens instead of all,
# unused heads gone. What share of the operations of r18 is saved: 1, 6 or 25 %?

# %%
before = {n: f for n, _, f in cost(r18, photo).rows}
after = {n: f for n, _, f in cost(deploy(r18, same), photo).rows}
before["proposals"] = before["proposal_head"] + before["selection"]
for name in (*PARTS, "all"):
    print(f"{name:10} {before[name] / 1e9:6.2f} → {after[name] / 1e9:6.2f} GFLOPs")
saved = 1 - after["all"] / before["all"]
print(f"saved: {saved:.1%}")

# %%
assert before["backbone"] == after["backbone"], "folding a norm saves no product, only steps"
assert 0.04 < saved < 0.15

# %% [markdown]
# Six percent. The proposals lose half of theirs, the encoder a tenth: the 1 × 1 of every RepVGG
# block, and convolutions that run *before* an upsampling and not after it, on a quarter of the
# cells. The backbone loses none: a folded norm saves a walk over the map, and not one product.
# Walks are what the third bar above saves: activations and sums happen inside the convolution, on
# numbers that are still in registers.
#
# ## How far from the limit?
#
# The two ceilings of Eq. 17.1 can be measured, with a large matrix product and a large copy. Each
# part then has a place: to the right what computes much with each byte. Dots lead to its limit.

# %% tags=["varies"]
# alt: A roofline on logarithmic axes: a slope for copies, then a level line for matrix products.
#   Five marks near the level line, right of where it begins; the decoder is the lowest.
top = ceilings("cpu", torch.float32, side=1024, rounds=30, clock="cpu")
work = work_of(deployed, photo)
measured = {p: (taken["packed"][p], *work[p]) for p in PARTS}
ax = roofline(measured, top.flops, top.bytes)

# %% [markdown]
# All five lie far right of the ridge: on a CPU a detector computes, and does not wait for memory.
# Convolutions touch the ceiling (or pass it: it is that of a product of another shape), and there
# only computing less helps. The decoder's products are small, and between them it reads.
#
# ## Leave a part out: decoder layers
#
# Every decoder layer has heads and a loss of its own, so any of them can be the last (11). nano has
# three. **Predict** what the first layer alone is worth: nearly all of the average precision of
# three layers, four fifths of it, or half?


# %%
def first_layers(count):
    cut = copy.deepcopy(nano)
    cut.decoder.cfg = replace(cut.decoder.cfg, inference_layers=count)
    return deploy(cut)


shallow = {count: first_layers(count) for count in (1, 2, 3)}
precision = {count: evaluate(form, world)["AP"] for count, form in shallow.items()}
for count, ap in precision.items():
    print(f"{count} layers: AP {ap:.3f}")
assert precision[1] < precision[2] < precision[3]

# %% tags=["varies"]
for count, form in shallow.items():
    spent = seconds_of(form, images[:1], 15, process_time)
    decoder = 1e3 * spent.pop("decoder")
    print(f"{count} layers: decoder {decoder:.1f} ms, all else {1e3 * sum(spent.values()):.1f}")

# %% [markdown]
# Four fifths for one layer, nine tenths for two. A layer left out takes its part of the decoder's
# time with it. A model with more layers gives up less: of the 53.1 AP of an R50 with six, three
# keep 52.4 and one 49.1, at 9.3, 7.9 and 7.0 ms on the authors' T4 (Table 5). None is trained anew.
#
# ## Leave a part out: suppression
#
# A detector of the YOLO family answers with a box at every cell, and its user removes duplicates:
# drop what scores below a *confidence threshold*, then walk down the list and drop what overlaps a
# better box by more than an *IoU threshold*. nano's encoder proposes at every token, too: 2,100
# boxes with ten scores each. How long is the list to walk through?

# %%
# alt: Three lines that fall together from twenty thousand pairs to about forty, over the confidence
#   threshold, both axes logarithmic.
with torch.inference_mode(), lab.record(nano, keep="proposal_head.*") as seen:
    final = nano(images)
scores = seen["proposal_head.logits"].sigmoid()  # B N C
places = 320 * xyxy_from_cxcywh(seen["proposal_head.box_logits"].sigmoid())
cuts = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]
left = torch.stack([(scores > cut).flatten(1).sum(1) for cut in cuts])
ranks = {"most of 24 pictures": -1, "median": 12, "fewest": 0}
lists = {name: left.sort(1).values[:, at].tolist() for name, at in ranks.items()}
ax = time_lines(cuts, lists, "confidence threshold", "pairs left in the list")

# %%
assert left[3].max() > 5 * left[3].min(), "the picture decides"

# %% [markdown]
# Of twenty thousand pairs a few dozen are left, and in between it is the picture that decides: at
# 0.03 the longest list is six times as long as the shortest. Time goes with it. So does the answer;
# RT-DETR's Table 1 in miniature:


# %%
def suppressed(confidence, max_iou):
    for boxes, each in zip(places, scores, strict=True):
        token, label = nms(boxes, each, confidence, max_iou)
        yield Found(boxes[token], each[token, label], label, token)


def ap_of(found):
    rows = []
    for sample, one in zip(samples, found, strict=True):
        rows += coco_detections(one, sample.image_id, world.category_ids)
    return coco_metrics(truth, rows)["AP"]


truth = coco_truth([sample.truth for sample in samples], world.names, world.category_ids)

# %%
table = {}
thresholds = [(0.001, 0.5), (0.001, 0.7), (0.001, 0.9), (0.001, 1.0), (0.1, 0.7), (0.3, 0.7)]
for cut, max_iou in thresholds:
    table[cut, max_iou] = ap_of(suppressed(cut, max_iou))
    print(f"score > {cut:<5}  IoU ≤ {max_iou}: AP {table[cut, max_iou]:.3f}")

# %% [markdown]
# Half a point of AP for this choice, one for that; YOLOv8 pays 0.7 for an IoU threshold of 0.5
# instead of 0.8, and 1.7 for a confidence of 0.05 instead of 0.001 (Table 1). But look at the row
# of an IoU threshold of 1: it suppresses *nothing*, and nothing is lost. nano's proposals learned
# by one-to-one matching (03), where one token per object may speak up. A YOLO needs suppression
# because its training tells many cells to answer. (These boxes are rough, hence the low AP.)

# %%
assert table[0.001, 1.0] >= table[0.001, 0.5], "nothing suppressed, nothing lost"

# %% [markdown]
# **Predict, then break it.** The decoder's answer needs no suppression, we say. What if one applies
# it all the same, to boxes of any class, with IoU thresholds from 0.9 to 0.5: does it help or harm?

# %%
everything = postprocess(final, [(320, 320)] * len(images), -1.0)
after = {"as it is": ap_of(everything)}
for most in (0.9, 0.7, 0.5):
    after[f"IoU ≤ {most}"] = ap_of([suppress(one, most) for one in everything])
{name: round(ap, 3) for name, ap in after.items()}

# %% [markdown]
# It helps: two points at 0.9, less the more it removes. After some three thousand steps, and at 320
# pixels where it learned at 256, nano still says some things twice. So "needs no suppression" is no
# property of an architecture. It is what one-to-one training comes ever closer to, and duplicates
# are a symptom to look for when a training is judged.

# %%
assert after["IoU ≤ 0.9"] > after["IoU ≤ 0.5"] > after["as it is"]

# %% [markdown]
# ## What it costs
#
# Time is the other half of Table 1. This suppression is a good one: pairs below the threshold go
# first, all classes in one pass, in blocks, up to 300 boxes. The level line is a DETR's top-k.

# %%
source(greedy)

# %% tags=["varies"]
# alt: Milliseconds over the number of boxes, both axes logarithmic. Lines for three confidence
#   thresholds rise; the line of the top-k is level, below them.
counts = [300, 1000, 3000, 8400]
logits, corners, size = torch.randn(1, 300, 80), torch.rand(1, 300, 4), torch.full((1, 2), 640.0)
calls = {"top-k": partial(ranked_table, by_sigmoid, logits, corners, size)}
for name in ((cut, count) for cut in (0.001, 0.01, 0.25) for count in counts):
    calls[name] = partial(nms, *dense_answer(name[1]), name[0], 0.7)
spent = {name: 1e3 * t.median for name, t in interleaved(calls, 9, clock=process_time).items()}
lines = {f"NMS, score > {c}": [spent[c, n] for n in counts] for c in (0.001, 0.01, 0.25)}
lines["top-k of 300 queries"] = [spent["top-k"]] * len(counts)
ax = time_lines(counts, lines, "boxes in the answer, 80 classes")

# %% [markdown]
# A top-k does the same work for every picture. Suppression takes longer the more there is to see,
# here ten times as long and more; on the authors' T4 1.06 to 2.46 ms. It is what a latency
# measured without it leaves out, and why two latencies measured with it may not be comparable.
#
# ## Let the machine choose
#
# `fastest` builds an engine for every backend that is installed, and runs them in turns.

# %% tags=["varies"]
torch_only = [choice for choice in offered("cpu") if isinstance(choice.backend, PyTorch)]
chosen = fastest(nano, (320, 320), choices=torch_only, device="cpu", rounds=7)
print(chosen)

# %% [markdown]
# What bfloat16, with eight bits of every number, changes among detections matched by box:

# %% tags=["varies"]
moved = drift(nano, [draw(DEFAULT, VAL, i).image for i in range(8)], (320, 320), device="cpu")
print(f"{moved.exact} found, {moved.kept} of them in both, {moved.relabelled} with another label")
shift, change = moved.shifts.max().item(), moved.changes.max().item()
print(f"largest shift {shift:.2f} px, largest change of a score {change:.3f}")

# %% [markdown]
# Boxes move by fractions of a pixel (coordinates stay in single precision), scores by hundredths.
#
# ## Exercises
#
# **1.** A machine does 100 GFLOP/s and copies 10 GB/s. A 1 × 1 convolution takes 256 channels to as
# many, on a map of 80 × 80 cells, in single precision (4 bytes). How many milliseconds does it take
# at least?

# %%
answer = ...

# %% tags=["solution"]
flops = 2 * 256 * 256 * 80 * 80
moved = 4 * (2 * 256 * 80 * 80 + 256 * 256)
limit = 1000 * max(flops / 100e9, moved / 10e9)
check(answer, limit, hint="Eq. 17.1: two FLOPs per multiply-add; map in, map out, weights.")

# %% [markdown]
# **2.** In the same convolution, from how many channels $C$ to $C$ does computing take longer than
# moving? Leave the weights out; give the smallest whole $C$.

# %%
answer = ...

# %% tags=["solution"]
check(answer, 41, hint="2 C² / 100e9 > 8 C / 10e9 per cell.")

# %% [markdown]
# **3.** A norm has $\gamma = 2$, $\mu = 1$, $v = 4$ and $\beta = 0.5$ ($\varepsilon = 0$). What is
# the bias of the convolution that it is folded into?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 0.5 - 2 * 1 / 4**0.5, hint="Eq. 17.2, on the right.")

# %% [markdown]
# **Next**: [18 · Segmentation](18_segmentation.ipynb), a DETR's other answer. r18 and r50 beside
# other runtimes: `docs/results/performance.md`; on your machine: `rtdetr-lab bench`.
