"""`python -m rna.report defences`: one figure, one table and one paragraph of all that claims to protect, side by side
where both it and plain were trained to one target and have forgotten alike."""

import itertools
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rna.intervals import FAMILY_WISE, Estimate, answers
from rna.report import commands, drawing, page, protections, sheet, trajectories
from rna.report.compare import Condition
from rna.report.protections import HEAVIER, RNA, Group, Row
from rna.report.records import Study, Trial
from rna.report.sheet import Cell, Table
from rna.report.tables import ROLES, said_of
from rna.settings import ALIKE

NAME = "defences"
SWEEP = commands.quoted(["-m", f"sweep={NAME}"])  # what makes the trials that this is about
TITLE = "What protects, at matched forgetting?"
CLEAR = {True: 2.0, False: 0.02}  # points of accuracy, or nats: what may be lost before a verdict says so
PERTURBED = answers.PERTURBED
PLACEBO, CROSSING = "gain above placebo", "Δ perturbed retain at the very target"


def written(studies: Sequence[Study], folder: Path, command: str) -> list[str]:
    """Write `FOLDER/index.html` and `defences.md`, of each study that has any its table, figure and answers; returns
    these.

    Raises:
        ValueError: if nothing that protects was trained to a target beside plain; with the command that does so.
    """
    found = [groups for study in studies if (groups := protections.groups(study))]
    every = [group for groups in found for group in groups]
    if not every:
        raise ValueError(
            f"nothing that protects was trained beside plain with one train.until; {SWEEP} trains everything that does"
        )
    for old in [folder / "figures", folder / "tables", *folder.glob("study*")]:
        shutil.rmtree(old, ignore_errors=True)
    tested = protections.correct(every)
    sections: list[page.Section] = []
    for number, groups in enumerate(found, 1):
        below = "" if number == 1 else f"study{number}/"
        made = [*glances(groups), table(groups, tested)]
        for one in made:
            sheet.write(one, folder / below / "tables")
        drawn = drawing.written([lambda groups=groups: trajectories.picture(groups)], folder / below / "figures")
        sections.append(page.Section(groups[0].study.name, below, paragraph(groups, tested), made, *drawn[0]))
    folder.mkdir(parents=True, exist_ok=True)
    text = page.sectioned(folder.parent.name, TITLE, sections, command)
    (folder / "index.html").write_text(text, encoding="utf-8")
    (folder / f"{NAME}.md").write_text(markdown(sections, command), encoding="utf-8")
    return [line for section in sections for line in section.answers]


def markdown(sections: Sequence[page.Section], command: str) -> str:
    """What the page says, of each study."""
    parts = [f"# {TITLE}", f"Made by `{command}`, from records alone."]
    for one in sections:
        parts += [f"## {one.name}"] if len(sections) > 1 else []
        parts += [sheet.markdown(table).rstrip() for table in one.tables]
        parts.append("\n".join(f"- {line}" for line in one.answers))
    return "\n\n".join(parts) + "\n"


# The table

SCORES = {  # a row's columns of scores: role -> whether the score, its difference from plain
    "forget": (True, True),
    "retain": (True, True),
    "forget_perturbed": (False, True),
    "neutral": (True, False),
    "perturbed": (True, True),
    "prefix": (True, False),
    "inside": (True, False),
}


def glances(found: Sequence[Group]) -> list[Table]:
    """A column a method: how far each kind of protection lies from plain where their courses cross the target, how far
    from a heavier α there, and for each place of the forget keyword how much of plain's harm it removes."""
    every = [row for group in found for row in group.rows]
    kinds = sorted({row.kind for row in every}, key=protections.place)
    titles = [group.title for group in found]
    made: list[Table] = []
    rows: list[list[Cell]]
    for name, (said, note) in AT_TARGET.items():
        if any(getattr(row, name) for row in every):
            rows = [[kind, *(_at_target(group, kind, name) for group in found)] for kind in kinds]
            told = [row for row in rows if any(cell is not None for cell in row[1:])]
            title = f"{said[0].upper()}{said[1:]}, in {found[0].study.difference}"
            made.append(Table(name, title, ["protection", *titles], told, [note], 0, tuple(titles)))
    for name, words in protections.positions(found[0].study).items():
        if any(name in row.removed for row in every):
            rows = [[kind, *(_removed(group, kind, name) for group in found)] for kind in kinds]
            title = f"Harm removed {words}, in % of plain’s"
            made.append(Table(f"removed_{name}", title, ["protection", *titles], rows, [NOT_TOLD], 0))
    return made


NOT_TOLD = (
    "not matched: of fewer than two seeds, as the others did not reach the target or forgot unlike plain; undefined: "
    "plain’s own harm is not clearly above zero; –: not run. In brackets 95 % intervals over seeds."
)
NOT_CROSSED = (
    "Where its and plain’s courses cross the target, between two evaluations on the way, on the questions on which "
    "trainings stop, whether or not their ends are matched; not reached: of fewer than two seeds; –: not run."
)
AT_TARGET = {  # a row's own field -> what its table is called, and what is said below
    "crossing": (CROSSING, NOT_CROSSED),
    "beyond": (
        f"perturbed retain at the very target beyond that of a {HEAVIER}",
        f"As beside plain, on the seeds on which it and a {HEAVIER} get there; –: one of the two not run.",
    ),
}


def _row_of(group: Group, kind: str) -> Row | None:
    return next((row for row in group.rows if row.kind == kind), None)


def _at_target(group: Group, kind: str, name: str) -> Cell:
    """A row's field of `AT_TARGET`."""
    row = _row_of(group, kind)
    if row is None or (name == "beyond" and (kind == HEAVIER or _row_of(group, HEAVIER) is None)):
        return None
    made: Estimate | None = getattr(row, name)
    return made if made is not None and made.n > 1 else "not reached"


def _removed(group: Group, kind: str, name: str) -> Cell:
    row = _row_of(group, kind)
    if row is None:
        return None
    if len(row.beside.pairs) < 2:
        return "not matched"
    return "undefined" if name in row.removed and row.removed[name] is None else row.removed.get(name)


def table(found: Sequence[Group], tested: int) -> Table:
    """Each method plain and with each kind of protection, at matched forgetting."""
    study = found[0].study
    roles = [name for name in SCORES if study.has(name)]
    heads = [
        f"{sign}{ROLES[name]}" for name in roles for sign, told in zip(("", "Δ "), SCORES[name], strict=True) if told
    ]
    words = protections.positions(study)
    positions = [name for name in words if any(name in row.removed for group in found for row in group.rows)]
    placebo = any(row.placebo for group in found for row in group.rows)
    harms = [f"harm removed {words[name]} %" for name in positions]
    gains = [PLACEBO] if placebo else []
    gains += [CROSSING] if any(row.crossing for group in found for row in group.rows) else []
    columns = ["method", "protection", "setting", "pairs", *heads, "p, Holm", *harms, *gains]
    columns += ["seconds a step, × plain", "steps (its, plain’s)"]
    rows: list[list[Cell]] = []
    for group in found:
        there = Condition(group.there or group.plain.trials)
        scores = [cell for name in roles for cell in _scores(study, there, name, {})]
        steps = f"{_steps(there.trials):.0f}" if group.there else None
        ends: list[Cell] = [None] * (1 + len(harms) + len(gains))
        rows.append(
            [group.title, protections.PLAIN, f"α = {group.alphas[0]}", _reached(group), *scores, *ends, None, steps]
        )
        for row in group.rows:
            rows.append([group.title, *_cells(study, row, roles, positions, gains)])
    signed = (*(head for head in heads if head.startswith("Δ")), PLACEBO, CROSSING)
    title = "What protects, at matched forgetting"
    notes = [*said_of(study)[:2], *_notes(found, tested)]
    return Table(NAME, title, columns, rows, notes, study.digits, signed, SWEEP)


def _scores(study: Study, row: Condition, name: str, changes: dict[str, Estimate]) -> list[Cell]:
    both = row.estimate(study, name), changes.get(name)
    return [cell for cell, told in zip(both, SCORES[name], strict=True) if told]


def _cells(study: Study, row: Row, roles: Sequence[str], positions: Sequence[str], gains: Sequence[str]) -> list[Cell]:
    """A kind's cells behind its method; scores of nothing where no pair is matched."""
    matched = bool(row.beside.pairs)
    own, twins = row.trials, [twin for _, twin in row.beside.pairs]
    scores = [cell for name in roles for cell in _scores(study, Condition(own), name, row.beside.changes)]
    speeds = protections.seconds_a_step(own), protections.seconds_a_step(twins)
    ends: list[Cell] = [None if row.p is None else _p(row.p)]
    ends += [
        "undefined" if name in row.removed and row.removed[name] is None else row.removed.get(name)
        for name in positions
    ]
    ends += [{PLACEBO: row.placebo, CROSSING: row.crossing}[name] for name in gains]
    ends += [f"{speeds[0] / speeds[1]:.2f}" if speeds[0] and speeds[1] else None]
    ends += [f"{_steps(own):.0f}, {_steps(twins):.0f}" if matched else None]
    pairs = f"{len(row.beside.pairs)} of {row.beside.count}"
    return [row.kind, row.setting, pairs, *(scores if matched else [None] * len(scores)), *ends]


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _steps(trials: Sequence[Trial]) -> float:
    return sum(map(protections.steps_of, trials)) / len(trials)


def _reached(group: Group) -> str:
    return f"{len(group.there)} of {len(group.plain.trials)}"


def _notes(found: Sequence[Group], tested: int) -> list[str]:
    study = found[0].study
    why = ", as trainings stop on the select half" if study.stops else ""
    notes = [f"Scores are of the report half{why}."] if study.half else []
    near = f", and in the mean over seeds at most {ALIKE:g} points of forget accuracy apart" if study.stops else ""
    notes.append(
        f"Pairs: of a seed with plain, both at the target of train.until{near}; a "
        "row’s scores and differences (Δ, its − plain’s) are of these seeds alone. Plain’s row is of its seeds that "
        "reached the target."
    )
    several = [
        f"{group.title}: {group.alphas[0]}, beside {', '.join(group.alphas[1:])}"
        for group in found
        if len(group.alphas) > 1
    ]
    notes += [f"Plain is the plain training with the smallest α ({'; '.join(several)})."] if several else []
    tried = [f"{group.title}, {row.kind}: {row.tried}" for group in found for row in group.rows if row.tried > 1]
    how = "on the select half" if study.half else "on the very questions reported: flattering"
    if tried:
        best = "highest" if study.better > 0 else "lowest"
        notes.append(f"Of several settings the one with the {best} {PERTURBED} {how} ({'; '.join(tried)}).")
    lost = [f"{group.title}, {row.kind}: {_why(row)}" for group in found for row in group.rows if row.beside.left_out]
    notes += [f"Left out: {'; '.join(lost)}."] if lost else []
    scores = ("accuracy with a neutral word", "accuracy with the forget keyword at the same place")
    words = scores if study.better > 0 else [one.replace("accuracy", "log-loss") for one in reversed(scores)]
    notes.append(
        f"Harm: {words[0]} less {words[1]}. Removed: 100 · "
        "(plain’s − its) / plain’s, a ratio of means over seeds, paired by seed, with Fieller’s 95 % interval; "
        "undefined where the 95 % interval of plain’s harm does not lie above zero."
    )
    notes.append(
        f"p: paired t-test over seeds of Δ {ROLES['perturbed']}, two-sided, after Holm’s correction over the {tested} "
        "comparisons of this page; none of one seed, or of seeds that agree."
    )
    if any(row.placebo for group in found for row in group.rows):
        notes.append(
            f"Gain above placebo: {PERTURBED} less the placebo’s of the same seeds, where the two forgot alike as well."
        )
    if any(row.crossing for group in found for row in group.rows):
        notes.append(
            f"{CROSSING}: its − plain’s where their courses cross the target, between two evaluations on the way, on "
            "the questions on which trainings stop; of all seeds whose courses do, matched or not."
        )
    return [*notes, f"Seconds a step: training seconds by steps, beside plain’s of the same seeds; {_rough(found)}."]


def _why(row: Row) -> str:
    """By reason, how many seeds are not matched; and of those apart how many forgot more than plain."""
    told = [f"{len(seeds)} of {row.beside.count} {why}" for why, seeds in row.beside.left_out.items()]
    return ", ".join(told) + (f" ({row.more} forgot more than plain)" if row.more else "")


def _rough(found: Sequence[Group]) -> str:
    """Whether seconds may be compared: all on one machine, one after the other."""
    trials = [
        trial for group in found for trial in (*group.plain.trials, *(one for row in group.rows for one in row.trials))
    ]
    hosts = {str(trial.facts["host"]) for trial in trials}
    spans = sorted(_span(trial) for trial in {trial.key: trial for trial in trials}.values() if trial.facts["created"])
    aside = any(begun < ended - 1 for (_, ended), (begun, _) in itertools.pairwise(spans))
    why = [f"they are of {len(hosts)} hosts"] if len(hosts) > 1 else []
    why += ["trainings ran side by side"] if aside else []
    return (
        f"rough figures, as {' and '.join(why)}"
        if why
        else "all on one host, one after the other, whatever else it did"
    )


def _span(trial: Trial) -> tuple[float, float]:
    """When a training began and ended."""
    ended = datetime.fromisoformat(str(trial.facts["created"])).timestamp()
    return ended - float(trial.facts["seconds"] or 0.0), ended


# The paragraph


def paragraph(found: Sequence[Group], tested: int) -> list[str]:
    """For each method a sentence of each protection that differs from plain, and one of those that do not."""
    return [f"{group.title}: {' '.join(_sentences(group, tested))}" for group in found]


def _sentences(group: Group, tested: int) -> list[str]:
    differ = [row for row in group.rows if row.p is not None and row.p <= FAMILY_WISE]
    alike = [row for row in group.rows if row.p is not None and row.p > FAMILY_WISE]
    untold = [row for row in group.rows if row.p is None]
    lines = [_differs(group, row, tested) for row in differ]
    if (differ or alike) and not any(_gains(group, row) for row in differ):
        lines.append("Nothing is seen to protect.")
    if alike:
        told = "; ".join(_alike(group, row) for row in alike)
        lines.append(f"Not different from plain, so that no protection is seen: {told}.")
    if untold:
        lines.append(f"Not told: {'; '.join(f'{row.name} ({_untold(group, row)})' for row in untold)}.")
    if not any(row.kind.startswith(RNA) for row in group.rows):
        lines.append("RNA was not trained to this target.")
    return lines


def _gains(group: Group, row: Row) -> bool:
    return row.change is not None and row.change.value * group.study.better > 0


def _differs(group: Group, row: Row, tested: int) -> str:
    """One protection that differs: how far, of what harm, and what it costs in retain and forgetting."""
    assert row.change is not None
    assert row.p is not None
    study, gains = group.study, _gains(group, row)
    what = PERTURBED if study.better > 0 else f"the log-loss of {PERTURBED}"
    way = "higher" if row.change.value > 0 else "lower"
    text = f"With {row.name}, {what} is {_apart(study, row.change, signed=False)} {way}"
    text += f" (p {_equals(row.p)}, Holm over {tested})" + ("" if gains else ", so it protects nothing")
    places = protections.positions(study)
    told = [f"{one.value:.0f} % {places[name]}" for name, one in row.removed.items() if one is not None]
    text += f", harm removed: {', '.join(told)}" if told and gains else ""
    if row.placebo is not None and gains:
        beyond = f"{study.better * row.placebo.value:+.{study.digits}f}"
        text += f"; {beyond} {'above' if study.better > 0 else 'beyond'} the placebo".replace("-", "−")
    return f"{text}{''.join(f', but {one}' for one in _prices(study, row))}."


def _alike(group: Group, row: Row) -> str:
    prices = _prices(group.study, row)
    said = [_apart(group.study, row.change), *prices] if row.change is not None else prices
    return f"{row.name} ({', '.join(said)})"


def _untold(group: Group, row: Row) -> str:
    if not row.beside.pairs:
        there = f"; at the very target {_apart(group.study, row.crossing)}" if row.crossing is not None else ""
        return f"no pair is matched: {_why(row)}{there}" if row.beside.count else "no seed in common with plain"
    number = "one pair alone is matched" if len(row.beside.pairs) == 1 else "its seeds agree"
    number += f", as {_why(row)}" if row.beside.left_out else ""
    change = [_apart(group.study, row.change)] if row.change else []
    return ", ".join([number, *change, *_prices(group.study, row)])


def _prices(study: Study, row: Row) -> list[str]:
    """What a gain came with: less of what is retained, or forgetting that does not hold beside the keyword."""
    fpert, retain = (row.beside.changes.get(name) for name in ("forget_perturbed", "retain"))
    said: list[str] = []
    better, clear = study.better, CLEAR[study.kind == "choice"]
    moved = ("rose", "fell") if better > 0 else ("fell", "rose")
    if fpert is not None and (better * fpert.sign > 0 or better * fpert.value > clear):
        said.append(f"{ROLES['forget_perturbed']} {moved[0]} by {_apart(study, fpert, signed=False)}")
    if retain is not None and better * retain.value < -clear:
        said.append(f"retain {moved[1]} by {_apart(study, retain, signed=False)}")
    return said


def _apart(study: Study, made: Estimate, *, signed: bool = True) -> str:
    """`+3.1 points [0.2, 6.0]`, or its size alone, where a word says which way."""
    way, digits = 1 if signed or made.value >= 0 else -1, study.digits
    value = f"{way * made.value:{'+' if signed else ''}.{digits}f} {study.difference}"
    if made.low is None or made.high is None:
        return value.replace("-", "−")
    low, high = sorted((way * made.low, way * made.high))
    return f"{value} [{low:.{digits}f}, {high:.{digits}f}]".replace("-", "−")


def _equals(p: float) -> str:
    return _p(p) if p < 0.001 else f"= {_p(p)}"
