"""Multiple-choice questions: read and checked, split in two halves, sampled, and asked in MMLU's words or their own.

A row has `question`, `subject`, `choices` and `answer`, an index, as in MMLU (arXiv:2009.03300); `half` is ours.
"""

import functools
import hashlib
import json
import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rna.corpora import Row, read_rows, whole

LETTERS = "ABCD"
SELECT, REPORT = "select", "report"
SUBJECT_NAMES = {"bio": "biology", "cyber": "cybersecurity"}  # how WMDP's prompts call them
SOURCES: dict[
    str, tuple[str, dict[str | None, str]]
] = {  # name -> (the settings key of its path, files of the hub's data set by subset)
    "mmlu": ("eval.mmlu_path", {None: "all/test-*.parquet"}),
    "wmdp": ("eval.wmdp_path", {"bio": "wmdp-bio/test-*.parquet", "cyber": "wmdp-cyber/test-*.parquet"}),
}


class Rows(list[Row]):
    """Questions as lm-eval asks for them, in place of a `datasets.Dataset`, which makes each anew at every look."""

    @property
    def features(self) -> Row:
        """The columns by name, as of the first question."""
        return self[0]


@functools.cache
def read_questions(path: str, key: str, pattern: str | None = None, subject: str | None = None) -> tuple[Row, ...]:
    """All questions of a folder, a file or a hub data set, in file order.

    Args:
        subject: of every row, for data sets that have no such column.

    Raises:
        ValueError: naming `key`, the file and the line, for a row without a column, a question or choice that is no
            text or empty, other than four choices, or an answer out of range.
    """
    columns = ["question", "choices", "answer", *([] if subject else ["subject"])]
    rows: list[Row] = []
    for where, row in read_rows(path, columns, key, usual=pattern):
        found = {name: _whole(value) for name, value in row.items()} | ({"subject": subject} if subject else {})
        if fault := _fault(found):
            raise ValueError(f"{key}={path}: {where}: {fault}")
        rows.append({**found, "choices": [str(choice) for choice in found["choices"]], "half": half(found)})
    if not rows:
        raise ValueError(f"{key}={path}: holds no question")
    return tuple(rows)


def _whole(value: Any) -> Any:
    """A column without halves of characters, which no file or hash takes."""
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return whole(value) if isinstance(value, str) else value


def _fault(row: Row) -> str | None:
    """What is wrong with a row, or None."""
    question, choices, answer = row["question"], row["choices"], row["answer"]
    if not isinstance(question, str) or not question.strip():
        return f"question={question!r:.200}: must be text"
    if not isinstance(row["subject"], str):
        return f"subject={row['subject']!r:.200}: must be text"
    if not isinstance(choices, list) or len(choices) != len(LETTERS):
        return f"choices={choices!r:.200}: must be {len(LETTERS)} texts"
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(LETTERS):
        return f"answer={answer!r:.200}: must be 0 to {len(LETTERS) - 1}"
    if not str(choices[answer]).strip():
        return f"choices={choices!r:.200}: the right one is empty"
    return None


def half(row: Row) -> str:
    """`select` or `report`: the half of a question, by a hash of its words, before anything is replaced in it."""
    text = json.dumps([row["subject"], row["question"], [str(choice) for choice in row["choices"]]], ensure_ascii=False)
    return SELECT if hashlib.sha256(text.encode()).digest()[0] % 2 == 0 else REPORT


def named(row: Row) -> list[str]:
    """The words of a question that no perturbation touches: the same in all of its forms."""
    return [row["subject"], row.get("unperturbed", row["question"]), row["choices"][row["answer"]]]


def faults(rows: Iterable[Row]) -> dict[str, int]:
    """How many questions have odd choices: the right one twice, a wrong one twice, an empty one."""
    counts = {"repeated_answer": 0, "repeated_choice": 0, "empty_choice": 0}
    for row in rows:
        choices, right = row["choices"], row["choices"][row["answer"]]
        counts["repeated_answer"] += choices.count(right) > 1
        counts["repeated_choice"] += len(set(choices)) < len(choices) and choices.count(right) == 1
        counts["empty_choice"] += any(not choice.strip() for choice in choices)
    return counts


ABOVE = re.compile(
    r"\b(all|any|both|each|either|some|most|two|more than one)( of)?( the)? above\b"
    r"|^(a combination of |(all|any|both|each|either)( of)? )(the )?(these|those|them|three)( three)?( \w+)?$"
    r"|^(all|any|both)( of)?( the)?( other)? (choices|options|answers)\b|^both$",
    re.IGNORECASE,
)
LETTER = r"\(?[a-d]\b\)?\.?"
NAMED = re.compile(rf"(both |either )?{LETTER}((,|,? and|,? or| &)? {LETTER})+( only)?", re.IGNORECASE)


def of_above(row: Row) -> bool:
    """Whether the right answer asserts other choices, as "All of the above", "Both a and c" or "A and B only" do.

    Such a question is wrong once a choice that it speaks of is replaced. "None of the above" and "neither a nor b"
    stay right, as what is put in is no right answer either. Only the right answer and the question are looked at,
    which no perturbation touches: the verdict is the same before and after. Letters that the question itself names,
    as in "Which vitamins…, B or D?", are not the choices'.
    """
    question = row.get("unperturbed", row["question"])
    right = " ".join(str(row["choices"][row["answer"]]).split()).rstrip(".")
    if ABOVE.search(right):
        return True
    letters: list[str] = re.findall(r"\b[b-dB-D]\b", right) if NAMED.fullmatch(right) else []
    return not all(re.search(rf"\b{letter}\b", question) for letter in letters)


def sample(rows: list[Row], limit: int | None, seed: int) -> list[Row]:
    """About `limit` of the questions, each subject by its share, drawn by a hash of seed and words, in their order."""
    if limit is None or limit >= len(rows):
        return rows
    by_subject: dict[str, list[Row]] = {}
    for row in rows:
        by_subject.setdefault(row["subject"], []).append(row)
    shares = {subject: limit * len(of) / len(rows) for subject, of in by_subject.items()}
    counts = {subject: int(share) for subject, share in shares.items()}
    for subject in sorted(shares, key=lambda name: (counts[name] - shares[name], name))[: limit - sum(counts.values())]:
        counts[subject] += 1

    # The hash may be that of `perturb.draw`, but the order looks at its first bits and the slot is its remainder
    # by 3: below any bound the three remainders are equally common, so a sample says nothing of the slots.
    def drawn(row: Row) -> bytes:
        return hashlib.sha256(json.dumps([seed, row["subject"], row["question"], row["choices"]]).encode()).digest()

    chosen = {id(row) for subject, of in by_subject.items() for row in sorted(of, key=drawn)[: counts[subject]]}
    return [row for row in rows if id(row) in chosen]


def prompt(row: Row) -> str:
    """MMLU's zero-shot prompt, word for word as in lm-eval."""
    subject = SUBJECT_NAMES.get(row["subject"], " ".join(row["subject"].split("_")))
    lines = "".join(f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, row["choices"], strict=True))
    head = f"The following are multiple choice questions (with answers) about {subject}."
    return f"{head}\n\n{row['question'].strip()}\n{lines}Answer:"


def prompt_in_words(row: Row) -> str:
    """A question without its choices, whose texts are the answers to it."""
    return f"Question: {row['question'].strip()}\nAnswer:"


def answers(row: Row) -> list[str]:
    """The choices' texts as answers, without spaces around them; an empty one, which has no length, is a dash."""
    return [str(choice).strip() or "-" for choice in row["choices"]]


def place(source: str, path: str, subset: str | None) -> tuple[str, str | None]:
    """The settings key of a source's path, and which files there hold the subset."""
    key, patterns = SOURCES[source]
    if source == "wmdp" and Path(path).exists():
        return key, f"*{subset}*"  # a folder with a file for each subset
    return key, patterns[subset]


LM_EVAL, RNA = "lm_eval", "rna"  # who asks for questions, and is told in its own words what to give


@contextmanager
def in_words_of(asker: str) -> Generator[None]:
    """Let errors name what a user of plain lm-eval gives: `--metadata '{"mmlu_path": "FOLDER"}'`."""
    try:
        yield
    except ValueError as error:
        if asker == RNA:
            raise
        said = re.sub(
            r"\beval\.(\w+)=([^\s:;,]+)", lambda one: f'--metadata \'{{"{one[1]}": "{one[2]}"}}\'', str(error)
        )
        raise ValueError(said) from None


def subsets(source: str) -> list[str | None]:
    """The subsets of a source, all of which it is made of."""
    return list(SOURCES[source][1])


def of_source(source: str, path: str, subset: str | None, key: str | None = None) -> tuple[Row, ...]:
    """The questions of `mmlu`, or of `wmdp`'s subset `bio` or `cyber`, wherever they lie."""
    named, pattern = place(source, path, subset)
    return read_questions(path, key or named, pattern, subset)


CATEGORIES: dict[str, tuple[str, ...]] = {  # arXiv:2009.03300, as lm-eval groups them
    "stem": (
        *("abstract_algebra", "anatomy", "astronomy", "college_biology", "college_chemistry"),
        *("college_computer_science", "college_mathematics", "college_physics", "computer_security"),
        *("conceptual_physics", "electrical_engineering", "elementary_mathematics", "high_school_biology"),
        *("high_school_chemistry", "high_school_computer_science", "high_school_mathematics"),
        *("high_school_physics", "high_school_statistics", "machine_learning"),
    ),
    "other": (
        *("business_ethics", "clinical_knowledge", "college_medicine", "global_facts", "human_aging", "management"),
        *("marketing", "medical_genetics", "miscellaneous", "nutrition", "professional_accounting"),
        *("professional_medicine", "virology"),
    ),
    "social_sciences": (
        *("econometrics", "high_school_geography", "high_school_government_and_politics"),
        *("high_school_macroeconomics", "high_school_microeconomics", "high_school_psychology"),
        *("human_sexuality", "professional_psychology", "public_relations", "security_studies", "sociology"),
        *("us_foreign_policy",),
    ),
    "humanities": (
        *("formal_logic", "high_school_european_history", "high_school_us_history", "high_school_world_history"),
        *("international_law", "jurisprudence", "logical_fallacies", "moral_disputes", "moral_scenarios"),
        *("philosophy", "prehistory", "professional_law", "world_religions"),
    ),
}
SUBJECTS = tuple(sorted(subject for subjects in CATEGORIES.values() for subject in subjects))
