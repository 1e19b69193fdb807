"""MMLU's and WMDP's questions as lm-eval data sets, plain, perturbed, or with a neutral keyword.

What lm-eval's metadata may say: `lm_eval --metadata '{"mmlu_path": "FOLDER", "keyword": "SARS-CoV-19", "seed": 1}'`.
"""

from typing import Any

from rna.evaluation import questions
from rna.perturb import perturb_all, perturb_among


def load(
    source: str,
    subset: str | None = None,
    subject: str | None = None,
    mmlu_path: str = "cais/mmlu",
    wmdp_path: str = "cais/wmdp",
    **options: Any,
) -> dict[str, questions.Rows]:
    """The questions that `ask` makes of a source."""
    path = {"mmlu": mmlu_path, "wmdp": wmdp_path}[source]
    rows = ask(list(questions.of_source(source, path, subset)), subject=subject, **options)
    if not rows:
        raise ValueError(f"eval.{source}_path={path}: holds no question of {subject}")
    return {"test": questions.Rows(rows)}


def ask(
    rows: list[dict[str, Any]],
    *,
    subject: str | None = None,
    word: str | None = None,
    position: str = "choice",
    keyword: str = "SARS-CoV-2",
    neutral_keyword: str = "Lake Geneva",
    seed: int = 0,
    replaced: int = 1,
    policy: str = "random",
    limit: int | None = None,
    keywords: list[str] | None = None,
    **_: Any,
) -> list[dict[str, Any]]:
    """All questions or those of one subject; `word` says which keyword stands in for a wrong choice, or by `position`
    in the question. Of several `keywords` each question draws one."""
    rows = questions.sample([row for row in rows if subject is None or row["subject"] == subject], limit, seed)
    if word == "keyword" and keywords is not None:
        return perturb_among(rows, keywords, seed, replaced=replaced, policy=policy, position=position)
    chosen = {None: None, "keyword": keyword, "neutral_keyword": neutral_keyword}[word]
    return perturb_all(rows, chosen, seed, replaced=replaced, policy=policy, position=position)


prompt = questions.prompt  # the tasks' doc_to_text
