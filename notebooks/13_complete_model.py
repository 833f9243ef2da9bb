# %% [markdown]
# # 13 · The complete model, on any device
#
# **Paper** RT-DETR, Fig. 4, Table 2 · **Chapter** `rtdetr_lab/rtdetr.py` ·
# **Before this** [12 denoising](12_denoising.ipynb)
#
# This notebook ends the core path. Each part had its own notebook. Here we put the parts together,
# first by hand and then with `build()`. We run the model (on a GPU in bfloat16, if there is one),
# count the cost of each part, and train one step. After this notebook you can explain, in order,
# what happens between a picture and a loss.

# %% tags=["imports"]
from functools import partial

import matplotlib.pyplot as plt
import torch
from torch.nn.functional import interpolate

import rtdetr_lab as lab
from rtdetr_lab import rtdetr
from rtdetr_lab.boxes import xyxy_from_cxcywh
from rtdetr_lab.config import diff, replace_at
from rtdetr_lab.notation import tokens_from_maps
from rtdetr_lab.notebook import check, cost, count_found, seeded, shapes, source
from rtdetr_lab.training.optim import adamw, parameter_groups
from rtdetr_lab.viz.boxes import show_boxes
from rtdetr_lab.viz.canvas import new_axes
from rtdetr_lab.viz.palette import LIGHT
from rtdetr_lab.viz.training import layer_losses

# %%
generator = seeded()
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
model = lab.load_pretrained("nano").to(device)
images, targets = shapes(3, 5)
images, targets = images.to(device), targets.to(device)

# %% [markdown]
# ## The end, first
#
# The model gets two pictures at once. No step afterwards removes or merges boxes. We draw the
# queries whose best class has a score above 0.5. (They are not perfect: the model finds the large
# triangle twice, and misses the thin lines.)

# %%
# alt: Two painted scenes. Every shape that was found has a frame and its name. The large triangle
#   has two.
with torch.no_grad():
    prediction = model(images)
names = model.metadata.names
fig, axes = plt.subplots(1, 2, figsize=(5.6, 3.2), layout="compressed")
fig.suptitle("Boxes for two pictures: one comes twice, thin lines are missed", fontsize=11)
pixels = (255 * images).byte().permute(0, 2, 3, 1).cpu().numpy()
for i, ax in enumerate(axes):
    score, label = (v.cpu() for v in prediction.logits[i].sigmoid().max(-1))
    sure = (score > 0.5).nonzero()[:, 0]
    texts = [names[label[q]] for q in sure]
    colors = [LIGHT.color(int(label[q])) for q in sure]
    show_boxes(
        pixels[i], 320 * xyxy_from_cxcywh(prediction.boxes[i, sure]).cpu(), texts, colors, ax
    )

# %% [markdown]
# ## The question
#
# One sentence describes the model: *the backbone makes maps, the hybrid encoder relates them, every
# token proposes a box, the best proposals become queries, the decoder refines them, and no box is
# suppressed afterwards.* Written as functions:
#
# $$ \text{prediction} = \mathrm{decoder}\bigl(\mathrm{select}(\mathrm{propose}(m)),\, m\bigr),
#    \qquad m = \mathrm{encoder}(\mathrm{backbone}(\text{images})) $$
#
# Is this the complete model? We write it down and compare.
#
# ## By hand: six lines
#
# First we count the tokens. A picture of 320 × 320 pixels has maps with strides 8, 16 and 32:

# %%
sides = [320 // stride for stride in model.backbone.strides]
by_hand = sum(side * side for side in sides)
print(f"maps of {sides} cells a side: {by_hand} tokens")

# %%
with torch.no_grad():
    levels = model.to_memory(model.encoder(model.backbone(images)))
    maps = [(m.shape[-2], m.shape[-1]) for m in levels]
    memory = tokens_from_maps(levels)
    proposed = model.proposal_head(memory, maps)
    chosen = model.selection(proposed.tokens, proposed.logits, proposed.box_logits)
    layers = model.decoder(chosen.content, chosen.reference_logits, memory, maps)
assert memory.shape[1] == by_hand
assert torch.equal(layers[-1].boxes, prediction.boxes)
for name, tensor in {
    "memory": memory,
    "content": chosen.content,
    "boxes": prediction.boxes,
}.items():
    print(f"{name:8} {tuple(tensor.shape)}")

# %% [markdown]
# The boxes are equal to the last bit. The real module adds only what training needs:

# %%
source(rtdetr.RTDETR.forward)

# %% [markdown]
# Denoising queries come *before* the matching queries and pass through the same decoder. The mask
# `blocked` keeps the matching queries from reading the answers from them. Without targets, or in
# eval mode, there are no denoising queries.
#
# ## Look inside: five presets are one class
#
# A preset is a value, so we can compare two of them. The medium size differs from r50 in two
# settings:

# %%
diff(rtdetr.rtdetr_r50(), rtdetr.rtdetr_r50_m())

# %% [markdown]
# On torch's `meta` device we can count parameters and operations without memory or weights. Here
# are our numbers and those of the papers, at 640 × 640:

# %%
paper = {"r18": (60.7, 46.5), "r34": (92.7, 48.9), "r50_m": (100.1, 51.3)}
paper |= {"r50": (136, 53.1), "r101": (259, 54.3)}
counted = {}
for name, (gflops, ap) in paper.items():
    with torch.device("meta"):
        preset = getattr(rtdetr, f"rtdetr_{name}")().build().eval()
        counted[name] = cost(preset, torch.empty(1, 3, 640, 640))
    size, ours = counted[name].params / 1e6, counted[name].flops / 1e9
    print(f"{name:6} {size:5.1f} M parameters, {ours:6.1f} GFLOPs (paper {gflops:5}), {ap} AP")

# %%
for name, (gflops, _) in paper.items():
    assert abs(counted[name].flops / 1e9 / gflops - 1) < 0.015

# %% [markdown]
# ## What it costs, part by part
#
# **Predict**, for r50: which needs more operations, the decoder with its six layers, or the encoder
# with one layer of attention and its fusion?

# %%
counted["r50"]

# %%
flops = {name: f for name, _, f in counted["r50"].rows}
assert flops["encoder"] > 4 * flops["decoder"]
assert flops["backbone"] + flops["encoder"] > 0.85 * flops["all"]

# %% [markdown]
# The encoder needs more than four times as many. The decoder does 8 % of the work, because it
# processes 300 queries, while the other parts process pixels or 8,400 tokens. So a *smaller*
# RT-DETR has a smaller backbone and a smaller expansion in the fusion. Leaving out decoder layers
# saves few operations. (But the layers run one after the other, so on a GPU they take more time
# than their operations suggest.)
#
# Our count is about 1 % above the papers' numbers. There is no common rule about what counts as an
# operation.
#
# ## Predict, then break it
#
# A complete model expects a certain input: RGB, values in [0, 1], nothing subtracted. No check of
# shapes can find a wrong input. We try five of them on eight pictures, and count the shapes that
# are found (score and IoU above 0.5).
#
# **Predict** the order, from harmless to fatal: (a) BGR instead of RGB; (b) normalised with the
# mean and standard deviation of ImageNet, as for DETR; (c) values in 0 … 255; (d) the picture
# squeezed to half its height; (e) the picture one and a half times as large.


# %%
def found(images):
    with torch.no_grad():
        return count_found(model(images), many)


scenes, many = shapes(*range(8))
scenes, many = scenes.to(device), many.to(device)

# %%
mean = torch.tensor([0.485, 0.456, 0.406], device=device)[:, None, None]
std = torch.tensor([0.229, 0.224, 0.225], device=device)[:, None, None]
resized = partial(interpolate, mode="bilinear", antialias=True)
inputs = {"as it should be": scenes, "(a) BGR": scenes.flip(1)}
inputs["(b) mean and std"] = (scenes - mean) / std
inputs["(c) 0 … 255"] = scenes * 255
inputs["(d) half as high"] = resized(scenes, (160, 320))
inputs["(e) 480 × 480"] = resized(scenes, (480, 480))
counts = {name: found(batch) for name, batch in inputs.items()}
print(f"of {many.num_boxes} shapes")
counts

# %% [markdown]
# Swapped colours do no harm here, because a shape may have any colour. On photographs you would
# have to measure it. A wrong range of values is worse, and 0 … 255 is fatal without any error. But
# look at (d) and (e): these are the *same* pictures in another size. Nano was trained at 256 px
# only. The 320 px of this notebook are already unusual for it, and at 480 it finds hardly anything.
# RT-DETR trains on 480 to 800 px and runs at exactly 640 × 640; use it in the same way. `Detector`
# and the `preprocess` of a checkpoint do this for you.

# %%
assert counts["(c) 0 … 255"] == 0
assert counts["(e) 480 × 480"] < counts["(d) half as high"] < counts["(b) mean and std"]

# %% [markdown]
# ## One training step
#
# We build a new nano with random weights. On a GPU the model runs in bfloat16 under autocast, while
# matching and losses always run in float32. The proposals, every layer, and the denoising queries
# of every layer have a loss. With three layers this gives seven times three terms.

# %%
torch.manual_seed(0)
fresh = rtdetr.rtdetr_nano(num_classes=10).build().to(device).train()
criterion = fresh.cfg.criterion.build()


def terms_of(model):
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        answer = model(images, targets)
    return criterion(answer, targets)


terms = terms_of(fresh)
loss = torch.stack(list(terms.values())).sum()
print(f"{len(terms)} terms, loss {loss.item():.1f}")
assert len(terms) == 3 * (3 + 1 + 3)

# %%
# alt: Stacked bars of class, l1 and giou loss for proposals, three layers and three denoising
#   layers. The four matched bars are nearly equal. The denoising bars are a little lower, with more
#   class loss and less box loss.
where = ["proposals", "layer0", "layer1", "", "denoising0", "denoising1", "denoising2"]
suffixes = [f".{w}" if w else "" for w in where]
stacks = {t: [terms[t + s].item() for s in suffixes] for t in ("class", "l1", "giou")}
labels = ["proposals", "layer 0", "layer 1", "layer 2", "noised 0", "noised 1", "noised 2"]
ax = layer_losses(stacks, labels, new_axes(None, 3.4, 5.6))
ax.tick_params(axis="x", labelsize=8)
ax.figure.suptitle("Before training no layer improves the box it gets", fontsize=11)

# %% [markdown]
# Before training every layer keeps the box it gets. So the proposals and the three layers have
# almost the same loss. Most of it is box loss, because all tokens propose squares of one size.
# Denoising queries start from boxes that are nearly right, so their box loss is smaller. But at the
# start every class has a score of 0.01. This is wrong for the half of them that are objects, so
# they have most of the class loss.

# %%
optimizer = adamw(parameter_groups(fresh, lr=1e-3, backbone_lr=1e-3, weight_decay=1e-4))
loss.backward()
unreached = [name for name, p in fresh.named_parameters() if p.grad is None]
norm = torch.nn.utils.clip_grad_norm_(fresh.parameters(), 1.0)
optimizer.step()
with torch.no_grad():
    after = torch.stack(list(terms_of(fresh).values())).sum()
print(f"without gradient: {unreached}")
print(f"loss {loss.item():.1f} → {after.item():.1f}")  # may differ: → ± 0.2 of 0.9
assert unreached == []
assert after < loss

# %% [markdown]
# Every parameter has a gradient, and one step on two pictures lowers their loss. The nano of the
# other notebooks was made by some 3,000 such steps, each on other pictures (notebook 15).
#
# ## Exercises
#
# **1.** How many tokens does a picture of 480 × 640 pixels have?

# %%
answer = ...

# %% tags=["solution"]
check(answer, sum((480 // s) * (640 // s) for s in (8, 16, 32)), hint="Cells at strides 8, 16, 32.")

# %% [markdown]
# **2.** How many loss terms does one training step of r50 have, with its six layers?

# %%
answer = ...

# %% tags=["solution"]
deep = replace_at(fresh.cfg, "decoder.num_layers", 6).build().to(device).train()
check(answer, len(criterion(deep(images, targets), targets)), hint="Six, one, and again six.")

# %% [markdown]
# **3.** We halve the side of the pictures, from 320 to 160. What part of its operations does nano
# still need? Is it more or less than a quarter? Answer with a number.

# %%
answer = ...

# %% tags=["solution"]
half, whole = (cost(model, torch.rand(1, 3, n, n, device=device)).flops for n in (160, 320))
check(answer, half / whole, hint="Not everything grows with the picture.", tolerance=0.02)

# %% [markdown]
# **Next**: the core path ends here. [14 · RT-DETRv2](14_rtdetrv2.ipynb) shows what the next version
# changed. [15 · Training](15_training.ipynb) shows how one step becomes a trained detector.
