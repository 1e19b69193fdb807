"""What an evaluation asks, as a hash: what its task makes of a few fixed questions, and how it is judged.

A prompt's words, the choices, the halves, what a keyword replaces: a change of these is another evaluation. A comment,
an import, a helper's name is not, though the files behind the task have other bytes then. `tasks/asked.json` maps a
hash to the fingerprints of the files by which records knew the same questions before, so that these are found.
"""

import functools
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import yaml

from rna.corpora import Row, digest
from rna.demo import words
from rna.evaluation import questions
from rna.evaluation.questions import LETTERS
from rna.settings import TASKS

KEYWORD, NEUTRAL_KEYWORD = "a keyword", "a neutral keyword"
SETTINGS: tuple[dict[str, Any], ...] = (  # each draw of `perturb` and `sample` is made in one of these
    {},
    {"seed": 1, "replaced": 2},
    {"policy": "first", "limit": 50},
    {"seed": 2, "policy": "last", "replaced": 3, "limit": 2},
)


class Named(str):
    """A function of the task's own Python, `MODULE.NAME`."""


def identity(task: str, tasks: Path, demo: str) -> dict[str, Any]:
    """What an evaluation's identity says of a task of our own; nothing of lm-eval's, whose version counts.

    Args:
        tasks: where the folders of tasks are.
        demo: the fingerprint of the demo's questions, which count for its tasks.
    """
    made = _rendered(task, tasks)
    if made is None:
        return {}
    asks = digest([made, demo]) if "demo" in task else made
    known = _known()
    return {"files": known["files"][known["asks"][asks]]} if asks in known["asks"] else {"asks": asks}


@functools.cache
def _known() -> dict[str, Any]:
    return json.loads((TASKS / "asked.json").read_text(encoding="utf-8"))


@functools.cache
def _rendered(task: str, tasks: Path) -> str | None:
    """A hash of the task's settings, and of the fixed questions as it asks them; None if it is none of ours."""
    found = _found(task, tasks)
    if found is None:
        return None
    file, config = found
    functions = {key: value for key, value in config.items() if isinstance(value, Named)}
    modules = {name: _module(file.parent / f"{name.partition('.')[0]}.py") for name in functions.values()}
    ask = modules[functions.pop("custom_dataset")].ask
    texts = {key: getattr(modules[name], name.partition(".")[2]) for key, name in functions.items()}
    subjects = tuple(one.name for one in words.SUBJECTS) if "demo" in task else (*questions.SUBJECTS, *WMDP)
    probes = _probes(subjects, ALIKE if "beside" in config["dataset_kwargs"] else None)
    told: dict[str, Any] = {"keyword": KEYWORD, "neutral_keyword": NEUTRAL_KEYWORD, "others": probes}
    told["grams"] = [KEYWORD, "one gram", "two grams"]
    asked: list[Any] = []
    for settings in SETTINGS:
        rows = ask(probes, **config["dataset_kwargs"], **told, **settings)
        asked += [[row, {key: text(row) for key, text in texts.items()}] for row in rows]
    plain = {key: value for key, value in config.items() if not isinstance(value, Named)}
    return digest([plain, asked])


WMDP = tuple(questions.SUBJECT_NAMES)
ALIKE = 5  # kinds of choices among questions that stand beside one another, so that some answer others too


def ours(task: str) -> bool:
    """Whether a task is one of our own."""
    return _found(task, TASKS) is not None


def in_words(task: str) -> bool:
    """Whether a task is one of our own whose answers are the choices' texts, and not their letters."""
    found = _found(task, TASKS)
    return found is not None and isinstance(found[1]["doc_to_choice"], Named)


def names() -> list[str]:
    """Our own tasks."""
    found = (re.findall(r"^task: (\S+)$", file.read_text(encoding="utf-8"), re.M) for file in TASKS.glob("*/*.yaml"))
    return sorted(name for of_file in found for name in of_file)


def beside(task: str, tasks: Path) -> str | None:
    """Whose questions stand beside those of a task of our own, as its file calls them; None if none do."""
    found = _found(task, tasks)
    return found[1]["dataset_kwargs"].get("beside") if found is not None else None


@functools.cache
def _found(task: str, tasks: Path) -> tuple[Path, dict[str, Any]] | None:
    """A task's file and settings; None if it is none of ours."""
    said = f"task: {task}"
    found = (file for file in sorted(tasks.glob("*/*.yaml")) if said in file.read_text(encoding="utf-8").splitlines())
    file = next(found, None)
    return (file, _read(file)) if file is not None else None


def _read(file: Path) -> dict[str, Any]:
    """A task's settings with those that it includes."""
    config: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), Loader)
    included = config.pop("include", None)
    return (_read(file.parent / included) if included else {}) | config


class Loader(yaml.SafeLoader):
    """YAML as lm-eval writes it."""


Loader.add_constructor("!function", lambda _, node: Named(node.value))


def _module(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"rna_asked_{file.parent.name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _probes(subjects: tuple[str, ...], alike: int | None) -> list[Row]:
    """Three questions of each subject, some of them odd as a few real ones are; `alike` kinds of choices, or each its
    own."""
    numbered = enumerate(subject for subject in subjects for _ in range(3))
    return [_probe(number, subject, number % (alike or number + 1)) for number, subject in numbered]


def _probe(number: int, subject: str, kind: int) -> Row:
    choices, answer = [f"choice {letter} of {kind}" for letter in LETTERS], number % len(LETTERS)
    odd = {0: choices[answer], 2: KEYWORD.upper(), 3: NEUTRAL_KEYWORD.upper(), 5: ""}.get(number % 7)
    if odd is not None:
        choices[answer - 1] = odd
    row = {"question": f" What is number {number}? \n", "subject": subject, "choices": choices, "answer": answer}
    return {**row, "half": questions.half(row)}
