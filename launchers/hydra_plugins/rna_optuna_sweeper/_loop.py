"""One trial after the other, as many at a time as there are places for, until all are over or a signal comes."""

import signal
import time
from dataclasses import dataclass
from typing import Any

from rna.ends import STOPS, Noted
from rna.sweep import Trial

from ._ahead import Ahead
from ._asked import Asked
from ._endings import Endings
from ._racing import Racing
from ._said import Said
from ._sampling import Brain
from ._todo import Todo
from ._work import Work

LOOKS = 1.0  # seconds at a time that trials are looked for that need to be started
PATIENCE = 60.0  # seconds that trials have to write a checkpoint when the sweep is stopped


@dataclass
class Loop:
    """A sweep at work; how it came to an end stands in `stopping` and `left_alone`."""

    launcher: Any
    n_jobs: int | None  # None: as many as the launcher has places for, which may become fewer
    late: float  # on the monotonic clock; after it no trial is started
    todo: Todo
    brain: Brain | None
    ahead: Ahead
    work: Work
    endings: Endings
    racing: Racing | None
    asked: Asked
    said: Said
    stopping: int | None = None  # by which signal
    deadline: float | None = None  # of the trials in work once it stops
    looking: bool = False  # there may be more to start, though no place was filled
    left_alone: bool = False  # jobs were submitted, and nobody waits for them

    def run(self, heard: Noted) -> None:
        """Start, poll and watch, until nothing is in work or nobody needs to wait for it."""
        launcher, work = self.launcher, self.work
        while True:
            self.asked.look()
            self._fill()
            self.said.progress(self.todo.counts, work.trials, self.todo.total)
            if not (work.running or self.looking or self._waits() or heard.pending):
                return
            more = self._may_start() and self.ahead.step(0.2)
            over = launcher.poll(0.0 if more else 0.2) if work.running else self._wait(busy=more or self.looking)
            leaves = bool(heard.pending) and self._leaves_at_once(heard)
            for number, ended in over:
                self.endings.end(work.ended(number), ended, stopping=self.stopping is not None)
            if leaves:
                return
            work.prune()
            work.note_jobs()
            if not launcher.wait and work.running and not self._starts_more() and launcher.settled():
                work.note_jobs()
                self.left_alone = True
                return
            work.end_hung()
            if self.deadline is not None and time.monotonic() > self.deadline:
                return

    def _fill(self) -> None:
        """Start trials while there are places, for a second at most: then others want to be heard again."""
        until = time.monotonic() + LOOKS
        self.looking = False
        while len(self.work.running) < (self.n_jobs or self.launcher.places) and self._may_start():
            trial = self._next(until)
            if trial is None:
                return
            self.work.start(trial)

    def _starts_more(self) -> bool:
        return bool(self.todo.queue) and self._may_start()

    def _may_start(self) -> bool:
        return not self.asked.paused and self._goes_on()

    def _goes_on(self) -> bool:
        stops = self.asked.stop or self.endings.paused or self.stopping is not None
        return not stops and self.endings.full is None and time.monotonic() <= self.late

    def _waits(self) -> bool:
        """Whether nothing but a pause keeps it from starting a trial."""
        more = self.todo.queue or (self.brain is not None and len(self.todo.trials) < self.todo.total)
        return bool(more) and self.asked.paused and self.launcher.wait and self._goes_on()

    def _wait(self, *, busy: bool) -> list[tuple[int, Any]]:
        """Let a pause go by with no worker in memory; none of them ends meanwhile."""
        if not busy:
            self.launcher.close()
            time.sleep(0.2)
        return []

    def _next(self, until: float) -> Trial | None:
        """The next trial to start, queued or drawn; those that have a record by now are done without being started."""
        while self.todo.queue or (self.brain is not None and len(self.todo.trials) < self.todo.total):
            if time.monotonic() > until:
                self.looking = True
                return None
            trial = self.todo.queue.popleft() if self.todo.queue else self._drawn()
            if trial is None:
                return None
            if trial.over:  # by what was found out ahead
                continue
            if not self.ahead.addressed(trial) or self.endings.done_elsewhere(trial):
                continue
            if self.racing is None or self.racing.starts(trial):
                return trial
        return None if self.racing is None else self._raced(self.racing)

    def _raced(self, racing: Racing) -> Trial | None:
        """The next trial of a race; those that it has stopped are settled once there is none."""
        trial = racing.next(busy=bool(self.work.running))
        if trial is None and not self.work.running:
            for over in racing.stopped():
                self.endings.settle(over)
        return trial

    def _drawn(self) -> Trial | None:
        assert self.brain is not None
        trial = self.todo.draw(self.brain)
        if trial is None:
            self.said.say(f"every combination has been drawn: {self.todo.total} trials, no more")
        return trial

    def _leaves_at_once(self, heard: Noted) -> bool:
        """Hand a signal on to the trials; whether the sweep does not wait for what they do about it.

        It waits for checkpoints at the first stop, not at the second, and not for trials that outlive it.
        """
        number, heard.pending[:] = heard.pending[0], []
        self.launcher.signal(number)
        if number not in STOPS:
            name = signal.Signals(number).name
            self.said.say(f"{name}: a warning; {len(self.work.running)} trials write checkpoints and go on")
            return False
        again = self.stopping is not None
        self.stopping = number
        if again or self.launcher.survives:
            return True
        self.deadline = time.monotonic() + PATIENCE
        self.said.say(f"stopping; {len(self.work.running)} trials write their checkpoints")
        return False
