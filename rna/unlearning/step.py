"""A training step's losses, and the staged pieces that a method makes its loss of.

A step's losses come one after the other, so that the forget graph is gone before the retain graph is built.

Shapes: B sequences, T tokens, D hidden width, N real tokens of a batch laid end to end.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rna.corpora import Batch
from rna.decoder import Decoder, Deltas, SoftTokens, Stream, model
from rna.settings import LAYER, Method, RetainLoss, generator, users_code
from rna.unlearning import losses
from rna.unlearning.noise import GaussianNoise

Draw = Callable[[int, torch.Generator, torch.dtype], Tensor]  # (width, generator, dtype) -> a direction of unit norm
Recall = Callable[[str, Any, str, Callable[[], Tensor]], Tensor]  # (kind, of what, role, how to compute it) -> value


@dataclass(frozen=True)
class Reading:
    """Retain texts as a defence has them read, in policy and reference alike."""

    batch: Batch
    soft: SoftTokens | None = None


@dataclass
class Setup:
    """What stays the same from step to step of one trial."""

    method: Method
    retain: RetainLoss
    layer: int  # the unlearn layer: what reads LAYER reads the stream that leaves it
    first_trained: int
    site: str  # residual | mlp: what is read at the unlearn layer
    noise: GaussianNoise | None
    seed: int = 0
    official: bool = False  # as the authors' released code computes: see `Step`
    directions: dict[tuple[str, str], Tensor] = field(default_factory=dict)  # (drawn by, topic) -> of unit norm
    kept: dict[str, Any] = field(default_factory=dict)  # what a method keeps from step to step, in checkpoints too


def direction(seed: int, topic: str, draw: Draw, width: int, dtype: torch.dtype) -> Float[Tensor, "D"]:
    """A topic's own direction, drawn once from a trial's seed."""
    return draw(width, generator(seed, "direction", topic), dtype)


def check_loss(what: str, loss: Any) -> None:
    """Raises TypeError for what has no gradient to descend."""
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        said = f"{tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        kind = " without a gradient" if isinstance(loss, Tensor) and not loss.requires_grad else ""
        raise TypeError(f"{what} must give one number with a gradient, and gave {said}{kind}")


@dataclass
class Step:
    """One topic's step: iterate for (name, loss) pairs, `forget` first, then a `retain` for each of `readings`.

    Afterwards `norms` holds mean token norms.

    For a method's `forget_loss` there are, by role (`forget`, `retain`, and `refusal` where `Method.refusals` is set):

    - `hidden(role)`, `reference_hidden(role)`: the unlearn layer's states [N, D]; `reference_norms(role)`: their norms
    - `log_probs(role, mean=…)`, `reference_log_probs(role, mean=…)`: log π of each sequence [B]
    - `direction()`: a random direction [D] that is the topic's own through all steps; `distance(hidden, target)`
    - `topic`, `batches[role]` (ids, masks), and `kept`, a dict that lives through all steps and in checkpoints

    Gradients flow through what is the policy's. What is the reference's has none, and is remembered between trials.
    Each is computed when it is asked for: a method that reads LAYER alone never runs the layers above.

    With `setup.official` the values are those of the authors' released code (its batches count padding): a "log-prob"
    is one scalar, the mean over all tokens of the batch; the reference sees no attention mask; log-probabilities are
    rounded to bfloat16, and targets and means of hidden states are in the model's own dtype.
    """

    decoder: Decoder
    policy: Deltas
    setup: Setup
    topic: str
    forget: Batch
    retain: Batch
    refusal: Batch | None
    recall: Recall = lambda _kind, _what, _role, compute: compute()
    recompute: bool = False  # gradient checkpointing
    readings: Sequence[Reading] = ()  # what the retain loss reads; none: the retain batch as it was drawn
    norms: dict[str, Tensor] = field(default_factory=dict)
    _entries: dict[str, Stream] = field(default_factory=dict, init=False, repr=False)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        yield "forget", self.of_forget()
        for loss in self.of_retain():
            yield "retain", loss

    def of_forget(self) -> Tensor:
        """The forget loss."""
        setup = self.setup
        with users_code(setup.method):
            loss = setup.method.official_forget_loss(self) if setup.official else setup.method.forget_loss(self)
            check_loss("forget_loss", loss)
        return loss

    def of_retain(self) -> Iterator[Tensor]:
        """The retain losses, one after the other, once the forget loss is done with."""
        self._entries.clear()
        retain_loss = self._retain_of_layer if self.setup.retain.reads == LAYER else self._retain_of_logits
        for reading in self.readings or [None]:
            with users_code(self.setup.retain):
                loss = retain_loss(reading)
                check_loss("value", loss)
            yield loss

    # What a method may use

    @property
    def batches(self) -> dict[str, Batch]:
        found = {"forget": self.forget, "retain": self.retain}
        return found if self.refusal is None else found | {"refusal": self.refusal}

    @property
    def kept(self) -> dict[str, Any]:
        return self.setup.kept

    def hidden(self, role: str) -> Float[Tensor, "N D"]:
        hidden_ND = self._read(self._entry(role), self.batches[role], policy=True)
        self._note_norm(role, hidden_ND)
        return hidden_ND

    @torch.no_grad()
    def reference_hidden(self, role: str) -> Float[Tensor, "N D"]:
        return self._read(self._entry(role), self.batches[role], policy=False)

    def reference_norms(self, role: str) -> Float[Tensor, "N"]:
        what = [self.setup.layer, self.setup.site]
        return self.recall("norms", what, role, lambda: self.reference_hidden(role).float().norm(dim=-1))

    def log_probs(self, role: str, *, mean: bool = True) -> Float[Tensor, "B"]:
        """log π of each sequence: the sum or mean over its real tokens behind the first."""
        return self._log_probs(self._entry(role), self.batches[role], mean=mean, policy=True, note=role)

    def reference_log_probs(self, role: str, *, mean: bool = True) -> Float[Tensor, "B"]:
        batch = self.batches[role]

        def compute() -> Tensor:
            unmasked = self.setup.official
            start = self._prefix(batch.unmasked(), self.setup.first_trained) if unmasked else self._entry(role)
            return self._log_probs(start, batch, mean=mean, policy=False)

        what: Any = "mean" if mean else "sum"
        found_B = self.recall("log_probs", what if batch.weights_BT is None else [what, "rare"], role, compute)
        return found_B if self.decoder.head is None else found_B.to(next(self.decoder.head.parameters()).device)

    def direction(self, draw: Draw | None = None) -> Float[Tensor, "D"]:
        """The topic's direction, on the unlearn layer's device; in the variant `official` of the model's own dtype.

        Args:
            draw: how it is drawn; None: by `Method.draws`.
        """
        setup, decoder = self.setup, self.decoder
        chosen: Draw = draw or getattr(losses, setup.method.draws or "control_vector")
        where = (chosen.__qualname__, self.topic)  # pyright: ignore[reportFunctionMemberAccess]
        if where not in setup.directions:
            dtype = next(decoder.model.parameters()).dtype if setup.official else torch.float32
            setup.directions[where] = direction(setup.seed, self.topic, chosen, decoder.width, dtype)
        return setup.directions[where].to(next(decoder.layers[setup.layer].parameters()).device)

    def distance(self, hidden_ND: Tensor, target: Tensor) -> Tensor:
        """The mean over forget tokens, by their weights where they have any, and dimensions of squared differences."""
        if self.setup.official:
            return losses.official_representation_mse(hidden_ND, target)
        if self.forget.weights_BT is None:
            return losses.representation_mse(hidden_ND, target)
        weight_N = self.forget.weights_BT[self.forget.mask_BT].to(hidden_ND.device)
        return losses.weighted_representation_mse(hidden_ND, target, weight_N)

    # The retain losses

    @torch.no_grad()
    def retain_losses(self, reading: Reading) -> list[float]:
        """The policy's retain loss on each text, without the noise of RNA."""
        batch, retain, found = reading.batch, self.setup.retain, []
        entry, soft = self._retain_entry(reading), _altering(reading, None)
        ends: list[Tensor] = []  # of reference and policy
        for policy in (None, self.policy):
            if retain.reads == LAYER:
                ends.append(self._read(entry, batch, policy=policy is not None, alter=soft))
            else:
                end = model.advance(self.decoder, entry, len(self.decoder.layers), policy=policy, alter=soft)
                ends.append(model.head_hidden(self.decoder, end, batch.counted_BT))
        counts = batch.counted_BT.sum(1).tolist()
        for reference_ND, policy_ND in zip(*(one.split(counts) for one in ends), strict=True):
            if retain.reads != LAYER:
                reference_ND, policy_ND = (model.logits(self.decoder, one) for one in (reference_ND, policy_ND))
            found.append(retain.value(policy_ND, reference_ND).mean().item())
        return found

    def _retain_of_layer(self, reading: Reading | None) -> Tensor:
        setup, batch = self.setup, reading.batch if reading else self.retain
        entry = self._retain_entry(reading)
        with torch.no_grad():
            target_ND = self._read(entry, batch, policy=False, alter=_altering(reading, self._noise(batch)))
        hidden_ND = self._read(entry, batch, policy=True, alter=_altering(reading, None))
        self._note_norm("retain", hidden_ND)
        if setup.official:
            return setup.retain.official_value(hidden_ND, target_ND)
        return setup.retain.value(hidden_ND, target_ND).mean()

    def _retain_of_logits(self, reading: Reading | None) -> Tensor:
        setup, decoder, batch = self.setup, self.decoder, reading.batch if reading else self.retain
        entry = self._retain_entry(reading)
        with torch.no_grad():
            start = self._prefix(batch.unmasked(), self._shared()) if setup.official else entry
            noised = model.advance(decoder, start, len(decoder.layers), alter=_altering(reading, self._noise(batch)))
            hidden_ref_ND = model.head_hidden(decoder, noised, batch.counted_BT)
        end = self._policy_stream(entry, batch, note="retain", alter=_altering(reading, None))
        hidden_ND = model.head_hidden(decoder, end, batch.counted_BT)
        if setup.official:  # on whole logits, so that every gradient is rounded where the released code rounds it
            with torch.no_grad():
                logits_ref_NV = model.logits(decoder, hidden_ref_ND)
            return setup.retain.official_value(model.logits(decoder, hidden_ND), logits_ref_NV)

        def logits_of(ref_ND: Tensor) -> Tensor:
            with torch.no_grad():
                return model.logits(decoder, ref_ND).float()

        return model.head_values(
            decoder,
            hidden_ND,
            lambda logits_NV, ref_ND: setup.retain.value(logits_NV, logits_of(ref_ND)),
            lambda logits_NV, ref_ND: setup.retain.value_and_slope(logits_NV, logits_of(ref_ND)),
            hidden_ref_ND,
        ).mean()

    # The stages

    def _shared(self) -> int:
        """The layer up to which policy and noised reference are the same on a retain sample."""
        noised = self.setup.noise.layers if self.setup.noise else ()
        return min(self.setup.first_trained, *noised) if noised else self.setup.first_trained

    def _retain_entry(self, reading: Reading | None) -> Stream:
        """Retain texts where policy and noised reference part; a gradient flows from there to soft tokens below."""
        if reading is None:
            return self._prefix_of("retain", self._shared())
        soft, shared = reading.soft, self._shared()
        entry = self._prefix(reading.batch, shared if soft is None else min(soft.first, shared))
        if soft is None:
            return entry
        entry = soft.entering(entry)
        return model.advance(self.decoder, entry, shared, alter=soft.behind(None), recompute=self.recompute)

    def _entry(self, role: str) -> Stream:
        """A batch at the first trained layer, which policy and reference share."""
        if role not in self._entries:
            self._entries[role] = self._prefix_of(role, self.setup.first_trained)
        return self._entries[role]

    def _prefix_of(self, role: str, stop: int) -> Stream:
        """As `_prefix`, remembered between trials."""
        with torch.no_grad():
            start = model.embed(self.decoder, self.batches[role])
            if stop == 0:
                return start
            found_BTD = self.recall("states", stop, role, lambda: model.advance(self.decoder, start, stop).hidden_BTD)
        return replace(start, hidden_BTD=found_BTD, layer=stop)

    def _prefix(self, batch: Batch, stop: int) -> Stream:
        with torch.no_grad():
            return model.advance(self.decoder, model.embed(self.decoder, batch), stop)

    def _read(
        self, entry: Stream, batch: Batch, *, policy: bool, alter: model.Alter | None = None
    ) -> Float[Tensor, "N D"]:
        """The unlearn layer's output at the real tokens."""
        site = model.stream_at if self.setup.site == "residual" else model.mlp_output_at
        deltas = self.policy if policy else None
        hidden_BTD = site(self.decoder, entry, self.setup.layer, policy=deltas, alter=alter, recompute=self.recompute)
        return batch.of(hidden_BTD, batch.counted_BT)

    def _noise(self, batch: Batch) -> model.Alter | None:
        """The noise of RNA, each token's the same whether its batch is padded or packed."""
        noise = self.setup.noise
        if noise is None or batch.packing is None:
            return noise

        def alter(layer: int, hidden: Tensor) -> Tensor:
            return batch.as_read(noise(layer, batch.padded(hidden))) if layer in noise.layers else hidden

        return alter

    def _policy_stream(
        self, entry: Stream, batch: Batch, *, note: str | None, alter: model.Alter | None = None
    ) -> Stream:
        """The policy run to the end, its norm at the unlearn layer noted on the way."""
        run = partial(model.advance, self.decoder, policy=self.policy, alter=alter, recompute=self.recompute)
        middle = run(entry, self.setup.layer + 1)
        if note:
            self._note_norm(note, batch.of(middle.hidden_BTD, batch.counted_BT))
        return run(middle, len(self.decoder.layers))

    def _log_probs(
        self, entry: Stream, batch: Batch, *, mean: bool, policy: bool, note: str | None = None
    ) -> Float[Tensor, "B"]:
        predicts_BT = batch.predicts_BT
        with torch.set_grad_enabled(policy):
            end = (
                self._policy_stream(entry, batch, note=note)
                if policy
                else model.advance(self.decoder, entry, len(self.decoder.layers))
            )
            hidden_ND = model.head_hidden(self.decoder, end, predicts_BT)
            target_N = batch.ids_BT.roll(-1, 1)[predicts_BT]
            if self.setup.official:
                logits_NV = model.logits(self.decoder, hidden_ND)
                return losses.official_log_prob(logits_NV, target_N.to(logits_NV.device))[None]
            values_N = model.head_values(
                self.decoder, hidden_ND, losses.target_log_probs, losses.target_log_probs_and_slope, target_N
            )
        predicts_BT = predicts_BT.to(values_N.device)
        row_N = predicts_BT.nonzero()[:, 0]
        none_B, counts_B = torch.zeros(len(batch.ids_BT), device=values_N.device), predicts_BT.sum(1)
        if batch.weights_BT is not None:
            weight_N = batch.weights_BT.roll(-1, 1).to(values_N.device)[predicts_BT]
            values_N, counts_B = weight_N * values_N, none_B.index_add(0, row_N, weight_N)
        sums_B = none_B.index_add(0, row_N, values_N)
        return sums_B / counts_B if mean else sums_B

    def _note_norm(self, role: str, hidden_ND: Tensor) -> None:
        if role in ("forget", "retain"):
            self.norms[role] = hidden_ND.detach().float().norm(dim=-1).mean()


def _altering(reading: Reading | None, noise: model.Alter | None) -> model.Alter | None:
    """What is done to the stream of retain texts behind each layer."""
    return noise if reading is None or reading.soft is None else reading.soft.behind(noise)
