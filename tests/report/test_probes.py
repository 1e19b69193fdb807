"""What probes bring back, from made-up records whose numbers are known."""

from pathlib import Path
from typing import Any

import pytest

from rna.report import probes, reading, records
from rna.report.__main__ import main
from rna.report.probes import Row
from rna.report.records import Filters, Study
from tests import generated
from tests.report.test_matched import TARGET

ADVERSARIAL = {"defence": {"name": "adversarial"}}
AFTER = {"plain": (80.0, 82.0, 84.0), "adversarial": (90.0, 95.0, 88.0)}  # relearn, by seed


def state(forget: float) -> dict[str, Any]:
    halves = {half: {"acc": forget / 100, "acc_stderr": 0.02, "n": 200} for half in ("select", "report")}
    return {
        name: {"acc": forget / 100, "acc_stderr": 0.02, "n": 400, **halves} for name in ("forget_bio", "forget_cyber")
    }


def probed(record: dict[str, Any], name: str, before: float, after: float, **more: Any) -> dict[str, Any]:
    metrics = {"states": {"before": state(before), "step 5": state(before), "step 9": state(after)}, "state": "step 9"}
    made = record | {"kind": "probe", "train_key": record["key"], "task": f"probe/{name}", "metrics": metrics | more}
    identity = {"probe": {"name": name}, "tasks": {}, "numerics": 3, "seed": 0}
    return made | {"key": f"{record['key']}-{name}", "task_identity": identity}


def agreeing(record: dict[str, Any], equal: float) -> dict[str, Any]:
    made = probed(record, "agreement", 0, 0)
    told = {"equal": equal, "equal_stderr": 0.01, "divergence": 0.3, "divergence_stderr": 0.01, "n": 400}
    return made | {"metrics": {"states": {}, "forget": told}}


def folder_of(folder: Path, *, reached: bool = True) -> Path:
    generated.references(folder)
    for kind, of_kind in AFTER.items():
        for seed, after in enumerate(of_kind):
            made = generated.settings("rmu", "representation", seed=seed)
            made.train.until = TARGET
            until = {"metric": "interim/forget/acc", "at": 0.35, "step": 60, "value": 0.34}
            record = generated.record(made, until={**until, "reached": reached or kind == "plain"})
            if kind != "plain":
                record["identity"] |= ADVERSARIAL
                record["key"] += kind
            generated.write(folder, record, generated.evaluation(record, "forget_bio", 0.3))
            generated.write(folder, probed(record, "relearn", 30, after), agreeing(record, 0.25))
    for trial in reading.load(str(folder)).trials:
        if trial.arm in ("base", "retrained"):
            record = {"key": trial.key, "config": trial.config, "identity": trial.identity}
            record |= {"label": trial.arm, "created": "2026-01-01T00:00:00+00:00"}
            value = {"base": 98.0, "retrained": 25.0}[trial.arm]
            generated.write(folder, probed(record, "relearn", value, value))
    return folder


def rows_of(folder: Path) -> tuple[Study, list[Row]]:
    loaded = reading.load(str(folder))
    (study,) = records.studies(records.select(loaded.trials, Filters()))
    return study, probes.rows_of(study, loaded.probed)


def test_protected_stands_beside_plain_seed_by_seed(tmp_path: Path):
    """Differences 10, 13 and 4: mean 9, deviation 4.583; t₂ = 4.303, so ± 11.38, and t = 3.402 has p = 0.077."""
    study, rows = rows_of(folder_of(tmp_path))
    assert probes.correct(rows) == 1
    by_kind = {row.kind or row.method: row for row in rows}
    assert list(by_kind) == ["base", "retrained", "plain", "adversarial soft tokens"]
    change = by_kind["adversarial soft tokens"].changes["relearn"]
    assert (change.value, change.n) == (pytest.approx(9.0), 3)
    assert (change.low, change.high) == (pytest.approx(-2.38, abs=0.01), pytest.approx(20.38, abs=0.01))
    assert by_kind["adversarial soft tokens"].p["relearn"] == pytest.approx(0.0767, abs=0.001)
    gain = by_kind["plain"].gain("relearn")
    assert gain is not None
    assert gain.value == pytest.approx(52.0)
    made = probes.table(study, rows, 1)
    cells: dict[str, dict[str, Any]] = {str(row[1]): dict(zip(made.columns, row, strict=True)) for row in made.rows}
    assert cells["plain"]["forget, as it is"].value == pytest.approx(30.0)
    assert cells["plain"]["relearn"].value == pytest.approx(82.0)
    assert cells["plain"]["Δ plain, relearn"] is None
    assert cells["plain"]["equal answers with retrained, %"].value == pytest.approx(25.0)
    first, last = probes.paragraph(rows, 1)
    assert first.startswith("relearn: brings back RMU +52.0 ± ")
    assert "retrained +0.0" in first
    assert "Of 1 differences from plain 0 are told from chance" in last
    assert "adversarial soft tokens +9.0 points" in last


def test_what_did_not_reach_its_target_is_left_out_and_told(tmp_path: Path):
    study, rows = rows_of(folder_of(tmp_path, reached=False))
    assert [row.kind or row.method for row in rows] == ["base", "retrained", "plain"]
    notes = probes.table(study, rows, 0).notes
    assert notes[-1] == "Left out, as their training did not reach the target of train.until: RMU: 3."


def test_of_several_settings_of_a_probe_the_most_used_stands(tmp_path: Path):
    folder = folder_of(tmp_path)
    trial = next(one for one in reading.load(str(folder)).trials if one.bare and one.method)
    record = {"key": trial.key, "config": trial.config, "identity": trial.identity, "label": "plain", "created": "x"}
    other = probed(record, "relearn", 30, 99.0)
    other["task_identity"]["probe"]["steps"] = [1]
    other["key"] += "other"
    generated.write(folder, other)
    _, rows = rows_of(folder)
    plain = next(row for row in rows if row.kind == "plain")
    known = plain.known("relearn")
    assert known is not None
    assert known.value == pytest.approx(82.0)


def test_the_command_writes_page_table_and_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = folder_of(tmp_path)
    main(["probes", "--output-dir", str(folder)])
    assert "relearn: brings back RMU" in capsys.readouterr().out
    made = folder / "reports" / "all" / "probes"
    assert {"index.html", "figures", "tables"} == {path.name for path in made.iterdir()}
    page = (made / "index.html").read_text()
    assert "Is it forgotten?" in page
    assert "<svg" in page
    assert {"probes.csv", "probes.md", "probes.tex"} == {path.name for path in (made / "tables").iterdir()}


def test_where_nothing_was_probed_the_command_that_probes_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    generated.trial(tmp_path, generated.settings(), generated.scores(30, 60))
    with pytest.raises(SystemExit):
        main(["probes", "--output-dir", str(tmp_path)])
    assert "no trial was probed with questions; python -m rna.run -m sweep=probes" in capsys.readouterr().err
