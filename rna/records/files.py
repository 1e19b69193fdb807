"""What lies in an output folder, by trial: records, tensors, checkpoints, answers and W&B's offline runs."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rna.store import results

OF_A_TRIAL = {"unlearned.safetensors": "tensors", "checkpoint.pt": "checkpoint", "answers.json": "answers"}
WANDB_RUN = re.compile(r"(?:offline-)?run-\d{8}_\d{6}-(.+)")


@dataclass(frozen=True)
class File:
    """A file, or a W&B run's whole folder, and the bytes in it."""

    path: Path
    kind: str  # tensors, checkpoint, answers, wandb, broken, failure, evaluation, record; other
    bytes: int


def of_trials(output_dir: str, *, wandb: bool = True) -> dict[str, list[File]]:
    """The files of each key; without `wandb` all but W&B's, which are many and small."""
    found: dict[str, list[File]] = {}
    for entry in _entries(Path(output_dir) / "results"):
        stem, _, suffix = entry.name.rpartition(".")
        if suffix in ("json", "broken") and entry.name[0] != ".":
            kind = "broken" if suffix == "broken" else _kind(stem)
            found.setdefault(results.key_of(entry.name), []).append(_file(entry, kind))
    for folder in _entries(Path(output_dir) / "trials"):
        own = found.setdefault(folder.name, [])
        own += [_file(entry, OF_A_TRIAL.get(entry.name, "other")) for entry in _entries(Path(folder.path))]
    for folder in _entries(Path(output_dir) / "wandb") if wandb else ():
        key = run_key(folder.name)
        if key in found:
            found[key].append(File(Path(folder.path), "wandb", size(Path(folder.path))))
    return found


def _kind(stem: str) -> str:
    return "evaluation" if "-" in stem else "failure" if ".failed" in stem else "record"


def run_key(folder: str) -> str | None:
    """The key of the trial that a W&B run's folder is of; a later evaluation's run has more behind it."""
    run = WANDB_RUN.fullmatch(folder)
    return run[1].partition("-")[0] if run else None


def size(path: Path) -> int:
    """The bytes of a file, or of all below a folder; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        with suppress(FileNotFoundError):
            return path.lstat().st_size
        return 0
    return sum(length for _, length in walked(path))


def walked(folder: Path) -> Iterator[tuple[Path, int]]:
    """Every file below a folder with its bytes; links are not followed."""
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from walked(Path(entry.path))
        else:
            with suppress(FileNotFoundError):  # a temporary file that got its name meanwhile
                yield Path(entry.path), entry.stat(follow_symlinks=False).st_size


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        return list(entries)
    return []


def _file(entry: os.DirEntry[str], kind: str) -> File:
    with suppress(FileNotFoundError):
        return File(Path(entry.path), kind, entry.stat(follow_symlinks=False).st_size)
    return File(Path(entry.path), kind, 0)
