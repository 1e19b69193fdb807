"""The loop of an unlearning trial: the only backward pass and the only optimiser's step."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rna import ends
from rna.corpora import Batch, Corpora, Corpus, Feed, Memory
from rna.decoder import Decoder, Deltas, Pack, model, packer
from rna.settings import LAYER, Settings, Until, generator, seed_of, users_code
from rna.unlearning import rare, sam
from rna.unlearning.checkpoint import Checkpoint, Pace
from rna.unlearning.defence import Drawn, Ground, Sample
from rna.unlearning.noise import GaussianNoise, Normals, standard_deviation
from rna.unlearning.released import ReleasedAdamW
from rna.unlearning.step import Reading, Recall, Setup, Step

# float16 gradients below 6e-8 would vanish, so the losses are raised by a power of two, which changes no other bit.
LOSS_SCALE = {torch.float16: 1024.0, torch.bfloat16: 1.0, torch.float32: 1.0}

MEASURED = 256  # retain documents that tell a layer's root mean square, for relative noise

StepReport = dict[str, float]  # flat names: train/forget_loss, train/grad_norm, …
Interim = Callable[[int, Callable[[], Deltas]], StepReport]  # (step, what gives the tensors as they are then)


class NotFinite(ArithmeticError):
    """A loss or gradient became infinite or NaN; `step` says where (counted from 1)."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"{what} is not finite at step {step}")
        self.step = step


@dataclass
class Feeds:
    """Endless batches: the forget set of each topic, the retain set, and refusals for a method that wants them."""

    forget: dict[str, Feed]
    retain: dict[str, Feed]  # by topic: one that all topics draw from, or in the variant `official` each its own
    refusal: Feed | None
    behind: dict[str, Feed] = field(default_factory=dict)  # by topic of pairs: refusals that follow their questions
    weights_V: Tensor | None = None  # of forget tokens, by id; None: all alike

    def by_name(self) -> dict[str, Feed]:
        named = {f"forget/{topic}": feed for topic, feed in self.forget.items()}
        apart = len({id(feed) for feed in self.retain.values()}) > 1
        named |= {f"retain/{topic}" if apart else "retain": feed for topic, feed in self.retain.items()}
        named |= {f"refusal/{topic}": feed for topic, feed in self.behind.items()}
        return named | ({"refusal": self.refusal} if self.refusal else {})


@dataclass
class Micro:
    """One micro-batch: its share of each loss, so that accumulated gradients are those of one large batch."""

    forget: Batch
    retain: Batch
    refusal: Batch | None
    numbers: dict[str, int]  # by role, of the batch in its feed
    samples: list[Sample]  # what the retain loss reads in place of the retain batch; none without a defence
    readings: list[Reading]  # the same as the model reads it
    shares: list[float] = field(default_factory=list)  # of the forget loss, then of each retain loss

    @property
    def retain_tokens(self) -> list[int]:
        """Of each retain loss, the tokens that it is a mean over."""
        return [sample.tokens for sample in self.samples] or [self.retain.tokens]

    @property
    def tokens(self) -> int:
        return self.forget.tokens + sum(self.retain_tokens) + (self.refusal.tokens if self.refusal else 0)


def feeds(settings: Settings, corpora: Corpora, pad_id: int) -> Feeds:
    """Batches in an order drawn for each corpus from the trial's seed.

    In the variant `official` every topic goes through the retain set from its beginning, so that a round of steps, one
    of each topic, shares a retain batch.
    """

    def draw(corpus: Corpus) -> Feed:
        order = generator(settings.seed, "order", corpus.name)
        return Feed(
            corpus.documents,
            batch_size=settings.train.batch_size,
            pad_id=pad_id,
            generator=order,
            shuffled=settings.data.order == "random",
            official=settings.variant == "official",
            answer_only=corpus.answer_only,
        )

    forget = {topic: draw(corpus) for topic, corpus in corpora.forget.items()}
    shared = draw(corpora.retain)
    retain = {topic: draw(corpora.retain) if settings.variant == "official" else shared for topic in forget}
    behind = {topic: draw(corpus) for topic, corpus in corpora.behind.items()}
    weights_V = None
    if settings.forget_weights.name == "rare":
        texts = [corpus.documents for corpus in corpora.forget.values()]
        weights_V = rare.weights(rare.frequencies(texts), rare.frequencies([corpora.retain.documents]))
    return Feeds(forget, retain, draw(corpora.refusals) if corpora.refusals else None, behind, weights_V)


def prepare(settings: Settings, decoder: Decoder, retain: Feed | None = None) -> Setup:
    """What a trial's steps share, its noise source among it; relative noise is measured on the retain documents."""
    noise = None
    if settings.noise.name != "none":
        std: float | dict[int, float] = standard_deviation(settings.noise.nu, settings.noise.scale)
        if settings.noise.name == "relative":
            assert retain is not None
            documents = retain.documents[:MEASURED]
            measured = model.root_mean_squares(decoder, documents, settings.noise.layers, retain.pad_id)
            std = {layer: std * rms for layer, rms in measured.items()}
        normals = Normals(seed_of(settings.seed, "noise"))
        noise = GaussianNoise(std, tuple(settings.noise.layers), normals, settings.variant == "official")
    return Setup(
        method=settings.method,
        retain=settings.retain,
        layer=settings.layer.unlearn,
        first_trained=min(settings.layer.trained),
        site=settings.layer.site,
        noise=noise,
        seed=settings.seed,
        official=settings.variant == "official",
    )


def train(
    settings: Settings,
    decoder: Decoder,
    source: Feeds,
    on_step: Callable[[int, StepReport], None],
    *,
    tokenizer: Any = None,
    checkpoint: Checkpoint | None = None,
    memory: Memory | None = None,
    interim: Interim | None = None,
    until: Until | None = None,
) -> Deltas:
    """Unlearn, and return the trained tensors in the model's own dtype; the model itself is left as it was.

    `L = forget_loss + α·retain_loss` with the α of the step's topic; step i takes topic i mod n_topics
    (arXiv:2501.19202, Eqs. 2 to 4 and Algorithm 1). AdamW at a constant learning rate, without weight decay, on
    float32 copies of the trained tensors. A training that was interrupted goes on from its checkpoint, and ends with
    the same tensors.

    Args:
        on_step: called with (step, report) after each step, and for the steps a checkpoint brings back.
        tokenizer: the model's; a defence may want it.
        checkpoint: where to save as `Pace` says, and at a cluster's warning or a stop.
        memory: the reference's values on the feeds' batches, which no trial changes.
        interim: judges the policy on the way; what it finds joins the step's report and changes no step.
        until: where `interim` ends the training before its last step.

    Raises:
        NotFinite: before the optimiser's step that would have spread it.
        Interrupted: after a checkpoint, at SIGTERM.
    """
    setup = prepare(settings, decoder, next(iter(source.retain.values())))
    names = model.trained_names(decoder, settings.layer.trained, settings.layer.trainable)
    policy = model.masters(decoder, names, keep_dtype=setup.official)
    options = settings.train
    adamw = ReleasedAdamW if setup.official else torch.optim.AdamW
    optimizer = adamw(policy.values(), lr=options.lr, eps=options.eps, weight_decay=0.0)
    loss_scale = LOSS_SCALE[next(decoder.model.parameters()).dtype]
    topics = list(source.forget)
    pack: Pack = (lambda batch: batch) if setup.official else packer(decoder)
    ground = _ground(settings, decoder, tokenizer, setup, source)
    curve: list[StepReport] = []
    if checkpoint is not None and (state := checkpoint.load()) is not None:
        curve = _restore(state, policy, optimizer, setup, source)
        for step, report in enumerate(curve, 1):
            on_step(step, report)

    pace = Pace(options.checkpoint_every, options.checkpoint_minutes)
    with ends.noted(*ends.WARNINGS, *ends.STOPS) as heard:
        for step in range(len(curve), options.steps):
            if until is not None and until.reached(curve):
                break
            started = time.perf_counter()
            topic = topics[step % len(topics)]
            if ground is not None:
                ground.losses = _losses_of(decoder, policy, setup, topic)
            micros = _draw(settings, source, topic, pack, decoder.device, ground)
            alpha = settings.alpha[topic]

            optimizer.zero_grad()
            norms = {"forget": 0.0, "retain": 0.0}
            steps = [
                Step(
                    decoder,
                    policy,
                    setup,
                    topic,
                    micro.forget,
                    micro.retain,
                    micro.refusal,
                    _recall(memory, source, topic, micro),
                    options.gradient_checkpointing,
                    readings=micro.readings,
                )
                for micro in micros
            ]
            backward = Backward(setup, len(curve) + 1, alpha, loss_scale)
            parts = list(zip(steps, (micro.shares for micro in micros), strict=True))
            if settings.optimizer.name == "sam":
                backward.sharpness_aware(parts, policy, settings.optimizer.rho)
            else:
                backward(parts)
            values = backward.values
            for one in steps:
                for name, norm in one.norms.items():
                    norms[name] += norm.item() / len(micros)
            if loss_scale != 1.0:
                for tensor in policy.values():
                    tensor.grad = tensor.grad / loss_scale if tensor.grad is not None else None
            grad_norm = torch.nn.utils.clip_grad_norm_(policy.values(), options.max_grad_norm or float("inf"))
            if not torch.isfinite(grad_norm):
                raise NotFinite(step + 1, f"grad_norm ({grad_norm.item()})")
            optimizer.step()
            if ground is not None:
                with users_code(settings.defence):
                    settings.defence.learn(ground)

            curve.append(
                {
                    "train/forget_loss": values["forget"],
                    "train/retain_loss": values["retain"],
                    "train/loss": values["forget"] + alpha * values["retain"],
                    "train/grad_norm": grad_norm.item(),
                    **{f"train/{name}_norm": norm for name, norm in norms.items()},
                    "train/tokens_per_second": sum(m.tokens for m in micros) / (time.perf_counter() - started),
                }
            )
            if interim is not None:
                curve[-1] |= interim(step + 1, lambda: model.rounded(decoder, policy))
            on_step(step + 1, curve[-1])
            now = time.perf_counter()
            if checkpoint is not None and step + 1 < options.steps and (pace.due(step + 1, now) or heard.pending):
                checkpoint.save(_state(policy, optimizer, setup, source, curve))
                pace.saved(now, time.perf_counter())
            heard.obey()
    if memory is not None:
        memory.keep()
    return model.rounded(decoder, policy)


def _ground(settings: Settings, decoder: Decoder, tokenizer: Any, setup: Setup, source: Feeds) -> Ground | None:
    """What the trial's defence has to work with, begun; None without one."""
    if not settings.defended:
        return None
    forget = {topic: feed.documents for topic, feed in source.forget.items()}
    retain = next(iter(source.retain.values()))
    ground = Ground(
        decoder,
        tokenizer,
        setup,
        forget,
        retain.documents,
        settings.data.retain.max_length,
        settings.layer.trained,
        retain.pad_id,
    )
    with users_code(settings.defence):
        settings.defence.begin(ground)
    return ground


def _losses_of(decoder: Decoder, policy: Deltas, setup: Setup, topic: str) -> Callable[[Reading], list[float]]:
    """The policy's retain loss on each text of a reading, as the policy is when it is asked for."""

    def losses(reading: Reading) -> list[float]:
        step = Step(decoder, policy, setup, topic, reading.batch, reading.batch, None)
        return step.retain_losses(reading)

    return losses


@dataclass
class Backward:
    """A step's backward passes, which leave their sum in the gradients."""

    setup: Setup
    step: int  # from 1
    alpha: float
    loss_scale: float
    values: dict[str, float] = field(default_factory=lambda: {"forget": 0.0, "retain": 0.0})  # of the losses

    def __call__(self, parts: list[tuple[Step, list[float]]]) -> None:
        """Of micro-batches with the shares of their losses, the graph of each loss gone before the next is built."""
        for step, shares in parts:
            for (name, loss), share in zip(step, shares, strict=True):
                self._of(name, loss, share)

    def sharpness_aware(self, parts: list[tuple[Step, list[float]]], policy: Deltas, rho: float) -> None:
        """The same with the gradient of the forget loss from where `sam.uphill` leads."""
        for step, shares in parts:
            self._of("forget", step.of_forget(), shares[0])
        here = dict(self.values)
        with sam.uphill(policy, rho):
            for step, shares in parts:
                self._of("forget", step.of_forget(), shares[0])
        self.values = here
        for step, shares in parts:
            for loss, share in zip(step.of_retain(), shares[1:], strict=True):
                self._of("retain", loss, share)

    def _of(self, name: str, loss: Tensor, share: float) -> None:
        if not torch.isfinite(loss):
            raise NotFinite(self.step, f"{name}_loss ({loss.item()})")
        self.values[name] += share * loss.item()
        weight = self.loss_scale * share * (1.0 if name == "forget" else self.alpha)
        with users_code(self.setup.method if name == "forget" else self.setup.retain):
            (loss if weight == 1.0 else weight * loss).backward()


def _draw(
    settings: Settings, source: Feeds, topic: str, pack: Pack, device: torch.device, ground: Ground | None
) -> list[Micro]:
    """A step's micro-batches, each batch put in its place. Forget losses of a layer and every retain loss are means
    over tokens, forget losses of logits over sequences: each micro-batch counts by its tokens or its sequences."""

    def place(batch: Batch) -> Batch:
        return pack(batch).to(device)

    micros: list[Micro] = []
    for _ in range(settings.train.grad_accumulation):
        forget, retain = source.forget[topic], source.retain[topic]
        idk = source.behind.get(topic, source.refusal)
        numbers = {"forget": forget.drawn, "retain": retain.drawn, "refusal": idk.drawn if idk else 0}
        chosen = forget.draw()
        if idk is None:
            refusal = None
        elif topic in source.behind:
            longest = settings.data.topics[topic].max_length
            refusal = place(idk.behind(forget, chosen, max_length=longest))
        else:
            refusal = place(next(idk))
        retained = retain.draw()
        kept = retain.batch(retained)
        if topic in settings.data.retain_cut:
            kept = kept.cut(settings.data.retain_cut[topic])
        samples: list[Sample] = []
        if ground is not None:
            texts = [[feed.documents[one] for one in found] for feed, found in ((forget, chosen), (retain, retained))]
            drawn = Drawn(texts[0], texts[1], ground.source("draw", numbers["retain"]))
            with users_code(settings.defence):
                samples = settings.defence.samples(ground, drawn)
        readings = [ground.reading(sample, pack) for sample in samples] if ground is not None else []
        forgotten = forget.batch(chosen)
        if source.weights_V is not None:
            forgotten = replace(forgotten, weights_BT=source.weights_V[forgotten.ids_BT])
        micros.append(Micro(place(forgotten), place(kept), refusal, numbers, samples, readings))
    forget_tokens = sum(micro.forget.tokens for micro in micros)
    retain_tokens = [sum(each) for each in zip(*(micro.retain_tokens for micro in micros), strict=True)]
    for micro in micros:
        by_token = settings.method.reads == LAYER
        weights = [sample.weight for sample in micro.samples] or [1.0]
        parts = zip(weights, micro.retain_tokens, retain_tokens, strict=True)
        micro.shares = [
            micro.forget.tokens / forget_tokens if by_token else 1 / len(micros),
            *(weight * tokens / total for weight, tokens, total in parts),
        ]
    return micros


def _recall(memory: Memory | None, source: Feeds, topic: str, micro: Micro) -> Recall:
    """How a step's losses ask for a value of the reference: from the memory of the batch's feed, or computed."""
    refusal = f"refusal/{topic}" if topic in source.behind else "refusal"
    feeds = {"forget": f"forget/{topic}", "refusal": refusal, "retain": f"retain/{topic}"}

    def recall(kind: str, what: Any, role: str, compute: Callable[[], Tensor]) -> Tensor:
        if memory is None or (role == "retain" and kind != "states"):
            return compute()
        found = memory.entering(what, feeds[role]) if kind == "states" else memory.of(kind, what, feeds[role])
        return found.recall(micro.numbers[role], compute)

    return recall


def _state(policy: Deltas, optimizer: Any, setup: Setup, source: Feeds, curve: list[StepReport]) -> dict[str, Any]:
    """All that the next step depends on."""
    return {
        "policy": {name: tensor.detach() for name, tensor in policy.items()},
        "optimizer": optimizer.state_dict(),
        "noise": setup.noise.normals.drawn if setup.noise else None,
        "kept": setup.kept,
        "feeds": {name: feed.state() for name, feed in source.by_name().items()},
        "curve": curve,
    }


def _restore(state: dict[str, Any], policy: Deltas, optimizer: Any, setup: Setup, source: Feeds) -> list[StepReport]:
    """Stand where the checkpoint was written; its curve tells how far that was."""
    with torch.no_grad():
        for name, tensor in policy.items():
            tensor.copy_(state["policy"][name])
    optimizer.load_state_dict(state["optimizer"])
    if setup.noise:
        setup.noise.normals.drawn = state["noise"]
    setup.kept.update(state["kept"] if "kept" in state else state["coefficients"])  # of an older checkpoint
    for name, feed in source.by_name().items():
        feed.restore(state["feeds"][name])
    return state["curve"]
