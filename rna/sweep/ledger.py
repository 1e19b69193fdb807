"""A sweep's folder: what each trial is, who has it in work, how far that is, and what came of it.

`cells.json` lists a grid's trials under their numbers, and `addresses.jsonl`, which only grows, where their records
lie: a file for each of ten thousand that wait would take minutes. A trial gets its own, `trials/N.json`, when it is
started or settled, and from then on that alone counts. All three are written by the sweeper alone. A trial in work
writes `beats/N-TOKEN.json`, where the sweep watches a metric also its curve beside it, and nothing else, so that one
that was given away, and wakes again, disturbs nobody: its token is no longer the trial's.
"""

import errno
import fcntl
import json
import math
import os
import platform
import struct
import sys
import threading
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rna.ends import patient

OWNER = "RNA_TRIAL"  # the environment variable that tells a trial its file and its token
FLOCK, KIND = ("qqihh", 3) if sys.platform == "darwin" else ("hhqqi4x", 0)  # C's struct flock, and its l_type in it
EVERY = 1.0  # seconds between two beats of a phase

QUEUED, RUNNING, DONE, FAILED, PRUNED = "queued", "running", "done", "failed", "pruned"
CANCELLED = "cancelled"  # the reason of a trial that failed because a user asked for it


@dataclass
class Trial:
    """One trial of a sweep, under a number that is its own for ever."""

    number: int
    cell: list[str]  # the swept overrides
    params: dict[str, Any] = field(default_factory=dict)
    status: str = QUEUED
    token: str = ""
    attempts: int = 0
    address: dict[str, Any] | None = None  # where its record lies, as the record store says
    composed_of: str | None = None  # the digest of the configuration and code that the address holds for
    values: list[float] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    message: str | None = None
    log: str | None = None
    job: str | None = None
    cluster: str | None = None  # its word for the job, as PENDING (Resources)
    seconds: float | None = None
    ended: float | None = None
    attributes: dict[str, Any] = field(default_factory=dict)  # what the sampler keeps with it
    race: dict[str, Any] | None = None  # `tasks`, and how many `blocks` of them it is to answer; None: all there is
    curve: list[tuple[int, float]] = field(default_factory=list)  # of the metric that the sweep prunes by

    @property
    def name(self) -> str:
        return " ".join(self.cell) or "(no overrides)"

    @property
    def over(self) -> bool:
        return self.status in (DONE, FAILED, PRUNED)

    @property
    def cancelled(self) -> bool:
        return self.status == FAILED and self.reason == CANCELLED

    def cancel(self) -> None:
        """Take it from its owner for good: it ends at its next sign of life."""
        self.status, self.token, self.values = FAILED, "", None
        self.reason, self.message = CANCELLED, "by a user; python -m rna.sweep retry brings it back by its number"


class OwnerReplaced(RuntimeError):
    """This trial was given to somebody else, or pruned, while it slept: nothing it does counts any more."""

    reason = "replaced"


class Pruned(OwnerReplaced):
    """The sweep has seen enough of this trial."""

    reason = "pruned"


class Cancelled(OwnerReplaced):
    """A user wants no more of this trial."""

    reason = CANCELLED


class Busy(ValueError):
    """Another sweeper holds the study."""


@patient
def write_json(path: Path, value: Any) -> None:
    """Replace a file by temp-then-rename: at any moment it is the old one or the new one, whole."""
    _replace(path, value)


def _replace(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="surrogateescape") as stream:
            json.dump(value, stream, ensure_ascii=False)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@patient
def read_json(path: Path) -> Any:
    """A file's content; None if there is no such file, or half of one."""
    return _content(path)


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


# Trials


def trial_path(folder: Path, number: int) -> Path:
    return folder / "trials" / f"{number}.json"


def save(folder: Path, trial: Trial) -> None:
    write_json(trial_path(folder, trial.number), asdict(trial))


def save_cells(folder: Path, cells: Sequence[Mapping[str, Any]]) -> None:
    """Replace the list of a grid's trials, with the addresses that have gathered beside it since it was written."""
    write_json(folder / "cells.json", cells)
    (folder / "addresses.jsonl").unlink(missing_ok=True)


@patient
def add_addresses(folder: Path, those: Iterable[Trial]) -> None:
    """Note where the records of trials lie that have no file of their own. A line that is torn is as good as none."""
    lines = (
        json.dumps({"number": trial.number, "address": trial.address, "composed_of": trial.composed_of})
        for trial in those
    )
    with (folder / "addresses.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("\n" + "\n".join(lines) + "\n")  # what a kill tore before ends here
        stream.flush()
        os.fsync(stream.fileno())


def _cells(folder: Path) -> dict[int, dict[str, Any]]:
    """The trials that `cells.json` lists, by number, with their addresses."""
    found: dict[int, dict[str, Any]] = {item["number"]: item for item in read_json(folder / "cells.json") or []}
    with suppress(FileNotFoundError):
        for line in (folder / "addresses.jsonl").read_text(encoding="utf-8").split("\n"):
            with suppress(ValueError):
                item = json.loads(line)
                found.get(item["number"], {}).update(item)
    return found


@patient
def with_file(folder: Path) -> set[int]:
    """The numbers of the trials that have a file of their own."""
    with suppress(FileNotFoundError), os.scandir(folder / "trials") as entries:
        names = (entry.name.partition(".") for entry in entries)
        return {int(number) for number, _, ending in names if ending == "json" and number.isdecimal()}
    return set()


def recorded(folder: Path, *, mend: bool = False) -> list[Trial]:
    """All trials by number. A file that cannot be read is as good as none: its cell is queued anew.

    Args:
        mend: delete such files; for who holds the folder.
    """
    contents = _cells(folder)
    for number in with_file(folder):
        content = read_json(trial_path(folder, number))
        if isinstance(content, dict) and {"number", "cell"} <= set(content):
            content["curve"] = [(step, value) for step, value in content.get("curve", [])]
            contents[number] = content
        elif mend:
            trial_path(folder, number).unlink(missing_ok=True)
    known = set(Trial.__dataclass_fields__)
    made = (Trial(**{key: value for key, value in item.items() if key in known}) for item in contents.values())
    return sorted(made, key=lambda trial: trial.number)


def trials(folder: Path) -> list[Trial]:
    """The trials that count, by number: of a grid that was asked for with fewer values since, those of its cells."""
    spec = read_json(folder / "sweep.json") or {}
    if spec.get("sampler") != "grid" or "space" not in spec:
        return recorded(folder)
    asked = {f"{key}={value}" for key, values in spec["space"].items() for value in values}
    return [trial for trial in recorded(folder) if asked.issuperset(trial.cell)]


def beat_path(folder: Path, trial: Trial) -> Path:
    return folder / "beats" / f"{trial.number}-{trial.token}.json"


def last_beat(folder: Path, trial: Trial) -> dict[str, Any]:
    """What the trial's owner said last: host, pid, phase, done, total, time; nothing while it waits in a queue."""
    with suppress(OSError):  # it is asked again in a moment, and no trial is worth less for it
        return _content(beat_path(folder, trial)) or {}
    return {}


def curve_path(folder: Path, trial: Trial) -> Path:
    return beat_path(folder, trial).with_suffix(".curve")


@patient
def read_curve(path: Path) -> list[tuple[int, float]]:
    """The points that a trial has told so far; a last line without its end is still being written."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [(int(step), float(value)) for step, value in (line.split() for line in lines)]


def clear_beats(folder: Path, keep: Iterable[Trial] = ()) -> None:
    kept = {beat_path(folder, trial).stem for trial in keep}
    with suppress(FileNotFoundError):
        for file in (folder / "beats").iterdir():
            if file.stem not in kept:
                file.unlink(missing_ok=True)


def identity(folder: Path) -> str:
    """A word that is this sweep's own: folders of one name may share a database. It moves with the folder."""
    path = folder / "identity.json"
    known = read_json(path)
    if known is None:
        known = os.urandom(8).hex()
        write_json(path, known)
    return known


@contextmanager
def held(folder: Path) -> Generator[None]:
    """Hold the study; the kernel lets go of it when its owner ends, however that happens.

    Raises:
        Busy: if another process holds it.
    """
    with _opened(folder / "lock") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            stream.seek(0)
            owner = stream.read().strip() or "another process"
            raise Busy(f"sweep {folder.name}: {owner} works on it already; nothing was started") from None
        stream.seek(0)
        stream.truncate()
        stream.write(f"process {os.getpid()} on {platform.node()}")
        stream.flush()
        if sys.platform == "linux":
            with suppress(OSError):  # for those who look, see `at_work`: the lock that counts is held already
                fcntl.fcntl(stream, fcntl.F_OFD_SETLK, _whole_file())
        yield


@patient
def _opened(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a+", encoding="utf-8")


def at_work(folder: Path) -> bool:
    """Whether a process holds the study now. It asks the kernel, and takes nothing that anybody might want meanwhile.

    Linux tells only of a lock by `fcntl`, beside that of `flock`, on a disk of its own, of both on NFS; macOS of both.
    """
    try:
        with (folder / "lock").open("rb") as stream:
            found = fcntl.fcntl(stream, fcntl.F_GETLK, _whole_file())
    except FileNotFoundError:
        return False
    return struct.unpack(FLOCK, found)[KIND] != fcntl.F_UNLCK


def holder(folder: Path) -> str | None:
    """Which process holds the study; None if none does."""
    if not at_work(folder):
        return None
    return (folder / "lock").read_text(encoding="utf-8").strip() or "another process"


def _whole_file() -> bytes:
    """A write lock from the first byte on, as `fcntl` wants it."""
    return struct.pack(FLOCK, *(fcntl.F_WRLCK if place == KIND else 0 for place in range(5)))


# Inside a trial


_last: dict[str, tuple[str, float]] = {}  # by owner, its phase and when it was told


def started(pid: int) -> str | None:
    """When a process of this machine began, in the kernel's own clock: its number may be another's by now."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _mine() -> tuple[Path, str] | None:
    file, found, token = os.environ.get(OWNER, "").rpartition("#")
    return (Path(file), token) if found else None


def own_folder() -> Path | None:
    """The folder of the sweep that this process works for, if it does."""
    mine = _mine()
    return mine[0].parents[1] if mine else None


def sweep() -> str | None:
    """The name of the sweep that this process works for, if it does."""
    folder = own_folder()
    return folder.name if folder else None


def owner_value(folder: Path, trial: Trial) -> str:
    """The value of the environment variable by which a trial knows its owner."""
    return f"{trial_path(folder, trial.number).absolute()}#{trial.token}"


def race() -> dict[str, Any] | None:
    """What a race asks of this trial, if it is in one: see `Trial.race`."""
    mine = _mine()
    found = (read_json(mine[0]) or {}).get("race") if mine else None
    return found if found and found["blocks"] is not None else None


def check_owner() -> None:
    """Raises OwnerReplaced, or Pruned, if this process works on a trial that is no longer its own."""
    mine = _mine()
    if mine is not None:
        _check(mine, read_json(mine[0]))


def _check(mine: tuple[Path, str], content: Any) -> None:
    if content is not None and content.get("token") != mine[1]:
        if content.get("status") == PRUNED:
            raise Pruned(f"trial {mine[0].stem}: {content.get('message')}")
        if content.get("reason") == CANCELLED:
            raise Cancelled(f"trial {mine[0].stem}: cancelled {content.get('message')}")
        raise OwnerReplaced(f"trial {mine[0].stem} was given to another process")


def beat(phase: str, done: int, total: int) -> None:
    """Tell the sweep how far this trial is; outside a sweep, nothing. A full or lost disk is no reason to stop or wait.

    Raises:
        OwnerReplaced: if the trial is no longer this process's own.
    """
    mine = _mine()
    if mine is None:
        return
    now = time.time()
    told = _last.get(mine[1])
    if told is not None and told[0] == phase and now - told[1] < EVERY:
        return
    _last.clear()
    _last[mine[1]] = (phase, now)
    with suppress(OSError):
        _check(mine, _content(mine[0]))
    said = {"phase": phase, "done": done, "total": total, "time": now}
    said |= {"pid": os.getpid(), "started": started(os.getpid()), "host": platform.node()}
    said |= {"job": os.environ["SLURM_JOB_ID"]} if "SLURM_JOB_ID" in os.environ else {}
    with suppress(OSError):
        _replace(_beat_of(*mine), said)


def mark() -> list[Any]:
    """How far this trial has said it is: phase and count; nothing outside a sweep, or before its first sign of life."""
    mine = _mine()
    if mine is None:
        return []
    told = read_json(_beat_of(*mine)) or {}
    return [told.get("phase"), told.get("done")]


def _beat_of(file: Path, token: str) -> Path:
    return file.parents[1] / "beats" / f"{file.stem}-{token}.json"


@dataclass
class _Watch:
    """The metric that a sweep watches in a trial, and what came since the last point of its curve."""

    metric: str
    every: int
    key: str | None  # of the training that counts: a trial may train its plain twin too
    told: int = 0  # the last point's step // every
    since: list[float] = field(default_factory=list)

    def take(self, step: int, value: float) -> tuple[int, float] | None:
        """The next point, if one is due: the mean since the last."""
        self.since.append(value)
        if step // self.every <= self.told:
            return None
        point = (step, sum(self.since) / len(self.since))
        self.told, self.since = step // self.every, []
        return point


def thinned(curve: Iterable[tuple[int, float]], every: int) -> list[tuple[int, float]]:
    """The points that a trial with these values would have told."""
    watch = _Watch("", every, None)
    points = (watch.take(step, value) for step, value in curve if math.isfinite(value))
    return [point for point in points if point is not None]


_watches: dict[str, _Watch | None] = {}  # by owner


def _watch(file: Path, token: str) -> _Watch | None:
    if token not in _watches:
        spec = read_json(file.parents[1] / "sweep.json") or {}
        watched = spec.get("watched")
        where = (read_json(file) or {}).get("address") or {}
        _watches.clear()
        _watches[token] = _Watch(**watched, key=where.get("key")) if watched else None
    return _watches[token]


def report(key: str | None, step: int, metrics: Mapping[str, float]) -> None:
    """Tell a sweep that prunes how its metric stands after a step (counted from 1) of the training of `key`.

    A point of the curve is the mean since the last point, told once in so many steps; outside a sweep that prunes,
    nothing happens.

    Raises:
        Pruned: if the sweep has seen enough.
    """
    mine = _mine()
    watch = _watch(*mine) if mine is not None else None
    if mine is None or watch is None or (watch.key is not None and watch.key != key):
        return
    value = metrics.get(watch.metric)
    if value is None or not math.isfinite(value):
        return
    point = watch.take(step, float(value))
    if point is None:
        return
    path = _beat_of(*mine).with_suffix(".curve")
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(f"{point[0]} {point[1]!r}\n")
    with suppress(OSError):
        _check(mine, _content(mine[0]))
