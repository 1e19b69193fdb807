"""lm-eval's own tasks and a user's: judged as lm-eval judges them, known by their content, refused in one line."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rna import run
from rna.evaluation import catalogue, evaluate, foreign, score
from rna.evaluation.answers import Answers
from rna.settings import TASKS, Settings, config
from rna.store import lookup, results
from tests import own_tasks, tiny

OWN = ("own_choice", "own_written", "own_last", "own_rolling", "own_group")


def settings(folder: Path, *names: str, more: str = "", words: tuple[str, ...] = ()) -> Settings:
    """The demo's evaluation with these tasks beside its own; `more` stands in the entry of the first."""
    tasks = [
        f"+eval.tasks.{name}={{task: {name}, role: related{more if not number else ''}}}"
        for number, name in enumerate(names)
    ]
    return config.check(run.compose([f"eval.include_path={folder}", *tasks, *words], None))


def judged(demo: Any, made: Settings, *names: str) -> dict[str, Any]:
    return evaluate.multiple_choice(*demo, list(names), made.eval, lambda *_: None)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_tasks.written(tmp_path_factory.mktemp("own"), count=10, shots=2, by_size="false")


def test_tasks_of_every_kind_have_lm_evals_own_numbers(demo, own: Path):
    """Beside one of ours: with examples, written answers and two filters, likelihoods, whole texts, a group's mean."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    found = judged(demo, settings(own, *OWN), "related", *OWN)
    plain: Any = HFLM(demo[0].model, tokenizer=demo[1], batch_size=8)
    manager = TaskManager(include_path=str(own), include_defaults=False)
    told: Any = simple_evaluate(plain, tasks=list(OWN[1:]), task_manager=manager, bootstrap_iters=0)
    compared = 0
    for name in OWN:
        for key, value in told["results"][name].items():
            metric, _, filtered = key.partition(",")
            if filtered and not metric.endswith("_stderr"):
                ours = metric if filtered == "none" else f"{metric}/{filtered}"
                assert found[name][ours] == pytest.approx(value, rel=1e-4, abs=1e-9), (name, ours)
                compared += 1
    assert compared == 3 + 2 + 2 + 2 + 1
    assert 0 < found["own_choice"]["acc"] < found["own_written"]["exact_match/first"] < 1
    leaves = found["own_group"]["subtasks"].values()
    assert found["own_group"]["acc"] == pytest.approx(sum(leaf["acc"] for leaf in leaves) / 2)
    assert {leaf["n"] for leaf in leaves} == {8, 10}


def test_halves_are_of_the_documents_and_bits_of_the_metric_that_counts(demo, own: Path):
    made = settings(own, "own_choice", "own_rolling", more=", metric: acc_norm")
    found = judged(demo, made, "own_choice", "own_rolling")
    one = found["own_choice"]
    assert one["score"] == "acc_norm"
    assert int(one["correct"], 16).bit_count() == round(10 * one["acc_norm"]) != round(10 * one["acc"])
    halves = [one[half] for half in ("select", "report")]
    assert sum(half["n"] for half in halves) == one["n"] == 10
    assert sum(half["n"] * half["acc"] for half in halves) == pytest.approx(10 * one["acc"])
    rows = foreign.load("own_choice", made.eval).rows
    assert [row["half"] for row in rows] == [row["half"] for row in foreign.load("own_rolling", made.eval).rows]
    assert found["own_rolling"]["score"] is None
    assert "correct" not in found["own_rolling"]


def test_a_sample_has_the_examples_that_it_has_among_all(own: Path):
    made = settings(own, "own_choice")
    found = foreign.load("own_choice", made.eval)
    (every,) = foreign.requests(found, None, made.eval, found.rows).values()
    rows = foreign.sampled(found, replace(made.eval, limit=4))
    (some,) = foreign.requests(found, None, made.eval, rows).values()
    assert len({request.doc_id for request in some}) == 4
    assert {request.args for request in some} < {request.args for request in every}
    prompts = {request.args[0] for request in every}
    assert len(prompts) == 10
    assert all(prompt.count("Answer:") == 3 for prompt in prompts)


def test_an_evaluation_is_known_by_the_content_of_settings_and_data(tmp_path: Path):
    def key(folder: Path, more: str = "", *words: str) -> str:
        made = settings(folder, "own_lettered", "own_choice", more=more, words=words)
        return results.digest(list(results.task_identities(made).values())[-2:])

    first, moved = own_tasks.written(tmp_path / "a"), own_tasks.written(tmp_path / "b")
    known = key(first)
    assert key(moved) == known
    file = moved / "lettered.yaml"
    file.write_text(f"# a comment\n{file.read_text()}")
    assert key(moved) == known
    data = (moved / "choice.jsonl").read_text()
    for change in (
        lambda: (moved / "choice.jsonl").write_text(data.replace('"right": 1', '"right": 2', 1)),
        lambda: (moved / "words.py").write_text(own_tasks.WORDS.replace("Answer:", "The answer:")),
        lambda: (moved / "choice.yaml").write_text((moved / "choice.yaml").read_text().replace("Answer:", "So:")),
    ):
        before = key(moved)
        change()
        assert key(moved) != before
    others = {key(first, *more) for more in ((", metric: acc",), ("", "eval.limit=8"), ("", "eval.add_bos_token=true"))}
    assert len(others | {known}) == 3  # `acc` counts anyway
    shots = {results.digest(results.task_identities(settings(first, "own_choice", more=more))["own_choice"])
             for more in (", num_fewshot: 0", "", ", num_fewshot: 1", ", num_fewshot: 1, fewshot_seed: 5")}  # fmt: skip
    assert len(shots) == 3  # none is what the file says by itself


NO_DATA = own_tasks.LAST.replace("own_last", "own_absent").replace("include: choice.yaml", "dataset_path: me/nowhere")


@pytest.mark.parametrize(
    ("entry", "words", "said"),
    [
        ("task: own_choise, role: related", (), "task=own_choise: no such task; did you mean 'own_choice'"),
        ("task: own_choice, role: relatd", (), "role=relatd: did you mean 'related'"),
        ("task: own_choice", (), "role: a value is needed"),
        ("task: own_absent, role: related", (), "task=own_absent: its data, me/nowhere, cannot be had"),
        ("task: own_choice, role: related, metric: mcc", (), "metric=mcc: is no mean of right answers; allowed: acc"),
        (
            "task: own_written, role: related, metric: em",
            (),
            "metric=em: own_written has no such metric; allowed: exact",
        ),
        ("task: own_choice, role: related, num_fewshot: 9", (), "num_fewshot=9: own_choice has no so many examples"),
        ("task: own_last, role: related, num_fewshot: 1", (), "num_fewshot=1: own_last says num_fewshot: 0 itself"),
        ("task: own_last, role: related, subjects: [a]", (), r"subjects=\['a'\]: is of our own tasks"),
        ("task: rna_demo_retain, role: related, metric: f1", (), "metric=f1: rna_demo_retain is ours"),
        ("task: own_written, role: related", ("eval.interim_every=2",), "eval.interim_roles without related"),
        ("task: own_last, role: related", ("noise=inference", "noise.nu=0.1"), "noise=inference: averages answers"),
    ],
)
def test_what_cannot_be_asked_is_one_line_before_training(tmp_path: Path, entry: str, words: Any, said: str):
    folder = own_tasks.written(tmp_path / "own")
    (folder / "absent.yaml").write_text(NO_DATA + "test_split: test\n")
    words = ["method=rmu", f"eval.include_path={folder}", f"+eval.tasks.mine={{{entry}}}", *words]
    with pytest.raises(ValueError, match=said) as error:
        results.task_identities(config.check(run.compose(words, None)))
    assert "\n" not in str(error.value)


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch):
    from datasets import config as reading
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    for module in (constants, reading):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
    for local in (True, False):
        with foreign._asked_of_the_hub(local=local):
            assert [module.HF_HUB_OFFLINE for module in (constants, reading)] == [not local] * 2
        assert not any(module.HF_HUB_OFFLINE for module in (constants, reading))


def test_a_folder_of_tasks_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=rf"^eval\.include_path={tmp_path}: holds no \.yaml file; allowed: a folder"):
        settings(tmp_path, "own_choice")


def test_names_are_found_without_reading_all_of_lm_evals_files(own: Path):
    """A user's group may name lm-eval's own tasks; its folder alone is indexed for it."""
    (own / "mixed.yaml").write_text("group: own_mixed\ntask: [own_last, arc_easy]\n")
    index = catalogue.index("own_mixed", str(own)).task_index
    assert {"own_mixed", "own_last", "arc_easy"} <= set(index)
    assert len(index) < 100


def test_short_answers_share_what_they_begin_with(monkeypatch: pytest.MonkeyPatch):
    """Against each answer's own forward pass; of two answers behind one context the context is run once."""
    decoder = tiny.decoder()
    pairs = [([5, 9, 7, 30], [4, 8, 2]), ([5, 9, 7, 30], [4, 6]), ([11, 3], [40])]
    run_through: list[int] = []
    laid = score.lay_out

    def watched(chosen: list[score.Pack]) -> score.Layout:
        run_through.extend(pack.length for pack in chosen)
        return laid(chosen)

    monkeypatch.setattr(score, "lay_out", watched)
    found = score.score_long(decoder, pairs, 64, None, lambda *_: None)
    for (context, answer), (value, first) in zip(pairs, found, strict=True):
        with torch.no_grad():
            logits = decoder.model(input_ids=torch.tensor([[*context, *answer]])).logits[0].log_softmax(-1)
        each = [logits[len(context) - 1 + place, token].item() for place, token in enumerate(answer)]
        assert value == pytest.approx(sum(each), rel=1e-4)
        assert first == all(logits[len(context) - 1 + place].argmax() == token for place, token in enumerate(answer))
    assert sum(run_through) == 4 + 2 + 2  # [5 9 7 30 4 8], [11 3]: the last tokens need no pass of their own


def test_texts_that_are_written_are_kept_where_an_evaluation_is_interrupted(
    demo, own: Path, monkeypatch: pytest.MonkeyPatch
):
    from lm_eval.models.huggingface import HFLM

    made, kept = settings(own, "own_written"), Answers(None)
    one = evaluate.multiple_choice(*demo, ["own_written"], made.eval, lambda *_: None, answers=kept)
    monkeypatch.delattr(HFLM, "generate_until")
    again = evaluate.multiple_choice(*demo, ["own_written"], made.eval, lambda *_: None, answers=kept)
    assert again == one


def test_a_roles_accuracy_is_the_mean_of_what_counts_in_each_task():
    judged = {
        "related": {"acc": 0.5, "acc_stderr": 0.3, "n": 4, "select": {"acc": 0.4, "n": 2}},
        "arc": {"acc": 0.1, "acc_norm": 0.9, "acc_norm_stderr": 0.4, "n": 6, "score": "acc_norm",
                "select": {"acc": 0.0, "acc_norm": 0.8, "n": 3, "score": "acc_norm"}},
        "wiki": {"bits_per_byte": 3.0, "n": 5, "score": None},
    }  # fmt: skip
    roles = dict.fromkeys(judged, "related")
    found = lookup.of_tasks(judged) | lookup.of_roles(judged, roles)
    assert found["eval/related/acc"] == pytest.approx(0.7)
    assert found["eval/related/acc_stderr"] == pytest.approx(0.25)
    assert found["eval/related/select/acc"] == pytest.approx(0.6)
    assert (found["eval/related/n"], found["eval/arc/acc"], found["eval/wiki/bits_per_byte"]) == (10, 0.1, 3.0)
    own = {"arc": {"metrics": ["acc", "acc_norm"], "score": "acc_norm"},
           "wiki": {"metrics": ["bits_per_byte"], "score": None}}  # fmt: skip
    where = {"kind": "choice", "roles": roles, "own": own, "evals": dict.fromkeys(judged, ""), "parts": []}
    names = {"eval/related/acc", "eval/arc/acc_norm", "eval/arc/select/acc_norm", "eval/wiki/bits_per_byte"}
    assert names <= set(lookup.names(where))
    assert "eval/wiki/acc" not in lookup.names(where)
    assert lookup.tasks_of(where, "related") == ["related", "arc"]
    assert lookup.raced_by(where, "eval/related/acc") == []


def test_plain_lm_eval_is_told_in_its_own_words_what_to_give():
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = TaskManager(include_path=str(TASKS / "paper"), include_defaults=False)
    with pytest.raises(ValueError, match=r"--metadata '\{\"mmlu_path\": \"FOLDER\"\}'$") as error:
        manager.load(["rna_mmlu_perturbed"])
    assert "eval." not in str(error.value)
    with pytest.raises(ValueError, match=r"^eval\.mmlu_path=cais/mmlu"):
        results.task_identities(config.check(run.compose(["eval=mmlu"], None)))


@pytest.mark.whole
def test_a_trial_shows_and_records_them_and_is_recognised(tmp_path: Path, rna_here: Callable[..., str]):
    """As a user gives it; with other data the evaluation alone is made again."""
    folder = own_tasks.written(tmp_path / "own", count=12)
    words = ("method=none", "eval.limit=8", "wandb=disabled", f"output_dir={tmp_path}", f"eval.include_path={folder}")
    words += (
        "+eval.tasks.mine={task: own_written, role: related}",
        "+eval.tasks.text={task: own_rolling, role: retain}",
    )
    printed = rna_here(*words)
    for row in ("forget-related retain", "mine exact_match/first", "text bits_per_byte"):
        assert row in printed
    before = {file.name: json.loads(file.read_text()) for file in (tmp_path / "results").glob("*.json")}
    mine = [record for record in before.values() if record.get("task") == "mine"]
    assert {record["label"] for record in mine} == {"base", "retrained"}
    assert rna_here(*words).count("evaluating") == 0
    (folder / "choice.jsonl").write_text((folder / "choice.jsonl").read_text().replace('"right": 1', '"right": 2', 1))
    rna_here(*words)
    new = {file.name for file in (tmp_path / "results").glob("*.json")} - set(before)
    assert len(new) == 4  # two tasks of each of two models
