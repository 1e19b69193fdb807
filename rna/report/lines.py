"""The figures that are lines over a setting: c and β, ν, the noised layers, and a loss over its steps."""

from collections.abc import Callable

from rna.report import commands, drawing
from rna.report.compare import Chosen, Condition
from rna.report.drawing import Picture, Series
from rna.report.records import Study, Trial
from rna.settings import REGIONS, region


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
    figure, panels = drawing.panels_for(list(plans), height=2.5, share=False)
    for method, axes in panels.items():
        values = sorted({x for series, _ in plans[method] for x, _ in series})
        for series, rna in plans[method]:
            points = [(values.index(x) + (0.08 if rna else -0.08), row) for x, row in series]
            drawing.line(axes, study, points, "perturbed", method, "rna" if rna else "plain")
        axes.set_xticks(range(len(values)), [f"{x:g}" for x in values])
        axes.xaxis.set_tick_params(labelbottom=True)
        axes.set_xlabel("scaling factor β" if method == "Adaptive RMU" else "coefficient c")
        axes.set_title(method)
        drawing.chance(axes, study)
    next(iter(panels.values())).set_ylabel(drawing.label(study, "perturbed"))
    drawing.say(figure, "Lines that fall to the right: the stronger the steering, the less robust")
    drawing.legend(figure, drawing.handles_of(study, list(plans), line=True))
    caption = (
        "The paper finds that accuracy falls as c or β grows (Theorem 4.2). The values tried are evenly spaced. Bars: "
        "95 % intervals."
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
        study,
        methods,
        lambda method: _scales(study, method, _at_unlearn_layer),
        names,
        "noise scale ν",
        "Look for a ν that moves perturbed retain and leaves forget where it was",
    )
    caption = (
        "ν = 0 is the plain method; the values tried are evenly spaced. Where the left and the middle column rise "
        "together, the noise only weakened the unlearning. Bars: 95 % intervals, over seeds where there are several."
    )
    return Picture("figure3", title, caption, figure)


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
    figure = drawing.over(
        study,
        list(by_method),
        lambda method: [(by_method[method], True)],
        NAMES,
        "noised layer",
        "Does it matter which layer the noise falls on?",
    )
    nu = next(iter(by_method.values()))[0][1].first.nu
    caption = (
        f"Noise of ν = {nu:g} at one layer at a time. The paper sees gains at most layers and no trend. "
        "Bars: 95 % intervals."
    )
    return Picture("figure8", title, caption, figure)


def _span(layers: list[int]) -> str:
    whole = len(layers) > 1 and layers == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]}–{layers[-1]}" if whole else ", ".join(map(str, layers))


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
            labels |= {x: _span(row.first.config["noise"]["layers"]) for x, row in series}
    if not by_method:
        command = commands.sweep(study, "sweep=noise_regions", "method=npo", "retain=mse", "seed=0,1,2")
        return Picture("figure9", title, "No method was run with noise in several regions.", None, command)
    figure = drawing.over(
        study,
        list(by_method),
        lambda method: [(by_method[method], True)],
        NAMES,
        "noised layers",
        "Early, middle or late layers: where does noise move the scores?",
        labels.__getitem__,
    )
    caption = "Noise on several layers at one ν: compare the places within each line. Bars: 95 % intervals."
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
    sentence = "Is there a peak at a small ν, and a fall beyond it?"
    figure = drawing.over(study, methods, plan, NAMES, "ν at all layers", sentence)
    caption = "The paper sees the best robustness at a small ν and a sharp fall beyond it. Bars: 95 % intervals."
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
    figure = drawing.over(
        study,
        methods,
        plan,
        ["perturbed", "forget", "retain"],
        "unlearn layer",
        "Are earlier unlearn layers more robust, at the same forgetting?",
    )
    caption = (
        "The paper finds earlier layers more robust: lines then fall to the right in the left column while the middle "
        "one stays where it is. Bars: 95 % intervals."
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
    figure, panels = drawing.panels_for(list(rows), height=1.8, share=False)
    for method, axes in panels.items():
        for trials, rna in rows[method]:
            lines = [trial.curve[f"train/{name}_loss"] for trial in trials]
            short = min((len(line) for line in lines), default=0)
            if short == 0:
                continue
            steps = [x for x, _ in lines[0][:short]]
            values = [[line[place][1] for line in lines] for place in range(short)]
            look = {**drawing.style(study, method, "rna" if rna else "plain"), "marker": "none"}
            axes.plot(steps, [sum(value) / len(value) for value in values], zorder=2 if rna else 3, **look)
            axes.fill_between(steps, [min(value) for value in values], [max(value) for value in values],
                              color=look["color"], alpha=0.15, linewidth=0)  # fmt: skip
        axes.set_title(method)
        axes.xaxis.set_tick_params(labelbottom=True)
    drawing.share_labels(panels, "step", f"{name} loss")
    what = "Does the forget loss stop moving early?" if name == "forget" else "Does the retain loss keep rising?"
    drawing.say(figure, what)
    drawing.legend(figure, drawing.handles_of(study, list(rows), line=True, marks=False))
    caption = "Means of neighbouring steps; bands: the range over seeds."
    return Picture(f"training_{name}", title, caption, figure)
