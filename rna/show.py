"""A trial's table for a person: accuracies with standard errors, rates, and what they do and do not show."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rna import intervals, perturb
from rna.intervals import Estimate as Change
from rna.intervals import Score, Terms, scores_of
from rna.settings import EvalSettings
from rna.trial import Arm

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error."""

    value: float
    stderr: float


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
    """An arm's estimates by role and task, with standard errors of independent tasks."""
    return {
        name: Estimate(
            sum(weight * score.value for weight, score in of),
            math.hypot(*(weight * score.stderr for weight, score in of)),
        )
        for name, of in terms(row).items()
    }


def changed(row: Arm, other: Arm, *roles: str) -> Change | None:
    """How much one arm differs from another, on the mean of the roles, with its 95 % interval; None where neither can
    be told."""
    return _change([terms(row).get(role) for role in roles], [terms(other).get(role) for role in roles])


def harm(row: Arm, base: Arm) -> Change | None:
    """What the forget keyword does to an arm beyond a neutral one, and beyond what it does to the base."""
    parts = [terms(one).get(role) for one in (row, base) for role in ("perturbed", "neutral")]
    if row.other_tokens or any(part is None for part in parts):
        return None
    made = intervals.estimate([intervals.harm(*(part or [] for part in parts))])
    return None if math.isnan(made.value) else made


def _change(one: Sequence[Terms | None], other: Sequence[Terms | None]) -> Change | None:
    if not one or any(part is None for part in (*one, *other)):
        return None
    both = [
        (weight / len(one), score)
        for mine, its in zip(one, other, strict=True)
        for weight, score in intervals.difference(mine or [], its or [])
    ]
    made = intervals.estimate([both])
    return None if math.isnan(made.value) else made


def _number(value: float | None) -> float:
    """A record's number; what was not finite is None there."""
    return math.nan if value is None else value


def _percent(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:.1f} ± {estimate.stderr:.1f}"


def _perplexity(estimate: Estimate | None) -> str:
    """exp of the log-loss, with the standard error that follows from it."""
    if estimate is None:
        return "–"
    value = math.exp(min(estimate.value, 700.0))
    return f"{value:.4g} ± {value * estimate.stderr:.2g}"


def _rate(rate: float | None) -> str:
    return "undefined" if rate is None else f"{rate:.1f} %"


def table(rows: list[Arm]) -> "Table":
    """Rows as arms, a column for each role, and reduction and recovery rates on the perturbed task."""
    from rich.table import Table

    options = rows[0].settings.eval
    by_arm = {row.label: scores(row) for row in rows}
    choice = options.kind == "choice"
    columns = _choice_columns(rows[0]) if choice else _perplexity_columns(rows[0])
    show: Callable[[Estimate | None], str] = _percent if choice else _perplexity
    unit = "accuracy in %" if choice else "perplexity (lower is more certain)"
    half = "" if options.split == "all" else f" · {options.split} half"
    made = Table(title=f"{rows[0].settings.model.name} · {options.name}{half} · {unit} ± standard error")
    for title in ("", *columns.values(), *(("reduction", "recovery") if choice else ())):
        made.add_column(title, justify="right" if title else "left", overflow="fold", no_wrap=not title)
    for row in rows:
        found = by_arm[row.label]
        cells = [show(found.get(role)) for role in columns]
        if choice:
            cells += _rates(row.label, by_arm)
        made.add_row(row.label, *cells)
    return made


def ngram_table(rows: list[Arm]) -> "Table | None":
    """Retain accuracy by the n-grams among the choices, the neutral keyword above them; None without such tasks."""
    from rich.table import Table

    options = rows[0].settings.eval
    tasks = {name: task for name, task in options.tasks.items() if task.role == "ngram"}
    if not tasks or options.kind != "choice":
        return None
    by_arm = {row.label: scores(row) for row in rows}
    made = Table(title="Retain by the n-gram among the choices · accuracy in % ± standard error")
    made.add_column("")
    for label in by_arm:
        made.add_column(label, justify="right")
    names = {"neutral": f"'{options.neutral_keyword}' (neutral control)", "perturbed": _keyword(options)}
    names |= {name: f"n = {task.n}, {task.group} similarity" for name, task in tasks.items()}
    for name, title in names.items():
        if any(name in found for found in by_arm.values()):
            made.add_row(title, *(_percent(found.get(name)) for found in by_arm.values()))
    return made


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
        said.append(f"{row.label} {100 * _number(without):.1f} (with: {100 * _number(within):.1f})")
    if not said:
        return None
    return (
        f"{count} of {total:,} questions have 'all of the above' or the like as their right answer; perturbed without "
        f"them: {', '.join(said)}."
    )


def _keyword(options: EvalSettings) -> str:
    """What stands in for a choice, or in a text."""
    words = perturb.read_keywords(options.keywords, options.keyword)
    return f"'{words[0]}'" if len(words) == 1 else f"one of {len(words)} keywords"


def _choice_columns(row: Arm) -> dict[str, str]:
    """Role -> the column's title, in reading order."""
    options = row.settings.eval
    forget = [name for name, task in options.tasks.items() if task.role == "forget"]
    columns = {name: name.replace("_", " ") + " ↓" for name in forget}
    if len(forget) > 1:
        columns["forget"] = "forget mean ↓"
    titles = {
        "retain": "retain ↑",
        "perturbed": f"retain with {_keyword(options)} ↑",
        "neutral": f"retain with '{options.neutral_keyword}'",
        "related": "forget-related retain ↑",
        "forget_perturbed": f"forget with {_keyword(options)} ↓",
    }
    present = {task.role for task in options.tasks.values()}
    return columns | {role: title for role, title in titles.items() if role in present}


def _perplexity_columns(row: Arm) -> dict[str, str]:
    options = row.settings.eval
    return {
        **{f"forget_{topic}": f"forget {topic} ↑" for topic in row.settings.data.topics},
        "retain": "retain ↓",
        "retain_after": "retain, same tokens",
        "perturbed": f"behind {_keyword(options)} ↓",
        "neutral": f"behind '{options.neutral_keyword}'",
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

    forget: Change
    retain: Change | None
    verdict: str  # forgotten | partly forgotten | not forgotten
    said: str


def forgetting(row: Arm, base: Arm) -> Forgetting | None:
    """A row's forget tasks against the base's; None without both, or where they are no numbers of the same unit.

    Forgotten is what the change leaves near chance, or doubles the perplexity of each topic, and partly forgotten what
    it makes worse by more than its 95 % interval.
    """
    found, before = scores(row), scores(base)
    choice = row.settings.eval.kind == "choice"
    parts = ["forget"] if choice else [f"forget_{topic}" for topic in row.settings.data.topics]
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


def tell(change: Change, row: Arm) -> str:
    """A difference with its unit and interval."""
    choice = row.settings.eval.kind == "choice"
    return intervals.said(change, 1 if choice else 3, "points" if choice else "nats a token")


def _ratio(change: float | None) -> str:
    """Of perplexities, from the change of the log-loss."""
    return "–" if change is None else f"{math.exp(min(change, 700.0)):.3g}"


def verdicts(rows: list[Arm]) -> list[str]:
    """What the table shows and what it does not, in plain words, each with a 95 % interval and what that is over."""
    by_label = {row.label: row for row in rows if terms(row)}
    name = "with RNA" if "with RNA" in by_label or "smoothed" not in by_label else "smoothed"
    first = "given" if "given" in by_label else "plain"
    base, plain, rna = (by_label.get(label) for label in ("base", first, name))
    noise = "RNA" if name == "with RNA" else "noise at inference"
    worse = -1 if rows[0].settings.eval.kind == "choice" else 1  # the sign of a change for the worse
    lines: list[str] = []
    judged = [row for row in (plain, rna) if row is not None and base is not None]
    found = [(row.label, told) for row in judged if base and (told := forgetting(row, base))]
    if found:
        lines.append(f"Against base, {'; '.join(f'{label} {told.verdict}: {told.said}' for label, told in found)}.")
    apart = any(row.other_tokens for row in judged)
    if apart:
        lines.append(f"{first} reads other tokens than base: perplexities are per token, so none are compared with it.")
    harms = [(row, told) for row in judged if base and (told := harm(row, base))]
    if plain and base and not apart and (change := changed(plain, base, "perturbed")):
        words = {worse: "a forget-token harms it", 0: "no evidence of harm", -worse: "it does better than base"}
        if harms:
            words = {worse: "it does worse than base", 0: "no evidence of a change", -worse: "it does better than base"}
        lines.append(f"Perturbed retain, {first} against base: {tell(change, plain)}: {words[change.sign]}.")
    words = {worse: "a forget-token harms it", 0: "no evidence of harm", -worse: "a forget-token helps it"}
    lines += [f"{intervals.HARM}, {row.label}: {tell(told, row)}: {words[told.sign]}." for row, told in harms]
    if plain and rna and (change := changed(rna, plain, "perturbed")):
        words = {worse: f"{noise} hurts here", 0: f"no evidence that {noise} helps", -worse: f"{noise} helps"}
        lines.append(f"Perturbed retain, {noise} against {first}: {tell(change, rna)}: {words[change.sign]}.")
    if plain and rna and (change := changed(rna, plain, "forget")):
        words = {-1: f"{noise} forgets more", 0: "no evidence of a difference", 1: f"{noise} forgets less"}
        lines.append(f"Forget, {noise} against {first}: {tell(change, rna)}: {words[change.sign]}.")
    if lines:
        lines += [line for row in rows if (line := _by_keyword(row))]
        lines.append("(One seed: an interval over questions or documents says nothing of other seeds.)")
    return lines


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
        f"'{word}' {100 * _number(one['acc']):.1f} of {one['n']}" if choice else f"'{word}' {_number(one['ppl']):.4g}"
        for word, one in by_word.items()
    ]
    return f"By keyword, {row.label}: {', '.join(cells)}." if cells else None
