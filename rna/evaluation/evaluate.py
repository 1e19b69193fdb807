"""lm-eval in, flat metrics out; and token perplexity for models too small for multiple choice."""

import copy
import functools
import itertools
import json
import logging
import math
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rna import intervals, perturb
from rna.corpora import Corpus, digest, pad
from rna.decoder import Decoder, model, parts_alike
from rna.evaluation import blocks, foreign, tofu
from rna.evaluation.answers import Answers
from rna.evaluation.questions import CATEGORIES, REPORT, RNA, SELECT, faults, named, of_above
from rna.evaluation.score import refuse_not_finite
from rna.settings import JUDGED, TASKS, EvalSettings, seed_of
from rna.unlearning import Smoothing, losses

Metrics = dict[str, Any]  # flat numbers, and the same by half, subject and category
Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Otherwise:
    """How a probe asks the questions of our tasks.

    `asked` says which are; None: all. With `shots`, in front of a question stand so many others of its subject with
    their right answers, drawn by `seed` from the other half where that has any; none has the question's own words. With
    `choices` what is told has, question by question, the scores of the choices by which they are judged.
    """

    asked: Callable[[dict[str, Any]], bool] | None = None
    shots: int = 0
    seed: int = 0
    choices: bool = False

    def of(self, wanted: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """The requests that are made in place of these, by lm-eval's name of their task."""
        return {name: self._shown(self._kept(requests)) for name, requests in wanted.items()}

    def _kept(self, requests: list[Any]) -> list[Any]:
        return requests if self.asked is None else [one for one in requests if self.asked(one.doc)]

    def _shown(self, requests: list[Any]) -> list[Any]:
        by_subject: dict[str, list[Any]] = {}
        for one in requests if self.shots else ():
            by_subject.setdefault(one.doc["subject"], []).append(one)
        heads = {subject: _head([one.args[0] for one in of_one]) for subject, of_one in by_subject.items()}
        for subject, of_one in by_subject.items():
            right = [one for one in of_one if one.idx == one.doc["answer"]]
            by_subject[subject] = sorted(right, key=lambda one: seed_of(self.seed, "shots", subject, one.doc_id))

        def shown(one: Any) -> Any:
            head, right = heads[one.doc["subject"]], by_subject[one.doc["subject"]]
            others = [other for other in right if other.doc["question"] != one.doc["question"]]
            others = [other for other in others if other.doc["half"] != one.doc["half"]] or others
            told = [f"{other.args[0].removeprefix(head)}{other.args[1]}\n\n" for other in others[: self.shots]]
            made = copy.copy(one)
            made.arguments = (f"{head}{''.join(told)}{one.args[0].removeprefix(head)}", one.args[1])
            return made

        return [shown(one) for one in requests] if self.shots else requests


def _head(prompts: Sequence[str]) -> str:
    """The paragraphs that all prompts begin with."""
    columns = zip(*prompts, strict=False)
    alike = "".join(one[0] for one in itertools.takewhile(lambda one: len(set(one)) == 1, columns))
    return alike[: alike.rfind("\n\n") + 2] if "\n\n" in alike else ""


AS_THEY_ARE = Otherwise()


def multiple_choice(
    decoder: Decoder,
    tokenizer: Any,
    names: list[str],
    options: EvalSettings,
    progress: Progress,
    smoothing: Smoothing | None = None,
    answers: Answers | None = None,
    otherwise: Otherwise = AS_THEY_ARE,
) -> dict[str, Metrics]:
    """The accuracy of each of the tasks, judged by lm-eval, whole and by halves, subjects and categories.

    Args:
        names: names of `options.tasks` to run; all of their requests go through the model together.
        smoothing: noise on hidden states, over whose draws the answers' probabilities are averaged.
        answers: those of an evaluation that was interrupted.
        otherwise: how a probe asks, of our own tasks.

    Returns:
        By name: `acc`, where answers are texts lm-eval's `acc_norm`, `acc_stderr`, `n`; the same for the halves under
        `select` and `report`, for each subject under `subjects`, and for MMLU's four categories under `categories`. The
        whole and the halves also have `correct`, a bit for each question in its order, as hex, and `asked`, which names
        these questions whatever is put into their choices; with `options.keywords` also which keyword each question
        drew, `drawn`, in as many hex digits each, and the accuracy by keyword under `keywords`; of mixed prompts also
        where the other question stands, `before`, a bit for each, and the accuracy by this under `places`. Then
        `truncated`, how many prompts were longer than the model's context and lost their beginning; for MMLU's and
        WMDP's questions how many have odd choices. Where the right answers of some speak of other choices, the whole
        and its halves also have how many, `of_above`, and `acc_without_of_above`; with `options.of_above` at
        `leave_out` they are left out of all but `of_above` and `acc_with_of_above`. Of lm-eval's own tasks and a
        user's, what `foreign.metrics` has; of TOFU, `tofu.metrics`.

    Raises:
        NotFinite: if an answer has no finite likelihood.
    """
    others = {name: foreign.load(name, options) for name in foreign.of(options, names)}
    whole = tofu.of(options, names)
    tasks, loaded = _asked([name for name in names if name not in (*others, *whole)], options)
    harness = _harness(decoder, tokenizer, options, progress, smoothing, answers)
    wanted = otherwise.of(_wanted(harness, loaded, options))
    rows = {name: foreign.sampled(one, options) for name, one in others.items()}
    also = {name: foreign.requests(one, harness, options, rows[name]) for name, one in others.items()}
    more = {f"{name}: {leaf}": asked for name, by_leaf in also.items() for leaf, asked in by_leaf.items()}
    _answer(harness, wanted | more)
    found = _verdicts(wanted, loaded)
    cut = getattr(harness, "truncated", set())
    leave_out = options.of_above == "leave_out"
    words = perturb.read_keywords(options.keywords, options.keyword)
    judged = {
        name: _judged(found[task], options.tasks[name].subjects, cut, words, leave_out=leave_out)
        for name, task in tasks.items()
    }
    for name, task in tasks.items() if otherwise.choices else ():
        subjects = options.tasks[name].subjects
        judged[name]["choices"] = [
            [round(value, 6) for value in one.scores]
            for one in found[task]
            if subjects is None or one.row["subject"] in subjects
        ]
    for name, one in others.items():
        judged[name] = foreign.metrics(one, foreign.values(one, also[name]), rows[name], options.seed)
        judged[name]["truncated"] = _truncated(also[name], cut)
    judged |= {name: tofu.metrics(decoder, tokenizer, harness, options, progress, answers) for name in whole}
    return {name: judged[name] for name in names}


def answer_block(
    decoder: Decoder,
    tokenizer: Any,
    names: Sequence[str],
    options: EvalSettings,
    number: int,
    progress: Progress,
    smoothing: Smoothing | None = None,
    answers: Answers | None = None,
) -> Metrics:
    """The answers to one block of the tasks' `select` halves, as `rna.evaluation.blocks` has them.

    Returns:
        `of`, how many blocks there are, and under `tasks` by name: `population`, how many questions all blocks hold;
        of this block `n`, and `correct`, a bit for each in the order of the ranks, as hex, and `asked`, which names
        them.

    Raises:
        ValueError: if a task has no question there.
        NotFinite: if an answer has no finite likelihood.
    """
    tasks, loaded = _asked(list(names), options)
    leave_out = options.of_above == "leave_out"
    order = {
        name: blocks.population(loaded[task].eval_docs, options.tasks[name].subjects, leave_out=leave_out)
        for name, task in tasks.items()
    }
    for name, places in order.items():
        if not places:
            raise ValueError(f"eval.race=true: {name} has no question on the select half; allowed: a larger eval.limit")
    of = blocks.count(max(map(len, order.values())))
    chosen = {name: [places[rank] for rank in blocks.block(number, of, len(places))] for name, places in order.items()}
    harness = _harness(decoder, tokenizer, options, progress, smoothing, answers)
    told: Metrics = {}
    for name, verdicts in _verdicts_at(harness, tasks, loaded, options, chosen).items():
        told[name] = {
            "population": len(order[name]),
            "n": len(verdicts),
            "correct": _hex([one.correct for one in verdicts]),
            "asked": _named([one.row for one in verdicts]),
        }
    return {"of": of, "tasks": told}


def on_the_way(
    decoder: Decoder,
    tokenizer: Any,
    names: list[str],
    options: EvalSettings,
    progress: Progress,
    smoothing: Smoothing | None = None,
) -> dict[str, Metrics]:
    """Of each task, on the first `interim_limit` questions of its `select` half, or of all where that has none: `acc`,
    the accuracy, and `log_prob`, the mean log-probability of the right answer, its letter or its whole text, in nats.

    Raises:
        NotFinite: if an answer has no finite likelihood.
    """
    others = {name: foreign.load(name, options) for name in foreign.of(options, names)}
    tasks, loaded = _asked([name for name in names if name not in others], options)
    leave_out, few = options.of_above == "leave_out", options.interim_limit
    order: dict[str, list[int]] = {}
    for name, task in tasks.items():
        rows = loaded[task].eval_docs
        places = blocks.population(rows, options.tasks[name].subjects, leave_out=leave_out)
        order[name] = (places or list(range(len(rows))))[:few]
    harness = _harness(decoder, tokenizer, options, progress, smoothing)
    told = {
        name: {
            "acc": sum(one.correct for one in verdicts) / len(verdicts),
            "log_prob": sum(one.log_prob for one in verdicts) / len(verdicts),
        }
        for name, verdicts in _verdicts_at(harness, tasks, loaded, options, order).items()
    }
    for name, one in others.items():
        places = blocks.population(one.rows, None, leave_out=False) or list(range(len(one.rows)))
        rows = [one.rows[place] for place in places[:few]]
        answered = foreign.requests(one, harness, options, rows)
        _answer(harness, answered)
        shares = foreign.right(one, foreign.values(one, answered), rows)
        likely = [
            foreign.log_prob(one.leaves[leaf], asked)
            for leaf, of_leaf in answered.items()
            for asked in foreign.by_document(of_leaf).values()
        ]
        told[name] = {"acc": sum(shares) / len(shares), "log_prob": sum(likely) / len(likely)}
    return {name: told[name] for name in names}


@dataclass(frozen=True)
class Verdict:
    """Whether a question was answered right, and the prompt that asked it."""

    row: dict[str, Any]
    correct: bool
    log_probs: tuple[float, ...]  # of the choices
    scores: tuple[float, ...]  # of which the highest is the answer: these, or by character
    prompt: str

    @property
    def log_prob(self) -> float:
        """Of the right answer: its letter, or its whole text."""
        return self.log_probs[self.row["answer"]]


def _verdicts_at(
    harness: Any, tasks: dict[str, str], loaded: dict[str, Any], options: EvalSettings, chosen: dict[str, list[int]]
) -> dict[str, list[Verdict]]:
    """By name, the verdicts on the questions at these places of its task, in their order; what two names share is
    asked once."""
    places = {task: {place for name in tasks if tasks[name] == task for place in chosen[name]} for task in loaded}
    wanted = _wanted(harness, loaded, options, places)
    _answer(harness, wanted)
    found = _verdicts(wanted, loaded)
    by_place = {task: dict(zip(sorted(places[task]), found[task], strict=True)) for task in loaded}
    return {name: [by_place[task][place] for place in chosen[name]] for name, task in tasks.items()}


def _wanted(
    harness: Any, loaded: dict[str, Any], options: EvalSettings, places: Mapping[str, Collection[int]] | None = None
) -> dict[str, list[Any]]:
    """By lm-eval's name, the requests of each of our tasks, of the questions at these places alone where they are
    given."""
    wanted: dict[str, list[Any]] = {}
    for name, task in loaded.items():
        every = _requests(harness, task, options)
        wanted[name] = [one for one in every if places is None or one.doc_id in places[name]]
    return wanted


def _answer(harness: Any, wanted: Mapping[str, list[Any]]) -> None:
    """Answer the requests of all tasks together, those of a kind in one call, as `lm_eval.evaluator.evaluate` does;
    which hashes each document and prompt as well, for a log that nobody reads.

    Raises:
        NotFinite: if an answer has no finite likelihood.
    """
    by_kind: dict[str, list[Any]] = {}
    for request in (request for requests in wanted.values() for request in requests):
        request.resps, request.filtered_resps = [], {}
        by_kind.setdefault(request.request_type, []).extend([request] * (request.repeats or 1))
    for kind, asked in by_kind.items():
        for request, answer in zip(asked, getattr(harness, kind)(asked), strict=True):
            request.resps.append(answer)
    for name, requests in wanted.items():
        told = [(request.request_type, answer) for request in requests for answer in request.resps]
        refuse_not_finite(name, [answer[0] for kind, answer in told if kind == "loglikelihood"])
        refuse_not_finite(name, [answer for kind, answer in told if kind == "loglikelihood_rolling"])


def _verdicts(answered: Mapping[str, list[Any]], loaded: dict[str, Any]) -> dict[str, list[Verdict]]:
    """Of each of our tasks, in the order of its questions, lm-eval's verdict by its rule.

    The likeliest letter is the answer (`acc`). Where answers are texts, it is the one with the highest
    log π(text | prompt) by character (`acc_norm`), as a keyword has not the length of the choice that it replaces.
    """
    found: dict[str, list[Verdict]] = {}
    for name, requests in answered.items():
        task = copy.copy(loaded[name])
        task._instances = requests
        if requests:  # a small task may have none in a block
            task.apply_filters()
        found[name] = []
        for _, of_one in itertools.groupby(requests, lambda request: request.doc_id):
            one = sorted(of_one, key=lambda request: request.idx)
            told = [next(iter(request.filtered_resps.values())) for request in one]
            judged = task.process_results(one[0].doc, told)
            log_probs = tuple(request.resps[0][0] for request in one)
            correct, scores = judged.get("acc"), log_probs
            if correct is None:
                lengths = map(len, task.doc_to_choice(one[0].doc))
                correct, scores = judged["acc_norm"], tuple(map(operator.truediv, log_probs, lengths))
            found[name].append(Verdict(one[0].doc, bool(correct), log_probs, scores, one[0].args[0]))
    return found


def _truncated(asked: Mapping[str, list[Any]], cut: set[str]) -> int:
    """Of how many documents a prompt lost its beginning."""
    return len({(leaf, one.doc_id) for leaf, of_leaf in asked.items() for one in of_leaf if one.args[0] in cut})


def _requests(harness: Any, task: Any, options: EvalSettings) -> list[Any]:
    """A task's requests, built once in a process but where a model's template is in them."""
    if options.chat_template:
        task = copy.copy(task)  # whose own requests stay without it
        task.build_all_requests(apply_chat_template=True, chat_template=harness.apply_chat_template)
    elif not hasattr(task, "_instances"):
        task.build_all_requests()
    return task.instances


def questions_of(names: list[str], options: EvalSettings) -> int:
    """How many questions these tasks ask, all subjects of each."""
    others, whole = foreign.of(options, names), tofu.of(options, names)
    tasks, loaded = _asked([name for name in names if name not in (*others, *whole)], options)
    also = sum(len(foreign.sampled(foreign.load(name, options), options)) for name in others)
    also += len(whole) * tofu.count(options) if whole else 0
    return sum(len(loaded[task].eval_docs) for task in tasks.values()) + also


def rows_of(names: list[str], options: EvalSettings) -> list[dict[str, Any]]:
    """The questions of our own tasks of these names, but for subjects that are not asked."""
    tasks, loaded = _asked(names, options)
    return [
        row
        for name, task in tasks.items()
        for row in loaded[task].eval_docs
        if options.tasks[name].subjects is None or row["subject"] in (options.tasks[name].subjects or [])
    ]


def _asked(names: list[str], options: EvalSettings) -> tuple[dict[str, str], dict[str, Any]]:
    """lm-eval's name of each of `options.tasks`, and its tasks by these."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    fields = ("keyword", "neutral_keyword", "seed", "replaced", "policy", "mmlu_path", "wmdp_path", "ngrams_path")
    metadata: dict[str, Any] = {name: getattr(options, name) for name in fields} | {"asker": RNA}
    if options.limit is not None:
        metadata["limit"] = options.limit
    if options.keywords is not None:
        metadata["keywords"] = perturb.read_keywords(options.keywords, options.keyword)
    tasks: dict[str, str] = {}
    loaded: dict[str, Any] = {}
    for ngram, group in itertools.groupby(names, lambda name: (options.tasks[name].n, options.tasks[name].group)):
        wanted = {name: options.tasks[name].task for name in group}
        suffix = "" if ngram[0] is None else f"_{ngram[0]}_{ngram[1]}"
        tasks |= {name: task + suffix for name, task in wanted.items()}
        own = metadata if ngram[0] is None else metadata | {"n": ngram[0], "group": ngram[1]}
        loaded |= _loaded(list(dict.fromkeys(wanted.values())), own, suffix)
    return tasks, loaded


def _loaded(tasks: list[str], metadata: dict[str, Any], suffix: str) -> dict[str, Any]:
    """lm-eval's tasks under names with a suffix: a task of n-grams comes once for each group of them.

    Those without are kept in this process, as the questions behind them are: evaluations differ in the model.
    """
    if not suffix:
        return _kept(tuple(tasks), json.dumps(metadata))
    return _made(tasks, metadata, suffix)


@functools.lru_cache(maxsize=4)
def _kept(tasks: tuple[str, ...], metadata: str) -> dict[str, Any]:
    return _made(list(tasks), json.loads(metadata), "")


def _made(tasks: list[str], metadata: dict[str, Any], suffix: str) -> dict[str, Any]:
    from lm_eval.tasks import TaskManager

    made: Any = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata).load(tasks)
    for name, task in made["tasks"].items():
        task.config.task = name + suffix
    return {name + suffix: task for name, task in made["tasks"].items()}


def _harness(
    decoder: Decoder,
    tokenizer: Any,
    options: EvalSettings,
    progress: Progress,
    smoothing: Smoothing | None = None,
    answers: Answers | None = None,
) -> Any:
    """lm-eval's model: our own scorer, or vLLM on an exported copy."""
    if options.backend == "torch":
        from rna.evaluation.score import harness

        return harness(decoder, tokenizer, options.batch_size, progress, smoothing, options.add_bos_token, answers)
    import tempfile

    from lm_eval.models import vllm_causallms

    vllm: Any = vllm_causallms.VLLM
    whole: Any = decoder.model
    folder = tempfile.TemporaryDirectory(prefix="rna-vllm-")
    whole.save_pretrained(folder.name)
    tokenizer.save_pretrained(folder.name)
    _refuse_other_tokens(Path(folder.name))
    harness = vllm(
        pretrained=folder.name,
        batch_size=options.batch_size or "auto",
        gpu_memory_utilization=0.45,
        add_bos_token=options.add_bos_token,
    )
    harness.exported = folder  # gone from disk with the harness
    return harness


def _refuse_other_tokens(exported: Path) -> None:
    """vLLM reads a tokenizer as transformers does, by its class, and not as `rna.decoder.tokenizer` does."""
    from transformers import AutoTokenizer

    found: Any = AutoTokenizer.from_pretrained(str(exported))
    if not parts_alike(found, exported / "tokenizer.json"):
        raise ValueError(
            "eval.backend=vllm: would part texts otherwise than the model's tokenizer, as transformers takes it for a "
            f"{type(found).__name__}; allowed: torch"
        )


def _judged(
    verdicts: list[Verdict], subjects: list[str] | None, cut: set[str], words: list[str], *, leave_out: bool
) -> Metrics:
    """lm-eval's verdict on each question, summed up; `words` are the keywords that a question may have drawn."""
    chosen = [one for one in verdicts if subjects is None or one.row["subject"] in subjects]
    if not chosen:
        raise ValueError(f"eval.tasks: there is no question of {', '.join(subjects or [])}")
    every = [(one.correct, one.row, of_above(one.row)) for one in chosen]
    counted = [one for one, (*_, refers) in zip(chosen, every, strict=True) if not (leave_out and refers)]
    rows = [one.row for one in counted]

    def share(wanted: Callable[[dict[str, Any]], bool]) -> Metrics | None:
        return accuracy([one.correct for one in counted if wanted(one.row)])

    halves = {
        half: _part([one for one in every if one[1]["half"] == half], words, leave_out=leave_out)
        for half in (SELECT, REPORT)
    }
    present = list(dict.fromkeys(row["subject"] for row in rows))
    by_subject = {name: share(lambda row, name=name: row["subject"] == name) for name in present}
    by_category = {
        category: share(lambda row, of=of: row["subject"] in of)
        for category, of in CATEGORIES.items()
        if set(of) & set(present)
    }
    whole = _part(every, words, leave_out=leave_out)
    if whole is None:
        raise ValueError("eval.of_above=leave_out: leaves no question of a task; allowed: keep")
    return {
        **whole,
        **{half: metrics for half, metrics in halves.items() if metrics},
        "subjects": by_subject,
        **({"categories": by_category} if len(by_category) > 1 else {}),
        "truncated": sum(one.prompt in cut for one in counted),
        **{name: count for name, count in faults(rows).items() if count},
    }


Judged = tuple[bool, dict[str, Any], bool]  # (correct, row, of_above)


def _part(judged: list[Judged], words: list[str], *, leave_out: bool) -> Metrics | None:
    """All questions or a half of them: the accuracy, and what tells single questions apart."""
    metrics = _accuracy_of([(one, refers) for one, _, refers in judged], leave_out=leave_out)
    if metrics is None:
        return None
    counted = [(one, row) for one, row, refers in judged if not (leave_out and refers)]
    bits, named = _hex([one for one, _ in counted]), _named([row for _, row in counted])
    found = {**metrics, "correct": bits, "asked": named}
    if all("drawn" in row for _, row in counted):
        by_word = [[one for one, row in counted if row["drawn"] == number] for number in range(len(words))]
        found["drawn"] = _drawn([row["drawn"] for _, row in counted], len(words))
        found["keywords"] = {word: accuracy(of) for word, of in zip(words, by_word, strict=True) if of}
    if all("place" in row for _, row in counted):
        by_place = {place: [one for one, row in counted if row["place"] == place] for place in perturb.PLACES}
        found["before"] = _hex([row["place"] == "before" for _, row in counted])
        found["places"] = {place: accuracy(of) for place, of in by_place.items() if of}
    return found


def _hex(correct: Sequence[bool]) -> str:
    """A bit for each question, in their order."""
    bits = "".join("01"[one] for one in correct)
    return f"{int(bits, 2):0{-(-len(bits) // 4)}x}" if bits else ""


def _named(rows: Sequence[dict[str, Any]]) -> str:
    """A hash of questions and right answers, which no perturbation touches: one name in all of their forms."""
    return digest([named(row) for row in rows])


def _drawn(numbers: Sequence[int], count: int) -> str:
    """Numbers below `count` in as many hex digits each."""
    return "".join(f"{number:0{len(f'{count - 1:x}')}x}" for number in numbers)


def _accuracy_of(judged: list[tuple[bool, bool]], *, leave_out: bool) -> Metrics | None:
    """Accuracy from (correct, of_above), and beside it what it is without these, or with them where they are left out.

    None where no question is left.
    """
    count = sum(refers for _, refers in judged)
    whole, rest = accuracy([one for one, _ in judged]), accuracy([one for one, refers in judged if not refers])
    shown, other, name = (rest, whole, "acc_with_of_above") if leave_out else (whole, rest, "acc_without_of_above")
    if shown is None or not count:
        return shown
    return {**shown, "of_above": count, **({name: other["acc"]} if other else {})}


def accuracy(correct: list[bool]) -> Metrics | None:
    """Mean and standard error as lm-eval has them: the sample's deviation over the root of its size."""
    count = len(correct)
    if not count:
        return None
    mean = sum(correct) / count
    stderr = math.sqrt(mean * (1 - mean) / (count - 1)) if count > 1 else 0.0
    return {"acc": mean, "acc_stderr": stderr, "n": count}


@dataclass
class Clustered:
    """A mean over tokens whose standard error counts documents, not tokens, as independent."""

    sums: list[float]
    counts: list[int]

    def metrics(self) -> Metrics:
        """`nll` (nats a token) and `ppl` = exp(nll), each with its standard error."""
        total = sum(self.counts)
        mean = sum(self.sums) / total
        residuals = [value - mean * count for value, count in zip(self.sums, self.counts, strict=True)]
        documents = len(residuals)
        spread = sum(residual**2 for residual in residuals) * documents / max(documents - 1, 1)
        stderr = math.sqrt(spread) / total
        ppl = math.exp(min(mean, 700.0))
        return {"nll": mean, "nll_stderr": stderr, "ppl": ppl, "ppl_stderr": ppl * stderr, "n": documents}

    def parts(self) -> Metrics:
        """The summed loss of each document, in nats, and its tokens."""
        return {"losses": [round(value, 6) for value in self.sums], "tokens": list(self.counts)}

    def only(self, number: int, drawn: Sequence[int]) -> "Clustered":
        """The documents that drew this number."""
        kept = [place for place, one in enumerate(drawn) if one == number]
        return Clustered([self.sums[place] for place in kept], [self.counts[place] for place in kept])


def token_losses(
    decoder: Decoder, documents: Iterable[list[int]], starts: Iterable[int], *, batch_size: int, pad_id: int
) -> Clustered:
    """−log π of the tokens of each document from its start on (never the first token, which nothing predicts)."""
    found = Clustered([], [])
    rows = [(ids, max(start, 1)) for ids, start in zip(documents, starts, strict=True)]
    for first in range(0, len(rows), batch_size):
        chunk = rows[first : first + batch_size]
        batch = pad([ids for ids, _ in chunk], pad_id).to(decoder.device)
        predicts_BT = torch.zeros_like(batch.mask_BT)
        for row, (ids, start) in enumerate(chunk):
            predicts_BT[row, start - 1 : len(ids) - 1] = True
        with torch.no_grad():
            end = model.advance(decoder, model.embed(decoder, batch), len(decoder.layers))
            hidden_ND = model.head_hidden(decoder, end, predicts_BT)
            target_N = batch.ids_BT.roll(-1, 1)[predicts_BT]
            values_N = model.head_values(
                decoder, hidden_ND, losses.target_log_probs, losses.target_log_probs_and_slope, target_N
            ).double()
        parts = values_N.split(predicts_BT.sum(1).tolist())
        found.sums += [-part.sum().item() for part in parts]
        found.counts += [len(part) for part in parts]
    return found


def forget_nll(decoder: Decoder, forget: Mapping[str, Corpus], few: int, *, batch_size: int, pad_id: int) -> float:
    """−log π a token, in nats, of what is trained to be forgotten: the mean over topics of each one's mean over the
    tokens that its forget loss counts, of its first `few` training documents.

    Raises:
        NotFinite: if a document has no finite likelihood.
    """
    means: list[float] = []
    for topic, corpus in forget.items():
        documents = corpus.documents[:few]
        answers = documents.starts if corpus.answer_only else None
        starts = [0] * len(documents) if answers is None else answers.tolist()
        found = token_losses(decoder, documents, starts, batch_size=batch_size, pad_id=pad_id)
        refuse_not_finite(f"forget/{topic}", found.sums)
        means.append(found.metrics()["nll"])
    return sum(means) / len(means)


def perplexity(
    decoder: Decoder,
    tokenizer: Any,
    held_out: Mapping[str, Sequence[list[int]]],
    options: EvalSettings,
    progress: Progress,
    answers: Answers | None = None,
) -> dict[str, Metrics]:
    """Perplexity on held-out text, and on retain text behind an inserted forget keyword and a neutral one.

    `retain_after`, `perturbed` and `neutral` judge the same tokens: those behind the place of insertion, with
    nothing, a forget keyword, or the neutral keyword put in there. Of several forget keywords each document draws one:
    `drawn` tells which, and `keywords` the loss by keyword. `losses` and `tokens` are those of each document, and
    `asked` names what was judged, so that another model's are compared document by document.
    `change` is the mean change of the log-loss of these tokens, in nats a token, from nothing put in; `change_low` and
    `change_high` are its 95 % interval, of `rna.intervals`.

    Raises:
        ValueError: if no held-out document is long enough.
        NotFinite: if a document has no finite likelihood.
    """
    corpora = {
        role: list(itertools.islice((ids for ids in documents if len(ids) >= JUDGED), options.max_documents))
        for role, documents in held_out.items()
    }
    for role, documents in corpora.items():
        if len(documents) < 2:
            raise ValueError(
                f"eval.kind=perplexity: {len(documents) or 'no'} held-out document of {JUDGED} tokens or more in "
                f"'{role}', and an interval needs 2; give longer documents"
            )

    def draw(index: int, count: int) -> int:
        return seed_of(options.seed, index) % count

    def placed(words: list[str]) -> tuple[list[list[int]], list[int]]:
        tokens = [tokenizer(" " + word, add_special_tokens=False)["input_ids"] for word in words] or [[]]
        made = [
            perturb.insert(ids, tokens[draw(index, len(tokens))], options.seed, index, options.place)
            for index, ids in enumerate(corpora["retain"])
        ]
        return [ids for ids, _ in made], [start for _, start in made]

    jobs = {role: (documents, [0] * len(documents)) for role, documents in corpora.items()}
    jobs["retain_after"] = placed([])
    words = perturb.read_keywords(options.keywords, options.keyword)
    jobs["perturbed"] = placed(words)
    jobs["neutral"] = placed([options.neutral_keyword])
    losses_of: dict[str, Clustered] = {}
    answers = answers or Answers(None)
    for number, (role, (documents, starts)) in enumerate(jobs.items()):
        progress(number, len(jobs))
        asked = digest([role, documents, starts, options.batch_size])
        if not answers.of(asked):
            made = token_losses(
                decoder, documents, starts, batch_size=options.batch_size or 8, pad_id=tokenizer.pad_token_id
            )
            answers.add(asked, [made.sums, made.counts])
        (told,) = answers.of(asked)
        losses_of[role] = Clustered(*told)
        refuse_not_finite(role, losses_of[role].sums)
    progress(len(jobs), len(jobs))
    # What stands behind the place of insertion is the same with nothing, a forget keyword or a neutral one in it.
    behind = {"perturbed": "retain_after", "neutral": "retain_after"}
    found = {
        role: clustered.metrics() | clustered.parts() | {"asked": digest(jobs[behind.get(role, role)])}
        for role, clustered in losses_of.items()
    }
    if options.keywords is not None:
        drawn = [draw(index, len(words)) for index in range(len(corpora["retain"]))]
        by_word = {word: losses_of["perturbed"].only(number, drawn) for number, word in enumerate(words)}
        found["perturbed"] |= {
            "drawn": _drawn(drawn, len(words)),
            "keywords": {word: one.metrics() for word, one in by_word.items() if one.sums},
        }
    for role in ("perturbed", "neutral"):
        found[role] |= change(found["retain_after"], found[role])
    return found


def change(before: Metrics, after: Metrics) -> Metrics:
    """The change of a mean loss over the same tokens with its 95 % interval, document by document."""
    one, other = ([(1.0, intervals.scores_of(metrics, "")["all"])] for metrics in (after, before))
    made = intervals.estimate([intervals.difference(one, other)])
    return {"change": made.value, "change_low": made.low, "change_high": made.high}
