"""The trials in work: started or adopted, watched, and told to end where they hang or are not worth their end."""

import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rna.sweep import Trial, ledger

from ._composing import Composer
from ._following import Follower
from ._outcomes import end_survivor
from ._pruning import Referee
from ._said import Said

PATIENCE = 60.0  # seconds that a trial has to end when it is pruned or cancelled
LOOKS = 15.0  # files of trials in work that are read in a second, of each kind, however many trials there are
WRITES = 8.0  # a cluster's new words that are written down in a second


@dataclass
class Pace:
    """So many turns a second among trials; whose turn was longest ago comes first."""

    a_second: float
    room: float = math.inf
    at: float = field(default_factory=time.monotonic)
    last: dict[int, float] = field(default_factory=dict)  # trial number -> its last turn

    def turn(self, numbers: Iterable[int]) -> list[int]:
        """Those of these trials whose turn it is now."""
        now = time.monotonic()
        self.last = {number: self.last.get(number, 0.0) for number in numbers}
        self.room = min(self.room + (now - self.at) * self.a_second, self.a_second)
        self.at = now
        chosen = sorted(self.last, key=lambda number: self.last[number])[: int(self.room)]
        self.room -= len(chosen)
        self.last |= dict.fromkeys(chosen, now)
        return chosen


@dataclass
class InWork:
    """A trial that a launcher has, and since when."""

    trial: Trial
    since: float
    told: dict[str, Any] = field(default_factory=dict)  # its last sign of life
    heard: float = field(default_factory=time.monotonic)  # when that came here, or it began to run: by our own clock
    told_at: float = math.inf  # when it was told to end


def adopt(trials: Iterable[Trial], launcher: Any, folder: Path) -> list[InWork]:
    """Of the trials in work in an earlier life: watch those that outlived it, and requeue those that died."""
    found: list[InWork] = []
    for trial in trials:
        if trial.status != ledger.RUNNING:
            continue
        if launcher.survives and trial.job:
            launcher.adopt(trial.number, trial.job)
            found.append(InWork(trial, time.monotonic()))
        else:
            end_survivor(ledger.last_beat(folder, trial))
            trial.status, trial.token = ledger.QUEUED, ""
            trial.attempts -= 1  # its sweeper ended, not it
    return found


class Work:
    """What a launcher has in work; `stall` says how many seconds each phase of a trial may be silent."""

    def __init__(
        self,
        launcher: Any,
        folder: Path,
        composer: Composer,
        mirror: Follower,
        referee: Referee | None,
        stall: Mapping[str, float],
        said: Said,
        adopted: Iterable[InWork],
    ) -> None:
        self.launcher, self.folder, self.composer, self.mirror = launcher, folder, composer, mirror
        self.referee, self.stall, self.said = referee, stall, said
        self.beats, self.curves, self.words = Pace(LOOKS), Pace(LOOKS), Pace(WRITES)
        self.running = {one.trial.number: one for one in adopted}

    @property
    def trials(self) -> list[Trial]:
        return [self.running[number].trial for number in sorted(self.running)]

    def start(self, trial: Trial) -> None:
        """Give a trial a new owner, in the ledger before the launcher hears of it."""
        trial.status, trial.token = ledger.RUNNING, os.urandom(8).hex()
        trial.attempts += 1
        trial.reason = trial.message = None
        trial.curve = []
        ledger.save(self.folder, trial)
        self.mirror.follow(trial)
        self.running[trial.number] = InWork(trial, time.monotonic())
        where = trial.address or {}
        title = f"{where['title']}-s{where['seed']}" if "title" in where else trial.name
        overrides = self.composer.overrides(trial.cell, ledger.owner_value(self.folder, trial))
        trial.job = trial.cluster = None
        trial.log = self.launcher.start(overrides, trial.number, title)
        if trial.log:
            ledger.save(self.folder, trial)

    def note_jobs(self) -> None:
        """Write down under which ids a cluster knows the trials, by which another life finds them again, and its words.

        What is news to a person is said; a changed word of many trials is written down little by little.
        """
        jobs = self.launcher.jobs
        if not jobs:
            return
        words = {number: self.launcher.word(number) for number in jobs}
        fresh = [number for number, job in jobs.items() if self.running[number].trial.job != job]
        changed = [number for number in jobs if self.running[number].trial.cluster != words[number]]
        for number in {*fresh, *self.words.turn(changed)}:
            trial = self.running[number].trial
            trial.job, trial.cluster = jobs[number], words[number]
            ledger.save(self.folder, trial)
        for numbers, said in self.launcher.stuck():
            more = f" and {len(numbers) - 1} more are" if len(numbers) > 1 else " is"
            self.said.say(f"#{numbers[0]} {self.running[numbers[0]].trial.name}{more} {said}")

    def ended(self, number: int) -> Trial:
        """Let go of the trial whose job has ended."""
        one = self.running.pop(number)
        one.trial.seconds = round(time.monotonic() - one.since, 3)
        one.trial.ended = time.time()
        one.trial.cluster = None
        return one.trial

    def end_hung(self) -> None:
        """End a trial whose phase has said nothing for longer than the phase is allowed to.

        Silence is what this process hears, by its own clock: the trial's may be wrong, and a job that waits for its
        cluster has nothing to say.
        """
        now, reads = time.monotonic(), []
        for number, one in self.running.items():
            if self._waits(number):
                one.heard = now
            else:
                reads.append(number)
        for number in self.beats.turn(reads):
            one = self.running[number]
            trial, told = one.trial, ledger.last_beat(self.folder, one.trial)
            if told != one.told:
                one.told, one.heard = told, now
            allowed = self.stall.get(told.get("phase", "starting"))
            if allowed is not None and now - one.heard > allowed and trial.reason != "hung":
                trial.reason = "hung"
                self.launcher.stop(trial.number)

    def _waits(self, number: int) -> bool:
        """Whether a launcher that has a queue has not begun the trial yet."""
        return getattr(self.launcher, "waits", lambda _number: False)(number)

    def cancel(self, number: int) -> None:
        """Tell a trial to end for good; a cluster's job is ended at once."""
        one = self.running[number]
        one.trial.cancel()
        one.told_at = time.monotonic()
        ledger.save(self.folder, one.trial)
        if self.launcher.survives:
            self.launcher.stop(number)

    def prune(self) -> None:
        """Read the curves of the trials in work, and tell those to end that the pruner gives up; kill who will not."""
        here = list(self.running.items())
        for number, one in here:
            if time.monotonic() - one.told_at > PATIENCE:
                one.told_at = math.inf
                self.launcher.stop(number)
        if self.referee is None:
            return
        reads = [n for n, one in here if one.trial.status == ledger.RUNNING and not self._waits(n)]
        for number in self.curves.turn(reads):
            self._follow_curve(self.running[number], self.referee)

    def _follow_curve(self, one: InWork, referee: Referee) -> None:
        trial = one.trial
        curve = ledger.read_curve(ledger.curve_path(self.folder, trial))
        if len(curve) == len(trial.curve):
            return
        trial.curve = curve
        self.mirror.follow_curve(trial)
        if referee.judge(trial, curve):
            one.told_at = time.monotonic()
            step, value = curve[-1]
            trial.status, trial.token, trial.reason = ledger.PRUNED, "", "pruned"
            trial.message = f"pruned at step {step}: {referee.metric}={value:g}"
            ledger.save(self.folder, trial)
