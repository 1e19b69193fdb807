"""A grid that is asked for again with other values, and what a study takes to be kept, however many values it has."""

import random
from pathlib import Path

import optuna
import pytest
from hydra_plugins.rna_optuna_sweeper import _sampling, _study
from hydra_plugins.rna_optuna_sweeper._storage import open_storage
from hydra_plugins.rna_optuna_sweeper._todo import Todo

from rna.sweep import ledger
from rna.sweep.ledger import Trial
from tests.launchers.running import STORE, noted, study, sweep, trials
from tests.launchers.test_sweeper import parsed


@pytest.mark.whole
def test_a_grid_grows_shrinks_and_grows_again_under_its_name(tmp_path: Path):
    """Words and numbers: what is done is recognised, numbers stay, and the study has every trial."""
    sweep(tmp_path, "+x=1,2", "+version=a,b", *STORE)
    printed = sweep(tmp_path, "+version=a,b", "+x=0.5,1,2,3", *STORE)  # in another order
    assert "4 of 8 trials are done already" in printed
    numbers = [(1, "a"), (1, "b"), (2, "a"), (2, "b"), (0.5, "a"), (3, "a"), (0.5, "b"), (3, "b")]
    assert [(params["x"], params["version"]) for _, _, params, _ in study(tmp_path)] == numbers
    printed = sweep(tmp_path, "+x=2,3", "+version=b,c", *STORE)
    assert "6 trials are not of the values given now: kept, neither run nor counted" in printed
    assert "toy: 4 done, 0 failed" in printed
    assert [trial.number for trial in trials(tmp_path)] == [3, 7, 8, 9]
    assert [trial.number for trial in ledger.recorded(tmp_path / "sweeps" / "toy")] == list(range(10))
    numbers += [(2, "c"), (3, "c")]
    assert [(params["x"], params["version"]) for _, _, params, _ in study(tmp_path)] == numbers
    assert {state for _, state, _, _ in study(tmp_path)} == {"COMPLETE"}
    assert "10 of 12 trials are done already" in sweep(tmp_path, "+x=0.5,1,2,3", "+version=a,b,c", *STORE)
    assert len([words for words in noted(tmp_path) if words[0] == "begin"]) == 12


@pytest.mark.whole
def test_other_draws_are_another_study(tmp_path: Path):
    common = ("+x=1,2,3", "hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=1")
    sweep(tmp_path, *common)
    assert sweep(tmp_path, *common, "hydra.sweeper.seed=1", code=2) == (
        "error: hydra.sweeper.study_name=toy: this study was begun with hydra.sweeper.seed=0, not 1; give another "
        "name, or the seed it was begun with\n"
    )


def test_a_cell_and_its_place_are_each_others():
    space = parsed("a=1,2,3", "b=x,y", "c=0.5,1.5")
    cells = list(space.cells())
    assert [space.cell(place) for place in range(12)] == cells
    assert [space.index(cell) for cell in cells] == list(range(12)) == [space.index(cell[::-1]) for cell in cells]
    assert space.size == 12
    assert space.has(["c=0.5", "a=1", "b=x"])
    assert not any(map(space.has, (["a=4", "b=x", "c=0.5"], ["a=1", "b=x"], ["a=1", "b=x", "c=0.5", "d=1"])))


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_space_of_a_hundred_million_cells_is_drawn_from_without_being_listed(sampler: str):
    values = ",".join(map(str, range(100)))
    space = parsed(*(f"{key}={values}" for key in "abcd"))
    todo = Todo([], space, sampler, 5)
    brain = _sampling.brain(sampler, 0, space, ["minimize"], [])
    assert len({tuple(todo.draw(brain).cell) for _ in range(5)}) == 5  # type: ignore[union-attr]
    assert [trial.number for trial in todo.ordered] == list(range(5))


def test_where_a_sampler_repeats_itself_anyfree_cell_is_as_likely():
    space = parsed("a=1,2,3", "b=x,y")
    taken = {tuple(sorted(cell)) for cell in random.Random(0).sample(list(space.cells()), 4)}
    brain = _sampling.brain("random", 0, space, ["minimize"], [])
    found = [tuple(brain.free_cell(number, taken)) for number in range(200)]
    assert set(found) == {tuple(cell) for cell in space.cells()} - taken
    assert all(60 < found.count(cell) < 140 for cell in set(found))


@pytest.mark.whole
@pytest.mark.parametrize(("axis", "count"), [("{}", 3), ("{}.5", 1000), ("word_{}", 100)])
def test_a_trial_takes_two_kilobytes_in_the_journal(tmp_path: Path, axis: str, count: int):
    space = parsed(f"a={','.join(axis.format(number) for number in range(count))}", "b=0,1")
    todo = Todo([], space, "grid", None)
    todo.add_cells(space)
    storage = open_storage(None, tmp_path)
    mirror = _study.mirror(storage, tmp_path, space, {"value": "minimize"}, todo.ordered)
    mirror.compare()
    for trial in todo.ordered[:6]:
        trial.status = ledger.RUNNING
        mirror.follow(trial)
        trial.status, trial.values, trial.metrics = ledger.DONE, [1.0], {"value": 1.0}
        mirror.follow(trial)
    found = optuna.load_study(study_name=tmp_path.name, storage=storage).trials
    assert len(found) == 6
    assert (tmp_path / "journal.log").stat().st_size / 6 < 2000
    for one, trial in zip(found, todo.ordered, strict=False):
        assert trial.params["a"] in (one.params["a"], one.user_attrs.get("a"))
    while mirror.grow(1.0):
        pass
    assert len(storage.get_all_trials(storage.get_all_studies()[0]._study_id)) == 2 * count


def test_the_study_has_lower_numbers_before_higher_ones(tmp_path: Path):
    made = [Trial(number, [f"x={number}"], {"x": number}) for number in range(4)]
    mirror = _study.mirror(open_storage(None, tmp_path), tmp_path, parsed("x=0,1,2,3"), {"value": "minimize"}, made)
    mirror.compare()
    made[2].status, made[2].values = ledger.DONE, [1.0]
    mirror.follow(made[2])
    found = optuna.load_study(study_name=tmp_path.name, storage=mirror.storage).trials
    assert [(one.params["x"], one.state.name) for one in found] == [(0, "WAITING"), (1, "WAITING"), (2, "COMPLETE")]
