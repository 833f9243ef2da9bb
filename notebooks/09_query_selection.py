# %% [markdown]
# # 09 · Query selection: which tokens deserve a decoder slot?
#
# **Paper** RT-DETR §4.3, Eq. 2 and 3 · **Chapter** `rtdetr_lab/query_selection.py` ·
# **Before this** [08 hybrid encoder](08_hybrid_encoder.ipynb)
#
# The encoder hands over thousands of tokens, the decoder can afford a few hundred. Afterwards you
# can say why there is a choice at all *before* the decoder, and what makes the score it is based
# on aware of the box.

# %%
import matplotlib.pyplot as plt
import torch

import rtdetr_lab as lab
from rtdetr_lab.boxes import inverse_sigmoid
from rtdetr_lab.notebook import check, chelsea, cost, count_found, online, seeded, shapes, source
from rtdetr_lab.query_selection import QuerySelection, TopScore, anchors
from rtdetr_lab.viz.queries import best_iou, proposal_scatter, selected_tokens

generator = seeded()
model = lab.load_pretrained("nano")
images, targets = shapes(3)
objects = targets.boxes[0]
maps = [(40, 40), (20, 20), (10, 10)]  # a 320 px picture at strides 8, 16, 32

# %% [markdown]
# ## The end, first
#
# Of 2,100 tokens, 100 become queries. Each square is the cell of a chosen token, yellow for the
# best: these sit on the seven shapes, small ones on S3, the large triangle on S5 (S3, S4 and S5 are
# the maps of stride 8, 16 and 32). Violet ones fill the places that are left.

# %%
# alt: The same picture three times, once per feature level. Squares mark the cells of the
#   100 chosen tokens; the best ranked lie on the shapes.
with torch.no_grad(), lab.record(model) as seen:
    prediction = model(images)
axes = selected_tokens(prediction.proposals.index[0], maps, images[0])

# %% [markdown]
# ## The question
#
# DETR starts its decoder from learned queries that are the same for every picture, and needs
# hundreds of epochs to learn where each should look. RT-DETR lets every token make a **proposal**
# first, class scores $s_n$ and a box $\hat b_n$, and keeps the best $Q$:
#
# $$ I = \operatorname{top\text{-}Q}_n \max_c s_{n,c} \tag{09.1} $$
#
# A token does not predict its box from nothing. It moves an **anchor** $a_n$, a square at the
# centre of its own cell, in logit space:
#
# $$ \hat b_n = \sigma\bigl(\Delta_n + \sigma^{-1}(a_n)\bigr) \tag{09.2} $$
#
# The paper wants to choose tokens for which class and box are *both* right, and calls the gap
# between them uncertainty (Eq. 2). Look for it in Eq. 09.1: it is not there. Where is it?

# %% [markdown]
# ## By hand, on 3 × 3 cells
#
# Nine tokens, two classes. A token's score is that of its best class; the three best are kept.

# %%
cat = torch.tensor([[0.1, 0.2, 0.1], [0.3, 0.9, 0.2], [0.1, 0.1, 0.1]])
dog = torch.tensor([[0.1, 0.1, 0.7], [0.1, 0.6, 0.2], [0.1, 0.1, 0.4]])
scores = torch.stack([cat, dog], dim=-1).flatten(0, 1)  # 9 tokens, row by row

best = [max(row) for row in scores.tolist()]
by_hand = sorted(range(9), key=lambda n: -best[n])[:3]
print("best score per token:", [round(s, 1) for s in best])
print("kept:", by_hand)

# %% [markdown]
# Token 4, in the middle, has two good classes and gets *one* slot: a query is a place to look, not
# a class. Its anchor is the middle of the picture. On this one level a side is 0.05 of the picture.

# %%
logits, valid = anchors(((3, 3),))
print("anchor of token 4:", logits[4].sigmoid())
moved = (torch.tensor([0.4, 0.0, 1.0, 1.0]) + logits[4]).sigmoid()
print("moved by (0.4, 0, 1, 1):", moved)

# %% [markdown]
# Adding to a logit can never leave (0, 1): whatever the network says, the centre is in the picture
# and the box no larger than it. A box at the border may still hang over it.
#
# ## The real module
#
# Here is all of it.

# %%
source(QuerySelection.forward)

# %%
select = TopScore(num_queries=3).build(dim=2)
nothing = torch.zeros(1, 9, 4)
chosen = select(torch.zeros(1, 9, 2), inverse_sigmoid(scores)[None], nothing)
assert chosen.index[0].tolist() == by_hand
chosen.index

# %% [markdown]
# A maximum and a top-k. No IoU. The two `detach` calls say that the decoder's losses do not train
# the proposals: these have a loss of their own, and it holds the answer. The class loss is
# **varifocal**, and its target at the right class is not 1 but *the IoU of the box that the same
# token proposed* (notebook 04). So a token is taught to score high only where it boxes well; only
# chosen tokens are judged. The selection is a plain top-k (of logits: the sigmoid keeps their
# order); the idea is in the loss.
#
# ## Look inside
#
# If that works, score and IoU belong together. One dot per token, as in the paper's Figure 6: the
# 100 chosen ones, and 100 tokens drawn at random.

# %%
# alt: Scatter of class score against IoU. The chosen tokens reach into the upper right
#   corner; nearly all random ones score less than 0.2, and most have a small IoU.
token_logits = seen["proposal_head.logits"][0]
token_boxes = seen["proposal_head.box_logits"][0].sigmoid()
score, overlap = token_logits.sigmoid().amax(-1), best_iou(token_boxes, objects)
kept = prediction.proposals.index[0]
drawn = torch.randperm(2100, generator=generator)[:100]
clouds = {"chosen": kept, "at random": drawn}
ax = proposal_scatter({name: (score[i], overlap[i]) for name, i in clouds.items()})

# %%
mean_iou = {name: round(overlap[i].mean().item(), 2) for name, i in clouds.items()}
good = int(((score[kept] > 0.5) & (overlap[kept] > 0.5)).sum())
print(f"mean IoU with the best object: {mean_iou}; good slots: {good}, objects: {len(objects)}")
assert mean_iou["chosen"] > 2 * mean_iou["at random"]

# %% [markdown]
# Read it from the right: nearly every dot with a high score has a good box. Not from the top: many
# a good box scores low, since an object needs one token only. What the picture cannot show is that
# the *loss* did it: for that one would have to train without the IoU in the target.
#
# There are 100 slots for seven shapes. Most slots go to tokens with a low score, and their score
# says so.

# %% [markdown]
# ## Predict, then break it
#
# The decoder moves every box in each of its layers. So perhaps the choice hardly matters, and it
# would find the shapes from any start? We replace the score by random numbers, touch nothing else,
# and count the shapes that are found (IoU above 0.5 with a box that scores above 0.5).
#
# **Predict**: of seven shapes, how many are found from 100 *random* tokens? All, half, nearly none?


# %%
def random_score(score):
    return torch.rand(score.shape, generator=generator)


with torch.no_grad(), lab.record(model, edit={"selection.score": random_score}):
    blind = model(images)
best, at_random = (count_found(answer, targets) for answer in (prediction, blind))
print(f"best tokens: {best} of {len(objects)}; random tokens: {at_random}")

# %% [markdown]
# The decoder *refines*, it does not search. A query looks around its reference box only (notebook
# 10), and it carries the content of its token. Most random tokens start on empty ground, as the
# scatter shows; the few on a shape end in no sure box either, and this count does not say why.
#
# **Predict** once more: the 20 best tokens instead of 100. How many of the seven survive?

# %%
counts = {}
for num_queries in (100, 50, 20, 10, 5):
    model.num_queries = num_queries
    with torch.no_grad():
        counts[num_queries] = count_found(model(images), targets)
model.num_queries = 100
counts

# %%
assert at_random < best == counts[20], "few good tokens beat many random ones"

# %% [markdown]
# Twenty good tokens are enough for this picture, and even ten; five cannot hold seven shapes. The
# rest are spare. The paper keeps 300: COCO's pictures hold up to dozens of objects.
#
# ## What it costs
#
# What does a slot cost? Let all 2,100 tokens into the decoder and compare.

# %%
with_100 = cost(model, images)
model.num_queries = 2100
with_all = cost(model, images)
model.num_queries = 100
decoder = {"Q = 100": with_100.rows[-2][2], "Q = 2100": with_all.rows[-2][2]}
print({name: f"{flops / 1e9:.2f} GFLOPs" for name, flops in decoder.items()})
with_100

# %% [markdown]
# The choice itself is free, a maximum and a sort; the proposal heads that make it possible are 6 %
# of the model's work. Without it this decoder does about ten times the work by this count: 21 times
# the queries, but the memory is projected once for all of them (notebook 10). And the count leaves
# out the pairs of self-attention, $4 Q^2 D$ per layer: in three layers 0.01 GFLOPs at Q = 100, 5.1
# at Q = 2,100. In RT-DETR at 640 px there are 8,400 tokens for 300 slots; these pairs would be 784
# times as many.
# *That* is why the top-k comes before the decoder.

# %%
assert decoder["Q = 2100"] > 8 * decoder["Q = 100"]
assert (8400 / 300) ** 2 == 784

# %% [markdown]
# ## Exercises
#
# **1.** An anchor with a coordinate outside (0.01, 0.99) is invalid: its token is silenced. How
# many of the 8,400 anchors of a 640 × 640 picture are invalid? (Levels 80 × 80, 40 × 40, 20 × 20.)

# %%
answer = ...

# %% tags=["solution"]
logits, valid = anchors(((80, 80), (40, 40), (20, 20)))
check(
    answer, int((~valid).sum()), hint="Only the outermost cells of the finest level are affected."
)

# %% [markdown]
# **2.** A token's box has IoU 0.6 with its object. Which class score minimises its varifocal loss,
# $-q\,(q \log p + (1-q) \log(1-p))$ with $q = 0.6$?

# %%
answer = ...

# %% tags=["solution"]
q, p = 0.6, torch.linspace(0.01, 0.99, 99)
loss = -q * (q * p.log() + (1 - q) * (1 - p).log())
check(answer, p[loss.argmin()].item(), hint="Set the derivative to zero, or plot it.")

# %% [markdown]
# **3.** Somebody removes both `detach()` calls. Is the first reference box then trained by the
# decoder's losses as well? Answer `True` or `False`, and say why the authors might not want that.

# %%
answer = ...

# %% tags=["solution"]
box_logits = torch.zeros(1, 9, 4, requires_grad=True)
index = scores.amax(-1).topk(3).indices
reference = box_logits[0, index].sigmoid()  # as in the module, but not detached
(reference - torch.tensor([0.4, 0.4, 0.1, 0.1])).abs().sum().backward()
check(answer, bool((box_logits.grad[0, index] != 0).all()), hint="Follow box_logits in `forward`.")
# They might not: 300 queries and many layers would pull at 300 tokens of 8,400, with several times
# the weight of the proposals' own loss, and the score would no longer be about the proposed box.

# %% [markdown]
# ## With real weights, if there is a network
#
# RT-DETR-R18 has learned COCO. Which tokens of the cat does it choose?

# %% tags=["varies"]
if online():
    real, photo = lab.load_pretrained("r18"), chelsea((640, 640))
    with torch.no_grad():
        index = real(photo).proposals.index[0]
    selected_tokens(index, [(80, 80), (40, 40), (20, 20)], photo[0])
    plt.show()

# %% [markdown]
# **Next**: [10 · Deformable attention](10_deformable_attention.ipynb). A query now knows where to
# start. What does it look at, and how much of the picture does it read?
