"""Two trials side by side: the settings in which they differ, and their scores, question by question where both say."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rna import intervals
from rna.corpora import digest
from rna.intervals import Estimate, Terms
from rna.records import columns
from rna.records.listing import flat, prefixes
from rna.report.reading import evaluations_of
from rna.report.records import Evaluation
from rna.settings import title_of
from rna.store import Record, results

NOT_SETTINGS = ("notices", "output_dir", "rerun")  # what a trial was told and where it lies, not what it is
FACTS = ("rna", "commit", "host")
NATS = "nats a token"


@dataclass(frozen=True)
class Compared:
    """One task, or the mean of a role's, in both trials; accuracies in percent or log-losses in nats a token."""

    name: str
    first: float | None
    second: float | None
    change: Estimate | None  # second − first
    paired: bool
    note: str  # what it is paired over, or why it is not
    unit: str  # %, or nats a token


@dataclass(frozen=True)
class Comparison:
    """Two trials: what sets them apart, and what came of it."""

    keys: tuple[str, str]
    titles: tuple[str, str]
    settings: dict[str, tuple[Any, Any]]
    scores: list[Compared]

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def compare(output_dir: str, first: str, second: str) -> Comparison:
    """Raises ValueError, naming the key, for a KEY that is not there or is no trial's, and if both are one."""
    one, other = results.resolve(output_dir, first), results.resolve(output_dir, second)
    if one == other:
        raise ValueError(f"KEY={second}: the same trial as KEY={first}")
    records = [_record(output_dir, key) for key in (one, other)]
    judged = [[*_evaluations(output_dir, key)] for key in (one, other)]
    settings = [_settings(record, evaluated) for record, evaluated in zip(records, judged, strict=True)]
    names = list(dict.fromkeys([*settings[0], *settings[1]]))
    apart = {name: (settings[0].get(name), settings[1].get(name)) for name in names}
    evaluations = [[item for record in evaluated for item in evaluations_of(record)] for evaluated in judged]
    short = prefixes(results.keys(output_dir))
    return Comparison(
        (one, other),
        (_title(short[one], records[0]), _title(short[other], records[1])),
        {name: pair for name, pair in apart.items() if pair[0] != pair[1]},
        _scores(*evaluations),
    )


def _record(output_dir: str, key: str) -> Record:
    record = results.read(output_dir, key)
    if record is None or record.get("kind") != "train":
        raise ValueError(f"KEY={key}: has no record of a finished training; python -m rna.records lists all")
    return record


def _evaluations(output_dir: str, key: str) -> list[Record]:
    """The oldest first, and of one age in the order of their settings."""

    def place(record: Record) -> tuple[str, int]:
        tasks = list(record["config"]["eval"]["tasks"])
        return str(record.get("created")), tasks.index(record["task"]) if record["task"] in tasks else len(tasks)

    return sorted(results.evaluations(output_dir, key), key=place)


def _settings(record: Record, evaluated: list[Record]) -> dict[str, Any]:
    """Every setting under its dotted name, and what else a trial depends on: contents of files, versions."""
    most = max((one["config"]["eval"] for one in evaluated), key=lambda one: len(one["tasks"]), default=None)
    made = flat(record["config"] | ({"eval": most} if most else {}))
    made = {name: value for name, value in made.items() if name not in NOT_SETTINGS}
    identity = record["identity"]
    made |= {f"content of {name}": value for name, value in flat(identity.get("data") or {}).items()}
    made |= {"content of model.path": identity["model"]["fingerprint"], "numerics": identity.get("numerics")}
    return made | {name: record.get(name) for name in FACTS}


def _title(short: str, record: Record) -> str:
    noise = record["config"]["noise"]
    what = title_of(record) or record.get("label") or record["config"]["method"]["name"]
    what += f" ν {noise['nu']:g}" if noise["name"] != "none" else ""
    return f"{short} {what}, seed {record['config']['seed']}" if title_of(record) else f"{short} {what}"


# Scores


def _scores(one: Sequence[Evaluation], other: Sequence[Evaluation]) -> list[Compared]:
    """Each task by itself, then each role that several tasks have."""
    found: list[Compared] = []
    roles: dict[str, list[tuple[Compared, Terms]]] = {}
    for task in dict.fromkeys(item.task for item in [*one, *other]):
        for first, second in _partners([e for e in one if e.task == task], [e for e in other if e.task == task]):
            made, terms = _compared(first, second)
            found.append(made)
            item = first or second
            if item is not None and item.role != task and item.role not in {e.task for e in [*one, *other]}:
                roles.setdefault(item.role, []).append((made, terms))
    return found + [_mean(role, parts) for role, parts in roles.items() if len(parts) > 1]


def _partners(
    one: Sequence[Evaluation], other: Sequence[Evaluation]
) -> list[tuple[Evaluation | None, Evaluation | None]]:
    """The evaluations of a task that were made alike; where none were, the last of each."""
    theirs = {digest(item.identity): item for item in other}
    alike = [(item, theirs[digest(item.identity)]) for item in one if digest(item.identity) in theirs]
    return [*alike] or [(one[-1] if one else None, other[-1] if other else None)]


def _compared(first: Evaluation | None, second: Evaluation | None) -> tuple[Compared, Terms]:
    """One task in both, and the terms of second − first where there is a difference."""
    item = first or second
    assert item is not None
    name = f"{item.task} (noise at inference)" if "smoothing" in item.identity else item.task
    unit = "%" if "task" in item.identity else NATS
    scores = [None if one is None else one.parts["all"] for one in (first, second)]
    values = [None if score is None or not math.isfinite(score.value) else score.value for score in scores]
    if first is None or second is None:
        return Compared(name, values[0], values[1], None, False, "only one was judged on it", unit), ()
    if None in values:
        return Compared(name, values[0], values[1], None, False, "not finite", unit), ()
    a, b = first.parts["all"], second.parts["all"]
    keys = dict.fromkeys([*first.identity, *second.identity])
    apart = [key for key in keys if first.identity.get(key) != second.identity.get(key)]
    if apart:
        a, b = (replace(score, asked=None, correct=None, losses=None) for score in (a, b))
        said = ", ".join(f"{key} {_said(first.identity.get(key))} / {_said(second.identity.get(key))}" for key in apart)
        note = f"not paired: judged differently ({said})"
    elif a.units is not None and b.units is not None:
        note = f"paired over {a.n} {a.over}"
    else:
        what = "questions were right" if unit == "%" else "document had which loss"
        note = f"not paired: the records do not say which {what}"
    terms = intervals.difference([(1.0, b)], [(1.0, a)])
    change = intervals.estimate([terms])
    return Compared(name, a.value, b.value, change, change.paired, note, unit), terms


def _said(value: Any) -> str:
    return "–" if value is None else str(value) if isinstance(value, str | int | float) else digest(value)[:6]


def _mean(role: str, judged: Sequence[tuple[Compared, Terms]]) -> Compared:
    """The unweighted mean over a role's tasks."""
    parts = [part for part, _ in judged]
    names, unit = ", ".join(part.name for part in parts), parts[0].unit
    if not all(terms for _, terms in judged):
        return Compared(role, None, None, None, False, f"mean of {names}, of which some are missing", unit)
    change = intervals.estimate([[(weight / len(parts), score) for _, terms in judged for weight, score in terms]])
    first, second = (
        sum(value or 0.0 for value in values) / len(parts)
        for values in ([part.first for part in parts], [part.second for part in parts])
    )
    return Compared(role, first, second, change, change.paired, f"mean of {names}", unit)


# In words


def lines(found: Comparison) -> list[str]:
    """What sets the two apart, and their scores."""
    width = columns.width()
    first, second = found.titles
    made = [f"A  {first}", f"B  {second}", ""]
    if found.settings:
        cells = [[name, _cell(a), _cell(b)] for name, (a, b) in found.settings.items()]
        titles = ["setting", "A", "B"]
        made += columns.laid(titles, cells, left=titles, shorten=["A", "B"], width=width)
    else:
        made.append("no setting differs")
    if not found.scores:
        return [*made, "", "neither was evaluated"]
    cells = [
        [one.name, _number(one.first, one.unit), _number(one.second, one.unit), _change(one.change, one.unit)]
        for one in found.scores
    ]
    made += ["", *columns.laid(["score", "A", "B", "B − A [95 %]"], cells, left=["score"], width=width), ""]
    by_note: dict[str, list[str]] = {}
    for one in found.scores:
        by_note.setdefault(one.note, []).append(one.name)
    units = " and ".join(
        {"%": "accuracies in %", NATS: f"log-losses in {NATS}"}[unit]
        for unit in dict.fromkeys(one.unit for one in found.scores)
    )
    said = [f"{', '.join(names)}: {note}" for note, names in by_note.items()]
    return made + columns.wrapped([*said, f"{units}; intervals are over questions, not over other seeds"], width)


def _cell(value: Any) -> str:
    return "–" if value is None else str(value).replace("\n", "\\n")


def _number(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:.{1 if unit == '%' else 3}f}"


def _change(change: Estimate | None, unit: str) -> str:
    if change is None:
        return "–"
    digits = 1 if unit == "%" else 3
    text = f"{change.value:+.{digits}f}"
    if change.low is not None and change.high is not None:
        text += f" [{change.low:+.{digits}f}, {change.high:+.{digits}f}]"
    return text.replace("-", "−")
