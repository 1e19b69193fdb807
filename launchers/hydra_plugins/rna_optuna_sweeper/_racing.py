"""A race among a sweep's trials: each is started again for its next block of questions, or for its whole evaluation.

Between two blocks a trial is queued in the ledger and in nobody's hands, so that any launcher runs it, anywhere; what
it has answered lies with its tensors. Who is worth another block follows from the answers alone, `rna.sweep.race`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rna.sweep import Trial, ledger
from rna.sweep.race import Goal, Out, Race, Rules, race_path

from ._checks import Constraint
from ._goals import Goals
from ._said import Said
from ._todo import Todo
from .config import RnaOptunaConf
from .space import Space

RACED = "raced"  # the reason of a trial that a race has stopped
SAMPLERS = ("grid", "random")


@dataclass
class Racing:
    """The race as it stands, and what each of its trials is to do next."""

    race: Race
    store: Any
    folder: Path
    todo: Todo
    said: Said
    finalists: int
    groups: dict[str, list[Trial]] = field(default_factory=dict)  # by setting, its trials
    out: dict[str, Out] = field(default_factory=dict)  # as was said last
    finals: list[str] = field(default_factory=list)  # the settings that are evaluated whole

    def starts(self, trial: Trial) -> bool:
        """Whether a queued trial, whose address is known, begins now; else it has answered something, and waits."""
        self._join(trial)
        if trial.race is not None and trial.race["blocks"] is None:
            return True  # a finalist, tried again
        if self._answers(trial):
            return False
        trial.race = self._asked(1)
        return True

    def ended(self, trial: Trial) -> bool:
        """Whether a trial whose job is over has answered what it was asked; then it waits for its next turn."""
        if trial.race is None or trial.race["blocks"] is None:
            return False
        there = self._answers(trial)
        if not there or len(there) < min(trial.race["blocks"], int(there[0]["of"])):
            return False
        trial.status, trial.token, trial.attempts = ledger.QUEUED, "", 0
        trial.reason = trial.message = trial.job = trial.cluster = None
        ledger.save(self.folder, trial)
        self._take(_setting(trial))
        self._tell()
        self.write_down()
        return True

    def next(self, *, busy: bool) -> Trial | None:
        """The next trial to start: for another block, or, once it is decided, a finalist's whole evaluation.

        A setting that is ahead of half of the others waits for these, unless nothing else is in work.
        """
        self._leave_behind()
        inside = self.race.standing().inside
        waiting = [name for name in inside if self.race.depth(name) < (self.race.of or 1)]
        if waiting:
            least = min(map(self.race.depth, waiting))
            if busy and 2 * self._reached(least) < self.race.rules.settings:
                return None
            turn = (name for name in waiting if self.race.depth(name) == least)
            return next((trial for name in turn if (trial := self._behind(name)) is not None), None)
        if busy and not self.finals:  # who is in work may change it
            return None
        self.finals = self._chosen()
        for trial in (trial for name in self.finals for trial in self.groups[name]):
            if trial.status == ledger.QUEUED or _raced(trial):
                return self._again(trial, None)
        return None

    def stopped(self) -> list[Trial]:
        """The trials that the race has stopped, once nothing is left to start: each with what was seen of it."""
        chosen = [trial for name, trials in self.groups.items() if name not in self.finals for trial in trials]
        over = [trial for trial in chosen if trial.status == ledger.QUEUED]
        for trial in over:
            why = self.out.get(_setting(trial))
            seen = "its setting is no finalist" if why is None else self._worded(why)
            trial.status, trial.reason, trial.values = ledger.PRUNED, RACED, None
            trial.message = f"stopped by the race: {seen}"
        return over

    def last_words(self) -> str:
        """Of how much the race asked."""
        told = self.write_down()
        share = f"{100 * told['asked'] / told['of']:.0f} %" if told["of"] else "none"
        asked = f"{told['asked']} of {told['of']} answers on the select half were asked for, {share}"
        return f"race: {asked}; {len(self.finals)} of {len(self.groups)} settings are evaluated whole"

    def write_down(self) -> dict[str, Any]:
        """Let `python -m rna.sweep status` see how the race stands."""
        told = self.summary()
        ledger.write_json(race_path(self.folder), told)
        return told

    def summary(self) -> dict[str, Any]:
        """How far each setting came, and how many of the questions were asked, of those that all would have been."""
        depths = {name: self.race.depth(name) for name in self.groups}
        asked = {name: sum(map(_questions, self._blocks(name))) for name in self.groups}
        whole = {name: sum(map(_population, self.race.answers.get(name, []))) for name in self.groups}
        out = {name: self._worded(why) for name, why in self.out.items()}
        return {
            "blocks": self.race.of,
            "asked": sum(asked.values()),
            "of": sum(whole.values()),
            "finalists": [self._named(name) for name in self.finals],
            "settings": {self._named(name): {"blocks": depths[name], "out": out.get(name)} for name in self.groups},
        }

    # Inside

    def _chosen(self) -> list[str]:
        """The finalists: who is in, and of those that were asked all the next best."""
        sign, goal = self.race.rules.objective.sign, self.race.rules.objective
        missed = {name for name, why in self.race.standing().out.items() if why.by is None}
        whole = [name for name in self.race.answers if name not in missed and self.race.depth(name) == self.race.of]
        return sorted(whole, key=lambda name: -sign * self.race.mean(name, goal))[: self.finalists]

    def _behind(self, name: str) -> Trial | None:
        """A trial of a setting that nobody has in work, and that is to answer the setting's next block."""
        wanted = self.race.depth(name) + 1
        for trial in self.groups[name]:
            idle = trial.status == ledger.QUEUED or _raced(trial)
            if idle and len(self._answers(trial)) < wanted:
                return self._again(trial, wanted)
        return None

    def _again(self, trial: Trial, blocks: int | None) -> Trial:
        if trial.over:  # stopped in an earlier life, and in again
            self.todo.counts[trial.status] -= 1
            trial.status, trial.reason, trial.message, trial.ended = ledger.QUEUED, None, None, None
        trial.race = self._asked(blocks)
        return trial

    def _asked(self, blocks: int | None) -> dict[str, Any]:
        return {"tasks": list(self.race.rules.tasks), "blocks": blocks}

    def _reached(self, depth: int) -> int:
        """How many settings have come so far, or no farther for good."""
        return sum(self.race.depth(name) >= depth or name in self.out for name in self.groups)

    def _join(self, trial: Trial) -> None:
        trials = self.groups.setdefault(_setting(trial), [])
        if trial not in trials:
            trials.append(trial)
            self._take(_setting(trial))

    def join_all(self, trials: Iterable[Trial]) -> None:
        """Take in what earlier lives of the sweep, or other sweeps, have been answered."""
        for trial in trials:
            if trial.status == ledger.QUEUED:
                trial.race = None  # what it is asked next is decided anew
            if trial.address is not None and self._answers(trial):
                self._join(trial)
        self.out = self.race.standing().out  # which was said then

    def _leave_behind(self) -> None:
        """Let a setting go on without the seeds that answer no more."""
        for name in self.groups:
            if len(self.race.answers[name]) != len(self._runners(name)):
                self._take(name)

    def _take(self, name: str) -> None:
        self.race.take(name, [self._answers(trial) for trial in self._runners(name)])

    def _runners(self, name: str) -> list[Trial]:
        """A setting's trials but those that have failed, or were evaluated whole before they had answered all."""
        return [trial for trial in self.groups[name] if trial.status != ledger.FAILED and not self._done_early(trial)]

    def _done_early(self, trial: Trial) -> bool:
        if trial.status != ledger.DONE:
            return False
        there = self._answers(trial)
        return not there or len(there) < int(there[0]["of"])

    def _answers(self, trial: Trial) -> list[dict[str, Any]]:
        return self.store.answered(trial.address, self.race.rules.tasks)

    def _blocks(self, name: str) -> list[Mapping[str, Any]]:
        return [block for answers in self.race.answers.get(name, []) for block in answers]

    def _tell(self) -> None:
        """Say who is out now, and who has come back."""
        before, self.out = self.out, self.race.standing().out
        for name in self.out.keys() - before.keys():
            self.said.say(f"out: {self._named(name)}: {self._worded(self.out[name])}")
        for name in before.keys() - self.out.keys():
            self.said.say(f"in again: {self._named(name)}")

    def _worded(self, why: Out) -> str:
        return str(why) if why.by is None else str(why).replace(why.by, self._named(why.by))

    def _named(self, name: str) -> str:
        cell = self.groups[name][0].cell
        return " ".join(item for item in cell if not item.startswith("seed=")) or " ".join(cell) or name


def _raced(trial: Trial) -> bool:
    return trial.status == ledger.PRUNED and trial.reason == RACED


def _setting(trial: Trial) -> str:
    return (trial.address or {}).get("group") or trial.name


def _questions(block: Mapping[str, Any]) -> int:
    return sum(int(told["n"]) for told in block["tasks"].values())


def _population(answers: Any) -> int:
    return sum(int(told["population"]) for told in answers[0]["tasks"].values()) if answers else 0


def rules(
    options: RnaOptunaConf, space: Space, sampler: str, goals: Goals, store: Any, address: Mapping[str, Any], total: int
) -> Rules:
    """What the race of this sweep is for.

    Raises:
        ValueError: for what cannot race.
    """
    given: dict[str, float] = {**options.race}
    if unknown := sorted(set(given) - {"error", "tolerance", "finalists"}):
        raise ValueError(f"hydra.sweeper.race.{unknown[0]}: no such option; allowed: error, tolerance, finalists")
    error, tolerance, finalists = (given[key] for key in ("error", "tolerance", "finalists"))
    for key, fits, must in (
        ("error", 0 < error < 0.5, "a number above 0 and below 0.5"),
        ("tolerance", 0 <= tolerance < 1, "a number from 0 to below 1"),
        ("finalists", finalists == int(finalists) and finalists >= 1, "a whole number ≥ 1"),
    ):
        if not fits:
            raise ValueError(f"hydra.sweeper.race.{key}={given[key]:g}: must be {must}")
    if sampler not in SAMPLERS:
        raise ValueError(
            f"eval.race=true: hydra.sweeper.sampler={sampler} draws by what trials come to, which a race does not find "
            f"out; allowed: {', '.join(SAMPLERS)}"
        )
    if options.pruner is not None:
        raise ValueError(f"eval.race=true: hydra.sweeper.pruner={options.pruner}: allowed: null, the race prunes")
    if space.grids:
        raise ValueError("eval.race=true: hydra.sweeper.grids are not of one kind; allowed: one grid, in params")
    for axis in space.axes:
        if axis.key.partition(".")[0].partition("@")[0] == "eval":
            raise ValueError(f"eval.race=true: {axis.key} is swept, and all that race must be asked the same")
    if len(goals.objectives) > 1:
        raise ValueError(f"eval.race=true: works with one objective; here are {', '.join(goals.objectives)}")
    ((metric, direction),) = goals.objectives.items()
    objective = Goal(metric, _tasks(store, address, metric, "objectives"), 1 if direction == "maximize" else -1)
    constraints = tuple(_goal(store, address, item) for item in goals.constraints)
    seeds = next((len(axis.choices) for axis in space.axes if axis.key == "seed"), 1) if sampler == "grid" else 1
    return Rules(objective, constraints, max(total // max(seeds, 1), 1), error, tolerance)


def _goal(store: Any, address: Mapping[str, Any], item: Constraint) -> Goal:
    return Goal(item.metric, _tasks(store, address, item.metric, "constraints"), -item.sign, item.bound)


def _tasks(store: Any, address: Mapping[str, Any], metric: str, option: str) -> tuple[str, ...]:
    tasks: Collection[str] = store.raced_by(address, metric)
    if not tasks:
        raise ValueError(
            f"hydra.sweeper.{option}={metric}: eval.race=true races by accuracies on the select half; allowed: "
            "eval/NAME/acc or eval/NAME/select/acc of a task or role of ours, not of lm-eval's tasks"
        )
    return tuple(tasks)
