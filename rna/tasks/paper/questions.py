"""MMLU's and WMDP's questions as lm-eval data sets: plain, perturbed, with a neutral keyword, or beside one another.

What lm-eval's metadata may say: `lm_eval --metadata '{"mmlu_path": "FOLDER", "keyword": "SARS-CoV-19", "seed": 1}'`.
"""

from collections.abc import Sequence
from typing import Any

from rna.evaluation import questions
from rna.perturb import mix_all, perturb_all, perturb_among


def load(
    source: str,
    subset: str | None = None,
    subject: str | None = None,
    beside: str | None = None,
    mmlu_path: str = "cais/mmlu",
    wmdp_path: str = "cais/wmdp",
    asker: str = questions.LM_EVAL,
    **options: Any,
) -> dict[str, questions.Rows]:
    """The questions that `ask` makes of a source, beside those of another one."""
    paths = {"mmlu": mmlu_path, "wmdp": wmdp_path}
    with questions.in_words_of(asker):
        if beside is not None:
            parts = (questions.of_source(beside, paths[beside], part) for part in questions.subsets(beside))
            options |= {"beside": beside, "others": [row for part in parts for row in part]}
        rows = ask(list(questions.of_source(source, paths[source], subset)), subject=subject, **options)
        if not rows:
            raise ValueError(f"eval.{source}_path={paths[source]}: holds no question of {subject}")
    return {"test": questions.Rows(rows)}


def ask(
    rows: list[dict[str, Any]],
    *,
    subject: str | None = None,
    word: str | None = None,
    position: str = "choice",
    beside: str | None = None,
    others: Sequence[dict[str, Any]] = (),
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
    in the question. Of several `keywords` each question draws one. With `beside`, the text of one of `others` stands
    beside each question."""
    rows = questions.sample([row for row in rows if subject is None or row["subject"] == subject], limit, seed)
    if beside is not None:
        return mix_all(rows, others, seed)
    if word == "keyword" and keywords is not None:
        return perturb_among(rows, keywords, seed, replaced=replaced, policy=policy, position=position)
    chosen = {None: None, "keyword": keyword, "neutral_keyword": neutral_keyword}[word]
    return perturb_all(rows, chosen, seed, replaced=replaced, policy=policy, position=position)


prompt, prompt_in_words = questions.prompt, questions.prompt_in_words  # the tasks' doc_to_text
answers = questions.answers  # doc_to_choice, where not a letter but its text is the answer
