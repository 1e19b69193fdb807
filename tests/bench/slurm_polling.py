"""What a sweeper with 1,000 jobs in flight asks of SLURM and of the file system: `python tests/bench/slurm_polling.py`.

On a SLURM of one node of its own (root, strace). The jobs are real and held, and a sweeper finds them again. It is
traced for a minute as it is, and for another with a squeue that calls them running, so that their signs of life and
curves are read too.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "launchers")]

from rna.sweep import ledger
from tests.launchers.running import ROOT, command, environment

COUNT, SECONDS = int(os.environ.get("COUNT", "1000")), 60
SLURM = ROOT / "tests" / "slurm"
SERVER = {"SLURM_TEST_ROOT": "/tmp/rna-test-slurm"}


def traced(pid: int, folder: Path) -> tuple[float, int]:
    """File opens a second of the sweeper's own process, and how often it asked squeue in that time."""
    log = folder / "strace.log"
    calls = ["-e", "trace=openat,open,execve,clone,fork,vfork", "-o", str(log)]
    tracer = subprocess.Popen(["strace", "-f", "-q", *calls, "-p", str(pid)])
    time.sleep(SECONDS)
    tracer.send_signal(signal.SIGINT)
    tracer.wait()
    threads = {path.name for path in Path(f"/proc/{pid}/task").iterdir()}
    lines = [line.split(None, 1) for line in log.read_text().splitlines()]
    opens = sum(1 for thread, said in lines if thread in threads and said.startswith("open"))
    asked = sum(1 for _, said in lines if said.startswith(f'execve("{folder}/bin/squeue"'))
    return opens / SECONDS, asked


def submitted(folder: Path) -> None:
    """Held jobs, and the ledger of a sweeper that has submitted them and is no more."""
    words = ["sbatch", "--parsable", "--hold", f"--array=0-{COUNT - 1}", "--output=/dev/null", "--wrap", "true"]
    job = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    for number in range(COUNT):
        trial = ledger.Trial(number, [f"+x={number}"], {"x": number}, ledger.RUNNING, f"{number:016x}", 1)
        trial.job = f"{job}_{number}"
        ledger.save(folder / "sweeps" / "toy", trial)


def main() -> None:
    started = subprocess.run([SLURM / "start-slurm.sh"], env=os.environ | SERVER, capture_output=True, text=True)
    os.environ["SLURM_CONF"] = str(re.search(r"SLURM_CONF=(\S+)", started.stdout)[1])  # type: ignore[index]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script, real = folder / "bin" / "squeue", subprocess.check_output(["which", "squeue"], text=True).strip()
        script.parent.mkdir()
        script.write_text(
            f'#!/bin/bash\nif [ -e {folder}/as-if ]; then "{real}" "$@" | sed "s/PENDING|.*/RUNNING|None/"\n'
            f'else exec "{real}" "$@"; fi\n'
        )
        script.chmod(0o755)
        words = [f"+folder={folder}", f"+x=range({COUNT})", "hydra/launcher=slurm", f"hydra.sweep.dir={folder}/logs"]
        words += ["hydra.sweeper.pruner=median"]
        (folder / "logs" / "slurm").mkdir(parents=True)
        submitted(folder)
        path = {"PATH": f"{script.parent}:{os.environ['PATH']}"}
        with (folder / "printed.log").open("w") as stream:
            running = subprocess.Popen(
                command(*words), cwd=folder, env=environment(**path), stdout=stream, stderr=stream
            )
        try:
            while "held" not in (folder / "printed.log").read_text():
                time.sleep(1)
            for state in ("held", "running"):
                if state == "running":
                    (folder / "as-if").touch()
                    time.sleep(40)  # until the next look at the queue
                opens, asked = traced(running.pid, folder)
                print(f"{COUNT} jobs {state}: {opens:.1f} file opens a second, {asked} squeue in {SECONDS} s")
        finally:
            print((folder / "printed.log").read_text()[-500:])
            running.send_signal(signal.SIGINT)
            running.wait()
            subprocess.run([SLURM / "stop-slurm.sh"], env=os.environ | SERVER, check=True)


if __name__ == "__main__":
    main()
