# %% [markdown]
# # 16 · Ablations: does this part matter?
#
# **Paper** RT-DETR §5.4, Tables 3 to 5; RT-DETRv2 Table 3 · **Code** `rtdetr_lab/ablations/` ·
# **Before this** [15 training](15_training.ipynb)
#
# "This part helps" is an opinion. Taking it out and training again is an experiment, and doing so
# with three seeds is one you can believe. Afterwards you can turn one changed line into a table
# with intervals, and say what the table does *not* show.

# %%
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

generator = seeded()

# %% [markdown]
# ## The end, first
#
# A study that was run for this page: denoising, three seeds a row. Dots are seeds, bars their mean.
# Would you say that the rows differ?

# %%
# alt: Horizontal bars of average precision for three numbers of denoising queries, with a dot for
#   each of three seeds and whiskers of one standard deviation.
report = shipped("denoising")
scores = {entry.name: entry.values("AP") for entry in report.entries}
axes = score_bars(scores, report.plan["reference"])

# %% [markdown]
# ## The question
#
# Two things vary that are not the part you changed: the **seed** (weights, order of pictures) and
# the **pictures** you judge on. The same seed in both rows is a *pair*. With $d_s$ the difference
# within pair $s$ of $n$, the lab's interval is
#
# $$ \bar d \pm t_\nu \sqrt{\operatorname{Var}(d_s) / n + \operatorname{Var}_{\text{pictures}}} $$
#
# How wide does three seeds make it?
#
# ## By hand, on three numbers

# %%
with_part, without = [0.31, 0.35, 0.33], [0.30, 0.31, 0.32]
d = torch.tensor(with_part) - torch.tensor(without)
t = 4.303  # Student's t for 95 % and two degrees of freedom
half = t * (d.var() / 3) ** 0.5
print(f"mean {d.mean():.3f}, interval ± {half:.3f}")

# %% [markdown]
# **Predict.** Three of three seeds are better with the part. Is that a clear result?

# %%
none = np.zeros((3, 2))  # as if the pictures added nothing
by_lab = paired_difference(with_part, without, none, none, num_pictures=200)
print(verdict(by_lab))

# %%
assert abs(by_lab.half_width - half.item()) < 1e-4
assert by_lab.agreeing == 3, "all three seeds agree"
assert not by_lab.is_clear, "which three coins do one time in four"

# %% [markdown]
# Three coins fall alike one time in four. That is why a verdict has an interval, and why "no
# difference at this budget" is a sentence about the budget.
#
# ## The real thing: a variant of your own
#
# A variant is a function from configuration to configuration. Its docstring is the hypothesis, and
# a function without one is refused.


# %%
def without_positions(cfg: RTDETRConfig) -> RTDETRConfig:
    """AIFI must know where its cells are: without positions boxes get worse."""
    return replace_at(cfg, "encoder.aifi.positions", None)


base = miniature()
diff(base.cfg, without_positions(base.cfg))

# %% [markdown]
# The base is nano in small, on pictures of 128 pixels, with a backbone that sees. A handful of
# pictures, two seeds: long enough to read a report, far too short to learn anything.

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
# Every (variant, seed) is a run folder, every finished run a line of the journal. Call `run` again:
# nothing is left to do. Had the machine lost power in between, the same call would go on.

# %%
journal = study.home / "journal.jsonl"
before = journal.read_bytes()
again = study.run()
assert journal.read_bytes() == before
assert {e.name: len(e.rows) for e in again.entries} == {"base": 2, "without positions": 2}

# %% [markdown]
# ## Look inside
#
# The verdict is not a formatted guess: this is all that stands behind it.

# %%
source(paired_difference)

# %% [markdown]
# ## The shipped studies
#
# Intervals of the denoising study. Filled marks exclude zero.

# %%
# alt: Two horizontal intervals of the difference in average precision to the reference; the one
#   for no denoising lies right of zero and is filled.
found = {e.name: e.difference for e in report.entries if e.difference}
axes = differences(
    {name: Interval(d.mean, d.low, d.high) for name, d in found.items()}, report.plan["reference"]
)

# %% [markdown]
# **Predict**, before you run the next cell: DN-DETR and DINO found that denoising helps. These runs
# saw 3,200 pictures. Which way does the difference go here?

# %%
for entry in report.entries:
    print(f"{entry.name}: {entry.verdict}")

# %%
assert found["0 positives"].is_clear
assert found["0 positives"].mean > 0

# %% [markdown]
# The other way round, and clearly so. In four hundred steps the extra queries cost more than the
# steadier matching gives; the papers train for a thousand times as many pictures. A miniature can
# contradict a paper without either being wrong: the budget is part of the result.
#
# Depth is read from trained models, without training again:

# %%
# alt: Horizontal bars of average precision after one, two and three decoder layers, for models
#   trained with two and three layers; the first layer alone is far lower.
depth = shipped("decoder-depth")
axes = score_bars({e.name: e.values("AP") for e in depth.entries}, depth.plan["reference"])

# %% [markdown]
# ## What it costs

# %%
for name in ("denoising", "encoder", "decoder-depth", "sampling-points", "selection"):
    cost = shipped(name).cost
    print(f"{name:16} {cost['runs']:2} runs, {cost['train_hours']:.2f} h on one thread")

# %% [markdown]
# Runs that two studies share are trained once. `rtdetr-lab ablate encoder --dry-run` prints the
# plan and its price before you pay it.
#
# ## Exercises
#
# **1.** With $n$ seeds whose differences scatter with standard deviation 1, the interval is
# $\pm t_{n-1} / \sqrt n$. By what factor is it narrower with 6 seeds than with 3? ($t_2 = 4.303$,
# $t_5 = 2.571$.)

# %%
answer = ...

# %% tags=["solution"]
check(
    answer, (4.303 / 3**0.5) / (2.571 / 6**0.5), hint="Twice the seeds, more than twice narrower."
)

# %% [markdown]
# **2.** How small a difference (in points of AP) could the denoising study have shown for
# "24 positives"? Give half the width of its interval.

# %%
answer = ...

# %% tags=["solution"]
check(answer, 100 * found["24 positives"].half_width, hint="`Difference.half_width`, times 100.")

# %% [markdown]
# **3.** In how many of three seeds was "0 positives" the better one?

# %%
answer = ...

# %% tags=["solution"]
check(answer, found["0 positives"].agreeing, hint="`Difference.agreeing` counts them.")

# %% [markdown]
# **Next**: [17 · Speed](17_speed.ipynb). Good, and how sure, is one half of it. How soon?
