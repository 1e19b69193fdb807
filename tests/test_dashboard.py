"""A study on W&B: runs are uploaded once each, the dashboard reads what trials log, and nothing is lost on the way."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rna import dashboard, ends, run, track, trial
from rna.report import reading
from rna.settings import config
from rna.settings.fields import WandbSettings
from rna.sweep import leaderboard, ledger
from rna.unlearning import train
from tests import generated
from tests.generated import scores, settings
from tests.wandb_server import serving


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


UPLOAD_ONE_BY_ONE = "from rna import dashboard; dashboard.CHUNK = 1; dashboard.main()"


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, str]:
    """A sweep `mine` of one trial beside another trial that is not in it."""
    key = generated.trial(tmp_path, settings(nu=0.02), scores(30, 60))
    generated.trial(tmp_path, settings("dpo"), scores(30, 60))
    ledger.save(tmp_path / "sweeps" / "mine", ledger.Trial(0, [], address={"key": key}))
    return tmp_path, key


def test_a_sweep_s_runs_are_its_trials_evaluations_and_closing_run(study: tuple[Path, str]):
    """Of several runs with one id, which a resumed trial leaves, the last: it holds the whole curve."""
    folder, key = study
    names = [f"2-{key}", "1-sweep-mine", f"3-{key}-5f5f", "4-other", "5-sweep-all", f"1-{key}"]
    offline(folder, *(f"20260101_00000{name}" for name in names))
    found = [
        place.name.removeprefix("offline-run-20260101_00000") for place in dashboard.offline_runs(str(folder), "mine")
    ]
    assert found == sorted(["1-sweep-mine", f"2-{key}", f"3-{key}-5f5f"])


def test_each_run_is_sent_once_and_a_stopped_upload_goes_on(study: tuple[Path, str], monkeypatch: pytest.MonkeyPatch):
    folder, key = study
    made = offline(folder, *(f"20260101_00000{number}-{key}-{number}" for number in range(5)))
    mark(made[:1])
    monkeypatch.setattr(dashboard, "CHUNK", 2)
    sent: list[str] = []

    def upload(places: Sequence[Path]) -> None:
        if len(sent) == 2:
            sent.append("stop")
            return
        sent.extend(place.name for place in places)
        mark(places)

    def ended(_: Path) -> bool:
        return True

    assert dashboard.sync(str(folder), "mine", upload, ended) == dashboard.Uploaded(3, 5, [])
    assert dashboard.sync(str(folder), "mine", upload, ended) == dashboard.Uploaded(5, 5, [])
    assert dashboard.sync(str(folder), "mine", upload, ended) == dashboard.Uploaded(5, 5, [])
    assert [name for name in sent if name != "stop"] == [place.name for place in made[1:]]


def test_a_run_without_an_end_is_sent_alone_and_holds_up_no_other(study: tuple[Path, str]):
    """`wandb sync` sends nothing at all where one of its runs cannot be read, and ends with 0."""
    folder, key = study
    made = offline(folder, *(f"20260101_00000{number}-{key}-{number}" for number in range(4)))
    sent: list[list[str]] = []

    def upload(places: Sequence[Path]) -> None:
        sent.append([place.name[-1] for place in places])
        if made[1] not in places:
            mark(places)

    found = dashboard.sync(str(folder), "mine", upload, lambda place: place != made[1])
    assert found == dashboard.Uploaded(3, 4, [made[1]])
    assert sent == [["0", "1", "2", "3"], ["0", "2", "3"], ["1"]]


# The end of a sweep


@pytest.fixture
def closings(study: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that the end of the sweep `mine` starts; its one trial is done."""
    folder, key = study
    file = folder / "results" / f"{key}.json"
    record = json.loads(file.read_text())
    record["config"]["wandb"] |= {"mode": "offline", "project": "unlearning"}
    file.write_text(json.dumps(record))
    where = {"key": key, "output_dir": str(folder), "evals": {}, "roles": {}, "kind": "choice", "group": "g"}
    metrics = {"eval/perturbed/acc": 0.6}
    ledger.save(
        folder / "sweeps" / "mine", ledger.Trial(0, ["seed=0"], status=ledger.DONE, address=where, metrics=metrics)
    )
    ledger.write_json(folder / "sweeps" / "mine" / "sweep.json", {"objectives": {"eval/perturbed/acc": "maximize"}})
    started: list[list[str]] = []

    def run_one(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        started.append(command[1:])
        return subprocess.CompletedProcess(command, 0, "the run's folder\n", "")

    monkeypatch.setattr(dashboard.subprocess, "run", run_one)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return started


def test_a_sweep_ends_with_its_leaderboard_and_one_closing_run(
    study: tuple[Path, str], closings: list[list[str]], capsys: pytest.CaptureFixture[str]
):
    folder, _ = study
    dashboard.finish(folder / "sweeps" / "mine")
    options = ["--output-dir", str(folder), "--project", "unlearning", "--mode", "offline"]
    assert closings == [["-m", "rna.track", "close", "mine", *options]]
    printed = capsys.readouterr().out
    assert "seed=0" in printed
    assert "the run's folder" in printed
    dashboard.finish(folder / "sweeps" / "mine")  # nothing new
    assert len(closings) == 1


@pytest.mark.parametrize("said", ["wandb=disabled", "wandb.mode=disabled", "WANDB_MODE", "every trial"])
def test_a_sweep_that_leaves_wandb_alone_has_no_closing_run(
    said: str, study: tuple[Path, str], closings: list[list[str]], monkeypatch: pytest.MonkeyPatch
):
    folder, key = study
    if said == "WANDB_MODE":
        monkeypatch.setenv("WANDB_MODE", "disabled")
    elif said == "every trial":
        file = folder / "results" / f"{key}.json"
        file.write_text(file.read_text().replace('"mode": "offline"', '"mode": "disabled"'))
    else:
        ledger.write_json(
            folder / "sweeps" / "mine" / "sweep.json", {"fixed": [said], "objectives": {"seconds": "min"}}
        )
        monkeypatch.setattr(leaderboard, "finish", lambda _: None)
    dashboard.finish(folder / "sweeps" / "mine")
    assert closings == []


@pytest.mark.usefixtures("closings")
def test_a_closing_run_that_fails_costs_the_sweep_a_line(
    study: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(1, command, "", "Traceback\nno space left")

    folder, _ = study
    monkeypatch.setattr(dashboard.subprocess, "run", fail)
    dashboard.finish(folder / "sweeps" / "mine")
    assert "no closing run: no space left; `python -m rna.track close mine" in capsys.readouterr().err
    assert not (folder / "sweeps" / "mine" / "closed.json").exists()


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
    (trial,) = [item for item in reading.load(str(folder)).trials if item.arm == "rna"]
    logged = {f"eval/{item.task}/acc" for item in trial.evaluations} | set(trial.curve) | {"train/step"}
    logged_config = track.config_of(settings())
    for text in leaves([panel["config"] for panel in panels]):
        if text.startswith(("eval/", "train/", "summary:")):
            assert text.removeprefix("summary:") in logged, text
        elif text.startswith("config:"):
            first, *rest = text.removeprefix("config:").split(".")
            assert rest[0] == "value"
            assert first in logged_config, text
            assert not rest[1:] or rest[1] in logged_config[first], text
    assert '"value": "mine"' in file.read_text()


@pytest.mark.slow
def test_the_workspace_is_built_online_once_and_then_brought_up_to_date(study: tuple[Path, str]):
    pytest.importorskip("wandb_workspaces")
    folder, _ = study
    command = [sys.executable, "-m", "rna.track", "workspace", "mine", "--output-dir", str(folder)]
    with serving() as server:
        for _ in range(2):
            environment = os.environ | server.environment
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert "/me/rna" in done.stdout
        (view,) = server.views.values()
        assert (view["entityName"], view["projectName"]) == ("me", "rna")
        assert "Run History Line Plot" in view["spec"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # nobody is there now
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: workspace: W&B did not take it")
    assert "Traceback" not in done.stderr


def read_back(place: Path) -> dict[str, Any]:
    (file,) = place.glob("*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(file)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_the_closing_run_holds_leaderboard_figures_and_gains(tmp_path: Path):
    for seed in range(4):
        for nu in (0.0, 0.02):
            generated.trial(tmp_path, settings(nu=nu, seed=seed), scores(30, 60 + 500 * nu))
    place = Path(dashboard.close(str(tmp_path), None, WandbSettings()))
    assert place in dashboard.offline_runs(str(tmp_path), None)
    found = read_back(place)
    assert (found["run_id"], found["state"]) == ("sweep-all", "finished")
    summary = found["summary"]
    assert summary["gain/NPO+MSE"] == pytest.approx(10.0)
    for logged in ("table/summary", "table/pareto", "table/importance", "importance", "figure/pareto"):
        assert any(key.startswith(logged) for key in summary), logged
    (file,) = place.glob("files/media/table/table/summary*.json")
    content = json.loads(file.read_text())
    rows = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
    forget = [row["forget ↓"] for row in rows if row["method"] == "NPO+MSE"]
    assert forget == [30.0, 30.0]  # numbers, which a dashboard can sort by
    with serving() as server:
        command = [sys.executable, "-m", "rna.track", "sync", "--output-dir", str(tmp_path)]
        done = subprocess.run(command, env=os.environ | server.environment, capture_output=True, text=True, check=False)
        assert "1 of 1 runs are uploaded" in done.stdout, done.stderr
        sent = server.runs["sweep-all"]
        assert sent.summary["gain/NPO+MSE"] == pytest.approx(10.0)
        assert json.loads(next(data for name, data in sent.files.items() if "table/summary" in name)) == content
        assert any(name.startswith("media/images/figure/pareto") for name in sent.files)


@pytest.fixture
def runs(study: tuple[Path, str]) -> tuple[Path, str]:
    """Three offline runs of the sweep's trial, by W&B itself, and one whose process was killed at birth."""
    folder, key = study
    made = settings(nu=0.02)
    made.output_dir, made.wandb.mode = str(folder), "offline"
    for number in range(3):
        with track.tracking(made, "mine", run_id=f"{key}-{number}", job_type="train") as tracked:
            for step in range(1, 5):
                tracked.step(step, {"train/forget_loss": float(10 * number + step)})
            tracked.summarise({"eval/retain/acc": 0.5})
    (dead,) = offline(folder, f"20990101_000000-{key}-dead")
    next(dead.glob("*.wandb")).write_bytes(b":W&B\xbe\xfe")
    return folder, key


@pytest.mark.slow
def test_an_upload_killed_in_the_middle_goes_on_and_sends_each_run_once(runs: tuple[Path, str]):
    """Against a server on this machine that stands in for W&B's; the uploads are `wandb sync`'s own."""
    folder, key = runs
    ids = [f"{key}-{number}" for number in range(3)]
    with serving() as server:
        command = [sys.executable, "-c", UPLOAD_ONE_BY_ONE, "sync", "mine", "--output-dir", str(folder)]
        environment = os.environ | server.environment

        def upload() -> subprocess.Popen[str]:
            pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)

        server.stall_on = ids[1]
        first = upload()
        assert server.stalled.wait(60)
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
        assert server.runs[ids[0]].finished
        assert not server.runs[ids[1]].finished
        server.stall_on = None
        server.go_on.set()

        printed, error = upload().communicate(timeout=120)
        assert "3 of 4 runs are uploaded" in printed
        assert "dead has no end" in error
        assert set(server.runs) == set(ids)
        for number, name in enumerate(ids):
            run = server.runs[name]
            assert run.finished
            assert [row["train/step"] for row in run.rows] == [1, 2, 3, 4]
            assert [row["train/forget_loss"] for row in run.rows] == [10 * number + step for step in range(1, 5)]
            assert run.summary["eval/retain/acc"] == 0.5
            assert json.loads(run.variables["config"])["row"]["value"] == "npo+mse"
            assert (run.variables["groupName"], run.variables["jobType"]) == ("mine", "train")
        assert server.begun[ids[0]] == server.begun[ids[2]] == 1


@pytest.mark.slow
def test_a_run_that_cannot_be_read_holds_up_no_other(runs: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory):
    folder, _ = runs
    here = tmp_path_factory.mktemp("here")
    with serving() as server:
        command = [sys.executable, "-m", "rna.track", "sync", "mine", "--output-dir", str(folder)]
        environment = os.environ | server.environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "3 of 4 runs are uploaded" in done.stdout
        assert sum(run.finished for run in server.runs.values()) == 3
    assert list(here.iterdir()) == []  # W&B's logs lie beside the runs


def history(place: Path) -> list[dict[str, Any]]:
    (file,) = place.glob("*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [item["history"]["item"] for item in map(json.loads, lines) if item["type"] == "history"]


@pytest.mark.slow
def test_a_resumed_trial_is_one_curve(tmp_path: Path):
    """Stopped by SIGTERM at step 3 of 6, it goes on from its checkpoint in a second offline run."""
    words = ["method=rmu", "noise=none", "train.steps=6", "train_only=true", "train.checkpoint_every=2"]
    words += ["wandb=offline", "cache.enabled=false", "train.batch_size=1", "model.threads=1", f"output_dir={tmp_path}"]
    made = config.check(run.compose(words, None))
    draw, calls = train._draw, 0

    def warned(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(*arguments)

    (row,) = trial.arms(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_draw", warned)
        with pytest.raises(ends.Interrupted):
            trial.work(row, lambda *_: None)
    first = next((tmp_path / "wandb").glob(f"offline-run-*-{row.key}"))
    assert [step["train/step"] for step in history(first)] == [1, 2, 3]
    trial.work(row, lambda *_: None)
    assert len(list((tmp_path / "wandb").glob(f"offline-run-*-{row.key}"))) == 2
    (last,) = dashboard.offline_runs(str(tmp_path), None)
    found = history(last)
    assert [step["train/step"] for step in found] == [step["_step"] for step in found] == [1, 2, 3, 4, 5, 6]
    assert row.trained is not None
    assert [step["train/loss"] for step in found] == pytest.approx(
        [step["train/loss"] for step in row.trained["curve"]]
    )
    assert [step["train/loss"] for step in found[:3]] == [step["train/loss"] for step in history(first)]


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
