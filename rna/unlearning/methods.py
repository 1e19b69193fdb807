"""Which forwards feed which loss: representation misdirection (RM) and preference optimisation (PO).

A step's losses come one after the other, so that the forget graph is gone before the retain graph is built.

Shapes: B sequences, T tokens, D hidden width, N real tokens of a batch laid end to end.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rna.corpora import Batch
from rna.decoder import Decoder, Deltas, Stream, model
from rna.settings import RM_METHODS
from rna.unlearning import losses
from rna.unlearning.noise import GaussianNoise


@dataclass
class Trial:
    """What stays the same from step to step of one trial."""

    method: str
    retain_loss: str  # representation | mse | kl
    options: dict[str, Any]  # the method's own numbers: coefficient, beta, gamma, log_prob
    layer: int  # the unlearn layer: RM's losses read the stream that leaves it
    first_trained: int
    site: str  # residual | mlp: what RM's losses read at the unlearn layer
    noise: GaussianNoise | None
    directions: dict[str, Tensor] = field(default_factory=dict)  # topic -> RM's direction of unit norm
    official: bool = False  # as the authors' released code computes: see `StepLosses`
    coefficients: dict[str, float] = field(default_factory=dict)  # official Adaptive RMU: topic -> its coefficient


Recall = Callable[[str, Callable[[], Tensor]], Tensor]  # (forget | refusal, how to compute it) -> the reference's value


@dataclass
class StepLosses:
    """One topic's step: iterate for (name, loss) pairs; afterwards `norms` holds mean token norms.

    With `trial.official` the losses are those of the authors' released code (its batches count padding):
    a "log-prob" is one scalar, the mean over all tokens of the batch; DPO's refusal term is the policy's on both sides
    and so cancels, which leaves NPO; SimNPO has no γ; Adaptive RMU takes its coefficient once, from the policy's mean
    norm at the topic's first step; PO's reference sees no attention mask; log-probabilities are rounded to bfloat16,
    and RM's targets and means are in the model's own dtype.
    """

    decoder: Decoder
    policy: Deltas
    trial: Trial
    topic: str
    forget: Batch
    retain: Batch
    refusal: Batch | None
    recall: Recall = lambda _role, compute: compute()
    recompute: bool = False  # gradient checkpointing
    norms: dict[str, Tensor] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        representation = self.trial.method in RM_METHODS
        yield "forget", self._rm_forget() if representation else self._po_forget()
        yield "retain", self._rm_retain() if representation else self._po_retain()

    def _rm_forget(self) -> Tensor:
        trial, batch = self.trial, self.forget
        entry = self._prefix(batch, trial.first_trained)
        hidden_ND = self._read(entry, batch, policy=True)
        direction_D = trial.directions[self.topic].to(hidden_ND.device)
        if trial.method == "rmu":
            target = losses.rmu_target(direction_D, trial.options["coefficient"])
        elif trial.method == "adaptive_rmu" and trial.official:
            if self.topic not in trial.coefficients:
                norms_BT = hidden_ND.detach().norm(dim=-1).view(batch.ids_BT.shape)
                trial.coefficients[self.topic] = trial.options["beta"] * norms_BT.mean(1).mean().item()
            target = losses.rmu_target(direction_D, trial.coefficients[self.topic])
        elif trial.method == "adaptive_rmu":
            norms_N = self.recall("forget", lambda: self._reference(entry, batch).float().norm(dim=-1))
            target = losses.adaptive_rmu_target(direction_D, norms_N.to(hidden_ND.device), trial.options["beta"])
        else:
            reference_ND = self._reference(entry, batch)
            reference_ND = reference_ND if trial.official else reference_ND.float()
            target = losses.rsv_target(direction_D, reference_ND, trial.options["coefficient"])
        self._note_norm("forget", hidden_ND)
        return self._distance(hidden_ND, target)

    @torch.no_grad()
    def _reference(self, entry: Stream, batch: Batch) -> Float[Tensor, "N D"]:
        return self._read(entry, batch, policy=False)

    def _distance(self, hidden_ND: Tensor, target: Tensor) -> Tensor:
        mse = losses.official_representation_mse if self.trial.official else losses.representation_mse
        return mse(hidden_ND, target)

    def _rm_retain(self) -> Tensor:
        trial, batch = self.trial, self.retain
        entry = self._prefix(batch, self._shared())
        with torch.no_grad():
            target_ND = self._read(entry, batch, policy=False, noise=trial.noise)
        hidden_ND = self._read(entry, batch, policy=True)
        self._note_norm("retain", hidden_ND)
        return self._distance(hidden_ND, target_ND)

    def _po_forget(self) -> Tensor:
        trial, options = self.trial, self.trial.options
        mean = trial.method == "simnpo" or options["log_prob"] == "mean"
        entry = self._prefix(self.forget, trial.first_trained)
        log_probs_B = self._log_probs(entry, self.forget, mean=mean, policy=True, note="forget")
        if trial.method == "simnpo":
            gamma = 0.0 if trial.official else options["gamma"]
            return losses.simnpo(log_probs_B, beta=options["beta"], gamma=gamma)

        def reference_log_probs() -> Tensor:
            start = self._prefix(self.forget.unmasked(), trial.first_trained) if trial.official else entry
            return self._log_probs(start, self.forget, mean=mean, policy=False)

        log_probs_ref_B = self.recall("forget", reference_log_probs).to(log_probs_B.device)
        if trial.method == "npo" or trial.official:
            return losses.npo(log_probs_B, log_probs_ref_B, beta=options["beta"])
        refusal = self.refusal
        assert refusal is not None
        start = self._prefix(refusal, trial.first_trained)
        return losses.dpo(
            log_probs_B,
            log_probs_ref_B,
            self._log_probs(start, refusal, mean=mean, policy=True),
            self.recall("refusal", lambda: self._log_probs(start, refusal, mean=mean, policy=False)).to(
                log_probs_B.device
            ),
            beta=options["beta"],
        )

    def _po_retain(self) -> Tensor:
        trial, decoder, batch = self.trial, self.decoder, self.retain
        entry = self._prefix(batch, self._shared())
        with torch.no_grad():
            start = self._prefix(batch.unmasked(), self._shared()) if trial.official else entry
            noised = model.advance(decoder, start, len(decoder.layers), add_noise=trial.noise)
            hidden_ref_ND = model.head_hidden(decoder, noised, batch.counted_BT)
        hidden_ND = model.head_hidden(decoder, self._policy_stream(entry, batch, note="retain"), batch.counted_BT)
        if trial.official:  # on whole logits, so that every gradient is rounded where the released code rounds it
            mean = {"mse": losses.official_log_prob_mse, "kl": losses.official_log_prob_kl}[trial.retain_loss]
            with torch.no_grad():
                logits_ref_NV = model.logits(decoder, hidden_ref_ND)
            return mean(model.logits(decoder, hidden_ND), logits_ref_NV)
        value, with_slope = {
            "mse": (losses.log_prob_mse, losses.log_prob_mse_and_slope),
            "kl": (losses.log_prob_kl, losses.log_prob_kl_and_slope),
        }[trial.retain_loss]

        def logits_of(ref_ND: Tensor) -> Tensor:
            with torch.no_grad():
                return model.logits(decoder, ref_ND).float()

        return model.head_values(
            decoder,
            hidden_ND,
            lambda logits_NV, ref_ND: value(logits_NV, logits_of(ref_ND)),
            lambda logits_NV, ref_ND: with_slope(logits_NV, logits_of(ref_ND)),
            hidden_ref_ND,
        ).mean()

    def _shared(self) -> int:
        """The layer up to which policy and noised reference are the same on a retain sample."""
        noised = self.trial.noise.layers if self.trial.noise else ()
        return min(self.trial.first_trained, *noised) if noised else self.trial.first_trained

    def _prefix(self, batch: Batch, stop: int) -> Stream:
        with torch.no_grad():
            return model.advance(self.decoder, model.embed(self.decoder, batch), stop)

    def _read(
        self, entry: Stream, batch: Batch, *, policy: bool, noise: GaussianNoise | None = None
    ) -> Float[Tensor, "N D"]:
        """What RM's losses compare: the unlearn layer's output at the real tokens."""
        site = model.stream_at if self.trial.site == "residual" else model.mlp_output_at
        deltas = self.policy if policy else None
        hidden_BTD = site(
            self.decoder, entry, self.trial.layer, policy=deltas, add_noise=noise, recompute=self.recompute
        )
        return hidden_BTD[batch.counted_BT.to(hidden_BTD.device)]

    def _policy_stream(self, entry: Stream, batch: Batch, *, note: str | None) -> Stream:
        """The policy run to the end, its norm at the unlearn layer noted on the way."""
        run = partial(model.advance, self.decoder, policy=self.policy, recompute=self.recompute)
        middle = run(entry, self.trial.layer + 1)
        if note:
            self._note_norm(note, middle.hidden_BTD[batch.counted_BT.to(middle.hidden_BTD.device)])
        return run(middle, len(self.decoder.layers))

    def _log_probs(
        self, entry: Stream, batch: Batch, *, mean: bool, policy: bool, note: str | None = None
    ) -> Float[Tensor, "B"]:
        """log π of each sequence: the sum or mean over its real tokens behind the first."""
        predicts_BT = batch.predicts_BT
        with torch.set_grad_enabled(policy):
            end = (
                self._policy_stream(entry, batch, note=note)
                if policy
                else model.advance(self.decoder, entry, len(self.decoder.layers))
            )
            hidden_ND = model.head_hidden(self.decoder, end, predicts_BT)
            target_N = batch.ids_BT.roll(-1, 1)[predicts_BT]
            if self.trial.official:
                logits_NV = model.logits(self.decoder, hidden_ND)
                return losses.official_log_prob(logits_NV, target_N.to(logits_NV.device))[None]
            values_N = model.head_values(
                self.decoder, hidden_ND, losses.target_log_probs, losses.target_log_probs_and_slope, target_N
            )
        predicts_BT = predicts_BT.to(values_N.device)
        row_N = predicts_BT.nonzero()[:, 0]
        sums_B = torch.zeros(len(batch.ids_BT), device=values_N.device).index_add(0, row_N, values_N)
        return sums_B / predicts_BT.sum(1) if mean else sums_B

    def _note_norm(self, name: str, hidden_ND: Tensor) -> None:
        self.norms[name] = hidden_ND.detach().float().norm(dim=-1).mean()
