"""Seconds and memory that a report takes on generated records.

python tests/bench/report.py [TRIALS]
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests import generated


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        alphas, nus = (0.5, 1.0, 2.0), (0.01, 0.014, 0.02)
        seeds = max(1, round(trials / (9 * len(alphas) * (1 + len(nus)))))
        made = generated.world(Path(folder), seeds=seeds, alphas=alphas, nus=nus, curve=250)
        files = len(list((Path(folder) / "results").iterdir()))
        started = time.perf_counter()
        command = [sys.executable, "-m", "rna.report", "--output-dir", folder]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        page = (Path(folder) / "reports" / "all" / "index.html").stat().st_size
        print(
            f"{made} trials in {files} records: {seconds:.1f} s ({usage.ru_utime + usage.ru_stime:.1f} s of CPU), "
            f"{usage.ru_maxrss / 2**20:.2f} GiB, page {page / 2**20:.1f} MiB"
        )


if __name__ == "__main__":
    main()
