"""What a sweep asks of the records: where a trial's lie, what they say, and which metrics there will be.

An address is plain data, kept with the trial, so that a thousand cells need composing once and not at each look.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rna import NUMERICS, __version__
from rna.corpora import digest
from rna.evaluation import foreign
from rna.evaluation import tofu as benchmark
from rna.intervals import scored, tofu
from rna.settings import (
    CONF,
    PERPLEXITY_PARTS,
    EvalSettings,
    Settings,
    config,
    interim_metrics,
    outside,
    roles,
    until_of,
    without_defaults,
)
from rna.settings import identity as plugin_identity
from rna.store import partial, results

Address = dict[str, Any]
Metrics = dict[str, Any]
HALVES = ("select", "report")
REACHED, STOPPED = TARGET = ("train/reached", "train/stopped_at")  # with `train.until`: 1 or 0, and its last step
ESTIMATES = {"choice": ("acc", "acc_stderr", "n"), "perplexity": ("nll", "nll_stderr", "ppl", "ppl_stderr", "n")}


def address(composed: Any) -> Address:
    """Where the records of a trial that Hydra composed lie, and how it is called.

    Raises:
        ValueError: for whatever `config.check` refuses.
    """
    return address_of(config.check(composed))


def address_of(settings: Settings) -> Address:
    if settings.rerun:
        raise ValueError("rerun=True: a sweep computes each trial once; allowed: false")
    identity = results.train_identity(settings)
    key = results.train_key(identity)
    tasks = {} if settings.train_only else results.task_identities(settings)
    probes = results.probe_identities(settings)
    return {
        "output_dir": settings.output_dir,
        "key": key,
        "evals": {name: results.eval_key(key, task) for name, task in (tasks | probes).items()},
        "kind": settings.eval.kind,
        "roles": task_roles(settings.eval),
        **({"probe": [f"{name}/{told}" for name in probes for told in settings.probe.tells()]} if probes else {}),
        **({"own": own} if tasks and (own := _own(settings.eval)) else {}),
        **({"against": keys} if tasks and (keys := against(settings)) else {}),
        "parts": [*(f"forget_{topic}" for topic in settings.data.topics), *PERPLEXITY_PARTS],
        "title": _title(settings),
        "seed": settings.seed,
        "group": digest({name: value for name, value in identity.items() if name != "seed"} | _beside(settings)),
        "interim": _interim(settings),
        "keep": settings.keep,
        "uses": list(dict.fromkeys([key, *_twin(settings)])),
        **({"race": True} if settings.eval.race else {}),
        **({"until": True} if until_of(settings) is not None else {}),
    }


def _twin(settings: Settings) -> list[str]:
    """The key of the plain training beside a trial with noise or a defence."""
    if not settings.protected or settings.baseline == "skip":
        return []
    return [results.train_key(results.train_identity(settings.plain()))]


def task_roles(options: EvalSettings) -> dict[str, str]:
    """Task -> role, where there are tasks."""
    return {name: task.role for name, task in options.tasks.items()} if options.kind == "choice" else {}


def _own(options: EvalSettings) -> dict[str, Any]:
    """Of the tasks that have other metrics than accuracy, their names, and the one that counts for the role."""
    if options.kind != "choice":
        return {}
    loaded = {name: foreign.load(name, options) for name in foreign.of(options, options.tasks)}
    found = {name: {"metrics": one.names, "score": one.score} for name, one in loaded.items()}
    whole = {"metrics": list(tofu.NAMES), "score": None, "halves": False}
    return found | dict.fromkeys(benchmark.of(options, options.tasks), whole)


def against(settings: Settings) -> dict[str, str]:
    """Of TOFU's tasks, the key of the retrained model's evaluation, which tells forget quality; none without one."""
    names = benchmark.of(settings.eval, settings.eval.tasks) if settings.eval.kind == "choice" else []
    other = settings.retrained()
    if not names or other is None:
        return {}
    tasks, key = results.task_identities(other), results.train_key(results.train_identity(other))
    return {name: results.eval_key(key, tasks[name]) for name in names}


def compared(judged: Metrics, output_dir: str, keys: dict[str, str]) -> Metrics | None:
    """`eval/tofu/forget_quality` and its log10, from these evaluations and the retrained model's; None while that has
    no record.

    Args:
        keys: as `against` has them.
    """
    flat: Metrics = {}
    for name, key in keys.items():
        other = _record({"output_dir": output_dir}, key)
        if other is None:
            return None
        flat |= _flat(f"eval/{name}", tofu.against(judged[name], other["metrics"]))
    return flat


def _interim(settings: Settings) -> list[str]:
    """The metrics of the evaluations on the way, where there are any."""
    if settings.eval.interim_every is None or not settings.method.trains:
        return []
    return interim_metrics(settings)


def _beside(settings: Settings) -> dict[str, Any]:
    """What parts a trial from others whose tensors it shares: noise at inference, a probe."""
    smoothing = {"smoothing": without_defaults(settings.noise)} if settings.noise.name == "inference" else {}
    return smoothing | ({"probe": plugin_identity(settings.probe)} if settings.probed else {})


def _title(settings: Settings) -> str:
    """The trial in a few words: method, retain loss, noise."""
    probe = [settings.probe.name] if settings.probed else []
    if not settings.method.trains:
        return "-".join([settings.method.name, *probe])
    noise = f"nu{settings.noise.nu:g}" if settings.noise.name != "none" else "plain"
    noise += "-inference" if settings.noise.name == "inference" else ""
    defences = [*([settings.defence.name] if settings.defended else []), *settings.forget_side.values()]
    return "-".join([settings.method.name, settings.retain_loss, *defences, noise, *probe])


def metrics(where: Address) -> Metrics | None:
    """The trial's metrics under flat names, `eval/forget/acc`; None until all of its records are there, and the one
    that forget quality is told against.

    A role that several tasks have holds their unweighted mean, with the standard error of independent parts.
    """
    trained = _record(where, where["key"])
    found = {name: _record(where, key) for name, key in where["evals"].items()}
    if trained is None or any(record is None for record in found.values()):
        return None
    flat: Metrics = dict((trained.get("curve") or [{}])[-1])
    if (until := trained.get("until")) is not None:
        flat |= dict(zip(TARGET, (float(until["reached"]), until["step"]), strict=True))
    told = {name: record["metrics"] for name, record in found.items() if record is not None}
    judged = {name: metrics for name, metrics in told.items() if not is_probe(name)}
    for name in told.keys() - judged.keys():
        flat |= of_probe(name, told[name])
    if where["kind"] == "perplexity":
        judged = judged.get("perplexity", {})
    quality = compared(judged, where["output_dir"], where.get("against", {}))
    if quality is None:
        return None
    flat |= of_tasks(judged) | of_roles(judged, where["roles"]) | quality
    took = [record.get("seconds") or 0.0 for record in found.values() if record is not None]
    return flat | {"seconds": (trained.get("seconds") or 0.0) + max(took, default=0.0)}


def is_probe(name: str) -> bool:
    """Whether an evaluation is a probe's, and not a task's."""
    return name.startswith("probe/")


def of_probe(name: str, metrics: Metrics) -> Metrics:
    """`probe/relearn/gain` and the like: the numbers of its summary."""
    return _flat(name, {what: value for what, value in metrics.items() if what not in ("states", "tasks", "documents")})


def of_tasks(judged: Metrics) -> Metrics:
    """`eval/forget_bio/acc` and the like: each task's own numbers."""
    flat: Metrics = {}
    for name, values in judged.items():
        flat |= _flat(f"eval/{name}", values)
    return flat


def of_roles(judged: Metrics, roles: dict[str, str]) -> Metrics:
    """`eval/forget/acc` and the like: over the tasks of a role, also where one of several has the role's name.

    A role's `acc` is the mean of what counts for it, whatever that is called in each task.
    """
    parts: dict[str, list[Metrics]] = {}
    for name, values in judged.items():
        if scored(values):
            parts.setdefault(roles.get(name, name), []).append(_for_role(values))
    flat: Metrics = {}
    for role, values in parts.items():
        if role not in judged or len(values) > 1:
            flat |= _flat(f"eval/{role}", _mean(values))
    return flat


def _for_role(values: Metrics) -> Metrics:
    """A task's metrics with what counts for its role as `acc`."""
    if "score" not in values:
        return values
    name = values["score"]
    made = {key: value for key, value in values.items() if key not in ("score", "subtasks", "truncated")}
    made |= {"acc": values.get(name), "acc_stderr": values.get(f"{name}_stderr")}
    return {key: _for_role(value) if isinstance(value, dict) else value for key, value in made.items()}


def _record(where: Address, key: str) -> results.Record | None:
    """A record that is whole; half of one, from a disk that lost it, is none, and makes room for another."""
    path = results.path_of(where["output_dir"], key)
    try:
        return results.read(where["output_dir"], key)
    except ValueError:
        path.replace(path.with_suffix(".broken"))
        return None


def _flat(prefix: str, values: Metrics) -> Metrics:
    flat: Metrics = {}
    for name, value in values.items():
        if isinstance(value, dict) and name != "keywords":  # a keyword may hold a slash
            flat |= _flat(f"{prefix}/{name}", value)
        elif value is None or isinstance(value, int | float):
            flat[f"{prefix}/{name}"] = value
    return flat


def _mean(parts: list[Metrics]) -> Metrics:
    mean: Metrics = {}
    for name in parts[0]:
        if any("score" in part and name not in part for part in parts):
            continue
        values: list[Any] = [part.get(name) for part in parts]
        if isinstance(values[0], str | list) or name == "keywords":  # of single questions, which have no mean
            continue
        if all(isinstance(value, dict) for value in values):
            mean[name] = _mean(values)
        elif any(not isinstance(value, int | float) for value in values):
            mean[name] = None
        elif name == "n":
            mean[name] = sum(values)
        else:
            mean[name] = (math.hypot(*values) if name.endswith("_stderr") else sum(values)) / len(values)
    return mean


def names(where: Address) -> list[str]:
    """The metrics that the trial's records will have."""
    train = [*TRAIN_CURVES, *(TARGET if where.get("until") else ()), *where.get("probe", ()), "seconds"]
    if not where["evals"]:
        return train
    if where["kind"] == "perplexity":
        return [f"eval/{part}/{name}" for part in where["parts"] for name in ESTIMATES["perplexity"]] + train
    own: dict[str, Any] = where.get("own", {})
    counts = {task: role for task, role in where["roles"].items() if task not in own or own[task]["score"] is not None}
    parts = [*(task for task in where["roles"] if task not in own), *counts.values()]
    flat = dict.fromkeys(f"eval/{part}/{name}" for part in parts for name in ESTIMATES["choice"])
    halves = dict.fromkeys(f"eval/{part}/{half}/acc" for part in parts for half in HALVES)
    also = [f"eval/{name}/{metric}" for name, metric in _own_names(where)]
    also += [f"eval/{name}/{what}" for name in where.get("against", ()) for what in (tofu.QUALITY, tofu.LOG_QUALITY)]
    return [*dict.fromkeys([*flat, *halves, *also]), *train]


def _own_names(where: Address) -> list[tuple[str, str]]:
    """The metrics of tasks that are not ours, whole and by halves, and those that all tasks of a role have."""
    own: dict[str, Any] = where.get("own", {})
    by_part = {task: told["metrics"] for task, told in own.items()}
    for role in dict.fromkeys(where["roles"][task] for task, told in own.items() if told.get("halves", True)):
        those = [own.get(task, {}).get("metrics", []) for task, named in where["roles"].items() if named == role]
        common = [name for name in those[0] if all(name in other for other in those)]
        by_part[role] = [*by_part.get(role, []), *common]
    halves = ("", *(f"{half}/" for half in HALVES))
    parted = {part: halves if own.get(part, {}).get("halves", True) else ("",) for part in by_part}
    return [(part, f"{half}{name}") for part, names in by_part.items() for half in parted[part] for name in names]


def tasks_of(where: Address, part: str) -> list[str]:
    """The tasks that a part of a metric's name means: one, or all of a role whose name goes before where it has
    several; but those of which nothing counts for it."""
    if where.get("kind") == "perplexity":
        return [name for name in where["evals"] if not is_probe(name)]
    roles: dict[str, str] = where.get("roles") or {}
    own: dict[str, Any] = where.get("own", {})
    asked = [name for name in where["evals"] if not is_probe(name)]
    known = [name for name in asked if name not in own or own[name]["score"] is not None]
    named = [name for name in known if roles.get(name) == part]
    return [part] if part in where["evals"] and len(named) < 2 else named


def raced_by(where: Address, metric: str) -> list[str]:
    """The tasks whose mean accuracy on the `select` half a race of this metric asks for; none if it cannot race."""
    found = re.fullmatch(r"eval/(.+?)(/select)?/acc", metric)
    tasks = tasks_of(where, found[1]) if found and where["kind"] == "choice" else []
    return [] if set(tasks) & set(where.get("own", {})) else tasks


def answered(where: Address, tasks: Sequence[str]) -> list[partial.Block]:
    """What the trial has answered in a race of these tasks, block by block."""
    return partial.read(where["output_dir"], where["key"], partial.asked(where["evals"], tasks))


def absent(where: Address, metric: str) -> str:
    """Why no record of the trial will have a metric that is not among its `names`."""
    kind, _, rest = metric.partition("/")
    part = rest.partition("/")[0]
    if kind == "eval" and not where["evals"]:
        return "train_only=true evaluates nothing"
    if kind == "eval" and where["kind"] == "choice" and part in roles.NAMES and part not in where["roles"].values():
        return f"no task of eval.tasks has the role {part}"
    if metric.endswith((f"/{tofu.QUALITY}", f"/{tofu.LOG_QUALITY}")):
        return "forget quality is told against a model retrained without the forget set; give model.retrained=…"
    return "no record has this metric"


TRAIN_CURVES = ["train/loss", "train/forget_loss", "train/retain_loss", "train/grad_norm"]


def curves(where: Address) -> list[str]:
    """The metrics whose course over the training can be watched."""
    return [*TRAIN_CURVES, *where.get("interim", [])]


def curve(where: Address, metric: str) -> list[tuple[int, float]]:
    """The course of a metric over a finished training: (step, value)."""
    trained = _record(where, where["key"]) or {}
    points = ((step, report.get(metric)) for step, report in enumerate(trained.get("curve") or [], 1))
    return [(step, value) for step, value in points if value is not None]


def objectives(where: Address) -> dict[str, str]:
    """What a sweep is judged by if it does not say: what the forget keyword leaves of the retain task."""
    if not where["evals"]:
        return {"train/loss": "minimize"}
    if where["kind"] == "perplexity":
        return {"eval/perturbed/nll": "minimize"}
    for role in ("perturbed", "retain"):
        if role in where["roles"].values():
            return {f"eval/{role}/acc": "maximize"}
    whole = next((name for name, told in where.get("own", {}).items() if not told.get("halves", True)), None)
    if whole is not None:
        named = [tofu.QUALITY] if whole in where.get("against", {}) else []
        return {f"eval/{whole}/{what}": "maximize" for what in (*named, tofu.UTILITY)}
    return {f"eval/{next(iter(where['roles']))}/acc": "maximize"}


def fingerprint(common: dict[str, Any]) -> str:
    """What the addresses of a sweep depend on: the settings that its trials have in common, as they stand before
    interpolation, the options, the files they name, what the user brought, the version of the numerics."""
    files = sorted(CONF.rglob("*.yaml"))
    told: list[Any] = [NUMERICS, __version__, common, [[file.name, file.read_text(encoding="utf-8")] for file in files]]
    told.append(outside.sources())
    for file in foreign.files_of((common.get("eval") or {}).get("include_path")):
        told.append([str(file), file.stat().st_size, file.stat().st_mtime_ns])
    for path in (Path(text).expanduser() for text in sorted({text for text in _texts(common) if "/" in text})):
        if path.is_file():
            told.append([str(path), path.stat().st_size, path.stat().st_mtime_ns])
    return digest(told)


def _texts(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [text for value in node.values() for text in _texts(value)]
    if isinstance(node, list):
        return [text for value in node for text in _texts(value)]
    return [node] if isinstance(node, str) else []
