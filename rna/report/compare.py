"""RNA against plain, paired on the same seeds: at equal hyperparameters, along α, and stopped at one target."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from rna import intervals, perturb
from rna.intervals import Estimate, Terms
from rna.report import matching
from rna.report.matching import Curve, Matched, Point
from rna.report.records import PROTECTED, Study, Trial
from rna.settings import TOO_FAR, alike, left_out_for, read_back, roles

NAMES = tuple(role.name for role in roles.ROLES if role.column is not None)
MIN_ALPHAS = 3


@dataclass
class Condition:
    """Trials that differ in nothing but the seed."""

    trials: list[Trial]

    @property
    def first(self) -> Trial:
        return self.trials[0]

    @property
    def seeds(self) -> list[int]:
        return sorted(trial.seed for trial in self.trials)

    def estimate(self, study: Study, name: str, part: str | None = None) -> Estimate | None:
        """The mean over seeds with its interval, of accuracies cut at 0 and 100 %."""
        made = self.uncut(study, name, part)
        return intervals.within(made, 0.0, 100.0) if made is not None and study.kind == "choice" else made

    def uncut(self, study: Study, name: str, part: str | None = None) -> Estimate | None:
        """The same, whose half width is what stands behind a ±."""
        found = [trial.scores(name, part or study.part) for trial in self.trials]
        by_seed = [intervals.mean(list(scores.values())) for scores in found if scores]
        return intervals.estimate(by_seed) if by_seed else None


@dataclass
class Comparison:
    """One condition with RNA beside its plain twin."""

    rna: Condition
    plain: Condition
    changes: dict[str, Estimate]  # RNA − plain, over the seeds both have

    @property
    def method(self) -> str:
        return self.rna.first.method

    @property
    def seeds(self) -> list[int]:
        return sorted(set(self.rna.seeds) & set(self.plain.seeds))


@cache
def conditions(study: Study) -> list[Condition]:
    """The study's conditions in the paper's order."""
    groups: dict[str, list[Trial]] = {}
    for trial in study.trials:
        groups.setdefault(trial.without("seed"), []).append(trial)
    return [Condition(sorted(members, key=lambda trial: trial.seed)) for members in groups.values()]


@dataclass
class Smoothed:
    """A condition with noise at inference beside the same trials without, and those trained with noise."""

    condition: Condition
    against_plain: dict[str, Estimate]
    against_rna: dict[str, Estimate]  # the trials with RNA that are shown for the method


def smoothings(study: Study) -> list[Smoothed]:
    """The study's trials with noise at inference, by method, scale and draws."""
    groups: dict[str, list[Trial]] = {}
    for trial in study.smoothed:
        groups.setdefault(trial.without("seed"), []).append(trial)
    plain = [*study.trials, *study.references.values()]
    made: list[Smoothed] = []
    for members in sorted(groups.values(), key=lambda group: (group[0].method, group[0].nu)):
        keys = {trial.key for trial in members}
        pick = chosen(study, members[0].method, comparisons(study))
        rna = pick.comparison.rna.trials if pick is not None else []
        same = [trial for trial in rna if trial.without("seed", "noise") == members[0].without(*APART)]
        made.append(
            Smoothed(
                Condition(sorted(members, key=lambda trial: trial.seed)),
                _changes(study, members, [trial for trial in plain if trial.key in keys]),
                _changes(study, members, same),
            )
        )
    return made


APART = ("seed", "noise", "smoothing")  # what may part a trial with noise at inference from one with RNA


@cache
def comparisons(study: Study) -> list[Comparison]:
    """Every condition with RNA that has a plain twin with a seed in common."""
    rows = conditions(study)
    plain = {row.first.without("seed", "noise"): row for row in rows if row.first.arm == "plain"}
    found: list[Comparison] = []
    for row in rows:
        twin = plain.get(row.first.without("seed", "noise"))
        if row.first.arm == "rna" and twin is not None and set(row.seeds) & set(twin.seeds):
            found.append(Comparison(row, twin, _changes(study, row.trials, twin.trials)))
    return found


def _changes(study: Study, one: Sequence[Trial], other: Sequence[Trial]) -> dict[str, Estimate]:
    twins = {trial.seed: trial for trial in other}
    return _over_seeds(study, [(trial, twins[trial.seed]) for trial in one if trial.seed in twins])


def _over_seeds(study: Study, pairs: Sequence[tuple[Trial, Trial]]) -> dict[str, Estimate]:
    """One less the other of each pair, by role."""
    found: dict[str, Estimate] = {}
    for name in NAMES:
        both = [difference(one, other, name, study.part) for one, other in pairs]
        if known := [terms for terms in both if terms]:
            found[name] = intervals.estimate(known)
    return found


def difference(one: Trial, other: Trial, name: str, part: str) -> Terms:
    """one − other on a role, the mean over the role's tasks; nothing where one of them lacks a task."""
    first, second = one.scores(name, part), other.scores(name, part)
    if not first or first.keys() != second.keys():
        return []
    return intervals.difference(intervals.mean(list(first.values())), intervals.mean([second[task] for task in first]))


def against_base(study: Study, row: Condition) -> dict[str, Estimate]:
    """A condition less the base, by role; nothing where there is no base."""
    base = study.references.get("base")
    return _over_seeds(study, [(trial, base) for trial in row.trials]) if base is not None else {}


def harm(study: Study, row: Condition) -> Estimate | None:
    """What the forget keyword does to a condition beyond a neutral one, and beyond what it does to the base."""
    base = study.references.get("base")
    if base is None:
        return None
    by_seed: list[Terms] = []
    for trial in row.trials:
        parts = [
            intervals.mean(list(one.scores(name, study.part).values()))
            for one in (trial, base)
            for name in ("perturbed", "neutral")
            if one.scores(name, study.part)
        ]
        by_seed += [intervals.harm(*parts)] if len(parts) == 4 else []
    return intervals.estimate(by_seed) if by_seed else None


def front(study: Study, arm: str | None = None) -> list[Condition]:
    """The conditions (of one arm: plain or rna) that none betters in both mean scores, forget and perturbed retain.

    Those that forget most come first.
    """
    kept: list[Condition] = []
    best = float("-inf")
    known = [
        (study.better * forget.value, -study.better * perturbed.value, place, row)
        for place, row in enumerate(conditions(study))
        if arm in (None, row.first.arm)
        if (forget := row.estimate(study, "forget")) and (perturbed := row.estimate(study, "perturbed"))
    ]
    for _, cost, _, row in sorted(known, key=lambda item: item[:3]):
        if -cost > best:
            kept.append(row)
            best = -cost
    return kept


@dataclass
class Chosen:
    """The row of a method in the summary, and how its ν was chosen."""

    comparison: Comparison
    how: str
    on_select: bool = False  # chosen on the half that is not shown


def chosen(study: Study, method: str, found: Sequence[Comparison]) -> Chosen | None:
    """A method's comparison: the setting tried with most trials, and of its noise scales the best on `select`.

    Where the records have no `select` half, ν is chosen on the questions that are reported, as the paper did, which
    flatters RNA; `how` says so.
    """
    mine = [item for item in found if item.method == method]
    if not mine:
        return None
    sizes: dict[str, int] = {}
    for trial in study.trials:
        family = trial.without("seed", "noise")
        sizes[family] = sizes.get(family, 0) + 1
    family = max((item.rna.first.without("seed", "noise") for item in mine), key=lambda name: sizes[name])
    mine = [item for item in mine if item.rna.first.without("seed", "noise") == family]
    own = [item for item in mine if not _elsewhere(item.rna.first)]
    mine = own or mine
    there = [item for item in mine if all(trial.reached is not False for trial in item.rna.trials)]
    mine = there or mine  # what has not forgotten yet is robust of nothing
    most = max(len(item.seeds) for item in mine)
    mine = [item for item in mine if len(item.seeds) == most]
    if len(mine) == 1:
        return Chosen(mine[0], "the only ν")
    part = "select" if study.halved else study.part

    def merit(item: Comparison) -> float:
        estimate = item.rna.estimate(study, "perturbed", part)
        return float("-inf") if estimate is None else study.better * estimate.value

    on = "on the select half" if study.halved else "on the very questions reported: flattering"
    return Chosen(max(mine, key=merit), f"best of {len(mine)} ν {on}", study.halved)


@cache
def shown(study: Study) -> Study:
    """The study on the questions that its methods' rows are read from: all, unless a ν was chosen among several.

    Then it is the half on which nothing was chosen.
    """
    found = comparisons(study)
    picks = [chosen(study, method, found) for method in study.methods]
    return study.reported if any(pick is not None and pick.on_select for pick in picks) else study


def alone(study: Study, method: str) -> Condition:
    """The condition that stands for a method without a comparison: plain before RNA, of those with most seeds."""
    mine = [row for row in conditions(study) if row.first.method == method]
    return max(mine, key=lambda row: (row.first.arm == "plain", len(row.trials)))


def picks(study: Study) -> dict[str, Chosen | None]:
    """By method, the comparison that stands for it."""
    found = comparisons(study)
    return {method: chosen(study, method, found) for method in study.methods}


def judged(
    study: Study, method: str, found: Sequence[Comparison], task: str
) -> tuple[Condition | None, Condition | None]:
    """A method's plain condition and the one with RNA that a task judged; the plain one alone if that is all."""
    both = [item for item in found if all(row.estimate(study, task) is not None for row in (item.plain, item.rna))]
    pick = chosen(study, method, both)
    if pick is not None:
        return pick.comparison.plain, pick.comparison.rna
    mine = [row for row in conditions(study) if (row.first.method, row.first.arm) == (method, "plain")]
    alone = [row for row in mine if row.estimate(study, task) is not None]
    return max(alone, key=lambda row: len(row.trials), default=None), None


# At matched forgetting


@dataclass
class TradeOff:
    """A method's curves over α, with one noise setting and without."""

    method: str
    nu: float
    rna: list[Trial]
    plain: list[Trial]
    alphas: tuple[int, int]  # how many α values, with RNA and plain
    results: dict[str, Matched] = field(default_factory=dict)  # retain, perturbed

    @property
    def enough(self) -> bool:
        return min(self.alphas) >= MIN_ALPHAS


@cache
def trade_offs(study: Study) -> list[TradeOff]:
    """By method and noise setting: the trials that differ in nothing but α and the seed, with RNA and plain."""
    plain: dict[str, list[Trial]] = {}
    rna: dict[str, list[Trial]] = {}
    for trial in study.trials:
        if trial.reached is False:
            continue
        where = plain if trial.arm == "plain" else rna
        where.setdefault(trial.without("seed", "alpha", *(["noise"] if trial.arm == "plain" else [])), []).append(trial)
    found: list[TradeOff] = []
    for members in rna.values():
        twins = plain.get(members[0].without("seed", "alpha", "noise"), [])
        item = TradeOff(members[0].method, members[0].nu, members, twins, (_alphas(members), _alphas(twins)))
        if item.enough:
            for name in ("perturbed", "retain"):
                pairs = [
                    (curve, twin)
                    for seed in sorted({trial.seed for trial in members})
                    if len(curve := _curve(members, seed, name, study.part)) >= MIN_ALPHAS
                    and len(twin := _curve(twins, seed, name, study.part)) >= MIN_ALPHAS
                ]
                result = matching.matched(pairs) if pairs else None
                if result is not None:
                    item.results[name] = result
        found.append(item)
    return found


def _alphas(trials: Sequence[Trial]) -> int:
    return len({str(trial.config["alpha"]) for trial in trials})


def _curve(trials: Sequence[Trial], seed: int, name: str, part: str) -> Curve:
    points: Curve = []
    for trial in trials:
        forget, retain = trial.scores("forget", part), trial.scores(name, part)
        if trial.seed == seed and forget and retain:
            points.append(Point(intervals.mean(list(forget.values())), intervals.mean(list(retain.values()))))
    return points


@dataclass
class Stopped:
    """A condition beside a plain one, both of trainings with one `train.until`: the seeds on which they are matched.

    They may differ in α, and in `train.steps`, which says no more than when to give up.
    """

    other: Condition
    plain: Condition
    pairs: list[tuple[Trial, Trial]]  # that are matched, (other, plain): all that reached the target, or none
    apart: list[float]  # of forget: points of accuracy, no further than ALIKE in the mean, or nats a token
    left_out: dict[str, list[int]]  # why -> seeds
    changes: dict[str, Estimate]  # other − plain, over the pairs
    part: str  # the questions that all this is of: the half on which nothing stopped, where there is one

    @property
    def count(self) -> int:
        """How many pairs there are, matched or not."""
        return len(self.pairs) + sum(map(len, self.left_out.values()))


@cache
def stopped(study: Study) -> list[Stopped]:
    """Every condition that is not plain and was trained to a target, with each plain one of its method and data."""
    study = study.reported if study.halved else study
    rows = to_target(study)
    plain: dict[str, list[Condition]] = {}
    for row in rows:
        if row.first.bare:
            plain.setdefault(row.first.without(*UNLIKE_PLAIN), []).append(row)
    return [
        beside(study, row, twin)
        for row in rows
        if not row.first.bare
        for twin in plain.get(row.first.without(*UNLIKE_PLAIN), [])
        if set(row.seeds) & set(twin.seeds)
    ]


UNLIKE_PLAIN = ("seed", *PROTECTED, "alpha", "train.steps")  # in which a pair may differ


def to_target(study: Study) -> list[Condition]:
    """The conditions trained to a target. Of a seed with several `train.steps` one training stands, one that got there
    if any did: where it stops they are the same."""
    groups: dict[str, dict[int, Trial]] = {}
    for trial in study.trials:
        if trial.reached is not None:
            by_seed = groups.setdefault(trial.without("seed", "train.steps"), {})
            if trial.seed not in by_seed or trial.reached:
                by_seed[trial.seed] = trial
    return [Condition([of[seed] for seed in sorted(of)]) for of in groups.values()]


def beside(study: Study, row: Condition, plain: Condition) -> Stopped:
    """A condition and another, trained to one target, seed by seed; `study` is of the half on which none stopped.

    Accuracies must lie no further than ALIKE apart. A log-loss that is to rise is held at its target alone, as is what
    was stopped by one kind of evaluation and is judged by another that asks nothing forgotten.
    """
    asked = study.has("forget")
    twins = {trial.seed: trial for trial in plain.trials}
    pairs: list[tuple[Trial, Trial]] = []
    apart: list[float] = []
    left_out: dict[str, list[int]] = {}
    for trial, twin in ((trial, twins[trial.seed]) for trial in row.trials if trial.seed in twins):
        terms = difference(trial, twin, "forget", study.part)
        if why := left_out_for(bool(trial.reached and twin.reached), bool(terms) or not asked):
            left_out.setdefault(why, []).append(trial.seed)
        else:
            pairs.append((trial, twin))
            apart += [math.fsum(weight * score.value for weight, score in terms)] if terms else []
    if apart and study.kind == "choice" and not alike(apart):
        left_out[TOO_FAR] = [trial.seed for trial, _ in pairs]
        pairs, apart = [], []
    return Stopped(row, plain, pairs, apart, left_out, _over_seeds(study, pairs), study.part)


# Rates


@dataclass
class Rates:
    """Reduction and recovery of perturbed accuracy in percent (arXiv:2501.19202, Eqs. 14 and 15), means over seeds."""

    reduction: Estimate | None
    recovery: Estimate | None
    undefined: int  # seeds whose recovery has a zero denominator


def rates(study: Study, item: Comparison) -> Rates | None:
    base = study.score(study.references.get("base"), "perturbed")
    if base is None or study.kind != "choice":
        return None
    twins = {trial.seed: trial for trial in item.plain.trials}
    reductions: list[float | None] = []
    recoveries: list[float | None] = []
    for trial in item.rna.trials:
        with_rna = study.score(trial, "perturbed")
        plain = study.score(twins.get(trial.seed), "perturbed")
        if with_rna is not None and plain is not None:
            reductions.append(perturb.reduction_rate(base.value, plain.value))
            recoveries.append(perturb.recovery_rate(base.value, plain.value, with_rna.value))
    if not reductions:
        return None
    known = [[value for value in values if value is not None] for values in (reductions, recoveries)]
    reduction, recovery = (intervals.over_seeds(values) if values else None for values in known)
    return Rates(reduction, recovery, recoveries.count(None))


# Settings in words


def hyperparameters(trial: Trial) -> str:
    """What a trial's row says of its settings, next to method and noise."""
    config: dict[str, Any] = trial.config
    options, layer, train = config["method"], config["layer"], config["train"]
    words = [f"c = {options['coefficient']:g}"] if options.get("coefficient") is not None else []
    words += [f"β = {options['beta']:g}"] if options.get("beta") is not None else []
    words += [f"γ = {options['gamma']:g}"] if options.get("gamma") else []
    words.append(f"α = {alpha(config)}")
    until = read_back(train.get("until"))
    to = "" if until is None else f" to {until.metric.removeprefix('interim/')} {until.said()}"
    words += [f"l = {layer['unlearn']}", f"{'≤ ' if to else ''}{train['steps']} steps{to}", f"lr {train['lr']:g}"]
    words += [f"noise at {config['noise']['layers']}"] if _elsewhere(trial) else []
    return ", ".join(words)


def alpha(config: dict[str, Any]) -> str:
    """The retain weight: one number, or one for each topic where they differ."""
    values = config["alpha"]
    if len(set(values.values())) <= 1:
        return "–" if not values else f"{next(iter(values.values())):g}"
    return " / ".join(f"{value:g}" for value in values.values())


def _elsewhere(trial: Trial) -> bool:
    return trial.arm == "rna" and trial.config["noise"]["layers"] != [trial.config["layer"]["unlearn"]]
