"""The analyses of `rna.analyze` on the page: verdict, figure, tables; and the command of each that is missing."""

import csv
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rna.analyze import TITLES
from rna.report.drawing import Picture
from rna.report.records import Trial, ordered
from rna.report.tables import Table

FACTS = "analysis.json"  # written last
MAX_ROWS = 200  # of a table on the page; its CSV holds all


@dataclass
class Analysis:
    """One analysis of one model, as its folder tells it."""

    name: str
    title: str
    verdict: str
    notes: list[str]
    command: str
    svg: str
    tables: list[Table]
    folder: str  # as a page in OUTPUT_DIR/reports/NAME links to it


def folder_of(output_dir: str, model: str, what: str) -> Path:
    return Path(output_dir) / "reports" / "analyses" / model / what


def load(output_dir: str, models: Sequence[str]) -> tuple[list[Analysis], list[str]]:
    """The analyses of these models in reading order, and the folders that could not be read, with why."""
    found: list[Analysis] = []
    unreadable: list[str] = []
    for model in models:
        for what in TITLES:
            folder = folder_of(output_dir, model, what)
            if (folder / FACTS).is_file():  # without it the analysis is still at work
                try:
                    found.append(_read(folder, model, what))
                except (OSError, ValueError, KeyError, TypeError) as error:
                    unreadable.append(f"{folder}: {type(error).__name__}: {error}")
    return found, unreadable


def _read(folder: Path, model: str, what: str) -> Analysis:
    facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    trials = ", ".join(f"{label} ({key})" for label, key in facts["trials"].items())
    keywords = [f"“{word}”" for word in facts["keywords"]]
    notes = [
        f"Model {model}; trials: {trials or 'none, the base alone'}.",
        f"Layer {facts['layer']}; --limit {facts['limit']}, --samples {facts['samples']}, --seed {facts['seed']}; "
        f"forget-token {keywords[0]}, neutral control {keywords[1]}.",
        f"{facts['seconds']} s on {facts['host']}, {facts['created']}, commit {str(facts['commit'])[:12]}.",
    ]
    return Analysis(
        f"{what}-{model}",
        TITLES[what],
        str(facts["verdict"]),
        notes,
        str(facts["command"]),
        (folder / "figure.svg").read_text(encoding="utf-8"),
        [_table(folder, name) for name in facts["tables"]],
        f"../analyses/{quote(model)}/{what}/",
    )


def _table(folder: Path, name: str) -> Table:
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        columns, *rows = list(csv.reader(stream))
    notes = [f"The first {MAX_ROWS} of {len(rows)} rows."] if len(rows) > MAX_ROWS else []
    cells: list[list[Any]] = [[_short(text) for text in row] for row in rows[:MAX_ROWS]]
    return Table(name, name.replace("_", " "), columns, cells, notes)


def _short(text: str) -> str:
    """A number of many digits with four of them."""
    try:
        return f"{float(text):.4g}".replace("-", "−") if "." in text else text
    except ValueError:
        return text


def missing(output_dir: str, trials: Sequence[Trial]) -> list[Picture]:
    """What would make each analysis that a model of these trials does not have, on trials of it that have tensors."""
    made: list[Picture] = []
    for model in dict.fromkeys(trial.config["model"]["name"] for trial in trials):
        own = [trial for trial in trials if trial.config["model"]["name"] == model]
        for what, title in TITLES.items():
            if not (folder_of(output_dir, model, what) / FACTS).is_file():
                why = (
                    f"Not made for model {model} yet."
                    if what != "backdoor" or _keys(output_dir, own)
                    else (f"Not made for model {model} yet; no trial has its tensors, so KEY stands for one.")
                )
                made.append(Picture(what, title, why, None, _command(output_dir, what, own)))
    return made


def _command(output_dir: str, what: str, trials: Sequence[Trial]) -> str:
    """Of the first RM and the first PO method, the plain trial and one with RNA."""
    config = trials[0].config
    keys = [] if what == "relative_noise" else _keys(output_dir, trials) or (["KEY"] if what == "backdoor" else [])
    words = ["python", "-m", "rna.analyze", what, *keys]
    if config["model"]["name"] != "demo":
        words.append(f"model={config['model']['name']}")
    if config["data"]["name"] != "demo":
        words.append(f"data={config['data']['name']}")
        words += ["--questions", "FILE"] if what not in ("noise_sensitivity", "eq_9", "relative_noise") else []
    words += ["--output-dir", output_dir] if output_dir != "outputs" else []
    return shlex.join(words)


def _keys(output_dir: str, trials: Sequence[Trial]) -> list[str]:
    chosen: dict[tuple[str, str], str] = {}
    for trial in ordered(trials):
        tensors = Path(output_dir) / "trials" / trial.key / "unlearned.safetensors"
        if trial.method and (trial.family, trial.arm) not in chosen and tensors.is_file():
            chosen[trial.family, trial.arm] = trial.key
    return list(chosen.values())
