"""The optimiser of the authors' released code: transformers' own AdamW, which is gone from transformers 5."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class ReleasedAdamW(torch.optim.Optimizer):
    """AdamW as transformers 4.46 had it: ε is added before the bias correction, and all is in the tensors' own dtype.

    m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², θ ← θ − η·√(1 − β₂ᵗ)/(1 − β₁ᵗ) · m/(√v + ε) (arXiv:1711.05101,
    Algorithm 2, with ε in another place). torch's AdamW with ε/√(1 − β₂ᵗ) in place of ε is the same in exact numbers;
    with ε = 1e-6 as it stands, its first step on a gradient of 1e-5 is 3.8 times as large. At β₂ = 0.999 v never decays
    in bfloat16: the released code's does not either.
    """

    def __init__(
        self,
        tensors: Iterable[Tensor],
        *,
        lr: float,
        eps: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        assert weight_decay == 0.0, "the released scripts have none"
        super().__init__(tensors, {"lr": lr, "eps": eps, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore
        assert closure is None, "the gradients are there"
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for tensor in group["params"]:
                state: dict[str, Any] = self.state[tensor]
                if not state:
                    state |= {"step": 0, "m": torch.zeros_like(tensor), "v": torch.zeros_like(tensor)}
                state["step"] += 1
                count, m, v, gradient = state["step"], state["m"], state["v"], tensor.grad
                m.mul_(beta1).add_(gradient, alpha=1 - beta1)
                v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                size = group["lr"] * math.sqrt(1 - beta2**count) / (1 - beta1**count)
                tensor.addcdiv_(m, v.sqrt().add_(group["eps"]), value=-size)
