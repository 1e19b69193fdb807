"""Contexts and the answers behind them as lm-eval encodes them, and faster: each context once, in batches, by content.

lm-eval encodes each context, and once more each context with each answer behind it. Behind a last line that contexts
share ("Answer:") an answer's tokens are always the same ones: that is seen on some of them and held for the others.
"""

from array import array
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

Pair = tuple[list[int], list[int]]  # the context's tokens and the answer's

SEEN = 16  # contexts with one last line behind which an answer is encoded for itself
MOST = 20_000_000  # tokens that are kept for a tokenizer
BATCH = 512

_known: "WeakKeyDictionary[Any, dict[str, dict[str, array[int]]]]" = WeakKeyDictionary()


class Encoding:
    """A tokenizer's tokens of contexts, kept for as long as the tokenizer is; `options` are those of its calls."""

    def __init__(self, tokenizer: Any, options: dict[str, Any]) -> None:
        self.tokenizer, self.options = tokenizer, options
        self.contexts = _known.setdefault(tokenizer, {}).setdefault(repr(options), {})
        self.answers: dict[tuple[str, str], list[int]] = {}  # by last line and answer

    def read(self, asked: Iterable[tuple[str, str]], beginning: str, pair: Callable[[str, str], Pair]) -> None:
        """Encode what is asked.

        Args:
            asked: contexts and answers.
            beginning: a context that begins with it is left to `pair`, as it is encoded otherwise.
            pair: how lm-eval encodes one context and answer.
        """
        parts = [_parted(*one) for one in dict.fromkeys(asked)]
        parts = [one for one in parts if one[0] and not one[0].startswith(beginning)]
        self._encode(list(dict.fromkeys(context for context, _ in parts)))
        alike: dict[tuple[str, str], list[str]] = {}
        for context, answer in parts:
            alike.setdefault((_last_line(context), answer), []).append(context)
        for (line, answer), contexts in alike.items():
            some = contexts[:: -(-len(contexts) // SEEN)]
            told = [pair(context, answer) for context in some]
            if all(
                tokens == told[0][1] and context == self.contexts[one].tolist()
                for one, (context, tokens) in zip(some, told, strict=True)
            ):
                self.answers[line, answer] = told[0][1]

    def pair(self, context: str, answer: str) -> "tuple[array[int], list[int]] | None":
        """Both, encoded; None for what was not read, or cannot be told by the last line."""
        context, answer = _parted(context, answer)
        tokens, behind = self.contexts.get(context), self.answers.get((_last_line(context), answer))
        return None if tokens is None or behind is None else (tokens, behind)

    def _encode(self, contexts: list[str]) -> None:
        if sum(map(len, self.contexts.values())) > MOST:
            self.contexts.clear()
        new = [context for context in contexts if context not in self.contexts]
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            made = self.tokenizer(batch, return_attention_mask=False, return_token_type_ids=False, **self.options)
            self.contexts.update(zip(batch, (array("i", ids) for ids in made["input_ids"]), strict=True))


def _parted(context: str, answer: str) -> tuple[str, str]:
    """Spaces at a context's end belong to the answer."""
    if not context[-1:].isspace():
        return context, answer
    kept = context.rstrip()
    return kept, context[len(kept) :] + answer


def _last_line(context: str) -> str:
    return context[context.rfind("\n") + 1 :]
