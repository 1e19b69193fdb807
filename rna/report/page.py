"""The report as one HTML file that needs nothing else: no network, no fonts, no scripts from elsewhere."""

import itertools
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rna.intervals import answers
from rna.report import analyses, commands, compare, records, tables, verdicts
from rna.report.analyses import Analysis
from rna.report.compare import Condition
from rna.report.drawing import INK, Picture
from rna.report.reading import Loaded
from rna.report.records import Study, Trial
from rna.report.sheet import Table
from rna.report.tables import ROLES
from rna.report.verdicts import Verdict

ARMS = {"base": "base", "retrained": "retrained", "given": "given", "plain": "plain", "rna": "with RNA"}
LARGE = 40  # rows from which a table is folded


@dataclass
class Chapter:
    """One study with what was made of it."""

    study: Study
    folder: str  # relative to index.html
    verdicts: list[Verdict]
    tables: list[Table]
    pictures: list[tuple[Picture, str]]  # with the SVG's text, "" where the figure is missing


def render(
    name: str, loaded: Loaded, selected: Sequence[Trial], chapters: Sequence[Chapter], output: Path, command: str
) -> str:
    """The page's text. `output` is the folder it will lie in, to which its links are relative."""
    output_dir = str(output.parent.parent)
    models = list(dict.fromkeys(str(trial.config["model"]["name"]) for trial in selected))
    studied, unreadable = analyses.load(output_dir, models)
    unmade = [*itertools.chain.from_iterable(map(_missing, chapters)), *analyses.missing(output_dir, selected)]
    return _template("page.html").render(
        name=name,
        command=command,
        one_seed=answers.ONE_SEED,
        overview=overview(loaded, selected),
        notices=[
            *notices(loaded, chapters),
            *(f"An analysis could not be shown: {item}." for item in unreadable),
        ],
        chapters=[_chapter(chapter, number) for number, chapter in enumerate(chapters, 1)],
        headers=_headers(chapters),
        trials=_rows(selected, chapters, output),
        methods=sorted({trial.method for trial in selected if trial.method}, key=_place),
        reproduce=reproduce(chapters),
        analyses=[_analysis(item) for item in studied],
        missing=[item for item in unmade if item.command],
    )


def _template(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(str(Path(__file__).parent))
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name)


@dataclass
class Section:
    """A study of a page with one question: a paragraph of answers, one figure and its tables."""

    name: str
    folder: str  # relative to index.html
    answers: list[str]
    tables: list[Table]
    picture: Picture
    svg: str


def sectioned(name: str, title: str, sections: Sequence[Section], command: str) -> str:
    """The text of a page with one question."""
    drawn = [(item, inline(item.svg, f"s{number}{item.picture.name}")) for number, item in enumerate(sections, 1)]
    return _template("sections.html").render(name=name, title=title, sections=drawn, command=command)


def _analysis(item: Analysis) -> dict[str, Any]:
    return {**vars(item), "svg": inline(item.svg, item.name)}


def _place(method: str) -> tuple[int, str]:
    return (records.PAPER_ORDER.index(method) if method in records.PAPER_ORDER else 99, method)


def inline(svg: str, name: str) -> str:
    """An SVG file's drawing for a page: its ids made unique, its ink the page's text colour."""
    from markupsafe import Markup

    own = re.sub(r"[^\w-]", "_", name)  # a model's name may hold anything
    text = svg[svg.index("<svg") :]
    text = re.sub(r'\bid="', f'id="{own}-', text)
    text = re.sub(r'(url\(#|xlink:href="#|\bhref="#)', rf"\g<1>{own}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return Markup(text.replace(INK, "currentColor"))  # as drawn by matplotlib, which escapes text


def asked(study: Study) -> list[tuple[str, str]]:
    """What was asked: methods, noise, model, seeds, data and forget keyword."""
    config, trained = study.config, study.trials
    nus = sorted({trial.nu for trial in trained if trial.arm == "rna"})
    seeds = sorted({trial.seed for trial in trained})
    said = [("methods" if len(study.methods) > 1 else "method", ", ".join(study.methods))]
    said += [("ν", ", ".join(f"{nu:g}" for nu in nus))] if nus else []
    said += [("seeds" if len(seeds) > 1 else "seed", ", ".join(map(str, seeds)))]
    said += [(name, str(config[name]["name"])) for name in ("model", "data", "eval")]
    keyword = config["eval"].get("keyword")
    said += [("forget-token", f"“{keyword}”")] if keyword and not config["eval"].get("keywords") else []
    said += [("variant", "official")] if "variant official" in study.name else []
    said += [(name, str(value)) for name, value in study.varied.items() if name not in ("keyword", "variant")]
    return [(name, value) for name, value in said if value]


def overview(loaded: Loaded, selected: Sequence[Trial]) -> str:
    """How much was run."""
    trained = [trial for trial in selected if trial.method]
    hours = sum((trial.facts["seconds"] or 0.0) + trial.seconds_evaluating for trial in trained) / 3600
    return (
        f"{len(trained)} trials ({sum(trial.arm == 'plain' for trial in trained)} plain, "
        f"{sum(trial.arm == 'rna' for trial in trained)} with RNA) from {loaded.files} records; {hours:.1f} hours."
    )


def notices(loaded: Loaded, chapters: Sequence[Chapter]) -> list[str]:
    """What a reader must know before believing a number."""
    found: list[str] = []
    if len(chapters) > 1:
        found.append(
            f"{len(chapters)} groups of records differ in model, data, numerics or evaluation; each stands by itself "
            "below, and nothing is averaged across them."
        )
    for chapter in chapters:
        study = chapter.study
        seeds = {trial.seed for trial in study.trials}
        if len(seeds) == 1:
            counted = "questions" if study.kind == "choice" else "documents"
            found.append(f"{study.name}: one seed. Intervals are over {counted} and say nothing of other seeds.")
        if compare.shown(study).half:
            found.append(
                f"{study.name}: where several ν were run, the best on the select half of the questions is shown, and "
                "its row is of the report half; tables of all settings are of all questions."
            )
        if len(chapter.verdicts) > 4:
            found.append(f"{len(chapter.verdicts)} intervals: about one in twenty leaves out zero by chance.")
        if len(study.commits) > 1:
            found.append(
                f"{study.name}: trials of {len(study.commits)} code versions ({', '.join(study.commits)}) are averaged "
                "together; their numerics have the same version number."
            )
        models = {study.config["model"]["name"]}
        if "demo" in models:
            found.append(
                "Numbers of the demo model are about a tiny invented world; they are no estimate for a 7B model."
            )
    if loaded.unknown:
        fields = ", ".join(f"{name} ({count})" for name, count in loaded.unknown.most_common(8))
        found.append(f"{sum(loaded.unknown.values())} unknown fields in records were ignored: {fields}.")
    if loaded.unreadable:
        first = "; ".join(loaded.unreadable[:3])
        found.append(f"{len(loaded.unreadable)} files in results/ could not be used: {first}.")
    if loaded.reruns:
        found.append(f"{loaded.reruns} reruns are left out; the first record of a key counts.")
    if loaded.failures:
        found.append(f"{len(loaded.failures)} attempts stopped; see the table of trials that stopped.")
    return list(dict.fromkeys(found))


def _chapter(chapter: Chapter, number: int) -> dict[str, Any]:
    study = compare.shown(chapter.study)
    drawn = [(item, inline(svg, f"s{number}{item.name}")) for item, svg in chapter.pictures if svg]
    first = [one for one in drawn if one[0].name == "figure1"] or drawn[:1]
    front = tables.front(study, compare.picks(study))
    return {
        "number": number,
        "name": chapter.study.name,
        "asked": asked(chapter.study),
        "headline": verdicts.headline(study, chapter.verdicts),
        "folder": chapter.folder,
        "verdicts": [(item, _look(item, study.better)) for item in chapter.verdicts],
        "more": _more_seeds(chapter.verdicts),
        "front": front,
        "first": first,
        "pictures": [one for one in drawn if one not in first],
        "tables": [table for table in chapter.tables if table.rows],
    }


def _look(verdict: Verdict, better: int) -> str:
    """The class of a verdict's badge."""
    signs = {answers.MOVES[1]: better, answers.MOVES[-1]: -better}
    return (
        {1: "good", -1: "bad", 0: "none"}[signs.get(verdict.word, 0)] if verdict.word != verdicts.UNLIKE else "unsure"
    )


def _more_seeds(found: Sequence[Verdict]) -> list[str]:
    """Where all is of one seed, the commands that bring others."""
    known = [item.comparison for item in found if item.comparison is not None]
    if not known or any(len(item.seeds) > 1 for item in known):
        return []
    return [commands.more_seeds(item.rna.trials) for item in known]


def _missing(chapter: Chapter) -> list[Picture]:
    """What the chapter's records cannot feed, with what would compute it."""
    found = [picture for picture, svg in chapter.pictures if not svg]
    bare = [table for table in chapter.tables if not table.rows]
    return [*found, *_unmatched(chapter), *(Picture(one.name, one.title, "", None, one.command) for one in bare)]


def _unmatched(chapter: Chapter) -> list[Picture]:
    """What would compute the comparison at matched forgetting, for each method that has none."""
    curves = compare.trade_offs(chapter.study)
    done = {item.method for item in curves if item.results}
    done |= {item.other.first.method for item in compare.stopped(chapter.study) if item.pairs}
    first = {item.method: item for item in reversed(curves) if item.method not in done}
    return [
        Picture(
            "", f"Matched forgetting · {method}", "", None, commands.more_alphas(chapter.study, first[method].rna[0])
        )
        for method in chapter.study.methods
        if method in first
    ]


def _headers(chapters: Sequence[Chapter]) -> list[str]:
    names = [name for name in ROLES if any(chapter.study.has(name) for chapter in chapters)]
    return ["method", "arm", "ν", "α", "seed", *(ROLES[name] for name in names), "train s", "group", "files"]


def _rows(selected: Sequence[Trial], chapters: Sequence[Chapter], output: Path) -> list[dict[str, Any]]:
    """A row for each trial: texts with the values to sort by, links and command."""
    names = [name for name in ROLES if any(chapter.study.has(name) for chapter in chapters)]
    placed: dict[str, list[int]] = {}
    scored: dict[str, tuple[Study, Trial]] = {}
    for number, chapter in enumerate(chapters, 1):
        for trial in [*chapter.study.trials, *chapter.study.references.values()]:
            placed.setdefault(trial.key, []).append(number)
            scored.setdefault(trial.key, (chapter.study, trial))
    rows: list[dict[str, Any]] = []
    for trial in records.ordered(selected):
        study, view = scored.get(trial.key, (None, trial))
        cells: list[tuple[str, Any]] = [
            (trial.method or "–", _place(trial.method)[0]),
            (ARMS[trial.arm], list(ARMS).index(trial.arm)),
            (f"{trial.nu:g}" if trial.arm == "rna" else "–", trial.nu),
            (compare.alpha(trial.config), next(iter(trial.config["alpha"].values()), -1)),
            (str(trial.seed) if trial.method else "–", trial.seed),
        ]
        for name in names:
            score = study.score(view, name) if study is not None else None
            made = Condition([view]).uncut(study, name) if study is not None else None
            show = answers.percent if trial.kind == "choice" else answers.perplexity
            cells.append((show(made), -math.inf if score is None else score.value))
        seconds = trial.facts["seconds"] or 0.0
        cells += [(f"{seconds:.0f}", seconds), (" ".join(map(str, placed.get(trial.key, []))) or "–", 0)]
        rows.append(
            {
                "method": trial.method,
                "arm": trial.arm,
                "cells": [(text, "" if value in (math.inf, -math.inf) else value) for text, value in cells],
                "links": _links(trial, output),
                "command": commands.reproduce([trial]),
                "key": trial.key,
            }
        )
    return rows


def _links(trial: Trial, output: Path) -> list[tuple[str, str]]:
    """Record and W&B folder, relative to the page; of packed records, whose folder may be elsewhere, what is here."""
    results = output.parent.parent / "results" / f"{trial.key}.json"
    links = [("record", os.path.relpath(results, output))] if results.is_file() else []
    wandb = trial.facts.get("wandb")
    if wandb:
        there = Path(str(wandb))  # as the record has it; the output folder may have been moved since
        here = output.parent.parent / "wandb" / there.name
        links.append(("log", os.path.relpath(there if there.is_dir() and not here.is_dir() else here, output)))
    return [(label, quote(where)) for label, where in links]


def reproduce(chapters: Sequence[Chapter]) -> list[tuple[str, str]]:
    """The commands of what the summary shows: a method with RNA, its plain twin and the base with it."""
    return [
        (method, commands.reproduce(pick.comparison.rna.trials))
        for chapter in chapters
        for method, pick in compare.picks(compare.shown(chapter.study)).items()
        if pick is not None
    ]
