"""How a training step's batches are read: ragged documents end to end, where the model keeps them apart.

Shapes: B sequences, T tokens, N real tokens of a batch laid end to end.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch

from rna.corpora import Batch, pad
from rna.decoder import model
from rna.decoder.model import Decoder

Pack = Callable[[Batch], Batch]

ATTENTION = 1.5  # how many times the time of another floating point operation one of attention takes, seen on a CPU
DOCUMENTS = (3, 9, 5)  # tokens of those that a model is tried with
TOLERANCE = {torch.float32: 1e-3}  # of a token's states, the part that may differ
HALF = 0.05  # in half precision


def packer(decoder: Decoder) -> Pack:
    """What packs a batch where that saves time; of a model that does not keep packed documents apart, what leaves it.

    Packed or padded, a token's states are the same but for rounding. Which it is follows from the batch's lengths and
    the model alone.
    """
    config: Any = decoder.model.config
    text = config.get_text_config()
    if not _keeps_apart(decoder, text.vocab_size):
        print(
            f"model: {type(decoder.model).__name__} does not keep documents in one row apart: each is padded to the "
            "longest of its batch",
            file=sys.stderr,
            flush=True,
        )
        return lambda batch: batch
    cost, one_row = key_cost(decoder), text._attn_implementation.startswith("flash")
    return lambda batch: batch.packed(cost, one_row=one_row)


def key_cost(decoder: Decoder) -> float:
    """What a key costs that a token attends to, in units of all that a token costs but for attention.

    Four operations a dimension of the heads, against two a weight of the layer.
    """
    config: Any = decoder.model.config
    text = config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    weights = sum(parameter.numel() for parameter in decoder.layers[0].parameters())
    return ATTENTION * 2 * text.num_attention_heads * head / weights


@torch.no_grad()
def _keeps_apart(decoder: Decoder, vocabulary: int) -> bool:
    """Whether tokens have the same states packed as padded: seen on documents of arbitrary tokens."""
    source = torch.Generator().manual_seed(0)
    documents = [torch.randint(vocabulary, (length,), generator=source).tolist() for length in DOCUMENTS]
    padded = pad(documents, 0)
    found: list[torch.Tensor] = []
    try:
        for batch in (padded, padded.packed(0.0, one_row=True)):
            here = batch.to(decoder.device)
            stream = model.advance(decoder, model.embed(decoder, here), len(decoder.layers))
            found.append(model.head_hidden(decoder, stream, here.mask_BT)[DOCUMENTS[0] :].float())
    except (TypeError, ValueError):  # of a model that takes no positions
        return False
    padded_ND, packed_ND = found
    dtype = next(decoder.model.parameters()).dtype
    same_N = (packed_ND - padded_ND).norm(dim=-1) <= TOLERANCE.get(dtype, HALF) * padded_ND.norm(dim=-1)
    return same_N.float().mean().item() > 0.5  # not of all: a token whose experts were chosen by a hair may differ
