"""Launchers that know nothing of sweeps: one trial after another."""

import threading
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.errors import HydraException

from ._outcomes import failed, one_line


class OneByOne:
    """Any Hydra launcher, called for one trial after another.

    What a trial prints goes to its log, so that the sweep's own lines can be read; with `hydra.verbose` it is shown.
    """

    places = 1
    wait, survives = True, False

    def __init__(self, launcher: Any, config: Any) -> None:
        self.launcher, self.config = launcher, config
        self.meanwhile: Callable[[], None] | None = None  # what to do again and again while a trial runs
        self.jobs: dict[int, str] = {}
        self.next: tuple[list[str], int] | None = None

    def start(self, overrides: list[str], number: int, _title: str) -> str | None:
        self.next = (overrides, number)
        return None if self.config.hydra.verbose else str(self._log(number))

    def _log(self, number: int) -> Path:
        return Path(str(self.config.hydra.sweep.dir)).absolute() / str(number) / "trial.log"

    def poll(self, timeout: float) -> list[tuple[int, JobReturn]]:
        assert self.next is not None, timeout
        (overrides, number), self.next = self.next, None
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(ended,))
        watcher.start()
        try:
            with self._heard(number):
                return [(number, self.launcher.launch([overrides], initial_job_idx=number)[0])]
        except SystemExit as stop:
            return [(number, failed(RuntimeError(f"its process ended with exit code {stop.code}")))]
        except HydraException as error:
            return [(number, failed(ValueError(one_line(error))))]
        finally:
            ended.set()
            watcher.join()

    def _heard(self, number: int) -> ExitStack:
        """Where the trial prints to."""
        streams = ExitStack()
        if not self.config.hydra.verbose:
            log = self._log(number)
            log.parent.mkdir(parents=True, exist_ok=True)
            stream = streams.enter_context(log.open("a", encoding="utf-8", buffering=1))
            streams.enter_context(redirect_stdout(stream))
            streams.enter_context(redirect_stderr(stream))
        return streams

    def _watch(self, ended: threading.Event) -> None:
        while self.meanwhile is not None and not ended.wait(0.1):
            self.meanwhile()

    def stop(self, number: int) -> None:
        """Nothing to stop: between two calls nothing runs."""

    def signal(self, number: int) -> None:
        """Nothing to tell."""

    def close(self) -> None:
        """Nothing to end."""
