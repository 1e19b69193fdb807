"""Trials as flat rows: every setting under its dotted name, every metric under its own, and where they came from."""

import difflib
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from rna.corpora import digest
from rna.records import files, reading
from rna.records.reading import Read, Trained
from rna.report.records import keys_of
from rna.settings import config
from rna.store import Record, lookup, results

ROLES = ("forget", "retain", "perturbed")
ARMS = ("plain", "rna", "base", "retrained", "given", "smoothed")
SHORT = 6  # letters of a key that a table shows, at least
Row = dict[str, Any]


@dataclass(frozen=True)
class Filters:
    """What a row must be; an empty tuple lets all pass."""

    method: tuple[str, ...] = ()
    retain: tuple[str, ...] = ()
    nu: tuple[float, ...] = ()
    seed: tuple[int, ...] = ()
    model: tuple[str, ...] = ()
    arm: tuple[str, ...] = ()

    def keep(self, row: Row) -> bool:
        named = [(getattr(self, item.name), row[COLUMN_OF[item.name]]) for item in fields(self) if item.name != "nu"]
        near = not self.nu or any(math.isclose(nu, row["nu"], rel_tol=1e-6) for nu in self.nu)
        return near and all(not allowed or value in allowed for allowed, value in named)

    @property
    def any(self) -> bool:
        return any(getattr(self, item.name) for item in fields(self))


COLUMN_OF = {
    "method": "method.name",
    "retain": "retain_loss",
    "nu": "nu",
    "seed": "seed",
    "model": "model.name",
    "arm": "arm",
}


def trials(
    output_dir: str = "outputs",
    *,
    method: str | Sequence[str] = (),
    retain: str | Sequence[str] = (),
    nu: float | Sequence[float] = (),
    seed: int | Sequence[int] = (),
    model: str | Sequence[str] = (),
    arm: str | Sequence[str] = (),
    sweep: str | Sequence[str] = (),
    sort: str = "created",
) -> list[Row]:
    """One flat row a trial, the newest last, as `pandas.DataFrame` takes them.

    Beside `key`, `arm`, `method`, `nu`, `created` and `bytes` a row has each setting under its dotted name
    (`noise.layers`) and each metric under its own (`eval/perturbed/acc`, in 0 to 1; a role's is the mean of its tasks).
    A training that was judged with noise at inference too has a second row, of arm `smoothed`. Where a task was judged
    in several ways the last counts, and `judged_otherwise` names it.

    Args:
        output_dir: the folder that holds `results/`.
        method, retain, model: names as on rna.run's command line.
        nu: the noise's scale; 0 for plain.
        arm: plain, rna, base, retrained, given or smoothed.
        sweep: sweeps, of which the plain twins and the references are taken too.
        sort: a column of the table or any field, ascending, rows without it first.

    Raises:
        ValueError: if there is no such folder, sweep, arm, or field to sort by.
    """
    chosen = Filters(*(_several(values) for values in (method, retain, nu, seed, model, arm)))
    found = read(output_dir)
    return ordered(select(found, output_dir, chosen, _several(sweep)), sort)


def _several(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str | int | float) else tuple(value)


def read(output_dir: str, *, wandb: bool = False) -> Read:
    """All that lies there. Raises ValueError if there is no such folder."""
    if not Path(output_dir).is_dir():
        raise ValueError(f"--output-dir {output_dir}: no such folder")
    return reading.read(files.of_trials(output_dir, wandb=wandb))


def select(found: Read, output_dir: str, filters: Filters, sweeps: Sequence[str] = ()) -> list[Row]:
    """The rows that pass, in the order in which they were trained."""
    if wrong := sorted(set(filters.arm) - set(ARMS)):
        raise ValueError(f"--arm {wrong[0]}: {config.nearest(wrong[0], list(ARMS))}")
    keys = None
    if sweeps:
        keys = set[str]().union(*(keys_of(output_dir, name) for name in sweeps))
        shared = needs(found.trials)
        keys |= {needed for key in list(keys) for needed in shared.get(key, ())}
    short = prefixes(results.keys(output_dir))
    made = [row for trained in found.trials if keys is None or trained.key in keys for row in rows(trained)]
    return [row | {"prefix": short.get(row["key"], row["key"])} for row in made if filters.keep(row)]


def prefixes(keys: Iterable[str]) -> dict[str, str]:
    """The fewest letters that name each key, at least six; reruns differ behind them."""
    split = {key: key.partition(".r") for key in keys}
    heads = sorted({head for head, _, _ in split.values()})
    needed = dict.fromkeys(heads, SHORT)
    for one, next_one in itertools.pairwise(heads):
        alike = next((place for place, (a, b) in enumerate(zip(one, next_one, strict=False)) if a != b), len(one))
        needed[one], needed[next_one] = max(needed[one], alike + 1), max(needed[next_one], alike + 1)
    return {key: head[: needed[head]] + behind + number for key, (head, behind, number) in split.items()}


def needs(trials: Sequence[Trained]) -> dict[str, set[str]]:
    """Of each key the others that a comparison shows beside it: its plain twin, its base, its retrained model."""

    def alike(one: Trained, *, noise: bool) -> str:
        identity = one.record["identity"]
        return digest(identity if noise else {name: value for name, value in identity.items() if name != "noise"})

    first = [one for one in trials if ".r" not in one.key]
    plain = {alike(one, noise=False): one.key for one in first if one.arm == "plain"}
    base = {alike(one, noise=True): one.key for one in first if one.arm == "base"}
    retrained: dict[str, set[str]] = {}
    for one in first:
        if one.arm == "retrained":
            retrained.setdefault(one.record["config"]["model"]["name"], set()).add(one.key)
    found: dict[str, set[str]] = {}
    for one in trials:
        identity = one.record["identity"]
        own = {base.get(digest({name: identity.get(name) for name in ("numerics", "model")}))}
        own |= {plain.get(alike(one, noise=False))} if one.arm == "rna" else set()
        own |= retrained.get(one.record["config"]["model"]["name"], set()) if one.arm != "base" else set()
        found[one.key] = {key for key in own if key is not None and key != one.key}
    return found


# Rows


def rows(trained: Trained) -> list[Row]:
    """A training's row, and one for each noise at inference that it was judged with."""
    by_noise: dict[str, list[Record]] = {"": []}
    for one in trained.evaluations:
        smoothing = (one.get("task_identity") or {}).get("smoothing")
        by_noise.setdefault(digest(smoothing) if smoothing else "", []).append(one)
    return [_row(trained, evaluations, bool(noise)) for noise, evaluations in by_noise.items()]


def _row(trained: Trained, evaluations: list[Record], smoothed: bool) -> Row:
    record = trained.record
    most = max((one["config"] for one in evaluations), key=lambda one: len(one["eval"]["tasks"]), default=None)
    settings = record["config"] | ({"eval": most["eval"]} if most else {})
    settings |= {"noise": most["noise"]} if smoothed and most else {}
    arm = "smoothed" if smoothed else trained.arm
    last = {one["task"]: one for one in evaluations}  # the oldest came first
    row: Row = {
        "key": trained.key,
        "arm": arm,
        "method": trained.method or _reference(arm, record),
        "nu": float(settings["noise"]["nu"]) if arm in ("rna", "smoothed") else 0.0,
        "created": record.get("created"),
        "bytes": trained.bytes,
        "tensors": any(file.kind == "tensors" for file in trained.files),
        "evaluations": len(evaluations),
        "judged_otherwise": sorted({one["task"] for one in evaluations if one is not last[one["task"]]}),
    }
    row |= {name: record.get(name) for name in ("seconds", "rna", "numerics", "commit", "host")}
    row["wandb.run"] = record.get("wandb")
    probed = {one["task"]: one["metrics"] for one in trained.probes if not smoothed}
    row |= {name: value for task, told in probed.items() for name, value in lookup.of_probe(task, told).items()}
    return row | flat(settings) | _metrics(list(last.values()))


def _reference(arm: str, record: Record) -> str:
    """What a table calls a model that was not trained here."""
    return f"given {Path(record['config']['method']['path']).name}" if arm == "given" else arm


def flat(settings: dict[str, Any]) -> Row:
    """Nested settings under dotted names."""
    found: Row = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": one for inner, one in flat(value).items()}
        else:
            found[name] = value
    return found


def _metrics(evaluations: Iterable[Record]) -> Row:
    found: Row = {}
    by_task = sorted(evaluations, key=lambda one: one["config"]["eval"]["kind"], reverse=True)  # an accuracy's n wins
    choice = {one["task"]: one["metrics"] for one in by_task if one["config"]["eval"]["kind"] != "perplexity"}
    roles = {
        one["task"]: task["role"]
        for one in by_task
        if (task := one["config"]["eval"]["tasks"].get(one["task"])) is not None
    }
    for one in by_task:
        if one["config"]["eval"]["kind"] == "perplexity":
            parts: dict[str, Any] = one["metrics"]
            found |= lookup.of_tasks(parts) | _forget(parts)
    return found | lookup.of_tasks(choice) | lookup.of_roles(choice, roles)


def _forget(parts: dict[str, Any]) -> Row:
    """The mean over the forget topics, of which a perplexity record has each under its own name."""
    made = lookup.of_roles(parts, {name: "forget" for name in parts if name.startswith("forget_")})
    made = {name: value for name, value in made.items() if name.startswith("eval/forget/")}
    if made.get("eval/forget/nll") is not None:  # the perplexity of a mean is the exponential of the mean log-loss
        made["eval/forget/ppl"] = math.exp(min(made["eval/forget/nll"], 700.0))
        made["eval/forget/ppl_stderr"] = made["eval/forget/ppl"] * (made["eval/forget/nll_stderr"] or math.nan)
    return made


# Order


def ordered(found: list[Row], name: str) -> list[Row]:
    """The rows by a column of the table or any field, ascending; those without it first."""
    if name in ROLES:
        has_acc = any(f"eval/{name}/acc" in row for row in found)
        name = f"eval/{name}/{'acc' if has_acc else 'ppl'}"
    name = {"age": "created", "size": "bytes", "model": "model.name", "ν": "nu", "prefix": "key"}.get(name, name)
    known = list(dict.fromkeys(field for row in found for field in row))
    if found and name not in known:
        shown = ["key", "method", "nu", "seed", "model", *ROLES, "age", "size"]
        close = difflib.get_close_matches(name, shown, n=1) or difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ValueError(f"--sort {name}: {hint}allowed: {', '.join(shown)}, and every field that --json shows")
    return sorted(found, key=lambda row: _rank(row.get(name)))


def _rank(value: Any) -> tuple[int, float, str]:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return (0, 0.0, "")
    return (1, float(value), "") if isinstance(value, int | float) else (2, 0.0, str(value))


# Table


def cells(found: list[Row], now: datetime) -> list[list[str]]:
    """A line for each row, in the order of `TITLES`."""
    return [
        [
            row["prefix"],
            row["method"] + (" smoothed" if row["arm"] == "smoothed" else ""),
            f"{row['nu']:g}" if row["nu"] else "–",
            str(row["seed"]) if row["arm"] in ("plain", "rna", "smoothed") else "–",
            str(row["model.name"]),
            *(score(row, role) for role in ROLES),
            age(row["created"], now),
            in_bytes(row["bytes"]),
        ]
        for row in found
    ]


TITLES = ["key", "method", "ν", "seed", "model", *ROLES, "age", "size"]


def score(row: Row, role: str) -> str:
    """A role's accuracy in percent, else its perplexity; with a star where it was judged in several ways."""
    star = "*" if role in row["judged_otherwise"] else ""
    if (accuracy := row.get(f"eval/{role}/acc")) is not None:
        return f"{100 * accuracy:.1f}{star}"
    perplexity = row.get(f"eval/{role}/ppl")
    return "–" if perplexity is None else f"ppl {perplexity:.4g}{star}"


def age(created: str | None, now: datetime) -> str:
    """The time since then in its largest unit."""
    try:
        seconds = (now - datetime.fromisoformat(created or "")).total_seconds()
    except (ValueError, TypeError):
        return "–"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def in_bytes(count: int | float) -> str:
    """Bytes for a person: 512 B, 2.1 MiB."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count > 999 * size // 1024:
            return f"{count / size:.{0 if count >= 100 * size else 1}f} {unit}"
    return f"{count:.0f} B"
