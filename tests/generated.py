"""Records as trials write them, made up: scores follow a formula, so that tests know what a report must say."""

import copy
import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rna.corpora.sources import digest
from rna.settings.fields import (
    CorpusSettings,
    DataSettings,
    EvalSettings,
    LayerSettings,
    ModelSettings,
    NoiseSettings,
    Settings,
    TaskSettings,
    TrainSettings,
)
from tests.setups import method_of

PAIRS = [
    *((name, "representation") for name in ("rmu", "adaptive_rmu", "rsv")),
    *((name, loss) for name in ("npo", "dpo", "simnpo") for loss in ("kl", "mse")),
]
TASKS = {
    "forget_bio": "forget",
    "forget_cyber": "forget",
    "retain": "retain",
    "perturbed": "perturbed",
    "neutral": "neutral",
    "related": "related",
}
N = 400


def settings(
    method: str = "npo", retain: str = "mse", *, nu: float = 0.0, alpha: float = 1.0, seed: int = 0, **more: Any
):
    """A trial's settings on a model of four layers."""
    noise = NoiseSettings("rna", nu, "std", more.get("layers", [2])) if nu else NoiseSettings("none", 0.0, "std", [])
    none = method == "none"
    return Settings(
        method=method_of(method, **more.get("options", {})),
        retain_loss="none" if none else retain,
        alpha={} if none else {"bio": alpha, "cyber": alpha},
        noise=noise,
        layer=LayerSettings(unlearn=more.get("unlearn", 2), trained=list(range(more.get("unlearn", 2) + 1))),
        model=ModelSettings(name=more.get("model", "demo"), path="base", unlearn_layer=2, num_layers=4),
        data=DataSettings("demo", {"bio": CorpusSettings("b.jsonl"), "cyber": CorpusSettings("c.jsonl")}),
        train=TrainSettings(steps=more.get("steps", 100), lr=3e-5),
        eval=EvalSettings(
            name=more.get("eval", "demo"),
            keyword=more.get("keyword", "marsh fevers"),
            tasks={name: TaskSettings(f"rna_demo_{name}", role) for name, role in TASKS.items()},
        ),
        seed=seed,
    )


def record(
    made: Settings,
    *,
    label: str = "",
    numerics: int = 2,
    curve: int = 100,
    commit: str = "a" * 40,
    until: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The record of a training; `until`: how one with `train.until` ended."""
    config = asdict(made)
    identity: dict[str, Any] = {
        "numerics": numerics,
        "model": {"fingerprint": f"{label or 'base'}", "dtype": "float32"},
    }
    if made.method.name != "none":
        identity["model"]["fingerprint"] = "base"
        names = ("method", "retain_loss", "alpha", "layer", "train", "seed")
        identity |= {name: config[name] for name in names}
        identity["noise"] = config["noise"]
        identity |= {"topics": ["bio", "cyber"], "data": {"data.retain": "r"}}
    draw = random.Random(digest(identity))
    steps = [
        {
            "train/forget_loss": 10 / (1 + step / 20) + draw.random(),
            "train/retain_loss": draw.random(),
            "train/loss": draw.random(),
            "train/grad_norm": draw.random(),
            "train/tokens_per_second": 4000 + draw.random(),
        }
        for step in range(curve if made.method.name != "none" else 0)
    ]
    return {
        "kind": "train",
        "key": digest(identity),
        "label": label,
        "config": config,
        "identity": identity,
        "rna": "0.1.0",
        "numerics": numerics,
        "commit": commit,
        "host": "h",
        "created": "2026-01-01T00:00:00+0000",
        "seconds": 12.5,
        "peak_memory_bytes": {"process": 2**29},
        "curve": steps,
        "wandb": "somewhere/wandb/offline-run-1-x",
        **({} if until is None else {"until": until}),
    }


def evaluation(
    trained: dict[str, Any], task: str, acc: float, *, keyword: str = "marsh fevers", more: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The record of one task's evaluation."""
    identity: dict[str, Any] = {"task": f"rna_demo_{task}", "lm_eval": "0.4.13", "numerics": 2}
    if task in ("perturbed", "neutral"):
        identity |= {"keyword": keyword if task == "perturbed" else "Lake Geneva", "seed": 0}
    if task.startswith("ngram"):
        _, n, group = task.split("_")
        identity |= {"task": "rna_demo_ngram", "n": int(n), "group": group, "ngrams": "mined", "seed": 0}
    metrics = {"acc": acc, "acc_stderr": (acc * (1 - acc) / (N - 1)) ** 0.5, "n": N} | (more or {})
    common = {name: value for name, value in trained.items() if name not in ("curve", "wandb")}
    extra = {"kind": "eval", "train_key": trained["key"], "task": task, "task_identity": identity, "metrics": metrics}
    return copy.deepcopy(common) | extra


def write(folder: Path, *records: dict[str, Any]) -> None:
    """Each under the name that a trial would give it."""
    where = folder / "results"
    where.mkdir(parents=True, exist_ok=True)
    for item in records:
        suffix = f"-{digest(item['task_identity'])}" if item["kind"] == "eval" else ""
        (where / f"{item['key']}{suffix}.json").write_text(json.dumps(item, indent=1))


def trial(folder: Path, made: Settings, scores: dict[str, float], **facts: Any) -> str:
    """Write a training with its evaluations, scores in percent by task; returns its key."""
    trained = record(made, **facts)
    keyword = made.eval.keyword
    write(folder, trained, *(evaluation(trained, task, score / 100, keyword=keyword) for task, score in scores.items()))
    return trained["key"]


def scores(forget: float, perturbed: float, retain: float = 95.0) -> dict[str, float]:
    return {
        "forget_bio": forget,
        "forget_cyber": forget,
        "retain": retain,
        "perturbed": perturbed,
        "neutral": retain - 1,
        "related": retain - 2,
    }


def references(folder: Path) -> None:
    """The base model and the retrained one."""
    trial(folder, settings("none"), scores(98, 97, 99), label="base")
    trial(folder, settings("none"), scores(25, 96, 97), label="retrained")


def world(
    folder: Path,
    *,
    seeds: int = 3,
    alphas: tuple[float, ...] = (0.5, 1.0, 2.0),
    nus: tuple[float, ...] = (0.014,),
    curve: int = 100,
    pairs: Sequence[tuple[str, str]] = PAIRS,
) -> int:
    """Methods (every one) over α, ν and seeds; RNA gains PO methods 10 points of perturbed accuracy. Counts trials."""
    references(folder)
    count = 0
    for method, retain in pairs:
        for alpha in alphas:
            for seed in range(seeds):
                for nu in (0.0, *nus):
                    made = settings(method, retain, nu=nu, alpha=alpha, seed=seed)
                    gain = 10.0 if nu and retain != "representation" else 0.0
                    jitter = random.Random(f"{method}{retain}{alpha}{seed}{nu}").uniform(-1, 1)
                    level = 26 + 6 * alphas.index(alpha)
                    trial(folder, made, scores(level + 0.5 * jitter, 40 + level / 2 + gain + jitter), curve=curve)
                    count += 1
    return count
