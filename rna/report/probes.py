"""`python -m rna.report probes`: what each probe brings back of what was forgotten, by method and protection, and
whether protecting what is retained costs any of it: one figure, one table and one paragraph."""

import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rna import intervals
from rna.corpora import digest
from rna.intervals import FAMILY_WISE, Estimate, Terms, answers, probed
from rna.report import commands, compare, drawing, page, protections, sheet
from rna.report.drawing import Picture
from rna.report.records import Study, Trial
from rna.report.sheet import Cell, Table
from rna.store import Record

NAME = "probes"
SWEEP = commands.quoted(["-m", f"sweep={NAME}"])
USUAL = ("relearn", "quantise", "lens", "ablate", "fewshot")  # the order in which ours stand
AGREEMENT = "agreement"
REFERENCES = ("base", "retrained")


@dataclass
class Row:
    """A method's trainings with one kind of protection, or a reference model: by probe the record of each seed."""

    method: str
    kind: str
    by_seed: dict[int, dict[str, Record]]
    raw_p: dict[str, float | None] = field(default_factory=dict)  # by probe, of `after` less plain's, paired by seed
    p: dict[str, float] = field(default_factory=dict)  # after Holm, over all rows and probes of the page
    changes: dict[str, Estimate] = field(default_factory=dict)

    def records(self, probe: str) -> dict[int, Record]:
        """By seed, the records of a probe."""
        return {seed: found[probe] for seed, found in self.by_seed.items() if probe in found}

    def known(self, probe: str, *, before: bool = False) -> Estimate | None:
        """Forget accuracy in the probe's strongest state, or before it: on the report half, over seeds."""
        terms = [_known(record, before=before) for record in self.records(probe).values()]
        found = [one for one in terms if one]
        return intervals.estimate(found) if found else None

    def gain(self, probe: str) -> Estimate | None:
        terms = [probed.gain(record["metrics"], roles_of(record)) for record in self.records(probe).values()]
        found = [one for one in terms if one]
        return intervals.estimate(found) if found else None

    def alike(self, what: str) -> Estimate | None:
        """How its forget answers agree with the retrained model's, over seeds."""
        values = [record["metrics"]["forget"][what] for record in self.records(AGREEMENT).values()]
        return intervals.over_seeds([100 * one if what == "equal" else one for one in values]) if values else None


def roles_of(record: Record) -> dict[str, str]:
    """Task -> role, of what a probe could ask."""
    return {name: task["role"] for name, task in record["config"]["eval"]["tasks"].items()}


def _known(record: Record, *, before: bool = False) -> Terms | None:
    metrics = record["metrics"]
    state = metrics["states"].get(probed.BEFORE if before else metrics.get("state"))
    return probed.known(state, roles_of(record), "report") if state else None


def written(studies: Sequence[Study], records: Mapping[str, Sequence[Record]], folder: Path, command: str) -> list[str]:
    """Write `FOLDER/index.html`, its table and its figure, of each study that was probed; returns the answers.

    Args:
        records: those of probes, by training key.

    Raises:
        ValueError: if no trial was probed; with the command that probes some.
    """
    found = [(study, rows) for study in studies if (rows := rows_of(study, records))]
    if not found:
        raise ValueError(f"no trial was probed with questions; {SWEEP} probes nine methods")
    for old in [folder / "figures", folder / "tables", *folder.glob("study*")]:
        shutil.rmtree(old, ignore_errors=True)
    tested = correct([row for _, rows in found for row in rows])
    sections: list[page.Section] = []
    for number, (study, rows) in enumerate(found, 1):
        below = "" if number == 1 else f"study{number}/"
        made = table(study, rows, tested)
        sheet.write(made, folder / below / "tables")
        drawn = drawing.written([lambda study=study, rows=rows: picture(study, rows)], folder / below / "figures")
        sections.append(page.Section(study.name, below, paragraph(rows, tested), [made], *drawn[0]))
    folder.mkdir(parents=True, exist_ok=True)
    text = page.sectioned(folder.parent.name, "Is it forgotten?", sections, command)
    (folder / "index.html").write_text(text, encoding="utf-8")
    return [line for section in sections for line in section.answers]


# Rows


def rows_of(study: Study, records: Mapping[str, Sequence[Record]]) -> list[Row]:
    """Base and retrained, then each method plain and protected: of several settings of a probe, or of a row, the one
    with most records."""
    if study.kind != "choice":
        return []
    settings = _settings(study, records)

    def of(trial: Trial) -> dict[str, Record]:
        return {_probe(one): one for one in records.get(trial.key, ()) if _identity(one) == settings.get(_probe(one))}

    rows = [Row(name, "", {0: of(one)}) for name in REFERENCES if (one := study.references.get(name)) and of(one)]
    families: dict[str, list[Trial]] = {}
    for trial in study.trials:
        if trial.reached is not False and of(trial):
            families.setdefault(trial.without(*compare.UNLIKE_PLAIN), []).append(trial)
    for trials in families.values():
        plain = next((trial for trial in trials if trial.bare), None)
        by_kind: dict[str, dict[str, dict[int, Trial]]] = {}
        for trial in trials:
            kind = protections.kind_of(trial, plain) or protections.PLAIN if plain else trial.method
            by_kind.setdefault(kind, {}).setdefault(trial.without("seed"), {})[trial.seed] = trial
        method = plain.method if plain else trials[0].method
        for kind in sorted(by_kind, key=lambda one: (one != protections.PLAIN, protections.place(one))):
            seeds = max(by_kind[kind].values(), key=len)
            rows.append(Row(method, kind, {seed: of(seeds[seed]) for seed in sorted(seeds)}))
    trained = [row for row in rows if row.kind]
    for row in trained:
        plain_row = next((one for one in trained if (one.method, one.kind) == (row.method, protections.PLAIN)), None)
        if plain_row is not None and row is not plain_row:
            _compare(row, plain_row)
    return rows if trained else []


def _probe(record: Record) -> str:
    return str(record["task"]).partition("/")[2]


def _identity(record: Record) -> str:
    """Of a probe's numbers and the questions it asks, whatever model it is asked of."""
    return digest({name: record["task_identity"].get(name) for name in ("probe", "tasks")})


def _settings(study: Study, records: Mapping[str, Sequence[Record]]) -> dict[str, str]:
    counts: dict[str, Counter[str]] = {}
    for trial in study.trials:
        for record in records.get(trial.key, ()):
            counts.setdefault(_probe(record), Counter())[_identity(record)] += 1
    return {name: found.most_common(1)[0][0] for name, found in counts.items()}


def _compare(row: Row, plain: Row) -> None:
    """What a row knows more than plain in a probe's strongest state, seed by seed."""
    for probe in shown([row, plain]):
        mine, its = row.records(probe), plain.records(probe)
        pairs = [(_known(mine[seed]), _known(its[seed])) for seed in mine.keys() & its.keys()]
        terms = [intervals.difference(one, other) for one, other in pairs if one and other]
        if terms:
            row.changes[probe] = intervals.estimate(terms)
            values = [math.fsum(weight * score.value for weight, score in one) for one in terms]
            row.raw_p[probe] = intervals.t_test(values)


def correct(rows: Sequence[Row]) -> int:
    """Give all comparisons their p after Holm's correction; returns of how many."""
    tested = [(row, probe, p) for row in rows for probe, p in row.raw_p.items() if p is not None]
    for (row, probe, _), p in zip(tested, intervals.holm([p for *_, p in tested]), strict=True):
        row.p[probe] = p
    return len(tested)


def shown(rows: Sequence[Row]) -> list[str]:
    """The probes with states, ours first."""
    there = {
        name
        for row in rows
        for found in row.by_seed.values()
        for name, one in found.items()
        if "state" in one["metrics"]
    }
    return sorted(there, key=lambda name: (USUAL.index(name) if name in USUAL else len(USUAL), name))


# The table


def table(study: Study, rows: Sequence[Row], tested: int) -> Table:
    """Each row's forget accuracy as it is, after each probe, and how far that lies from plain's."""
    probes, agree = shown(rows), any(row.records(AGREEMENT) for row in rows)
    columns = ["method", "protection", "seeds", "forget, as it is"]
    for probe in probes:
        columns += [probe, f"Δ plain, {probe}"]
    columns += ["equal answers with retrained, %", "divergence from retrained, nats"] if agree else []
    cells: list[list[Cell]] = []
    for row in rows:
        first = next((probe for probe in probes if probe != "relearn" and row.records(probe)), *probes[:1])
        line: list[Cell] = [row.method, row.kind, len(row.by_seed) if row.kind else None]
        line.append(row.known(first, before=True) if first else None)
        for probe in probes:
            line += [row.known(probe), row.changes.get(probe)]
        if agree:
            apart = row.alike("divergence")
            line += [row.alike("equal"), None if apart is None else f"{apart.value:.3f}"]
        cells.append(line)
    notes = [
        "Forget accuracy in %, on the report half, in the state that knows most on the select half. Base and retrained "
        "are probed as the others are; a model that has forgotten stays where retrained is.",
        "Δ plain: a protection’s less plain’s, paired by seed; above zero, more comes back. "
        f"{tested} comparisons with seeds that differ are on this page.",
    ]
    if "relearn" in probes:
        notes.append("relearn: questions whose answer one of the learnt texts tells are not asked.")
    lost = Counter(trial.method for trial in study.trials if trial.reached is False)
    if lost:
        told = "; ".join(f"{name}: {count}" for name, count in sorted(lost.items()))
        notes.append(f"Left out, as their training did not reach the target of train.until: {told}.")
    signed = tuple(column for column in columns if column.startswith("Δ"))
    return Table(NAME, "What each probe brings back", columns, cells, notes, 1, signed, SWEEP)


# The paragraph


def paragraph(rows: Sequence[Row], tested: int) -> list[str]:
    """For each probe what it brings back of plain methods and of the references; then what protecting costs."""
    lines = [line for probe in shown(rows) if (line := _brings(rows, probe))]
    return [*lines, *_costs(rows, tested)]


def _brings(rows: Sequence[Row], probe: str) -> str:
    told = [(row, gain) for row in rows if row.kind == protections.PLAIN and (gain := row.gain(probe))]
    if not told:
        return ""
    back, rest = (
        ", ".join(f"{row.method} {answers.points(gain)}" for row, gain in told if (gain.sign > 0) is sure)
        for sure in (True, False)
    )
    said = f"{probe}: brings back {back} points" if back else f"{probe}: brings nothing back that can be told"
    said += f"; not told from nothing: {rest}" if rest else ""
    references = [(row, gain) for row in rows if row.method in REFERENCES and (gain := row.gain(probe))]
    beside = ", ".join(f"{row.method} {answers.points(gain)}" for row, gain in references)
    return f"{said}{f' ({beside})' if beside else ''}."


def _costs(rows: Sequence[Row], tested: int) -> list[str]:
    every = [(row, probe, change) for row in rows for probe, change in row.changes.items()]
    if not every:
        return []
    sure = [(row, probe, change) for row, probe, change in every if row.p.get(probe, 1.0) <= FAMILY_WISE]

    def said(wanted: int) -> str:
        return ", ".join(
            f"{row.method} with {row.kind} under {probe} {answers.points(change)}"
            for row, probe, change in sure
            if change.sign == wanted
        )

    how = f"p ≤ {FAMILY_WISE:g} after Holm over {tested}" if tested else "which takes seeds that differ"
    counts = f"Of {len(every)} differences from plain {len(sure)} are told from chance"
    lines = [f"Does protecting cost forgetting? {counts} ({how})"]
    lines += [f"more comes back of {said(1)}"] if said(1) else []
    lines += [f"less of {said(-1)}"] if said(-1) else []
    kinds = dict.fromkeys(row.kind for row, *_ in every)
    means = {kind: [change.value for row, _, change in every if row.kind == kind] for kind in kinds}
    by_kind = [f"{kind} {answers.points(Estimate(sum(of) / len(of)))} points" for kind, of in means.items()]
    return [f"{'; '.join(lines)}. Means over methods and probes: {', '.join(by_kind)}."]


# The figure


def picture(study: Study, rows: Sequence[Row]) -> Picture:
    """Forget accuracy after each probe, a panel a probe; below it, hollow, as it was before."""
    probes = shown(rows)
    trained = [row for row in rows if row.kind]
    methods = list(dict.fromkeys(row.method for row in trained))
    kinds = list(dict.fromkeys(row.kind for row in trained))
    looks = _looks(study, kinds)
    columns = 2 if len(methods) > 3 else 3
    figure, panels = drawing.panels_for(probes, 2.6, columns)
    for probe, axes in panels.items():
        for row in trained:
            at = methods.index(row.method) + (kinds.index(row.kind) - (len(kinds) - 1) / 2) * 0.8 / len(kinds)
            look = looks[row.kind]
            for before in (True, False):
                if (known := row.known(probe, before=before)) is not None:
                    hollow = {"markerfacecolor": "none", "alpha": 0.5} if before else {}
                    drawing.mark(axes, [(float(at), known)], {**look, **hollow})
        for row in rows:
            if not row.kind and (known := row.known(probe)) is not None:
                axes.axhline(known.value, color=drawing.FAINT, linestyle=drawing.REFERENCE_LINES[row.method], lw=1.1)
        axes.set_title(probe)
        axes.set_xticks(range(len(methods)), methods, rotation=40, ha="right")
        axes.set_xlim(-0.6, len(methods) - 0.4)
        axes.set_ylim(0, 103)
        drawing.chance(axes, study)
    drawing.share_labels(panels, "", "forget (%)")
    drawing.say(figure, "The higher above retrained, the more a probe brings back")
    _legend(figure, rows, kinds, looks)
    caption = (
        "Filled: forget accuracy in the probe’s strongest state (report half, means over seeds with 95 % intervals); "
        "hollow: before it. A protection beside plain: does it cost any forgetting?"
    )
    return Picture(NAME, "What does each probe bring back?", caption, figure)


def _looks(study: Study, kinds: Sequence[str]) -> dict[str, dict[str, Any]]:
    marks, looks = iter(("^", "v", "P", "s", "<", ">")), dict[str, dict[str, Any]]()
    colours = iter((*drawing.SPARE, *drawing.COLOURS.values()))
    for kind in kinds:
        if kind == protections.PLAIN:
            looks[kind] = drawing.style(study, "", "plain")
        else:
            mark = "D" if kind == protections.RNA else next(marks, "h")
            looks[kind] = {"color": next(colours), "marker": mark, "markersize": 5.0}
        looks[kind] = {**looks[kind], "linestyle": "none"}
    return looks


def _legend(figure: Any, rows: Sequence[Row], kinds: Sequence[str], looks: Mapping[str, dict[str, Any]]) -> None:
    from matplotlib.lines import Line2D

    handles = {kind: Line2D([], [], **looks[kind]) for kind in kinds}
    for row in rows:
        if not row.kind:
            line: dict[str, Any] = {"color": drawing.FAINT, "linestyle": drawing.REFERENCE_LINES[row.method]}
            handles[row.method] = Line2D([], [], **line)
    handles["chance"] = Line2D([], [], **drawing.CHANCE_LINE)
    figure.legend(list(handles.values()), [*handles], loc="outside lower left", ncols=min(5, len(handles)))
