"""Measured numbers beside the paper's: what was entered is what the paper prints, and the differences add up."""

import re
from pathlib import Path
from typing import Any

import pytest

from rna.report import reading, records, sheet, tables
from rna.report.records import Filters, Study
from tests import generated, shared
from tests.generated import settings

NUMBER = r"(\d+\.\d)"


@shared.needed
def test_every_number_entered_stands_in_the_paper():
    """Tables 1 to 5 as printed: two tables stand side by side, a method's second line has no name."""
    text = (shared.FOLDER / "paper" / "rna_v3.txt").read_text(encoding="utf-8")
    published = tables.paper()
    for left, right in (("2", "4"), ("8", "16")):
        start = text.index(f"Table {published['accuracy'][left]['table']}: Performance")
        part = text[start : text.index("\n\n", text.index("Method", start))]
        for method in records.PAPER_ORDER:
            plain = re.search(rf"^{re.escape(method)}\tOriginal\t(.*)\n\tw/ RNA\t(.*)$", part, re.MULTILINE)
            assert plain is not None, method
            for arm, line in zip(("plain", "rna"), plain.groups(), strict=True):
                found = [float(value) for value in re.findall(NUMBER, re.sub(r"\([^)]*\)", "", line))]
                for n, values in ((left, found[:3]), (right, found[3:])):
                    assert published["accuracy"][n]["rows"][method][arm] == values, (n, method, arm)
    start = text.index("Table 1: Selected")
    header, *rows = text[text.index("n -gram\t", start) : text.index("\n\n", text.index("n -gram\t", start))].split(
        "\n"
    )
    for row in rows:
        n, *values = row.split("\t")
        printed = dict(zip(header.split("\t")[1:], (float(value) / 100 for value in values), strict=True))
        assert published["nu"]["by_ngram"][n] == pytest.approx(printed)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The paper's model and evaluation: forget 1 below the paper's, retain 0.5 above, perturbed by 2-grams 2 above.

    With RNA the paper's ν of Table 1 and half of it, which does worse.
    """
    folder = tmp_path_factory.mktemp("paper")
    published = tables.paper()
    titles = {(name, retain): title for title, (name, retain) in zip(records.PAPER_ORDER, PAIRS, strict=True)}
    for (name, retain), title in titles.items():
        nu = published["nu"]["by_ngram"]["2"][title]
        for scale, arm, lost in ((0.0, "plain", 0.0), (1.0, "rna", 0.0), (0.5, "rna", 1.5)):
            forget, kept, perturbed = published["accuracy"]["2"]["rows"][title][arm]
            made = settings(name, retain, nu=scale * nu, model="zephyr_7b", eval="wmdp", keyword="SARS-CoV-2")
            trained = generated.record(made, curve=0)
            scores = {
                "forget_bio": forget - 3,
                "forget_cyber": forget + 1,
                "retain": kept + 0.5,
                "perturbed": perturbed - lost,
            }
            scores["ngram_2_top"] = perturbed + 2 - lost
            generated.write(folder, trained)
            for task, score in scores.items():
                generated.write(folder, generated.evaluation(trained, task, score / 100, keyword="SARS-CoV-2"))
    (found,) = records.studies(records.select(reading.load(str(folder)).trials, Filters()))
    return found


PAIRS = [
    *((name, "representation") for name in ("rmu", "adaptive_rmu", "rsv")),
    *((name, loss) for name in ("npo", "dpo", "simnpo") for loss in ("kl", "mse")),
]


def rows_of(table: sheet.Table) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_table_2_has_eighteen_rows_with_the_paper_s_numbers_and_the_differences(study: Study):
    found = {table.name: table for table in tables.every(study, [])}
    table = found["table2"]
    rows = rows_of(table)
    arms = [(method, arm) for method in records.PAPER_ORDER for arm in ("plain", "with RNA")]
    assert [(row["method"], row[""]) for row in rows] == arms
    for row in rows:
        arm = "plain" if row[""] == "plain" else "rna"
        printed = tables.paper()["accuracy"]["2"]["rows"][row["method"]][arm]
        assert [row[f"{name}, paper"] for name in ("forget", "retain", "perturbed")] == printed
        measured = [row[f"{name}, measured"].value for name in ("forget", "retain", "perturbed")]
        assert measured == pytest.approx([printed[0] - 1, printed[1] + 0.5, printed[2] + 2])
        assert [row[f"Δ {name}"] for name in ("forget", "retain", "perturbed")] == pytest.approx([-1.0, 0.5, 2.0])
    said = " ".join(table.notes)
    assert "model zephyr_7b, eval wmdp" in said
    assert "the same model" in said
    assert "Measured here with the keyword" not in said
    assert "SimNPO+KL with RNA: the change of perturbed MMLU is printed as +6.3; the values give +13.3." in said


def test_table_1_has_the_best_scale_beside_the_paper_s(study: Study):
    (table,) = (table for table in tables.every(study, []) if table.name == "table1")
    rows = rows_of(table)
    assert [(row["perturbed by"], row["method"]) for row in rows] == [("2-gram", method) for method in PRINTED_ORDER]
    assert [row["ν"] for row in rows] == [row["paper’s ν"] for row in rows]
    assert {row["difference"] for row in rows} == {0.0}


PRINTED_ORDER = list(tables.paper()["nu"]["by_ngram"]["2"])


def test_one_scale_is_no_choice_so_table_1_leaves_the_method_out(tmp_path: Path):
    for nu in (0.0, 0.03):
        trained = generated.record(settings(nu=nu), curve=0)
        generated.write(tmp_path, trained, generated.evaluation(trained, "ngram_2_top", 0.5))
    (found,) = records.studies(reading.load(str(tmp_path)).trials)
    (table,) = (table for table in tables.every(found, []) if table.name == "table1")
    assert table.rows == []
    assert "noise.nu=" in str(table.command)


def test_rates_stand_beside_those_of_section_6_2(tmp_path: Path):
    """Base 60, plain 30, RNA 50: recovery 66.7 %, where the paper has 18.5 for NPO+MSE."""
    generated.trial(tmp_path, settings("none"), generated.scores(98, 60), label="base")
    for nu, score in ((0.0, 30), (0.02, 50)):
        generated.trial(tmp_path, settings(nu=nu), generated.scores(30, score))
    (found,) = records.studies(reading.load(str(tmp_path)).trials)
    (table,) = (table for table in tables.every(found, []) if table.name == "rates")
    (row,) = rows_of(table)
    assert (row["reduction %"].value, row["recovery %"].value) == (50.0, pytest.approx(66.6667, abs=1e-3))
    assert (row["paper’s recovery %"], row["difference"]) == (18.5, pytest.approx(48.1667, abs=1e-3))
    assert "no error of either" in " ".join(table.notes)
