"""A model that somebody else has loaded, as a `Decoder` for as long as it is needed, and then as it was."""

import copy
import hashlib
import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from rna.decoder.model import Decoder, Deltas, refuse_not_finite, split
from rna.decoder.tokenizer import give_padding
from rna.settings import CHOICES, architecture

UNTOLD = ("_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")  # of a config


@contextmanager
def borrowed(given: Any, tokenizer: Any, layer_path: str = "model.layers") -> Generator[tuple[Decoder, Any]]:
    """The model, split, in evaluation mode and without gradients inside the block, and a tokenizer that can pad.

    Args:
        given: a transformers causal LM, whole, in float32, bfloat16 or float16.
        tokenizer: its own; it stays as it is.

    Raises:
        ValueError: naming the argument, for what is no such model, is quantised, lies on the meta device, holds values
            that are not finite or cannot be split, and for a tokenizer that makes other ids than the model has.
    """
    dtype = check(given, tokenizer)
    architecture.check_config(given.config.to_dict(), "model", layer_path)
    refuse_not_finite(given, "model", dtype)
    modes = [(module, module.training) for module in given.modules()]
    wanted = [(tensor, tensor.requires_grad) for tensor in given.parameters()]
    given.eval().requires_grad_(False)
    try:
        own = copy.deepcopy(tokenizer)
        give_padding(own, given.config.get_text_config().vocab_size)
        yield split(given, layer_path, "model"), own
    finally:
        for module, mode in modes:
            module.training = mode
        for tensor, wants in wanted:
            tensor.requires_grad_(wants)


def check(given: Any, tokenizer: Any) -> str:
    """A model's dtype as settings name it, which is its first tensor's.

    Raises:
        ValueError: for what is no model, is not whole, or has weights of another kind, as quantised ones are; for a
            tokenizer that is none, or not the model's.
    """
    if not _has(given, nn.Module, "config"):
        raise ValueError(f"model={type(given).__name__}: must be a causal language model of transformers")
    tensors = [*given.parameters()]
    if any(tensor.is_meta for tensor in tensors) or not tensors:
        raise ValueError("model: its weights lie on the meta device, without values; load it whole")
    dtypes = list(dict.fromkeys(str(tensor.dtype).removeprefix("torch.") for tensor in tensors))
    allowed = CHOICES["model.dtype"]
    if not set(dtypes) <= set(allowed):
        raise ValueError(f"model: its weights are {' and '.join(dtypes)}; allowed: {', '.join(allowed)}")
    if "float16" in dtypes and any(tensor.device.type == "cpu" for tensor in tensors):
        raise ValueError("model: float16 on a CPU, where products have given NaN; allowed: float32, bfloat16")
    _refuse_tokenizer(tokenizer, given.config.get_text_config().vocab_size)
    return dtypes[0]


def _has(one: Any, kind: Any, name: str) -> bool:
    return isinstance(one, kind) and hasattr(one, name)


def _refuse_tokenizer(tokenizer: Any, rows: int) -> None:
    if not _has(tokenizer, Callable, "get_vocab"):
        raise ValueError(f"tokenizer={type(tokenizer).__name__}: must be a tokenizer of transformers")
    made: list[int] = tokenizer("model", add_special_tokens=True)["input_ids"]
    added: dict[int, Any] = tokenizer.added_tokens_decoder
    above = [word for word, index in tokenizer.get_vocab().items() if index >= rows and index not in added]
    if not made or above or max(made) >= rows:
        some = f" ({architecture.some(sorted(above))})" if above else ""
        raise ValueError(f"tokenizer: makes ids beyond the model's {rows} embeddings{some}; give the model's own")


def fingerprint(given: Any, tokenizer: Any) -> str:
    """What identifies a loaded model and its tokenizer: a hash of configuration, tensors and vocabulary."""
    config = {name: value for name, value in given.config.to_dict().items() if name not in UNTOLD}
    hashed = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(given.state_dict().items()):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    words = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else json.dumps(tokenizer.get_vocab())
    hashed.update(f"{words} {tokenizer.special_tokens_map}".encode())
    return hashed.hexdigest()[:16]


def install(given: Any, deltas: Deltas) -> None:
    """Write trained tensors into a model for good."""
    own = dict(given.named_parameters())
    with torch.no_grad():
        for name, tensor in deltas.items():
            own[name].copy_(tensor)
