"""Whom a probe asks: a trial's model, which it may alter, and the questions that are asked in each of its states."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from random import Random
from typing import Any

from rna.corpora import Cache, Corpora, data
from rna.decoder import Decoder, model
from rna.evaluation import evaluate, foreign, tofu
from rna.evaluation.answers import Answers
from rna.evaluation.evaluate import AS_THEY_ARE, Metrics, Otherwise
from rna.evaluation.questions import REPORT, SELECT, named
from rna.settings import Settings, roles, seed_of

Progress = Callable[[int, int], None]  # (done, total)
COMMON = 0.5  # of the texts, in how many a word tells nothing of which one it is
ALIKE = 0.5  # of a question's other words, than how many more a text has that tells its answer


@dataclass
class Subject:
    """What a probe works on. `asking` is how questions are asked from here on, which a probe may change."""

    settings: Settings
    decoder: Decoder
    tokenizer: Any
    cache: Cache
    progress: Progress
    answers: Answers
    asking: Otherwise = AS_THEY_ARE
    kept: dict[str, Any] = field(default_factory=dict)  # whatever a probe wants to have at hand

    @cached_property
    def corpora(self) -> Corpora:
        """The trial's texts, tokenised."""
        return data.load(self.settings, self.tokenizer, self.cache)

    def texts(self, documents: Iterable[list[int]]) -> list[str]:
        """Documents as text."""
        return [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in documents]

    def source(self, *name: str | int) -> Random:
        """Random numbers for the draw of this name, by the trial's data seed and not by its training's."""
        return Random(seed_of(self.settings.eval.seed, "probe", *name))

    @property
    def names(self) -> list[str]:
        """The tasks that are asked: of the wanted roles, but for TOFU, which is no questions with choices."""
        wanted, options = self.settings.probe.roles, self.settings.eval
        others = tofu.of(options, options.tasks)
        return [
            name for name, task in options.tasks.items() if name not in others and task.role in (wanted or roles.NAMES)
        ]

    @property
    def own_names(self) -> list[str]:
        """Those of them that are our own, whose questions a probe can choose from."""
        others = foreign.of(self.settings.eval, self.names)
        return [name for name in self.names if name not in others]

    def questions(self) -> list[dict[str, Any]]:
        """The rows of our own tasks that are asked, each question once."""
        rows = evaluate.rows_of(self.own_names, self.settings.eval)
        return list({repr(named(row)): row for row in rows}.values())

    def ask(self, state: str) -> dict[str, Metrics]:
        """By task, or part of a perplexity, what is answered in a state of this name, as evaluations tell it."""
        options = self.settings.eval
        self.answers.state = state
        if options.kind == "perplexity":
            held_out = {f"forget_{topic}": corpus.held_out for topic, corpus in self.corpora.forget.items()}
            held_out["retain"] = self.corpora.retain.held_out
            return evaluate.perplexity(self.decoder, self.tokenizer, held_out, options, self.progress, self.answers)
        names = self.names if self.asking == AS_THEY_ARE else self.own_names
        return evaluate.multiple_choice(
            self.decoder, self.tokenizer, names, options, self.progress, None, self.answers, self.asking
        )

    def retrained(self) -> "Subject":
        """The same questions for the model that was trained without what is to be forgotten."""
        choice = replace(self.settings.model, path=self.settings.model.retrained, revision=None)
        decoder, tokenizer = model.load(**choice.loading(), key="model.retrained")
        return replace(self, decoder=decoder, tokenizer=tokenizer)

    def knows(self, state: Mapping[str, Metrics], half: str) -> float:
        """How much of what is to be forgotten is known in a state: the mean accuracy of its forget tasks on a half, or
        the mean of −nll, in nats a token, of its topics' held-out texts, which have no halves."""
        options = self.settings.eval
        if options.kind == "perplexity":
            values = [-state[f"forget_{topic}"]["nll"] for topic in self.settings.data.topics]
        else:
            forget = [name for name in state if options.tasks[name].role == "forget"] or list(state)
            values = [score(state[name].get(half) or state[name]) for name in forget]
        return sum(values) / len(values)

    def strongest(self, states: Mapping[str, Mapping[str, Metrics]]) -> Metrics:
        """See `rna.settings.Probe.summary`."""
        asked = {name: state for name, state in states.items() if name != "before"}
        best = max(asked, key=lambda name: self.knows(asked[name], SELECT))
        before, after = self.knows(states["before"], REPORT), self.knows(asked[best], REPORT)
        return {"state": best, "before": before, "after": after, "gain": after - before}


def score(metrics: Metrics) -> float:
    """What counts of a task's metrics, which lm-eval's own call otherwise."""
    return float(metrics[metrics.get("score", "acc")])


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _common(texts: Sequence[str]) -> set[str]:
    counts = Counter(word for text in texts for word in set(words(text)))
    return {word for word, count in counts.items() if count > COMMON * len(texts)}


def tells(texts: Sequence[str], rows: Sequence[dict[str, Any]], background: Sequence[str]) -> list[list[int]]:
    """Of each text, the places of the questions whose answer it may tell: it has the right choice, word by word, and
    more than half of the question's words that are rare.

    Args:
        background: texts of the same kind; rare is a word that at most half of them have, and of the questions.
    """
    questions = [row.get("unperturbed", row["question"]) for row in rows]
    common = _common(background) | _common(questions)
    asked: list[tuple[set[str], str]] = []
    for question, row in zip(questions, rows, strict=True):
        every = set(words(question))
        asked.append((every - common or every, f" {' '.join(words(row['choices'][row['answer']]))} "))
    found: list[list[int]] = []
    for text in texts:
        said = words(text)
        there, line = set(said), f" {' '.join(said)} "
        found.append(
            [
                place
                for place, (rare, right) in enumerate(asked)
                if right.strip() and right in line and len(rare & there) > ALIKE * len(rare)
            ]
        )
    return found
