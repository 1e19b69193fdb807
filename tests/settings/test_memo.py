"""What is composed from a copy is what Hydra composes, and what Hydra refuses is refused in Hydra's words."""

import os
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from rna.settings import CONF, Memo, composing, config

WORDS = [
    [],
    ["method=npo", "noise.nu=0.014", "seed=3"],
    ["seed=3", "method=npo", "noise.nu=0.014"],
    ["noise.nu=0.5", "noise=late", "noise.nu=0.25"],
    ["method=rmu", "retain.alpha.default=4", "+retain.alpha.bio=8", "~eval.tasks.neutral"],
    ["method=npo", "eval=wmdp", "model=zephyr_7b", "eval.limit=3"],
    ["++train.extra={a: 1}", "wandb=disabled", "+new=1", "train.steps=7"],
    ["eval.keyword='a, b'", "output_dir=${model.name}/x", "variant=official", "layer.unlearn=${noise.nu}"],
    ["+data.topics.only={forget: x, retain: y}", "wandb={mode: online}", "~eval.keyword"],
]
REFUSED = [
    "train.stepz=3",
    "stepz=3",
    "method=npoo",
    "+train.steps=3",
    "~eval.tasks.none",
    "train.steps.x=1",
    "seed=1,2",
]


@pytest.fixture
def asked():
    """What Hydra was asked to compose."""
    return []


@pytest.fixture
def memo(asked):
    def whole(words):
        asked.append(words)
        return hydra.compose("config", words)

    config.register_resolvers()
    with hydra.initialize_config_dir(str(CONF), **config.version_base()):
        yield Memo(hydra.core.global_hydra.GlobalHydra.instance().config_loader(), whole)


def plain(made):
    return OmegaConf.to_yaml(made)  # with the order of keys


@pytest.mark.whole
def test_what_is_composed_is_what_hydra_composes(memo, asked):
    for words in [*WORDS, *WORDS]:
        found = memo.compose(words)
        assert plain(found) == plain(hydra.compose("config", words))
        assert OmegaConf.is_struct(found)
    assert len(asked) == len(memo.made) < len(WORDS)  # once for each set of choices; values alone make none


@pytest.mark.whole
@pytest.mark.parametrize("word", REFUSED)
def test_what_hydra_refuses_is_refused_in_its_words(memo, word):
    said = []
    for compose in (memo.compose, lambda words: hydra.compose("config", words)):
        with pytest.raises(hydra.errors.HydraException) as refused:
            compose(["method=npo", word, "noise.nu=0.1"])
        said.append((type(refused.value), str(refused.value)))
    assert said[0] == said[1]


def test_a_changed_option_is_read_again(tmp_path: Path):
    option = tmp_path / "train" / "mine.yaml"
    option.parent.mkdir()
    for norm in (11, 12):
        option.write_text(f"defaults: [default]\nmax_grad_norm: {norm}\n")
        os.utime(option, (norm, norm))
        assert composing.compose(["train=mine"], str(tmp_path)).train.max_grad_norm == norm


def test_no_copy_is_another_ones(memo):
    first = memo.compose(["train.steps=3"])
    first.train.steps = 4
    assert memo.compose([]).train.steps not in (3, 4)
