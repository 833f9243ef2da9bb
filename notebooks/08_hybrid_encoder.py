# %% [markdown]
# # 08 · The hybrid encoder: attention within, convolutions across
#
# **Paper** RT-DETR §4.2, Fig. 3 and 4, Table 3, Eq. 1 · **Chapter**
# `rtdetr_lab/hybrid_encoder.py` · **Before this** [07 CCFF](07_ccff.ipynb)
#
# Both halves of the encoder are known. Afterwards you can say by which steps the paper came to put
# them together so, what each half does in `nano`, and what the decoder is handed in the end.

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn

import rtdetr_lab as lab
from rtdetr_lab.aifi import AIFIConfig
from rtdetr_lab.hybrid_encoder import HybridEncoder, HybridEncoderConfig, MemoryProjection
from rtdetr_lab.notebook import check, chelsea, cost, count_good, online, seeded, shapes, source
from rtdetr_lab.rtdetr import rtdetr_r18, rtdetr_r50, rtdetr_r101
from rtdetr_lab.viz.canvas import heat, show_picture

generator = seeded()
model = lab.load_pretrained("nano")
encoder = model.encoder
images, targets = shapes(*range(8))  # 320 × 320 pixels

# %% [markdown]
# ## The end, first
#
# Six encoders under one decoder: the paper's Table 3 (ResNet-50, 12 epochs on COCO, milliseconds on
# a T4). These are the paper's numbers, we have not measured them.

# %%
# alt: Average precision over milliseconds, a path from A lower left over B and C to the right,
#   back over D to D on S5, and up to E, which is highest and left of B, C and D.
table = {"A": (43.0, 7.2), "B": (44.9, 11.1), "C": (45.6, 13.3), "D": (46.4, 12.2)}
table |= {"D on S5": (46.8, 7.9), "E": (47.9, 9.3)}
fig, ax = plt.subplots(figsize=(4.6, 2.8), layout="compressed")
ap, ms = zip(*table.values(), strict=True)
ax.plot(ms, ap, "o--", color="#0072B2", linewidth=1)
for name, (y, x) in table.items():
    ax.annotate(name, (x, y), xytext=(6, -10), textcoords="offset points")
ax.set(xlabel="milliseconds (T4, Table 3)", ylabel="AP on COCO", xlim=(6.5, 14.5), ylim=(42, 48.5))
ax.grid(alpha=0.3)

# %% [markdown]
# | variant | within a scale | across scales | M parameters |
# |---|---|---|---:|
# | A | nobody | nobody | 31 |
# | B | attention, one layer for all three maps | nobody | 32 |
# | C | attention over all tokens at once | the same attention | 32 |
# | D | as B | convolutions, PANet's | 35 |
# | D on S5 | attention on S5 only | as D | 35 |
# | E | attention on S5 only (AIFI) | CCFF | 42 |
#
# C is what transformer detectors did, with deformable attention to make it bearable. It mixes two
# things, and D takes them apart: better, and faster. Then comes the step worth remembering. *Leave
# attention out where it costs most, on S3 and S4*, and the detector is faster by a third **and**
# 0.4 AP better. E spends some of the time that was saved on a stronger fusion.

# %%
gain = table["D on S5"][0] - table["D"][0], 1 - table["D on S5"][1] / table["D"][1]
print(f"D to D on S5: {gain[0]:+.1f} AP, {gain[1]:.0%} less time")
assert max(table, key=lambda name: table[name][0]) == "E"

# %% [markdown]
# ## The question
#
# So the encoder is two sentences, one for within and one for across:
#
# $$ F_5 = \mathrm{AIFI}(S_5), \qquad O = \mathrm{CCFF}(\{S_3, S_4, F_5\}) \tag{08.1} $$
#
# Before them every map is brought to one width, since AIFI adds and CCFF concatenates. Why is it
# enough to let only the smallest map look around?
#
# ## By hand, on 3 × 3 cells
#
# Let S5 have 3 × 3 cells; S4 then has 6 × 6 and S3 12 × 12. How many pairs does each kind of
# encoder weigh, and how far is it from one corner of the picture to the other?

# %%
n = {"S3": 12 * 12, "S4": 6 * 6, "S5": 3 * 3}
pairs = {
    "B, each scale": sum(k * k for k in n.values()),
    "C, all at once": sum(n.values()) ** 2,
    "E, S5 only": n["S5"] ** 2,
    "3 × 3 convolution everywhere": 9 * sum(n.values()),
}
pairs

# %%
assert pairs["C, all at once"] == (144 + 36 + 9) ** 2 == 441 * pairs["E, S5 only"]

# %% [markdown]
# A 3 × 3 convolution reaches one cell further. From corner to corner it takes 11 of them on S3, and
# one look on S5. In E a cell of S3 asks downstairs: its news goes down to its cell of S5, once
# around by attention, and comes back with CCFF.
#
# ## The real module

# %%
source(HybridEncoder.forward)

# %%
with torch.no_grad(), lab.record(model) as seen:
    prediction = model(images)
    s3, s4, s5 = (p(seen[f"backbone.S{i}"]) for i, p in enumerate(encoder.project, start=3))
    out = encoder.ccff([s3, s4, encoder.aifi(s5)])
    whole = encoder([seen[f"backbone.S{i}"] for i in (3, 4, 5)])
assert all(torch.equal(a, b) for a, b in zip(out, whole, strict=True))

# %% [markdown]
# `aifi=None` in the configuration leaves the first half out, and whatever has a
# `build(dim, num_levels)` can take the place of the second.
#
# ## Look inside: who hears whom?
#
# We take the middle cell of P3 and ask the gradient which cells of S5 could change it, with AIFI
# and without.


# %%
def reach():
    """How strongly the middle cell of P3 depends on each cell of S5 of picture 3."""
    maps = [seen[f"backbone.S{i}"][3:4].clone().requires_grad_() for i in (3, 4, 5)]
    middle = encoder(maps)[0][0, :, 20, 20].square().sum()
    return torch.autograd.grad(middle, maps[2])[0][0].square().sum(0).sqrt()


heard = {"with AIFI": reach()}
aifi, encoder.aifi = encoder.aifi, nn.Identity()
heard["without"] = reach()
encoder.aifi = aifi

# %%
# alt: The same scene twice under a grid of 10 by 10 cells. With AIFI cells all over the picture
#   glow; without it a few in the middle, and the rest stay dark.
fig, axes = plt.subplots(1, 2, figsize=(6, 3), layout="compressed")
for ax, (name, strength) in zip(axes, heard.items(), strict=True):
    show_picture(ax, images[3], quiet=0.8)
    heat(ax, strength, (320, 320))
    ax.set_title(name, fontsize=9)

# %%
near = heard["without"] > 0
for name, strength in heard.items():
    far = (strength[~near].sum() / strength.sum()).item()
    print(f"{name}: hears {(strength > 0).float().mean():.0%} of S5, {far:.1%} of it from afar")
assert (heard["with AIFI"] > 0).all()
assert near.float().mean() < 0.5
assert heard["with AIFI"][~near].sum() > heard["with AIFI"][near].sum()

# %% [markdown]
# So the way is open to the end of the picture, and it is not quiet: more than half of what this
# cell hears of S5 comes from beyond the reach of CCFF. Does the detector care?
#
# ## Predict, then break it
#
# Good boxes again (score above 0.5, IoU above 0.75), eight pictures. Notebook 06 has shown that
# `nano` does not miss $F_5$ when it is blank. **Predict** what happens when it is (a) the $F_5$ of
# *another picture*, (b) noise of the same size, (c) itself, ten times as strong. And (d): what if
# CCFF is left out, so that the decoder gets S3, S4 and F5 as they are?


# %%
def edited(name, edit):
    with torch.no_grad(), lab.record(model, keep=[], edit={name: edit}):
        return count_good(model(images), targets)


class PassOn(nn.Module):
    def forward(self, maps):
        return list(maps)


# %%
counts, f5 = {"untouched": count_good(prediction, targets)}, "encoder.aifi.F5"
counts["F5 blank"] = edited(f5, torch.zeros_like)
counts["(a) of another picture"] = edited(f5, lambda x: x.roll(1, dims=0))
counts["(b) noise"] = edited(f5, lambda x: torch.randn(x.shape, generator=generator))
counts["(c) ten times"] = edited(f5, lambda x: 10 * x)
ccff, encoder.ccff = encoder.ccff, PassOn()
with torch.no_grad():
    counts["(d) no CCFF"] = count_good(model(images), targets)
encoder.ccff = ccff
counts

# %% [markdown]
# What $F_5$ says does not matter to `nano`: another picture's will do, and noise too. Its *length*
# does. AIFI ends in a layer norm, so the fusion has only ever met cells of length one, and noise of
# that length looks like any other day; ten times as long it drowns S3 and S4 in the concatenation.
# An input that is not read can still do harm.
#
# CCFF is another matter: without it there is no detector. That does not mean CCFF is the more
# important half *in general*. Everything behind it was trained on what it puts out, and leaving
# a part out of a trained model asks what the model *relies on*. What a part is *good for* is asked
# by training with and without it, as the paper did above.

# %%
least = counts["untouched"] - 3
assert min(counts["F5 blank"], counts["(a) of another picture"], counts["(b) noise"]) >= least
assert 0 == counts["(d) no CCFF"] < counts["(c) ten times"] < 0.5 * counts["untouched"]

# %% [markdown]
# Which of the maps that come out are used, then? **Predict**, with notebook 05 in mind: there the
# loss of S3, S4 and S5 left 0, 8 and 52 good boxes. (We empty a map on its way out. An edit of the
# tap `bottom_up.0` would reach P4 and P5 as well.)


# %%
def without(level):
    def hook(encoder, inputs, maps):
        return [m * (i != level) for i, m in enumerate(maps)]

    handle = encoder.register_forward_hook(hook)
    with torch.no_grad():
        count = count_good(model(images), targets)
    handle.remove()
    return count


left = {f"no P{i + 3}": without(i) for i in range(3)}
left

# %% [markdown]
# The order is the same, the losses are smaller. P3 can be done without to a degree that S3 could
# not, for the way up has already carried to P4 what S3 knew.

# %%
assert 0 < left["no P3"] < left["no P4"] < left["no P5"]

# %% [markdown]
# ## What the decoder is handed
#
# One projection more, to the decoder's width. In r101 the encoder works with 384 channels and the
# decoder with 256. A decoder that wants more levels than there are maps gets them here, each half
# as large as the one before.

# %%
source(MemoryProjection.forward)

# %%
with torch.device("meta"):
    maps = [torch.rand(1, 384, side, side) for side in (80, 40, 20)]
    memory = MemoryProjection((384, 384, 384), 256, num_levels=4)(maps)
print([tuple(m.shape[1:]) for m in memory])
assert memory[-1].shape[-1] == 10

# %% [markdown]
# Laid end to end, the cells of these maps are the *tokens* of the following notebooks: 8,400 of
# them at 640 × 640, without the fourth level.
#
# ## What it costs
#
# First attention, if one layer of it were used on one map, on each, or on all of them at once:

# %%
with torch.device("meta"):
    layer = AIFIConfig().build(256).layers[0]
    tokens = {k: torch.rand(1, k, 256) for k in (6400, 1600, 400, 8400)}
    work = {k: cost(layer, x, x).flops / 1e9 for k, x in tokens.items()}
each = work[6400] + work[1600] + work[400]
print(f"S5 {work[400]:.1f}, each {each:.1f}, all {work[8400]:.1f} GFLOPs")
assert work[8400] > each > 50 * work[400]

# %% [markdown]
# Then the encoders of three models, at 640 × 640:

# %%
for preset in (rtdetr_r18, rtdetr_r50, rtdetr_r101):
    with torch.device("meta"):
        whole = preset().build()
        maps = whole.backbone(torch.rand(1, 3, 640, 640))
        c = cost(whole.encoder, maps)
    parts = {name: round(flops / 1e9, 1) for name, _, flops in c.rows if flops}
    print(f"{preset.__name__:12} {c.params / 1e6:5.1f} M parameters, GFLOPs: {parts}")
    assert parts["aifi"] < 0.05 * parts["all"]

# %% [markdown]
# (What is missing to `all` are the projections.) Attention is under one twentieth of the encoder,
# everywhere. That is what "real-time" has done to the transformer here: a single layer, on the
# smallest map.
#
# ## Exercises
#
# **1.** At 640 × 640, how many times as many pairs does C weigh as B?

# %%
answer = ...

# %% tags=["solution"]
sides = (80, 40, 20)
check(answer, sum(s**2 for s in sides) ** 2 / sum(s**4 for s in sides), hint="8,400² over a sum.")

# %% [markdown]
# **2.** How many parameters does r50's encoder lose with `aifi=None`, in per cent?

# %%
answer = ...

# %% tags=["solution"]
with torch.device("meta"):
    built = [
        cfg.build((512, 1024, 2048))
        for cfg in (HybridEncoderConfig(), HybridEncoderConfig(aifi=None))
    ]
full, without = (sum(p.numel() for p in encoder.parameters()) for encoder in built)
check(answer, 100 * (1 - without / full), hint="Notebook 06 printed AIFI's.", tolerance=0.02)

# %% [markdown]
# **3.** A picture of 320 × 320, and a decoder with four levels. How many tokens?

# %%
answer = ...

# %% tags=["solution"]
with torch.no_grad():
    levels = MemoryProjection((96, 96, 96), 96, num_levels=4).eval()(out)
check(answer, sum(m[0, 0].numel() for m in levels), hint="40² + 20² + 10² + …")

# %% [markdown]
# ## With real weights, if there is a network
#
# RT-DETR-R18 has learned COCO. Does *it* read its $F_5$?

# %% tags=["varies"]
if online():
    real, photo = lab.load_pretrained("r18"), chelsea((640, 640))
    with torch.no_grad():
        whole = real(photo).logits.sigmoid().max()
        with lab.record(real, keep=[], edit={f5: torch.zeros_like}):
            blank = real(photo).logits.sigmoid().max()
    print(f"best score on the cat: {whole:.2f}, with F5 blank {blank:.2f}")

# %% [markdown]
# **Next**: [09 · Query selection](09_query_selection.ipynb). The encoder hands over thousands of
# tokens, and the decoder can afford a few hundred.
