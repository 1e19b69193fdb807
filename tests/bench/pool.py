"""What a trial costs in a pool beside training and evaluation: `python tests/bench/pool.py [TRIALS] [PROCESSES]`.

The demo app as a user sweeps it, with one training step and two questions a task: what is left is nearly all overhead
(composing, the base model from the worker's memory, data from the cache, records, W&B offline, ledger, study).
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "launchers")]

from rna.sweep import ledger

SHORT = ("train.steps=1", "eval.limit=2", "baseline=skip", "model.retrained=null")


def main() -> None:
    trials, processes = (int(word) for word in (*sys.argv[1:], *("30", "2")[len(sys.argv) - 1 :]))
    seeds = ",".join(map(str, range(trials)))
    with tempfile.TemporaryDirectory() as folder:
        pool = ("hydra/launcher=gpu_pool", f"hydra.launcher.processes={processes}", "hydra.launcher.gpus=0")
        study = (f"output_dir={folder}", "hydra.sweeper.study_name=bench")
        command = [sys.executable, "-m", "rna.run", "-m", f"seed={seeds}", *pool, *study, *SHORT]
        began = time.time()
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        wall = time.time() - began
        done = sorted(ledger.trials(Path(folder) / "sweeps" / "bench"), key=lambda trial: trial.ended or 0.0)
    assert len(done) == trials
    assert {trial.status for trial in done} == {"done"}
    took = {trial.number: trial.seconds or 0.0 for trial in done}
    first = [took[number] for number in range(processes)]  # with the worker's start and imports
    warm = [took[number] for number in range(processes, trials)]
    steady = (done[-1].ended or 0.0) - (done[processes - 1].ended or 0.0)  # from when every worker was warm
    print(f"{trials} trials, {processes} processes, whole command {wall:.1f} s")
    print(f"a worker's first trial     {max(first):5.2f} s at most")
    print(f"a trial in a warm worker   {statistics.median(warm):5.2f} s median, {max(warm):.2f} s at most")
    print(f"of it, its own computing   {_computing(done, processes):5.2f} s median")
    print(f"one place's time a trial   {steady * processes / len(warm):5.2f} s, with what passes between two trials")


def _computing(done: list[ledger.Trial], processes: int) -> float:
    return statistics.median(float(trial.metrics["seconds"]) for trial in done if trial.number >= processes)


if __name__ == "__main__":
    main()
