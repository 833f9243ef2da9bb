# %% [markdown]
# # 00 · Tour: five minutes from a picture to the inside of a detector
#
# **Paper** RT-DETR, Fig. 4 · **Code** `rtdetr_lab/detector.py`, `rtdetr_lab/rtdetr.py` ·
# **You need** PyTorch, nothing else
#
# A real-time detection transformer finds objects with a few hundred **queries**. A query is a slot
# that returns one box, one class and one score. This notebook shows what goes in, what comes out,
# and how to look at every step between. The other notebooks explain the parts one by one.

# %% tags=["imports"]
import matplotlib.pyplot as plt
import torch

import rtdetr_lab as lab
from rtdetr_lab.notebook import check, chelsea, cost, count_hits, online, seeded, shapes
from rtdetr_lab.viz.cells import level_name
from rtdetr_lab.viz.life import life_of_query
from rtdetr_lab.viz.refinement import draw_life
from rtdetr_lab.viz.sampling import close_up, sampling_of_query, sampling_panels

# %%
generator = seeded()

# %% [markdown]
# ## Detect
#
# `nano` is part of the package. It has 1.6 million parameters and was trained on painted shapes, so
# it needs no download. It knows ten shapes and nothing else, and it makes mistakes, as you will
# see.

# %%
# alt: A painted scene with shapes. Each shape that nano found has a box with its name and score.
painted, targets = shapes(3)
picture = (painted[0] * 255).byte()
detector = lab.Detector.from_pretrained("nano", "cpu")
found = detector(picture, threshold=0.5)
fig, ax = plt.subplots(figsize=(4, 4.2), layout="compressed")
ax = found.plot(ax)
ax.set_title(f"{len(found)} objects found, each with a name and a score", fontsize=11)

# %%
found

# %%
truth = [detector.classes.names[label] for label in targets.labels[0].tolist()]
print("really there:", ", ".join(sorted(truth)))
print("found:       ", ", ".join(sorted(found.names)))
assert len(found) >= len(truth) - 1

# %% [markdown]
# Each row is a box in pixels, a score and a name. No later step removes duplicates. Instead, the
# queries agree on which query takes which object. Notebooks 03 (matching) and 11 (decoder) explain
# how they learn it.
#
# ## One picture, six parts
#
# ```
# picture ─ backbone ─ S3 S4 S5 ─ encoder ─ tokens ─ proposals ─ the best ─ decoder ─ boxes, classes
#           (05)                  (06–08)            (09)                   (10, 11)
# ```
#
# The numbers in brackets are notebooks. The next cell counts the parameters of each part, and its
# operations for one picture:

# %%
model = detector.model
images = detector.preprocess.batch([found.image])  # 256 × 256, as nano was trained
total = cost(model, images)
total

# %%
assert total.params < 2_000_000
assert [name for name, *_ in total.rows][:2] == ["backbone", "encoder"]

# %% [markdown]
# ## Look inside
#
# We can record any named quantity while the model runs, without changing the model. Here are a few
# of them with their shapes (B pictures, Q queries, M heads, P sampling points):

# %%
with torch.no_grad(), lab.record(model) as seen:
    prediction = model(images)
for name in list(seen)[:3] + [n for n in seen if "layers.2.cross" in n or "selection" in n]:
    print(f"{name:42} {tuple(seen[name].shape)}")

# %% [markdown]
# ### The life of a query
#
# We follow the query behind the best detection. It began as one cell of one feature map, and the
# class score of this cell was sixth among 1,344 tokens. The cell proposed a box, but classified the
# triangle as a diamond. Each of the three decoder layers moved the box and scored it again.

# %%
# alt: Left, the picture with the token's cell, the reference box and the box after each layer; the
#   boxes get closer to a shape. Right, the class score after each step.
maps = [(32, 32), (16, 16), (8, 8)]  # strides 8, 16, 32
best = int(found.queries[0])
life = life_of_query(prediction, seen, maps, best)
fig, axes = plt.subplots(1, 2, figsize=(4.8, 3.4), layout="constrained", width_ratios=(2.2, 1))
draw_life(life, images[0], detector.classes.names, axes)
fig.suptitle("One query: a cell proposes a box, three layers correct it", fontsize=11)

# %%
level, row, column = life.cell
print(f"token {life.token}: {level_name(maps[level], (256, 256))}, row {row}, column {column}")
print("score after each step:", [round(s, 2) for s in life.scores.tolist()])
assert abs(life.score - found.scores[0].item()) < 1e-5, "the last layer gives the detection"

# %% [markdown]
# ### Where it looks
#
# A query never reads the whole picture. In each layer it reads a few points around its box: 6
# heads, 3 levels, 4 points each. A larger mark means a larger weight.

# %%
# alt: Two close-ups of the picture, for the first and the last decoder layer. Marks around the
#   reference box show the sampling points of the query. Their size is the attention weight, their
#   colour the level.
ends = {"first layer": 0, "last layer": 2}
looks = {n: sampling_of_query(seen, i, best, points=(4, 4, 4)) for n, i in ends.items()}
view = close_up(list(looks.values()), (256, 256))
fig, axes = plt.subplots(1, 2, figsize=(4.8, 3.1), layout="compressed")
sampling_panels(looks, images[0], view=view, axes=axes)
fig.suptitle("A query reads points in and around its box", fontsize=11)

# %%
weights = seen["decoder.layers.2.cross_attn.weights"][0, best]
print(f"{weights.numel()} points; the weights of a head sum to {weights.sum(-1)[0]:.4f}")
assert torch.allclose(weights.sum(-1), torch.ones(6), atol=1e-5)

# %% [markdown]
# ### Look for yourself
#
# In a running notebook, click an object, or focus the picture and use the arrow keys. Everything
# you see comes from the one run above. `rtdetr-lab explore IMAGE` writes the same view as a page.

# %%
explored = lab.explore(detector, picture, most=30)
explored

# %% [markdown]
# ## Predict, then break it
#
# We can also *edit* what we record. But first we read the boxes of the layers before the last.
# **Predict**: does layer 0 find the same objects, only with looser boxes? Or does it find other
# objects?

# %%
for number, layer in enumerate(prediction.layers):
    sure = layer.logits[0].sigmoid().amax(-1) > 0.5
    names = [detector.classes.names[i] for i in layer.logits[0, sure].argmax(-1).tolist()]
    print(f"layer {number}: {len(names):2} above 0.5:", ", ".join(sorted(names)))

# %% [markdown]
# Every layer has its own heads and its own loss, so every layer is already a detector. Later layers
# are more precise. Therefore RT-DETR can run with fewer layers than it was trained with.
#
# Now we break it. Queries exchange information through self-attention. We prevent it in all layers:
# every query may attend to itself only. Then we count on eight pictures.
#
# **Predict**: what goes wrong when queries cannot attend to each other? Does the model miss shapes,
# or does something else happen?


# %%
def found_and_repeated(prediction, targets):
    """Count shapes with a good box (score and IoU above 0.5), and extra good boxes on them."""
    hits = count_hits(prediction, targets)
    return int((hits > 0).sum()), int((hits - 1).clamp(min=0).sum())


# %%
def only_itself(weights):
    return torch.eye(weights.shape[-1]).expand_as(weights)


many, truths = shapes(*range(8))
many = torch.nn.functional.interpolate(many, (256, 256), mode="bilinear", antialias=True)
edit = {f"decoder.layers.{i}.self_attn.weights": only_itself for i in range(3)}
with torch.no_grad():
    together = found_and_repeated(model(many), truths)
    with lab.record(model, edit=edit):
        alone = found_and_repeated(model(many), truths)
print(f"{truths.num_boxes} shapes; (found, repeated): {together} together, {alone} alone")

# %% [markdown]
# Both happen. The model misses some shapes, but above all it finds shapes two or three times.
# Through self-attention the queries agree on which query takes which object. Therefore no later
# step has to remove duplicates.

# %%
assert alone[1] > 5 * together[1]
assert alone[0] < together[0]

# %% [markdown]
# ## Exercises
#
# **1.** What percentage of the 1,344 tokens lies on the coarsest level (8 × 8)?

# %%
answer = ...

# %% tags=["solution"]
check(answer, 100 * 8 * 8 / 1344, hint="1,344 = 32 × 32 + 16 × 16 + 8 × 8.")

# %% [markdown]
# **2.** How many points does one query read from the feature maps in all three layers together?
# Count the points of all heads and levels.

# %%
answer = ...

# %% tags=["solution"]
names = [f"decoder.layers.{i}.cross_attn.weights" for i in range(3)]
check(
    answer, sum(seen[n][0, best].numel() for n in names), hint="6 heads × 3 levels × 4 points × …"
)

# %% [markdown]
# **3.** `found` has the detections above 0.5. How many more are there with the threshold at 0.3?

# %%
answer = ...

# %% tags=["solution"]
check(answer, len(detector(picture, threshold=0.3)) - len(found), hint="Call the detector again.")

# %% [markdown]
# ## With real weights, if there is a network
#
# Here RT-DETR-R18, which was trained on COCO's 80 classes, detects objects in a photograph.

# %% tags=["varies"]
if online():
    real = lab.Detector.from_pretrained("r18")
    print(real((chelsea((480, 640))[0] * 255).byte()))

# %% [markdown]
# **Next**: [01 · Boxes](01_boxes.ipynb) starts from the basics. If you know DETR already, go on
# with [09 · Query selection](09_query_selection.ipynb), the first new idea of RT-DETR.
