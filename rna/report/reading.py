"""A folder of records, or a packed file of them, as trials, and what could not be used of it."""

import json
import lzma
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rna.corpora import digest
from rna.intervals import scored, scores_of
from rna.report.records import Evaluation, Trial
from rna.settings import LAYER, TOFU, reads_of, title_of
from rna.store import Record

KNOWN_FIELDS = frozenset(
    "kind key label config identity rna numerics commit python packages host created seconds peak_memory_bytes "
    "losses curve wandb delta delta_bytes delta_sha256 truncated_documents short_documents unanswered_pairs "
    "warnings until train_key task task_identity metrics reason step message".split()
)
ANALYSIS = "analysis"  # what a packed file holds beside records
CURVE_POINTS = 50  # a training curve is kept as so many means
ON_THE_WAY = ("interim/forget/acc", "interim/perturbed/acc")  # of which each evaluation is kept, with its step


@dataclass
class Failure:
    """A trial that stopped."""

    key: str
    name: str
    reason: str
    message: str
    method: str
    seed: int


@dataclass
class Loaded:
    """All that a folder of records holds, and what could not be used."""

    trials: list[Trial] = field(default_factory=list)
    smoothed: list[Trial] = field(default_factory=list)  # trials once more, with noise at inference
    probed: dict[str, list[Record]] = field(default_factory=dict)  # by training key, the records of probes
    failures: list[Failure] = field(default_factory=list)
    files: int = 0
    unknown: Counter[str] = field(default_factory=Counter)  # fields that this version does not know
    unreadable: list[str] = field(default_factory=list)
    reruns: int = 0  # of keys that have a first record; the first counts


def names_of(source: str | Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """The records of a folder's `results`, or of a packed file, by name, each with what reads its text.

    Raises:
        ValueError: for a file that is not packed records.
    """
    if not Path(source).is_file():
        for file in sorted((Path(source) / "results").glob("*.json")):
            if not file.name.startswith("."):
                yield file.name, partial(file.read_text, encoding="utf-8")
        return
    try:
        text = lzma.decompress(Path(source).read_bytes()).decode()
    except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise ValueError(
            f"--from {source}: holds no packed records ({error}); python -m rna.records pack makes such"
        ) from None
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):  # no other line ends: texts may hold them
        yield f"{Path(source).name}:{number}", partial(str, line)


def load(*sources: str | Path) -> Loaded:
    """Read the records of `OUTPUT_DIR/results`, or of packed files."""
    found = Loaded()
    trained: dict[str, Record] = {}
    evaluated: dict[str, list[Record]] = {}
    probed: dict[str, list[Record]] = {}
    for name, text in (one for source in sources for one in names_of(source)):
        found.files += 1
        try:
            record = json.loads(text())
            if record["kind"] == ANALYSIS:  # which `packed.analysed` reads
                continue
            key, kind = str(record["key"]), record["kind"]
            _needed(record)
        except (OSError, ValueError, KeyError, TypeError) as error:
            found.unreadable.append(f"{name}: {type(error).__name__}: {error}")
            continue
        found.unknown.update(field for field in record if field not in KNOWN_FIELDS)
        if kind == "failure":
            reason, message = str(record.get("reason", "")), str(record.get("message", ""))
            method, seed = title_of(record), int(record["config"]["seed"])
            found.failures.append(Failure(key, name.removesuffix(".json"), reason, message, method, seed))
        elif kind == "train":
            trained[key] = {**record, "curve": _shortened(record.get("curve") or [])}
        elif kind == "eval":
            evaluated.setdefault(record["train_key"], []).append(record)
        elif kind == "probe":
            probed.setdefault(record["train_key"], []).append(record)
        else:
            found.unreadable.append(f"{name}: kind={kind!r}")
    for key, record in trained.items():
        if ".r" in key and key.partition(".r")[0] in trained:
            found.reruns += 1
        else:
            by_kind: dict[str, list[Record]] = {}
            smoothed: dict[str, list[Record]] = {}
            for one in evaluated.get(key, []):
                smoothing = one["task_identity"].get("smoothing")
                groups, name = (smoothed, digest(smoothing)) if smoothing else (by_kind, one["config"]["eval"]["kind"])
                groups.setdefault(name, []).append(one)
            found.trials += [_trial(key, record, group) for group in by_kind.values() or [[]]]
            found.probed |= {key: probed[key]} if key in probed else {}
            found.smoothed += [_smoothed(_trial(key, record, group), group) for group in smoothed.values()]
    return found


def _needed(record: Record) -> None:
    """Raises KeyError or TypeError if a record lacks what no report can do without."""
    config = record["config"]
    _ = config["method"]["name"], config["noise"]["name"], config["model"]["name"], config["data"]["name"]
    _ = int(config["seed"]), config["eval"]["kind"], config["eval"]["tasks"], record["identity"]["model"]["fingerprint"]
    if record["kind"] in ("eval", "probe"):
        _ = record["train_key"], record["task"], dict(record["metrics"]), dict(record["task_identity"])


def _shortened(curve: list[dict[str, float | None]]) -> dict[str, list[tuple[float, float]]]:
    """A training curve as means of neighbouring steps, whose topics alternate; evaluations on the way as they are."""
    width = max(1, math.ceil(len(curve) / CURVE_POINTS))
    short: dict[str, list[tuple[float, float]]] = {}
    for name in ON_THE_WAY:
        found = [(float(number), step.get(name)) for number, step in enumerate(curve, 1)]
        if known := [(number, value) for number, value in found if value is not None]:
            short[name] = known
    for name in curve[0] if curve else ():
        if name in short:
            continue
        points: list[tuple[float, float]] = []
        for start in range(0, len(curve), width):
            values = [step.get(name) for step in curve[start : start + width]]
            finite = [value for value in values if value is not None]
            if finite:
                points.append((start + (len(values) + 1) / 2, sum(finite) / len(finite)))
        short[name] = points
    return short


def _trial(key: str, record: Record, evaluated: list[Record]) -> Trial:
    # Of several ways of evaluating the one with most tasks, which holds the others' as a rule.
    most = max((one["config"]["eval"] for one in evaluated), key=lambda one: len(one["tasks"]), default=None)
    config = record["config"] | ({"eval": most} if most else {})
    evaluations = tuple(item for one in evaluated for item in evaluations_of(one))
    curve = record["curve"]
    names = ("rna", "numerics", "commit", "host", "created", "seconds", "wandb", "until")
    facts = {name: record.get(name) for name in names}
    peak = record.get("peak_memory_bytes") or {}
    facts["memory"] = peak.get("gpu") or peak.get("process")
    seconds = max((one.get("seconds") or 0.0 for one in evaluated), default=0.0)
    return Trial(
        key,
        arm_of(record),
        title_of(record),
        int(config["seed"]),
        config,
        record["identity"],
        facts,
        curve,
        evaluations,
        seconds,
        tofu={digest(one["task_identity"]): one["metrics"] for one in evaluated if _is_tofu(one)},
        family={"": "", LAYER: "RM"}.get(reads_of(record) if title_of(record) else "", "PO"),
    )


def _is_tofu(record: Record) -> bool:
    return record["task_identity"].get("task") == TOFU


def arm_of(record: Record) -> str:
    """What a training is in a comparison: base, retrained, given, plain or rna."""
    name = record["config"]["method"]["name"]
    if name == "given":
        return "given"
    if name == "none":
        return "retrained" if record.get("label") == "retrained" else "base"
    return "plain" if record["config"]["noise"]["name"] == "none" else "rna"


def _smoothed(trial: Trial, evaluated: list[Record]) -> Trial:
    """A trial as its evaluations with noise at inference saw it."""
    smoothing = evaluated[0]["task_identity"]["smoothing"]
    identity = {**trial.identity, "noise": None, "smoothing": smoothing}
    config = trial.config | {"noise": evaluated[0]["config"]["noise"]}
    return replace(trial, arm="smoothed", identity=identity, config=config)


def evaluations_of(record: Record) -> Iterator[Evaluation]:
    """A record's evaluations: one, or for perplexity one for each text it was measured on."""
    task, metrics = record["task"], record["metrics"]
    if record["config"]["eval"]["kind"] == "perplexity":
        for name, values in metrics.items():
            role = "forget" if name.startswith("forget_") else name
            yield Evaluation(name, role, record["task_identity"], scores_of(values, name))
        return
    if not scored(metrics):
        return
    role = (record["config"]["eval"]["tasks"].get(task) or {}).get("role", task)
    yield Evaluation(task, role, record["task_identity"], scores_of(metrics, task))
