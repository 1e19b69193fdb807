"""`python -m rna.sweep` and `status`: what is done, runs, waits and failed. They only ever read."""

import math
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rna import printing
from rna.store import lookup
from rna.sweep import asked, ledger
from rna.sweep.ledger import Trial
from rna.sweep.race import race_path
from rna.sweep.records import current


def status(folder: Path) -> dict[str, Any]:
    """Counts, what runs where and how far it is, what failed and why."""
    trials = current(folder)
    running = [_running(folder, trial) for trial in trials if trial.status == ledger.RUNNING]
    took = [trial.seconds for trial in trials if trial.status == ledger.DONE and trial.seconds]
    counts, alive = counted(folder, trials), ledger.at_work(folder)
    left = counts["queued"] + len(running)
    missed = [trial for trial in trials if trial.status == ledger.DONE and trial.metrics.get(lookup.REACHED) == 0]
    return {
        "name": folder.name,
        "sweeper": alive,
        "holder": ledger.holder(folder),
        "paused": asked.paused(folder),
        **counts,
        "running": running,
        "eta_seconds": round(left * sum(took) / len(took) / len(running), 1) if took and running and alive else None,
        "race": ledger.read_json(race_path(folder)),
        "missed": [{"number": t.number, "name": t.name, "steps": t.metrics.get(lookup.STOPPED)} for t in missed],
        "failures": [
            {"number": t.number, "name": t.name, "reason": t.reason, "message": t.message, "log": t.log}
            for t in trials
            if t.status == ledger.FAILED and not t.cancelled
        ],
    }


def counted(folder: Path, trials: Sequence[Trial]) -> dict[str, Any]:
    """How many trials there will be, and how many are in each state."""
    total = (ledger.read_json(folder / "sweep.json") or {}).get("n_trials", len(trials))
    counts = {name: sum(trial.status == name for trial in trials) for name in (ledger.DONE, ledger.PRUNED)}
    counts["failed"] = sum(trial.status == ledger.FAILED and not trial.cancelled for trial in trials)
    counts["cancelled"] = sum(trial.cancelled for trial in trials)
    running = sum(trial.status == ledger.RUNNING for trial in trials)
    return {"total": total, **counts, "queued": total - sum(counts.values()) - running}


def _running(folder: Path, trial: Trial) -> dict[str, Any]:
    """A trial that somebody has: where it runs, or why it waits."""
    told = ledger.last_beat(folder, trial)
    return {
        "number": trial.number,
        "name": trial.name,
        "phase": told.get("phase", ledger.QUEUED),
        "log": trial.log,
        **{key: told.get(key) for key in ("done", "total", "host", "pid")},
        "job": trial.job or told.get("job"),
        "cluster": trial.cluster,
        "silent_seconds": round(time.time() - told["time"], 1) if "time" in told else None,
    }


def status_lines(found: dict[str, Any]) -> list[str]:
    said = f"{found['name']}: {found['done']}/{found['total']} done, "
    said += "".join(f"{found[kind]} {kind}, " for kind in ("pruned", "cancelled") if found[kind])
    said += f"{found['failed']} failed, {len(found['running'])} running, {found['queued']} queued"
    if found["eta_seconds"] is not None:
        said += f", about {math.ceil(found['eta_seconds'] / 60)} min left"
    left = found["queued"] + len(found["running"])
    if found["paused"] and left:
        said += f"; paused: python -m rna.sweep resume {found['name']}"
    if not found["sweeper"] and left:
        said += "; no sweeper is at work: the same command goes on"
    lines = [said]
    for item in found["running"]:
        far = f" {item['done']}/{item['total']}" if item["done"] is not None else ""
        where = f" on {item['host']}" if item["host"] else ""
        job = f", job {item['job']}" if item["job"] else ""
        cluster = f", {item['cluster']}" if item["cluster"] else ""
        silent = f", silent for {item['silent_seconds']:.0f} s" if (item["silent_seconds"] or 0) > 60 else ""
        lines.append(f"  #{item['number']} {item['name']}: {item['phase']}{far}{where}{job}{cluster}{silent}")
    for item in found["failures"]:
        log = f"; {item['log']}" if item["log"] else ""
        lines.append(f"  #{item['number']} {item['name']} failed: {item['reason']}: {item['message']}{log}")
    for item in found["missed"]:
        lines.append(f"  #{item['number']} {item['name']}: did not reach its train.until in {item['steps']} steps")
    return lines + ([] if found["race"] is None else _race_lines(found["race"]))


def _race_lines(race: dict[str, Any]) -> list[str]:
    """How far each setting has come in a race, and why some are asked no more."""
    lines = [f"  race: {race['asked']} answers asked for, of {race['of']} on the select half"]
    for name, told in race["settings"].items():
        how = f"out: {told['out']}" if told["out"] else "evaluated whole" if name in race["finalists"] else "in"
        lines.append(f"    {name}: {told['blocks']} of {race['blocks']} blocks, {how}")
    return lines


def watch(folder: Path) -> None:
    """Show the status again and again, until all trials are over."""
    from rich.live import Live
    from rich.text import Text

    with Live(console=printing.console(), auto_refresh=False) as live:
        while True:
            found = status(folder)
            live.update(Text("\n".join(status_lines(found))), refresh=True)
            if found["queued"] + len(found["running"]) == 0:
                return
            time.sleep(2)


# All sweeps


def names(sweeps: Path) -> list[str]:
    """The sweeps of a folder."""
    return sorted(path.name for path in sweeps.iterdir() if (path / "trials").is_dir()) if sweeps.is_dir() else []


def listing(sweeps: Path) -> dict[str, Any]:
    """Every sweep in a few numbers, that which changed last on top."""
    found: list[dict[str, Any]] = []
    for name in names(sweeps):
        folder = sweeps / name
        trials = current(folder)
        running = sum(trial.status == ledger.RUNNING for trial in trials)
        said = {"name": name, **counted(folder, trials), "running": running}
        said |= {"sweeper": ledger.at_work(folder), "paused": asked.paused(folder), "changed": _changed(folder)}
        found.append(said)
    return {"folder": str(sweeps), "sweeps": sorted(found, key=lambda one: -one["changed"])}


def _changed(folder: Path) -> float:
    """When a file of a sweep was written last, in seconds since 1970."""
    times = [folder.stat().st_mtime]
    for part in (folder / "trials", folder / "beats"):
        with suppress(FileNotFoundError), os.scandir(part) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # a beat of a trial that has ended this moment
                    times.append(entry.stat().st_mtime)
    return max(times)


def listing_lines(found: dict[str, Any]) -> list[str]:
    if not found["sweeps"]:
        return [f"no sweep in {found['folder']}"]
    lines: list[str] = []
    for one in found["sweeps"]:
        said = f"{one['name']}: {one['done']}/{one['total']} done, {one['running']} running, {one['failed']} failed"
        said += "".join(f", {one[kind]} {kind}" for kind in ("pruned", "cancelled") if one[kind])
        said += ", a sweeper is at work" if one["sweeper"] else ""
        said += ", paused" if one["paused"] else ""
        lines.append(f"{said}; {time.strftime('%Y-%m-%d %H:%M', time.localtime(one['changed']))}")
    return lines
