"""A cluster's warnings: noted while a step runs, and acted on between two steps."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)  # sent ahead of a time limit or a preemption
STOPS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):
    """A signal asked the trial to stop, and it did so in good order."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}"


@dataclass
class Noted:
    """The signals that have come since the last look."""

    earlier: dict[int, Any]  # signal -> who handled it before
    pending: list[int] = field(default_factory=list)

    def obey(self) -> None:
        """Hand each signal on to whoever handled it before. Where nobody did, a stop raises Interrupted."""
        while self.pending:
            number = self.pending.pop(0)
            before = self.earlier[number]
            if callable(before):
                before(number, None)
            elif number in STOPS:
                raise Interrupted(number)


@contextmanager
def noted(*numbers: int) -> Generator[Noted]:
    """Note these signals inside the block; outside the main thread, which alone can, nothing is ever noted."""
    found = Noted({})
    if threading.current_thread() is not threading.main_thread():
        yield found
        return

    def note(number: int, _frame: FrameType | None) -> None:
        found.pending.append(number)

    for number in numbers:
        found.earlier[number] = signal.signal(number, note)
    try:
        yield found
    finally:
        for number, before in found.earlier.items():
            signal.signal(number, before)
