"""Races whose truth is known: few questions are asked, and the winner is the best or as good as it."""

import math
from typing import Any

import numpy as np
import pytest

from rna.intervals import Z_95
from rna.sweep.race import Race
from tests.sweep.racing import FORGET, PERTURBED, MadeUp, made_up, rules

QUESTIONS = 400


def answers(*shares: float, forget: float = 0.2, questions: int = QUESTIONS) -> MadeUp:
    """Settings of one seed that answer so many of the perturbed questions right, always the first ones of a shuffle."""
    order = np.random.default_rng(0).permutation(questions)
    right = np.array([[order < share * questions] for share in shares], dtype=np.int8)
    forgotten = np.array([[order < forget * questions] for _ in shares], dtype=np.int8)
    return MadeUp({"perturbed": right, "forget_bio": forgotten, "forget_cyber": forgotten})


def race(made: MadeUp, depths: list[int], *, constrained: bool = False) -> Race:
    started = Race(rules(made.settings, constrained=constrained))
    for setting, depth in enumerate(depths):
        started.take(str(setting), [made.blocks(setting, 0, depth)])
    return started


def test_who_is_far_behind_is_out_and_it_is_said_why():
    standing = race(answers(0.9, 0.4), [3, 3]).standing()
    assert standing.inside == ["0"]
    assert standing.out["1"].by == "0"
    assert str(standing.out["1"]).startswith(f"{PERTURBED} 39.0 % after 3 of 5 blocks, 45.0 points behind 0")


def test_nobody_is_out_before_there_is_enough_to_tell():
    assert race(answers(0.9, 0.8), [1, 1]).standing().inside == ["0", "1"]


def test_when_all_is_asked_the_best_remains():
    assert race(answers(0.71, 0.72, 0.7), [5, 5, 5]).standing().inside == ["1"]


def test_who_does_not_meet_a_constraint_is_out_and_beats_nobody():
    made = answers(0.9, 0.4)
    made.correct["forget_bio"][0], made.correct["forget_cyber"][0] = 1, 1
    standing = race(made, [2, 2], constrained=True).standing()
    assert standing.inside == ["1"]
    assert standing.out["0"].goal.metric == FORGET


def test_a_setting_comes_back_where_the_one_that_beat_it_turns_out_not_to_meet_a_constraint():
    made = answers(0.9, 0.4)
    made.correct["forget_bio"][0, 0] = made.correct["forget_cyber"][0, 0] = np.arange(QUESTIONS) >= 30
    started = race(made, [1, 1], constrained=True)
    assert started.standing().inside == ["0"]
    assert started.standing().out["1"].by == "0"
    started.take("0", [made.blocks(0, 0, 5)])
    assert started.standing().inside == ["1"]


def test_a_setting_without_one_of_its_seeds_is_judged_anew():
    made = answers(0.9, 0.9)
    made.correct = {task: np.repeat(bits, 2, axis=1) for task, bits in made.correct.items()}
    made.correct["perturbed"][1, 1] = 0
    started = Race(rules(2))
    for setting in (0, 1):
        started.take(str(setting), [made.blocks(setting, seed, 3) for seed in (0, 1)])
    assert started.standing().inside == ["0"]
    started.take("1", [made.blocks(1, 0, 3)])
    assert started.standing().inside == ["0", "1"]


def test_tasks_of_a_role_count_alike_whatever_their_sizes():
    made = answers(0.5)
    made.correct["forget_bio"] = np.ones((1, 1, 40), dtype=np.int8)
    made.correct["forget_cyber"] = np.zeros((1, 1, 360), dtype=np.int8)
    started = race(made, [5], constrained=True)
    assert started.mean("0", started.rules.constraints[0]) == pytest.approx(0.5)
    assert made.truth("forget_bio", "forget_cyber")[0] == pytest.approx(0.5)


KINDS: dict[str, dict[str, Any]] = {
    "the demo's size, settings far apart": {"settings": 15, "seeds": 3, "questions": 256, "spread": 0.3},
    "half of MMLU's size, settings near each other": {"settings": 20, "seeds": 1, "questions": 4000, "spread": 0.1},
    "less than MMLU's size, some have not forgotten": {
        **{"settings": 20, "seeds": 2, "questions": 2000, "spread": 0.2},
        "forget": 600,
    },
    "settings that hardly differ": {"settings": 20, "seeds": 1, "questions": 1000, "spread": 0.05, "forget": 300},
}


@pytest.mark.whole
def test_of_two_hundred_sweeps_nearly_all_have_the_winner_that_the_whole_half_has_for_half_of_the_questions():
    """Against evaluating objective and constraint on the whole half for all trials of the same sweep."""
    shares, right = [], []
    for kind in KINDS.values():
        for number in range(50):
            made = made_up(np.random.default_rng(number), **kind)
            raced, asked = made.run(rules(made.settings, constrained="forget" in kind))
            shares.append(asked)
            right.append(as_good_as_the_best(made, raced.standing().inside, constrained="forget" in kind))
    assert np.mean(shares) <= 0.5
    assert np.mean(right) >= 0.95


def as_good_as_the_best(made: MadeUp, inside: list[str], *, constrained: bool) -> bool:
    """Within a point of the best on the whole half, or not to be told from it by the paired 95 % interval."""
    truth = made.truth("perturbed")
    met = made.truth("forget_bio", "forget_cyber") <= 0.35 if constrained else np.ones(made.settings, dtype=bool)
    if not met.any() or not inside:
        return not met.any() and not inside
    winner, best = int(inside[0]), int(np.where(met, truth, -1.0).argmax())
    lost = made.correct["perturbed"][best].mean(0) - made.correct["perturbed"][winner].mean(0)
    told = Z_95 * float(lost.std(ddof=1)) / math.sqrt(len(lost))
    return bool(met[winner]) and float(lost.mean()) <= max(0.01, told)
