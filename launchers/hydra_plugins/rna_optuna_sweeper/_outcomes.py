"""How trials end, and in which words."""

import os
import platform
import signal
from typing import Any

from hydra.core.utils import JobReturn, JobStatus


class Stopped(Exception):
    """A signal ended the sweep in good order."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def reason_of(error: BaseException) -> str:
    """Why a trial ended without an outcome, in the few words that decide whether it is tried again."""
    from rna.ends import Interrupted, device_failed, file_system_failed
    from rna.sweep import WorkerDied

    told = getattr(error, "reason", None)
    if isinstance(told, str):
        return told
    if device_failed(error):
        return "device"
    if file_system_failed(error):
        return "file system"
    kinds: list[tuple[type[BaseException] | tuple[type[BaseException], ...], str]] = [
        (ValueError, "bad config"),
        (MemoryError, "out of memory"),
        (ArithmeticError, "not finite"),
        (WorkerDied, "killed"),
        ((Interrupted, KeyboardInterrupt), "preempted"),
        (TimeoutError, "timeout"),
    ]
    return next((reason for kind, reason in kinds if isinstance(error, kind)), "error")


def returned(value: Any) -> dict[str, Any]:
    """What a job returned, as metrics by name.

    Raises:
        ValueError: for what is no number, list of numbers or mapping.
    """
    if isinstance(value, dict):
        return {str(key): item for key, item in value.items() if item is None or isinstance(item, int | float)}
    if isinstance(value, list | tuple):
        return {f"value_{index}": float(item) for index, item in enumerate(value)}
    if isinstance(value, int | float) or hasattr(value, "__float__"):
        return {"value": float(value)}
    raise ValueError(f"the job returned {value!r}: must be a number, a list of numbers, or a mapping of metrics")


def failed(error: BaseException) -> JobReturn:
    made = JobReturn()
    made.status, made.return_value = JobStatus.FAILED, error
    return made


def end_survivor(told: dict[str, Any]) -> None:
    """Kill a trial's process that outlived its sweeper on this machine, as one that was paused does."""
    from rna.sweep import ledger

    if told.get("host") == platform.node() and told.get("started") == ledger.started(told["pid"]):
        os.kill(told["pid"], signal.SIGKILL)


def one_line(error: BaseException) -> str:
    """What an error says, without the list of folders that Hydra looked into."""
    said = str(error).partition("Config search path:")[0].partition("full_key:")[0]
    return " ".join(line.strip() for line in said.splitlines() if line.strip())
