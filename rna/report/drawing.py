"""How the report draws: a colour for each method, grey circles for plain, diamonds in the method's colour for RNA.

Every figure says on top what to look at, every bar is a 95 % interval and lies whole within its axes, and methods that
would cover each other have panels or rows of their own.
"""

import itertools
import math
import multiprocessing
import os
import textwrap
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rna.intervals import Estimate
from rna.report.compare import Condition
from rna.report.records import Study, Trial
from rna.report.tables import ROLES

# Searched among Okabe and Ito's and Tol's colours for the largest distance between any two, also as they are seen
# without red or green cones; light and dark pages leave each of them a contrast of two or more.
COLOURS = {
    "RMU": "#d99000",
    "Adaptive RMU": "#882255",
    "RSV": "#8a6d3b",
    "NPO+KL": "#007313",
    "NPO+MSE": "#00a878",
    "DPO+KL": "#0072b2",
    "DPO+MSE": "#56b4e9",
    "SimNPO+KL": "#7900f2",
    "SimNPO+MSE": "#8a7ae6",
}
SPARE = ("#cc79a7", "#3f8f00", "#a65628", "#f27961", "#999933", "#44aa99")  # of methods that are not the paper's
PLAIN = "#6f7580"
INK = "#22262e"  # text and axes; the page draws them in its own text colour
FAINT = "#9aa0aa"
PNG_DPI = 200
MAX_WORKERS = 4  # each holds the trials, though most of them in memory that is shared
CHANCE = 25.0  # per cent: four choices
REFERENCES = {"base": "*", "retrained": "s", "given": "X"}
REFERENCE_LINES = {"base": "-", "retrained": "--", "given": "-."}
ARMS: dict[str, dict[str, Any]] = {
    "plain": {"marker": "o", "markersize": 4.5, "linestyle": "--"},
    "rna": {"marker": "D", "markersize": 5.0, "linestyle": "-"},
}
BAR: dict[str, Any] = {"elinewidth": 1.1, "capsize": 2.0, "capthick": 1.1}  # caps, or it reads as a line of the grid
SHOWN = 3  # methods whose colours stand in a legend, at most
WIDTH = 7.2  # inches of every figure but the first: the page shows all at one scale
NARROW = 5.4  # of the first, which has the table beside it
STYLE: dict[str, Any] = {
    "text.parse_math": False,  # a dollar in a name is a dollar
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.titlesize": 10,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "path",
    "svg.hashsalt": "rna",
    "pdf.fonttype": 42,
}


@dataclass
class Picture:
    """A figure and what to see in it; without a drawing, why it is missing and what would compute it."""

    name: str
    title: str
    caption: str
    drawing: Any = None
    command: str | None = None


def save(picture: Picture, folder: Path) -> str:
    """NAME.svg, NAME.pdf and NAME.png; returns the SVG's text for the page. Time stamps are left out.

    Each file is drawn once, by its own canvas: `savefig` would draw each twice, the first time for a layout that is
    there by then.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    folder.mkdir(parents=True, exist_ok=True)
    where, figure = folder / picture.name, picture.drawing
    with styled():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        figure.set_dpi(PNG_DPI)
        FigureCanvasAgg(figure).print_png(where.with_suffix(".png"))
        for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
            patch.set_facecolor("none")  # in the other two the page shows through
        figure.set_dpi(72)  # points, which SVG and PDF are measured in
        FigureCanvasSVG(figure).print_svg(where.with_suffix(".svg"), metadata={"Date": None})
        FigureCanvasPdf(figure).print_pdf(where.with_suffix(".pdf"), metadata={"CreationDate": None})
    return where.with_suffix(".svg").read_text(encoding="utf-8")


Plan = Callable[[], Picture]
_plans: Sequence[Plan] = ()  # of the children, which have it from their parent


def written(plans: Sequence[Plan], folder: Path) -> list[tuple[Picture, str]]:
    """Draw and save pictures on the cores there are; each with its SVG's text, empty where it is missing.

    Children are forked, which is safe as long as this process has no other thread; else it draws alone.
    """
    global _plans
    _plans = plans
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if min(cores, len(plans)) < 2 or threading.active_count() > 1:
        return [_written(place, folder) for place in range(len(plans))]
    styled()  # loads matplotlib once, for all children
    with ProcessPoolExecutor(min(cores, MAX_WORKERS), multiprocessing.get_context("fork")) as pool:
        return list(pool.map(_written, range(len(plans)), [folder] * len(plans)))


def _written(place: int, folder: Path) -> tuple[Picture, str]:
    with styled():
        picture = _plans[place]()
    text = save(picture, folder) if picture.drawing is not None else ""
    return replace(picture, drawing=None), text


def styled() -> AbstractContextManager[None]:
    """Draws for files alone, in the report's style."""
    import matplotlib as mpl

    mpl.use("agg")
    style: Any = STYLE
    return mpl.rc_context(style)


# Marks


def colour(study: Study, method: str) -> str:
    """The paper's methods have each their own; others take the spare ones in the order of their names."""
    if method in COLOURS:
        return COLOURS[method]
    others = sorted(name for name in study.methods if name not in COLOURS)
    return SPARE[others.index(method) % len(SPARE)]


def style(study: Study, method: str, arm: str) -> dict[str, Any]:
    """Colour, mark and line of a method's arm, in plots and legends alike."""
    return {"color": PLAIN if arm == "plain" else colour(study, method), **ARMS[arm]}


def mark(axes: Any, points: Sequence[tuple[Any, Any]], look: Mapping[str, Any], **more: Any) -> None:
    """Marks without a line, at numbers or at estimates, whose 95 % intervals are drawn as bars."""
    if not points:
        return
    values = [[one.value if isinstance(one, Estimate) else one for one in axis] for axis in zip(*points, strict=True)]
    errors = [_errors(axis) for axis in zip(*points, strict=True)]
    look = {**look, "linestyle": "none"} | more
    axes.errorbar(*values, xerr=errors[0], yerr=errors[1], ecolor=look["color"], zorder=4, **BAR, **look)


def _errors(axis: Sequence[Any]) -> list[list[float]] | None:
    """How far intervals reach below and above; None where nothing has one."""
    if not any(isinstance(one, Estimate) and one.low is not None for one in axis):
        return None
    low = [one.value - (one.value if one.low is None else one.low) for one in axis]
    return [low, [(one.value if one.high is None else one.high) - one.value for one in axis]]


def handles_of(
    study: Study,
    methods: Sequence[str],
    references: Mapping[str, Trial] | None = None,
    *,
    line: bool = False,
    across: bool = False,
    marks: bool = True,
) -> dict[str, Any]:
    """Label -> the marks it stands for, made as the plot's own.

    `line`: joined marks; `marks`: whether there are any; `across`: references are lines across the axes.
    """
    from matplotlib.lines import Line2D

    def made(look: Mapping[str, Any]) -> Any:
        left_out: dict[str, Any] = ({} if line else {"linestyle": "none"}) | ({} if marks else {"marker": ""})
        return Line2D([], [], **{**look, **left_out})

    found: dict[str, Any] = {"plain": made(style(study, "", "plain"))}
    several = tuple(made(style(study, method, "rna")) for method in methods)
    found["with RNA" if len(methods) < 2 else "with RNA, in the method's colour"] = several
    for name, trial in (references or {}).items():
        look: dict[str, Any] = {"linestyle": "none", "marker": REFERENCES[trial.arm], "markersize": 7}
        if across:
            look = {"linestyle": REFERENCE_LINES[trial.arm], "linewidth": 0.9}
        found[name] = Line2D([], [], color=INK, **look)
    return found


def legend(figure: Any, handles: Mapping[str, Any]) -> None:
    """Below the figure, what its marks mean: of `handles` those that it has."""
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.lines import Line2D

    lines = [line for axes in figure.axes for line in axes.lines if len(line.get_xdata())]
    drawn, joined = {line.get_color() for line in lines}, {(line.get_color(), line.get_linestyle()) for line in lines}
    several = {
        label: tuple(one for one in marks if one.get_color() in drawn)[:SHOWN]
        for label, marks in handles.items()
        if isinstance(marks, tuple)
    }
    handles = {label: several.get(label, mark) for label, mark in handles.items()}
    handles = {label: mark for label, mark in handles.items() if mark and (label != "plain" or PLAIN in drawn)}
    for mark in itertools.chain.from_iterable(one if isinstance(one, tuple) else (one,) for one in handles.values()):
        if (mark.get_color(), mark.get_linestyle()) not in joined:  # a single mark, as ν = 0 of a line with RNA
            mark.set_linestyle("none")
    if any(one.get_gid() == "chance" for one in lines):
        handles["chance"] = Line2D([], [], **CHANCE_LINE)
    many = any(isinstance(one, tuple) and len(one) > 1 for one in handles.values())
    figure.legend(
        list(handles.values()),
        [*handles],
        loc="outside lower left",
        ncols=min(5 if figure.get_figwidth() > NARROW else 3, len(handles)),
        handlelength=3.5 if many else 2.0,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.2)},
    )


def say(figure: Any, sentence: str) -> None:
    """What to see, on top of the figure."""
    text = textwrap.fill(sentence, round(11.5 * figure.get_figwidth()), break_long_words=False)
    figure.suptitle(text, x=0.01, ha="left", fontweight="bold")


def annotate(figure: Any, wanted: Sequence[tuple[Any, tuple[Any, Any], str]], size: float = 6.5) -> None:
    """Short texts beside points, where they cover neither line nor bar nor each other; else they are left out."""
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    taken: dict[Any, Any] = {}
    for axes, at, text in wanted:
        x, y = (one.value if isinstance(one, Estimate) else one for one in at)
        wide, high = 0.62 * size * len(text), 1.15 * size
        if axes not in taken:
            taken[axes] = _drawn_at(axes)
        across, up = axes.transData.transform((x, y))
        inside = axes.get_window_extent()
        sides = [(4, 3), (-4 - wide, 3), (4, -3 - high), (-4 - wide, -3 - high)]
        for right, above in (*sides, *((x, y + math.copysign(7, y)) for x, y in sides)):
            left, low = across + right * scale, up + above * scale
            box = np.array([[left, low], [left + wide * scale, low + high * scale]])
            free = not ((taken[axes] > box[0]) & (taken[axes] < box[1])).all(axis=1).any()
            if free and inside.x0 < left and box[1, 0] < inside.x1 and inside.y0 < low and box[1, 1] < inside.y1:
                filled = np.stack(
                    np.meshgrid(*(np.arange(box[0, one], box[1, one], 2.0) for one in (0, 1))), -1
                ).reshape(-1, 2)
                taken[axes] = np.concatenate([taken[axes], filled])
                made = axes.annotate(text, (x, y), (right, above), textcoords="offset points", fontsize=size, zorder=6)
                made.set_in_layout(False)
                break


def _drawn_at(axes: Any) -> Any:
    """Pixels of the axes' lines, bars and marks, close enough that no letter fits between two."""
    paths = [(line.get_transform(), line.get_xydata()) for line in axes.lines]
    bars = [one for one in axes.collections if hasattr(one, "get_segments")]
    paths += [(axes.transData, part) for one in bars for part in one.get_segments()]
    found = [np.empty((0, 2))]
    for transform, path in paths:
        pixels = transform.transform(np.asarray(path, dtype=float))
        found.append(pixels)
        for one, other in itertools.pairwise(pixels):
            count = int(np.abs(other - one).max() / 2) + 1
            found.append(one + np.linspace(0, 1, count)[:, None] * (other - one))
    return np.concatenate(found)


def canvas(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


CHANCE_LINE: dict[str, Any] = {"color": FAINT, "linewidth": 1.0, "linestyle": (0, (1, 1.5))}


def chance(axes: Any, study: Study, vertical: bool = False) -> None:
    """A line where guessing among four choices lies, if it is in view; the legend says what it is."""
    low, high = axes.get_xlim() if vertical else axes.get_ylim()
    if study.kind == "choice" and low < CHANCE < high:
        (axes.axvline if vertical else axes.axhline)(CHANCE, gid="chance", zorder=1, **CHANCE_LINE)


def label(study: Study, name: str) -> str:
    """A score's name with its unit."""
    role = ROLES.get(name, name.replace("_", " "))
    return f"{role} ({unit(study)}{study.half})"


def unit(study: Study) -> str:
    return "%" if study.kind == "choice" else "nats a token"


def point(study: Study, row: Condition, x: str, y: str) -> tuple[Estimate, Estimate] | None:
    first, second = row.estimate(study, x), row.estimate(study, y)
    return None if first is None or second is None else (first, second)


def panels_for(names: Sequence[str], height: float = 2.3, columns: int = 3, share: bool = True) -> tuple[Any, Any]:
    """A panel for each name, at most three in a row."""
    columns = min(columns, len(names))
    rows = math.ceil(len(names) / columns)
    figure = canvas(WIDTH, height * rows + 1.0)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
    panels = dict(zip(names, grid.flat, strict=False))
    for place, axes in enumerate(grid.flat):
        axes.set_visible(place < len(names))
        axes.xaxis.set_tick_params(labelbottom=place + columns >= len(names))
    return figure, panels


def share_labels(panels: dict[str, Any], x: str, y: str) -> None:
    """The label of x under the lowest panel of each column, that of y beside the first of each row."""
    every_panel = list(panels.values())
    columns = every_panel[0].get_subplotspec().get_gridspec().ncols
    for place, axes in enumerate(every_panel):
        if place + columns >= len(every_panel):
            axes.set_xlabel(x)
        if place % columns == 0:
            axes.set_ylabel(y)


Series = list[tuple[float, Condition]]


def series_over(
    trials: Sequence[Trial], fixed: Callable[[Trial], Any], x: Callable[[Trial], float | None]
) -> list[Series]:
    """Groups of trials alike in `fixed`, by x, those with most values of x first."""
    groups: dict[str, dict[float, list[Trial]]] = {}
    for trial in trials:
        value = x(trial)
        if value is not None:
            groups.setdefault(str(fixed(trial)), {}).setdefault(value, []).append(trial)
    made = [[(value, Condition(by_x[value])) for value in sorted(by_x)] for by_x in groups.values()]
    return sorted(made, key=lambda series: -len(series))


def line(axes: Any, study: Study, points: Sequence[tuple[float, Condition]], name: str, method: str, arm: str) -> bool:
    """A method's line with its 95 % intervals; False if no score is there."""
    known = [(x, made, row.first.arm) for x, row in points if (made := row.estimate(study, name)) is not None]
    look = style(study, method, arm)
    axes.plot([x for x, *_ in known], [made.value for _, made, _ in known], **{**look, "marker": "none"}, zorder=2)
    for one in ARMS:  # ν = 0 of a line with RNA is the plain method
        mark(axes, [(x, made) for x, made, own in known if own == one], style(study, method, one))
    return bool(known)


def over(
    study: Study,
    methods: Sequence[str],
    plan: Callable[[str], list[tuple[Series, bool]]],
    names: Sequence[str],
    x_label: str,
    sentence: str,
    said: Callable[[float], str] = "{:g}".format,
) -> Any:
    """A row for each method and a column for each role, over the values of a setting, which are evenly spaced."""
    plans = {method: plan(method) for method in methods}
    places = {x: place for place, x in enumerate(sorted({x for found in plans.values() for x in _values(found)}))}
    names = [name for name in names if study.has(name)]
    height = {1: 2.4, 2: 1.7, 3: 1.5}.get(len(methods), 1.2)
    figure = canvas(WIDTH, height * len(methods) + 1.1)
    grid = figure.subplots(len(methods), len(names), squeeze=False, sharex=True, sharey="col")
    for (method, found), row in zip(plans.items(), grid, strict=True):
        for name, axes in zip(names, row, strict=True):
            for series, rna in found:
                apart = 0.0 if len(found) < 2 else 0.08 if rna else -0.08
                points = [(places[x] + apart, condition) for x, condition in series]
                line(axes, study, points, name, method, "rna" if rna else "plain")
        row[0].set_ylabel(f"{method} ({unit(study)})", fontsize=8)
    every = max(1, math.ceil(len(places) / 6))
    for name, top, bottom in zip(names, grid[0], grid[-1], strict=True):
        top.set_title(label(study, name))
        bottom.set_xlabel(x_label)
        bottom.set_xticks(list(places.values())[::every], [said(x) for x in places][::every])
        bottom.set_xlim(-0.5, len(places) - 0.5)
        if max(len(said(x)) for x in places) * len(places) > 24:
            bottom.tick_params(axis="x", rotation=30)
    for axes in grid.flat:
        axes.margins(y=0.1)
    for axes in grid.flat:
        chance(axes, study)
    say(figure, sentence)
    legend(figure, handles_of(study, methods, line=True))
    return figure


def _values(found: Sequence[tuple[Series, bool]]) -> list[float]:
    return [x for series, _ in found for x, _ in series]
