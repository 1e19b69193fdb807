"""Addresses and metrics: what a sweep reads of the records."""

import math
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from rna import run
from rna.settings import config
from rna.store import lookup, results


def composed(tmp_path: Path, *overrides: str) -> Any:
    return run.compose([f"output_dir={tmp_path}", *overrides], None)


def write(where: dict[str, Any], **metrics: dict[str, Any]) -> None:
    results.write(
        where["output_dir"], where["key"], {"seconds": 3.0, "curve": [{"train/loss": 2.0}, {"train/loss": 1.0}]}
    )
    for name, key in where["evals"].items():
        found = metrics.get(name, {"acc": 0.5, "acc_stderr": 0.03, "n": 10})
        results.write(where["output_dir"], key, {"metrics": found, "seconds": 4.0})


def test_noise_at_inference_is_a_row_of_its_own_in_a_leaderboard(tmp_path: Path):
    noises = (["noise=none"], ["noise=inference"], ["noise=inference", "noise.nu=0.1"])
    plain, one, other = (lookup.address(composed(tmp_path, *words)) for words in noises)
    assert plain["key"] == one["key"] == other["key"]
    assert len({where["group"] for where in (plain, one, other)}) == 3
    assert not set(one["evals"].values()) & {*plain["evals"].values(), *other["evals"].values()}
    assert one["group"] == lookup.address(composed(tmp_path, "noise=inference", "seed=1"))["group"]


def test_metrics_are_flat_and_a_role_is_the_mean_of_its_tasks(tmp_path: Path):
    where = lookup.address(composed(tmp_path))
    assert lookup.metrics(where) is None
    halves = {"select": {"acc": 0.2, "acc_stderr": 0.3, "n": 5}, "report": {"acc": 0.4, "acc_stderr": 0.1, "n": 5}}
    write(
        where,
        forget_bio={"acc": 0.2, "acc_stderr": 0.03, "n": 10, **halves},
        forget_cyber={"acc": 0.4, "acc_stderr": 0.04, "n": 20, "select": halves["report"], "report": halves["select"]},
    )
    found = lookup.metrics(where)
    assert found is not None
    assert found["eval/forget_bio/select/acc"] == 0.2
    assert found["eval/forget/acc"] == pytest.approx(0.3)
    assert found["eval/forget/acc_stderr"] == pytest.approx(math.hypot(0.03, 0.04) / 2)
    assert found["eval/forget/n"] == 30
    assert found["eval/forget/report/acc"] == pytest.approx(0.3)
    assert (found["train/loss"], found["seconds"]) == (1.0, 7.0)
    assert set(lookup.objectives(where)) <= set(lookup.names(where)) & set(found)
    assert {"eval/forget/acc", "eval/perturbed/acc_stderr", "eval/forget_bio/n"} <= set(lookup.names(where))


def test_half_a_record_is_none_and_makes_room(tmp_path: Path):
    where = lookup.address(composed(tmp_path))
    write(where)
    path = results.path_of(str(tmp_path), where["evals"]["retain"])
    path.write_text(path.read_text()[:20])
    assert lookup.metrics(where) is None
    assert [path.exists(), path.with_suffix(".broken").exists()] == [False, True]
    results.write(str(tmp_path), where["evals"]["retain"], {"metrics": {"acc": 1.0, "acc_stderr": 0.0, "n": 3}})
    found = lookup.metrics(where)
    assert (found or {})["eval/retain/acc"] == 1.0


def test_seeds_share_a_group_and_nothing_else_does(tmp_path: Path):
    def group(*overrides: str) -> str:
        return lookup.address(composed(tmp_path, *overrides))["group"]

    assert group() == group("seed=3")
    assert len({group(), group("noise.nu=0.05"), group("noise=none"), group("method=rmu")}) == 4
    assert group("noise=none") == group("noise.nu=0")
    assert lookup.address(composed(tmp_path, "noise.nu=0.05"))["title"] == "npo-kl-nu0.05"


def test_a_rerun_is_no_trial_of_a_sweep(tmp_path: Path):
    with pytest.raises(ValueError, match=r"rerun=True: a sweep computes each trial once"):
        lookup.address(composed(tmp_path, "rerun=true"))


def test_the_fingerprint_follows_settings_and_the_files_they_name(tmp_path: Path):
    corpus = tmp_path / "forget.txt"
    corpus.write_text("one\ntwo\n")
    config.register_resolvers()

    def print_of(*overrides: str) -> str:
        text = ("data=text", f"data.topics.text.path={corpus}", f"data.retain.path={corpus}")
        return lookup.fingerprint(OmegaConf.to_container(composed(tmp_path, *text, *overrides)))

    first = print_of()
    assert first == print_of()
    assert first != print_of("train.steps=7")
    corpus.write_text("one\ntwo\nthree\n")
    assert first != print_of()
