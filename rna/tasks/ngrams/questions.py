"""Retain questions perturbed by mined n-grams, as an lm-eval data set.

Which n-grams, lm-eval's metadata says: `lm_eval --metadata '{"ngrams_path": "FILE", "n": 2, "group": "top"}'`.
"""

import json
from typing import Any

import datasets

from rna import mined, questions
from rna.demo.words import SUBJECTS
from rna.perturb import perturb_with
from rna.settings import BUILTIN


def load(
    source: str,
    ngrams_path: str,
    n: int = 2,
    group: str = "top",
    seed: int = 0,
    replaced: int = 1,
    policy: str = "random",
    limit: int | None = None,
    mmlu_path: str = "cais/mmlu",
    **_: Any,
) -> dict[str, datasets.Dataset]:
    """The questions of MMLU, or of the demo's retain subjects, each with an n-gram of the group among its choices."""
    groups = mined.read_groups(ngrams_path)
    if (n, group) not in groups:
        there = ", ".join(f"n={size} {name}" for size, name in groups)
        raise ValueError(f"eval.ngrams_path={ngrams_path}: holds no n={n} {group}; allowed: {there}")
    rows = questions.sample(
        _demo() if source == "demo" else list(questions.of_source(source, mmlu_path, None)), limit, seed
    )
    made = perturb_with(rows, groups[n, group], seed, replaced=replaced, policy=policy)
    return {"test": datasets.Dataset.from_list(made)}


def _demo() -> list[dict[str, Any]]:
    names = {subject.name for subject in SUBJECTS if subject.role in ("close", "ordinary")}
    rows = [json.loads(line) for line in (BUILTIN / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{**row, "half": questions.half(row)} for row in rows if row["subject"] in names]


prompt = questions.prompt  # the tasks' doc_to_text
