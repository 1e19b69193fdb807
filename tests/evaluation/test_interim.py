"""Evaluations on the way: they tell the course of an accuracy, and change no bit of what is trained."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from rna import run, show, trial
from rna.decoder import model
from rna.settings import Until, config, hydra_text, told, until_of
from rna.store import lookup, results

SHORT = ("noise=none", "train.steps=6", "train.lr=1e-3", "wandb=disabled", "eval.limit=4", "eval.interim_limit=2")
EVERY = ("eval.interim_every=2",)
TEXTS = ("eval=perplexity", "data.holdout=0.1")


def trained(folder: Path, *more: str) -> tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, Any]]:
    short = [word for word in SHORT if word != "eval.limit=4" or "eval=perplexity" not in more]
    made = config.check(run.compose([f"output_dir={folder}", *short, *more], None))
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
    of = ("forget", "retain", "perturbed", "neutral", "related")
    roles = {f"interim/{role}/{what}" for role in of for what in ("acc", "log_prob")}
    found = [{name for name in report if name.startswith("interim/")} for report in watched["curve"]]
    assert found == [set(), roles, set(), roles, set(), set()]  # the last step has the whole evaluation
    assert set(where["interim"]) == roles <= set(lookup.curves(where))
    few, _, where = trained(tmp_path / "few", "eval.interim_every=2", "eval.interim_roles=[retain]")
    names = ["interim/retain/acc", "interim/retain/log_prob"]
    assert where["interim"] == names
    for report, all_told in zip(few["curve"], watched["curve"], strict=True):
        told = {name: value for name, value in report.items() if name.startswith("interim/")}
        assert told == pytest.approx({name: all_told[name] for name in names if name in all_told}, rel=1e-5)
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
        (["eval.interim_roles=[retained]"], "eval.interim_roles=retained: did you mean 'retain'"),
        (["eval.interim_roles=[]"], "eval.interim_roles=: allowed: forget, retain"),
        ([*EVERY, "eval.interim_roles=[retain]", "train.until={eval/forget/acc: 0.3}"], "did you mean 'interim/retain"),
        (["eval.interim_every=5", "train_only=true"], "has no meaning with train_only=True"),
        (["train.until={eval/forget/acc: 0.3}"], "evaluations on the way; give eval.interim_every=STEPS"),
        ([*EVERY, "train.until={eval/forgot/acc: 0.3}"], "did you mean 'interim/forget/acc'"),
        ([*EVERY, "train.until={eval/forget/acc: 35}"], "at=35: an accuracy is in"),
        ([*EVERY, "train.until={eval/forget/acc: x}"], "at=x must be a finite number"),
        ([*EVERY, "train.until={eval/retain/acc: 0.3}"], "direction=None: must be said; allowed: fall, rise"),
        ([*EVERY, "train.until={eval/forget/acc: {at: 0.3, patience: 0}}"], "patience=0 must be a whole number"),
        ([*EVERY, "train.until={eval/forget/acc: {at: 0.3, patient: 2}}"], "patient is unknown; allowed: at, dir"),
        ([*EVERY, "train.until={eval/retain/nll: 3}"], "did you mean 'interim/retain/acc'"),
        ([*EVERY, *TEXTS, "train.until={eval/forgot_bio/nll: 3}"], "did you mean 'interim/forget_"),
        ([*EVERY, *TEXTS, "eval.interim_roles=[]"], "eval.interim_roles=: allowed: "),
        ([*EVERY, "train.until=0.3"], "must be one metric with its target"),
        ([*EVERY, "method=none", "train.until={eval/forget/acc: 0.3}"], "has no meaning with method=none"),
    ],
)
def test_what_has_no_meaning_is_refused(overrides: list[str], said: str):
    with pytest.raises(ValueError, match=said):
        config.check(run.compose(overrides, None))


@pytest.mark.whole
def test_where_a_training_stopped_is_said_of_it_alone(tmp_path: Path):
    words = [*SHORT, *EVERY, f"output_dir={tmp_path}", "model.retrained=null"]
    for at, said in (
        ("0", "plain: stopped at step 2, where interim/forget/log_prob was -"),
        ("-99", "plain: interim/forget/log_prob did not get ≤ -99 within 6 steps, it was -"),
    ):
        rows = trial.arms(config.check(run.compose([*words, f"train.until={{eval/forget/log_prob: {at}}}"], None)))
        for row in rows:
            trial.work(row, lambda *_: None)
        assert [row.label for row in rows] == ["base", "plain"]
        (line,) = show.stops(rows)
        assert line.startswith(said)


@pytest.mark.whole
def test_a_training_stops_where_its_target_is_reached_and_resumes_to_the_bit(tmp_path: Path, monkeypatch: Any):
    watched, _, _ = trained(tmp_path / "watched", *EVERY)
    there = watched["curve"][3]["interim/forget/log_prob"]
    assert there < watched["curve"][1]["interim/forget/log_prob"]
    _, four, _ = trained(tmp_path / "four", "train.steps=4")
    until = f"train.until={{eval/forget/log_prob: {there!r}}}"
    stopped, tensors, _ = trained(tmp_path / "stopped", *EVERY, until)
    assert stopped["until"] == {
        "metric": "interim/forget/log_prob",
        "at": there,
        "reached": True,
        "step": 4,
        "value": there,
    }
    assert len(stopped["curve"]) == 4
    assert all(torch.equal(tensors[name], four[name]) for name in four)

    never, _, _ = trained(tmp_path / "never", *EVERY, "train.until={eval/forget/log_prob: -99}")
    assert (never["until"]["reached"], never["until"]["step"], len(never["curve"])) == (False, 6, 6)
    assert never["until"]["value"] == never["curve"][5]["interim/forget/log_prob"]

    step_of, calls = torch.optim.AdamW.step, 0

    def dies(self: Any, *rest: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return step_of(self, *rest)

    monkeypatch.setattr(torch.optim.AdamW, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "again", *EVERY, until, "train.checkpoint_every=1")
    monkeypatch.setattr(torch.optim.AdamW, "step", step_of)
    resumed, same, _ = trained(tmp_path / "again", *EVERY, until, "train.checkpoint_every=1")
    assert (resumed["until"], resumed["key"]) == (stopped["until"], stopped["key"])
    assert all(torch.equal(same[name], four[name]) for name in four)


def test_what_fixes_the_stopping_step_is_part_of_the_key():
    def key(*more: str) -> str:
        return results.train_key(results.train_identity(config.check(run.compose([*SHORT, *EVERY, *more], None))))

    until = "train.until={eval/forget/acc: 0.35}"
    words = ([], ["eval.interim_limit=8"], ["eval.interim_every=3"], ["eval.limit=5"], ["eval.of_above=leave_out"])
    assert len({key(*more) for more in words}) == 1
    assert len({key(until, *more) for more in words} | {key()}) == len(words) + 1
    assert key(until) == key("train.until={interim/forget/acc: {at: 0.35, direction: fall, patience: 1}}")
    assert key(until) == key(until, "eval.tasks.related=null")


@pytest.mark.whole
def test_a_training_stops_at_the_forget_sets_log_loss(tmp_path: Path):
    losses = ("retain=mse", "train.lr=3e-5")  # with which six steps show that it rises
    rising = (*EVERY, *losses)
    watched, _, _ = trained(tmp_path / "watched", *rising)
    assert not any(name.endswith("/nll") for report in watched["curve"] for name in report)
    every, *_ = trained(tmp_path / "every", *rising, "train.until={eval/forget/nll: 99}")
    course = {step: report["interim/forget/nll"] for step, report in enumerate(every["curve"], 1) if step % 2 == 0}
    assert list(course) == [2, 4, 6]
    assert course[2] < course[4] < course[6]
    assert (every["until"]["reached"], every["until"]["value"]) == (False, course[6])
    stopped, tensors, where = trained(tmp_path / "stopped", *rising, f"train.until={{eval/forget/nll: {course[4]!r}}}")
    assert stopped["until"] == {
        "metric": "interim/forget/nll",
        "at": course[4],
        "reached": True,
        "step": 4,
        "value": course[4],
    }
    asked = [{name: report[name] for name in report if name.startswith("interim/")} for report in stopped["curve"]]
    assert {name: asked[1][name] for name in asked[1] if not name.endswith("/nll")} == {
        name: value for name, value in watched["curve"][1].items() if name.startswith("interim/")
    }
    assert lookup.curve(where, "interim/forget/nll") == [(2, course[2]), (4, course[4])]
    assert "interim/forget/nll" in lookup.curves(where)
    told = lookup.metrics(where)
    assert told is not None
    assert (told["train/reached"], told["train/stopped_at"]) == (1.0, 4)
    assert set(lookup.TARGET) <= set(lookup.names(where))
    _, four, _ = trained(tmp_path / "four", *losses, "train.steps=4")
    assert all(torch.equal(tensors[name], four[name]) for name in four)


def test_what_fixes_where_a_log_loss_stops_is_part_of_the_key_and_no_question():
    def key(*more: str) -> str:
        words = [*SHORT, *EVERY, "train.until={eval/forget/nll: 3.5}", *more]
        return results.train_key(results.train_identity(config.check(run.compose(words, None))))

    assert until_of(config.check(run.compose([*SHORT, *EVERY, "train.until={eval/forget/nll: 3.5}"], None))) == Until(
        "interim/forget/nll", 3.5, "rise", 1
    )
    alike = (["eval.limit=5"], ["eval.of_above=leave_out"], ["eval.tasks.forget_bio=null"])
    assert {key(*more) for more in alike} == {key()}
    apart = (["eval.interim_limit=8"], ["eval.interim_every=3"], ["data.holdout=0.1"])
    assert len({key(*more) for more in apart} | {key()}) == len(apart) + 1


def test_a_target_is_reached_when_it_stays_reached():
    until = Until("interim/forget/acc", 0.35, "fall", 2)
    course = [{"interim/forget/acc": value} if value else {} for value in (0.9, 0, 0.3, 0, 0.4, 0.35, 0, 0.2)]
    reached = [until.reached(course[: place + 1]) for place in range(len(course))]
    assert reached == [False] * 7 + [True]
    assert not Until("interim/forget/acc", 0.35, "fall", 1).reached([])
    assert Until("interim/forget_bio/nll", 4.0, "rise", 1).reached([{"interim/forget_bio/nll": 4.0}])


def test_a_reports_command_stops_where_its_trial_did():
    until = "train.until={eval/forget/log_prob: {at: -1.5, patience: 2}}"
    made = config.check(run.compose([*SHORT, *EVERY, until], None))
    losses = told(made)
    record = {"config": asdict(made), "losses": losses, "seed": 0, "key": "key"}
    assert until_of(config.recorded({**record, "rna": "0"})) == Until("interim/forget/log_prob", -1.5, "fall", 2)
    words = [f"train.until={hydra_text(made.train.until)}", *SHORT, *EVERY]
    assert words[0] == "train.until={interim/forget/log_prob: {at: -1.5, direction: fall, patience: 2}}"
    assert config.check(run.compose(words, None)).train.until == made.train.until


@pytest.mark.whole
def test_a_training_stops_alike_whatever_is_asked_of_it_afterwards(tmp_path: Path):
    losses = ("retain=mse", "train.lr=3e-5", *EVERY, "data.holdout=0.1", "eval.interim_roles=[]")
    until = "train.until={eval/forget/nll: 99}"
    texts, tensors, where = trained(tmp_path / "texts", *losses, until, *TEXTS)
    asked = [{name for name in report if name.startswith("interim/")} for report in texts["curve"]]
    assert asked == [set(), {"interim/forget/nll"}] * 3
    assert lookup.curves(where).count("interim/forget/nll") == 1
    choices, same, _ = trained(tmp_path / "choices", *losses, until)
    assert choices["key"] == texts["key"]
    assert [report.get("interim/forget/nll") for report in choices["curve"]] == [
        report.get("interim/forget/nll") for report in texts["curve"]
    ]
    assert all(torch.equal(tensors[name], same[name]) for name in same)
    assert texts["until"] == choices["until"]
