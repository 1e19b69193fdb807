"""What there is to do: the trials under their numbers, the queue of those that wait, and the next one."""

import itertools
from collections import Counter, deque
from collections.abc import Iterable

from rna.sweep import Trial, ledger

from ._sampling import Brain
from .space import Space


class Todo:
    """The trials of a sweep, of which there will be `total`; `counts` has how many ended how.

    Of a grid that was asked for with other values before, those of cells that it has no more are `outside`.
    """

    def __init__(self, trials: Iterable[Trial], space: Space, sampler: str, n_trials: int | None) -> None:
        kept = list(trials)
        grid = sampler == "grid"
        self.outside = [trial for trial in kept if grid and not space.has(trial.cell)]
        away = {trial.number for trial in self.outside}
        self.trials = {trial.number: trial for trial in kept if trial.number not in away}
        self.total: int = (space.size or 0) if grid else (n_trials or 0)
        self.queue: deque[Trial] = deque()
        self.counts: Counter[str] = Counter()
        self._taken = {_identity(trial.cell) for trial in self.trials.values()}
        used = {*self.trials, *away}
        self._free = (number for number in itertools.count() if number not in used)

    @property
    def ordered(self) -> list[Trial]:
        return [self.trials[number] for number in sorted(self.trials)]

    @property
    def recorded(self) -> list[Trial]:
        """All, also those outside, by their numbers."""
        return sorted([*self.trials.values(), *self.outside], key=lambda trial: trial.number)

    def add_cells(self, space: Space) -> None:
        """Make a trial of each cell of a grid that has none.

        They get the lowest numbers that no trial has: where a trial was lost, its number comes back, and with it its
        cell. What other values would call the parameters of a cell by is forgotten.
        """
        for trial in self.trials.values():
            trial.params = space.params(trial.cell)
        for cell in space.cells():
            if _identity(cell) not in self._taken:
                trial = Trial(next(self._free), cell, space.params(cell))
                self.trials[trial.number] = trial

    def line_up(self) -> None:
        """Queue the trials that are not over, in the order of their numbers, and count those that are."""
        self.queue.extend(trial for trial in self.ordered if trial.status == ledger.QUEUED)
        self.counts.update(trial.status for trial in self.trials.values() if trial.over)

    def draw(self, brain: Brain) -> Trial | None:
        """A new trial; None if every combination has been drawn, and then there will be no more."""
        size = brain.space.size
        if size is not None and len(self._taken) >= size:
            self.total = len(self.trials)
            return None
        trial = brain.draw(next(self._free), self._taken)
        self.trials[trial.number] = trial
        self._taken.add(_identity(trial.cell))
        return trial


def _identity(cell: Iterable[str]) -> tuple[str, ...]:
    """What makes it this cell, in whatever order its axes stand."""
    return tuple(sorted(cell))
