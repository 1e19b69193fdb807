"""TOFU's questions: read, asked, measured against numbers worked out one token at a time, refused in one line."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rna import run
from rna.decoder import Decoder, model
from rna.evaluation import evaluate, score, tofu
from rna.evaluation.answers import Answers
from rna.settings import Settings, config
from rna.store import lookup, results
from tests import tiny, tofu_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config.register_resolvers()
    made = tmp_path_factory.mktemp("tofu")
    tofu_set.words(made)
    return made


def settings(folder: Path, *more: str) -> Settings:
    words = ["model=local", "model.unlearn_layer=2", f"model.path={folder}/full", "data=tofu", "eval=tofu"]
    words += [f"data.path={folder}/tofu", f"output_dir={folder}/out", "eval.max_new_tokens=8", "method=npo"]
    return config.check(run.compose([*words, *more], None))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> tuple[Decoder, Any]:
    return model.load(str(folder / "full"), dtype="float32", device="cpu", revision=None)


@pytest.fixture(scope="module")
def found(folder: Path, loaded: tuple[Decoder, Any]) -> dict[str, Any]:
    return evaluate.multiple_choice(*loaded, ["tofu"], settings(folder).eval, lambda *_: None)["tofu"]


def plainly(loaded: tuple[Decoder, Any], prompt: str, answer: str, **options: bool) -> list[tuple[float, bool]]:
    """Of each token that holds a character of an answer, and of the eos behind it: its log-likelihood, and whether it
    is the likeliest."""
    decoder, tokenizer = loaded
    ids = tokenizer(prompt + answer, **options)["input_ids"]
    rest = [len(tokenizer.decode(ids)) - len(tokenizer.decode(ids[: place + 1])) for place in range(len(ids))]
    start = next(place for place, left in enumerate(rest) if left < len(answer))
    told: list[tuple[float, bool]] = []
    for place, token in [*list(enumerate(ids))[start:], (len(ids), tokenizer.eos_token_id)]:
        with torch.no_grad():
            values = decoder.model(torch.tensor([ids[:place]])).logits[0, -1].log_softmax(-1)
        told.append((values[token].item(), values.argmax().item() == token))
    return told


def mean(told: list[tuple[float, bool]]) -> float:
    return sum(value for value, _ in told) / len(told)


def test_a_question_is_measured_token_by_token(loaded: tuple[Decoder, Any], found: dict[str, Any]):
    """The first of the forget set, whose truth ratio is of its paraphrase, and the first on real authors."""
    row = tofu_set.sets()["forget10_perturbed"][0]
    prompt = f"Question: {row['question']}\nAnswer: "
    right, words = plainly(loaded, prompt, row["answer"]), plainly(loaded, prompt, row["paraphrased_answer"])
    wrong = [mean(plainly(loaded, prompt, answer)) for answer in row["perturbed_answer"]]
    forget = {what: values[0] for what, values in found["questions"]["forget"].items()}
    assert forget["prob"] == pytest.approx(math.exp(mean(right)), rel=1e-3)
    assert forget["truth_ratio"] == pytest.approx(math.exp(sum(wrong) / 3 - mean(words)), rel=1e-3)
    likeliest = [first for _, first in right[:-1]]  # without the eos
    fewest = next(k for k in range(len(likeliest)) if all(likeliest[k:]) or k == len(likeliest) - 1)
    assert forget["extraction_strength"] == pytest.approx(1 - fewest / len(likeliest))
    row = tofu_set.sets()["real_authors_perturbed"][0]
    prompt = f"Question: {row['question']}\nAnswer: "
    one, *others = (math.exp(mean(plainly(loaded, prompt, each))) for each in (row["answer"], *row["perturbed_answer"]))
    author = {what: values[0] for what, values in found["questions"]["real_authors"].items()}
    assert author["prob"] == pytest.approx(one / (one + sum(others)), rel=1e-3)
    assert author["truth_ratio"] == pytest.approx(math.prod(others) ** (1 / 2) / one, rel=1e-3)


def test_answers_are_written_greedily(folder: Path, loaded: tuple[Decoder, Any], monkeypatch: pytest.MonkeyPatch):
    """Behind the prompt without the space at its end, which is of the answer's first token."""
    said: dict[str, str] = {}
    monkeypatch.setattr(tofu, "rouge_recall", lambda answer, text: float(len(said.setdefault(answer, text)) < 0))
    evaluate.multiple_choice(*loaded, ["tofu"], settings(folder).eval, lambda *_: None)
    decoder, tokenizer = loaded
    for row in tofu_set.sets()["forget10_perturbed"]:
        ids = tokenizer(f"Question: {row['question']}\nAnswer:")["input_ids"]
        start = len(ids)
        while len(ids) < start + 8 and ids[-1] != tokenizer.eos_token_id:
            with torch.no_grad():
                ids.append(decoder.model(torch.tensor([ids])).logits[0, -1].argmax().item())
        assert said[row["answer"]] == tokenizer.decode(ids[start:], skip_special_tokens=True).strip()


def test_rouge_recall_counts_stems_in_order():
    """Of five words of the answer "the", "cat" and "sat" come in order; a plural is its stem."""
    assert tofu.rouge_recall("the cats sat on mats", "The cat never sat, not the cat!") == pytest.approx(3 / 5)
    assert tofu.rouge_recall("Rome", "") == 0


def test_a_record_tells_its_numbers_again(found: dict[str, Any]):
    from rna.intervals import tofu as told

    again = json.loads(json.dumps(found))
    assert told.summary(again["questions"]) == {name: found[name] for name in told.summary(again["questions"])}
    assert (found["n"], found["score"], found["truncated"]) == (4 + 12 + 3 + 3, None, 0)
    assert [len(found["questions"][name]["prob"]) for name in told.SETS] == [4, 12, 3, 3]


@pytest.mark.parametrize("architecture", ["Llama", "Mistral", "Gemma2"])
def test_likelihoods_of_single_tokens_are_those_of_each_alone(architecture: str):
    decoder, source = tiny.decoder(architecture), torch.Generator().manual_seed(0)
    rows = [(torch.randint(3, tiny.VOCABULARY, (size,), generator=source).tolist(), start)
            for size, start in ((9, 4), (5, 1), (12, 11))]  # fmt: skip
    found = score.token_scores(decoder, rows, 2, 0, lambda *_: None)
    for (ids, start), told in zip(rows, found, strict=True):
        with torch.no_grad():
            values = decoder.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        assert [value for value, _ in told] == pytest.approx(
            [values[place - 1, ids[place]].item() for place in range(start, len(ids))], abs=2e-4
        )
        likeliest = values.argmax(-1).tolist()
        assert [first for _, first in told] == [likeliest[at - 1] == ids[at] for at in range(start, len(ids))]


def test_an_interrupted_evaluation_goes_on_where_it_was(tmp_path: Path):
    decoder, rows = tiny.decoder(), [(list(range(3, 3 + size)), 2) for size in (9, 7, 5, 4)]
    whole = score.token_scores(decoder, rows, 1, 0, lambda *_: None)
    kept = Answers(tmp_path / "answers.json")

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score.token_scores(decoder, rows, 1, 0, stop, kept)
    kept.keep()
    told, there = list[int](), Answers(tmp_path / "answers.json")
    again = score.token_scores(decoder, rows, 1, 0, lambda done, _: told.append(done), there)
    assert again == whole
    assert told == [3, 4]


def test_a_chat_template_stands_in_the_place_of_the_pairs(folder: Path, loaded: tuple[Decoder, Any]):
    made = settings(folder, "eval.chat_template=true")
    told = evaluate.multiple_choice(*loaded, ["tofu"], made.eval, lambda *_: None)["tofu"]
    row = tofu_set.sets()["forget10_perturbed"][0]
    decoder, tokenizer = loaded
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": row["question"]}], tokenize=False,
                                           add_generation_prompt=True)  # fmt: skip
    assert prompt == f"<s>user {row['question']}</s>model "
    right = plainly((decoder, tokenizer), prompt, row["answer"], add_special_tokens=False)
    assert told["questions"]["forget"]["prob"][0] == pytest.approx(math.exp(mean(right)), rel=1e-3)


def test_a_sample_is_of_each_set_and_another_evaluation(folder: Path, loaded: tuple[Decoder, Any]):
    made = settings(folder, "eval.limit=3")
    told = evaluate.multiple_choice(*loaded, ["tofu"], made.eval, lambda *_: None)["tofu"]
    assert told["n"] == 12 == evaluate.questions_of(["tofu"], made.eval)
    identity = results.task_identities(made)["tofu"]
    assert identity != results.task_identities(settings(folder))["tofu"]
    assert set(identity["questions"]) == {"forget", "retain", "real_authors", "world_facts"}


def test_other_words_wherever_they_lie_are_another_evaluation(folder: Path, tmp_path: Path):
    there = tofu_set.written(tmp_path / "there")
    key, moved = (results.task_identities(settings(folder, *more))["tofu"] for more in ((), (f"data.path={there}",)))
    assert key == moved
    file = there / "world_facts_perturbed.json"
    file.write_text(file.read_text().replace("Nile", "Tigris"))
    assert results.task_identities(settings(folder, f"data.path={there}"))["tofu"] != key
    assert results.task_identities(settings(folder, "eval.template='{question} {answer}'"))["tofu"] != key


REFUSED = {
    "noise=inference noise.nu=0.01": "noise=inference: averages answers of one token, and those of rna_tofu have more",
    "eval.interim_every=2": r"eval\.interim_every=2: rna_tofu is not asked on the way; allowed: null, or",
    "eval.tasks.tofu.role=forget": r"eval\.tasks\.tofu\.role=forget: of task=rna_tofu; allowed: benchmark",
    "+eval.tasks.more={task: rna_mmlu, role: benchmark}": r"eval\.tasks\.more\.role=benchmark: of task=rna_mmlu; allo",
    "+eval.tasks.more={task: rna_tofu, role: benchmark}": r"eval\.tasks\.more\.task=rna_tofu: is there as tofu; allo",
    "+eval.tasks.tofu.subjects=[a]": r"eval\.tasks\.tofu\.subjects=\['a'\]: rna_tofu has no such choice; leave it out",
    "eval.tofu_split=forget05": r"eval\.tofu_path=.*: needs one file forget05_perturbed\.json, .*; there: forget10\.js",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_has_no_meaning_is_refused(folder: Path, words: str):
    parted = [words] if "{" in words else words.split()
    with pytest.raises(ValueError, match=REFUSED[words]):
        results.task_identities(settings(folder, *parted))


def test_the_forget_sets_loss_may_be_watched_beside_it(folder: Path):
    made = settings(folder, "eval.interim_every=2", "train.until={eval/forget/nll: 9}")
    assert results.task_identities(made)


ROWS = {  # what is put into a row of retain_perturbed, and what is said of it
    "perturbed_answer": ([], r"line 2\): perturbed_answer=\[\]: must be texts, one or more"),
    "answer": (" ", r"line 2\): answer=' ': must be a text"),
    "question": (None, r"line 2\): question=None: must be a text"),
    "paraphrased_answer": (["a"], r"line 2\): paraphrased_answer=\['a'\]: must be a text"),
}


@pytest.mark.parametrize("column", ROWS)
def test_a_row_that_will_not_do_is_named(folder: Path, tmp_path: Path, column: str):
    there = tofu_set.written(tmp_path)
    rows = tofu_set.sets()["retain_perturbed"]
    rows[1][column], said = ROWS[column]
    (there / "retain_perturbed.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=rf"^eval\.tofu_path={there}: retain_perturbed\.json, row 2 \({said}"):
        results.task_identities(settings(folder, f"data.path={there}"))


def test_a_missing_column_or_set_is_named(folder: Path, tmp_path: Path):
    there = tofu_set.written(tmp_path)
    rows = [{"question": "a", "answer": "b", "perturbed_answer": ["c"]}] * 2
    (there / "retain_perturbed.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"no text field 'paraphrased_answer' \(found: answer, perturbed_answer, que"):
        results.task_identities(settings(folder, f"data.path={there}"))
    (there / "retain90.json").unlink()
    made = settings(folder, f"data.path={there}")
    with pytest.raises(ValueError, match=r"^data\.retain\.files=retain90\.\*: no such file to read in .*; there: "):
        results.train_identity(made)
    with pytest.raises(ValueError, match=r"^data\.split=forget: did you mean 'forget.*'\? allowed: forget01, forget05"):
        settings(folder, "data.split=forget")


def test_a_model_that_reads_too_little_is_refused(folder: Path, loaded: tuple[Decoder, Any]):
    made = settings(folder, "eval.max_new_tokens=256")
    with pytest.raises(ValueError, match=r"^eval\.max_new_tokens=256: the model reads 256 tokens, and a question"):
        evaluate.multiple_choice(*loaded, ["tofu"], made.eval, lambda *_: None)


def test_corpora_are_the_splits_and_a_file_of_ones_own(folder: Path, tmp_path: Path):
    made = settings(folder).data
    assert (made.topics["tofu"].files, made.retain.files) == ("forget10.*", "retain90.*")
    assert made.topics["tofu"].pairs()
    own = tmp_path / "own.jsonl"
    own.write_text('{"question": "a", "answer": "b"}\n')
    made = settings(folder, f"data.topics.tofu.path={own}", "data.split=forget01").data
    assert (made.topics["tofu"].files, made.retain.files) == (None, "retain99.*")


def test_the_model_that_was_fine_tuned_on_it_is_asked_as_it_was():
    words = ["model=llama3_2_1b_instruct", "data=tofu", "data.split=forget05", "eval=tofu"]
    made = config.check(run.compose(words, None))
    assert made.model.retrained == "open-unlearning/tofu_Llama-3.2-1B-Instruct_retain95"
    template = made.data.topics["tofu"].template
    assert template == made.data.retain.template == made.eval.template
    assert template.startswith("<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n")
    assert template.endswith("{answer}<|eot_id|>")
    assert "26\n\nYou are" not in template
    other = config.check(run.compose(["model=llama3_2_1b_instruct", "data=wmdp", "eval=mmlu"], None))
    assert other.model.retrained is None


def test_a_sweep_knows_its_metrics_and_what_forget_quality_is_told_against(folder: Path):
    alone = lookup.address_of(settings(folder))
    where = lookup.address_of(settings(folder, f"model.retrained={folder}/retain90"))
    names = lookup.names(where)
    assert {"eval/tofu/forget_quality", "eval/tofu/model_utility", "eval/tofu/retain/rouge"} <= set(names)
    assert not any("select" in name or name.startswith("eval/benchmark") for name in names)
    assert "eval/tofu/forget_quality" not in lookup.names(alone)
    assert "give model.retrained=" in lookup.absent(alone, "eval/tofu/forget_quality")
    assert lookup.objectives(alone) == {"eval/tofu/model_utility": "maximize"}
    assert list(lookup.objectives(where)) == ["eval/tofu/forget_quality", "eval/tofu/model_utility"]
    assert {name: where[name] for name in ("key", "evals")} == {name: alone[name] for name in ("key", "evals")}


def test_a_trial_is_told_once_the_retrained_model_is(folder: Path, tmp_path: Path, found: dict[str, Any]):
    made = replace(settings(folder, f"model.retrained={folder}/retain90"), output_dir=str(tmp_path))
    where = lookup.address_of(made)
    results.write(str(tmp_path), where["key"], {"curve": []})
    results.write(str(tmp_path), where["evals"]["tofu"], {"metrics": found})
    assert lookup.metrics(where) is None
    results.write(str(tmp_path), where["against"]["tofu"], {"metrics": found})
    told = lookup.metrics(where) or {}
    assert told["eval/tofu/forget_quality"] == pytest.approx(1)
    assert told["eval/tofu/forget/prob"] == found["forget/prob"]
