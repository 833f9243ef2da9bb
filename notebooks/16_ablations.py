# %% [markdown]
# # 16 · Ablations: does this part matter?
#
# **Paper** RT-DETR §5.4, Tables 3 to 5; RT-DETRv2 Table 3 · **Code** `rtdetr_lab/ablations/` ·
# **Before this** [15 training](15_training.ipynb)
#
# "This part helps" is an opinion. To remove the part and train again is an experiment. With three
# seeds the experiment is more reliable. After this notebook you can turn one changed line into a
# table with intervals, and explain what the table does *not* show.

# %% tags=["imports"]
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch

from rtdetr_lab.ablations import Study
from rtdetr_lab.ablations.bases import miniature, small_world
from rtdetr_lab.ablations.shipped import shipped
from rtdetr_lab.ablations.statistics import paired_difference, verdict
from rtdetr_lab.config import diff, replace_at
from rtdetr_lab.data.batch import First
from rtdetr_lab.notebook import check, seeded, source
from rtdetr_lab.rtdetr import RTDETRConfig
from rtdetr_lab.viz.ablation import Interval, differences, score_bars
from rtdetr_lab.viz.canvas import new_axes

# %%
generator = seeded()

# %% [markdown]
# ## The end, first
#
# This is one of our studies of denoising, with three seeds per row. Each dot is a seed, each bar is
# the mean. Would you say that the rows differ?

# %%
# alt: Horizontal bars of average precision for three numbers of denoising queries, with a dot for
#   each of three seeds and whiskers of one standard deviation.
report = shipped("denoising")
scores = {entry.name: entry.values("AP") for entry in report.entries}
axes = score_bars(scores, report.plan["reference"], ax=new_axes(None, 2.2, 5.6))
axes.set_title("Three seeds a row: close means, wide spread", fontsize=11)

# %% [markdown]
# ## The question
#
# Two things vary besides the part that we change: the **seed** (initial weights, order of pictures)
# and the **pictures** on which we evaluate. Two runs with the same seed, one of each row, are a
# *pair*. There are $n$ pairs, and $d_s$ is the difference within pair $s$. Then our interval is
#
# $$ \bar d \pm \sqrt{t_{n-1}^2 \operatorname{Var}(d_s) / n +
# t_{m-1}^2 \operatorname{Var}_{\text{pictures}}} $$
#
# with $m$ pictures. How wide is the interval with three seeds?
#
# ## By hand, on three numbers

# %%
with_part, without = [0.31, 0.35, 0.33], [0.30, 0.31, 0.32]
d = torch.tensor(with_part) - torch.tensor(without)
t = 4.303  # Student's t for 95 % and two degrees of freedom
half = t * (d.var() / 3) ** 0.5
print(f"mean {d.mean():.3f}, interval ± {half:.3f}")

# %% [markdown]
# **Predict.** With all three seeds the model with the part is better. Is this a clear result?

# %%
none = np.zeros((3, 2))  # as if the choice of pictures added no variance
by_lab = paired_difference(with_part, without, none, none, num_pictures=200)
print(verdict(by_lab))

# %%
assert abs(by_lab.half_width - half.item()) < 1e-4
assert by_lab.agreeing == 3, "all three seeds agree"
assert not by_lab.is_clear, "three coins show the same side one time in four"

# %% [markdown]
# No. Three coins show the same side one time in four. Therefore a verdict has an interval, and "no
# difference at this budget" is a statement about the budget.
#
# ## The real thing: a variant of your own
#
# A variant is a function that takes a configuration and returns another. Its docstring states the
# hypothesis. A function without a docstring is refused.


# %%
def without_positions(cfg: RTDETRConfig) -> RTDETRConfig:
    """AIFI needs the positions of its cells: without them boxes get worse."""
    return replace_at(cfg, "encoder.aifi.positions", None)


base = miniature()
diff(base.cfg, without_positions(base.cfg))

# %% [markdown]
# The base is a smaller nano, on pictures of 128 pixels. It starts with nano's trained backbone. We
# use few pictures and two seeds. This is enough to read a report, but far too little to learn
# anything.

# %%
train, val = small_world(num_pictures=64)
study = Study(
    base,
    [without_positions],
    seeds=(0, 1),
    budget=64,
    data=(train, First(val, 24)),
    folder=Path(mkdtemp()),
    curve_points=0,
    latency_rounds=5,
)
[(job.key, job.setup.recipe.num_steps) for job in study.jobs(64)]

# %% tags=["varies"]
study.run()

# %% [markdown]
# Every pair of variant and seed has a run folder. Every finished run adds a line to the journal. If
# we call `run` again, nothing is left to do. After a power failure the same call would continue.

# %%
journal = study.home / "journal.jsonl"
before = journal.read_bytes()
again = study.run()
assert journal.read_bytes() == before
assert {e.name: len(e.rows) for e in again.entries} == {"base": 2, "without positions": 2}

# %% [markdown]
# ## Look inside
#
# This function computes the interval behind every verdict:

# %%
source(paired_difference)

# %% [markdown]
# ## The shipped studies
#
# Here are the intervals of the denoising study. A filled mark means that the interval excludes
# zero.

# %%
# alt: Two horizontal intervals of the difference in average precision to the reference. The
#   interval for no denoising lies right of zero and is filled.
found = {e.name: e.difference for e in report.entries if e.difference}
intervals = {name: Interval(d.mean, d.low, d.high) for name, d in found.items()}
axes = differences(intervals, report.plan["reference"], new_axes(None, 2.1, 5.6))
axes.set_title("One of two intervals excludes zero, and only just", fontsize=11)

# %% [markdown]
# **Predict**, before you run the next cell: DN-DETR and DINO found that denoising helps. Our runs
# trained on 3,200 pictures. Is the model better with or without denoising here?

# %%
for entry in report.entries:
    print(f"{entry.name}: {entry.verdict}")

# %%
assert found["0 positives"].is_clear
assert found["0 positives"].mean > 0
assert next(e for e in report.entries if e.name == "0 positives").p_value > 0.05

# %% [markdown]
# It is better *without* denoising, and the interval just excludes zero. The study has two such
# intervals, though: adjusted for that (Holm), p is above 0.05. Our guess is that in four hundred
# steps the extra queries cost more than the more stable matching gains. The papers train on about
# a thousand times as many pictures. A
# small experiment can contradict a paper, and both can be right: the budget is part of the result.
#
# To compare numbers of layers, we evaluate models after each layer. They need no second training:

# %%
# alt: Horizontal bars of average precision after one, two and three decoder layers, for models
#   trained with two and three layers. After one layer alone it is far lower.
depth = shipped("decoder-depth")
scores = {e.name: e.values("AP") for e in depth.entries}
axes = score_bars(scores, depth.plan["reference"], ax=new_axes(None, 2.8, 5.6))
axes.set_title("AP depends on the layers that run, not on those trained", fontsize=11)

# %% [markdown]
# ## What it costs

# %%
for name in ("denoising", "encoder", "decoder-depth", "sampling-points", "selection"):
    cost = shipped(name).cost
    print(f"{name:16} {cost['runs']:2} runs, {cost['train_hours']:.2f} h on one thread")

# %% [markdown]
# Runs that two studies share are trained once. `rtdetr-lab ablate encoder --dry-run` prints the
# plan and its cost before you start it.
#
# ## Exercises
#
# **1.** There are $n$ seeds, and their differences have standard deviation 1. Then the interval is
# $\pm t_{n-1} / \sqrt n$. By what factor is it narrower with 6 seeds than with 3? ($t_2 = 4.303$,
# $t_5 = 2.571$.)

# %%
answer = ...

# %% tags=["solution"]
check(answer, (4.303 / 3**0.5) / (2.571 / 6**0.5), hint="t gets smaller, the root larger.")

# %% [markdown]
# **2.** How small a difference, in points of AP, could the denoising study still show for "24
# positives"? Give half the width of its interval.

# %%
answer = ...

# %% tags=["solution"]
check(answer, 100 * found["24 positives"].half_width, hint="`Difference.half_width`, times 100.")

# %% [markdown]
# **3.** In how many of three seeds was "0 positives" better?

# %%
answer = ...

# %% tags=["solution"]
check(answer, found["0 positives"].agreeing, hint="`Difference.agreeing` counts them.")

# %% [markdown]
# **Next**: [17 · Speed](17_speed.ipynb). We know how to measure how good a model is. How fast is
# it?
