"""`python -m rna.sweep`: all of its commands on a sweep made by hand, and a real one on the demo."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rna.intervals import quantiles
from rna.sweep import ledger, plan, status
from rna.sweep.ledger import Trial

SCORES = {0.0: 0.2, 0.01: 0.3, 0.02: 0.5, 0.03: 0.6}  # ν -> forget accuracy


def made(output_dir: Path) -> Path:
    """Twelve trials that are done, one that failed, one in work."""
    folder, number = output_dir / "sweeps" / "grid", 0
    (output_dir / "results").mkdir(parents=True)
    for nu, forget in SCORES.items():
        for seed in range(3):
            key = f"key{number}"
            metrics = {"eval/perturbed/acc": 0.1 * seed, "eval/forget/acc": forget, "seconds": 36.0}
            where = {"output_dir": str(output_dir), "key": key, "evals": {"a": f"{key}-a"}, "group": str(nu)}
            trial = Trial(number, [f"noise.nu={nu}", f"seed={seed}"], status=ledger.DONE, seconds=40.0)
            trial.address, trial.metrics = where, metrics
            ledger.save(folder, trial)
            for name in (key, f"{key}-a"):
                (output_dir / "results" / f"{name}.json").write_text("{}")
            number += 1
    failed = Trial(12, ["noise.nu=9", "seed=0"], status=ledger.FAILED, attempts=3, reason="not finite", message="nan")
    failed.log = "logs/12/trial.log"
    failed.address = {"output_dir": str(output_dir), "key": "key12", "evals": {}}
    ledger.save(folder, failed)
    ledger.save(folder, Trial(13, ["noise.nu=9", "seed=1"], status=ledger.RUNNING, token="t"))
    told = {"phase": "training", "done": 5, "total": 20, "time": time.time() - 100, "host": "h", "pid": 1}
    ledger.write_json(folder / "beats" / "13-t.json", told)
    spec = {"n_trials": 15, "objectives": {"eval/perturbed/acc": "maximize"}, "constraints": []}
    ledger.write_json(folder / "sweep.json", spec)
    return folder


def called(output_dir: Path, *arguments: str, code: int = 0) -> str:
    words = [sys.executable, "-m", "rna.sweep", *arguments, "--output-dir", str(output_dir)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_a_metric_sorts_and_a_misspelt_one_names_the_nearest(tmp_path: Path):
    made(tmp_path)
    found = json.loads(called(tmp_path, "leaderboard", "grid", "--sort", "eval/forget/acc", "--json"))
    assert [row["title"] for row in found["rows"]] == [f"noise.nu={nu}" for nu in SCORES]
    assert found["direction"] == "minimize"
    misspelt = called(tmp_path, "leaderboard", "grid", "--sort", "eval/forgt/acc", code=2)
    assert "did you mean 'eval/forget/acc'?" in misspelt


def test_quantiles_are_students():
    # A printed table's two-sided 95 % quantiles; 1.96 with as many degrees as you like.
    printed = {1: 12.706, 2: 4.303, 3: 3.182, 9: 2.262, 30: 2.042, 60: 2.000, 120: 1.980, 10**6: 1.960}
    assert {degrees: quantiles.t_95(degrees) for degrees in printed} == pytest.approx(printed, abs=5e-4)
    assert quantiles.t_95(10**8) == pytest.approx(quantiles.Z_95, abs=1e-6)


def test_status_tells_what_runs_what_failed_and_believes_the_records(tmp_path: Path):
    folder = made(tmp_path)
    printed = called(tmp_path, "status", "grid")
    assert "grid: 12/15 done, 1 failed, 1 running, 1 queued; no sweeper is at work" in printed
    assert "#13 noise.nu=9 seed=1: training 5/20 on h, silent for 10" in printed
    assert "#12 noise.nu=9 seed=0 failed: not finite: nan; logs/12/trial.log" in printed
    (tmp_path / "results" / "key3-a.json").unlink()
    assert status.status(folder)["done"] == 11
    with ledger.held(folder):
        assert json.loads(called(tmp_path, "status", "grid", "--json"))["sweeper"]


def test_plan_measures_what_is_left(tmp_path: Path):
    found = plan.plan(made(tmp_path).parent, "grid", [])
    assert (found["cells"], found["done"], found["left"]) == (15, 12, 3)
    assert found["hours"] == pytest.approx(3 * 36 / 3600)


@pytest.mark.whole
def test_plan_composes_a_sweep_that_was_never_started(tmp_path: Path):
    folder = tmp_path / "r[/b], of 'nu'"
    printed = called(folder, "plan", "noise_scale", "noise.nu=0.01,0.02", "seed=0")
    assert "noise_scale: 2 cells, 0 done, 2 left\ntime: unknown" in printed
    assert not (folder / "sweeps").exists()
    assert "did you mean 'noise_scale'?" in called(folder, "plan", "noise_scal", code=2)


@pytest.mark.whole
def test_retry_queues_failed_trials_and_refuses_others(tmp_path: Path):
    folder = made(tmp_path)
    assert "3: neither failed nor pruned nor cancelled; failed: 12; pruned: none; cancelled: none" in called(
        tmp_path, "retry", "grid", "3", code=2
    )
    with ledger.held(folder):
        assert "works on it already" in called(tmp_path, "retry", "grid", code=2)
    assert called(tmp_path, "retry", "grid").startswith("1 trials queued again")
    again = ledger.trials(folder)[12]
    assert (again.status, again.attempts, again.reason) == (ledger.QUEUED, 0, None)
    again.status, again.curve, again.message = ledger.PRUNED, [(10, 0.5)], "pruned at step 10: train/loss=0.5"
    ledger.save(folder, again)
    assert called(tmp_path, "retry", "grid").startswith("no trial failed")
    assert called(tmp_path, "retry", "grid", "12").startswith("1 trials queued again")
    again = ledger.trials(folder)[12]
    assert (again.status, again.curve, again.message) == (ledger.QUEUED, [], None)


def test_checkpoints_of_trials_that_are_over_are_deleted_and_no_others(tmp_path: Path):
    made(tmp_path)
    for key in ("key1", "key12", "other"):
        (tmp_path / "trials" / key).mkdir(parents=True)
        (tmp_path / "trials" / key / "checkpoint.pt").write_bytes(b"0" * 2**20)
    (tmp_path / "trials" / "key1" / "unlearned.safetensors").write_bytes(b"1")
    assert called(tmp_path, "prune-checkpoints", "grid").startswith("2 checkpoints deleted, 2.0 MiB freed")
    left = sorted(str(file.relative_to(tmp_path / "trials")) for file in (tmp_path / "trials").rglob("*.*"))
    assert left == ["key1/unlearned.safetensors", "other/checkpoint.pt"]


def test_no_such_sweep_names_the_nearest(tmp_path: Path):
    made(tmp_path)
    assert "gridd: no such sweep in" in called(tmp_path, "status", "gridd", code=2)
    assert "did you mean 'grid'?" in called(tmp_path, "status", "gridd", code=2)


def test_the_commands_need_neither_torch_nor_optuna():
    probe = "import sys; from rna.sweep import commands; print(sorted({'torch', 'optuna', 'hydra'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def run(*arguments: str, code: int = 0) -> str:
    words = [sys.executable, "-m", "rna.run", "-m", *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.whole
def test_a_sweep_of_the_demo_ends_in_the_leaderboard_and_computes_nothing_twice(tmp_path: Path):
    short = ("train.steps=2", "eval.limit=4", "wandb=disabled", "model.retrained=null", f"output_dir={tmp_path}")
    pool = ("hydra.launcher.processes=1", "noise.nu=0,0.02", "seed=0")
    printed = run("sweep=noise_scale", *short, *pool)
    assert "noise_scale: 2 done, 0 failed" in printed
    assert "noise.nu=0.02" in printed
    records: dict[str, Any] = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "results").iterdir()}
    again = run("sweep=noise_scale", *short, *pool)
    assert "2 of 2 trials are done already" in again
    assert records == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "results").iterdir()}
    log = tmp_path / "sweeps" / "noise_scale" / "logs" / "0" / "trial.log"
    assert "training" in log.read_text()


@pytest.mark.whole
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("method=npoo", "seed=0,1"), "method=npoo: unknown option; did you mean 'npo'?"),
        (("noise.nuu=0.1", "seed=0,1"), "noise.nuu=0.1: unknown key in noise; did you mean 'nu'?"),
        (("noise.nu=-1,-2",), "must be a finite number ≥ 0"),
        (
            ("noise.nu=0.01,0.02", "hydra.sweeper.objectives={eval/perturbd/acc: maximize}"),
            "did you mean 'eval/perturbed/acc'?",
        ),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str):
    printed = run(*arguments, f"output_dir={tmp_path}", code=2)
    assert said in printed
    assert len(printed.splitlines()) == 1
