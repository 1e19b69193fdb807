"""Every figure of a report, drawn from the records or shown as missing with what would compute it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from rna.config import REGIONS, region
from rna.mined import GROUPS
from rna.report import commands, compare, drawing
from rna.report.compare import Chosen, Condition
from rna.report.drawing import Picture, Series
from rna.report.records import Study, Trial


def every(study: Study) -> list[Picture]:
    """All figures of a study, drawn or missing, in the order a reader wants them."""
    found = compare.comparisons(study)
    picks = {method: compare.chosen(study, method, found) for method in study.methods}
    with drawing.styled():
        return [
            robustness(study, picks),
            trade_offs(study),
            pareto(study),
            coefficients(study),
            noise_scale(study),
            ngrams(study),
            per_layer(study),
            regions(study),
            all_layers(study),
            unlearn_layer(study),
            *(curves(study, picks, name) for name in ("forget", "retain")),
        ]


# Figure 1


def robustness(study: Study, picks: dict[str, Chosen | None]) -> Picture:
    """Figure 1: plain against perturbed accuracy with and without RNA, as paired marks."""
    title = "Figure 1 · What a forget-token does, with and without RNA"
    items = {method: pick.comparison for method, pick in picks.items() if pick is not None}
    if not items or not study.has("perturbed"):
        command = commands.sweep(study, "method=rmu", "seed=0,1,2")
        return Picture("figure1", title, "No method was run both plain and with RNA.", None, command)
    figure = drawing.canvas(7.2, 6.6)
    grid = figure.subplots(2, 2)
    families: dict[str, list[str]] = {"RM": [], "PO": []}
    for method, item in items.items():
        families[item.rna.first.family].append(method)

    def panel(axes: Any, methods: Sequence[str], x: str, y: str, name: str, why: str, diagonal: bool = False) -> None:
        drawn: list[tuple[float, float]] = []
        for method in methods:
            ends = [drawing.point(study, row, x, y) for row in (items[method].plain, items[method].rna)]
            if ends[0] is not None and ends[1] is not None:
                style = {"arrowstyle": "-", "color": drawing.colour(method), "alpha": 0.55, "linewidth": 1.2}
                axes.annotate("", ends[1], ends[0], arrowprops=style)
                drawn += [ends[0], ends[1]]
                drawing.mark(axes, [ends[0]], method, rna=False)
                drawing.mark(axes, [ends[1]], method, rna=True)
        if not drawn:
            drawing.empty(axes, name, why)
            return
        for arm, mark in (("base", "*"), ("retrained", "D")):
            reference = study.references.get(arm)
            if reference is not None and (at := drawing.point(study, Condition([reference]), x, y)) is not None:
                axes.plot(*at, mark, color=drawing.INK, markersize=9 if mark == "*" else 5, zorder=3)
                drawn.append(at)
        drawing.frame(axes, drawn)
        if diagonal:
            low, high = max(axes.get_xlim()[0], axes.get_ylim()[0]), min(axes.get_xlim()[1], axes.get_ylim()[1])
            if low < high:
                axes.plot([low, high], [low, high], color=drawing.FAINT, linewidth=0.8, zorder=1)
                style = {"fontsize": 7, "color": drawing.FAINT, "va": "top", "textcoords": "offset points"}
                axes.annotate("no harm", (low, low), (4, -3), **style)
        axes.set_title(name)
        axes.set_xlabel(drawing.label(study, x))
        axes.set_ylabel(drawing.label(study, y))
        drawing.chance(axes, study)

    panel(grid[0, 0], families["RM"], "retain", "perturbed", "RM methods: retain", "no RM method was run", True)
    panel(grid[0, 1], families["PO"], "retain", "perturbed", "PO methods: retain", "no PO method was run", True)
    missing = "no evaluation perturbs\nthe forget tasks"
    panel(grid[1, 0], list(items), "forget", "forget_perturbed", "Forget tasks", missing, True)
    related = sorted({item.task for trial in study.trials for item in trial.evaluations if item.role == "related"})
    x, y = (related[0], related[1]) if len(related) > 1 else ("retain", "related")
    panel(grid[1, 1], list(items), x, y, "Forget-related retain tasks", "no evaluation of\nforget-related tasks")
    drawing.legend(figure, drawing.handles_of(list(items), list(study.references)))
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
    figure, panels = drawing.panels_for(list(best), height=2.5)
    said: list[str] = []
    for method, axes in panels.items():
        item = best[method]
        for trials, rna in ((item.plain, False), (item.rna, True)):
            groups: dict[str, list[Trial]] = {}
            for trial in trials:
                groups.setdefault(str(trial.config["alpha"]), []).append(trial)
            rows = [(Condition(group), compare.alpha(group[0].config)) for group in groups.values()]
            points = sorted(
                (at, label) for row, label in rows if (at := drawing.point(study, row, "forget", "perturbed"))
            )
            style: dict[str, Any] = (
                {"color": drawing.RING, "linestyle": "-"} if rna else {"color": drawing.FAINT, "linestyle": "--"}
            )
            axes.plot([at[0] for at, _ in points], [at[1] for at, _ in points], zorder=2, **style)
            drawing.mark(axes, [at for at, _ in points], method, rna=rna, size=6.0)
            for at, label in points:
                axes.annotate(f"α {label}", at, (0, 7), textcoords="offset points", fontsize=6.5, ha="center")
        result = item.results.get("perturbed")
        if result is not None:
            axes.axvspan(result.low, result.high, color=drawing.FAINT, alpha=0.13, linewidth=0)
            said.append(f"{method}: {compare.said(result.mean, study)}")
        axes.margins(0.12, 0.18)
        axes.set_title(f"{method}, ν = {item.nu:g}")
        drawing.chance(axes, study, vertical=True)
    drawing.share_labels(panels, drawing.label(study, "forget"), drawing.label(study, "perturbed"))
    drawing.legend(figure, drawing.handles_of(list(best), line=True))
    caption = (
        "Higher at the same place on the horizontal axis is better: RNA also loosens the pull to the retain set, so a "
        "gain at one α may only mean less forgetting. Grey: the forget scores both curves reach. Mean distance there: "
        + ("; ".join(said) if said else "undefined, no seed's curves overlap")
        + "."
    )
    return Picture("matched_forgetting", title, caption, figure)


def pareto(study: Study) -> Picture:
    """Forget against perturbed retain: every condition, and the fronts with and without RNA."""
    title = "Pareto · Forgetting against robustness"
    rows = [(row, at) for row in compare.conditions(study) if (at := drawing.point(study, row, "forget", "perturbed"))]
    if not rows:
        command = commands.sweep(study, "method=rmu,npo", "seed=0,1,2")
        return Picture("pareto", title, "No trial was judged on both a forget and a perturbed task.", None, command)
    figure = drawing.canvas(6.4, 4.6)
    axes = figure.subplots()
    sign = study.better
    for rna, style in (
        (False, {"color": drawing.FAINT, "linestyle": "--"}),
        (True, {"color": drawing.RING, "linestyle": "-"}),
    ):
        front = _front([at for row, at in rows if (row.first.arm == "rna") == rna], sign)
        axes.plot([x for x, _ in front], [y for _, y in front], linewidth=1.2, zorder=2, **style)
    size = 7.0 if len(rows) < 60 else 4.5
    for method in study.methods:
        for arm in ("plain", "rna"):
            mine = [at for row, at in rows if (row.first.method, row.first.arm) == (method, arm)]
            drawing.mark(axes, mine, method, rna=arm == "rna", size=size)
    points = [at for _, at in rows]
    retrained = study.references.get("retrained")
    if retrained is not None and (at := drawing.point(study, Condition([retrained]), "forget", "perturbed")):
        axes.plot(*at, "D", color=drawing.INK, markersize=5, zorder=3)
        points.append(at)
    drawing.frame(axes, points)
    base = study.references.get("base")
    if base is not None and (at := drawing.point(study, Condition([base]), "forget", "perturbed")):
        # The base forgets nothing and lies far off; in the axes it would press all else together.
        said = f"base, beyond this view: forget {at[0]:.1f}, perturbed {at[1]:.1f}"
        axes.annotate(said, (1, 1), xycoords="axes fraction", ha="right", va="bottom", fontsize=7.5)
    axes.set_xlabel(drawing.label(study, "forget") + (" · left is better" if sign > 0 else " · right is better"))
    axes.set_ylabel(drawing.label(study, "perturbed") + (" · up is better" if sign > 0 else " · down is better"))
    drawing.chance(axes, study, vertical=True)
    drawing.chance(axes, study)
    drawing.legend(figure, drawing.handles_of(study.methods, ["retrained"] if retrained is not None else [], line=True))
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


def coefficients(study: Study) -> Picture:
    """Figure 2: the steering coefficient c and the scaling factor β against perturbed accuracy."""
    title = "Figure 2 · Stronger steering, less robust?"
    plans: dict[str, list[tuple[Series, bool]]] = {}
    for method, option in (("RMU", "coefficient"), ("RSV", "coefficient"), ("Adaptive RMU", "beta")):
        for arm in ("plain", "rna"):
            mine = [trial for trial in study.trials if trial.method == method and trial.arm == arm]
            found = drawing.series_over(
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
    figure, panels = drawing.panels_for(list(plans), height=2.6)
    for method, axes in panels.items():
        for series, rna in plans[method]:
            drawing.line(axes, study, series, "perturbed", method, rna)
        drawing.fit(axes, study, [(series, "perturbed") for series, _ in plans[method]])
        axes.set_xlabel("scaling factor β" if method == "Adaptive RMU" else "coefficient c")
        axes.set_title(method)
    next(iter(panels.values())).set_ylabel(drawing.label(study, "perturbed"))
    drawing.legend(figure, drawing.handles_of(list(plans), line=True))
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
    found = drawing.series_over(
        mine,
        lambda trial: (trial.without("seed", "noise"), *map(trial.config["noise"].get, ("name", "layers", "scale"))),
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
    figure = drawing.over(
        study, methods, lambda method: _scales(study, method, _at_unlearn_layer), names, "noise scale ν"
    )
    caption = (
        "ν = 0 is the plain method. A useful ν lifts the left panel while the middle one stays low; where both rise "
        "together, the noise only weakened the unlearning. Bars: 95 % intervals, over seeds where there are several."
    )
    return Picture("figure3", title, caption, figure)


# Figure 4; Figure 7 is an analysis of the models themselves


def ngrams(study: Study) -> Picture:
    """Figure 4: retain accuracy by the similarity of the n-gram to its document, beside the neutral keyword's."""
    title = "Figure 4 · More similar n-grams, more harm?"
    tasks = {item.ngram: item.task for trial in study.trials for item in trial.evaluations if item.ngram}
    sizes = sorted({n for n, _ in tasks if sum(size == n for size, _ in tasks) > 1})
    found = compare.comparisons(study)
    rows = {
        (n, method): pair
        for n in sizes
        for method in study.methods
        if (pair := compare.judged(study, method, found, next(tasks[key] for key in tasks if key[0] == n)))
        != (None, None)
    }
    if not rows:
        why = "No method was judged with n-grams of several groups of similarity."
        return Picture("figure4", title, why, None, commands.ngrams(study, 2))
    figure, panels = drawing.panels_for([str(n) for n in sizes], height=2.9, columns=2)
    shown: dict[str, None] = {}
    for n, axes in zip(sizes, panels.values(), strict=True):
        places = {"neutral": "neutral"} | {tasks[n, group]: group for group in GROUPS[::-1] if (n, group) in tasks}
        for (size, method), pair in rows.items():
            if size == n:
                shown[method] = None
                for row, rna in zip(pair, (False, True), strict=True):
                    _groups(axes, study, row, list(places), drawing.colour(method), method, rna)
        base = study.references.get("base")
        if base is not None:
            _groups(axes, study, Condition([base]), list(places), drawing.INK, "", False)
        axes.set_xticks(range(len(places)), list(places.values()))
        axes.set_title(f"{n}-grams")
        drawing.chance(axes, study)
    drawing.share_labels(panels, "similarity to the document", "retain (%)")
    drawing.legend(figure, drawing.handles_of(list(shown), ["base"] if "base" in study.references else [], line=True))
    caption = (
        f"Retain questions with an n-gram of the forget documents among their choices, by its similarity to its "
        f"document, beside the neutral keyword “{study.config['eval'].get('neutral_keyword')}”. Harm is the fall "
        "below the neutral mark that the base does not show; lines that fall to the right confirm the paper."
    )
    return Picture("figure4", title, caption, figure)


def _groups(
    axes: Any, study: Study, row: Condition | None, tasks: list[str], colour: str, method: str, rna: bool
) -> None:
    """One condition over the tasks, with 95 % intervals; a gap where it was not judged."""
    made = [row.estimate(study, task) if row is not None else None for task in tasks]
    known = [(place, one) for place, one in enumerate(made) if one is not None]
    if not known:
        return
    xs, ys = [float(place) for place, _ in known], [one.value for _, one in known]
    low = [one.value - (one.value if one.low is None else one.low) for _, one in known]
    high = [(one.value if one.high is None else one.high) - one.value for _, one in known]
    style: dict[str, Any] = {"elinewidth": 0.8, "linestyle": "-" if rna else "--"}
    axes.errorbar(xs, ys, [low, high], color=colour, ecolor=colour, **style)
    if method:
        drawing.mark(axes, list(zip(xs, ys, strict=True)), method, rna=rna, size=5.0)
    else:
        axes.plot(xs, ys, "*", color=colour, markersize=7)


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
    found = drawing.series_over(
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
        command = commands.sweep(study, "sweep=noise_per_layer", "method=npo", "retain=mse", "seed=0,1,2")
        return Picture("figure8", title, "No method was run with noise at several single layers.", None, command)
    figure = drawing.over(study, list(by_method), lambda method: [(by_method[method], True)], NAMES, "noised layer")
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
    depth = _depth(study)
    presets = [region(name, depth) for name in REGIONS] if depth else []  # a shallow model's are single layers

    def several(layers: list[int]) -> bool:
        return layers in presets or (len(layers) > 1 and layers != list(range(depth)))

    for method in study.methods:
        series = _by_layers(study, method, several, lambda layers: sum(layers) / len(layers))
        if series:
            by_method[method] = series
            labels |= {x: ", ".join(map(str, row.first.config["noise"]["layers"])) for x, row in series}
    if not by_method:
        command = commands.sweep(study, "sweep=noise_regions", "method=npo", "retain=mse", "seed=0,1,2")
        return Picture("figure9", title, "No method was run with noise in several regions.", None, command)
    figure = drawing.over(study, list(by_method), lambda method: [(by_method[method], True)], NAMES, "noised layers")
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
        command = commands.sweep(study, "sweep=noise_all_layers", "method=npo", "retain=mse", "seed=0,1,2")
        return Picture("figure10", title, "No method was run with several noise scales at all layers.", None, command)
    figure = drawing.over(study, methods, plan, NAMES, "noise scale ν, at all layers")
    caption = "The paper sees the best robustness at a small ν and a sharp fall beyond it: look for a peak at the left."
    return Picture("figure10", title, caption, figure)


# Section 6.2


def unlearn_layer(study: Study) -> Picture:
    """Section 6.2: the unlearn layer against perturbed, forget and retain accuracy, plain and with RNA."""
    title = "Section 6.2 · The unlearn layer"

    def plan(method: str) -> list[tuple[Series, bool]]:
        made: list[tuple[Series, bool]] = []
        for arm in ("plain", "rna"):
            mine = [trial for trial in study.trials if trial.method == method and trial.arm == arm]
            mine = [trial for trial in mine if arm == "plain" or _at_unlearn_layer(trial)]
            found = drawing.series_over(
                mine,
                lambda trial: (trial.without("seed", "noise", "layer"), trial.nu),
                lambda trial: float(trial.config["layer"]["unlearn"]),
            )
            made += [(found[0], arm == "rna")] if found and len(found[0]) > 1 else []
        return made

    methods = [method for method in study.methods if plan(method)]
    if not methods:
        command = commands.sweep(study, "sweep=unlearn_layer", "method=rmu", "seed=0,1,2")
        return Picture("unlearn_layer", title, "No method was run at several unlearn layers.", None, command)
    figure = drawing.over(study, methods, plan, ["perturbed", "forget", "retain"], "unlearn layer")
    caption = (
        "The paper finds earlier layers more robust: look for lines that fall to the right on the left panel while "
        "the middle one stays low. Dashed: plain."
    )
    return Picture("unlearn_layer", title, caption, figure)


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
    figure, panels = drawing.panels_for(list(rows), height=1.8)
    for method, axes in panels.items():
        for trials, rna in rows[method]:
            lines = [trial.curve[f"train/{name}_loss"] for trial in trials]
            short = min((len(line) for line in lines), default=0)
            if short == 0:
                continue
            steps = [x for x, _ in lines[0][:short]]
            values = [[line[place][1] for line in lines] for place in range(short)]
            paint = drawing.RING if rna else drawing.colour(method)
            means = [sum(value) / len(value) for value in values]
            axes.plot(steps, means, color=paint, linestyle="-" if rna else "--", zorder=2 if rna else 3)
            axes.fill_between(steps, [min(value) for value in values], [max(value) for value in values],
                              color=paint, alpha=0.15, linewidth=0)  # fmt: skip
        axes.set_title(method)
    drawing.share_labels(panels, "step", f"{name} loss")
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=drawing.FAINT, linestyle="--", label="plain (the method's colour)")]
    handles.append(Line2D([], [], color=drawing.RING, label="with RNA"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    what = "A forget loss that stops moving" if name == "forget" else "A retain loss that keeps rising"
    caption = f"Means of neighbouring steps; bands: the range over seeds. {what} is the first thing to look for."
    return Picture(f"training_{name}", title, caption, figure)
