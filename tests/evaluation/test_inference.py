"""Noise at inference: one training with the plain trial, evaluations of its own, and a table against RNA."""

import json
from pathlib import Path

import pytest

from rna import run, show, trial
from rna.report import reading, records, tables
from rna.report.__main__ import report
from rna.report.records import Filters
from rna.settings import config
from rna.store import results
from tests import generated
from tests.generated import scores, settings


def arms(folder: Path, *words: str) -> list[trial.Arm]:
    common = ["train.steps=1", "eval.limit=8", "wandb=disabled", "noise=inference", "noise.samples=2", *words]
    rows = trial.arms(config.check(run.compose([*common, f"output_dir={folder}"], None)))
    return [row for row in rows if row.label != "retrained"]


@pytest.mark.whole
def test_a_smoothed_trial_is_the_plain_one_judged_anew(tmp_path: Path):
    """The smoothed arm comes first, and trains what the plain one then finds."""
    base, plain, smoothed = arms(tmp_path, "noise.nu=0.5")
    assert (base.label, plain.label, smoothed.label) == ("base", "plain", "smoothed")
    assert plain.key == smoothed.key
    trial.work(smoothed, lambda *_: None)
    trained = results.read(str(tmp_path), plain.key)
    assert trained is not None
    assert (trained["label"], trained["config"]["noise"]["name"]) == ("plain", "none")
    trial.work(plain, lambda *_: None)
    assert results.read(str(tmp_path), plain.key) == trained
    assert {row.label: len(row.evaluated) for row in (plain, smoothed)} == {"plain": 6, "smoothed": 6}
    assert smoothed.evaluated["retain"]["config"]["noise"]["samples"] == 2
    assert not [line for line in show.verdicts([plain, smoothed]) if "RNA" in line]
    loaded = reading.load(str(tmp_path))
    assert [one.arm for one in loaded.trials] == ["plain"]
    assert [(one.arm, one.nu, len(one.evaluations)) for one in loaded.smoothed] == [("smoothed", 0.5, 6)]


def test_the_base_can_be_smoothed_as_a_control(tmp_path: Path):
    base, smoothed = arms(tmp_path, "method=none")
    assert (base.key, smoothed.label) == (smoothed.key, "smoothed")
    assert set(base.tasks) == set(smoothed.tasks)
    assert all(base.tasks[name] != smoothed.tasks[name] for name in base.tasks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of NPO: plain 50, RNA 60, with noise at inference 57 on the perturbed task."""
    made = tmp_path_factory.mktemp("outputs")
    for seed in range(3):
        generated.trial(made, settings(nu=0.014, seed=seed), scores(30, 60 + seed))
        chosen = settings(seed=seed)
        key = generated.trial(made, chosen, scores(30, 50 + seed))
        trained = json.loads((made / "results" / f"{key}.json").read_text())
        smoothing = {"name": "inference", "nu": 0.05, "layers": [2], "samples": 16, "seed": 0}
        for task, score in scores(40, 57 + seed).items():
            judged = generated.evaluation(trained, task, score / 100)
            judged["task_identity"]["smoothing"] = smoothing
            judged["config"]["noise"] = {"name": "inference", "nu": 0.05, "layers": [2], "samples": 16, "scale": "std"}
            generated.write(made, judged)
    return made


@pytest.mark.slow
def test_the_report_holds_noise_at_inference_apart_and_compares_it_by_seed(folder: Path):
    loaded = reading.load(str(folder))
    (study,) = records.studies(loaded.trials)
    records.attach([study], loaded.smoothed)
    assert {trial.arm for trial in study.trials} == {"plain", "rna"}
    table = next(one for one in tables.every(study, []) if one.name == "inference_noise")
    (row,) = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert (row["method"], row["ν"], row["draws"], row["seeds"]) == ("NPO+MSE", "0.05", 16, 3)
    values = {column: row[column].value for column in table.columns if column.startswith("Δ")}  # pyright: ignore
    assert values == pytest.approx(
        {
            "Δ perturbed retain to plain": 7,
            "Δ retain to plain": 0,
            "Δ perturbed retain to RNA": -3,
            "Δ retain to RNA": 0,
        }
    )
    report([], Filters(), str(folder), "python -m rna.report")
    assert "Noise at inference against noise in training" in (folder / "reports" / "all" / "index.html").read_text()


def test_smoothed_trials_judged_otherwise_are_not_compared(folder: Path):
    loaded = reading.load(str(folder))
    (study,) = records.studies(loaded.trials)
    for one in loaded.smoothed:
        one.evaluations[0].identity["limit"] = 8
    records.attach([study], loaded.smoothed)
    assert study.smoothed == []
