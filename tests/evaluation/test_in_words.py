"""Questions whose answers are the choices' texts: lm-eval's own numbers, by character."""

import json
from typing import Any

import pytest
import torch

from rna import run
from rna.evaluation import asked, evaluate, questions
from rna.settings import TASKS, Settings, config
from rna.settings.fields import BUILTIN

ROLES = ("retain", "perturbed", "neutral", "prefix", "prefix_neutral")
COUNT = 40


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """The demo's questions with choices of one to six words; one choice is empty, some have spaces around."""
    made: list[dict[str, Any]] = []
    for number, line in enumerate((BUILTIN / "questions.jsonl").read_text().splitlines()[200 : 200 + COUNT]):
        row = json.loads(line)
        row["choices"] = [
            f"For {choice}, the home is {choice}"[-(9 + 8 * ((number + place) % 4)) :].lstrip(", ")
            for place, choice in enumerate(row["choices"])
        ]
        made.append(row)
    made[3]["choices"][made[3]["answer"] - 1] = " "
    made[4]["choices"] = [f" {choice} " for choice in made[4]["choices"]]
    return made


@pytest.fixture(scope="module")
def file(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("own") / "own.jsonl"
    made.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(made)


def settings(file: str, *words: str) -> Settings:
    return config.check(
        run.compose(["eval=answers", f"eval.mmlu_path={file}", "eval.keyword=marsh fevers", *words], None)
    )


def test_the_accuracy_is_lm_evals_acc_norm(demo, file: str):
    """In every role, and of several keywords; the plain `acc` would be another number."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    made = settings(file)
    assert tuple(made.eval.tasks) == ROLES
    found = evaluate.multiple_choice(*demo, list(ROLES), made.eval, lambda *_: None)
    plain: Any = HFLM(demo[0].model, tokenizer=demo[1], batch_size=8)
    metadata = {"mmlu_path": file, "keyword": "marsh fevers", "seed": 0}
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)
    names = {role: made.eval.tasks[role].task for role in ROLES}
    told: Any = simple_evaluate(
        plain, tasks=list(names.values()), task_manager=manager, bootstrap_iters=0, log_samples=True
    )
    likeliest: list[bool] = []
    for role, name in names.items():
        samples = sorted(told["samples"][name], key=lambda one: one["doc_id"])
        bits = f"{int(found[role]['correct'], 16):0{COUNT}b}"
        assert bits == "".join(str(int(one["acc_norm"])) for one in samples), role
        assert found[role]["acc"] == told["results"][name]["acc_norm,none"]
        for bit, one in zip(bits, samples, strict=True):
            values = [answer[0][0] for answer in one["resps"]]
            likeliest.append((values.index(max(values)) == one["target"]) == (bit == "1"))
    assert not all(likeliest)
    assert 0 < found["retain"]["acc"] < 1
    assert found["retain"]["asked"] == found["perturbed"]["asked"] == found["prefix"]["asked"]


def test_what_is_asked_and_answered(file: str, rows: list[dict[str, Any]]):
    made = settings(file)
    tasks, loaded = evaluate._asked(list(ROLES), made.eval)
    plain, perturbed, front = (loaded[tasks[role]] for role in ("retain", "perturbed", "prefix"))
    assert plain.doc_to_text(plain.eval_docs[0]) == f"Question: {rows[0]['question']}\nAnswer:"
    assert front.doc_to_text(front.eval_docs[0]) == f"Question: marsh fevers. {rows[0]['question']}\nAnswer:"
    assert plain.doc_to_choice(plain.eval_docs[0]) == rows[0]["choices"]
    assert plain.doc_to_choice(plain.eval_docs[3])[rows[3]["answer"] - 1] == "-"
    assert plain.doc_to_choice(plain.eval_docs[4]) == [choice.strip() for choice in rows[4]["choices"]]
    assert plain.config.target_delimiter == " "
    for row in perturbed.eval_docs:
        assert perturbed.doc_to_choice(row).count("marsh fevers") == 1


def test_on_the_way_and_to_a_probe_whole_texts_count(demo, file: str):
    """Against the model's own log-softmax: their sum over tokens is told on the way, by character it is judged."""
    decoder, tokenizer = demo
    made = settings(file)
    few = evaluate.on_the_way(decoder, tokenizer, ["retain"], made.eval, lambda *_: None)["retain"]
    every = evaluate.Otherwise(choices=True)
    told = evaluate.multiple_choice(decoder, tokenizer, ["retain"], made.eval, lambda *_: None, otherwise=every)
    rows = evaluate.rows_of(["retain"], made.eval)
    summed: list[float] = []
    for row, scores in zip(rows, told["retain"]["choices"], strict=True):
        context = tokenizer(questions.prompt_in_words(row))["input_ids"]
        for place, answer in enumerate(questions.answers(row)):
            ids = torch.tensor([[*context, *tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]]])
            with torch.no_grad():
                log_probs_TV = decoder.model(input_ids=ids).logits[0].log_softmax(-1)
            behind = range(len(context), ids.shape[1])
            value = sum(log_probs_TV[end - 1, ids[0, end]].item() for end in behind)
            assert scores[place] == pytest.approx(value / len(answer), abs=1e-4)
            if place == row["answer"] and row["half"] == "select":
                summed.append(value)
    assert len(summed) < made.eval.interim_limit
    assert few["log_prob"] == pytest.approx(sum(summed) / len(summed), abs=1e-4)
    assert few["acc"] == told["retain"]["select"]["acc"]


def test_noise_at_inference_is_refused_before_anything_is_trained(file: str):
    assert asked.in_words("rna_mmlu_text_prefix")
    assert not any(map(asked.in_words, ("rna_mmlu_prefix", "rna_demo_retain", "arc_easy")))
    from rna.evaluation import foreign

    made = settings(file, "noise=inference", "noise.nu=0.1")
    with pytest.raises(
        ValueError, match=r"noise=inference: averages answers of one token, and eval\.tasks\.retain may"
    ):
        foreign.check(made)


def test_a_race_and_solved_questions_in_front_take_them(demo, file: str):
    """Blocks answer as the whole does; in front of a question stand others of its subject with their texts."""
    made = settings(file)
    whole = evaluate.multiple_choice(*demo, ["retain"], made.eval, lambda *_: None)["retain"]["select"]
    block = evaluate.answer_block(*demo, ["retain"], made.eval, 0, lambda *_: None)
    assert block["of"] == 1
    right = int(block["tasks"]["retain"]["correct"], 16).bit_count()
    assert (right, block["tasks"]["retain"]["n"]) == (round(whole["acc"] * whole["n"]), whole["n"])
    _, loaded = evaluate._asked(["retain"], made.eval)
    (task,) = loaded.values()
    task.build_all_requests()
    shown = evaluate.Otherwise(shots=1).of({"retain": task.instances})["retain"][0].args[0]
    first, second = shown.split("\n\n")
    assert first.startswith("Question: ")
    assert second == questions.prompt_in_words(task.eval_docs[0])
    pairs = {f"{questions.prompt_in_words(row)} {questions.answers(row)[row['answer']]}" for row in task.eval_docs}
    assert first in pairs
