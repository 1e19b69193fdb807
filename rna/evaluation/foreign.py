"""Tasks that are none of ours: lm-eval's own by their names, and a user's of `eval.include_path`.

lm-eval reads, asks and judges them: their files, few-shot examples, filters, metrics and aggregations. What a record
has of questions comes beside: halves by a hash of the document, a name of what was asked, a bit for each, and an
identity by content. An entry of `eval.tasks` may be a group or a tag; its tasks are then judged as one.
"""

import copy
import functools
import hashlib
import inspect
import json
import logging
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rna.corpora import Row, digest
from rna.evaluation import asked, catalogue, questions
from rna.settings import TASKS, TOFU, EvalSettings, Settings, TaskSettings, architecture, interim_tasks, seed_of

Values = dict[str, list[tuple[int, Any]]]  # a metric's name -> (place of the document, its value)
Metrics = dict[str, Any]

DRAWS = 100  # of a bootstrap
WRITTEN = 256  # tokens that a task writes at most where it does not say, lm-eval's own
ELSEWHERE = frozenset(  # of a task's settings: what counts by its content, what is told apart, and what changes nothing
    "task task_alias tag custom_dataset dataset_path dataset_name dataset_kwargs metadata num_fewshot".split()
)
READERS = ("json", "csv", "parquet", "arrow", "text", "pandas")  # of `datasets`, for files that a task names
LIKELIHOODS = ("multiple_choice", "loglikelihood")
UNSAFE = "runs code that the model wrote, which is not done here; allowed: tasks that run none"


@dataclass(frozen=True)
class Foreign:
    """An entry of `eval.tasks`, as lm-eval loaded it.

    `rows` are the documents of all its tasks, as our own questions are told apart: the task's name as the subject, a
    hash as the words.
    """

    leaves: dict[str, Any]  # lm-eval's tasks by name
    group: Any | None
    names: list[str]  # of the metrics that all of them have; behind a slash the filter, where there are several
    score: str | None  # the one that counts for the role; None: no share of right answers is among them
    rows: list[Row]
    fewshot_seed: int


# Loading

_loaded: dict[str, tuple[Any, Foreign]] = {}  # by what was asked for, with the state of the files it came from


def load(name: str, options: EvalSettings) -> Foreign:
    """What lm-eval makes of `eval.tasks.NAME`, once as long as its files stay as they are.

    Raises:
        ValueError: for a task that is not there or cannot be used, data that cannot be had, a metric it has not.
    """
    task = options.tasks[name]
    metadata = None
    if task.task in _groups():
        fields = ("keyword", "neutral_keyword", "seed", "replaced", "policy", "mmlu_path", "wmdp_path")
        metadata = {key: getattr(options, key) for key in fields} | {"asker": questions.RNA}
    wanted = json.dumps([name, asdict(task), options.include_path, metadata])
    if wanted in _loaded and _loaded[wanted][0] == _state(_loaded[wanted][1], options.include_path):
        return _loaded[wanted][1]
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    said = f"eval.tasks.{name}.task={task.task}"
    with _lm_evals_seeds():
        leaves, group = _read(said, task.task, options.include_path, metadata)
        for leaf, one in leaves.items():
            _prepare(f"eval.tasks.{name}", leaf, one, task)
        rows = [_row(leaf, place, doc) for leaf, one in leaves.items() for place, doc in enumerate(one.eval_docs)]
    first, *others = [_names(one) for one in leaves.values()]
    names = [metric for metric in first if all(metric in other for other in others)]
    score = _score(f"eval.tasks.{name}", task, leaves, names)
    found = Foreign(leaves, group, names, score, rows, task.fewshot_seed)
    _loaded[wanted] = (_state(found, options.include_path), found)
    return found


@functools.cache
def _groups() -> frozenset[str]:
    """Our own groups, which are asked as lm-eval's are."""
    files = [file.read_text(encoding="utf-8") for file in TASKS.glob("*/_*.yaml")]
    return frozenset(
        line.removeprefix("group: ") for text in files for line in text.splitlines() if line[:7] == "group: "
    )


def _state(found: Foreign, include_path: str | None) -> list[tuple[str, int, int]]:
    """The files that a task came from, as far as they lie here."""
    files = list(files_of(include_path))
    for task in found.leaves.values():
        files += [Path(text) for text in _texts(task.config.dataset_kwargs) if Path(text).is_file()]
    return [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files]


def files_of(include_path: str | None) -> list[Path]:
    """What lies in a folder of tasks."""
    if include_path is None:
        return []
    return [
        file for file in sorted(Path(include_path).rglob("*")) if file.is_file() and "__pycache__" not in file.parts
    ]


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def _read(
    said: str, name: str, include_path: str | None, metadata: dict[str, Any] | None
) -> tuple[dict[str, Any], Any]:
    manager = catalogue.index(name, str(TASKS) if metadata is not None else include_path, metadata)
    if manager is None:
        close = catalogue.nearest(name, [*asked.names(), TOFU], include_path)
        hint = f"did you mean {' or '.join(repr(one) for one in close)}? " if close else ""
        own = (
            "a folder of your own by eval.include_path" if include_path is None else f"eval.include_path={include_path}"
        )
        raise ValueError(f"{said}: no such task; {hint}allowed: lm-eval's own (lm_eval ls tasks), ours, those of {own}")
    config = manager.task_index[name].cfg or {}
    if config.get("unsafe_code"):
        raise ValueError(f"{said}: {UNSAFE}")
    try:
        with _asked_of_the_hub(local=metadata is not None or _is_here(config.get("dataset_path"))):
            made = manager.load([name])
    except OSError as error:  # of a file, a connection, and what the hub's libraries make of either
        where, why = config.get("dataset_path"), re.sub(r" \(\w+\)$", "", _first_line(error))
        raise ValueError(
            f"{said}: its data{f', {where},' if where else ''} cannot be had ({why}); allowed: a hub "
            "data set that is in the local cache (load it once where there is a network), or files that are here, as "
            "dataset_kwargs.data_files of a task of your own (eval.include_path)"
        ) from None
    except Exception as error:
        raise ValueError(f"{said}: lm-eval cannot load it: {type(error).__name__}: {_first_line(error)}") from None
    leaves: dict[str, Any] = made["tasks"]
    if not leaves:
        raise ValueError(f"{said}: names no task")
    return leaves, made["groups"].get(name)


def _is_here(where: str | None) -> bool:
    """Whether a task's `dataset_path` is a reader of files, or a folder."""
    return where is not None and (where in READERS or Path(where).exists())


@contextmanager
def _asked_of_the_hub(*, local: bool) -> Generator[None]:
    """A hub that does not answer is not asked again and again, for half a minute and in a line each: what lies in the
    local cache is taken, as with HF_HUB_OFFLINE=1."""
    from datasets import config
    from huggingface_hub import constants, get_session

    if local or config.HF_HUB_OFFLINE or _answers(lambda: get_session().head(constants.ENDPOINT, timeout=10)):
        yield
        return
    kept = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = kept, False


def _answers(ask: Callable[[], Any]) -> bool:
    try:
        ask()
    except Exception:  # the client raises those of its HTTP library, of which there are several
        return False
    return True


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(".")


def _prepare(key: str, leaf: str, one: Any, task: TaskSettings) -> None:
    """Refuse what cannot be asked here; set its examples, and try them on the first document."""
    from lm_eval.api.task import ConfigurableTask

    settings = vars(one)
    for mark, why in (("UNSAFE_CODE", UNSAFE), ("MULTIMODAL", "has images or sound; allowed: tasks of texts")):
        if settings.get(mark) or vars(type(one)).get(mark):
            raise ValueError(f"{key}.task={task.task}: {leaf} {why}")
    usual = one.get_config("num_fewshot")
    if task.num_fewshot is not None and usual == 0 and task.num_fewshot != 0:
        raise ValueError(
            f"{key}.num_fewshot={task.num_fewshot}: {leaf} says num_fewshot: 0 itself, which lm-eval never changes; "
            "allowed: a task that does not say it"
        )
    shots = usual or 0 if task.num_fewshot is None else task.num_fewshot
    one.set_config("num_fewshot", shots)
    one.set_fewshot_seed(task.fewshot_seed)
    if not shots or not isinstance(one, ConfigurableTask):
        return
    try:
        one.fewshot_context(one.eval_docs[0], num_fewshot=shots, gen_prefix=one.doc_to_prefix(one.eval_docs[0]))
    except (AssertionError, ValueError) as error:
        raise ValueError(
            f"{key}.num_fewshot={shots}: {leaf} has no so many examples to show ({_first_line(error)}); allowed: fewer"
        ) from None


@contextmanager
def _lm_evals_seeds() -> Generator[None]:
    """The global random numbers, of which lm-eval's tasks may draw, as its command line seeds them; then as before."""
    import random

    import torch
    from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

    kept = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(DEFAULT_RANDOM_SEED)
        np.random.seed(DEFAULT_OTHER_SEED)
        torch.manual_seed(DEFAULT_OTHER_SEED)
        try:
            yield
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])


def _row(leaf: str, place: int, doc: Any) -> Row:
    from lm_eval.utils import handle_non_serializable

    text = json.dumps(doc, sort_keys=True, default=handle_non_serializable, ensure_ascii=False)
    hashed = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    half = questions.SELECT if hashed.digest()[0] % 2 == 0 else questions.REPORT
    return {"subject": leaf, "question": hashed.hexdigest(), "choices": [""], "answer": 0, "half": half, "place": place}


# Metrics by name


def _names(task: Any) -> list[str]:
    """A task's metrics: `acc`, or of several filters `exact_match/strict-match` and so on."""
    return [_named(task, metric, one.name) for metric in task.aggregation() for one in task._filters]


def _named(task: Any, metric: str, filtered: str) -> str:
    return metric if len(task._filters) == 1 else f"{metric}/{filtered}"


def _shares(task: Any) -> list[str]:
    """The metrics that are a mean over documents and better when higher."""
    from lm_eval.api.metrics import mean

    better = task.higher_is_better()
    means = [metric for metric, how in task.aggregation().items() if how is mean and better.get(metric, True)]
    return [_named(task, metric, one.name) for metric in means for one in task._filters]


def _score(key: str, task: TaskSettings, leaves: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The metric that counts for the role.

    Raises:
        ValueError: for one that the task has not, or that is no share of right answers.
    """
    allowed = [name for name in names if all(name in _shares(one) for one in leaves.values())]
    if task.metric is None:
        return allowed[0] if allowed else None
    if task.metric not in allowed:
        why = "is no mean of right answers" if task.metric in names else f"{task.task} has no such metric"
        raise ValueError(f"{key}.metric={task.metric}: {why}; allowed: {', '.join(allowed) or 'none'}")
    return task.metric


# Identity and checks


def identity(name: str, options: EvalSettings) -> dict[str, Any]:
    """What the outcome depends on beside the model and lm-eval's version: settings and documents by content, examples.

    Raises:
        ValueError: as `load`.
    """
    found = load(name, options)
    task = options.tasks[name]
    shots = {leaf: one.config.num_fewshot for leaf, one in found.leaves.items()}
    shown = {leaf: _examples(one) for leaf, one in found.leaves.items() if shots[leaf]}
    grouped = [] if found.group is None else [asdict(one) for one in found.group.aggregate_metric_list or []]
    counts = set(shots.values())
    said: dict[str, Any] = {
        "settings": digest([{leaf: _settings(one) for leaf, one in found.leaves.items()}, grouped]),
        "data": digest([[row["subject"], row["question"]] for row in found.rows]),
        "num_fewshot": counts.pop() if len(counts) == 1 else shots,
        "metric": found.score,
    }
    return said | ({"fewshot_seed": task.fewshot_seed, "examples": digest(shown)} if shown else {})


def _examples(task: Any) -> list[str]:
    """The documents that examples are drawn from."""
    docs = task.sampler.fewshot_docs() if "sampler" in vars(task) else task.fewshot_docs()
    return [_row("", 0, doc)["question"] for doc in docs]


def _settings(task: Any) -> dict[str, Any]:
    told = {
        key: _plain(value) for key, value in vars(task.config).items() if key not in ELSEWHERE and value is not None
    }
    return told | {"class": _plain(type(task))}


def _plain(value: Any) -> Any:
    """A setting as JSON has it; a function or class by its name and the content of its file."""
    if isinstance(value, functools.partial):
        return [_plain(value.func), _plain(value.args), _plain(value.keywords)]
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(vars(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if callable(value):
        file = inspect.getsourcefile(value if inspect.isroutine(value) or inspect.isclass(value) else type(value))
        content = Path(file).read_bytes() if file is not None else b""
        return [value.__qualname__, hashlib.sha256(content).hexdigest()]
    return value if isinstance(value, str | int | float) or value is None else str(value)


def check(settings: Settings) -> None:
    """Refuse other tasks than ours, and answers of several tokens, where they have no meaning.

    Raises ValueError; nothing is loaded but the tasks.
    """
    options = settings.eval
    others = of(options, options.tasks)
    longer = [*others, *(name for name, task in options.tasks.items() if asked.in_words(task.task))]
    if settings.noise.name == "inference" and longer:
        raise ValueError(
            f"noise=inference: averages answers of one token, and eval.tasks.{longer[0]} may have others; allowed: "
            "ours that are answered by letters"
        )
    for name in others:
        task, key = options.tasks[name], f"eval.tasks.{name}"
        for field in ("subjects", "n", "group"):
            if (value := getattr(task, field)) is not None:
                raise ValueError(f"{key}.{field}={value}: is of our own tasks; {task.task} is lm-eval's or your own")
        if task.role == "ngram":
            raise ValueError(f"{key}.role=ngram: is of our own tasks; {task.task} is lm-eval's or your own")
        for leaf, one in load(name, options).leaves.items():
            longest, writes = _longest(settings), one.get_config("generation_kwargs") or {}
            if longest is not None and (tokens := writes.get("max_gen_toks", WRITTEN)) >= longest and writes:
                raise ValueError(
                    f"{key}.task={task.task}: {leaf} writes up to {tokens} tokens, and the model reads {longest}; "
                    "allowed: a task whose generation_kwargs.max_gen_toks is lower"
                )
    if settings.eval.interim_every is None or not settings.method.trains:
        return
    for name in set(others).intersection(interim_tasks(options)):
        for leaf, one in load(name, options).leaves.items():
            if vars(one).get("OUTPUT_TYPE") not in LIKELIHOODS or load(name, options).score is None:
                raise ValueError(
                    f"eval.interim_every={options.interim_every}: asks for likelihoods of answers, and {leaf} of "
                    f"eval.tasks.{name} has none; allowed: eval.interim_roles without {options.tasks[name].role}"
                )


def _longest(settings: Settings) -> int | None:
    """How many tokens the model reads, where its config.json says it."""
    model = settings.judged()
    folder = Path(model.path) if Path(model.path).exists() else architecture.cached(model.path, model.revision)
    if folder is None or not (folder / "config.json").is_file():
        return None
    config = architecture.read_config(folder, f"model.path={model.path}")
    return config.get("text_config", config).get("max_position_embeddings")


def check_ours(name: str, task: TaskSettings) -> None:
    """Refuse what has no meaning with a task of our own."""
    neutral = TaskSettings()
    for field in ("metric", "num_fewshot", "fewshot_seed"):
        if (value := getattr(task, field)) != getattr(neutral, field):
            raise ValueError(
                f"eval.tasks.{name}.{field}={value}: {task.task} is ours, zero-shot and judged by acc; leave it out"
            )


def of(options: EvalSettings, names: Iterable[str]) -> list[str]:
    """Which of these entries are none of ours."""
    return [name for name in names if options.tasks[name].task != TOFU and not asked.ours(options.tasks[name].task)]


# Asking and judging


def sampled(found: Foreign, options: EvalSettings) -> list[Row]:
    """The documents that are asked: all, or a sample of `eval.limit`, of each task by its share."""
    return questions.sample(found.rows, options.limit, options.seed)


def requests(found: Foreign, harness: Any, options: EvalSettings, rows: Sequence[Row]) -> dict[str, list[Any]]:
    """By task, lm-eval's requests for these documents; built for all of them, so that each has the same examples
    whichever are asked, and once but where a model's template is in them."""
    wanted = {(row["subject"], row["place"]) for row in rows}
    made: dict[str, list[Any]] = {}
    for leaf, task in found.leaves.items():
        one = copy.copy(task) if options.chat_template else task  # whose own requests stay without it
        if options.chat_template or vars(task).get("_instances") is None:
            one.set_fewshot_seed(found.fewshot_seed)
            with _lm_evals_seeds():
                one.build_all_requests(
                    apply_chat_template=options.chat_template,
                    chat_template=harness.apply_chat_template if options.chat_template else None,
                    fewshot_as_multiturn=options.chat_template,
                )
        made[leaf] = [request for request in one.instances if (leaf, request.doc_id) in wanted]
    return made


def values(found: Foreign, answered: Mapping[str, list[Any]]) -> dict[str, Values]:
    """By task, what lm-eval says of each document once its requests are answered, by each metric and filter."""
    told: dict[str, Values] = {}
    for leaf, task in found.leaves.items():
        one, of_leaf = copy.copy(task), told.setdefault(leaf, {})
        one._instances = answered[leaf]
        if not answered[leaf]:
            continue
        one.apply_filters()
        for each in task._filters:
            for place, asked_of in by_document(answered[leaf]).items():
                results = [request.filtered_resps[each.name] for request in asked_of]
                for metric, value in task.process_results(asked_of[0].doc, results).items():
                    of_leaf.setdefault(_named(task, metric, each.name), []).append((place, value))
    return told


def by_document(answered: Iterable[Any]) -> dict[int, list[Any]]:
    """The requests of each document, in their order."""
    found: dict[int, list[Any]] = {}
    for request in answered:
        found.setdefault(request.doc_id, []).append(request)
    return {place: sorted(of_one, key=lambda request: request.idx) for place, of_one in found.items()}


def metrics(found: Foreign, told: Mapping[str, Values], rows: Sequence[Row], seed: int) -> Metrics:
    """lm-eval's metrics under their own names, whole and by halves, and of several tasks each one's under `subtasks`.

    `score` names the one that counts for the role, `n` is how many documents there are, `asked` their name, and
    `correct` a bit for each as hex, where each is right or wrong.

    Raises:
        ValueError: if the score is no share after all.
    """
    halves = {half: [row for row in rows if row["half"] == half] for half in (questions.SELECT, questions.REPORT)}
    made = _part(found, told, rows, seed)
    made |= {half: _part(found, told, of_half) for half, of_half in halves.items() if of_half}
    if len(found.leaves) > 1:
        counts = {leaf: [row for row in rows if row["subject"] == leaf] for leaf in found.leaves}
        made["subtasks"] = {
            leaf: {"n": len(of_leaf), **_aggregated(found.leaves[leaf], _of(told[leaf], of_leaf))}
            for leaf, of_leaf in counts.items()
            if of_leaf
        }
    return made


def right(found: Foreign, told: Mapping[str, Values], rows: Sequence[Row]) -> list[float]:
    """What the score says of each of these documents.

    Raises:
        ValueError: for what is no share of a right answer.
    """
    assert found.score is not None
    known = {leaf: dict(of_leaf.get(found.score, [])) for leaf, of_leaf in told.items()}
    given = [known[row["subject"]].get(row["place"]) for row in rows]
    shares = [float(value) for value in given if value is not None]
    if odd := [value for value in shares if not 0 <= value <= 1]:
        raise ValueError(
            f"eval.tasks: {found.score} of {', '.join(found.leaves)} is {odd[0]:g} for a document, and no share of a "
            f"right answer; allowed as metric: another of {', '.join(found.names)}"
        )
    return shares


def _part(found: Foreign, told: Mapping[str, Values], rows: Sequence[Row], seed: int | None = None) -> Metrics:
    """The metrics of these documents; of a group as its file joins its tasks, else over all of their documents."""
    by_leaf: dict[str, dict[str, list[Any]]] = {}
    for leaf in dict.fromkeys(row["subject"] for row in rows):
        by_leaf[leaf] = _of(told[leaf], [row for row in rows if row["subject"] == leaf])
    each = {leaf: _aggregated(found.leaves[leaf], of_leaf, seed) for leaf, of_leaf in by_leaf.items()}
    first, *others = each
    made = dict(each[first])
    if others:
        common = [name for name in by_leaf[first] if all(name in by_leaf[leaf] for leaf in others)]
        pooled = {name: [value for of_leaf in by_leaf.values() for value in of_leaf[name]] for name in common}
        made = _aggregated(found.leaves[first], pooled, seed) | _grouped(found, by_leaf, each)
    made |= {"n": len(rows), "score": found.score, "asked": digest([questions.named(row) for row in rows])}
    if found.score is not None:
        shares = right(found, told, rows)
        if len(shares) == len(rows) and set(shares) <= {0.0, 1.0}:
            bits = "".join("01"[share == 1.0] for share in shares)
            made["correct"] = f"{int(bits, 2):0{-(-len(bits) // 4)}x}"
    return made


def _of(told: Values, rows: Sequence[Row]) -> dict[str, list[Any]]:
    """By metric, the values of one task's documents."""
    places = {row["place"] for row in rows}
    found = {name: [value for place, value in pairs if place in places] for name, pairs in told.items()}
    return {name: items for name, items in found.items() if items}


def _aggregated(task: Any, by_name: Mapping[str, list[Any]], seed: int | None = None) -> Metrics:
    """Each metric as lm-eval sums it up, with its standard error by lm-eval's formula, and with a seed also by
    bootstrap where lm-eval has one.

    Raises:
        ValueError: for values that a metric cannot be made of.
    """
    from lm_eval.api.metrics import mean

    made: Metrics = {}
    for name, items in by_name.items():
        metric = name if len(task._filters) == 1 else name.rpartition("/")[0]
        how = task.aggregation().get(metric, mean)
        try:
            made[name] = float(how(items))
        except ValueError as error:
            raise ValueError(f"{task.task_name}: its {metric} cannot be had: {_first_line(error)}") from None
        if (spread := _error(how, items, None if seed is None else seed_of(seed, "bootstrap", name))) is not None:
            made[f"{name}_stderr"] = spread
    return made


def _error(how: Callable[[Sequence[Any]], float], items: list[Any], seed: int | None) -> float | None:
    from lm_eval.api.metrics import acc_all, mean, stderr_for_metric

    formula = stderr_for_metric(how, 1)
    if formula is None:
        return None
    if len(items) < 2:
        return 0.0
    if how in (mean, acc_all):
        return float(formula(items))
    if seed is None:
        return None
    source = np.random.default_rng(seed)
    drawn = [how([items[place] for place in source.integers(len(items), size=len(items))]) for _ in range(DRAWS)]
    return float(np.std(drawn, ddof=1))


def _grouped(found: Foreign, by_leaf: Mapping[str, Mapping[str, list[Any]]], each: Mapping[str, Metrics]) -> Metrics:
    """The metrics that a group's file joins, as it says."""
    if found.group is None or not found.group.has_aggregation:
        return {}
    told: dict[str, dict[str, Any]] = {}
    keys: dict[str, str] = {}  # lm-eval's name of a metric with its filter -> ours
    for leaf, of_leaf in each.items():
        task = found.leaves[leaf]
        told[leaf] = {"sample_len": max(map(len, by_leaf[leaf].values()), default=0)}
        for name in by_leaf[leaf]:
            metric, _, filtered = (name, "", task._filters[0].name) if len(task._filters) == 1 else name.rpartition("/")
            keys[f"{metric},{filtered}"] = name
            told[leaf] |= {
                f"{metric},{filtered}": of_leaf[name],
                f"{metric}_stderr,{filtered}": of_leaf.get(f"{name}_stderr", "N/A"),
            }
    joined = found.group.aggregate(told)
    made: Metrics = {}
    for key, name in keys.items():
        if key not in joined or any(name not in of_leaf for of_leaf in each.values()):
            continue
        error = joined[key.replace(",", "_stderr,", 1)]
        made |= {name: joined[key]} | ({} if error == "N/A" else {f"{name}_stderr": error})
    return made


def log_prob(task: Any, asked_of: Sequence[Any]) -> float:
    """log π of a document's right answer, in nats; of several right ones that of the likeliest."""
    doc = asked_of[0].doc
    if task.OUTPUT_TYPE == "loglikelihood":
        return asked_of[0].resps[0][0]
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    choices = task.doc_to_choice(doc)
    golds = [
        choices.index(one) if isinstance(one, str) else one for one in (gold if isinstance(gold, list) else [gold])
    ]
    return max(asked_of[place].resps[0][0] for place in golds)
