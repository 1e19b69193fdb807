"""Analyses on the report's page: those that were made, and what would make the others."""

import json
import shlex
from pathlib import Path

import pytest

from rna.analyze import draw
from rna.report import analyses, reading
from rna.report.__main__ import report
from rna.report.records import Filters
from tests import generated
from tests.generated import scores, settings

SVG = """<?xml version="1.0"?>
<svg width="10pt" height="10pt" viewBox="0 0 10 10" xmlns="http://www.w3.org/2000/svg"><g id="figure_1">
<path id="p" style="fill: #22262e"/></g></svg>
"""
FACTS = {
    "trials": {"RMU": "k1"},
    "command": "python -m rna.analyze noise_sensitivity k1",
    "verdict": "Layer 3 < layer 2.",
    "keywords": ["marsh fevers", "Lake Geneva"],
    "tables": ["table"],
    "layer": 2,
    "limit": 32,
    "samples": 8,
    "seed": 0,
    "seconds": 1.5,
    "host": "h",
    "created": "now",
    "commit": "c" * 40,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trials of RMU and NPO, two of which have tensors, with one analysis of their model and a broken one."""
    made = tmp_path_factory.mktemp("outputs")
    for nu in (0.0, 0.014):
        for chosen in (settings("rmu", "representation", nu=nu), settings(nu=nu)):
            key = generated.trial(made, chosen, scores(30, 60))
            if chosen.method.name == "rmu":
                (made / "trials" / key).mkdir(parents=True)
                (made / "trials" / key / "unlearned.safetensors").touch()
    where = analyses.folder_of(str(made), "demo", "noise_sensitivity")
    where.mkdir(parents=True)
    (where / "analysis.json").write_text(json.dumps(FACTS))
    (where / "figure.svg").write_text(SVG)
    rows = "".join(f"{layer},-0.123456789\n" for layer in range(300))
    (where / "table.csv").write_text(f"layer,sensitivity\n{rows}")
    broken = analyses.folder_of(str(made), "demo", "eq_9")
    broken.mkdir(parents=True)
    (broken / "analysis.json").write_text("{")
    report([], Filters(), str(made), "python -m rna.report")
    return made


@pytest.mark.whole
def test_an_analysis_is_on_the_page_with_verdict_figure_table_and_command(folder: Path):
    text = (folder / "reports" / "all" / "index.html").read_text(encoding="utf-8")
    part = text[text.index('<h2 id="analyses">') :]
    for said in ("Figure 7 · Noise sensitivity", "Layer 3 &lt; layer 2.", FACTS["command"], "−0.1235", "RMU (k1)"):
        assert said in part
    assert 'id="noise_sensitivity-demo-figure_1"' in part
    assert 'style="fill: currentColor"' in part
    assert 'href="../analyses/demo/noise_sensitivity/table.csv"' in part
    assert "The first 200 of 300 rows." in part
    assert (folder / "reports" / "analyses" / "demo" / "noise_sensitivity" / "table.csv").is_file()
    assert "An analysis could not be shown" in text
    assert "eq_9: JSONDecodeError" in text


@pytest.mark.whole
def test_the_others_are_missing_with_commands_on_trials_that_have_tensors(folder: Path):
    trials = reading.load(str(folder)).trials
    missing = {picture.name: shlex.split(str(picture.command)) for picture in analyses.missing(str(folder), trials)}
    assert set(missing) == set(draw.TITLES) - {"noise_sensitivity", "eq_9"}
    with_tensors = [path.name for path in (folder / "trials").iterdir()]
    for name, words in missing.items():
        assert words[:4] == ["python", "-m", "rna.analyze", name]
        keys = [] if name == "relative_noise" else with_tensors
        assert sorted(words[4:-2]) == sorted(keys)
    first = next(trial for trial in trials if trial.key == missing["backdoor"][4])
    assert (first.method, first.arm) == ("RMU", "plain")


def test_another_model_is_named_with_its_data_and_questions(tmp_path: Path):
    made = settings(model="zephyr_7b")
    made.data.name = "wmdp"
    generated.trial(tmp_path, made, scores(30, 60))
    missing = analyses.missing(str(tmp_path), reading.load(str(tmp_path)).trials)
    by_name = {picture.name: str(picture.command) for picture in missing}
    assert "KEY model=zephyr_7b data=wmdp --questions FILE" in by_name["backdoor"]
    assert "noise_sensitivity model=zephyr_7b data=wmdp --output-dir" in by_name["noise_sensitivity"]
