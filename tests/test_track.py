"""W&B's account, network and environment, looked at before anything is computed."""

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rna import dashboard, run, track
from rna.settings import config
from rna.settings.fields import Settings, WandbSettings
from rna.store import results
from tests import generated
from tests.wandb_server import KEY, serving

SHORT = ("method=none", "eval.limit=2", "model.retrained=null")
NAMES = ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC")


def settings(*overrides: str) -> Settings:
    return config.check(run.compose(list(overrides), None))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """One in which nobody has an account."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")} | {
        "HOME": str(tmp_path),
        "NETRC": str(tmp_path / "none"),
        "WANDB_CONFIG_DIR": str(tmp_path / "none"),
    }


def called(environment: dict[str, str], *words: str, code: int = 2) -> str:
    """A command's one line; no prompt, within seconds."""
    command = [sys.executable, "-m", *words]
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    if code:
        assert done.stderr.count("\n") == 1, done.stderr
        assert "Traceback" not in done.stderr
    return done.stderr


# The environment


@pytest.mark.usefixtures("environment")
def test_the_environment_counts_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch):
    assert settings().wandb == WandbSettings("offline", "rna", None, None, None)
    key = results.train_key(results.train_identity(settings()))
    for name, value in {"MODE": "online", "PROJECT": "mine", "ENTITY": "we", "DIR": "~/w"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    home = str(Path("~/w").expanduser())
    assert settings().wandb == WandbSettings("online", "mine", "we", None, home)
    assert settings("wandb=offline").wandb == WandbSettings("offline", "mine", "we", None, home)
    said = ("wandb.mode=disabled", "wandb.project=p", "wandb.entity=e", "wandb.dir=d", "wandb.group=g")
    assert settings(*said).wandb == WandbSettings("disabled", "p", "e", "g", "d")
    assert settings("sweep=noise_regions").wandb.group == "noise_regions"
    assert results.train_key(results.train_identity(settings())) == key
    for mode, meant in {"": "offline", "dryrun": "offline", "run": "online", "disabled": "disabled"}.items():
        monkeypatch.setenv("WANDB_MODE", mode)
        assert settings().wandb.mode == meant


BAD = {
    "WANDB_MODE=onlin": "WANDB_MODE=onlin: did you mean 'online'? allowed: offline, online, disabled",
    "WANDB_MODE=shared": "WANDB_MODE=shared: did you mean 'disabled'? allowed: offline, online, disabled",
    "WANDB_PROJECT=a/b": "WANDB_PROJECT=a/b: has /; allowed",
    f"WANDB_PROJECT={'a' * 129}": "is too long; allowed",
    "wandb.mode=of": "wandb.mode=of: ",
    "wandb.project=a%b": "wandb.project=a%b: has %; allowed",
    "wandb.project=": "wandb.project=: a name is needed",
}


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(("given", "said"), BAD.items())
def test_what_wandb_would_refuse_is_refused_by_name(given: str, said: str, monkeypatch: pytest.MonkeyPatch):
    name, _, value = given.partition("=")
    if name.isupper():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        settings(*([] if name.isupper() else [given]))
    assert said in str(caught.value)
    assert settings("wandb.mode=disabled", "wandb.project=rna").wandb.mode == "disabled"


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    place = str(tmp_path / "file" / "w")
    with pytest.raises(ValueError, match=f"wandb.dir={place}: cannot write there"):
        track.check(WandbSettings(dir=place))
    monkeypatch.setenv("WANDB_DIR", place)
    with pytest.raises(ValueError, match=f"WANDB_DIR={place}: cannot write there"):
        track.check(WandbSettings(dir=place))
    track.check(WandbSettings("disabled", dir=place))


def test_tags_are_what_wandb_takes():
    made = generated.settings(model="m" * 100)
    assert [len(tag) for tag in track.tags(made)] == [3, 3, 5, 7, 64]


def test_runs_are_found_where_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    key = generated.trial(tmp_path / "out", generated.settings(), generated.scores(30, 60))
    file = tmp_path / "out" / "results" / f"{key}.json"
    file.write_text(file.read_text().replace("somewhere/wandb", str(tmp_path / "own" / "wandb")))
    names = [f"offline-run-20260101_00000{number}-{key}-{number}" for number in range(3)]
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "environment"))
    for place, name in zip(("environment", "own", "out"), names, strict=True):
        (tmp_path / place / "wandb" / name).mkdir(parents=True)
    assert [place.name for place in dashboard.offline_runs(str(tmp_path / "out"), None)] == names


# The account and the network


@pytest.mark.whole
def test_a_run_without_an_account_is_refused_before_a_model_is_loaded(environment: dict[str, str], tmp_path: Path):
    said = called(environment, "rna.run", *SHORT, f"output_dir={tmp_path}/out", "wandb=online")
    assert said.startswith("error: wandb=online: no account (")
    assert "WANDB_API_KEY" in said
    assert "wandb=offline" in said
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file()]


@pytest.mark.slow
def test_a_variable_that_wandb_refuses_is_said_before_a_model_is_loaded(environment: dict[str, str], tmp_path: Path):
    for words in ([], ["-m", "seed=0,1"]):
        said = called(environment | {"WANDB_CONSOLE": "foo"}, "rna.run", *words, *SHORT, f"output_dir={tmp_path}/out")
        assert said.startswith("error: WANDB_CONSOLE=foo: W&B refuses it (")
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file()]


@pytest.mark.whole
def test_a_sweep_is_told_once_at_its_start(environment: dict[str, str], tmp_path: Path):
    for words in (["seed=0,1", "wandb=online"], ["wandb=online,offline"]):
        said = called(environment, "rna.run", "-m", *SHORT, f"output_dir={tmp_path}/out", *words)
        assert said.startswith("error: wandb=online: no account (")
    assert not (tmp_path / "out").exists()


@pytest.mark.whole
def test_nobody_is_asked_for_a_key_on_a_terminal(environment: dict[str, str], tmp_path: Path):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "rna.run", *SHORT, f"output_dir={tmp_path}/out", "wandb=online"]
    done = subprocess.run(
        command,
        env=environment | {"TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        timeout=60,
        check=False,
    )
    os.close(theirs)
    printed = os.read(ours, 10000).decode()
    os.close(ours)
    assert done.returncode == 2, printed
    assert printed.startswith("error: wandb=online: no account (")


ONLINE = """from rna import run, settings, track
run.guarded(lambda: track.check(settings.WandbSettings("online")))"""


@pytest.mark.whole
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"WANDB_API_KEY": "short"}, "no account (WANDB_API_KEY invalid"),
        ({"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://127.0.0.1:9"}, "http://127.0.0.1:9 cannot be reached"),
    ],
)
def test_what_is_wrong_with_wandb_is_said_in_one_line(given: dict[str, str], said: str, environment: dict[str, str]):
    started = time.monotonic()
    command = [sys.executable, "-c", ONLINE]
    done = subprocess.run(command, env=environment | given, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: wandb=online: {said}"), done.stderr
    assert done.stderr.count("\n") == 1
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("BASE_URL", "garbage", "valid URL"),
        ("CONSOLE", "foo", "'wrap'"),
        ("RUN_ID", "a/b", "Run ID cannot contain"),
        ("INIT_TIMEOUT", "abc", "valid number"),
    ],
)
@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.usefixtures("environment")
def test_a_variable_that_wandb_refuses_is_named(
    name: str, value: str, why: str, mode: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(f"WANDB_{name}", value)
    with pytest.raises(ValueError, match=rf"^WANDB_{name}={value}: W&B refuses it \(.*{why}.*\); unset it") as caught:
        track.check(WandbSettings(mode))
    assert "\n" not in str(caught.value)
    track.check(WandbSettings("disabled"))
    monkeypatch.setenv(
        f"WANDB_{name}", {"BASE_URL": "http://127.0.0.1:9", "CONSOLE": "off", "RUN_ID": "a"}.get(name, "3")
    )
    track.check(WandbSettings("offline"))


@pytest.mark.whole
def test_an_account_that_wandb_does_not_know_is_refused_and_one_in_netrc_is_taken(
    environment: dict[str, str], tmp_path: Path
):
    with serving() as server:
        environment |= {"WANDB_BASE_URL": server.url, "NETRC": str(tmp_path / "netrc")}
        host = server.url.removeprefix("http://")
        (tmp_path / "netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n")
        command = [sys.executable, "-c", ONLINE]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        server.knows = False
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert f"{server.url} does not know this account" in done.stderr


@pytest.mark.slow
def test_a_run_goes_online_where_the_environment_says_so(environment: dict[str, str], tmp_path: Path):
    with serving() as server:
        given = server.environment | {"WANDB_PROJECT": "mine", "WANDB_DIR": str(tmp_path / "w")}
        called(environment | given, "rna.run", *SHORT, f"output_dir={tmp_path}/out", code=0)
        (made,) = server.runs.values()
        assert made.variables["project"] == "mine"
        assert made.finished
        roles = ("forget", "retain", "perturbed")  # under the names that sweeps optimise
        assert all(0 <= made.summary[f"eval/{role}/acc"] <= 1 for role in roles)
    assert list((tmp_path / "w" / "wandb").glob("run-*"))
    assert not (tmp_path / "out" / "wandb").exists()
