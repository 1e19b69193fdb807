"""Sweeps that are made up, with answers that are known to the last question, for what a race makes of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from rna.evaluation import blocks
from rna.sweep.race import Answers, Goal, Race, Rules

PERTURBED, FORGET = "eval/perturbed/select/acc", "eval/forget/select/acc"


@dataclass
class MadeUp:
    """Settings' answers to all questions: [setting, seed, question], each task's."""

    correct: dict[str, np.ndarray]

    @property
    def settings(self) -> int:
        return next(iter(self.correct.values())).shape[0]

    def truth(self, *tasks: str) -> np.ndarray:
        """Each setting's score on the whole half: the mean of its tasks'."""
        return np.mean([self.correct[task].mean((1, 2)) for task in tasks], 0)

    def blocks(self, setting: int, seed: int, depth: int) -> list[dict[str, Any]]:
        of = blocks.count(max(bits.shape[2] for bits in self.correct.values()))
        return [
            {"of": of, "tasks": {task: _told(bits[setting, seed], n, of) for task, bits in self.correct.items()}}
            for n in range(depth)
        ]

    def run(self, rules: Rules) -> tuple[Race, float]:
        """The race as one worker would run it, to its end, and the share of the questions that it asked."""
        race, depth = Race(rules), dict.fromkeys(map(str, range(self.settings)), 1)
        seeds = next(iter(self.correct.values())).shape[1]
        for name in depth:
            race.take(name, self._answers(name, seeds, 1))
        while waiting := [name for name in race.standing().inside if depth[name] < (race.of or 1)]:
            least = min(depth[name] for name in waiting)
            for name in waiting:
                if depth[name] == least:
                    depth[name] += 1
                    race.take(name, self._answers(name, seeds, depth[name]))
        sizes = [bits.shape[2] for bits in self.correct.values()]
        every = [(number, size) for blocks_asked in depth.values() for number in range(blocks_asked) for size in sizes]
        asked = sum(len(blocks.block(number, race.of or 1, size)) for number, size in every)
        return race, asked / (sum(sizes) * self.settings)

    def _answers(self, name: str, seeds: int, depth: int) -> list[Answers]:
        return [self.blocks(int(name), seed, depth) for seed in range(seeds)]


def _told(bits: np.ndarray, number: int, of: int) -> dict[str, Any]:
    ranks = blocks.block(number, of, len(bits))
    told = "".join("01"[int(bits[rank])] for rank in ranks)
    return {"population": len(bits), "n": len(told), "correct": f"{int(told, 2):x}" if told else ""}


def made_up(
    generator: np.random.Generator,
    *,
    settings: int,
    seeds: int,
    questions: int,
    spread: float,
    forget: int = 0,
) -> MadeUp:
    """Answers whose chance depends on how hard a question is for all, on the setting, the seed, and both together.

    Args:
        spread: of the settings' levels, in deviations of the questions' difficulty.
        forget: questions of each of two forget tasks, which about half of the settings have forgotten.
    """
    hard = generator.normal(0, 0.8, questions)
    level = generator.normal(0.8, spread, (settings, 1, 1)) + generator.normal(0, 0.3 * spread, (settings, seeds, 1))
    own = generator.normal(0, 0.4, (settings, 1, questions)) + generator.normal(0, 0.25, (settings, seeds, questions))
    correct = {"perturbed": (hard + level + own > 0).astype(np.int8)}
    for task in ("forget_bio", "forget_cyber") if forget else ():
        share = generator.uniform(0.2, 0.5, (settings, 1, 1))
        correct[task] = (generator.random((settings, seeds, forget)) < share).astype(np.int8)
    return MadeUp(correct)


def rules(settings: int, *, constrained: bool = False) -> Rules:
    forget = Goal(FORGET, ("forget_bio", "forget_cyber"), -1, 0.35)
    return Rules(Goal(PERTURBED, ("perturbed",), 1), (forget,) if constrained else (), settings)
