"""`python -m rna.report replication`: the paper's claims one by one, each judged from records alone.

Every study of the records stands beside the others on each basis that it has: equal hyperparameters, as in the paper,
and matched forgetting. `claims` has the claims, what is measured for each, and the rule of its verdict.
"""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rna.intervals import Estimate, over_seeds
from rna.report import claims, commands, compare, drawing, measures, packed, page, protections, sheet
from rna.report.claims import CLAIMS, FAILS, HOLDS, UNTOLD, Finding
from rna.report.drawing import Picture
from rna.report.measures import BASES, MATCHED, Asked
from rna.report.records import Study
from rna.report.sheet import Table

NAME = "replication"
TITLE = "Do the paper’s claims hold?"
SWEEP = commands.quoted(["-m", "sweep=miniature"])
SHIPPED = Path(__file__).parent / "replication"  # packed records of our own runs, and what this makes of them


def shipped() -> list[Path]:
    """The packed records that come with the package."""
    return sorted(SHIPPED.glob(f"*{packed.SUFFIX}"))


@dataclass
class Column:
    """One study on one basis."""

    asked: Asked
    title: str
    findings: list[Finding]

    @property
    def study(self) -> Study:
        return self.asked.study

    def digits_of(self, one: Finding) -> int:
        return 3 if one.claim.unit else self.study.digits


def columns(studies: Sequence[Study], analysed: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Of each study every basis on which it tells anything.

    Args:
        analysed: of `packed.analysed`.
    """
    sensitivities = _sensitivities(analysed)
    found: list[Column] = []
    for study in studies:
        shown = study.reported if study.halved else study
        for basis in BASES:
            asked = Asked(shown, basis, sensitivities)
            made = claims.judged(asked)
            if any(one.told for one in made):
                found.append(Column(asked, _title(study, studies, basis), made))
    return found


def _title(study: Study, studies: Sequence[Study], basis: str) -> str:
    config = study.config
    alike = [one for one in studies if one.config["model"]["name"] == config["model"]["name"]]
    parts = [str(config["model"]["name"]), *([f"eval {config['eval']['name']}"] if len(alike) > 1 else [])]
    parts += [f"{key} {value}" for key, value in study.varied.items()][:1] if len(alike) > 2 else []
    return f"{', '.join(parts)}, {basis}"


def _sensitivities(analysed: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, str]]]:
    """By training key its rows of `noise_sensitivity`."""
    found: dict[str, list[Mapping[str, str]]] = {}
    for one in analysed:
        if one["what"] == "noise_sensitivity":
            rows: list[Mapping[str, str]] = list(itertools.chain.from_iterable(one["tables"].values()))
            for label, key in one["facts"]["trials"].items():
                found[str(key)] = [row for row in rows if row.get("model") == label and row.get("minus_base")]
    return found


def written(studies: Sequence[Study], analysed: Sequence[Mapping[str, Any]], folder: Path, command: str) -> list[str]:
    """Write `FOLDER/replication.md`, its page, table and figure; returns the answer.

    Raises:
        ValueError: if nothing can be judged; with the command that trains what can.
    """
    found = columns(studies, analysed)
    if not found:
        raise ValueError(f"no claim can be judged by these records; {SWEEP} makes some on the demo")
    folder.mkdir(parents=True, exist_ok=True)
    made = table(found)
    sheet.write(made, folder / "tables")
    drawn = drawing.written([lambda: picture(found)], folder / "figures")
    answer = headline(found)
    section = page.Section("All studies", "", [answer], [made], *drawn[0])
    text = page.sectioned(folder.parent.name, TITLE, [section], command)
    (folder / "index.html").write_text(text, encoding="utf-8")
    (folder / f"{NAME}.md").write_text(markdown(found, command), encoding="utf-8")
    return [answer]


# The table


def table(found: Sequence[Column]) -> Table:
    rows: list[list[sheet.Cell]] = []
    for place, claim in enumerate(CLAIMS):
        rows.append([claim.text, *(_cell(column, column.findings[place]) for column in found)])
    notes = [
        "Each number is a mean over methods of their means over seeds, with its 95 % interval; accuracy in points, "
        "log-loss in nats a token. Scores are of the report half of the questions where there is one.",
        "holds: the interval leaves out zero on the claimed side, or lies within the margin if nothing is to change. "
        "does not hold: the whole interval falls short of the margin. Else it cannot be told here. The intervals are "
        "each claim’s own, without a correction for their number.",
    ]
    return Table(NAME, TITLE, ["claim", *(column.title for column in found)], rows, notes, 1, (), SWEEP)


def _cell(column: Column, one: Finding) -> str:
    if one.measured.number is None:
        return "–"
    return f"{one.verdict}: {_number(one.measured.number, column.digits_of(one))}"


def _number(made: Estimate, digits: int) -> str:
    text = f"{made.value:+.{digits}f}"
    if made.low is not None and made.high is not None:
        text += f" [{made.low:+.{digits}f}, {made.high:+.{digits}f}]"
    return text.replace("-", "−")


# Words


def headline(found: Sequence[Column]) -> str:
    """How many claims hold, on each basis of each study."""
    told: list[str] = []
    for column in found:
        counts = Counter(one.verdict for one in column.findings if one.told)
        words = [f"{counts[HOLDS]} hold", f"{counts[FAILS]} do not", f"{counts[UNTOLD]} cannot be told"]
        told.append(f"{column.title}: of {sum(counts.values())} claims {', '.join(words)}")
    return f"{'; '.join(told)}."


def _unit(column: Column, one: Finding) -> str:
    return (one.claim.unit or column.study.difference) + one.claim.each


def markdown(found: Sequence[Column], command: str) -> str:
    """The claims one by one: what the paper says, and on each basis the number, what it is, and what was tried."""
    lines = [f"# {TITLE}", "", f"Made by `{command}`, from records alone.", "", headline(found), "", *_ran(found), ""]
    lines += [sheet.markdown(table(found)), ""]
    for place, claim in enumerate(CLAIMS):
        lines += [f"## {claim.text}", "", f"{claim.where}: {claim.paper}. Measured: {claim.tells}.", ""]
        for column in found:
            lines += _told(column, column.findings[place])
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _ran(found: Sequence[Column]) -> list[str]:
    """What was run, a line a study."""
    lines: list[str] = []
    for study in dict.fromkeys(column.study for column in found):
        trained = study.trials
        seeds = sorted({trial.seed for trial in trained})
        seconds = sum((trial.facts["seconds"] or 0.0) + trial.seconds_evaluating for trial in trained)
        methods = {name for column in found if column.study is study for name in column.asked.methods}
        config = study.config
        words = config["eval"].get("keywords") or [config["eval"].get("keyword")]
        names = [f"{group} {config[group]['name']}" for group in ("model", "data", "eval")]
        named = " · ".join([*names, f"forget-token “{'”, “'.join(map(str, words))}”"])
        lines.append(
            f"- {named}: {len(trained)} trials of {', '.join(sorted(methods))}, seeds {_span(seeds)}, "
            f"{seconds / 3600:.1f} hours of one process."
        )
    return lines


def _span(seeds: Sequence[int]) -> str:
    whole = list(seeds) == list(range(seeds[0], seeds[-1] + 1)) and len(seeds) > 2
    return f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds))


def _told(column: Column, one: Finding) -> list[str]:
    measured = one.measured
    note = f" ({measured.note})" if measured.note else ""
    if measured.number is None:
        return [f"- {column.title}: not asked{note}."]
    digits = column.digits_of(one)
    number = f"{_number(measured.number, digits)} {_unit(column, one)}"
    count, seeds = len(measured.by_method), measured.number.n
    of = f"{count} methods of {seeds} seeds or more" if count > 1 else f"{seeds} seeds of {''.join(measured.by_method)}"
    lines = [f"- {column.title}: **{one.verdict}**, {number}, {of}{note}."]
    each = [f"{name} {_number(made, digits)}" for name, made in measured.by_method.items()]
    lines += [f"  By method: {'; '.join(each)}."] if len(each) > 1 else []
    low, high = measured.number.low, measured.number.high
    if one.verdict == UNTOLD and one.claim.wants and low is not None and high is not None:
        lines.append(f"  From {(high - low) / 2:.{digits}f} on it could be told, half of what the interval spans.")
    lines += [f"  {text}" for text in _tried(column, one)]
    return lines


def _tried(column: Column, one: Finding) -> list[str]:
    """Where RNA does not do what is claimed: which settings were tried, and what else protects on the same records."""
    if one.verdict == HOLDS or not one.claim.name.startswith("recovers"):
        return []
    family = one.claim.name.removeprefix("recovers_").upper()
    asked, study, lines = column.asked, column.study, list[str]()
    own = [name for name in asked.methods if any(t.family == family for t in asked.study.trials if t.method == name)]
    tried = [measures.nu_of(row.first) for name in own for row in asked.with_rna(name)]
    if tried:
        where = "on the select half" if study.halved else "on the very texts reported, which flatters"
        lines.append(f"Tried: {', '.join(dict.fromkeys(tried))}, of each method the best {where}.")
    others = [
        f"{method} {row.name} {_number(over_seeds(gains), study.digits)}"
        for method in own
        for row in (*_heavier(asked, method), *_defended(asked, method)[:1])
        if (gains := [gain for pair in row.beside.pairs if (gain := asked.gain(*pair)) is not None])
    ]
    gained = f"Beside it, what else gives back: {'; '.join(others)} {study.difference}."
    return [*lines, *([gained] if others else [])]


# The figure


def picture(found: Sequence[Column]) -> Picture:
    """What a forget-token costs each method, plain, with RNA, and with what else protects best: a panel a column."""
    shown = [column for column in found if any(column.asked.plain(name) for name in column.asked.methods)]
    figure, panels = drawing.panels_for([column.title for column in shown], 2.7, 2, share=False)
    for column, axes in zip(shown, panels.values(), strict=True):
        asked = column.asked
        methods = asked.methods
        for place, method in enumerate(methods):
            for shift, arm, rows in _arms(asked, method):
                costs = [cost for trial in rows if (cost := asked.cost(trial)) is not None]
                if costs:
                    look = drawing.style(column.study, method, arm) if arm in drawing.ARMS else _ELSE
                    drawing.mark(axes, [(place + shift, over_seeds(costs))], look)
        axes.axhline(0.0, color=drawing.INK, lw=0.9)
        study, basis = column.title.removesuffix(f", {asked.basis}"), asked.basis  # two lines, as panels are narrow
        axes.set_title(f"{study}\n{basis} ({column.study.difference})", fontsize=8)
        axes.set_xticks(range(len(methods)), methods, rotation=40, ha="right")
        axes.set_xlim(-0.6, len(methods) - 0.4)
        axes.xaxis.set_tick_params(labelbottom=True)
    drawing.share_labels(panels, "", "cost of a forget-token")
    drawing.say(figure, "What a forget-token costs: plain, with RNA, and with what protects best")
    _legend(figure, shown)
    caption = (
        "Means over seeds with 95 % intervals, on the report half; zero is the model before unlearning. RNA with the ν "
        "that is best on the select half, or where there is none on all; triangles: of the defences trained to the "
        "same forgetting the best there."
    )
    return Picture(NAME, "What does a forget-token cost, and does RNA give it back?", caption, figure)


_ELSE: dict[str, Any] = {"color": "#d55e00", "marker": "^", "markersize": 5.5, "linestyle": "none"}
OTHER = "best defence"


def _arms(asked: Asked, method: str) -> list[tuple[float, str, list[Any]]]:
    """Plain, with RNA, and with the defence whose score beside a forget-token is the best on the select half."""
    plain, best = asked.plain(method), asked.best(method)
    found = [(-0.22, "plain", plain.trials)] if plain is not None else []
    found += [(0.0, "rna", best.trials)] if best is not None else []
    return [*found, *((0.22, OTHER, row.trials) for row in _defended(asked, method)[:1])]


_groups = cache(protections.groups)


def _protected(asked: Asked, method: str) -> list[protections.Row]:
    """What stands beside a method's plain trainings to the same forgetting, without noise."""
    groups = _groups(asked.study) if asked.basis == MATCHED else []
    rows = [row for group in groups if group.method == method for row in group.rows]
    return [row for row in rows if row.beside.pairs and row.trials[0].arm == "plain"]


def _defended(asked: Asked, method: str) -> list[protections.Row]:
    """With a defence, the best score beside a forget-token on the select half first."""

    def merit(row: protections.Row) -> float:
        half = "select" if asked.study.halved else asked.study.part
        made = compare.Condition(row.trials).estimate(asked.study, asked.role, half)
        return -math.inf if made is None else asked.study.better * made.value

    return sorted((row for row in _protected(asked, method) if row.trials[0].defences), key=merit, reverse=True)


def _heavier(asked: Asked, method: str) -> list[protections.Row]:
    return [row for row in _protected(asked, method) if not row.trials[0].defences]


def _legend(figure: Any, shown: Sequence[Column]) -> None:
    from matplotlib.lines import Line2D

    study = shown[0].study
    methods = list(dict.fromkeys(name for column in shown for name in column.asked.methods))
    handles = drawing.handles_of(study, methods)
    arms = [arm for column in shown for name in column.asked.methods for _, arm, _ in _arms(column.asked, name)]
    if OTHER in arms:
        handles[OTHER] = Line2D([], [], **_ELSE)
    drawing.legend(figure, handles)
