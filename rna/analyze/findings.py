"""The analyses of `rna.analyze`: each measures all arms with the same draws, and says in a sentence what was found."""

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch

from rna.analyze import draw, measure, theory
from rna.analyze.measure import Question
from rna.analyze.theory import Estimate
from rna.decoder import model
from rna.intervals import Z_95
from rna.settings import generator, known
from rna.store import Record
from rna.unlearning import direction, losses

Row = dict[str, Any]
Rows = list[Row]
STD_RATIOS = (0.01, 0.03, 0.1, 0.3, 1.0)  # of the noise to the layer's root mean square
VARIANCE_RATIOS = (0.01, 0.1, 1.0, 10.0, 100.0)  # η/ν
GRADIENT_RATIOS = (0.5, 1.0, 3.0)  # ‖g_per‖/‖g‖
PROJECTIONS = 16  # of the output, in Theorem 4.2
PROBES = 4  # of a question, for the trace of J Jᵀ
SHARE = 16  # one question in so many gets many draws
POSITIONS: tuple[int | str, ...] = (0, 1, 2, 3, 4, "last")
KEYWORDS = ("forget", "neutral")


@dataclass
class Arm:
    """The base model, or a trial of it."""

    label: str
    record: Record | None = None
    deltas: dict[str, Any] = field(default_factory=dict)

    def twin_of(self, other: "Arm") -> bool:
        """Whether this is the plain trial to `other`'s RNA: all else the same."""
        if self.record is None or other.record is None:
            return False
        mine, theirs = ({**arm.record["identity"], "noise": None} for arm in (self, other) if arm.record)
        noises = [arm.record["config"]["noise"]["name"] for arm in (self, other) if arm.record]
        return mine == theirs and noises[0] == "none" != noises[1]


@dataclass
class Job:
    """What an analysis looks at."""

    decoder: Any
    arms: list[Arm]  # the base first
    documents: list[list[int]]  # forget documents
    questions: list[Question]
    layer: int
    samples: int
    seed: int
    nu: float  # a variance
    tell: Callable[[str, str, int, int], None]  # (label, phase, done, total)

    def draws(self, name: str) -> torch.Generator:
        """The same draws for every arm, so that their differences are paired."""
        return generator(self.seed, "analyze", name, device=self.decoder.device)

    def models(self) -> "Iterator[tuple[Arm, Callable[[int, int], None]]]":
        """Each arm with its tensors installed, and how it tells its progress."""
        for arm in self.arms:
            with model.installed(self.decoder, arm.deltas):
                yield arm, partial(self.tell, arm.label, "measuring")
            self.tell(arm.label, "done", 1, 1)


@dataclass
class Outcome:
    """What was found: tables by name, every measurement, a sentence, and how to draw it."""

    tables: dict[str, Rows]
    rows: Rows
    verdict: str
    figure: Callable[[Any], None]
    size: tuple[float, float] = (9.5, 4.0)


def of(rows: Iterable[Row], column: str, **same: Any) -> list[float]:
    """A column of the rows that agree with `same`."""
    return [float(row[column]) for row in rows if all(row[key] == value for key, value in same.items())]


def mean(values: Iterable[float]) -> Estimate:
    return theory.estimate(torch.tensor(list(values), dtype=torch.float64))


def distinct(rows: Rows, *columns: str) -> list[Row]:
    """The combinations of values that occur in these columns, in order."""
    found = dict.fromkeys(tuple(row[column] for column in columns) for row in rows)
    return [dict(zip(columns, values, strict=True)) for values in found]


def listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values) or "none"


# Eq. 33 and Figure 7


def noise_sensitivity(job: Job) -> Outcome:
    """Noise sensitivity of every layer, and whether the unlearned models' is below the base model's."""
    rows: Rows = []
    for arm, tell in job.models():
        found = measure.sensitivities(job.decoder, job.documents, job.samples, job.draws("sensitivity"), tell)
        rows += [{"model": arm.label} | row for row in found]
    table: Rows = []
    for cell in distinct(rows, "model", "noise", "layer"):
        value = mean(of(rows, "value", **cell))
        base = of(rows, "value", **cell | {"model": job.arms[0].label})
        change = mean(b - a for a, b in zip(base, of(rows, "value", **cell), strict=True))
        table.append(
            cell
            | {
                "sensitivity": value.value,
                "margin": Z_95 * value.stderr,
                "minus_base": change.value,
                "minus_base_margin": Z_95 * change.stderr,
                "to_identity": statistics.fmean(of(rows, "to_identity", **cell)),
                "rms": statistics.fmean(of(rows, "rms", **cell)),
                "documents": value.n,
            }
        )

    def counted(noise: str, layers: list[int]) -> str:
        chosen = [r for r in table if r["model"] != "base" and r["noise"] == noise and r["layer"] in layers]
        lower = sum(row["minus_base"] + row["minus_base_margin"] < 0 for row in chosen)
        higher = sum(row["minus_base"] - row["minus_base_margin"] > 0 for row in chosen)
        return f"below the base's in {lower} and above it in {higher} of {len(chosen)} pairs of model and layer"

    after = job.layer + 1
    every = draw.labels(table, "layer")
    gap = max(abs(r["sensitivity"] - r["to_identity"]) / r["to_identity"] for r in table if r["noise"] == "1")
    trials = len(job.arms) - 1
    compared = (
        f"Of {trials} unlearned models the noise sensitivity (paired 95 % intervals) with ξ ~ N(0, I) is "
        f"{counted('1', every)}, with ξ scaled to the layer {counted('rms', every)}; at g = {after}, behind the "
        f"unlearn layer, {counted('1', [after])} and {counted('rms', [after])}. "
        if trials
        else ""
    )
    sizes = f"{min(r['rms'] for r in table):.2g} to {max(r['rms'] for r in table):.2g}"
    verdict = (
        f"{compared}With ξ ~ N(0, I) on streams of root mean square {sizes} the measure is within {100 * gap:.0f} % of "
        "‖J(z) − I‖²/‖J(z)‖²: " + ("it reads how far a layer is from the identity, not how it takes small noise."
        if gap < 0.25 else "noise of this size does not leave the identity alone.")
    )  # fmt: skip
    return Outcome({"table": table}, rows, verdict, partial(draw.sensitivity, table=table))


# Eq. 9


def eq_9(job: Job) -> Outcome:
    """The loss of forget documents under noise against (μ/2)·Tr(H), and whether the loss is convex as assumed."""
    rows: Rows = []
    for arm, tell in job.models():
        found = measure.loss_increases(
            job.decoder, job.documents, job.layer, STD_RATIOS, job.samples, job.draws("eq_9"), tell
        )
        rows += [{"model": arm.label} | row for row in found]
    table: Rows = []
    for cell in distinct(rows, "model", "std_over_rms"):
        increase, formula = mean(of(rows, "increase", **cell)), mean(of(rows, "formula", **cell))
        gap = mean(a - b for a, b in zip(of(rows, "increase", **cell), of(rows, "formula", **cell), strict=True))
        table.append(
            cell
            | {
                "increase": increase.value,
                "margin": Z_95 * increase.stderr,
                "formula": formula.value,
                "formula_margin": Z_95 * formula.stderr,
                "measured_over_formula": increase.value / formula.value,
                "measured_minus_formula": gap.value,
                "measured_minus_formula_margin": Z_95 * gap.stderr,
                "trace_negative": statistics.fmean(value < 0 for value in of(rows, "trace", **cell)),
                "not_convex": statistics.fmean(
                    low < -0.01 * high
                    for low, high in zip(
                        of(rows, "smallest_eigenvalue", **cell), of(rows, "largest_eigenvalue", **cell), strict=True
                    )
                ),
                "documents": increase.n,
            }
        )
    holds = [
        f"{row['model']} at {row['std_over_rms']:g}: {row['measured_over_formula']:.2f}"
        for row in table
        if row["std_over_rms"] in (STD_RATIOS[1], STD_RATIOS[-2], STD_RATIOS[-1])
    ]
    convex = 100 * statistics.fmean(row["not_convex"] for row in table)
    negative = 100 * statistics.fmean(row["trace_negative"] for row in table)
    rises = listed(
        f"{row['model']} {row['increase']:+.2g} ± {row['margin']:.2g}" for row in table if row["std_over_rms"] == 0.1
    )
    verdict = (
        f"Under noise of √μ = 0.1 of the layer's root mean square the forget documents' loss changes by {rises} nats a "
        f"token (Eq. 9 has it rise). Measured change over (μ/2)·Tr(H), by √μ in those units: {listed(holds)}. "
        f"Local convexity, which Eq. 9 assumes, fails on {convex:.0f} % of the documents (an eigenvalue below −1 % of "
        f"the largest); the trace is negative on {negative:.0f} %."
    )
    return Outcome({"table": table}, rows, verdict, partial(draw.increases, table=table))


# Theorem 4.2 and Assumption 4.1


def theorem_4_2(job: Job) -> Outcome:
    """The output's shift under Gaussian ε against its formula; and whether keywords act as Gaussian ε."""
    drawn: Rows = []
    real: Rows = []
    measured: Rows = []
    few = job.questions[::SHARE] if len(job.questions) >= 2 * SHARE else job.questions[:2]
    for arm, tell in job.models():
        found = measure.output_shifts(
            job.decoder, few, job.layer, STD_RATIOS, job.samples, PROJECTIONS, job.draws("shifts"), tell
        )
        drawn += [{"model": arm.label} | row for row in found]
        for keyword in KEYWORDS:
            found, last_QD = measure.perturbations(
                job.decoder, job.questions, keyword, job.layer, PROBES, job.draws("perturbations")
            )
            real += [{"model": arm.label} | row for row in found]
            law = theory.isotropy(last_QD)
            measured.append({"model": arm.label, "perturbation": f"{keyword} keyword"} | asdict(law))
    count, width = len(job.questions), job.decoder.width
    control_QD = torch.randn(count, width, generator=generator(job.seed, "analyze", "control"))
    measured.append({"model": "control", "perturbation": "Gaussian"} | asdict(theory.isotropy(control_QD)))
    table: Rows = []
    for cell in distinct(drawn, "model", "std_over_rms"):
        columns = ("variance_ratio", "mean_share", "normality_rejected", "covariance_rejected", "covariance_error")
        table.append(cell | {column: statistics.fmean(of(drawn, column, **cell)) for column in columns})
    effects: Rows = []
    for cell in distinct(real, "model", "keyword"):
        ratios = sorted(of(real, "observed_over_predicted", **cell))
        quarter = len(ratios) // 4
        effects.append(
            cell
            | {
                "eta_over_rms2": statistics.median(of(real, "eta_over_rms2", **cell)),
                "observed_over_predicted": statistics.median(ratios),
                "quartile_low": ratios[quarter],
                "quartile_high": ratios[-1 - quarter],
                "questions": len(ratios),
            }
        )
    small, large = ([row for row in table if row["std_over_rms"] == ratio] for ratio in (STD_RATIOS[0], STD_RATIOS[-1]))

    def rejected(part: Rows) -> str:
        return listed(f"{row['model']} {100 * row['covariance_rejected']:.0f} %" for row in part)

    forget = [row for row in measured if row["perturbation"] == "forget keyword"]
    reach = {row["model"]: row["eta_over_rms2"] for row in effects if row["keyword"] == "forget"}
    fails = [r for r in forget if r["sphericity_p"] < 1e-3 or r["mean_p"] < 1e-3 or r["not_normal"] > 0.2]
    numbers = listed(
        f"{row['model']}: √η = {reach[row['model']] ** 0.5:.2g} of the root mean square, effective rank "
        f"{row['effective_rank']:.1f} of {width}, {100 * row['mean_share']:.0f} % of the energy in the mean, normality "
        f"rejected in {100 * row['not_normal']:.0f} % of dimensions"
        for row in forget
    )
    outcome = "fails" if len(fails) == len(forget) else f"fails in {len(fails)} of {len(forget)} models"
    verdict = (
        f"With ε drawn from N(0, ηI), the covariance η·J Jᵀ is rejected at 0.05 for {rejected(small)} of the questions "
        f"at √η = {STD_RATIOS[0]:g} of the layer's root mean square and for {rejected(large)} at {STD_RATIOS[-1]:g}; "
        f"Assumption 4.1 {outcome} for the forget keyword's measured perturbations ({numbers})."
    )
    tables = {"theorem_4_2": table, "assumption_4_1": measured, "real_shift": effects}
    return Outcome(
        tables, drawn + real, verdict, partial(draw.shifts, table=table, measured=measured, reach=reach), (11.0, 4.6)
    )


# Theorem 5.2 and Assumption 5.1


def theorem_5_2(job: Job) -> Outcome:
    """The rejection probability: in the proof's own model, in the model with Gaussian noise, for keywords, and for
    trained pairs of plain and RNA models."""
    proof = _proof(job)
    drawn: Rows = []
    keyword: Rows = []
    ends: dict[str, dict[str, tuple[torch.Tensor, torch.Tensor]]] = {}
    few = job.questions[::SHARE] if len(job.questions) >= 2 * SHARE else job.questions[:2]
    for arm, tell in job.models():
        for nu in (job.nu, job.nu / 100):
            found = measure.simulated_rejections(
                job.decoder, few, job.layer, nu, VARIANCE_RATIOS, job.samples, job.draws("rejections"), tell
            )
            drawn += [{"model": arm.label} | row for row in found]
        for role in KEYWORDS:
            found = measure.keyword_rejections(
                job.decoder, job.questions, role, job.layer, job.nu, job.samples, job.draws("keyword")
            )
            keyword += [{"model": arm.label} | row for row in found]
        ends[arm.label] = {
            role: measure.last_tokens(job.decoder, job.questions, role, job.layer) for role in ("plain", *KEYWORDS)
        }
    table: Rows = []
    for cell in distinct(drawn, "model", "nu", "eta_over_nu"):
        observed = mean(of(drawn, "observed", **cell))
        table.append(
            cell
            | {"observed": observed.value, "margin": Z_95 * observed.stderr}
            | {
                column: statistics.fmean(of(drawn, column, **cell))
                for column in ("paper", "exact", "gradient_ratio", "loss_raised")
            }
        )
    words: Rows = []
    for cell in distinct(keyword, "model", "keyword"):
        observed = mean(of(keyword, "observed", **cell))
        words.append(
            cell
            | {"observed": observed.value, "margin": Z_95 * observed.stderr}
            | {column: statistics.fmean(of(keyword, column, **cell)) for column in ("paper", "exact", "given_shift")}
            | {column: statistics.median(of(keyword, column, **cell)) for column in ("eta_over_nu", "gradient_ratio")}
        )
    pairs = _pairs(job, ends)
    worst = max(proof, key=lambda row: abs(row["observed"] - row["paper"]))
    exact_gap = max(abs(row["observed"] - row["exact"]) / (row["margin"] / Z_95) for row in proof)
    forget = [row for row in words if row["keyword"] == "forget"]
    said = listed(
        f"{row['model']} {row['observed']:.3f} ± {row['margin']:.3f} "
        f"(paper {row['paper']:.3f}, exact {row['exact']:.3f})"
        for row in forget
    )
    trained = listed(
        f"{row['rna']} {row['observed']:.2f} ± {row['margin']:.2f}" for row in pairs if row["keyword"] == "forget"
    )
    verdict = (
        f"In the proof's own model the exact formula stays within {exact_gap:.1f} standard errors, the paper's is off "
        f"by up to {abs(worst['observed'] - worst['paper']):.3f} (η/ν = {worst['eta_over_nu']:g}, ratio "
        f"{worst['gradient_ratio']:g}); with the forget keyword itself and Gaussian δ of √ν = {job.nu**0.5:.3g} the "
        f"share of ΔJ_rna/ΔJ_u ≤ 0 is {said}; between trained plain and RNA models it is {trained} of the questions."
    )
    return Outcome(
        {"proof": proof, "gaussian": table, "keyword": words, "trained_pairs": pairs},
        drawn + keyword,
        verdict,
        partial(draw.rejections, proof=proof, model=table, keyword=keyword),
        (13.0, 4.3),
    )


def _proof(job: Job) -> Rows:
    """Both formulas beside draws of the proof's linear model, over η/ν and ‖g_per‖/‖g‖."""
    source = generator(job.seed, "analyze", "proof")
    rows: Rows = []
    for ratio in GRADIENT_RATIOS:
        for relative in VARIANCE_RATIOS:
            gradient_D, other_D = torch.randn(16, generator=source), torch.randn(16, generator=source)
            other_D = other_D * (ratio * gradient_D.norm() / other_D.norm())
            found = theory.simulate_rejection(relative, 1.0, gradient_D, other_D, 100_000, source)
            rows.append(
                {
                    "gradient_ratio": ratio,
                    "eta_over_nu": relative,
                    "observed": found.value,
                    "margin": Z_95 * found.stderr,
                    "paper": theory.rejection_paper(relative, ratio),
                    "exact": theory.rejection_exact(relative, ratio),
                }
            )
    return rows


def _pairs(job: Job, ends: dict[str, dict[str, tuple[torch.Tensor, torch.Tensor]]]) -> Rows:
    """For each pair of a plain and an RNA trial: how often ΔJ_rna/ΔJ_u ≤ 0, and what parts their representations."""
    rows: Rows = []
    for rna in job.arms:
        plain = next((arm for arm in job.arms if arm.twin_of(rna)), None)
        if plain is None:
            continue
        law = theory.isotropy(ends[rna.label]["plain"][0] - ends[plain.label]["plain"][0])
        for role in KEYWORDS:
            change, change_rna = (ends[arm.label][role][1] - ends[arm.label]["plain"][1] for arm in (plain, rna))
            rejected = mean((change_rna * change <= 0).double().tolist())
            rows.append(
                {
                    "rna": rna.label,
                    "keyword": role,
                    "observed": rejected.value,
                    "margin": Z_95 * rejected.stderr,
                    "loss_change_plain": mean(change.tolist()).value,
                    "loss_change_rna": mean(change_rna.tolist()).value,
                    "difference_over_nu": law.eta / job.nu,
                    "mean_share": law.mean_share,
                    "effective_rank": law.effective_rank,
                    "sphericity_p": law.sphericity_p,
                }
            )
    return rows


# The backdoor's reading


def backdoor(job: Job) -> Outcome:
    """Cosine of what a keyword does to retain questions with where unlearning drives forget representations."""
    with model.installed(job.decoder, {}):
        base_LD = measure.mean_streams(job.decoder, job.documents)
    targets: dict[str, dict[str, torch.Tensor]] = {}
    table: Rows = []
    rows_of: dict[str, Rows] = {}
    for arm, _ in job.models():
        if arm.record is None:
            continue
        targets[arm.label] = _targets(job, arm, base_LD)
        rows_of[arm.label] = _alignments(job, targets[arm.label])
    for number, (label, own) in enumerate(targets.items()):
        before = _alignments(job, own)
        table += [{"trial": label, "when": "before"} | row for row in before]
        table += [{"trial": label, "when": "after"} | row for row in rows_of[label]]
        job.tell("base", "measuring", number + 1, len(targets))
    for row in table:
        row["margin"] = Z_95 * row.pop("cosine_stderr")
    chosen = [(label, next(iter(own))) for label, own in targets.items()]

    def said(label: str, target: str) -> str:
        same = {"trial": label, "target": target, "layer": job.layer, "position": "last"}
        cells = {
            (when, word): [
                r for r in table if all(r[k] == v for k, v in (same | {"when": when, "keyword": word}).items())
            ]
            for when in ("before", "after")
            for word in KEYWORDS
        }
        number = {cell: f"{found[0]['cosine']:+.2f} ± {found[0]['margin']:.2f}" for cell, found in cells.items()}
        return (
            f"{label}, {target}: forget keyword {number['before', 'forget']} → {number['after', 'forget']}, "
            f"neutral {number['before', 'neutral']} → {number['after', 'neutral']}"
        )

    verdict = (
        f"Cosine of the keyword's shift with the target at layer {job.layer} and the last token, before → after "
        f"unlearning (a random direction: 0 ± {job.decoder.width**-0.5:.2f}): "
        + "; ".join(said(label, target) for label, target in chosen)
        + "."
    )
    figure = partial(draw.alignment, table=table, layer=job.layer, chosen=chosen)
    return Outcome({"table": table}, table, verdict, figure, (2.6 * max(len(chosen), 2), 5.5))


def _targets(job: Job, arm: Arm, base_LD: torch.Tensor) -> dict[str, torch.Tensor]:
    """By name, a direction for each layer: RM's own and one it never saw, and how forget documents have moved.

    RM's direction belongs to the unlearn layer; the stream carries it on, so it is looked for at every layer.
    """
    assert arm.record is not None
    config: dict[str, Any] = arm.record["config"]
    layers = len(job.decoder.layers)
    found: dict[str, torch.Tensor] = {}
    kind = known(config["method"]["name"])
    if kind is not None and kind.draws is not None:
        names = {topic: f"target of {topic}" for topic in config["data"]["topics"]}
        for topic, name in (names | {"strange": "a target never used"}).items():
            drawn_D = direction(config["seed"], topic, getattr(losses, kind.draws), job.decoder.width, torch.float32)
            found[name] = drawn_D.expand(layers, -1)
    return found | {"forget direction": measure.mean_streams(job.decoder, job.documents) - base_LD}


def _alignments(job: Job, own: dict[str, torch.Tensor]) -> Rows:
    return [
        row for keyword in KEYWORDS for row in measure.alignments(job.decoder, job.questions, keyword, own, POSITIONS)
    ]
