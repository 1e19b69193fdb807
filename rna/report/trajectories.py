"""Perturbed against forget accuracy along trainings: each way of protecting beside plain, a panel a method."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rna.report import drawing, protections
from rna.report.compare import Condition
from rna.report.drawing import Picture
from rna.report.protections import Group
from rna.report.reading import ON_THE_WAY
from rna.report.records import Study, Trial

MARKS = ("^", "v", "P", "<", ">", "p", "h", "d")  # of what is neither plain nor RNA
COLUMNS = 2  # of panels
SHARES = 25  # points of a curve: equal shares of each training's steps
LEGEND = 46  # letters that fit beside each other below the figure, with a mark for each column


def picture(found: Sequence[Group]) -> Picture:
    """The figure of a page: the groups of one study."""
    title = "Does it protect, and does forgetting hold?"
    study = found[0].study
    looks = _looks(found)
    figure, panels = _panels([group.title for group in found])
    curves = False
    for panel, group in enumerate(found):
        axes, beside = panels[group.title]
        shown = _shown(group)
        every = [group.plain.trials, *(row.beside.other.trials for row in group.rows)]
        for (kind, *_), trials in zip(shown, every, strict=True):
            curves |= _curve(axes, trials, looks[_key(group, kind)], front=kind in (protections.PLAIN, protections.RNA))
        for number, (kind, trials, matched) in enumerate(shown):
            look = {**looks[_key(group, kind)], **({} if matched else {"markerfacecolor": "none"})}
            at = drawing.point(study, Condition(trials), "forget", "perturbed")
            if at is not None:
                forget, perturbed = at
                drawing.mark(axes, [(forget, perturbed.value)], look)
                drawing.mark(beside, [(float(number), perturbed)], look)
        axes.set_title(group.title)
        beside.set_xlim(-0.7, len(shown) - 0.3)
        axes.margins(0.05)
        for one in (axes, beside):
            if study.kind == "choice":
                one.set_ylim(0, 102)
            drawing.chance(one, study)
        drawing.chance(axes, study, vertical=True)
        axes.set_xlabel(f"forget ({drawing.unit(study)})")
        beside.set_xlabel("at the end")
        if panel % COLUMNS == 0:
            axes.set_ylabel(f"{drawing.ROLES['perturbed']} ({drawing.unit(study)})")
    said = "A curve that stays high on its way to the left protects what is retained"
    still = ("higher", "accuracy") if study.better > 0 else ("lower", "log-loss")
    drawing.say(figure, said if curves else f"The {still[0]} at the same forget {still[1]}, the better protected")
    _legend(figure, study, found, looks)
    return Picture("defences", title, _caption(study, curves), figure)


def _caption(study: Study, curves: bool) -> str:
    where = f"{study.part} half" if study.half else "all questions"
    along = (
        "Curves: accuracies on the way (a few questions, of those on which trainings stop), means over all seeds at "
        "equal shares of each training’s steps. "
        if curves
        else "Without accuracies on the way, which eval.interim_roles=[forget,perturbed] records. "
        if study.kind == "choice"
        else ""
    )
    return (
        f"{along}Marks: where they ended ({where}, of the seeds that are matched with plain alone, 95 % intervals); "
        "beside them the same in the legend’s order. Hollow: no seed is matched, so all are shown."
    )


Shown = tuple[str, list[Trial], bool]


def _shown(group: Group) -> list[Shown]:
    """Plain and each kind of protection: its trials, and whether they are matched."""
    rows: list[Shown] = [(row.kind, row.trials, bool(row.beside.pairs)) for row in group.rows]
    return [(protections.PLAIN, group.there or group.plain.trials, bool(group.there)), *rows]


def _key(group: Group, kind: str) -> tuple[str, str]:
    return (kind, group.method if kind == protections.RNA else "")  # RNA has the colour of its method


def _kinds(found: Sequence[Group]) -> list[str]:
    """The kinds of the figure that are neither plain nor RNA."""
    kinds = {row.kind for group in found for row in group.rows} - {protections.RNA}
    return sorted(kinds, key=protections.place)


def _looks(found: Sequence[Group]) -> dict[tuple[str, str], dict[str, Any]]:
    """Plain and RNA as in all figures; each other kind with a mark and a colour that is no method's of the figure."""
    study = found[0].study
    taken = {drawing.colour(study, group.method) for group in found}
    free = [one for one in (*drawing.SPARE, *drawing.COLOURS.values()) if one not in taken]
    looks = {(protections.PLAIN, ""): drawing.style(study, "", "plain")}
    looks |= {(protections.RNA, group.method): drawing.style(study, group.method, "rna") for group in found}
    for number, kind in enumerate(_kinds(found)):
        own = {"color": free[number % len(free)], "marker": MARKS[number % len(MARKS)]}
        looks[kind, ""] = {**own, "markersize": 5.5, "linestyle": "-"}
    return looks


def _panels(titles: Sequence[str]) -> tuple[Any, dict[str, tuple[Any, Any]]]:
    """For each title a panel and a narrow one beside it, two in a row."""
    columns = min(COLUMNS, len(titles))
    rows = -(-len(titles) // columns)
    figure = drawing.canvas(drawing.WIDTH, (3.4 if columns == 1 else 2.7) * rows + 1.4)
    outer = figure.add_gridspec(rows, columns)
    panels: dict[str, tuple[Any, Any]] = {}
    for place, title in enumerate(titles):
        inner = outer[place // columns, place % columns].subgridspec(1, 2, width_ratios=(3, 2), wspace=0.02)
        first = next(iter(panels.values()), (None, None))[0]
        axes = figure.add_subplot(inner[0], sharex=first, sharey=first)
        beside = figure.add_subplot(inner[1], sharey=axes)
        beside.tick_params(labelleft=False, left=False, labelbottom=False, bottom=False)
        beside.grid(visible=False, axis="x")
        panels[title] = axes, beside
    return figure, panels


def _curve(axes: Any, trials: Sequence[Trial], look: dict[str, Any], *, front: bool) -> bool:
    """The mean over seeds of where trainings were on the way; False where no record tells it."""
    paths = [path for trial in trials if (path := _path(trial)) is not None]
    if not paths:
        return False
    x, y = np.mean(paths, axis=0)
    axes.plot(x, y, **{**look, "marker": "none", "linewidth": 1.6 if front else 1.1}, zorder=3 if front else 2)
    return True


def _path(trial: Trial) -> Any:
    """Forget and perturbed accuracy in percent at equal shares of the steps, from the first evaluation on."""
    forget, perturbed = (dict(trial.curve.get(name, [])) for name in ON_THE_WAY)
    steps = sorted(forget.keys() & perturbed.keys())
    if len(steps) < 2:
        return None
    at = np.linspace(steps[0], steps[-1], SHARES)
    return [np.interp(at, steps, [100 * of[step] for step in steps]) for of in (forget, perturbed)]


def _legend(figure: Any, study: Study, found: Sequence[Group], looks: dict[tuple[str, str], dict[str, Any]]) -> None:
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.lines import Line2D

    handles: dict[str, Any] = {protections.PLAIN: Line2D([], [], **looks[protections.PLAIN, ""])}
    own = [group.method for group in found if any(row.kind == protections.RNA for row in group.rows)]
    if own:
        several = tuple(Line2D([], [], **looks[protections.RNA, method]) for method in dict.fromkeys(own))
        handles["RNA" if len(several) < 2 else "RNA, in the method’s colour"] = several[: drawing.SHOWN]
    handles |= {kind: Line2D([], [], **looks[kind, ""]) for kind in _kinds(found)}
    if study.kind == "choice":
        handles["chance"] = Line2D([], [], **drawing.CHANCE_LINE)
    longest = max(map(len, handles))
    figure.legend(
        list(handles.values()),
        [*handles],
        loc="outside lower left",
        ncols=max(1, min(4, int(3 * LEGEND / (longest + 10)), len(handles))),
        handlelength=2.6,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.2)},
    )
