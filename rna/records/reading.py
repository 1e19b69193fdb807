"""Records for a table: of each file only what a row shows, which makes a thousand trials a matter of a second.

A report reads all of a record, its curve too, and takes ten times as long; see `rna.report.reading`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from rna.records.files import File
from rna.report.reading import arm_of
from rna.settings import title_of
from rna.store import Record

SHOWN = {
    "train": "kind key label config losses identity created seconds rna numerics commit host wandb delta".split(),
    "eval": "kind train_key task task_identity metrics config created".split(),
    "probe": "kind train_key task metrics config created".split(),
}


@dataclass
class Trained:
    """A training, or a model that is judged as it is, and every evaluation and probe of it, the oldest first."""

    key: str
    record: Record
    files: list[File]
    evaluations: list[Record] = field(default_factory=list)
    probes: list[Record] = field(default_factory=list)

    @property
    def arm(self) -> str:
        return arm_of(self.record)

    @property
    def method(self) -> str:
        """As the paper writes it, NPO+MSE; empty for a model that is judged as it is."""
        return title_of(self.record)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


@dataclass
class Read:
    """What a folder holds: trials, attempts that failed, and files that could not be used."""

    trials: list[Trained] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def read(lying: dict[str, list[File]]) -> Read:
    """The records among the files of each key, the newest training last."""
    found = Read()
    parsed: Callable[[str], Any] = cache(json.loads)  # evaluations repeat their trial's settings to the letter
    for key, files in lying.items():
        trained: Trained | None = None
        judged: list[Record] = []
        for file in files:
            if file.kind == "failure":
                found.failures.append(file.path.stem)
            if file.kind not in ("record", "evaluation"):
                continue
            try:
                record = _shown(file.path, parsed)
                if record["kind"] == "train":
                    trained = Trained(str(record["key"]), record, files)
                    _needed(trained)
                else:
                    _ = record["train_key"], record["config"]["eval"]["kind"], dict(record["metrics"])
                    judged.append(record)
            except (OSError, ValueError, KeyError, TypeError) as error:
                found.unreadable.append(f"{file.path.name}: {type(error).__name__}: {error}")
        if trained is not None and trained.key == key:
            judged.sort(key=lambda one: str(one.get("created")))
            trained.evaluations = [one for one in judged if one["kind"] == "eval"]
            trained.probes = [one for one in judged if one["kind"] == "probe"]
            found.trials.append(trained)
    found.trials.sort(key=lambda one: (str(one.record.get("created")), one.key))
    return found


def _needed(trained: Trained) -> None:
    """Raises KeyError or TypeError if a record lacks what no row can do without."""
    config = trained.record["config"]
    _ = trained.arm, trained.method, trained.record["identity"]["model"]["fingerprint"]
    _ = config["seed"], config["retain_loss"], config["model"]["name"], float(config["noise"]["nu"])


def _shown(path: Path, parsed: Callable[[str], Any]) -> Record:
    """The fields of a record that a row shows. Raises ValueError or KeyError for a file that is no record."""
    texts = _fields(path.read_bytes().decode("utf-8", "surrogateescape"))
    names = SHOWN[parsed(texts["kind"])]
    return {name: parsed(texts[name]) for name in names if name in texts}


def _fields(text: str) -> dict[str, str]:
    """A record's fields, unread. As it is written a field begins a line behind one blank, and nothing else does."""
    if text.startswith('{\n "') and text.endswith("\n}"):
        return dict(field.split('": ', 1) for field in text[4:-2].split(',\n "'))
    return {name: json.dumps(value) for name, value in json.loads(text).items()}  # not written by this program
