"""Every table of a report."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rna.intervals import Estimate, answers, over_seeds, tofu
from rna.report import commands, compare
from rna.report.compare import Chosen, Comparison, Condition, Stopped, TradeOff
from rna.report.reading import Failure
from rna.report.records import Study, Trial
from rna.report.sheet import Cell, Table
from rna.settings import ALIKE, roles

ROLES = {role.name: role.column for role in roles.ROLES if role.column is not None}
# The paper's numbers


@cache
def paper() -> dict[str, Any]:
    """The published numbers, by table."""
    return json.loads((Path(__file__).parent / "paper.json").read_text(encoding="utf-8"))


# The tables


def every(study: Study, failures: Sequence[Failure]) -> list[Table]:
    """All tables of a study, in the order a reader wants them."""
    found, curves, shown = compare.comparisons(study), compare.trade_offs(study), compare.shown(study)
    picks = compare.picks(shown)
    made = [
        summary(shown, picks),
        harms(shown, picks),
        differences(study, found),
        matched(study, curves),
        stopped(study, compare.stopped(study)),
        rates(study, found),
    ]
    made += [selected_nu(study, found)]
    made += [ngram(shown, compare.comparisons(shown), n) for n in paper()["accuracy"]]
    made += [smoothing(study)] if study.smoothed else []
    made += [benchmark(study)] if any(trial.tofu for trial in study.trials) else []
    made += [pareto(study), all_conditions(study), costs(study)]
    return [*made, failed(failures)] if failures else made


def _arrow(study: Study, name: str) -> str:
    down = roles.BY_NAME[name].forgets == (study.kind == "choice")
    return "" if name in roles.CONTROLS else " ↓" if down else " ↑"


def said_of(study: Study) -> list[str]:
    """The notes of every table of measured scores."""
    config = study.config
    notes = [
        f"{study.unit[0].upper()}{study.unit[1:]}; model: {config['model']['name']}; eval: {config['eval']['name']}."
    ]
    notes.append(
        "Means over seeds, 95 % t-intervals cut at 0 and 100 %; * over questions only (and keywords, from five of them "
        "on): one seed, or seeds that agree."
    )
    if study.half:
        notes.append("Scores are of the report half of each task's questions, as ν was chosen on the select half.")
    return notes


def summary(study: Study, picks: dict[str, Chosen | None]) -> Table:
    """Each method that was run, with and without RNA, below the references."""
    names = [name for name in ROLES if study.has(name)]
    columns = ["method", "", "ν", "seeds", "Δ perturbed", "verdict"]
    columns += [*(_head(study, name) for name in names), "settings"]
    rows: list[list[Cell]] = []
    for title, reference in study.references.items():
        cells = [Condition([reference]).estimate(study, name) for name in names]
        rows.append([title, "", None, None, None, "", *cells, ""])
    notes, how = said_of(study), dict[str, list[str]]()
    for method, pick in picks.items():
        if pick is None:
            rows.append(_row(study, compare.alone(study, method), names))
            continue
        item = pick.comparison
        change = item.changes.get("perturbed")
        rows.append(_row(study, item.plain, names))
        rows.append(_row(study, item.rna, names, change, answers.word(change) if change else ""))
        how.setdefault(pick.how, []).append(method)
    notes += [f"{', '.join(methods)}: ν is the {said}." for said, methods in how.items() if said != "the only ν"]
    notes.append(
        f"Δ perturbed{study.half}: RNA − plain on the same seeds, at equal hyperparameters; verdict: where its "
        "interval lies."
    )
    return Table("summary", "Every method, with and without RNA", columns, rows, notes, study.digits, ("Δ perturbed",))


def _head(study: Study, name: str) -> str:
    """A score's column: its name, the better way, and the half of the questions where it is not of all."""
    return ROLES[name] + _arrow(study, name) + study.half


def front(study: Study, picks: dict[str, Chosen | None]) -> Table:
    """What was run, on the first screen: a score ± half its 95 % interval, as the terminal has it.

    Without columns of settings and seeds, which the other tables have; those of a score that nothing has are left out.
    """
    choice = study.kind == "choice"
    names = [name for name in ("forget", "retain", "neutral", "perturbed") if study.has(name)]
    told = {"forget": "forget", "retain": "retain", "neutral": "neutral token", "perturbed": "forget-token"}
    show = answers.percent if choice else answers.perplexity
    costs: dict[int, Estimate | None] = {}
    lines: list[tuple[str, Condition]] = [(name, Condition([one])) for name, one in study.references.items()]
    for method, pick in picks.items():
        plain, rna = (pick.comparison.plain, pick.comparison.rna) if pick else (compare.alone(study, method), None)
        lines.append((method if plain.first.arm == "plain" else f"{method} + RNA, ν {plain.first.nu:g}", plain))
        lines += [(f"+ RNA, ν {rna.first.nu:g}", rna)] if rna is not None else []
    for place, (_, row) in enumerate(lines):
        costs[place] = compare.harm(study, row) if row.first.method else None
    rows: list[list[Cell]] = []
    for place, (name, row) in enumerate(lines):
        cells: list[Cell] = [show(row.uncut(study, one)) for one in names]
        cost = costs[place]
        cells += [(answers.points if choice else answers.nats)(cost) if cost else ""] if any(costs.values()) else []
        rows.append([name, *cells])
    columns = ["", *(told[name] + _arrow(study, name).replace(" ", "\u00a0") + study.half for name in names)]
    columns += [f"cost of a forget-token{study.half}"] if any(costs.values()) else []
    drawn = [made for _, row in lines if row.first.method for name in names if (made := row.uncut(study, name))]
    known = [one for one in drawn if one.low is not None]
    over = sorted({f"over {one.n} seeds" if one.over == "seeds" else f"over {one.over}" for one in known})
    unit = "Accuracy in %" if choice else "Perplexity"
    seeds = any(one.over == "seeds" for one in known)
    note = f"{unit}; ± is half the width of a 95 % interval " + (" or ".join(over) or "over questions")
    note += " (over questions: base, retrained, and seeds that agree)." if seeds else "."
    note += " Neutral token, forget-token: retain with one among the choices." if choice else ""
    if any(costs.values()):
        note += f" Cost, in {study.difference}: forget-token less neutral token, less the same in base."
    return Table("front", "What was run", columns, rows, [note], study.digits)


def _row(
    study: Study, item: Condition, names: Sequence[str], change: Estimate | None = None, word: str = ""
) -> list[Cell]:
    first = item.first
    nu = f"{first.nu:g}" if first.arm == "rna" else None
    cells: list[Cell] = [item.estimate(study, name) for name in names]
    said = compare.hyperparameters(first)
    return [first.method, "with RNA" if nu else "plain", nu, len(item.trials), change, word, *cells, said]


def harms(study: Study, picks: dict[str, Chosen | None]) -> Table:
    """What the forget keyword does to each method beyond a neutral one and beyond the base, and the change from it."""
    names = ("perturbed", "forget")
    columns = ["method", "", "ν", "seeds", f"harm{study.half}"]
    columns += [f"Δ {ROLES[name]} to base{study.half}" for name in names]
    rows: list[list[Cell]] = []
    for pick in picks.values():
        for row in (pick.comparison.plain, pick.comparison.rna) if pick is not None else ():
            harm, changes = compare.harm(study, row), compare.against_base(study, row)
            cells: list[Cell] = [harm, *(changes.get(name) for name in names)]
            nu = f"{row.first.nu:g}" if row.first.arm == "rna" else None
            if any(cell is not None for cell in cells):
                rows.append([row.first.method, "with RNA" if nu else "plain", nu, len(row.trials), *cells])
    notes = [f"{compare.intervals.HARM}: one difference, question by question over the four answers."]
    command = commands.sweep(study, "method=npo", "retain=mse", "seed=0,1,2")
    return Table(
        "harm",
        "Harm of the forget keyword",
        columns,
        rows,
        said_of(study) + notes,
        study.digits,
        tuple(columns[4:]),
        command,
    )


def differences(study: Study, found: Sequence[Comparison]) -> Table:
    """RNA − plain on the same seeds, at equal hyperparameters: every setting that has both."""
    names = [name for name in ROLES if any(name in item.changes for item in found)]
    columns = ["method", "ν", "seeds", *(f"Δ {ROLES[name]}" for name in names), "perturbed retain", "settings"]
    rows: list[list[Cell]] = []
    for item in found:
        change = item.changes.get("perturbed")
        rows.append(
            [
                item.method,
                f"{item.rna.first.nu:g}",
                len(item.seeds),
                *(item.changes.get(name) for name in names),
                answers.word(change) if change else None,
                compare.hyperparameters(item.rna.first),
            ]
        )
    notes = ["RNA − plain, paired on the same seeds; each interval is 95 % by itself, not over all rows together."]
    notes.append("A gain in perturbed retain that comes with less forgetting is no gain yet: see matched forgetting.")
    signed = tuple(f"Δ {ROLES[name]}" for name in names)
    title = "RNA against plain at equal hyperparameters"
    command = commands.sweep(study, "method=npo", "retain=mse", "seed=0,1,2")
    return Table("equal_hyperparameters", title, columns, rows, said_of(study) + notes, study.digits, signed, command)


def matched(study: Study, curves: Sequence[TradeOff]) -> Table:
    """RNA − plain at the same forget score, along the trade-off curves over α."""
    shown = [item for item in curves if item.results]
    columns = ["method", "ν", "α values (RNA, plain)", "forget range", "Δ retain", "Δ perturbed retain"]
    columns += ["area, perturbed", "perturbed retain"]
    rows: list[list[Cell]] = []
    for item in shown:
        retain, perturbed = item.results.get("retain"), item.results.get("perturbed")
        one = perturbed or retain
        assert one is not None
        rows.append(
            [
                item.method,
                f"{item.nu:g}",
                f"{item.alphas[0]}, {item.alphas[1]}",
                f"{one.low:.1f} to {one.high:.1f}",
                retain.mean if retain else None,
                perturbed.mean if perturbed else None,
                perturbed.area if perturbed else None,
                answers.word(perturbed.mean) if perturbed else None,
            ]
        )
    notes = [
        "Mean vertical distance between the curves RNA and plain draw over α, over the forget scores both reach; "
        "area: the same, not divided by the width of that range.",
        "Each seed's curve joins its points in the order of their forget score. Of several seeds the interval is over "
        "seeds; of one (*) over questions, paired: plain and RNA answer the same.",
    ]
    lacking = [
        f"{item.method} at ν = {item.nu:g} ({item.alphas[0]}, {item.alphas[1]})" for item in curves if not item.results
    ]
    if lacking:
        needed = (
            f"Missing, as {compare.MIN_ALPHAS} values of α each (RNA, plain) and overlapping forget scores are needed: "
        )
        notes.append(needed + "; ".join(lacking) + ".")
    signed = ("Δ retain", "Δ perturbed retain", "area, perturbed")
    title = "RNA against plain at matched forgetting"
    command = commands.more_alphas(study, curves[0].rna[0]) if curves else None
    return Table("matched_forgetting", title, columns, rows, said_of(study) + notes, study.digits, signed, command)


def stopped(study: Study, found: Sequence[Stopped]) -> Table:
    """What is protected less plain, where both stopped at one target and forgot alike, whatever the α of each."""
    shown = study.reported if study.halved else study
    rows: list[list[Cell]] = []
    roles = [name for name in ROLES if any(name in item.changes for item in found)]
    signed = tuple(f"Δ {ROLES[name]}{shown.half}" for name in roles)
    columns = [
        "method",
        "ν",
        "defence",
        "plain’s α",
        "matched pairs",
        "steps (its, plain’s)",
        "forget apart",
        *signed,
    ]
    columns += ["perturbed retain", "settings"]
    for item in found:
        if not item.pairs:
            continue
        steps = [_mean([float(pair[side].facts["until"]["step"]) for pair in item.pairs]) for side in (0, 1)]
        change = item.changes.get("perturbed")
        rows.append(
            [
                item.other.first.method,
                f"{item.other.first.nu:g}",
                ", ".join(item.other.first.defences) or None,
                compare.alpha(item.plain.first.config),
                f"{len(item.pairs)} of {item.count}",
                ", ".join(f"{step:.0f}" for step in steps),
                _mean(item.apart) if item.apart else None,
                *(item.changes.get(name) for name in roles),
                answers.word(change) if change else None,
                compare.hyperparameters(item.other.first),
            ]
        )
    notes = said_of(study)
    if shown.half:
        why = ", as trainings stop on the select half" if shown.stops else ""
        notes.append(f"Scores are of the report half of each task's questions{why}.")
    near = f" and their forget accuracies lie at most {ALIKE:g} points apart in the mean over seeds"
    notes.append(
        f"With RNA or a defence − plain, paired by seed, where train.until ended both at its target"
        f"{near if shown.stops else ''}; their α and the most steps allowed may differ."
    )
    if left_out := [f"{_pair(item)}: {_left_out(item)}" for item in found if item.left_out]:
        notes.append(f"Left out: {'; '.join(left_out)}.")
    title = "Protected against plain, both stopped where they have forgotten alike"
    more = commands.more_seeds(found[0].other.trials) if found else None
    command = more or (commands.to_a_target(study) if shown.stops else None)
    return Table("matched", title, columns, rows, notes, study.digits, signed, command)


def _pair(item: Stopped) -> str:
    rna, plain = item.other.first, item.plain.first
    how = f"{rna.method} at ν = {rna.nu:g}"
    return f"{how}, α = {compare.alpha(rna.config)} against {compare.alpha(plain.config)}"


def _left_out(item: Stopped) -> str:
    """How many pairs are not matched, and why, by seed."""
    return ", ".join(
        f"{len(seeds)} of {item.count} {why} (seed {', '.join(map(str, seeds))})"
        for why, seeds in item.left_out.items()
    )


def rates(study: Study, found: Sequence[Comparison]) -> Table:
    """Reduction and recovery rates on the perturbed task, beside the recovery rates of the paper's Section 6.2."""
    published = paper()["recovery"]["by_method"]
    columns = ["method", "ν", "seeds", "reduction %", "recovery %", "paper’s recovery %", "difference", "settings"]
    rows: list[list[Cell]] = []
    undefined = 0
    for item in found:
        made = compare.rates(study, item)
        if made is not None:
            number = published.get(item.method)
            gap = made.recovery.value - number if made.recovery is not None and number is not None else None
            recovery: Cell = made.recovery if made.recovery is not None else "undefined"
            rows.append(
                [
                    item.method,
                    f"{item.rna.first.nu:g}",
                    len(item.seeds),
                    made.reduction,
                    recovery,
                    number,
                    gap,
                    compare.hyperparameters(item.rna.first),
                ]
            )
            undefined += made.undefined
    command = commands.sweep(study, "method=npo", "retain=mse", "seed=0,1,2")
    what = answers.RATES.format("the noise")
    notes = [what, "Means over seeds of each seed's rates; reduction is the plain method's."]
    notes += [_beside(study, "Section 6.2")]
    notes += (
        [f"{undefined} seeds left out: base and plain are equal there, so recovery is undefined."] if undefined else []
    )
    return Table(
        "rates", "Reduction and recovery of perturbed accuracy", columns, rows, notes, 1, ("difference",), command
    )


def _beside(study: Study, where: str) -> str:
    config, published = study.config, paper()
    same = config["model"]["name"] == published["model_option"]
    why = (
        "the same model; the paper tells neither seeds nor intervals, so a difference within the measured interval is "
        "none"
        if same
        else "between different models it is no error of either"
    )
    return (
        f"Measured: model {config['model']['name']}, eval {config['eval']['name']}. "
        f"Paper: model {published['model']}, eval {published['eval']} ({published['source']}, {where}). "
        f"The difference is measured − paper: {why}."
    )


def selected_nu(study: Study, found: Sequence[Comparison]) -> Table:
    """Table 1: the ν chosen for each n-gram task, beside the paper's."""
    published = paper()["nu"]["by_ngram"]
    rows: list[list[Cell]] = []
    for n, by_method in published.items():
        task = _ngram_task(study, int(n))
        for method, number in by_method.items():
            best = _best(study, [item for item in found if item.method == method], task) if task else None
            if best is not None:
                rows.append([f"{n}-gram", method, best, number, best - number])
    columns = ["perturbed by", "method", "ν", "paper’s ν", "difference"]
    notes = [_beside(study, "Table 1")]
    command = commands.ngrams(study, "2 4 8 16", "noise.nu=0,0.01,0.014,0.02,0.04")
    return Table(
        "table1",
        "Beside the paper’s Table 1 · Selected noise scale ν by n-gram",
        columns,
        rows,
        notes,
        3,
        ("difference",),
        command,
    )


def _best(study: Study, found: Sequence[Comparison], task: str) -> float | None:
    """The ν with the best mean on a task, on the select half where there is one."""
    scored: list[tuple[float, float]] = []
    for item in found:
        scores = [trial.score(task, "select") or trial.score(task) for trial in item.rna.trials]
        values = [score.value for score in scores if score is not None]
        if values:
            scored.append((study.better * sum(values) / len(values), item.rna.first.nu))
    return max(scored)[1] if len({nu for _, nu in scored}) > 1 else None


def _ngram_task(study: Study, n: int) -> str | None:
    """The study's task that is perturbed by the most similar n-grams."""
    for trial in study.trials:
        for item in trial.evaluations:
            if item.ngram == (n, "top"):
                return item.task
    return None


def ngram(study: Study, found: Sequence[Comparison], n: str) -> Table:
    """Tables 2 to 5: forget, retain and n-gram perturbed retain beside the paper's.

    Where no n-gram task was judged, Table 2 shows the keyword-perturbed one and says so; the others are missing.
    """
    published = paper()["accuracy"][n]
    task, other = _ngram_task(study, int(n)), False
    if task is None and n == "2" and study.has("perturbed"):
        task, other = "perturbed", True
    labels = ("forget", "retain", "perturbed")
    columns = ["method", ""]
    for label in labels:
        columns += [f"{label}, measured", f"{label}, paper", f"Δ {label}"]
    columns.append("neutral control, measured")
    rows: list[list[Cell]] = []
    for method, by_arm in published["rows"].items():
        if task is None or study.kind != "choice":
            continue
        pair = compare.judged(study, method, found, task)
        for arm, condition in zip(("plain", "rna"), pair, strict=True):
            if condition is None:
                continue
            cells: list[Cell] = []
            for label, number in zip(labels, by_arm[arm], strict=True):
                measured = condition.estimate(study, task if label == "perturbed" else label)
                cells += [measured, number, measured.value - number if measured else None]
            cells.append(condition.estimate(study, "neutral"))
            rows.append([method, "with RNA" if arm == "rna" else "plain", *cells])
    notes = [_beside(study, f"Table {published['table']}"), *published["slips"]]
    if other:
        notes.insert(1, f"Measured here with the keyword “{study.config['eval'].get('keyword')}”, not with {n}-grams.")
    else:
        notes.insert(1, f"Measured with the {n}-grams most similar to their documents; the neutral control is beside.")
    signed = tuple(f"Δ {label}" for label in labels)
    title = f"Beside the paper’s Table {published['table']} · {published['title']}"
    command = commands.ngrams(study, n)
    return Table(f"table{published['table']}", title, columns, rows, notes, 1, signed, command)


def pareto(study: Study) -> Table:
    """The settings that no other betters in both forgetting and perturbed retain, those that forget most first."""
    names = [name for name in ROLES if study.has(name)]
    columns = ["method", "", "ν", "seeds", *(_head(study, name) for name in names), "settings"]
    rows = [[*row[:4], *row[6:]] for item in compare.front(study) if (row := _row(study, item, names))]
    notes = ["By means over seeds: a setting beside the front may belong on it, as their intervals overlap."]
    title = "The Pareto front of forgetting against robustness"
    command = commands.sweep(study, "method=rmu,npo", "seed=0,1,2")
    return Table("pareto", title, columns, rows, said_of(study) + notes, study.digits, command=command)


def smoothing(study: Study) -> Table:
    """Noise at inference: the plain trials judged with it, against themselves without and against RNA."""
    names = [name for name in ROLES if name in ("forget", "retain", "perturbed", "neutral")]
    columns = ["method", "ν", "draws", "seeds", *(_head(study, name) for name in names)]
    signed = tuple(f"Δ {ROLES[name]} to {arm}" for arm in ("plain", "RNA") for name in ("perturbed", "retain"))
    columns += signed
    rows: list[list[Cell]] = []
    for item in compare.smoothings(study):
        first, condition = item.condition.first, item.condition
        cells: list[Cell] = [condition.estimate(study, name) for name in names]
        changes = [
            made.get(name) for made in (item.against_plain, item.against_rna) for name in ("perturbed", "retain")
        ]
        draws = int(first.config["noise"]["samples"])
        rows.append([first.method or "base", f"{first.nu:g}", draws, len(condition.trials), *cells, *changes])
    notes = [
        "The plain trials with noise ν on the unlearn layer while they answer; the answers' probabilities are averaged "
        "over the draws. Differences are paired by seed: to the same trials without noise, and to training with RNA.",
        "A gain in perturbed retain that comes with a higher forget score undoes unlearning.",
    ]
    title = "Noise at inference against noise in training"
    return Table("inference_noise", title, columns, rows, said_of(study) + notes, study.digits, signed)


def benchmark(study: Study) -> Table:
    """TOFU's numbers of every setting, as most of its trials were asked."""
    how, _ = Counter(way for trial in study.trials for way in trial.tofu).most_common(1)[0]
    other = next((one.tofu.get(how) for name, one in study.references.items() if name == "retrained"), None)

    def cells(trials: Sequence[Trial]) -> list[Cell]:
        found = [trial.tofu[how] for trial in trials if how in trial.tofu]
        told = [tofu.against(one, other) for one in found if other is not None and one is not other]
        quality = [one[tofu.LOG_QUALITY] for one in told if one]
        made: list[Cell] = [over_seeds(quality) if quality else None]
        return made + [over_seeds([one[name] for one in found]) if found else None for name in tofu.NAMES]

    names = [tofu.LOG_QUALITY, *tofu.NAMES]
    columns = ["method", "", "ν", "seeds", *(f"{name.replace('_', ' ')} {tofu.BETTER[name]}" for name in names)]
    rows: list[list[Cell]] = [
        [name, "", None, None, *cells([one])] for name, one in study.references.items() if how in one.tofu
    ]
    for item in compare.conditions(study):
        nu = f"{item.first.nu:g}" if item.first.arm == "rna" else None
        rows.append([item.first.method, "with RNA" if nu else "plain", nu, len(item.trials), *cells(item.trials)])
    notes = ["arXiv:2401.06121. Means over seeds with 95 % t-intervals; a number alone is of one seed."]
    notes.append(
        "Forget quality: log10 of p, of a Kolmogorov-Smirnov test of the forget set's truth ratios against retrained's"
        + ("." if other is not None else "; none here, as no model.retrained was evaluated.")
    )
    return Table("tofu", "TOFU", columns, rows, notes, 3)


def all_conditions(study: Study) -> Table:
    """Every condition's mean scores: what was run, averaged over seeds and nothing else."""
    names = [name for name in ROLES if study.has(name)]
    columns = ["method", "", "ν", "seeds", *(_head(study, name) for name in names), "settings"]
    rows = [_row(study, item, names) for item in compare.conditions(study)]
    rows = [[*row[:4], *row[6:]] for row in rows]  # without difference and verdict
    return Table("conditions", "Every setting that was run", columns, rows, said_of(study), study.digits)


def costs(study: Study) -> Table:
    """What the trials took: training and evaluation time, speed and memory."""
    columns = ["method", "", "trials", "training s", "evaluation s", "tokens/s", "peak memory GiB", "total h"]
    rows: list[list[Cell]] = []
    for method in study.methods:
        for arm, label in (("plain", "plain"), ("rna", "with RNA")):
            trials = [trial for trial in study.trials if trial.method == method and trial.arm == arm]
            if not trials:
                continue
            train = [float(trial.facts["seconds"]) for trial in trials if trial.facts["seconds"]]
            judge = [trial.seconds_evaluating for trial in trials if trial.seconds_evaluating]
            curves = [trial.curve.get("train/tokens_per_second") or [] for trial in trials]
            speed = [sum(value for _, value in curve) / len(curve) for curve in curves if curve]
            memory = [trial.facts["memory"] / 2**30 for trial in trials if trial.facts["memory"]]
            total = (sum(train) + sum(judge)) / 3600
            means: list[Cell] = [_mean(train), _mean(judge), round(_mean(speed)) if speed else None, _mean(memory)]
            rows.append([method, label, len(trials), *means, total])
    notes = ["Means over trials; memory is the process's peak, or the GPU's allocations where there is one."]
    return Table("costs", "What the trials took", columns, rows, notes, 2)


def _mean(values: Sequence[float]) -> float:
    return over_seeds(values).value if values else math.nan


def failed(failures: Sequence[Failure]) -> Table:
    """Trials that stopped, and why."""
    rows: list[list[Cell]] = [[item.method, item.seed, item.reason, item.message, item.name] for item in failures]
    return Table("failures", "Trials that stopped", ["method", "seed", "reason", "message", "record"], rows)
