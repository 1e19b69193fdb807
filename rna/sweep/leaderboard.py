"""`python -m rna.sweep leaderboard`: rows best first, beside plain twins, and a winner only where there is one."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rna.intervals import Estimate
from rna.settings import config
from rna.store import lookup
from rna.sweep import ledger, shown
from rna.sweep.records import current
from rna.sweep.rows import Row, rows_of

ENOUGH = 5  # seeds to ask for: with two, Student's t is 12.7
DRAWN = ("sampler", "n_trials", "seed", "study_name", "pruner", "prune_by", "params")  # of a sampler, not of a grid


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


def leaderboard(folder: Path, sort: str | None = None, most: int | None = None) -> dict[str, Any]:
    """Rows best first with their plain twins, the Pareto front, and who wins, or who cannot be told apart.

    A row that does not meet the constraints, or lacks the metric, stands below the others and in no comparison.

    Args:
        most: how many rows to tell, the best ones, of those that are compared.

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
    constraints: list[str] = spec.get("constraints") or []
    feasible = [row for row in rows if all(_holds(row, said, rows) for said in constraints)]
    compared = [row for row in feasible if row.mean(metric) is not None]
    rows = sorted(rows, key=lambda row: (row not in compared, _cost(row, metric, direction)))
    compared = [row for row in rows if row in compared]
    usual = {"eval/forget/acc": "minimize", "eval/perturbed/acc": "maximize"}
    front_of = (
        objectives if len(objectives) > 1 else {name: usual[name] for name in usual if name in names} | objectives
    )
    front = [row for row, kept in zip(compared, pareto(compared, front_of), strict=True) if kept]
    columns = shown.columns(metric, names)
    leader, behind, decided = _decided(compared, metric, direction)
    judged = [name for name in names if name.startswith("eval/") and not name.endswith(("_stderr", "/n"))]
    return {
        "name": folder.name,
        "metric": metric,
        "direction": direction,
        "columns": columns,
        "front_of": front_of,
        "constraints": constraints,
        "rows": [
            {
                "title": row.title,
                "seeds": row.seeds,
                "front": row in front,
                "feasible": row in feasible,
                "compared": row in compared,
                "keys": row.keys,
                "metrics": {name: _told(_summary(row, name, columns)) for name in dict.fromkeys([metric, *judged])},
                "plain": None if row.plain is None else _plain(row, row.plain, columns),
                "less_leader": _told(behind.get(row)),
                **({"target": _target(row)} if row.targeted else {}),
            }
            for row in rows[:most]
        ],
        "more_rows": len(rows) - len(rows[:most]),
        **decided,
        "more_seeds": _more_seeds(folder.name, spec, compared, leader),
        "failed": sum(trial.status == ledger.FAILED and not trial.cancelled for trial in trials),
        "cancelled": sum(trial.cancelled for trial in trials),
        "pruned": sum(trial.status == ledger.PRUNED for trial in trials),
        "unfinished": spec.get("n_trials", len(trials)) - sum(trial.over for trial in trials),
    }


def _summary(row: Row, name: str, columns: Sequence[str]) -> Estimate | None:
    """A mean with its interval; over questions, for which records are read, of what is shown alone."""
    if name in columns:
        return row.estimate(name)
    return None if row.mean(name) is None else row.over_seeds(name)


def _plain(row: Row, plain: Row, columns: Sequence[str]) -> dict[str, Any]:
    """A row's plain twin, and RNA − plain on the seeds that have one."""
    return {
        "seeds": plain.seeds,
        "keys": plain.keys,
        "metrics": {name: _told(plain.estimate(name)) for name in columns},
        "rna_less_plain": {name: _told(row.less_plain(name)) for name in columns},
    }


def _target(row: Row) -> dict[str, Any]:
    """Of trainings with a `train.until`: how many got there, how many are matched with their plain twins, and why
    others are not."""
    reached = row.values(lookup.REACHED)
    left_out = Counter(why for why in row.unmatched.values() if why)
    return {
        "reached": sum(value == 1.0 for value in reached),
        "of": len(reached),
        "pairs": len(row.unmatched),
        "matched": len(row.unmatched) - left_out.total(),
        "left_out": dict(left_out),
        "forget": {"metric": row.forget, "rna_less_plain": _told(row.less_plain(row.forget))},
    }


def _told(made: Estimate | None) -> dict[str, Any] | None:
    return None if made is None else asdict(made)


def _decided(
    compared: Sequence[Row], metric: str, direction: str
) -> tuple[Row | None, dict[Row, Estimate | None], dict[str, Any]]:
    """The row that leads on the select half, what each other is less it there, and what that comes to.

    It wins if these paired differences all leave out zero.
    """
    chosen_on, shown_on = half(metric, "select", compared), half(metric, "report", compared)
    chosen_on = metric if shown_on == metric else chosen_on
    first, *others = [*sorted(compared, key=lambda row: _cost(row, chosen_on, direction)), None]
    behind = {row: row.less(first, chosen_on) for row in others if row is not None and first is not None}
    worse = -1 if direction == "maximize" else 1
    tied = [row.title for row, change in behind.items() if change is None or change.sign != worse]
    found: dict[str, Any] = {"chosen_on": chosen_on, "shown_on": shown_on, "tied": tied, "winner": None}
    found["leader"] = None if first is None else first.title
    if first is not None and behind and not tied:
        second = next(iter(behind))
        found["winner"] = {
            "title": first.title,
            "chosen": _told(first.estimate(chosen_on)),
            "shown": _told(first.estimate(shown_on)),
            "second": second.title,
            "less_second": _told(first.less(second, shown_on)),
            "less_plain": _told(first.less_plain(shown_on)),
        }
    return first, behind, found


def _more_seeds(name: str, spec: Mapping[str, Any], compared: Sequence[Row], leader: Row | None) -> list[str] | None:
    """The words of a command that tries the same with more seeds; None for another app's sweep.

    A grid with seeds goes on under its name. Of any other sweep it is the leading row alone, under a name of its own:
    its other rows were drawn, or it has no axis of seeds.
    """
    there = {seed for row in compared for seed in row.by_seed if seed is not None}
    if leader is None or not there or spec.get("store") != lookup.__name__:
        return None
    wanted = max(ENOUGH, 2 * len(there))
    free = (seed for seed in itertools.count() if seed not in there)
    seeds = sorted([*there, *itertools.islice(free, wanted - len(there))])
    space: dict[str, list[str]] = spec.get("space") or {}
    options: list[str] = spec.get("options") or []
    if spec.get("sampler") == "grid" and "seed" in space:
        own = {} if spec.get("grids") else space  # what several grids sweep, the sweep's own file says
        axes = [f"{key}={','.join(values)}" for key, values in own.items() if key != "seed"]
        named = f"hydra.sweeper.study_name={name}"
    else:
        axes = [item for item in leader.trials[0].cell if not item.startswith("seed=")]
        dropped = tuple(f"hydra.sweeper.{option}" for option in DRAWN)
        options = [*(word for word in options if not word.startswith(dropped)), "hydra.sweeper.sampler=grid"]
        named = f"hydra.sweeper.study_name={name}_seeds"
    options = [word for word in options if not word.startswith("hydra.sweeper.study_name=")]
    fixed = [word for word in spec.get("fixed") or [] if not word.startswith("seed=")]
    return ["python", "-m", "rna.run", "-m", *fixed, *axes, f"seed={','.join(map(str, seeds))}", *options, named]


def best(rows: Sequence[Row], metric: str, direction: str, constraints: Sequence[str]) -> Row | None:
    """The row that leads on the select half of those that meet the constraints, or None."""
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


def finish(folder: Path) -> None:
    """A sweep's last words: its leaderboard."""
    if any(trial.status == ledger.DONE for trial in ledger.trials(folder)):
        shown.show(leaderboard(folder, most=shown.MOST))
