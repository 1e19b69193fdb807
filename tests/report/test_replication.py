"""The paper's claims, judged: numbers by hand, verdicts by rule, and the shipped records."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rna import intervals
from rna.intervals import Estimate, over_seeds
from rna.report import claims, packed, protections, reading, records, replication
from rna.report.__main__ import main
from rna.report.claims import CLAIMS, FAILS, HOLDS, UNTOLD, verdict
from rna.report.measures import EQUAL, MATCHED, Asked
from tests import generated
from tests.generated import settings

SEEDS = (0, 1, 2)
ROOT = Path(__file__).parents[2]
WOBBLE = (-1.0, 0.0, 1.0)  # of each seed, in points


def folder_of(folder: Path, perturbed: dict[tuple[str, float], float], **more: Any) -> Path:
    """Trials of methods, plain (ν = 0) and with RNA, with this accuracy beside a forget-token."""
    generated.references(folder)
    for (method, nu), accuracy in perturbed.items():
        retain = "representation" if method in ("rmu", "adaptive_rmu", "rsv") else "kl"
        for seed in SEEDS:
            wobble = WOBBLE[seed] * (1 if nu else -1)
            made = settings(method, retain, nu=nu, seed=seed, **more)
            made.output_dir = str(folder)
            generated.trial(folder, made, generated.scores(30.0, accuracy + wobble, 96.0))
    return folder


def asked(folder: Path, basis: str = EQUAL) -> Asked:
    (study,) = records.studies(reading.load(str(folder)).trials)
    return Asked(study.reported if study.halved else study, basis)


def found(folder: Path, name: str, basis: str = EQUAL) -> claims.Finding:
    return next(one for one in claims.judged(asked(folder, basis)) if one.claim.name == name)


def test_together_is_the_t_interval_of_one_group_and_welchs_of_several():
    alone = intervals.over_seeds([1.0, 2.0, 6.0])
    assert intervals.together([[1.0, 2.0, 6.0]], [1.0]) == alone
    # means 2 and 5, variances of means 1/2 and 4/3, weights 1 and −1; v = 11/6, df = v²/((1/2)²/1 + (4/3)²/2)
    made = intervals.together([[1.0, 3.0], [3.0, 5.0, 7.0]], [1.0, -1.0])
    margin = intervals.t_95((1 + 4 / 3) ** 2 / (1 + (4 / 3) ** 2 / 2)) * (1 + 4 / 3) ** 0.5
    assert made.value == pytest.approx(-3.0)
    assert (made.low, made.high) == (pytest.approx(-3.0 - margin), pytest.approx(-3.0 + margin))
    assert intervals.together([[1.0], [3.0, 5.0]], [1.0, 1.0]) == Estimate(5.0, n=1)


@pytest.mark.parametrize(
    ("low", "high", "wants", "said"),
    [
        (1.0, 9.0, 1, HOLDS),
        (1.0, 2.9, 1, FAILS),  # above zero, and too little to matter
        (-4.0, 2.0, 1, FAILS),
        (-4.0, 5.0, 1, UNTOLD),
        (-9.0, -1.0, -1, HOLDS),
        (1.0, 9.0, -1, FAILS),
        (-2.0, 2.5, 0, HOLDS),
        (-2.0, 3.5, 0, UNTOLD),
        (3.5, 9.0, 0, FAILS),
        (-9.0, -3.5, 0, FAILS),
    ],
)
def test_the_interval_and_the_margin_make_the_verdict(low: float, high: float, wants: int, said: str):
    assert verdict(Estimate((low + high) / 2, low, high, 3), wants, 3.0) == said


def test_without_an_interval_over_seeds_nothing_is_told():
    assert verdict(None, 1, 3.0) == verdict(Estimate(50.0, n=1), 1, 3.0) == UNTOLD
    assert verdict(Estimate(50.0, 40.0, 60.0, 1, "questions"), 1, 3.0) == UNTOLD


def test_the_costs_and_what_rna_gives_back_are_those_of_the_records(tmp_path: Path):
    folder = folder_of(tmp_path, {("rmu", 0.0): 40.0, ("rmu", 0.03): 42.0, ("npo", 0.0): 60.0, ("npo", 0.03): 80.0})
    costs = {"RMU": 95 - 40 - 1, "NPO+KL": 95 - 60 - 1}  # beyond the neutral token, and beyond the base's one point
    fragile = found(folder, "fragile")
    assert fragile.measured.number is not None
    assert fragile.measured.number.value == pytest.approx((54 + 34) / 2)
    assert {name: one.value for name, one in fragile.measured.by_method.items()} == pytest.approx(costs)
    assert fragile.verdict == HOLDS
    beside = found(folder, "rm_robust")
    assert beside.measured.number is not None
    assert beside.measured.number.value == pytest.approx(-20.0)
    assert beside.verdict == FAILS
    recovered = {name: found(folder, f"recovers_{name}") for name in ("rm", "po")}
    assert [one.measured.number.value for one in recovered.values() if one.measured.number] == [
        pytest.approx(2.0),
        pytest.approx(20.0),
    ]
    assert recovered["rm"].measured.margin == pytest.approx(54 / 4)  # a quarter of the harm
    assert [one.verdict for one in recovered.values()] == [FAILS, HOLDS]
    assert found(folder, "forget_stays").verdict == UNTOLD  # seeds agree to the last digit
    assert found(folder, "fragile", MATCHED).verdict == UNTOLD
    assert found(folder, "fragile", MATCHED).measured.number is None


def test_the_best_nu_is_shown_and_each_step_of_nu_is_a_claim(tmp_path: Path):
    nus = {0.0: 40.0, 0.01: 60.0, 0.02: 61.0, 0.1: 30.0}
    folder = folder_of(tmp_path, {("rmu", nu): value for nu, value in nus.items()})
    assert "ν = 0.02" in found(folder, "recovers_rm").measured.note
    told = {name: found(folder, name) for name in ("nu_helps", "nu_saturates", "nu_hurts")}
    assert [one.measured.number.value for one in told.values() if one.measured.number] == [
        pytest.approx(20.0),
        pytest.approx(1.0),
        pytest.approx(-31.0),
    ]
    assert told["nu_helps"].verdict == HOLDS
    assert told["nu_saturates"].verdict == UNTOLD  # RNA's seeds move together: no interval
    assert "ν = 0.1 less 0.02" in told["nu_hurts"].measured.note


def test_a_slope_is_by_doublings_and_noise_elsewhere_is_held_against_plain(tmp_path: Path):
    generated.references(tmp_path)
    for place, coefficient in enumerate((2.0, 4.0, 8.0)):
        for seed in SEEDS:
            accuracy = 80.0 - 10 * place * (1 + WOBBLE[seed] / 10)
            made = settings("rmu", "representation", seed=seed, options={"coefficient": coefficient})
            generated.trial(tmp_path, made, generated.scores(30.0, accuracy))
    for layers, accuracy in (([2], 50.0), ([0], 70.0), ([1], 60.0), ([0, 1, 2, 3], 20.0), ([], 50.0)):
        for seed in SEEDS:
            made = settings("npo", "kl", nu=0.03 if layers else 0.0, layers=layers, seed=seed)
            value = accuracy + (WOBBLE[seed] if layers else 0.0)
            generated.trial(tmp_path, made, generated.scores(30.0, value))
    slope = found(tmp_path, "coefficient").measured
    assert slope.number is not None
    assert slope.number.value == pytest.approx(-10.0)
    assert slope.note == "RMU coefficient 2, 4, 8"
    other, everywhere = found(tmp_path, "elsewhere"), found(tmp_path, "everywhere")
    assert other.measured.number is not None
    assert everywhere.measured.number is not None
    assert other.measured.number.value == pytest.approx(15.0)  # the mean of layers 0 and 1
    assert everywhere.measured.number.value == pytest.approx(-30.0)
    assert (other.verdict, everywhere.verdict) == (HOLDS, FAILS)


def test_sensitivities_are_those_of_the_trials_and_come_along_in_a_packed_file(tmp_path: Path):
    folder = folder_of(tmp_path / "outputs", {("rmu", 0.0): 40.0})
    keys = {trial.seed: trial.key for trial in reading.load(str(folder)).trials if trial.method}
    where = folder / "reports" / "analyses" / "demo" / "noise_sensitivity"
    where.mkdir(parents=True)
    rows = [f"base,{noise},3,,9" for noise in ("1", "rms")]
    for seed in SEEDS:
        rows += [f"RMU {seed},rms,3,{-0.2 + seed / 100},9", f"RMU {seed},rms,2,0.5,9", f"RMU {seed},1,3,0.5,9"]
    (where / "sensitivity.csv").write_text("\n".join(["model,noise,layer,minus_base,documents", *rows]) + "\n")
    facts = {"trials": {f"RMU {seed}": key for seed, key in keys.items()}, "tables": ["sensitivity"]}
    (where / "analysis.json").write_text(json.dumps(facts))
    file = tmp_path / "ours.jsonl.xz"
    packed.pack(str(folder), file, None)
    for source in (folder, file):
        (column,) = replication.columns(records.studies(reading.load(source).trials), packed.analysed(source))
        told = {one.claim.name: one for one in column.findings}
        assert told["layer_behind"].measured.number is not None
        assert told["layer_behind"].measured.number.value == pytest.approx(-0.19)
        assert told["layer_behind"].verdict == HOLDS
        assert told["middle_layers"].verdict == UNTOLD  # of four layers


def test_what_cannot_be_told_comes_with_what_could_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Gains of −10, 10 and 30 points: an interval of 2 · 4.303 · 20 / √3 points."""
    monkeypatch.setitem(globals(), "WOBBLE", (-10.0, 0.0, 10.0))
    folder = folder_of(tmp_path, {("rmu", 0.0): 40.0, ("rmu", 0.03): 50.0})
    assert found(folder, "recovers_rm").verdict == UNTOLD
    main(["replication", "--output-dir", str(folder)])
    text = (folder / "reports" / "all" / "replication" / "replication.md").read_text()
    assert "+10.0 [−39.7, +59.7] points" in text
    assert "  From 49.7 on it could be told" in text


def test_a_report_has_every_claim_and_packed_records_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = folder_of(tmp_path / "outputs", {("rmu", 0.0): 40.0, ("rmu", 0.03): 42.0})
    main(["replication", "--output-dir", str(folder)])
    there = folder / "reports" / "all" / "replication"
    text = (there / "replication.md").read_text()
    assert all(f"## {claim.text}" in text for claim in CLAIMS)
    assert "Tried: ν = 0.03" in text
    file = tmp_path / "ours.jsonl.xz"
    assert packed.pack(str(folder), file, None) == len(list((folder / "results").glob("*.json")))
    main(["replication", "--from", str(file), "--output-dir", str(tmp_path / "elsewhere")])
    told = [json.loads(text()) for _, text in reading.names_of(file)]
    assert not any(str(tmp_path) in json.dumps(one) or "host" in one for one in told)
    assert {one["config"]["output_dir"] for one in told} == {"outputs"}
    again = (tmp_path / "elsewhere" / "reports" / "ours" / "replication" / "replication.md").read_text()
    assert again.splitlines()[3:] == text.splitlines()[3:]
    assert (there / "figures" / "replication.svg").exists()
    main(["--from", str(file), "--output-dir", str(tmp_path / "elsewhere")])  # links to no record that is not here
    assert "results/" not in (tmp_path / "elsewhere" / "reports" / "ours" / "index.html").read_text()
    capsys.readouterr()
    with pytest.raises(ValueError, match="exists already"):
        packed.pack(str(folder), file, None)
    odd = tmp_path / "odd" / "results"
    odd.mkdir(parents=True)
    (odd / "a.json").write_text(json.dumps({**told[0], "label": "two\u2028lines"}, ensure_ascii=False))
    packed.pack(str(odd.parent), tmp_path / "odd.jsonl.xz", None)
    assert len(reading.load(tmp_path / "odd.jsonl.xz").unreadable) == 0
    assert len(list(reading.names_of(tmp_path / "odd.jsonl.xz"))) == 1
    (odd / "b.json").write_text('{"kind":')
    with pytest.raises(ValueError, match=r"b\.json: cannot be read as a record"):
        packed.pack(str(odd.parent), tmp_path / "torn.jsonl.xz", None)
    file.write_bytes(b"no records")
    with pytest.raises(SystemExit):
        main(["replication", "--from", str(file), "--output-dir", str(tmp_path / "elsewhere")])
    assert "holds no packed records" in capsys.readouterr().err


# The shipped records


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    return [json.loads(text()) for file in replication.shipped() for _, text in reading.names_of(file)]


def judged_from(folder: Path, lines: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """By column and claim the verdicts of these records."""
    where = folder / "results"
    where.mkdir(parents=True)
    for number, one in enumerate(lines):
        if one["kind"] != reading.ANALYSIS:
            (where / f"{number}.json").write_text(json.dumps(one))
    made = replication.columns(records.studies(reading.load(str(folder)).trials), [])
    return {(column.title, one.claim.name): one.verdict for column in made for one in column.findings}


@pytest.mark.whole
def test_the_shipped_records_say_what_is_written_beside_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["replication", "--shipped", "--output-dir", str(tmp_path)])
    (made,) = tmp_path.glob("reports/*/replication/replication.md")
    text = made.read_text().splitlines()
    kept = (replication.SHIPPED / "README.md").read_text().splitlines()
    assert text[3:] == kept[3:]  # but for the folder in the command
    assert "hold" in capsys.readouterr().out


@pytest.mark.whole
def test_the_first_page_says_what_the_shipped_records_say():
    found = replication.columns(records.studies(reading.load(*replication.shipped()).trials), [])
    told = {
        (column.title.removesuffix(f", {MATCHED}"), one.claim.name): one.measured.number
        for column in found
        if column.asked.basis == MATCHED
        for one in column.findings
    }

    page = " ".join((ROOT / "README.md").read_text().split())
    real = "smollm2_135m_gguf, eval perplexity"
    assert f"RNA gives back {said(told['demo', 'recovers_rm'], 0, 'points ')} of the 59" in page
    assert f"demo, {said(told['demo', 'recovers_po'], 0)} of PO methods' 30" in page
    assert f"SmolLM2-135M {said(told[real, 'recovers_rm'], 2, 'nats ')} of RMU's 0.14" in page
    assert f", {said(told[real, 'recovers_po'], 2)} of NPO+KL's 0.02" in page
    (study,) = (column.study for column in found if column.title.startswith(real))
    (splices,) = (
        row for group in protections.groups(study) for row in group.rows
        if group.method == "RMU" and row.kind == "harm-weighted splices"
    )  # fmt: skip
    assert splices.change is not None
    less = Estimate(-splices.change.value, low=-splices.change.high, high=-splices.change.low)  # pyright: ignore
    assert f"(harm-weighted splices {said(less, 2)})" in page
    assert f"from {len({trial.key for column in found for trial in column.study.trials})} trials" in page


def said(made: Estimate | None, digits: int, unit: str = "") -> str:
    assert made is not None
    assert made.low is not None
    assert made.high is not None
    return f"{made.value:.{digits}f} {unit}[{made.low:.{digits}f}, {made.high:.{digits}f}]".replace("-", "−")


def real_table() -> str:
    """What `rna/report/README.md` tells of the real model, from the shipped records."""
    found = replication.columns(records.studies(reading.load(*replication.shipped()).trials), [])
    (asked,) = (one.asked for one in found if one.title.startswith("smollm2_135m_gguf, eval perplexity"))
    lines: list[str] = []
    for group in protections.groups(asked.study):
        for name, trials in (("plain", group.there), *((row.kind, row.trials) for row in group.rows)):
            forgot = [less for trial in trials if (less := asked.less(trial, asked.base, "forget")) is not None]
            kept = [less for trial in trials if (less := asked.less(trial, asked.base, "retain")) is not None]
            costs = [cost for trial in trials if (cost := asked.cost(trial)) is not None]
            mean, low, high = (math.exp(one) for one in (sum(forgot) / len(forgot), min(forgot), max(forgot)))
            lines.append(
                f"| {group.method}, {name}, {len(costs)} seeds | × {mean:.1f} ({low:.1f} to {high:.1f}) "
                f"| × {math.exp(sum(kept) / len(kept)):.2f} | {said(over_seeds(costs), 3)} |"
            )
    return "\n".join(lines)


@pytest.mark.whole
def test_the_page_of_reports_tells_of_the_real_model_what_the_shipped_records_say():
    page = (ROOT / "rna" / "report" / "README.md").read_text()
    assert real_table() in page


@pytest.mark.whole
def test_a_verdict_changes_with_one_record(tmp_path: Path, lines: list[dict[str, Any]]):
    before = judged_from(tmp_path / "before", lines)
    (base,) = [
        one
        for one in lines
        if one["kind"] == "eval" and one["label"] == "base" and one["task"] == "perturbed"
        and one["config"]["model"]["name"] == "demo" and one["config"]["eval"]["kind"] == "choice"
    ]  # fmt: skip
    for half in ("select", "report"):
        base["metrics"][half] = {**base["metrics"][half], "acc": 0.3}
    after = judged_from(tmp_path / "after", lines)
    where = next(column for column, name in before if column.startswith("demo") and MATCHED in column)
    assert before[where, "fragile"] == HOLDS
    assert after[where, "fragile"] == FAILS
