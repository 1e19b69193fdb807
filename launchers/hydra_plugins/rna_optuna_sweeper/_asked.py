"""What a user asks of a sweep at work, obeyed within a second: see `rna.sweep.asked`."""

import math
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rna.sweep import asked, cluster

from ._endings import Endings
from ._said import Said
from ._todo import Todo
from ._work import Work

EVERY = 1.0  # seconds between two looks


@dataclass
class Asked:
    """The wishes of this sweep's folder; one to stop that an earlier life left behind is none of this one's."""

    launcher: Any
    folder: Path
    todo: Todo
    work: Work
    endings: Endings
    said: Said
    paused: bool = False
    stop: bool = False
    held: set[str] = field(default_factory=set)  # jobs that the cluster must not start
    at: float = -math.inf  # of the last look

    def __post_init__(self) -> None:
        asked.wish(self.folder, asked.STOP).unlink(missing_ok=True)

    def look(self) -> None:
        """Do what is asked, if it is time to look. A stop is a Ctrl-C, and of a cluster's jobs the end too."""
        if time.monotonic() - self.at < EVERY:
            return
        self.at = time.monotonic()
        for number in asked.cancelled(self.folder):
            self._cancel(number)
            asked.wish(self.folder, f"{asked.CANCEL}{number}").unlink(missing_ok=True)
        self._pause(asked.paused(self.folder))
        wish = asked.wish(self.folder, asked.STOP)
        if wish.exists():
            wish.unlink(missing_ok=True)
            self.stop = True
            self.said.say("python -m rna.sweep cancel asked it to stop")
            if self.launcher.survives:
                self._take_back()
            os.kill(os.getpid(), signal.SIGINT)

    def _cancel(self, number: int) -> None:
        """End one trial for good, in work or not; one that is over by now stays as it is."""
        trial = self.todo.trials.get(number)
        if trial is None or trial.over:
            return
        if number in self.work.running:
            self.work.cancel(number)
        else:
            self.todo.queue.remove(trial)
            trial.cancel()
            self.endings.settle(trial)
            self.said.say(f"#{number} {trial.name}: cancelled")

    def _pause(self, paused: bool) -> None:
        """Begin or end a pause; while it lasts, jobs that a cluster has not begun are held there."""
        if paused and not self.paused:
            again = f"python -m rna.sweep resume {self.folder.name}"
            self.said.say(f"paused: {len(self.work.running)} trials in work go on, no other starts; {again}")
        if paused and (fresh := set(self.launcher.jobs.values()) - self.held):
            cluster.hold(sorted(fresh))
            self.held |= fresh
        if self.paused and not paused:
            cluster.release(sorted(self.held))
            self.held.clear()
            self.said.say("goes on")
        self.paused = paused

    def _take_back(self) -> None:
        """Queue what a cluster has, and end its jobs there: the sweep's command runs them again."""
        jobs = sorted(self.launcher.jobs.values())
        for number in list(self.work.running):
            self.endings.leave_for_later(self.work.ended(number))
        cluster.cancel(jobs)
