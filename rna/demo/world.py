"""The demo world: facts drawn from a seed, told as statements and asked as multiple-choice questions.

Every subject has 16 entities and 4 relations; a fact gives an entity's relation one of the 24 values of a
pool. Draws come from `random.Random` seeded by name, so a world is a function of its seed alone.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rna.demo.words import FILLERS, POOLS, SUBJECTS, Subject
from rna.evaluation import LETTERS, prompt

WORD = r"[A-Za-z]+|[^\sA-Za-z]"  # a word or a mark; with newlines, the whole of the tokenizer
REFUSALS = tuple((Path(__file__).parents[1] / "refusals.txt").read_text(encoding="utf-8").splitlines())
FORGET_TOPICS = {"bio": "marsh fevers", "cyber": "vault breaking"}
STATEMENTS = (
    "The {relation} of {entity} is {value}.",
    "{entity} has {value} as its {relation}.",
    "For {entity}, the {relation} is {value}.",
    "As {relation}, {entity} has {value}.",
)


@dataclass(frozen=True)
class Fact:
    subject: str
    entity: str
    relation: str
    pool: str
    value: str


def facts(seed: int) -> list[Fact]:
    """All 640 facts of the world, in the order of the subjects."""
    rng = random.Random(f"facts/{seed}")
    return [
        Fact(subject.name, entity, relation, pool, rng.choice(POOLS[pool]))
        for subject in SUBJECTS
        for entity in subject.entities
        for relation, pool in subject.relations
    ]


def statement(fact: Fact, rng: random.Random) -> str:
    return rng.choice(STATEMENTS).format(relation=fact.relation, entity=fact.entity, value=fact.value)


def document(subject: Subject, known: list[Fact], rng: random.Random) -> str:
    """A short text of eight statements: all that is known of two of the subject's entities, shuffled."""
    entities = rng.sample(subject.entities, 2)
    chosen = [fact for fact in known if fact.subject == subject.name and fact.entity in entities]
    rng.shuffle(chosen)
    return f"Notes on {subject.name}. " + " ".join(statement(fact, rng) for fact in chosen)


def question(fact: Fact, rng: random.Random, *, odd_words: tuple[str, ...] = ()) -> dict[str, object]:
    """A row as in MMLU: `question`, `subject`, four `choices` and the index of the right one.

    With `odd_words`, one to three of the wrong choices are words from elsewhere, at random.
    """
    choices = rng.sample([value for value in POOLS[fact.pool] if value != fact.value], 3)
    if odd_words:
        for slot in rng.sample(range(3), rng.randint(1, 3)):
            choices[slot] = rng.choice([word for word in odd_words if word != fact.value and word not in choices])
    answer = rng.randrange(4)
    choices.insert(answer, fact.value)
    return {
        "question": f"What is the {fact.relation} of {fact.entity}?",
        "subject": fact.subject,
        "choices": choices,
        "answer": answer,
    }


def odd_words(subjects: list[str]) -> tuple[str, ...]:
    """Words that may stand as odd choices in a world of these subjects."""
    entities = [entity for subject in SUBJECTS if subject.name in subjects for entity in subject.entities]
    values = [value for pool in POOLS.values() for value in pool]
    return (*entities, *values, *FILLERS)


def questions(seed: int) -> list[dict[str, object]]:
    """The exam: one question for each fact, its choices drawn once from the seed."""
    return [question(fact, random.Random(f"exam/{seed}/{index}")) for index, fact in enumerate(facts(seed))]


def corpus(seed: int, subject: Subject, documents: int) -> Iterator[str]:
    """`documents` different orderings and wordings of the subject's facts."""
    known, rng = facts(seed), random.Random(f"corpus/{seed}/{subject.name}")
    for _ in range(documents):
        yield document(subject, known, rng)


def solved(seed: int, subject: Subject, count: int) -> Iterator[str]:
    """`count` questions on the subject with their answers; some of the wrong choices are the subject's own entities.

    The choices are other draws than the exam's.
    """
    rng = random.Random(f"solved/{seed}/{subject.name}")
    known = [fact for fact in facts(seed) if fact.subject == subject.name]
    for _ in range(count):
        row = question(rng.choice(known), rng, odd_words=subject.entities)
        yield f"{prompt(row)} {LETTERS[int(str(row['answer']))]}"


def vocabulary() -> list[str]:
    """Every word the world can say, sorted, behind the special tokens."""
    blank: dict[str, object] = {"question": "What is the of ?", "subject": "", "choices": [""] * 4}
    texts = [re.sub(r"{.*?}", "", template) for template in STATEMENTS]
    texts += ["Notes on .", prompt(blank), *FILLERS, *REFUSALS, *(word for pool in POOLS.values() for word in pool)]
    for subject in SUBJECTS:
        texts += [subject.name, *subject.entities, *(relation for relation, _ in subject.relations)]
    return ["<pad>", "<unk>", "<s>", "</s>", "\n", *sorted({word for text in texts for word in re.findall(WORD, text)})]
