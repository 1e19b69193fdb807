"""A trial's table for a person: scores with 95 % intervals, rates, and what they do and do not show."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rna import intervals, perturb
from rna.intervals import Estimate, Score, Terms, number, scores_of
from rna.settings import EvalSettings
from rna.trial import Arm

if TYPE_CHECKING:
    from rich.table import Table

NARROWEST = 80  # characters that a table takes; a narrower terminal breaks its lines, and no number is left out
OWN = ("with RNA", "smoothed", "plain", "given")  # the arms of a trial, its own first
Scores = dict[str, Estimate]  # role (`forget`, `forget_bio`, `retain`, `perturbed`, …) -> estimate


def terms(row: Arm) -> dict[str, Terms]:
    """An arm's scores by role and task, as weighted sums: accuracies in percent, or log-losses in nats a token.

    Where several tasks have one role, it holds their unweighted mean.
    """
    options = row.settings.eval
    if options.kind == "perplexity":
        metrics = row.evaluated["perplexity"]["metrics"] if row.evaluated else {}
        return {part: [(1.0, scores_of(values, part)["all"])] for part, values in metrics.items()}
    by_role: dict[str, list[Score]] = {}
    found: dict[str, Terms] = {}
    for name, record in row.evaluated.items():
        score = scores_of(record["metrics"], name).get(options.split, Score(math.nan, math.nan, 0))
        found[name] = [(1.0, score)]
        by_role.setdefault(options.tasks[name].role, []).append(score)
    return found | {role: intervals.mean(of) for role, of in by_role.items()}


def scores(row: Arm) -> Scores:
    """An arm's estimates by role and task, each with its 95 % interval over questions or documents."""
    return {name: intervals.estimate([of]) for name, of in terms(row).items()}


def changed(row: Arm, other: Arm, *roles: str) -> Estimate | None:
    """How much one arm differs from another, on the mean of the roles, with its 95 % interval; None where neither can
    be told."""
    return _change([terms(row).get(role) for role in roles], [terms(other).get(role) for role in roles])


def harm(row: Arm, base: Arm) -> Estimate | None:
    """What the forget keyword does to an arm beyond a neutral one, and beyond what it does to the base."""
    parts = [terms(one).get(role) for one in (row, base) for role in ("perturbed", "neutral")]
    if row.other_tokens or any(part is None for part in parts):
        return None
    made = intervals.estimate([intervals.harm(*(part or [] for part in parts))])
    return None if math.isnan(made.value) else made


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


def _percent(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    low, high = estimate.low, estimate.high
    return f"{estimate.value:.1f}" + ("" if low is None or high is None else f" ± {(high - low) / 2:.1f}")


def _perplexity(estimate: Estimate | None) -> str:
    """exp of the log-loss and of its interval."""
    if estimate is None:
        return "–"
    value, low, high = (math.nan if one is None else math.exp(min(one, 700.0))
                        for one in (estimate.value, estimate.low, estimate.high))  # fmt: skip
    return _short(value, 4) + ("" if math.isnan(high - low) else f" ± {_short((high - low) / 2, 2)}")


def _short(value: float, digits: int) -> str:
    """A number in at most seven characters."""
    if value >= 1e4:
        return f"{value:.{2 if value < 1e10 else 0}e}".replace("e+0", "e").replace("e+", "e")
    return f"{value:.0f}" if value >= 10**digits else f"{value:.{digits}g}"


def _rate(rate: float | None) -> str:
    return "undefined" if rate is None else f"{rate:.1f}"


def title(rows: list[Arm]) -> str:
    """Which trial a table shows: model, method, retain loss, ν, layer and seed; below it what the numbers are."""
    shown = next((row for label in OWN for row in rows if row.label == label), rows[0]).settings
    method, noise, options = shown.method, shown.noise, shown.eval
    said = [shown.model.name, method.label or method.name]
    if method.trains:
        said.append(f"retain loss {shown.retain_loss}")
    if noise.layers:
        said.append(f"ν {noise.nu:g} at layer {', '.join(map(str, noise.layers))}")
    if method.trains:
        said += [f"unlearn layer {shown.layer.unlearn}", f"seed {shown.seed}"]
    unit = "accuracy in %" if options.kind == "choice" else "perplexity (lower is more certain)"
    half = "" if options.split == "all" else f", {options.split} half of the questions"
    return f"{' · '.join(said)}\n{unit}, {options.name}{half}"


def _drawn(heading: str, rows: list[Arm], lines: dict[str, list[str]]) -> "Table":
    """Arms as columns and what was measured as rows: at most five columns, which 80 characters hold."""
    from rich import box
    from rich.table import Table

    made = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
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
    show: Callable[[Estimate | None], str] = _percent if choice else _perplexity
    roles = _choice_roles(rows[0]) if choice else _perplexity_roles(rows[0])
    lines = {said: [show(found.get(role)) for found in by_arm.values()] for role, said in roles.items()}
    if choice and "perturbed" in roles:
        rates = [_rates(label, by_arm) for label in by_arm]
        for place, said in enumerate(("reduction, %", "recovery, %")):
            if any(pair[place] for pair in rates):
                lines[said] = [pair[place] for pair in rates]
    return _drawn(title(rows), rows, lines)


def key(rows: list[Arm]) -> str:
    """What the table's marks and words mean, once."""
    options = rows[0].settings.eval
    by_arm = {row.label: scores(row) for row in rows}
    counted = "questions" if options.kind == "choice" else "documents"
    drawn = any("keywords" in one.over for found in by_arm.values() for one in found.values())
    over = f"the {counted}" + (" and, with a forget-token, its keywords" if drawn else "")
    leans = ", which near 0 and 100 reaches further towards 50" if options.kind == "choice" else ""
    said = [f"± is half the width of a 95 % interval over {over}{leans}; ↑ and ↓: the better way."]
    present = {task.role for task in options.tasks.values()} if options.kind == "choice" else {"perturbed", "neutral"}
    if "perturbed" in present:
        said.append(f"Forget-token: {_keyword(options)}.")
    if "neutral" in present:
        said.append(f"Neutral token: '{options.neutral_keyword}'.")
    if any(_rates(label, by_arm)[0] for label in by_arm):
        said.append(
            "Reduction: what a forget-token takes of the base's accuracy with it; recovery: how much of that the noise "
            "gives back."
        )
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
        said: [_percent(found.get(name)) for found in by_arm.values()]
        for name, said in names.items()
        if any(name in found for found in by_arm.values())
    }
    return _drawn("Retain by the n-gram among the choices\naccuracy in %", rows, lines)


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
    roles = {name: name.replace("_", " ") + " ↓" for name in forget}
    if len(forget) > 1:
        roles["forget"] = "forget mean ↓"
    names = {
        "retain": "retain ↑",
        "neutral": "retain, neutral token ↑",
        "perturbed": "retain, forget-token ↑",
        "related": "forget-related retain ↑",
        "forget_perturbed": "forget, forget-token ↓",
    }
    present = {task.role for task in options.tasks.values()}
    return roles | {role: said for role, said in names.items() if role in present}


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
    if label not in (plain, "with RNA", "smoothed") or "base" not in perturbed or label not in perturbed:
        return ["", ""]
    reduction = _rate(perturb.reduction_rate(perturbed["base"], perturbed[label]))
    if label == plain or plain not in perturbed:
        return [reduction, ""]
    return [reduction, _rate(perturb.recovery_rate(perturbed["base"], perturbed[plain], perturbed[label]))]


CHANCE = 25.0  # percent, of questions with four choices
NEAR_CHANCE = 10.0  # points above it within which a model no longer knows the answers
MORE_PERPLEX = 2.0  # perplexity over the base's from which a text counts as forgotten


@dataclass(frozen=True)
class Forgetting:
    """What a trial did to what it was to forget, and what it cost: changes from the base, in points or nats a token."""

    forget: Estimate
    retain: Estimate | None
    verdict: str  # forgotten | partly forgotten | not forgotten
    said: str


def forgetting(row: Arm, base: Arm) -> Forgetting | None:
    """A row's forget tasks against the base's; None without both, or where they are no numbers of the same unit.

    Forgotten is what the change leaves near chance, or doubles the perplexity of each topic, and partly forgotten what
    it makes worse by more than its 95 % interval.
    """
    found, before = scores(row), scores(base)
    choice = row.settings.eval.kind == "choice"
    parts = _forget(row)
    if row.other_tokens or not parts or any(part not in found or part not in before for part in parts):
        return None
    change = changed(row, base, *parts)
    if change is None:
        return None
    if choice:
        enough, worse = found["forget"].value <= CHANCE + NEAR_CHANCE, -1
        said = f"forget accuracy {found['forget'].value:.1f} against {before['forget'].value:.1f}, {tell(change, row)}"
    else:
        rises = [found[part].value - before[part].value for part in parts]
        enough, worse = all(rise >= math.log(MORE_PERPLEX) for rise in rises), 1
        times, low, high = (_ratio(one) for one in (change.value, change.low, change.high))
        covers = intervals.covers(change, change=True)
        said = f"forget perplexity {times} times the base's [{low}, {high}] ({covers})"
    moved = change.sign == worse
    verdict = "forgotten" if enough and moved else "partly forgotten" if moved else "not forgotten"
    return Forgetting(change, changed(row, base, "retain"), verdict, said)


def tell(change: Estimate, row: Arm) -> str:
    """A difference with its unit and interval."""
    choice = row.settings.eval.kind == "choice"
    return intervals.said(change, 1 if choice else 3, "points" if choice else "nats a token")


def _ratio(change: float | None) -> str:
    """Of perplexities, from the change of the log-loss."""
    return "–" if change is None else f"{math.exp(min(change, 700.0)):.3g}"


def _forget(row: Arm) -> list[str]:
    """The roles whose mean is what was to be forgotten."""
    return ["forget"] if row.settings.eval.kind == "choice" else [f"forget_{one}" for one in row.settings.data.topics]


def verdicts(rows: list[Arm]) -> list[str]:
    """What this trial shows: did it forget, what does a forget-token cost, and does the noise change that.

    A line is left out where its numbers are not there. In brackets are 95 % intervals; the last line says over what.
    """
    by_label = {row.label: row for row in rows if terms(row)}
    noised = "with RNA" if "with RNA" in by_label or "smoothed" not in by_label else "smoothed"
    first = "given" if any(row.label == "given" for row in rows) else "plain"
    base, plain, rna = (by_label.get(label) for label in ("base", first, noised))
    judged = [row for row in (plain, rna) if row is not None]
    lines: list[str] = []
    if told := [(row.label, found) for row in judged if base and (found := forgetting(row, base))]:
        lines.append(f"Did it forget? {'; '.join(f'{label} {found.verdict}: {found.said}' for label, found in told)}.")
    if base and any(row.other_tokens for row in judged):
        lines.append(f"{first} reads other tokens than base: perplexities are per token, so none are compared with it.")
    lines += [line for line in (_cost(judged, base), _contrast(rna, plain)) if line]
    return [*_once(lines), *(line for row in rows if lines and (line := _by_keyword(row)))]


def _cost(judged: list[Arm], base: Arm | None) -> str:
    """What a forget-token does beyond a neutral one and beyond what it does to the base; or each arm's own difference
    between the score with it and with a neutral one, or without any, where there is no such base."""
    changes = [(row, told) for row in judged if base and (told := harm(row, base))]
    how = "Retain with it less retain with a neutral one, against the same in base"
    if not changes:
        arms = [*([base] if base else []), *judged]
        against = "neutral" if any("neutral" in terms(row) for row in arms) else "retain"
        how = "Retain with it less retain " + ("with a neutral one" if against == "neutral" else "without")
        pairs = [(row, terms(row).get("perturbed"), terms(row).get(against)) for row in arms]
        changes = [(row, told) for row, one, other in pairs if (told := _change([one], [other]))]
    words = {-1: "a cost", 0: "none seen", 1: "a gain"}
    turned = [(row, change, change.sign * _better(row)) for row, change in changes]
    told = "; ".join(f"{row.label} {tell(change, row)}, {words[sign]}" for row, change, sign in turned)
    return f"What does a forget-token cost? {how}: {told}." if told else ""


def _better(row: Arm) -> int:
    """The sign of a change for the better."""
    return 1 if row.settings.eval.kind == "choice" else -1


def _contrast(rna: Arm | None, plain: Arm | None) -> str:
    """What the noise changes; where both do not forget alike, that is no comparison of robustness."""
    if rna is None or plain is None:
        return ""
    name = "RNA" if rna.label == "with RNA" else "noise at inference"
    words = {1: "higher", 0: "no difference seen", -1: "lower"}
    perturbed, forget = changed(rna, plain, "perturbed"), changed(rna, plain, *_forget(rna))
    told = [
        f"{what} {tell(change, rna)}, {words[change.sign]}"
        for what, change in (("retain with a forget-token", perturbed), ("forget", forget))
        if change is not None
    ]
    if forget is not None and forget.sign != 0:
        told.append("the two do not forget alike: compare along α")
    asked = f"Does {name} change that, at equal forgetting? {rna.label[0].upper()}{rna.label[1:]} less {plain.label}: "
    return f"{asked}{'; '.join(told)}." if told else ""


def _once(lines: list[str]) -> list[str]:
    """What most intervals are over is told once, below the lines; of the others each says so itself."""
    found = Counter(re.findall(r" \((95 % over [^()]*)\)", "\n".join(lines)))
    if not found:
        return lines
    ((usual, _),) = found.most_common(1)
    unless = ", where nothing else is said" if len(found) > 1 else ""
    return [*(line.replace(f" ({usual})", "") for line in lines), f"In brackets: {usual}{unless}."]


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
