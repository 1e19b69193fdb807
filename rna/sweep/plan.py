"""`python -m rna.sweep plan`: what a sweep will take, started or not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rna.settings import config, outside
from rna.store import lookup
from rna.sweep import ledger
from rna.sweep.ledger import Trial
from rna.sweep.records import current


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
    sizes = [size for trial in done if (size := _size(trial)) is not None]
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
        "disk_bytes": None if not sizes else round(left * sum(sizes) / len(sizes)),
    }


def _size(trial: Trial) -> int | None:
    if trial.address is None:
        return None
    folder = Path(trial.address["output_dir"]) / "trials" / trial.address["key"]
    try:
        return sum(file.stat().st_size for file in folder.iterdir())
    except FileNotFoundError:
        return None


def _composed(sweeps: Path, name: str, overrides: Sequence[str]) -> list[Trial]:
    """The cells of a sweep of conf/sweep, or of the user's, each composed and checked, with the records there are."""
    from rna.settings import CONF, planned

    known = sorted({*(file.stem for file in (CONF / "sweep").glob("*.yaml")), *outside.options("sweep")})
    if name not in known:
        raise ValueError(f"{name}: neither a sweep in {sweeps} nor of conf/sweep; {config.nearest(name, known)}")
    trials: list[Trial] = []
    for number, (cell, composed) in enumerate(planned(name, [f"output_dir={sweeps.parent}", *overrides])):
        where = lookup.address(composed)
        found = lookup.metrics(where)
        status = ledger.QUEUED if found is None else ledger.DONE
        trials.append(Trial(number, cell, address=where, status=status, metrics=found or {}))
    return trials


def plan_lines(found: dict[str, Any]) -> list[str]:
    hours, disk = found["hours"], found["disk_bytes"]
    took = (
        "unknown: no trial was measured yet"
        if hours is None
        else (
            f"{hours:.2f} hours one after the other ({found['seconds_per_trial']:.1f} s a trial, "
            f"measured on {found['measured_trials']})"
        )
    )
    needed = "unknown: no trial is done yet" if disk is None else f"{disk / 2**20:.1f} MiB"
    said = f"{found['name']}: {found['cells']} cells, {found['done']} done, {found['left']} left"
    return [said, f"time: {took}", f"disk: {needed}"]
