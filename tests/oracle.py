"""The plain way: two whole models, whole forwards, whole logits. Slow, large, and easy to believe."""

import copy
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, logsigmoid

from rna.corpora.batch import Batch
from rna.unlearning.step import Setup


@dataclass
class Plain:
    """Policy and reference as separate models, the chosen tensors of the policy trainable."""

    policy: nn.Module
    reference: nn.Module

    @classmethod
    def of(cls, model: nn.Module, trained: list[str]) -> "Plain":
        policy, reference = copy.deepcopy(model), copy.deepcopy(model)
        for name, parameter in policy.named_parameters():
            parameter.requires_grad_(name in trained)
        return cls(policy, reference.requires_grad_(False))


def forward(model: nn.Module, batch: Batch, layer: int, site: str, noise: Any = None) -> tuple[Tensor, Tensor]:
    """What RM reads at `layer`, and the logits, with noise added to the stream behind each noised layer."""
    layers: Any = model.model.layers
    read: list[Tensor] = []
    hooks = []
    for index, module in enumerate(layers):
        if noise is not None and not (site == "mlp" and index == layer):
            hooks.append(module.register_forward_hook(lambda _m, _i, out, index=index: noise(index, out)))
        if index == layer:
            target = module if site == "residual" else module.mlp
            hooks.append(target.register_forward_hook(lambda _m, _i, out: read.append(out)))
    if noise is not None and site == "mlp":
        hooks.append(layers[layer].mlp.register_forward_hook(lambda _m, _i, out: noise(layer, out)))
        hooks.append(layers[layer].mlp.register_forward_hook(lambda _m, _i, out: read.insert(0, out)))
    try:
        logits = model(input_ids=batch.ids_BT, attention_mask=batch.mask_BT.long()).logits
    finally:
        for hook in hooks:
            hook.remove()
    return read[0], logits


def log_prob(logits_BTV: Tensor, batch: Batch, *, mean: bool) -> Tensor:
    rows = []
    for row in range(len(batch.ids_BT)):
        real = batch.mask_BT[row].nonzero().flatten()
        inputs, targets = real[:-1], real[1:]
        values = log_softmax(logits_BTV[row, inputs].float(), -1)[torch.arange(len(inputs)), batch.ids_BT[row, targets]]
        rows.append(values.mean() if mean else values.sum())
    return torch.stack(rows)


def losses(
    plain: Plain, trial: Setup, topic: str, forget: Batch, retain: Batch, refusal: Batch | None
) -> tuple[Tensor, Tensor]:
    """Forget and retain loss of one step, straight from the equations."""
    values = dict(in_turn(plain, trial, topic, forget, retain, refusal))
    return values["forget"], values["retain"]


def in_turn(
    plain: Plain, trial: Setup, topic: str, forget: Batch, retain: Batch, refusal: Batch | None
) -> Iterator[tuple[str, Tensor]]:
    """The two losses one after the other; the reference sees the forget set only where the equation has it."""
    representation = trial.method.name in ("rmu", "adaptive_rmu", "rsv")
    yield "forget", (_rm_forget if representation else _po_forget)(plain, trial, topic, forget, refusal)
    z_r, logits_r = forward(plain.policy, retain, trial.layer, trial.site)
    with torch.no_grad():
        z_ref_r, logits_ref_r = forward(plain.reference, retain, trial.layer, trial.site, trial.noise)
    if representation:
        yield "retain", ((z_r - z_ref_r) ** 2)[retain.mask_BT].mean()
        return
    log_p, log_q = (log_softmax(logits[retain.mask_BT].float(), -1) for logits in (logits_r, logits_ref_r))
    if trial.retain.name == "mse":
        yield "retain", ((log_p - log_q) ** 2).mean()
    else:
        yield "retain", (log_q.exp() * (log_q - log_p)).sum(-1).mean()


def _rm_forget(plain: Plain, trial: Setup, topic: str, forget: Batch, _refusal: Batch | None) -> Tensor:
    z_f, _ = forward(plain.policy, forget, trial.layer, trial.site)
    (u,) = (made for (_, name), made in trial.directions.items() if name == topic)
    options = asdict(trial.method)
    if trial.method.name == "rmu":
        return ((z_f - options["coefficient"] * u) ** 2)[forget.mask_BT].mean()
    with torch.no_grad():
        z_ref_f, _ = forward(plain.reference, forget, trial.layer, trial.site)
    if trial.method.name == "adaptive_rmu":
        target = options["beta"] * z_ref_f.norm(dim=-1, keepdim=True) * u
    else:
        target = z_ref_f + options["coefficient"] * u
    return ((z_f - target) ** 2)[forget.mask_BT].mean()


def _po_forget(plain: Plain, trial: Setup, _topic: str, forget: Batch, refusal: Batch | None) -> Tensor:
    options = asdict(trial.method)
    beta, mean = options["beta"], trial.method.name == "simnpo" or options["log_prob"] == "mean"

    def scored(model: nn.Module, batch: Batch) -> Tensor:
        return log_prob(forward(model, batch, trial.layer, trial.site)[1], batch, mean=mean)

    lp = scored(plain.policy, forget)
    if trial.method.name == "simnpo":
        return -(2 / beta) * logsigmoid(-beta * lp - options["gamma"]).mean()
    with torch.no_grad():
        lp_ref = scored(plain.reference, forget)
    if trial.method.name == "npo":
        return -(2 / beta) * logsigmoid(-beta * (lp - lp_ref)).mean()
    assert refusal is not None
    idk = scored(plain.policy, refusal)
    with torch.no_grad():
        idk_ref = scored(plain.reference, refusal)
    return -(2 / beta) * logsigmoid(beta * ((idk - idk_ref) - (lp - lp_ref))).mean()
