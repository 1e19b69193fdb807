"""Where trials' records lie: found out before their turn, and anew once configuration or code have changed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra_plugins.rna_optuna_sweeper import _trying
from hydra_plugins.rna_optuna_sweeper import space as search_space
from hydra_plugins.rna_optuna_sweeper._ahead import readdress_ended
from hydra_plugins.rna_optuna_sweeper._composing import Composer, Refused
from hydra_plugins.rna_optuna_sweeper._said import Said
from hydra_plugins.rna_optuna_sweeper._spec import check_same_configuration
from omegaconf import DictConfig

from rna.sweep import ledger
from rna.sweep.ledger import Trial


class Store:
    """A record store that refuses x=2, and retain=kl without method=npo."""

    def fingerprint(self, _common: dict[str, Any]) -> str:
        return "now"

    def address(self, composed: dict[str, str]) -> dict[str, Any]:
        if composed.get("x") == "2":
            raise ValueError("x=2: too large")
        if composed.get("retain") == "kl" and composed.get("method") != "npo":
            raise ValueError(f"retain=kl: not with method={composed.get('method')}; allowed: mse")
        return {"key": f"new x={composed.get('x')}" if composed.get("x") == "1" else f"x={composed.get('x')}"}


class Loader:
    """Of Hydra, what composes a cell: here its words, each a choice of its own."""

    repository = SimpleNamespace(group_exists=lambda _key: True)

    def load_sweep_config(self, _master: DictConfig, overrides: list[str]) -> Any:
        return DictConfig({"hydra": None, **dict(item.split("=", 1) for item in overrides if "." not in item)})


def composer(*overrides: str) -> Composer:
    space = search_space.parse(OverridesParser.create().parse_overrides(list(overrides)))
    context: Any = SimpleNamespace(config_loader=Loader())
    return Composer(context, DictConfig({}), space, "s", Store())


def test_what_is_refused_now_is_not_run_at_its_old_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trials = {
        number: Trial(number, [f"x={number}"], status=ledger.DONE, address={"key": f"x={number}"}, attempts=1)
        for number in range(3)
    }
    trials[3] = Trial(3, ["x=3"], status=ledger.FAILED, reason="bad config")
    for trial in trials.values():
        trial.composed_of = "then"
    readdress_ended(trials, composer("x=0,1,2,3"), tmp_path, Said(tmp_path))
    assert {number: trial.status for number, trial in trials.items()} == {
        0: ledger.DONE,
        1: ledger.QUEUED,
        2: ledger.FAILED,
        3: ledger.QUEUED,
    }
    assert (trials[2].address, trials[2].reason) == (None, "bad config")
    assert ledger.recorded(tmp_path) == list(trials.values())  # written down at once
    assert "1 of 4 trials are other ones now" in "".join(capsys.readouterr())
    readdress_ended(trials, composer("x=0,1,2,3"), tmp_path, Said(tmp_path))
    assert "".join(capsys.readouterr()) == ""


def test_a_value_that_needs_a_partner_is_taken_with_it():
    tried = _trying.try_values(composer("method=rmu,simnpo,npo", "retain=kl,mse"), [])
    assert tried.items == {"method=rmu", "method=simnpo", "method=npo", "retain=kl", "retain=mse"}
    with pytest.raises(ValueError, match=r"^retain=kl: not with method=\w+; allowed: mse$"):
        _trying.try_values(composer("method=rmu,simnpo", "retain=mse,kl"), [])


def test_without_time_nothing_is_refused_that_was_not_tried_with_all(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_trying, "SECONDS", 0.0)
    tried = _trying.try_values(composer("method=rmu,npo", "x=2,0"), [])
    assert tried.address == {"key": "x=0"}  # the first cell is refused: one that is taken is found all the same
    with pytest.raises(ValueError, match="x=2: too large"):
        _trying.try_values(composer("method=rmu,npo", "x=2"), [])


@pytest.mark.parametrize("position", [0, 1, 9])
def test_a_value_that_is_refused_with_all_others_is_named(position: int):
    values = [str(number) for number in range(10, 20)]
    values[position] = "2"
    with pytest.raises(ValueError, match=r"^x=2: too large$"):
        _trying.try_values(composer(f"x={','.join(values)}", "y=1,2,3"), [])


def test_of_many_values_some_are_tried_and_what_is_known_is_not_tried_again():
    many = ",".join(str(number) for number in range(10, 1010))
    tried = _trying.try_values(composer(f"x={many}", f"y={many}"), [])
    assert {"x=10", "x=1009", "y=10", "y=1009"} <= tried.items
    assert len(tried.addresses) <= _trying.TRIED
    asked = composer("x=0,1", "y=5,6")
    known = [
        Trial(number, cell, address={"key": "k"}, composed_of=asked.mark)
        for number, cell in enumerate((["x=0", "y=6"], ["x=1", "y=5"]))
    ]
    assert _trying.try_values(asked, known).addresses == {}
    for trial in known:
        trial.composed_of = "then"
    assert len(_trying.try_values(asked, known).addresses) == 3


def test_of_an_interval_one_value_that_is_taken_will_do():
    assert _trying.try_values(composer("x=int(interval(2,9))"), []).good == ["x=9"]


def test_an_address_holds_for_the_configuration_that_it_was_composed_of():
    asked = composer("x=0,1")
    trial = Trial(0, ["x=1"], status=ledger.DONE, address={"key": "x=1"}, composed_of="then")
    assert not asked.holds(trial)
    assert asked.readdress(trial)
    assert (asked.holds(trial), trial.status, trial.address) == (True, ledger.QUEUED, {"key": "new x=1"})
    assert not asked.readdress(trial)
    refused = Trial(1, ["x=2"], status=ledger.FAILED, composed_of="then")
    with pytest.raises(Refused, match="x=2: too large"):
        asked.readdress(refused)
    assert asked.holds(refused)  # until it is queued again
    refused.status = ledger.QUEUED
    assert not asked.holds(refused)


def test_a_study_that_was_begun_with_a_record_store_is_refused_without_one():
    with pytest.raises(ValueError, match=r"another configuration \(hydra\.sweeper\.store differ\)"):
        check_same_configuration({"fingerprint": "of a store"}, "s", {"x": 1})
