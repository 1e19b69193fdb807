"""How a trial ends: done by its record or by what it returned, pruned, tried again, failed; and where that is told."""

import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

from rna.sweep import Trial, ledger

from ._goals import Goals
from ._outcomes import one_line, reason_of, returned
from ._pruning import Referee
from ._said import Said
from ._sampling import Brain
from ._study import Mirror

TRY_AGAIN = ("killed", "hung", "out of memory", "timeout")  # another time may end otherwise


@dataclass(frozen=True)
class Records:
    """The app's record store, if it has one, which knows of trials that ended anywhere and at any time."""

    store: Any
    goals: Goals
    referee: Referee | None

    def recall(self, trial: Trial) -> bool:
        """Take a trial's outcome from its record, where there is one; one whose record is gone runs again.

        Without a record store, what the ledger keeps of a trial that is done is judged anew.
        """
        if trial.status in (ledger.FAILED, ledger.PRUNED):
            return False
        if self.store is not None:
            found = self.store.metrics(trial.address) if trial.address else None
            if found is None:
                trial.status, trial.metrics, trial.values = ledger.QUEUED, {}, None
                return False
            trial.metrics = found
            if self.referee is not None and not trial.curve:
                whole = self.store.curve(trial.address, self.referee.metric)
                trial.curve = ledger.thinned(whole, self.referee.every)
        elif trial.status != ledger.DONE:
            return False
        self.goals.judge(trial)
        return True


@dataclass
class Endings:
    """Decides how a trial has ended, writes it down, and tells all who follow."""

    folder: Path
    records: Records
    mirror: Mirror
    brain: Brain | None
    referee: Referee | None
    said: Said
    max_retries: int
    queue: deque[Trial]  # a trial that is tried again goes to its end
    full: str | None = None  # what a trial said of the disk

    def done_elsewhere(self, trial: Trial) -> bool:
        """Whether a trial that was not started yet has a record by now; then it is settled."""
        if self.records.store is None or not self.records.recall(trial):
            return False
        self.settle(trial)
        return True

    def end(self, trial: Trial, ended: JobReturn, *, stopping: bool) -> None:
        """Decide how a trial whose job has ended goes on. A sweep that is stopping starts nothing again."""
        if trial.status == ledger.PRUNED:
            self._end_pruned(trial)
            return
        if self.referee is not None:
            trial.curve = ledger.read_curve(ledger.curve_path(self.folder, trial))
        if ended.status == JobStatus.COMPLETED:
            self._end_well(trial, ended._return_value)
            return
        error: BaseException = ended._return_value
        reason = "hung" if trial.reason == "hung" else reason_of(error)
        message = one_line(error) or type(error).__name__
        if self.done_elsewhere(trial):  # killed after its last word
            return
        if reason == "disk full":
            self.full = message
        if self.full or (stopping and reason in (*TRY_AGAIN, "preempted")):
            self._leave_for_later(trial)
        elif reason == "preempted":  # by somebody else: no attempt of its own
            trial.attempts -= 1
            self._try_again(trial, reason, message)
        elif reason in TRY_AGAIN and trial.attempts <= self.max_retries:
            self._try_again(trial, reason, message)
        else:
            self.fail(trial, reason, message)

    def _end_well(self, trial: Trial, value: Any) -> None:
        assert trial.seconds is not None
        self.said.took.append(trial.seconds)
        try:
            if self.records.store is None:
                trial.metrics = returned(value)
                self.records.goals.judge(trial)
            elif not self.records.recall(trial):
                self.fail(trial, "no record", "it ended well, and left no record")
                return
        except ValueError as error:  # it has no such metric, or returned what is none
            self.fail(trial, "no objective", str(error))
            return
        self.settle(trial)
        self.said.ended(trial)

    def _end_pruned(self, trial: Trial) -> None:
        """A trial that was told to end has: done after all if it was quicker than the word."""
        message = trial.message
        trial.status = ledger.QUEUED
        if self.records.store is None or not self.records.recall(trial):
            trial.status, trial.reason, trial.message, trial.values = ledger.PRUNED, "pruned", message, None
            self.said.say(f"#{trial.number} {trial.name}: {message}")
        self.settle(trial)

    def _try_again(self, trial: Trial, reason: str, message: str) -> None:
        self.said.say(f"#{trial.number} {trial.name}: {reason} ({message}); tried again")
        trial.reason, trial.message = reason, message
        self._requeue(trial)
        self.queue.append(trial)

    def _leave_for_later(self, trial: Trial) -> None:
        """The same command runs it, and this attempt does not count."""
        trial.attempts -= 1
        self._requeue(trial)

    def _requeue(self, trial: Trial) -> None:
        """Take a trial from its owner; it tells its curve again."""
        trial.status, trial.token, trial.curve = ledger.QUEUED, "", []
        if self.referee is not None:
            self.referee.learn(trial)
        ledger.save(self.folder, trial)

    def fail(self, trial: Trial, reason: str, message: str) -> None:
        trial.status, trial.reason, trial.message, trial.values = ledger.FAILED, reason, message, None
        trial.ended = trial.ended or time.time()
        where = f"; {trial.log}" if trial.log else ""
        self.said.say(f"#{trial.number} {trial.name} failed: {reason}: {message}{where}")
        self.settle(trial)

    def settle(self, trial: Trial) -> None:
        """Write down how a trial ended: in the ledger first, which is the truth."""
        trial.token = ""
        trial.ended = trial.ended or time.time()
        ledger.save(self.folder, trial)
        self.mirror.follow(trial)
        if self.brain is not None:
            self.brain.learn(trial)
        if self.referee is not None:
            self.referee.learn(trial)
