"""A study on W&B: runs are uploaded once each, the dashboard reads what trials log, and nothing is lost on the way."""

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from rna import dashboard, ledger, track
from rna.report import records
from tests import generated
from tests.generated import scores, settings


def offline(folder: Path, *names: str) -> list[Path]:
    made = [folder / "wandb" / f"offline-run-{name}" for name in names]
    for place in made:
        place.mkdir(parents=True)
        (place / f"run-{place.name.split('-', 3)[3]}.wandb").touch()
    return made


def mark(places: Sequence[Path]) -> None:
    for place in places:
        (file,) = place.glob("*.wandb")
        file.with_suffix(".wandb.synced").touch()


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, str]:
    """A sweep `mine` of one trial beside another trial that is not in it."""
    key = generated.trial(tmp_path, settings(nu=0.02), scores(30, 60))
    generated.trial(tmp_path, settings("dpo"), scores(30, 60))
    ledger.save(tmp_path / "sweeps" / "mine", ledger.Trial(0, [], address={"key": key}))
    return tmp_path, key


def test_a_sweep_s_runs_are_its_trials_evaluations_and_closing_run(study: tuple[Path, str]):
    folder, key = study
    names = [f"2-{key}", "1-sweep-mine", f"3-{key}-5f5f", "4-other", "5-sweep-all", f"1-{key}"]
    offline(folder, *(f"20260101_00000{name}" for name in names))
    found = [
        place.name.removeprefix("offline-run-20260101_00000") for place in dashboard.offline_runs(str(folder), "mine")
    ]
    assert found == sorted([f"1-{key}", "1-sweep-mine", f"2-{key}", f"3-{key}-5f5f"])


def test_each_run_is_sent_once_and_a_stopped_upload_goes_on(study: tuple[Path, str], monkeypatch: pytest.MonkeyPatch):
    folder, key = study
    made = offline(folder, *(f"20260101_00000{number}-{key}" for number in range(5)))
    mark(made[:1])
    monkeypatch.setattr(dashboard, "CHUNK", 2)
    sent: list[str] = []

    def upload(places: Sequence[Path]) -> bool:
        if len(sent) == 2:
            sent.append("stop")
            return False
        sent.extend(place.name for place in places)
        mark(places)
        return True

    assert dashboard.sync(str(folder), "mine", upload) == (3, 5)
    assert dashboard.sync(str(folder), "mine", upload) == (5, 5)
    assert dashboard.sync(str(folder), "mine", upload) == (5, 5)
    assert [name for name in sent if name != "stop"] == [place.name for place in made[1:]]


def leaves(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in leaves(item)]
    if isinstance(value, list):
        return [text for item in value for text in leaves(item)]
    return [value] if isinstance(value, str) else []


def test_the_workspace_reads_what_trials_log(study: tuple[Path, str], monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb_workspaces")
    folder, _ = study
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    said = dashboard.workspace(str(folder), "mine", "rna", None)
    file = folder / "reports" / "mine" / "workspace.json"
    assert said.startswith(str(file))
    spec = json.loads(file.read_text())
    panels = [panel for part in spec["spec"]["section"]["panelBankConfig"]["sections"] for panel in part["panels"]]
    kinds = {panel["viewType"] for panel in panels}
    assert {"Scatter Plot", "Parallel Coordinates Plot", "Run History Line Plot", "Bar Chart"} <= kinds
    (trial,) = [item for item in records.load(str(folder)).trials if item.arm == "rna"]
    logged = {f"eval/{item.task}/acc" for item in trial.evaluations} | set(trial.curve) | {"train/step"}
    config = asdict(settings())
    for text in leaves([panel["config"] for panel in panels]):
        if text.startswith(("eval/", "train/", "summary:")):
            assert text.removeprefix("summary:") in logged, text
        elif text.startswith("config:"):
            first, *rest = text.removeprefix("config:").split(".")
            assert rest[0] == "value"
            assert first in config, text
            assert not rest[1:] or rest[1] in config[first], text
    assert '"value": "mine"' in file.read_text()


def read_back(place: Path) -> dict[str, Any]:
    (file,) = place.glob("*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(file)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_the_closing_run_holds_leaderboard_figures_and_gains(tmp_path: Path):
    for nu in (0.0, 0.02):
        generated.trial(tmp_path, settings(nu=nu), scores(30, 60 + 500 * nu))
    place = Path(dashboard.close(str(tmp_path), None, "rna", None))
    assert place in dashboard.offline_runs(str(tmp_path), None)
    found = read_back(place)
    assert (found["run_id"], found["state"]) == ("sweep-all", "finished")
    summary = found["summary"]
    assert summary["gain/NPO+MSE"] == pytest.approx(10.0)
    assert any("table/summary" in key for key in summary)
    assert any("figure/pareto" in key for key in summary)


@pytest.mark.slow
def test_fifty_trials_side_by_side_lose_nothing(tmp_path: Path):
    def one(number: int) -> str:
        made = settings(seed=number, nu=0.02)
        made.output_dir, made.wandb.mode, made.wandb.group = str(tmp_path), "offline", "many"
        with track.tracking(made, run_id=f"key{number}", job_type="train") as tracked:
            for step in range(3):
                tracked.step(step, {"train/forget_loss": float(number + step)})
            tracked.summarise({"eval/retain/acc": number / 100})
        assert tracked.path is not None
        return tracked.path

    with ThreadPoolExecutor(8) as pool:
        places = list(pool.map(one, range(50)))
    found = [read_back(Path(place)) for place in places]
    assert [item["run_id"] for item in found] == [f"key{number}" for number in range(50)]
    for number, item in enumerate(found):
        summary = item["summary"]
        assert summary["train/forget_loss"] == number + 2
        assert summary["eval/retain/acc"] == number / 100
        assert summary["train/step"] == 2
