"""How the report draws: one palette, RM as circles and PO as triangles, RNA as a blue ring, and panels and lines."""

import math
import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

from rna.report.compare import Condition
from rna.report.records import Study, Trial
from rna.report.tables import ROLES

# Okabe and Ito's colours, which colour-blind readers can tell apart; the retain loss shows in the shape.
COLOURS = {
    "RMU": "#E69F00",
    "Adaptive RMU": "#CC79A7",
    "RSV": "#7A6A4F",
    "NPO": "#009E73",
    "DPO": "#56B4E9",
    "SimNPO": "#D55E00",
}
SPARE = ("#882255", "#117733", "#44AA99", "#332288", "#AA4499")  # of methods that are not the paper's (Tol's muted)
RING = "#0072B2"  # RNA
INK = "#22262e"  # text and axes; the page draws them in its own text colour
FAINT = "#9aa0aa"
PNG_DPI = 200
MAX_WORKERS = 4  # each holds the trials, though most of them in memory that is shared
CHANCE = 25.0  # per cent: four choices
SHAPES = {"": "o", "KL": "^", "MSE": "v"}
REFERENCES = {"base": ("*", 9), "retrained": ("D", 5), "given": ("X", 6)}  # mark and its size
STYLE: dict[str, Any] = {
    "text.parse_math": False,  # a dollar in a name is a dollar
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
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


def colour(method: str) -> str:
    name = method.split("+")[0]
    return COLOURS.get(name) or SPARE[crc32(name.encode()) % len(SPARE)]


def shape(method: str) -> str:
    """RM circles, PO triangles: up with KL, down with MSE."""
    return SHAPES.get(method.partition("+")[2], "s")


def mark(axes: Any, points: Sequence[tuple[float, float]], method: str, *, rna: bool, size: float = 7.0) -> None:
    """A method's marks; with RNA they wear a ring."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    common: dict[str, Any] = {"marker": shape(method), "linestyle": "none"}
    filled: dict[str, Any] = {"color": colour(method), "markeredgecolor": "white", "markeredgewidth": 0.6}
    axes.plot(xs, ys, markersize=size, zorder=4, **common, **filled)
    if rna:
        width = 0.2 * size  # a ring around many small marks must leave their colours to be seen
        ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": RING, "markeredgewidth": width}
        axes.plot(xs, ys, markersize=1.55 * size, zorder=5, **common, **ring)


def mark_reference(axes: Any, at: tuple[float, float], arm: str) -> None:
    """The mark of a base, retrained or given model."""
    shape, size = REFERENCES[arm]
    axes.plot(*at, shape, color=INK, markersize=size, zorder=3)


def handles_of(methods: Sequence[str], references: Mapping[str, Trial] | None = None, line: bool = False) -> list[Any]:
    from matplotlib.lines import Line2D

    dash: dict[str, Any] = {"linestyle": "--" if line else "none"}
    made = [
        Line2D([], [], color=colour(method), marker=shape(method), linestyle="-" if line else "none", label=method)
        for method in methods
    ]
    made.append(Line2D([], [], color=FAINT, marker="o", **dash, label="plain"))
    ring: dict[str, Any] = {"markeredgecolor": RING, "markeredgewidth": 1.6, "markersize": 7.5}
    made.append(Line2D([], [], color=FAINT, marker="o", linestyle="-" if line else "none", **ring, label="with RNA"))
    for name, trial in (references or {}).items():
        made.append(Line2D([], [], color=INK, marker=REFERENCES[trial.arm][0], linestyle="none", label=name))
    return made


def legend(figure: Any, handles: Sequence[Any]) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)))


def canvas(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def chance(axes: Any, study: Study, vertical: bool = False) -> None:
    """A line where guessing among four choices lies, if it is in view."""
    if study.kind != "choice":
        return
    style = {"color": FAINT, "linewidth": 0.9, "linestyle": ":", "zorder": 1}
    low, high = axes.get_xlim() if vertical else axes.get_ylim()
    if not low < CHANCE < high:
        return
    if vertical:
        axes.axvline(CHANCE, **style)
        where = {
            "xy": (CHANCE, 1),
            "xycoords": ("data", "axes fraction"),
            "xytext": (2, -2),
            "rotation": 90,
            "va": "top",
        }
    else:
        axes.axhline(CHANCE, **style)
        where = {"xy": (1, CHANCE), "xycoords": ("axes fraction", "data"), "xytext": (-2, 2), "ha": "right"}
    axes.annotate("chance", textcoords="offset points", fontsize=7, color=FAINT, **where)


def label(study: Study, name: str) -> str:
    role = ROLES.get(name, name.replace("_", " "))
    return f"{role} ({'%' if study.kind == 'choice' else 'nats a token'})"


def empty(axes: Any, title: str, why: str) -> None:
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color=FAINT, fontsize=8.5)


def point(study: Study, row: Condition, x: str, y: str) -> tuple[float, float] | None:
    first, second = row.estimate(study, x), row.estimate(study, y)
    return None if first is None or second is None else (first.value, second.value)


def frame(axes: Any, points: Sequence[tuple[float, float]]) -> None:
    """Limits around the points with room for the marks; at least two units wide."""
    for values, limit in (([x for x, _ in points], axes.set_xlim), ([y for _, y in points], axes.set_ylim)):
        low, high = min(values), max(values)
        room = max(0.09 * (high - low), 1.0 if high > 5 else 0.05)
        limit(low - room, high + room)


def panels_for(names: Sequence[str], height: float = 2.3, columns: int = 3) -> tuple[Any, dict[str, Any]]:
    """A panel for each name, at most three in a row."""
    columns = min(columns, len(names))
    rows = math.ceil(len(names) / columns)
    figure = canvas(7.2 if columns > 1 else 4.6, height * rows + 0.7)
    grid = figure.subplots(rows, columns, squeeze=False)
    panels = dict(zip(names, grid.flat, strict=False))
    for axes in list(grid.flat)[len(names) :]:
        axes.set_visible(False)
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


def line(axes: Any, study: Study, series: Series, name: str, method: str, rna: bool) -> bool:
    """A method's line with its 95 % intervals, dashed where plain; False if no score is there."""
    known = [(x, made, row.first.arm) for x, row in series if (made := row.estimate(study, name)) is not None]
    if not known:
        return False
    points = [(x, made) for x, made, _ in known]
    xs, ys, arms = [x for x, _ in points], [made.value for _, made in points], [arm for _, _, arm in known]
    axes.plot(xs, ys, color=colour(method), linestyle="-" if rna else "--", zorder=2)
    low = [made.value - (made.low if made.low is not None else made.value) for _, made in points]
    high = [(made.high if made.high is not None else made.value) - made.value for _, made in points]
    bounds = axes.get_ylim() if axes.lines[1:] else None
    axes.errorbar(xs, ys, [low, high], fmt="none", ecolor=colour(method), elinewidth=0.8, alpha=0.45, zorder=1)
    if bounds is not None:
        axes.set_ylim(bounds)
    for arm in ("plain", "rna"):  # ν = 0 of a line with RNA is the plain method
        mark(
            axes,
            [(x, y) for x, y, one in zip(xs, ys, arms, strict=True) if one == arm],
            method,
            rna=arm == "rna",
            size=6.0,
        )
    return True


def fit(axes: Any, study: Study, lines: Sequence[tuple[Series, str]]) -> None:
    """Vertical limits from the means, so that a wide interval does not flatten the lines."""
    values = [made.value for series, name in lines for _, row in series if (made := row.estimate(study, name))]
    if values:
        room = max(0.12 * (max(values) - min(values)), 2.0 if study.kind == "choice" else 0.05)
        axes.set_ylim(min(values) - room, max(values) + room)
    chance(axes, study)


def over(
    study: Study,
    methods: Sequence[str],
    plan: Callable[[str], list[tuple[Series, bool]]],
    names: Sequence[str],
    x_label: str,
) -> Any:
    """A panel for each role over a setting, a line for each method."""
    figure = canvas(7.2, 3.2)
    grid = figure.subplots(1, len(names), squeeze=False)[0]
    shown: list[str] = []
    for axes, name in zip(grid, names, strict=True):
        drawn: list[tuple[Series, str]] = []
        for method in methods:
            for series, rna in plan(method):
                if line(axes, study, series, name, method, rna):
                    drawn.append((series, name))
                    shown += [method] if method not in shown else []
        axes.set_xlabel(x_label)
        axes.set_ylabel(label(study, name))
        axes.locator_params(axis="x", nbins=4)
        axes.xaxis.set_major_formatter("{x:g}")
        if drawn:
            fit(axes, study, drawn)
        else:
            empty(axes, "", "not evaluated")
    legend(figure, handles_of(shown, line=True))
    return figure
