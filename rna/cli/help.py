"""`rna run --help`: a page of what is chosen most, and by `--help GROUP` or `--help KEY` all of the rest."""

import difflib
import json
import textwrap
from collections.abc import Sequence

from rna.cli import tree
from rna.cli.tree import Key

WIDTH = 120  # of a page, at most
TOLD = ("method", "retain", "noise", "defence", "data", "eval")  # groups whose options have lines
COMMON = (
    *("noise.nu", "noise.layers", "retain.alpha.default", "layer.unlearn", "layer.trained"),
    *("train.steps", "train.lr", "train.batch_size", "train.grad_accumulation", "train.until"),
    *("train.gradient_checkpointing", "model.path", "model.dtype", "model.device", "model.device_map"),
    *("data.topics.text.path", "data.retain.path", "data.holdout"),
    *("eval.keyword", "eval.limit", "eval.split", "eval.batch_size", "eval.interim_every"),
    *("variant", "seed", "baseline", "train_only", "rerun", "output_dir", "cache.enabled"),
)
HEAD = """\
rna run [GROUP=OPTION …] [KEY=VALUE …]     unlearn, and compare with the model before (also: python -m rna.run)
rna run -m GROUP=OPTION,OPTION KEY=VALUE,VALUE     a sweep over all combinations; sweep=NAME is one of ours
rna run method=npo retain=mse noise.nu=0.014     without anything: the built-in demo
--help GROUP|KEY more of it   --cfg job the composed tree   --config-dir DIR your own options   --hydra-help Hydra's
"""


def overview() -> str:
    """The page: groups, options and the commonest keys, each with a line."""
    known = tree.groups()
    rest = [group for group in known if group not in TOLD and len(tree.options(group)) > 1]
    lines = [HEAD.rstrip(), "", "GROUP and its options (*: where nothing is said)"]
    for group in TOLD:
        lines += _group(group, known[group])
    for group in rest:
        lines += _folded(group, known[group])
    lines.append(f"hydra/launcher  with -m, where trials run: {' '.join(tree.LAUNCHERS)}")
    lines += ["", "KEY, the commonest"]
    lines += _columns([_key(name) for name in COMMON])
    return "\n".join(lines)


def asked(words: Sequence[str]) -> str:
    """What `--help` says with these words: the page, or all of the groups, options and keys that they name.

    Raises:
        ValueError: for a word that is neither.
    """
    return "\n\n".join(about(word) for word in words) if words else overview()


def about(word: str) -> str:
    """A group with each option and its keys; an option in each group that has it; the keys that begin so."""
    group, _, option = word.lstrip("+~").rstrip(".=").partition("=")
    known = tree.groups()
    if group in known:
        return "\n".join(_whole(group, known[group], option))
    if group in ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper"):
        return "\n".join(_sweeping(group.replace("/", ".")))
    options = {name: [one.name for one in tree.options(name)] for name in known}
    if named := [name for name, its in options.items() if group in its]:
        return "\n\n".join("\n".join(_whole(name, known[name], group)) for name in named)
    keys = tree.composed()
    found = [key for key in keys if key.name == group or key.name.startswith(f"{group}.")] or _anywhere(group)
    if not found:
        words = {*known, *(key.name for key in keys), *(one for its in options.values() for one in its)}
        close = difflib.get_close_matches(group, sorted(words), n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ValueError(f"--help {group}: no such group, option or key; {hint}groups: {', '.join(known)}")
    return "\n".join(_columns(found))


def _whole(group: str, said: str, option: str) -> list[str]:
    """A group with all of its options, or one, each with its keys; keys that all have, once."""
    chosen = [one for one in tree.options(group) if option in ("", one.name)]
    if not chosen:
        names = [one.name for one in tree.options(group)]
        close = difflib.get_close_matches(option, names, n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ValueError(f"--help {group}={option}: no such option; {hint}allowed: {', '.join(names)}")
    keys = {one.name: tree.of_option(group, one.name) for one in chosen}
    alike = [key for key in keys[chosen[0].name] if len(chosen) > 1 and all(key in each for each in keys.values())]
    lines = [f"{group}  {_short(said)}"]
    for one in chosen:
        lines += _row(f"  {_marked(group, one.name)}", one.said, 28)
        lines += [f"    {line}" for line in _columns([key for key in keys[one.name] if key not in alike])]
    if alike:
        lines += ["  of each", *(f"    {line}" for line in _columns(alike))]
    return lines


def _sweeping(group: str) -> list[str]:
    """Where a sweep's trials run, or how it goes about."""
    if group == "hydra.sweeper":
        return _columns(tree.of_sweeper())
    lines: list[str] = []
    for name in tree.LAUNCHERS:
        lines += [f"hydra/launcher={name}", *(f"    {line}" for line in _columns(tree.of_launcher(name)))]
    return lines


def _anywhere(word: str) -> list[Key]:
    """A key of options that are not chosen where nothing is said."""
    group = word.partition(".")[0]
    names = [group] if group in tree.groups() else list(tree.groups())
    every = [key for name in names for one in tree.options(name) for key in tree.of_option(name, one.name)]
    return [key for key in every if key.name == word or key.name.startswith(f"{word}.")][:1]


def _key(name: str) -> Key:
    """A key as its default option has it, or the first option that has it."""
    return next((key for key in tree.composed() if key.name == name), None) or _anywhere(name)[0]


def _group(group: str, said: str) -> list[str]:
    lines = [f"{group}  {_short(said)}"]
    for one in tree.options(group):
        lines += _row(f"  {_marked(group, one.name)}", one.said, 22)[:1]
    return lines


def _folded(group: str, said: str) -> list[str]:
    """A group with its options' names alone, of folders the folders, in two lines at most."""
    names = list(dict.fromkeys(one.name.partition("/")[0] + "/…" * ("/" in one.name) for one in tree.options(group)))
    lines = textwrap.wrap(f"{group}  {_short(said)}: {' '.join(names)}", WIDTH, subsequent_indent="    ")
    more = f" … --help {group}"
    return lines if len(lines) <= 2 else [lines[0], lines[1][: WIDTH - len(more)].rpartition(" ")[0] + more]


def _short(said: str) -> str:
    return said.partition("; ")[0]


def _marked(group: str, option: str) -> str:
    return f"{option} *" if option == tree.default(group) else option


def _columns(found: Sequence[Key]) -> list[str]:
    """Keys with their values, and what is said of them."""
    shown = {key.name: f"{key.name}={_value(key.value)}" for key in found}
    wide = min(44, max((len(one) for one in shown.values()), default=0))
    return [line for key in found for line in _row(shown[key.name], key.said, wide)]


def _value(value: object) -> str:
    """A default as it is typed; one that other settings decide, or that has to be said, in words."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else str(value)
    return "…" if text == "???" or "${" in text or "{question}" in text else text


def _row(name: str, said: str, wide: int) -> list[str]:
    if not said:
        return [name]
    lines = [f"{'':<{wide}}  {line}" for line in textwrap.wrap(said, WIDTH - wide - 2)]
    return [name, *lines] if len(name) > wide else [f"{name:<{wide}}{lines[0][wide:]}", *lines[1:]]
