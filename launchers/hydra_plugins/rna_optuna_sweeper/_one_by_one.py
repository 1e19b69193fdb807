"""Launchers that know nothing of sweeps: one trial after another."""

import threading
from collections.abc import Callable
from typing import Any

from hydra.core.utils import JobReturn
from hydra.errors import HydraException

from ._outcomes import failed, one_line


class OneByOne:
    """Any Hydra launcher, called for one trial after another."""

    places = 1
    wait, survives = True, False

    def __init__(self, launcher: Any) -> None:
        self.launcher = launcher
        self.meanwhile: Callable[[], None] | None = None  # what to do again and again while a trial runs
        self.jobs: dict[int, str] = {}
        self.next: tuple[list[str], int] | None = None

    def start(self, overrides: list[str], number: int, _title: str) -> str | None:
        self.next = (overrides, number)
        return None

    def poll(self, timeout: float) -> list[tuple[int, JobReturn]]:
        assert self.next is not None, timeout
        (overrides, number), self.next = self.next, None
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(ended,))
        watcher.start()
        try:
            return [(number, self.launcher.launch([overrides], initial_job_idx=number)[0])]
        except SystemExit as stop:
            return [(number, failed(RuntimeError(f"its process ended with exit code {stop.code}")))]
        except HydraException as error:
            return [(number, failed(ValueError(one_line(error))))]
        finally:
            ended.set()
            watcher.join()

    def _watch(self, ended: threading.Event) -> None:
        while self.meanwhile is not None and not ended.wait(0.1):
            self.meanwhile()

    def stop(self, number: int) -> None:
        """Nothing to stop: between two calls nothing runs."""

    def signal(self, number: int) -> None:
        """Nothing to tell."""

    def close(self) -> None:
        """Nothing to end."""
