"""Start the toy app's sweep as a user does, and read what it left."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rna.sweep import ledger
from rna.sweep.ledger import Trial

ROOT = Path(__file__).parents[2]
PLUGINS = ("hydra/sweeper=rna_optuna", "hydra.sweeper.folder=sweeps", "hydra.sweeper.study_name=toy")
STORE = ("hydra.sweeper.store=tests.launchers.toy", "+store=true")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.launchers.toy", "-m", *PLUGINS, *arguments]


def environment(**more: str) -> dict[str, str]:
    path = [str(ROOT), str(ROOT / "launchers"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)} | more


def sweep(folder: Path, *arguments: str, code: int = 0, **more: str) -> str:
    """Run a sweep in a folder to its end, and return what it printed, errors first."""
    done = subprocess.run(
        command(f"+folder={folder}", *arguments),
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr + done.stdout


def start(folder: Path, *arguments: str) -> subprocess.Popen[Any]:
    """Start a sweep, and leave it."""
    with (folder / "printed.log").open("a") as stream:
        return subprocess.Popen(
            command(f"+folder={folder}", *arguments), cwd=folder, env=environment(), stdout=stream, stderr=stream
        )


def trials(folder: Path) -> list[Trial]:
    return ledger.trials(folder / "sweeps" / "toy")


def noted(folder: Path) -> list[list[str]]:
    file = folder / "computed.log"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def study(folder: Path, url: str | None = None) -> list[tuple[Any, ...]]:
    """The trials of the Optuna study: number, state, parameters and values."""
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    journal = str(folder / "sweeps" / "toy" / "journal.log")
    storage = url or JournalStorage(JournalFileBackend(journal))
    found = optuna.load_study(study_name="toy", storage=storage).get_trials()
    return [(trial.number, trial.state.name, trial.params, trial.values) for trial in found]
