# %% [markdown]
# # 17 · Speed: where the time goes, and how to save it
#
# **Paper** RT-DETR §3 (what suppression costs), Fig. 2, Tables 1 and 5 · **Code**
# `rtdetr_lab/deployment/` · **Before this** [16 ablations](16_ablations.ipynb)
#
# How fast is a model? After this notebook you can explain what limits the speed of each part, name
# three ways to compute less for the same result, and show what a model saves without suppression.

# %% tags=["imports"]
from functools import partial
from time import process_time

import torch
from torch import nn

import rtdetr_lab as lab
from rtdetr_lab.boxes import xyxy_from_cxcywh
from rtdetr_lab.data.batch import First, collate
from rtdetr_lab.data.shapes import DEFAULT, VAL, ShapesDataset, draw
from rtdetr_lab.deployment.backends import PyTorch
from rtdetr_lab.deployment.bench.nms import dense_answer, greedy, nms
from rtdetr_lab.deployment.bench.parts import PARTS, seconds_of, work_of
from rtdetr_lab.deployment.bench.roofline import ceilings
from rtdetr_lab.deployment.bench.timing import interleaved
from rtdetr_lab.deployment.fastest import fastest, offered
from rtdetr_lab.deployment.form import deploy, same
from rtdetr_lab.deployment.precision import drift
from rtdetr_lab.evaluation.coco import coco_metrics, coco_truth
from rtdetr_lab.evaluation.evaluate import coco_detections
from rtdetr_lab.images.postprocess import Found, postprocess, ranked_table, suppress
from rtdetr_lab.kernels.embedding_bag_samplers import BilinearBag, GatherFirst
from rtdetr_lab.kernels.folding import fold
from rtdetr_lab.kernels.onednn import pack
from rtdetr_lab.model import by_sigmoid
from rtdetr_lab.notebook import check, cost, seeded, source
from rtdetr_lab.viz.canvas import new_axes
from rtdetr_lab.viz.speed import part_bars, roofline, time_lines

# %%
generator = seeded()
nano = lab.load_pretrained("nano")  # for results
r18 = lab.rtdetr_r18().build().eval()  # for times: they do not depend on the training
photo = torch.rand(1, 3, 320, 320, generator=generator)
world = First(ShapesDataset(seed=VAL), 24)  # validation pictures of 320 × 320 pixels
samples = list(world)
images = collate(samples).images

# %% [markdown]
# ## The end, first
#
# We run r18 in three forms with the same result: as in training, in its *deploy form*, and with
# packed weights, in the memory order that the processor prefers. All times in this notebook are
# processor time.

# %% tags=["varies"]
# alt: Three horizontal bars of milliseconds, each split into backbone, encoder, to_memory,
#   proposals and decoder. Every bar is shorter than the one above it.
deployed = deploy(r18)
packed = pack(deploy(r18), photo, torch.float32)
forms = {"training form": r18, "deploy form": deployed, "packed": packed}
taken = {name: seconds_of(form, photo, 6, process_time) for name, form in forms.items()}
times = {n: {p: 1e3 * s for p, s in parts.items()} for n, parts in taken.items()}
ax = part_bars(times, "milliseconds of processor time", new_axes(None, 2.6, 5.6))
ax.figure.suptitle("Three forms of r18: the same boxes in less time", fontsize=11)

# %%
with torch.inference_mode():
    trained, faster = r18(photo), packed(photo)
assert torch.allclose(trained.boxes, faster.boxes, atol=1e-3), "the same boxes"

# %% [markdown]
# ## The question
#
# A part of a model needs $F$ floating-point operations and moves $M$ bytes: weights, inputs,
# outputs. A machine does $P$ operations and moves $B$ bytes per second. (Elsewhere $M$, $P$ and $B$
# count heads, points and pictures.) Computing and moving can overlap, so the time is at least
#
# $$ t \ge \max\Bigl(\frac{F}{P}, \frac{M}{B}\Bigr) \tag{17.1} $$
#
# There are three ways to become faster: get closer to the limit, compute less, or leave a part out.
# Which of them can help a detector?
#
# ## By hand: what is not needed
#
# **A constant norm.** In eval mode a batch norm multiplies by constants and adds constants. The
# convolution $W$ before it multiplies and adds, too. One convolution can do both:
#
# $$ W' = \frac{\gamma}{\sqrt{v + \varepsilon}}\, W, \qquad
#    b' = \beta - \frac{\gamma\,\mu}{\sqrt{v + \varepsilon}} \tag{17.2} $$
#
# Take 3 × 3 cells with the values 0 … 8. A 3 × 3 filter of ones gives 36 in the middle. With
# $\mu = 6$, $v = 4$, $\gamma = 3$, $\beta = 1$ the norm returns $3 \cdot (36 - 6) / 2 + 1 = 46$.
# The folded filter is 1.5 everywhere, and its bias is $1 - 3 \cdot 6 / 2 = -8$:

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
# **Read before projecting.** Deformable attention (notebook 10) projects *every* token with $W$.
# Then it reads a few of them, with the weights $A_k$. Both steps are linear, so we can swap them:
#
# $$ \sum_k A_k \bigl(W x_{p_k} + b\bigr) = W \sum_k A_k\, x_{p_k} + b \sum_k A_k \tag{17.3} $$
#
# Take three tokens with three channels. One query reads the first token and the last:

# %%
tokens = torch.tensor([[1.0, 0, 0], [5, 5, 5], [0, 1, 2]])
w, b = torch.tensor([[1.0, 0, 1], [0, 2, 0], [1, 1, 1]]), torch.tensor([0.0, 1, 0])
share = torch.tensor([0.25, 0, 0.5])
project_first = share @ (tokens @ w.T + b)
read_first = w @ (share @ tokens) + b * share.sum()
print(project_first.tolist(), read_first.tolist())
assert torch.equal(project_first, read_first)

# %% [markdown]
# The left side applies $W$ to each of three tokens, the right side applies it once. In r18 at 640
# pixels it is 8,400 times on the left and 300 times on the right. (On the right each of the 8 heads
# projects its own sum, with an eighth of $W$.)
#
# ## The real module

# %%
source(fold)

# %%
source(GatherFirst.forward)

# %% [markdown]
# `baddbmm` computes the right side of Eq. 17.3 for all heads at once. We compare both orders on one
# layer of r18, with random content:

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
# These numbers hide a cost. A head that reads before the projection reads rows of 256 channels, not
# its own 32. On a CPU it is still faster. On a GPU products are almost free, but reading is not, so
# there the deploy form keeps the order of the chapter.
#
# ## Look inside: what is left to do
#
# **Predict.** The deploy form folds the norms, merges the RepVGG blocks (Eq. 07.2 in notebook 07),
# computes boxes for 300 tokens only, and drops unused heads. What share of r18's operations does it
# save: 1, 6 or 25 %?

# %%
before = {n: f for n, _, f in cost(r18, photo).rows}
after = {n: f for n, _, f in cost(deploy(r18, same), photo).rows}
before["proposals"] = before["proposal_head"] + before["selection"]
for name in (*PARTS, "all"):
    print(f"{name:10} {before[name] / 1e9:6.2f} → {after[name] / 1e9:6.2f} GFLOPs")
saved = 1 - after["all"] / before["all"]
print(f"saved: {saved:.1%}")
assert before["backbone"] == after["backbone"], "a folded norm saves no product, only a pass"
assert 0.04 < saved < 0.15

# %% [markdown]
# It saves six percent. The proposals lose half of their operations. The encoder loses a tenth: the
# 1 × 1 of every RepVGG block, and convolutions that now run *before* upsampling, on a quarter of
# the cells. The backbone loses none, because a folded norm saves a pass over the map, but no
# product. The third bar above saves more passes: activations and sums run inside the convolution,
# while the numbers are still in registers.
#
# ## How far from the limit?
#
# We measure both limits of Eq. 17.1, with a large matrix product and a large copy. Then each part
# has a place in the figure: further right, it computes more per byte. Dots lead to its limit.

# %% tags=["varies"]
# alt: A roofline on logarithmic axes: a slope for copies, then a level line for matrix products.
#   Five marks near the level line, right of where it begins. The decoder is the lowest.
top = ceilings("cpu", torch.float32, side=1024, rounds=30, clock="cpu")
work = work_of(deployed, photo)
measured = {p: (taken["packed"][p], *work[p]) for p in PARTS}
ax = roofline(measured, top.flops, top.bytes, new_axes(None, 3.9, 5.6))
ax.figure.suptitle("Right of the ridge: computing is the limit, not memory", fontsize=11)

# %% [markdown]
# All five parts lie far to the right of the ridge. So on a CPU a detector is limited by computing,
# not by memory. The convolutions reach the limit. (They can even exceed it, because we measured it
# with a product of another shape.) For them, only fewer operations help. The products of the
# decoder are small, and it reads between them.
#
# ## Leave a part out: decoder layers
#
# Every decoder layer has its own heads, so any layer can be the last. Notebook 11 shows what fewer
# layers cost in quality, and gives the paper's numbers. Here we measure the time that they save.

# %% tags=["varies"]
for count in (1, 2, 3):
    spent = seconds_of(deploy(nano.trim(count)), images[:1], 15, process_time)
    decoder = 1e3 * spent.pop("decoder")
    print(f"{count} layers: decoder {decoder:.1f} ms, all else {1e3 * sum(spent.values()):.1f}")

# %% [markdown]
# ## Leave a part out: suppression
#
# A detector of the YOLO family returns a box for every cell, and its user removes duplicates. First
# we drop the boxes with a score below a *confidence threshold*. Then we go down the list, and drop
# each box that overlaps a better one by more than an *IoU threshold*. nano's encoder also proposes
# a box for every token: 2,100 boxes with ten scores each. How long is the list of box-class pairs?

# %%
# alt: Three lines that fall together from twenty thousand pairs to about forty, over the confidence
#   threshold. Both axes are logarithmic.
with torch.inference_mode(), lab.record(nano, keep="proposal_head.*") as seen:
    final = nano(images)
scores = seen["proposal_head.logits"].sigmoid()  # B N C
places = 320 * xyxy_from_cxcywh(seen["proposal_head.box_logits"].sigmoid())
cuts = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]
left = torch.stack([(scores > cut).flatten(1).sum(1) for cut in cuts])
ranks = {"most of 24 pictures": -1, "median": 12, "fewest": 0}
lists = {name: left.sort(1).values[:, at].tolist() for name, at in ranks.items()}
ax = new_axes(None, 3.3, 5.6)
time_lines(cuts, lists, "confidence threshold", "pairs left in the list", ax)
ax.figure.suptitle("How many pairs are left depends on the picture", fontsize=11)
assert left[3].max() > 5 * left[3].min(), "the number of pairs depends on the picture"

# %% [markdown]
# Of twenty thousand pairs a few dozen remain. Between these ends the number depends on the picture:
# at 0.03 the longest list is six times as long as the shortest. The time depends on this length.
# The thresholds also change AP, as in RT-DETR's Table 1. This is a small version of it:


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
assert table[0.001, 1.0] >= table[0.001, 0.5], "no suppression, no loss"

# %% [markdown]
# One choice costs half a point of AP, another costs one point. YOLOv8 loses 0.7 with an IoU
# threshold of 0.5 instead of 0.8, and 1.7 with a confidence of 0.05 instead of 0.001 (Table 1). But
# look at the IoU threshold of 1: it suppresses *nothing*, and AP does not fall. nano's one-to-one
# matching (notebook 03) gives each object to one token. A YOLO needs suppression, because its
# training gives an object to many cells. (These boxes are rough, so AP is low.)
#
# **Predict, then break it.** The decoder's boxes should need no suppression. We suppress them all
# the same, across all classes, with IoU thresholds from 0.9 to 0.5. Does it help or harm?

# %%
everything = postprocess(final, [(320, 320)] * len(images), -1.0)
after = {"as it is": ap_of(everything)}
for most in (0.9, 0.7, 0.5):
    after[f"IoU ≤ {most}"] = ap_of([suppress(one, most) for one in everything])
{name: round(ap, 3) for name, ap in after.items()}

# %% [markdown]
# It helps: two points of AP at 0.9, and less with the stricter thresholds. nano was trained for
# some three thousand steps, at 256 pixels and not at 320, and still predicts some objects twice. So
# "needs no suppression" is not a property of an architecture. One-to-one training approaches it. So
# look for duplicates when you evaluate a training.

# %%
assert after["IoU ≤ 0.9"] > after["IoU ≤ 0.5"] > after["as it is"]

# %% [markdown]
# ## What it costs
#
# Table 1 also compares times. Our suppression is a fast one. It drops pairs below the threshold
# first, treats all classes in one pass, works in blocks, and stops at 300 boxes. The level line is
# a DETR's top-k.

# %%
source(greedy)

# %% tags=["varies"]
# alt: Milliseconds over the number of boxes, both axes logarithmic. Lines for three confidence
#   thresholds rise. The line of the top-k is level, below them.
counts = [300, 1000, 3000, 8400]
logits, corners, size = torch.randn(1, 300, 80), torch.rand(1, 300, 4), torch.full((1, 2), 640.0)
calls = {"top-k": partial(ranked_table, by_sigmoid, logits, corners, size)}
for name in ((cut, count) for cut in (0.001, 0.01, 0.25) for count in counts):
    calls[name] = partial(nms, *dense_answer(name[1]), name[0], 0.7)
spent = {name: 1e3 * t.median for name, t in interleaved(calls, 9, clock=process_time).items()}
lines = {f"NMS, score > {c}": [spent[c, n] for n in counts] for c in (0.001, 0.01, 0.25)}
lines["top-k of 300 queries"] = [spent["top-k"]] * len(counts)
ax = new_axes(None, 3.3, 5.6)
time_lines(counts, lines, "boxes in the prediction (80 classes)", "milliseconds", ax)
ax.figure.suptitle("Suppression takes longer with more boxes, a top-k does not", fontsize=11)

# %% [markdown]
# A top-k does the same work for every picture. Suppression takes longer if there are more boxes,
# here more than ten times as long. On the authors' T4 it takes 1.06 to 2.46 ms. A latency without
# suppression leaves this out. Two latencies with suppression may not be comparable.
#
# ## Let the machine choose
#
# `fastest` builds an engine for every installed backend, and measures them in turns. `drift` then
# shows what bfloat16 changes: boxes move by fractions of a pixel, scores change by hundredths.
# (bfloat16 has eight significant bits; coordinates stay in float32.)

# %% tags=["varies"]
torch_only = [choice for choice in offered("cpu") if isinstance(choice.backend, PyTorch)]
print(fastest(nano, (320, 320), choices=torch_only, device="cpu", rounds=7))
moved = drift(nano, [draw(DEFAULT, VAL, i).image for i in range(8)], (320, 320), device="cpu")
print(f"{moved.exact} found, {moved.kept} of them in both, {moved.relabelled} with another label")
shift, change = moved.shifts.max().item(), moved.changes.max().item()
print(f"largest shift {shift:.2f} px, largest change of a score {change:.3f}")

# %% [markdown]
# ## Exercises
#
# **1.** A machine does 100 GFLOP/s and copies 10 GB/s. A 1 × 1 convolution has 256 input and 256
# output channels, on a map of 80 × 80 cells in float32 (4 bytes). How many milliseconds does it
# take at least?

# %%
answer = ...

# %% tags=["solution"]
flops = 2 * 256 * 256 * 80 * 80
moved = 4 * (2 * 256 * 80 * 80 + 256 * 256)
limit = 1000 * max(flops / 100e9, moved / 10e9)
check(answer, limit, hint="Eq. 17.1: two FLOPs per multiply-add; map in, map out, weights.")

# %% [markdown]
# **2.** The same convolution now has $C$ input and $C$ output channels. From which whole number $C$
# on does computing take longer than moving? Leave out the weights.

# %%
answer = ...

# %% tags=["solution"]
check(answer, 41, hint="2 C² / 100e9 > 8 C / 10e9 per cell.")

# %% [markdown]
# **3.** A norm has $\gamma = 2$, $\mu = 1$, $v = 4$ and $\beta = 0.5$ ($\varepsilon = 0$). We fold
# it into the convolution before it. What is the bias?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 0.5 - 2 * 1 / 4**0.5, hint="Use the right part of Eq. 17.2.")

# %% [markdown]
# **Next**: [18 · Segmentation](18_segmentation.ipynb), another task for DETR.
# `docs/results/performance.md` compares r18 and r50 with other runtimes; `rtdetr-lab bench`
# measures your machine.
