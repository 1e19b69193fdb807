"""`python -m rna.sweep plan`: what a sweep will take, started or not."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rna.settings import KEPT, config
from rna.store import lookup, results
from rna.sweep import keeping, ledger
from rna.sweep.ledger import Trial
from rna.sweep.records import current

MEASURED = 20  # trials whose tensors are measured


def plan(sweeps: Path, name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Cells, how many have records, and what the rest will take by what was measured. Nothing is started."""
    folder = sweeps / name
    if (folder / "trials").is_dir() and not overrides:
        trials = current(folder)
        total = (ledger.read_json(folder / "sweep.json") or {}).get("n_trials", len(trials))
    else:
        trials = _composed(sweeps, name, overrides)
        total = len(trials)
    done = [trial for trial in trials if trial.status == ledger.DONE]
    measured = [trial.metrics["seconds"] for trial in done if trial.metrics.get("seconds")]
    if not measured:
        others = [trial for path in sweeps.glob("*") if path != folder for trial in ledger.trials(path)]
        measured = [trial.metrics["seconds"] for trial in others if trial.metrics.get("seconds")]
    sizes = [size for trial in done[:MEASURED] if (size := _size(trial)) is not None]
    left = total - len(done) - sum(trial.status == ledger.PRUNED or trial.cancelled for trial in trials)
    seconds = sum(measured) / len(measured) if measured else None
    return {
        "name": name,
        "cells": total,
        "done": len(done),
        "left": left,
        "seconds_per_trial": seconds,
        "measured_trials": len(measured),
        "hours": None if seconds is None else left * seconds / 3600,
        "disk_bytes": disk(trials, left, sum(sizes) / len(sizes)) if sizes else None,
    }


def _size(trial: Trial) -> int | None:
    """The bytes of a trial's tensors, there or not."""
    where = trial.address
    if where is None:
        return None
    record = results.read(where["output_dir"], where["key"]) or {}
    return record.get("delta_bytes") or _bytes(results.delta_path(where["output_dir"], where["key"]))


def _bytes(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def disk(trials: Sequence[Trial], left: int, size: float) -> dict[str, int]:
    """The bytes of tensors that will lie there at most at a time, of trials to come and beside what is there, for each
    `keep`: one trial after another in the order of their numbers, and the first row whose seeds are all over wins."""
    coming = [trial for trial in trials if not trial.over]
    last_seed = {keeping.group_of(trial): place for place, trial in enumerate(coming)}
    winner = min(last_seed, key=lambda group: last_seed[group], default="")
    until: dict[str, dict[str, float]] = {keep: {} for keep in KEPT}  # training -> after which trial it goes
    for place, trial in enumerate(coming):
        group = keeping.group_of(trial)
        row_ends = math.inf if group == winner else last_seed[group]
        for key in keeping.uses(trial):
            if not _is_there(trial, key):
                until["all"][key] = math.inf
                until["best"][key] = max(row_ends, until["best"].get(key, 0))
                until["none"][key] = place
    live: dict[str, set[str]] = {keep: set() for keep in KEPT}
    most = dict.fromkeys(KEPT, 0)
    for place, trial in enumerate(coming):
        for keep in KEPT:
            live[keep] |= {key for key in keeping.uses(trial) if key in until[keep]}
            most[keep] = max(most[keep], len(live[keep]))
            live[keep] = {key for key in live[keep] if until[keep][key] > place}
    undrawn = left - len(coming)  # each of a row of its own
    return {keep: round(size * (count + (undrawn if keep == "all" else 0))) for keep, count in most.items()}


def _is_there(trial: Trial, key: str) -> bool:
    return trial.address is not None and results.delta_path(trial.address["output_dir"], key).is_file()


def _composed(sweeps: Path, name: str, overrides: Sequence[str]) -> list[Trial]:
    """The cells of a sweep of conf/sweep, or of the user's, each composed and checked, with the records there are."""
    from rna.settings import hydra_text, planned, sweep_names

    if name not in sweep_names():
        said = f"neither a sweep in {sweeps} nor of conf/sweep"
        raise ValueError(f"{name}: {said}; {config.nearest(name, sweep_names())}")
    trials: list[Trial] = []
    for number, (cell, composed) in enumerate(
        planned(name, [f"output_dir={hydra_text(str(sweeps.parent))}", *overrides])
    ):
        where = lookup.address(composed)
        found = lookup.metrics(where)
        status = ledger.QUEUED if found is None else ledger.DONE
        trials.append(Trial(number, cell, address=where, status=status, metrics=found or {}))
    return trials


def plan_lines(found: dict[str, Any]) -> list[str]:
    hours, needed = found["hours"], found["disk_bytes"]
    took = (
        "unknown: no trial was measured yet"
        if hours is None
        else (
            f"{hours:.2f} hours one after the other ({found['seconds_per_trial']:.1f} s a trial, "
            f"measured on {found['measured_trials']})"
        )
    )
    most = "unknown: no trial is done yet"
    if needed is not None:
        most = ", ".join(f"{size / 2**20:.1f} MiB with keep={keep}" for keep, size in needed.items())
    said = f"{found['name']}: {found['cells']} cells, {found['done']} done, {found['left']} left"
    return [said, f"time: {took}", f"disk: {most}"]
