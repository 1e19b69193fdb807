"""TOFU (Maini et al., arXiv:2401.06121): what a model says of single answers, for `rna.intervals.tofu` to sum up.

Four sets of questions: those to forget, some to keep, real authors and world facts. Of each question the right answer
is written, and its likelihood, its paraphrase's and those of wrong answers are told token by token. An answer is closed
by the tokenizer's eos, which counts as one of its tokens, as in the released code.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rna.corpora import Row, digest, named_file, read_rows, text_fingerprint, whole
from rna.evaluation import questions
from rna.evaluation.answers import Answers
from rna.intervals import tofu as told
from rna.settings import FORGET_NLL, TOFU, EvalSettings, Settings, TaskSettings, interim_tasks, until_of

if TYPE_CHECKING:
    from rna.decoder import Decoder
    from rna.evaluation.score import Token

Progress = Callable[[int, int], None]  # (done, total)
Metrics = dict[str, Any]

KEY = "eval.tofu_path"
COLUMNS = ("question", "answer", "perturbed_answer")
PARAPHRASED = {told.FORGET: "paraphrased_answer", told.RETAIN: "paraphrased_answer"}  # of the others the answer itself
ROLE = "benchmark"


@dataclass(frozen=True)
class Question:
    """A question with its right answer, as the set has it and in other words, and wrong ones."""

    question: str
    answer: str
    paraphrase: str
    wrong: tuple[str, ...]

    @property
    def answers(self) -> tuple[str, ...]:
        """All of them."""
        return self.answer, self.paraphrase, *self.wrong


def of(options: EvalSettings, names: Iterable[str]) -> list[str]:
    """Which of these entries of `eval.tasks` are TOFU."""
    return [name for name in names if options.tasks[name].task == TOFU]


def check(settings: Settings) -> None:
    """Refuse what has no meaning with TOFU's evaluation; its questions are read. Raises ValueError."""
    options = settings.eval
    for name, task in options.tasks.items():
        if (task.task == TOFU) != (task.role == ROLE):
            role, allowed = (task.role, ROLE) if task.task == TOFU else (ROLE, f"another; {TOFU} alone has it")
            raise ValueError(f"eval.tasks.{name}.role={role}: of task={task.task}; allowed: {allowed}")
    names = of(options, options.tasks)
    if not names:
        return
    if len(names) > 1:
        raise ValueError(f"eval.tasks.{names[1]}.task={TOFU}: is there as {names[0]}; allowed: once")
    neutral = TaskSettings(TOFU, ROLE)
    for field, value in vars(options.tasks[names[0]]).items():
        if value != getattr(neutral, field):
            raise ValueError(f"eval.tasks.{names[0]}.{field}={value}: {TOFU} has no such choice; leave it out")
    if settings.noise.name == "inference":
        raise ValueError(f"noise=inference: averages answers of one token, and those of {TOFU} have more")
    if options.backend != EvalSettings.backend:
        raise ValueError(f"eval.backend={options.backend}: {TOFU} asks for each token's likelihood; allowed: torch")
    if options.interim_every is not None and settings.method.trains and not interim_tasks(options):
        until = until_of(settings)
        if until is None or until.metric != FORGET_NLL:
            raise ValueError(
                f"eval.interim_every={options.interim_every}: {TOFU} is not asked on the way; allowed: null, or beside "
                "it train.until={eval/forget/nll: NATS}"
            )
    load(options)


def load(options: EvalSettings) -> dict[str, tuple[Question, ...]]:
    """The questions of each set, or a sample of `eval.limit` of them.

    Raises:
        ValueError: naming `eval.tofu_path`, for a set that is not there, a row without a column, an answer that is
            no text, or no wrong ones.
    """
    found: dict[str, tuple[Question, ...]] = {}
    for name, file in files(options).items():
        state = file.stat()
        every = _read(str(file), options.tofu_path, PARAPHRASED.get(name), state.st_mtime_ns, state.st_size)
        rows = [_row(name, one) for one in every]
        found[name] = tuple(row["of"] for row in questions.sample(rows, options.limit, options.seed))
    return found


def _row(name: str, one: Question) -> Row:
    """A question as samples are drawn of."""
    return {"subject": name, "question": one.question, "choices": [one.answer], "answer": 0, "of": one}


def files(options: EvalSettings) -> dict[str, Path]:
    """The file of each set: `forget10_perturbed.json` and so on, in any format that texts are read from."""
    names = {told.FORGET: f"{options.tofu_split}_perturbed"} | {name: f"{name}_perturbed" for name in told.SETS[1:]}
    return {name: named_file(options.tofu_path, KEY, stem) for name, stem in names.items()}


@functools.lru_cache(maxsize=16)
def _read(file: str, path: str, paraphrased: str | None, *_state: int) -> tuple[Question, ...]:
    columns = [*COLUMNS, *([paraphrased] if paraphrased else [])]
    made: list[Question] = []
    for where, row in read_rows(file, columns, KEY):
        texts: dict[str, tuple[str, ...]] = {}
        for column, value in row.items():
            several = column == "perturbed_answer"
            parts: list[Any] = value if several and isinstance(value, list) else [value]
            if not parts or not all(isinstance(one, str) and one.strip() for one in parts):
                allowed = "texts, one or more" if several else "a text"
                raise ValueError(f"{KEY}={path}: {where}: {column}={value!r:.200}: must be {allowed}")
            texts[column] = tuple(map(whole, parts))
        answer, wrong = texts["answer"][0], texts["perturbed_answer"]
        made.append(Question(texts["question"][0], answer, texts[paraphrased or "answer"][0], wrong))
    if len(made) < 2:
        raise ValueError(f"{KEY}={path}: {Path(file).name} has {len(made)}, and a standard error needs two questions")
    return tuple(made)


def identity(options: EvalSettings, hashes: Path | None) -> dict[str, Any]:
    """What the outcome depends on beside the model and the chat template."""
    found: dict[str, Any] = {
        "questions": {name: text_fingerprint(str(file), KEY, None, hashes) for name, file in files(options).items()},
        "max_new_tokens": options.max_new_tokens,
        "rouge_score": version("rouge_score"),
    }
    if not options.chat_template:
        found["template"] = options.template
    if options.add_bos_token is not None:
        found["add_bos_token"] = options.add_bos_token
    return found | ({} if options.limit is None else {"limit": options.limit, "seed": options.seed})


def count(options: EvalSettings) -> int:
    """How many questions are asked."""
    return sum(map(len, load(options).values()))


# Asking


def metrics(
    decoder: "Decoder",
    tokenizer: Any,
    harness: Any,
    options: EvalSettings,
    progress: Progress,
    answers: Answers | None = None,
) -> Metrics:
    """TOFU's numbers, `rna.intervals.tofu.NAMES` with their standard errors.

    `questions` holds by set and measure what each question has: `prob`, of real authors and world facts its share of
    all answers', `rouge`, `truth_ratio`, the ratio itself, and of the forget set `extraction_strength`. `asked` names
    the questions, `n` counts them, and `truncated` the texts that were longer than the model reads.

    Args:
        harness: lm-eval's model, which writes the answers.
        answers: those of an evaluation that was interrupted.

    Raises:
        ValueError: for a tokenizer that does not tell where its tokens lie in a text, a model that reads too little.
        NotFinite: if an answer has no finite likelihood.
    """
    from rna.evaluation.score import refuse_not_finite, token_scores

    sets, longest = load(options), int(harness.max_length)
    if options.max_new_tokens >= longest:
        raise ValueError(
            f"eval.max_new_tokens={options.max_new_tokens}: the model reads {longest} tokens, and a question stands "
            "before them; allowed: fewer"
        )
    ask = functools.partial(_asked, harness if options.chat_template else None, options.template or "")
    every = [one for each in sets.values() for one in each]
    pairs = list(dict.fromkeys((one.question, text) for one in every for text in one.answers))
    rows = _encoded(tokenizer, [ask(*pair) for pair in pairs], options.add_bos_token)
    kept = [(ids[-longest:], max(start - max(len(ids) - longest, 0), 1)) for ids, start in rows]
    found = token_scores(decoder, kept, options.batch_size, tokenizer.pad_token_id, progress, answers)
    refuse_not_finite("TOFU", [value for row in found for value, _ in row])
    known = dict(zip(pairs, found, strict=True))
    prompts = [ask(one.question, "")[0] for one in every]
    texts = dict(zip(every, _written(harness, prompts, options), strict=True))
    closing = int(tokenizer.eos_token_id is not None)
    made: dict[str, dict[str, list[float]]] = {}
    for name, each in sets.items():
        measured = [_measured(name, one, known, texts[one], closing) for one in each]
        made[name] = {what: [float(f"{of_one[what]:.9g}") for of_one in measured] for what in measured[0]}
    return {
        "score": None,
        "n": len(every),
        **told.summary(made),
        "questions": made,
        "asked": digest([[name, one.question, one.answer] for name, each in sets.items() for one in each]),
        "truncated": sum(len(ids) > longest for ids, _ in rows),
    }


def _measured(
    name: str, one: Question, known: "Mapping[tuple[str, str], Sequence[Token]]", text: str, closing: int
) -> dict[str, float]:
    """What a question of a set has, from each token of its answers, `closing` of which close them, and from what the
    model wrote."""
    right, paraphrase, *wrong = (_mean(known[one.question, said]) for said in one.answers)
    made = {
        told.PROB: told.probability(right) if name in PARAPHRASED else told.share(right, wrong),
        told.ROUGE: rouge_recall(one.answer, text),
        told.TRUTH: told.truth_ratio(paraphrase, wrong),
    }
    if name == told.FORGET:
        tokens = known[one.question, one.answer]
        made[told.EXTRACTION] = told.extraction_strength([first for _, first in tokens[: len(tokens) - closing]])
    return made


def _mean(tokens: "Sequence[Token]") -> float:
    return math.fsum(value for value, _ in tokens) / len(tokens)


def rouge_recall(answer: str, text: str) -> float:
    """ROUGE-L recall of a text against the answer: their longest common subsequence of stemmed words over the answer's
    words (Lin, 2004; stemmed as in locuslab/tofu)."""
    return float(_scorer().score(answer, text)["rougeL"].recall)


@functools.cache
def _scorer() -> Any:
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)


def _asked(harness: Any | None, template: str, question: str, answer: str) -> tuple[str, str]:
    """What stands before an answer, and the answer: in the template, or behind a user's turn where lm-eval's model has
    a template of its own. What the template has behind it is left to the eos."""
    from rna.corpora import in_template

    if harness is None:
        text, place = in_template(template.partition("{answer}")[0] + "{answer}", question, answer)
        return text[:place], answer
    return harness.apply_chat_template([{"role": "user", "content": question}]), answer


def _encoded(
    tokenizer: Any, pairs: Sequence[tuple[str, str]], add_bos_token: bool | None
) -> list[tuple[list[int], int]]:
    """Tokens of prompt and answer, with the eos, and which of them is the answer's first: the first that holds a
    character of it, as in training."""
    if not tokenizer.is_fast:
        raise ValueError(
            f"eval.tasks: where answers begin only a tokenizer with a tokenizer.json tells, and the model's is a "
            f"{type(tokenizer).__name__}; allowed without {TOFU}"
        )
    begun = tokenizer.bos_token is not None and all(prompt.startswith(tokenizer.bos_token) for prompt, _ in pairs)
    special = not begun if add_bos_token is None or begun else add_bos_token
    texts = [prompt + answer for prompt, answer in pairs]
    made = tokenizer(texts, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
    closing = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    found: list[tuple[list[int], int]] = []
    for (prompt, answer), ids, offsets in zip(pairs, made["input_ids"], made["offset_mapping"], strict=True):
        ids = ids[:-1] if ids[-1:] == closing else ids  # of a tokenizer that closes texts itself
        start = next((place for place, (_, end) in enumerate(offsets) if end > len(prompt)), len(ids))
        if start >= len(ids):
            raise ValueError(f"{KEY}: the model's tokenizer makes no token of the answer {answer!r:.200}")
        found.append((ids + closing, max(start, 1)))
    return found


def _written(harness: Any, prompts: Sequence[str], options: EvalSettings) -> list[str]:
    """What the model goes on with behind each prompt, the likeliest token at each step, up to the eos.

    A space at a prompt's end belongs to the answer's first token, as it does in training.
    """
    from lm_eval.api.instance import Instance

    how = {"until": [], "max_gen_toks": options.max_new_tokens, "do_sample": False}
    asked = [
        Instance(request_type="generate_until", doc={}, arguments=(prompt.rstrip(" "), how), idx=place)
        for place, prompt in enumerate(prompts)
    ]
    return [text.strip() for text in harness.generate_until(asked)]
