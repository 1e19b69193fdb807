"""Figures of the analyses, as matplotlib draws them: an SVG for pages and a PNG for eyes."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
TITLES = {  # of the analyses, in the order a reader wants them
    "noise_sensitivity": "Figure 7 · Noise sensitivity of each layer (Eq. 33)",
    "backdoor": "Backdoor reading · What a forget-token does to an ordinary question",
    "theorem_4_2": "Theorem 4.2 · The output's shift under a forget-token",
    "theorem_5_2": "Theorem 5.2 · The probability that noise rejects a forget-token's effect",
    "relative_noise": "Relative noise · One ν on two activation scales",
    "eq_9": "Eq. 9 · The loss under noise against the Hessian's trace",
}
INK = "#22262e"  # text and axes; a page draws them in its own text colour
STYLE = {
    "text.parse_math": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "rna",
    "legend.frameon": False,
} | dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
WITHIN = 10  # models that a legend names within a figure; more stand below it
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#e377c2", "#7f7f7f", "#bcbd22")


def save(folder: Path, draw: Callable[[Any], None], *, width: float, height: float) -> None:
    """Let `draw` fill a figure of so many inches, and write it as figure.svg and figure.png."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = STYLE
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        figure.savefig(folder / "figure.svg", metadata={"Date": None}, transparent=True)
        figure.savefig(folder / "figure.png", dpi=120, facecolor="white")


def labels(rows: Iterable[Row], key: str) -> list[Any]:
    """The values of a column, each once, in order of appearance."""
    return list(dict.fromkeys(row[key] for row in rows))


def line(
    axes: Any,
    rows: list[Row],
    x: str,
    y: str,
    *,
    label: str | None,
    colour: str,
    margin: str | None = None,
    **rest: Any,
) -> None:
    """A line through rows, with 95 % intervals where a column holds half their width."""
    if not rows:
        return
    errors = [row[margin] for row in rows] if margin else None
    places, values = [row[x] for row in rows], [row[y] for row in rows]
    options = {"marker": "o", "ms": 3.5, "lw": 1.4, "capsize": 2, "elinewidth": 0.8} | rest
    axes.errorbar(places, values, yerr=errors, label=label, color=colour, **options)


def sensitivity(figure: Any, table: list[Row]) -> None:
    """Noise sensitivity by layer, one line for each model (as Figure 7, right); left ξ ~ N(0, I), right ξ to scale."""
    titles = {"1": "ξ ~ N(0, I)", "rms": "ξ ~ N(0, rms² I)"}
    for axes, (noise, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        chosen = [row for row in table if row["noise"] == noise]
        for colour, model in zip(COLOURS * 3, labels(chosen, "model"), strict=False):
            rows = [row for row in chosen if row["model"] == model]
            style = {"ls": "--"} if "RNA" in model else {}
            line(axes, rows, "layer", "sensitivity", label=model, colour=colour, margin="margin", **style)
        axes.set(title=title, xlabel="layer g", ylabel="noise sensitivity (Eq. 33)")
        axes.set_xticks(labels(chosen, "layer") if len(labels(chosen, "layer")) < 20 else [])
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    legend_of(figure)


def legend_of(figure: Any) -> None:
    """The legend of the last axes: within them, or of many lines below the figure, which grows by its height."""
    handles, names = figure.axes[-1].get_legend_handles_labels()
    if len(names) <= WITHIN:
        figure.axes[-1].legend(fontsize=7)
        return
    columns = max(1, min(6, 130 // (max(map(len, names)) + 6)))
    figure.set_figheight(figure.get_figheight() + 0.15 * -(-len(names) // columns))
    figure.legend(handles, names, loc="outside lower left", fontsize=6, ncols=columns)


def increases(figure: Any, table: list[Row]) -> None:
    """The loss under noise, measured, beside (μ/2)·Tr(H)."""
    left, right = figure.subplots(1, 2)
    for colour, model in zip(COLOURS * 3, labels(table, "model"), strict=False):
        rows = [row for row in table if row["model"] == model]
        line(left, rows, "std_over_rms", "increase", label=model, colour=colour, margin="margin")
        line(left, rows, "std_over_rms", "formula", label=None, colour=colour, marker="", ls="--")
        line(right, rows, "std_over_rms", "measured_over_formula", label=model, colour=colour)
    left.plot([], [], color=INK, ls="--", label="(μ/2)·Tr(H)")
    left.set(xscale="log", yscale="symlog", ylabel="loss increase (nats a token)")
    left.set_yscale("symlog", linthresh=1e-4)
    right.axhline(1, color=INK, lw=0.8)
    right.set(xscale="log", ylabel="measured / (μ/2)·Tr(H)", ylim=(-1, 3))
    for axes in (left, right):
        axes.set_xlabel("√μ in units of the layer's root mean square")
        axes.grid(alpha=0.3)
    left.legend(fontsize=7)


def shifts(figure: Any, table: list[Row], measured: list[Row], reach: dict[str, float]) -> None:
    """Left: how often the two tests reject N(0, η·J Jᵀ), and, upright, the forget keyword's own η. Right: the effective
    rank of what keywords really do."""
    left, right = figure.subplots(1, 2)
    for colour, model in zip(COLOURS * 3, labels(table, "model"), strict=False):
        rows = [row for row in table if row["model"] == model]
        line(left, rows, "std_over_rms", "covariance_rejected", label=model, colour=colour)
        line(left, rows, "std_over_rms", "normality_rejected", label=None, colour=colour, ls=":", marker="x")
        left.axvline(reach[model] ** 0.5, color=colour, lw=0.8, ls="-.")
    left.plot([], [], color=INK, label="covariance", marker="o", ms=3.5)
    left.plot([], [], color=INK, ls=":", label="normality", marker="x", ms=3.5)
    left.axhline(0.05, color=INK, lw=0.8, ls="--")
    left.set(
        xscale="log",
        ylim=(-0.03, 1.03),
        xlabel="√η in units of the layer's root mean square",
        ylabel="share of questions that reject N(0, η·J Jᵀ) at 0.05",
        title="Theorem 4.2, ε drawn Gaussian",
    )
    left.legend(fontsize=7)
    left.grid(alpha=0.3)
    names = [f"{row['model']}: {row['perturbation']}" for row in measured]
    tints = {"forget keyword": "#d62728", "neutral keyword": "#1f77b4"}
    colours = [tints.get(row["perturbation"], "#7f7f7f") for row in measured]
    right.barh(range(len(names)), [row["effective_rank"] for row in measured], color=colours)
    right.axvline(measured[0]["dimensions"], color=INK, lw=0.8, ls="--")
    right.set_yticks(range(len(names)), names, fontsize=6.5)
    right.invert_yaxis()
    right.set(xlabel="effective rank of ε (dashed: all dimensions)", title="Assumption 4.1, ε measured")


def rejections(figure: Any, proof: list[Row], model: list[Row], keyword: list[Row]) -> None:
    """P[ΔJ_rna/ΔJ_u ≤ 0]: the proof's own model, Gaussian noise in the model, and what keywords really do."""
    first, second, third = figure.subplots(1, 3)
    for colour, ratio in zip(COLOURS, labels(proof, "gradient_ratio"), strict=False):
        rows = [row for row in proof if row["gradient_ratio"] == ratio]
        line(first, rows, "eta_over_nu", "paper", label=None, colour=colour, marker="", ls=":")
        line(first, rows, "eta_over_nu", "exact", label=None, colour=colour, marker="")
        label = f"drawn, ‖g_per‖/‖g‖ = {ratio:g}"
        line(first, rows, "eta_over_nu", "observed", label=label, colour=colour, ls="", margin="margin")
    for colour, name in zip(COLOURS * 3, labels(model, "model"), strict=False):
        for nu, style in zip(labels(model, "nu"), ("-", "--", ":"), strict=False):
            rows = [row for row in model if (row["model"], row["nu"]) == (name, nu)]
            label = f"{name}, √ν = {nu**0.5:.2g}"
            line(second, rows, "eta_over_nu", "observed", label=label, colour=colour, margin="margin", ls=style)
    some = [row for row in model if row["model"] == model[0]["model"] and row["nu"] == model[0]["nu"]]
    line(second, some, "eta_over_nu", "paper", label="paper (first line)", colour=INK, marker="", ls=":")
    line(second, some, "eta_over_nu", "exact", label="exact (first line)", colour=INK, marker="", lw=2)
    for axes, title in ((first, "the proof's linear model"), (second, "the model, ε and δ Gaussian")):
        axes.set(xscale="log", ylim=(0, 0.52), xlabel="η/ν", ylabel="P[ΔJ_rna/ΔJ_u ≤ 0]", title=title)
        axes.legend(fontsize=6)
        axes.grid(alpha=0.3)
    for colour, name in zip(("#d62728", "#1f77b4"), labels(keyword, "keyword"), strict=False):
        rows = [row for row in keyword if row["keyword"] == name]
        options: Row = {"color": colour, "s": 7, "alpha": 0.4, "linewidths": 0}
        third.scatter([r["exact"] for r in rows], [r["observed"] for r in rows], label=f"{name} keyword", **options)
    third.plot([0, 0.5], [0, 0.5], color=INK, lw=0.8)
    third.set(xlabel="exact formula", ylabel="observed", title="the keyword itself, δ Gaussian", xlim=(0, 0.52))
    third.legend(fontsize=7)
    third.grid(alpha=0.3)


def collapse(figure: Any, table: list[Row], factor: float) -> None:
    """Perturbed accuracy of two models of different activation scale over σ, and over σ by their own scale."""
    names = {"base": "the model", "rescaled": f"its stream × {factor:g}"}
    sides = (("std", "σ of the noise"), ("std_over_rms", "σ over the layer's own root mean square"))
    for axes, (column, label) in zip(figure.subplots(1, 2, sharey=True), sides, strict=True):
        for colour, (model, name) in zip(COLOURS, names.items(), strict=False):
            own = [row for row in table if row["model"] == model]
            style = {"ls": "--", "marker": "s", "mfc": "none"} if model == "rescaled" else {}
            noised = [row for row in own if row["std"] > 0]
            line(axes, noised, column, "perturbed", label=name, colour=colour, margin="perturbed_margin", **style)
            line(axes, noised, column, "neutral", label=None, colour=colour, lw=0.7, alpha=0.5, ls=":", marker="")
            plain = [row["perturbed"] for row in own if row["std"] == 0]
            if plain:
                axes.axhline(plain[0], color=colour, lw=0.8, ls="-." if model == "base" else (0, (1, 3)))
        axes.set(xscale="log", xlabel=label)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("retain with the forget-token (%)")
    figure.axes[0].plot([], [], color=INK, lw=0.7, ls=":", label="neutral keyword")
    figure.axes[0].plot([], [], color=INK, lw=0.8, ls="-.", label="without noise")
    figure.axes[0].legend(fontsize=7)


def alignment(figure: Any, table: list[Row], layer: int, chosen: list[tuple[str, str]]) -> None:
    """For each (trial, target): cosine by token position at the unlearn layer, and by layer at the answering token."""
    styles = {
        ("after", "forget"): ("#d62728", "-"),
        ("before", "forget"): ("#d62728", ":"),
        ("after", "neutral"): ("#1f77b4", "-"),
        ("before", "neutral"): ("#1f77b4", ":"),
    }
    grid = figure.subplots(2, len(chosen), sharey=True, squeeze=False)
    for column, (trial, target) in enumerate(chosen):
        own = [row for row in table if (row["trial"], row["target"]) == (trial, target)]
        for (when, keyword), (colour, style) in styles.items():
            rows = [row for row in own if (row["when"], row["keyword"]) == (when, keyword)]
            at_layer = [row | {"place": str(row["position"])} for row in rows if row["layer"] == layer]
            at_end = [row for row in rows if row["position"] == "last"]
            common: Row = {"label": f"{keyword}, {when}", "colour": colour, "margin": "margin", "ls": style}
            line(grid[0][column], at_layer, "place", "cosine", **common)
            line(grid[1][column], at_end, "layer", "cosine", **common)
        grid[0][column].set_title(f"{trial}\n{target}", fontsize=8)
        grid[0][column].set_xlabel(f"tokens behind the keyword, layer {layer}", fontsize=7)
        grid[1][column].set_xlabel("layer, at the last token", fontsize=7)
        grid[1][column].set_xticks(labels(own, "layer") if len(labels(own, "layer")) < 20 else [])
        for row in range(2):
            grid[row][column].axhline(0, color=INK, lw=0.6)
            grid[row][column].grid(alpha=0.3)
            grid[row][column].tick_params(labelsize=7)
    for row in range(2):
        grid[row][0].set_ylabel("cosine of the shift", fontsize=8)
    grid[0][0].legend(fontsize=6)
