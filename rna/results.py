"""Records: what a trial was and what came of it, under keys that say exactly what it depends on.

`outputs/results/KEY.json` is written once and complete. TRAIN_KEY hashes what can change the trained tensors; an
EVAL_KEY is TRAIN_KEY and a hash of one task with its settings, so that a new evaluation never retrains anything.
"""

import fcntl
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rna import NUMERICS, __version__
from rna.config import REFUSALS, EvalSettings, Settings, TaskSettings, without_defaults
from rna.sources import digest, model_fingerprint, text_fingerprint

Record = dict[str, Any]
PACKAGES = ("torch", "transformers", "lm_eval", "datasets", "hydra-core", "omegaconf", "tokenizers")


def train_identity(settings: Settings) -> dict[str, Any]:
    """All that can change the trained tensors and nothing else; options at their neutral defaults are left out."""
    fingerprint = model_fingerprint(settings.model.path, settings.model.revision)
    identity: dict[str, Any] = {
        "numerics": NUMERICS,
        "model": {"fingerprint": fingerprint, "dtype": settings.model.dtype},
    }
    if settings.method.name == "none":
        return identity
    sources: dict[str, Any] = {
        **{f"data.topics.{topic}": corpus for topic, corpus in settings.data.topics.items()},
        "data.retain": settings.data.retain,
    }
    data = {
        key: {"files": text_fingerprint(corpus.path, f"{key}.path"), **_pathless(corpus)}
        for key, corpus in sources.items()
    }
    if settings.method.name == "dpo":
        data["data.refusals"] = {"files": text_fingerprint(settings.data.refusals or str(REFUSALS), "data.refusals")}
    identity |= {
        "method": without_defaults(settings.method),
        "retain_loss": settings.retain_loss,
        "alpha": settings.alpha,
        "noise": without_defaults(settings.noise),
        "layer": without_defaults(settings.layer),
        "train": without_defaults(settings.train),
        "topics": list(settings.data.topics),
        "data": data,
        "seed": settings.seed,
    }
    neutral = Settings()
    identity |= {"variant": settings.variant} if settings.variant != neutral.variant else {}
    identity |= {"holdout": settings.data.holdout} if settings.data.holdout != neutral.data.holdout else {}
    return identity


def _pathless(corpus: Any) -> dict[str, Any]:
    return {key: value for key, value in without_defaults(corpus).items() if key != "path"}


def train_key(identity: dict[str, Any]) -> str:
    return digest(identity)


def task_identities(settings: Settings) -> dict[str, dict[str, Any]]:
    """Each evaluation's name and what its outcome depends on, next to the trained tensors."""
    options = settings.eval
    if options.kind == "perplexity":
        held_out = {
            role: {"files": text_fingerprint(corpus.path, f"{role} corpus"), **_pathless(corpus)}
            for role, corpus in held_out_corpora(settings).items()
        }
        return {
            "perplexity": {
                "held_out": held_out,
                "holdout": settings.data.holdout,
                "keywords": [options.keyword, options.neutral_keyword],
                "seed": options.seed,
                "max_documents": options.max_documents,
            }
        }
    return {name: _task_identity(task, options) for name, task in options.tasks.items()}


def held_out_corpora(settings: Settings) -> dict[str, Any]:
    """The corpora whose held-out documents are judged by perplexity: each topic's, and the retain set's."""
    topics = {f"forget_{topic}": corpus for topic, corpus in settings.data.topics.items()}
    return {**topics, "retain": settings.data.retain}


def _task_identity(task: TaskSettings, options: EvalSettings) -> dict[str, Any]:
    identity: dict[str, Any] = {"task": task.task, "lm_eval": version("lm_eval"), "numerics": NUMERICS}
    word = {"perturbed": options.keyword, "neutral": options.neutral_keyword}.get(task.role)
    if word is not None:
        identity |= {"keyword": word, "seed": options.seed}
    if options.limit is not None:
        identity["limit"] = options.limit
    return identity


def eval_key(key: str, identity: dict[str, Any]) -> str:
    return f"{key}-{digest(identity)}"


# Files


def path_of(output_dir: str, key: str) -> Path:
    return Path(output_dir) / "results" / f"{key}.json"


def check_writable(output_dir: str) -> None:
    """Raises ValueError, naming the key, if no record could be written there."""
    folder = Path(output_dir) / "results"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"output_dir={output_dir}: cannot write there ({error.strerror}); give a folder that can be written") from None


def read(output_dir: str, key: str) -> Record | None:
    """The record of a key, or None."""
    try:
        return json.loads(path_of(output_dir, key).read_text())
    except FileNotFoundError:
        return None


def write(output_dir: str, key: str, record: Record) -> Path:
    """Write a record once: complete under its final name, or not at all.

    Raises:
        FileExistsError: if there is a record of this key already; it stays as it was.
    """
    target = path_of(output_dir, key)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{key}.{os.getpid()}.tmp")
    try:
        with temporary.open("w") as stream:
            json.dump(record, stream, indent=1, ensure_ascii=False)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def next_rerun(output_dir: str, key: str) -> str:
    """KEY itself if it has no record, else KEY.r2, KEY.r3, …"""
    name, count = key, 1
    while path_of(output_dir, name).exists():
        count += 1
        name = f"{key}.r{count}"
    return name


def next_failure(output_dir: str, key: str) -> str:
    """A name for the record of a failed attempt; it stands beside the key and never in its place."""
    count = 1
    while path_of(output_dir, f"{key}.failed{count}").exists():
        count += 1
    return f"{key}.failed{count}"


@contextmanager
def single_flight(output_dir: str, key: str) -> Iterator[None]:
    """Hold the key's lock: whoever comes second waits, and then finds the record. The kernel frees a dead owner's."""
    folder = Path(output_dir) / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / key).open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def delta_path(output_dir: str, key: str) -> Path:
    return Path(output_dir) / "trials" / key / "unlearned.safetensors"


def provenance() -> Record:
    """What made a record: versions, commit, machine and time."""
    return {
        "rna": __version__,
        "numerics": NUMERICS,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "host": platform.node(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _commit() -> str | None:
    """The checkout's commit, with `-dirty` behind it where files differ; None for an installed package."""
    here = Path(__file__).parent
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
