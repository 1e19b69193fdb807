"""A causal language model in three stages: frozen prefix | trained block | suffix.

Only a few layers train, so the decoder is cut once. What lies below the first trained (or noised) layer is the same
in policy and reference and runs once for both, without gradients. The reference is the loaded model itself, never
written to; the policy is the same modules with the trained tensors swapped in. Logits are made in chunks of tokens.

Shapes: B sequences, T tokens, D hidden width, V vocabulary, N real tokens of a batch laid end to end.
"""

import ctypes
import os
import re
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.utils.checkpoint
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

from rna.corpora import Batch, pad
from rna.decoder import folder
from rna.decoder.tokenizer import give_padding, load_tokenizer
from rna.ends import patient
from rna.settings import architecture

Deltas = dict[str, Tensor]  # the model's name of a trained tensor -> its values
Alter = Callable[[int, Tensor], Tensor]  # (layer, the stream that leaves it) -> the stream that goes on

CHUNK = {"cpu": 3 * 2**21, "cuda": 2**27}  # logits that exist at one time; the C library reuses blocks of < 32 MiB


@dataclass
class Stream:
    """The residual stream on its way: what enters layer `layer`, and each layer's own masks and positions."""

    hidden_BTD: Float[Tensor, "B T D"]
    layer: int
    layer_inputs: list[dict[str, Any]] = field(repr=False)
    batch: Batch | None = None  # what it is the stream of


@dataclass(frozen=True)
class Decoder:
    """The parts of a transformers causal LM that the stages use."""

    model: nn.Module
    base: nn.Module
    layers: nn.ModuleList
    norm: nn.Module
    head: nn.Module | None  # None: only as many layers as RM methods run are here
    softcap: float | None
    names: dict[int, str]  # a layer's index -> the prefix of its tensors' names
    width: int

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


class Headless(nn.Module):
    """A decoder without its head, its tensors named as in the whole model."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.model = base
        self.config = base.config


def load(
    path: str,
    *,
    dtype: str,
    device: str,
    revision: str | None,
    device_map: Any = None,
    attn_implementation: str | None = None,
    compiled: bool = False,
    layer_path: str = "model.layers",
    num_layers: int | None = None,
    key: str = "model.path",
) -> tuple[Decoder, Any]:
    """Load a causal LM and its tokenizer, frozen.

    Args:
        path: a hub id, a local Hugging Face folder, or a GGUF file.
        dtype: `float32`, `bfloat16` or `float16`.
        device: `auto` (the first GPU if there is one, the CPU if none is assigned), `cpu`, `cuda`, `cuda:1`, …
        revision: the hub revision, or None for its main branch.
        device_map: how to lay the layers over several GPUs, in place of `device`: `auto`, `balanced`, `sequential`,
            or a mapping from module names to devices.
        attn_implementation: `sdpa`, `eager`, `flash_attention_2`; None leaves it to transformers.
        compiled: whether torch.compile makes the layers' kernels.
        layer_path: where the decoder's layers are in the model.
        num_layers: load the embeddings and this many layers alone, without the head: all that RM methods run.
        key: the setting that names the path, for what is said of it.

    Raises:
        ValueError: for a model that does not load whole (`rna.decoder.folder`) or holds values that are not finite, an
            architecture that cannot be split, a device map that leaves layers on the CPU or disk, or float16 on a CPU.
        NoDevice: for a GPU that is asked for or assigned and not there.
    """
    where = usable(device) if device_map is None else "cuda"
    if dtype == "float16" and where == "cpu" and device_map is None:
        raise ValueError(
            "model.dtype=float16: torch's products of half-precision numbers are slow on a CPU and have been seen to "
            "give NaN; allowed there: float32, bfloat16"
        )
    said = f"{key}={path}"
    folder.check(path, revision, key=key, layer_path=layer_path)
    if (line := folder.unread(path, said)) is not None:
        print(line, file=sys.stderr, flush=True)
    with folder.one_line(said), _quiet():
        model, tokenizer = _loaded(path, key, dtype, device_map or where, revision, attn_implementation, num_layers)
    _refuse_offloading(model, device_map)
    refuse_not_finite(model, said, dtype)
    decoder = split(model.eval().requires_grad_(False), layer_path, said)
    if compiled:
        for layer in decoder.layers:
            layer.compile()
    if decoder.device.type == "cpu":
        keep_freed_memory()
    return decoder, tokenizer


def _loaded(
    path: str,
    key: str,
    dtype: str,
    device_map: Any,
    revision: str | None,
    attn_implementation: str | None,
    num_layers: int | None,
) -> tuple[Any, Any]:
    """Model and tokenizer as they are in the folder, every tensor in its place, or a ValueError."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    said = f"{key}={path}"
    name, options = _place(path, revision)
    tokenizer = load_tokenizer(path, revision, key=key)
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    options["dtype"] = getattr(torch, dtype)
    config: Any = AutoConfig.from_pretrained(name, **options)
    text = config.get_text_config()
    folder.refuse_words(path, said, revision, tokenizer, text.vocab_size)
    give_padding(tokenizer, text.vocab_size)
    above = text.num_hidden_layers if getattr(text, "num_nextn_predict_layers", 0) else None
    options |= {
        "config": config,
        "device_map": device_map,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
    }
    if num_layers is None:
        loaded: Any = AutoModelForCausalLM.from_pretrained(name, **options)
        model, info = loaded
    else:
        above = num_layers
        _shorten(text, num_layers)
        options["device_map"] = _part_of(device_map, num_layers)
        loaded: Any = AutoModel.from_pretrained(name, **options)
        model, info = Headless(loaded[0]), loaded[1]
    folder.refuse_parts(said, info, above=above, headless=num_layers is not None)
    return model, tokenizer


def _place(path: str, revision: str | None) -> tuple[str, dict[str, Any]]:
    """What transformers is given to find a model: a name and options."""
    options: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": False}
    if Path(path).is_file():
        return str(Path(path).parent), options | {"gguf_file": Path(path).name}
    return path, options


def _part_of(device_map: Any, num_layers: int) -> Any:
    """A device map, where it is a mapping, of the decoder's first layers alone, whose names lack their `model.`."""
    if not isinstance(device_map, dict):
        return device_map
    found: dict[str, Any] = {}
    for name, place in device_map.items():
        layer = re.search(r"(?:^|\.)layers\.(\d+)$", name)
        if name != "lm_head" and not (layer and int(layer[1]) >= num_layers):
            found["" if name == "model" else name.removeprefix("model.")] = place
    return found


class NoDevice(RuntimeError):
    """A GPU that was asked for, or assigned to this process, cannot be used."""

    reason = "device"


def usable(device: str) -> str:
    """The device that a setting names, tried out; `auto` is the CPU only where no GPU is assigned to this process.

    Raises:
        NoDevice: saying what torch says. A pool's or a cluster's place with a broken GPU fails, and is not a slow CPU.
    """
    assigned = os.environ.get("CUDA_VISIBLE_DEVICES", "").strip()
    if device == "auto" and not torch.cuda.is_available() and assigned in ("", "-1", "NoDevFiles"):
        return "cpu"
    where = "cuda" if device == "auto" else device
    try:
        torch.zeros(1, device=where)
    except torch.OutOfMemoryError:  # it answers
        raise
    except (AssertionError, RuntimeError) as error:  # without CUDA, without a driver, or of a card that does not answer
        named = f" (CUDA_VISIBLE_DEVICES={assigned})" if assigned else ""
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise NoDevice(
            f"model.device={device}: the GPU that is meant{named} cannot be used: {reason}; model.device=cpu runs on "
            "the CPU"
        ) from None
    return where


def _shorten(config: Any, num_layers: int) -> None:
    """Make a model's config that of its first layers."""
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:num_layers]


@contextmanager
def _quiet() -> Generator[None]:
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _refuse_offloading(model: Any, device_map: Any) -> None:
    places = {str(place) for place in getattr(getattr(model, "model", model), "hf_device_map", {}).values()}
    places |= {str(place) for place in getattr(model, "hf_device_map", {}).values()}
    offloaded = places & ({"disk"} | ({"cpu"} if len(places) > 1 else set()))
    if offloaded:
        raise ValueError(
            f"model.device_map={device_map}: layers would lie on {' and '.join(sorted(offloaded))} and be copied at "
            "every step; use more or larger GPUs, model.dtype=bfloat16, or train_only=true for RM methods"
        )


def refuse_not_finite(model: nn.Module, said: str, dtype: str) -> None:
    """Refuse weights with NaN or infinite values: nothing that follows from them is a result."""
    odd = [name for name, tensor in model.state_dict().items() if tensor.numel() and not _finite(tensor)]
    if odd:
        range_of = "; model.dtype=bfloat16 has a wider range" if dtype == "float16" else ""
        raise ValueError(
            f"{said}: its weights hold values that are not finite ({architecture.some(odd)}); give an earlier "
            f"checkpoint, or fetch it again{range_of}"
        )


def _finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite, from the ends of their range: one reading of them, and no copy."""
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())


def keep_freed_memory() -> None:
    """Let the C library keep what a step frees for the next step, in place of giving it back and faulting it in again.

    It took a tenth off a step on a CPU. Only glibc has this setting; elsewhere nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**25)


def split(model: nn.Module, layer_path: str = "model.layers", said: str | None = None) -> Decoder:
    """Find the decoder's parts, or refuse an architecture whose forward cannot be staged.

    Raises:
        ValueError: naming the architecture and the part that is missing.
    """
    kind, said = type(model).__name__, said or _said(model)
    base: Any = model
    for part in layer_path.split(".")[:-1]:
        base = getattr(base, part, None)
    head = getattr(model, "lm_head", None)
    where, _, last = layer_path.rpartition(".")
    parts: dict[str, Any] = {
        layer_path: getattr(base, last, None),
        f"{where}.norm": getattr(base, "norm", None),
        "lm_head": head,
    }
    missing = [name for name, part in parts.items() if part is None and not (part is head and type(model) is Headless)]
    layers = parts[layer_path]
    if missing or base is None or not isinstance(layers, nn.ModuleList):
        raise ValueError(
            f"{said}: {kind} cannot be split into prefix, block and suffix: it has no "
            f"{', '.join(missing) or 'list of layers there'}; {architecture.supported()}; where one has its layers "
            "elsewhere, model.layer_path says so"
        )
    if not all(hasattr(layer, "mlp") for layer in layers):
        raise ValueError(f"{said}: {kind} cannot be split: its layers have no mlp; {architecture.supported()}")
    config: Any = model.config.get_text_config()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    softcap = getattr(config, "final_logit_softcapping", None)
    names = {id(module): name for name, module in model.named_modules()}
    prefixes = {index: names[id(layer)] for index, layer in enumerate(layers)}
    return Decoder(model, base, layers, parts[f"{where}.norm"], head, softcap, prefixes, config.hidden_size)  # pyright: ignore


def _said(model: Any) -> str:
    """A model's place, where it has one, as messages name it."""
    place = model.config.name_or_path
    return f"model.path={place}" if place else "model"


def trained_names(decoder: Decoder, layers: Sequence[int], trainable: str) -> list[str]:
    """Full names of the tensors that train: each layer's `mlp.down_proj.weight`, or all of its tensors.

    Raises:
        ValueError: naming the layers that have none.
    """
    of_layer = {
        index: [name for name, _ in layer.named_parameters() if trainable == "all" or name == "mlp.down_proj.weight"]
        for index, layer in enumerate(decoder.layers)
    }
    has = [index for index, names in of_layer.items() if names]
    folder.refuse_untrainable(_said(decoder.model), layers, [layer for layer in layers if layer not in has], has)
    return [f"{decoder.names[layer]}.{name}" for layer in layers for name in of_layer[layer]]


def masters(decoder: Decoder, names: Sequence[str], *, keep_dtype: bool = False) -> Deltas:
    """Leaves that hold the policy's trained tensors in float32; the model's own tensors stay the reference's.

    Args:
        keep_dtype: leave them in the model's own dtype, as the variant `official` trains them.
    """
    own = dict(decoder.model.named_parameters())
    dtypes = {name: own[name].dtype if keep_dtype else torch.float32 for name in names}
    return {name: own[name].detach().to(dtypes[name]).clone().requires_grad_() for name in names}


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
        own[name].data = tensor.detach().to(own[name])
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

    with _in_place_of(decoder.layers, step_over), torch.no_grad():
        decoder.base(**_read(batch), use_cache=False)
    return Stream(entering[0], 0, _attending(caught) if batch.counts_padding else caught, batch)


@contextmanager
def _in_place_of(layers: Iterable[nn.Module], forward: Callable[..., Tensor]) -> Generator[None]:
    """Let these layers do something else inside the block."""
    chosen = list(layers)
    own = [layer.__dict__.get("forward") for layer in chosen]  # a hook's, where a device map put one there
    for layer in chosen:
        layer.forward = forward
    try:
        yield
    finally:
        for layer, before in zip(chosen, own, strict=True):
            del layer.forward
            if before is not None:
                layer.forward = before


def _handed_on(hidden_BTD: Tensor, **_: Any) -> Tensor:
    return hidden_BTD


def read_at(decoder: Decoder, layer: int) -> AbstractContextManager[None]:
    """Inside the block the stream that leaves a layer is the model's last: those above hand it on as it is."""
    return _in_place_of(decoder.layers[layer + 1 :], _handed_on)


@contextmanager
def altered(decoder: Decoder, layers: Iterable[int], alter: Alter) -> Generator[None]:
    """Inside the block, also in the model's own forward, what leaves these layers goes on as `alter` makes it."""

    def altering(layer: int) -> Any:
        return lambda _module, _inputs, hidden_BTD: alter(layer, hidden_BTD)

    hooks = [decoder.layers[layer].register_forward_hook(altering(layer)) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _read(batch: Batch) -> dict[str, Tensor]:
    """What a model is given of a batch."""
    if batch.packing is None:
        return {"input_ids": batch.ids_BT, "attention_mask": batch.mask_BT.long()}
    return {"input_ids": batch.packing.ids_RT, "position_ids": batch.packing.positions_RT}


def _attending(layer_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The layers' inputs with masks in which a query that may see nothing sees everything.

    Padding in front that counts needs a rule. The released code's is transformers 4.46's on a GPU, where a row masked
    as a whole is unmasked as a whole; without one, kernels give uniform attention, zeros or NaN, each its own.
    """
    found: dict[int, Tensor] = {}  # layers share masks

    def unmasked(mask: Tensor | None) -> Tensor | None:
        if mask is None:
            return None
        if id(mask) not in found:
            lowest = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
            blind = (mask <= lowest).all(-1, keepdim=True)
            found[id(mask)] = mask.masked_fill(blind, mask.dtype == torch.bool)
        return found[id(mask)]

    return [inputs | {"attention_mask": unmasked(inputs.get("attention_mask"))} for inputs in layer_inputs]


def _layer_forward(layer: nn.Module, own: Deltas, inputs: dict[str, Any], hidden_BTD: Tensor) -> Tensor:
    return functional_call(layer, own, (hidden_BTD,), inputs) if own else layer(hidden_BTD, **inputs)


def advance(
    decoder: Decoder,
    stream: Stream,
    stop: int,
    *,
    policy: Deltas | None = None,
    alter: Alter | None = None,
    recompute: bool = False,
) -> Stream:
    """Run the stream through the layers up to, not including, layer `stop`.

    Args:
        policy: the trained tensors to use in place of the reference's own; None runs the reference.
        alter: called with (layer, stream leaving it) after each layer.
        recompute: keep each layer's input alone for the backward pass, which runs the layer again.
    """
    hidden_BTD = stream.hidden_BTD
    for index in range(stream.layer, stop):
        prefix = decoder.names[index] + "."
        own = {
            name.removeprefix(prefix): tensor.to(hidden_BTD.dtype)
            for name, tensor in (policy or {}).items()
            if name.startswith(prefix)
        }
        run = partial(_layer_forward, decoder.layers[index], own, stream.layer_inputs[index])
        if recompute and torch.is_grad_enabled():
            hidden_BTD = torch.utils.checkpoint.checkpoint(run, hidden_BTD, use_reentrant=False)
        else:
            hidden_BTD = run(hidden_BTD)
        if alter is not None:
            hidden_BTD = alter(index, hidden_BTD)
    return replace(stream, hidden_BTD=hidden_BTD, layer=stop)


def stream_at(
    decoder: Decoder,
    stream: Stream,
    layer: int,
    *,
    policy: Deltas | None = None,
    alter: Alter | None = None,
    recompute: bool = False,
) -> Float[Tensor, "B T D"]:
    """The residual stream that leaves decoder layer `layer`."""
    return advance(decoder, stream, layer + 1, policy=policy, alter=alter, recompute=recompute).hidden_BTD


def root_mean_squares(
    decoder: Decoder, documents: Sequence[Sequence[int]], layers: Sequence[int], pad_id: int
) -> dict[int, float]:
    """The root mean square of a dimension of the stream that leaves each of these layers, over all real tokens."""
    squares, count = dict.fromkeys(layers, 0.0), 0
    for first in range(0, len(documents), 16):
        batch = pad(documents[first : first + 16], pad_id).to(decoder.device)
        with torch.no_grad():
            stream = embed(decoder, batch)
            for layer in sorted(layers):
                stream = advance(decoder, stream, layer + 1)
                hidden_ND = stream.hidden_BTD[batch.mask_BT.to(stream.hidden_BTD.device)]
                squares[layer] += hidden_ND.double().square().mean(-1).sum().item()
        count += batch.tokens
    return {layer: (total / count) ** 0.5 for layer, total in squares.items()}


def mlp_output_at(
    decoder: Decoder,
    stream: Stream,
    layer: int,
    *,
    policy: Deltas | None = None,
    alter: Alter | None = None,
    recompute: bool = False,
) -> Float[Tensor, "B T D"]:
    """The output of the MLP of decoder layer `layer`, with noise of that layer added to it and not to the stream."""
    caught: list[Tensor] = []
    hook = decoder.layers[layer].mlp.register_forward_hook(lambda _m, _i, output: caught.append(output))  # pyright: ignore
    try:
        before = advance(decoder, stream, layer, policy=policy, alter=alter, recompute=recompute)
        advance(decoder, before, layer + 1, policy=policy)
    finally:
        hook.remove()
    return alter(layer, caught[0]) if alter is not None else caught[0]


def head_hidden(decoder: Decoder, stream: Stream, keep_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "N D"]:
    """The normalised stream at the kept positions, ready for `logits`; the stream has left the last layer."""
    assert stream.layer == len(decoder.layers), "the suffix has not been run"
    assert stream.batch is not None
    return decoder.norm(stream.batch.of(stream.hidden_BTD, keep_BT))


def logits(decoder: Decoder, hidden_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
    """The head's logits, with the architecture's soft cap where it has one."""
    assert decoder.head is not None, "the head was not loaded"
    logits_NV = decoder.head(hidden_ND)
    if decoder.softcap is not None:
        logits_NV = decoder.softcap * torch.tanh(logits_NV / decoder.softcap)
    return logits_NV


TokenValues = Callable[..., Tensor]  # (logits [N, V], extras [N, …]) -> values [N]
WithSlope = Callable[..., tuple[Tensor, Tensor]]  # the same -> values [N], slopes [N, V]; may overwrite the logits


def _chunks(decoder: Decoder, hidden_ND: Tensor) -> list[slice]:
    assert decoder.head is not None, "the head was not loaded"
    weight: Any = decoder.head.weight
    size = max(1, CHUNK[hidden_ND.device.type] // weight.shape[0])
    return [slice(start, start + size) for start in range(0, len(hidden_ND), size)]


class _HeadValues(torch.autograd.Function):
    """Values of tokens and their gradients, chunk by chunk; the logits of a chunk are gone before the next."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, decoder: Decoder, with_slope: WithSlope, *extras_N: Tensor) -> Tensor:
        values, slopes = [], []
        for part in _chunks(decoder, hidden_ND):
            with torch.enable_grad():
                hidden = hidden_ND[part].detach().requires_grad_()
                logits_NV = logits(decoder, hidden)
            values_N, slope_NV = with_slope(logits_NV.detach().float(), *_beside(logits_NV, extras_N, part))
            slopes.append(torch.autograd.grad(logits_NV, hidden, slope_NV.to(logits_NV.dtype))[0])
            values.append(values_N)
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        (slope_ND,) = ctx.saved_tensors
        return (grad_N[:, None].to(slope_ND) * slope_ND, None, None, *(None for _ in ctx.needs_input_grad[3:]))


def head_values(
    decoder: Decoder,
    hidden_ND: Float[Tensor, "N D"],
    value: TokenValues,
    with_slope: WithSlope,
    *extras_N: Tensor,
) -> Float[Tensor, "N"]:
    """`value(logits, *extras)` of each token, differentiable in the hidden states, never holding all logits.

    The values are on the head's device.

    A token's value depends on its own hidden state alone, so its gradient is taken while its logits exist, and the
    backward pass only scales it: one head forward and one head backward in all. Where no gradient is wanted, `value`
    is called in place of `with_slope`.
    """
    if torch.is_grad_enabled() and hidden_ND.requires_grad:
        return _HeadValues.apply(hidden_ND, decoder, with_slope, *extras_N)  # pyright: ignore
    parts = _chunks(decoder, hidden_ND)

    def of_part(part: slice) -> Tensor:
        logits_NV = logits(decoder, hidden_ND[part])
        return value(logits_NV, *_beside(logits_NV, extras_N, part))

    return torch.cat([of_part(part) for part in parts])


def _beside(logits_NV: Tensor, extras_N: tuple[Tensor, ...], part: slice) -> list[Tensor]:
    """A chunk's extras where its logits are: the head may lie on another device than the last layer."""
    return [extra[part].to(logits_NV.device) for extra in extras_N]


def self_check(decoder: Decoder, batch: Batch) -> None:
    """Compare the staged forward with the model's own on one batch.

    Raises:
        ValueError: naming the architecture, if hidden states or logits at real tokens differ by more than rounding.
    """
    inputs = {"input_ids": batch.ids_BT, "attention_mask": batch.mask_BT.long(), "use_cache": False}
    with torch.no_grad():
        own_ND = decoder.base(**inputs).last_hidden_state
        own_ND = own_ND[batch.mask_BT.to(own_ND.device)]
        stream = advance(decoder, embed(decoder, batch), len(decoder.layers))
        staged_ND = head_hidden(decoder, stream, batch.mask_BT)
        compared = [("hidden states", staged_ND, own_ND)]
        if decoder.head is not None:
            own_logits = decoder.model(**inputs).logits
            compared.append(("logits", logits(decoder, staged_ND), own_logits[batch.mask_BT]))
    for what, staged, own in compared:
        own = own.to(staged.device)
        difference, size = (staged.float() - own.float()).abs().max().item(), own.float().abs().max().item()
        if not difference <= 1e-2 * max(size, 1.0):
            raise ValueError(
                f"{_said(decoder.model)}: the staged forward of {type(decoder.model).__name__} differs from its own by "
                f"{difference:.3g} in the {what}"
            )


@patient
def save_deltas(deltas: Deltas, path: Path) -> None:
    """Write the trained tensors as safetensors, by temp-then-rename, on the disk before they have their name."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
    save_file({name: tensor.contiguous() for name, tensor in deltas.items()}, temporary)
    with temporary.open("rb+") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)


@patient
def load_deltas(path: Path) -> Deltas:
    from safetensors.torch import load_file

    with path.open("rb"):  # safetensors says of whatever it cannot open that there is no such file
        pass
    return load_file(path)
