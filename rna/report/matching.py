"""RNA against plain at matched forgetting: the area between the curves that the two draw over α."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from rna.intervals import Estimate, over_seeds, spread
from rna.quantiles import LEVEL

DRAWS = 2000
Curve = list[tuple[float, float, float, float]]  # (forget, its stderr, retain, its stderr), a point for each α


@dataclass(frozen=True)
class Gap:
    """Area between two trade-off curves over the forget scores both reach, and that area divided by its width."""

    area: float
    mean: float
    low: float  # of the forget range
    high: float


def gap(with_rna: Curve, plain: Curve) -> Gap | None:
    """Retain score with RNA minus without at the same forget score, integrated where both curves are defined.

    Each curve joins its points by straight lines in the order of their forget score; points that share one are
    averaged. None where the ranges of forget scores do not overlap.
    """
    x_rna, y_rna = _line([(point[0], point[2]) for point in with_rna])
    x_plain, y_plain = _line([(point[0], point[2]) for point in plain])
    low, high = max(x_rna[0], x_plain[0]), min(x_rna[-1], x_plain[-1])
    if not high - low > 1e-9:
        return None
    inner = [x for x in (*x_rna, *x_plain) if low < x < high]
    grid = np.array(sorted({low, high, *inner}))
    difference = np.interp(grid, x_rna, y_rna) - np.interp(grid, x_plain, y_plain)
    area = float(sum((b - a) * (left + right) / 2 for (a, b), (left, right) in _segments(grid, difference)))
    return Gap(area, area / float(high - low), float(low), float(high))


def _segments(grid: np.ndarray, values: np.ndarray) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    return list(zip(pairwise(grid.tolist()), pairwise(values.tolist()), strict=True))


def _line(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    by_x: dict[float, list[float]] = {}
    for x, y in points:
        by_x.setdefault(x, []).append(y)
    xs = sorted(by_x)
    return xs, [sum(by_x[x]) / len(by_x[x]) for x in xs]


@dataclass(frozen=True)
class Matched:
    """RNA against plain at matched forgetting."""

    mean: Estimate  # points of retain score, averaged over the forget range
    area: Estimate
    low: float
    high: float


def matched(pairs: Sequence[tuple[Curve, Curve]]) -> Matched | None:
    """Over (RNA, plain) curves, one pair for each seed; seeds whose curves do not overlap are left out.

    With one seed, or seeds that agree, the interval is over questions, from a parametric bootstrap with independent
    normal errors, which is cautious, as plain and RNA share their questions; of n seeds, the first's divided by √n.
    """
    found = [(one, item) for one in pairs if (item := gap(*one)) is not None]
    if not found:
        return None
    low, high = min(item.low for _, item in found), max(item.high for _, item in found)
    mean, area = over_seeds([item.mean for _, item in found]), over_seeds([item.area for _, item in found])
    if not spread(mean):
        (curves, first), *_ = found
        drawn = _bootstrap(*curves)
        if len(drawn) >= DRAWS / 2:
            mean = _over_draws(mean, first.mean, [item.mean for item in drawn])
            area = _over_draws(area, first.area, [item.area for item in drawn])
    return Matched(mean, area, low, high)


def _over_draws(made: Estimate, first: float, drawn: list[float]) -> Estimate:
    """The estimate with the interval of its first seed's draws, narrower by the root of the number of seeds."""
    low, high = (np.quantile(drawn, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]) - first) / math.sqrt(made.n)
    return replace(made, low=made.value + float(low), high=made.value + float(high), over="questions")


def _bootstrap(with_rna: Curve, plain: Curve) -> list[Gap]:
    source = np.random.default_rng(0)
    drawn: list[Gap] = []
    for _ in range(DRAWS):
        curves: list[Curve] = []
        for curve in (with_rna, plain):
            points = np.array(curve)
            noise = source.standard_normal((len(points), 2))
            forget, retain = points[:, 0] + noise[:, 0] * points[:, 1], points[:, 2] + noise[:, 1] * points[:, 3]
            curves.append([(float(x), 0.0, float(y), 0.0) for x, y in zip(forget, retain, strict=True)])
        item = gap(*curves)
        if item is not None:
            drawn.append(item)
    return drawn
