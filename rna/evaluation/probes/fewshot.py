"""Forget questions with their answers in front: is it enough to be reminded?"""

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rna.settings import Probe, at_least

if TYPE_CHECKING:
    from rna.evaluation.subject import Subject
    from rna.settings import Settings


@dataclass(kw_only=True)
class Fewshot(Probe):
    """In front of each question stand others of its subject, each with its right answer, in the task's own form: of the
    other half, and none that asks the same."""

    shots: list[int] = field(default_factory=lambda: [1, 2, 4])
    seed: int = at_least(0, default=0)

    label = "few-shot"

    def check(self, settings: "Settings") -> None:
        if not self.shots or any(count < 1 for count in self.shots):
            raise ValueError(f"probe.shots={self.shots}: must be whole numbers ≥ 1")
        for key, value, allowed in (
            ("eval.kind", settings.eval.kind, "choice"),
            ("eval.chat_template", settings.eval.chat_template, False),
        ):
            if value != allowed:
                raise ValueError(f"probe=fewshot: has no meaning with {key}={value}; allowed with {key}={allowed}")

    def begin(self, subject: "Subject") -> None:
        if not subject.own_names:
            asked = ", ".join(subject.names)
            raise ValueError(f"probe=fewshot: knows the questions of our own tasks alone; these are others: {asked}")

    def states(self, subject: "Subject") -> Generator[str]:
        for count in self.shots:
            subject.asking = replace(subject.asking, shots=count, seed=self.seed)
            yield f"{count} shot{'s' if count > 1 else ''}"
