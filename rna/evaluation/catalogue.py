"""Where lm-eval's task files lie: its own 14,000, read for their names alone, and a user's `eval.include_path`.

lm-eval's own index parses them all, for half a minute. Here the folders that a name needs are found by its text, and
lm-eval indexes these.
"""

import difflib
import functools
import importlib.util
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

NAMES = re.compile(
    r"""^["']?(task|group|tag)["']?[ \t]*:[ \t]*([^\n]*)((?:\n[ \t]*-[ \t]+[^\n]*)*)""",
    re.M,
)
WORD = re.compile(r"[^\s,\[\]\"'#]+")


@functools.cache
def _own() -> tuple[dict[str, set[Path]], frozenset[str]]:
    """The folders of lm-eval's own tasks and groups by name, and the names of its tags."""
    found: dict[str, set[Path]] = {}
    tags: set[str] = set()
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None
    assert spec.origin is not None
    for file in Path(spec.origin).parent.joinpath("tasks").glob("**/*yaml"):
        for kind, value, items in NAMES.findall(file.read_text(encoding="utf-8")):
            if kind == "tag":
                tags.update(WORD.findall(value), *(WORD.findall(item.strip(" -")) for item in items.split("\n")))
            elif name := value.partition(" #")[0].strip().strip("\"'"):
                found.setdefault(name, set()).add(file.parent)
    return found, frozenset(tags)


def index(name: str, include_path: str | None, metadata: dict[str, Any] | None = None) -> Any | None:
    """lm-eval's manager of the folders in which a task, group or tag stands, and what it names; None if there is none.

    What the user's folder has goes before lm-eval's own of the same name.
    """
    from lm_eval.tasks import TaskManager

    own: list[str | Path] = [] if include_path is None else [include_path]
    folders: list[Path] = []
    while True:
        manager: Any = TaskManager(include_path=[*folders, *own], include_defaults=False, metadata=metadata)
        named = list(_named(manager.task_index, name))
        absent = [one for one in named if one not in manager.task_index]
        if absent:
            places, tags = _own()
            if any(one in tags and one not in places for one in named):  # its members may lie anywhere
                return TaskManager(include_path=own, metadata=metadata)
            more = sorted({folder for one in absent for folder in places.get(one, ())} - set(folders))
            if more:
                folders += more
                continue
        return manager if name in manager.task_index else None


def _named(entries: Any, name: str) -> Iterator[str]:
    """A name, and of a group those of its tasks and groups."""
    yield name
    config = entries[name].cfg if name in entries else None
    if config is not None and "group" in config:
        yield from _members(entries, config.get("task"))


def _members(entries: Any, items: Any) -> Iterator[str]:
    for item in items if isinstance(items, list) else ():
        if isinstance(item, str):
            yield from _named(entries, item)
        elif "group" in item and item["group"] not in entries:
            yield from _members(entries, item.get("task"))  # a group that is made where it is named
        else:
            yield from _named(entries, item.get("group") or item["task"])


def nearest(name: str, ours: Iterable[str], include_path: str | None) -> list[str]:
    """The names most like this one, the user's own first among equals."""
    from lm_eval.tasks import TaskManager

    own = [] if include_path is None else TaskManager(include_path=include_path, include_defaults=False).all_tasks
    places, tags = _own()
    return difflib.get_close_matches(name, dict.fromkeys([*own, *ours, *places, *tags]), n=3, cutoff=0.6)
