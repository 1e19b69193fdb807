"""A user's own method and retain loss in a pool, from an installed wheel: killed once, resumed, changed by one byte."""

import time
from pathlib import Path

import pytest

from tests.outside import EVERY, STEPS, Sweep

pytestmark = pytest.mark.slow


def test_a_killed_sweep_of_ones_own_method_goes_on_and_a_changed_file_is_another_method(tmp_path: Path):
    sweep = Sweep(tmp_path, "hydra/launcher=gpu_pool", "hydra.launcher.processes=2")
    running = sweep.start()
    while sweep.steps < STEPS:  # of the 2·STEPS of both
        assert running.poll() is None, sweep.printed
        time.sleep(0.05)
    running.kill()
    running.wait()
    assert not sweep.keys()
    assert sweep.start().wait(180) == 0, sweep.printed
    assert "2 done, 0 failed" in sweep.printed
    assert 2 * STEPS <= sweep.steps <= 2 * (STEPS + EVERY + 1)  # at most what was done since the last checkpoints
    first = sweep.keys()
    assert len(first) == 2
    sweep.change()
    assert sweep.start().wait(180) == 0, sweep.printed
    assert "2 of 2 trials are other ones now" in sweep.printed
    assert len(sweep.keys()) == 4
    assert first < sweep.keys()
