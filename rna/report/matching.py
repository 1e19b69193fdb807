"""RNA against plain at matched forgetting: the area between the curves that the two draw over α."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rna import intervals
from rna.intervals import Estimate, Terms


@dataclass(frozen=True)
class Point:
    """One α on a trade-off curve: forget and retain score, each a weighted sum of tasks' scores."""

    forget: Terms
    retain: Terms


Curve = list[Point]
Line = list[tuple[float, float]]  # (forget, retain)


@dataclass(frozen=True)
class Gap:
    """Area between two trade-off curves over the forget scores both reach, and that area divided by its width."""

    area: float
    mean: float
    low: float  # of the forget range
    high: float


def gap(with_rna: Line, plain: Line) -> Gap | None:
    """Retain score with RNA minus without at the same forget score, integrated where both curves are defined.

    Each curve joins its points by straight lines in the order of their forget score; points that share one are
    averaged. None where the ranges of forget scores do not overlap.
    """
    x_rna, y_rna = _line(with_rna)
    x_plain, y_plain = _line(plain)
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


def _line(points: Line) -> tuple[list[float], list[float]]:
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

    Several seeds that differ have a t-interval over seeds. With one seed, or seeds that agree, it is over questions,
    paired: as plain and RNA answer the same, each question moves the distance by ∂/∂retain and ∂/∂forget of every
    point, summed over the points of both curves.
    """
    found = [(one, item) for one in pairs if (item := gap(*map(_values, one))) is not None]
    if not found:
        return None
    low, high = min(item.low for _, item in found), max(item.high for _, item in found)
    slopes = [_slopes(*curves) for curves, _ in found]
    mean = intervals.smooth([item.mean for _, item in found], [of_mean for of_mean, _ in slopes])
    area = intervals.smooth([item.area for _, item in found], [of_area for _, of_area in slopes])
    return Matched(mean, area, low, high)


def _values(curve: Curve) -> Line:
    return [(_value(point.forget), _value(point.retain)) for point in curve]


def _value(terms: Terms) -> float:
    return math.fsum(weight * score.value for weight, score in terms)


def _slopes(with_rna: Curve, plain: Curve) -> tuple[Terms, Terms]:
    """The slopes of the mean distance and of the area in every score of both curves.

    In retain scores both are linear. A forget score also sets the order of the points and the ends of the range, where
    both have a kink: its slope is the secant over one standard error to either side.
    """
    curves = [_values(with_rna), _values(plain)]
    middle = gap(*curves)
    of_mean: list[tuple[float, intervals.Score]] = []
    of_area: list[tuple[float, intervals.Score]] = []
    for which, curve in enumerate((with_rna, plain)):
        for place, point in enumerate(curve):
            for axis, terms in enumerate((point.forget, point.retain)):
                step = 1.0 if axis else max(_stderr(terms), 1e-3)
                below, above = (_moved(curves, which, place, axis, way * step) or middle for way in (-1, 1))
                if below is None or above is None:
                    continue
                of_mean += [(weight * (above.mean - below.mean) / (2 * step), score) for weight, score in terms]
                of_area += [(weight * (above.area - below.area) / (2 * step), score) for weight, score in terms]
    return of_mean, of_area


def _stderr(terms: Terms) -> float:
    known = [weight * score.stderr for weight, score in terms if math.isfinite(score.stderr)]
    return math.hypot(*known)


def _moved(curves: Sequence[Line], which: int, place: int, axis: int, by: float) -> Gap | None:
    """The gap with one coordinate of one point moved."""
    made = [list(line) for line in curves]
    x, y = made[which][place]
    made[which][place] = (x + by, y) if axis == 0 else (x, y + by)
    return gap(*made)
