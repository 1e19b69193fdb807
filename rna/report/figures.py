"""Every figure of a report, drawn from the records or shown as missing with what would compute it."""

from typing import Any

from rna.intervals import Estimate
from rna.perturb import mined
from rna.report import commands, compare, drawing, lines, verdicts
from rna.report.compare import Chosen, Comparison, Condition
from rna.report.drawing import Picture, Plan
from rna.report.records import Study, Trial


def every(study: Study) -> list[Picture]:
    """All figures of a study, drawn or missing, in the order a reader wants them."""
    with drawing.styled():
        return [plan() for plan in plans(study)]


def plans(study: Study) -> list[Plan]:
    """The figures of a study, each ready to be drawn."""
    shown = compare.shown(study)
    picks = compare.picks(shown)
    return [
        lambda: robustness(shown, picks),
        lambda: trade_offs(study),
        lambda: pareto(study),
        lambda: lines.coefficients(study),
        lambda: lines.noise_scale(study),
        lambda: ngrams(shown),
        lambda: lines.per_layer(study),
        lambda: lines.regions(study),
        lambda: lines.all_layers(study),
        lambda: lines.unlearn_layer(study),
        lambda: lines.curves(study, picks, "forget"),
        lambda: lines.curves(study, picks, "retain"),
    ]


# Figure 1

ASKED = ("retain", "neutral", "perturbed")  # on one scale, as each shows what a word in the question costs
FORGOTTEN = ("forget",)
HEADS = {"forget": "forget", "retain": "retain", "neutral": "neutral token", "perturbed": "forget-token"}


def robustness(study: Study, picks: dict[str, Chosen | None]) -> Picture:
    """Figure 1: each score with and without RNA, a row for each method and a column for each task."""
    title = "Figure 1 · What a forget-token does, with and without RNA"
    items = {method: pick.comparison for method, pick in picks.items() if pick is not None}
    if not items or not study.has("perturbed"):
        command = commands.sweep(study, "method=rmu", "seed=0,1,2")
        return Picture("figure1", title, "No method was run both plain and with RNA.", None, command)
    names = [name for name in HEADS if study.has(name)]
    figure = drawing.canvas(drawing.NARROW, 0.42 * len(items) + 1.9)
    grid = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for name, axes in zip(names, grid, strict=True):
        for row, (method, item) in enumerate(items.items()):
            for arm, condition, apart in (("plain", item.plain, -0.17), ("rna", item.rna, 0.17)):
                made = condition.estimate(study, name)
                if made is not None:
                    drawing.mark(axes, [(made, row + apart)], drawing.style(study, method, arm))
        for reference in study.references.values():
            made = Condition([reference]).estimate(study, name)
            if made is not None:
                dash = drawing.REFERENCE_LINES[reference.arm]
                axes.axvline(made.value, color=drawing.INK, linewidth=0.9, linestyle=dash, zorder=1)
        axes.set_title(HEADS[name])
        axes.set_xlabel(drawing.unit(study) + study.half, fontsize=8)
        axes.locator_params(axis="x", nbins=3)
        axes.margins(x=0.08)
    for group in (ASKED, FORGOTTEN):
        mine = [axes for name, axes in zip(names, grid, strict=True) if name in group]
        limits = [limit for axes in mine for limit in axes.get_xlim()]
        for axes in mine:
            axes.set_xlim(min(limits), max(limits))
            drawing.chance(axes, study, vertical=True)
    labels = [f"{method}\nν {item.rna.first.nu:g}" for method, item in items.items()]
    grid[0].set_yticks(range(len(items)), labels)
    grid[0].set_ylim(len(items) - 0.5, -0.5)
    drawing.say(figure, _cost_of_a_token(study, items))
    drawing.legend(figure, drawing.handles_of(study, list(items), study.references, across=True))
    caption = (
        "A forget-token's cost is the way from the neutral token's column to the one beside it, less the base's; RNA's "
        "part the way from circle to diamond. Bars: 95 % intervals."
    )
    return Picture("figure1", title, caption, figure)


def _cost_of_a_token(study: Study, items: dict[str, Comparison]) -> str:
    """What the figure shows, in a sentence: the costs, of one method or from the least to the most."""
    costs: dict[bool, list[float]] = {False: [], True: []}
    for item in items.values():
        for rna, row in ((False, item.plain), (True, item.rna)):
            if (made := compare.harm(study, row)) is not None:
                costs[rna].append(-made.value * study.better)
    if not costs[False] or not costs[True]:
        return "How far does a forget-token move the scores?"
    digits, unit = study.digits, study.difference

    def said(values: list[float]) -> str:
        low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
        return (low if low == high else f"{low} to {high}").replace("-", "−")

    who = f" {next(iter(items))}" if len(items) == 1 else ""
    return f"A forget-token costs{who} {said(costs[False])} {unit} without RNA, {said(costs[True])} with it"


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
    figure, panels = drawing.panels_for(list(best), height=2.3)
    said: list[str] = []
    texts: list[tuple[Any, tuple[Estimate, Estimate], str]] = []
    for method, axes in panels.items():
        item = best[method]
        for trials, arm in ((item.plain, "plain"), (item.rna, "rna")):
            groups: dict[str, list[Trial]] = {}
            for trial in trials:
                groups.setdefault(str(trial.config["alpha"]), []).append(trial)
            rows = [(Condition(group), compare.alpha(group[0].config)) for group in groups.values()]
            points = [(at, label) for row, label in rows if (at := drawing.point(study, row, "forget", "perturbed"))]
            points.sort(key=lambda item: item[0][0].value)
            texts += [(axes, at, f"α {label}") for at, label in points]
            _joined(axes, study, [at for at, _ in points], method, arm)
        result = item.results.get("perturbed")
        found = "no forget score that both reach"
        if result is not None:
            axes.axvspan(result.low, result.high, color=drawing.FAINT, alpha=0.13, linewidth=0)
            said.append(f"{method}: {verdicts.said(result.mean, study)}")
            found = _with_interval(result.mean, study)
        axes.set_title(f"{method}, ν {item.nu:g}\n{found}", fontsize=8)
    for axes in panels.values():
        axes.margins(0.12)
    for axes in panels.values():
        drawing.chance(axes, study, vertical=True)
    drawing.share_labels(panels, drawing.label(study, "forget"), drawing.label(study, "perturbed"))
    way = "above" if study.better > 0 else "below"
    drawing.say(figure, f"At the same forget score, is RNA {way} plain? By how much stands over each panel")
    drawing.legend(figure, drawing.handles_of(study, list(best), line=True))
    drawing.annotate(figure, texts)
    caption = (
        "RNA also loosens the pull to the retain set, so a gain at one α may only mean less forgetting: compare at the "
        "same place on the horizontal axis. Grey: the forget scores both curves reach. Bars: 95 % intervals, over "
        "seeds where several differ, else over questions, paired in the distance. Mean distance there: "
        + ("; ".join(said) if said else "undefined, no seed's curves overlap")
        + "."
    )
    return Picture("matched_forgetting", title, caption, figure)


def _with_interval(change: Estimate, study: Study) -> str:
    digits, unit = (1, " points") if study.kind == "choice" else (3, " nats")
    text = f"{change.value:+.{digits}f}"
    if change.low is not None and change.high is not None:
        text += f" [{change.low:+.{digits}f}, {change.high:+.{digits}f}]"
    return (text + unit).replace("-", "−")


def _joined(axes: Any, study: Study, points: list[tuple[Estimate, Estimate]], method: str, arm: str) -> None:
    """Points with both intervals, joined in their order."""
    look = drawing.style(study, method, arm)
    line = {**look, "marker": "none"}
    axes.plot([x.value for x, _ in points], [y.value for _, y in points], zorder=2, **line)
    drawing.mark(axes, points, look)


FAINTER = 0.35  # of settings that another one of the same method and arm betters


def pareto(study: Study) -> Picture:
    """Forget against perturbed retain: every condition by method, and each method's fronts with and without RNA."""
    title = "Pareto · Forgetting against robustness"
    rows = [(row, at) for row in compare.conditions(study) if (at := drawing.point(study, row, "forget", "perturbed"))]
    if not rows:
        command = commands.sweep(study, "method=rmu,npo", "seed=0,1,2")
        return Picture("pareto", title, "No trial was judged on both a forget and a perturbed task.", None, command)
    methods = [method for method in study.methods if any(row.first.method == method for row, _ in rows)]
    figure, panels = drawing.panels_for(methods, height=2.4)
    texts: list[tuple[Any, tuple[Estimate, Estimate], str]] = []
    for method, axes in panels.items():
        for arm in drawing.ARMS:
            mine = [(row, at) for row, at in rows if (row.first.method, row.first.arm) == (method, arm)]
            best = _front([at for _, at in mine], study.better)
            look = drawing.style(study, method, arm)
            for _, (x, y) in mine:
                if (x, y) not in best:
                    axes.plot(x.value, y.value, zorder=3, alpha=FAINTER, **{**look, "linestyle": "none"})
            _joined(axes, study, best, method, arm)
            if arm == "rna":
                texts += [(axes, at, f"ν {row.first.nu:g}") for row, at in mine if at in best]
        axes.set_title(method)
    first = next(iter(panels.values()))
    first.margins(0.08)
    for axes in panels.values():
        drawing.chance(axes, study, vertical=True)
        drawing.chance(axes, study)
    limits = first.get_xlim(), first.get_ylim()
    said, seen = list[str](), dict[str, Trial]()
    for name, trial in study.references.items():
        at = drawing.point(study, Condition([trial]), "forget", "perturbed")
        if at is not None:
            # What forgets nothing, or knows all, lies far off; in the axes it would press all else together.
            if all(low < one.value < high for one, (low, high) in zip(at, limits, strict=True)):
                seen[name] = trial
                for axes in panels.values():
                    mark = drawing.REFERENCES[trial.arm]
                    axes.plot(at[0].value, at[1].value, mark, color=drawing.INK, markersize=7, zorder=3)
            else:
                said.append(f"{name} at {at[0].value:.1f} and {at[1].value:.1f}")
    x, y = ("left", "up") if study.better > 0 else ("right", "down")
    drawing.share_labels(
        panels,
        f"{drawing.label(study, 'forget')}, {x} is better",
        f"{drawing.label(study, 'perturbed')}, {y} is better",
    )
    drawing.say(figure, f"Does the diamonds' line lie on the better side ({x} and {y}) of the circles'?")
    drawing.legend(figure, drawing.handles_of(study, methods, seen, line=True))
    drawing.annotate(figure, texts)
    caption = (
        "One mark for each setting (mean over its seeds). Bold, with 95 % intervals and ν: those that no other setting "
        "of the method betters in both scores, joined for plain and for RNA; pale: the others."
        + (f" Beyond the axes (forget, perturbed): {'; '.join(said)}." if said else "")
    )
    return Picture("pareto", title, caption, figure)


def _front(points: list[tuple[Estimate, Estimate]], better: int) -> list[tuple[Estimate, Estimate]]:
    """Those that none betters in both, by their forget score."""
    kept: list[tuple[Estimate, Estimate]] = []
    for at in sorted(points, key=lambda at: (better * at[0].value, -better * at[1].value)):
        if not kept or better * at[1].value > better * kept[-1][1].value:
            kept.append(at)
    return kept


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
    methods = [method for method in study.methods if any((n, method) in rows for n in sizes)]
    figure = drawing.canvas(drawing.WIDTH, {1: 2.6, 2: 1.8}.get(len(methods), 1.4) * len(methods) + 1.2)
    grid = figure.subplots(len(methods), len(sizes), squeeze=False, sharey=True)
    base = study.references.get("base")
    for column, n in enumerate(sizes):
        places = {"neutral": "neutral"} | {
            tasks[n, group]: group for group in mined.GROUPS[::-1] if (n, group) in tasks
        }
        for method, axes in zip(methods, grid[:, column], strict=True):
            for row, arm in zip(rows.get((n, method), ()), drawing.ARMS, strict=False):
                _groups(axes, study, row, list(places), drawing.style(study, method, arm))
            if base is not None:
                mark = {"marker": drawing.REFERENCES["base"], "markersize": 7, "linestyle": "none"}
                _groups(axes, study, Condition([base]), list(places), {"color": drawing.INK, **mark})
            axes.set_xticks(range(len(places)), list(places.values()))
            axes.margins(y=0.1)
        grid[0, column].set_title(f"{n}-grams")
        grid[-1, column].set_xlabel("similarity to the document")
    for axes in grid.flat:
        drawing.chance(axes, study)
    for method, axes in zip(methods, grid[:, 0], strict=True):
        axes.set_ylabel(f"{method}\nretain ({drawing.unit(study)})", fontsize=8)
    drawing.say(figure, "Lines that fall to the right: the more similar the n-gram, the more it harms")
    drawing.legend(figure, drawing.handles_of(study, methods, {"base": base} if base is not None else {}, line=True))
    caption = (
        f"Retain questions with an n-gram of the forget documents among their choices, by its similarity to its "
        f"document, beside the neutral keyword “{study.config['eval'].get('neutral_keyword')}”. Harm is the fall "
        "below the neutral mark that the base does not show. Bars: 95 % intervals."
    )
    return Picture("figure4", title, caption, figure)


def _groups(axes: Any, study: Study, row: Condition | None, tasks: list[str], look: dict[str, Any]) -> None:
    """One condition over the tasks; a gap where it was not judged."""
    made = [row.estimate(study, task) if row is not None else None for task in tasks]
    known = [(float(place), one) for place, one in enumerate(made) if one is not None]
    axes.plot([place for place, _ in known], [one.value for _, one in known], zorder=2, **{**look, "marker": "none"})
    drawing.mark(axes, known, look)
