"""One set of records, and the same interval on the terminal, the report's page and the model card."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from rna import export, intervals, show
from rna.intervals import answers
from rna.report import compare, reading, records, sheet, tables, verdicts
from rna.report.records import Filters
from rna.store import compared, results
from rna.trial import Arm
from tests import generated
from tests.generated import settings

N = 400
LOST = {  # of questions that were right, by arm and task
    "base": {"retain": 0.01, "perturbed": 0.03, "neutral": 0.02, "forget_bio": 0.02, "forget_cyber": 0.03},
    "plain": {"retain": 0.05, "perturbed": 0.45, "neutral": 0.08, "forget_bio": 0.7, "forget_cyber": 0.65},
    "with RNA": {"retain": 0.06, "perturbed": 0.3, "neutral": 0.08, "forget_bio": 0.68, "forget_cyber": 0.66},
}
ASKED = {"retain": "r", "perturbed": "r", "neutral": "r", "forget_bio": "b", "forget_cyber": "c"}


def metrics(label: str, task: str) -> dict[str, Any]:
    """All questions, and the first 210 as the report half; a question is as hard for one arm as for another."""
    draw = random.Random(ASKED[task])
    right = "".join("01"[draw.random() > LOST[label][task]] for _ in range(N))

    def part(bits: str, name: str) -> dict[str, Any]:
        share = bits.count("1") / len(bits)
        stderr = (share * (1 - share) / (len(bits) - 1)) ** 0.5
        return {"acc": share, "acc_stderr": stderr, "n": len(bits), "correct": f"{int(bits, 2):x}", "asked": name}

    return {**part(right, ASKED[task]), "report": part(right[:210], f"{ASKED[task]} report")}


@pytest.fixture
def arms(tmp_path: Path) -> dict[str, Arm]:
    """The arms of one trial, written as records and as the terminal has them."""
    chosen = {"base": settings("none"), "plain": settings(), "with RNA": settings(nu=0.014)}
    found: dict[str, Arm] = {}
    for label, made in chosen.items():
        trained = generated.record(made, label="base" if label == "base" else "")
        judged = {task: generated.evaluation(trained, task, 0.5, more=metrics(label, task)) for task in LOST["base"]}
        generated.write(tmp_path, trained, *judged.values())
        tasks = {task: one["task_identity"] for task, one in judged.items()}
        found[label] = Arm(label, made, trained["key"], trained["identity"], tasks, trained, judged)
    return found


def short(told: str) -> str:
    """As the terminal has it, which says once what its intervals are over."""
    return told.partition(" (")[0]


def answered(lines: list[str], asked: str) -> str:
    (found,) = (line for line in lines if line.startswith(asked))
    return found


def test_one_number_everywhere(arms: dict[str, Arm], tmp_path: Path):
    """The cost of plain and its change from the base, of all questions, in the same words; and ± behind each score."""
    plain = arms["plain"]
    record = json.loads((tmp_path / "results" / f"{plain.key}.json").read_text())
    own, base = export.judged(record, str(tmp_path))

    def told_of(name: str) -> str:
        terms = compared.terms(compared.scores(own, "all"), compared.scores(base, "all"))
        return intervals.said(intervals.estimate([terms[name]]), 1, "points")

    harm, change = (told_of(name) for name in (intervals.HARM, "perturbed, against base"))
    assert "(95 % over questions, paired, one seed)" in harm
    terminal = show.verdicts(list(arms.values()))
    (study,) = records.studies(records.select(reading.load(str(tmp_path)).trials, Filters()))
    found = compare.comparisons(study)
    (verdict,) = verdicts.every(study)
    page = verdict.sentences
    for asked in (answers.FORGOT, answers.COST):
        assert answered(page, asked) == answered(terminal, asked)
    assert f"against the same in base: plain {short(harm)}, a cost; with RNA " in answered(page, answers.COST)
    assert page[-1] == terminal[-1] == "In brackets: 95 % over questions, paired, one seed."
    ours, theirs = (answered(lines, answers.CHANGES).partition(": ")[2] for lines in (page, terminal))
    assert ours == theirs
    assert short(intervals.said(found[0].changes["perturbed"], 1, "points")) in ours

    written = sheet.markdown(tables.harms(study, compare.picks(study)))
    for told in (harm, change):
        assert f"{short(told).replace(' points', '')}*" in written
    front = {str(row[0]): row for row in tables.front(study, compare.picks(study)).rows}
    for name, arm in (("base", "base"), ("NPO+MSE", "plain"), ("+ RNA, ν 0.014", "with RNA")):
        for role, cell in zip(("forget", "retain", "neutral", "perturbed"), front[name][1:], strict=False):
            assert cell == answers.percent(show.scores(arms[arm])[role])

    card = export.card(record, own, base)
    for name in (intervals.HARM, "perturbed, against base", "forget, against base"):
        assert f"- {name}: {told_of(name)}" in card
    for task in plain.tasks:
        made = intervals.estimate([[(1.0, compared.scores([plain.evaluated[task]])[ROLES[task]][task])]])
        assert f"| {task}, accuracy in % | {made.value:.1f} | {made.low:.1f} to {made.high:.1f} |" in card
        assert show.scores(plain)[task] == made


ROLES = generated.TASKS


def test_records_without_single_questions_are_read_and_unpaired_everywhere(arms: dict[str, Arm], tmp_path: Path):
    """What was written before a half had bits: all numbers are there, and wider."""
    paired = show.harm(arms["plain"], arms["base"])
    for file in (tmp_path / "results").glob("*-*.json"):
        record = json.loads(file.read_text())
        for part in (record["metrics"], record["metrics"]["report"]):
            del part["correct"], part["asked"]
        file.write_text(json.dumps(record))
    for arm in arms.values():
        arm.evaluated = {task: json.loads((tmp_path / "results" / f"{results.eval_key(arm.key, one)}.json").read_text())
                         for task, one in arm.tasks.items()}  # fmt: skip
    made = show.harm(arms["plain"], arms["base"])
    assert paired is not None
    assert made is not None
    assert (made.value, made.paired, paired.paired) == (pytest.approx(paired.value), False, True)
    assert made.high - made.low > 1.1 * (paired.high - paired.low)  # pyright: ignore
    assert "unpaired as a record lacks its single questions" in "\n".join(show.verdicts(list(arms.values())))
    (study,) = records.studies(records.select(reading.load(str(tmp_path)).trials, Filters()))
    (verdict,) = verdicts.every(study)
    assert "unpaired as a record lacks its single questions" in "\n".join(verdict.sentences)
