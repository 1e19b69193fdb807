"""What is encoded once and in batches is, to the token, what lm-eval encodes."""

from typing import Any

import pytest
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rna.evaluation import encoding, score
from tests import tiny

ANSWERS = (" A", " B", " Lake Geneva", "A")
BODIES = (
    "marsh fevers",
    "a question\nof two lines",
    "it ends in spaces  ",
    "it ends in a line\n",
    "<bos>begins",
    "",
    "ü ß 漢字",
    "x" * 300,
)
CONTEXTS = [f"{body}\nAnswer:" for body in BODIES] + [*BODIES] + [f"question {number}\nAnswer:" for number in range(60)]


def bytes_alone(merges: list[tuple[str, str]], *, parted: bool) -> Any:
    """A byte-level BPE; where texts are not parted at words, a merge may reach over a line's end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<bos>", *letters, *("".join(pair) for pair in merges)]
    made = Tokenizer(models.BPE({word: place for place, word in enumerate(words)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=parted)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<bos>", eos_token="<bos>", pad_token="<bos>")


REACHES = [("Ċ", "A"), ("0", "ĊA"), (":", "Ġ"), (":Ġ", "A")]  # "0\nA" is one token, and ": A" is


@pytest.mark.parametrize("add_bos_token", [None, True, False])
@pytest.mark.parametrize("parted", [True, False])
def test_tokens_are_lm_evals(parted: bool, add_bos_token: bool | None):
    decoder, tokenizer = tiny.decoder(), bytes_alone(REACHES, parted=parted)
    plain: Any = HFLM(pretrained=decoder.model, tokenizer=tokenizer, add_bos_token=add_bos_token)
    ours = score.harness(decoder, tokenizer, None, lambda *_: None, add_bos_token=add_bos_token)
    seen: list[Any] = []
    ours._loglikelihood_tokens = lambda requests, **_: seen.extend(requests)
    asked = [(context, answer) for context in CONTEXTS if context.strip() for answer in ANSWERS]
    ours.loglikelihood([Request(one) for one in asked])
    assert [one[0] for one in seen] == asked
    for (context, answer), *found in seen:
        assert listed(found) == plain._encode_pair(context, answer), (context, answer)


class Request:
    def __init__(self, arguments: tuple[str, str]) -> None:
        self.args = arguments


def listed(pair: Any) -> encoding.Pair:
    return list(pair[0]), pair[1]


def test_a_context_is_encoded_once_for_all_answers_and_evaluations(monkeypatch: pytest.MonkeyPatch):
    tokenizer, texts = bytes_alone(REACHES, parted=True), []
    own = type(tokenizer).__call__

    def counted(self: Any, batch: Any, **options: Any) -> Any:
        texts.extend(batch)
        return own(self, batch, **options)

    def pair(context: str, answer: str) -> encoding.Pair:
        return tokenizer.encode(context), tokenizer.encode(context + answer)[len(tokenizer.encode(context)) :]

    monkeypatch.setattr(type(tokenizer), "__call__", counted)
    asked = [(f"question {number}\nAnswer:", f" {letter}") for number in range(60) for letter in "ABCD"]
    for _ in range(2):
        made = encoding.Encoding(tokenizer, {})
        made.read(asked, "<bos>", pair)
        assert all(listed(made.pair(*one)) == pair(*one) for one in asked)
    assert texts == [f"question {number}\nAnswer:" for number in range(60)]


def test_answers_that_their_last_line_does_not_tell_are_left_to_lm_eval():
    def pair(context: str, _answer: str) -> encoding.Pair:
        return tokenizer.encode(context), [len(context)]

    tokenizer = bytes_alone([], parted=True)
    made = encoding.Encoding(tokenizer, {})
    made.read([("one\nAnswer:", " A"), ("three\nAnswer:", " A")], "<bos>", pair)
    assert made.pair("one\nAnswer:", " A") is None
