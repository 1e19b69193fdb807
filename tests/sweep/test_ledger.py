"""A sweep's folder: whole files or none, one holder, and beats of the owner alone."""

import json
import multiprocessing
from pathlib import Path

import pytest

from rna.sweep import ledger
from rna.sweep.ledger import Trial


def test_trials_come_back_by_number_and_half_a_file_is_none(tmp_path: Path):
    for number in (10, 2):
        ledger.save(tmp_path, Trial(number, [f"x={number}"], {"x": number}))
    (tmp_path / "trials" / "3.json").write_text('{"number": 3, "cell": [')
    (tmp_path / "trials" / "4.json").write_text(json.dumps({"number": 4, "cell": [], "of a later version": 1}))
    assert [trial.number for trial in ledger.trials(tmp_path)] == [2, 4, 10]
    assert ledger.trials(tmp_path)[2].params == {"x": 10}
    assert not [file for file in (tmp_path / "trials").iterdir() if file.name.endswith(".tmp")]


def hold(folder: Path, held: object, leave: object) -> None:
    with ledger.held(folder):
        held.set()  # type: ignore[attr-defined]
        leave.wait()  # type: ignore[attr-defined]


def test_one_process_holds_a_study_and_its_end_frees_it(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    held, leave = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, held, leave))
    other.start()
    assert held.wait(60)
    with pytest.raises(ledger.Busy, match=f"process {other.pid} on .* works on it already"), ledger.held(tmp_path):
        pass
    other.kill()
    other.join()
    with ledger.held(tmp_path):
        pass


def test_beats_tell_the_phase_and_are_not_written_more_than_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trial = Trial(7, [], token="mine")
    ledger.save(tmp_path, trial)
    assert ledger.last_beat(tmp_path, trial) == {}
    monkeypatch.setenv(ledger.OWNER, ledger.owner_value(tmp_path, trial))
    ledger.beat("training", 1, 9)
    ledger.beat("training", 2, 9)
    assert ledger.last_beat(tmp_path, trial)["done"] == 1
    ledger.beat("evaluating", 3, 9)
    assert (ledger.last_beat(tmp_path, trial)["phase"], ledger.last_beat(tmp_path, trial)["done"]) == ("evaluating", 3)
    ledger.clear_beats(tmp_path)
    assert ledger.last_beat(tmp_path, trial) == {}


def test_outside_a_sweep_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(ledger.OWNER, raising=False)
    monkeypatch.chdir(tmp_path)
    ledger.beat("training", 1, 2)
    ledger.check_owner()
    assert list(tmp_path.iterdir()) == []
