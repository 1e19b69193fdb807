"""Rows of a leaderboard: trials that differ in their seed alone, their plain twins, and how much rows differ."""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rna import intervals
from rna.intervals import Estimate, Terms
from rna.settings import TOO_FAR, alike, left_out_for
from rna.store import lookup
from rna.sweep import ledger
from rna.sweep.ledger import Trial
from rna.sweep.records import Reader

FORGET = ("eval/forget/report/acc", "eval/forget/acc", "eval/forget/nll")  # by which a row is matched, the first it has


@dataclass(eq=False)
class Row:
    """The trials that differ in nothing but their seed; cells that make one and the same training are one seed."""

    title: str
    trials: list[Trial]
    reader: Reader

    @property
    def keys(self) -> list[Any]:
        """The trainings, in the order of their trials' numbers."""
        return list(dict.fromkeys((trial.address or {}).get("key") for trial in self.trials))

    @property
    def seeds(self) -> int:
        return len(self._trainings)

    @cached_property
    def by_seed(self) -> dict[int | None, Trial]:
        """The first trial of each seed; those of an app that names none are of one seed, None."""
        found: dict[int | None, Trial] = {}
        for trial in self.trials:
            found.setdefault(seed_of(trial), trial)
        return found

    def values(self, metric: str) -> list[float]:
        """One value a seed."""
        told = [[value_of(trial, metric) for trial in same] for same in self._trainings]
        known = [[value for value in values if value is not None] for values in told]
        return [sum(values) / len(values) for values in known if values]

    @cached_property
    def _trainings(self) -> list[list[Trial]]:
        found: dict[Any, list[Trial]] = {}
        for trial in self.trials:
            found.setdefault(training_of(trial), []).append(trial)
        return list(found.values())

    def mean(self, metric: str) -> float | None:
        values = self.values(metric)
        return sum(values) / len(values) if values else None

    def estimate(self, metric: str) -> Estimate | None:
        """The mean over seeds with its interval; with one seed, or seeds that agree, that is over questions."""
        values = self.values(metric)
        if not values:
            return None
        made = _estimate(values, lambda: [self.reader.terms(same[0], metric) for same in self._trainings])
        return intervals.within(made, 0.0, 1.0) if metric.endswith("/acc") else made

    def over_seeds(self, metric: str) -> Estimate:
        """The mean with its interval over seeds, if they differ; no record is read."""
        return _estimate(self.values(metric), lambda: [[]])

    @cached_property
    def plain(self) -> "Row | None":
        """The same seeds without noise and defence, as far as there are records of them; None for such a row itself."""
        if not self.reader.protected(self.trials[0]):  # then none of them is
            return None
        found = [twin for trial in self.trials if (twin := self.reader.plain(trial)) is not None]
        return Row("plain", found, self.reader) if found else None

    @cached_property
    def targeted(self) -> bool:
        """Whether its trainings had a `train.until`."""
        return bool(self.values(lookup.REACHED))

    @cached_property
    def forget(self) -> str:
        """The forget score by which it is matched with its plain twins: accuracy, of the half on which no training
        stops where there are halves, or a log-loss."""
        every = [*self.trials, *(self.plain.trials if self.plain is not None else ())]
        known = [name for name in FORGET if all(value_of(trial, name) is not None for trial in every)]
        return known[0] if known else FORGET[1]

    @cached_property
    def unmatched(self) -> dict[int | None, str]:
        """By seed, why trainings with a target are not matched with their plain twins, "" where they are; none of those
        that no forget score is known of. A log-loss is held at its target alone."""
        found: dict[int | None, str] = {}
        apart: dict[int | None, float] = {}
        known = self.targeted and self.mean(self.forget) is not None
        twins = self.plain.by_seed if self.plain is not None and known else {}
        for seed, twin in twins.items():
            both = (self.by_seed[seed], twin)
            one, other = (value_of(trial, self.forget) for trial in both)
            there = all(value_of(trial, lookup.REACHED) for trial in both)
            found[seed] = left_out_for(there, one is not None and other is not None)
            if there and one is not None and other is not None:
                apart[seed] = 100 * (one - other)
        if apart and self.forget.endswith("/acc") and not alike(list(apart.values())):
            found |= dict.fromkeys(apart, TOO_FAR)
        return found

    def less_plain(self, metric: str) -> Estimate | None:
        """This row less its plain twins, as `less`; of trainings with a target, on the seeds that are matched alone."""
        if self.plain is None:
            return None
        return self.less(self.plain, metric, without={seed for seed, why in self.unmatched.items() if why})

    def less(self, other: "Row", metric: str, without: Collection[int | None] = ()) -> Estimate | None:
        """This row less another on the seeds that both have, seed by seed; with one seed question by question."""
        pairs: dict[tuple[Any, Any], tuple[Trial, Trial]] = {}
        for seed, one in self.by_seed.items():
            its = other.by_seed.get(seed)
            if its is None or seed in without:
                continue
            if value_of(one, metric) is not None and value_of(its, metric) is not None:
                pairs.setdefault((training_of(one), training_of(its)), (one, its))
        if not pairs:
            return None
        changes = [(value_of(one, metric) or 0.0) - (value_of(its, metric) or 0.0) for one, its in pairs.values()]
        return _estimate(changes, lambda: [self._terms_less(*pair, metric) for pair in pairs.values()])

    def _terms_less(self, one: Trial, other: Trial, metric: str) -> Terms:
        first, second = self.reader.terms(one, metric), self.reader.terms(other, metric)
        return intervals.difference(first, second) if first and second else []


def _estimate(values: Sequence[float], terms: Any) -> Estimate:
    """Over seeds; where these do not differ, over the questions of their records, which are read only then."""
    made = intervals.over_seeds(values)
    if intervals.spread(made):
        return made
    by_seed: list[Terms] = terms()
    return intervals.estimate(by_seed) if all(by_seed) else Estimate(made.value, n=len(values))


def value_of(trial: Trial, metric: str) -> float | None:
    """A trial's number; None where it has none, or none that is finite."""
    value = trial.metrics.get(metric)
    return float(value) if value is not None and math.isfinite(value) else None


def training_of(trial: Trial) -> Any:
    return (trial.address or {}).get("key") or trial.number


def seed_of(trial: Trial) -> int | None:
    """The seed that a trial's address or cell names."""
    told = (trial.address or {}).get("seed")
    if told is None:
        told = next((item.partition("=")[2] for item in trial.cell if re.fullmatch(r"seed=\d+", item)), None)
    return None if told is None else int(told)


def rows_of(trials: Sequence[Trial], reader: Reader | None = None) -> list[Row]:
    """Finished trials by what they are apart from the seed, in the order of their numbers."""
    reader = reader or Reader()
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.status == ledger.DONE:
            groups.setdefault((trial.address or {}).get("group") or trial.name, []).append(trial)
    return [Row(_titled(group), group, reader) for group in groups.values()]


def _titled(group: list[Trial]) -> str:
    """The overrides that a row's trials have in common, without the seed if there is another."""
    common = [item for item in group[0].cell if all(item in trial.cell for trial in group)]
    common = [item for item in common if not item.startswith("seed=")] or common
    return " ".join(common) or (group[0].address or {}).get("title") or group[0].name
