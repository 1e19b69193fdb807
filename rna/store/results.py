"""Records: what a trial was and what came of it, under keys that say exactly what it depends on.

`outputs/results/KEY.json` is written once and complete. TRAIN_KEY hashes what can change the trained tensors; an
EVAL_KEY is TRAIN_KEY and a hash of one task with its settings, so that a new evaluation never retrains anything.
"""

import difflib
import fcntl
import hashlib
import json
import math
import os
import platform
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rna import NUMERICS, __version__, ends
from rna.corpora import chat_fingerprint, digest, fingerprint, model_fingerprint, text_fingerprint
from rna.evaluation import asked, foreign, questions, tofu
from rna.perturb import mined, read_keywords
from rna.settings import (
    BUILTIN,
    FORGET_NLL,
    LAYERS,
    NEUTRAL,
    REFUSALS,
    RETRAINED,
    SEED,
    TASKS,
    TEXTS,
    TOFU,
    EvalSettings,
    ModelSettings,
    Settings,
    TaskSettings,
    roles,
    without_defaults,
)
from rna.settings import identity as plugin_identity

Record = dict[str, Any]
PACKAGES = ("torch", "transformers", "lm_eval", "datasets", "hydra-core", "omegaconf", "tokenizers")


def train_identity(settings: Settings) -> dict[str, Any]:
    """All that can change the trained tensors and nothing else; options at their neutral defaults are left out."""
    identity: dict[str, Any] = {
        "numerics": NUMERICS,
        "model": {
            "fingerprint": model_fingerprint(settings.model.path, settings.model.revision, settings.hashes()),
            "dtype": settings.model.dtype,
        },
    }
    for option in ("attn_implementation", "layer_path"):
        value = getattr(settings.model, option)
        identity["model"] |= {option: value} if value != getattr(ModelSettings, option) else {}
    if settings.method.name == "given":
        given = settings.judged()
        identity["given"] = model_fingerprint(given.path, given.revision, settings.hashes(), key="method.path")
    if not settings.method.trains:
        return identity
    settings = settings.for_training()
    data = _corpora(settings)
    if settings.method.refusals:
        data["data.refusals"] = text_fingerprint(
            settings.data.refusals or str(REFUSALS), "data.refusals", None, settings.hashes()
        )
    identity |= {
        "method": plugin_identity(settings.method),
        "retain_loss": settings.retain_loss,
        "alpha": settings.alpha,
        "noise": _noise(settings),
        "layer": without_defaults(settings.layer),
        "train": {key: value for key, value in without_defaults(settings.train).items() if key not in NEUTRAL},
        "topics": list(settings.data.topics),
        "data": data,
        "seed": settings.seed,
    }
    for option in ("optimizer", "forget_weights"):
        value = without_defaults(getattr(settings, option))
        identity |= {option: value} if value else {}
    if settings.defended:
        identity["defence"] = plugin_identity(settings.defence)
    if settings.train.until is not None:
        judged = {name: task for name, task in task_identities(settings).items() if _decides(settings, name)}
        options = settings.eval
        identity["until"] = {"every": options.interim_every, "limit": options.interim_limit, "tasks": judged}
    if (own := plugin_identity(settings.retain)) != {"name": settings.retain_loss}:
        identity["retain_loss"] = own
    neutral = Settings()
    identity |= {"variant": settings.variant} if settings.variant != neutral.variant else {}
    for option in ("holdout", "order", "max_refusals", "retain_cut"):
        value = getattr(settings.data, option)
        identity |= {option: value} if value != getattr(neutral.data, option) else {}
    return identity


def _decides(settings: Settings, name: str) -> bool:
    """Whether an evaluation tells where a training with `train.until` stops."""
    (metric,) = settings.train.until
    if metric == FORGET_NLL:  # of training documents, which are in the identity
        return False
    role = metric.split("/")[1]
    return settings.eval.kind == "perplexity" or settings.eval.tasks[name].role == role


def _corpora(settings: Settings) -> dict[str, Any]:
    """Each corpus by the content of its files and how they are read, wherever they lie."""
    return {
        key: {
            **{name: value for name, value in without_defaults(corpus).items() if name not in ("files", "hub_files")},
            "path": text_fingerprint(corpus.path, f"{key}.path", corpus.files, settings.hashes(), corpus.hub_files),
        }
        for key, corpus in settings.data.corpora().items()
    }


def _noise(settings: Settings) -> dict[str, Any]:
    """The noise's settings, and how its numbers are drawn: on every kind of device the same."""
    drawn = {"draws": "philox4x64"} if settings.noise.name != "none" else {}
    return without_defaults(settings.noise) | drawn


def train_key(identity: dict[str, Any]) -> str:
    return digest(identity)


def task_identities(settings: Settings) -> dict[str, dict[str, Any]]:
    """Each evaluation's name and what its outcome depends on, next to the trained tensors."""
    options = settings.eval
    if options.kind == "perplexity":
        return {
            "perplexity": {
                "corpora": _corpora(settings),
                "holdout": settings.data.holdout,
                "keywords": [options.keyword, options.neutral_keyword],
                "seed": options.seed,
                "max_documents": options.max_documents,
                **({"place": options.place} if options.place != EvalSettings.place else {}),
                **({"more": read_keywords(options.keywords, options.keyword)} if options.keywords else {}),
            }
        }
    foreign.check(settings)
    tofu.check(settings)
    found = {name: _one_identity(name, options, settings.hashes()) for name in options.tasks}
    if options.chat_template:
        template = chat_fingerprint(settings.judged().path)
        found = {name: identity | {"chat_template": template} for name, identity in found.items()}
    if settings.noise.name == "inference":
        smoothing = {**_noise(settings), "seed": options.seed}
        return {name: identity | {"smoothing": smoothing} for name, identity in found.items()}
    return found


def probe_identities(settings: Settings) -> dict[str, dict[str, Any]]:
    """The probe by its place among a trial's evaluations, `probe/NAME`, and what its outcome depends on; none without.

    Of tasks those that it asks count, of other settings what it says that it needs.
    """
    if not settings.probed:
        return {}
    probe, tasks = settings.probe, task_identities(settings)
    asked = {
        name: task
        for name, task in tasks.items()
        if settings.eval.kind == "perplexity" or not probe.roles or settings.eval.tasks[name].role in probe.roles
    }
    needed: dict[str, Callable[[], Any]] = {
        TEXTS: lambda: {"corpora": _corpora(settings), "holdout": settings.data.holdout},
        LAYERS: lambda: without_defaults(settings.layer),
        RETRAINED: lambda: model_fingerprint(settings.model.retrained or "", None, settings.hashes()),
        SEED: lambda: settings.seed,
    }
    files = {
        name: text_fingerprint(path, f"probe.{name}", None, settings.hashes()) for name, path in probe.files().items()
    }
    told = plugin_identity(probe) | files
    identity = {"probe": told, "tasks": asked, "numerics": NUMERICS, "seed": settings.eval.seed}
    return {f"probe/{probe.name}": identity | {name: needed[name]() for name in probe.needs()}}


def _one_identity(name: str, options: EvalSettings, hashes: Path | None) -> dict[str, Any]:
    if options.tasks[name].task == TOFU:
        versions = {"task": TOFU, "lm_eval": version("lm_eval"), "numerics": NUMERICS}
        return versions | tofu.identity(options, hashes)
    if foreign.of(options, [name]):
        return _foreign_identity(name, options)
    return _task_identity(name, options, hashes)


def _foreign_identity(name: str, options: EvalSettings) -> dict[str, Any]:
    """Of lm-eval's own tasks and a user's."""
    identity = {"task": options.tasks[name].task, "lm_eval": version("lm_eval"), "numerics": NUMERICS}
    identity |= foreign.identity(name, options)
    if options.add_bos_token is not None:
        identity |= {"add_bos_token": options.add_bos_token}
    if options.limit is not None:
        identity |= {"limit": options.limit, "seed": options.seed}
    if options.backend != EvalSettings.backend:
        identity["backend"] = options.backend
    return identity


def _task_identity(name: str, options: EvalSettings, hashes: Path | None) -> dict[str, Any]:
    task = options.tasks[name]
    foreign.check_ours(name, task)
    identity: dict[str, Any] = {"task": task.task, "lm_eval": version("lm_eval"), "numerics": NUMERICS}
    word = _word(task, options)
    if task.role == "ngram":
        assert options.ngrams_path is not None
        grams = mined.read_groups(options.ngrams_path)[task.n or 0, task.group or ""]
        identity |= {"n": task.n, "group": task.group, "ngrams": digest(grams), "seed": options.seed}
        identity |= {"replaced": options.replaced, "policy": options.policy}
    if word is not None:
        several = options.keywords is not None and roles.BY_NAME[task.role].puts == "keyword"
        words = read_keywords(options.keywords, word) if several else []
        identity |= {"keywords": words, "seed": options.seed} if several else {"keyword": word, "seed": options.seed}
        identity |= {"replaced": options.replaced, "policy": options.policy}
    beside = asked.beside(task.task, TASKS)
    if beside is not None:
        identity |= {"seed": options.seed}
    if options.add_bos_token is not None:
        identity |= {"add_bos_token": options.add_bos_token}
    if options.limit is not None:
        identity |= {"limit": options.limit, "seed": options.seed}
    if options.of_above != EvalSettings.of_above:
        identity["of_above"] = options.of_above
    if task.subjects is not None:
        identity["subjects"] = task.subjects
    if options.backend != EvalSettings.backend:
        identity["backend"] = options.backend
    if asks := asked.identity(task.task, TASKS, fingerprint(BUILTIN / "questions.jsonl", hashes)):
        identity |= asks
        for source, path in (("mmlu", options.mmlu_path), ("wmdp", options.wmdp_path)):
            if source in task.task:
                subset = next((name for name in questions.subsets(source) if name and name in task.task), None)
                identity["questions"] = _question_files(source, path, subset, hashes)
            if source == beside:
                parts = (_question_files(source, path, subset, hashes) for subset in questions.subsets(source))
                identity["beside"] = [file for part in parts for file in part]
    return identity


def _word(task: TaskSettings, options: EvalSettings) -> str | None:
    """The keyword that a task's questions are perturbed with."""
    puts = roles.BY_NAME[task.role].puts
    return None if puts is None else getattr(options, puts)


def _question_files(source: str, path: str, subset: str | None, hashes: Path | None) -> list[str]:
    key, pattern = questions.place(source, path, subset)
    return text_fingerprint(path, key, None, hashes, pattern)


def eval_key(key: str, identity: dict[str, Any]) -> str:
    return f"{key}-{digest(identity)}"


# Files


def path_of(output_dir: str, key: str) -> Path:
    return Path(output_dir) / "results" / f"{key}.json"


@ends.patient
def check_writable(output_dir: str) -> None:
    """Raises ValueError, naming the key, if no record could be written there."""
    folder = Path(output_dir) / "results"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink(missing_ok=True)  # another thread may have been here
    except (OSError, UnicodeEncodeError) as error:
        if ends.file_system_failed(error):
            raise
        why = getattr(error, "strerror", None) or f"this locale knows {sys.getfilesystemencoding()} alone: PYTHONUTF8=1"
        raise ValueError(
            f"output_dir={output_dir}: cannot write there ({why}); give a folder that can be written"
        ) from None


@ends.patient
def read(output_dir: str, key: str) -> Record | None:
    """The record of a key, or None."""
    try:
        return json.loads(path_of(output_dir, key).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def keys(output_dir: str) -> list[str]:
    """The keys of all trials that left a record, an attempt or tensors: KEY, and KEY.r2 where it was computed again."""
    found: set[str] = set()
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(Path(output_dir) / "results") as entries:
        found |= {key_of(entry.name) for entry in entries if entry.name.endswith(".json") and entry.name[0] != "."}
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(Path(output_dir) / "trials") as entries:
        found |= {entry.name for entry in entries if entry.name[0] != "."}
    return sorted(found)


def key_of(name: str) -> str:
    """The training that a file of `results` belongs to."""
    return re.sub(r"(\.failed\d+)?\.(json|broken)$", "", name.partition("-")[0])


SHORTEST = 4  # letters of a key that may stand for it


def resolve(output_dir: str, word: str) -> str:
    """The key that a user's word stands for: itself, or the only one that begins so (`3f2a9c`, `3f2a9c.r2`).

    Raises:
        ValueError: naming the key, for one that is not there, is too short, or begins several; with those.
    """
    there = keys(output_dir)
    if word in there:
        return word
    start, _, rerun = word.partition(".r")
    if len(start) < SHORTEST:
        raise ValueError(f"KEY={word}: a key's first {SHORTEST} letters at least; python -m rna.records lists the keys")
    heads = {key: key.partition(".r")[0] for key in there}
    found = [key for key in there if heads[key].startswith(start) and (not rerun or key.endswith(f".r{rerun}"))]
    if len({heads[key] for key in found}) == 1:
        return found[0]  # the first of its reruns, if there are any
    if found:
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        raise ValueError(f"KEY={word}: begins {len(found)} keys: {', '.join(found[:8])}{more}; give more letters")
    alike = {key[: len(word)]: key for key in reversed(there)}
    close = [alike[near] for near in difflib.get_close_matches(word, alike, n=1)]
    hint = f"did you mean '{close[0]}'? " if close else ""
    allowed = ", ".join(there) or f"none yet; is --output-dir {output_dir} right?"
    listed = f"allowed: {allowed}" if len(there) <= 8 else f"python -m rna.records lists all {len(there)}"
    raise ValueError(f"KEY={word}: no trial of that key in {output_dir}/results; {hint}{listed}")


def trained(output_dir: str, word: str) -> Record:
    """The record, which holds its `key`, of a training; its tensors may not have been kept.

    Args:
        word: its key, or the key's beginning, as `resolve` takes it.

    Raises:
        ValueError: naming the key, for one that is not there, or trained nothing.
    """
    key = resolve(output_dir, word)
    record = read(output_dir, key)
    if record is None or record.get("kind") != "train":
        raise ValueError(f"KEY={key}: has no record of a finished training; give the run's command again")
    if "delta" not in record:
        method = record["config"]["method"]["name"]
        raise ValueError(f"KEY={key}: method={method} trains nothing, and has no tensors of its own")
    return record


def evaluations(output_dir: str, key: str) -> list[Record]:
    """The records of what was evaluated of a training, but for probes."""
    paths = sorted((Path(output_dir) / "results").glob(f"{key}-*.json"))
    return [record for path in paths if (record := read(output_dir, path.stem)) and record["kind"] == "eval"]


def write(output_dir: str, key: str, record: Record, commit: Callable[[], None] = lambda: None) -> Path:
    """Write a record once: complete under its final name, or not at all. NaN and infinity become None.

    Raises:
        FileExistsError: if there is a record of this key already; it stays as it was.
        whatever `commit` raises, which is asked at the last moment: nothing is then written.
    """
    return write_once(path_of(output_dir, key), record, commit)


def write_once(target: Path, record: Record, commit: Callable[[], None] = lambda: None) -> Path:
    """`write` to a file of any folder."""
    temporary = target.with_name(f".{target.stem}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        _put(temporary, json.dumps(_finite(record), indent=1, ensure_ascii=False, allow_nan=False))
        commit()
        _link(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return target


@ends.patient
def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


@ends.patient
def _link(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError:
        if not temporary.samefile(target):  # else the server had done it, and its answer was lost
            raise


def _finite(value: Any) -> Any:
    """The value with None for every number that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def next_rerun(output_dir: str, key: str) -> str:
    """KEY itself if it has no record, else KEY.r2, KEY.r3, …"""
    name, count = key, 1
    while _exists(path_of(output_dir, name)):
        count += 1
        name = f"{key}.r{count}"
    return name


def next_failure(output_dir: str, key: str) -> str:
    """A name for the record of a failed attempt; it stands beside the key and never in its place."""
    count = 1
    while _exists(path_of(output_dir, f"{key}.failed{count}")):
        count += 1
    return f"{key}.failed{count}"


@ends.patient
def _exists(path: Path) -> bool:
    return path.exists()


class InFlight(RuntimeError):
    """Another process computes this key now."""


@contextmanager
def single_flight(output_dir: str, key: str, *, wait: bool = True) -> Generator[None]:
    """Hold the key's lock: whoever comes second waits, and then finds the record. The kernel frees a dead owner's.

    Raises:
        InFlight: if another process holds it and nobody wants to wait.
    """
    with _lock_file(Path(output_dir) / "locks" / key) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise InFlight(f"{key} is being computed by another process") from None
        yield


@ends.patient
def _lock_file(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w")


def in_flight(output_dir: str) -> set[str]:
    """The keys that processes hold now."""
    held: set[str] = set()
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(Path(output_dir) / "locks") as entries:
        for key in [entry.name for entry in entries]:
            try:
                with single_flight(output_dir, key, wait=False):
                    pass
            except InFlight:
                held.add(key)
    return held


def delta_path(output_dir: str, key: str) -> Path:
    return Path(output_dir) / "trials" / key / "unlearned.safetensors"


def claim(output_dir: str, key: str) -> None:
    """Keep a training's tensors, whatever the sweep says that made them."""
    if delta_path(output_dir, key).is_file() and not _claim_path(output_dir, key).exists():
        _claim_path(output_dir, key).touch()


def drop(output_dir: str, key: str) -> int:
    """Delete a training's tensors if it was made not to keep them, and nobody claimed or uses them; return the bytes.

    What was trained outside a sweep, or by one that keeps all, stays.
    """
    path = delta_path(output_dir, key)
    record = read(output_dir, key) if path.is_file() else None
    if record is None or record["config"].get("keep", "all") == "all" or _claim_path(output_dir, key).exists():
        return 0
    try:
        with single_flight(output_dir, key, wait=False):
            size = path.stat().st_size
            path.unlink()
            return size
    except (InFlight, FileNotFoundError):  # in use, or dropped by another trial this moment
        return 0


def _claim_path(output_dir: str, key: str) -> Path:
    return delta_path(output_dir, key).with_name("kept")


@ends.patient
def tensors_digest(output_dir: str, key: str) -> str:
    """The SHA-256 of a training's file of tensors."""
    with delta_path(output_dir, key).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def answers_path(output_dir: str, key: str) -> Path:
    return Path(output_dir) / "trials" / key / "answers.json"


def checkpoint_path(output_dir: str, key: str) -> Path:
    return Path(output_dir) / "trials" / key / "checkpoint.pt"


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
