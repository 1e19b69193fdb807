"""What the next trial is: Optuna's samplers, each draw from (seed, number) and what has been learnt."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import TrialState

from rna.sweep import Trial

from ._study import frozen
from .space import Space

REDRAWS = 20  # of a cell that was drawn before, by a sampler that learns


@dataclass
class Brain:
    """The sampler and what it has seen: an Optuna study in memory, which each draw is made from."""

    sampler: str
    seed: int
    space: Space
    study: Any
    numbers: dict[int, int]  # trial number -> its number in `study`

    def learn(self, trial: Trial) -> None:
        """Take in how a trial ended, or that one was drawn in an earlier life."""
        count = len(self.study.directions)
        if trial.number not in self.numbers:
            made = frozen(self.space, trial, count)
            made.intermediate_values = {}  # of the metric that is pruned by, which need not be the objective
            if made.state == TrialState.WAITING:  # else the next draw would be this one
                made.state, made.datetime_start = TrialState.RUNNING, datetime.now()
            self.study.add_trial(made)
            self.numbers[trial.number] = len(self.study.get_trials(deepcopy=False)) - 1
        elif trial.over:
            made = frozen(self.space, trial, count)
            number = self.numbers[trial.number]
            stored = self.study.get_trials(deepcopy=False)[number]
            for key, value in made.system_attrs.items():
                self.study._storage.set_trial_system_attr(stored._trial_id, key, value)
            self.study.tell(number, made.values, state=made.state)

    def draw(self, number: int, taken: set[tuple[str, ...]]) -> Trial | None:
        """The trial of this number, by (seed, number) and what has been learnt; None if every cell is taken."""
        distributions = {axis.name: axis.distribution() for axis in self.space.axes}
        discrete = not any(axis.interval for axis in self.space.axes)
        if discrete and len(taken) >= len(self.space.cells()):
            return None
        for again in range(REDRAWS):
            self.study.sampler = _sampler(self.sampler, random.Random(f"{self.seed}/{number}/{again}").getrandbits(31))
            asked = self.study.ask(distributions)
            cell = [axis.override(asked.params[axis.name]) for axis in self.space.axes]
            if not discrete or tuple(cell) not in taken:
                break
            self.study.tell(asked.number, state=TrialState.FAIL)
        else:
            free = [cell for cell in self.space.cells() if tuple(cell) not in taken]
            cell = random.Random(f"{self.seed}/{number}").choice(free)
            self.study.enqueue_trial(self.space.params(cell))
            asked = self.study.ask(distributions)
        self.numbers[number] = asked.number
        stored = self.study.get_trials(deepcopy=False)[asked.number]
        return Trial(number, cell, dict(stored.params), attributes=dict(stored.system_attrs))


def brain(sampler: str, seed: int, space: Space, directions: list[str], trials: Sequence[Trial]) -> Brain:
    made = Brain(sampler, seed, space, optuna.create_study(directions=directions), {})
    for trial in trials:
        made.learn(trial)
    return made


def _sampler(name: str, seed: int) -> Any:
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
