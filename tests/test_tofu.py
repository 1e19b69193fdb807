"""TOFU from the command line to records, table, sweep and report, on a set and models made on the spot."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy.stats import ks_2samp

from rna.report.__main__ import main as report
from rna.sweep.__main__ import main as sweep
from tests import tofu_set

pytestmark = pytest.mark.whole


def test_a_trial_beside_a_retrained_model(tmp_path: Path, rna_here: Callable[..., str], called: Callable[..., str]):
    words = tofu_set.words(tmp_path)
    printed = rna_here(*words, "method=npo", "noise.nu=0.01")
    records = [json.loads(file.read_text()) for file in (tmp_path / "out" / "results").glob("*-*.json")]
    found = {record["label"]: record["metrics"] for record in records}
    assert set(found) == {"base", "plain", "with RNA", "retrained"}
    ratios = {label: metrics["questions"]["forget"]["truth_ratio"] for label, metrics in found.items()}
    p = [ks_2samp(ratios[label], ratios["retrained"]).pvalue for label in ("base", "plain", "with RNA")]
    line = re.search(r"forget quality ↑ +(\S+) +(\S+) +(\S+) +–", printed)
    assert line is not None
    assert [float(cell) for cell in line.groups()] == pytest.approx(p, rel=1e-2)
    assert "model utility ↑" in printed
    assert "Forget quality: p of a Kolmogorov-Smirnov test" in printed
    assert f"{found['plain']['forget/prob']:.3f} ± " in printed
    assert "forget_quality" not in json.dumps(records)
    assert all(one["task_identity"]["task"] == "rna_tofu" for one in records)
    assert "accuracy in %" not in printed
    again = rna_here(*words, "method=npo", "noise.nu=0.01")
    assert "evaluating" not in again
    assert line.group() in again
    folder = ("--output-dir", str(tmp_path / "out"))
    called(report, *folder)
    (table,) = (tmp_path / "out" / "reports" / "all" / "tables").glob("*tofu.md")
    assert f"{found['base']['retain/prob']:.3f}" in table.read_text()


def test_refusals_stand_behind_the_questions_and_no_model_is_retrained(tmp_path: Path, rna_here: Callable[..., str]):
    words = tofu_set.words(tmp_path, retrained=False)
    printed = rna_here(*words, "method=dpo", "noise=none", "eval.chat_template=true")
    assert "data.refusals: 100 documents" in printed
    assert "forget quality ↑" not in printed
    assert "No forget quality: it compares with a model retrained" in printed.replace("\n", " ")


def test_it_stands_beside_other_tasks(tmp_path: Path, rna_here: Callable[..., str]):
    words = [*tofu_set.words(tmp_path, retrained=False), "+eval.tasks.kept={task: rna_demo_retain, role: retain}"]
    printed = rna_here(*words, "method=none", "eval.limit=4")
    assert re.search(r"^retain ↑ +\d", printed.replace(" retain ↑", "retain ↑"), re.M)
    assert "world facts, truth ratio ↑" in printed


def test_a_sweep_is_after_forget_quality(tmp_path: Path, rna_here: Callable[..., str], called: Callable[..., str]):
    words = [*tofu_set.words(tmp_path), "method=npo", "noise=none", "hydra.sweeper.study_name=many"]
    rna_here("-m", *words, "seed=0,1", "eval.interim_every=2", "train.until={eval/forget/nll: 99}")
    shown = called(sweep, "leaderboard", "many", "--output-dir", str(tmp_path / "out"), "--json")
    (row,) = json.loads(shown[shown.index("{") :])["rows"]
    assert 0 < row["metrics"]["eval/tofu/forget_quality"]["value"] <= 1
