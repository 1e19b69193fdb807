"""Token ids of many documents: tokenised in batches, on all cores, and laid end to end; or each as it is drawn."""

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, overload

import torch

from rna.corpora.sources import digest

TOGETHER, LETTERS = 256, 2**19  # texts, and their characters, that are tokenised at once, on all cores

T = TypeVar("T")
Pair = tuple[str, int]  # a text, and the character of it with which the answer begins; 0 for what is no pair


class Documents(Sequence[list[int]]):
    """Token ids of many documents end to end: four bytes a token, whatever their number.

    Args:
        starts: of question-answer pairs, the token with which each answer begins.
        prompts: of pairs, how many tokens stand before it and the white space in front of it, which one token may hold.
    """

    def __init__(
        self,
        ids: torch.Tensor,
        lengths: torch.Tensor,
        starts: torch.Tensor | None = None,
        prompts: torch.Tensor | None = None,
    ) -> None:
        self.ids, self.ends, self.starts, self.prompts = ids, lengths.cumsum(0), starts, prompts

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> "Documents": ...
    def __getitem__(self, index: int | slice) -> "list[int] | Documents":
        if isinstance(index, slice):
            first, last, step = index.indices(len(self))
            assert step == 1
            start = int(self.ends[first - 1]) if first else 0
            ends = self.ends[first:last] - start
            stop = int(ends[-1]) if len(ends) else 0
            starts, prompts = (one[first:last] if one is not None else None for one in (self.starts, self.prompts))
            return Documents(self.ids[start : start + stop], ends.diff(prepend=ends.new_zeros(1)), starts, prompts)
        place = range(len(self))[index]
        return self.ids[int(self.ends[place - 1]) if place else 0 : int(self.ends[place])].tolist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def digest(self) -> str:
        """A hash of all tokens and lengths, and of where answers begin."""
        hashed = hashlib.sha256(self.ids.numpy().tobytes())
        hashed.update(self.ends.numpy().tobytes())
        hashed.update(self.starts.numpy().tobytes() if self.starts is not None else b"")
        return hashed.hexdigest()[:16]


class Texts(Documents):
    """Documents of which each is tokenised when it is asked for: a training may draw few of very many.

    Args:
        letters: their UTF-8 bytes end to end.
        ends: where each of them ends.
        encode: a text's token ids.
        identity: what their tokens depend on, for `digest`.
        chosen: which of them these are; None: all.
    """

    def __init__(
        self,
        letters: torch.Tensor,
        ends: torch.Tensor,
        encode: Callable[[str], list[int]],
        identity: str,
        chosen: range | None = None,
    ) -> None:
        self.letters, self.ends, self.encode, self.identity = letters, ends, encode, identity
        self.chosen = range(len(ends)) if chosen is None else chosen
        self.starts = self.prompts = None

    def __len__(self) -> int:
        return len(self.chosen)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> "Texts": ...
    def __getitem__(self, index: int | slice) -> "list[int] | Texts":
        if isinstance(index, slice):
            return Texts(self.letters, self.ends, self.encode, self.identity, self.chosen[index])
        place = self.chosen[index]
        part = self.letters[int(self.ends[place - 1]) if place else 0 : int(self.ends[place])]
        return self.encode(part.numpy().tobytes().decode())

    def digest(self) -> str:
        return digest([self.identity, self.chosen.start, self.chosen.stop])


def lay_texts(texts: Iterable[str]) -> dict[str, torch.Tensor]:
    """The `letters` and `ends` of `Texts`."""
    letters, ends = bytearray(), array("q")
    for text in texts:
        letters += text.encode()
        ends.append(len(letters))
    return {
        "letters": torch.frombuffer(letters, dtype=torch.uint8) if letters else torch.empty(0, dtype=torch.uint8),
        "ends": torch.frombuffer(ends, dtype=torch.int64) if ends else torch.empty(0, dtype=torch.int64),
    }


def tokenise(tokenizer: Any, texts: Iterator[str], *, max_length: int) -> dict[str, torch.Tensor]:
    """Token ids of each document of two tokens or more, cut at `max_length`: `ids` end to end, `lengths`, how many
    documents were cut, `truncated`, and how many were less than two tokens, `short`. The texts are read as they are
    wanted.
    """
    ids, lengths, truncated, short = array("i"), array("i"), 0, 0
    for found in (row for batch in _together(texts, len) for row in _encoded(tokenizer, batch)["input_ids"]):
        if len(found) < 2:
            short += 1
            continue
        truncated += len(found) > max_length
        ids.extend(found[:max_length])
        lengths.append(min(len(found), max_length))
    return _packed(ids=ids, lengths=lengths) | {"truncated": torch.tensor(truncated), "short": torch.tensor(short)}


def tokenise_pairs(tokenizer: Any, pairs: Iterable[Pair], *, max_length: int) -> dict[str, torch.Tensor]:
    """As `tokenise`, with `starts` and `prompts` as `Documents` has them, and how many pairs were left out because
    nothing of their answer is within `max_length`, `unanswered`.

    A text's tokens are those of the whole of it; an answer begins with the first that holds a character of it.
    """
    ids, lengths, starts, prompts = array("i"), array("i"), array("i"), array("i")
    truncated, unanswered = 0, 0
    for (text, place), found, offsets in _encoded_pairs(tokenizer, pairs):
        ends, bare = [end for _, end in offsets], len(text[:place].rstrip())
        start, prompt = (next((i for i, end in enumerate(ends) if end > stop), len(ends)) for stop in (place, bare))
        if max(start, 1) >= min(len(found), max_length):
            unanswered += 1
            continue
        truncated += len(found) > max_length
        ids.extend(found[:max_length])
        lengths.append(min(len(found), max_length))
        starts.append(start)
        prompts.append(prompt)
    counts = {"truncated": torch.tensor(truncated), "unanswered": torch.tensor(unanswered)}
    return _packed(ids=ids, lengths=lengths, starts=starts, prompts=prompts) | counts


def _encoded_pairs(tokenizer: Any, pairs: Iterable[Pair]) -> Iterator[tuple[Pair, list[int], list[tuple[int, int]]]]:
    """Each pair with its tokens and where in the text each of them begins and ends."""
    for batch in _together(pairs, lambda pair: len(pair[0])):
        made = _encoded(tokenizer, [text for text, _ in batch], return_offsets_mapping=True)
        yield from zip(batch, made["input_ids"], made["offset_mapping"], strict=True)


def _encoded(tokenizer: Any, texts: list[str], **more: bool) -> Any:
    bare = {"return_attention_mask": False, "return_token_type_ids": False}
    return tokenizer(texts, add_special_tokens=True, verbose=False, **bare, **more)


def _together(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """The items in batches as large as `TOGETHER` and `LETTERS` let them be."""
    batch: list[T] = []
    letters = 0
    for item in items:
        batch.append(item)
        letters += size(item)
        if len(batch) == TOGETHER or letters >= LETTERS:
            yield batch
            batch, letters = [], 0
    if batch:
        yield batch


def _packed(**parts: "array[int]") -> dict[str, torch.Tensor]:
    return {
        name: torch.frombuffer(part, dtype=torch.int32) if part else torch.empty(0, dtype=torch.int32)
        for name, part in parts.items()
    }
