"""What a user asks of a sweep while it is at work: `python -m rna.sweep cancel`, `pause` and `resume`.

Each wish is a file in the sweep's folder, `asked/stop`, `asked/cancel-N` or `asked/pause`. The sweeper looks for them
once a second, on whatever machine it is, and removes the first two when it has obeyed; a pause lasts until `resume`.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rna.sweep import cluster, ledger
from rna.sweep.ledger import Trial
from rna.sweep.records import current

STOP, PAUSE, CANCEL = "stop", "pause", "cancel-"
PATIENCE = 90.0  # seconds that a sweeper has to answer: its trials write checkpoints first
ADVICE = "give the sweep's command to go on"


def wish(folder: Path, name: str) -> Path:
    return folder / "asked" / name


def paused(folder: Path) -> bool:
    return wish(folder, PAUSE).exists()


def cancelled(folder: Path) -> list[int]:
    """The trials whose end was asked for."""
    files = (folder / "asked").glob(f"{CANCEL}*")
    return sorted(int(number) for file in files if (number := file.name.removeprefix(CANCEL)).isdigit())


# Cancel


def cancel(folder: Path, numbers: Sequence[int], patience: float = PATIENCE) -> dict[str, Any]:
    """End a sweep, whose trials then wait for its command, or end single trials, which then wait for `retry`.

    What is with a cluster is cancelled there, whether or not a sweeper is at work.

    Raises:
        ValueError: for a number that is no trial's, or one's that is over, and where there is nothing to end.
    """
    _check(folder, numbers)
    wishes = [wish(folder, f"{CANCEL}{number}") for number in numbers] or [wish(folder, STOP)]
    deadline = time.monotonic() + patience
    asked = False
    while time.monotonic() < deadline:
        if not ledger.at_work(folder):
            try:
                with ledger.held(folder):
                    for file in wishes:
                        file.unlink(missing_ok=True)
                    return _cancelled_here(folder, numbers, asked)
            except ledger.Busy:  # one has come this moment
                continue
        if not asked:
            for file in wishes:
                ledger.write_json(file, {"time": time.time()})
            asked = True
        if numbers and not any(file.exists() for file in wishes):
            return {"cancelled": list(numbers), "stopped": 0, "answered": True}
        time.sleep(0.2)
    return {"cancelled": list(numbers), "stopped": 0, "answered": False, "holder": ledger.holder(folder)}


def _check(folder: Path, numbers: Sequence[int]) -> None:
    trials = current(folder)
    open_ones = [trial.number for trial in trials if not trial.over]
    for number in numbers:
        if number not in open_ones:
            known = next((f"is {t.status} already" for t in trials if t.number == number), "is no trial's number")
            allowed = ", ".join(map(str, open_ones)) or "none, all are over"
            raise ValueError(f"{number}: {known}; allowed: {allowed}")
    if not numbers and not ledger.at_work(folder) and not _in_work(trials):
        raise ValueError(f"{folder.name}: no sweeper is at work and no trial is with a cluster; nothing to cancel")


def _in_work(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.status == ledger.RUNNING and trial.job]


def _cancelled_here(folder: Path, numbers: Sequence[int], asked: bool) -> dict[str, Any]:
    """Do it without a sweeper: the ledger is ours."""
    trials = [trial for trial in ledger.trials(folder) if not numbers or trial.number in numbers]
    with_cluster = _in_work(trials)
    jobs = [trial.job for trial in with_cluster if trial.job]
    cluster.check(jobs)
    for trial in [trial for trial in trials if not trial.over] if numbers else with_cluster:
        trial.job = trial.cluster = None
        if numbers:
            trial.cancel()
            trial.ended = time.time()
        else:
            trial.status, trial.token = ledger.QUEUED, ""
            trial.attempts -= 1
        ledger.save(folder, trial)
    cluster.cancel(jobs)
    return {"cancelled": list(numbers), "stopped": 0 if numbers else len(jobs), "answered": True, "sweeper": asked}


def cancel_lines(found: dict[str, Any]) -> list[str]:
    numbers = ", ".join(f"#{number}" for number in found["cancelled"])
    if not found["answered"]:
        return [f"{found['holder']} was asked and has not answered yet; it will, between two steps of its trials"]
    if numbers:
        return [f"{numbers} cancelled; python -m rna.sweep retry brings them back by their numbers"]
    jobs = f", {found['stopped']} jobs cancelled" if found["stopped"] else ""
    return [f"{'the sweeper has ended' if found['sweeper'] else 'no sweeper was at work'}{jobs}; {ADVICE}"]


# Pause


def pause(folder: Path) -> dict[str, Any]:
    """Let a sweep start nothing more until `resume`, in this life of it or the next; what is in work goes on.

    Raises:
        ValueError: if it is paused.
    """
    if paused(folder):
        raise ValueError(f"{folder.name}: is paused already; python -m rna.sweep resume {folder.name}")
    ledger.write_json(wish(folder, PAUSE), {"time": time.time()})
    return {"name": folder.name, "paused": True, "sweeper": ledger.at_work(folder)} | _told(folder, cluster.hold)


def resume(folder: Path) -> dict[str, Any]:
    """Let a paused sweep go on. Raises ValueError if it is not paused."""
    if not paused(folder):
        raise ValueError(f"{folder.name}: is not paused")
    wish(folder, PAUSE).unlink(missing_ok=True)
    return {"name": folder.name, "paused": False, "sweeper": ledger.at_work(folder)} | _told(folder, cluster.release)


def _told(folder: Path, tell: Any) -> dict[str, int]:
    """Tell the cluster, where no sweeper does: which jobs run is its to know, and these take no notice."""
    jobs = [trial.job for trial in _in_work(ledger.trials(folder)) if trial.job]
    if ledger.at_work(folder):
        return {"jobs": 0}
    cluster.check(jobs)
    tell(jobs)
    return {"jobs": len(jobs)}


def pause_lines(found: dict[str, Any]) -> list[str]:
    jobs = f"; {found['jobs']} jobs were told" if found["jobs"] else ""
    if found["paused"]:
        waits = "what is in work goes on to its end" if found["sweeper"] else "no sweeper is at work"
        return [f"{found['name']}: starts nothing more, {waits}{jobs}; python -m rna.sweep resume {found['name']}"]
    return [f"{found['name']}: goes on{jobs}" if found["sweeper"] else f"{found['name']}: resumed{jobs}; {ADVICE}"]
