"""The paper's ready sweeps compose on the demo's four layers and on a model of 32."""

import hydra
import pytest

from rna import run
from rna.perturb import mined
from rna.settings import cells_of, config, planned
from rna.settings.fields import CONF, Settings
from rna.sweep.__main__ import main
from tests.test_paper import local_files, stand_in

REGIONS = {4: [[0], [1], [3]], 32: [[5, 6, 7], [14, 15, 16], [28, 29, 30]]}


def cells(name: str, *overrides: str) -> list[dict[str, str]]:
    """The swept values of each cell; the first and the last compose and pass every check."""
    fixed, found = cells_of(name, list(overrides))
    for cell in (found[0], found[-1]):
        config.check(run.compose([*fixed, *cell], None))
    every = {item.split("=")[0]: item.split("=")[1] for item in fixed}
    return [every | dict(item.split("=") for item in cell) for cell in found]


def settings(name: str, *overrides: str) -> list[Settings]:
    return [config.check(composed) for _, composed in planned(name, list(overrides))]


@pytest.fixture(params=[("demo", 4), ("zephyr_7b", 32)], ids=["demo", "zephyr_7b"])
def model(request: pytest.FixtureRequest) -> tuple[str, int]:
    return f"model={request.param[0]}", request.param[1]


@pytest.mark.whole
def test_noise_falls_on_each_single_layer_of_the_model(model):
    words, depth = model
    made = cells("noise_per_layer", words)
    assert [one["noise.layers"] for one in made] == [str(layer) for layer in range(depth)]
    assert {one["noise.nu"] for one in made} == {"0.01"}


@pytest.mark.whole
@pytest.mark.parametrize(("overrides", "reach"), [((), 2), (("model=zephyr_7b",), 7), (("layer.unlearn=1",), 1)])
def test_an_rm_method_gets_noise_on_the_layers_it_reads(overrides, reach):
    made = cells("noise_per_layer", "method=rmu", *overrides)
    assert [one["noise.layers"] for one in made] == [str(layer) for layer in range(reach + 1)]


@pytest.mark.whole
def test_regions_are_shares_of_the_depth(model):
    words, depth = model
    assert [one.noise.layers for one in settings("noise_regions", words, "retain=kl")] == REGIONS[depth]


@pytest.mark.whole
def test_all_layers_have_noise_at_small_scales(model):
    words, depth = model
    made = cells("noise_all_layers", words)
    assert [one["noise.nu"] for one in made] == "0.001 0.002 0.004 0.006 0.008 0.01".split()
    assert config.check(run.compose([words, "noise.layers=all"], None)).noise.layers == list(range(depth))


@pytest.mark.whole
def test_the_unlearn_layer_runs_over_the_same_shares_of_any_depth(model):
    words, depth = model
    made = cells("unlearn_layer", words, "method=rmu")
    layers = {4: [0, 1, 2], 32: [3, 7, 11, 15, 19]}[depth]
    assert [(one["layer.unlearn"], one["noise"]) for one in made] == [
        (str(layer), noise) for layer in layers for noise in ("rna", "none")
    ]
    last = config.check(run.compose([words, "method=rmu", f"layer.unlearn={layers[-1]}"], None))
    assert last.noise.layers == [layers[-1]]
    assert last.layer.trained == [layers[-1] - 2, layers[-1] - 1, layers[-1]]


@pytest.mark.whole
@pytest.mark.parametrize(
    ("name", "method", "option", "values"),
    [
        ("coefficient", "rmu", "method.coefficient", "2 4 6.5 10 20 40 80"),
        ("beta", "adaptive_rmu", "method.beta", "1 2 3 5 8 12"),
    ],
)
def test_figure_2_sweeps_the_coefficient_plain_and_with_rna(model, name, method, option, values):
    made = cells(name, model[0])
    assert {one["method"] for one in made} == {method}
    for noise in ("rna", "none"):
        assert [one[option] for one in made if one["noise"] == noise] == values.split()


@pytest.mark.whole
def test_figure_3_sweeps_the_noise_scale_over_seeds(model):
    made = cells("noise_scale", model[0])
    assert {one["noise.nu"] for one in made} == set("0 0.007 0.014 0.03 0.06".split())
    assert {one["seed"] for one in made} == set("012")


SETTING = ["model=zephyr_7b", "data=wmdp", "eval=wmdp"]


@pytest.mark.whole
def test_the_joint_sweep_draws_every_topics_alpha_where_alphas_are_tuned():
    with hydra.initialize_config_dir(str(CONF), **config.version_base()):
        master = hydra.compose("config", overrides=["sweep=joint", *SETTING], return_hydra_config=True)
    keys = [key for key in master.hydra.sweeper.params if key.startswith("retain.alpha")]
    words = ["sweep=joint", f"method={master.hydra.sweeper.params.method}", *SETTING]
    for value in (1.5, 700.0):
        made = config.check(run.compose([*words, *(f"{key}={value}" for key in keys)], None))
        assert made.alpha == {"bio": value, "cyber": value}


@pytest.mark.whole
def test_po_alpha_gives_each_topic_its_own_alpha_where_alphas_are_tuned():
    fixed, found = cells_of("po_alpha", ["method=npo", "retain=kl", *SETTING])
    assert len(found) == 49
    made = config.check(run.compose([*fixed, "retain.alpha.bio=5", "retain.alpha.cyber=100"], None))
    assert ["retain.alpha.bio=5", "retain.alpha.cyber=100"] in found
    assert made.alpha == {"bio": 5.0, "cyber": 100.0}


@pytest.mark.whole
def test_a_model_of_ones_own_is_asked_for_its_depth(tmp_path):
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 6}')
    local = ["model=local", f"model.path={tmp_path}", "model.unlearn_layer=2"]
    assert len(cells("noise_per_layer", *local)) == 6


@pytest.mark.whole
def test_defences_are_compared_with_one_plain_training_to_one_target():
    """Every way of one method, and every method plain."""
    fixed, found = cells_of("defences", ["seed=10"])
    assert len(found) == 6 * 18
    few = [cell for cell in found if "experiment=defences/npo_mse" in cell or "protection=plain" in cell]
    made = {tuple(cell[:2]): config.check(run.compose([*fixed, *cell], None)) for cell in few}
    mine = {way.removeprefix("protection="): one for (method, way), one in made.items() if "npo_mse" in method}
    plain = mine["plain"]
    assert {name for name, one in mine.items() if not one.protected} == {"plain", "heavier"}
    assert {name: 4 * weight for name, weight in plain.alpha.items()} == mine["heavier"].alpha
    assert all(one.train == plain.train for one in mine.values())  # the target, the cap and the learning rate
    assert {(one.train.steps, str(one.train.until)) for one in made.values()} == {(900, str(plain.train.until))}
    assert {name: 2 * weight for name, weight in plain.alpha.items()} == mine["harmful_heavier"].alpha
    assert all(one.eval == plain.eval for one in made.values())
    assert plain.train.until == {"interim/forget/acc": {"at": 0.35, "direction": "fall", "patience": 1}}
    assert mine["splice_held_out"].defence.exclude == [plain.eval.keyword]


@pytest.mark.whole
def test_the_study_on_zephyr_is_planned_with_every_cell_composed_and_checked(tmp_path, monkeypatch, capsys):
    words = [
        f"model.path={stand_in(tmp_path / 'model', 'Mistral')}",
        *("model.num_layers=4", "model.unlearn_layer=2", "layer.unlearn=2"),
        *local_files(tmp_path / "files"),
    ]
    monkeypatch.chdir(tmp_path)
    rows = [
        {"document": 0, "n": 2, "group": group, "rank": 0, "ngram": f"marsh {group}", "score": 0.5}
        for group in mined.GROUPS
    ]
    with mined.parquet(tmp_path / "outputs" / "ngrams.parquet", {}) as write:
        write(rows)
    main(["plan", "zephyr", *words])
    assert "zephyr: 324 cells, 0 done, 324 left" in capsys.readouterr().out
    _, found = cells_of("zephyr", [])
    by_training = {tuple(word for word in cell if word != "eval=ngram_similarity") for cell in found}
    assert len(by_training) == 270
