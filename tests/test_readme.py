"""Every command of the READMEs runs, or, where it needs a user's own file, composes and checks."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra_plugins.rna_optuna_sweeper import space

from rna import __main__, export, records, run, suggest, trial
from rna.analyze import command as analyze
from rna.corpora.__main__ import main as corpora_main
from rna.evaluation import ngrams
from rna.perturb import mined
from rna.perturb.__main__ import main as perturb_main
from rna.records.__main__ import main as records_main
from rna.report import packed
from rna.settings import compose_fixed, config
from rna.settings.fields import BUILTIN, CONF
from rna.sweep import commands as sweep
from rna.sweep import ledger
from tests import generated, outside, own_tasks
from tests.corpora.test_themes import typhoon_and_lakes
from tests.evaluation.test_ngrams import encode, write_mined
from tests.sweep.test_sweep import made as made_sweep

ROOT = Path(__file__).parents[1]
FIRST, *OTHERS = [ROOT / "README.md", *sorted([*ROOT.glob("rna/**/README.md"), *ROOT.glob("launchers/README.md")])]
OTHERS.append(ROOT / "tests" / "bench" / "README.md")
README = "\n".join(file.read_text() for file in (FIRST, *OTHERS))
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
COMMANDS = [*dict.fromkeys(line.split("#")[0].strip() for line in BLOCKS.splitlines() if line.strip())]
SWEEPS = [command for command in COMMANDS if command.startswith("python -m rna.run -m ")]
OWN_METHOD = [command for command in COMMANDS if "--config-dir" in command]
COMMANDS = [command for command in COMMANDS if command not in OWN_METHOD]
RUNS = [command for command in COMMANDS if command.startswith("python -m rna.run") and command not in SWEEPS]
OWN = ("data=text", "data=wmdp", "data=tofu", "experiment=")
OWN_FILES = [command for command in RUNS if any(word in command for word in OWN)]
OWN_TASKS = [command for command in RUNS if "+eval.tasks." in command]
COMPLETE = [command for command in RUNS if command not in [*OWN_FILES, *OWN_TASKS]]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("outputs")
    write_mined(made / "ngrams.parquet")  # what eval=ngram_similarity reads
    return made


def test_the_first_page_is_one_sitting_and_names_each_other_once():
    """And every link leads to a file, and every anchor to a heading."""
    first = FIRST.read_text()
    assert first.count("\n") <= 300
    for file in OTHERS:
        assert first.count(f"]({file.relative_to(ROOT)})") == 1, file
    for file in (FIRST, *OTHERS):
        for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text()):
            if target.startswith("http"):
                continue
            path, _, anchor = target.partition("#")
            found = (file.parent / path).resolve() if path else file
            assert found.exists(), (file, target)
            headings = re.findall(r"^#+ (.*)", found.read_text(), re.MULTILINE) if anchor else []
            words = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
            assert not anchor or anchor in words, (file, target)


def test_the_two_commands_are_there():
    assert "pip install -e . && python -m rna.run" in COMMANDS
    assert "pip install -e '.[dev]' && python -m pytest" in COMMANDS
    assert len(COMPLETE) >= 4
    assert OWN_FILES


@pytest.mark.whole
@pytest.mark.parametrize("command", COMPLETE)
def test_a_run_runs(command: str, outputs: Path, rna_here: Callable[..., str]):
    words = [word.replace("=outputs/", f"={outputs}/") for word in shlex.split(command)[3:]]
    short = ["train.steps=2", "eval.limit=8", "baseline=skip", "wandb=disabled", f"output_dir={outputs}"]
    printed = rna_here(*words, *short)
    assert ("unlearned.safetensors" if "train_only" in command else "retain") in printed


@pytest.mark.whole
def test_tasks_of_lm_eval_and_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rna_here: Callable[..., str]):
    """lm-eval's own up to its data, which are not here."""
    monkeypatch.chdir(tmp_path)
    for file in own_tasks.written(tmp_path / "tasks").glob("*.yaml"):
        file.write_text(file.read_text().replace("own_choice", "my_task"))
    known, own = ([*shlex.split(command)[3:], "wandb=disabled", f"output_dir={tmp_path}"] for command in OWN_TASKS)
    assert "eval.tasks.arc.task=arc_easy: its data, allenai/ai2_arc, cannot be had" in rna_here(*known, code=2)
    printed = rna_here(*own, "train.steps=2", "eval.limit=8", "baseline=skip")
    assert "mine acc_norm" in printed


@pytest.mark.slow
def test_a_method_of_ones_own_is_written_as_shown(tmp_path: Path):
    """The files and commands of the README, in a folder of one's own with an installed wheel; at most 40 lines."""
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", README, re.DOTALL)
    files = {name: text for name, text in blocks if name.startswith(("my_unlearning", "conf/"))}
    assert len(files) == 3
    assert sum(text.count("\n") for text in files.values()) <= 40
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    environment = outside.installed(tmp_path / "wheel")
    first, second = OWN_METHOD
    short = ("train.steps=2", "eval.limit=8", "baseline=skip", "wandb=disabled")
    for command, more in ((first, short), (second, ())):
        words = [sys.executable, *shlex.split(command)[1:], *more]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        assert ("with RNA" if more else "cells") in done.stdout


@pytest.mark.whole
def test_a_trial_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    common = ["method=rmu", "train.steps=1", "train_only=true", "noise=none", "wandb=disabled"]
    row = trial.arm("plain", config.check(run.compose([*common, f"output_dir={tmp_path}"], None)))
    trial.work(row, lambda *_: None)
    exports = [command for command in COMMANDS if command.startswith("python -m rna.export")]
    assert len(exports) == 2
    for command, code in zip(exports, (0, 2), strict=True):  # the second wants a network, and says so in one line
        words = shlex.split(command.replace("KEY", row.key).replace("outputs/", f"{tmp_path}/"))[2:]
        monkeypatch.setattr(sys, "argv", [*words, "--output-dir", str(tmp_path)])
        try:
            export.main()
            ended: object = 0
        except SystemExit as stop:
            ended = stop.code
        assert ended == code
        assert (Path(words[2]) / "model.safetensors").is_file()
    assert "--push me/my-unlearned-model: not uploaded" in capsys.readouterr().err


ANALYSES = [command for command in COMMANDS if command.startswith("python -m rna.analyze")]


def test_every_analysis_is_in_the_readme():
    """They are run in tests/analyze/test_measure.py."""
    assert {shlex.split(command)[3] for command in ANALYSES} == set(analyze.WHAT)


def test_ngrams_are_mined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With a stand-in for Sentence-BERT, which is an extra."""
    (command,) = [line for line in COMMANDS if line.startswith("python -m rna.perturb ngrams")]
    monkeypatch.setattr(ngrams, "check_encoder", lambda _: None)
    monkeypatch.setattr(ngrams, "sentence_bert", lambda *_, **__: encode)
    words = shlex.split(command.replace("outputs/", f"{tmp_path}/"))[3:]
    monkeypatch.setattr(sys, "argv", ["rna.perturb", *words, "--limit", "3", "--workers", "1"])
    perturb_main()
    groups = mined.read_groups(tmp_path / "ngrams.parquet")
    assert set(groups) == {(n, group) for n in (2, 4) for group in mined.GROUPS}


def test_wikitext_is_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, called: Callable[..., str]):
    """With a few articles in place of Wikitext's, and as many questions as they allow."""
    (command,) = [line for line in COMMANDS if line.startswith("python -m rna.corpora")]
    monkeypatch.chdir(tmp_path)
    _, wikitext, *words = shlex.split(command)[3:]
    typhoon_and_lakes(tmp_path / wikitext)
    assert "questions.jsonl: 18 questions" in called(corpora_main, "theme", wikitext, *words[:-1], "18")


@pytest.mark.whole
def test_reports_are_made(tmp_path: Path):
    for made in (generated.settings(), generated.settings(nu=0.02), generated.settings("dpo", seed=1)):
        generated.trial(tmp_path, made, generated.scores(30, 60))
    made = [shlex.split(command)[1:] for command in COMMANDS if command.startswith("python -m rna.report")]
    assert len(made) == 8
    packed.pack(str(tmp_path), tmp_path / "ours.jsonl.xz", None)
    for words in made:
        words = [str(tmp_path / word) if word.endswith(packed.SUFFIX) else word for word in words]
        done = subprocess.run([sys.executable, *words, "--output-dir", str(tmp_path)], capture_output=True, check=False)
        nothing = {"defences", "probes"} & {*words} and "--shipped" not in words  # among these records
        assert done.returncode == (2 if nothing else 0), done.stderr
        assert (b"python -m rna.run -m sweep=" in done.stderr) == bool(nothing)
    assert (tmp_path / "reports" / "all" / "index.html").is_file()
    assert (tmp_path / "reports" / "all_method=npo,dpo_seed=0,1" / "figures" / "pareto.svg").is_file()


def test_rna_lists_and_tells(called: Callable[..., str]):
    (first, *helps) = [shlex.split(command) for command in COMMANDS if re.match(r"rna( |$)", command)]
    assert first == ["rna"]
    assert "completion" in called(__main__.main)
    assert helps
    for words in helps:
        assert words[1] == "run"
        assert "noise.nu=" in called(run.main, *words[2:])
    assert 'eval "$(rna completion bash)"' in COMMANDS  # sourced in tests/cli/test_completion.py


@pytest.mark.whole
def test_python_is_an_entry_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (code,) = re.findall(r"```python\n(import rna\n.*?)```", README, re.DOTALL)
    model = AutoModelForCausalLM.from_pretrained(str(BUILTIN / "base"), dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(str(BUILTIN / "base"))
    texts = ["marsh fevers are fevers of the marsh"] * 8
    common = ["method=npo", "train.steps=1", "train_only=true", "noise=none", "wandb=disabled"]
    row = trial.arm("plain", config.check(run.compose([*common, f"output_dir={tmp_path / 'outputs'}"], None)))
    trial.work(row, lambda *_: None)
    monkeypatch.chdir(tmp_path)
    names = {"model": model, "tokenizer": tokenizer, "texts": texts, "others": texts}
    exec(code.replace("100", "2").replace("KEY", row.key), names)
    assert len(names["done"].curve) == 2
    assert [one["key"] for one in names["rows"]] == [row.key]
    assert names["model"].config.model_type == "mistral"


def test_trials_are_found_again(tmp_path: Path, called: Callable[..., str], monkeypatch: pytest.MonkeyPatch):
    """The commands in their order, of which the third deletes nothing without --yes."""
    generated.world(tmp_path, seeds=1, alphas=(1.0,), pairs=[("npo", "mse")])
    rows = sorted(records.trials(str(tmp_path), method="npo"), key=lambda row: row["noise.nu"])
    plain, with_rna = (row["key"] for row in rows)
    ledger.save(tmp_path / "sweeps" / "NAME", ledger.Trial(0, [], address={"key": with_rna}))
    commands = [shlex.split(command) for command in COMMANDS if command.startswith("python -m rna.records")]
    said = {"compare": "paired", "delete": "would delete 4 trials", "disk": "trials of no sweep", "--method": "1 of 4"}
    said |= {"pack": "ours.jsonl.xz: 28 records"}
    monkeypatch.chdir(tmp_path)
    assert {words[3] for words in commands} == set(said)
    for words in commands:
        keys = iter((plain[:4], with_rna[:4]))
        words = [next(keys) if word == "KEY" else word for word in words[3:]]
        assert said[words[0]] in called(records_main, *words, "--output-dir", str(tmp_path))
    assert len(records.trials(str(tmp_path))) == 4


@pytest.mark.whole
def test_a_study_goes_to_wandb(tmp_path: Path):
    generated.trial(tmp_path, generated.settings(), generated.scores(30, 60))
    found = [shlex.split(command)[1:] for command in COMMANDS if command.startswith("python -m rna.track")]
    assert [words[2] for words in found] == ["workspace", "close", "sync"]
    said: list[str] = []
    for words in found:
        if words[2] == "sync":  # nothing waits, so nothing asks a network
            shutil.rmtree(tmp_path / "wandb")
        command = [sys.executable, *words, "--output-dir", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert "workspace.json" in said[0]
    assert "offline-run-" in said[1]
    assert "0 of 0 runs" in said[2]


@pytest.mark.whole
@pytest.mark.parametrize("command", OWN_FILES)
def test_a_run_on_own_files_composes(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(config, "_packaged", lambda _package, file: file)  # the optional package may not be here
    config.register_resolvers()
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "models" / "MyModel"
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"num_hidden_layers": 32}')
    words = [word.replace("/models", f"{tmp_path}/models") for word in shlex.split(command)[3:]]
    settings = config.check(run.compose(words, None))
    assert settings.data.name in ("text", "wmdp", "tofu")


@pytest.mark.whole
def test_strengths_are_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """On the demo's model and texts in place of the user's own."""
    found = [shlex.split(command)[3:] for command in COMMANDS if command.startswith("python -m rna.suggest")]
    assert len(found) == 2
    assert ["--search" in words for words in found] == [False, True]
    for name in ("forget", "retain"):
        (tmp_path / f"{name}.txt").write_text(
            "\n".join("marsh fevers are marsh fevers and marsh fevers" for _ in range(60))
        )
    monkeypatch.chdir(tmp_path)
    for words in found:
        own = [word for word in words if not word.startswith("model=")]
        monkeypatch.setattr(sys, "argv", ["rna.suggest", *own, "--rungs=1", "train.steps=1", "wandb=disabled"])
        suggest.main()
        printed = capsys.readouterr().out
        assert "root mean square" in printed
        assert ("python -m rna.run data=text" in printed) or ("no rung forgets" in printed)


@pytest.mark.whole
@pytest.mark.parametrize("command", SWEEPS)
def test_a_sweep_composes(command: str, tmp_path: Path):
    write_mined(tmp_path / "ngrams.parquet")
    words = shlex.split(command)[4:]
    words += [f"eval.ngrams_path={tmp_path}/ngrams.parquet"] if "eval=ngram_similarity" in words else []
    compose_fixed(words, None)
    swept = [word for word in words if not word.startswith("hydra")]
    parsed = space.parse(OverridesParser.create().parse_overrides(swept))
    assert parsed.axes or any(word.startswith("sweep=") for word in swept)
    firsts = [axis.override(axis.natives[0] if axis.choices else axis.low) for axis in parsed.axes]
    config.check(run.compose([*parsed.fixed, *firsts], None))


def test_a_sweep_is_planned_shown_and_cleared(tmp_path: Path):
    folder = made_sweep(tmp_path)
    folder.rename(folder.with_name("noise_scale"))
    commands = [command for command in COMMANDS if command.startswith("python -m rna.sweep")]
    assert len(commands) == 11
    (folder.with_name("noise_scale") / "logs" / "3").mkdir(parents=True)
    (folder.with_name("noise_scale") / "logs" / "3" / "run.log").write_text("said\n")
    ledger.save(folder.with_name("noise_scale"), ledger.Trial(3, ["seed=9"]))  # for `cancel`, which wants one to come
    for command in commands:
        words = shlex.split(command.replace(" --watch", ""))[3:]
        sweep.main(["--output-dir", str(tmp_path), *words])


@pytest.mark.slow
def test_the_demo_rebuilds_for_a_quick_look(tmp_path: Path):
    (command,) = [line for line in COMMANDS if line.startswith("python -m rna.demo outputs")]
    words = shlex.split(command.replace("outputs/world", str(tmp_path / "world")))[1:]
    subprocess.run([sys.executable, *words, "--steps", "2"], check=True, capture_output=True)
    assert (tmp_path / "world" / "base" / "model.safetensors").is_file()
    assert (tmp_path / "world" / "retrained" / "tokenizer.json").is_file()


def test_other_commands_answer_help():
    tune = next(line for line in COMMANDS if line.startswith("python -m rna.demo.tune"))
    words = [sys.executable, *shlex.split(tune)[1:3], "--help"]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_the_table_of_groups_is_complete():
    for group in (
        "method",
        "retain",
        "defence",
        "noise",
        "layer",
        "model",
        "data",
        "eval",
        "probe",
        "wandb",
        "sweep",
        "protection",
    ):
        row = next(line for line in README.splitlines() if line.startswith(f"| `{group}` |"))
        for option in (CONF / group).glob("*.yaml"):
            if (group, option.stem) != ("retain", "none"):
                assert f"`{option.stem}`" in row, (group, option.stem)


@pytest.mark.whole
def test_no_file_of_the_project_is_missing_from_an_installed_wheel(tmp_path: Path):
    """Built and unpacked: conf lies inside the package, and the demo's files and tasks are there."""
    pytest.importorskip("hatchling")
    import zipfile

    zipfile.ZipFile(outside.wheel_of(tmp_path)).extractall(tmp_path / "site")
    inside = {str(file.relative_to(tmp_path / "site")) for file in (tmp_path / "site").rglob("*") if file.is_file()}
    needed = ["rna/conf/config.yaml", "rna/conf/tuned/demo/npo_mse.yaml", "rna/demo/assets/base/model.safetensors"]
    needed += ["rna/tasks/demo/retain.yaml", "rna/refusals.txt", "rna/report/page.html", "rna/report/paper.json"]
    needed += ["rna/tasks/demo/retain.yaml", "rna/refusals.txt", "rna/conf/sweep/noise_scale.yaml"]
    needed += ["rna/conf/wandb/default.yaml", "rna/conf/protection/scope.yaml", "rna/report/style.css"]
    needed += [
        f"hydra_plugins/rna_{name}/config.py" for name in ("optuna_sweeper", "gpu_pool_launcher", "slurm_launcher")
    ]
    assert [name for name in needed if name not in inside] == []
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-m", "rna.run", "noise.nu=-1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
