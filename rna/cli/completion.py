"""What a shell may offer at a word of `rna …` or `python -m rna.run …`, and the scripts by which it asks.

`rna completion bash` and `rna completion zsh` print the scripts. They hand the words over, and get whole words back:
one that ends in `=`, `.`, `/` or `,` is to be gone on with.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from rna.cli import tree
from rna.settings import CHOICES, CONF, outside, own_targets

SHELLS = ("bash", "zsh")
FLAGS = ("--help", "--multirun", "--cfg", "--config-dir", "--hydra-help", "--info", "--package", "--resolve")
WORDS: dict[str, tuple[str, ...]] = {  # key -> words that it takes among others
    **CHOICES,
    "noise.layers": ("unlearn", "all", "early", "middle", "late"),
    "model.device": ("auto", "cpu", "cuda"),
    "model.device_map": ("auto", "balanced", "sequential", "null"),
    "model.attn_implementation": ("sdpa", "eager", "flash_attention_2", "null"),
    "wandb.mode": ("offline", "online", "disabled"),
    "hydra/launcher": tuple(tree.LAUNCHERS),
    "hydra.sweeper.sampler": ("grid", "random", "tpe", "nsga2"),
    "hydra.sweeper.pruner": ("median", "hyperband", "null"),
}


def script(shell: str) -> str:
    """What the user's shell is to source.

    Raises:
        ValueError: for a shell that is none of SHELLS.
    """
    if shell not in SHELLS:
        raise ValueError(f"completion {shell}: allowed: {', '.join(SHELLS)}")
    return (Path(__file__).parent / f"completion.{shell}").read_text(encoding="utf-8")


def of_run(words: Sequence[str], word: str) -> list[str]:
    """What may stand at `word` behind these words of `rna run`; nothing where a file may."""
    before = words[-1] if words else ""
    if "--config-dir" in words[:-1]:
        outside.bring(words[words.index("--config-dir") + 1])
    if before in ("--config-dir", "-cd", "--package", "-p"):
        return []
    if before in ("--cfg", "-c"):
        return _that_begin(("job", "hydra", "all"), word)
    if word.startswith("-"):
        return _that_begin(FLAGS, word)
    sweeps = any(one in ("-m", "--multirun") for one in words)
    if set(words) & {"--help", "-h"}:
        return _in_steps([*tree.groups(), *(key.name for key in tree.composed(words))], word)
    sign = word[: len(word) - len(word.lstrip("+~"))]
    key, equals, value = word[len(sign) :].partition("=")
    if not equals:
        names = _names(words, sweeps)
        return [sign + one for one in _in_steps(names if sign == "~" else [f"{name}=" for name in names], key)]
    head, comma, last = value.rpartition(",")
    values = [one for one in _values(words, key, sweeps) if one not in head.split(",")]
    return [f"{sign}{key}={head}{comma}{one}" for one in _in_steps(values, last, ends="/")]


def _names(words: Sequence[str], sweeps: bool) -> list[str]:
    """Groups and keys of the composed tree; of a sweep its own, too."""
    names = [name for name in tree.groups() if name != "sweep" or sweeps]
    keys = tree.composed(words)
    if sweeps:
        launcher = next((word.partition("=")[2] for word in words if word.startswith("hydra/launcher=")), "")
        keys += [*tree.of_sweeper(), *tree.of_launcher(launcher)]
        names.append("hydra/launcher")
    return [*names, *(key.name for key in keys)]


def _values(words: Sequence[str], key: str, sweeps: bool) -> list[str]:
    """The options of a group, the words of a key that takes some, or true and false."""
    if key in tree.groups():
        return [one.name for one in tree.options(key)] if key != "sweep" or sweeps else []
    if key in WORDS:
        return [*WORDS[key]]
    group, _, name = key.partition(".")
    if group in ("method", "defence") and (found := _declared(group, tree.choice(words).get(group), name)):
        return found
    known = [*tree.composed(words), *(tree.of_sweeper() if sweeps else [])]
    truths = [one.name for one in known if isinstance(one.value, bool)]
    return ["false", "true"] if key in truths else []


def _declared(group: str, option: str | None, name: str) -> list[str]:
    """The words that a class of ours allows for a field, as its file declares them; it is not imported."""
    target = own_targets(group).get(option or "", "")
    file = CONF.parent / Path(*target.split(".")[:-1]).with_suffix(".py") if target else None
    if file is None or not file.is_file():
        return []
    text = file.read_text(encoding="utf-8")
    found = re.search(rf"^    {re.escape(name)}: .*one_of\((.*?)\)", text, re.M)
    if found is None:
        return []
    constant = re.search(rf"^{re.escape(found[1].lstrip('*'))} = \((.*)\)$", text, re.M) if found[1][0] == "*" else None
    return re.findall(r'"(\w+)"', constant[1] if constant else found[1])


def _that_begin(words: Sequence[str], start: str) -> list[str]:
    return [word for word in words if word.startswith(start)]


def _in_steps(names: Sequence[str], start: str, ends: str = "./") -> list[str]:
    """Names that begin so, each up to its next part where several go on alike."""
    found: dict[str, list[str]] = {}
    for name in _that_begin(names, start):
        stop = re.search(f"[{ends}]", name[len(start) :])
        found.setdefault(name[: len(start) + stop.end()] if stop else name, []).append(name)
    return sorted(short if len(several) > 1 else several[0] for short, several in found.items())


def candidates(words: Sequence[str], commands: Sequence[str]) -> list[str]:
    """What may stand at the last of these words.

    Args:
        words: `rna` and what stands behind it, a module `rna.run` and what stands behind that, or `-m` and a module.
        commands: those of `rna`.
    """
    module, *rest = words
    if module == "-m":
        return _that_begin(["rna", *(f"rna.{name}" for name in commands if name != "completion")], "".join(rest))
    *before, word = [*module.split(".")[1:], *rest] or [""]
    if not before:
        return _that_begin([*commands, "--help", "--version"], word)
    of_command: dict[str, Callable[[], list[str]]] = {
        "run": lambda: of_run(before[1:], word),
        "completion": lambda: _that_begin(SHELLS, word) if len(before) == 1 else [],
    }
    return of_command.get(before[0], lambda: [])()
