"""What is read of `conf/` as text is what Hydra composes of it, and every option says what it is."""

import re
from pathlib import Path

import pytest

from rna.cli import tree
from rna.records.listing import flat
from rna.settings import CONF, compose
from tests.outside import brought

FILES = sorted(file for file in CONF.rglob("*.yaml") if file.parent != CONF)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONF)))
def test_an_option_begins_with_a_line_that_describes_it(file: Path):
    lines = [line for line in file.read_text().splitlines() if not re.match(r"# ?@package", line)]
    assert re.fullmatch(r"# .{9,}", lines[0])
    if file.parent.parent == CONF and file.parent.name != "tuned":
        assert lines[0].endswith((".", "`", "gated."))
        assert len(lines[0]) <= 100


def test_every_group_is_described():
    assert all(tree.groups().values())
    assert {"method", "retain", "noise", "sweep", "protection"} <= set(tree.groups())


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["method=rmu"],
        ["method=none"],
        ["data=wmdp", "model=zephyr_7b", "eval=wmdp_positions"],
        ["eval=ngram_similarity"],
        ["noise=early", "retain=kl", "layer=single", "optimizer=sam"],
        ["protection=splice", "eval=mmlu"],
        ["noise=rna", "defence=adversarial"],
        ["experiment=defences/rmu"],
        ["experiment=paper/npo_kl", "model=demo"],
    ],
    ids=" ".join,
)
def test_the_keys_are_those_that_hydra_composes(words: list[str]):
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(compose(words, None))
    assert isinstance(plain, dict)
    every = flat({str(name): value for name, value in plain.items()})
    whole = {name for name in every if not tree.HIDDEN.search(name) and not name.startswith("tuned")}
    assert {key.name for key in tree.composed(words)} - {"retain.alpha"} == whole - {"retain.alpha"}


def test_a_key_has_its_options_value_and_comment():
    found = {key.name: key for key in tree.composed(["noise=all_layers"])}
    assert (found["noise.nu"].value, found["noise.nu"].said) == ("1e-3", "adds up over the layers")
    assert found["noise.scale"].said == "variance: the letter of the paper"
    assert found["data.topics.bio.path"].said.startswith("what is to be forgotten")


def test_options_of_ones_own_are_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tree.outside, "FOLDERS", [brought(tmp_path / "mine") / "conf"])
    tree.options.cache_clear()
    try:
        assert "mine" in [one.name for one in tree.options("method")]
        assert "method.tau" in [key.name for key in tree.composed(["method=mine"])]
    finally:
        tree.options.cache_clear()


def test_the_keys_of_launchers_and_the_sweeper_are_read():
    assert "hydra.launcher.gpus" in [key.name for key in tree.of_launcher("gpu_pool")]
    assert "hydra.launcher.mem_gb" in [key.name for key in tree.of_launcher("slurm")]
    assert {"hydra.sweeper.sampler", "hydra.sweeper.n_trials"} <= {key.name for key in tree.of_sweeper()}
