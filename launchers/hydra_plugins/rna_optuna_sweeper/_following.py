"""The study is kept by a thread of its own: a database that accepts and does not answer holds up no sweep, no Ctrl-C.

A driver that waits for a server lets go for no signal, or only to ask that server to cancel.
"""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rna.sweep import Trial

from ._storage import ANSWER, answered
from ._study import Mirror, mirror
from .space import Space

SILENT = 15.0  # seconds that one change of the study may take before its database is said not to answer
AT_A_TIME = 0.2  # seconds of adding trials that wait, before news of others are looked for
LAST = 2.0  # the same at the end of a sweep that was stopped


class Follower:
    """A mirror that follows by itself: what it is told last of each trial is what it writes next."""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self.news: dict[int, Trial] = {}  # as they stood when this was told
        self.curves: dict[int, Trial] = {}
        self.changed = threading.Condition()
        self.since: float | None = None  # of the change in work
        self.closing = self.silent = False
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)  # which keeps no process from its end
        self.thread.start()

    def follow(self, trial: Trial) -> None:
        """Bring one trial of the study up to date, soon. Raises what went wrong with an earlier one."""
        self._tell(self.news, trial)

    def follow_curve(self, trial: Trial) -> None:
        """Bring the curve of a trial in work up to date, soon."""
        self._tell(self.curves, trial)

    def end(self, *, patient: bool) -> None:
        """Wait for what is not written yet as long as the database answers, and say so where it does not."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        while self.thread.is_alive():
            self.thread.join(0.1)
            if self._stands_still(SILENT if patient else LAST):
                self._say("does not answer; the study there is behind, and the same command brings it up to date")
                return
        self._raise()

    def _tell(self, those: dict[int, Trial], trial: Trial) -> None:
        with self.changed:
            those[trial.number] = replace(trial)
            self.changed.notify()
        if self._stands_still(SILENT) and not self.silent:
            self.silent = True
            self._say("does not answer; the sweep goes on, the study follows later")
        self._raise()

    def _stands_still(self, seconds: float) -> bool:
        since = self.since
        return since is not None and time.monotonic() - since > seconds

    def _raise(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error

    def _say(self, what: str) -> None:
        print(f"sweep {self.mirror.folder.name}: its database {what}", file=sys.stderr, flush=True)

    def _run(self) -> None:
        try:
            while True:
                with self.changed:
                    self.changed.wait_for(lambda: self.news or self.curves or self.closing or self._may_grow())
                    news, self.news = self.news, {}
                    curves, self.curves = self.curves, {}
                if not news and not curves and not self.closing:
                    self._timed(self.mirror.grow, AT_A_TIME)
                    continue
                if not news and not curves:
                    return self._timed(self.mirror.end)
                for number in sorted(news):
                    self._timed(self.mirror.follow, news[number])
                for number in sorted(curves):
                    if number not in news or not news[number].over:
                        self._timed(self.mirror.follow_curve, curves[number])
        except BaseException as error:  # the sweep's own thread decides what it means
            self.error = error

    def _may_grow(self) -> bool:
        return bool(self.mirror.behind) and self.mirror.away is None

    def _timed(self, act: Callable[..., None], *arguments: Any) -> None:
        self.since = time.monotonic()
        try:
            act(*arguments)
        finally:
            self.since = None
        if self.silent:
            self.silent = False
            if self.mirror.away is None:
                self._say("answers again")


def follower(storage: Any, folder: Path, space: Space, objectives: dict[str, str], trials: Sequence[Trial]) -> Follower:
    """The study as the ledger has it: kept if it agrees, made anew if not, and continued by itself.

    Raises:
        ValueError: if a database has a study of this name that is another sweep's, or does not answer.
    """
    made = mirror(storage, folder, space, objectives, trials)
    try:
        answered(made.compare, lambda: len(made.known))
    except TimeoutError:
        said = f"its database has not answered for {ANSWER:.0f} s"
        raise ValueError(f"hydra.sweeper.study_name={folder.name}: {said}; nothing was started") from None
    return Follower(made)
