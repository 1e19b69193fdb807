"""How work ends before its end: by a signal, a user's mistake or a failed trial, and what a command then says.

A cluster's warnings are noted while a step runs, and acted on between two steps.
"""

import errno
import functools
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)  # sent ahead of a time limit or a preemption
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PASSING = {  # what a network's file system says while its server is away, and may not say a moment later
    *(errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.ENOTCONN),
    *(getattr(errno, name) for name in ("EREMOTEIO", "ESHUTDOWN", "EHOSTDOWN") if hasattr(errno, name)),
}
NO_MEMORY = r"can't allocate memory|^CUDA error: out of memory|^\w+ error: \w+_STATUS_ALLOC_FAILED"
DEVICE = (
    r"(CUDA|HIP)( driver)? (error|initialization)|(NCCL|cuDNN|MIOpen|cuBLAS|cusolver|cuFFT) (error|Error)"
    r"|Triton Error \[(CUDA|HIP)\]|No (CUDA|HIP) GPUs|Unexpected error from (cuda|hip)GetDeviceCount"
    r"|Found no NVIDIA driver"
)
PAUSES = (0.2, 0.8, 3.0, 8.0, 20.0)  # seconds between two tries at a file


class Interrupted(Exception):
    """A signal asked the trial to stop, and it did so in good order."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}"


class StoppedAtOnce(KeyboardInterrupt):
    """A signal came where nothing had to be brought to an end first."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class TrialFailed(RuntimeError):
    """A trial that stopped; its failure is recorded beside the records, none of which it touched."""

    reason = "failed"  # not finite, out of memory, disk full; a sweep judges by it whether to try again


@dataclass
class Noted:
    """The signals that have come since the last look; of a block within another the inner one hears them."""

    earlier: dict[int, Any]  # signal -> who handled it before
    pending: list[int] = field(default_factory=list)
    heeds: bool = False  # whether its owner acts on them itself, in place of who handled them before

    def note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._waiting(number):
            raise KeyboardInterrupt  # asked twice: at once
        _leave_terminal(number)
        self.pending.append(number)

    def _waiting(self, number: int) -> bool:
        """Whether the signal came before and waits to be obeyed, here or in a block around this one."""
        outer = getattr(self.earlier.get(number), "__self__", None)
        return number in self.pending or (isinstance(outer, Noted) and outer._waiting(number))

    def obey(self) -> None:
        """Hand each signal on to whoever handled it before. Where nobody did, a stop raises Interrupted."""
        while self.pending:
            number = self.pending.pop(0)
            before = self.earlier[number]
            outer = getattr(before, "__self__", None)
            if isinstance(outer, Noted):  # which looks at its own no earlier than this block's end
                if outer.heeds and number in WARNINGS:
                    _tell(number, None)
                    continue
                outer.pending.append(number)
                if not outer.heeds:
                    outer.obey()
                elif number in STOPS:
                    raise Interrupted(number)
            elif callable(before) and before is not _end_at_once:
                before(number, None)
            elif number in STOPS:
                raise Interrupted(number)


# safetensors writes the reason out; torch's own writer hides it in one of two ways, and fails for no other in practice.
NO_ROOM = (
    r"No space left on device|Disk quota exceeded|PytorchStreamWriter failed writing|"
    r"enforce fail at inline_container\S* \. unexpected pos"
)


def disk_is_full(error: BaseException | None) -> bool:
    """Whether a write failed for want of room or quota, as Python, torch or safetensors tell it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if re.search(NO_ROOM, str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def out_of_memory(error: BaseException) -> bool:
    """Whether memory was short, the machine's or a GPU's, as Python, torch and CUDA's libraries tell it."""
    named = type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)
    return named or re.search(NO_MEMORY, str(error)) is not None


def device_failed(error: BaseException) -> bool:
    """Whether a GPU, its driver or a library of its kernels gave up, as torch tells it; want of memory is none."""
    told = getattr(error, "reason", None)
    if isinstance(told, str) or out_of_memory(error):
        return told == "device"
    named = type(error).__name__ in ("AcceleratorError", "DistBackendError")
    return named or (isinstance(error, RuntimeError) and re.match(DEVICE, str(error)) is not None)


def file_system_failed(error: BaseException | None) -> bool:
    """Whether a file system was in trouble that may pass, as Python and libraries in Rust tell it."""
    while error is not None:
        told = re.search(r"\(os error (\d+)\)", str(error))
        if (isinstance(error, OSError) and error.errno in PASSING) or (told and int(told[1]) in PASSING):
            return True
        error = error.__cause__ or error.__context__
    return False


def patient(action: Callable[P, R]) -> Callable[P, R]:
    """Try what reads or writes a file again, for half a minute, while its file system is in passing trouble.

    The action may be done twice. Raises the last such error, and any other at once.
    """

    @functools.wraps(action)
    def tried(*words: P.args, **options: P.kwargs) -> R:
        for pause in PAUSES:
            try:
                return action(*words, **options)
            except Exception as error:
                if not file_system_failed(error):
                    raise
            time.sleep(pause)
        return action(*words, **options)

    return tried


def heeded() -> tuple[int, ...]:
    """The stops that a block around this one acts on: what works within it must look for them."""
    return tuple(number for number in STOPS if isinstance(getattr(signal.getsignal(number), "__self__", None), Noted))


@contextmanager
def noted(*numbers: int, heeds: bool = False) -> Generator[Noted]:
    """Note these signals inside the block; outside the main thread, which alone can, nothing is ever noted.

    Args:
        heeds: whether the block acts on them itself: a block within it that obeys a stop then ends with Interrupted.
    """
    found = Noted({}, heeds=heeds)
    if threading.current_thread() is not threading.main_thread():
        yield found
        return

    for number in numbers:
        if not (number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN):  # as under nohup
            found.earlier[number] = signal.signal(number, found.note)
    try:
        yield found
    finally:
        for number, before in found.earlier.items():
            signal.signal(number, before)
        for number in found.pending:  # what came after the last look is for who was there before
            if number in STOPS or found.earlier[number] != signal.SIG_DFL:
                signal.raise_signal(number)


@contextmanager
def prompt() -> Generator[None]:
    """Inside the block, a stop that nobody handles ends what is done at once, by an exception as Ctrl-C does, and a
    warning ends nothing; signals that somebody handles or ignores stay his.
    """
    wanted = {signal.SIGTERM: _end_at_once, signal.SIGHUP: _end_at_once} | dict.fromkeys(WARNINGS, _tell)
    taken: list[int] = []
    if threading.current_thread() is threading.main_thread():
        taken = [number for number in wanted if signal.getsignal(number) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, wanted[signal.Signals(number)])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WARNINGS)  # by now they end nothing
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def warnings_later() -> Generator[None]:
    """Hold warnings back from a process that is started inside the block, until it is `prompt`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WARNINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_at_once(number: int, _frame: FrameType | None) -> None:
    _leave_terminal(number)
    raise StoppedAtOnce(number)


def _tell(number: int, _frame: FrameType | None) -> None:
    line = f"{signal.Signals(number).name}: a warning; a training has its checkpoint by now, and the work goes on\n"
    with suppress(OSError):
        os.write(2, line.encode())  # from within a handler, where print may be in the middle of a line


def _leave_terminal(number: int) -> None:
    """Once a terminal has hung up, each word to it is an error: from then on they go nowhere."""
    for stream in (1, 2) if number == signal.SIGHUP else ():
        try:
            os.write(stream, b"")
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)


def guarded(action: Callable[[], Any]) -> None:
    """Run, and turn a user's mistake or a failed trial into one line; HYDRA_FULL_ERROR=1 shows the traceback."""
    try:
        with prompt():
            action()
    except (Interrupted, KeyboardInterrupt) as stop:
        number = getattr(stop, "number", signal.SIGINT)
        name = signal.Signals(number).name
        print(f"stopped by {name}; the same command goes on where this one was", file=sys.stderr)
        sys.exit(128 + number)
    except (ValueError, TrialFailed) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, TrialFailed) else 2)
    except OSError as error:
        if not file_system_failed(error) or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {error}; nothing that was written is lost: give the same command again", file=sys.stderr)
        sys.exit(1)
