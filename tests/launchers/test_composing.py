"""Where trials' records lie once configuration or code have changed: some move, some are refused, some no more."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra_plugins.rna_optuna_sweeper._composing import address_all
from hydra_plugins.rna_optuna_sweeper._said import Said
from hydra_plugins.rna_optuna_sweeper._spec import check_same_configuration

from rna.sweep import ledger
from rna.sweep.ledger import Trial


def address(cell: list[str]) -> dict[str, Any]:
    if cell == ["x=2"]:
        raise ValueError("x=2: too large")
    return {"key": f"new {cell[0]}" if cell == ["x=1"] else cell[0]}


def test_what_is_refused_now_is_not_run_at_its_old_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trials = {
        number: Trial(number, [f"x={number}"], status=ledger.DONE, address={"key": f"x={number}"}, attempts=1)
        for number in range(3)
    }
    trials[3] = Trial(3, ["x=3"], status=ledger.FAILED, reason="bad config")
    composer: Any = SimpleNamespace(fingerprint=lambda: "now", address=address)
    address_all(trials, [], composer, {"fingerprint": "then"}, Said(tmp_path))
    assert {number: trial.status for number, trial in trials.items()} == {
        0: ledger.DONE,
        1: ledger.QUEUED,
        2: ledger.FAILED,
        3: ledger.QUEUED,
    }
    assert (trials[2].address, trials[2].reason) == (None, "bad config")
    assert "1 of 3 trials are other ones now" in "".join(capsys.readouterr())


def test_a_study_that_was_begun_with_a_record_store_is_refused_without_one():
    with pytest.raises(ValueError, match=r"another configuration \(hydra\.sweeper\.store differ\)"):
        check_same_configuration({"fingerprint": "of a store"}, "s", {"x": 1})
