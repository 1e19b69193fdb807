"""A causal language model in three stages: frozen prefix | trained block | suffix.

Only a few layers train, so the decoder is cut once. What lies below the first trained (or noised) layer is the same
in policy and reference and runs once for both, without gradients. The reference is the loaded model itself, never
written to; the policy is the same modules with the trained tensors swapped in. Logits are made in chunks of tokens.

Shapes: B sequences, T tokens, D hidden width, V vocabulary, N real tokens of a batch laid end to end.
"""

import os
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

from rna.batch import Batch

Deltas = dict[str, Tensor]  # the model's name of a trained tensor -> its values
AddNoise = Callable[[int, Tensor], Tensor]  # (layer, the stream that leaves it) -> the stream that goes on

CHUNK = 1024  # tokens whose logits exist at one time


@dataclass
class Stream:
    """The residual stream on its way: what enters layer `layer`, and each layer's own masks and positions."""

    hidden_BTD: Float[Tensor, "B T D"]
    layer: int
    layer_inputs: list[dict[str, Any]] = field(repr=False)


@dataclass(frozen=True)
class Decoder:
    """The parts of a transformers causal LM that the stages use."""

    model: nn.Module
    base: nn.Module
    layers: nn.ModuleList
    norm: nn.Module
    head: nn.Module
    softcap: float | None
    names: dict[int, str]  # a layer's index -> the prefix of its tensors' names

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def width(self) -> int:
        return int(self.head.weight.shape[-1])  # pyright: ignore[reportArgumentType, reportIndexIssue]


def load(path: str, *, dtype: str, device: str, revision: str | None) -> tuple[Decoder, Any]:
    """Load a causal LM and its tokenizer, frozen.

    Args:
        path: a hub id, a local Hugging Face folder, or a GGUF file.
        dtype: `float32`, `bfloat16` or `float16`.
        device: `auto` (the first GPU if there is one), `cpu`, `cuda`, `cuda:1`, …
        revision: the hub revision, or None for its main branch.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    options: dict[str, Any] = {"revision": revision or "main"}
    if path.endswith(".gguf"):
        options["gguf_file"] = Path(path).name
        path = str(Path(path).parent)
    tokenizer = AutoTokenizer.from_pretrained(path, **options)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype), **options)
    return split(model.to(where).eval().requires_grad_(False)), tokenizer


def split(model: nn.Module) -> Decoder:
    """Find the decoder's parts, or refuse an architecture whose forward cannot be staged.

    Raises:
        ValueError: naming the architecture and the part that is missing.
    """
    kind = type(model).__name__
    base = getattr(model, "model", None)
    base = getattr(base, "language_model", base)
    head = getattr(model, "lm_head", None)
    parts = {"model.layers": getattr(base, "layers", None), "model.norm": getattr(base, "norm", None), "lm_head": head}
    missing = [name for name, part in parts.items() if part is None]
    if missing or base is None or not isinstance(parts["model.layers"], nn.ModuleList):
        raise ValueError(f"model: {kind} cannot be split into prefix, block and suffix: it has no {', '.join(missing)}")
    layers = parts["model.layers"]
    if not all(hasattr(layer, "mlp") for layer in layers):
        raise ValueError(f"model: {kind} cannot be split: its layers have no mlp")
    softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)  # pyright: ignore
    names = {id(module): name for name, module in model.named_modules()}
    prefixes = {index: names[id(layer)] for index, layer in enumerate(layers)}
    return Decoder(model, base, layers, parts["model.norm"], head, softcap, prefixes)  # pyright: ignore


def trained_names(decoder: Decoder, layers: Sequence[int], trainable: str) -> list[str]:
    """Full names of the tensors that train: each layer's `mlp.down_proj.weight`, or all of its tensors."""
    names = [
        f"{decoder.names[layer]}.{name}"
        for layer in layers
        for name, _ in decoder.layers[layer].named_parameters()
        if trainable == "all" or name == "mlp.down_proj.weight"
    ]
    if not names:
        raise ValueError(f"layer.trainable={trainable}: {type(decoder.model).__name__} has no mlp.down_proj.weight")
    return names


def masters(decoder: Decoder, names: Sequence[str]) -> Deltas:
    """float32 leaves that hold the policy's trained tensors; the model's own tensors stay the reference's."""
    own = dict(decoder.model.named_parameters())
    return {name: own[name].detach().float().clone().requires_grad_() for name in names}


def rounded(decoder: Decoder, deltas: Deltas) -> Deltas:
    """The trained tensors in the model's own dtype: what is saved, exported and evaluated."""
    own = dict(decoder.model.named_parameters())
    return {name: tensor.detach().to(own[name].dtype) for name, tensor in deltas.items()}


@contextmanager
def installed(decoder: Decoder, deltas: Deltas) -> Generator[None]:
    """Make the loaded model the unlearned one inside the block, and the reference again after it."""
    own = dict(decoder.model.named_parameters())
    originals = {name: own[name].data for name in deltas}
    for name, tensor in deltas.items():
        own[name].data = tensor.detach().to(own[name].dtype)
    try:
        yield
    finally:
        for name, tensor in originals.items():
            own[name].data = tensor


def embed(decoder: Decoder, batch: Batch) -> Stream:
    """Embeddings, masks and positions, made by the model's own forward with its layers stepped over.

    The layers' own masks (sliding windows, padding) and rotary tables are caught on the way, so each architecture
    keeps its rules without a copy of them here.
    """
    caught: list[dict[str, Any]] = []
    entering: list[Tensor] = []

    def step_over(hidden_BTD: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        assert not args, "transformers passes everything but the stream by name"
        entering.append(hidden_BTD)
        caught.append(kwargs)
        return hidden_BTD

    for layer in decoder.layers:
        layer.forward = step_over
    try:
        with torch.no_grad():
            decoder.base(input_ids=batch.ids_BT, attention_mask=batch.mask_BT.long(), use_cache=False)
    finally:
        for layer in decoder.layers:
            del layer.forward
    return Stream(entering[0], 0, caught)


def advance(
    decoder: Decoder, stream: Stream, stop: int, *, policy: Deltas | None = None, add_noise: AddNoise | None = None
) -> Stream:
    """Run the stream through the layers up to, not including, layer `stop`.

    Args:
        policy: the trained tensors to use in place of the reference's own; None runs the reference.
        add_noise: called with (layer, stream leaving it) after each layer.
    """
    hidden_BTD = stream.hidden_BTD
    for index in range(stream.layer, stop):
        layer, inputs = decoder.layers[index], stream.layer_inputs[index]
        prefix = decoder.names[index] + "."
        own = {
            name.removeprefix(prefix): tensor.to(hidden_BTD.dtype)
            for name, tensor in (policy or {}).items()
            if name.startswith(prefix)
        }
        hidden_BTD = functional_call(layer, own, (hidden_BTD,), inputs) if own else layer(hidden_BTD, **inputs)
        if add_noise is not None:
            hidden_BTD = add_noise(index, hidden_BTD)
    return Stream(hidden_BTD, stop, stream.layer_inputs)


def stream_at(
    decoder: Decoder, stream: Stream, layer: int, *, policy: Deltas | None = None, add_noise: AddNoise | None = None
) -> Float[Tensor, "B T D"]:
    """The residual stream that leaves decoder layer `layer`."""
    return advance(decoder, stream, layer + 1, policy=policy, add_noise=add_noise).hidden_BTD


def mlp_output_at(
    decoder: Decoder, stream: Stream, layer: int, *, policy: Deltas | None = None, add_noise: AddNoise | None = None
) -> Float[Tensor, "B T D"]:
    """The output of the MLP of decoder layer `layer`, with noise of that layer added to it and not to the stream."""
    caught: list[Tensor] = []
    hook = decoder.layers[layer].mlp.register_forward_hook(lambda _m, _i, output: caught.append(output))  # pyright: ignore
    try:
        before = advance(decoder, stream, layer, policy=policy, add_noise=add_noise)
        advance(decoder, before, layer + 1, policy=policy)
    finally:
        hook.remove()
    return add_noise(layer, caught[0]) if add_noise is not None else caught[0]


def head_hidden(decoder: Decoder, stream: Stream, keep_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "N D"]:
    """The normalised stream at the kept positions, ready for `logits`; the stream has left the last layer."""
    assert stream.layer == len(decoder.layers), "the suffix has not been run"
    return decoder.norm(stream.hidden_BTD[keep_BT])


def logits(decoder: Decoder, hidden_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
    """The head's logits, with the architecture's soft cap where it has one."""
    logits_NV = decoder.head(hidden_ND)
    if decoder.softcap is not None:
        logits_NV = decoder.softcap * torch.tanh(logits_NV / decoder.softcap)
    return logits_NV


TokenValues = Callable[..., Tensor]  # (logits [N, V], extras [N, …]) -> values [N]


class _HeadValues(torch.autograd.Function):
    """Values of tokens and their gradients, chunk by chunk; the logits of a chunk are gone before the next."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, decoder: Decoder, value: TokenValues, *extras_N: Tensor) -> Tensor:
        values, slopes = [], []
        for start in range(0, len(hidden_ND), CHUNK):
            part = slice(start, start + CHUNK)
            with torch.enable_grad():
                hidden = hidden_ND[part].detach().requires_grad_(ctx.needs_input_grad[0])
                values_N = value(logits(decoder, hidden), *(extra[part] for extra in extras_N))
                if hidden.requires_grad:
                    slopes.append(torch.autograd.grad(values_N.sum(), hidden)[0])
            values.append(values_N.detach())
        ctx.save_for_backward(*([torch.cat(slopes)] if slopes else []))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        (slope_ND,) = ctx.saved_tensors
        return (grad_N[:, None].to(slope_ND.dtype) * slope_ND, None, None, *(None for _ in ctx.needs_input_grad[3:]))


def head_values(
    decoder: Decoder, hidden_ND: Float[Tensor, "N D"], value: TokenValues, *extras_N: Tensor
) -> Float[Tensor, "N"]:
    """`value(logits, *extras)` of each token, differentiable in the hidden states, never holding all logits.

    A token's value depends on its own hidden state alone, so its gradient is taken while its logits exist, and the
    backward pass only scales it: one head forward and one head backward in all.
    """
    return _HeadValues.apply(hidden_ND, decoder, value, *extras_N)  # pyright: ignore


def self_check(decoder: Decoder, batch: Batch) -> None:
    """Compare the staged forward with the model's own on one batch.

    Raises:
        ValueError: naming the architecture, if the logits at real tokens differ by more than rounding.
    """
    with torch.no_grad():
        whole = decoder.model(input_ids=batch.ids_BT, attention_mask=batch.mask_BT.long(), use_cache=False)
        stream = advance(decoder, embed(decoder, batch), len(decoder.layers))
        staged_NV = logits(decoder, head_hidden(decoder, stream, batch.mask_BT)).float()
    whole_NV = whole.logits[batch.mask_BT].float()
    difference, size = (staged_NV - whole_NV).abs().max().item(), whole_NV.abs().max().item()
    if not difference <= 1e-2 * max(size, 1.0):
        kind = type(decoder.model).__name__
        raise ValueError(f"model: the staged forward of {kind} differs from its own by {difference:.3g} in the logits")


def save_deltas(deltas: Deltas, path: Path) -> None:
    """Write the trained tensors as safetensors, by temp-then-rename."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
    save_file({name: tensor.contiguous().cpu() for name, tensor in deltas.items()}, temporary)
    temporary.replace(path)


def load_deltas(path: Path) -> Deltas:
    from safetensors.torch import load_file

    return load_file(path)
