"""The page for a group with a large model: each of its commands composes, or runs, on a small model of that shape."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from rna import __main__, suggest
from rna.report import replication
from rna.settings import compose_fixed
from tests.test_paper import local_files, stand_in

PAGE = (replication.SHIPPED / "ZEPHYR.md").read_text()
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)).replace("\\\n", " ")
COMMANDS = [
    words
    for line in BLOCKS.splitlines()
    for part in line.split("#")[0].split("&&")
    if (words := shlex.split(part)) and words[0] == "python"
]


@pytest.mark.whole
def test_every_command_of_the_page_is_one_and_its_runs_compose(tmp_path: Path):
    assert {words[2] for words in COMMANDS} == {
        f"rna.{name}" for name in ("suggest", "run", "perturb", "sweep", "report", "records")
    }
    assert all(words[2].partition(".")[2] in __main__.COMMANDS for words in COMMANDS)
    small = [
        f"model.path={stand_in(tmp_path / 'model', 'Mistral')}",
        *("model.num_layers=4", "model.unlearn_layer=2"),
        *local_files(tmp_path / "files"),
    ]
    runs = [words[3:] for words in COMMANDS if words[2] == "rna.run"]
    assert len(runs) == 5
    for words in runs:
        compose_fixed([*(word for word in words if word != "-m"), *small], None)


@pytest.mark.whole
def test_what_a_step_takes_is_measured_in_the_papers_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    (words,) = [words[3:] for words in COMMANDS if words[2] == "rna.suggest"]
    small = [
        f"model.path={stand_in(tmp_path / 'model', 'Mistral')}",
        *("model.num_layers=4", "model.unlearn_layer=2", "model.dtype=float32", f"output_dir={tmp_path}"),
        *local_files(tmp_path / "files"),
    ]
    monkeypatch.setattr("sys.argv", ["suggest", *words, *small])
    suggest.main()
    printed = capsys.readouterr().out
    assert "(measured)" in printed
    assert "GiB" in printed
