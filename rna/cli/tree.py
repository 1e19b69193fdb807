"""Options, keys and their comments, as the YAML files of `conf/` and of the user's folders have them.

Every option begins with a comment line that describes it, and a key is described by what stands behind it. A group is
described where config.yaml chooses its default.
"""

import ast
import importlib.util
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rna.settings import CONF, outside

LINE = re.compile(r"""( *)(- )?(?:optional |override )?([\w./-]+):(?: ((?:"[^"]*"|[^"#]|\S#)*))?(?:# *(.*))?$""")
CHOOSING = ("experiment", "protection", "sweep", "defence", "method")  # groups whose options choose those of others
INNER = ("folder", "store", "finish", "params")  # of the sweeper, which config.yaml sets
LAUNCHERS = {
    "gpu_pool": "rna_gpu_pool_launcher",
    "slurm": "rna_slurm_launcher",
    "basic": None,
}  # Hydra's own has no keys
FIELD = re.compile(r"^    ([a-z]\w*): [^=]+= (.*?)(?:  # (.*))?$", re.M)  # of a plugin's dataclass
HIDDEN = re.compile(r"(^|\.)target$|^(retain|\w+)\.name$")  # what an option says of itself, which nobody sets
Node = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """A dotted key with its value as it is written, and what its comment says."""

    name: str
    value: Any
    said: str


@dataclass(frozen=True)
class Source:
    """A file of `conf/`: its description, what it holds, and the comments behind its keys."""

    said: str
    defaults: tuple[Any, ...]
    plain: Node
    comments: dict[str, str]


@dataclass(frozen=True)
class Option:
    group: str
    name: str
    said: str
    own: bool  # ours, not the user's


def folders() -> list[Path]:
    return [CONF, *outside.FOLDERS]


@cache
def source(file: Path, group: str) -> Source:
    """A file, its keys under the group's name unless it says that they are global ones."""
    import yaml

    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    comment = next((line for line in lines if not re.match(r"#\s*@", line)), "")
    plain: Node = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    defaults = tuple(plain.pop("defaults", ()))
    comments = dict(_comments(lines))
    if group and not re.match(r"#\s*@package _global_", text):
        plain = {group: plain}
        comments = {f"{group}.{name}": said for name, said in comments.items()}
    return Source(comment.lstrip("# ") if comment.startswith("#") else "", defaults, plain, comments)


def _comments(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    """What stands behind each key, of a file whose mappings are indented."""
    above: list[tuple[int, str]] = []
    for line in lines:
        found = LINE.match(line)
        if found is None:
            continue
        indent = len(found[1])
        above = [one for one in above if one[0] < indent]
        above.append((indent, found[3]))
        if found[5]:
            yield ".".join(name for _, name in above), found[5]


def groups() -> dict[str, str]:
    """The groups that a user chooses options of, with what config.yaml says of each."""
    config = source(CONF / "config.yaml", "")
    found = {name: config.comments.get(f"defaults.{name}", "") for name in _chosen(config.defaults)}
    found["retain_loss"] = "the retain loss alone, in the place of retain=…"
    for folder in outside.FOLDERS:
        found |= {one.name: "" for one in sorted(folder.iterdir()) if one.is_dir() and one.name not in found}
    return {name: said for name, said in found.items() if options(name)}


def _chosen(defaults: Iterable[Any]) -> dict[str, str | None]:
    """Group -> option, of a defaults list; `optional` ones too, not what overrides Hydra's own."""
    found: dict[str, str | None] = {}
    for entry in defaults:
        for name, option in entry.items() if isinstance(entry, dict) else ():
            group = name.removeprefix("optional ").removeprefix("/")
            if not name.startswith("override ") and group != "tuned" and "@" not in group:
                found[group] = option
    return found


@cache
def options(group: str) -> list[Option]:
    """A group's options, ours first, each with its description; of `experiment` those in folders too."""
    found: dict[str, Option] = {}
    for place in folders():
        for file in sorted((place / group).rglob("*.yaml")):
            name = str(file.relative_to(place / group).with_suffix(""))
            if group != "eval" or "/" not in name:  # whose folder is of pieces
                found.setdefault(name, Option(group, name, source(file, group).said, place == CONF))
    return list(found.values())


def default(group: str) -> str | None:
    """The option of a group where none is said."""
    return _chosen(source(CONF / "config.yaml", "").defaults).get(group)


def choice(words: Sequence[str]) -> dict[str, str | None]:
    """Group -> option, as these overrides choose, and as the options that they choose do. A sweep's first value."""
    said: dict[str, str | None] = {}
    known = groups()
    for word in words:
        group, equals, value = word.lstrip("+").partition("=")
        if equals and group in known:
            said[group] = value.split(",")[0]
    found = _chosen(source(CONF / "config.yaml", "").defaults) | said
    for _ in CHOOSING:
        for group in CHOOSING:
            for entry in _defaults(group, found.get(group)):
                for name, option in entry.items() if isinstance(entry, dict) else ():
                    other = name.partition("override /")[2]
                    if other in known and other not in said:
                        found[other] = option
        found = {group: said.get(group, option) for group, option in found.items()}
    retain = _chosen(_defaults("retain", found.get("retain"))).get("retain_loss")
    return {"retain_loss": retain} | found


def _defaults(group: str, option: str | None) -> tuple[Any, ...]:
    file = _file(group, option)
    return source(file, group).defaults if file else ()


def _file(group: str, option: str | None) -> Path | None:
    return _first(f"{group}/{option}") if option else None


def _first(path: str) -> Path | None:
    """An option's file, ours before the user's."""
    files = (place / f"{path}.yaml" for place in folders())
    return next((file for file in files if file.is_file()), None)


def composed(words: Sequence[str] = ()) -> list[Key]:
    """The keys of the composed tree under these overrides."""
    chosen = choice(words)
    plain, comments = _merged("", Node(), {}, source(CONF / "config.yaml", ""), {})
    for group, option in chosen.items():
        plain, comments = _added(group, option, plain, comments, chosen)
    return [key for key in _flat(plain, comments) if key.name.split(".")[0] not in ("hydra", "tuned")]


def of_option(group: str, option: str) -> list[Key]:
    """The keys that an option brings."""
    plain, comments = _added(group, option, Node(), {}, choice([f"{group}={option}"]))
    return [key for key in _flat(plain, comments) if key.name.split(".")[0] not in ("hydra", "tuned")]


def _added(
    group: str, option: str | None, plain: Node, comments: dict[str, str], chosen: dict[str, str | None]
) -> tuple[Node, dict[str, str]]:
    file = _file(group, option)
    return (plain, comments) if file is None else _merged(group, plain, comments, source(file, group), chosen)


def _merged(
    group: str, plain: Node, comments: dict[str, str], own: Source, chosen: dict[str, str | None]
) -> tuple[Node, dict[str, str]]:
    """What was there, with a file's own over what its defaults bring from the same group."""
    for entry in own.defaults if group else ():
        named = entry if isinstance(entry, dict) else {entry: ""}
        for name, option in named.items():
            folder, here, _ = name.partition("@_here_")
            path = f"{folder.lstrip('/')}/{option}".rstrip("/") if here else f"{group}/{name}"
            if here and not folder.startswith("/"):
                path = f"{group}/{path}"
            file = _first(re.sub(r"\$\{(\w+)\}", lambda found: str(chosen.get(found[1])), path))
            if file is not None and (here or isinstance(entry, str)):
                plain, comments = _merged(group, plain, comments, source(file, group), chosen)
    return _over(plain, own.plain), comments | own.comments


def _over(below: Node, above: Node) -> Node:
    found = dict(below)
    for name, value in above.items():
        there = found.get(name)
        found[name] = _over(there, value) if isinstance(there, dict) and isinstance(value, dict) else value
    return found


def _flat(plain: Node, comments: dict[str, str], prefix: str = "") -> list[Key]:
    found: list[Key] = []
    for name, value in plain.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            found += _flat(value, comments, f"{path}.")
        elif not HIDDEN.search(path):
            found.append(Key(path, value, comments.get(path) or _alike(path)))
    return found


def of_launcher(name: str) -> list[Key]:
    """The keys of an option of `hydra/launcher`."""
    plugin = LAUNCHERS.get(name)
    return _of_plugin(plugin, "hydra.launcher") if plugin else []


def of_sweeper() -> list[Key]:
    """The keys of a sweep's own."""
    return [key for key in _of_plugin("rna_optuna_sweeper", "hydra.sweeper") if key.name.split(".")[-1] not in INNER]


def _of_plugin(plugin: str, prefix: str) -> list[Key]:
    """A plugin's options as its dataclass has them, which is read and not imported."""
    found = importlib.util.find_spec(f"hydra_plugins.{plugin}")
    places = found.submodule_search_locations if found else None
    text = (Path(places[0]) / "config.py").read_text(encoding="utf-8") if places else ""
    return [Key(f"{prefix}.{name}", _written(value), said or "") for name, value, said in FIELD.findall(text)]


def _written(value: str) -> Any:
    """A field's default; of one that is made by a function, none."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return "???"


def _alike(path: str) -> str:
    """What `data=text` says of a corpus's keys, which are the same in all."""
    if not path.startswith("data."):
        return ""
    text = source(CONF / "data" / "text.yaml", "data").comments
    return text.get(re.sub(r"^data\.topics\.[^.]+\.", "data.topics.text.", path), "")
