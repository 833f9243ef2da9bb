# %% [markdown]
# # 15 · Training: from one step to a detector
#
# **Paper** RT-DETR §5.1, Table A · **Code** `rtdetr_lab/training/` ·
# **Before this** [14 RT-DETRv2](14_rtdetrv2.ipynb)
#
# A detector is taught on the CPU, in seconds: a very small one, on four pictures. Afterwards you
# can say what a step does, which layers learn first, what the average of the weights is for, and
# why a run that was interrupted is no other run.

# %%
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
# A smaller nano, for plain pictures of 96 × 96:

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
# The first test of any training code is whether it can learn one batch by heart. Three **averages**
# of the weights go along; we come to them.

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
# alt: Curves over sixty steps: box loss of proposals and three layers falls together from about 6.5
#   to below 1; that of noised queries stays around 3.
layers = {"proposals": ".proposals", "layer 0": ".layer0", "layer 1": ".layer1", "layer 2": ""}
layers["noised, layer 2"] = ".denoising2"
curves = {n: [r["l1" + s] + r["giou" + s] for r in log] for n, s in layers.items()}
fig, ax = plt.subplots(figsize=(6.5, 3), layout="compressed")
for (name, curve), style in zip(curves.items(), ("-", "--", "-.", ":", "-"), strict=True):
    ax.plot(curve, style, label=name, lw=1.6)
ax.set(xlabel="step", ylabel="box loss (L1 and GIoU, weighted)", ylim=(0, None))
ax.legend(frameon=False, fontsize=8)

# %%
end = {name: sum(curve[-10:]) / 10 for name, curve in curves.items()}
assert max(end["proposals"], end["layer 0"], end["layer 1"], end["layer 2"]) < 1.5
assert end["proposals"] < 1.25 * end["layer 2"]
assert end["noised, layer 2"] > 2

# %% [markdown]
# The four that are matched fall together, from 6.5 to less than one, and the layers are not ahead
# of the proposals they start from: to learn four pictures by heart, a token needs no second look.
# (Your digits may differ from ours: sixty steps make much of how a processor rounds.) Noised
# queries do not get far: their start is drawn anew in every step, so there is nothing to learn by
# heart, and reading the edge of a shape takes more than sixty steps.
#
# ## The question
#
# What is between a gradient and a detector? A rate $\eta_t$ that begins small, for $W$ steps, and
# then follows a schedule $s$ over the $T$ steps of the run:
#
# $$ \eta_t = \eta\,\min\!\bigl(1, \tfrac{t + 1}{W}\bigr)\; s\bigl(t / T\bigr) \tag{15.1} $$
#
# And an average $\bar\theta$ of the weights, which is what is evaluated and shipped, with a decay
# that has to grow:
#
# $$ \bar\theta \leftarrow d_t\,\bar\theta + (1 - d_t)\,\theta, \qquad
#    d_t = d\,(1 - e^{-t/W}) \tag{15.2} $$
#
# ## By hand
#
# One weight walks 0, 1, 2, 3. With $d_t = \frac12$ always, its average is

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
# ## Look inside: who learns how fast
#
# Norms and biases are not pulled to zero; a pretrained backbone has a rate of its own, a tenth of
# the others' in the paper. (From scratch it has the same.)

# %%
for group in parameter_groups(cfg.build(), lr=1e-4, backbone_lr=1e-5, weight_decay=1e-4):
    part = group["names"][0].split(".")[0]
    count = sum(p.numel() for p in group["params"])
    print(f"{part:9} rate {group['lr']:.0e}, weight decay {group['weight_decay']:.0e}: {count:7,}")

# %% [markdown]
# ## Predict, then break it: the average
#
# The paper's decay is 0.9999. After our sixty steps, how many of the eight shapes are found by the
# weights themselves, by an average of 0.9 with a short warm-up, by 0.9999 without warm-up, and by
# 0.9999 with the paper's warm-up of 2,000 steps?


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
# The decay of the paper without its warm-up is the *start* at 99.4 %: a random network that finds
# nothing, while the weights know the shapes by heart. With the warm-up of 2,000 steps the average
# is, for now, hardly an average: at step 60 its decay is only 0.03. The other trap lies between: a
# long decay in a short run. `fine_tune` therefore measures both in parts of the run.

# %%
assert counts["0.9999, none"] == 0
assert counts["the weights"] >= 6
assert left["0.9999, none"] > 0.99

# %% [markdown]
# ## Predict, then break it: an interruption
#
# Four steps in one go; two steps, an end, and two steps by a second call that finds nothing but the
# folder; and two steps, the *weights* kept, and two more with a new optimizer. Dropout aside,
# random numbers decide on pictures and on noise. **Predict**: which of the three end at the same
# weights, and how same is the same?

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
# The first two are the same to the last bit. The folder holds weights, average, both moments of the
# optimizer, the random numbers, and the *number* of the step, from which the pictures follow. The
# third is another run: `model` is the average and not the weights, the moments are gone, the
# warm-up begins again and so does the order of the pictures. It would still have learned, and
# nobody would have been told.
#
# ## What it costs
#
# A step is a forward pass with denoising queries, and about twice as much again for the gradients.
# Nano, as it lies in the package, was trained for 3,250 steps of 16 pictures:

# %%
record = json.loads((Path(lab.__file__).parent / "assets" / "nano.json").read_text())
nano = lab.load_pretrained("nano")
per_picture = cost(nano, torch.rand(1, 3, 256, 256)).flops
total = 3 * per_picture * record["pictures_seen"]
print(f"{record['pictures_seen']:,} pictures in {record['hours']} hours on one thread")
print(f"about 3 × {per_picture / 1e9:.1f} GFLOPs each, {total / 1e15:.1f} PFLOPs in all")
assert total < 1e15

# %%
# alt: Training loss of nano over 52,000 pictures: from 24 it falls steeply to about 13, then slowly
#   to 7.5.
fig, ax = plt.subplots(figsize=(6.5, 2.4), layout="compressed")
ax.plot(record["curves"]["pictures"], record["curves"]["loss"], color="#0072B2")
ax.set(xlabel="pictures seen", ylabel="loss, all terms", ylim=(0, None))
# %% [markdown]
# Its averaged weights had AP 0.395 after 12,000 pictures and 0.777 after all 52,000
# (`docs/results/nano.md`). RT-DETR's 72 epochs are 8.5 million pictures of 640 × 640.
#
# ## Exercises
#
# **1.** What part of the start is left in an average with decay 0.9999 and *no* warm-up after
# 10,000 steps?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 0.9999**10_000, hint="Every step keeps 0.9999 of what was there.", tolerance=0.01)

# %% [markdown]
# **2.** Warm-up 2,000 steps, rate 1e-4, constant schedule. What is the rate of step 499, if the
# first is step 0?

# %%
answer = ...

# %% tags=["solution"]
rate = 1e-4 * lr_factor(499, 10_000, 2000, Constant())
check(answer, rate, hint="Eq. 15.1.", tolerance=1e-7)

# %% [markdown]
# **3.** Sixty steps on four pictures, and their shapes are found. Is this a detector? Count the
# shapes that `averages["0.9, warm-up 5"].model` finds in the pictures 4 … 7 of the world.

# %%
answer = ...

# %% tags=["solution"]
batch = collate([world[i] for i in range(4, 8)])
images, targets = batch.images, batch.targets
learnt_by_heart = found(averages["0.9, warm-up 5"].model)
check(answer, learnt_by_heart, hint="It has never seen them.")

# %% [markdown]
# **Next**: [16 · Ablations](16_ablations.ipynb): a part taken out and trained again, and what that
# proves. What may go wrong without a word is in the [trap museum](19_trap_museum.ipynb).
