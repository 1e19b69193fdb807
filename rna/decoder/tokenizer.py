"""A model's tokenizer, parting texts as its own file says.

From a tokenizer.json transformers may take the words alone and part texts by the rules of a class that the folder's
settings or its model_type name. Where another class was meant, the same text becomes other tokens without a word.
"""

import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rna.decoder import folder

PROBES = (  # what tokenizers are known to part differently: cases, digits, contractions, spaces, scripts, forms
    "The quick brown Fox jumps over the lazy dog, and the model didn't see it.",
    "In 2019, 1234567 people PAID $3.50; they'd WAIT (we've e-mailed) — isn't it 50%?",
    "naïve café, Größe, Ελλάδα, Москва, 東京, नमस्ते 🙂",
    "of e\u0301 and \ufb01 and \u212b   with\u00a0spaces  ",
    "def f(x):\n    return x ** 2  # twice\n\n\n\ttab\r\nend_of_it",
)
OF_ITS_WORDS = 64  # more texts, of 32 of its own words each
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
GPT2_SPLIT = (None, "default", "gpt-2")  # of GGUF files' byte-level tokenizers, where transformers has no other rule
DIGITS_SPLIT = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")  # digits one by one


def give_padding(tokenizer: Any, rows: int) -> None:
    """Let a tokenizer pad that cannot, or with an id beyond the embedding: padding is masked, any token will do."""
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= rows:
        tokenizer.pad_token_id = 0 if tokenizer.eos_token_id is None else tokenizer.eos_token_id


def load_tokenizer(path: str, revision: str | None, *, key: str = "model.path") -> Any:
    """A model's tokenizer as it stands beside it, or in a GGUF file.

    Where transformers would part texts otherwise than the folder's tokenizer.json, that file is used, and a line on
    stderr says so. The folder's own settings of a leading space and of Mistral's regex are heeded.

    Raises:
        ValueError: if no tokenizer parts texts as the file does.
    """
    said = f"{key}={path}"
    with folder.one_line(said):
        return _of_gguf(Path(path), said) if Path(path).is_file() else _of_folder(path, revision, said)


def _of_folder(path: str, revision: str | None, said: str) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    fast: Any = PreTrainedTokenizerFast
    options: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": False}
    found: Any = AutoTokenizer.from_pretrained(path, **options)
    place = folder.place_of(path, revision)
    if place is None:
        return found
    file, settings = place / "tokenizer.json", folder.tokenizer_settings(place, said)
    loose = settings.get("add_prefix_space") is not None
    if settings.get("fix_mistral_regex") or parts_alike(found, file, loose=loose):
        return found
    named = {name: getattr(found, name, None) for name in SPECIAL}
    words = set(_of_file(file).get_vocab())
    own: Any = fast.from_pretrained(path, **options, **{name: word for name, word in named.items() if word in words})
    if not parts_alike(own, file, loose=loose):
        raise ValueError(
            f"{said}: transformers does not part texts as its tokenizer.json does; save the tokenizer again with its "
            "save_pretrained"
        )
    print(
        f"warning: {said}: its tokenizer.json is used as it is; {type(found).__name__}, for which transformers takes "
        "it, would part texts otherwise",
        file=sys.stderr,
        flush=True,
    )
    return own


def parts_alike(tokenizer: Any, file: Path, *, loose: bool = False) -> bool:
    """Whether a tokenizer makes the tokens that a tokenizer.json makes; `loose`: of all but the first word."""
    if not file.is_file():
        return True
    own, loose = _of_file(file), loose and tokenizer.is_fast
    for text in (*PROBES, *_of_its_words(own)):
        wanted = own.encode(text, add_special_tokens=False)
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=loose, verbose=False)
        if found["input_ids"] == wanted.ids:
            continue
        if not loose or _rest(text, found["input_ids"], found["offset_mapping"]) != _rest(
            text, wanted.ids, wanted.offsets
        ):
            return False
    return True


def _of_its_words(tokenizer: Any) -> list[str]:
    """Texts of a tokenizer's own words, from all over its vocabulary: others may hold none of what it would join."""
    size, stride = tokenizer.get_vocab_size(), 7919  # a prime
    words = [number * stride % size for number in range(OF_ITS_WORDS * 32)]
    texts = [tokenizer.decode(words[first : first + 32]).strip() for first in range(0, len(words), 32)]
    return [text for text in texts if text]


def _of_file(file: Path) -> Any:
    """A tokenizer.json as the library that wrote it reads it."""
    from tokenizers import Tokenizer

    made: Any = Tokenizer.from_file(str(file))
    made.no_truncation()
    made.no_padding()
    return made


def _rest(text: str, ids: list[int], offsets: list[tuple[int, int]]) -> list[int]:
    """The tokens behind a text's first word."""
    first = len(text.split(maxsplit=1)[0])
    return [token for token, (start, _) in zip(ids, offsets, strict=True) if start >= first]


@contextmanager
def alone(file: Path) -> Generator[Path]:
    """A folder that holds a link to this file and nothing else: what lies beside it is no part of it."""
    with tempfile.TemporaryDirectory(prefix="rna-gguf-") as made:
        (Path(made) / file.name).symlink_to(file.resolve())
        yield Path(made)


def _of_gguf(file: Path, said: str) -> Any:
    """The tokenizer in a GGUF file, whatever lies beside it.

    The file has the name of the rule by which a byte-level tokenizer parts texts; transformers knows some of them, and
    takes GPT-2's for the others.
    """
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer
    from transformers.integrations.gguf import read_gguf_metadata
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    with alone(file) as place:
        found: Any = AutoTokenizer.from_pretrained(str(place), gguf_file=file.name, trust_remote_code=False)
        metadata: dict[str, Any] = read_gguf_metadata(str(place / file.name))[0]
    found.name_or_path = str(file.parent)
    rule = metadata.get("tokenizer.ggml.pre")
    if metadata.get("tokenizer.ggml.model") != "gpt2" or rule in GPT2_SPLIT or rule in GGUF_PRE_TOKENIZER_SPLITS:
        return found
    if rule in DIGITS_SPLIT:
        parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        found.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
        return found
    print(
        f"warning: {said}: its tokenizer parts texts as '{rule}', which transformers does not know and takes for "
        "GPT-2's rule: some tokens may be others than the model's; the Hugging Face folder it was made from has them",
        file=sys.stderr,
        flush=True,
    )
    return found
