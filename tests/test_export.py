"""A trial's delta becomes a Hugging Face folder whose logits are the trial's, bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rna import export, run, trial
from rna.decoder import model
from rna.intervals import questions
from rna.settings import TASKS, config
from rna.store import results
from tests import tiny


def trained(folder: Path, *overrides: str) -> trial.Arm:
    common = ["train.steps=2", "wandb=disabled", "noise=none", f"output_dir={folder}"]
    row = trial.arm("plain", config.check(run.compose([*common, *overrides], None)))
    trial.work(row, lambda *_: None)
    return row


def logits_of(whole: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return whole(input_ids=ids).logits


@pytest.mark.whole
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_exported_model_gives_the_logits_of_the_trial(dtype: str, tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    row = trained(tmp_path / "out", "method=rmu", "train_only=true", f"model.dtype={dtype}")
    delta = model.load_deltas(results.delta_path(str(tmp_path / "out"), row.key))
    assert {tensor.dtype for tensor in delta.values()} == {getattr(torch, dtype)}
    export.export(row.key, tmp_path / "exported", str(tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exported", "out"]

    ids = tiny.batch(1).ids_BT
    decoder, tokenizer = model.load(row.settings.model.path, dtype=dtype, device="cpu", revision=None)
    base = logits_of(decoder.model, ids)
    with model.installed(decoder, delta):
        in_trial = logits_of(decoder.model, ids)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "exported", dtype="auto").eval()
    assert again.dtype == getattr(torch, dtype)
    assert torch.equal(logits_of(again, ids), in_trial)
    assert not torch.equal(base, in_trial)
    back = AutoTokenizer.from_pretrained(tmp_path / "exported")
    assert back("the marsh fevers")["input_ids"] == tokenizer("the marsh fevers")["input_ids"]


@pytest.mark.whole
def test_others_judge_an_exported_model_as_the_trial_did(tmp_path: Path):
    """lm-eval with its own model of plain transformers, as attack suites load a folder."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    row = trained(tmp_path / "out", "method=rmu", "eval.limit=16", "train.lr=1e-3")
    export.export(row.key, tmp_path / "exported", str(tmp_path / "out"))
    task = "rna_demo_forget_bio"
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata={"limit": 16})
    harness = HFLM(pretrained=str(tmp_path / "exported"), device="cpu", dtype="float32", batch_size=8)
    found: Any = evaluate(harness, manager.load([task]), bootstrap_iters=0)
    assert found["results"][task]["acc,none"] == pytest.approx(row.evaluated["forget_bio"]["metrics"]["acc"])


@pytest.mark.whole
def test_a_model_whose_layers_lie_elsewhere_is_exported(tmp_path: Path):
    from transformers import AutoModelForCausalLM

    chosen = tiny.nested(tmp_path / "base")
    row = trained(tmp_path / "out", *chosen, "method=rmu", "train_only=true", "model.attn_implementation=eager")
    export.export(row.key, tmp_path / "exported", str(tmp_path / "out"))
    delta = model.load_deltas(results.delta_path(str(tmp_path / "out"), row.key))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "exported").state_dict()
    assert all(name.startswith(tiny.LAYER_PATH) and torch.equal(again[name], delta[name]) for name in delta)
    assert delta


@pytest.mark.whole
def test_the_card_says_what_was_done_and_what_came_of_it(tmp_path: Path):
    row = trained(tmp_path, "method=npo", "retain=kl", "eval.limit=32", "retain.alpha.default=3")
    export.export(row.key[:6], tmp_path / "exported", str(tmp_path))
    card = (tmp_path / "exported" / "README.md").read_text(encoding="utf-8")
    metrics = row.evaluated["perturbed"]["metrics"]
    low, high = (100 * limit for limit in questions.wilson(metrics["acc"], metrics["n"]))
    commit = row.trained and row.trained["commit"]
    for said in (
        "| `method.name` | npo |",
        "| `retain_loss` | kl |",
        "| `retain.alpha.bio` | 3.0 |",
        f"| perturbed, accuracy in % | {100 * metrics['acc']:.1f} | {low:.1f} to {high:.1f} |",
        f"commit `{commit}`",
        "arXiv:2501.19202",
        row.key,
    ):
        assert said in card


@pytest.mark.whole
def test_what_cannot_be_exported_is_said_in_one_line(tmp_path: Path):
    row = trained(tmp_path, "method=rmu", "train_only=true")
    out = str(tmp_path)
    with pytest.raises(ValueError, match=f"KEY=nope: no trial of that key.*allowed: {row.key}"):
        export.export("nope", tmp_path / "x", out)
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").touch()
    with pytest.raises(ValueError, match=r"exists already.*nothing is overwritten"):
        export.export(row.key, full, out)
    with pytest.raises(ValueError, match="not the model this trial was trained on"):
        export.export(row.key, tmp_path / "x", out, row.settings.model.retrained)
    with pytest.raises(ValueError, match=r"--push me/it: not uploaded"):
        export.push(full, "me/it")
    assert sorted(path.name for path in full.iterdir()) == ["mine"]


@pytest.mark.slow
def test_the_command_line(tmp_path: Path):
    row = trained(tmp_path, "method=rmu", "train_only=true")
    command = [sys.executable, "-m", "rna.export", row.key, str(tmp_path / "a"), "--output-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert "MistralForCausalLM" in done.stderr
    assert json.loads((tmp_path / "a" / "config.json").read_text())["architectures"] == ["MistralForCausalLM"]
    twice = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (twice.returncode, twice.stderr.count("\n")) == (2, 1)
