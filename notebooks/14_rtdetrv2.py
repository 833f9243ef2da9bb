# %% [markdown]
# # 14 · RT-DETRv2: what changes, and what does not
#
# **Paper** RT-DETRv2 §2, Tables 3 and 4 · **Chapters** `rtdetr_lab/rtdetrv2.py`,
# `rtdetr_lab/samplers.py` · **Before this** [13 the complete model](13_complete_model.ipynb)
#
# The second version has more AP at the same speed, and yet it is the same network. After this
# notebook you can explain where the gain comes from, what the two new options are, and what each of
# them costs.

# %% tags=["imports"]
import matplotlib.pyplot as plt
import numpy as np
import torch

import rtdetr_lab as lab
from rtdetr_lab import rtdetr, rtdetrv2
from rtdetr_lab.config import diff
from rtdetr_lab.data.augment import Place, paper_augmentation, v2_augmentation
from rtdetr_lab.deformable_attention import DeformableAttention
from rtdetr_lab.notebook import check, cost, count_found, seeded, shapes, source
from rtdetr_lab.rtdetrv2 import discrete, with_points
from rtdetr_lab.samplers import Bilinear, Discrete, SamplingPlan
from rtdetr_lab.training import paper, v2

# %%
generator = seeded()
v1 = lab.load_pretrained("nano")
images, targets = shapes(*range(12))

# %% [markdown]
# ## The end, first
#
# We compare the training of v1 and v2: 72 epochs each. A dot is the size of the pictures of one
# step. The shading shows where the pictures are plain, that is without distorted colours, crop and
# zoom-out. In the code this difference is easy to miss.

# %%
# alt: Size of the pictures over the epochs 66 to 72, a dot per step, for v1 and v2. Both jump
#   between 480 and 800. v1 does so to the end; v2 stays at 640 in the last two epochs.
recipes = {"v1": paper_augmentation(), "v2": v2_augmentation()}
epochs = np.arange(66, 72, 0.02)
fig, axes = plt.subplots(2, 1, figsize=(5.6, 3.4), sharex=True, layout="compressed")
fig.suptitle("v2 ends with two epochs of plain pictures of one size", fontsize=11)
for ax, (name, recipe) in zip(axes, recipes.items(), strict=True):
    places = [Place(0, 0, step, epoch / 72) for step, epoch in enumerate(epochs)]
    sides = [recipe.size_at(place)[0] for place in places]
    ax.plot(epochs, sides, ".", ms=2, color="#0072B2")
    ax.set(ylabel="side (pixels)", ylim=(440, 840), yticks=(480, 640, 800))
    ax.set_title(name, fontsize=10, loc="left")
    plain = [e for e, p in zip(epochs, places, strict=True) if not recipe.is_strong(p)]
    ax.axvspan(min(plain, default=72), 72, color="#E69F00", alpha=0.25 * bool(plain))
axes[1].annotate("plain pictures", (71, 760), ha="center", va="center")
axes[-1].set_xlabel("epoch")
assert plain[0] >= 70
assert set(sides[-100:]) == {640}

# %% [markdown]
# ## The question
#
# v2-S has 47.9 AP, RT-DETR-R18 has 46.5, at the same speed. What is different in the network?

# %%
print(diff(rtdetr.rtdetr_r18(), rtdetrv2.rtdetrv2_r18()))

# %% [markdown]
# Nothing. The paper calls its changes a bag of freebies. They are a better **training scheme**
# (§2.2) and two options for how the decoder reads (§2.1). First, a head may have a different number
# $K_l$ of points on each level $l$. Eq. 10.1 already divides by it, so point $k$ of head $m$ lies
# at $p_{mk} = c + \frac{o_{mk}}{K_l} \cdot \frac{(w, h)}{2}$. Second, a point may read one whole
# cell instead of a mixture of four.
#
# ## By hand, on 3 × 3 cells
#
# Take nine cells with the values 0 … 8. Cell $i$ of three covers the range from $i/3$ to $(i+1)/3$.
# The point (0.6, 0.45) is in column $\lfloor 0.6 \cdot 3 \rfloor = 1$ and row
# $\lfloor 0.45 \cdot 3 \rfloor = 1$. This is cell 4.

# %%
value = torch.arange(9.0).reshape(1, 9, 1, 1)
point = torch.tensor([0.6, 0.45]).reshape(1, 1, 1, 1, 2)
plan = SamplingPlan(point, torch.ones(1, 1, 1, 1))
reads = {"bilinear": Bilinear(), "discrete": Discrete(), "discrete, references": Discrete(0.5)}
for name, sampler in reads.items():
    print(f"{name:21} {sampler(value, [(3, 3)], [1], plan).item():.2f}")
by_hand = int(0.45 * 3) * 3 + int(0.6 * 3)
assert by_hand == Discrete().cells(point, [(3, 3)], [1]).item() == 4

# %% [markdown]
# Bilinear sampling starts from cell 4, adds 0.3 for the way to the right and subtracts 0.15 · 3 for
# the way up. Both reference implementations add ½ before they round down. So they read the cell
# *after* the one that contains the point, except for points in the first half of their cell. Here
# they read column 2. Their checkpoints were fine-tuned in this way, and need `shift=0.5`. Ours
# reads the cell that contains the point.
#
# ## The real module

# %%
source(with_points)

# %%
source(discrete)

# %%
source(Discrete.cells)

# %% [markdown]
# ## Look inside: v2 is v1
#
# We build a v2 model with four points on each level, and load the weights of v1:

# %%
twin = with_points(v1.cfg, (4, 4, 4)).build().eval()
twin.load_state_dict(v1.state_dict())
given = []
hook = v1.decoder.register_forward_pre_hook(lambda _, inputs: given.extend(inputs))
with torch.no_grad():
    one, two = v1(images), twin(images)
hook.remove()
print(f"largest difference: {(one.boxes - two.boxes).abs().max().item()}")
assert torch.equal(one.boxes, two.boxes)
assert torch.equal(one.logits, two.logits)

# %% [markdown]
# The outputs are equal to the last bit. So with equal points and bilinear sampling, a difference in
# AP comes from *training*. Here are the differences between the recipes, for 72 epochs of COCO's
# 118,287 pictures:

# %%
differences = {}
for name in ("r18", "r34", "r50", "r101"):
    cfg = getattr(rtdetrv2, f"rtdetrv2_{name}")()
    differences[name] = diff(paper(72 * 118_287), v2(cfg, 72 * 118_287))
    rate = differences[name].get("backbone_lr", ("same", 1e-5))
    print(f"{name:5} backbone rate, v1 and v2: {rate}")
print("and:", sorted(differences["r18"]))
assert set(differences["r50"]) == {"augment.until"}

# %% [markdown]
# A smaller backbone gets a higher learning rate. This, and two epochs of plain pictures at the end,
# is the training scheme. With it R18 has 1.4 AP more than in v1, R50 has 0.3 more, and R101 has no
# more.
#
# ## Predict, then break it: fewer points
#
# In Table 3 the paper trains v2-S with 4, 3, 2 and 1 points per level: 47.9, 47.8, 47.7, 47.3 AP.
# So do points hardly matter? We take a *trained* nano and keep only the first points of each level.
#
# **Predict**: how many of 95 shapes does it still find with `(4, 2, 1)` points, and how many with
# `(1, 2, 4)`? Both are seven points. And with one point per level? (*Found* needs an IoU above 0.5,
# *tight* one above 0.9.)


# %%
def tally(answer):
    found, tight = (count_found(answer, targets, overlap) for overlap in (0.5, 0.9))
    return {"found": found, "tight": tight}


def first_points(tensor, points, width):
    """Keep the first `points[l]` rows of each level l of a 6-head, 3 × 4-point projection."""
    rows = [4 * level + k for level, count in enumerate(points) for k in range(count)]
    scale = torch.cat([torch.full((n,), n / 4 if width == 2 else 1.0) for n in points])
    kept = tensor.unflatten(0, (6, 12, width))[:, rows]
    return (kept * scale.view(1, -1, *[1] * (kept.ndim - 2))).flatten(0, 2)


# %% [markdown]
# Eq. 10.1 divides by $K_l$. The factor $K_l / 4$ cancels the change, so every point that we keep
# stays where it was.


# %%
def thinned(points):
    model = with_points(v1.cfg, points).build().eval()
    weights = dict(v1.state_dict())
    for name, tensor in weights.items():
        for layer, width in {"sampling_offsets": 2, "attention_weights": 1}.items():
            if f"cross_attn.{layer}." in name:
                weights[name] = first_points(tensor, points, width)
    model.load_state_dict(weights)
    with torch.no_grad():
        return tally(model.decoder(*given)[-1])


choices = [(4, 4, 4), (3, 3, 3), (4, 2, 1), (1, 2, 4), (2, 2, 2), (1, 1, 1)]
kept = {points: thinned(points) for points in choices}
for points, counts in kept.items():
    print(points, f"{sum(points) * 6 * 3 * 100:6,} points a picture:", counts)

# %% [markdown]
# A trained model that loses points is not the same as a model that is trained with few points. The
# four models of the paper learned to work with their points; ours lost points that it relied on.
# But the pattern is informative. With three points per level nano still finds as many shapes as
# before, with one point only a third of them. *Which* level loses its points matters more than how
# many are lost: these shapes are small, and nano finds them on S3. This is the use of one number
# per level. v1 does not have this option.

# %%
assert kept[4, 4, 4] == tally(one)
assert kept[4, 2, 1]["found"] > 2 * kept[1, 2, 4]["found"]

# %% [markdown]
# ## Predict, then break it: one cell instead of four
#
# We use discrete sampling with weights that were trained with bilinear sampling. **Predict**: does
# the model lose shapes, or do the boxes become less tight? Does the `shift` of the references, half
# a cell, matter?

# %%
gathered = {"bilinear": tally(one)}
for name, shift in {"discrete": 0.0, "discrete, shifted": 0.5}.items():
    model = discrete(v1.cfg, shift).build().eval()
    model.load_state_dict(v1.state_dict())
    with torch.no_grad():
        gathered[name] = tally(model.decoder(*given)[-1])
for name, counts in gathered.items():
    print(f"{name:18}", counts)

# %% [markdown]
# The model finds ten shapes fewer, but the number of tight boxes falls from 64 to 36. A cell of S5
# is 32 pixels wide. So reading one whole cell instead of a mixture of four is wrong by up to 16
# pixels. With the shift nearly all boxes stop being tight: every point now reads half a cell
# further to the right and down, and every box follows. A checkpoint that was fine-tuned *with* the
# shift is used to it, and is just as wrong without it. Therefore the configuration states the
# shift.

# %%
assert gathered["discrete"]["tight"] < 0.7 * gathered["bilinear"]["tight"]
assert gathered["discrete, shifted"]["tight"] <= 2

# %% [markdown]
# The paper therefore fine-tunes a bilinear model with discrete sampling. AP falls from 47.9 to 47.4
# (Table 4), but the model no longer needs `grid_sample`, which many accelerators lack. A gather has
# no derivative with respect to its index, so the offsets cannot learn. We freeze them, because
# otherwise weight decay would shrink them.

# %%
frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
print(len(frozen), "frozen:", sorted({name.split("cross_attn.")[1] for name in frozen}))
assert all("sampling_offsets" in name for name in frozen)

# %% [markdown]
# ## What it costs
#
# With fewer points, the projections to offsets and weights become smaller. This saves almost
# nothing:

# %%
content, boxes = torch.randn(1, 300, 256), torch.rand(1, 300, 4)
memory, maps = torch.randn(1, 8400, 256), [(80, 80), (40, 40), (20, 20)]
flops = {}
for points in [(4, 4, 4), (4, 2, 1), (1, 1, 1)]:
    attention = DeformableAttention(256, 8, points)
    flops[points] = cost(attention, content, boxes, memory, maps).flops
    print(points, f"{flops[points] / 1e6:,.0f} MFLOPs per layer")
assert flops[1, 1, 1] > 0.9 * flops[4, 4, 4]

# %% [markdown]
# These numbers do not count the reading itself. But the reading is what fewer points save: on
# devices with slow scattered reads, the time depends on the number of points.
#
# ## Exercises
#
# **1.** v2-S has 300 queries, 8 heads and 3 layers. How many points does it read for one picture
# with `(4, 2, 1)` points per level?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 300 * 8 * 3 * (4 + 2 + 1), hint="Table 3 has 86,400 for (4, 4, 4).")

# %% [markdown]
# **2.** A map has 2 rows and 6 columns. Which cell does discrete sampling read at the point
# `(0.9, 0.5)`? Count the cells row by row from 0.

# %%
answer = ...

# %% tags=["solution"]
where = torch.tensor([0.9, 0.5]).reshape(1, 1, 1, 1, 2)
check(answer, Discrete().cells(where, [(2, 6)], [1]).item(), hint="Row 1, column 5.")

# %% [markdown]
# **3.** We keep v1's weights for the first two of four points on each level, but forget the factor
# $K_l / 4$. Do the points move "closer" to the centre of the box, or "farther" away?

# %%
answer = ...

# %% tags=["solution"]
offset, right, wrong = 1.0, 1.0 / 4, 1.0 / 2
check(answer, "farther" if wrong > right else "closer", hint="The offset is divided by K.")

# %% [markdown]
# **Next**: [15 · Training](15_training.ipynb). The difference is in the training. So what happens
# there?
