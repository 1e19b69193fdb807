"""A trial's table for a person: scores with 95 % intervals, rates, and what they do and do not show."""

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


NARROWEST = 80  # characters that a table takes; a narrower terminal breaks its lines, and no number is left out
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
    return "–" if estimate is None else f"{estimate.value:.1f} ± {estimate.margin:.1f}"


def _perplexity(estimate: Estimate | None) -> str:
    """exp of the log-loss, with half the interval that follows from it."""
    if estimate is None:
        return "–"
    value = math.exp(min(estimate.value, 700.0))
    return f"{_short(value, 4)} ± {_short(value * estimate.margin, 2)}"


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
    counted = "questions" if options.kind == "choice" else "documents"
    said = [f"± is half a 95 % interval over the {counted}; ↑ and ↓: the better way."]
    present = {task.role for task in options.tasks.values()} if options.kind == "choice" else {"perturbed", "neutral"}
    if "perturbed" in present:
        said.append(f"Forget-token: '{options.keyword}'.")
    if "neutral" in present:
        said.append(f"Neutral token: '{options.neutral_keyword}'.")
    if any(all(_rates(row.label, {one.label: scores(one) for one in rows})[:1]) for row in rows):
        said.append(
            "Reduction: what a forget-token takes of the base's accuracy with it; recovery: how much of that the noise "
            "gives back."
        )
    return " ".join(said)


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
        said.append(f"{row.label} {100 * _number(without):.1f} (with: {100 * _number(within):.1f})")
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


OWN = ("with RNA", "smoothed", "plain", "given")  # the arms of a trial, its own first


def verdicts(rows: list[Arm]) -> list[str]:
    """What this trial shows: did it forget, what does a forget-token cost, and does the noise change that.

    A line is left out where its numbers are not there; intervals are of 95 %, over questions or documents.
    """
    by_label = {row.label: row for row in rows}
    by_arm = {row.label: found for row in rows if (found := scores(row))}
    plain = "given" if "given" in by_label else "plain"
    noised = "with RNA" if "with RNA" in by_arm or "smoothed" not in by_arm else "smoothed"
    judged = [by_label[label] for label in (plain, noised) if label in by_arm]
    lines: list[str] = []
    told = [(row.label, found) for row in judged if "base" in by_label and (found := forgetting(row, by_label["base"]))]
    if told:
        lines.append(f"Did it forget? {'; '.join(f'{label} {found.verdict}: {found.said}' for label, found in told)}.")
    if "base" in by_label and any(row.other_tokens for row in judged):
        lines.append(f"{plain} reads other tokens than base: perplexities are per token, so none are compared with it.")
    choice = rows[0].settings.eval.kind == "choice"
    if (cost := _costs({label: by_arm[label] for label in ("base", plain, noised) if label in by_arm}, choice)) != "":
        lines.append(cost)
    if plain in by_arm and noised in by_arm and (change := _change(by_arm, noised, plain, choice)):
        lines.append(f"{change}.")
    return lines


def _difference(one: Scores, role: str, other: Scores, against: str) -> Estimate | None:
    found = one[role].minus(other[against]) if role in one and against in other else None
    return None if found is None or math.isnan(found.value) else found


def _said(change: Estimate, choice: bool) -> str:
    digits = 1 if choice else 3
    return f"{change.value:+.{digits}f} ± {change.margin:.{digits}f}"


def _costs(by_arm: dict[str, Scores], choice: bool) -> str:
    """By arm the score with the forget-token less that with the neutral one in its place, or less that without any."""
    against = "neutral" if any("neutral" in found for found in by_arm.values()) else "retain"
    told = [
        f"{label} {_said(change, choice)}"
        for label, found in by_arm.items()
        if (change := _difference(found, "perturbed", found, against))
    ]
    unit = "points of retain accuracy" if choice else "nats a token"
    beside = "beside a neutral token" if against == "neutral" else "beside none"
    return f"What does a forget-token cost? In {unit}, {beside}: {', '.join(told)}." if told else ""


def _change(by_arm: dict[str, Scores], noised: str, plain: str, choice: bool) -> str:
    """What the noise changes; where both do not forget alike, that is no comparison of robustness."""
    name, unit = "RNA" if noised == "with RNA" else "noise at inference", "points" if choice else "nats a token"
    seen = {1: "higher", 0: "no difference seen", -1: "lower"}
    perturbed, forget = (_difference(by_arm[noised], role, by_arm[plain], role) for role in ("perturbed", "forget"))
    told = [
        f"{what} {_said(change, choice)} {unit}, {seen[change.sign]}"
        for what, change in (("retain with a forget-token", perturbed), ("forget", forget))
        if change is not None
    ]
    if forget is not None and forget.sign != 0:
        told.append("the two do not forget alike: compare along α")
    asked = f"Does {name} change that, at equal forgetting? {noised[0].upper()}{noised[1:]} less {plain}: "
    return asked + "; ".join(told) if told else ""
