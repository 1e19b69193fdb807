"""What there is to do: the trials under their numbers, the queue of those that wait, and the next one."""

import itertools
from collections import deque
from collections.abc import Iterable
from typing import Any

from rna.sweep import Trial, ledger

from ._sampling import Brain
from .space import Space


class Todo:
    """The trials of a sweep, of which there will be `total`."""

    def __init__(self, trials: Iterable[Trial], total: int) -> None:
        self.trials = {trial.number: trial for trial in trials}
        self.total = total
        self.queue: deque[Trial] = deque()

    @property
    def ordered(self) -> list[Trial]:
        return [self.trials[number] for number in sorted(self.trials)]

    def add_cells(self, space: Space) -> list[Trial]:
        """Make a trial of each cell of a grid that has none; return these."""
        known = {tuple(trial.cell) for trial in self.trials.values()}
        fresh: list[Trial] = []
        for cell in space.cells():
            if tuple(cell) not in known:
                fresh.append(Trial(self._free_number(), cell, space.params(cell)))
                self.trials[fresh[-1].number] = fresh[-1]
        return fresh

    def known_address(self) -> dict[str, Any] | None:
        """Any trial's; None before the first is drawn, and without a record store."""
        return next((trial.address for trial in self.trials.values() if trial.address), None)

    def line_up(self) -> None:
        """Queue the trials that are not over, in the order of their numbers."""
        self.queue.extend(trial for trial in self.ordered if trial.status == ledger.QUEUED)

    def draw(self, brain: Brain) -> Trial | None:
        """A new trial; None if every combination has been drawn, and then there will be no more."""
        taken = {tuple(trial.cell) for trial in self.trials.values()}
        trial = brain.draw(self._free_number(), taken)
        if trial is None:
            self.total = len(self.trials)
        else:
            self.trials[trial.number] = trial
        return trial

    def _free_number(self) -> int:
        """The lowest that no trial has: where a trial's file was lost, its number comes back, and with it its cell."""
        return next(number for number in itertools.count() if number not in self.trials)
