"""Strengths that follow from a model's scales, and the search for the weakest that forgets."""

import json
import math
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rna import run, suggest, trial
from rna.analyze import scales
from rna.corpora import data
from rna.corpora.cache import Cache
from rna.decoder import model
from rna.intervals import answers
from rna.settings import config
from rna.settings.fields import Settings

Suggest = Callable[..., str]


@pytest.fixture
def suggested(called: Suggest) -> Suggest:
    """`python -m rna.suggest`, called."""
    return partial(called, suggest.main)


def commands(printed: str) -> list[list[str]]:
    return [shlex.split(line)[3:] for line in printed.splitlines() if line.startswith("python -m rna.run ")]


def composed(*overrides: str) -> Settings:
    return config.check(run.compose(list(overrides), None))


@pytest.mark.whole
def test_both_families_are_suggested_with_a_reason_each(
    tmp_path: Path, suggested: Suggest, capfd: pytest.CaptureFixture[str]
):
    printed = suggested("train.batch_size=2", "--output-dir", str(tmp_path))
    said = printed + "".join(capfd.readouterr())
    assert said.count("data.retain: 1600 documents from 1 file") == 1  # what both methods read is told once
    rmu, npo = (composed(*words) for words in commands(printed))
    assert (rmu.method.name, npo.method.name, npo.retain_loss) == ("rmu", "npo", "kl")
    assert (rmu.train.batch_size, npo.output_dir) == (2, str(tmp_path))
    assert rmu.method.coefficient == 1.9  # 2.5 · 0.771, in two digits
    assert rmu.noise.nu == pytest.approx(0.026)  # 0.03/0.08 · 0.069
    for key in ("method.coefficient", "retain.alpha.default", "train.lr", "train.steps", "noise.nu"):
        assert re.search(rf"^  {re.escape(key)}=\S+ +\w", printed, re.MULTILINE), printed
    assert re.search(r"rmu: a step [\d.]+ s, [\d.]+ GiB \(measured\); an evaluation about \d+ s", printed)
    assert "data.retain: 1600 documents of 53 tokens on average, 69 at most (the first 256); 0 % cut" in printed
    assert "nobody tuned it" in printed


@pytest.mark.whole
def test_what_is_said_stays(tmp_path: Path, suggested: Suggest):
    words = ("method=adaptive_rmu", "train.lr=1e-4", "retain.alpha.bio=7", "noise=none")
    (command,) = commands(suggested(*words, "--output-dir", str(tmp_path)))
    found = [word.partition("=")[0] for word in command]
    assert sorted(found) == sorted(
        ["method", "train.lr", "retain.alpha.bio", "noise", "output_dir", "method.beta", "train.steps"]
    )


@pytest.mark.parametrize(
    ("said", "cells"),
    [
        (set(), [["method=rmu"], ["method=npo", "retain=kl"]]),
        ({"method"}, [[]]),
        ({"experiment"}, [[]]),
        ({"retain_loss"}, [["method=npo"]]),
    ],
)
def test_methods_that_are_suggested_for(said: set[str], cells: list[list[str]]):
    assert suggest._cells(said) == cells


@pytest.mark.parametrize(("scale", "nu"), [("std", 0.026), ("variance", 6.7e-4)])
def test_the_noise_scale_has_the_units_that_are_asked_for(scale: str, nu: float):
    """0.03/0.08 · 0.069 = 0.0259; its square is 6.7e-4."""
    measured = suggest.Scales({"bio": 0.77}, 0.78, 1.5, 0.069, 8e-4)
    made = suggest.chosen(
        composed("method=rmu", f"noise.scale={scale}"), measured, suggest.Cost(0.0, 0.0, 0.1, 1e-6, None)
    )
    assert [one.value for one in made if one.key == "noise.nu"] == [nu]


def test_own_text_is_judged_by_its_perplexity(tmp_path: Path, suggested: Suggest):
    for name in ("forget", "retain"):
        (tmp_path / f"{name}.txt").write_text(
            "\n".join("the marsh fevers are the marsh fevers of the marsh" for _ in range(40))
        )
    paths = (f"data.topics.text.path={tmp_path}/forget.txt", f"data.retain.path={tmp_path}/retain.txt")
    printed = suggested("method=rmu", "data=text", *paths, "--output-dir", str(tmp_path))
    assert composed(*commands(printed)[0]).eval.kind == "perplexity"


@pytest.mark.whole
@pytest.mark.parametrize("method", ["rmu", "rsv", "npo"])
def test_a_stream_four_times_as_large_gets_strengths_four_times_as_large(method: str, demo: Any):
    """Target, ν and learning rate are in the units of the stream and of what writes to it; α and steps are not."""
    settings = composed(f"method={method}", "retain.alpha.default=null")
    decoder, tokenizer = demo
    corpora = data.load(settings, tokenizer, Cache(None, 0))
    large = model.split(scales.rescaled(decoder, corpora.retain.documents[:4]))
    found = []
    for one in (decoder, large):
        measured = suggest.measured(settings, one, corpora, tokenizer.pad_token_id)
        cost = suggest.Cost(
            0.0, 0.0, suggest.moved(settings, one, corpora, tokenizer, measured), suggest.rate(measured), None
        )
        found.append({choice.key: choice.value for choice in suggest.chosen(settings, measured, cost)})
    for key, value in found[0].items():
        factor = 1 if key in ("retain.alpha.default", "train.steps") else 4
        assert found[1][key] == pytest.approx(factor * value, rel=0.05), key


def test_a_first_step_at_the_suggested_rate_moves_a_token_as_far_as_is_said(demo: Any):
    settings = composed("method=rmu")
    decoder, tokenizer = demo
    corpora = data.load(settings, tokenizer, Cache(None, 0))
    measured = suggest.measured(settings, decoder, corpora, tokenizer.pad_token_id)
    rate = suggest.rate(measured)
    move = suggest.moved(settings, decoder, corpora, tokenizer, measured)
    cost = suggest.Cost(0.0, 0.0, move, rate, None)
    (lr,) = [one.value for one in suggest.chosen(settings, measured, cost) if one.key == "train.lr"]
    stronger = replace(measured, weight_rms=measured.weight_rms * lr / rate)
    assert suggest.moved(settings, decoder, corpora, tokenizer, stronger) == pytest.approx(0.03, rel=0.1)


def test_a_rung_is_stronger_than_the_one_below():
    settings = composed("method=rmu")
    made = [suggest.Choice("method.coefficient", 1.9, ""), suggest.Choice("train.lr", 2e-5, "")]
    made.append(suggest.Choice("retain.alpha.default", 100.0, ""))
    assert [one.value for one in suggest.stronger(settings, made, 2)] == [4.3, 4.5e-5, 100.0]
    assert [one.value for one in suggest.stronger(composed("method=npo"), made[1:], 1)] == [3e-5, 45.0]


@pytest.mark.slow
def test_the_search_climbs_until_it_forgets_and_records_each_rung_once(
    tmp_path: Path, suggested: Suggest, monkeypatch: pytest.MonkeyPatch
):
    """RMU on the demo, of whose strengths c alone is raised: its accuracy settles at a third."""
    monkeypatch.setattr(answers, "NEAR_CHANCE", 20.0)
    monkeypatch.setattr(suggest, "RETAIN_DROP", 60.0)
    words = ("--search", "--rungs", "5", "method=rmu", "train.lr=2e-4", "train.steps=40", "retain.alpha.default=30")
    words += ("noise.nu=0.014", "eval.limit=24", "wandb=disabled", "--output-dir", str(tmp_path))
    printed = suggested(*words)
    rows = re.findall(r"│ (?:method.coefficient=([\d.]+))? +│ (plain|with RNA) +│ (\w+ ?\w+) +│", printed)
    rungs: dict[str, dict[str, str]] = {}  # c -> row -> verdict
    for coefficient, label, verdict in rows:
        rungs.setdefault(coefficient or list(rungs)[-1], {})[label] = verdict
    assert [float(coefficient) for coefficient in rungs] == [1.9, 2.8, 4.3, 6.4, 9.6][: len(rungs)]
    *below, last = rungs.values()
    assert last == {"plain": "forgotten", "with RNA": "forgotten"}
    for verdicts in below:
        assert len(verdicts) == 1 + (verdicts["plain"] == "forgotten")
        assert set(verdicts.values()) & {"partly forgotten", "not forgotten"}
    records = [json.loads(file.read_text()) for file in (tmp_path / "results").glob("*.json")]
    keys = [one["key"] for one in records if one["kind"] == "train" and one["config"]["method"]["name"] == "rmu"]
    assert len(keys) == len(rows)
    assert all(key in printed for key in keys)
    (command,) = commands(printed)
    assert {f"method.coefficient={list(rungs)[-1]}", "train.lr=2e-4", "noise.nu=0.014"} <= set(command)
    arms = {arm.label: arm.complete for arm in trial.arms(composed(*command))}
    assert arms == {"base": True, "plain": True, "with RNA": True, "retrained": False}
    again = suggested(*words)
    assert "training" not in again
    assert again[again.index("┏") :] == printed[printed.index("┏") :]


@pytest.mark.whole
def test_the_search_needs_something_to_raise_and_to_judge_by(tmp_path: Path, suggested: Suggest):
    common = ("--search", "method=npo", "retain=kl", "--output-dir", str(tmp_path))
    assert "nothing is left to raise" in suggested(*common, "train.lr=1e-5", "retain.alpha.default=1", code=2)
    assert "train_only=True" in suggested(*common, "train_only=true", code=2)
    assert "method=none" in suggested("method=none", "--output-dir", str(tmp_path), code=2)


def test_what_forgetting_may_cost():
    from rna.intervals import Estimate as change

    text = Settings()
    text.eval.kind = "perplexity"
    assert suggest._retain_cost(text, change(math.log(1.049)))[1]
    assert not suggest._retain_cost(text, change(math.log(1.051)))[1]
    assert suggest._retain_cost(Settings(), change(-4.9)) == (-4.9, True)
    assert not suggest._retain_cost(Settings(), change(-5.1))[1]
