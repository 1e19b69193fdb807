"""Records are written once, under keys that depend on what can change them and on nothing else."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rna import perturb, run
from rna.decoder import model
from rna.evaluation import questions
from rna.settings import config
from rna.settings.fields import (
    BUILTIN,
    CorpusSettings,
    DataSettings,
    EvalSettings,
    Settings,
    TaskSettings,
)
from rna.store import results
from rna.sweep import ledger
from rna.unlearning.checkpoint import Checkpoint
from tests import own_tasks
from tests.evaluation.test_ngrams import write_mined
from tests.setups import method_of


@functools.cache
def settings(*overrides: str) -> Settings:
    config.register_resolvers()
    return config.check(run.compose(list(overrides), None))


def train_key(*overrides: str) -> str:
    return results.train_key(results.train_identity(settings(*overrides)))


def test_a_record_is_read_as_it_was_written(tmp_path):
    folder = str(tmp_path / "outputs")
    path = results.write(folder, "k", {"acc": 0.1, "word": "Überprüfung"})
    assert path == tmp_path / "outputs" / "results" / "k.json"
    assert results.read(folder, "k") == {"acc": 0.1, "word": "Überprüfung"}
    assert results.read(folder, "other") is None


def test_a_record_is_written_once(tmp_path):
    results.write(str(tmp_path), "k", {"value": 1})
    with pytest.raises(FileExistsError):
        results.write(str(tmp_path), "k", {"value": 2})
    assert results.read(str(tmp_path), "k") == {"value": 1}
    assert [file.name for file in (tmp_path / "results").iterdir()] == ["k.json"]


WRITERS: dict[str, Callable[[Path], object]] = {
    "record": lambda folder: results.write(str(folder), "k", {"value": 1}),
    "tensors": lambda folder: model.save_deltas({"w": torch.ones(3)}, folder / "w.safetensors"),
    "checkpoint": lambda folder: Checkpoint(folder / "checkpoint.pt", "k").save({"step": 1}),
    "ledger": lambda folder: ledger.write_json(folder / "0.json", {"number": 0}),
}


@pytest.mark.parametrize("what", WRITERS)
def test_what_has_its_name_is_on_the_disk(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """So that a machine without power has no name that stands for nothing."""
    synced: dict[int, bool] = {}
    own = os.fsync

    def fsync(descriptor: int) -> None:
        synced[os.fstat(descriptor).st_ino] = any(not path.name.endswith("tmp") for path in files())
        own(descriptor)

    def files() -> list[Path]:
        return [path for path in tmp_path.rglob("*") if path.is_file()]

    monkeypatch.setattr(os, "fsync", fsync)
    WRITERS[what](tmp_path)
    (file,) = files()
    assert synced[file.stat().st_ino] is False  # before it had its name


def test_a_record_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        results.write(str(tmp_path), "k", {"value": object()})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_number_that_json_does_not_have_is_written_as_none(tmp_path):
    path = results.write(str(tmp_path), "k", {"curve": [{"loss": float("nan")}, {"loss": float("inf")}, {"loss": 1.0}]})
    assert results.read(str(tmp_path), "k") == {"curve": [{"loss": None}, {"loss": None}, {"loss": 1.0}]}
    assert "NaN" not in path.read_text(encoding="utf-8")


def test_reruns_are_numbered_from_two(tmp_path):
    names = []
    for _ in range(3):
        names.append(results.next_rerun(str(tmp_path), "k"))
        results.write(str(tmp_path), names[-1], {})
    assert names == ["k", "k.r2", "k.r3"]


def test_failures_are_numbered_from_one_and_leave_the_key_free(tmp_path):
    names = []
    for _ in range(2):
        names.append(results.next_failure(str(tmp_path), "k"))
        results.write(str(tmp_path), names[-1], {})
    assert names == ["k.failed1", "k.failed2"]
    assert results.read(str(tmp_path), "k") is None
    assert results.next_rerun(str(tmp_path), "k") == "k"


A, B = "abcd000000000000", "abcdef0000000000"


@pytest.fixture
def keyed(tmp_path) -> str:
    """Two keys that begin alike, one with a rerun, and one that has only failed so far."""
    for key in (A, B, f"{B}.r2", f"{B}-{A}", "1234000000000000.failed1"):
        results.write(str(tmp_path), key, {"kind": "train", "key": key})
    (tmp_path / "trials" / "5678000000000000").mkdir(parents=True)
    return str(tmp_path)


def test_keys_are_those_of_records_failures_and_tensors(keyed):
    assert results.keys(keyed) == ["1234000000000000", "5678000000000000", A, B, f"{B}.r2"]
    assert results.keys(f"{keyed}/nowhere") == []


@pytest.mark.parametrize(
    ("word", "key"),
    [(A, A), ("abcd0", A), ("abcde", B), ("abcdef", B), ("abcde.r2", f"{B}.r2"), (f"{B}.r2", f"{B}.r2"),
     ("1234", "1234000000000000"), ("5678", "5678000000000000")],
)  # fmt: skip
def test_the_beginning_of_a_key_stands_for_it(keyed, word, key):
    assert results.resolve(keyed, word) == key


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("abc", "a key's first 4 letters at least; python -m rna.records lists the keys"),
        ("", "a key's first 4 letters at least"),
        ("abc.r2", "a key's first 4 letters at least"),
        ("abcd", f"begins 3 keys: {A}, {B}, {B}.r2; give more letters"),
        ("abcdee", f"no trial of that key in .*; did you mean '{B}'\\? allowed: 1234"),
        ("abcde.r3", f"no trial of that key in .*; did you mean '{B}.*'\\? allowed: 1234"),
        ("zzzz", "no trial of that key in .*/results; allowed: 1234"),
        ("*bcd", "no trial of that key in"),
        ("../results/abcd", "no trial of that key in"),
    ],
)
def test_a_word_that_stands_for_no_key_or_for_several_is_told(keyed, word, said):
    with pytest.raises(ValueError, match=f"^KEY={re.escape(word)}: {said}"):
        results.resolve(keyed, word)


def test_a_thousand_keys_are_not_all_told(tmp_path):
    for number in range(20):
        results.write(str(tmp_path), f"abcd{number:012}", {})
    with pytest.raises(ValueError, match=r"begins 20 keys: abcd0+0, .*, abcd0+7 and 12 more; give more letters$"):
        results.resolve(str(tmp_path), "abcd")
    with pytest.raises(ValueError, match=r"results; python -m rna.records lists all 20$"):
        results.resolve(str(tmp_path), "zzzz")
    with pytest.raises(ValueError, match=r"none yet; is --output-dir .*nowhere right"):
        results.resolve(str(tmp_path / "nowhere"), "abcd")


def test_what_processes_hold_is_known(tmp_path):
    assert results.in_flight(str(tmp_path)) == set()
    with results.single_flight(str(tmp_path), "free"):
        pass
    with results.single_flight(str(tmp_path), "held"):
        assert results.in_flight(str(tmp_path)) == {"held"}
    assert results.in_flight(str(tmp_path)) == set()


def test_check_writable_leaves_no_trace(tmp_path):
    results.check_writable(str(tmp_path / "new"))
    assert list((tmp_path / "new" / "results").iterdir()) == []


def test_check_writable_names_the_key(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match=r"^output_dir=.*/file/outputs: cannot write there \(Not a directory\)"):
        results.check_writable(str(tmp_path / "file" / "outputs"))


def test_single_flight_lets_one_in_at_a_time(tmp_path):
    inside, most = [], []

    def enter(number: int) -> None:
        with results.single_flight(str(tmp_path), "k"):
            inside.append(number)
            most.append(len(inside))
            for _ in range(20_000):
                pass
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(40)))
    assert most == [1] * 40


@pytest.mark.parametrize(
    "same",
    [
        ("output_dir=elsewhere",),
        ("wandb=disabled",),
        ("wandb=online", "wandb.project=other"),
        ("eval.keyword=plague", "eval.seed=5", "eval.batch_size=7"),
        ("baseline=skip",),
        ("rerun=true",),
        ("model.threads=2",),
    ],
)
def test_what_cannot_change_the_tensors_is_not_in_the_train_key(same):
    assert train_key(*same) == train_key()


@pytest.mark.whole
@pytest.mark.parametrize(
    "other",
    [
        ("seed=1",),
        ("noise.nu=0.5",),
        ("noise.scale=variance",),
        ("noise.layers=[1]",),
        ("noise=none",),
        ("train.lr=0.123",),
        ("train.steps=61",),
        ("train.batch_size=3",),
        ("++retain.alpha.bio=7",),
        ("retain=mse",),
        ("method=simnpo",),
        ("method.beta=0.2",),
        ("layer=all_tensors",),
        ("layer=single",),
        ("model.dtype=bfloat16",),
        ("model.path=${builtin:retrained}",),
        ("data.retain.max_length=100",),
        ("data.retain.path=${builtin:forget_bio.jsonl}",),
    ],
)
def test_what_can_change_the_tensors_is_in_the_train_key(other):
    assert train_key(*other) != train_key()


def test_the_train_key_knows_a_corpus_by_its_content(tmp_path):
    copy = tmp_path / "copy.jsonl"
    shutil.copy(BUILTIN / "retain.jsonl", copy)
    moved = train_key(f"data.retain.path={copy}")
    assert moved == train_key()
    with copy.open("a") as stream:
        stream.write('{"text": "one more"}\n')
    made = settings(f"data.retain.path={copy}")
    assert results.train_key(results.train_identity(made)) != moved


def test_refusals_count_for_dpo_alone(tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("I do not know.\n")

    def key(method: str, refusals: str | None) -> str:
        made = settings(f"method={method}")
        return results.train_key(results.train_identity(replace(made, data=replace(made.data, refusals=refusals))))

    assert key("npo", None) == key("npo", str(own))
    assert key("dpo", None) != key("dpo", str(own))


def test_a_base_model_is_known_by_its_weights_and_dtype_alone():
    made = replace(settings(), method=method_of("none"))
    identity = results.train_identity(made)
    assert set(identity) == {"numerics", "model"}
    assert results.train_identity(replace(made, seed=5)) == identity


def test_a_keyword_changes_the_key_of_its_own_task_alone():
    one, two = (
        results.task_identities(settings(f"eval.keyword={keyword}", "eval.neutral_keyword=Rome"))
        for keyword in ("plague", "typhus")
    )
    assert {name for name in one if one[name] != two[name]} == {"perturbed"}


def test_a_neutral_keyword_changes_the_key_of_the_neutral_task_alone():
    one, two = (results.task_identities(settings(f"eval.neutral_keyword={word}")) for word in ("Rome", "Oslo"))
    assert {name for name in one if one[name] != two[name]} == {"neutral"}


def test_the_perturbation_seed_changes_the_perturbed_tasks_alone():
    one, two = (results.task_identities(settings(f"eval.seed={seed}")) for seed in (1, 2))
    assert {name for name in one if one[name] != two[name]} == {"perturbed", "neutral"}


def test_a_limit_changes_every_task():
    made = settings()
    limited = replace(made, eval=replace(made.eval, limit=5))
    one, two = results.task_identities(made), results.task_identities(limited)
    assert all(one[name] != two[name] for name in one)


# What identities were before a task was known by what it asks, without the versions in them: records lie under these.
DEMO_TASKS = {
    "forget_bio": "b5dec041be6bac59",
    "forget_cyber": "b4cb8dc407e642ed",
    "retain": "8af5d50b664a48ad",
    "perturbed": "5870206833ad752c",
    "neutral": "0f02e2e9b6611759",
    "related": "b15a5079c800a59e",
}
FOLDERS = {  # the n-grams' since an n-gram and the slot it lands in are drawn apart
    "demo": (16, "d6da5dad8f7a6fe2"),
    "ngrams": (2, "ed7f52d8e0c2a85f"),
    "paper": (79, "b6f5798ede79cd67"),
}


def unversioned(identity: dict[str, Any]) -> str:
    return results.digest({key: value for key, value in identity.items() if key not in ("lm_eval", "numerics")})


def test_the_demos_keys_are_what_they_were():
    assert {name: unversioned(one) for name, one in results.task_identities(settings()).items()} == DEMO_TASKS
    then = settings("retain=mse", "retain.alpha.default=0.5", "train.lr=3e-5", "train.steps=250")
    assert unversioned(results.train_identity(then)) == "e38b9f4ce8ce3c17"  # since noise is drawn by counter
    rmu = settings("method=rmu", "noise=none", "retain.alpha.default=30", "train.lr=1e-4", "train.steps=100")
    assert unversioned(results.train_identity(rmu)) == "f2848510a4026474"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_tasks_identity_is_what_it_was(tmp_path, folder):
    for name in ("mmlu", "bio", "cyber"):
        (tmp_path / f"{name}.jsonl").write_text(name)
    lines = [line for file in sorted((results.TASKS / folder).glob("*.yaml")) for line in file.read_text().splitlines()]
    tasks = {line[6:]: TaskSettings(line[6:], "retain") for line in lines if line.startswith("task: ")}
    options = EvalSettings(tasks=tasks, mmlu_path=str(tmp_path / "mmlu.jsonl"), wmdp_path=str(tmp_path))
    found = results.task_identities(replace(settings(), eval=options))
    assert (len(found), results.digest({name: unversioned(one) for name, one in found.items()})) == FOLDERS[folder]


@pytest.fixture
def copied(tmp_path, monkeypatch) -> Path:
    """A copy of the demo's questions and tasks, in whose place they are."""
    shutil.copytree(results.TASKS, tmp_path / "tasks")
    shutil.copy(BUILTIN / "questions.jsonl", tmp_path)
    monkeypatch.setattr(results, "TASKS", tmp_path / "tasks")
    monkeypatch.setattr(results, "BUILTIN", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("questions.py", "import json\n", "import json  # rows are lines of it\nimport math\n"),
        ("questions.py", "chosen", "word_chosen"),
        ("retain.yaml", "dataset_kwargs: {", "# not to be forgotten\ndataset_kwargs: { "),
        ("_question.yaml", "test_split", "# the only one\ntest_split"),
    ],
)
def test_a_task_that_asks_the_same_has_the_same_identity(copied, file, old, new):
    changed = copied / "tasks" / "demo" / file
    assert old in changed.read_text()
    changed.write_text(changed.read_text().replace(old, new))
    assert {name: unversioned(one) for name, one in results.task_identities(settings()).items()} == DEMO_TASKS


@pytest.mark.parametrize(
    ("file", "old", "new", "others"),
    [
        ("questions.jsonl", "What is", "Which is", set(DEMO_TASKS)),
        ("tasks/demo/_question.yaml", '"D"', '"E"', set(DEMO_TASKS)),
        ("tasks/demo/_question.yaml", "num_fewshot: 0", "num_fewshot: 1", set(DEMO_TASKS)),
        ("tasks/demo/retain.yaml", "subset: retain", "subset: related", {"retain"}),
        ("tasks/demo/questions.py", "perturb_all(rows, chosen, seed,", "perturb_all(rows, chosen, seed + 1,", None),
        ("tasks/demo/questions.py", '("close", "ordinary")', '("ordinary",)', {"retain", "perturbed", "neutral"}),
    ],
)
def test_a_task_that_asks_something_else_has_another_identity(copied, file, old, new, others):
    changed = copied / file
    assert old in changed.read_text()
    changed.write_text(changed.read_text().replace(old, new))
    found = results.task_identities(settings())
    assert {name for name in found if unversioned(found[name]) != DEMO_TASKS[name]} == (
        others or {"perturbed", "neutral"}
    )
    assert all(("asks" in one) != ("files" in one) for one in found.values())


@pytest.mark.parametrize(
    ("where", "name", "changed", "others"),
    [
        (questions, "prompt", lambda row, of=questions.prompt: of(row).replace("Answer", "Reply"), set(DEMO_TASKS)),
        (questions, "half", lambda _: "report", set(DEMO_TASKS)),
        (perturb, "draw", lambda *given, of=perturb.draw: of(given[0] + 1, *given[1:]), {"perturbed", "neutral"}),
        (perturb, "has_choice", lambda *_: False, {"perturbed", "neutral"}),
        (questions, "sample", lambda rows, limit, _: rows[:limit], set(DEMO_TASKS)),
    ],
)
@pytest.mark.usefixtures("copied")
def test_code_that_asks_something_else_changes_the_identity(monkeypatch, where, name, changed, others):
    monkeypatch.setattr(where, name, changed)
    found = results.task_identities(settings())
    assert {name for name in found if unversioned(found[name]) != DEMO_TASKS[name]} == others


MIXED = {"mixed", "mixed_neutral", "forget_bio_mixed", "forget_cyber_mixed"}


@pytest.mark.parametrize(
    ("name", "changed", "others"),
    [
        ("mix", lambda row, text, _, of=perturb.mix: of(row, text, "before"), MIXED),
        ("_beside", lambda row, other: row["question"] != other["question"], MIXED),
        ("_beside", lambda row, other, of=perturb._beside: row == other or of(row, other), {"mixed_neutral"}),
    ],
)
def test_code_that_mixes_otherwise_changes_the_identity_of_mixed_prompts(copied, monkeypatch, name, changed, others):
    one = results.task_identities(settings("eval=demo_positions"))
    monkeypatch.setattr(perturb, name, changed)
    monkeypatch.setattr(results, "TASKS", copied / "again")
    shutil.copytree(copied / "tasks", copied / "again")
    two = results.task_identities(settings("eval=demo_positions"))
    assert {task for task in one if one[task] != two[task]} == others


def test_the_seed_is_in_the_key_of_mixed_prompts_and_no_keyword_is():
    one, two, three = (
        results.task_identities(settings("eval=demo_positions", *more))
        for more in ([], ["eval.seed=1"], ["eval.keyword=plague", "eval.neutral_keyword=Rome", "eval.keywords=[a, b]"])
    )
    assert {name for name in MIXED if one[name] != two[name]} == MIXED
    assert {name: one[name] for name in MIXED} == {name: three[name] for name in MIXED}


def test_both_corpora_are_in_the_key_of_mixed_prompts(tmp_path):
    """A question that stands beside another one is a part of its prompt."""
    for name in ("mmlu", "bio", "cyber"):
        (tmp_path / f"{name}.jsonl").write_text(name)
    paths = [f"eval.mmlu_path={tmp_path / 'mmlu.jsonl'}", f"eval.wmdp_path={tmp_path}"]
    made = settings("eval=wmdp_positions", *paths)
    names = {name for name, task in made.eval.tasks.items() if "mixed" in task.role}
    seen = [results.task_identities(made)]
    changed: dict[str, set[str]] = {}
    for name in ("mmlu", "bio", "cyber"):
        (tmp_path / f"{name}.jsonl").write_text(f"another {name}")
        seen.append(results.task_identities(made))
        changed[name] = {task for task in names if seen[-1][task] != seen[-2][task]}
    assert changed == {
        "mmlu": names,
        "bio": {"mmlu_mixed", "wmdp_bio_mixed"},
        "cyber": {"mmlu_mixed", "wmdp_cyber_mixed"},
    }


def test_keys_are_made_without_heavy_imports():
    """A plan and a report make keys; they must not wait for what asks the questions."""
    program = (
        "import sys; from rna.store import results; from rna.settings import EvalSettings, Settings, TaskSettings;"
        "tasks = {'a': TaskSettings('rna_demo_retain', 'retain')};"
        "found = results.task_identities(Settings(eval=EvalSettings(tasks=tasks)));"
        "assert 'files' in found['a']; print({'torch', 'lm_eval', 'datasets', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_where_the_layers_are_is_in_the_train_key_if_it_is_not_where_they_always_are():
    made = settings()
    elsewhere = replace(made, model=replace(made.model, layer_path="model.language_model.layers"))
    assert results.train_identity(elsewhere)["model"]["layer_path"] == "model.language_model.layers"
    assert "layer_path" not in results.train_identity(made)["model"]


def test_another_backend_is_another_evaluation_of_every_task():
    made = settings()
    found = results.task_identities(replace(made, eval=replace(made.eval, backend="vllm")))
    assert {name: one.pop("backend") for name, one in found.items()} == dict.fromkeys(DEMO_TASKS, "vllm")
    assert found == results.task_identities(made)


def test_ngrams_are_in_the_key_by_their_words_and_not_by_their_file(tmp_path):
    files = {name: tmp_path / f"{name}.parquet" for name in ("one", "same", "other")}
    for name, file in files.items():
        write_mined(file, words="r s" if name == "other" else "p q")
    made = {
        name: results.task_identities(settings(*NGRAMS, f"eval.ngrams_path={file}")) for name, file in files.items()
    }
    assert made["one"] == made["same"]
    assert {name for name in made["one"] if made["one"][name] != made["other"][name]} == {
        f"ngram_2_{group}" for group in ("top", "mean", "bottom")
    }
    assert {name: made["one"][name] for name in results.task_identities(settings())} == results.task_identities(
        settings()
    )


def test_leaving_questions_out_is_in_the_key_of_every_choice_task_and_keeping_them_in_none():
    kept, left = (results.task_identities(settings(f"eval.of_above={how}")) for how in ("keep", "leave_out"))
    assert kept == results.task_identities(settings())
    assert all("of_above" not in identity for identity in kept.values())
    assert left == {name: identity | {"of_above": "leave_out"} for name, identity in kept.items()}


NGRAMS = ("eval=ngram_similarity",)


@pytest.mark.whole
def test_noise_at_inference_is_a_new_evaluation_of_the_plain_trial():
    plain = settings("noise=none")
    made = [settings("noise=inference", *more) for more in ([], ["noise.nu=0.1"], ["noise.samples=3"], ["eval.seed=1"])]
    assert {results.train_key(results.train_identity(one)) for one in (plain, *made)} == {
        results.train_key(results.train_identity(plain))
    }
    retain = [json.dumps(results.task_identities(one)["retain"], sort_keys=True) for one in (plain, *made)]
    assert len(set(retain)) == 5
    assert settings("noise=inference", "noise.nu=0").noise == plain.noise
    assert settings("noise=inference", "method=rmu", "noise.layers=[3]").noise.layers == [
        3
    ]  # RM reads it when it answers


def test_a_task_of_lm_eval_is_known_by_its_version_its_settings_and_its_data(tmp_path):
    folder = own_tasks.written(tmp_path / "own")
    tasks = {"own": TaskSettings("own_lettered", "retain")}
    made = results.task_identities(replace(settings(), eval=EvalSettings(tasks=tasks, include_path=str(folder))))
    assert set(made["own"]) == {"task", "lm_eval", "numerics", "settings", "data", "num_fewshot", "metric"}


def test_a_missing_corpus_of_perplexity_is_named_by_its_key():
    made = settings("eval=perplexity", "data.holdout=0.1")
    topics = {**made.data.topics, "bio": CorpusSettings("absent.txt")}
    with pytest.raises(ValueError, match=r"^data\.topics\.bio\.path=absent\.txt: no such file"):
        results.task_identities(replace(made, data=replace(made.data, topics=topics)))


def test_an_eval_key_begins_with_its_train_key():
    one, two = ({"task": name} for name in ("a", "b"))
    assert results.eval_key("k", one).startswith("k-")
    assert results.eval_key("k", one) != results.eval_key("k", two)
    assert results.eval_key("j", one).removeprefix("j") == results.eval_key("k", one).removeprefix("k")


def test_held_out_texts_and_keywords_are_in_the_key_of_perplexity(tmp_path):
    file = tmp_path / "f.txt"
    file.write_text("one\n")
    made = settings("eval.keyword=plague")
    corpus = CorpusSettings(str(file))
    made = replace(
        made,
        data=DataSettings("text", {"text": corpus}, corpus, holdout=0.1),
        eval=EvalSettings("perplexity", "perplexity"),
    )
    seen = [json.dumps(results.task_identities(made))]
    seen.append(json.dumps(results.task_identities(replace(made, eval=replace(made.eval, keyword="typhus")))))
    seen.append(json.dumps(results.task_identities(replace(made, data=replace(made.data, holdout=0.2)))))
    file.write_text("two\n")
    seen.append(json.dumps(results.task_identities(made)))
    assert len(set(seen)) == 4


def test_provenance_names_versions_machine_and_time():
    made = results.provenance()
    assert set(made["packages"]) == set(results.PACKAGES)
    assert json.loads(json.dumps(made)) == made
