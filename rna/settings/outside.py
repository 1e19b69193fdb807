"""What a user brings: folders of options, and the modules that stand beside them.

The working folder and the parent of each `--config-dir` can be imported from, in this process and in those it begins.
"""

import importlib.util
import os
import re
import sys
from pathlib import Path

FOLDERS: list[Path] = []  # of options, as `--config-dir` named them
TARGET = re.compile(r"^\s*target:\s*['\"]?([\w.]+)", re.M)


def bring(config_dir: str | None) -> None:
    """Take in a folder of options, and what it may import."""
    found = [Path.cwd()]
    if config_dir is not None:
        folder = Path(config_dir).expanduser().absolute()
        if folder not in FOLDERS:
            FOLDERS.append(folder)
        found.append(folder.parent)
    for place in map(str, found):
        if place not in sys.path:
            sys.path.append(place)
    known = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    new = [str(folder.parent) for folder in FOLDERS if str(folder.parent) not in known]
    if FOLDERS:  # a cluster's job begins in the same working folder, and finds that by itself
        os.environ["PYTHONPATH"] = os.pathsep.join([*known, *new])


def searchpath(config_dir: str | None = None) -> list[str]:
    """The override by which Hydra finds these options."""
    folders = [*FOLDERS, *([Path(config_dir).absolute()] if config_dir else [])]
    places = ",".join(f"file://{folder}" for folder in dict.fromkeys(folders))
    return [f"hydra.searchpath=[{places}]"] if folders else []


def stamp(own: Path, config_dir: str | None = None) -> tuple[tuple[str, int, int], ...]:
    """What tells whether an option has changed, of `own` folder or these: each file's path, time and size."""
    folders = [own, *FOLDERS, *([Path(config_dir).absolute()] if config_dir else [])]
    files = ((file, file.stat()) for folder in folders for file in sorted(folder.rglob("*.yaml")))
    return tuple((str(file), found.st_mtime_ns, found.st_size) for file, found in files)


def options(group: str) -> list[str]:
    """The names of these folders' options of a group."""
    return [file.stem for folder in FOLDERS for file in sorted((folder / group).glob("*.yaml"))]


def sources() -> list[tuple[str, str]]:
    """Every option of these folders, and every file that one of their targets stands in, with its content."""
    found: list[tuple[str, str]] = []
    for file in sorted(file for folder in FOLDERS for file in folder.rglob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        found.append((str(file), text))
        for target in TARGET.findall(text):
            try:
                spec = importlib.util.find_spec(target.rpartition(".")[0])
            except (ImportError, ValueError):
                continue
            if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
                found.append((target, Path(spec.origin).read_text(encoding="utf-8")))
    return found
