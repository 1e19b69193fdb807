"""`python -m rna.sweep leaderboard`: the trials that differ in their seed alone as one row, best first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rna import printing
from rna.quantiles import t_95
from rna.settings import config
from rna.sweep import ledger
from rna.sweep.ledger import Trial
from rna.sweep.records import current

if TYPE_CHECKING:
    from rich.table import Table

ROLES = {"forget": "↓", "retain": "↑", "perturbed": "↑", "neutral": "", "related": "↑"}


@dataclass(frozen=True)
class Row:
    """The trials that differ in nothing but their seed."""

    title: str
    trials: list[Trial]

    def values(self, metric: str) -> list[float]:
        found = (trial.metrics.get(metric) for trial in self.trials)
        return [value for value in found if value is not None]

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
    rows = sorted(rows, key=lambda row: _cost(row, metric, direction))
    usual = {"eval/forget/acc": "minimize", "eval/perturbed/acc": "maximize"}
    front_of = (
        objectives if len(objectives) > 1 else {name: usual[name] for name in usual if name in names} | objectives
    )
    front = pareto(rows, front_of)
    constraints: list[str] = spec.get("constraints") or []
    feasible = [row for row in rows if all(_holds(row, said, rows) for said in constraints)]
    chosen_on, shown_on = half(metric, "select", rows), half(metric, "report", rows)
    best = winner(rows, metric, direction, constraints)
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
                "seeds": len(row.trials),
                "front": on_front,
                "feasible": row in feasible,
                "keys": [(trial.address or {}).get("key") for trial in row.trials],
                "metrics": {name: row.summary(name) for name in dict.fromkeys([metric, *wanted])},
            }
            for row, on_front in zip(rows, front, strict=True)
        ],
        "winner": None
        if best is None
        else {
            "title": best.title,
            "chosen_on": chosen_on,
            "chosen": best.summary(chosen_on),
            "shown_on": shown_on,
            "shown": best.summary(shown_on),
        },
        "failed": sum(trial.status == ledger.FAILED and not trial.cancelled for trial in trials),
        "cancelled": sum(trial.cancelled for trial in trials),
        "pruned": sum(trial.status == ledger.PRUNED for trial in trials),
        "unfinished": spec.get("n_trials", len(trials)) - sum(trial.over for trial in trials),
    }


def winner(rows: Sequence[Row], metric: str, direction: str, constraints: Sequence[str]) -> Row | None:
    """The row that is best on the select half of those that meet the constraints; None if none does."""
    feasible = [row for row in rows if all(_holds(row, said, rows) for said in constraints)]
    chosen_on = half(metric, "select", rows)
    return min(feasible, key=lambda row: _cost(row, chosen_on, direction), default=None)


def _cost(row: Row, metric: str, direction: str) -> float:
    mean = row.mean(metric)
    return math.inf if mean is None else -mean if direction == "maximize" else mean


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
