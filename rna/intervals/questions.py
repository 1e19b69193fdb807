"""Intervals over questions and documents for one set of them, from what each adds.

Which formula is used where was chosen by `tests/bench/coverage.py`. Each takes what the units add and gives the 95 %
limits of their mean.
"""

import math

import numpy as np

from rna.intervals.quantiles import LEVEL, Z_95, t_95

Limits = tuple[float, float]
FEW = 10  # questions that changed, up to which their limits are exact
KEYWORDS = 5  # of them from which an interval speaks of others too


def wilson(share: float, n: int) -> Limits:
    """A proportion's score interval (Wilson, JASA 22:209, 1927)."""
    centre, square = share + Z_95**2 / (2 * n), Z_95**2 / n
    half = Z_95 * math.sqrt(max(share * (1 - share), 0.0) / n + square / (4 * n))
    return (centre - half) / (1 + square), (centre + half) / (1 + square)


def exact(count: int, n: int) -> Limits:
    """A proportion's exact interval (Clopper and Pearson, Biometrika 26:404, 1934)."""
    from scipy.special import betaincinv

    tail = (1 - LEVEL) / 2
    low = float(betaincinv(count, n - count + 1, tail)) if count else 0.0
    return low, float(betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0


def few_changes(changes: np.ndarray, unit: float) -> Limits:
    """The mean of changes most of which are 0: each size's share by its exact limits, joined by `mover`.

    Beside the sizes that occur, those of one question gained or lost count, which might have occurred.
    """
    n, mean = len(changes), float(changes.mean())
    below = above = 0.0
    for size in sorted({*changes[changes != 0].tolist(), unit, -unit}):
        count = int((changes == size).sum())
        low, high = exact(count, n)
        down, up = (count / n - low, high - count / n) if size > 0 else (high - count / n, count / n - low)
        below, above = below + (size * down) ** 2, above + (size * up) ** 2
    return mean - math.sqrt(below), mean + math.sqrt(above)


def many_changes(changes: np.ndarray, unit: float) -> Limits:
    """The mean of paired changes: Wald's interval with one question gained and one lost added (Bonett and Price,
    Stat. Med. 31:1479, 2012, for two answers; the same for four)."""
    more = np.append(changes, (unit, -unit))
    mean, half = float(more.mean()), Z_95 * float(more.std(ddof=1)) / math.sqrt(len(more))
    return mean - half, mean + half


def changes(found: np.ndarray, unit: float) -> Limits:
    """The mean of paired changes, exact where few questions changed."""
    few = int(np.count_nonzero(found)) <= FEW
    return few_changes(found, unit) if few else many_changes(found, unit)


def ratio(sums: np.ndarray, weights: np.ndarray) -> Limits | None:
    """Σ sums / Σ weights over independent units: jackknife by units, and Student's t.

    Its degrees of freedom are the units less one, counted by their weights (Kish, Survey Sampling, 1965): of documents
    of odd lengths a few long ones count most. With one unit there is none; units that are all 0 leave no doubt.
    """
    units, total = len(sums), float(weights.sum())
    if units < 2 or not total:
        return None
    mean = float(sums.sum()) / total
    without = (sums.sum() - sums) / (total - weights)
    counted = total**2 / float((weights**2).sum())
    half = t_95(max(counted - 1, 1.0)) * math.sqrt((units - 1) / units * float(((without - without.mean()) ** 2).sum()))
    return mean - half, mean + half


def over_keywords(sums: np.ndarray, weights: np.ndarray, keywords: np.ndarray) -> Limits | None:
    """The same with the keywords as units, each with all the questions that drew it; None where they are too few.

    As each question draws one keyword, its own chance is part of its keyword's: these units hold both.
    """
    present, places = np.unique(keywords, return_inverse=True)
    if len(present) < KEYWORDS:
        return None
    return ratio(np.bincount(places, sums), np.bincount(places, weights))
