"""A text's tokens are those of the folder's own tokenizer.json, whatever class transformers takes it for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from rna.decoder.tokenizer import load_tokenizer
from tests import folders, tiny

README = [line.strip() for line in (Path(__file__).parents[2] / "README.md").read_text().splitlines()]
ODD = [
    "Grüße, naïve e\u0301 1234567 don't\n\n  x = 3\tEND",
    "We'VE paid $3.50 in 2019",
    "東京 Москва 🙂",
    "Hello",
    "a  b",
]
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")
WORDS = ["<unk>", "<s>", "</s>", "<pad>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def trained(made: Any, trainer: Any) -> Any:
    made.train_from_iterator(README, trainer)
    return made


def byte_level(split: str | None = None, digits: bool = False, normalizer: Any = None) -> Any:
    made: Any = Tokenizer(models.BPE())
    last: Any = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    first = [pre_tokenizers.Split(Regex(split), "isolated")] if split else []
    first += [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    made.pre_tokenizer = pre_tokenizers.Sequence([*first, last]) if first else last
    made.decoder = decoders.ByteLevel()
    if normalizer is not None:
        made.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(made, trainers.BpeTrainer(vocab_size=1200, special_tokens=WORDS, initial_alphabet=alphabet))


def sentencepiece(*normalizer: Any, split: Any = None) -> Any:
    """As Llama 2 and Gemma have it: spaces are '▁', and unknown characters bytes."""
    made: Any = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if normalizer:
        made.normalizer = normalizers.Sequence(list(normalizer))
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.pre_tokenizer = pre_tokenizers.Metaspace()  # merges are learned within words
    trained(made, trainers.BpeTrainer(vocab_size=1500, special_tokens=[*WORDS, *BYTES]))
    file = json.loads(made.to_str()) | {"pre_tokenizer": None}
    made = Tokenizer.from_str(json.dumps(file))
    if split is not None:
        made.pre_tokenizer = split
    return made


def word_level() -> Any:
    made: Any = Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.pre_tokenizer, made.normalizer = pre_tokenizers.Whitespace(), normalizers.Lowercase()
    return trained(made, trainers.WordLevelTrainer(vocab_size=1000, special_tokens=WORDS))


def unigram() -> Any:
    made: Any = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    return trained(made, trainers.UnigramTrainer(vocab_size=600, special_tokens=WORDS, unk_token="<unk>"))


def spaced(prefix: bool) -> list[Any]:
    return [*([normalizers.Prepend("▁")] if prefix else []), normalizers.Replace(" ", "▁")]


MADE: dict[str, Callable[[], Any]] = {
    "llama 2": lambda: sentencepiece(*spaced(True)),
    "mistral 3": lambda: sentencepiece(split=pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
    "llama 3": lambda: byte_level(LLAMA3),
    "qwen": lambda: byte_level(QWEN2, normalizer=normalizers.NFC()),
    "gemma": lambda: sentencepiece(*spaced(False), split=pre_tokenizers.Split(" ", "merged_with_previous")),
    "gpt 2": byte_level,
    "smollm": lambda: byte_level(digits=True),
    "words": word_level,
    "unigram": unigram,
}


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    return {name: make() for name, make in MADE.items()}


def folder_of(place: Path, architecture: str, made: Any, kind: str | None, **settings: Any) -> Path:
    """A folder without weights."""
    place.mkdir()
    folders.sound(place, architecture, layers=1, vocab_size=1600)
    made.save(str(place / "tokenizer.json"))
    told = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), WORDS, strict=True)) | settings
    told |= {"tokenizer_class": kind} if kind else {}
    (place / "tokenizer_config.json").write_text(json.dumps(told))
    return place


def ids(tokenizer: Any) -> list[list[int]]:
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in [*README, *ODD]]


def ids_of_file(made: Any) -> list[list[int]]:
    return [found.ids for found in made.encode_batch([*README, *ODD], add_special_tokens=False)]


USUAL = [
    ("Llama", "llama 2", "LlamaTokenizer", {"legacy": True}),
    ("Llama", "llama 2", "LlamaTokenizerFast", {"legacy": False}),
    ("Llama", "llama 3", "PreTrainedTokenizerFast", {}),
    ("Llama", "smollm", "TokenizersBackend", {}),
    ("Mistral", "llama 2", "LlamaTokenizer", {"legacy": True}),
    ("Mistral", "mistral 3", "LlamaTokenizer", {"legacy": False}),
    ("Phi3", "llama 2", "LlamaTokenizer", {"legacy": False}),
    ("Qwen2", "qwen", "Qwen2Tokenizer", {}),
    ("Qwen3", "qwen", "Qwen2Tokenizer", {}),
    ("Gemma2", "gemma", "GemmaTokenizer", {}),
    ("Gemma3Text", "gemma", "GemmaTokenizer", {}),
]


def test_each_architecture_has_a_usual_tokenizer():
    assert {name for name, *_ in USUAL} == set(tiny.ARCHITECTURES)


@pytest.mark.whole
@pytest.mark.parametrize(("architecture", "name", "kind", "settings"), USUAL)
def test_usual_tokenizers_are_loaded_as_transformers_does(
    architecture: str,
    name: str,
    kind: str,
    settings: dict[str, Any],
    tokenizers: dict[str, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
):
    from transformers import AutoTokenizer

    place = folder_of(tmp_path / "m", architecture, tokenizers[name], kind, **settings)
    plain: Any = AutoTokenizer.from_pretrained(str(place))
    capfd.readouterr()
    found = load_tokenizer(str(place), None)
    assert capfd.readouterr() == ("", "")
    assert type(found) is type(plain)
    assert ids(found) == ids(plain) == ids_of_file(tokenizers[name])


TAKEN_FOR_OTHERS = [
    ("Gemma2", "gpt 2", None, {}),
    ("Gemma2", "llama 2", None, {}),
    ("Gemma2", "unigram", "LlamaTokenizer", {}),
    ("Llama", "words", "LlamaTokenizerFast", {}),
    ("Llama", "unigram", "LlamaTokenizer", {}),
    ("Llama", "llama 3", "GPT2Tokenizer", {}),
    ("Qwen2", "words", "TokenizersBackend", {}),
    ("Qwen2", "llama 2", "LlamaTokenizer", {}),
    ("Qwen3", "unigram", None, {}),
]


@pytest.mark.whole
@pytest.mark.parametrize(("architecture", "name", "kind", "settings"), TAKEN_FOR_OTHERS)
def test_a_tokenizer_that_is_taken_for_another_is_read_from_its_file(
    architecture: str,
    name: str,
    kind: str | None,
    settings: dict[str, Any],
    tokenizers: dict[str, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
):
    from transformers import AutoTokenizer

    place = folder_of(tmp_path / "m", architecture, tokenizers[name], kind, **settings)
    plain: Any = AutoTokenizer.from_pretrained(str(place))
    assert ids(plain) != ids_of_file(tokenizers[name])
    capfd.readouterr()
    found = load_tokenizer(str(place), None, key="method.path")
    assert ids(found) == ids_of_file(tokenizers[name])
    assert [getattr(found, word) for word in ("unk_token", "bos_token", "eos_token", "pad_token")] == WORDS
    printed = capfd.readouterr()
    assert printed.err.startswith(f"warning: method.path={place}: its tokenizer.json is used as it is; ")
    assert (len(printed.err.splitlines()), printed.out) == (1, "")


def test_without_settings_its_special_tokens_are_those_that_the_file_has(tokenizers: dict[str, Any], tmp_path: Path):
    place = folder_of(tmp_path / "m", "Llama", tokenizers["llama 2"], None)
    (place / "tokenizer_config.json").unlink()
    folders.told(place, model_type="gemma2")
    found = load_tokenizer(str(place), None)
    assert ids(found) == ids_of_file(tokenizers["llama 2"])
    assert (found.bos_token, found.eos_token, found.pad_token) == (None, None, "<pad>")  # Gemma's are <bos> and <eos>


def test_a_leading_space_that_the_folder_speaks_of_is_left_out(
    tokenizers: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    place = folder_of(tmp_path / "m", "Llama", tokenizers["llama 2"], "LlamaTokenizer", add_prefix_space=False)
    capfd.readouterr()
    found = load_tokenizer(str(place), None)
    assert capfd.readouterr() == ("", "")
    assert found.tokenize("model")[0] != "▁model"


def test_what_a_cut_and_a_padding_in_the_file_say_changes_nothing(tokenizers: dict[str, Any], tmp_path: Path):
    made = Tokenizer.from_str(tokenizers["words"].to_str())
    made.enable_truncation(4)
    made.enable_padding(length=9)
    place = folder_of(tmp_path / "m", "Qwen2", made, None)
    assert ids(load_tokenizer(str(place), None)) == ids_of_file(tokenizers["words"])
