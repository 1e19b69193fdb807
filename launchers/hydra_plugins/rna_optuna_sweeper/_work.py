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
from ._outcomes import end_survivor
from ._pruning import Referee
from ._study import Mirror

PATIENCE = 60.0  # seconds that a trial has to end when it is pruned or cancelled


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
        mirror: Mirror,
        referee: Referee | None,
        stall: Mapping[str, float],
        adopted: Iterable[InWork],
    ) -> None:
        self.launcher, self.folder, self.composer, self.mirror = launcher, folder, composer, mirror
        self.referee, self.stall = referee, stall
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
        """Write down under which ids a cluster knows the trials: by these another life finds them again."""
        for number, job in self.launcher.jobs.items():
            trial = self.running[number].trial
            if trial.job != job:
                trial.job = job
                ledger.save(self.folder, trial)

    def ended(self, number: int) -> Trial:
        """Let go of the trial whose job has ended."""
        one = self.running.pop(number)
        one.trial.seconds = round(time.monotonic() - one.since, 3)
        one.trial.ended = time.time()
        return one.trial

    def end_hung(self) -> None:
        """End a trial whose phase has said nothing for longer than the phase is allowed to.

        Silence is what this process hears, by its own clock: the trial's may be wrong, and a job that waits for its
        cluster has nothing to say.
        """
        waits = getattr(self.launcher, "waits", lambda _number: False)
        for one in list(self.running.values()):
            trial, told = one.trial, ledger.last_beat(self.folder, one.trial)
            if told != one.told or waits(trial.number):
                one.told, one.heard = told, time.monotonic()
            allowed = self.stall.get(told.get("phase", "starting"))
            if allowed is not None and time.monotonic() - one.heard > allowed and trial.reason != "hung":
                trial.reason = "hung"
                self.launcher.stop(trial.number)

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
        for one in list(self.running.values()):
            if time.monotonic() - one.told_at > PATIENCE:
                one.told_at = math.inf
                self.launcher.stop(one.trial.number)
            elif self.referee is not None and one.trial.status == ledger.RUNNING:
                self._follow_curve(one, self.referee)

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
