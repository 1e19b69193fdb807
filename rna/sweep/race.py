"""A race: which settings of a sweep are worth more questions. In: the answers so far. Out: who is still in.

What races is a setting with all its seeds. All answer the same blocks of the `select` half (`rna.evaluation.blocks`),
of the tasks of the objective and the constraints alone. A setting is out while it is beyond doubt, by the test of
`rna.intervals.sequential`, that

- it does not meet a constraint on the whole half, or
- it is not better, by the tolerance or more, than one that leads it and is in.

The tolerance is never finer than what the whole half can tell of the two: the half width of their paired 95 %
interval. Nothing is decided for good: all follows from the answers that there are, so that a setting comes back where
the one that had beaten it turns out not to meet a constraint, and a sweep that is killed goes on as it was.

The error is shared by the comparisons of the best setting with the others and, one half, by its constraints. So with
probability ≥ 1 − error, as far as the test's normal approximation holds, the winner is, on the whole half, the best
setting or within the tolerance of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rna.intervals import Z_95, sequential


def race_path(folder: Path) -> Path:
    """How a sweep's race stands, for who looks: made from the answers, and read by nobody who decides."""
    return folder / "race.json"


Answers = Sequence[Mapping[str, Any]]  # the blocks of one trial, as `rna.store.partial` has them


@dataclass(frozen=True)
class Goal:
    """A mean over tasks' accuracies: to be as large as can be with sign 1, or with a bound at least that."""

    metric: str
    tasks: tuple[str, ...]
    sign: int
    bound: float | None = None

    def scales(self, trials: Sequence[Answers]) -> tuple[dict[str, float], int]:
        """What a right answer counts by task, so that the mean over all questions is that over tasks; and how many
        questions the whole half has."""
        sizes = {task: int(trials[0][0]["tasks"][task]["population"]) for task in self.tasks}
        total = sum(sizes.values())
        return {task: total / (len(self.tasks) * size) for task, size in sizes.items()}, total

    def values(self, trials: Sequence[Answers], number: int) -> np.ndarray:
        """A value for each question of a block: their mean over the whole half is the metric there, times the sign."""
        scales, _ = self.scales(trials)
        parts = (scales[task] * np.mean([bits(one[number]["tasks"][task]) for one in trials], 0) for task in self.tasks)
        return self.sign * np.concatenate([*parts])


def bits(told: Mapping[str, Any]) -> np.ndarray:
    """The answers to a task's questions of a block, 1 where right."""
    count = int(told["n"])
    text = f"{int(told['correct'], 16):0{count}b}" if count else ""
    return np.array([int(bit) for bit in text], dtype=float)


@dataclass(frozen=True)
class Rules:
    """What a race is for, and how sure it has to be.

    Args:
        settings: how many race in all.
        error: the probability that the winner is not as good as the best but for the tolerance.
        tolerance: a difference of the objective that does not matter, a share: 0.01 is a point.
    """

    objective: Goal
    constraints: tuple[Goal, ...]
    settings: int
    error: float = 0.05
    tolerance: float = 0.01

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(task for goal in (self.objective, *self.constraints) for task in goal.tasks))


@dataclass(frozen=True)
class Out:
    """Why a setting is out: the goal that it misses beyond doubt, or the setting that it does not beat."""

    depth: int  # blocks that this took
    of: int
    goal: Goal
    value: float  # its metric in these blocks
    by: str | None = None
    ahead: float = 0.0  # how much the other is better in these blocks, in the goal's direction

    def __str__(self) -> str:
        told = f"{self.goal.metric} {100 * self.value:.1f} % after {self.depth} of {self.of} blocks"
        if self.by is None:
            return f"{told}, bound {100 * (self.goal.bound or 0.0):.1f}"
        return f"{told}, {100 * self.ahead:.1f} points behind {self.by}"


@dataclass(frozen=True)
class Standing:
    """How a race stands: who is in, the one that leads first, and who is out; others have not answered yet."""

    inside: list[str]
    out: dict[str, Out]


@dataclass
class Race:
    """The answers of settings by name, and what follows from them. Verdicts on the same blocks are kept."""

    rules: Rules
    answers: dict[str, list[Answers]] = field(default_factory=dict)  # of each setting's trials
    of: int | None = None  # blocks there are; None before the first answer
    _values: dict[tuple[str, str, int], np.ndarray] = field(default_factory=dict)
    _doubts: dict[tuple[str, str, str | None, int], float] = field(default_factory=dict)

    def take(self, setting: str, trials: list[Answers]) -> None:
        """All that a setting has answered by now, trial by trial; of another number of trials than before, anew."""
        before = self.answers.get(setting)
        if before is not None and len(before) != len(trials):
            self._values = {key: value for key, value in self._values.items() if setting not in key}
            self._doubts = {key: value for key, value in self._doubts.items() if setting not in key}
        self.answers[setting] = trials
        self.of = next((int(one[0]["of"]) for one in trials if one), self.of)

    def depth(self, setting: str) -> int:
        """How many blocks all of its trials have answered."""
        return min((len(one) for one in self.answers.get(setting, [])), default=0)

    def mean(self, setting: str, goal: Goal | None = None) -> float:
        """Its metric in the blocks that it has answered."""
        goal = goal or self.rules.objective
        return goal.sign * self._mean(goal, setting, self.depth(setting))

    def _mean(self, goal: Goal, setting: str, depth: int) -> float:
        return float(np.concatenate(self._blocks(goal, setting, depth)).mean())

    def _blocks(self, goal: Goal, setting: str, depth: int) -> list[np.ndarray]:
        """Its values of the first blocks."""
        for number in range(depth):
            if (goal.metric, setting, number) not in self._values:
                self._values[goal.metric, setting, number] = goal.values(self.answers[setting], number)
        return [self._values[goal.metric, setting, number] for number in range(depth)]

    def standing(self) -> Standing:
        """Settings from the best downwards: each is out where one that is in and stands above it has beaten it."""
        known = [name for name in self.answers if self.depth(name)]
        out = {name: missed for name in known if (missed := self._missed(name)) is not None}
        sign = self.rules.objective.sign
        order = sorted((name for name in known if name not in out), key=lambda name: -sign * self.mean(name))
        inside: list[str] = []
        for name in order:
            beaten = next((found for leader in inside if (found := self._beaten(name, leader)) is not None), None)
            if beaten is None:
                inside.append(name)
            else:
                out[name] = beaten
        return Standing(inside, out)

    def _missed(self, name: str) -> Out | None:
        """The constraint that it does not meet, beyond doubt."""
        depth, goals = self.depth(name), self.rules.constraints
        for goal in goals:
            if self._doubt(goal, name, None, depth) >= self._enough(len(goals)):
                return Out(depth, self.of or 0, goal, self.mean(name, goal))
        return None

    def _beaten(self, name: str, leader: str) -> Out | None:
        goal, depth = self.rules.objective, min(self.depth(name), self.depth(leader))
        if self._doubt(goal, name, leader, depth) < self._enough(self.rules.settings - 1):
            return None
        one, other = (self._mean(goal, which, depth) for which in (name, leader))
        return Out(depth, self.of or 0, goal, goal.sign * one, leader, other - one)

    def _enough(self, comparisons: int) -> float:
        error = self.rules.error / (2 if self.rules.constraints else 1)
        return sequential.enough(error, (self.of or 1) - 1, comparisons)

    def _doubt(self, goal: Goal, name: str, leader: str | None, depth: int) -> float:
        """How much speaks against its meeting the goal, or against its being better than the leader."""
        asked = (goal.metric, name, leader, depth)
        if asked not in self._doubts:
            scales, population = goal.scales(self.answers[name])
            values = self._blocks(goal, name, depth)
            if leader is None:
                shift = goal.sign * (goal.bound or 0.0)
            else:
                others = self._blocks(goal, leader, depth)
                values = [one - other for one, other in zip(values, others, strict=True)]
                shift = self._slack(np.concatenate(values), population)
            found = sequential.doubt([block - shift for block in values], population, max(scales.values()))
            self._doubts[asked] = found
        return self._doubts[asked]

    def _slack(self, differences: np.ndarray, population: int) -> float:
        """What does not matter, or cannot be told on the whole half."""
        return max(self.rules.tolerance, Z_95 * math.sqrt(float((differences**2).mean()) / population))
