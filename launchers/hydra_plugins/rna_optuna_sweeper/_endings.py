"""How a trial ends: done by its record or by what it returned, pruned, tried again, failed; and where that is told."""

import re
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

from rna.sweep import Trial, ledger

from ._following import Follower
from ._goals import NO_OBJECTIVE, Goals, forget_constraints
from ._outcomes import one_line, reason_of, returned
from ._pruning import Referee
from ._racing import Racing
from ._said import Said
from ._sampling import Brain

TRY_AGAIN = ("killed", "hung", "out of memory", "timeout", "cancelled")  # another time may end otherwise
FREE = ("preempted", "node failed", "file system")  # by somebody else: no attempt of its own
ENDS_ALL = ("disk full", "no place")  # no other trial would fare better
OF_ITS_OWN = ("bad config", "not finite")  # a trial's settings, of which the next has others
LOST = 3  # times that a file system ends a trial and none is done between, before it ends the sweep
LOOKED_AT = 500  # characters of a message
ALIKE = 0.8  # of two messages' characters, but for words with a number or a path in them


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
        forget_constraints(trial)
        again = trial.reason == NO_OBJECTIVE  # by goals that may be other ones now
        if trial.status == ledger.PRUNED or (trial.status == ledger.FAILED and not again):
            return False
        if self.store is not None:
            found = self.store.metrics(trial.address) if trial.address else None
            if found is None:
                if trial.status == ledger.FAILED:
                    return False
                trial.status, trial.metrics, trial.values = ledger.QUEUED, {}, None
                return False
            trial.metrics = found
            if self.referee is not None and not trial.curve:
                whole = self.store.curve(trial.address, self.referee.metric)
                trial.curve = ledger.thinned(whole, self.referee.every)
        elif trial.status != ledger.DONE and not (again and trial.metrics):
            return False
        self.goals.judge(trial)
        return True


@dataclass
class Endings:
    """Decides how a trial has ended, writes it down, and tells all who follow."""

    folder: Path
    records: Records
    mirror: Follower
    brain: Brain | None
    referee: Referee | None
    said: Said
    max_retries: int
    queue: deque[Trial]  # a trial that is tried again goes to its end
    pause_after: int | None = None
    racing: Racing | None = None
    counts: Counter[str] = field(default_factory=Counter)  # of the trials that are over, by how they ended
    full: str | None = None  # what a trial said of the disk, or whatever else no trial can do without
    lost: Counter[int] = field(default_factory=Counter)  # how often a file system ended each trial, since one was done
    alike: list[Trial] = field(default_factory=list)  # the last that failed, one after another, for the same reason
    paused: bool = False  # as too many did

    def done_elsewhere(self, trial: Trial) -> bool:
        """Whether a trial that was not started yet has a record by now; then it is settled."""
        if self.records.store is None or not self.records.recall(trial):
            return False
        self._settle_judged(trial)
        return True

    def end(self, trial: Trial, ended: JobReturn, *, stopping: bool) -> None:
        """Decide how a trial whose job has ended goes on, and say it of one that is done. A sweep that is stopping
        starts nothing again."""
        self._decide(trial, ended, stopping=stopping)
        if trial.status == ledger.DONE:
            self.said.ended(trial, self.counts)

    def _decide(self, trial: Trial, ended: JobReturn, *, stopping: bool) -> None:
        if trial.status == ledger.PRUNED or trial.cancelled:
            self._end_told(trial)
            return
        if self.racing is not None and self.racing.ended(trial):
            self.lost.clear()
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
        self.lost[trial.number] += reason == "file system"
        if reason in ENDS_ALL or self.lost[trial.number] >= LOST:
            self.full = message
        free = reason in FREE or getattr(error, "elsewhere", False)  # the pool's word on a fault of a device
        if self.full or (stopping and (free or reason in TRY_AGAIN)):
            self.leave_for_later(trial)
        elif free:
            trial.attempts -= 1
            self._try_again(trial, reason, message)
        elif reason in TRY_AGAIN and trial.attempts <= self.max_retries and not getattr(error, "final", False):
            self._try_again(trial, reason, message)
        else:
            self.fail(trial, reason, message)

    def _end_well(self, trial: Trial, value: Any) -> None:
        self.lost.clear()
        assert trial.seconds is not None
        self.said.took.append(trial.seconds)
        if self.records.store is not None:
            if not self.done_elsewhere(trial):
                self.fail(trial, "no record", "it ended well, and left no record")
            return
        try:
            trial.metrics = returned(value)
        except ValueError as error:
            self.fail(trial, NO_OBJECTIVE, str(error))
            return
        self.records.goals.judge(trial)
        self._settle_judged(trial)

    def _end_told(self, trial: Trial) -> None:
        """A trial that was told to end has: done after all if it was quicker than the word."""
        told = trial.status, trial.reason, trial.message
        trial.status = ledger.QUEUED
        if self.records.store is None or not self.records.recall(trial):
            trial.status, trial.reason, trial.message = told
            trial.values = None
            self.said.say(f"#{trial.number} {trial.name}: {trial.reason if trial.cancelled else trial.message}")
            self.settle(trial)
        else:
            self._settle_judged(trial)

    def _try_again(self, trial: Trial, reason: str, message: str) -> None:
        self.said.say(f"#{trial.number} {trial.name}: {reason} ({message}); tried again")
        trial.reason, trial.message = reason, message
        self._requeue(trial)
        self.queue.append(trial)

    def leave_for_later(self, trial: Trial) -> None:
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
        self._compare(trial, reason)

    def _compare(self, trial: Trial, reason: str) -> None:
        """Pause the sweep where as many failures as are allowed in a row are one: what comes would fail likewise."""
        if reason in OF_ITS_OWN:
            return
        if self.alike and not _same(self.alike[-1], trial):
            self.alike.clear()
        self.alike.append(trial)
        if self.pause_after is None or self.paused or len(self.alike) < self.pause_after:
            return
        self.paused = True
        numbers = ", ".join(f"#{one.number}" for one in self.alike)
        self.said.say(
            f"paused: {numbers} failed one after another for the same reason, {reason}: {trial.message}; those in work "
            "finish, no other is started. Mend it and give the same command again; python -m rna.sweep retry "
            f"{self.folder.name} queues the failed ones too; hydra.sweeper.pause_after=null never pauses"
        )

    def _settle_judged(self, trial: Trial) -> None:
        """One whose record has not what the sweep is after has failed, and that is said."""
        if trial.status == ledger.FAILED:
            self.fail(trial, trial.reason or "error", trial.message or "")
        else:
            self.settle(trial)

    def settle(self, trial: Trial) -> None:
        """Write down how a trial ended: in the ledger first, which is the truth."""
        if trial.status != ledger.FAILED:
            self.alike.clear()
        trial.token = ""
        trial.ended = trial.ended or time.time()
        self.counts[trial.status] += 1
        ledger.save(self.folder, trial)
        self.mirror.follow(trial)
        if self.brain is not None:
            self.brain.learn(trial)
        if self.referee is not None:
            self.referee.learn(trial)


def _same(one: Trial, other: Trial) -> bool:
    """Whether two trials failed for the same reason, by words that may name different numbers, keys and files."""
    said = [re.sub(r"\S*[\d/]\S*", "#", (trial.message or "")[:LOOKED_AT]) for trial in (one, other)]
    return one.reason == other.reason and SequenceMatcher(None, *said, autojunk=False).ratio() >= ALIKE
