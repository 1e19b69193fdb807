"""The loop of an unlearning trial: the only backward pass and the only optimiser's step."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from rna import losses, model
from rna.batch import Batch
from rna.config import RM_METHODS, Settings
from rna.data import Corpora, Corpus, batches
from rna.methods import StepLosses, Trial
from rna.model import Decoder, Deltas
from rna.noise import GaussianNoise, standard_deviation
from rna.seeding import generator

StepReport = dict[str, float]  # flat names: train/forget_loss, train/grad_norm, …


class NotFinite(ArithmeticError):
    """A loss or gradient became infinite or NaN; `step` says where (counted from 1)."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"{what} is not finite at step {step}")
        self.step = step


@dataclass
class Feeds:
    """Endless batches: the forget set of each topic, the retain set, and refusals for DPO."""

    forget: dict[str, Iterator[Batch]]
    retain: Iterator[Batch]
    refusal: Iterator[Batch] | None


def feeds(settings: Settings, corpora: Corpora, pad_id: int) -> Feeds:
    """Batches in an order drawn for each corpus from the trial's seed."""

    def draw(corpus: Corpus) -> Iterator[Batch]:
        order = generator(settings.seed, "order", corpus.name)
        return batches(corpus.documents, batch_size=settings.train.batch_size, pad_id=pad_id, generator=order)

    forget = {topic: draw(corpus) for topic, corpus in corpora.forget.items()}
    return Feeds(forget, draw(corpora.retain), draw(corpora.refusals) if corpora.refusals else None)


def prepare(settings: Settings, decoder: Decoder) -> Trial:
    """Draw the trial's directions and make its noise source."""
    method = settings.method
    draw = losses.gaussian_direction if method.name == "rsv" else losses.control_vector
    directions = {
        topic: draw(decoder.width, generator(settings.seed, "direction", topic)).to(decoder.device)
        for topic in (settings.data.topics if method.name in RM_METHODS else ())
    }
    noise = None
    if settings.noise.name == "rna":
        std = standard_deviation(settings.noise.nu, settings.noise.scale)
        source = generator(settings.seed, "noise", device=decoder.device)
        noise = GaussianNoise(std, tuple(settings.noise.layers), source)
    return Trial(
        method=method.name,
        retain_loss=settings.retain_loss,
        options=method.options(),
        layer=settings.layer.unlearn,
        first_trained=min(settings.layer.trained),
        site=settings.layer.site,
        noise=noise,
        directions=directions,
    )


def train(settings: Settings, decoder: Decoder, source: Feeds, on_step: Callable[[int, StepReport], None]) -> Deltas:
    """Unlearn, and return the trained tensors in the model's own dtype; the model itself is left as it was.

    `L = forget_loss + α·retain_loss` with the α of the step's topic; step i takes topic i mod n_topics
    (arXiv:2501.19202, Eqs. 2 to 4 and Algorithm 1). AdamW at a constant learning rate, without weight decay, on
    float32 copies of the trained tensors.

    Raises:
        NotFinite: before the optimiser's step that would have spread it.
    """
    trial = prepare(settings, decoder)
    names = model.trained_names(decoder, settings.layer.trained, settings.layer.trainable)
    policy = model.masters(decoder, names)
    options = settings.train
    optimizer = torch.optim.AdamW(policy.values(), lr=options.lr, eps=options.eps, weight_decay=0.0)
    topics = list(source.forget)
    for step in range(options.steps):
        started = time.perf_counter()
        topic = topics[step % len(topics)]
        forget, retain = (next(feed).to(decoder.device) for feed in (source.forget[topic], source.retain))
        refusal = next(source.refusal).to(decoder.device) if source.refusal else None
        step_losses = StepLosses(decoder, policy, trial, topic, forget, retain, refusal)
        alpha = settings.alpha[topic]

        optimizer.zero_grad()
        values: dict[str, float] = {}
        for name, loss in step_losses:
            values[name] = loss.item()
            if not torch.isfinite(loss):
                raise NotFinite(step + 1, f"{name}_loss ({values[name]})")
            (loss if name == "forget" else alpha * loss).backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(policy.values(), options.max_grad_norm or float("inf"))
        if not torch.isfinite(grad_norm):
            raise NotFinite(step + 1, f"grad_norm ({grad_norm.item()})")
        optimizer.step()

        tokens = forget.tokens + retain.tokens + (refusal.tokens if refusal else 0)
        on_step(
            step + 1,
            {
                "train/forget_loss": values["forget"],
                "train/retain_loss": values["retain"],
                "train/loss": values["forget"] + alpha * values["retain"],
                "train/grad_norm": grad_norm.item(),
                **{f"train/{name}_norm": norm.item() for name, norm in step_losses.norms.items()},
                "train/tokens_per_second": tokens / (time.perf_counter() - started),
            },
        )
    return model.rounded(decoder, policy)
