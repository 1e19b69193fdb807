"""Who works on which arm while another process has one of them in work: real locks, arms without a model."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rna import progress, run, trial
from rna.settings import config
from rna.store import results
from rna.sweep import ledger


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of the arms that were worked on, in order; each holds its lock as a real one does."""
    labels: list[str] = []

    def work(row: trial.Arm, _progress: Any, *, wait: bool = True, listener: Any) -> None:
        del listener
        with results.single_flight(row.settings.output_dir, row.key, wait=wait):
            labels.append(row.label)

    monkeypatch.setattr(trial, "work", work)
    return labels


def wanted(folder: Path) -> list[trial.Arm]:
    # All cores for one arm, so that arms are worked on in turn.
    made = config.check(run.compose([f"output_dir={folder}", "model.threads=null"], None))
    rows = trial.to_compute(made, trial.arms(made))
    assert [row.label for row in rows] == ["with RNA", "plain", "base", "retrained"]
    return rows


def test_what_another_process_computes_is_waited_for_last(tmp_path: Path, done: list[str]):
    rows = wanted(tmp_path)
    held = threading.Event()

    def elsewhere() -> None:
        with results.single_flight(str(tmp_path), rows[1].key):
            held.set()
            time.sleep(0.5)
            done.append("plain, elsewhere")

    other = threading.Thread(target=elsewhere)
    other.start()
    held.wait()
    progress.work_on(rows)
    other.join()
    assert done == ["with RNA", "base", "retrained", "plain, elsewhere", "plain"]


def test_in_a_sweep_it_is_left_to_the_other_trial_and_ones_own_comes_last(
    tmp_path: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
):
    rows = wanted(tmp_path)
    monkeypatch.setenv(ledger.OWNER, f"{tmp_path}/sweeps/s/trials/0.json#its token")
    with results.single_flight(str(tmp_path), rows[1].key):
        progress.work_on(rows)
    assert done == ["retrained", "base", "with RNA"]


def test_in_a_sweep_ones_own_is_waited_for(tmp_path: Path, done: list[str], monkeypatch: pytest.MonkeyPatch):
    rows = wanted(tmp_path)
    monkeypatch.setenv(ledger.OWNER, f"{tmp_path}/sweeps/s/trials/0.json#its token")
    lock = results.single_flight(str(tmp_path), rows[0].key)
    lock.__enter__()
    started = time.monotonic()
    threading.Timer(0.5, lambda: lock.__exit__(None, None, None)).start()
    progress.work_on(rows)
    assert time.monotonic() - started >= 0.5
    assert done == ["retrained", "base", "plain", "with RNA"]


def test_in_a_log_a_phase_says_how_long_it_still_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A step a second from step 1 on: at 26 of 101, 75 are left."""
    clock = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    with progress.display() as tell:
        for step in range(1, 102):
            tell("plain", "training", step, 101)
            clock[0] += 1.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[  0.0 s] plain: training 1/101"
    assert lines[1] == "[ 25.0 s] plain: training 26/101, about 75 s left"
    assert lines[-1] == "[100.0 s] plain: training 101/101"
    assert len(lines) == 5


def deaf(row: trial.Arm, *_: Any, **__: Any) -> None:
    """An arm in work that hears no stop."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (Path(row.settings.output_dir) / f"{row.key}.pid").write_text(str(os.getpid()))
    time.sleep(600)


@pytest.mark.whole
def test_a_second_ctrl_c_ends_arms_side_by_side_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trial, "work", deaf)
    monkeypatch.setattr("rna.settings.cores.available", lambda: 2)
    made = config.check(run.compose([f"output_dir={tmp_path}"], None))
    rows = trial.to_compute(made, trial.arms(made))[:2]

    def twice() -> None:
        while len(list(tmp_path.glob("*.pid"))) < 2:
            time.sleep(0.1)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    threading.Thread(target=twice).start()
    with pytest.raises(KeyboardInterrupt):
        progress.work_on(rows)
    for told in tmp_path.glob("*.pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(told.read_text()), 0)
