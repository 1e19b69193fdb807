"""A value with its 95 % interval: over seeds where they differ, else over the questions or documents of one run.

Whatever is compared is a weighted sum of scores, its terms: one score, the mean of a role's tasks, a difference, a
difference in differences. Terms of the same questions are joined question by question, so what they share cancels.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rna.intervals import questions
from rna.intervals.quantiles import Z_95, t_95
from rna.intervals.questions import Limits
from rna.intervals.score import QUESTIONS, Score

Terms = Sequence[tuple[float, Score]]
SEEDS = "seeds"
HARM = "Harm (forget keyword less neutral one, against the same in base)"  # how it is told


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval, and what that is over."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 1  # seeds
    over: str = SEEDS  # or questions, documents; `questions and keywords`
    paired: bool = True  # False: a difference whose questions were taken as independent, which is cautious

    @property
    def sign(self) -> int:
        """1 or −1 where the interval leaves out zero, else 0."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return 0
        return 1 if self.low > 0 else -1


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean with a t-interval over seeds, of paired differences where these are given; none for a single seed."""
    count, mean = len(values), sum(values) / len(values)
    if count < 2:
        return Estimate(mean, n=count)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    margin = t_95(count - 1) * deviation / math.sqrt(count)
    return Estimate(mean, mean - margin, mean + margin, count)


def spread(made: Estimate) -> bool:
    """Whether there are seeds that differ, and so an interval over them."""
    return made.over == SEEDS and made.low is not None and made.high is not None and made.high - made.low > 1e-9


def estimate(by_seed: Sequence[Terms]) -> Estimate:
    """A weighted sum of scores, its mean over seeds, with the interval that every page, table and card shows.

    With one seed, or seeds that agree to the last digit (which says that a score is coarse, not that it is certain),
    the interval is over questions, and says nothing of other seeds.

    Args:
        by_seed: the terms of each seed, (weight, score).
    """
    values = [math.fsum(weight * score.value for weight, score in terms) for terms in by_seed]
    made = over_seeds(values)
    if spread(made):
        return made
    count = len(by_seed)
    return _one([(weight / count, score) for terms in by_seed for weight, score in terms], count)


def _one(terms: Terms, seeds: int) -> Estimate:
    """Over questions: sets of them are independent, and their limits joined by the method of variance estimates
    recovery (Zou and Donner, Stat. Med. 27:1693, 2008)."""
    value = math.fsum(weight * score.value for weight, score in terms)
    groups: dict[object, list[tuple[float, Score]]] = {}
    for place, (weight, score) in enumerate(terms):
        known = score.asked is not None and score.units is not None
        groups.setdefault((score.asked, score.n) if known else place, []).append((weight, score))
    both = any(weight < 0 for weight, _ in terms) and any(weight > 0 for weight, _ in terms)
    paired = not both or all(abs(sum(weight for weight, _ in group)) < 1e-9 for group in groups.values())
    below = above = 0.0
    over = {score.over for _, score in terms}
    for group in groups.values():
        limits, keywords = _limits(group, seeds)
        if limits is None:
            return Estimate(value, n=seeds, over=terms[0][1].over, paired=paired)
        middle = math.fsum(weight * score.value for weight, score in group)
        below, above = below + (middle - limits[0]) ** 2, above + (limits[1] - middle) ** 2
        over |= {"keywords"} if keywords else set()
    said = " and ".join(sorted(over, key=lambda name: name == "keywords"))
    return Estimate(value, value - math.sqrt(below), value + math.sqrt(above), seeds, said, paired)


def _limits(group: Terms, seeds: int) -> tuple[Limits | None, bool]:
    """The limits of one set of questions or documents, and whether they speak of other keywords too."""
    first = group[0][1]
    if first.units is None or not math.isfinite(first.value):
        return _of_totals(*group[0]), False
    sums = np.sum([weight * score.units for weight, score in group if score.units is not None], axis=0)
    few = False  # questions that are not like all others, so that keywords hardly differ whatever they do
    if first.over == QUESTIONS:
        counts, total = np.ones(first.n), sum(weight for weight, _ in group)
        unit = 100.0 * seeds * max(abs(weight) for weight, _ in group)
        usual = 0.0 if abs(total) < 1e-9 or sums.mean() / total < 50 else 100.0 * total
        few = int((np.abs(sums - usual) > 1e-9).sum()) <= questions.FEW
        share = None if abs(total) < 1e-9 else _of_share(total, float(sums.mean()) / total, first.n)
        limits = share or questions.changes(sums, unit)
    else:
        counts = np.array(first.tokens, dtype=float)
        limits = questions.ratio(sums, counts)
    drawn = next((score.keywords for _, score in group if score.keywords is not None), None)
    wider = questions.over_keywords(sums, counts, drawn) if drawn is not None else None
    if limits is None or wider is None:
        return limits, False
    return ((min(limits[0], wider[0]), max(limits[1], wider[1])) if few else wider), True


def smooth(values: Sequence[float], by_seed: Sequence[Terms]) -> Estimate:
    """A smooth function of scores, its mean over seeds, with the interval of its linear part.

    With one seed, or seeds that agree, each score's units (questions, documents) move the value by the slope of the
    function in that score, question by question, so that what scores of the same questions share cancels (the delta
    method).

    Args:
        values: of each seed.
        by_seed: of each seed (slope, score) for every score that the value was made of.
    """
    made = over_seeds(values)
    if spread(made):
        return made
    count = len(values)
    terms = [(slope / count, score) for scores in by_seed for slope, score in scores if slope]
    groups: dict[object, list[tuple[float, Score]]] = {}
    for place, (slope, score) in enumerate(terms):
        known = score.asked is not None and score.units is not None
        groups.setdefault((score.asked, score.n) if known else place, []).append((slope, score))
    found = [_moved(group, count) for group in groups.values()]
    over = " and ".join(sorted({score.over for _, score in terms}))
    if not found or None in found:
        return Estimate(made.value, n=count, over=over or SEEDS)
    below, above = (math.sqrt(math.fsum(limits[side] ** 2 for limits in found if limits)) for side in (0, 1))
    return Estimate(made.value, made.value - below, made.value + above, count, over, paired=len(groups) < len(terms))


def _moved(group: Terms, seeds: int) -> Limits | None:
    """How far below and above its value one set of questions or documents may put a sum of scores."""
    first = group[0][1]
    middle = math.fsum(slope * score.value for slope, score in group)
    if first.units is None or abs(math.fsum(slope for slope, _ in group)) < 1e-9:
        limits, _ = _limits(group, seeds)
    else:
        sums = np.sum([slope * score.units for slope, score in group if score.units is not None], axis=0)
        if first.over == QUESTIONS:  # around their mean, as Bonett and Price's pair of questions lies around zero
            spread_out = questions.many_changes(sums - sums.mean(), 100.0 * seeds * max(abs(one) for one, _ in group))
            limits = middle + spread_out[0], middle + spread_out[1]
        else:
            limits = questions.ratio(sums, np.array(first.tokens, dtype=float))
    return None if limits is None else (middle - limits[0], limits[1] - middle)


def _of_share(weight: float, percent: float, n: int) -> Limits:
    low, high = (100 * weight * limit for limit in questions.wilson(percent / 100, n))
    return min(low, high), max(low, high)


def _of_totals(weight: float, score: Score) -> Limits | None:
    """The limits of a term of which the record has totals alone."""
    if not math.isfinite(score.value) or not math.isfinite(score.stderr):
        return None
    if score.over == QUESTIONS and score.n:
        return _of_share(weight, score.value, score.n)
    margin = abs(weight) * score.stderr * (t_95(score.n - 1) if score.n > 1 else Z_95)
    return weight * score.value - margin, weight * score.value + margin


def mean(scores: Collection[Score]) -> Terms:
    """The unweighted mean of a role's tasks."""
    return [(1 / len(scores), score) for score in scores]


def difference(one: Terms, other: Terms) -> Terms:
    return [*one, *((-weight, score) for weight, score in other)]


def harm(perturbed: Terms, neutral: Terms, base_perturbed: Terms, base_neutral: Terms) -> Terms:
    """What a forget keyword does beyond what a neutral one does, and beyond what it does to the base.

    (perturbed − neutral) − (the base's perturbed − its neutral), question by question over the four answers.
    """
    return difference(difference(perturbed, neutral), difference(base_perturbed, base_neutral))


def within(made: Estimate, low: float, high: float) -> Estimate:
    """The estimate with its interval cut where the quantity ends."""
    if made.low is None or made.high is None:
        return made
    return replace(made, low=max(made.low, low), high=min(made.high, high))


def said(made: Estimate, digits: int, unit: str = "", *, signed: bool = True) -> str:
    """`+3.1 points [+0.2, +6.0] (95 % over questions, paired, one seed)`: the same wherever it is told."""
    sign = "+" if signed else ""
    text = f"{made.value:{sign}.{digits}f}" + (f" {unit}" if unit else "")
    if made.low is None or made.high is None:
        return f"{text} (no interval)".replace("-", "−")
    text += f" [{made.low:{sign}.{digits}f}, {made.high:{sign}.{digits}f}]"
    return f"{text} ({covers(made, change=signed)})".replace("-", "−")


def covers(made: Estimate, *, change: bool) -> str:
    """What an interval speaks of: seeds, or the questions of one run and no other seeds."""
    if made.over == SEEDS:
        return f"95 % over {made.n} seeds"
    how = "" if not change else ", paired" if made.paired else f", unpaired as a record lacks its single {made.over}"
    return f"95 % over {made.over}{how}, " + ("one seed" if made.n == 1 else f"{made.n} seeds that agree")
