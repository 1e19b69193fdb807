"""Fine-tuning on a few texts: does little training bring back much?"""

import itertools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rna.settings import LAYERS, TEXTS, Probe, above, at_least, one_of

if TYPE_CHECKING:
    from torch import Tensor

    from rna.evaluation.subject import Subject
    from rna.settings import Settings

Step = Callable[[list[list[int]]], None]  # on the token ids of some texts
OWN = ("forget", "retain")  # texts of the trial's own
BACKGROUND = 500  # texts that tell which words are common


@dataclass(kw_only=True)
class Relearn(Probe):
    """k steps of AdamW on −log π, a mean over tokens, of a few texts; asked at each of `steps`, with each of `lr` from
    the unlearned model anew.

    `area` is the mean along the steps, by the trapezoid rule, of what is known: of the learning rate that is best by it
    on the `select` half, on the `report` half. In-domain relearning as in arXiv:2510.07626, with unrelated texts as in
    arXiv:2409.18025.

    Questions whose answer a text of the trial's own tells are not asked: `told` says how many, `documents` which texts
    are drawn. Other texts must tell none.
    """

    text: str = "forget"  # in-domain | retain, unrelated to what is to be forgotten | the path of other texts
    documents: int = above(0, default=8)  # drawn from these, the same for every model
    max_length: int = above(1, default=512)  # tokens of a document of other texts
    steps: list[int] = field(default_factory=lambda: [5, 10, 20, 40])
    lr: list[float] = field(default_factory=lambda: [1e-5, 1e-4])
    tensors: str = one_of("trained", "all", default="trained")  # those that unlearning trained, or all of all layers
    batch_size: int = above(0, default=4)
    seed: int = at_least(0, default=0)

    label = "relearning"

    def needs(self) -> tuple[str, ...]:
        return TEXTS, LAYERS

    def tells(self) -> tuple[str, ...]:
        return (*super().tells(), "area")

    def check(self, settings: "Settings") -> None:
        if not self.steps or sorted(set(self.steps)) != self.steps or self.steps[0] < 1:
            raise ValueError(f"probe.steps={self.steps}: must be whole numbers ≥ 1, each larger than the one before")
        if not self.lr or not all(0 < lr < float("inf") for lr in self.lr):
            raise ValueError(f"probe.lr={self.lr}: must be finite numbers > 0")
        if self.text == "forget" and not settings.data.topics:
            raise ValueError("probe.text=forget: there are no data.topics; allowed: retain, or the path of texts")

    def files(self) -> dict[str, str]:
        return {} if self.text in OWN else {"text": self.text}

    def begin(self, subject: "Subject") -> None:
        self._drawn(subject)

    def run(self, subject: "Subject") -> dict[str, Any]:
        from rna.evaluation.questions import named

        texts, told, where = self._drawn(subject)
        left_out = {repr(named(row)) for row in told}
        subject.asking = replace(subject.asking, asked=lambda row: repr(named(row)) not in left_out)
        subject.kept["texts"] = texts
        found = super().run(subject)
        return found | {"documents": where, "told": len(told), "area": self._area(subject, found["states"])}

    def states(self, subject: "Subject") -> Generator[str]:
        for lr in self.lr:
            with fine_tuned(subject, self._names(subject), lr) as step:
                for number in range(1, self.steps[-1] + 1):
                    step(self._batch(subject.kept["texts"], number))
                    if number in self.steps:
                        yield state_of(lr, number)

    def _names(self, subject: "Subject") -> list[str]:
        from rna.decoder import model

        layer, decoder = subject.settings.layer, subject.decoder
        if self.tensors == "all":
            return model.trained_names(decoder, range(len(decoder.layers)), "all")
        return model.trained_names(decoder, layer.trained, layer.trainable)

    def _drawn(self, subject: "Subject") -> tuple[list[list[int]], list[dict[str, Any]], dict[str, list[int]]]:
        """The texts, the questions that they tell, and which documents of each corpus they are.

        Raises:
            ValueError: where there are fewer, or no question is left.
        """
        from rna.evaluation.subject import tells

        corpora = self._corpora(subject)
        where: dict[str, list[int]] = {}
        for place, (name, documents) in enumerate(corpora.items()):
            count, there = len(range(place, self.documents, len(corpora))), len(documents)
            if count > there:
                raise ValueError(f"probe.documents={self.documents}: {name} has {there}; allowed: fewer")
            where[name] = sorted(subject.source("relearn", self.seed, name).sample(range(there), count))
        drawn = [corpora[name][place] for name, places in where.items() for place in places]
        if subject.settings.eval.kind == "perplexity":
            judged = [ids for corpus in subject.corpora.forget.values() for ids in corpus.held_out]
            if same := sum(ids in judged for ids in drawn):
                raise ValueError(
                    f"probe.text={self.text}: {same} of its {len(drawn)} texts are among those that are held out and "
                    "judged; allowed: others"
                )
            return drawn, [], where
        rows = subject.questions()
        background = [text for documents in corpora.values() for text in subject.texts(documents[:BACKGROUND])]
        by_text = tells(subject.texts(drawn), rows, background)
        told = {place for places in by_text for place in places}
        if told and self.text not in OWN:
            raise ValueError(
                f"probe.text={self.text}: {sum(map(bool, by_text))} of its {len(drawn)} texts tell the answers of "
                f"{len(told)} of the {len(rows)} questions that are asked; allowed: texts that tell none"
            )
        if not any(subject.settings.eval.tasks[name].role == "forget" for name in subject.own_names):
            raise ValueError(
                "probe=relearn: asks forget questions of our own tasks, and there are none among its roles"
            )
        if len(told) == len(rows):
            raise ValueError(
                f"probe.documents={self.documents}: these texts tell the answers of all {len(rows)} questions, so none "
                "is left to ask; allowed: fewer documents"
            )
        return drawn, [rows[place] for place in sorted(told)], where

    def _corpora(self, subject: "Subject") -> dict[str, Any]:
        """The documents from which are drawn, by the name of their corpus."""
        from rna.corpora import Documents, read_texts, tokenise
        from rna.settings import CorpusSettings

        if self.text == "forget":
            return {name: corpus.documents for name, corpus in subject.corpora.forget.items()}
        if self.text == "retain":
            return {"retain": subject.corpora.retain.documents}
        texts = read_texts(CorpusSettings(path=self.text), "probe.text")
        found = tokenise(subject.tokenizer, texts, max_length=self.max_length)
        return {"text": Documents(found["ids"], found["lengths"])}

    def _batch(self, texts: list[list[int]], number: int) -> list[list[int]]:
        """The texts of a step: all of them in turn, in an order of each round's own."""
        from random import Random

        from rna.settings import seed_of

        made: list[list[int]] = []
        first = (number - 1) * self.batch_size
        for place in range(first, first + self.batch_size):
            turn, within = divmod(place, len(texts))
            order = Random(seed_of(self.seed, "relearn", turn)).sample(range(len(texts)), len(texts))
            made.append(texts[order[within]])
        return made

    def _area(self, subject: "Subject", states: dict[str, Any]) -> float:
        from rna.evaluation.questions import REPORT, SELECT

        def area(lr: float, half: str) -> float:
            points = [(0, subject.knows(states["before"], half))]
            points += [(step, subject.knows(states[state_of(lr, step)], half)) for step in self.steps]
            pairs = itertools.pairwise(points)
            return sum((right - left) * (low + high) / 2 for (left, low), (right, high) in pairs) / self.steps[-1]

        return area(max(self.lr, key=lambda lr: area(lr, SELECT)), REPORT)


def state_of(lr: float, step: int) -> str:
    return f"lr {lr:g}, step {step}"


@contextmanager
def fine_tuned(subject: "Subject", names: list[str], lr: float) -> "Generator[Step]":
    """A model whose tensors of these names train: yields a function that makes a step on some texts.

    AdamW's float32 copies and moments are in the host's memory, and each tensor moves as soon as its gradient is there,
    which is then gone: beside the weights a card holds a copy of the tensors, one gradient and the activations.
    """
    import torch

    from rna.decoder import model

    decoder, pad_id = subject.decoder, subject.tokenizer.pad_token_id
    own = dict(decoder.model.named_parameters())
    masters = {name: own[name].detach().to("cpu", torch.float32, copy=True) for name in names}
    optimizers = {name: torch.optim.AdamW([master], lr=lr, weight_decay=0.0) for name, master in masters.items()}

    def moved(name: str, tensor: "Tensor") -> None:
        assert tensor.grad is not None
        masters[name].grad = tensor.grad.to("cpu", torch.float32)
        optimizers[name].step()
        tensor.data.copy_(masters[name])
        masters[name].grad = tensor.grad = None

    def step(texts: list[list[int]]) -> None:
        with torch.enable_grad():
            next_token_loss(decoder, texts, pad_id).backward()

    with model.installed(decoder, {name: own[name].detach().clone() for name in names}):
        hooks = [
            own[name].requires_grad_().register_post_accumulate_grad_hook(lambda tensor, name=name: moved(name, tensor))
            for name in names
        ]
        try:
            yield step
        finally:
            for hook in hooks:
                hook.remove()
            for name in names:
                own[name].requires_grad_(False).grad = None


def next_token_loss(decoder: Any, texts: list[list[int]], pad_id: int) -> "Tensor":
    """−log π, a mean over all tokens of the texts but the first of each."""
    from rna.corpora import pad
    from rna.decoder import model
    from rna.unlearning import losses

    batch = pad(texts, pad_id).to(decoder.device)
    predicts_BT = batch.mask_BT & batch.mask_BT.roll(-1, 1)
    predicts_BT[:, -1] = False
    end = model.advance(decoder, model.embed(decoder, batch), len(decoder.layers))
    hidden_ND = model.head_hidden(decoder, end, predicts_BT)
    target_N = batch.ids_BT.roll(-1, 1)[predicts_BT]
    values_N = model.head_values(
        decoder, hidden_ND, losses.target_log_probs, losses.target_log_probs_and_slope, target_N
    )
    return -values_N.mean()
