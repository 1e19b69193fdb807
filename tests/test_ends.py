"""Signals between two steps: noted in blocks within blocks, and handed to whoever handled them before all of these."""

import os
import signal
from types import FrameType

import pytest

from rna import ends


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


def test_a_stop_that_nobody_handled_is_an_interruption():
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with ends.noted(*ends.STOPS) as heard:
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(ends.Interrupted, match="SIGTERM"):
                heard.obey()
    finally:
        signal.signal(signal.SIGTERM, before)
