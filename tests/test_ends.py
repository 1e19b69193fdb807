"""Signals between two steps: noted in blocks within blocks, and handed to whoever handled them before all of these."""

import os
import signal
from pathlib import Path
from types import FrameType

import pytest
import torch

from rna import ends

pytestmark = pytest.mark.usefixtures("hangups")


def test_a_block_within_another_hands_on_to_who_was_there_before_both():
    """As training within a trial, in a job whose own handler requeues it."""
    heard: list[int] = []

    def requeue(number: int, _frame: FrameType | None) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGUSR2, requeue)
    try:
        with ends.noted(*ends.WARNINGS) as outer:
            with ends.noted(*ends.WARNINGS, *ends.STOPS) as inner:
                os.kill(os.getpid(), signal.SIGUSR2)
                assert (inner.pending, outer.pending, heard) == ([signal.SIGUSR2], [], [])
                inner.obey()
            assert heard == [signal.SIGUSR2]
            os.kill(os.getpid(), signal.SIGUSR2)
            assert len(heard) == 1
            outer.obey()
        assert heard == [signal.SIGUSR2] * 2
        os.kill(os.getpid(), signal.SIGUSR2)
        assert len(heard) == 3
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_warning_that_nobody_handled_ends_nothing():
    with ends.noted(*ends.WARNINGS) as heard:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert heard.pending
        heard.obey()


def test_what_comes_after_the_last_look_is_for_who_was_there_before():
    with pytest.raises(KeyboardInterrupt), ends.noted(*ends.STOPS):
        os.kill(os.getpid(), signal.SIGINT)
    with ends.noted(*ends.STOPS, heeds=True) as outer:
        with ends.noted(*ends.STOPS):
            os.kill(os.getpid(), signal.SIGTERM)
        assert outer.pending == [signal.SIGTERM]
        outer.pending.clear()
    with ends.noted(*ends.WARNINGS):
        os.kill(os.getpid(), signal.SIGUSR1)  # by default, the end of this process


def test_asked_twice_is_at_once_though_a_block_began_between():
    """The first word came while a model was loaded, and training begins before anybody has looked."""
    with ends.noted(*ends.STOPS) as outer:
        os.kill(os.getpid(), signal.SIGINT)
        assert outer.pending == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt), ends.noted(*ends.STOPS):
            os.kill(os.getpid(), signal.SIGINT)
        outer.pending.clear()


def test_a_hang_up_that_is_ignored_stays_ignored_as_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ends.prompt(), ends.noted(*ends.STOPS) as heard:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not heard.pending
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_where_nothing_is_noted_a_stop_ends_at_once_and_a_warning_nothing(
    number: int, capfd: pytest.CaptureFixture[str]
):
    with ends.prompt():
        os.kill(os.getpid(), signal.SIGUSR1)
    with pytest.raises(ends.StoppedAtOnce) as found, ends.prompt():
        os.kill(os.getpid(), number)
    assert found.value.number == number
    assert capfd.readouterr().err.startswith("SIGUSR1: a warning; ")
    assert signal.getsignal(number) == signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_a_command_that_is_stopped_says_so_in_one_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        ends.guarded(lambda: os.kill(os.getpid(), signal.SIGHUP))
    assert left.value.code == 128 + signal.SIGHUP
    assert capsys.readouterr().err == "stopped by SIGHUP; the same command goes on where this one was\n"


def test_a_stop_that_nobody_handled_is_an_interruption():
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with ends.noted(*ends.STOPS) as heard:
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(ends.Interrupted, match="SIGTERM"):
                heard.obey()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs a device that is always full")
@pytest.mark.parametrize("through", ["torch", "Python"])
def test_a_full_disk_is_known_by_whoever_wrote_to_it(through: str):
    """Torch's own writer tells of it in words of a position."""
    with pytest.raises((OSError, RuntimeError)) as found, Path("/dev/full").open("wb", 0) as full:
        torch.save(torch.zeros(100_000), "/dev/full" if through == "torch" else full)
    assert ends.disk_is_full(found.value)
    assert not ends.disk_is_full(RuntimeError("a file of another kind"))
