"""Every figure of a report, drawn from the records or shown as missing with what would compute it."""

from collections.abc import Sequence
from typing import Any

from rna.perturb import mined
from rna.report import commands, compare, drawing, lines
from rna.report.compare import Chosen, Condition
from rna.report.drawing import Picture, Plan
from rna.report.records import Study, Trial


def every(study: Study) -> list[Picture]:
    """All figures of a study, drawn or missing, in the order a reader wants them."""
    with drawing.styled():
        return [plan() for plan in plans(study)]


def plans(study: Study) -> list[Plan]:
    """The figures of a study, each ready to be drawn."""
    found = compare.comparisons(study)
    picks = {method: compare.chosen(study, method, found) for method in study.methods}
    return [
        lambda: robustness(study, picks),
        lambda: trade_offs(study),
        lambda: pareto(study),
        lambda: lines.coefficients(study),
        lambda: lines.noise_scale(study),
        lambda: ngrams(study),
        lambda: lines.per_layer(study),
        lambda: lines.regions(study),
        lambda: lines.all_layers(study),
        lambda: lines.unlearn_layer(study),
        lambda: lines.curves(study, picks, "forget"),
        lambda: lines.curves(study, picks, "retain"),
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
        for reference in study.references.values():
            if (at := drawing.point(study, Condition([reference]), x, y)) is not None:
                drawing.mark_reference(axes, at, reference.arm)
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
    drawing.legend(figure, drawing.handles_of(list(items), study.references))
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
                place = {"xytext": (-4, 7), "ha": "right"} if rna else {"xytext": (4, -11), "ha": "left"}
                axes.annotate(f"α {label}", at, textcoords="offset points", fontsize=6.5, **place)
        result = item.results.get("perturbed")
        if result is not None:
            axes.axvspan(result.low, result.high, color=drawing.FAINT, alpha=0.13, linewidth=0)
            said.append(f"{method}: {compare.said(result.mean, study)}")
        axes.margins(0.2, 0.2)
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
    for arm, style in (
        ("plain", {"color": drawing.FAINT, "linestyle": "--"}),
        ("rna", {"color": drawing.RING, "linestyle": "-"}),
    ):
        front = [at for row in compare.front(study, arm) if (at := drawing.point(study, row, "forget", "perturbed"))]
        axes.plot([x for x, _ in front], [y for _, y in front], linewidth=1.2, zorder=2, **style)
    size = 7.0 if len(rows) < 60 else 4.5
    for method in study.methods:
        for arm in ("plain", "rna"):
            mine = [at for row, at in rows if (row.first.method, row.first.arm) == (method, arm)]
            drawing.mark(axes, mine, method, rna=arm == "rna", size=size)
    points = [at for _, at in rows]
    others = {name: trial for name, trial in study.references.items() if trial.arm != "base"}
    for trial in others.values():
        if at := drawing.point(study, Condition([trial]), "forget", "perturbed"):
            drawing.mark_reference(axes, at, trial.arm)
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
    drawing.legend(figure, drawing.handles_of(study.methods, others, line=True))
    better = "top left" if sign > 0 else "bottom right"
    caption = (
        f"One mark for each setting (mean over its seeds); {better} is best. The lines join the settings that no other "
        "betters in both, plain (dashed) and with RNA (blue): where blue lies on the better side, RNA buys robustness "
        "that no plain setting reached at that forgetting."
    )
    return Picture("pareto", title, caption, figure)


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
    base = study.references.get("base")
    for n, axes in zip(sizes, panels.values(), strict=True):
        places = {"neutral": "neutral"} | {
            tasks[n, group]: group for group in mined.GROUPS[::-1] if (n, group) in tasks
        }
        for (size, method), pair in rows.items():
            if size == n:
                shown[method] = None
                for row, rna in zip(pair, (False, True), strict=True):
                    _groups(axes, study, row, list(places), drawing.colour(method), method, rna)
        if base is not None:
            _groups(axes, study, Condition([base]), list(places), drawing.INK, "", False)
        axes.set_xticks(range(len(places)), list(places.values()))
        axes.set_title(f"{n}-grams")
        drawing.chance(axes, study)
    drawing.share_labels(panels, "similarity to the document", "retain (%)")
    drawing.legend(figure, drawing.handles_of(list(shown), {"base": base} if base is not None else {}, line=True))
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
