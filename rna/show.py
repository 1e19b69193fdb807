"""A trial's table for a person: accuracies with standard errors, rates, and what they do and do not show."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rna import perturb
from rna.quantiles import Z_95
from rna.trial import Arm

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error."""

    value: float
    stderr: float

    def minus(self, other: "Estimate") -> "Estimate":
        """The difference, taking the two as independent (they share questions, so this is cautious)."""
        return Estimate(self.value - other.value, math.hypot(self.stderr, other.stderr))

    @property
    def margin(self) -> float:
        """Half the width of the 95 % interval."""
        return Z_95 * self.stderr

    @property
    def sign(self) -> int:
        """1 or −1 where the 95 % interval leaves out zero, else 0."""
        return int(math.copysign(1, self.value)) if abs(self.value) > self.margin else 0


def mean(estimates: list[Estimate]) -> Estimate:
    """The unweighted mean, its parts independent."""
    count = len(estimates)
    return Estimate(
        sum(item.value for item in estimates) / count, math.hypot(*(item.stderr for item in estimates)) / count
    )


Scores = dict[str, Estimate]  # role (`forget`, `forget_bio`, `retain`, `perturbed`, …) -> estimate


def _number(value: float | None) -> float:
    """A record's number; what was not finite is None there."""
    return math.nan if value is None else value


def scores(row: Arm) -> Scores:
    """An arm's estimates by role and task: accuracies in percent, or log-losses in nats a token.

    Where several tasks have one role, it holds their mean.
    """
    if row.settings.eval.kind == "perplexity":
        metrics = row.evaluated["perplexity"]["metrics"] if row.evaluated else {}
        return {
            part: Estimate(_number(values["nll"]), _number(values["nll_stderr"])) for part, values in metrics.items()
        }
    found: Scores = {}
    by_role: dict[str, list[Estimate]] = {}
    for name, record in row.evaluated.items():
        metrics, role = record["metrics"], row.settings.eval.tasks[name].role
        if row.settings.eval.split != "all":
            metrics = metrics.get(row.settings.eval.split, {"acc": None, "acc_stderr": None})
        found[name] = Estimate(100 * _number(metrics["acc"]), 100 * _number(metrics["acc_stderr"]))
        by_role.setdefault(role, []).append(found[name])
    return found | {role: mean(estimates) for role, estimates in by_role.items()}


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
    names = {"neutral": f"'{options.neutral_keyword}' (neutral control)", "perturbed": f"'{options.keyword}'"}
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


def _choice_columns(row: Arm) -> dict[str, str]:
    """Role -> the column's title, in reading order."""
    options = row.settings.eval
    forget = [name for name, task in options.tasks.items() if task.role == "forget"]
    columns = {name: name.replace("_", " ") + " ↓" for name in forget}
    if len(forget) > 1:
        columns["forget"] = "forget mean ↓"
    titles = {
        "retain": "retain ↑",
        "perturbed": f"retain with '{options.keyword}' ↑",
        "neutral": f"retain with '{options.neutral_keyword}'",
        "related": "forget-related retain ↑",
        "forget_perturbed": f"forget with '{options.keyword}' ↓",
    }
    present = {task.role for task in options.tasks.values()}
    return columns | {role: title for role, title in titles.items() if role in present}


def _perplexity_columns(row: Arm) -> dict[str, str]:
    options = row.settings.eval
    return {
        **{f"forget_{topic}": f"forget {topic} ↑" for topic in row.settings.data.topics},
        "retain": "retain ↓",
        "retain_after": "retain, same tokens",
        "perturbed": f"behind '{options.keyword}' ↓",
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
    parts = ["forget"] if choice else [f"forget_{topic}" for topic in row.settings.data.topics]
    if row.other_tokens or not parts or any(part not in found or part not in before for part in parts):
        return None
    changes = [found[part].minus(before[part]) for part in parts]
    change = mean(changes)
    if math.isnan(change.value):
        return None
    if choice:
        enough, worse = found["forget"].value <= CHANCE + NEAR_CHANCE, -1
        said = (
            f"forget accuracy {found['forget'].value:.1f} against {before['forget'].value:.1f} "
            f"({change.value:+.1f} ± {change.margin:.1f} points)"
        )
    else:
        enough, worse = all(one.value >= math.log(MORE_PERPLEX) for one in changes), 1
        times, low, high = (_ratio(change.value + side * change.margin) for side in (0, -1, 1))
        said = f"forget perplexity {times} times the base's ({low} to {high})"
    changed = change.sign == worse
    verdict = "forgotten" if enough and changed else "partly forgotten" if changed else "not forgotten"
    kept = found["retain"].minus(before["retain"]) if "retain" in found and "retain" in before else None
    return Forgetting(change, kept, verdict, said)


def _ratio(change: float) -> str:
    """Of perplexities, from the change of the log-loss."""
    return "–" if math.isnan(change) else f"{math.exp(min(change, 700.0)):.3g}"


def verdicts(rows: list[Arm]) -> list[str]:
    """What the table shows and what it does not, in plain words, with 95 % intervals over questions."""
    by_arm = {row.label: scores(row) for row in rows}
    name = "with RNA" if "with RNA" in by_arm or "smoothed" not in by_arm else "smoothed"
    first = "given" if "given" in by_arm else "plain"
    base, plain, rna = (by_arm.get(label, {}) for label in ("base", first, name))
    noise = "RNA" if name == "with RNA" else "noise at inference"
    choice = rows[0].settings.eval.kind == "choice"
    unit = "points" if choice else "nats a token"
    worse = -1 if choice else 1  # the sign of a change for the worse

    def difference(one: Scores, other: Scores) -> Estimate | None:
        found = one["perturbed"].minus(other["perturbed"]) if "perturbed" in one and "perturbed" in other else None
        return None if found is None or math.isnan(found.value) else found

    def said(change: Estimate) -> str:
        digits = 1 if choice else 3
        return f"{change.value:+.{digits}f} ± {change.margin:.{digits}f} {unit}"

    lines: list[str] = []
    by_label = {row.label: row for row in rows}
    judged = [by_label[label] for label in (first, name) if by_arm.get(label) and "base" in by_label]
    found = [(row.label, told) for row in judged if (told := forgetting(row, by_label["base"]))]
    if found:
        lines.append(f"Against base, {'; '.join(f'{label} {told.verdict}: {told.said}' for label, told in found)}.")
    apart = any(row.other_tokens for row in judged)
    if apart:
        lines.append(f"{first} reads other tokens than base: perplexities are per token, so none are compared with it.")
    if (change := difference(plain, base)) is not None and not apart:
        words = {worse: "a forget-token harms it", 0: "no evidence of harm", -worse: "it does better than base"}
        lines.append(f"Perturbed retain, {first} against base: {said(change)}: {words[change.sign]}.")
    if (change := difference(rna, plain)) is not None:
        words = {worse: f"{noise} hurts here", 0: f"no evidence that {noise} helps", -worse: f"{noise} helps"}
        lines.append(f"Perturbed retain, {noise} against {first}: {said(change)}: {words[change.sign]}.")
    if rna.get("forget") and plain.get("forget"):
        change = rna["forget"].minus(plain["forget"])
        words = {-1: f"{noise} forgets more", 0: "no evidence of a difference", 1: f"{noise} forgets less"}
        lines.append(f"Forget, {noise} against {first}: {said(change)}: {words[change.sign]}.")
    if lines:
        counted = "questions" if choice else "documents"
        lines.append(f"(± half a 95 % interval over {counted}; one seed, so nothing here speaks of other seeds.)")
    return lines
