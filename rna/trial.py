"""One trial: train it if it has no record, evaluate what is missing, and record each once."""

import functools
import gc
import json
import resource
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from rna import NUMERICS, ends
from rna.corpora import Cache, Memory
from rna.decoder import NO_CHAT
from rna.ends import TrialFailed
from rna.settings import FORGET_NLL, LAYER, Settings, interim_metrics, interim_tasks, told, until_of, users_code
from rna.store import Record, lookup, partial, results
from rna.unlearning import Checkpoint

OTHER_TOKENS = "perplexities are per token"  # in a record's warning, by which it is known
PROTECTED = ("with RNA", "defended", "smoothed")  # arms that have a plain twin
OWN = (*PROTECTED, "plain", "given")  # the arms of a trial, its own first
Progress = Callable[[str, int, int], None]  # (phase, done, total)


@dataclass(frozen=True)
class Listener:
    """Whoever runs this trial among others: it is told how far the trial is, and each of its calls may stop it."""

    phase: Progress
    step: Callable[[str, int, dict[str, float]], None]  # (KEY, a training step from 1, its report)
    commit: Callable[[], None]  # before a record is written under its name
    group: str | None = None  # what W&B groups its runs by


NOBODY = Listener(lambda *_: None, lambda *_: None, lambda: None)


@dataclass(frozen=True)
class Part:
    """What a race asks of a trial: the first so many blocks of these tasks' `select` halves."""

    names: tuple[str, ...]
    blocks: int


@dataclass
class Arm:
    """One row of a comparison: its settings, its keys, and the records that exist."""

    label: str
    settings: Settings
    key: str
    identity: dict[str, Any]
    tasks: dict[str, dict[str, Any]]  # name -> what the evaluation depends on; none with train_only
    trained: Record | None = None
    evaluated: dict[str, Record] = field(default_factory=dict)
    part: Part | None = None  # then these blocks alone, which make no record of an evaluation

    @property
    def other_tokens(self) -> bool:
        """Whether its perplexities are of another unit than the base's."""
        warnings = (self.trained or {}).get("warnings") or []
        return self.settings.eval.kind == "perplexity" and any(OTHER_TOKENS in line for line in warnings)

    def refresh(self) -> None:
        """Read the records that exist by now."""
        folder = self.settings.output_dir
        self.trained = results.read(folder, self.key)
        if self.part is not None:
            self.evaluated = {name: {} for name in self.tasks} if self.next_block is None else {}
            return
        found = {name: results.read(folder, results.eval_key(self.key, task)) for name, task in self.tasks.items()}
        self.evaluated = {name: record for name, record in found.items() if record is not None}

    @property
    def probes(self) -> dict[str, Record]:
        """What of `evaluated` is a probe's, and not a task's."""
        return {name: record for name, record in self.evaluated.items() if lookup.is_probe(name)}

    @property
    def asked(self) -> str:
        """The word of a race's tasks."""
        evals = {name: results.eval_key(self.key, task) for name, task in self.tasks.items()}
        return partial.asked(evals, [*evals])

    @property
    def next_block(self) -> int | None:
        """The first block that a race wants and has no answers to; None if it has all."""
        assert self.part is not None
        there = partial.read(self.settings.output_dir, self.key, self.asked)
        wanted = min(self.part.blocks, there[0]["of"]) if there else self.part.blocks
        return len(there) if len(there) < wanted else None

    @property
    def missing(self) -> list[str]:
        return [name for name in self.tasks if name not in self.evaluated]

    @property
    def complete(self) -> bool:
        return self.trained is not None and not self.missing

    @property
    def lost(self) -> bool:
        """Whether its tensors were trained, and not kept."""
        tensors = results.delta_path(self.settings.output_dir, self.key)
        return "delta" in (self.trained or {}) and not tensors.is_file()

    @property
    def trains(self) -> bool:
        """Whether its tensors have to be trained: for the first time, or again for an evaluation that is missing."""
        return self.settings.method.trains and (self.trained is None or bool(self.missing and self.lost))


def arm(label: str, settings: Settings, *, rerun: bool = False) -> Arm:
    """An arm with its keys and the records found for them."""
    identity = results.train_identity(settings)
    key = results.train_key(identity)
    if rerun:
        key = results.next_rerun(settings.output_dir, key)
    asked = {} if settings.train_only else results.task_identities(settings) | results.probe_identities(settings)
    made = Arm(label, settings, key, identity, asked)
    made.refresh()
    return made


def in_a_race(settings: Settings, part: Part) -> Arm:
    """The trial's own row of its table, with no more to evaluate than these blocks."""
    rows = {row.label: row for row in arms(settings)}
    own = next(rows[label] for label in (*OWN, "base") if label in rows)
    raced = replace(own, tasks={name: own.tasks[name] for name in part.names}, part=part)
    raced.refresh()
    return raced


def own_label(settings: Settings) -> str:
    """What the row of a training is called."""
    if settings.noise.name == "inference":
        return "smoothed"
    return "defended" if settings.defences else "plain" if settings.noise.name == "none" else "with RNA"


def arms(settings: Settings, beside: Mapping[str, Settings] | None = None) -> list[Arm]:
    """The rows of a trial's table: base, plain twin, with RNA or defended, and retrained where there is such a model.

    Args:
        beside: trainings to compare with (`compare`), by label; one that is there already makes no row of its own.

    With `method=given` the row below the base is a model that was unlearned elsewhere.

    With noise at inference the row with it is the plain trial, or the base, `smoothed`: one training, two evaluations.
    With `train_only` the rows that are trained, and no others.
    """
    base = settings.base()
    rows = [] if settings.train_only else [arm("base", base)]
    smoothed = settings.noise.name == "inference"
    if settings.method.trains:
        if settings.protected and settings.baseline != "skip":
            rows.append(arm("plain", settings.plain()))
        rows.append(arm(own_label(settings), settings, rerun=settings.rerun))
    else:
        judged = replace(base, method=settings.method)
        if settings.method.name == "given":
            rows.append(arm("given", judged, rerun=settings.rerun and not smoothed))
        elif settings.rerun and not smoothed:
            rows = [arm("base", base, rerun=True)]
        if smoothed:
            rows.append(arm("smoothed", replace(judged, noise=settings.noise), rerun=settings.rerun))
    for label, other in (beside or {}).items():
        extra = arm(label, other)
        if extra.key not in {row.key for row in rows}:
            rows.append(extra)
    if (retrained := settings.retrained()) is not None and not settings.train_only:
        rows.append(arm("retrained", retrained))
    return rows


def to_compute(settings: Settings, rows: list[Arm]) -> list[Arm]:
    """The arms that want work, the longest first, but what others' forget quality is told against before them; what is
    there for comparison is left alone with `baseline=cached`."""
    first = -1 if lookup.against(settings) else 3
    order = {**dict.fromkeys(PROTECTED, 0), "plain": 1, "given": 1, "base": 2, "retrained": first}
    wanted = [row for row in rows if not row.complete]
    if settings.baseline == "cached" and settings.protected:
        wanted = [row for row in wanted if row.label in order and row.label != "plain"]
    return sorted(wanted, key=lambda row: order.get(row.label, 0))


_LOADED: dict[tuple[str, int | None], tuple[Any, Any]] = {}  # at most one, by how it was loaded


def _loaded(choice: str, num_layers: int | None, key: str) -> tuple[Any, Any]:
    """The last model loaded: trials of one process share it, as none of them writes to it.

    Another one is loaded when it is gone, so that no two are ever in memory.
    """
    from rna.decoder import model

    if (choice, num_layers) not in _LOADED:
        forget_model()
        _LOADED[choice, num_layers] = model.load(**json.loads(choice), num_layers=num_layers, key=key)
    return _LOADED[choice, num_layers]


def forget_model() -> None:
    """Free the last model loaded."""
    import torch

    _LOADED.clear()
    gc.collect()  # its modules and their hooks know each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def load_model(settings: Settings, key: str | None = None) -> tuple[Any, Any]:
    """The trial's model and tokenizer; of the model no more than the trial runs.

    Args:
        key: the setting that named the model, where it is another than usual.

    Raises:
        ValueError: for a tokenizer without the token that variant=official pads with, or without a chat template.
    """
    choice = settings.judged().loading(compiled=settings.train.compile)
    key = key or ("method.path" if settings.method.name == "given" else "model.path")
    part = settings.train_only and settings.method.reads == LAYER
    decoder, tokenizer = _loaded(json.dumps(choice), settings.layer.unlearn + 1 if part else None, key)
    if settings.variant == "official" and tokenizer.eos_token_id is None:
        raise ValueError(
            f"{key}={choice['path']}: its tokenizer has no eos_token, with which variant=official pads; name "
            "one in its tokenizer_config.json, or give variant=paper"
        )
    if settings.eval.chat_template and not settings.train_only and tokenizer.chat_template is None:
        raise ValueError(f"{key}={choice['path']}: {NO_CHAT}")
    return decoder, tokenizer


def work(
    row: Arm,
    progress: Progress,
    *,
    wait: bool = True,
    listener: Listener = NOBODY,
    loaded: tuple[Any, Any] | None = None,
) -> None:
    """Bring an arm's records into being. Whoever else wants the same waits for this one, and then finds it done.

    Args:
        loaded: the decoder and tokenizer that the settings mean, where there are such already.

    Raises:
        InFlight: if another process computes it now and `wait` is false.
        TrialFailed: after recording why: not finite, out of memory, disk full.
        Interrupted: at SIGTERM, after a checkpoint if it was training.
    """
    settings = row.settings
    listener.phase("waiting", 0, 1)  # for whoever computes the same
    with (
        results.single_flight(settings.output_dir, row.key, wait=wait),
        ends.noted(*ends.WARNINGS, *ends.heeded()) as heard,
    ):
        listener = replace(listener, phase=_all(listener.phase, progress, lambda *_: heard.obey()))
        row.refresh()
        if row.complete:
            return
        import torch

        from rna import track

        _reset_peak_memory()
        if settings.model.threads:
            torch.set_num_threads(settings.model.threads)
        listener.phase("loading", 0, 1)
        curve: list[dict[str, float]] = []
        try:
            key = "model.retrained" if row.label == "retrained" else None
            decoder, tokenizer = loaded or load_model(settings, key)
            if row.label == "smoothed" and row.trained is None:  # the plain trial's own run, which no noise may enter
                kind = "train" if settings.method.trains else "eval"
                with track.tracking(settings.for_training(), listener.group, run_id=row.key, job_type=kind) as tracked:
                    _train(row, decoder, tokenizer, tracked, listener, curve)
            if any(map(lookup.is_probe, row.missing)):
                with users_code(settings.probe):
                    settings.probe.begin(_subject(settings, decoder, tokenizer, lambda *_: None))
            fresh = row.trained is None and settings.method.trains
            if row.part is not None and not fresh:  # a run for each block would hide those of trials
                settings = replace(settings, wandb=replace(settings.wandb, mode="disabled"))
            run_id = row.key if row.trained is None else f"{row.key}-{results.digest(_evaluations(row))}"
            with track.tracking(
                settings, listener.group, run_id=run_id, job_type="train" if fresh else "eval"
            ) as tracked:
                if row.trained is None:
                    _train(row, decoder, tokenizer, tracked, listener, curve)
                if row.missing and row.lost:
                    _train_again(row, decoder, tokenizer, listener)
                if row.missing and row.part is None:
                    _evaluate(row, decoder, tokenizer, tracked, listener, heard)
                elif row.missing:
                    _answer(row, decoder, tokenizer, listener, heard)
        except ValueError:
            raise
        except Exception as error:
            _record_failure(row, error, curve, listener)
    row.refresh()


def _evaluations(row: Arm) -> list[Any]:
    """What tells a later evaluation's run from others of the same trial."""
    names = sorted(row.missing)
    return [*names, *(row.tasks[name]["smoothing"] for name in names)] if row.label == "smoothed" else names


def _all(*listeners: Progress) -> Progress:
    def told(phase: str, done: int, total: int) -> None:
        for listener in listeners:
            listener(phase, done, total)

    return told


def cache_of(settings: Settings) -> Cache:
    folder = Path(settings.output_dir) / "cache" if settings.cache.enabled else None
    return Cache(folder, int(settings.cache.max_gib * 2**30))


def _train(
    row: Arm, decoder: Any, tokenizer: Any, tracked: Any, listener: Listener, curve: list[dict[str, float]]
) -> None:
    """Train and record; for `method=none` and `given` there is nothing to train, and the record says so."""
    settings, started = row.settings.for_training(), time.perf_counter()
    facts: Record = {}
    checkpoint = Checkpoint(results.checkpoint_path(settings.output_dir, row.key), row.key)
    if settings.method.trains:

        def on_step(step: int, report: dict[str, float]) -> None:
            curve.append(report)
            tracked.step(step, report)
            listener.step(row.key, step, report)

        facts = _fit(row, decoder, tokenizer, listener, on_step, checkpoint)
    elif settings.method.name == "given":
        facts = {"warnings": _warned_of_words(settings, tokenizer)}
    if (until := until_of(settings)) is not None:
        facts["until"] = until.outcome(curve)
    record = _describe(row, "train", started) | {"curve": curve, "wandb": tracked.path} | facts
    results.write(settings.output_dir, row.key, record, listener.commit)
    checkpoint.clear()
    row.trained = record


def _fit(
    row: Arm,
    decoder: Any,
    tokenizer: Any,
    listener: Listener,
    on_step: Callable[[int, dict[str, float]], None],
    checkpoint: Checkpoint,
) -> Record:
    """Train the tensors and write them to their file; return what a record says of them."""
    from rna.corpora import data
    from rna.decoder import model
    from rna.unlearning import strength, train

    settings = row.settings.for_training()
    cache = cache_of(settings)
    corpora = data.load(settings, tokenizer, cache)
    pad_id = tokenizer.eos_token_id if settings.variant == "official" else tokenizer.pad_token_id
    feeds = train.feeds(settings, corpora, pad_id)
    first = next(next(iter(train.feeds(settings, corpora, pad_id).retain.values())))
    model.self_check(decoder, first.to(decoder.device))
    warned = strength.warnings(settings, decoder, corpora, tokenizer.pad_token_id)
    for line in warned:
        print(f"{row.label}: warning: {line}", file=sys.stderr, flush=True)

    def stepped(step: int, report: dict[str, float]) -> None:
        on_step(step, report)
        listener.phase("training", step, settings.train.steps)

    def interim(step: int, deltas: Callable[[], Any]) -> dict[str, float]:
        last = step == settings.train.steps
        if (last and until is None) or (not last and step % (settings.eval.interim_every or 1)):
            return {}
        with model.installed(decoder, deltas()):
            judging = functools.partial(listener.phase, "evaluating")
            return _interim(settings, decoder, tokenizer, corpora.forget, judging)

    until = until_of(settings)
    deltas = train.train(
        settings,
        decoder,
        feeds,
        stepped,
        tokenizer=tokenizer,
        checkpoint=checkpoint,
        memory=_memory(row, cache, corpora, decoder),
        interim=interim if settings.eval.interim_every else None,
        until=until,
    )
    path = results.delta_path(settings.output_dir, row.key)
    model.save_deltas(deltas, path)
    every = [*corpora.forget.values(), corpora.retain]
    facts = {
        "delta": str(path.relative_to(settings.output_dir)),
        "delta_bytes": path.stat().st_size,
        "delta_sha256": results.tensors_digest(settings.output_dir, row.key),
        "truncated_documents": {corpus.name: corpus.truncated for corpus in every if corpus.truncated is not None},
        "warnings": warned,
    }
    if short := {corpus.name: corpus.short for corpus in every if corpus.short}:
        facts["short_documents"] = short
    if unanswered := {corpus.name: corpus.unanswered for corpus in every if corpus.unanswered}:
        facts["unanswered_pairs"] = unanswered
    return facts


def _train_again(row: Arm, decoder: Any, tokenizer: Any, listener: Listener) -> None:
    """Train tensors that were not kept; their record stays as it is, and they are compared with what it says."""
    print(f"{row.label}: its trained tensors were not kept: trained again", file=sys.stderr, flush=True)
    checkpoint = Checkpoint(results.checkpoint_path(row.settings.output_dir, row.key), row.key)
    _fit(row, decoder, tokenizer, listener, lambda *_: None, checkpoint)
    checkpoint.clear()
    for line in _strayed(row):
        print(f"{row.label}: warning: {line}", file=sys.stderr, flush=True)


def _strayed(row: Arm) -> list[str]:
    """What to say of tensors that are not those of their record, as another machine may make them."""
    record = row.trained or {}
    known = record.get("delta_sha256")
    if known in (None, results.tensors_digest(row.settings.output_dir, row.key)):
        return []
    there = f"on {record['host']} with torch {record['packages']['torch']}"
    return [f"its tensors were trained again and are not to the bit those {there}; the new ones are evaluated"]


def restore(output_dir: str, key: str, progress: Progress = lambda *_: None) -> Record:
    """The record of a training, its tensors trained again if they were not kept; from now on they are.

    Raises:
        ValueError: if there is no such training, or its settings mean another one by now.
    """
    from rna.settings import config

    record = results.trained(output_dir, key)
    if results.delta_path(output_dir, key).is_file():
        return record
    settings = replace(config.recorded(record), output_dir=output_dir)
    identity = results.train_identity(settings)
    if results.train_key(identity) != key.partition(".")[0]:
        there = record["identity"]
        differ = [name for name in {**there, **identity} if there.get(name) != identity.get(name)]
        raise ValueError(
            f"KEY={key}: its trained tensors were not kept, and what they were trained from has changed since "
            f"({', '.join(differ)}); allowed: with that as it was, or a run of its own"
        )
    row = Arm(record["label"], settings, key, identity, {}, record)
    listener = replace(NOBODY, phase=progress)
    with results.single_flight(output_dir, key):
        if row.lost:
            _train_again(row, *load_model(settings), listener)
        results.claim(output_dir, key)
    return record


def _warned_of_words(settings: Settings, tokenizer: Any) -> list[str]:
    """A given model that reads other tokens than the base: its perplexities are of another unit."""
    from rna.decoder import load_tokenizer

    if settings.eval.kind != "perplexity":
        return []
    base = load_tokenizer(settings.model.path, settings.model.revision)
    if base.get_vocab() == tokenizer.get_vocab():
        return []
    line = (
        f"method.path={settings.judged().path}: has other tokens than model.path={settings.model.path}; "
        f"{OTHER_TOKENS}, so theirs are not to be compared; eval=mmlu and the like are"
    )
    print(f"given: warning: {line}", file=sys.stderr, flush=True)
    return [line]


def _memory(row: Arm, cache: Cache, corpora: Any, decoder: Any) -> Memory | None:
    """What the reference says on each feed's batches: all trials with this order of data share it.

    The same batch has the same value to the bit on the same kind of device with as many threads, and nowhere else.
    """
    import torch

    settings = row.settings
    if not settings.cache.enabled:
        return None
    device = torch.cuda.get_device_name(decoder.device) if decoder.device.type == "cuda" else torch.get_num_threads()
    common: dict[str, Any] = {
        "numerics": NUMERICS,
        "model": row.identity["model"],
        "device": [decoder.device.type, device, torch.__version__, settings.train.compile],
        "transformers": version("transformers"),
        "seed": settings.seed,
        "batch_size": settings.train.batch_size,
        "variant": settings.variant,
        "order": settings.data.order,
    }
    corpus_of = {f"forget/{topic}": corpus for topic, corpus in corpora.forget.items()}
    corpus_of |= {"refusal": corpora.refusals} if corpora.refusals else {}

    def whose(corpus: Any) -> dict[str, Any]:
        said = {"name": corpus.name, "documents": corpus.documents.digest()}
        return said | ({"answer_only": True} if corpus.answer_only else {})

    identities = {feed: whose(corpus) for feed, corpus in corpus_of.items()}
    for topic, corpus in corpora.behind.items():
        asked = whose(corpora.forget[topic]) | {"max_length": settings.data.topics[topic].max_length}
        identities[f"refusal/{topic}"] = whose(corpus) | {"behind": asked}
    for topic in corpora.forget:
        cut = settings.data.retain_cut.get(topic)
        identities[f"retain/{topic}"] = whose(corpora.retain) | ({} if cut is None else {"cut": cut})
    return Memory(cache, common, identities)


REASONS: list[tuple[str, Callable[[BaseException], bool], str]] = [
    (
        "not finite",
        lambda error: getattr(error, "reason", None) == "evaluation",
        "its activations leave the range of its numbers: try model.dtype=float32, or a lower train.lr where it trains",
    ),
    (
        "not finite",
        lambda error: isinstance(error, ArithmeticError),
        "try a lower train.lr, or train.max_grad_norm=1",
    ),
    (
        "out of memory",
        ends.out_of_memory,
        "what helps: a smaller train.batch_size with train.grad_accumulation, train.gradient_checkpointing=true, "
        "shorter max_length, model.dtype=bfloat16, a smaller eval.batch_size, model.device_map=auto over several GPUs, "
        "train_only=true for RM methods",
    ),
    (
        "device",
        ends.device_failed,
        "nothing written before is lost; see what nvidia-smi says, and give the same command again",
    ),
    (
        "own code",
        lambda error: getattr(error, "reason", None) == "own code",
        "mend it there; HYDRA_FULL_ERROR=1 shows the whole traceback",
    ),
    (
        "file system",
        ends.file_system_failed,
        "it was asked for half a minute; nothing written before is lost; give the same command again once it answers",
    ),
    (
        "disk full",
        ends.disk_is_full,
        "nothing written before is lost; make room and give the same command again",
    ),
]


def _record_failure(row: Arm, error: Exception, curve: list[dict[str, float]], listener: Listener) -> NoReturn:
    """Say why a trial stopped, in a record of its own and in one line; what is no failure of these kinds goes on up."""
    found = next(((reason, advice) for reason, fits, advice in REASONS if fits(error)), None)
    if found is None:
        raise error
    reason, advice = found
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    if reason == "out of memory":
        message += _sizes(row.settings)
    record = _describe(row, "failure", 0.0) | {"reason": reason, "step": len(curve) + 1, "message": message}
    try:
        name = results.next_failure(row.settings.output_dir, row.key)
        file = results.write(row.settings.output_dir, name, record | {"curve": curve}, listener.commit)
        where = f"; recorded in {file}"
    except OSError:
        where = f"; its record could not be written to {row.settings.output_dir}"
    failure = TrialFailed(f"{row.label}: {message}; {advice}{where}")
    failure.reason = reason
    raise failure from (error if reason == "own code" else None)


def _sizes(settings: Settings) -> str:
    """The largest things in memory, as far as the settings tell."""
    longest = max(corpus.max_length for corpus in settings.data.corpora().values())
    said = (
        f"train.batch_size={settings.train.batch_size} sequences of up to {longest} tokens",
        f"model.dtype={settings.model.dtype}",
        f"layer.trained={settings.layer.trained} with float32 copies and two AdamW moments each",
        f"eval.batch_size={settings.eval.batch_size}",
    )
    return f" ({'; '.join(said)})"


def _evaluate(row: Arm, decoder: Any, tokenizer: Any, tracked: Any, listener: Listener, heard: ends.Noted) -> None:
    """Evaluate what is missing with the unlearned tensors in place, one record for each task and for the probe.

    What is answered when it is interrupted need not be asked again.
    """
    settings = row.settings
    with _judging(row, decoder, listener, heard) as (told, answers, strayed):

        def recorded(kind: str, name: str, metrics: dict[str, Any], started: float) -> None:
            record = _describe(row, kind, started) | {
                "train_key": row.key,
                "task": name,
                "task_identity": row.tasks[name],
                "metrics": metrics,
                **strayed,
            }
            results.write(settings.output_dir, results.eval_key(row.key, row.tasks[name]), record, listener.commit)

        started, names = time.perf_counter(), [name for name in row.missing if not lookup.is_probe(name)]
        outcome = _judge(settings, decoder, tokenizer, names, told, answers) if names else {}
        for name, metrics in outcome.items():
            recorded("eval", name, metrics, started)
            tracked.summarise(_flat(metrics, "eval" if settings.eval.kind == "perplexity" else f"eval/{name}"))
        there = {name: record["metrics"] for name, record in row.evaluated.items() if name not in row.probes}
        judged = there | outcome
        means = lookup.of_roles(judged, lookup.task_roles(settings.eval))  # what sweeps optimise
        if row.label != "retrained":
            means |= lookup.compared(judged, settings.output_dir, lookup.against(settings)) or {}
        tracked.summarise({name: value for name, value in means.items() if value is not None})
        if names:  # else what is kept is an interrupted probe's
            answers.clear()
        for name in (name for name in row.missing if lookup.is_probe(name)):
            started = time.perf_counter()
            with users_code(settings.probe):
                metrics = settings.probe.run(_subject(settings, decoder, tokenizer, told, answers))
            recorded("probe", name, metrics, started)
            tracked.summarise(lookup.of_probe(name, metrics))
            answers.clear()


def _subject(
    settings: Settings, decoder: Any, tokenizer: Any, progress: Callable[[int, int], None], answers: Any = None
) -> Any:
    """What a probe works on."""
    from rna.evaluation import Answers, Subject

    return Subject(settings, decoder, tokenizer, cache_of(settings), progress, answers or Answers(None))


def _answer(row: Arm, decoder: Any, tokenizer: Any, listener: Listener, heard: ends.Noted) -> None:
    """Answer the blocks that a race wants, each recorded as soon as it is answered."""
    from rna.evaluation import evaluate

    settings = row.settings
    with _judging(row, decoder, listener, heard) as (told, answers, _):
        while (number := row.next_block) is not None:
            started = time.perf_counter()
            block = evaluate.answer_block(
                decoder, tokenizer, [*row.tasks], settings.eval, number, told, _smoothing(settings), answers
            )
            block["seconds"] = round(time.perf_counter() - started, 3)
            partial.write(settings.output_dir, row.key, row.asked, number, block, listener.commit)
    answers.clear()


@contextmanager
def _judging(
    row: Arm, decoder: Any, listener: Listener, heard: ends.Noted
) -> Generator[tuple[Callable[[int, int], None], Any, dict[str, Any]]]:
    """The unlearned tensors in place: who is told how far it is, the answers so far, which are kept if it is
    interrupted, and what a record says of tensors that are not its training's own."""
    from rna.decoder import model
    from rna.evaluation import Answers

    settings = row.settings
    assert row.trained is not None
    deltas = model.load_deltas(results.delta_path(settings.output_dir, row.key)) if "delta" in row.trained else {}
    strayed = {"warnings": lines} if deltas and (lines := _strayed(row)) else {}
    answers = Answers(results.answers_path(settings.output_dir, row.key))

    def told(done: int, total: int) -> None:
        if heard.pending:
            answers.keep()
        listener.phase("evaluating", done, total)

    try:
        with model.installed(decoder, deltas):
            yield told, answers, strayed
    except BaseException:
        answers.keep()
        raise


def _judge(
    settings: Settings,
    decoder: Any,
    tokenizer: Any,
    names: list[str],
    progress: Callable[[int, int], None],
    answers: Any = None,
) -> dict[str, Any]:
    """The metrics of these evaluations, of the model as it stands."""
    from rna.corpora import data
    from rna.evaluation import evaluate

    if settings.eval.kind == "choice":
        return evaluate.multiple_choice(
            decoder, tokenizer, names, settings.eval, progress, _smoothing(settings), answers
        )
    corpora = data.load(settings, tokenizer, cache_of(settings))
    held_out = {f"forget_{topic}": corpus.held_out for topic, corpus in corpora.forget.items()}
    held_out["retain"] = corpora.retain.held_out
    return {"perplexity": evaluate.perplexity(decoder, tokenizer, held_out, settings.eval, progress, answers)}


def _interim(
    settings: Settings, decoder: Any, tokenizer: Any, forget: Mapping[str, Any], progress: Callable[[int, int], None]
) -> dict[str, float]:
    """A few questions of the half for choosing, or the first documents, each metric the mean of a role's tasks.

    Args:
        forget: by topic, the corpus whose loss `train.until` may ask for.
    """
    from rna.evaluation import evaluate

    options, names = settings.eval, interim_tasks(settings.eval)
    means: dict[str, float] = {}
    if options.kind == "perplexity" and options.interim_roles is None:
        limited = replace(options, max_documents=min(options.interim_limit, options.max_documents))
        found = _judge(replace(settings, eval=limited), decoder, tokenizer, [], progress)
        means = {f"interim/{part}/nll": metrics["nll"] for part, metrics in found["perplexity"].items()}
    elif names:
        found = evaluate.on_the_way(decoder, tokenizer, names, options, progress, _smoothing(settings))
        values: dict[str, list[float]] = {}
        for name, metrics in found.items():
            for what, value in metrics.items():
                values.setdefault(f"interim/{options.tasks[name].role}/{what}", []).append(value)
        means = {name: sum(of) / len(of) for name, of in values.items()}
    if FORGET_NLL in interim_metrics(settings):
        size, pad_id = options.batch_size or 8, tokenizer.pad_token_id
        means[FORGET_NLL] = evaluate.forget_nll(decoder, forget, options.interim_limit, batch_size=size, pad_id=pad_id)
    return means


def _smoothing(settings: Settings) -> Any:
    """The noise at inference, or None."""
    from rna.unlearning import Smoothing, standard_deviation

    noise = settings.noise
    if noise.name != "inference":
        return None
    return Smoothing(standard_deviation(noise.nu, noise.scale), tuple(noise.layers), noise.samples, settings.eval.seed)


def _flat(metrics: dict[str, Any], prefix: str) -> dict[str, float]:
    """Numbers by flat names such as `eval/mmlu/select/acc`; single subjects, keywords and tasks of a group stay in the
    record."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, dict) and name not in ("subjects", "keywords", "subtasks"):
            found |= _flat(value, f"{prefix}/{name}")
        elif isinstance(value, int | float):
            found[f"{prefix}/{name}"] = value
    return found


def _describe(row: Arm, kind: str, started: float) -> Record:
    """What every record says of itself; the training behind noise at inference is the plain one's."""
    judged = kind == "eval" or row.label != "smoothed"
    unsmoothed = {"none": "base", "given": "given"}.get(row.settings.method.name, "plain")
    return {
        "kind": kind,
        "key": row.key,
        "label": row.label if judged else unsmoothed,
        "config": asdict(row.settings if judged else row.settings.for_training()),
        "losses": told(row.settings),
        "identity": row.identity,
        **results.provenance(),
        "seconds": round(time.perf_counter() - started, 3) if started else None,
        "peak_memory_bytes": _peak_memory(),
    }


def _reset_peak_memory() -> None:
    """Let an arm's peak be its own: one process may do several."""
    import torch

    with suppress(OSError):  # Linux alone has it, and not every container may
        Path("/proc/self/clear_refs").write_text("5")
    for device in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        torch.cuda.reset_peak_memory_stats(device)


def _peak_memory() -> dict[str, int]:
    """Peak resident memory of this process, and of the allocations on all GPUs where there are any."""
    import torch

    peak = {"process": _resident_peak()}
    if torch.cuda.is_available():
        peak["gpu"] = sum(torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count()))
    return peak


def _resident_peak() -> int:
    with suppress(OSError):  # Linux alone has it, and not every container tells it
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024  # in bytes there, in KiB elsewhere
