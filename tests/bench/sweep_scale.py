"""What a sweep of 10,000 cells costs before its first trial, a draw from large spaces, and a trial in the journal.

python tests/bench/sweep_scale.py [CELLS]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "launchers")]

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra_plugins.rna_optuna_sweeper import _sampling, _study
from hydra_plugins.rna_optuna_sweeper import space as search_space
from hydra_plugins.rna_optuna_sweeper._storage import open_storage
from hydra_plugins.rna_optuna_sweeper._todo import Todo

from rna.sweep import ledger
from tests.launchers.running import STORE, command, environment

POOL = ("hydra/launcher=gpu_pool", "hydra.launcher.processes=1")


def parsed(*overrides: str) -> search_space.Space:
    return search_space.parse(OverridesParser.create().parse_overrides(list(overrides)))


def listed(count: int) -> str:
    return ",".join(map(str, range(count)))


def first_trial(folder: Path, words: list[str]) -> str:
    """How long a command takes to hand a trial to the launcher; then it is killed."""
    started = time.perf_counter()
    running = subprocess.Popen(
        words, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not any('"status": "running"' in file.read_text() for file in folder.rglob("trials/*.json")):
        assert running.poll() is None
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    worked = sum(map(int, Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    running.kill()
    running.wait()
    for file in folder.rglob("trials/*.json"):
        file.unlink()  # its number comes back from the list of cells
    return f"{seconds:.1f} s ({worked / os.sysconf('SC_CLK_TCK'):.1f} s of its CPU)"


def grid(cells: int) -> None:
    side = round(cells**0.5)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        words = command(f"+folder={folder}", *POOL, *STORE, f"+x={listed(side)}", f"+y={listed(side)}", "+sleep=600")
        print(f"toy app, {side * side} cells: first trial after {first_trial(folder, words)}", flush=True)
        where = folder / "sweeps" / "toy"
        spec: Any = ledger.read_json(where / "sweep.json")
        made = ledger.recorded(where)
        for trial in made:  # as if all had been composed
            known = next(one for one in made if one.address)
            trial.address, trial.composed_of = {"key": "k", "file": str(folder / "none")}, known.composed_of
        ledger.add_addresses(where, made)
        assert spec["n_trials"] == side * side
        print(f"toy app, all of them composed: first trial after {first_trial(folder, words)}", flush=True)
        started = time.perf_counter()
        ledger.trials(where)
        print(f"reading the ledger: {time.perf_counter() - started:.2f} s", flush=True)
    with tempfile.TemporaryDirectory() as place:
        words = [sys.executable, "-m", "rna.run", "-m", f"seed={listed(side)}", *POOL, "output_dir=out"]
        words += [f"train.steps={','.join(map(str, range(1, side + 1)))}"]
        print(f"rna.run, {side * side} cells: first trial after {first_trial(Path(place), words)}", flush=True)


def draws() -> None:
    spaces = {"1000 x 1000": ("a", "b"), "100^4": ("a", "b", "c", "d")}
    for title, keys in spaces.items():
        space = parsed(*(f"{key}={listed(1000 if len(keys) == 2 else 100)}" for key in keys))
        for sampler in ("random", "tpe"):
            todo = Todo([], space, sampler, 10**6)
            brain = _sampling.brain(sampler, 0, space, ["minimize"], [])
            started, count = time.perf_counter(), 50
            for number in range(count):
                trial = todo.draw(brain)
                assert trial is not None
                trial.status, trial.values = ledger.DONE, [float(number)]
                brain.learn(trial)
            print(f"{title}, {sampler}: {(time.perf_counter() - started) / count:.4f} s a draw", flush=True)


def journal() -> None:
    for kind in ("{}", "word_{}"):
        for values in (3, 100, 1000):
            space = parsed(f"a={','.join(kind.format(number) for number in range(values))}", f"b={listed(4)}")
            todo = Todo([], space, "grid", None)
            todo.add_cells(space)
            with tempfile.TemporaryDirectory() as place:
                folder, ended = Path(place), todo.ordered[:12]
                mirror = _study.mirror(open_storage(None, folder), folder, space, {"value": "minimize"}, todo.ordered)
                mirror.compare()
                for trial in ended:
                    trial.status = ledger.RUNNING
                    mirror.follow(trial)
                    trial.status, trial.values, trial.metrics = ledger.DONE, [1.0], {"value": 1.0}
                    mirror.follow(trial)
                size = (folder / "journal.log").stat().st_size / len(ended)
            print(f"journal, axis of {values} {json.dumps(kind.format(1))}: {size:.0f} bytes a trial", flush=True)


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    draws()
    journal()
    grid(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
