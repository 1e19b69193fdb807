"""The training of the authors' released code, written anew from what it computes: two whole models, whole forwards,
whole logits, losses and optimiser in the model's own dtype, on transformers 4.46's attention masks.

Nothing of `rna`'s training is used but the random numbers, which are handed in.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, logsigmoid, mse_loss

Documents = list[list[int]]


@dataclass
class Script:
    """A run of one of the released scripts."""

    method: str
    retain_loss: str
    numbers: dict[str, float]  # coefficient, or beta
    alpha: list[float]  # by topic
    layer: int
    trained: list[str]
    lr: float
    nu: float
    vectors: list[Tensor]  # by topic: the uniform or Gaussian numbers its direction is made of
    randn: Callable[[Tensor], Tensor]  # like torch.randn_like
    pad_id: int


def batched(documents: Documents, size: int = 4) -> list[Documents]:
    return [documents[start : start + size] for start in range(0, len(documents), size)]


def inputs(documents: Documents, pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids padded in front, and which of them are real."""
    longest = max(map(len, documents))
    ids = torch.tensor([[pad_id] * (longest - len(one)) + one for one in documents])
    real = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in documents])
    return ids, real


def attention(real: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The additive mask that transformers 4.46 gave its kernels on a GPU: rows masked as a whole see everything."""
    if bool(real.all()):
        return None
    longest = real.shape[1]
    lowest = torch.finfo(dtype).min
    mask = torch.zeros(len(real), 1, longest, longest, dtype=dtype)
    hidden = torch.ones(longest, longest).triu(1).bool()[None, None] | (real == 0)[:, None, None, :]
    mask = mask.masked_fill(hidden, lowest)
    return mask * ~(mask == lowest).all(-1, keepdim=True)


def forward(model: nn.Module, ids: Tensor, real: Tensor | None, layer: int, noise: Any = None) -> tuple[Tensor, Tensor]:
    """What leaves the layer, and the logits in float32."""
    layers: Any = model.model.layers
    read: list[Tensor] = []
    hooks = [layers[layer].register_forward_hook(lambda _m, _i, out: read.append(out))]
    if noise is not None:
        hooks.append(layers[layer].register_forward_hook(lambda _m, _i, out: out + noise(out)))
    mask = None if real is None else attention(real, next(model.parameters()).dtype)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
    for hook in hooks:
        hook.remove()
    return read[0], logits


def causal_loss(logits: Tensor, ids: Tensor) -> Tensor:
    """The `loss` of a transformers model whose labels are its input: padding is learnt like text."""
    return cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


class Run:
    """The two models, the optimiser's state, and how far the run is."""

    def __init__(self, model: nn.Module, script: Script) -> None:
        self.policy, self.reference, self.script = copy.deepcopy(model), copy.deepcopy(model), script
        own = dict(self.policy.named_parameters())
        self.tensors = {name: own[name].requires_grad_() for name in script.trained}
        self.first = {name: torch.zeros_like(tensor) for name, tensor in self.tensors.items()}
        self.second = {name: torch.zeros_like(tensor) for name, tensor in self.tensors.items()}
        self.coefficients: dict[int, float] = {}
        self.steps = 0

    def step(self, forget: Documents, retain: Documents, refusals: Documents, topic: int) -> dict[str, Tensor]:
        """One step; returns the gradients that it took."""
        script = self.script
        forget_loss = self._rm_forget(forget, topic) if script.vectors else self._po_forget(forget, refusals)
        retain_loss = self._retain(retain) * script.alpha[topic]
        (forget_loss + retain_loss).backward()
        gradients: dict[str, Tensor] = {}
        self.steps += 1
        size = script.lr * math.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                gradient = gradients[name] = tensor.grad
                self.first[name] = (0.9 * self.first[name]).add(gradient, alpha=1 - 0.9)
                self.second[name] = (0.999 * self.second[name]).addcmul(gradient, gradient, value=1 - 0.999)
                tensor.addcdiv_(self.first[name], self.second[name].sqrt() + 1e-6, value=-size)
                tensor.grad = None
        return gradients

    def _rm_forget(self, documents: Documents, topic: int) -> Tensor:
        script, dtype = self.script, next(self.policy.parameters()).dtype
        ids, real = inputs(documents, script.pad_id)
        vector = script.vectors[topic].to(dtype)
        vector = (vector / vector.norm())[None, None]
        hidden, _ = forward(self.policy, ids, real, script.layer)
        if script.method == "rmu":
            target = vector * script.numbers["coefficient"]
        elif script.method == "adaptive_rmu":
            if topic not in self.coefficients:
                norm = hidden.norm(dim=-1).mean(dim=1).mean(dim=0).item()
                self.coefficients[topic] = norm * script.numbers["beta"]
            target = vector * self.coefficients[topic]
        else:
            with torch.no_grad():
                frozen, _ = forward(self.reference, ids, real, script.layer)
            target = frozen + script.numbers["coefficient"] * vector
        return mse_loss(hidden, target.expand_as(hidden))

    def _po_forget(self, documents: Documents, refusals: Documents) -> Tensor:
        script, beta = self.script, self.script.numbers["beta"]

        def loss(model: nn.Module, texts: Documents, *, masked: bool) -> Tensor:
            ids, real = inputs(texts, script.pad_id)
            return causal_loss(forward(model, ids, real if masked else None, script.layer)[1], ids)

        current = loss(self.policy, documents, masked=True)
        if script.method == "simnpo":
            return -logsigmoid(beta * current).mean() * 2 / beta
        with torch.no_grad():
            reference = loss(self.reference, documents, masked=False)
        if script.method == "npo":
            return -logsigmoid(beta * (current - reference)).mean() * 2 / beta
        refused = -loss(self.policy, refusals, masked=True)  # stands on both sides of the difference
        return -logsigmoid(beta * ((refused + current) - (refused + reference))).mean() * 2 / beta

    def _retain(self, documents: Documents) -> Tensor:
        script = self.script
        ids, real = inputs(documents, script.pad_id)
        noise = (lambda out: script.randn(out) * script.nu) if script.nu else None
        hidden, logits = forward(self.policy, ids, real, script.layer)
        with torch.no_grad():
            if script.vectors:
                frozen, _ = forward(self.reference, ids, real, script.layer)
                target = frozen + noise(frozen) if noise else frozen
            else:
                _, logits_ref = forward(self.reference, ids, None, script.layer, noise)
        if script.vectors:
            return mse_loss(hidden, target)
        log_p, log_q = (log_softmax(one, -1).flatten(0, 1) for one in (logits, logits_ref))
        if script.retain_loss == "mse":
            return mse_loss(log_p.bfloat16(), log_q.bfloat16())
        return kl_div(log_p.bfloat16(), log_q, reduction="batchmean", log_target=True)
