"""What the records say of each method, in words: did it forget, what does a forget-token cost, does RNA change that."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rna import intervals
from rna.intervals import Estimate, Terms, answers
from rna.report import compare
from rna.report.compare import Chosen, Comparison, Condition, Stopped, TradeOff
from rna.report.records import Study, Trial

UNLIKE, NOT_COMPARED = "do not forget alike", "not compared"


@dataclass
class Verdict:
    """What the records say of one method: an answer to each question, and a word for the last."""

    method: str
    word: str  # higher, lower, no difference seen, no interval; do not forget alike; not compared
    sentences: list[str]
    seeds: int = 0  # shared by plain and RNA
    change: Estimate | None = None  # RNA − plain on retain with a forget-token, at matched forgetting where known
    matched: bool = False
    comparison: Comparison | None = None
    costs: dict[str, Estimate] = field(default_factory=dict)  # by arm, what a forget-token does against the base
    forgot: bool = True  # False: at least one arm did not, so that there is nothing to be robust of


def every(study: Study) -> list[Verdict]:
    """One verdict for each method of the study."""
    curves = compare.trade_offs(study)
    return [_verdict(study, method, pick, curves) for method, pick in compare.picks(study).items()]


def _verdict(study: Study, method: str, pick: Chosen | None, curves: Sequence[TradeOff]) -> Verdict:
    if pick is None:
        row = compare.alone(study, method)
        rows = {"with RNA" if row.first.arm == "rna" else "plain": row}
    else:
        rows = {"plain": pick.comparison.plain, "with RNA": pick.comparison.rna}
    costs = {label: made for label, row in rows.items() if (made := compare.harm(study, row)) is not None}
    told = _forgot(study, rows)
    asked = f"{answers.FORGOT} {'; '.join(f'{label} {how}' for label, how in told.items())}." if told else ""
    forgot = not any(how.startswith(answers.NOT_FORGOTTEN) for how in told.values())
    lines = [line for line in (asked, _cost(study, rows, costs)) if line]
    if pick is None or "perturbed" not in pick.comparison.changes:
        lines += [f"{answers.CHANGES} No trial with RNA has a plain twin on the same seed."]
        return Verdict(method, NOT_COMPARED, answers.once(lines), costs=costs, forgot=forgot)
    item = pick.comparison
    change, forget = item.changes["perturbed"], item.changes.get("forget")
    moves = [
        f"{what} {said(one, study)}, {answers.word(one)}"
        for what, one in ((answers.PERTURBED, change), ("forget", forget))
        if one is not None
    ]
    noise = item.rna.first.config["noise"]
    mine = [curve for curve in curves if curve.method == method and "perturbed" in curve.results]
    same = [curve for curve in mine if curve.rna[0].config["noise"] == noise] or mine
    target = _with_twin(study, item)
    unlike = forget is not None and forget.sign != 0
    if unlike and not same and target is None:
        moves.append(answers.UNLIKE)
    lines.append(f"{answers.CHANGES} With RNA less plain (ν = {item.rna.first.nu:g}, {pick.how}): {'; '.join(moves)}.")
    word = UNLIKE if unlike else answers.word(change)
    if target is not None:
        lines.append(_at_target(study, target))
        if "perturbed" not in target.changes:
            return Verdict(method, UNLIKE, answers.once(lines), len(item.seeds), change, False, item, costs, forgot)
        change, seeds = target.changes["perturbed"], len(target.pairs)
        return Verdict(method, answers.word(change), answers.once(lines), seeds, change, True, item, costs, forgot)
    if same:
        result = same[0].results["perturbed"]
        change, word = result.mean, answers.word(result.mean)
        lines.append(
            f"At matched forgetting (ν = {same[0].nu:g}, forget from {result.low:.1f} to {result.high:.1f}): "
            f"{answers.PERTURBED} {said(change, study)}, {word}."
        )
    return Verdict(method, word, answers.once(lines), len(item.seeds), change, bool(same), item, costs, forgot)


def _with_twin(study: Study, item: Comparison) -> Stopped | None:
    """A comparison at equal hyperparameters once more at the target that both were trained to; None without one."""

    def apart_from_seeds(*rows: Condition) -> list[str]:
        return [row.first.without("seed", "train.steps") for row in rows]

    wanted = apart_from_seeds(item.rna, item.plain)
    return next((one for one in compare.stopped(study) if apart_from_seeds(one.other, one.plain) == wanted), None)


def _at_target(study: Study, item: Stopped) -> str:
    """What the pairs that are matched say, and why others are not."""
    half = "" if item.part == "all" else f", {item.part} half"
    why = "; ".join(f"{len(seeds)} {reason}" for reason, seeds in item.left_out.items())
    begun = f"Stopped at one target, {len(item.pairs)} of {item.count} pairs are matched" + (f" ({why})" if why else "")
    told = [
        f"{what} {said(item.changes[name], study)}"
        + (f", {answers.word(item.changes[name])}" if name != "forget" else "")
        for what, name in (("forget", "forget"), (answers.PERTURBED, "perturbed"))
        if name in item.changes
    ]
    return f"{begun}{half if told else ''}" + (f": {'; '.join(told)}." if told else ".")


def _forgot(study: Study, rows: dict[str, Condition]) -> dict[str, str]:
    """By arm, whether it forgot, against the base."""
    base = study.references.get("base")
    told: dict[str, str] = {}
    if base is None:
        return told
    for label, row in rows.items():
        before, after = Condition([base]).estimate(study, "forget"), row.estimate(study, "forget")
        change = compare.against_base(study, row).get("forget")
        if before is None or after is None or change is None:
            continue
        if study.kind == "choice":
            told[label] = answers.forgot(after.value, before.value, change)
        else:
            told[label] = answers.forgot_text(_rises(study, row, base), change)
    return told


def _rises(study: Study, row: Condition, base: Trial) -> list[float]:
    """By topic, the rise of its log-loss over the base's, a mean over seeds."""
    before = base.scores("forget", study.part)
    after = [trial.scores("forget", study.part) for trial in row.trials]
    known = [one for one in after if one.keys() == before.keys()]
    return [sum(one[task].value for one in known) / len(known) - before[task].value for task in before if known]


def _cost(study: Study, rows: dict[str, Condition], costs: dict[str, Estimate]) -> str:
    """What a forget-token does beyond a neutral one and the base; without these, each arm's own difference."""
    how = answers.AGAINST_BASE
    if not costs:
        against = "neutral" if study.has("neutral") else "retain"
        how = answers.against(against == "neutral")
        pairs = {label: [_within(study, trial, against) for trial in row.trials] for label, row in rows.items()}
        known = {label: [terms for terms in found if terms] for label, found in pairs.items()}
        costs = {label: intervals.estimate(found) for label, found in known.items() if found}
    told = [f"{label} {said(one, study)}, {answers.COSTS[one.sign * study.better]}" for label, one in costs.items()]
    return f"{answers.COST} {how}: {'; '.join(told)}." if told else ""


def _within(study: Study, trial: Trial, against: str) -> Terms:
    """A trial's score with a forget-token less one without."""
    one, other = (list(trial.scores(name, study.part).values()) for name in ("perturbed", against))
    return intervals.difference(intervals.mean(one), intervals.mean(other)) if one and other else []


ENDS = {UNLIKE: "but plain and RNA do not forget alike, so this compares no robustness yet"}


def headline(study: Study, found: Sequence[Verdict]) -> str:
    """The study's answer in a sentence, with its number."""
    known = [(item, item.change) for item in found if item.change is not None]
    costs = [(item.method, one) for item in found for one in list(item.costs.values())[:1]]
    if not known:
        if costs:
            moved = said(costs[0][1], study) if len(costs) == 1 else _span(costs, study)
            who = f" of {costs[0][0]}" if len(costs) == 1 else ""
            return f"A forget-token moves retain{who} by {moved}; no trial with RNA yet."
        return "Nothing to compare yet: no method was run both plain and with RNA."
    where = "at matched forgetting, " if all(item.matched for item, _ in known) else ""
    if len(known) == 1:
        (item, change), *_ = known
        shows = "this trial shows that " if item.seeds == 1 else ""
        word = f"{ENDS.get(item.word, item.word)}."
        start = f"{item.method}: {shows}{where}with RNA, {answers.PERTURBED} moves by {said(change, study)}"
        return f"{start}: {word}" + ("" if item.forgot else " But it has not forgotten.")
    moved = _span([(item.method, change) for item, change in known], study)
    counted = [
        f"{word} in {sum(item.word == word for item, _ in known)}" for word in ("higher", "lower", answers.MOVES[0])
    ]
    unlike, kept = (sum(one) for one in zip(*((i.word == UNLIKE, not i.forgot) for i, _ in known), strict=True))
    counted += [f"{unlike} {'do' if unlike > 1 else 'does'} not forget as plain does"] if unlike else []
    start = f"{where}with RNA, {answers.PERTURBED} moves by {moved}"
    seed = ", each on one seed" if all(item.seeds == 1 for item, _ in known) else ""
    but = f" But {kept} {'have' if kept > 1 else 'has'} not forgotten." if kept else ""
    return f"{start[0].upper()}{start[1:]}; of {len(known)} methods{seed}, {', '.join(counted)}.{but}"


def _span(changes: Sequence[tuple[str, Estimate]], study: Study) -> str:
    """The least and the largest of several changes, with their methods."""
    digits, unit = study.digits, study.difference
    least, most = (way(changes, key=lambda item: item[1].value) for way in (min, max))
    low, high = (f"{one.value:+.{digits}f}".replace("-", "−") for _, one in (least, most))
    return f"{low} ({least[0]}) to {high} {unit} ({most[0]})"


def said(change: Estimate, study: Study) -> str:
    """A difference in words: value, unit, interval and what the interval is over."""
    return answers.tell(change, choice=study.kind == "choice")
