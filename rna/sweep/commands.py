"""`python -m rna.sweep`: what a sweep will do, is doing and has found, read from its ledger and the records."""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rna import printing
from rna.quantiles import t_95
from rna.settings import config, outside
from rna.store import lookup
from rna.sweep import ledger
from rna.sweep.ledger import Trial

if TYPE_CHECKING:
    from rich.table import Table

ROLES = {"forget": "↓", "retain": "↑", "perturbed": "↑", "neutral": "", "related": "↑"}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; a mistake ends in one line and exit code 2."""
    printing.prepare()
    parser = argparse.ArgumentParser(prog="python -m rna.sweep", description=__doc__)
    parser.add_argument("--output-dir", default="outputs", help="where the sweep was run (default: outputs)")
    parser.add_argument("--json", action="store_true", help="for scripts")
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("name", metavar="NAME")
    common.add_argument("--output-dir", default=argparse.SUPPRESS)
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
    planned = commands.add_parser("plan", parents=[common], help="cells, done, left, hours, disk; starts nothing")
    planned.add_argument("--config-dir", help="a folder of options of your own, as of python -m rna.run")
    planned.add_argument("overrides", nargs="*", help="as they will be given to python -m rna.run -m sweep=NAME")
    watched = commands.add_parser("status", parents=[common], help="done, running, failed")
    watched.add_argument("--watch", action="store_true", help="a live view, until Ctrl-C")
    board = commands.add_parser("leaderboard", parents=[common], help="mean ± 95 %% interval over seeds")
    board.add_argument("--sort", metavar="METRIC", help="default: the sweep's first objective")
    again = commands.add_parser("retry", parents=[common], help="queue failed trials again")
    again.add_argument(
        "numbers", nargs="*", type=int, metavar="NUMBER", help="default: all that failed; a pruned one by its number"
    )
    commands.add_parser("prune-checkpoints", parents=[common], help="delete checkpoints that no trial in work needs")
    options, rest = parser.parse_known_args(arguments)
    if options.command != "plan" or any(word.startswith("-") for word in rest):
        options = parser.parse_args(arguments)  # which says what it does not know
    else:
        options.overrides += rest  # argparse takes none of them behind an option
    try:
        _run(options)
    except ValueError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _run(options: argparse.Namespace) -> None:
    sweeps = Path(options.output_dir) / "sweeps"
    if options.command == "plan":
        outside.bring(options.config_dir)
        return _show(options, plan(sweeps, options.name, options.overrides), plan_lines)
    folder = existing(sweeps, options.name)
    if options.command == "status":
        if options.watch and not options.json:
            return _watch(folder)
        return _show(options, status(folder), status_lines)
    if options.command == "leaderboard":
        found = leaderboard(folder, options.sort)
        return print(json.dumps(found)) if options.json else show(found)
    if options.command == "retry":
        return _show(options, {"queued": retry(folder, options.numbers)}, retry_lines)
    return _show(options, prune_checkpoints(folder), prune_lines)


def _show(options: argparse.Namespace, found: dict[str, Any], lines: Callable[[dict[str, Any]], list[str]]) -> None:
    print(json.dumps(found) if options.json else "\n".join(lines(found)))


def existing(sweeps: Path, name: str) -> Path:
    """A sweep's folder. Raises ValueError, with the nearest name, if there is none."""
    folder = sweeps / name
    if not (folder / "trials").is_dir():
        there = sorted(path.name for path in sweeps.iterdir() if (path / "trials").is_dir()) if sweeps.is_dir() else []
        raise ValueError(f"{name}: no such sweep in {sweeps}; {config.nearest(name, there)}")
    return folder


def current(folder: Path) -> list[Trial]:
    """The trials as ledger and records have them: done where there is a record, and not where it is gone."""
    listings: dict[str, set[str]] = {}
    trials = ledger.trials(folder)
    for trial in trials:
        where = trial.address
        if where is None:
            continue
        results = f"{where['output_dir']}/results"
        if results not in listings:
            with suppress(FileNotFoundError), os.scandir(results) as entries:
                listings[results] = {entry.name for entry in entries}
        there = listings.get(results, set[str]())
        recorded = all(f"{key}.json" in there for key in (where["key"], *where["evals"].values()))
        if trial.status == ledger.DONE and not recorded:
            trial.status, trial.metrics = ledger.QUEUED, {}
        elif trial.status in (ledger.QUEUED, ledger.RUNNING) and recorded:
            found = lookup.metrics(where)
            if found is not None:
                trial.status, trial.metrics = ledger.DONE, found
    return trials


# Plan


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
    left = total - len(done) - sum(trial.status == ledger.PRUNED for trial in trials)
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


# Status


def status(folder: Path) -> dict[str, Any]:
    """Counts, what runs and how far it is, what failed and why."""
    trials = current(folder)
    spec = ledger.read_json(folder / "sweep.json") or {}
    alive = at_work(folder)
    running: list[dict[str, Any]] = []
    for trial in trials:
        if trial.status == ledger.RUNNING:
            told = ledger.last_beat(folder, trial)
            running.append(
                {
                    "number": trial.number,
                    "name": trial.name,
                    "phase": told.get("phase", ledger.QUEUED),
                    "log": trial.log,
                }
                | {key: told.get(key) for key in ("done", "total", "host", "pid", "job")}
                | {"silent_seconds": round(time.time() - told["time"], 1) if "time" in told else None}
            )
    over = (ledger.DONE, ledger.PRUNED, ledger.FAILED)
    counts = {name: sum(trial.status == name for trial in trials) for name in over}
    took = [trial.seconds for trial in trials if trial.status == ledger.DONE and trial.seconds]
    total = spec.get("n_trials", len(trials))
    left = total - sum(counts.values())
    return {
        "name": folder.name,
        "sweeper": alive,
        "total": total,
        **counts,
        "queued": left - len(running),
        "running": running,
        "eta_seconds": round(left * sum(took) / len(took) / len(running), 1) if took and running and alive else None,
        "failures": [
            {"number": t.number, "name": t.name, "reason": t.reason, "message": t.message, "log": t.log}
            for t in trials
            if t.status == ledger.FAILED
        ],
    }


def at_work(folder: Path) -> bool:
    """Whether a sweeper holds the study now."""
    try:
        with ledger.held(folder):
            return False
    except ledger.Busy:
        return True


def status_lines(found: dict[str, Any]) -> list[str]:
    pruned = f"{found['pruned']} pruned, " if found["pruned"] else ""
    said = f"{found['name']}: {found['done']}/{found['total']} done, {pruned}{found['failed']} failed, "
    said += f"{len(found['running'])} running, {found['queued']} queued"
    if found["eta_seconds"] is not None:
        said += f", about {math.ceil(found['eta_seconds'] / 60)} min left"
    if not found["sweeper"] and found["queued"] + len(found["running"]):
        said += "; no sweeper is at work: the same command goes on"
    lines = [said]
    for item in found["running"]:
        far = f" {item['done']}/{item['total']}" if item["done"] is not None else ""
        silent = f", silent for {item['silent_seconds']:.0f} s" if (item["silent_seconds"] or 0) > 60 else ""
        lines.append(f"  #{item['number']} {item['name']}: {item['phase']}{far}{silent}")
    for item in found["failures"]:
        log = f"; {item['log']}" if item["log"] else ""
        lines.append(f"  #{item['number']} {item['name']} failed: {item['reason']}: {item['message']}{log}")
    return lines


def _watch(folder: Path) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(console=printing.console(), auto_refresh=False) as live:
        while True:
            found = status(folder)
            live.update(Text("\n".join(status_lines(found))), refresh=True)
            if found["queued"] + len(found["running"]) == 0:
                return
            time.sleep(2)


# Leaderboard


@dataclass(frozen=True)
class Row:
    """The trials that differ in nothing but their seed; cells that make one and the same training are one seed."""

    title: str
    trials: list[Trial]

    @property
    def keys(self) -> list[Any]:
        """The trainings, in the order of their trials' numbers."""
        return list(dict.fromkeys((trial.address or {}).get("key") for trial in self.trials))

    @property
    def seeds(self) -> int:
        return len(self._by_training())

    def values(self, metric: str) -> list[float]:
        """One value a seed."""
        found = [[t.metrics[metric] for t in same if t.metrics.get(metric) is not None] for same in self._by_training()]
        return [sum(values) / len(values) for values in found if values]

    def _by_training(self) -> list[list[Trial]]:
        found: dict[Any, list[Trial]] = {}
        for trial in self.trials:
            found.setdefault((trial.address or {}).get("key") or trial.number, []).append(trial)
        return list(found.values())

    def mean(self, metric: str) -> float | None:
        values = self.values(metric)
        return sum(values) / len(values) if values else None

    def summary(self, metric: str) -> dict[str, float | None]:
        return {"mean": self.mean(metric), "margin": margin(self.values(metric))}


def margin(values: Sequence[float]) -> float | None:
    """Half the width of the 95 % interval of a mean, by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    spread = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return t_95(len(values) - 1) * math.sqrt(spread / len(values))


def rows_of(trials: Sequence[Trial]) -> list[Row]:
    """Finished trials by what they are apart from the seed, in the order of their numbers."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.status == ledger.DONE:
            groups.setdefault((trial.address or {}).get("group") or trial.name, []).append(trial)
    titles = [_titled(group) for group in groups.values()]
    return [Row(title, group) for title, group in zip(titles, groups.values(), strict=True)]


def _titled(group: list[Trial]) -> str:
    """The overrides that a row's trials have in common."""
    common = [item for item in group[0].cell if all(item in trial.cell for trial in group)]
    return " ".join(common) or (group[0].address or {}).get("title") or group[0].name


def pareto(rows: Sequence[Row], objectives: dict[str, str]) -> list[bool]:
    """Whether no other row is as good in every objective and better in one."""
    signs = {metric: -1.0 if direction == "maximize" else 1.0 for metric, direction in objectives.items()}
    costs = [
        [sign * mean if (mean := row.mean(m)) is not None else math.inf for m, sign in signs.items()] for row in rows
    ]

    def beaten(one: list[float]) -> bool:
        return any(other != one and all(b <= a for a, b in zip(one, other, strict=True)) for other in costs)

    return [not beaten(cost) for cost in costs]


def half(metric: str, name: str, rows: Sequence[Row]) -> str:
    """The metric on one half of the questions where every row has it there, else the metric itself."""
    parent, _, leaf = metric.rpartition("/")
    halved = f"{parent}/{name}/{leaf}"
    return halved if rows and all(row.values(halved) for row in rows) else metric


def leaderboard(folder: Path, sort: str | None = None) -> dict[str, Any]:
    """Rows best first, the Pareto front, and the winner: chosen on the select half, shown on the report half.

    Raises:
        ValueError: for a metric that no trial has.
    """
    trials, spec = current(folder), ledger.read_json(folder / "sweep.json") or {}
    rows = rows_of(trials)
    names = sorted({name for row in rows for trial in row.trials for name in trial.metrics})
    objectives: dict[str, str] = spec.get("objectives") or {}
    metric = sort or next(iter(objectives), "")
    if rows and metric not in names:
        raise ValueError(f"--sort {metric}: no trial has this metric; {config.nearest(metric, names)}")
    direction = objectives.get(metric) or _direction(metric)
    sign = -1.0 if direction == "maximize" else 1.0

    def cost(row: Row, name: str) -> float:
        mean = row.mean(name)
        return math.inf if mean is None else sign * mean

    rows = sorted(rows, key=lambda row: cost(row, metric))
    usual = {"eval/forget/acc": "minimize", "eval/perturbed/acc": "maximize"}
    front_of = (
        objectives if len(objectives) > 1 else {name: usual[name] for name in usual if name in names} | objectives
    )
    front = pareto(rows, front_of)
    constraints: list[str] = spec.get("constraints") or []
    feasible = [row for row in rows if all(_holds(row, said, rows) for said in constraints)]
    chosen_on, shown_on = half(metric, "select", rows), half(metric, "report", rows)
    winner = min(feasible, key=lambda row: cost(row, chosen_on), default=None)
    wanted = [name for name in names if name.startswith("eval/") and not name.endswith(("_stderr", "/n"))]
    return {
        "name": folder.name,
        "metric": metric,
        "direction": direction,
        "front_of": front_of,
        "constraints": constraints,
        "rows": [
            {
                "title": row.title,
                "seeds": row.seeds,
                "front": on_front,
                "feasible": row in feasible,
                "keys": row.keys,
                "metrics": {name: row.summary(name) for name in dict.fromkeys([metric, *wanted])},
            }
            for row, on_front in zip(rows, front, strict=True)
        ],
        "winner": None
        if winner is None
        else {
            "title": winner.title,
            "chosen_on": chosen_on,
            "chosen": winner.summary(chosen_on),
            "shown_on": shown_on,
            "shown": winner.summary(shown_on),
        },
        "failed": sum(trial.status == ledger.FAILED for trial in trials),
        "pruned": sum(trial.status == ledger.PRUNED for trial in trials),
        "unfinished": spec.get("n_trials", len(trials)) - sum(trial.over for trial in trials),
    }


def _direction(metric: str) -> str:
    lower = ("nll", "ppl", "loss", "seconds")
    return "minimize" if metric.startswith("eval/forget") or any(word in metric for word in lower) else "maximize"


def _holds(row: Row, said: str, rows: Sequence[Row]) -> bool:
    """Whether a row's mean meets a constraint, on the select half where there is one."""
    metric, operator, bound = said.split()
    mean = row.mean(half(metric, "select", rows))
    if mean is None:
        return False
    return mean <= float(bound) if operator == "<=" else mean >= float(bound)


def show(found: dict[str, Any]) -> None:
    """Print a leaderboard for a person."""
    console = printing.console(width=160)
    if not found["rows"]:
        console.print(f"{found['name']}: no trial is done yet")
        return
    console.print(table(found))
    for line in words(found):
        console.print(line, soft_wrap=True)


def table(found: dict[str, Any]) -> "Table":
    """Rows best first; accuracies in percent, mean ± half a 95 % interval over seeds."""
    from rich.table import Table

    there = found["rows"][0]["metrics"]
    columns = {f"eval/{role}/acc": f"{role} {arrow}".strip() for role, arrow in ROLES.items()}
    columns = {name: title for name, title in columns.items() if name in there}
    if found["metric"] not in columns:
        columns = {found["metric"]: found["metric"], **columns}
    made = Table(title=f"{found['name']} · by {found['metric']} · mean ± 95 % interval over seeds")
    for title in ("", "seeds", *columns.values(), "front"):
        made.add_column(title, justify="right" if title else "left", overflow="fold")
    for row in found["rows"]:
        cells = [_cell(name, row["metrics"].get(name)) for name in columns]
        mark = ("●" if row["front"] else "") + ("" if row["feasible"] else " ✗")
        made.add_row(row["title"], str(row["seeds"]), *cells, mark)
    return made


def _cell(metric: str, summary: dict[str, float | None] | None) -> str:
    if summary is None or summary["mean"] is None:
        return "–"
    scale, digits = (100.0, ".1f") if metric.endswith("/acc") else (1.0, ".4g")
    wide = summary["margin"]
    return f"{scale * summary['mean']:{digits}}" + ("" if wide is None else f" ± {scale * wide:{digits}}")


def words(found: dict[str, Any]) -> list[str]:
    """What the table says, and how far it may be trusted."""
    lines = [f"● no other row is better in all of: {', '.join(found['front_of'])}"]
    if found["constraints"]:
        lines.append(f"✗ does not meet {' and '.join(found['constraints'])}")
    winner = found["winner"]
    if winner is None:
        lines.append("No row meets the constraints.")
    elif winner["chosen_on"] == winner["shown_on"]:
        lines.append(
            f"Best: {winner['title']}, {_cell(winner['shown_on'], winner['shown'])}, chosen and shown on the same "
            "questions, which flatters it."
        )
    else:
        lines.append(
            f"Winner: {winner['title']}, chosen on {winner['chosen_on']}; "
            f"{winner['shown_on']} {_cell(winner['shown_on'], winner['shown'])}"
        )
    if found["failed"] or found["unfinished"]:
        lines.append(f"{found['failed']} trials failed, {found['unfinished']} are not done.")
    if found["pruned"]:
        lines.append(f"{found['pruned']} trials were pruned and stand in no row: a row's seeds may be its better ones.")
    return lines


def finish(folder: Path) -> None:
    """A sweep's last words: its leaderboard."""
    if any(trial.status == ledger.DONE for trial in ledger.trials(folder)):
        show(leaderboard(folder))


# Retry and prune


def retry(folder: Path, numbers: Sequence[int]) -> list[int]:
    """Queue failed trials again, and by their numbers pruned ones.

    Raises:
        ValueError: while a sweeper is at work, and for a trial that neither failed nor was pruned.
    """
    with ledger.held(folder):
        trials = {trial.number: trial for trial in ledger.trials(folder)}
        failed = [number for number, trial in trials.items() if trial.status == ledger.FAILED]
        pruned = [number for number, trial in trials.items() if trial.status == ledger.PRUNED]
        for number in numbers:
            if number not in (*failed, *pruned):
                said = "; ".join(
                    f"{what}: {', '.join(map(str, those)) or 'none'}"
                    for what, those in (("failed", failed), ("pruned", pruned))
                )
                raise ValueError(f"{number}: neither failed nor pruned; {said}")
        for number in numbers or failed:
            trial = trials[number]
            trial.status, trial.attempts, trial.reason, trial.message, trial.ended = ledger.QUEUED, 0, None, None, None
            trial.curve = []
            ledger.save(folder, trial)
        return list(numbers or failed)


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
