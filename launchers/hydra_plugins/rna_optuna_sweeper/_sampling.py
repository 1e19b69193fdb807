"""What the next trial is: Optuna's samplers, each draw from (seed, number) and what has been learnt."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
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
    ids: dict[int, tuple[int, int]] = field(default_factory=dict)  # trial number -> its number and id in `study`

    def learn(self, trial: Trial) -> None:
        """Take in how a trial ended, or that one was drawn in an earlier life."""
        storage = self.study._storage
        made = frozen(self.space.distributions, trial, len(self.study.directions))
        if trial.number not in self.ids:
            made.intermediate_values = {}  # of the metric that is pruned by, which need not be the objective
            if made.state == TrialState.WAITING:  # else the next draw would be this one
                made.state, made.datetime_start = TrialState.RUNNING, datetime.now()
            known = storage.create_new_trial(self.study._study_id, template_trial=made)
            self.ids[trial.number] = (storage.get_trial(known).number, known)
        elif trial.over:
            number, known = self.ids[trial.number]
            for key, value in made.system_attrs.items():
                storage.set_trial_system_attr(known, key, value)
            self.study.tell(number, made.values, state=made.state)

    def draw(self, number: int, taken: Collection[tuple[str, ...]]) -> Trial:
        """The trial of this number, by (seed, number) and what has been learnt.

        Args:
            taken: the cells that have been drawn, each sorted; they leave at least one free.
        """
        for again in range(REDRAWS):
            self.study.sampler = _sampler(self.sampler, random.Random(f"{self.seed}/{number}/{again}").getrandbits(31))
            asked = self.study.ask(self.space.distributions)
            cell = [axis.override(asked.params[axis.name]) for axis in self.space.axes]
            if self.space.size is None or tuple(sorted(cell)) not in taken:
                break
            self.study.tell(asked.number, state=TrialState.FAIL)
        else:
            cell = self.free_cell(number, taken)
            self.study.enqueue_trial(self.space.params(cell))
            asked = self.study.ask(self.space.distributions)
        self.ids[number] = (asked.number, asked._trial_id)
        stored = self.study._storage.get_trial(asked._trial_id)
        return Trial(number, cell, dict(stored.params), attributes=dict(stored.system_attrs))

    def free_cell(self, number: int, taken: Collection[tuple[str, ...]]) -> list[str]:
        """Any of those that nobody has drawn, each as likely; a space of 10⁸ cells is too large to list them."""
        assert self.space.size is not None
        index = random.Random(f"{self.seed}/{number}").randrange(self.space.size - len(taken))
        for used in sorted(map(self.space.index, taken)):
            index += used <= index
        return self.space.cell(index)


def brain(sampler: str, seed: int, space: Space, directions: list[str], trials: Sequence[Trial]) -> Brain:
    made = Brain(sampler, seed, space, optuna.create_study(directions=directions))
    for trial in trials:
        made.learn(trial)
    return made


def _sampler(name: str, seed: int) -> Any:
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
