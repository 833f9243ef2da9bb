r"""# Statistics: how certain are three seeds?

A difference between two variants depends on chance in two ways: through the **seed** (weights,
order) and through the **pictures** of the validation set. Each seed gives one paired difference
$d_s$, same seed against same seed. We report the mean over seeds. Its variance has both parts:

$$ V_s = s_d^2 / n, \qquad V_p = \operatorname{Var}_{\text{bootstrap}}(\bar d), \qquad
   \bar d \pm \sqrt{t_{n-1}^2 V_s + t_{m-1}^2 V_p} $$

for $n$ seeds and $m$ pictures (or as many replicates, if these are fewer). $V_s$ comes from the
spread of the $d_s$. $V_p$ is measured: we compute AP of both variants on the same hundreds of
redrawn validation sets (`resample.py`), averaged over seeds.

**Each part has the quantile of its own degrees of freedom** ($t_2 = 4.3$, $t_1 = 12.7$). So the
interval is never narrower than the seeds alone allow, and its coverage is at least what it claims
(Banerjee 1961). The usual way is one $t$ for the sum, with degrees of freedom after Welch and
Satterthwaite. With two or three seeds that fails: if these happen to agree, it takes them for
certain. A test measures both coverages.

The same formula, solved for the level at which the interval touches zero, is the p-value. A study
makes several comparisons, so a report adjusts them (`holm`).

**Why not simply resample the seeds?** There are only ten ways to draw three values with repetition,
and their percentiles understate the spread. With three seeds the nested bootstrap covers far less
than the 95 % it claims. A test measures both coverages. An interaction of seed and picture adds to
both parts, so our interval is rather too wide than too narrow.

A single seed says nothing about the spread of seeds. Then the interval is that of the pictures, and
the verdict says so. If a model has learned nothing, it has no difference to another one that has
learned nothing: below `NOTHING` on both sides there is no verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from rtdetr_lab.config import require
from rtdetr_lab.viz.ablation import Interval

Replicates = Float[np.ndarray, "S R"]
Part = tuple[float, int]

NOTHING = 0.01
"""AP below which a model has learned nothing."""


@dataclass(frozen=True)
class Difference(Interval):
    """Paired difference with its 95 % interval, in the units of the compared values."""

    per_seed: tuple[float, ...]
    parts: tuple[Part, ...] = ()
    """Variance and degrees of freedom of the seeds, and of the pictures."""

    @property
    def p_value(self) -> float:
        """Smallest p at which the interval of level 1 - p excludes zero."""
        from scipy.optimize import brentq

        def gap(p: float) -> float:
            return half_width(self.parts, 1 - p) - abs(self.mean)

        least = 1e-9
        if self.mean == 0:
            return 1.0
        return least if gap(least) <= 0 else float(brentq(gap, least, 1 - least))

    @property
    def half_width(self) -> float:
        """Resolution of the study: it cannot detect smaller differences."""
        return (self.high - self.low) / 2

    @property
    def agreeing(self) -> int:
        """Number of seeds whose difference has the sign of the mean."""
        return sum(d * self.mean > 0 for d in self.per_seed)


def paired_difference(
    one: Sequence[float],
    other: Sequence[float],
    one_resampled: Replicates,
    other_resampled: Replicates,
    num_pictures: int,
    level: float = 0.95,
) -> Difference:
    """Difference of `one` minus `other`, seed by seed, with resampled AP per seed and replicate."""
    require(len(one) == len(other) > 0, "seeds", f"{len(one)} and {len(other)}", "pair them")
    per_seed = np.asarray(one, float) - np.asarray(other, float)
    replicates = one_resampled - other_resampled
    n = len(per_seed)
    by_seed = per_seed.var(ddof=1) / n if n > 1 else 0.0
    by_picture = replicates.mean(0).var(ddof=1) if replicates.shape[-1] > 1 else 0.0
    known = min(num_pictures, replicates.shape[-1])  # few replicates estimate no variance either
    parts = ((float(by_seed), n - 1), (float(by_picture), known - 1))
    mean, half = float(per_seed.mean()), half_width(parts, level)
    return Difference(mean, mean - half, mean + half, tuple(map(float, per_seed)), parts)


def half_width(parts: Sequence[Part], level: float) -> float:
    """Return half an interval from (variance, degrees of freedom) of independent parts."""
    from scipy.stats import t

    square = sum(
        variance * float(t.ppf(0.5 + level / 2, max(freedom, 1))) ** 2
        for variance, freedom in parts
        if variance > 0
    )
    return float(square**0.5)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979).

    If all below 0.05 are called clear, the chance of a single false one is at most 5 %.
    """
    found = [1.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        found[i] = largest
    return found


def verdict(difference: Difference, unit: str = "AP", scale: float = 100.0) -> str:
    """State in words which one is better, by how much, and in how many seeds."""
    d, n = difference, len(difference.per_seed)
    half, size = scale * d.half_width, scale * abs(d.mean)
    seeds = f"{d.agreeing} of {n} seed{'s' if n > 1 else ''}"
    alone = "; one seed: pictures only" if n == 1 else ""
    if not d.is_clear:
        return f"no difference at this budget ({scale * d.mean:+.1f} ± {half:.1f} {unit}{alone})"
    word = "better" if d.mean > 0 else "worse"
    return f"{word} by {size:.1f} ± {half:.1f} {unit}, {seeds}{alone}"
