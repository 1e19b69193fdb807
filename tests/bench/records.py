"""Seconds that each look at the records takes on generated trials.

python tests/bench/records.py [TRIALS]
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from rna.records import trials
from tests import generated


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        made = generated.world(Path(folder), seeds=max(1, round(count / 54)), nus=(0.014,), curve=250)
        files = list((Path(folder) / "results").iterdir())
        print(f"{made} trials in {len(files)} records, {sum(file.stat().st_size for file in files) / 2**20:.0f} MiB")
        first, second = (row["key"] for row in trials(folder, method="npo", seed=0, nu=0.014)[:2])
        timed(["list"], folder)
        timed(["list", "--json"], folder)
        timed(["list", "--method", "npo", "--seed", "0"], folder)
        timed(["compare", first, second], folder)
        timed(["delete", "--method", "npo"], folder)
        timed(["disk"], folder)


def timed(words: list[str], folder: str) -> None:
    """The least of three runs, as other work on the machine only adds to it."""
    walls: list[float] = []
    works: list[float] = []
    for _ in range(3):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-m", "rna.records", *words, "--output-dir", folder]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        walls.append(time.perf_counter() - started)
        works.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print(f"{' '.join(words)[:40]:<40} {min(walls):5.2f} s ({min(works):.2f} s of CPU)")


if __name__ == "__main__":
    main()
