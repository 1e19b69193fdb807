"""The page of help, and what is said of a group or a key."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from rna.cli import help, tree


def test_the_page_is_short_and_says_something_of_all_it_names():
    lines = help.overview().splitlines()
    assert len(lines) <= 100
    assert max(map(len, lines)) <= help.WIDTH
    for group in help.TOLD:
        for one in tree.options(group):
            assert any(line.startswith((f"  {one.name} ", f"  {one.name} *")) and one.said in line for line in lines)
    for group, said in tree.groups().items():
        assert len(tree.options(group)) == 1 or any(
            line.startswith(f"{group}  {said.split('; ')[0]}") for line in lines
        )


def test_the_thirty_commonest_keys_exist_and_are_described():
    assert len(set(help.COMMON)) == 30
    page = help.overview().splitlines()
    for name in help.COMMON:
        (line,) = [line for line in page if line.startswith(f"{name}=")]
        assert line.partition("  ")[2].strip()


@pytest.mark.parametrize("group", tree.groups())
def test_a_group_is_told_with_all_its_options(group: str):
    told = help.about(group)
    for one in tree.options(group):
        assert f"  {one.name}" in told
    for line in told.splitlines():
        assert len(line) <= help.WIDTH + 4 or "=" in line.split("  ")[-1]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("noise", "noise.samples=16"),
        ("noise=inference", "noise.samples=16"),
        ("train.lr", "train.lr=5e-5  AdamW's learning rate, constant"),
        ("train.lr=1e-4", "train.lr=5e-5  AdamW's learning rate, constant"),
        ("method.coefficient", "method.coefficient=6.5"),
        ("cache", "cache.max_gib=10"),
        ("hydra/launcher", "hydra.launcher.mem_gb=null"),
        ("hydra/sweeper", "hydra.sweeper.sampler=null"),
    ],
)
def test_a_word_is_told(word: str, said: str):
    assert said in help.about(word)


def test_an_option_is_told_in_each_group_that_has_it():
    told = help.about("adversarial")
    assert [line for line in told.splitlines() if line[:1].strip()] == [
        line for group in ("defence", "protection") for line in help.about(group).splitlines()[:1]
    ]
    assert "defence.windows=" in told


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("nop", "did you mean 'npo'?"),
        ("methd", "--help methd: no such group, option or key; did you mean 'method'?"),
        ("train.stepz", "did you mean 'train.steps'?"),
        ("method=nop", "--help method=nop: no such option; did you mean 'npo'?"),
    ],
)
def test_an_unknown_word_is_one_line_with_the_nearest(word: str, said: str):
    with pytest.raises(ValueError, match=r"^--help") as refused:
        help.about(word)
    assert said in str(refused.value)


def test_rna_run_tells_it(rna_here: Callable[..., str]):
    assert rna_here("--help") == help.overview() + "\n"
    assert rna_here("-m", "--help", "noise") == help.about("noise") + "\n"
    assert "did you mean 'noise'" in rna_here("--help", "nois", code=2)


@pytest.mark.whole
def test_the_composed_tree_is_shown_by_hydra():
    command = [sys.executable, "-m", "rna.run", "method=rmu", "--cfg", "job"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "coefficient: 6.5" in done.stdout
