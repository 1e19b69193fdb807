"""`python -m rna.sweep retry` and `prune-checkpoints`: for trials that are over."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rna.sweep import ledger
from rna.sweep.records import current


def retry(folder: Path, numbers: Sequence[int]) -> list[int]:
    """Queue failed trials again, and by their numbers pruned and cancelled ones.

    Raises:
        ValueError: while a sweeper is at work, and for a trial that is none of these.
    """
    with ledger.held(folder):
        trials = {trial.number: trial for trial in ledger.trials(folder)}
        kinds: dict[str, list[int]] = {ledger.FAILED: [], ledger.PRUNED: [], ledger.CANCELLED: []}
        for number, trial in trials.items():
            kind = ledger.CANCELLED if trial.cancelled else trial.status
            if kind in kinds:
                kinds[kind].append(number)
        for number in numbers:
            if not any(number in those for those in kinds.values()):
                said = "; ".join(f"{kind}: {', '.join(map(str, those)) or 'none'}" for kind, those in kinds.items())
                raise ValueError(f"{number}: neither failed nor pruned nor cancelled; {said}")
        for number in numbers or kinds[ledger.FAILED]:
            trial = trials[number]
            trial.status, trial.attempts, trial.reason, trial.message, trial.ended = ledger.QUEUED, 0, None, None, None
            trial.curve = []
            ledger.save(folder, trial)
        return list(numbers or kinds[ledger.FAILED])


def retry_lines(found: dict[str, Any]) -> list[str]:
    count = len(found["queued"])
    return [f"{count} trials queued again; give the sweep's command to run them" if count else "no trial failed"]


def prune_checkpoints(folder: Path) -> dict[str, Any]:
    """Delete the checkpoints of trials that are over. Raises ValueError while a sweeper is at work."""
    freed, count = 0, 0
    with ledger.held(folder):
        for trial in current(folder):
            if trial.over and trial.address is not None:
                where = trial.address
                path = Path(where["output_dir"]) / "trials" / where["key"] / "checkpoint.pt"
                if path.exists():
                    freed, count = freed + path.stat().st_size, count + 1
                    path.unlink()
    return {"deleted": count, "bytes": freed}


def prune_lines(found: dict[str, Any]) -> list[str]:
    return [f"{found['deleted']} checkpoints deleted, {found['bytes'] / 2**20:.1f} MiB freed"]
