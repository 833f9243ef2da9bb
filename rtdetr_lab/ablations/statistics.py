r"""# Statistics: how certain are three seeds?

A difference between two variants depends on chance in two ways: through the **seed** (weights,
order) and through the **pictures** of the validation set. Each seed gives one paired difference
$d_s$, same seed against same seed. We report the mean over seeds. Its variance has both parts:

$$ V = \underbrace{s_d^2 / n}_{\text{seeds}} +
       \underbrace{\operatorname{Var}_{\text{bootstrap}}(\bar d)}_{\text{pictures}}, \qquad
   \bar d \pm t_{0.975,\,\nu} \sqrt{V} $$

The first part is the spread of the $d_s$. The second is measured: we compute AP of both variants on
the same hundreds of redrawn validation sets (`resample.py`), averaged over seeds. Their degrees of
freedom combine after Welch and Satterthwaite, $\nu = V^2 / (V_s^2/(n-1) + V_p^2/(m-1))$, for $n$
seeds and $m$ pictures. If the seeds dominate, $\nu$ is near 2 and the interval is wide, as three
seeds require ($t = 4.3$).

**Why not simply resample the seeds?** There are only ten ways to draw three values with repetition,
and their percentiles understate the spread. With three seeds the nested bootstrap covers far less
than the 95 % it claims. A test measures both coverages. An interaction of seed and picture adds to
both parts, so our interval is rather too wide than too narrow.

A single seed says nothing about the spread of seeds. Then the interval is that of the pictures, and
the verdict says so.
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
    """Paired difference with its 95 % interval, in the units of the compared values."""

    per_seed: tuple[float, ...]

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
    """Degrees of freedom of a sum of estimated variances, after Welch and Satterthwaite."""
    total = sum(variance for variance, _ in parts)
    pieces = sum(variance**2 / max(freedom, 1) for variance, freedom in parts)
    return total**2 / pieces if pieces > 0 else 1.0


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
