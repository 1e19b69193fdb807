"""What `compare` shows beside a single trial."""

import pytest

from rna.settings import Settings, beside, check_sweep, compose, config

ASKED = "compare=['heavier train.steps=7', placebo]"


def found(*overrides: str) -> dict[str, Settings]:
    config.register_resolvers()
    return beside(config.check(compose([*overrides], None)), [*overrides], None)


def test_an_entry_sets_the_protection_anew_and_leaves_the_rest():
    made = found(ASKED, "noise.nu=0.3", "optimizer=sam", "method=rmu", "seed=3")
    assert list(made) == ["heavier", "placebo"]
    for one in made.values():
        assert (one.method.name, one.seed, one.noise.name, one.optimizer.name) == ("rmu", 3, "none", "adamw")
    assert made["placebo"].defence.name == "placebo"
    assert made["placebo"].alpha["bio"] * 4 == made["heavier"].alpha["bio"]


def test_what_is_asked_wins_over_the_command_line_which_wins_over_the_demos_own():
    assert found(ASKED, "train.steps=5")["heavier"].train.steps == 7
    (demos,) = found("method=rmu").values()
    assert demos.defence.name == "adversarial"
    assert demos.train.steps > 5
    (short,) = found("method=rmu", "train.steps=5").values()
    assert short.train.steps == 5


@pytest.mark.parametrize("word", ["noise=none", "baseline=skip", "train_only=true", "method=none", "variant=official"])
def test_nothing_stands_beside_a_trial_without_a_plain_twin_nor_the_demos_own_beside_released_code(word: str):
    assert found(word) == {}


def test_an_unknown_protection_and_a_sweep_are_refused():
    with pytest.raises(ValueError, match=r"compare=\[harmfull\]: no such protection; did you mean 'harmful'\?"):
        found("compare=[harmfull]")
    for entries in ("[plain]", "[soft, soft]"):
        with pytest.raises(ValueError, match="already; allowed: another, each once"):
            found(f"compare={entries}")
    with pytest.raises(ValueError, match="No closing quotation"):
        found("""compare=["soft 'a"]""")
    with pytest.raises(ValueError, match=r"compare=\[harmful\]: of one trial's table; in a sweep it is an axis"):
        check_sweep(["compare=[harmful]", "seed=0,1"], multirun=True)
