"""How long `python -m rna.sweep` takes on a sweep of 1,000 trials with their records: `python tests/bench/sweep.py`."""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "launchers")]

from rna.sweep import ledger

TASKS = {"forget_bio": "forget", "forget_cyber": "forget", "retain": "retain", "perturbed": "perturbed"}


def make(output_dir: Path, count: int) -> None:
    """A sweep of `count` trials, five seeds each, and its records with training curves of 500 steps."""
    draw = random.Random(0)
    folder = output_dir / "sweeps" / "bench"
    (output_dir / "results").mkdir(parents=True)
    curve = [{"train/loss": draw.random(), "train/forget_loss": draw.random(), "step": step} for step in range(500)]
    for number in range(count):
        key = f"{number:016x}"
        judged = {name: {"acc": draw.random(), "acc_stderr": 0.01, "n": 128} for name in TASKS}
        (output_dir / "results" / f"{key}.json").write_text(
            json.dumps({"kind": "train", "curve": curve, "seconds": 30})
        )
        for name, metrics in judged.items():
            (output_dir / "results" / f"{key}-{name}.json").write_text(json.dumps({"metrics": metrics}))
        flat = {f"eval/{name}/{metric}": value for name, found in judged.items() for metric, value in found.items()}
        flat["eval/forget/acc"] = (flat["eval/forget_bio/acc"] + flat["eval/forget_cyber/acc"]) / 2
        address = {"output_dir": str(output_dir), "key": key, "evals": {name: f"{key}-{name}" for name in TASKS}}
        address |= {"group": str(number // 5), "title": f"npo-mse-nu{number // 5}", "kind": "choice", "roles": TASKS}
        trial = ledger.Trial(
            number, [f"noise.nu={number // 5}", f"seed={number % 5}"], status=ledger.DONE, seconds=31.0
        )
        trial.address, trial.metrics, trial.ended = address, flat | {"seconds": 30.0}, time.time()
        path = ledger.trial_path(folder, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(trial.__dict__))
    spec = {"n_trials": count, "objectives": {"eval/perturbed/acc": "maximize"}, "constraints": [], "sampler": "grid"}
    ledger.write_json(folder / "sweep.json", spec)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), 1000)
        for command in ("plan", "status", "leaderboard", "retry", "prune-checkpoints"):
            words = [sys.executable, "-m", "rna.sweep", command, "bench", "--output-dir", folder, "--json"]
            started = time.perf_counter()
            subprocess.run(words, check=True, capture_output=True, cwd=Path(__file__).parents[2])
            print(f"{command:<18} {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
