"""Several grids in one sweep: `hydra.sweeper.grids`."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra_plugins.rna_optuna_sweeper import _trying
from hydra_plugins.rna_optuna_sweeper import space as search_space
from hydra_plugins.rna_optuna_sweeper._composing import Composer
from omegaconf import DictConfig

from rna.settings.composing import cells_of
from tests.launchers.running import STORE, noted, study, sweep, trials
from tests.launchers.test_composing import Loader, Store

GRIDS: dict[str, Any] = {"wide": {"+x": "1,2", "+y": "0,1"}, "deep": {"+x": [2, 3], "+y": 0}, "own": {"+z": "a,b"}}


def asked(*arguments: str, grids: Any = GRIDS, **params: Any) -> search_space.Space:
    options = SimpleNamespace(params=params, grids=grids)
    return search_space.asked(OverridesParser.create(), options, list(arguments))


def test_grids_follow_one_another_and_a_cell_of_two_is_there_once():
    found = asked()
    cells = [["+x=1", "+y=0"], ["+x=1", "+y=1"], ["+x=2", "+y=0"], ["+x=2", "+y=1"], ["+x=3", "+y=0"]]
    assert list(found.cells()) == [*cells, ["+z=a"], ["+z=b"]]
    assert found.size == 7
    assert found.described() == {"+x": ["1", "2", "3"], "+y": ["0", "1"], "+z": ["a", "b"]}
    assert found.params(["+y=0", "+x=3"]) == {"x": 3, "y": 0}
    assert found.has(["+y=0", "+x=3"])
    assert not found.has(["+x=3", "+y=1"])  # of neither, though each value is of one
    assert not found.has(["+x=3"])


def test_what_is_common_stands_before_a_grid_and_the_command_line_wins():
    found = asked("+y=5", seed="0,1", lr=0.1)
    assert found.fixed == ("lr=0.1", "+y=5")
    assert list(found.cells())[:3] == [["seed=0", "+x=1"], ["seed=0", "+x=2"], ["seed=1", "+x=1"]]
    assert found.size == 2 * (3 + 2)
    assert asked("+x=7,8").described()["+x"] == ["7", "8"]
    assert asked(grids={"one": {"a": 1}}, a="2,3").described() == {"a": ["1"]}


def test_a_grid_is_a_mapping():
    with pytest.raises(ValueError, match=r"hydra\.sweeper\.grids\.one=x=1,2: must be a mapping of keys to values"):
        asked(grids={"one": "x=1,2"})


def test_other_grids_are_another_sweep():
    assert asked().digest() != asked(grids=GRIDS | {"deep": {"+x": [2, 3], "+y": 1}}).digest()
    assert asked().digest() == asked().digest()


def test_the_miniature_trains_each_of_its_settings_once_and_seeds_can_be_given():
    fixed, cells = cells_of("miniature", ["seed=7"])
    assert fixed == ["sweep=miniature", "seed=7"]
    assert len({tuple(sorted(cell)) for cell in cells}) == len(cells) == 116
    assert ["experiment=defences/rmu", "protection=rna_1"] in cells
    assert ["method=npo", "retain=mse", "protection=rna_03", "noise.layers=all"] in cells


def test_a_grid_is_tried_whatever_others_took_of_its_values():
    def tried(*more: dict[str, str]) -> Any:
        grids = {str(place): one for place, one in enumerate([{"method": "npo", "retain": "kl"}, *more])}
        context: Any = SimpleNamespace(config_loader=Loader())
        return _trying.try_values(Composer(context, DictConfig({}), asked(grids=grids), "s", Store()), [])

    tried({"method": "rmu", "retain": "mse"})
    with pytest.raises(ValueError, match=r"retain=kl: not with method=rmu; allowed: mse"):
        tried({"method": "rmu", "retain": "mse"}, {"method": "rmu", "retain": "kl"})


WORDS = ("hydra.sweeper.grids={wide: {+x: '0.1,0.2', +y: '0,1'}, own: {+x: '0.2,0.3'}}", *STORE)


@pytest.mark.whole
def test_a_sweep_of_grids_runs_each_cell_once_and_the_same_command_goes_on(tmp_path: Path):
    printed = sweep(tmp_path, *WORDS)
    assert "best: #5 +x=0.3" in printed
    assert [dict(shown) for _, _, shown, _ in study(tmp_path)] == [
        {"x": 0.1, "y": 0}, {"x": 0.1, "y": 1}, {"x": 0.2, "y": 0}, {"x": 0.2, "y": 1}, {"x": 0.2}, {"x": 0.3},
    ]  # fmt: skip
    (tmp_path / "record" / "x0.3.json").unlink()
    sweep(tmp_path, *WORDS)
    assert [one.status for one in trials(tmp_path)] == ["done"] * 6
    begun = [line for line in noted(tmp_path) if line[0] == "begin"]
    assert len(begun) == 7  # but for the one whose record went, none again


@pytest.mark.whole
def test_a_value_that_is_refused_in_a_grid_is_named_before_anything_runs(tmp_path: Path):
    words = "hydra.sweeper.grids={wide: {+x: '0.1,0.2'}, own: {+x: 'refused', +y: '0,1'}}"
    assert "error: x=refused: must be a number" in sweep(tmp_path, words, *STORE, code=2)
    assert not noted(tmp_path)


@pytest.mark.whole
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_sampler_draws_from_no_grids(tmp_path: Path, sampler: str):
    printed = sweep(tmp_path, *WORDS, f"hydra.sweeper.sampler={sampler}", "hydra.sweeper.n_trials=3", code=2)
    assert f"hydra.sweeper.sampler={sampler}: draws from one space; with hydra.sweeper.grids: grid" in printed
