"""Trials as the report sees them: selected, and grouped so that only like is averaged with like.

A study is the trials that share model, data, numerics and the settings of every evaluation.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rna.corpora import digest
from rna.intervals import Score
from rna.settings import DEFENCES
from rna.sweep import ledger

PAPER_ORDER = (
    ["RMU", "Adaptive RMU", "RSV", "NPO+KL", "NPO+MSE", "DPO+KL", "DPO+MSE", "SimNPO+KL", "SimNPO+MSE"]
)  # fmt: skip


REFERENCES = ("base", "retrained", "given")
PROTECTED = ("noise", *DEFENCES)  # what may part a trial from its plain twin


Parts = dict[str, Score]  # all, select, report -> score


@dataclass(frozen=True)
class Evaluation:
    """One task's outcome and the settings it was judged with."""

    task: str
    role: str
    identity: dict[str, Any]
    parts: Parts

    @property
    def ngram(self) -> tuple[int, str] | None:
        """For a task perturbed by mined n-grams: n, and their group by similarity (top, mean, bottom)."""
        n, group = self.identity.get("n"), self.identity.get("group")
        return (int(n), str(group)) if n is not None else None


@dataclass(frozen=True)
class Trial:
    """One training (or reference model) and what was evaluated of it."""

    key: str
    arm: str  # base, retrained, given, plain, rna; smoothed: one without noise, judged with noise at inference
    method: str  # as the paper writes it: RMU, NPO+KL; "" for base, retrained and given
    seed: int
    config: dict[str, Any]
    identity: dict[str, Any]
    facts: dict[str, Any]  # provenance, seconds, memory, W&B folder
    curve: dict[str, list[tuple[float, float]]]  # name -> (step, mean of the steps around it)
    evaluations: tuple[Evaluation, ...] = ()
    seconds_evaluating: float = 0.0
    tofu: dict[str, dict[str, Any]] = field(default_factory=dict)  # TOFU's metrics, by a hash of how they were asked
    family: str = ""  # RM, whose losses read the unlearn layer, or PO; what has neither is a reference
    _digests: dict[tuple[str, ...], str] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def kind(self) -> str:
        return self.config["eval"]["kind"]

    @property
    def nu(self) -> float:
        """The noise scale; 0 for the plain method."""
        return float(self.config["noise"]["nu"]) if self.arm in ("rna", "smoothed") else 0.0

    @property
    def defences(self) -> list[str]:
        """What protects retain samples beside noise, by the names of its options."""
        return [self.identity[group]["name"] for group in DEFENCES if group in self.identity]

    @property
    def bare(self) -> bool:
        """Whether nothing protects what is retained: no noise and no defence."""
        return self.arm == "plain" and not self.defences

    @property
    def reached(self) -> bool | None:
        """Whether its training stopped at the target of `train.until`; None where it had none."""
        until = self.facts["until"]
        return None if until is None else bool(until["reached"])

    def without(self, *keys: str) -> str:
        """What identifies the training apart from these, or a group's own as `train.steps`: trials that share it differ
        in nothing else."""
        if keys not in self._digests:
            kept = {key: value for key, value in self.identity.items() if key not in keys}
            for group, _, name in (key.partition(".") for key in keys if "." in key):
                kept[group] = {key: value for key, value in kept[group].items() if key != name}
            self._digests[keys] = digest(kept)
        return self._digests[keys]

    def scores(self, name: str, part: str = "all") -> dict[str, Score]:
        """By task, the scores of a role or of one task; none if one of them is missing or not finite."""
        # A task may have the name of another task's role, so a role goes before a task.
        named = [item for item in self.evaluations if item.role == name]
        named = named or [item for item in self.evaluations if item.task == name]
        found = {item.task: item.parts[part] for item in named if part in item.parts}
        complete = len(found) == len(named) and all(math.isfinite(item.value) for item in found.values())
        return found if complete else {}

    def score(self, name: str, part: str = "all") -> Score | None:
        """The score of a role (the unweighted mean of its tasks) or of a task."""
        scores = list(self.scores(name, part).values())
        if not scores:
            return None
        if len(scores) == 1:
            return scores[0]
        count = len(scores)
        value = sum(item.value for item in scores) / count
        stderr = math.hypot(*(item.stderr for item in scores)) / count
        return Score(value, stderr, sum(item.n for item in scores))


# Selecting


@dataclass(frozen=True)
class Filters:
    """What to keep; an empty tuple keeps all. Base, retrained and given pass all but `model`."""

    method: tuple[str, ...] = ()
    retain: tuple[str, ...] = ()
    noise: tuple[str, ...] = ()
    layer: tuple[int, ...] = ()
    model: tuple[str, ...] = ()
    seed: tuple[int, ...] = ()

    @property
    def narrow(self) -> bool:
        """Whether they keep trained trials apart."""
        return bool(self.method or self.retain or self.noise or self.layer or self.seed)

    def keep(self, trial: Trial) -> bool:
        names = READ if trial.method else ("model",)
        checks = [(getattr(self, name), READ[name](trial)) for name in names]
        return all(not allowed or value in allowed for allowed, value in checks)


READ: dict[str, Callable[[Trial], Any]] = {  # what each filter looks at
    "method": lambda trial: trial.config["method"]["name"],
    "retain": lambda trial: trial.config["retain_loss"],
    "noise": lambda trial: trial.config["noise"]["name"],
    "layer": lambda trial: trial.config["layer"]["unlearn"],
    "model": lambda trial: trial.config["model"]["name"],
    "seed": lambda trial: trial.seed,
}


def values(trials: Iterable[Trial], name: str) -> list[Any]:
    """What a filter may name among these trials."""
    return sorted({READ[name](trial) for trial in trials})


def select(trials: Iterable[Trial], filters: Filters, keys: set[str] | None = None) -> list[Trial]:
    """The trials of these keys (None: all) that pass the filters.

    References and the plain twins of a key belong to it though no list names them: they are computed once and shared
    between sweeps.
    """
    every = list(trials)
    if keys is not None:
        parts = (
            ("noise",),
            PROTECTED,
        )  # of one with noise and a defence: that with the defence alone, and the plain one
        twins = {trial.without(*names) for trial in every for names in parts if trial.key in keys}
        every = [
            trial
            for trial in every
            if trial.key in keys
            or not trial.method
            or (trial.arm == "plain" and trial.without("noise") in twins)
        ]  # fmt: skip
    return [trial for trial in every if filters.keep(trial)]


def keys_of(output_dir: str, name: str) -> set[str]:
    """The training keys of a sweep.

    Raises:
        ValueError: if there is no such sweep; with those there are.
    """
    folder = Path(output_dir) / "sweeps"
    if not (folder / name / "trials").is_dir():
        there = ", ".join(sorted(file.parent.name for file in folder.glob("*/trials"))) or "none so far"
        raise ValueError(f"NAME={name}: no such sweep in {folder}; allowed: {there} (without a NAME: all records)")
    return {trial.address["key"] for trial in ledger.trials(folder / name) if trial.address}


# Grouping


@dataclass(eq=False)
class Study:
    """Trials that may be compared: one model, one corpus, one way of evaluating."""

    trials: list[Trial]  # plain and with RNA
    references: dict[str, Trial]  # base, retrained, and each given model under "given" and its folder's name
    varied: dict[str, Any]  # the evaluation settings in which this study differs from the others
    smoothed: list[Trial] = field(default_factory=list)  # its trials once more, with noise at inference
    part: str = "all"  # the questions that results are read from: all, or the half on which no winner was chosen

    @cached_property
    def config(self) -> dict[str, Any]:
        """The settings of the trial that was evaluated on most tasks."""
        return max(self.trials or list(self.references.values()), key=lambda trial: len(trial.evaluations)).config

    @property
    def kind(self) -> str:
        return self.config["eval"]["kind"]

    @property
    def unit(self) -> str:
        return "accuracy in %" if self.kind == "choice" else "log-loss in nats a token"

    @property
    def difference(self) -> str:
        """What a difference of two scores is told in."""
        return "points" if self.kind == "choice" else "nats a token"

    @property
    def digits(self) -> int:
        return 1 if self.kind == "choice" else 3

    @property
    def better(self) -> int:
        """The sign of a change for the better on retain tasks."""
        return 1 if self.kind == "choice" else -1

    @cached_property
    def halved(self) -> bool:
        """Whether every evaluation has the two halves."""
        evaluations = [item for trial in self.trials for item in trial.evaluations]
        return bool(evaluations) and all({"select", "report"} <= item.parts.keys() for item in evaluations)

    @property
    def stops(self) -> bool:
        """Whether it has the forget accuracy on whose `select` half trainings stop and are matched."""
        return self.kind == "choice" and self.has("forget")

    @cached_property
    def reported(self) -> "Study":
        """The same on the `report` half, for what shows the winner of a choice on `select`."""
        return replace(self, part="report")

    @property
    def half(self) -> str:
        """What a column's head says of the questions that it is about; nothing of all of them."""
        return "" if self.part == "all" else f", {self.part} half"

    @property
    def methods(self) -> list[str]:
        present = {trial.method for trial in self.trials}
        order = [title for title in PAPER_ORDER if title in present]
        return order + sorted(present - set(order))

    @property
    def commits(self) -> list[str]:
        return sorted({str(trial.facts["commit"] or "installed package")[:12] for trial in self.trials})

    @property
    def name(self) -> str:
        """Model and evaluation, and what sets this study apart."""
        config = self.config
        options = [f"{key} {value}" for key, value in self.varied.items()]
        word = config["eval"].get("keyword")
        words = config["eval"].get("keywords") or ([word] if word else [])  # or the name of their file
        keyword = ", ".join(words) if isinstance(words, list) else str(words)
        first = [f"model {config['model']['name']}", f"data {config['data']['name']}", f"eval {config['eval']['name']}"]
        first += [f"keyword “{keyword}”"] if keyword and "keyword" not in self.varied else []
        official = {trial.identity.get("variant", "paper") for trial in self.trials} == {"official"}
        first += ["variant official"] if official and "variant" not in self.varied else []
        return " · ".join([*first, *options])

    def score(self, trial: Trial | None, name: str) -> Score | None:
        return None if trial is None else trial.score(name, self.part)

    def has(self, name: str) -> bool:
        return any(trial.score(name, self.part) is not None for trial in self.trials)


def studies(trials: Iterable[Trial]) -> list[Study]:
    """Group what may be compared, the largest group first. A trial judged in two ways is in two studies."""
    every = [view for trial in trials for view in _views(trial)]
    seen: dict[tuple[str, str], set[str]] = {}  # of other models a task of the same name tells nothing
    for view in every:
        for item in view.evaluations:
            seen.setdefault((view.config["model"]["name"], item.task), set()).add(digest(item.identity))
    mixed = sorted(asked for asked, identities in seen.items() if len(identities) > 1)

    def judged(view: Trial) -> str:
        identities = {item.task: item.identity for item in view.evaluations}
        own = [task for model, task in mixed if model == view.config["model"]["name"]]
        return digest([view.kind, [(task, identities.get(task)) for task in own]])

    def trained(view: Trial) -> str:
        config, identity = view.config, view.identity
        names = ("numerics", "model", "topics", "variant", "holdout")  # of a model and its corpora, not of a method
        return digest([config["model"]["name"], config["data"]["name"], _corpora(view), *map(identity.get, names)])

    groups: dict[tuple[str, str], list[Trial]] = {}
    for view in every:
        if view.method:
            groups.setdefault((trained(view), judged(view)), []).append(view)
    found: list[Study] = []
    for (_, how), members in groups.items():
        found.append(Study(ordered(members), _references(members[0], how, every, judged), {}))
    if not groups:
        for how, members in itertools.groupby(sorted(every, key=judged), key=judged):
            found.append(Study([], _named(members), {"evaluation": how}))
    found.sort(key=lambda study: -len(study.trials))
    _say_differences(found)
    return found


def attach(found: Iterable[Study], smoothed: Iterable[Trial]) -> None:
    """Give each study its trials once more as noise at inference had them, where all else was judged alike."""
    views = [view for trial in smoothed for view in _views(trial)]
    for study in found:
        own = {trial.key: trial for trial in [*study.trials, *study.references.values()]}
        study.smoothed = [view for view in views if view.key in own and _judged_alike(view, own[view.key])]


def _judged_alike(view: Trial, trial: Trial) -> bool:
    theirs = {item.task: item.identity for item in trial.evaluations}
    mine = {item.task: {k: v for k, v in item.identity.items() if k != "smoothing"} for item in view.evaluations}
    return all(theirs[task] == identity for task, identity in mine.items() if task in theirs)


READ_BY_METHOD = {"raw", "longer_than", "characters", "strip"}  # with variant=official, where each method has its own


def _corpora(view: Trial) -> dict[str, Any]:
    """A trial's corpora without the refusals, which are DPO's alone, and without what the released code reads of the
    same files in another way for each method: that is a part of the method there."""
    official = view.identity.get("variant", "paper") == "official"
    found: dict[str, Any] = {}
    for name, item in (view.identity.get("data") or {}).items():
        if name == "data.refusals":
            continue
        own = (READ_BY_METHOD | ({"max_length"} if name == "data.retain" else set[str]())) if official else set[str]()
        known = isinstance(item, dict)
        found[name] = {key: value for key, value in dict[str, Any](item).items() if key not in own} if known else item  # pyright: ignore
    return found


def _references(like: Trial, how: str, every: list[Trial], judged: Any) -> dict[str, Trial]:
    """The base, retrained and given models of a study: same model, numerics and evaluation."""
    found: list[Trial] = []
    for view in every:
        same_base = view.identity["model"] == like.identity["model"]
        same_name = view.config["model"]["name"] == like.config["model"]["name"]
        same_numerics = view.identity.get("numerics") == like.identity.get("numerics")
        if view.method or judged(view) != how or not same_numerics:
            continue
        if (view.arm in ("base", "given") and same_base) or (view.arm == "retrained" and same_name):
            found.append(view)
    return _named(found)


def _named(references: Iterable[Trial]) -> dict[str, Trial]:
    """References by what a table calls them, the base first; of each the first that was found."""
    found: dict[str, Trial] = {}
    for view in sorted(references, key=lambda view: REFERENCES.index(view.arm)):
        name = view.arm
        if name == "given":
            name += f" {Path(view.config['method']['path']).name}"
            same = found.get(name)
            if same is not None and same.identity != view.identity:
                name += f" {view.key[:6]}"
        found.setdefault(name, view)
    return found


def _views(trial: Trial) -> Iterator[Trial]:
    """A trial once for each consistent choice among evaluations of one task: same seed, same number of questions."""
    by_task: dict[str, list[Evaluation]] = {}
    for item in trial.evaluations:
        by_task.setdefault(item.task, []).append(item)
    for chosen in itertools.islice(itertools.product(*by_task.values()), 64):
        alike = all(
            len({json.dumps(item.identity[name]) for item in chosen if name in item.identity}) < 2
            for name in ("seed", "lm_eval", "numerics")
        )
        limits = {item.identity.get("limit") for item in chosen}
        if alike and len(limits) < 2:
            yield replace(trial, evaluations=tuple(chosen))


def ordered(members: Iterable[Trial]) -> list[Trial]:
    """Each training once, in the paper's order, plain before RNA."""
    order = {title: number for number, title in enumerate(PAPER_ORDER)}
    unique = {trial.key: trial for trial in members}
    return sorted(
        unique.values(),
        key=lambda trial: (
            order.get(trial.method, 99 if trial.method else -1),
            trial.method,
            _settings(trial.config),
            trial.without("seed", "noise"),
            trial.arm,
            trial.nu,
            trial.seed,
        ),
    )


def _settings(config: dict[str, Any]) -> list[float]:
    """Numbers to order a method's trials by: its own, α, the unlearn layer, the learning rate, the steps."""
    own = [config["method"].get(name) for name in ("coefficient", "beta", "gamma")]
    later = [*config["alpha"].values(), config["layer"]["unlearn"], config["train"]["lr"], config["train"]["steps"]]
    return [-1.0 if value is None else float(value) for value in [*own, *later]]


def _say_differences(found: list[Study]) -> None:
    """Note for each of several studies the settings in which it differs from another of its name."""
    judged = [study for study in found if any(one.evaluations for one in [*study.trials, *study.references.values()])]
    for study in found:
        if study not in judged:
            study.varied["evaluation"] = "none"
    judged.sort(key=lambda study: study.name)
    for _, same in itertools.groupby(judged, key=lambda study: study.name):
        _tell_apart(list(same))


def _tell_apart(found: list[Study]) -> None:
    """Note for each of these studies, of one name, the first four settings in which it differs from another."""
    facts: list[dict[str, Any]] = []
    for study in found:
        like = (study.trials or list(study.references.values()))[0]
        said: dict[str, Any] = {
            "numerics": like.identity.get("numerics"),
            "model fingerprint": like.identity["model"].get("fingerprint"),
            "dtype": like.identity["model"].get("dtype"),
            "variant": like.identity.get("variant", "paper"),
            "corpora": digest([_corpora(like), like.identity.get("topics")]),
        }
        for item in like.evaluations:
            said |= {
                f"{item.task} {key}": value for key, value in item.identity.items() if key not in ("task", "files")
            }
            said[f"{item.task} questions"] = digest(item.identity.get("files"))
        facts.append(said)
    names = [name for name in facts[0] if any(said.get(name) != facts[0][name] for said in facts)] if facts else []
    for study, said in zip(found, facts, strict=True):
        study.varied |= {name.replace("perturbed keyword", "keyword"): said.get(name, "none") for name in names[:4]}
