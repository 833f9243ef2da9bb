# %% [markdown]
# # 01 · Boxes: what is a box, and how far is it from another?
#
# **Paper** GIoU: Rezatofighi et al. 2019, Eq. 2; refinement in logit space: Deformable DETR §A.2 ·
# **Chapter** `rtdetr_lab/boxes.py` · **Before this** [00 tour](00_tour.ipynb)
#
# To train a box, a detector must answer two questions: how much do two boxes overlap, and in which
# direction would they overlap more? After this notebook you can explain why IoU is not enough for
# the second question, and why boxes are moved in logit space.

# %% tags=["imports"]
import matplotlib.pyplot as plt
import torch

from rtdetr_lab.boxes import (
    cxcywh_from_xyxy,
    giou,
    inverse_sigmoid,
    iou,
    paired_giou,
    paired_iou,
    xyxy_from_cxcywh,
)
from rtdetr_lab.notebook import check, milliseconds, seeded, shapes, source
from rtdetr_lab.viz.canvas import show_picture
from rtdetr_lab.viz.marks import frame_box, key_below, line_key
from rtdetr_lab.viz.palette import BLUE, ORANGE

# %%
generator = seeded()
images, targets = shapes(7)

# %% [markdown]
# ## The end, first
#
# A box slides from left to right over a fixed one. IoU stays at zero until they touch. GIoU grows
# from the start, while the box is still coming closer.

# %%
# alt: Two curves over the position of a sliding box. IoU is zero, rises to one where the boxes
#   coincide, and falls back to zero. GIoU starts at minus 0.33 and rises all the way to the same
#   peak.
fixed = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
centres = torch.linspace(0.1, 0.9, 161)
sliding = fixed.repeat(161, 1)
sliding[:, 0] = centres
pairs = xyxy_from_cxcywh(sliding), xyxy_from_cxcywh(fixed)
fig, ax = plt.subplots(figsize=(5.6, 2.6), layout="compressed")
ax.plot(centres, paired_iou(*pairs), color=BLUE, label="IoU")
ax.plot(centres, paired_giou(*pairs), color=ORANGE, ls="--", label="GIoU")
ax.set(
    xlabel="centre of the sliding box (share of the width)", ylabel="overlap", ylim=(-0.75, 1.05)
)
ax.set_title("where boxes do not touch, only GIoU says how far", fontsize=10)
ax.legend(frameon=False)

# %% [markdown]
# ## The question
#
# How good is a box? The usual answer is the **intersection over union** of two boxes $A$ and $B$.
# Average precision is computed from it:
#
# $$ \mathrm{IoU} = \frac{|A \cap B|}{|A \cup B|} \tag{01.1} $$
#
# A network can *learn* from it only where it has a gradient, and there is none where boxes do not
# touch. **Generalised IoU** (GIoU) therefore subtracts a second term. This is the empty share of
# $E$, the smallest box around both:
#
# $$ \mathrm{GIoU} = \mathrm{IoU} - \frac{|E| - |A \cup B|}{|E|} \tag{01.2} $$

# %% [markdown]
# ## By hand, on 3 × 3 cells
#
# Take two squares of 2 × 2 cells in opposite corners of a 3 × 3 grid. They share one cell and cover
# seven. The box around both is the whole grid of nine cells.

# %%
a = torch.zeros(3, 3, dtype=torch.bool)
a[:2, :2] = True
b = a.flip(0, 1)
shared, covered, around = int((a & b).sum()), int((a | b).sum()), 9
by_hand = shared / covered, shared / covered - (around - covered) / around
print(f"IoU = {shared}/{covered} = {by_hand[0]:.4f},  GIoU = {by_hand[1]:.4f}")

# %% [markdown]
# Now the same with coordinates. Corners are `(left, top, right, bottom)`, and such names end in
# `_xyxy`. Every other box in this package is `(centre x, centre y, width, height)`, as fractions of
# the picture.

# %%
a_xyxy, b_xyxy = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]])
assert torch.isclose(iou(a_xyxy, b_xyxy), torch.tensor(by_hand[0]))
assert torch.isclose(giou(a_xyxy, b_xyxy), torch.tensor(by_hand[1]))
cxcywh_from_xyxy(a_xyxy)

# %% [markdown]
# ## The real module
#
# Five lines do the work. The intersection goes from the `maximum` of the low corners to the
# `minimum` of the high corners. With `clamp(min=0)`, two boxes that do not touch share nothing.

# %%
source(paired_giou)

# %% [markdown]
# `iou` and `giou` compare every box of one set with every box of another. The matching of notebook
# 03 uses this matrix. `paired_iou` and `paired_giou` compare first with first, second with second.
# A loss needs this. Both kinds run the same code, with different broadcasting.
#
# ## Look inside
#
# Here are a painted picture, its boxes, and the matrix of their IoUs. The diagonal is one, because
# every box equals itself. Off the diagonal, large values mark pairs that cover each other.

# %%
# alt: A picture of six shapes with a frame around each, and beside it a six by six matrix of IoU
#   values, which are one on the diagonal and small elsewhere.
objects = targets.boxes[0]
matrix = iou(xyxy_from_cxcywh(objects), xyxy_from_cxcywh(objects))
fig, (left, right) = plt.subplots(1, 2, figsize=(5.6, 2.7), layout="compressed")
fig.suptitle("boxes that share pixels have an IoU above zero", fontsize=10)
size = show_picture(left, images[0], quiet=0.5)
for number, box in enumerate(objects):
    frame_box(left, box, size, ORANGE)
    left.text(box[0] * size[1], box[1] * size[0], number, color="white", ha="center", va="center")
drawn = right.imshow(matrix, cmap="inferno", vmin=0, vmax=1)
right.set(xlabel="number of a box", xticks=range(6), yticks=range(6))
fig.colorbar(drawn, ax=right, fraction=0.046, label="IoU")

# %%
off_diagonal = matrix - torch.eye(len(objects))
print(f"{len(objects)} objects, largest IoU of two different ones: {off_diagonal.max():.2f}")
assert torch.equal(matrix, matrix.T)

# %% [markdown]
# ## Predict, then break it
#
# Gradient descent moves a box towards another box that it does not touch. The loss is first
# $1 - \mathrm{IoU}$, then $1 - \mathrm{GIoU}$.
#
# **Predict**: where is the box after 300 steps with IoU? With GIoU, does the box keep its size
# while it moves?

# %%
goal = torch.tensor([[0.7, 0.6, 0.2, 0.3]])
start = torch.tensor([[0.2, 0.3, 0.15, 0.15]])


def descend(overlap, steps=300, rate=0.1):
    box_logits = inverse_sigmoid(start).requires_grad_()
    trail = [start]
    for step in range(steps):
        box = box_logits.sigmoid()
        loss = 1 - overlap(xyxy_from_cxcywh(box), xyxy_from_cxcywh(goal)).sum()
        (slope,) = torch.autograd.grad(loss, box_logits)
        pace = rate * (1 - step / steps)  # smaller and smaller steps, so that the box can settle
        box_logits = (box_logits - pace * slope).detach().requires_grad_()
        trail.append(box_logits.sigmoid().detach())
    return torch.cat(trail)


# %%
# alt: Two panels. With IoU the box stays where it started, far from its goal. With GIoU it moves,
#   grows on the way, and ends on its goal.
trails = {"IoU": descend(paired_iou), "GIoU": descend(paired_giou)}
fig, axes = plt.subplots(1, 2, figsize=(5.6, 3.1), layout="compressed")
for ax, (name, trail) in zip(axes, trails.items(), strict=True):
    show_picture(ax, torch.full((3, 100, 100), 0.92))
    frame_box(ax, goal[0], (100, 100), BLUE, "--", 2)
    for step in (0, 40, 80, 100, 300) if name == "GIoU" else (300,):
        frame_box(ax, trail[step], (100, 100), ORANGE, width=0.8 + step / 150)
        x, y, w, h = 100 * trail[step]
        ax.text(x - w / 2 + 1, y + h / 2 - 1, step, fontsize=8, color="black")
    reached = paired_iou(xyxy_from_cxcywh(trail[-1:]), xyxy_from_cxcywh(goal)).item()
    ax.set_title(f"loss 1 − {name}: ends at IoU {reached:.2f}")
key_below(list(axes), [line_key("the box, and its step", ORANGE), line_key("its goal", BLUE, "--")])

# %%
assert torch.allclose(trails["IoU"][-1:], start, atol=1e-6), "the box does not move at all"
final = xyxy_from_cxcywh(trails["GIoU"][-1:])
assert paired_iou(final, xyxy_from_cxcywh(goal)).item() > 0.99
areas = trails["GIoU"][:, 2] * trails["GIoU"][:, 3]
print(f"area: {areas[0]:.3f} at the start, {areas.max():.3f} at most, {areas[-1]:.3f} at the end")
assert areas.max() > 1.2 * areas[-1]

# %% [markdown]
# With IoU nothing happens: the gradient is exactly zero. With GIoU the box moves. On the way it
# grows *larger than its goal*, because a larger box fills the empty part of $E$ just as a nearer
# box does. It shrinks to fit only after the two overlap. This detour is one reason why every loss
# here combines GIoU with L1, whose gradient points straight at the goal (notebook 04).
#
# ## Why logits?
#
# A decoder layer moves a coordinate by adding a step $\Delta$ to its **logit**:
# $\hat b = \sigma(\Delta + \sigma^{-1}(b))$. Near the border the same $\Delta$ moves the coordinate
# less, so the coordinate never leaves (0, 1). The inverse is clamped. Without the clamp, the logit
# of an edge at exactly 0 would stay infinite forever:
#
# $$ \sigma^{-1}(x) = \log \frac{\max(x, \epsilon)}{\max(1 - x, \epsilon)}, \qquad
#    \epsilon = 10^{-5} \tag{01.3} $$

# %%
x = torch.tensor([0.0, 0.02, 0.5, 0.98, 1.0])
moved = (inverse_sigmoid(x) + 1.0).sigmoid()
print("logits:", inverse_sigmoid(x))
print("all moved by 1:", moved)
assert bool((moved > x).logical_or(x == 1).all())
assert bool((moved <= 1).all())

# %% [markdown]
# ## What it costs
#
# A box is four numbers. One picture needs a matrix of, for example, 300 queries and 50 objects.

# %% tags=["varies"]
queries = xyxy_from_cxcywh(torch.rand(300, 4, generator=generator))
crowd = xyxy_from_cxcywh(torch.rand(50, 4, generator=generator))
print(f"GIoU of 300 × 50 boxes: {milliseconds(lambda: giou(queries, crowd)):.2f} ms")

# %% [markdown]
# ## Exercises
#
# **1.** Two squares with side 1 share a whole edge. What is their GIoU?

# %%
answer = ...

# %% tags=["solution"]
one, two = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 0, 2, 1]])
check(answer, giou(one, two).item(), hint="What is shared, what is covered, what lies around?")
check(answer, giou(one, two).item(), hint="How large are intersection, union, and the box around?")
# %% [markdown]
# **2.** A predicted box has the right centre, but both sides are 10 % too long. What is its IoU
# with the object? (Detectors are evaluated at IoU 0.5, 0.55 … 0.95.)

# %%
answer = ...

# %% tags=["solution"]
true, loose = torch.tensor([[0.5, 0.5, 0.2, 0.2]]), torch.tensor([[0.5, 0.5, 0.22, 0.22]])
check(answer, iou(xyxy_from_cxcywh(true), xyxy_from_cxcywh(loose)).item(), hint="Areas: 1 / 1.1².")

# %% [markdown]
# **3.** The boxes of a 10-pixel square and a 100-pixel square are both predicted 2 pixels too far
# to the right. What are the two IoUs? Answer with a pair.

# %%
answer = ...

# %% tags=["solution"]
sides = torch.tensor([10.0, 100.0])
zero = torch.zeros(2)
there = torch.stack([zero, zero, sides, sides], dim=-1)
overlaps = paired_iou(there, there + torch.tensor([2.0, 0.0, 2.0, 0.0]))
check(answer, overlaps.tolist(), hint="The same two pixels are 20 % of one and 2 % of the other.")

# %% [markdown]
# The third answer shows why small objects are hard: two pixels cost the small square a third of its
# IoU.
#
# **Next**: [02 · DETR](02_detr.ipynb). It predicts a hundred boxes at once, and no later step has
# to clean up.
