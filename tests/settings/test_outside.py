"""A user's own method and retain loss: recorded under a key of their own, named in tables, blamed by file and line."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rna import run
from rna.report import reading
from rna.settings import config, outside, users_code
from rna.store import lookup, results
from rna.sweep import commands
from tests.outside import MODULE, brought

SHORT = ("train.steps=2", "train.lr=1e-4", "eval.limit=8", "baseline=skip")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What one test brings, another does not find."""
    monkeypatch.setattr(outside, "FOLDERS", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


def key(folder: Path, *words: str) -> str:
    sys.modules.pop("my_unlearning", None)
    outside.bring(str(folder / "conf"))
    made = config.check(run.compose(["method=mine", "retain_loss=l1", *words], None))
    return results.train_key(results.train_identity(made))


def test_the_shown_probe_is_the_one_that_is_run():
    shown = (Path(__file__).parents[2] / "rna" / "evaluation" / "probes" / "README.md").read_text(encoding="utf-8")
    (body,) = re.findall(r"def states\(self, subject\):\n(.*?)```", shown, re.DOTALL)
    assert body in MODULE


@pytest.mark.whole
def test_it_trains_and_stands_in_tables_and_records_under_its_own_label(
    tmp_path: Path, rna_here: Callable[..., str], called: Callable[..., str]
):
    folder = brought(tmp_path)
    words = ("--config-dir", str(folder / "conf"), "method=mine", "retain_loss=l1", "defence=echo", "wandb=offline")
    words += (*SHORT, "probe=half")
    printed = rna_here(*words, f"output_dir={tmp_path / 'o'}")
    assert re.search(r"^ +.*defended", printed, re.M)
    loaded = reading.load(str(tmp_path / "o"))
    assert [(one.method, one.family) for one in loaded.trials if one.method] == [("Bounded+L1, echo", "PO")]
    assert re.search(r"layer 2 halved +\d", printed)
    every = [*map(_read, (tmp_path / "o" / "results").glob("*.json"))]
    probe = next(one for one in every if one["kind"] == "probe" and one["label"] == "defended")
    assert {"name", "class", "source"} <= set(probe["task_identity"]["probe"])
    assert list(probe["metrics"]["states"]) == ["before", *(f"layer {layer} halved" for layer in range(3))]
    record = next(one for one in every if one["kind"] == "train" and one["label"] == "defended")
    assert record["config"]["method"] == {"name": "mine", "tau": 5.0}
    assert set(record["identity"]["method"]) == {"name", "tau", "class", "source"}
    assert record["identity"]["retain_loss"]["class"] == "L1"
    assert set(record["identity"]["defence"]) == {"name", "class", "source"}
    assert config.recorded(record).defence.name == "echo"
    (run_folder,) = (tmp_path / "o" / "wandb").glob(f"offline-run-*-{record['key']}")
    assert b"mine+l1" in next(run_folder.glob("*.wandb")).read_bytes()
    from rna.report.__main__ import main

    called(main, "--output-dir", str(tmp_path / "o"))
    assert "Bounded+L1" in (tmp_path / "o" / "reports" / "all" / "index.html").read_text()


def _read(file: Path) -> dict:
    return json.loads(file.read_text())


def test_one_byte_of_its_file_is_another_key_and_where_it_lies_is_none(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = key(brought(tmp_path / "a"))
    assert key(tmp_path / "a", "method.tau=6.0") != first
    assert key(tmp_path / "a", "seed=1") != first
    (tmp_path / "a" / "my_unlearning.py").write_text(MODULE + "\n")
    assert key(tmp_path / "a") != first
    (tmp_path / "a" / "my_unlearning.py").write_text(MODULE)
    assert key(tmp_path / "a") == first


def test_a_sweep_sees_a_change_of_its_options_and_of_its_source(tmp_path: Path):
    folder = brought(tmp_path)
    outside.bring(str(folder / "conf"))
    first = lookup.fingerprint({})
    assert lookup.fingerprint({}) == first
    (folder / "my_unlearning.py").write_text(MODULE + "\n")
    second = lookup.fingerprint({})
    (folder / "conf" / "method" / "mine.yaml").write_text("name: mine\ntarget: my_unlearning.Mine\ntau: 6.0\n")
    assert len({first, second, lookup.fingerprint({})}) == 3


def test_a_sweep_of_it_is_planned(tmp_path: Path, called: Callable[..., str]):
    folder = brought(tmp_path)
    (folder / "conf" / "sweep").mkdir()
    (folder / "conf" / "sweep" / "taus.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /method: mine\n  - override /retain_loss: l1\n  - _self_\n"
        "hydra: {sweeper: {params: {method.tau: '1,2,4'}}}\n"
    )
    said = called(commands.main, "plan", "taus", "--config-dir", str(folder / "conf"), "--output-dir", str(tmp_path))
    assert "3 cells" in said
    said = called(commands.main, "plan", "tauss", "--config-dir", str(folder / "conf"), code=2)
    assert "did you mean 'taus'?" in said


BROKEN = {
    "a name error": ("self.tau *", "self.tua *", r"my_unlearning\.py, line 18: AttributeError: .*'tua'"),
    "no number": (".tanh().mean()", ".tanh()", r"my_unlearning\.py: TypeError: forget_loss must give one number"),
    "no gradient": ("step.log_probs(", "step.reference_log_probs(", r"TypeError: .*\(\) without a gradient"),
    "in the retain loss": ("-1)).abs()", "-1)).ab()", r"my_unlearning\.py, line 26: AttributeError: .*'ab'"),
    "arithmetic": ("self.tau *", "1 / 0 *", r"my_unlearning\.py, line 18: ZeroDivisionError"),
}


@pytest.mark.whole
@pytest.mark.parametrize("fault", BROKEN)
def test_an_error_in_it_is_one_line_with_its_file_and_line(tmp_path: Path, rna_here: Callable[..., str], fault: str):
    there, put, said = BROKEN[fault]
    assert MODULE.count(there) == 1
    folder = brought(tmp_path, source=MODULE.replace(there, put))
    words = ("--config-dir", str(folder / "conf"), "method=mine", "retain_loss=l1", "noise=none", *SHORT)
    printed = rna_here(*words, f"output_dir={tmp_path / 'o'}", "model.retrained=null", "train_only=true", code=1)
    (line,) = (one for one in printed.splitlines() if one.startswith("error: "))
    assert re.search(said, line), line
    failed = [_read(file) for file in (tmp_path / "o" / "results").glob("*.failed1.json")]
    assert [one["reason"] for one in failed] == ["own code"]


REFUSED = {
    "syntax": (MODULE.replace("class Mine(Method):", "class Mine(Method)"), r"my_unlearning\.py, line 11: SyntaxError"),
    "an import": ("import nowhere_at_all\n" + MODULE, r"my_unlearning\.py, line 1: ModuleNotFoundError"),
    "no such class": (MODULE.replace("class Mine", "class Yours"), r"must be a subclass of rna\.settings\.Method"),
    "no method": (MODULE.replace("Mine(Method)", "Mine"), r"must be a subclass of rna\.settings\.Method"),
    "reads": (MODULE.replace('label = "Bounded"', 'reads = "layers"'), r"reads='layers'; allowed: layer, logits"),
    "its own check": (
        MODULE.replace('label = "Bounded"', 'def __post_init__(self):\n        raise ValueError("tau is odd")'),
        r"method=mine: tau is odd",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_a_method_is_refused_before_anything_is_loaded(
    tmp_path: Path, rna_here: Callable[..., str], fault: str
):
    source, said = REFUSED[fault]
    folder = brought(tmp_path, source=source)
    words = ("--config-dir", str(folder / "conf"), "method=mine", "retain_loss=l1")
    printed = rna_here(*words, f"output_dir={tmp_path / 'o'}", code=2)
    assert re.fullmatch(rf"error: .*{said}.*\n", printed), printed


def test_the_authors_code_has_no_retain_loss_of_ours(tmp_path: Path, rna_here: Callable[..., str]):
    folder = brought(tmp_path)
    said = rna_here("--config-dir", str(folder / "conf"), "retain_loss=l1", "variant=official", code=2)
    assert said == "error: variant=official: there is none of retain_loss=l1; allowed: paper\n"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_memory_that_is_short_is_not_its_fault(tmp_path: Path, error: Exception):
    outside.bring(str(brought(tmp_path) / "conf"))
    made = config.check(run.compose(["method=mine", "retain_loss=l1"], None))
    with pytest.raises(type(error)) as caught, users_code(made.method):
        raise error
    assert caught.value is error


def test_options_say_which_class_and_which_numbers(tmp_path: Path, rna_here: Callable[..., str]):
    folder = brought(tmp_path)
    words = ("--config-dir", str(folder / "conf"), "method=mine", "retain_loss=l1", f"output_dir={tmp_path / 'o'}")
    for more, said in (
        ("method.tau=-1", "method.tau=-1.0: must be a finite number > 0"),
        ("method.tau=x", "method.tau=x: must be a number"),
        ("method.tau=null", "method.tau: a value is needed with method=mine; give method.tau=…"),
        ("+method.rho=1", "method.rho=1: unknown key in method; allowed: name, tau"),
        ("retain=representation", "retain_loss=representation: has no meaning with method=mine; allowed: kl, mse, l1"),
        ("variant=official", "variant=official: there is none of method=mine; allowed: paper"),
        ("method.target=nowhere.Mine", "method.target=nowhere.Mine: ModuleNotFoundError: No module named 'nowhere'"),
    ):
        assert said in rna_here(
            *(word for word in words if not more.startswith("retain=") or "l1" not in word), more, code=2
        )
