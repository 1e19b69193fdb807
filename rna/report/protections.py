"""Everything that claims to protect what is retained, each beside plain where both have forgotten alike.

A group is a method's trainings to one target, alike in all that `compare.UNLIKE_PLAIN` does not name. Its plain row is
the plain one with the smallest α; each kind of protection, a heavier α among them, has one row, which is the setting
with the best perturbed score on the select half, shown on the report half. Scores are accuracies, or log-losses, of
which less is better.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rna import intervals
from rna.intervals import Estimate, Terms
from rna.report import compare
from rna.report.compare import Condition, Stopped
from rna.report.reading import ON_THE_WAY
from rna.report.records import Study, Trial
from rna.settings import DEFENCES, roles

PLAIN, RNA, PLACEBO = "plain", "RNA", "placebo"
HEAVIER = "heavier α"
ALPHAS = {1: HEAVIER, -1: "lighter α", 0: "another α"}  # than plain's, by its mean over topics
LABELS = {  # as their classes call them, which a report, that needs no torch, does not load
    "placebo": PLACEBO,
    "splice": "splices",
    "harmful": "harm-weighted splices",
    "soft": "soft tokens",
    "adversarial": "adversarial soft tokens",
    "scope": "scope",
    "mixed": "mixed prompts",
    "sam": "SAM",
    "rare": "rare-token weights",
}
ORDER = (RNA, "relative noise", *ALPHAS.values(), *LABELS.values())
POSITIONS = {"perturbed": "among choices", "prefix": "in front", "inside": "inside"}  # of the forget keyword
IN_TEXT = {"perturbed": "within the text"}  # of plain text, which has no choices
AND = " and "


@dataclass
class Row:
    """One kind of protection, by the setting that stands for it, beside the group's plain one."""

    kind: str
    setting: str
    beside: Stopped
    tried: int  # settings of its kind
    values: list[float]  # protected − plain on perturbed retain, by pair
    removed: dict[str, Estimate | None]  # position -> percent of plain's harm; None: plain's is not above zero
    raw_p: float | None  # None: of one seed, or of seeds that agree
    p: float | None = None  # after Holm, of all rows of the page
    placebo: Estimate | None = None  # perturbed accuracy above the placebo's
    crossing: Estimate | None = None  # protected − plain where their courses cross the target, over seeds
    beyond: Estimate | None = None  # the same, its − a heavier α's

    @property
    def trials(self) -> list[Trial]:
        """Those that are compared; where none is, all of its setting."""
        return [one for one, _ in self.beside.pairs] or self.beside.other.trials

    @property
    def change(self) -> Estimate | None:
        return self.beside.changes.get("perturbed")

    @property
    def more(self) -> int:
        """Of the seeds on which both reached the target and are not matched, those on which it forgot more."""
        twins = {trial.seed: trial for trial in self.beside.plain.trials}
        matched = {trial.seed for trial, _ in self.beside.pairs}
        both = [(one, twins[one.seed]) for one in self.beside.other.trials if one.seed in twins.keys() - matched]
        gaps = [_gap(*pair, self.beside.part) for pair in both if all(trial.reached for trial in pair)]
        return sum(gap < 0 for gap in gaps)

    @property
    def name(self) -> str:
        return f"{self.kind} ({self.setting})" if self.setting else self.kind


@dataclass
class Group:
    """A method's plain trainings to a target, and what was done beside them."""

    study: Study  # on the half that is shown
    title: str
    plain: Condition
    alphas: list[str]  # of its plain conditions, the smallest first
    rows: list[Row] = field(default_factory=list)

    @property
    def method(self) -> str:
        return self.plain.first.method

    @property
    def there(self) -> list[Trial]:
        """The plain trials that reached the target."""
        return [trial for trial in self.plain.trials if trial.reached]


def groups(study: Study) -> list[Group]:
    """The groups of a study in which something protects, in the paper's order of methods."""
    shown = study.reported if study.halved else study
    families: dict[str, list[Condition]] = {}
    for condition in compare.to_target(shown):
        families.setdefault(condition.first.without(*compare.UNLIKE_PLAIN), []).append(condition)
    found: list[Group] = []
    for conditions in families.values():
        bare = sorted((one for one in conditions if one.first.bare), key=lambda one: _weight(one.first))
        if bare and len(conditions) > 1:
            group = Group(shown, "", bare[0], [compare.alpha(one.first.config) for one in bare])
            group.rows = _rows(group, [one for one in conditions if one is not bare[0]])
            found.append(group)
    for group, title in zip(found, _titles(found), strict=True):
        group.title = title
    return found


def positions(study: Study) -> dict[str, str]:
    """Where the forget keyword stands, in words, by role."""
    return POSITIONS if study.kind == "choice" else IN_TEXT


def correct(found: Sequence[Group]) -> int:
    """Give the rows of all groups their p after Holm's correction; returns of how many."""
    tested = [(row, row.raw_p) for group in found for row in group.rows if row.raw_p is not None]
    for (row, _), p in zip(tested, intervals.holm([p for _, p in tested]), strict=True):
        row.p = p
    return len(tested)


# Kinds


def kind_of(trial: Trial, plain: Trial) -> str:
    """What protects a trial, in words: noise, defence, what is done on the forget side, and another α than plain's."""
    relative = trial.config["noise"]["name"] == "relative"
    parts: list[str] = [] if trial.arm == "plain" else ["relative noise" if relative else RNA]
    for group in DEFENCES:
        if group in trial.identity:
            options: dict[str, Any] = trial.identity[group]
            label = LABELS.get(options["name"], str(options["name"]))
            parts.append(f"{label}, {_held_out(trial, options['exclude'])}" if options.get("exclude") else label)
    apart = _weight(trial) - _weight(plain)
    parts += [] if trial.config["alpha"] == plain.config["alpha"] else [ALPHAS[(apart > 0) - (apart < 0)]]
    return AND.join(parts)


def _held_out(trial: Trial, excluded: Sequence[str]) -> str:
    words = set(" ".join(map(str, excluded)).lower().split())
    keyword = str(trial.config["eval"].get("keyword") or "").lower().split()
    return "keyword held out" if keyword and words.issuperset(keyword) else "words held out"


def _weight(trial: Trial) -> float:
    """α, its mean over topics where these differ."""
    values = [float(value) for value in trial.config["alpha"].values()]
    return math.fsum(values) / max(len(values), 1)


def place(kind: str) -> tuple[int, list[int], str]:
    """Where a kind stands among others: by how many things protect, and these in their usual order."""
    parts = [part.partition(",")[0] for part in kind.split(AND)]
    known = [ORDER.index(part) if part in ORDER else len(ORDER) for part in parts]
    return len(parts), known, kind


def _titles(found: Sequence[Group]) -> list[str]:
    """Each group's method, and of several of one method what sets them apart."""
    said = [_words(group.plain.first) for group in found]
    titles: list[str] = []
    for group, own in zip(found, said, strict=True):
        others = [words for one, words in zip(found, said, strict=True) if one.method == group.method]
        unlike = [word for word in own if not all(word in words for words in others)]
        titles.append(", ".join([group.method, *unlike]))
    return [
        f"{title}, {titles[: number + 1].count(title)}" if titles.count(title) > 1 else title
        for number, title in enumerate(titles)
    ]


def _words(trial: Trial) -> list[str]:
    """A trial's settings in words, without what may differ within a group."""
    words = compare.hyperparameters(trial).split(", ")
    kept = [word.partition(" to ")[2] if " steps to " in word else word for word in words]
    return [word for word in kept if not word.startswith("α = ")]


# Rows


def _rows(group: Group, conditions: Sequence[Condition]) -> list[Row]:
    by_kind: dict[str, list[Stopped]] = {}
    for one in conditions:
        kind = kind_of(one.first, group.plain.first)
        by_kind.setdefault(kind, []).append(compare.beside(group.study, one, group.plain))
    rows = [_row(group, kind, by_kind[kind]) for kind in sorted(by_kind, key=place)]
    controls = {row.kind: row for row in rows if row.kind.partition(",")[0] == PLACEBO and AND not in row.kind}
    heavier = next((row.beside.other for row in rows if row.kind == HEAVIER), None)
    for row in rows:
        if heavier is not None and row.kind != HEAVIER:
            row.beyond = _crossing(row.beside.other, heavier)
        behind = row.kind.partition(",")[2]
        control = controls.get(f"{PLACEBO},{behind}") or controls.get(PLACEBO) or next(iter(controls.values()), None)
        if control is not None and row.kind not in controls and row.beside.pairs and control.beside.pairs:
            own, its = Condition(row.trials), Condition(control.trials)
            row.placebo = compare.beside(group.study, own, its).changes.get("perturbed")
    return rows


def _row(group: Group, kind: str, candidates: Sequence[Stopped]) -> Row:
    study, one = group.study, _chosen(group.study, candidates)
    values = [
        math.fsum(weight * score.value for weight, score in terms)
        for pair in one.pairs
        if (terms := compare.difference(*pair, "perturbed", study.part))
    ]
    removed = {name: _removed(study, one, name) for name in positions(study) if _harms(study, one, name)}
    p = intervals.t_test(values) if values else None
    setting = _setting(one.other.first, kind, candidates)
    crossing = _crossing(one.other, one.plain)
    return Row(kind, setting, one, len(candidates), values, removed, p, crossing=crossing)


def _crossing(one: Condition, beside: Condition) -> Estimate | None:
    """One's − the other's where a seed's two courses cross the target, whether or not what they end with is matched."""
    twins = {trial.seed: crossed(trial) for trial in beside.trials}
    both = [(crossed(trial), twins.get(trial.seed)) for trial in one.trials]
    apart = [its - other for its, other in both if its is not None and other is not None]
    return intervals.over_seeds(apart) if apart else None


def crossed(trial: Trial) -> float | None:
    """Perturbed accuracy in percent at the very target: on the straight line between the last evaluation above it and
    the first that is not; None where that was not evaluated on the way, or the first is below already.

    Trainings stop at an evaluation, and forget some points more than they were to: the faster, the more.
    """
    until = trial.facts["until"]
    forget, perturbed = (dict(trial.curve.get(name, [])) for name in ON_THE_WAY)
    steps = sorted(forget.keys() & perturbed.keys())
    if until["metric"] != ON_THE_WAY[0]:
        return None
    at = until["at"]
    for above, below in itertools.pairwise(steps):
        if forget[above] > at >= forget[below]:
            share = (forget[above] - at) / (forget[above] - forget[below])
            return 100 * (perturbed[above] + share * (perturbed[below] - perturbed[above]))
    return None


def _chosen(study: Study, candidates: Sequence[Stopped]) -> Stopped:
    """The setting with the best perturbed score on the select half, of those with an interval where any has one:
    two pairs that reached the target and forgot alike; else of those with one, or those with most trials."""
    pairs = max(min(len(one.pairs), 2) for one in candidates)
    left = [one for one in candidates if len(one.pairs) >= pairs]

    def merit(one: Stopped) -> tuple[int, float]:
        trials = [trial for trial, _ in one.pairs] or one.other.trials
        made = Condition(trials).estimate(study, "perturbed", "select" if study.halved else study.part)
        return 0 if pairs else one.count, -math.inf if made is None else study.better * made.value

    return max(left, key=merit)


def _setting(trial: Trial, kind: str, candidates: Sequence[Stopped]) -> str:
    """ν and α where they protect, and what else is not the same in all settings of the kind."""
    others = [one.other.first for one in candidates]
    words = [f"ν = {trial.nu:g}"] if trial.arm == "rna" else []
    noises = [one.config["noise"] for one in others]
    words += [f"noise at {trial.config['noise']['layers']}"] if len({str(one["layers"]) for one in noises}) > 1 else []
    words += [f"α = {compare.alpha(trial.config)}"] if kind.endswith(tuple(ALPHAS.values())) else []
    for group in DEFENCES:
        for name, value in trial.identity.get(group, {}).items():
            if len({str(one.identity[group].get(name)) for one in others}) > 1:
                words.append(f"{name} = {value:g}" if isinstance(value, float) else f"{name} = {value}")
    return ", ".join(words)


def _gap(one: Trial, other: Trial, part: str, name: str = "forget") -> float:
    return math.fsum(weight * score.value for weight, score in compare.difference(one, other, name, part))


# Harm removed


def _harm(study: Study, trial: Trial, name: str) -> Terms:
    """What the forget keyword takes at a position: the score with the neutral one less with it, of log-losses the other
    way round; nothing if one lacks."""
    control = roles.BY_NAME[name].control
    names = (control, name) if study.better > 0 else (name, control)
    scores = [list(trial.scores(role, study.part).values()) for role in names if role is not None]
    return intervals.difference(*map(intervals.mean, scores)) if all(scores) else []


def _harms(study: Study, one: Stopped, name: str) -> list[tuple[Terms, Terms]]:
    """Of each pair, the harm to the protected and to plain."""
    found = [(_harm(study, trial, name), _harm(study, twin, name)) for trial, twin in one.pairs]
    return [(mine, its) for mine, its in found if mine and its]


def _removed(study: Study, one: Stopped, name: str) -> Estimate | None:
    """100·(plain's harm − the protected's)/plain's, a ratio of means over seeds with Fieller's interval; None where
    plain's harm is not clearly above zero."""
    harms = _harms(study, one, name)
    mine, its = ([math.fsum(weight * score.value for weight, score in terms) for terms in side]
                 for side in zip(*harms, strict=True))  # fmt: skip
    left = intervals.ratio(mine, its) if intervals.estimate([plain for _, plain in harms]).sign > 0 else None
    if left is None:
        return None
    if left.low is None or left.high is None:
        return Estimate(100 * (1 - left.value), n=left.n)
    return Estimate(100 * (1 - left.value), 100 * (1 - left.high), 100 * (1 - left.low), left.n)


# Costs


def seconds_a_step(trials: Sequence[Trial]) -> float | None:
    """Training seconds of all trials by their steps."""
    known = [(float(trial.facts["seconds"]), steps_of(trial)) for trial in trials if trial.facts["seconds"]]
    return math.fsum(took for took, _ in known) / steps if (steps := sum(of for _, of in known)) else None


def steps_of(trial: Trial) -> float:
    return float(trial.facts["until"]["step"])
