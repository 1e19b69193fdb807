"""What is judged as it is: the base model, and one that was unlearned elsewhere."""

from dataclasses import dataclass

from rna.settings import Method


@dataclass(kw_only=True)
class Nothing(Method):
    trains = False


@dataclass(kw_only=True)
class Given(Method):
    """An unlearned model's folder, GGUF file or hub id."""

    path: str
    revision: str | None = None  # the hub's; None: its main branch

    trains = False
