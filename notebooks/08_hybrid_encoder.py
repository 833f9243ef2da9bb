# %% [markdown]
# # 08 · The hybrid encoder: attention within, convolutions across
#
# **Paper** RT-DETR §4.2, Fig. 3 and 4, Table 3, Eq. 1 · **Chapter**
# `rtdetr_lab/hybrid_encoder.py` · **Before this** [07 CCFF](07_ccff.ipynb)
#
# We know both halves of the encoder, AIFI and CCFF. After this notebook you can explain which steps
# led the paper to this design, what each half does in `nano`, and what the decoder receives.

# %% tags=["imports"]
import itertools

import matplotlib.pyplot as plt
import torch
from torch import nn

import rtdetr_lab as lab
from rtdetr_lab.aifi import AIFIConfig
from rtdetr_lab.hybrid_encoder import HybridEncoder, HybridEncoderConfig, MemoryProjection
from rtdetr_lab.notebook import check, chelsea, cost, count_good, online, seeded, shapes, source
from rtdetr_lab.rtdetr import rtdetr_r18, rtdetr_r50, rtdetr_r101
from rtdetr_lab.viz.canvas import heat, scale_bar, show_picture

# %%
generator = seeded()
model = lab.load_pretrained("nano")
encoder = model.encoder
images, targets = shapes(*range(8))  # 320 × 320 pixels

# %% [markdown]
# ## The end, first
#
# The paper's Table 3 compares six encoders with the same decoder (ResNet-50, 12 epochs on COCO,
# milliseconds on a T4 GPU). These are the paper's numbers; we have not measured them.

# %%
# alt: Average precision against milliseconds. A line starts at A in the lower left, goes right
#   through B to C, back left through D to D on S5, and ends at E. E is the highest point, and it is
#   to the left of B, C and D.
table = {"A": (43.0, 7.2), "B": (44.9, 11.1), "C": (45.6, 13.3), "D": (46.4, 12.2)}
table |= {"D on S5": (46.8, 7.9), "E": (47.9, 9.3)}
fig, ax = plt.subplots(figsize=(5.6, 3.2), layout="compressed")
path = list(table.values())
for (y0, x0), (y1, x1) in itertools.pairwise(path):
    ax.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "->", "color": "#888888"})
ap, ms = zip(*path, strict=True)
ax.plot(ms, ap, "o", color="#0072B2")
for name, (y, x) in table.items():
    place = (-16, -16) if "S5" in name else (7, 5)
    ax.annotate(name, (x, y), xytext=place, textcoords="offset points", weight="bold")
ax.set(xlabel="milliseconds on a T4 (Table 3)", ylabel="AP on COCO")
ax.set(xlim=(6.5, 14.5), ylim=(42, 49))
ax.set_title("E: the most accurate, and faster than B, C and D", fontsize=10)
ax.grid(alpha=0.3)

# %% [markdown]
# | variant | within a scale | across scales | M parameters |
# |---|---|---|---:|
# | A | nothing | nothing | 31 |
# | B | attention in each map, the same layer for all | nothing | 32 |
# | C | attention over all tokens at once | the same attention | 32 |
# | D | as B | convolutions, as in PANet | 35 |
# | D on S5 | attention on S5 only | as D | 35 |
# | E | attention on S5 only (AIFI) | CCFF | 42 |
#
# Earlier transformer detectors used C, and deformable attention (notebook 10) to make it cheaper. C
# does two jobs at once. D separates them, and is better and faster. Remember the next step: D on S5
# *leaves out the attention on S3 and S4, where it costs most*. It takes a third less time, **and**
# it is 0.4 AP better. E spends some of the saved time on a stronger fusion: CCFF has the paths of
# PANet (Liu et al. 2018), and more parameters.

# %%
gain = table["D on S5"][0] - table["D"][0], 1 - table["D on S5"][1] / table["D"][1]
print(f"D to D on S5: {gain[0]:+.1f} AP, {gain[1]:.0%} less time")
assert max(table, key=lambda name: table[name][0]) == "E"

# %% [markdown]
# ## The question
#
# So the encoder has two steps, one within a scale and one across scales ($O$: its output maps):
#
# $$ F_5 = \mathrm{AIFI}(S_5), \qquad O = \mathrm{CCFF}(\{S_3, S_4, F_5\}) \tag{08.1} $$
#
# (The paper's Eq. 1 writes AIFI with Q = K = V = flat(S5), without positions; Eq. 06.1 in notebook
# 06 has them, as in the authors' code.) Before both steps every map is projected to $D$ channels:
# AIFI and all blocks of CCFF are built for this one width. Why is attention on the smallest map
# enough?
#
# ## By hand, on 3 × 3 cells
#
# Let S5 have 3 × 3 cells. Then S4 has 6 × 6 and S3 has 12 × 12. How many pairs does each encoder
# compare, and how many steps does it take from one corner of the picture to the opposite one?

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
# A 3 × 3 convolution reaches one cell further. From corner to corner it takes 11 convolutions on
# S3, but a single attention step on S5. In E attention runs first: AIFI reads S5 only, and every
# cell of F5 depends on all cells of S5. Then CCFF's top-down path carries F5 to the finer levels.
# So a cell of O3 depends on the whole of S5, although no cell of S3 takes part in attention.
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
# `aifi=None` in the configuration leaves the first half out (Table 3 has no such row). Any object
# with a method `build(dim, num_levels)` can replace the second half.
#
# ## Look inside: which cell depends on which?
#
# We take the middle cell of O3. Its gradient shows which cells of S5 can change it, with AIFI and
# without.


# %%
def reach():
    """Measure how strongly the middle cell of O3 depends on each cell of S5 (picture 3)."""
    maps = [seen[f"backbone.S{i}"][3:4].clone().requires_grad_() for i in (3, 4, 5)]
    middle = encoder(maps)[0][0, :, 20, 20].square().sum()
    return torch.autograd.grad(middle, maps[2])[0][0].square().sum(0).sqrt()


strengths = {"with AIFI": reach()}
aifi, encoder.aifi = encoder.aifi, nn.Identity()
strengths["without"] = reach()
encoder.aifi = aifi

# %%
# alt: The same scene twice under a grid of 10 by 10 cells. With AIFI cells all over the picture
#   are bright; without it only a few in the middle, and all others are dark.
fig, axes = plt.subplots(1, 2, figsize=(5.6, 3), layout="compressed")
fig.suptitle("the cells of S5 that one cell of O3 (★) depends on", fontsize=10)
for ax, (name, strength) in zip(axes, strengths.items(), strict=True):
    show_picture(ax, images[3], quiet=0.8)
    drawn = heat(ax, strength / strength.max(), (320, 320), vmax=1)
    ax.plot(164, 164, "*", mfc="#56B4E9", mec="black", ms=11)  # the middle cell of O3
    reached = int((strength > 0).sum())
    ax.set_title(f"{name}: {reached} of 100 cells", fontsize=9)
scale_bar(drawn, list(axes), "gradient, of the largest")

# %%
near = strengths["without"] > 0
for name, strength in strengths.items():
    far = (strength[~near].sum() / strength.sum()).item()
    share = (strength > 0).float().mean()
    print(f"{name}: depends on {share:.0%} of S5; {far:.1%} of the strength is far away")
assert (strengths["with AIFI"] > 0).all()
assert near.float().mean() < 0.5
assert strengths["with AIFI"][~near].sum() > 0.4 * strengths["with AIFI"].sum()

# %% [markdown]
# With AIFI the cell depends on the whole of S5. About half of the gradient's strength lies on
# cells that CCFF alone does not reach (printed as "far away"). Does the detector use this?
#
# ## Predict, then break it
#
# We count the good boxes again (score above 0.5, IoU above 0.75) on eight pictures. Notebook 06 has
# shown that `nano` loses almost nothing if $F_5$ is all zeros ("blank"). **Predict** what happens
# if we replace $F_5$ by (a) the $F_5$ of *another picture*, (b) noise of the same size, (c) ten
# times itself. And (d): what if we leave CCFF out, and the decoder reads S3, S4 and F5 directly?


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
# The content of $F_5$ does not matter to `nano`: the $F_5$ of another picture works, and so does
# noise. But the *length* of its feature vectors matters. AIFI ends in a layer norm, which gives the
# $D$ numbers of a cell the mean square 1. So in training the fusion saw only vectors with a length
# near $\sqrt D$. (The length is not exactly $\sqrt D$, because the norm also has a learned scale
# and shift.) Our noise has about the same length. Vectors that are ten times as long dominate S3
# and S4 in the concatenation. So an input that the model does not use can still do harm.
#
# CCFF is different: without it no good box is left. This does not mean that CCFF is the more
# important half *in general*. The decoder was trained on the output of CCFF. If we remove a part
# from a trained model, we learn what this model *relies on*. To learn how much a part *can improve*
# a model, we must train with it and without it, as the paper did above.

# %%
least = counts["untouched"] - 3
assert min(counts["F5 blank"], counts["(a) of another picture"], counts["(b) noise"]) >= least
assert 0 == counts["(d) no CCFF"] < counts["(c) ten times"] < 0.5 * counts["untouched"]

# %% [markdown]
# Which of the output maps does the decoder use? **Predict**. In notebook 05, no good box was left
# without S3, 8 without S4, and 52 without S5. (We set a map to zero after CCFF has computed all
# three. If we edited O3 inside CCFF, O4 and O5 would change as well.)


# %%
def without(level):
    def hook(encoder, inputs, maps):
        return [m * (i != level) for i, m in enumerate(maps)]

    handle = encoder.register_forward_hook(hook)
    with torch.no_grad():
        count = count_good(model(images), targets)
    handle.remove()
    return count


left = {f"no O{i + 3}": without(i) for i in range(3)}
left

# %% [markdown]
# The order is the same. But without O3 some good boxes are left, while without S3 there were none:
# the bottom-up path has already carried the content of S3 to O4.

# %%
assert 0 < left["no O3"] < left["no O4"] < left["no O5"]

# %% [markdown]
# ## What the decoder gets
#
# One more projection gives the maps as many channels as the decoder has. In r101 the encoder has
# 384 channels and the decoder 256. If the decoder is configured for more levels than there are
# maps, the projection adds them. Each added level has half the side of the one before.

# %%
source(MemoryProjection.forward)

# %%
with torch.device("meta"):
    maps = [torch.rand(1, 384, side, side) for side in (80, 40, 20)]
    memory = MemoryProjection((384, 384, 384), 256, num_levels=4)(maps)
print([tuple(m.shape[1:]) for m in memory])
assert memory[-1].shape[-1] == 10

# %% [markdown]
# The cells of these maps, laid end to end, are the *tokens* of the next notebooks. Together
# they are the *memory*: what the queries of the decoder read in cross-attention. Without the
# fourth level there are 8,400 tokens at 640 × 640.
#
# ## What it costs
#
# First we count one attention layer: on S5, on each of the three maps, and on all maps at once.

# %%
with torch.device("meta"):
    layer = AIFIConfig().build(256).layers[0]
    tokens = {k: torch.rand(1, k, 256) for k in (6400, 1600, 400, 8400)}
    work = {k: cost(layer, x, x).flops / 1e9 for k, x in tokens.items()}
each = work[6400] + work[1600] + work[400]
print(f"S5 {work[400]:.1f}, each {each:.1f}, all {work[8400]:.1f} GFLOPs")
assert work[8400] > each > 50 * work[400]

# %% [markdown]
# Then we count the encoders of three models, at 640 × 640:

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
# (The rest of `all` is the projections.) In each of the three models AIFI is less than a twentieth
# of the encoder's work. This is what the transformer encoder has become in a real-time detector: a
# single layer, on the smallest map.
#
# ## Exercises
#
# **1.** At 640 × 640, divide the number of pairs that C compares by that of B. What is the result?

# %%
answer = ...

# %% tags=["solution"]
sides = (80, 40, 20)
check(answer, sum(s**2 for s in sides) ** 2 / sum(s**4 for s in sides), hint="B: 6,400² + …")

# %% [markdown]
# **2.** What percentage of its parameters does r50's encoder lose with `aifi=None`?

# %%
answer = ...

# %% tags=["solution"]
with torch.device("meta"):
    built = [
        cfg.build((512, 1024, 2048))
        for cfg in (HybridEncoderConfig(), HybridEncoderConfig(aifi=None))
    ]
full, without = (sum(p.numel() for p in encoder.parameters()) for encoder in built)
check(answer, 100 * (1 - without / full), hint="Notebook 06 counts AIFI.", tolerance=0.02)

# %% [markdown]
# **3.** A picture has 320 × 320 pixels, and the decoder has four levels. How many tokens are there?

# %%
answer = ...

# %% tags=["solution"]
with torch.no_grad():
    levels = MemoryProjection((96, 96, 96), 96, num_levels=4).eval()(out)
check(answer, sum(m[0, 0].numel() for m in levels), hint="40² + 20² + 10² + …")

# %% [markdown]
# ## With real weights, if there is a network
#
# RT-DETR-R18 was trained on COCO. Does it use its $F_5$?

# %% tags=["varies"]
if online():
    real, photo = lab.load_pretrained("r18"), chelsea((640, 640))
    with torch.no_grad():
        whole = real(photo).logits.sigmoid().max()
        with lab.record(real, keep=[], edit={f5: torch.zeros_like}):
            blank = real(photo).logits.sigmoid().max()
    print(f"best score on the cat: {whole:.2f}, with F5 blank {blank:.2f}")

# %% [markdown]
# **Next**: [09 · Query selection](09_query_selection.ipynb). The encoder returns thousands of
# tokens, but the decoder can afford only a few hundred queries.
