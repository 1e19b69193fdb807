"""A trial's table for a person: scores with 95 % intervals, rates, and what they do and do not show."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rna import intervals, perturb, printing
from rna.intervals import Z_95, Estimate, Score, Terms, answers, number, probed, scored, scores_of, tofu
from rna.settings import TOFU, EvalSettings, roles, until_of
from rna.store import lookup
from rna.trial import OWN, PROTECTED, Arm

if TYPE_CHECKING:
    from rich.table import Table

NOISE_LIMIT = "asks for no robustness: its expected loss is plain's"
SOFTER = ", with KL towards a slightly softer target"
AS_IT_IS = "as it is"
PROBED = ("forget", "retain", "perturbed")  # roles of a probe's table
NO_QUALITY = (
    "No forget quality: it compares with a model retrained without the forget set, and model.retrained names none."
)
Scores = dict[str, Estimate]  # role (`forget`, `forget_bio`, `retain`, `perturbed`, …) -> estimate


def terms(row: Arm) -> dict[str, Terms]:
    """An arm's scores by role and task, as weighted sums: accuracies in percent, or log-losses in nats a token.

    Where several tasks have one role, it holds their unweighted mean.
    """
    options = row.settings.eval
    if options.kind == "perplexity":
        metrics = row.evaluated["perplexity"]["metrics"] if "perplexity" in row.evaluated else {}
        return {part: [(1.0, scores_of(values, part)["all"])] for part, values in metrics.items()}
    by_role: dict[str, list[Score]] = {}
    found: dict[str, Terms] = {}
    for name, record in row.evaluated.items():
        if name in row.probes or not scored(record["metrics"]):
            continue
        score = scores_of(record["metrics"], name).get(options.split, Score(math.nan, math.nan, 0))
        found[name] = [(1.0, score)]
        by_role.setdefault(options.tasks[name].role, []).append(score)
    return found | {role: intervals.mean(of) for role, of in by_role.items()}


def scores(row: Arm) -> Scores:
    """An arm's estimates by role and task, each with its 95 % interval over questions or documents."""
    return {name: intervals.estimate([of]) for name, of in terms(row).items()}


def changed(row: Arm, other: Arm, *names: str) -> Estimate | None:
    """How much one arm differs from another, on the mean of these roles, with its 95 % interval; None where neither can
    be told."""
    return _change([terms(row).get(name) for name in names], [terms(other).get(name) for name in names])


def harm(row: Arm, base: Arm, pair: tuple[str, str] = ("perturbed", "neutral")) -> Estimate | None:
    """What the forget keyword does to an arm beyond a neutral one, and beyond what it does to the base."""
    parts = [terms(one).get(role) for one in (row, base) for role in pair]
    if row.other_tokens or any(part is None for part in parts):
        return None
    made = intervals.estimate([intervals.harm(*(part or [] for part in parts))])
    return None if math.isnan(made.value) else made


def stops(rows: list[Arm]) -> list[str]:
    """Of each arm that trained with `train.until`, where it stopped; apart, those that did not get there."""
    lines: list[str] = []
    for row in rows:
        until, outcome = until_of(row.settings), (row.trained or {}).get("until")
        if until is None or outcome is None:
            continue
        value = "nothing" if outcome["value"] is None else f"{outcome['value']:.3g}"
        if outcome["reached"]:
            lines.append(
                f"{row.label}: stopped at step {outcome['step']}, where {until.metric} was {value} ({until.said()})."
            )
        else:
            end = f"within {outcome['step']} steps, it was {value}: not to be compared with arms that got there."
            lines.append(f"{row.label}: {until.metric} did not get {until.said()} {end}")
    return lines


def _change(one: Sequence[Terms | None], other: Sequence[Terms | None]) -> Estimate | None:
    if not one or any(part is None for part in (*one, *other)):
        return None
    both = [
        (weight / len(one), score)
        for mine, its in zip(one, other, strict=True)
        for weight, score in intervals.difference(mine or [], its or [])
    ]
    made = intervals.estimate([both])
    return None if math.isnan(made.value) else made


def _rate(rate: float | None) -> str:
    return "undefined" if rate is None else f"{rate:.1f}"


def title(rows: list[Arm]) -> str:
    """Which trial a table shows: model, method, retain loss, ν, layer and seed; below it what the numbers are."""
    shown = next((row for label in OWN for row in rows if row.label == label), rows[0]).settings
    method, noise, options = shown.method, shown.noise, shown.eval
    said = [shown.model.name, method.label or method.name]
    if method.trains:
        said.append(f"retain loss {shown.retain_loss}")
    said += shown.defences if method.trains else []
    if noise.layers:
        said.append(f"ν {noise.nu:g} at layer {', '.join(map(str, noise.layers))}")
    if method.trains:
        said += [f"unlearn layer {shown.layer.unlearn}", f"seed {shown.seed}"]
    return f"{_lines(said)}\n{_unit(options)}"


def _unit(options: EvalSettings) -> str:
    """What the numbers are, and of which evaluation."""
    if options.kind == "choice" and all(task.task == TOFU for task in options.tasks.values()):
        return TOFU_UNIT
    unit = "accuracy in %" if options.kind == "choice" else "perplexity (lower is more certain)"
    half = "" if options.split == "all" else f", {options.split} half of the questions"
    return f"{unit}, {options.name}{half}"


def _lines(parts: Sequence[str]) -> str:
    """Parts with a dot between them, in lines that the narrowest terminal holds and that begin with a whole part."""
    lines = [parts[0]]
    for part in parts[1:]:
        longer = f"{lines[-1]} · {part}"
        lines = [*lines[:-1], longer] if len(longer) <= printing.NARROWEST else [*lines, part]
    return "\n".join(lines)


def _drawn(heading: str, rows: list[Arm], lines: dict[str, list[str]]) -> "Table":
    """Arms as columns and what was measured as rows: at most five columns, which 80 characters hold."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Text(heading, style="table.title", no_wrap=True, overflow="ignore")
    made = Table(title=shown, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    made.add_column("")
    for row in rows:
        made.add_column(row.label, justify="right", no_wrap=True)
    for name, cells in lines.items():
        made.add_row(name, *cells)
    return made


def table(rows: list[Arm]) -> "Table":
    """A row for each role, and of accuracies the rates of reduction and recovery on the perturbed task."""
    by_arm = {row.label: scores(row) for row in rows}
    choice = rows[0].settings.eval.kind == "choice"
    show: Callable[[Estimate | None], str] = answers.percent if choice else answers.perplexity
    told = _choice_roles(rows[0]) if choice else _perplexity_roles(rows[0])
    lines = {said: [show(found.get(role)) for found in by_arm.values()] for role, said in told.items()}
    if choice and "perturbed" in told:
        rates = [_rates(label, by_arm) for label in by_arm]
        for place, said in enumerate(("reduction, %", "recovery, %")):
            if any(pair[place] for pair in rates):
                lines[said] = [pair[place] for pair in rates]
    return _drawn(title(rows), rows, lines or tofu_lines(rows))


def key(rows: list[Arm]) -> str:
    """What the table's marks and words mean, once."""
    options = rows[0].settings.eval
    by_arm = {row.label: scores(row) for row in rows}
    counted = "questions" if options.kind == "choice" else "documents"
    drawn = any("keywords" in one.over for found in by_arm.values() for one in found.values())
    over = f"the {counted}" + (" and, with a forget-token, its keywords" if drawn else "")
    leans = ", which near 0 and 100 reaches further towards 50" if options.kind == "choice" else ""
    said = [f"± is half the width of a 95 % interval over {over}{leans}; ↑ and ↓: the better way."]
    if _unit(options) == TOFU_UNIT:
        said = ["↑ and ↓: the better way."]
    present = {task.role for task in options.tasks.values()} if options.kind == "choice" else {"perturbed", "neutral"}
    if "perturbed" in present:
        said.append(f"Forget-token: {_keyword(options)}.")
    if "neutral" in present:
        said.append(f"Neutral token: '{options.neutral_keyword}'.")
    if options.kind == "choice" and any(_rates(label, by_arm)[0] for label in by_arm):
        protects = "a protection" if compared(rows) else "the defence" if "defended" in by_arm else "the noise"
        said.append(answers.RATES.format(protects))
    names = _tofu(options)
    if names and any(row.label == "retrained" for row in rows):
        said.append(
            "Forget quality: p of a Kolmogorov-Smirnov test that an arm's truth ratios of the forget set are of one "
            "distribution with those of retrained, and its log10; above 0.05 they are not told apart."
        )
    elif names:
        said.append(NO_QUALITY)
    return " ".join(said)


def _keyword(options: EvalSettings) -> str:
    """What stands in for a choice, or in a text."""
    words = perturb.read_keywords(options.keywords, options.keyword)
    return f"'{words[0]}'" if len(words) == 1 else f"one of {len(words)} keywords"


def ngram_table(rows: list[Arm]) -> "Table | None":
    """Retain accuracy by the n-grams among the choices, the neutral keyword above them; None without such tasks."""
    options = rows[0].settings.eval
    tasks = {name: task for name, task in options.tasks.items() if task.role == "ngram"}
    if not tasks or options.kind != "choice":
        return None
    by_arm = {row.label: scores(row) for row in rows}
    names = {"neutral": "neutral token", "perturbed": "forget-token"}
    names |= {name: f"n = {task.n}, {task.group} similarity" for name, task in tasks.items()}
    lines = {
        said: [answers.percent(found.get(name)) for found in by_arm.values()]
        for name, said in names.items()
        if any(name in found for found in by_arm.values())
    }
    return _drawn("Retain by the n-gram among the choices\naccuracy in %", rows, lines)


def own_table(rows: list[Arm]) -> "Table | None":
    """The metrics of tasks that are not ours, under lm-eval's names; None without such tasks."""
    options = rows[0].settings.eval
    by_arm = [
        {name: _of_half(record["metrics"], options.split) for name, record in row.evaluated.items()} for row in rows
    ]
    lines: dict[str, list[str]] = {}
    for task in (name for name in options.tasks if name not in _tofu(options)):
        told = [found.get(task) for found in by_arm]
        own = next((metrics for metrics in told if metrics is not None and "score" in metrics), None)
        if own is None:
            continue
        parts: dict[str, list[dict[str, Any] | None]] = {task: told}
        if not _metrics_of(own):  # a group whose tasks have no metric in common
            parts = {
                f"{task} {leaf}": [_subtask(metrics, leaf) for metrics in told] for leaf in own.get("subtasks", {})
            }
        for name, of_arms in parts.items():
            for metric in _metrics_of(next((metrics for metrics in of_arms if metrics), {})):
                cells = ["–" if metrics is None else _with_error(metrics, metric) for metrics in of_arms]
                lines[f"{name} {metric}"] = cells
    if not lines or options.kind != "choice":
        return None
    return _drawn("Of tasks of lm-eval or your own\ntheir metrics ± 1.96 standard errors", rows, lines)


def probe_table(rows: list[Arm]) -> "Table | None":
    """What a probe found in each state of each arm's model; None without one."""
    if not any(row.probes for row in rows):
        return None
    shown = rows[0].settings
    choice, tasks = shown.eval.kind == "choice", lookup.task_roles(shown.eval)
    told = [next((record["metrics"] for record in row.probes.values()), None) for row in rows]
    show = answers.percent if choice else answers.perplexity
    lines: dict[str, list[str]] = {}
    asked = shown.probe.roles or list(tasks.values())
    several = [role for role in PROBED if role in asked] if choice else ["forget"]
    for state in dict.fromkeys(name for one in told if one for name in probed.states(one)):
        name = AS_IT_IS if state == probed.BEFORE else state
        for role in several:
            made = [probed.known(one["states"][state], tasks, role=role) if one else None for one in told]
            line = f"{name}: {role}" if len(several) > 1 else name
            lines[line] = [show(intervals.estimate([one]) if one else None) for one in made]
    for role in dict.fromkeys(tasks.values()):
        pairs = [one[role] if one and isinstance(one.get(role), dict) else None for one in told]
        for what, said, unit in (("equal", "equal answers, %", 100), ("divergence", "divergence, nats", 1)):
            if any(pairs):
                lines[f"{role}: {said}"] = ["–" if one is None else _scaled(one, what, unit) for one in pairs]
    kind = "accuracy in %" if choice else "perplexity"
    said = kind if len(several) > 1 else f"forget {kind}"
    states = any(probed.states(one) for one in told if one)
    what = f"{said} in each state" if states else "± 1.96 standard errors"
    return _drawn(f"Is it forgotten? Probe {shown.probe.name}: {shown.probe.label}\n{what}", rows, lines)


def _scaled(metrics: dict[str, Any], name: str, unit: float) -> str:
    digits = 1 if unit > 1 else 3
    return f"{unit * metrics[name]:.{digits}f} ± {unit * Z_95 * metrics[f'{name}_stderr']:.{digits}f}"


def _returns(rows: list[Arm]) -> list[str]:
    """How much a probe brings back in its strongest state, and how many questions it could not ask."""
    told: list[str] = []
    left_out = 0
    for row in rows:
        for metrics in (record["metrics"] for record in row.probes.values()):
            left_out = metrics.get("told", 0)
            if (terms := probed.gain(metrics, lookup.task_roles(row.settings.eval))) is not None:
                change = answers.tell(intervals.estimate([terms]), choice=_choice(row))
                told.append(f"{row.label} {change}, {metrics['state']}")
    if not told:
        return []
    less = f" ({left_out} questions left out, whose answers the learnt texts tell)" if left_out else ""
    halves = " on select, on report" if _choice(rows[0]) else ""
    return [f"{answers.RETURNS} In the state that knows most{halves}{less}: {'; '.join(told)}."]


TOFU_UNIT = "TOFU (arXiv:2401.06121), means ± 1.96 standard errors over questions"


def tofu_table(rows: list[Arm]) -> "Table | None":
    """TOFU's numbers, where they stand beside other tasks; None where they are the whole table, or not asked for."""
    lines = tofu_lines(rows)
    return _drawn(TOFU_UNIT, rows, lines) if lines and len(rows[0].settings.eval.tasks) > 1 else None


def tofu_lines(rows: list[Arm]) -> dict[str, list[str]]:
    """TOFU's numbers by arm, forget quality first where there is a retrained model."""
    lines: dict[str, list[str]] = {}
    names = _tofu(rows[0].settings.eval)
    for name in names:
        found = [row.evaluated[name]["metrics"] if name in row.evaluated else None for row in rows]
        other = next((made for row, made in zip(rows, found, strict=True) if row.label == "retrained" and made), None)
        quality = [tofu.against(made, other) if made and other and made is not other else {} for made in found]
        for what in (tofu.QUALITY, tofu.LOG_QUALITY) if other else ():
            lines[_tofu_said(what)] = [f"{one[what]:.3g}" if one else "–" for one in quality]
        for what in tofu.NAMES:
            lines[_tofu_said(what)] = ["–" if made is None else _measured(made, what) for made in found]
    return lines


def _tofu(options: EvalSettings) -> list[str]:
    """Which tasks are TOFU: none but with `kind: choice`, and one at most."""
    return [name for name, task in options.tasks.items() if task.task == TOFU] if options.kind == "choice" else []


def _measured(metrics: dict[str, Any], what: str) -> str:
    return f"{number(metrics[what]):.3f} ± {Z_95 * number(metrics[f'{what}_stderr']):.2f}"


def _tofu_said(what: str) -> str:
    return f"{what.replace('/', ', ').replace('_', ' ')} {tofu.BETTER[what]}"


def _metrics_of(judged: dict[str, Any]) -> list[str]:
    return [name for name, value in judged.items() if isinstance(value, float) and not name.endswith("_stderr")]


def _subtask(judged: dict[str, Any] | None, name: str) -> dict[str, Any] | None:
    return (judged or {}).get("subtasks", {}).get(name)


def _of_half(metrics: dict[str, Any], split: str) -> dict[str, Any] | None:
    return metrics if split == "all" else metrics.get(split)


def _with_error(metrics: dict[str, Any], metric: str) -> str:
    value, error = number(metrics.get(metric)), metrics.get(f"{metric}_stderr")
    return answers.short(value, 3) + ("" if error is None else f" ± {answers.short(Z_95 * error, 2)}")


def of_above(rows: list[Arm]) -> str | None:
    """What questions whose right answer speaks of other choices do to the perturbed accuracy; None without any."""
    options = rows[0].settings.eval
    (name, *_) = [*(name for name, task in options.tasks.items() if task.role == "perturbed"), ""]
    said: list[str] = []
    count = total = 0
    for row in rows if options.kind == "choice" else []:
        metrics = row.evaluated[name]["metrics"] if name in row.evaluated else {}
        metrics = metrics if options.split == "all" else metrics.get(options.split, {})
        if "of_above" not in metrics:
            continue
        left_out = "acc_with_of_above" in metrics
        count, total = metrics["of_above"], metrics["n"] + left_out * metrics["of_above"]
        without = metrics["acc"] if left_out else metrics.get("acc_without_of_above")
        within = metrics["acc_with_of_above"] if left_out else metrics["acc"]
        said.append(f"{row.label} {100 * number(without):.1f} (with: {100 * number(within):.1f})")
    if not said:
        return None
    return (
        f"{count} of {total:,} questions have 'all of the above' or the like as their right answer; perturbed without "
        f"them: {', '.join(said)}."
    )


def _choice_roles(row: Arm) -> dict[str, str]:
    """Role -> what it is called, in reading order."""
    options = row.settings.eval
    forget = [name for name, task in options.tasks.items() if task.role == "forget"]
    told = {name: name.replace("_", " ") + " ↓" for name in forget}
    if len(forget) > 1:
        told["forget"] = "forget mean ↓"
    present = {task.role for task in options.tasks.values()}
    shown = [role for role in roles.in_reading_order() if role.shown and role.name in present]
    return told | {role.name: f"{role.shown} {role.arrow}" for role in shown}


def _perplexity_roles(row: Arm) -> dict[str, str]:
    return {
        **{f"forget_{topic}": f"forget {topic} ↑" for topic in row.settings.data.topics},
        "retain": "retain ↓",
        "retain_after": "retain, same tokens ↓",
        "neutral": "behind neutral token ↓",
        "perturbed": "behind forget-token ↓",
    }


def _rates(label: str, by_arm: dict[str, Scores]) -> list[str]:
    """Reduction of the plain method, reduction and recovery of RNA, in percent of the base's perturbed accuracy."""
    perturbed = {name: found["perturbed"].value for name, found in by_arm.items() if "perturbed" in found}
    plain = "given" if "given" in perturbed else "plain"
    if label in ("base", "retrained") or "base" not in perturbed or label not in perturbed:
        return ["", ""]
    reduction = _rate(perturb.reduction_rate(perturbed["base"], perturbed[label]))
    if label == plain or plain not in perturbed:
        return [reduction, ""]
    return [reduction, _rate(perturb.recovery_rate(perturbed["base"], perturbed[plain], perturbed[label]))]


def forgot(row: Arm, base: Arm) -> str | None:
    """A row's forget tasks against the base's; None without both, or where they are no numbers of the same unit."""
    found, before = scores(row), scores(base)
    parts = _forget(row)
    if row.other_tokens or not parts or any(part not in found or part not in before for part in parts):
        return None
    change = changed(row, base, *parts)
    if change is None:
        return None
    if _choice(row):
        return answers.forgot(found["forget"].value, before["forget"].value, change)
    return answers.forgot_text([found[part].value - before[part].value for part in parts], change)


def _forget(row: Arm) -> list[str]:
    """The roles whose mean is what was to be forgotten."""
    return ["forget"] if _choice(row) else [f"forget_{one}" for one in row.settings.data.topics]


def _choice(row: Arm) -> bool:
    return row.settings.eval.kind == "choice"


def verdicts(rows: list[Arm]) -> list[str]:
    """What this trial shows: did it forget, what does a forget-token cost, and does the noise change that.

    A line is left out where its numbers are not there. In brackets are 95 % intervals; the last line says over what.
    """
    by_label = {row.label: row for row in rows if terms(row)}
    noised = next((label for label in PROTECTED if label in by_label), PROTECTED[0])
    first = "given" if any(row.label == "given" for row in rows) else "plain"
    base, plain, rna = (by_label.get(label) for label in ("base", first, noised))
    beside = compared(list(by_label.values()))
    judged = [row for row in (plain, rna, *beside) if row is not None]
    lines: list[str] = []
    if told := [f"{row.label} {found}" for row in judged if base and (found := forgot(row, base))]:
        lines.append(f"{answers.FORGOT} {'; '.join(told)}.")
    if base and any(row.other_tokens for row in judged):
        lines.append(f"{first} reads other tokens than base: perplexities are per token, so none are compared with it.")
    contrasts = [_contrast(row, plain) for row in (rna, *beside)]
    lines += [line for line in (_cost(judged, base), *_elsewhere(judged, base), *contrasts) if line]
    lines += _returns(rows)
    return [*answers.once(lines), *(line for row in rows if lines and (line := _by_keyword(row)))]


def _cost(judged: list[Arm], base: Arm | None) -> str:
    """What a forget-token does beyond a neutral one and beyond what it does to the base; or each arm's own difference
    between the score with it and with a neutral one, or without any, where there is no such base."""
    changes = [(row, told) for row in judged if base and (told := harm(row, base))]
    how = answers.AGAINST_BASE
    if not changes:
        arms = [*([base] if base else []), *judged]
        against = "neutral" if any("neutral" in terms(row) for row in arms) else "retain"
        how = answers.against(against == "neutral")
        pairs = [(row, terms(row).get("perturbed"), terms(row).get(against)) for row in arms]
        changes = [(row, told) for row, one, other in pairs if (told := _change([one], [other]))]
    told = "; ".join(
        f"{row.label} {answers.tell(change, choice=_choice(row))}, "
        f"{answers.COSTS[change.sign if _choice(row) else -change.sign]}"
        for row, change in changes
    )
    return f"{answers.COST} {how}: {told}." if told else ""


def _elsewhere(judged: list[Arm], base: Arm | None) -> list[str]:
    """The same of a forget-token that stands in the question."""
    lines: list[str] = []
    for role in roles.ROLES:
        if role.where is None or role.control is None:
            continue
        found = [(row, harm(row, base, (role.name, role.control))) for row in judged if base]
        told = [
            f"{row.label} {answers.tell(one, choice=True)}, {answers.COSTS[one.sign]}"
            for row, one in found
            if one is not None
        ]
        lines += [f"And {role.where}? {'; '.join(told)}."] if told else []
    return lines


def _contrast(rna: Arm | None, plain: Arm | None) -> str:
    """What the noise changes; where both do not forget alike, that is no comparison of robustness."""
    if rna is None or plain is None:
        return ""
    name = {"with RNA": "RNA", "smoothed": "noise at inference", "defended": "the defence"}.get(rna.label, rna.label)
    perturbed, forget = changed(rna, plain, "perturbed"), changed(rna, plain, *_forget(rna))
    told = [
        f"{what} {answers.tell(change, choice=_choice(rna))}, {answers.word(change)}"
        for what, change in ((answers.PERTURBED, perturbed), ("forget", forget))
        if change is not None
    ]
    if forget is not None and forget.sign != 0:
        told.append(answers.UNLIKE)
    asked = f"{answers.CHANGES.replace('RNA', name)} {rna.label[0].upper()}{rna.label[1:]} less {plain.label}: "
    return f"{asked}{'; '.join(told)}." if told else ""


def compared(rows: Sequence[Arm]) -> list[Arm]:
    """The rows that `compare` added."""
    return [row for row in rows if row.label not in (*OWN, "base", "retrained")]


def prices(rows: list[Arm]) -> str | None:
    """What each protection took, and what it does not protect; None where `compare` added no row."""
    by_label = {row.label: row for row in rows if row.trained}
    plain, beside = by_label.get("plain"), compared(list(by_label.values()))
    if plain is None or not beside:
        return None
    its, said = plain.trained or {}, list[str]()
    for row in [*(by_label[label] for label in PROTECTED if label in by_label), *beside]:
        mine = row.trained or {}
        told = f"{row.label} {mine['seconds'] / its['seconds']:.2g} times plain's training time"
        if len(mine["curve"]) != len(its["curve"]):
            told += f" ({len(mine['curve'])} steps for {len(its['curve'])})"
        noised = row.settings.noise.name != "none"
        limit = row.settings.defence.limit
        if noised and not row.settings.defences:
            limit = NOISE_LIMIT + (SOFTER if row.settings.retain_loss == "kl" else "")
        said.append(f"{told}{f', {limit}' if limit else ''}")
    return f"What it takes, and what it leaves open: {'; '.join(said)}."


def _by_keyword(row: Arm) -> str | None:
    """An arm's perturbed retain by the keyword that was drawn, where there are several."""
    options = row.settings.eval
    choice = options.kind == "choice"
    name = next((name for name, task in options.tasks.items() if task.role == "perturbed"), "") if choice else ""
    metrics = row.evaluated.get(name if choice else "perplexity", {}).get("metrics", {})
    metrics = metrics if choice else metrics.get("perturbed", {})
    metrics = metrics if options.split == "all" or not choice else metrics.get(options.split, {})
    by_word = metrics.get("keywords") or {}
    cells = [
        f"'{word}' {100 * number(one['acc']):.1f} of {one['n']}" if choice else f"'{word}' {number(one['ppl']):.4g}"
        for word, one in by_word.items()
    ]
    return f"By keyword, {row.label}: {', '.join(cells)}." if cells else None
