"""Every figure of a report, for paper and page: one palette, RM as circles and PO as triangles, RNA as a blue ring."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rna.report import commands, compare
from rna.report.compare import Chosen, Condition
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
RING = "#0072B2"  # RNA
INK = "#22262e"  # text and axes; the page draws them in its own text colour
FAINT = "#9aa0aa"
CHANCE = 25.0  # per cent: four choices
SHAPES = {"": "o", "KL": "^", "MSE": "v"}
STYLE: dict[str, Any] = {
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
    "savefig.transparent": True,
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
    """NAME.svg, NAME.pdf and NAME.png; returns the SVG's text for the page. Time stamps are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    where = folder / picture.name
    picture.drawing.savefig(where.with_suffix(".svg"), metadata={"Date": None})
    picture.drawing.savefig(where.with_suffix(".pdf"), metadata={"CreationDate": None})
    picture.drawing.savefig(where.with_suffix(".png"), dpi=200, transparent=False, facecolor="white")
    return where.with_suffix(".svg").read_text(encoding="utf-8")


def every(study: Study) -> list[Picture]:
    """All figures of a study, drawn or missing, in the order a reader wants them."""
    import matplotlib as mpl

    mpl.use("agg")
    found = compare.comparisons(study)
    picks = {method: compare.chosen(study, method, found) for method in study.methods}
    style: Any = STYLE
    with mpl.rc_context(style):
        return [
            robustness(study, picks),
            trade_offs(study),
            pareto(study),
            coefficients(study),
            noise_scale(study),
            ngrams(study, picks),
            sensitivity(),
            per_layer(study),
            regions(study),
            all_layers(study),
            *(curves(study, picks, name) for name in ("forget", "retain")),
        ]


# Marks


def colour(method: str) -> str:
    return COLOURS.get(method.split("+")[0], INK)


def shape(method: str) -> str:
    """RM circles, PO triangles: up with KL, down with MSE."""
    return SHAPES.get(method.partition("+")[2], "s")


def _mark(axes: Any, x: float, y: float, method: str, rna: bool, size: float = 7.0) -> None:
    """A method's mark; with RNA it wears a ring."""
    axes.plot(
        x,
        y,
        shape(method),
        color=colour(method),
        markersize=size,
        markeredgecolor="white",
        markeredgewidth=0.6,
        zorder=4,
    )
    if rna:
        ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": RING, "markeredgewidth": 1.5}
        axes.plot(x, y, shape(method), markersize=size + 4, zorder=5, **ring)


def _handles(methods: Sequence[str], references: Sequence[str] = (), line: bool = False) -> list[Any]:
    from matplotlib.lines import Line2D

    dash: dict[str, Any] = {"linestyle": "--" if line else "none"}
    made = [
        Line2D([], [], color=colour(method), marker=shape(method), linestyle="-" if line else "none", label=method)
        for method in methods
    ]
    made.append(Line2D([], [], color=FAINT, marker="o", **dash, label="plain"))
    ring: dict[str, Any] = {"markeredgecolor": RING, "markeredgewidth": 1.6, "markersize": 7.5}
    made.append(Line2D([], [], color=FAINT, marker="o", linestyle="-" if line else "none", **ring, label="with RNA"))
    marks = {"base": "*", "retrained": "D"}
    made += [Line2D([], [], color=INK, marker=marks[name], linestyle="none", label=name) for name in references]
    return made


def _legend(figure: Any, handles: Sequence[Any]) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=min(7, math.ceil(len(handles) / 2)))


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def _chance(axes: Any, study: Study, vertical: bool = False) -> None:
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


def _label(study: Study, name: str) -> str:
    role = ROLES.get(name, name.replace("_", " "))
    return f"{role} ({'%' if study.kind == 'choice' else 'nats a token'})"


def _empty(axes: Any, title: str, why: str) -> None:
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color=FAINT, fontsize=8.5)


# Figure 1


def robustness(study: Study, picks: dict[str, Chosen | None]) -> Picture:
    """Figure 1: plain against perturbed accuracy with and without RNA, as paired marks."""
    title = "Figure 1 · What a forget-token does, with and without RNA"
    items = {method: pick.comparison for method, pick in picks.items() if pick is not None}
    if not items or not study.has("perturbed"):
        command = commands.sweep(study, "method=rmu", "seed=0,1,2")
        return Picture("figure1", title, "No method was run both plain and with RNA.", None, command)
    figure = _figure(7.2, 6.6)
    grid = figure.subplots(2, 2)
    families: dict[str, list[str]] = {"RM": [], "PO": []}
    for method, item in items.items():
        families[item.rna.first.family].append(method)

    def panel(axes: Any, methods: Sequence[str], x: str, y: str, name: str, why: str, diagonal: bool = False) -> None:
        drawn: list[tuple[float, float]] = []
        for method in methods:
            ends = [_point(study, row, x, y) for row in (items[method].plain, items[method].rna)]
            if ends[0] is not None and ends[1] is not None:
                style = {"arrowstyle": "-", "color": colour(method), "alpha": 0.55, "linewidth": 1.2}
                axes.annotate("", ends[1], ends[0], arrowprops=style)
                drawn += [ends[0], ends[1]]
                _mark(axes, *ends[0], method, rna=False)
                _mark(axes, *ends[1], method, rna=True)
        if not drawn:
            _empty(axes, name, why)
            return
        for arm, mark in (("base", "*"), ("retrained", "D")):
            reference = study.references.get(arm)
            if reference is not None and (at := _point(study, Condition([reference]), x, y)) is not None:
                axes.plot(*at, mark, color=INK, markersize=9 if mark == "*" else 5, zorder=3)
                drawn.append(at)
        _frame(axes, drawn)
        if diagonal:
            low, high = max(axes.get_xlim()[0], axes.get_ylim()[0]), min(axes.get_xlim()[1], axes.get_ylim()[1])
            if low < high:
                axes.plot([low, high], [low, high], color=FAINT, linewidth=0.8, zorder=1)
                style = {"fontsize": 7, "color": FAINT, "va": "top", "textcoords": "offset points"}
                axes.annotate("no harm", (low, low), (4, -3), **style)
        axes.set_title(name)
        axes.set_xlabel(_label(study, x))
        axes.set_ylabel(_label(study, y))
        _chance(axes, study)

    panel(grid[0, 0], families["RM"], "retain", "perturbed", "RM methods: retain", "no RM method was run", True)
    panel(grid[0, 1], families["PO"], "retain", "perturbed", "PO methods: retain", "no PO method was run", True)
    missing = "no evaluation perturbs\nthe forget tasks"
    panel(grid[1, 0], list(items), "forget", "perturbed_forget", "Forget tasks", missing, True)
    related = sorted({item.task for trial in study.trials for item in trial.evaluations if item.role == "related"})
    x, y = (related[0], related[1]) if len(related) > 1 else ("retain", "related")
    panel(grid[1, 1], list(items), x, y, "Forget-related retain tasks", "no evaluation of\nforget-related tasks")
    _legend(figure, _handles(list(items), list(study.references)))
    higher = sum(
        item.changes["perturbed"].value * study.better > 0 for item in items.values() if "perturbed" in item.changes
    )
    words = [
        compare.intervals.word(item.changes["perturbed"], study.better)
        for item in items.values()
        if "perturbed" in item.changes
    ]
    caption = (
        f"Each line leads from a method's plain mark to its ringed mark with RNA. Far below the diagonal one "
        f"forget-token costs much; up is more robust. RNA betters the mean of {higher} of {len(items)} methods; "
        f"the 95 % interval of the paired difference leaves out zero for {words.count('helps')} (helps) and "
        f"{words.count('hurts')} (hurts)."
    )
    return Picture("figure1", title, caption, figure)


def _point(study: Study, row: Condition, x: str, y: str) -> tuple[float, float] | None:
    first, second = row.estimate(study, x), row.estimate(study, y)
    return None if first is None or second is None else (first.value, second.value)


def _frame(axes: Any, points: Sequence[tuple[float, float]]) -> None:
    """Limits around the points with room for the marks; at least two units wide."""
    for values, limit in (([x for x, _ in points], axes.set_xlim), ([y for _, y in points], axes.set_ylim)):
        low, high = min(values), max(values)
        room = max(0.09 * (high - low), 1.0 if high > 5 else 0.05)
        limit(low - room, high + room)


# At matched forgetting


def trade_offs(study: Study) -> Picture:
    """Perturbed accuracy against forget accuracy along α, with and without RNA."""
    title = "Matched forgetting · The trade-off curve over α, with and without RNA"
    every_curve = compare.trade_offs(study)
    best: dict[str, compare.TradeOff] = {}
    for item in every_curve:
        if item.enough and (item.method not in best or len(item.rna) > len(best[item.method].rna)):
            best[item.method] = item
    if not best:
        command = commands.more_alphas(study, every_curve[0].rna[0]) if every_curve else None
        why = f"No method has {compare.MIN_ALPHAS} values of α both plain and with RNA."
        return Picture("matched_forgetting", title, why, None, command)
    figure, panels = _panels(list(best), height=2.5)
    said: list[str] = []
    for method, axes in panels.items():
        item = best[method]
        for trials, rna in ((item.plain, False), (item.rna, True)):
            groups: dict[str, list[Trial]] = {}
            for trial in trials:
                groups.setdefault(str(trial.config["alpha"]), []).append(trial)
            rows = [(Condition(group), compare.alpha(group[0].config)) for group in groups.values()]
            points = sorted((at, label) for row, label in rows if (at := _point(study, row, "forget", "perturbed")))
            style: dict[str, Any] = {"color": RING, "linestyle": "-"} if rna else {"color": FAINT, "linestyle": "--"}
            axes.plot([at[0] for at, _ in points], [at[1] for at, _ in points], zorder=2, **style)
            for at, label in points:
                _mark(axes, *at, method, rna=rna, size=6)
                axes.annotate(f"α {label}", at, (0, 7), textcoords="offset points", fontsize=6.5, ha="center")
        result = item.results.get("perturbed")
        if result is not None:
            axes.axvspan(result.low, result.high, color=FAINT, alpha=0.13, linewidth=0)
            said.append(f"{method}: {compare.said(result.mean, study)}")
        axes.margins(0.12, 0.18)
        axes.set_title(f"{method}, ν = {item.nu:g}")
        _chance(axes, study, vertical=True)
    _share_labels(panels, _label(study, "forget"), _label(study, "perturbed"))
    _legend(figure, _handles(list(best), line=True))
    caption = (
        "Higher at the same place on the horizontal axis is better: RNA also loosens the pull to the retain set, so a "
        "gain at one α may only mean less forgetting. Grey: the forget scores both curves reach. Mean distance there: "
        + ("; ".join(said) if said else "undefined, no seed's curves overlap")
        + "."
    )
    return Picture("matched_forgetting", title, caption, figure)


def _panels(names: Sequence[str], height: float = 2.3, columns: int = 3) -> tuple[Any, dict[str, Any]]:
    """A panel for each name, at most three in a row."""
    columns = min(columns, len(names))
    rows = math.ceil(len(names) / columns)
    figure = _figure(7.2 if columns > 1 else 4.6, height * rows + 0.7)
    grid = figure.subplots(rows, columns, squeeze=False)
    panels = dict(zip(names, grid.flat, strict=False))
    for axes in list(grid.flat)[len(names) :]:
        axes.set_visible(False)
    return figure, panels


def _share_labels(panels: dict[str, Any], x: str, y: str) -> None:
    """The label of x under the lowest panel of each column, that of y beside the first of each row."""
    every_panel = list(panels.values())
    columns = every_panel[0].get_subplotspec().get_gridspec().ncols
    for place, axes in enumerate(every_panel):
        if place + columns >= len(every_panel):
            axes.set_xlabel(x)
        if place % columns == 0:
            axes.set_ylabel(y)


def pareto(study: Study) -> Picture:
    """Forget against perturbed retain: every condition, and the fronts with and without RNA."""
    title = "Pareto · Forgetting against robustness"
    rows = [(row, at) for row in compare.conditions(study) if (at := _point(study, row, "forget", "perturbed"))]
    if not rows:
        command = commands.sweep(study, "method=rmu,npo", "seed=0,1,2")
        return Picture("pareto", title, "No trial was judged on both a forget and a perturbed task.", None, command)
    figure = _figure(6.4, 4.6)
    axes = figure.subplots()
    sign = study.better
    for rna, style in ((False, {"color": FAINT, "linestyle": "--"}), (True, {"color": RING, "linestyle": "-"})):
        front = _front([at for row, at in rows if (row.first.arm == "rna") == rna], sign)
        axes.plot([x for x, _ in front], [y for _, y in front], linewidth=1.2, zorder=2, **style)
    size = 7.0 if len(rows) < 60 else 4.5
    for row, at in rows:
        _mark(axes, *at, row.first.method, rna=row.first.arm == "rna", size=size)
    points = [at for _, at in rows]
    retrained = study.references.get("retrained")
    if retrained is not None and (at := _point(study, Condition([retrained]), "forget", "perturbed")):
        axes.plot(*at, "D", color=INK, markersize=5, zorder=3)
        points.append(at)
    _frame(axes, points)
    base = study.references.get("base")
    if base is not None and (at := _point(study, Condition([base]), "forget", "perturbed")):
        # The base forgets nothing and lies far off; in the axes it would press all else together.
        said = f"base, beyond this view: forget {at[0]:.1f}, perturbed {at[1]:.1f}"
        axes.annotate(said, (1, 1), xycoords="axes fraction", ha="right", va="bottom", fontsize=7.5)
    axes.set_xlabel(_label(study, "forget") + (" · left is better" if sign > 0 else " · right is better"))
    axes.set_ylabel(_label(study, "perturbed") + (" · up is better" if sign > 0 else " · down is better"))
    _chance(axes, study, vertical=True)
    _chance(axes, study)
    _legend(figure, _handles(study.methods, ["retrained"] if retrained is not None else [], line=True))
    better = "top left" if sign > 0 else "bottom right"
    caption = (
        f"One mark for each setting (mean over its seeds); {better} is best. The lines join the settings that no other "
        "betters in both, plain (dashed) and with RNA (blue): where blue lies on the better side, RNA buys robustness "
        "that no plain setting reached at that forgetting."
    )
    return Picture("pareto", title, caption, figure)


def _front(points: Sequence[tuple[float, float]], sign: int) -> list[tuple[float, float]]:
    """The points that none betters in both: lower forget and higher retain (`sign` −1: the reverse)."""
    kept: list[tuple[float, float]] = []
    best = -math.inf
    for x, y in sorted(points, key=lambda point: (sign * point[0], -sign * point[1])):
        if sign * y > best:
            kept.append((x, y))
            best = sign * y
    return kept


# Lines over a setting


Series = list[tuple[float, Condition]]


def _series(trials: Sequence[Trial], fixed: Callable[[Trial], Any], x: Callable[[Trial], float | None]) -> list[Series]:
    """Groups of trials alike in `fixed`, by x, those with most values of x first."""
    groups: dict[str, dict[float, list[Trial]]] = {}
    for trial in trials:
        value = x(trial)
        if value is not None:
            groups.setdefault(str(fixed(trial)), {}).setdefault(value, []).append(trial)
    made = [[(value, Condition(by_x[value])) for value in sorted(by_x)] for by_x in groups.values()]
    return sorted(made, key=lambda series: -len(series))


def _line(axes: Any, study: Study, series: Series, name: str, method: str, rna: bool) -> bool:
    """A method's line with its 95 % intervals, dashed where plain; False if no score is there."""
    points = [(x, made) for x, row in series if (made := row.estimate(study, name)) is not None]
    if not points:
        return False
    xs, ys = [x for x, _ in points], [made.value for _, made in points]
    axes.plot(xs, ys, color=colour(method), linestyle="-" if rna else "--", zorder=2)
    low = [made.value - (made.low if made.low is not None else made.value) for _, made in points]
    high = [(made.high if made.high is not None else made.value) - made.value for _, made in points]
    bounds = axes.get_ylim() if axes.lines[1:] else None
    axes.errorbar(xs, ys, [low, high], fmt="none", ecolor=colour(method), elinewidth=0.8, alpha=0.45, zorder=1)
    if bounds is not None:
        axes.set_ylim(bounds)
    arms = [row.first.arm for x, row in series if x in xs]
    for x, y, arm in zip(xs, ys, arms, strict=True):
        _mark(axes, x, y, method, rna=arm == "rna", size=5)  # ν = 0 of a line with RNA is the plain method
    return True


def _fit(axes: Any, study: Study, lines: Sequence[tuple[Series, str]]) -> None:
    """Vertical limits from the means, so that a wide interval does not flatten the lines."""
    values = [made.value for series, name in lines for _, row in series if (made := row.estimate(study, name))]
    if values:
        room = max(0.12 * (max(values) - min(values)), 2.0 if study.kind == "choice" else 0.05)
        axes.set_ylim(min(values) - room, max(values) + room)
    _chance(axes, study)


def _over(
    study: Study,
    methods: Sequence[str],
    plan: Callable[[str], list[tuple[Series, bool]]],
    names: Sequence[str],
    x_label: str,
) -> Any:
    """A panel for each role over a setting, a line for each method."""
    figure = _figure(7.2, 3.2)
    grid = figure.subplots(1, len(names), squeeze=False)[0]
    shown: list[str] = []
    for axes, name in zip(grid, names, strict=True):
        drawn: list[tuple[Series, str]] = []
        for method in methods:
            for series, rna in plan(method):
                if _line(axes, study, series, name, method, rna):
                    drawn.append((series, name))
                    shown += [method] if method not in shown else []
        axes.set_xlabel(x_label)
        axes.set_ylabel(_label(study, name))
        if drawn:
            _fit(axes, study, drawn)
        else:
            _empty(axes, "", "not evaluated")
    _legend(figure, _handles(shown, line=True))
    return figure


def coefficients(study: Study) -> Picture:
    """Figure 2: the steering coefficient c and the scaling factor β against perturbed accuracy."""
    title = "Figure 2 · Stronger steering, less robust?"
    plans: dict[str, list[tuple[Series, bool]]] = {}
    for method, option in (("RMU", "coefficient"), ("RSV", "coefficient"), ("Adaptive RMU", "beta")):
        for arm in ("plain", "rna"):
            mine = [trial for trial in study.trials if trial.method == method and trial.arm == arm]
            found = _series(
                mine,
                lambda trial: trial.without("seed", "method"),
                lambda trial, option=option: trial.config["method"].get(option),
            )
            if found and len(found[0]) > 1:
                plans.setdefault(method, []).append((found[0], arm == "rna"))
    if not plans:
        command = commands.sweep(study, "method=rmu", "method.coefficient=2,4,6.5,10,20,40,80", "seed=0,1,2")
        also = commands.sweep(study, "method=adaptive_rmu", "method.beta=1,2,3,5,8,12", "seed=0,1,2")
        why = "No RM method was run with several values of c or β."
        return Picture("figure2", title, why, None, f"{command}\n{also}")
    figure, panels = _panels(list(plans), height=2.6)
    for method, axes in panels.items():
        for series, rna in plans[method]:
            _line(axes, study, series, "perturbed", method, rna)
        _fit(axes, study, [(series, "perturbed") for series, _ in plans[method]])
        axes.set_xlabel("scaling factor β" if method == "Adaptive RMU" else "coefficient c")
        axes.set_title(method)
    next(iter(panels.values())).set_ylabel(_label(study, "perturbed"))
    _legend(figure, _handles(list(plans), line=True))
    caption = (
        "The paper finds that accuracy falls as c or β grows (Theorem 4.2): look for lines that fall to the right."
    )
    return Picture("figure2", title, caption, figure)


def _at_unlearn_layer(trial: Trial) -> bool:
    return trial.config["noise"]["layers"] == [trial.config["layer"]["unlearn"]]


def _with_plain(study: Study, series: Series) -> Series:
    """The series of noise scales with its plain twin as ν = 0."""
    like = series[0][1].first.without("seed", "noise")
    twins = [trial for trial in study.trials if trial.arm == "plain" and trial.without("seed", "noise") == like]
    return [(0.0, Condition(twins)), *series] if twins else series


def _scales(study: Study, method: str, where: Callable[[Trial], bool]) -> list[tuple[Series, bool]]:
    mine = [trial for trial in study.trials if trial.method == method and trial.arm == "rna" and where(trial)]
    found = _series(
        mine,
        lambda trial: (trial.without("seed", "noise"), trial.config["noise"]["layers"], trial.config["noise"]["scale"]),
        lambda trial: trial.nu,
    )
    return [(_with_plain(study, found[0]), True)] if found and len(found[0]) > 1 else []


def noise_scale(study: Study) -> Picture:
    """Figure 3: ν against perturbed retain and forget accuracy."""
    title = "Figure 3 · How much noise"
    methods = [method for method in study.methods if _scales(study, method, _at_unlearn_layer)]
    if not methods:
        command = commands.sweep(study, "method=npo", "retain=mse,kl", "noise.nu=0.01,0.014,0.02,0.04", "seed=0,1,2")
        return Picture("figure3", title, "No method was run with several noise scales.", None, command)
    names = ["perturbed", "forget", "retain"]
    figure = _over(study, methods, lambda method: _scales(study, method, _at_unlearn_layer), names, "noise scale ν")
    caption = (
        "ν = 0 is the plain method. A useful ν lifts the left panel while the middle one stays low; where both rise "
        "together, the noise only weakened the unlearning. Bars: 95 % intervals, over seeds where there are several."
    )
    return Picture("figure3", title, caption, figure)


# Figures 4 and 7


def ngrams(study: Study, picks: dict[str, Chosen | None]) -> Picture:
    """Figure 4: harm by the similarity of the n-gram to its document."""
    title = "Figure 4 · More similar n-grams, more harm?"
    groups = ("low", "mean", "high")
    tasks = {item.ngram: item.task for trial in study.trials for item in trial.evaluations if item.ngram}
    sizes = [n for n in (2, 4, 8, 16) if sum((n, group) in tasks for group in groups) > 1]
    chosen = {method: pick.comparison for method, pick in picks.items() if pick is not None}
    if not sizes or not chosen:
        why = "No task was perturbed by n-grams of several groups of similarity."
        return Picture("figure4", title, why, None, "python -m rna.analyze harmful_ngrams --n 2")
    present = [group for group in groups if (sizes[0], group) in tasks]
    figure = _figure(6.4, 3.6)
    axes = figure.subplots()
    drawn: list[tuple[Series, str]] = []
    for method, item in chosen.items():
        for row, rna in ((item.plain, False), (item.rna, True)):
            values = [row.estimate(study, tasks[sizes[0], group]) for group in present]
            known = [(place, made.value) for place, made in enumerate(values) if made is not None]
            style = {"color": colour(method), "linestyle": "-" if rna else "--"}
            axes.plot([place for place, _ in known], [value for _, value in known], **style)
            for place, value in known:
                _mark(axes, place, value, method, rna=rna, size=5)
    _fit(axes, study, drawn)
    axes.set_xticks(range(len(present)), [f"{group} similarity" for group in present])
    axes.set_ylabel(_label(study, "perturbed"))
    _legend(figure, _handles(list(chosen), line=True))
    caption = f"{sizes[0]}-grams by their similarity to their document; lines that fall to the right confirm the paper."
    return Picture("figure4", title, caption, figure)


def sensitivity() -> Picture:
    """Figure 7 comes from an analysis of tensors, which no record of a trial holds."""
    title = "Figure 7 · Noise sensitivity by layer"
    why = "The records hold no noise sensitivities; they are measured on the models themselves."
    return Picture("figure7", title, why, None, "python -m rna.analyze noise_sensitivity")


# Figures 8 to 10


def _depth(study: Study) -> int:
    known = study.config["model"].get("num_layers")
    return int(known) if known else 0


def _everywhere(study: Study, trial: Trial) -> bool:
    layers, depth = trial.config["noise"]["layers"], _depth(study)
    return layers == list(range(depth or max(len(layers), 4)))


def _by_layers(
    study: Study, method: str, where: Callable[[list[int]], bool], x: Callable[[list[int]], float]
) -> Series:
    mine = [
        trial
        for trial in study.trials
        if trial.method == method and trial.arm == "rna" and where(trial.config["noise"]["layers"])
    ]
    found = _series(
        mine,
        lambda trial: (trial.without("seed", "noise"), trial.nu, trial.config["noise"]["scale"]),
        lambda trial: x(trial.config["noise"]["layers"]),
    )
    return found[0] if found and len(found[0]) > 1 else []


NAMES = ["retain", "perturbed", "forget"]


def per_layer(study: Study) -> Picture:
    """Figure 8: noise at one layer after the other."""
    title = "Figure 8 · Noise at each single layer"
    by_method = {
        method: series
        for method in study.methods
        if (series := _by_layers(study, method, lambda layers: len(layers) == 1, lambda layers: float(layers[0])))
    }
    if not by_method:
        layers = ",".join(map(str, range(_depth(study) or 32)))
        command = commands.sweep(
            study, "method=npo", "retain=mse", "noise.nu=0.01", f"noise.layers={layers}", "seed=0,1,2"
        )
        return Picture("figure8", title, "No method was run with noise at several single layers.", None, command)
    figure = _over(study, list(by_method), lambda method: [(by_method[method], True)], NAMES, "noised layer")
    nu = next(iter(by_method.values()))[0][1].first.nu
    caption = (
        f"Noise of ν = {nu:g} at one layer at a time. The paper sees gains at most layers and no trend: look for one."
    )
    return Picture("figure8", title, caption, figure)


def regions(study: Study) -> Picture:
    """Figure 9: noise at early, middle and late layers."""
    title = "Figure 9 · Noise by region"
    by_method: dict[str, Series] = {}
    labels: dict[float, str] = {}
    for method in study.methods:
        series = _by_layers(
            study,
            method,
            lambda layers: len(layers) > 1 and layers != list(range(_depth(study))),
            lambda layers: sum(layers) / len(layers),
        )
        if series:
            by_method[method] = series
            labels |= {x: ", ".join(map(str, row.first.config["noise"]["layers"])) for x, row in series}
    if not by_method:
        depth = _depth(study) or 32
        places = [[5, 6, 7], [14, 15, 16], [28, 29, 30]] if depth >= 31 else [[0, 1], [1, 2], [depth - 2, depth - 1]]
        grid = ",".join(str(place).replace(" ", "") for place in places)
        command = commands.sweep(
            study, "method=npo", "retain=mse", "noise.nu=0.01", f"noise.layers={grid}", "seed=0,1,2"
        )
        return Picture("figure9", title, "No method was run with noise in several regions.", None, command)
    figure = _over(study, list(by_method), lambda method: [(by_method[method], True)], NAMES, "noised layers")
    for axes in figure.axes:
        axes.set_xticks(list(labels), list(labels.values()))
    caption = "Early, middle and late layers at one ν: compare the three places within each line."
    return Picture("figure9", title, caption, figure)


def all_layers(study: Study) -> Picture:
    """Figure 10: noise at all layers, over ν."""
    title = "Figure 10 · Noise at all layers"

    def plan(method: str) -> list[tuple[Series, bool]]:
        return _scales(study, method, lambda trial: _everywhere(study, trial))

    methods = [method for method in study.methods if plan(method)]
    if not methods:
        grid = "noise.nu=0.001,0.002,0.004,0.006,0.008,0.01"
        command = commands.sweep(study, "method=npo", "retain=mse", grid, "noise.layers=all", "seed=0,1,2")
        return Picture("figure10", title, "No method was run with several noise scales at all layers.", None, command)
    figure = _over(study, methods, plan, NAMES, "noise scale ν, at all layers")
    caption = "The paper sees the best robustness at a small ν and a sharp fall beyond it: look for a peak at the left."
    return Picture("figure10", title, caption, figure)


# Training curves


def curves(study: Study, picks: dict[str, Chosen | None], name: str) -> Picture:
    """A loss over the steps, mean and range over seeds, with and without RNA."""
    title = f"Training · {name.capitalize()} loss"
    rows: dict[str, list[tuple[list[Trial], bool]]] = {}
    for method in study.methods:
        pick = picks.get(method)
        arms = [(pick.comparison.plain.trials, False), (pick.comparison.rna.trials, True)] if pick else []
        known = [([trial for trial in trials if trial.curve.get(f"train/{name}_loss")], rna) for trials, rna in arms]
        if any(trials for trials, _ in known):
            rows[method] = known
    if not rows:
        command = commands.sweep(study, "method=npo", "retain=mse", "seed=0,1,2")
        return Picture(f"training_{name}", title, "No record has a training curve.", None, command)
    figure, panels = _panels(list(rows), height=1.8)
    for method, axes in panels.items():
        for trials, rna in rows[method]:
            lines = [trial.curve[f"train/{name}_loss"] for trial in trials]
            short = min((len(line) for line in lines), default=0)
            if short == 0:
                continue
            steps = [x for x, _ in lines[0][:short]]
            values = [[line[place][1] for line in lines] for place in range(short)]
            paint = RING if rna else colour(method)
            means = [sum(value) / len(value) for value in values]
            axes.plot(steps, means, color=paint, linestyle="-" if rna else "--", zorder=2 if rna else 3)
            axes.fill_between(steps, [min(value) for value in values], [max(value) for value in values],
                              color=paint, alpha=0.15, linewidth=0)  # fmt: skip
        axes.set_title(method)
    _share_labels(panels, "step", f"{name} loss")
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=FAINT, linestyle="--", label="plain (the method's colour)")]
    handles.append(Line2D([], [], color=RING, label="with RNA"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    what = "A forget loss that stops moving" if name == "forget" else "A retain loss that keeps rising"
    caption = f"Means of neighbouring steps; bands: the range over seeds. {what} is the first thing to look for."
    return Picture(f"training_{name}", title, caption, figure)
