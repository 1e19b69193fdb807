"""The whole program, as a user runs it: compute once, recognise, evaluate anew, rerun, refuse, fail."""

import json
import os
import pty
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from rna.report import reading

SHORT = ("train.steps=4", "eval.limit=12")
BASE_AND_ARMS = 4  # base, plain, with RNA, retrained
TASKS = 6


def rna(*arguments: str, code: int = 0, **environment: str) -> str:
    """Run `python -m rna.run` and return what it printed, its progress first."""
    command = [sys.executable, "-m", "rna.run", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=os.environ | environment, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr + done.stdout


def records(folder: Path) -> dict[str, dict]:
    return {file.stem: json.loads(file.read_text()) for file in (folder / "results").glob("*.json")}


NEAR_ALONE = """
import socket
real = socket.socket.connect
def connect(self, address):
    near = ("127.0.0.1", "localhost", "::1")
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in near:
        import os; os.write(2, f"REACHED OUT to {address}".encode()); os._exit(77)
    return real(self, address)
socket.socket.connect = connect
def resolve(host, *rest, real=socket.getaddrinfo, **more):
    if host not in ("127.0.0.1", "localhost", "::1", None):
        import os; os.write(2, f"REACHED OUT to {host}".encode()); os._exit(77)
    return real(host, *rest, **more)
socket.getaddrinfo = resolve
"""  # every socket but the local ones that worker processes and W&B's own service use ends the program


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which nothing says offline, and a program that reaches out ends."""
    folder = tmp_path_factory.mktemp("near_alone")
    (folder / "sitecustomize.py").write_text(NEAR_ALONE)
    free = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "0")
    return free | {"WANDB_MODE": "offline", "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, watched: dict[str, str]) -> tuple[Path, str]:
    """The canonical call, shortened, in a folder of its own."""
    folder = tmp_path_factory.mktemp("outputs")
    words = ("method=npo", "retain=mse", "noise.nu=0.014", *SHORT, f"output_dir={folder}")
    return folder, rna(*words, **watched)


@pytest.mark.whole
def test_the_canonical_call_ends_in_a_table_and_complete_records(finished: tuple[Path, str]):
    folder, printed = finished
    assert re.search(r"^ +base +plain +with RNA +retrained *$", printed, re.MULTILINE), printed
    for row in ("forget bio", "forget cyber", "retain ↑", "retain, neutral token", "retain, forget-token"):
        assert re.search(rf"^ *{row}\D*(\d\S* ± \S+\s+){{4}}$", printed, re.MULTILINE), printed
    for word in ("marsh fevers", "Lake Geneva", "Reduction: ", "recovery: "):
        assert word in printed
    for foreign in ("--metadata", "`pretrained`", "Passed an already"):  # what libraries say in passing
        assert foreign not in printed
    found = records(folder)
    trained = [record for record in found.values() if record["kind"] == "train"]
    assert len(trained) == BASE_AND_ARMS
    assert len(found) == BASE_AND_ARMS * (1 + TASKS)
    rna_record = next(record for record in trained if record["label"] == "with RNA")
    assert printed.count(str(folder)) == 2  # the folder, and the command for more seeds
    assert f"with RNA {rna_record['key']}" in printed
    assert len(rna_record["curve"]) == 4
    assert rna_record["config"]["noise"]["nu"] == 0.014
    assert {"commit", "packages", "identity", "seconds", "peak_memory_bytes"} <= set(rna_record)
    assert (folder / rna_record["delta"]).is_file()
    assert not reading.load(str(folder)).unknown


@pytest.mark.whole
def test_the_same_trial_is_recognised_and_nothing_is_computed(finished: tuple[Path, str]):
    folder, printed = finished
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    again = rna("method=npo", "retain=mse", "noise.nu=0.014", *SHORT, f"output_dir={folder}")
    assert again[again.index("demo · NPO") :] == printed[printed.index("demo · NPO") :]
    assert before == {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


@pytest.mark.whole
def test_the_first_command_shows_the_demos_best_defence_beside(tmp_path: Path, rna_here: Callable[..., str]):
    short = ("train.steps=2", "eval.limit=4", f"output_dir={tmp_path}")
    printed = " ".join(rna_here(*short).split())
    assert "base plain with RNA harmful retrained" in printed
    assert "What it takes, and what it leaves open: with RNA " in printed
    assert "protects from the tokens of the forget texts that it splices in, and from no others." in printed
    assert "Does harmful change that, at equal forgetting?" in printed
    assert "rna.run -m train.steps=2" in printed
    assert f"Written to {tmp_path}: results/KEY.json, trials/KEY/unlearned.safetensors, with" in printed
    nothing = rna_here(*short, "method=none", "wandb=disabled")
    assert f"Written to {tmp_path}: results/KEY.json, with" in " ".join(nothing.split())
    assert "harmful" not in rna_here(*short, "compare=[]")


AT_WIDTHS = """
import fcntl, struct, sys, termios
from rna import run
for width in (80, 100, 120, 1000):
    sys.stdout.flush()
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    run.main()
"""


@pytest.fixture(scope="module")
def at_widths(finished: tuple[Path, str]) -> dict[int, list[str]]:
    """What the canonical call prints on terminals of three widths, and on one so wide that nothing is wrapped."""
    words = ("method=npo", "retain=mse", "noise.nu=0.014", *SHORT, f"output_dir={finished[0]}")
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "xterm"}
    command = [sys.executable, "-c", AT_WIDTHS, *words]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=environment) as child:
        os.close(theirs)
        printed = b""
        with suppress(OSError):  # the terminal's end
            while part := os.read(ours, 65536):
                printed += part
        os.close(ours)
        assert child.wait() == 0, child.stderr.read() if child.stderr else ""
    text = re.sub(r"\x1b\[[\d;]*m", "", printed.decode()).replace("\r\n", "\n")
    parts = text.split("demo · NPO")[1:]
    assert len(parts) == 4
    return {width: f"demo · NPO{part}".splitlines() for width, part in zip((80, 100, 120, 1000), parts, strict=True)}


@pytest.mark.whole
@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_terminal_breaks_a_word_a_number_or_a_path(width: int, at_widths: dict[int, list[str]]):
    lines, whole = at_widths[width], at_widths[1000]
    assert max(map(len, lines)) <= width
    words, known = (Counter(" ".join(found).replace(" \\", "").split()) for found in (lines, whole))
    rules = {word for word in words | known if set(word) == {"─"}}
    assert {word: words[word] for word in words if word not in rules} == {
        word: known[word] for word in known if word not in rules
    }
    assert not [line for line in lines if re.search(r"±\s*$|^\s*±\s+\d", line)]
    (heads,) = [line for line in lines if line.split()[:2] == ["base", "plain"]]
    assert heads.split() == ["base", "plain", "with", "RNA", "retrained"]
    assert sum(line.count("/results") + line.count(".json") for line in lines) <= 1
    assert not {"helps", "hurts"} & set(words)


@pytest.mark.whole
def test_a_log_is_as_wide_as_columns_says(finished: tuple[Path, str]):
    printed = rna("method=npo", "retain=mse", "noise.nu=0.014", *SHORT, f"output_dir={finished[0]}", COLUMNS="80")
    lines = printed[printed.index("demo · NPO") :].splitlines()
    assert max(len(line) for line in lines) <= 80


@pytest.mark.whole
def test_another_keyword_evaluates_the_perturbed_task_alone(finished: tuple[Path, str], rna_here: Callable[..., str]):
    folder, _ = finished
    before = set(records(folder))
    rna_here("method=npo", "retain=mse", "noise.nu=0.014", *SHORT, "eval.keyword=cholera", f"output_dir={folder}")
    new = [record for key, record in records(folder).items() if key not in before]
    assert [record["kind"] for record in new] == ["eval"] * BASE_AND_ARMS
    assert {record["task"] for record in new} == {"perturbed"}


@pytest.mark.whole
def test_a_rerun_stands_beside_the_first_and_agrees_to_the_last_digit(
    finished: tuple[Path, str], rna_here: Callable[..., str]
):
    folder, _ = finished
    before = records(folder)
    rna_here("method=npo", "retain=mse", "noise.nu=0.014", *SHORT, "rerun=true", f"output_dir={folder}")
    after = records(folder)
    assert all(after[key] == record for key, record in before.items())
    new = {key: record for key, record in after.items() if key not in before}
    first_key = next(
        key for key, record in before.items() if record["kind"] == "train" and record["label"] == "with RNA"
    )
    assert f"{first_key}.r2" in new
    losses = [[row["train/loss"] for row in after[key]["curve"]] for key in (first_key, f"{first_key}.r2")]
    assert losses[0] == losses[1]
    for record in new.values():
        if record["kind"] == "eval":
            twin = next(
                old
                for old in before.values()
                if old["kind"] == "eval"
                and old["train_key"] == first_key
                and old["task_identity"] == record["task_identity"]
            )
            assert record["metrics"] == twin["metrics"]


@pytest.mark.whole
def test_the_offline_wandb_run_holds_the_numbers_of_the_record(finished: tuple[Path, str]):
    folder, _ = finished
    found = records(folder)
    trained = next(
        r for r in found.values() if r["kind"] == "train" and r["label"] == "with RNA" and ".r" not in r["key"]
    )

    def inspect(*options: str) -> str:
        wandb = Path(sys.executable).with_name("wandb")
        command = [str(wandb), "leet", "inspect", trained["wandb"], "--json", *options]
        return subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout

    lines = [json.loads(line) for line in inspect().splitlines()]
    run = next(line["run"] for line in lines if line["type"] == "run")
    assert (run["run_id"], run["job_type"]) == (trained["key"], "train")
    assert {"npo", "mse", "nu=0.014", "layer=2", "demo"} <= set(run["tags"])
    history = [line["history"]["item"] for line in lines if line["type"] == "history"]
    assert [row["train/step"] for row in history] == [row["_step"] for row in history] == [1, 2, 3, 4]
    for logged, row in zip(history, trained["curve"], strict=True):
        assert {key: logged[key] for key in row} == pytest.approx(row)
    summary = json.loads(inspect("--summary"))["summary"]
    mine = [r for r in found.values() if r["kind"] == "eval" and r["train_key"] == trained["key"]]
    mine = [record for record in mine if record["config"]["eval"]["keyword"] == "marsh fevers"]
    assert len(mine) == TASKS
    for record in mine:
        for name in ("acc", "acc_stderr", "n"):
            assert summary[f"eval/{record['task']}/{name}"] == record["metrics"][name]
            halves = (record["metrics"][half][name] for half in ("select", "report"))
            assert [summary[f"eval/{record['task']}/{half}/{name}"] for half in ("select", "report")] == [*halves]


@pytest.mark.whole
def test_a_loss_that_is_not_finite_is_recorded_and_touches_nothing(
    finished: tuple[Path, str], rna_here: Callable[..., str]
):
    folder, _ = finished
    before = records(folder)
    printed = rna_here(
        "method=rmu",
        "train.lr=1e30",
        "noise=none",
        *SHORT,
        "wandb=disabled",
        f"output_dir={folder}",
        code=1,
    )
    assert "not finite at step" in printed
    after = records(folder)
    assert all(after[key] == record for key, record in before.items())
    failures = [record for key, record in after.items() if key not in before and record["kind"] == "failure"]
    assert len(failures) == 1
    assert failures[0]["step"] >= 2


@pytest.mark.whole
def test_baseline_skip_leaves_the_plain_twin_out(tmp_path: Path, rna_here: Callable[..., str]):
    printed = rna_here("baseline=skip", *SHORT, "wandb=disabled", f"output_dir={tmp_path}")
    assert "plain" not in printed
    assert not (tmp_path / "wandb").exists()


BAD = {
    "method=npoo": "did you mean 'npo'",
    "noise.nuu=1": "did you mean 'nu'",
    "noise.nu=-1": "noise.nu=-1",
    "noise.nu=nan": "noise.nu=nan",
    "layer.unlearn=9": "allowed: 0 to 3",
    "layer.trained=[3]": "above layer.unlearn=2",
}


@pytest.mark.whole
@pytest.mark.parametrize(("override", "said"), BAD.items())
def test_bad_input_is_one_line_on_stderr_and_a_code(override: str, said: str, tmp_path: Path):
    printed = rna(override, f"output_dir={tmp_path}", code=2).strip()
    assert said in printed
    assert len(printed.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.whole
def test_more_bad_input_is_refused_before_a_model_is_loaded(tmp_path: Path, rna_here: Callable[..., str]):
    empty, rows, few = tmp_path / "empty.txt", tmp_path / "rows.jsonl", tmp_path / "few.txt"
    empty.write_text("")
    rows.write_text('{"text": "a b"}\n{"txt": "c"}\n')
    few.write_text("one\ntwo\n")
    (tmp_path / "hollow").mkdir()
    (tmp_path / "hollow" / "config.json").write_text('{"num_hidden_layers": 4}')
    text = ("data=text", f"output_dir={tmp_path}/out", f"data.retain.path={few}")
    cases = {
        (*text, f"data.topics.text.path={empty}"): "fewer than one batch",
        (*text, f"data.topics.text.path={rows}"): "rows.jsonl, line 2",
        (*text, f"data.topics.text.path={few}"): "fewer than one batch",
        (*text, f"data.topics.text.path={tmp_path}/absent.txt"): "data.topics.text.path",
        ("model=local", "model.unlearn_layer=2", f"model.path={tmp_path}/hollow"): "without weights",
        (f"output_dir={few}/x",): "cannot write there",
        ("method=rmu", "retain=kl"): "no meaning with method=rmu",
        ("method=rmu", "noise.layers=[3]"): "allowed: 0 to 2",
    }
    for arguments, said in cases.items():
        printed = rna_here(*arguments, code=2).strip()
        assert said in printed, printed
        assert len(printed.splitlines()) == 1


@pytest.mark.whole
def test_no_network_is_reached(finished: tuple[Path, str], watched: dict[str, str]):
    assert "REACHED OUT" not in finished[1]
    probe = [sys.executable, "-c", "import socket; socket.create_connection(('203.0.113.1', 80))"]
    assert subprocess.run(probe, env=os.environ | watched, check=False, capture_output=True).returncode == 77
