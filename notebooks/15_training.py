# %% [markdown]
# # 15 · Training: from one step to a detector
#
# **Paper** RT-DETR §5.1, Table A · **Code** `rtdetr_lab/training/` ·
# **Before this** [14 RT-DETRv2](14_rtdetrv2.ipynb)
#
# We train a detector on the CPU in seconds: a very small one, on four pictures. After this notebook
# you can explain what a step does, which parts learn fast, why we average the weights, and why an
# interrupted run that resumes is the same run.

# %% tags=["imports"]
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch

import rtdetr_lab as lab
from rtdetr_lab.config import replace_at
from rtdetr_lab.data.batch import collate
from rtdetr_lab.data.shapes import ShapesConfig, ShapesDataset
from rtdetr_lab.notebook import check, cost, count_found, num_parameters, seeded, source
from rtdetr_lab.training import Constant, Cosine, from_scratch, train
from rtdetr_lab.training.ema import EMA, ema_decay
from rtdetr_lab.training.optim import lr_factor, parameter_groups
from rtdetr_lab.training.trainer import Trainer
from rtdetr_lab.viz.palette import OKABE_ITO

# %%
generator = seeded()
easy = ShapesConfig(
    size=96,
    max_objects=3,
    min_side=20,
    max_side=45,
    small_share=0,
    crowding=0,
    distractors=0,
    texture=0,
)
world = ShapesDataset(easy, count=16)
batch = collate([world[i] for i in range(4)])
images, targets = batch.images, batch.targets

# %% [markdown]
# We use a smaller nano, for plain pictures of 96 × 96 pixels:

# %%
cfg = lab.rtdetr_nano(num_classes=10)
changes = {"widths": (16, 24, 32, 48), "stem_width": 16}
cfg = replace_at(cfg, "backbone", replace(cfg.backbone, **changes))
cfg = replace_at(cfg, "encoder.aifi", replace(cfg.encoder.aifi, num_heads=4, ffn_dim=64))
cfg = replace_at(cfg, "encoder.ccff.num_blocks", 1)
cfg = replace_at(cfg, "encoder.dim", 32)
cfg = replace_at(cfg, "decoder", replace(cfg.decoder, num_heads=4, ffn_dim=64))
cfg = replace_at(cfg, "selection.num_queries", 20)
cfg = replace_at(cfg, "denoising.num_queries", 10)
print(f"{num_parameters(cfg.build()):,} parameters; objects: {targets.counts}")

# %% [markdown]
# ## The end, first: sixty steps on four pictures
#
# First we test whether the training code can overfit one batch. We also keep three **averages** of
# the weights, and look at them later.

# %%
torch.manual_seed(0)
recipe = from_scratch(
    4 * 60, batch_size=4, lr=2e-3, backbone_lr=2e-3, warmup_steps=5, schedule=Constant()
)
trainer = Trainer(cfg.build(), recipe, torch.device("cpu"))
averages = {"0.9, warm-up 5": (0.9, 5), "0.9999, none": (0.9999, 0)}
averages["0.9999, warm-up 2000"] = (0.9999, 2000)
averages = {name: EMA(trainer.model, *how) for name, how in averages.items()}
log = []
for step in range(recipe.num_steps):
    trainer.learn(batch)
    log.append(trainer.take_means())
    for average in averages.values():
        average.update(step + 1)

# %%
# alt: Curves over sixty steps. The box loss of proposals and three layers falls together from about
#   6.5 to below 1. The box loss of noised queries stays around 3.
layers = {"proposals": ".proposals", "layer 0": ".layer0", "layer 1": ".layer1", "layer 2": ""}
layers["noised, layer 2"] = ".denoising2"
curves = {n: [r["l1" + s] + r["giou" + s] for r in log] for n, s in layers.items()}
fig, ax = plt.subplots(figsize=(5.6, 3.5), layout="compressed")
for i, (name, style) in enumerate(zip(curves, ("-", "--", "-.", ":", "-"), strict=True)):
    ax.plot(curves[name], style, label=name, lw=1.8, color=OKABE_ITO[(0, 1, 2, 5, 3)[i]])
ax.set(xlabel="training step", ylabel="box loss (weighted L1 + GIoU)", ylim=(0, 9), xlim=(0, 60))
ax.set_title("The model overfits four pictures, except for new noise", fontsize=11)
ax.legend(frameon=False, ncols=2, loc="upper right", fontsize=9)

# %%
end = {name: sum(curve[-10:]) / 10 for name, curve in curves.items()}
assert max(end["proposals"], end["layer 0"], end["layer 1"], end["layer 2"]) < 1.5
assert end["proposals"] < 1.25 * end["layer 2"]
assert end["noised, layer 2"] > 2

# %% [markdown]
# The losses of the proposals and the three layers fall together, from 6.5 to less than one. The
# layers are not better than the proposals they start from: to overfit four pictures, a token does
# not need the decoder. (Your digits may differ from ours, because sixty steps amplify
# rounding.) The loss of noised queries falls less. Their boxes are drawn again in every step, so
# the model cannot remember them, and sixty steps are not enough to learn where the edge of a shape
# is.
#
# ## The question
#
# What lies between a gradient and a detector? First, a learning rate $\eta_t$. It grows during $W$
# warm-up steps, and then follows a schedule $s$ over the $T$ steps of the run. (Elsewhere $W$ is a
# width, and $T$ a number of objects.)
#
# $$ \eta_t = \eta\,\min\!\bigl(1, \tfrac{t + 1}{W}\bigr)\; s\bigl(t / T\bigr) \tag{15.1} $$
#
# Second, an average $\bar\theta$ of the weights. We evaluate and publish this average. Its decay
# $d_t$ grows, with a warm-up $W$ of its own:
#
# $$ \bar\theta \leftarrow d_t\,\bar\theta + (1 - d_t)\,\theta, \qquad
#    d_t = d\,(1 - e^{-t/W}) \tag{15.2} $$
#
# ## By hand
#
# One weight takes the values 0, 1, 2, 3. With a constant $d_t = \frac12$, its average is

# %%
by_hand = 0.0
for weight in (1.0, 2.0, 3.0):
    by_hand = 0.5 * by_hand + 0.5 * weight
walker = torch.nn.Linear(1, 1, bias=False)
torch.nn.init.zeros_(walker.weight)
ema = EMA(walker, decay=0.5, warmup=0)
for step in (1, 2, 3):
    torch.nn.init.constant_(walker.weight, step)
    ema.update(step)
print("by hand", by_hand, " module", ema.model.weight.item())
assert by_hand == ema.model.weight.item()

# %%
warm = [lr_factor(t, 100, 10, Cosine(0.05)) for t in (0, 4, 9, 50, 99)]
print("rate at steps 0, 4, 9, 50, 99 of 100:", [round(f, 3) for f in warm])
decays = [ema_decay(t, 0.9999, 2000) for t in (1, 500, 2000, 20000)]
print("decay at steps 1, 500, 2000, 20000:", [round(d, 4) for d in decays])

# %% [markdown]
# ## The real module
#
# This is the whole step:

# %%
source(Trainer.learn)

# %% [markdown]
# ## Look inside: how fast each part learns
#
# Norms and biases have no weight decay. A pretrained backbone has its own learning rate; in the
# paper it is a tenth of the others. (When we train from scratch, the rates are the same.)

# %%
for group in parameter_groups(cfg.build(), lr=1e-4, backbone_lr=1e-5, weight_decay=1e-4):
    part = group["names"][0].split(".")[0]
    count = sum(p.numel() for p in group["params"])
    print(f"{part:9} rate {group['lr']:.0e}, weight decay {group['weight_decay']:.0e}: {count:7,}")

# %% [markdown]
# ## Predict, then break it: the average
#
# The paper's decay is 0.9999. **Predict**, after our sixty steps: how many of the eight shapes does
# the model find with the weights themselves? With an average of 0.9 and a short warm-up? With
# 0.9999 without warm-up? With 0.9999 and the paper's warm-up of 2,000 steps?


# %%
def found(model):
    with torch.no_grad():
        return count_found(model.eval()(images), targets)


# %%
counts = {"the weights": found(trainer.model)}
counts |= {name: found(average.model) for name, average in averages.items()}
left = {name: 1.0 for name in averages}
for name, average in averages.items():
    for step in range(1, 61):
        left[name] *= ema_decay(step, average.decay, average.warmup)
for name, count in counts.items():
    start = left.get(name, 0)  # may differ: found ± 2 of 8
    print(f"{name:21} found {count} of {targets.num_boxes}; start left: {start:.3f}")

# %% [markdown]
# With the paper's decay and no warm-up, the average still consists of 99.4 % *start*. So it is a
# random network and finds nothing, while the weights fit the four pictures. With the warm-up of
# 2,000 steps the average is still close to the weights themselves: at step 60 its decay is only
# 0.03. Between the two lies another trap, a long decay in a short run. Therefore `fine_tune` sets
# both as fractions of the run.

# %%
assert counts["0.9999, none"] == 0
assert counts["the weights"] >= 6
assert left["0.9999, none"] > 0.99

# %% [markdown]
# ## Predict, then break it: an interruption
#
# We compare three runs. The first takes four steps at once. The second takes two steps and stops; a
# second call, which gets only the folder, takes two more. The third takes two steps, keeps only the
# *weights*, and takes two more with a new optimizer. Apart from dropout, random numbers choose the
# pictures and the noise. **Predict**: which runs end with the same weights, and how exactly?

# %%
four = from_scratch(16, batch_size=4, warmup_steps=2)
go = train(cfg, world, None, four, device="cpu", progress=False)
with TemporaryDirectory() as folder:
    first = train(cfg, world, folder, four, stop_after=2, device="cpu", progress=False)
    second = train(cfg, world, folder, four, device="cpu", progress=False)
print("stopped after", first.step, "finished:", first.finished, "then", second.step)
pairs = zip(go.model.parameters(), second.model.parameters(), strict=True)
identical = all(torch.equal(a, b) for a, b in pairs)
print("the same to the last bit:", identical)
assert identical

# %%
two = replace(four, num_pictures=8)
half = train(cfg, world, None, two, device="cpu", progress=False)
again = train(half.model.requires_grad_(True), world, None, two, device="cpu", progress=False)
pairs = zip(go.model.parameters(), again.model.parameters(), strict=True)
furthest = max((a - b).abs().max().item() for a, b in pairs)
print("weights only, the same:", furthest == 0)
assert furthest > 1e-4

# %% [markdown]
# The first two are the same to the last bit. The folder holds the weights, the average, both
# moments of the optimizer, the random numbers, and the *number* of the step, which determines the
# next pictures. The third run is different: its `model` is the average and not the weights, the
# moments are lost, and the warm-up and the order of the pictures start again. It would still learn,
# and no error would warn you.
#
# ## What it costs
#
# A step is a forward pass with denoising queries. The gradients cost about twice as much again. The
# nano of the package was trained for 3,250 steps with 16 pictures each:

# %%
record = json.loads((Path(lab.__file__).parent / "assets" / "nano.json").read_text())
nano = lab.load_pretrained("nano")
per_picture = cost(nano, torch.rand(1, 3, 256, 256)).flops
total = 3 * per_picture * record["pictures_seen"]
print(f"{record['pictures_seen']:,} pictures in {record['hours']} hours on one thread")
print(f"about 3 × {per_picture / 1e9:.1f} GFLOPs each, {total / 1e15:.1f} PFLOPs in all")
assert total < 1e15

# %%
# alt: Training loss of nano over 52,000 pictures. It falls steeply from 24 to about 13, then slowly
#   to 7.5.
fig, ax = plt.subplots(figsize=(5.6, 2.8), layout="compressed")
ax.plot(record["curves"]["pictures"], record["curves"]["loss"], color="#0072B2")
ax.set(xlabel="pictures seen", ylabel="loss (sum of all terms)", ylim=(0, None), xlim=(0, None))
ax.set_title("Two thirds of the fall come from the first 10,000 pictures", fontsize=11)
ax.xaxis.set_major_formatter("{x:,.0f}")

# %% [markdown]
# Its averaged weights had 0.395 AP after 12,000 pictures and 0.777 AP after all 52,000
# (`docs/results/nano.md`). The 72 epochs of RT-DETR are 8.5 million pictures of 640 × 640 pixels.
#
# ## Exercises
#
# **1.** An average has decay 0.9999 and *no* warm-up. What part of the start is left after 10,000
# steps?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 0.9999**10_000, hint="Every step keeps 0.9999 of what is left.", tolerance=0.01)

# %% [markdown]
# **2.** The warm-up has 2,000 steps, the rate is 1e-4, and the schedule is constant. What is the
# rate of step 499? The first step is step 0.

# %%
answer = ...

# %% tags=["solution"]
rate = 1e-4 * lr_factor(499, 10_000, 2000, Constant())
check(answer, rate, hint="Eq. 15.1.", tolerance=1e-7)

# %% [markdown]
# **3.** After sixty steps on four pictures the model finds their shapes. Is this a detector? Count
# the shapes that `averages["0.9, warm-up 5"].model` finds in pictures 4 … 7 of the world.

# %%
answer = ...

# %% tags=["solution"]
batch = collate([world[i] for i in range(4, 8)])
images, targets = batch.images, batch.targets
memorised = found(averages["0.9, warm-up 5"].model)
check(answer, memorised, hint="The model was not trained on these pictures.")

# %% [markdown]
# **Next**: [16 · Ablations](16_ablations.ipynb) removes one part, trains again, and asks what this
# proves. The [trap museum](19_trap_museum.ipynb) shows mistakes that raise no error.
