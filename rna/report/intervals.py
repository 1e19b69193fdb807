"""95 % intervals over seeds and over questions, and the words they allow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from rna.quantiles import LEVEL, Z_95, t_95
from rna.report.records import Score

DRAWS = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval: over seeds, over questions where there is one seed, or none at all."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 1  # seeds
    over: str = "seeds"  # what the interval speaks of: seeds or questions

    @property
    def sign(self) -> int:
        """1 or −1 where the interval leaves out zero, else 0."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return 0
        return 1 if self.low > 0 else -1


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean with a t-interval over seeds; without one for a single seed."""
    count, mean = len(values), sum(values) / len(values)
    if count < 2:
        return Estimate(mean, n=count)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    margin = t_95(count - 1) * spread / math.sqrt(count)
    return Estimate(mean, mean - margin, mean + margin, count)


def over_questions(value: float, stderr: float, seeds: int = 1) -> Estimate:
    """A normal interval over questions, which says nothing about other seeds."""
    if not math.isfinite(stderr):
        return Estimate(value, n=seeds)
    return Estimate(value, value - Z_95 * stderr, value + Z_95 * stderr, seeds, "questions")


def mean_of(scores: Sequence[Score]) -> Estimate:
    """The mean over seeds with its interval; over questions where there is one seed, or seeds that agree."""
    return paired([(score.value, score.stderr) for score in scores])


def within(made: Estimate, low: float, high: float) -> Estimate:
    """The estimate with its interval cut where the quantity ends."""
    if made.low is None or made.high is None:
        return made
    return replace(made, low=max(made.low, low), high=min(made.high, high))


def aligned(one: Score, other: Score) -> tuple[np.ndarray, np.ndarray] | None:
    """Which questions two scores of one task got right, as 0 and 1, or None where a record does not say.

    Hex digits hold four questions each, so a string may be padded with zeros before or behind; the same side is cut off
    both, and only where what remains agrees with both accuracies.
    """
    if one.correct is None or other.correct is None or not one.n or one.n != other.n:
        return None
    try:
        texts = ["".join(f"{int(digit, 16):04b}" for digit in score.correct or "") for score in (one, other)]
    except ValueError:
        return None
    wanted = [round(score.value * score.n / 100) for score in (one, other)]
    for cut in (slice(None, one.n), slice(-one.n, None)):
        kept = [text[cut] for text in texts]
        if all(len(text) == one.n and text.count("1") == count for text, count in zip(kept, wanted, strict=True)):
            first, second = (np.array([int(digit) for digit in text]) for text in kept)
            return first, second
    return None


def paired_over_questions(one: Score, other: Score) -> tuple[float, float]:
    """The difference one − other and its standard error over questions: paired where both say which were right.

    Without that they are taken as independent, which is cautious, as they share questions.
    """
    both = aligned(one, other)
    if both is None or one.n < 2:
        return one.value - other.value, math.hypot(one.stderr, other.stderr)
    change = 100.0 * (both[0] - both[1])
    return one.value - other.value, float(change.std(ddof=1)) / math.sqrt(one.n)


def paired(changes: Sequence[tuple[float, float]]) -> Estimate:
    """The mean of values or paired differences (value, standard error over questions), one for each seed.

    With one seed, or seeds that agree to the last digit (which says that a score is coarse, not that it is certain),
    the interval is over questions.
    """
    values = [value for value, _ in changes]
    made = over_seeds(values)
    if _spread(made):
        return made
    stderr = math.sqrt(sum(error**2 for _, error in changes)) / len(changes)
    return over_questions(made.value, stderr, len(changes))


def _spread(made: Estimate) -> bool:
    """Whether there are seeds that differ, and so an interval over them."""
    return made.low is not None and made.high is not None and made.high - made.low > 1e-9


def word(change: Estimate, better: int) -> str:
    """An honest word for a difference RNA − plain: helps, hurts, or no evidence."""
    if change.low is None:
        return "no interval"
    return {better: "helps", 0: "no evidence", -better: "hurts"}[change.sign]


# At matched forgetting


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
    if not _spread(mean):
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
