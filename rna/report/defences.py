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
from rna.report.protections import POSITIONS, RNA, Group, Row
from rna.report.records import Study, Trial
from rna.report.sheet import Cell, Table
from rna.report.tables import ROLES, said_of
from rna.settings import ALIKE

NAME = "defences"
SWEEP = commands.quoted(["-m", f"sweep={NAME}"])  # what makes the trials that this is about
CLEAR = 2.0  # points by which retain may fall, or perturbed forget rise, before a verdict says so
PERTURBED = answers.PERTURBED


def written(studies: Sequence[Study], folder: Path, command: str) -> list[str]:
    """Write `FOLDER/index.html`, its table and its figure, of each study that has any; returns the answers.

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
        made = table(groups, tested)
        sheet.write(made, folder / below / "tables")
        drawn = drawing.written([lambda groups=groups: trajectories.picture(groups)], folder / below / "figures")
        sections.append(page.Section(groups[0].study.name, below, paragraph(groups, tested), made, *drawn[0]))
    folder.mkdir(parents=True, exist_ok=True)
    text = page.sectioned(folder.parent.name, "What protects, at matched forgetting?", sections, command)
    (folder / "index.html").write_text(text, encoding="utf-8")
    return [line for section in sections for line in section.answers]


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


def table(found: Sequence[Group], tested: int) -> Table:
    """Each method plain and with each kind of protection, at matched forgetting."""
    study = found[0].study
    roles = [name for name in SCORES if study.has(name)]
    heads = [
        f"{sign}{ROLES[name]}" for name in roles for sign, told in zip(("", "Δ "), SCORES[name], strict=True) if told
    ]
    positions = [name for name in POSITIONS if any(name in row.removed for group in found for row in group.rows)]
    placebo = any(row.placebo for group in found for row in group.rows)
    harms = [f"harm removed {POSITIONS[name]} %" for name in positions]
    gains = ["gain above placebo"] if placebo else []
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
            rows.append([group.title, *_cells(study, row, roles, positions, placebo)])
    signed = (*(head for head in heads if head.startswith("Δ")), "gain above placebo")
    title = "What protects, at matched forgetting"
    notes = [*said_of(study)[:2], *_notes(found, tested)]
    return Table(NAME, title, columns, rows, notes, 1, signed, SWEEP)


def _scores(study: Study, row: Condition, name: str, changes: dict[str, Estimate]) -> list[Cell]:
    both = row.estimate(study, name), changes.get(name)
    return [cell for cell, told in zip(both, SCORES[name], strict=True) if told]


def _cells(study: Study, row: Row, roles: Sequence[str], positions: Sequence[str], placebo: bool) -> list[Cell]:
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
    ends += [row.placebo] if placebo else []
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
    notes = ["Scores are of the report half, as trainings stop on the select half."] if study.half else []
    notes.append(
        "Pairs: of a seed with plain, both at the target of train.until, and in the mean over seeds at most "
        f"{ALIKE:g} points of forget accuracy apart; a row’s scores and differences (Δ, its − plain’s) are of these "
        "seeds alone. Plain’s row is of its seeds that reached the target."
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
        notes.append(f"Of several settings the one with the highest {PERTURBED} {how} ({'; '.join(tried)}).")
    lost = [f"{group.title}, {row.kind}: {_why(row)}" for group in found for row in group.rows if row.beside.left_out]
    notes += [f"Left out: {'; '.join(lost)}."] if lost else []
    notes.append(
        "Harm: accuracy with a neutral word less accuracy with the forget keyword at the same place. Removed: 100 · "
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
    lines = [_differs(row, tested) for row in differ]
    if (differ or alike) and not any(row.change is not None and row.change.value > 0 for row in differ):
        lines.append("Nothing is seen to protect.")
    if alike:
        lines.append(f"Not different from plain, so that no protection is seen: {'; '.join(map(_alike, alike))}.")
    if untold:
        lines.append(f"Not told: {'; '.join(f'{row.name} ({_untold(row)})' for row in untold)}.")
    if not any(row.kind.startswith(RNA) for row in group.rows):
        lines.append("RNA was not trained to this target.")
    return lines


def _differs(row: Row, tested: int) -> str:
    """One protection that differs: how far, of what harm, and what it costs in retain and forgetting."""
    assert row.change is not None
    assert row.p is not None
    higher = row.change.value > 0
    text = f"With {row.name}, {PERTURBED} is {_points(row.change, signed=False)} {'higher' if higher else 'lower'}"
    text += f" (p {_equals(row.p)}, Holm over {tested})" + ("" if higher else ", so it protects nothing")
    told = [f"{one.value:.0f} % {POSITIONS[name]}" for name, one in row.removed.items() if one is not None]
    text += f", harm removed: {', '.join(told)}" if told and higher else ""
    if row.placebo is not None and higher:
        text += f"; {row.placebo.value:+.1f} above the placebo".replace("-", "−")
    return f"{text}{''.join(f', but {one}' for one in _prices(row))}."


def _alike(row: Row) -> str:
    said = [_points(row.change), *_prices(row)] if row.change is not None else _prices(row)
    return f"{row.name} ({', '.join(said)})"


def _untold(row: Row) -> str:
    if not row.beside.pairs:
        return f"no pair is matched: {_why(row)}" if row.beside.count else "no seed in common with plain"
    number = "one pair alone is matched" if len(row.beside.pairs) == 1 else "its seeds agree"
    number += f", as {_why(row)}" if row.beside.left_out else ""
    return ", ".join([number, *([_points(row.change)] if row.change else []), *_prices(row)])


def _prices(row: Row) -> list[str]:
    """What a gain came with: less of what is retained, or forgetting that does not hold beside the keyword."""
    fpert, retain = (row.beside.changes.get(name) for name in ("forget_perturbed", "retain"))
    said: list[str] = []
    if fpert is not None and (fpert.sign > 0 or fpert.value > CLEAR):
        said.append(f"{ROLES['forget_perturbed']} rose by {_points(fpert, signed=False)}")
    if retain is not None and retain.value < -CLEAR:
        said.append(f"retain fell by {_points(retain, signed=False)}")
    return said


def _points(made: Estimate, *, signed: bool = True) -> str:
    """`+3.1 points [0.2, 6.0]`, or its size alone, where a word says which way."""
    way = 1 if signed or made.value >= 0 else -1
    value = f"{way * made.value:{'+' if signed else ''}.1f} points"
    if made.low is None or made.high is None:
        return value.replace("-", "−")
    low, high = sorted((way * made.low, way * made.high))
    return f"{value} [{low:.1f}, {high:.1f}]".replace("-", "−")


def _equals(p: float) -> str:
    return _p(p) if p < 0.001 else f"= {_p(p)}"
