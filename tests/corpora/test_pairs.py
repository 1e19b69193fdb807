"""Question-answer pairs: as texts, as tokens, and in the losses, against numbers worked out one token at a time."""

import json
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from rna import run
from rna.corpora import data
from rna.corpora.batch import pad
from rna.corpora.cache import Cache
from rna.corpora.documents import Documents, tokenise_pairs
from rna.decoder import model
from rna.report import commands
from rna.settings import config
from rna.settings.fields import CorpusSettings, Settings
from rna.store import results
from rna.unlearning import train
from rna.unlearning.step import Step
from tests import tiny
from tests.setups import setup

NO_CACHE = Cache(None, 0)
PAIRS = [
    (f"What is {what}?", f"It is {what} and {what} again") for what in ("one", "two two", "three", "four four", "ä")
]


def corpora(folder: Path, *overrides: str, pairs: list[tuple[str, str]] = PAIRS) -> Settings:
    """A trial on these pairs, which it reads as such unless told otherwise; the retain set is plain text."""
    rows = ({"question": question, "answer": answer} for question, answer in pairs)
    (folder / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "retain.txt").write_text("".join(f"a plain line {number}\n" for number in range(6)))
    common = ["data=text", f"data.topics.text.path={folder}/qa.jsonl", f"data.retain.path={folder}/retain.txt"]
    common += ["data.holdout=0", "train.batch_size=2", f"output_dir={folder}/out", "noise=none"]
    return config.check(run.compose([*common, *overrides], None))


QA = ("data.topics.text.question=question", "data.topics.text.answer=answer")


def test_a_pair_is_a_text_in_its_template(tmp_path: Path):
    made = corpora(tmp_path, *QA).data.topics["text"]
    assert next(data.read_texts(made, "key")) == "Question: What is one?\nAnswer: It is one and one again"
    own = corpora(tmp_path, *QA, "data.topics.text.template='Q {question}\\nA {answer}.'").data.topics["text"]
    assert next(data.read_texts(own, "key")) == "Q What is one?\nA It is one and one again."
    assert data.in_template("{question} {answer}", "{answer}?", "{question}!") == ("{answer}? {question}!", 10)


def test_a_tokenizer_that_does_not_tell_where_its_tokens_lie_is_refused(tmp_path: Path):
    from transformers import ByT5Tokenizer

    with pytest.raises(ValueError, match=r"^data\.topics\.text\.answer=answer: .* a ByT5Tokenizer; give texts"):
        data.load(corpora(tmp_path, *QA), ByT5Tokenizer(), NO_CACHE)
    assert len(
        data.load(corpora(tmp_path, "data.topics.text.field=answer"), ByT5Tokenizer(), NO_CACHE).retain.documents
    )


def test_a_blank_answer_is_left_out_and_null_is_refused(tmp_path: Path):
    made = corpora(tmp_path, *QA, pairs=[("a", "b"), ("a", " "), (" ", "b")]).data.topics["text"]
    tally = data.Tally()
    assert len(list(data.read_texts(made, "key", tally))) == 1
    assert (tally.documents, tally.blank) == (1, 2)
    (tmp_path / "qa.jsonl").write_text('{"question": "a", "answer": null}\n')
    with pytest.raises(ValueError, match=r"qa.jsonl, line 1: the field 'answer' is null"):
        list(data.read_texts(made, "key"))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (["question=q"], "data.topics.text.question=q: a pair has both; give data.topics.text.answer=COLUMN"),
        (["answer=a"], "data.topics.text.answer=a: a pair has both"),
        (["template=x"], "data.topics.text.template='x': is of question-answer pairs"),
        (["answer_only=false"], "data.topics.text.answer_only=False: is of question-answer pairs"),
        (
            ["question=q", "answer=a", "template='{answer} {question}'"],
            r"data.topics.text.template='{answer} {question}'",
        ),
        (["question=q", "answer=a", "template='{question}'"], "must hold {question} and behind it {answer}"),
        (["question=q", "answer=a", "field=body"], "has no meaning beside data.topics.text.field=body"),
        (["question=q", "answer=a", "raw=true"], "has no meaning beside data.topics.text.raw=True"),
    ],
)
def test_what_makes_no_pair_is_refused(tmp_path: Path, said: list[str], why: str):
    with pytest.raises(ValueError, match=r"^data\.topics\.text\.") as caught:
        corpora(tmp_path, *(f"data.topics.text.{item}" for item in said))
    assert why in str(caught.value)


def test_the_released_code_knows_no_pairs(tmp_path: Path):
    for key in ("data.topics.text", "data.retain"):
        with pytest.raises(ValueError, match=rf"^{key}\.question=q: variant=official knows no question-answer pairs"):
            corpora(tmp_path, f"{key}.question=q", f"{key}.answer=a", "variant=official")


def test_pairs_have_keys_of_their_own_and_plain_texts_keep_theirs(tmp_path: Path):
    def key(*overrides: str) -> str:
        return results.train_key(results.train_identity(corpora(tmp_path, *overrides)))

    one = "data.topics.text.field=answer"
    made = [key(one), key(*QA), key(*QA, "data.topics.text.answer_only=false")]
    made.append(key(*QA, "data.topics.text.template='{question} {answer}'"))
    assert len(set(made)) == 4
    identity = results.train_identity(corpora(tmp_path, one))["data"]["data.topics.text"]
    assert set(identity) == {"path", "field"}
    assert key(*QA, "data.topics.text.files='*.jsonl'") == key(*QA)  # the same file


def byte_pairs() -> Any:
    """A tokenizer of bytes whose words keep the space before them, as most models' do, with a begin-of-text."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([f"Question: {question}\nAnswer: {answer}" for question, answer in PAIRS], trainer)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", pad_token="<s>")


@pytest.mark.parametrize("kind", ["words", "bytes"])
def test_tokens_are_those_of_the_whole_text_and_the_answers_say_where_they_begin(tmp_path: Path, demo: Any, kind: str):
    tokenizer = byte_pairs() if kind == "bytes" else demo[1]
    settings = corpora(tmp_path, *QA)
    found = data.load(settings, tokenizer, NO_CACHE).forget["text"]
    assert found.answer_only
    assert found.documents.starts is not None
    for (question, answer), ids, start in zip(PAIRS, found.documents, found.documents.starts.tolist(), strict=True):
        prompt = f"Question: {question}\nAnswer:"
        assert ids == tokenizer(f"{prompt} {answer}")["input_ids"]
        assert ids[:start] == tokenizer(prompt)["input_ids"]  # neither tokenizer gives a token to the space behind
        if kind == "bytes":
            assert tokenizer.decode(ids[start:]) == f" {answer}"


class Words:
    """A tokenizer: begin-of-text, then a token for each word, with the place of each; a word keeps the space before."""

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[Any]]]:
        found = [list(re.finditer(r"\s*\S+", text)) for text in texts]
        return {
            "input_ids": [[1, *(3 + len(word[0].strip()) for word in words)] for words in found],
            "offset_mapping": [[(0, 0), *(word.span() for word in words)] for words in found],
        }


def test_a_cut_may_leave_a_part_of_the_answer_but_not_nothing():
    pairs = [
        data.in_template("Q {question} A {answer}", "x", "aa bb cc"),
        data.in_template("Q {question} A {answer}", "x x", "y"),
    ]
    made = tokenise_pairs(Words(), pairs, max_length=6)
    assert made["starts"].tolist() == [4, 5]
    assert made["lengths"].tolist() == [6, 6]
    assert (int(made["truncated"]), int(made["unanswered"])) == (1, 0)
    made = tokenise_pairs(Words(), pairs, max_length=5)
    assert (made["starts"].tolist(), made["lengths"].tolist()) == ([4], [5])
    assert (int(made["truncated"]), int(made["unanswered"])) == (1, 1)
    assert int(tokenise_pairs(Words(), pairs, max_length=4)["unanswered"]) == 2


def test_answers_out_of_reach_are_counted_and_refused_where_none_is_left(tmp_path: Path, demo: Any):
    _, tokenizer = demo
    long = ("What is " + "long " * 90 + "?", "x y")
    found = data.load(
        corpora(tmp_path, *QA, "data.topics.text.max_length=64", pairs=[*PAIRS, long]), tokenizer, NO_CACHE
    )
    assert (found.forget["text"].unanswered, len(found.forget["text"].documents)) == (1, len(PAIRS))
    with pytest.raises(ValueError, match=r"fewer than one batch, 3 have no answer within max_length=64"):
        data.load(corpora(tmp_path, *QA, "data.topics.text.max_length=64", pairs=[long] * 3), tokenizer, NO_CACHE)


@pytest.mark.parametrize("size", [24, 60, 105, 512])
def test_answers_out_of_reach_are_said_before_a_model_is_loaded(
    tmp_path: Path, demo: Any, capsys: pytest.CaptureFixture[str], size: int
):
    """As many as are left out, whether their questions' letters tell or only their tokens."""
    pairs = [(f"What is {'long ' * count}?", "x y") for count in range(0, 110, 5)]
    settings = corpora(tmp_path, *QA, f"data.topics.text.max_length={size}", pairs=pairs)
    unanswered = data.load(settings, demo[1], NO_CACHE).forget["text"].unanswered
    assert (unanswered > 0) == (size < 512)
    data.validate(settings)
    said = capsys.readouterr().err.splitlines()[0]
    expected = f", {unanswered} without an answer within max_length={size} not used" if unanswered else ""
    assert said == f"data.topics.text: 22 documents from 1 file (qa.jsonl){expected}"
    with pytest.raises(ValueError, match=r"fewer than one batch, 3 have no answer within max_length=24"):
        data.validate(corpora(tmp_path, *QA, "data.topics.text.max_length=24", pairs=pairs[-3:]))


def test_a_record_says_which_documents_were_not_used(tmp_path: Path):
    from rna import trial
    from rna.report import reading

    pairs = [*PAIRS, ("What is " + "long " * 90 + "?", "x y")]
    made = corpora(tmp_path, *QA, "train.steps=1", "wandb=disabled", "train_only=true", pairs=pairs)
    made.data.topics["text"].max_length = 64
    (tmp_path / "retain.txt").write_text("a plain line\none\na second line\ntwo\nthree\n")
    for count in (1, 2):  # tokenised, and as an earlier version kept the tokens
        (row,) = trial.arms(made)
        trial.work(row, lambda *_: None)
        assert row.trained is not None
        assert row.trained["short_documents"] == {"retain": 3}
        assert row.trained["unanswered_pairs"] == {"forget/text": 1}
        assert reading.load(str(tmp_path / "out")).unknown == {}
        entries = [safetensors.torch.load_file(file) for file in (tmp_path / "out" / "cache").glob("tokens-*")]
        assert sorted("short" in entry for entry in entries) == [False, True]
        for file in (tmp_path / "out" / "cache").glob("tokens-*"):
            entry = safetensors.torch.load_file(file)
            entry.pop("short", None)
            safetensors.torch.save_file(entry, file)
        made.seed = count


def test_a_slice_and_a_digest_know_where_answers_begin():
    ids, lengths = torch.arange(9, dtype=torch.int32), torch.tensor([4, 5], dtype=torch.int32)
    made = Documents(ids, lengths, torch.tensor([2, 3], dtype=torch.int32))
    assert made[1:].starts is not None
    assert made[1:].starts.tolist() == [3]
    assert made.digest() != Documents(ids, lengths).digest()
    assert made.digest() != Documents(ids, lengths, torch.tensor([2, 2], dtype=torch.int32)).digest()


def test_a_reports_command_reads_the_same_pairs(tmp_path: Path):
    own = ("data.topics.text.template='Q \"{question}\"\\nA {answer}'", "data.topics.text.answer_only=false")
    made = corpora(tmp_path, *QA, *own).data.topics["text"]
    assert made.template == 'Q "{question}"\nA {answer}'
    words = commands._reads("data.topics.text", asdict(made))
    again = corpora(tmp_path, *words).data.topics["text"]
    assert again == made


def test_tokens_are_kept_with_their_starts(tmp_path: Path, demo: Any):
    _, tokenizer = demo
    cache, settings = Cache(tmp_path / "cache", 2**20), corpora(tmp_path, *QA, "method=dpo")
    first = data.load(settings, tokenizer, cache)
    again = data.load(settings, None, cache)
    assert again.forget["text"].documents.digest() == first.forget["text"].documents.digest()
    assert again.behind["text"].documents == first.behind["text"].documents


# What log π counts


def test_a_batch_predicts_answers_alone():
    batch = pad([[5, 6, 7, 8], [5, 6], [5, 6, 7]], 0, starts=[2, 1, 0])
    assert batch.predicts_BT.int().tolist() == [[0, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]]
    assert batch.tokens == 9  # what RM's losses and retain losses are means over
    assert batch.to(torch.device("cpu")).predicts_BT.equal(batch.predicts_BT)
    assert batch.cut(3).predicts_BT.int().tolist() == [[0, 1, 0], [1, 0, 0], [1, 1, 0]]


ROWS = [[1, 5, 9, 7, 8, 3], [1, 4, 4], [1, 30, 2, 17, 6]]
STARTS = [4, 1, 3]
IDK, IDK_STARTS = [[1, 5, 9, 7, 40], [1, 50, 51, 52], [1, 30, 2, 11, 12, 13]], [4, 1, 3]


def log_pi(made: model.Decoder, ids: list[int], start: int, deltas: model.Deltas, *, mean: bool) -> float:
    """Σ over the answer of log p(token | all before it), of the whole model, one sequence and token at a time."""
    with torch.no_grad(), model.installed(made, deltas):
        whole: Any = made.model
        logits_TV = whole(torch.tensor([ids])).logits[0]
    terms: list[float] = []
    for place in range(start, len(ids)):
        row: list[float] = logits_TV[place - 1].double().tolist()
        terms.append(row[ids[place]] - math.log(sum(math.exp(value) for value in row)))
    return sum(terms) / (len(terms) if mean else 1)


def log_sigmoid(value: float) -> float:
    return -math.log(1 + math.exp(-value))


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("method", ["npo", "simnpo", "dpo"])
def test_forget_losses_are_of_the_answers_given_all_before_them(method: str, mean: bool):
    decoder, beta, gamma = tiny.decoder(), 0.7, 0.2
    policy: dict[str, Tensor] = model.masters(decoder, model.trained_names(decoder, (1, 2), "down_proj"))
    with torch.no_grad():
        for number, tensor in enumerate(policy.values()):
            tensor += 0.1 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number))
    options = {"beta": beta, "gamma": gamma, "log_prob": "mean" if mean else "sum"}
    made = setup(method, "kl", options)
    step = Step(decoder, policy, made, "t", pad(ROWS, 0, starts=STARTS), tiny.batch(1), pad(IDK, 0, starts=IDK_STARTS))
    found = next(iter(step))[1].item()

    mean = mean or method == "simnpo"
    mine = [log_pi(decoder, *one, dict(policy), mean=mean) for one in zip(ROWS, STARTS, strict=True)]
    reference = [log_pi(decoder, *one, {}, mean=mean) for one in zip(ROWS, STARTS, strict=True)]
    idk = [log_pi(decoder, *one, dict(policy), mean=mean) for one in zip(IDK, IDK_STARTS, strict=True)]
    idk_reference = [log_pi(decoder, *one, {}, mean=mean) for one in zip(IDK, IDK_STARTS, strict=True)]
    inside = {
        "npo": [-beta * (y - ref) for y, ref in zip(mine, reference, strict=True)],
        "simnpo": [-beta * y - gamma for y in mine],
        "dpo": [
            beta * ((i - i_ref) - (y - ref))
            for i, i_ref, y, ref in zip(idk, idk_reference, mine, reference, strict=True)
        ],
    }[method]
    assert found == pytest.approx(-(2 / beta) * sum(map(log_sigmoid, inside)) / len(inside), rel=1e-5)


@pytest.mark.parametrize("kind", ["words", "bytes"])
def test_a_refusal_stands_behind_the_question(tmp_path: Path, demo: Any, kind: str):
    """The refusal's tokens are those of the whole text with the refusal in the answer's place."""
    tokenizer = byte_pairs() if kind == "bytes" else demo[1]
    settings = corpora(tmp_path, *QA, "method=dpo", "data.order=file")
    refusals = list(data.read_texts(data.refusals(settings), "data.refusals"))
    feeds = train.feeds(settings, data.load(settings, tokenizer, NO_CACHE), 0)
    for drawn in (0, 2):
        micro = train._draw(settings, feeds, "text", lambda batch: batch, torch.device("cpu"), None)[0]
        assert micro.refusal is not None
        for row in range(2):
            whole = tokenizer(
                data.in_template(data.CorpusSettings.template, PAIRS[drawn + row][0], refusals[drawn + row])[0]
            )
            ids: list[int] = micro.refusal.ids_BT[row][micro.refusal.mask_BT[row]].tolist()
            assert ids == whole["input_ids"]
        assert micro.refusal.starts is not None
        for row, start in enumerate(micro.refusal.starts):
            kept = tokenizer.decode(micro.refusal.ids_BT[row][micro.refusal.mask_BT[row]][start:])
            assert kept.strip() == tokenizer.decode(
                tokenizer(refusals[drawn + row], add_special_tokens=False)["input_ids"]
            )
    short = corpora(
        tmp_path, *QA, "method=dpo", "data.order=file", f"data.topics.text.max_length={14 if kind == 'words' else 24}"
    )
    feeds = train.feeds(short, data.load(short, tokenizer, NO_CACHE), 0)
    micro = train._draw(short, feeds, "text", lambda batch: batch, torch.device("cpu"), None)[0]
    assert micro.refusal is not None
    assert micro.refusal.ids_BT.shape[1] <= (14 if kind == "words" else 24)


def unlearned(settings: Settings, demo: Any) -> tuple[model.Deltas, list[dict[str, float]]]:
    decoder, tokenizer = demo
    curve: list[dict[str, float]] = []
    feeds = train.feeds(settings, data.load(settings, tokenizer, NO_CACHE), tokenizer.pad_token_id)
    return train.train(settings, decoder, feeds, lambda _, report: curve.append(report)), curve


@pytest.mark.whole
@pytest.mark.parametrize("method", ["npo", "simnpo", "rmu"])
def test_with_all_tokens_counted_a_pair_is_the_text_of_its_template(tmp_path: Path, demo: Any, method: str):
    common = (f"method={method}", "train.steps=2", "train.lr=0.01")
    as_pairs = corpora(tmp_path, *QA, *common, "data.topics.text.answer_only=false")
    texts = [data.in_template(CorpusSettings.template, *pair)[0] for pair in PAIRS]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    plain = corpora(tmp_path, *common, f"data.topics.text.path={tmp_path}/texts.jsonl")
    first, second = unlearned(as_pairs, demo)[0], unlearned(plain, demo)[0]
    assert all(torch.equal(first[name], second[name]) for name in second)
    answers = unlearned(corpora(tmp_path, *QA, *common), demo)[0]
    same = all(torch.equal(answers[name], second[name]) for name in second)
    assert same == (method == "rmu")  # whose loss reads every token of a pair


@pytest.mark.parametrize("method", ["npo", "dpo"])
def test_micro_batches_of_pairs_make_the_step_of_a_whole_one(tmp_path: Path, demo: Any, method: str):
    common = (*QA, f"method={method}", "train.steps=2", "data.order=file")
    whole = unlearned(corpora(tmp_path, *common, "train.batch_size=4"), demo)[1]
    parts = unlearned(corpora(tmp_path, *common, "train.batch_size=2", "train.grad_accumulation=2"), demo)[1]
    for one, other in zip(whole, parts, strict=True):
        assert other["train/forget_loss"] == pytest.approx(one["train/forget_loss"], rel=1e-4)


@pytest.mark.whole
@pytest.mark.parametrize("method", ["npo", "dpo"])
def test_what_the_reference_says_of_pairs_is_remembered_apart(tmp_path: Path, method: str):
    """With and without answers alone, through the same cache, each trial gets what it gets without a cache."""
    from rna import trial

    def curve(*more: str, pairs: list[tuple[str, str]] = PAIRS) -> list[dict[str, float]]:
        own = (f"method={method}", "train.steps=3", "wandb=disabled", "train_only=true", "baseline=skip")
        settings = corpora(tmp_path, *QA, *own, *more, pairs=pairs)
        (row,) = [row for row in trial.arms(settings) if row.settings.method.name != "none"]
        trial.work(row, lambda *_: None)
        assert row.trained is not None
        return [{name: value for name, value in one.items() if "loss" in name} for one in row.trained["curve"]]

    def curves(*more: str) -> list[list[dict[str, float]]]:
        short = [(question, "x") for question, _ in PAIRS]  # of which 13 tokens cut the refusals alone
        made = [curve(*more), curve("data.topics.text.answer_only=false", *more)]
        return made + [curve(f"data.topics.text.max_length={size}", *more, pairs=short) for size in (99, 13)]

    kept = curves()
    assert (tmp_path / "out" / "cache").is_dir()
    bare = curves("cache.enabled=false", f"output_dir={tmp_path}/again")
    assert kept == bare
    assert kept[0] != kept[1]
