"""The likelihood of short answers, asked by lm-eval: one short pass for all questions that begin alike.

A question, its perturbed form and its neutral one are the same up to the replaced choice, and questions of one subject
begin with the same words. They go through the model as one sequence, a tree of tokens of which each sees its own branch
back to the root and nothing else: what several contexts begin with is run once. Logits are made for the last token of
each context alone.

Shapes: B sequences, T tokens, N contexts of all sequences, D hidden width, V vocabulary.
"""

import hashlib
import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rna.corpora import pad
from rna.decoder import Decoder, Stream, key_cost, model
from rna.evaluation.answers import Answers
from rna.evaluation.encoding import Encoding
from rna.settings import seed_of
from rna.unlearning import Normals, Smoothing

Progress = Callable[[int, int], None]  # (done, total)
Tokens = tuple[int, ...]
Token = tuple[float, bool]  # (its log-likelihood, whether none is likelier)

TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 65536}  # halved whenever they do not fit
LONGEST = 1024  # tokens of a pack of several contexts, at most
LOGITS_AT_ONCE = 2**28  # a gibibyte of float32
LONG_ANSWER = 64  # tokens up to which an answer shares what it begins with
ANSWERS_AT_ONCE = 2048  # of several tokens, whose contexts are kept as long as they are asked
TEXTS_AT_ONCE = 16  # batches of texts to write between two looks at the progress


class NotFinite(ArithmeticError):
    """Log-probabilities that are infinite or NaN, from which no metric follows."""

    reason = "evaluation"


def refuse_not_finite(what: str, values: Sequence[float]) -> None:
    odd = sum(not math.isfinite(value) for value in values)
    if odd:
        raise NotFinite(f"{what}: {odd} of {len(values)} log-likelihoods are not finite")


@dataclass
class Pack:
    """Contexts as a tree: of each, how many tokens it shares with the one before, and so with the tree."""

    contexts: list[Tokens]
    alike: list[int]  # 0 of the first

    @property
    def length(self) -> int:
        return sum(map(len, self.contexts)) - sum(self.alike)


def common(left: Tokens, right: Tokens) -> int:
    """How many tokens two contexts begin with alike."""
    length = min(len(left), len(right))
    return next((index for index in range(length) if left[index] != right[index]), length)


def packs(contexts: Iterable[Tokens], key_cost: float | None) -> list[Pack]:
    """The contexts in packs; a neighbour in order of their tokens joins where that costs less than going alone.

    In that order a context that begins with all of another comes behind it: each has a last token of its own.

    Args:
        key_cost: as in `rna.decoder.key_cost`; None: nothing is shared.
    """
    found: list[Pack] = []
    for context in sorted(set(contexts)):
        last, size = (found[-1] if found else None), len(context)
        if last is not None and key_cost is not None:
            alike, length = common(last.contexts[-1], context), last.length
            own = size - alike
            joined = own + key_cost * own * (2 * length + own)
            if length + own <= max(LONGEST, size) and joined < size + key_cost * size * size:
                last.contexts.append(context)
                last.alike.append(alike)
                continue
        found.append(Pack([context], [0]))
    return sorted(found, key=lambda pack: -pack.length)


@dataclass
class Layout:
    """Packs laid out as a batch: ids, positions, who sees whom, and where each context ends."""

    ids_BT: Tensor
    positions_BT: Tensor
    visible_BTT: Tensor
    rows: list[int]
    columns: list[int]


def lay_out(chosen: list[Pack]) -> Layout:
    longest = max(pack.length for pack in chosen)
    visible_BTT = torch.eye(longest, dtype=torch.bool).repeat(len(chosen), 1, 1)  # padding sees itself
    lower = torch.ones(longest, longest, dtype=torch.bool).tril()
    ids: list[list[int]] = []
    positions: list[list[int]] = []
    rows, columns = [], []
    for row, pack in enumerate(chosen):
        own, places = list[int](), list[int]()
        path: list[int] = []  # where the tokens of the context before are
        for context, alike in zip(pack.contexts, pack.alike, strict=True):
            start, size = len(own), len(context) - alike
            path = [*path[:alike], *range(start, start + size)]
            own += context[alike:]
            places += range(alike, len(context))
            visible_BTT[row, start : start + size, path[:alike]] = True
            visible_BTT[row, start : start + size, start : start + size] = lower[:size, :size]
            rows.append(row)
            columns.append(path[-1])
        blank = longest - len(own)
        ids.append(own + [0] * blank)
        positions.append(places + [0] * blank)
    return Layout(torch.tensor(ids), torch.tensor(positions), visible_BTT, rows, columns)


def last_log_probs(decoder: Decoder, chosen: list[Pack]) -> Tensor:
    """log π of every token of the vocabulary behind each context of the packs, in their order: [N, V]."""
    made, device = lay_out(chosen), decoder.device
    if all(len(pack.contexts) == 1 for pack in chosen):  # plain sequences need no mask of their own
        mask = made.visible_BTT[:, :, 0].long() if made.ids_BT.shape[1] else None
    else:
        dtype = next(decoder.model.parameters()).dtype
        mask = torch.zeros(made.visible_BTT.shape, dtype=dtype)
        mask = mask.masked_fill_(~made.visible_BTT, torch.finfo(dtype).min)[:, None]
    with torch.no_grad():
        output = decoder.base(
            input_ids=made.ids_BT.to(device),
            position_ids=made.positions_BT.to(device),
            attention_mask=None if mask is None else mask.to(device),
            use_cache=False,
        )
        hidden_ND = output.last_hidden_state[made.rows, made.columns]
        return model.logits(decoder, hidden_ND).float().log_softmax(-1)


def smoothed_log_probs(decoder: Decoder, contexts: list[Tokens], smoothing: Smoothing) -> Tensor:
    """log (1/k)·Σᵢ π(· | context, δᵢ) behind each context: [N, V]; what no noise has reached is run once."""
    batch = pad(contexts, 0).to(decoder.device)
    sources = [Normals(seed_of(smoothing.seed, "inference", str(context))) for context in contexts]
    lengths = [len(context) for context in contexts]
    rows, first = list(range(len(contexts))), min(smoothing.layers)

    def alter(layer: int, hidden_BTD: Tensor) -> Tensor:
        if layer not in smoothing.layers:
            return hidden_BTD
        noise_BTD = torch.zeros_like(hidden_BTD)
        for row, (length, source) in enumerate(zip(lengths, sources, strict=True)):
            drawn_TD = source(1, length * decoder.width, noise_BTD.device).view(length, decoder.width)
            noise_BTD[row, :length] = (smoothing.std * drawn_TD).to(noise_BTD.dtype)
        return hidden_BTD + noise_BTD

    with torch.no_grad():
        clean = model.advance(decoder, model.embed(decoder, batch), first + 1)
        total_NV: Tensor | None = None
        for _ in range(smoothing.samples):
            noisy = Stream(alter(first, clean.hidden_BTD), first + 1, clean.layer_inputs)
            end_BTD = model.advance(decoder, noisy, len(decoder.layers), alter=alter).hidden_BTD
            last_ND = decoder.norm(end_BTD[rows, [length - 1 for length in lengths]])
            log_probs_NV = model.logits(decoder, last_ND).float().log_softmax(-1)
            total_NV = log_probs_NV if total_NV is None else torch.logaddexp(total_NV, log_probs_NV)
    assert total_NV is not None
    return total_NV - math.log(smoothing.samples)


def can_share(decoder: Decoder, longest: int) -> bool:
    """Whether the attention takes a mask of ours and sees as far back as the longest context."""
    config: Any = decoder.model.config
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None)
    return text._attn_implementation in ("sdpa", "eager") and (window is None or window >= longest)


def score(
    decoder: Decoder,
    contexts: list[Tokens],
    wanted: dict[Tokens, set[int]],
    batch_size: int | None,
    progress: Progress,
    smoothing: Smoothing | None = None,
    answers: Answers | None = None,
) -> dict[tuple[Tokens, int], tuple[float, bool]]:
    """(log-likelihood, whether it is the likeliest token) of each wanted token behind each context.

    What `answers` has is not asked again; batches are those of an evaluation that nothing interrupted.

    With `smoothing` contexts go through the model alone: each has noise of its own, also where they begin alike.
    """
    found: dict[tuple[Tokens, int], tuple[float, bool]] = {}
    share = smoothing is None and can_share(decoder, max(map(len, contexts), default=0))
    waiting = packs(contexts, key_cost(decoder) if share else None)
    budget, done, total = TOKENS_AT_ONCE[decoder.device.type], 0, len(set(contexts))
    answers = answers or Answers(None)
    asked = _digest(waiting, wanted, smoothing)
    for part in answers.of(asked):
        order = [context for pack in waiting[: part["packs"]] for context in pack.contexts]
        pairs = [(context, token) for context in order for token in sorted(wanted[context])]
        found |= {pair: (value, bool(first)) for pair, (value, first) in zip(pairs, part["found"], strict=True)}
        waiting, budget, done = waiting[part["packs"] :], part["budget"], done + len(order)
    while waiting:
        longest = waiting[0].length
        size = max(1, min(batch_size or len(waiting), budget // longest))
        chosen = waiting[:size]
        while len(chosen) > 1 and sum(len(pack.contexts) for pack in chosen) * _vocabulary(decoder) > LOGITS_AT_ONCE:
            chosen = chosen[: len(chosen) // 2]
        size = len(chosen)
        try:
            if smoothing is None:
                log_probs_NV = last_log_probs(decoder, chosen)
            else:
                log_probs_NV = smoothed_log_probs(decoder, [pack.contexts[0] for pack in chosen], smoothing)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            budget = max(longest, size // 2 * longest)
            torch.cuda.empty_cache()
            continue
        order = [context for pack in chosen for context in pack.contexts]
        pairs = [(row, token) for row, context in enumerate(order) for token in sorted(wanted[context])]
        told = _picked(log_probs_NV, pairs)
        found |= {(order[row], token): one for (row, token), one in zip(pairs, told, strict=True)}
        answers.add(asked, {"packs": size, "budget": budget, "found": told})
        waiting = waiting[size:]
        done += len(order)
        progress(done, total)
    return found


def score_long(
    decoder: Decoder,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    longest: int,
    batch_size: int | None,
    progress: Progress,
    answers: Answers | None = None,
) -> list[tuple[float, bool]]:
    """(Σ log π(yᵢ | x, y₁…yᵢ₋₁), whether each is the likeliest token) of answers of several tokens behind contexts.

    Each of an answer's tokens is one behind a context of its own, which is a branch of the same tree.

    Args:
        pairs: contexts and answers; what is longer than `longest` loses its beginning, as in lm-eval.
    """
    whole = [tuple((*context, *answer)[-(longest + 1) :]) for context, answer in pairs]
    found: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
    order = sorted(range(len(pairs)), key=whole.__getitem__)
    for first in range(0, len(order), ANSWERS_AT_ONCE):
        places = order[first : first + ANSWERS_AT_ONCE]
        asked = {place: range(len(whole[place]) - len(pairs[place][1]), len(whole[place])) for place in places}
        wanted: dict[Tokens, set[int]] = {}
        for place, ends in asked.items():
            for end in ends:
                wanted.setdefault(whole[place][:end], set()).add(whole[place][end])
        told = score(decoder, list(wanted), wanted, batch_size, progress, answers=answers)
        for place, ends in asked.items():
            each = [told[whole[place][:end], whole[place][end]] for end in ends]
            found[place] = math.fsum(value for value, _ in each), all(likeliest for _, likeliest in each)
    return found


def token_scores(
    decoder: Decoder,
    rows: Sequence[tuple[list[int], int]],
    batch_size: int | None,
    pad_id: int,
    progress: Progress,
    answers: Answers | None = None,
) -> list[list[Token]]:
    """Of each row's tokens from its start on: (log π(yᵢ | y₀…yᵢ₋₁), whether it is the likeliest there).

    Sequences go through the model whole, the longest first; what `answers` has is not asked again.

    Args:
        rows: tokens, and the first that is wanted, from 1.
    """
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place][0]))
    budget, answers = TOKENS_AT_ONCE[decoder.device.type], answers or Answers(None)
    asked = hashlib.sha256(repr([rows[place] for place in order]).encode()).hexdigest()[:16]
    found: list[list[Token]] = []
    for part in answers.of(asked):
        found += [[(value, bool(first)) for value, first in row] for row in part["found"]]
        budget = part["budget"]
    while len(found) < len(order):
        waiting = [rows[place] for place in order[len(found) :]]
        longest = len(waiting[0][0])
        chosen = waiting[: max(1, min(batch_size or len(waiting), budget // longest))]
        try:
            told = _token_scores(decoder, chosen, pad_id)
        except torch.OutOfMemoryError:
            if len(chosen) == 1:
                raise
            budget = max(longest, len(chosen) // 2 * longest)
            torch.cuda.empty_cache()
            continue
        answers.add(asked, {"budget": budget, "found": told})
        found += told
        progress(len(found), len(order))
    by_place = dict(zip(order, found, strict=True))
    return [by_place[place] for place in range(len(rows))]


def _token_scores(decoder: Decoder, rows: Sequence[tuple[list[int], int]], pad_id: int) -> list[list[Token]]:
    batch = pad([ids for ids, _ in rows], pad_id).to(decoder.device)
    wanted_BT = torch.zeros_like(batch.mask_BT)
    for row, (ids, start) in enumerate(rows):
        wanted_BT[row, start - 1 : len(ids) - 1] = True
    told: list[Token] = []
    with torch.no_grad():
        end = model.advance(decoder, model.embed(decoder, batch), len(decoder.layers))
        hidden_ND = model.head_hidden(decoder, end, wanted_BT)
        target_N = batch.ids_BT.roll(-1, 1)[wanted_BT].tolist()
        size = max(1, LOGITS_AT_ONCE // _vocabulary(decoder))
        for first in range(0, len(target_N), size):
            log_probs_NV = model.logits(decoder, hidden_ND[first : first + size]).float().log_softmax(-1)
            told += _picked(log_probs_NV, list(enumerate(target_N[first : first + size])))
    rest = iter(told)
    return [[next(rest) for _ in range(start, len(ids))] for ids, start in rows]


def _vocabulary(decoder: Decoder) -> int:
    config: Any = decoder.model.config
    return config.get_text_config().vocab_size


def _picked(log_probs_NV: Tensor, pairs: Sequence[tuple[int, int]]) -> list[tuple[float, bool]]:
    """(log-likelihood, whether no token is likelier) of these rows and tokens, in one copy from the device."""
    rows, tokens = torch.tensor(pairs, device=log_probs_NV.device).T
    picked = log_probs_NV[rows, tokens]
    likeliest = picked == log_probs_NV.amax(-1)[rows]  # cheaper than `argmax` on a CPU
    values, first = torch.stack([picked, likeliest.to(picked.dtype)]).tolist()
    return list(zip(values, map(bool, first), strict=True))


def _digest(waiting: list[Pack], wanted: dict[Tokens, set[int]], smoothing: Smoothing | None) -> str:
    """What is asked, in its order."""
    made = hashlib.sha256(repr(smoothing).encode())
    for pack in waiting:
        for context in pack.contexts:
            made.update(array("q", [len(context), *context, *sorted(wanted[context])]).tobytes())
    return made.hexdigest()[:16]


def harness(
    decoder: Decoder,
    tokenizer: Any,
    batch_size: int | None,
    progress: Progress,
    smoothing: Smoothing | None = None,
    add_bos_token: bool | None = None,
    answers: Answers | None = None,
) -> Any:
    """lm-eval's Hugging Face model with its likelihoods of one-token continuations made here."""
    from lm_eval.models import huggingface

    hflm: Any = huggingface.HFLM

    class Harness(hflm):
        """`truncated` holds the contexts that were longer than the model's and lost their beginning."""

        truncated: set[str]

        def loglikelihood(self, requests: Any, **_: Any) -> Any:
            beginning = tokenizer.decode(self.prefix_token_id)
            encoding.read([request.args for request in requests], beginning, super()._encode_pair)
            return super().loglikelihood(requests, disable_tqdm=True)  # `progress` shows how far it is

        def _encode_pair(self, context: str, continuation: str) -> tuple[Sequence[int], list[int]]:
            return encoding.pair(context, continuation) or super()._encode_pair(context, continuation)

        def _loglikelihood_tokens(self, requests: Any, **options: Any) -> Any:
            longest: int = self.max_length
            short = [len(continuation) == 1 for _, _, continuation in requests]
            if smoothing is not None and not all(short):
                raise ValueError("noise=inference: averages answers of one token; a task here has longer ones")
            known: dict[int, Tokens] = {}  # by identity: what `encoding` tells is one object for every answer
            contexts: list[Tokens] = []
            wanted: dict[Tokens, set[int]] = {}
            for (asked, context, continuation), one in zip(requests, short, strict=True):
                if asked is not None and len(context) + len(continuation) > longest + 1:
                    self.truncated.add(asked[0])
                if id(context) not in known:
                    known[id(context)] = tuple(context[-longest:])
                contexts.append(known[id(context)])
                if one:
                    wanted.setdefault(contexts[-1], set()).add(continuation[0])
            found = score(decoder, list(wanted), wanted, batch_size, progress, smoothing, answers) if wanted else {}
            several = [request for request, one in zip(requests, short, strict=True) if not one]
            rest = iter(self._several(several, longest, options) if several else ())
            return [
                found[context, continuation[0]] if one else next(rest)
                for (_, _, continuation), context, one in zip(requests, contexts, short, strict=True)
            ]

        def _several(self, requests: Any, longest: int, options: Any) -> list[tuple[float, bool]]:
            """Of answers of several tokens, those that are short share what they begin with."""
            most = min(max(len(context) + len(answer) for _, context, answer in requests), longest)
            can = can_share(decoder, most)
            shared = [can and len(answer) <= LONG_ANSWER for _, _, answer in requests]
            pairs = [(context, answer) for (_, context, answer), one in zip(requests, shared, strict=True) if one]
            alone = [(asked, list(context), answer)
                     for (asked, context, answer), one in zip(requests, shared, strict=True) if not one]  # fmt: skip
            found = iter(score_long(decoder, pairs, longest, batch_size, progress, answers))
            rest = iter(super()._loglikelihood_tokens(alone, **options) if alone else ())
            return [next(found) if one else next(rest) for one in shared]

        def loglikelihood_rolling(self, requests: Any, **_: Any) -> Any:
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, **_: Any) -> Any:
            """In lm-eval's order and batches, some of these at once, so that it can be seen how far it is."""
            asked = [request.args for request in requests]
            keys = [(repr(options), -len(self.tok_encode(context)), context) for context, options in asked]
            order = sorted(range(len(requests)), key=keys.__getitem__)
            kept = answers or Answers(None)
            digest = hashlib.sha256(repr([keys[place] for place in order]).encode()).hexdigest()[:16]
            told: list[str] = [text for part in kept.of(digest) for text in part]
            while len(told) < len(order):
                places = order[len(told) : len(told) + TEXTS_AT_ONCE * self.batch_size]
                part = super().generate_until([requests[place] for place in places], disable_tqdm=True)
                kept.add(digest, part)
                told += part
                progress(len(told), len(order))
            by_place = dict(zip(order, told, strict=True))
            return [by_place[place] for place in range(len(order))]

    encoding = Encoding(tokenizer, {} if add_bos_token is None else {"add_special_tokens": add_bos_token})
    # lm-eval begins what has no beginning, which no task here has, with bos or eos, and fails where there is neither.
    nameless = tokenizer.bos_token_id is None and tokenizer.eos_token_id is None
    made = Harness(
        pretrained=decoder.model,
        tokenizer=tokenizer,
        batch_size=batch_size or 8,
        add_bos_token=add_bos_token,
        prefix_token_id=tokenizer.pad_token_id if nameless else None,
    )
    made.truncated = set()
    return made
