r"""# Statistics: how sure can three seeds be?

A difference between two variants owes something to chance twice: to the **seed** (weights, order)
and to the **pictures** it is measured on. Each seed gives one paired difference $d_s$, same seed
against same seed, and the mean over seeds is what we report. Its variance has both parts:

$$ V = \underbrace{s_d^2 / n}_{\text{seeds}} +
       \underbrace{\operatorname{Var}_{\text{bootstrap}}(\bar d)}_{\text{pictures}}, \qquad
   \bar d \pm t_{0.975,\,\nu} \sqrt{V} $$

The first is the spread of the $d_s$. The second is measured: AP of both on hundreds of redrawn
validation sets, the same for both (`resample.py`), averaged over seeds. Their degrees of freedom
combine after Welch and Satterthwaite, $\nu = V^2 / (V_s^2/(n-1) + V_p^2/(m-1))$, for $n$ seeds and
$m$ pictures: where seeds dominate, $\nu$ is near 2 and the interval is as wide as three seeds
deserve ($t = 4.3$).

**Why not simply resample the seeds?** Three values can be drawn with repetition in ten ways, and
the percentiles of so few understate the spread: with three seeds the nested bootstrap covers far
less than the 95 % it claims. A test measures both coverages. What an
interaction of seed and picture adds is in both parts, so the interval errs on the wide side.

With a single seed nothing is known about seeds: the interval is that of the pictures, and says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from rtdetr_lab.config import require
from rtdetr_lab.viz.ablation import Interval

Replicates = Float[np.ndarray, "S R"]


@dataclass(frozen=True)
class Difference(Interval):
    """A paired difference with its 95 % interval, in the units of what was compared."""

    per_seed: tuple[float, ...]

    @property
    def half_width(self) -> float:
        """Differences smaller than this would not have been seen: the study's resolution."""
        return (self.high - self.low) / 2

    @property
    def agreeing(self) -> int:
        """Seeds whose difference has the sign of the mean."""
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
    from scipy.stats import t

    require(len(one) == len(other) > 0, "seeds", f"{len(one)} and {len(other)}", "pair them")
    per_seed = np.asarray(one, float) - np.asarray(other, float)
    replicates = one_resampled - other_resampled
    n = len(per_seed)
    by_seed = per_seed.var(ddof=1) / n if n > 1 else 0.0
    by_picture = replicates.mean(0).var(ddof=1) if replicates.shape[-1] > 1 else 0.0
    variance = by_seed + by_picture
    freedom = _freedom((by_seed, n - 1), (by_picture, num_pictures - 1))
    half = float(t.ppf(0.5 + level / 2, freedom) * variance**0.5) if variance > 0 else 0.0
    mean = float(per_seed.mean())
    return Difference(mean, mean - half, mean + half, tuple(map(float, per_seed)))


def _freedom(*parts: tuple[float, int]) -> float:
    """Welch and Satterthwaite: degrees of freedom of a sum of estimated variances."""
    total = sum(variance for variance, _ in parts)
    pieces = sum(variance**2 / max(freedom, 1) for variance, freedom in parts)
    return total**2 / pieces if pieces > 0 else 1.0


def verdict(difference: Difference, unit: str = "AP", scale: float = 100.0) -> str:
    """In words: which is better, by how much, and in how many seeds."""
    d, n = difference, len(difference.per_seed)
    half, size = scale * d.half_width, scale * abs(d.mean)
    seeds = f"{d.agreeing} of {n} seed{'s' if n > 1 else ''}"
    alone = "; one seed: pictures only" if n == 1 else ""
    if not d.is_clear:
        return f"no difference at this budget ({scale * d.mean:+.1f} ± {half:.1f} {unit}{alone})"
    word = "better" if d.mean > 0 else "worse"
    return f"{word} by {size:.1f} ± {half:.1f} {unit}, {seeds}{alone}"
