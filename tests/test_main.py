"""`rna`: its commands are those of the modules, and it starts at once."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from rna import __main__, __version__
from tests.outside import wheel_of

ROOT = Path(__file__).parents[1]


def test_it_lists_its_commands_with_a_line_each(capsys: pytest.CaptureFixture[str]):
    for words in ([], ["--help"]):
        __main__.main(words)
        printed = capsys.readouterr().out
        for name, said in __main__.COMMANDS.items():
            assert re.search(rf"^  {name} +{re.escape(said)}$", printed, re.M)


def test_every_module_with_a_command_line_is_a_command():
    files = [*(ROOT / "rna").glob("*.py"), *(ROOT / "rna").glob("*/__main__.py")]
    mains = {file for file in files if '__name__ == "__main__"' in file.read_text()}
    names = {file.stem if file.stem != "__main__" else file.parent.name for file in mains}
    assert names - {"dashboard", "rna"} == set(__main__.COMMANDS) - {"completion"}  # dashboard is of track


def test_an_unknown_command_is_one_line_with_the_nearest(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        __main__.main(["swep"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: swep: no such command; did you mean 'sweep'? allowed: run,")


def test_an_unknown_shell_is_one_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        __main__.main(["completion", "zhs"])
    assert stop.value.code == 2
    assert "did you mean 'zsh'?" in capsys.readouterr().err


def test_the_installed_command_is_this():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"rna": "rna.__main__:main"}


def test_the_version_and_the_paper_are_the_same_wherever_they_stand():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
    paper, readme = cited["preferred-citation"], (ROOT / "README.md").read_text()
    assert paper["title"] in readme
    assert paper["url"] in readme
    assert [author["family-names"] for author in paper["authors"]] == ["Dang", "Hoang", "Bui", "Nguyen", "Inoue"]
    assert all(f"]({name})" in readme for name in ("CITATION.cff", "CHANGELOG.md"))


@pytest.mark.whole
def test_the_wheel_has_types_scripts_and_the_command(tmp_path: Path):
    with zipfile.ZipFile(wheel_of(tmp_path)) as wheel:
        names = set(wheel.namelist())
        (entries,) = [name for name in names if name.endswith("entry_points.txt")]
        assert "rna = rna.__main__:main" in wheel.read(entries).decode()
    assert {"rna/py.typed", "rna/cli/completion.bash", "rna/cli/completion.zsh", "rna/conf/config.yaml"} <= names
    assert "rna/api/__init__.pyi" in names


@pytest.mark.whole
def test_a_command_is_its_module(tmp_path: Path):
    """Usage lines name what was called."""

    def rna(*words: str, code: int = 0) -> str:
        done = subprocess.run([sys.executable, "-m", "rna", *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    assert rna("--version") == f"rna {__version__}\n"
    assert "usage: rna export" in rna("export", "--help")
    assert rna("run", "noise.nu=-1", code=2) == "error: noise.nu=-1.0: must be a finite number ≥ 0\n"
    assert "no such folder" in rna("records", code=2)


@pytest.fixture
def unwritten(monkeypatch: pytest.MonkeyPatch):
    """What `runpy` compiles with the checks of the default tests is not kept for programs without them."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.mark.usefixtures("unwritten")
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "--mthod", "npo"], "--mthod: not known here; did you mean '--method'?"),
        (["sweep", "stat"], "did you mean 'status'?"),
        (["demo"], "the following arguments are required: FOLDER"),  # and not the built-in files built anew
        (["export"], "the following arguments are required: key, folder"),
        (["run", "--mulitrun"], "--mulitrun: not known here; did you mean '--multirun'?"),
        (["run", "--cfg", "jobb"], "did you mean 'job'?"),
        (["run", "--cfg", "job", "metod=npo"], "metod=npo: unknown key; did you mean 'method'?"),
    ],
)
def test_a_wrong_option_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        __main__.main(words)
    told = capsys.readouterr().err
    assert stop.value.code == 2
    assert told.startswith("error: ")
    assert said in told
    assert told.count("\n") == 1


@pytest.mark.usefixtures("unwritten")
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_options_may_stand_between_keys(capsys: pytest.CaptureFixture[str]):
    __main__.main(["run", "method=rmu", "--cfg", "job", "noise=none"])
    composed = yaml.safe_load(capsys.readouterr().out)
    assert (composed["method"]["name"], composed["noise"]["name"]) == ("rmu", "none")


@pytest.mark.whole
@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["complete", "rna", "run", "noise."], ["completion", "bash"], ["run", "--help"]],
)
def test_what_is_asked_at_a_prompt_loads_nothing_heavy(words: list[str]):
    code = (
        f"import sys; sys.argv[1:] = {words!r}\n"
        "from rna.__main__ import main\n"
        "main()\n"
        "heavy = {'torch', 'transformers', 'hydra', 'omegaconf', 'lm_eval'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)
