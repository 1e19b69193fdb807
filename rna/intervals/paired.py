"""Of values by seed: what a family of differences shows, how large one mean is beside another, and several together."""

import math
from collections.abc import Sequence

from rna.intervals.estimate import Estimate, over_seeds, spread
from rna.intervals.quantiles import t_95

FAMILY_WISE = 0.05  # the probability that any difference of a family is called one though there is none


def t_test(differences: Sequence[float]) -> float | None:
    """p of the paired t-test, two-sided, that a mean difference is zero; None of one seed, or of seeds that agree."""
    from scipy.special import stdtr

    made = over_seeds(differences)
    if made.low is None or not spread(made):
        return None
    error = (made.value - made.low) / t_95(made.n - 1)
    return 2 * float(stdtr(made.n - 1, -abs(made.value) / error))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of a family, adjusted: those at most `FAMILY_WISE` are rejected (Holm, A simple sequentially
    rejective multiple test procedure, Scand. J. Statist. 6:65, 1979).

    The i-th smallest of m is the largest of (m − j + 1)·p_j over j ≤ i, at most 1.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def ratio(above: Sequence[float], below: Sequence[float]) -> Estimate | None:
    """mean(above) / mean(below) of pairs, with Fieller's 95 % interval (Some problems in interval estimation,
    J. R. Statist. Soc. B 16:175, 1954): the ratios ρ for which the t-interval of the mean of above − ρ·below holds 0.

    None where the mean below is not clearly above zero, where that set has no bounds. Without an interval of one pair,
    or of pairs that agree.
    """
    count = len(below)
    x, y = sum(above) / count, sum(below) / count
    bottom = over_seeds(below)
    if y <= 0 or (bottom.low is not None and bottom.low <= 0):
        return None
    if count < 2 or not (spread(over_seeds(above)) or spread(bottom)):
        return Estimate(x / y, n=count)
    scale = t_95(count - 1) ** 2 / (count * (count - 1))

    def less(middles: float, one: Sequence[float], other: Sequence[float]) -> float:
        """A product of means less t² times the covariance of these."""
        of_one, of_other = sum(one) / count, sum(other) / count
        return middles - scale * math.fsum((a - of_one) * (b - of_other) for a, b in zip(one, other, strict=True))

    a, b, c = less(y * y, below, below), less(x * y, above, below), less(x * x, above, above)
    half = math.sqrt(max(b * b - a * c, 0.0))
    return Estimate(x / y, (b - half) / a, (b + half) / a, count)


def together(groups: Sequence[Sequence[float]], weights: Sequence[float]) -> Estimate:
    """Σ wᵢ·mean(groupᵢ) of groups that are independent of one another, as methods are that are trained apart.

    Its variance is v = Σ wᵢ²·sᵢ²/nᵢ, and its interval Student's with v²/Σ (wᵢ²·sᵢ²/nᵢ)²/(nᵢ − 1) degrees of freedom
    (Welch, The generalization of Student's problem, Biometrika 34:28, 1947; Satterthwaite, An approximate distribution
    of estimates of variance components, Biometrics Bull. 2:110, 1946). Without an interval where a group has one value,
    or where none of them differ. `n` is the smallest group's.
    """
    means = [sum(group) / len(group) for group in groups]
    value = math.fsum(weight * mean for weight, mean in zip(weights, means, strict=True))
    count = min(map(len, groups))
    if count < 2:
        return Estimate(value, n=count)
    parts: list[float] = []
    for group, mean, weight in zip(groups, means, weights, strict=True):
        squares = math.fsum((one - mean) ** 2 for one in group) / (len(group) - 1)
        parts.append(weight**2 * squares / len(group))
    variance = math.fsum(parts)
    if variance < 1e-18:
        return Estimate(value, n=count)
    degrees = variance**2 / math.fsum(part**2 / (len(group) - 1) for part, group in zip(parts, groups, strict=True))
    margin = t_95(degrees) * math.sqrt(variance)
    return Estimate(value, value - margin, value + margin, count)
