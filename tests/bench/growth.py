"""Whether a warm worker grows: `python tests/bench/growth.py [TRIALS]`.

The demo app as a user sweeps it, in one worker, with one training step and two questions a task, a seed for each trial.
Prints what the worker has in memory after so many trials: the least seen while the next one begins, in MiB.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "launchers")]

from rna.sweep import ledger
from tests.bench.pool import SHORT

SHOWN = (1, 2, 5, 10, 20, 50, 100, 150, 200)


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seen: dict[int, int] = {}  # trials done -> MiB
    with tempfile.TemporaryDirectory() as folder:
        pool = ("hydra/launcher=gpu_pool", "hydra.launcher.processes=1", "hydra.launcher.gpus=0")
        study = (f"output_dir={folder}", "hydra.sweeper.study_name=bench")
        seeds = ",".join(map(str, range(trials)))
        command = [sys.executable, "-m", "rna.run", "-m", f"seed={seeds}", *pool, *study, *SHORT]
        running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while running.poll() is None:
            time.sleep(0.2)
            resident = _of_the_worker(Path(folder) / "sweeps" / "bench")
            done = sum(trial.status == ledger.DONE for trial in ledger.trials(Path(folder) / "sweeps" / "bench"))
            if resident and done:
                seen[done] = min(seen.get(done, resident), resident)
                print(f"\r{done} done, {resident // 1024} MiB", end="", file=sys.stderr, flush=True)
        assert running.returncode == 0
        found = ledger.trials(Path(folder) / "sweeps" / "bench")
    assert {trial.status for trial in found} == {"done"}
    for count in SHOWN:
        if count in seen:
            print(f"after {count:3d} trials {seen[count] / 1024:7.1f} MiB")


def _of_the_worker(folder: Path) -> int | None:
    """KiB in memory of the process that gave the last sign of life."""
    beats = sorted((folder / "beats").glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    told = ledger.read_json(beats[0]) if beats else None
    try:
        lines = Path(f"/proc/{told['pid']}/status").read_text().splitlines() if told else []
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), None)


if __name__ == "__main__":
    main()
