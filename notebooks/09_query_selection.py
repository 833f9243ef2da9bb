# %% [markdown]
# # 09 · Query selection: which tokens become queries?
#
# **Paper** RT-DETR §4.3, Eq. 2 and 3 · **Chapter** `rtdetr_lab/query_selection.py` ·
# **Before this** [08 hybrid encoder](08_hybrid_encoder.ipynb)
#
# The encoder returns thousands of tokens, but the decoder can afford only a few hundred queries.
# After this notebook you can explain why tokens are selected *before* the decoder, and why the
# score that selects them also tells how good the box is.

# %% tags=["imports"]
import matplotlib.pyplot as plt
import torch
from torch import nn

import rtdetr_lab as lab
from rtdetr_lab.boxes import inverse_sigmoid
from rtdetr_lab.criterion import CriterionConfig
from rtdetr_lab.layers import MLP
from rtdetr_lab.losses import Varifocal
from rtdetr_lab.notebook import check, chelsea, cost, count_found, online, seeded, shapes, source
from rtdetr_lab.query_selection import QuerySelection, TopScore, anchors, reset_heads
from rtdetr_lab.structures import LayerPrediction, Prediction
from rtdetr_lab.viz.marks import key_below
from rtdetr_lab.viz.palette import BLUE, VERMILLION
from rtdetr_lab.viz.queries import best_iou, proposal_scatter, selected_tokens

# %%
generator = seeded()
model = lab.load_pretrained("nano")
images, targets = shapes(3)
objects = targets.boxes[0]
maps = [(40, 40), (20, 20), (10, 10)]  # a 320 px picture at strides 8, 16, 32

# %% [markdown]
# ## The end, first
#
# 100 of 2,100 tokens become queries: the decoder has 100 *slots*, one per query. Each square is the
# cell of a chosen token. The tokens with the highest scores are yellow. They lie on the seven
# shapes: on O3 for small shapes, on O5 for the large triangle. (O3, O4 and O5 are the encoder's
# outputs. They have the strides of S3, S4 and S5: 8, 16 and 32.) The violet tokens rank lowest and
# fill the other slots.

# %%
# alt: The same picture three times, once per feature level. Squares mark the cells of the 100
#   chosen tokens. The tokens with the highest scores lie on the shapes.
with torch.no_grad(), lab.record(model) as seen:
    prediction = model(images)
fig, axes = plt.subplots(1, 3, figsize=(5.6, 2.3), layout="compressed")
selected_tokens(prediction.proposals.index[0], maps, images[0], axes)
fig.suptitle("The best tokens lie on the shapes", fontsize=11)

# %% [markdown]
# ## The question
#
# DETR starts its decoder from learned queries. They are the same for every picture, and DETR needs
# hundreds of epochs to learn where each query should look. In RT-DETR every token first makes a
# **proposal**: class scores $s_n$ and a box $\hat b_n$. The $Q$ best tokens become queries:
#
# $$ I = \operatorname{top\text{-}Q}_n \max_c s_{n,c} \tag{09.1} $$
#
# A token predicts its box relative to an **anchor** $a_n$, a square around the centre of its cell.
# The step $\Delta_n$ is added in logit space. $\sigma$ is the sigmoid (in notebook 03 it was an
# assignment), and $\sigma^{-1}$ the logit, its inverse:
#
# $$ \hat b_n = \sigma\bigl(\Delta_n + \sigma^{-1}(a_n)\bigr) \tag{09.2} $$
#
# The paper wants tokens whose class *and* box are good. Its Eq. 2 defines the *uncertainty* of an
# encoder feature $\hat X$ as $\mathcal U(\hat X) = \|\mathcal P(\hat X) - \mathcal C(\hat X)\|$.
# Here $\mathcal P$ tells how good the feature's box is, and $\mathcal C$ how sure the feature is of
# its class. (In Eq. 09.1 and elsewhere $c$ and $C$ are about classes; $P$ counts points.) The
# paper's Eq. 3 puts $\mathcal U$ into the class loss. But Eq. 09.1 does not contain this
# uncertainty, and the authors' code never computes it. Where is it?

# %% [markdown]
# ## By hand, on 3 × 3 cells
#
# There are nine tokens and two classes. The score of a token is that of its best class. We keep the
# three best tokens.

# %%
cat = torch.tensor([[0.1, 0.2, 0.1], [0.3, 0.9, 0.2], [0.1, 0.1, 0.1]])
dog = torch.tensor([[0.1, 0.1, 0.7], [0.1, 0.6, 0.2], [0.1, 0.1, 0.4]])
scores = torch.stack([cat, dog], dim=-1).flatten(0, 1)  # 9 tokens, row by row

best = [max(row) for row in scores.tolist()]
by_hand = sorted(range(9), key=lambda n: -best[n])[:3]
print("best score per token:", [round(s, 1) for s in best])
print("kept:", by_hand)

# %% [markdown]
# Token 4, in the middle, has high scores for both classes, but it becomes only *one* query: a query
# is a place to look, not a class. Its anchor lies in the middle of the picture. The level is the
# finest one here, so the side of the anchor is 0.05 of the picture.

# %%
logits, valid = anchors(((3, 3),))
print("anchor of token 4:", logits[4].sigmoid())
moved = (torch.tensor([0.4, 0.0, 1.0, 1.0]) + logits[4]).sigmoid()
print("moved by (0.4, 0, 1, 1):", moved)

# %% [markdown]
# After the sigmoid every number lies in (0, 1). So the centre is in the picture, and the box is not
# larger than the picture. A box near the border can still reach beyond it. (Exercise 1 is about
# anchors that are invalid: their logits are infinite.)
#
# ## The real module
#
# This is the whole method:

# %%
source(QuerySelection.forward)

# %%
select = TopScore(num_queries=3).build(dim=2)
nothing = torch.zeros(1, 9, 4)
chosen = select(torch.zeros(1, 9, 2), inverse_sigmoid(scores)[None], nothing)
assert chosen.index[0].tolist() == by_hand
chosen.index

# %% [markdown]
# It is a maximum and a top-k, without any IoU. Because of the two `detach` calls the losses of the
# decoder do not train the proposals. (These losses still train the encoder and the backbone,
# through the memory that cross-attention reads.) The proposals have their own loss, and the
# uncertainty is in this loss. The class loss is **varifocal**: its target at the right class is not
# 1 but *the IoU of the box that the same token proposed* (notebook 04). So a token learns to have a
# high score only if its box is good. (The loss is computed for the chosen tokens only.) The
# selection is a plain top-k of logits: the sigmoid does not change their order. The idea is in the
# loss.
#
# ## Look inside
#
# If this works, a high score comes with a high IoU. We draw one dot per token, as in the paper's
# Figure 6: the 100 chosen tokens, and 100 random tokens.

# %%
# alt: Scatter of class score against IoU. Some chosen tokens lie in the upper right corner. Nearly
#   all random tokens have a score below 0.2, and most have a small IoU.
token_logits = seen["proposal_head.logits"][0]
token_boxes = seen["proposal_head.box_logits"][0].sigmoid()
score, overlap = token_logits.sigmoid().amax(-1), best_iou(token_boxes, objects)
kept = prediction.proposals.index[0]
drawn = torch.randperm(2100, generator=generator)[:100]
clouds = {"chosen": kept, "at random": drawn}
ax = proposal_scatter({name: (score[i], overlap[i]) for name, i in clouds.items()})
ax.figure.suptitle("A token with a high score has a good box", fontsize=11)

# %%
mean_iou = {name: round(overlap[i].mean().item(), 2) for name, i in clouds.items()}
good = int(((score[kept] > 0.5) & (overlap[kept] > 0.5)).sum())
print(f"mean IoU with the best object: {mean_iou}; good slots: {good}, objects: {len(objects)}")
assert mean_iou["chosen"] > 2 * mean_iou["at random"]

# %% [markdown]
# Nearly every dot with a high score has a good box. But not every good box has a high score: many
# have a low one, because one object needs only one token.
#
# There are 100 slots for seven shapes. So most slots go to tokens with a low score.
#
# ## Is the loss the reason?
#
# We train new heads twice, on the tokens of 12 pictures. The tokens come from the trained `nano`
# and do not change. Only the target of the class loss differs: it is the IoU of the token's box, or
# it is 1 for every box. The paper calls the second one *vanilla* (Table 4).
#
# **Predict**: we look at the slots with a score above 0.5. With which target does a larger share of
# them have a good box (IoU above 0.5)?


# %%
def tokens_of(images):
    """Return what the selection of `nano` gets: all tokens, after the proposal head's norm."""
    kept = []
    handle = model.selection.register_forward_hook(lambda _, given, __: kept.append(given[0]))
    with torch.no_grad():
        model(images)
    handle.remove()
    return kept[0]


train_images, train_targets = shapes(*range(12))
test_images, test_targets = shapes(*range(12, 28))
train_tokens, test_tokens = tokens_of(train_images), tokens_of(test_images)
start, _ = anchors(tuple(maps))


# %%
def propose(heads, tokens):
    """Eq. 09.1 and 09.2: the 100 tokens with the highest scores, and their boxes."""
    class_head, box_head = heads
    logits = class_head(tokens)
    index = logits.amax(-1).topk(100, dim=1).indices[..., None]
    box_logits = box_head(tokens.take_along_dim(index, 1)) + start[index[..., 0]]
    return LayerPrediction(logits.take_along_dim(index, 1), box_logits.sigmoid())


# %%
def train_heads(loss, seed):
    torch.manual_seed(seed)
    heads = nn.ModuleList([nn.Linear(96, 10), MLP(96, 96, 4, num_layers=3)])
    reset_heads(*heads)
    criterion = CriterionConfig(classification=loss).build()
    optimizer = torch.optim.AdamW(heads.parameters(), 5e-3)
    for _ in range(60):
        layer = propose(heads, train_tokens)
        only_layer = Prediction(layer.logits, layer.boxes, (layer,))
        optimizer.zero_grad()
        sum(criterion(only_layer, train_targets).values()).backward()
        optimizer.step()
    return heads


# %%
@torch.no_grad()
def cloud_of(heads):
    """Return score and IoU of all slots, on pictures that the heads did not see."""
    layer = propose(heads, test_tokens)
    overlaps = [best_iou(*pair) for pair in zip(layer.boxes, test_targets.boxes, strict=True)]
    return layer.logits.sigmoid().amax(-1).flatten(), torch.cat(overlaps)


losses = {"vanilla": Varifocal(iou_target=False), "IoU-aware": Varifocal()}
clouds = {name: [cloud_of(train_heads(loss, s)) for s in range(3)] for name, loss in losses.items()}

# %%
# alt: Two scatters of class score against IoU. Crosses are dots with a score above 0.5 and an IoU
#   below 0.5. In the left one, vanilla, many dots are crosses, in the right one, IoU-aware, few.
fig, axes = plt.subplots(1, 2, figsize=(5.6, 3.4), sharey=True, layout="compressed")
fig.suptitle("With the IoU-aware loss, fewer sure tokens have poor boxes", fontsize=11)
for ax, (name, ((score, overlap), *_)) in zip(axes, clouds.items(), strict=True):
    sure, good = score > 0.5, overlap > 0.5
    groups = {"sure, good box": (sure & good, BLUE, "o")}
    groups |= {"sure, poor box": (sure & ~good, VERMILLION, "x")}
    rest = ~sure & (torch.arange(len(score)) % 4 == 0)
    groups |= {"not sure (1 in 4 drawn)": (rest, "#A0A0A0", ".")}
    for label, (dots, color, mark) in groups.items():
        ax.scatter(score[dots], overlap[dots], s=9, color=color, marker=mark, label=label)
    title = f"{name}: {int((sure & ~good).sum())} of {int(sure.sum())} poor"
    ax.set(xlabel="class score", xlim=(0, 1), ylim=(0, 1))
    ax.set_title(title, fontsize=10)
axes[0].set_ylabel("IoU with the best object")
key_below(list(axes), axes[0].get_legend_handles_labels()[0])

# %%
share = {}
for name, three in clouds.items():
    score, overlap = (torch.cat(kind) for kind in zip(*three, strict=True))
    share[name] = (overlap[score > 0.5] > 0.5).float().mean().item()
print("slots with a high score that have a good box:")
print({n: f"{s:.0%}" for n, s in share.items()})  # may differ: ± 5 of 26
assert share["IoU-aware"] > share["vanilla"] + 0.05

# %% [markdown]
# The vanilla score tells only that there is an object. The IoU-aware score is lower where the box
# is poor, so more of the slots with a high score have a good box. The scatter shows the first of
# three seeds, and the shares count all three. (60 steps of training amplify the rounding of a
# processor. Your shares will differ, but not their order.)
#
# The paper's Table 4 (ResNet-50, 12 epochs on COCO) counts something else: of *all* selected
# features, 0.35 % have a score above 0.5 with vanilla selection, and 0.30 % have a good box as well
# (IoU above 0.5). With the IoU-aware loss these are 0.82 % and 0.67 %. So on COCO *more* features
# are good in both respects, and AP rises from 47.9 to 48.7. But the share that our experiment
# measures, of good boxes among high scores, does not rise there: 0.30 / 0.35 is 86 %, and
# 0.67 / 0.82 is 82 %. Our 12 pictures and new heads are a much smaller test.
#
# ## Predict, then break it
#
# The decoder moves every box in each of its layers. So perhaps the selection hardly matters, and
# the decoder can find the shapes from any start. We replace the score by random numbers and change
# nothing else. Then we count the shapes that are found: some box has a score above 0.5 and an IoU
# above 0.5 with the shape.
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
# The decoder *refines* boxes, it does not search. A query reads only around its reference box
# (notebook 10), and its content is that of its token. Most random tokens start on the background,
# as the scatter shows. A few start on a shape, but they do not end in a box with a high score
# either. This count does not tell why.
#
# **Predict** again: we keep the 20 best tokens, not 100. How many of the seven shapes are found?

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
# Twenty good tokens are enough for this picture, and so are ten. Five are not enough, because each
# query can find only one of the seven shapes. The paper keeps 300: a COCO picture can have dozens
# of objects.
#
# ## What it costs
#
# What does a slot cost? We give all 2,100 tokens to the decoder and compare.

# %%
with_100 = cost(model, images)
model.num_queries = 2100
with_all = cost(model, images)
model.num_queries = 100
decoder = {"Q = 100": with_100.rows[-2][2], "Q = 2100": with_all.rows[-2][2]}
print({name: f"{flops / 1e9:.2f} GFLOPs" for name, flops in decoder.items()})
with_100

# %% [markdown]
# The selection itself is almost free: a maximum and a sort. It needs the proposal heads, and they
# are 6 % of the model's operations. Without selection the decoder needs about ten times the
# operations in this table. The decoder then has 21 times as many queries, but it projects the
# memory only once for all of them (notebook 10).
#
# The table leaves out the pairs of self-attention, $4 Q^2 D$ per layer (two products, each with
# $Q^2 D$ multiplications and as many additions). In three layers they cost 0.01 GFLOPs with Q = 100
# and 5.1 with Q = 2,100. In RT-DETR at 640 px there are 8,400 tokens and 300 slots, so without
# selection there would be 784 times as many pairs. *This* is why the top-k comes first.

# %%
assert decoder["Q = 2100"] > 8 * decoder["Q = 100"]
assert (8400 / 300) ** 2 == 784

# %% [markdown]
# ## Exercises
#
# **1.** An anchor with a coordinate outside (0.01, 0.99) is invalid. Its token is set to zero
# before the heads, so all invalid tokens get the same score, and the useless box (1, 1, 1, 1). They
# still compete: if this score is among the $Q$ highest, they are selected. How many of the 8,400
# anchors of a 640 × 640 picture are invalid? (The levels have 80 × 80, 40 × 40 and 20 × 20 cells.)

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
# **3.** We remove both `detach()` calls. Do the losses of the decoder then also train the first
# reference box? Answer `True` or `False`, and explain why the authors might not want this.

# %%
answer = ...

# %% tags=["solution"]
box_logits = torch.zeros(1, 9, 4, requires_grad=True)
index = scores.amax(-1).topk(3).indices
reference = box_logits[0, index].sigmoid()  # as in the module, but not detached
(reference - torch.tensor([0.4, 0.4, 0.1, 0.1])).abs().sum().backward()
check(answer, bool((box_logits.grad[0, index] != 0).all()), hint="Follow box_logits in `forward`.")
# A possible reason: the losses of many layers would also train the 300 selected tokens. Together
# they have several times the weight of the proposals' own loss. The score would then no longer be
# about the proposed box.

# %% [markdown]
# ## With real weights, if there is a network
#
# RT-DETR-R18 was trained on COCO. Which tokens does it choose in the picture of a cat?

# %% tags=["varies"]
if online():
    real, photo = lab.load_pretrained("r18"), chelsea((640, 640))
    with torch.no_grad():
        index = real(photo).proposals.index[0]
    selected_tokens(index, [(80, 80), (40, 40), (20, 20)], photo[0])
    plt.show()

# %% [markdown]
# **Next**: [10 · Deformable attention](10_deformable_attention.ipynb). A query now has a starting
# box. Where does it read, and how much of the picture?
