"""Evaluations on the way: they tell the course of an accuracy, and change no bit of what is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rna import run, trial
from rna.decoder import model
from rna.settings import config
from rna.store import lookup, results

SHORT = ("noise=none", "train.steps=6", "train.lr=1e-3", "wandb=disabled", "eval.limit=4", "eval.interim_limit=2")


def trained(folder: Path, *more: str) -> tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, Any]]:
    made = config.check(run.compose([f"output_dir={folder}", *SHORT, *more], None))
    row = next(row for row in trial.arms(made) if row.label == "plain")
    trial.work(row, lambda *_: None)
    assert row.trained is not None
    return row.trained, model.load_deltas(results.delta_path(str(folder), row.key)), lookup.address_of(made)


@pytest.mark.whole
def test_interim_evaluations_join_the_curve_and_change_no_bit(tmp_path: Path):
    plain, tensors, _ = trained(tmp_path / "without")
    watched, same, where = trained(tmp_path / "with", "eval.interim_every=2")
    assert watched["key"] == plain["key"]
    assert tensors.keys() == same.keys()
    assert all(torch.equal(tensors[name], same[name]) for name in tensors)
    roles = {f"interim/{role}/acc" for role in ("forget", "retain", "perturbed", "neutral", "related")}
    found = [{name for name in report if name.startswith("interim/")} for report in watched["curve"]]
    assert found == [set(), roles, set(), roles, set(), set()]  # the last step has the whole evaluation
    assert set(where["interim"]) == roles <= set(lookup.curves(where))
    course = lookup.curve(where, "interim/retain/acc")
    assert [step for step, _ in course] == [2, 4]
    assert all(0 <= value <= 1 for _, value in course)
    assert lookup.curve(where, "train/loss") == [
        (n, report["train/loss"]) for n, report in enumerate(plain["curve"], 1)
    ]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["eval.interim_every=0"], "eval.interim_every=0: must be a finite number > 0"),
        (["eval.interim_limit=1"], "eval.interim_limit=1: must be a whole number ≥ 2"),
        (["eval.interim_every=5", "train_only=true"], "has no meaning with train_only=True"),
    ],
)
def test_what_has_no_meaning_is_refused(overrides: list[str], said: str):
    with pytest.raises(ValueError, match=said):
        config.check(run.compose(overrides, None))
