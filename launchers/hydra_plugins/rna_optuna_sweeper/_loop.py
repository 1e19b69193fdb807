"""One trial after the other, as many at a time as there are places for, until all are over or a signal comes."""

import time
from dataclasses import dataclass
from typing import Any

from hydra.errors import HydraException

from rna.ends import STOPS, Noted
from rna.sweep import Trial

from ._asked import Asked
from ._composing import Composer
from ._endings import Endings
from ._outcomes import one_line
from ._said import Said
from ._sampling import Brain
from ._todo import Todo
from ._work import Work

PATIENCE = 60.0  # seconds that trials have to write a checkpoint when the sweep is stopped


@dataclass
class Loop:
    """A sweep at work; how it came to an end stands in `stopping` and `left_alone`."""

    launcher: Any
    places: int
    late: float  # on the monotonic clock; after it no trial is started
    todo: Todo
    brain: Brain | None
    composer: Composer
    work: Work
    endings: Endings
    asked: Asked
    said: Said
    stopping: int | None = None  # by which signal
    deadline: float | None = None  # of the trials in work once it stops
    left_alone: bool = False  # jobs were submitted, and nobody waits for them

    def run(self, heard: Noted) -> None:
        """Start, poll and watch, until nothing is in work or nobody needs to wait for it."""
        launcher, work = self.launcher, self.work
        while True:
            self.asked.look()
            self._fill()
            self.said.progress(list(self.todo.trials.values()), work.trials, self.todo.total)
            if not (work.running or self._waits() or heard.pending):
                return
            over = launcher.poll(0.2) if work.running else self._wait()
            leaves = bool(heard.pending) and self._leaves_at_once(heard)
            for number, ended in over:
                self.endings.end(work.ended(number), ended, stopping=self.stopping is not None)
            if leaves:
                return
            work.prune()
            work.note_jobs()
            all_out = self.asked.paused or not self.todo.queue
            if not launcher.wait and work.running and all_out and launcher.settled():
                work.note_jobs()
                self.left_alone = True
                return
            work.end_hung()
            if self.deadline is not None and time.monotonic() > self.deadline:
                return

    def _fill(self) -> None:
        """Start trials while there are places."""
        while len(self.work.running) < self.places and self._may_start():
            trial = self._next()
            if trial is None:
                return
            self.work.start(trial)

    def _may_start(self) -> bool:
        return not self.asked.paused and self._goes_on()

    def _goes_on(self) -> bool:
        stops = self.asked.stop or self.stopping is not None
        return not stops and self.endings.full is None and time.monotonic() <= self.late

    def _waits(self) -> bool:
        """Whether nothing but a pause keeps it from starting a trial."""
        more = self.todo.queue or (self.brain is not None and len(self.todo.trials) < self.todo.total)
        return bool(more) and self.asked.paused and self.launcher.wait and self._goes_on()

    def _wait(self) -> list[tuple[int, Any]]:
        """Let a pause go by with no worker in memory; none of them ends meanwhile."""
        self.launcher.close()
        time.sleep(0.2)
        return []

    def _next(self) -> Trial | None:
        """The next trial to start, queued or drawn; those that have a record by now are done without being started."""
        while self.todo.queue:
            trial = self.todo.queue.popleft()
            if not self.endings.done_elsewhere(trial):
                return trial
        while self.brain is not None and len(self.todo.trials) < self.todo.total:
            trial = self.todo.draw(self.brain)
            if trial is None:
                self.said.say(f"every combination has been drawn: {self.todo.total} trials, no more")
                return None
            if self._addressed(trial) and not self.endings.done_elsewhere(trial):
                return trial
        return None

    def _addressed(self, trial: Trial) -> bool:
        """Give a drawn trial its address; one that cannot be composed has failed."""
        if self.composer.store is None:
            return True
        try:
            trial.address = self.composer.address(trial.cell)
        except (ValueError, HydraException) as error:
            self.endings.fail(trial, "bad config", one_line(error))
            return False
        return True

    def _leaves_at_once(self, heard: Noted) -> bool:
        """Hand a signal on to the trials; whether the sweep does not wait for what they do about it.

        It waits for checkpoints at the first stop, not at the second, and not for trials that outlive it.
        """
        number, heard.pending[:] = heard.pending[0], []
        self.launcher.signal(number)
        if number not in STOPS:
            return False
        again = self.stopping is not None
        self.stopping = number
        if again or self.launcher.survives:
            return True
        self.deadline = time.monotonic() + PATIENCE
        self.said.say(f"stopping; {len(self.work.running)} trials write their checkpoints")
        return False
