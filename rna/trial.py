"""One trial: train it if it has no record, evaluate what is missing, and record each once."""

import functools
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NoReturn

from rna import results
from rna.config import MethodSettings, NoiseSettings, Settings
from rna.results import Record

Progress = Callable[[str, int, int], None]  # (phase, done, total)


class TrialFailed(RuntimeError):
    """A trial that stopped; its failure is recorded beside the records, none of which it touched."""


@dataclass
class Arm:
    """One row of a comparison: its settings, its keys, and the records that exist."""

    label: str
    settings: Settings
    key: str
    identity: dict[str, Any]
    tasks: dict[str, dict[str, Any]]  # name -> what the evaluation depends on
    trained: Record | None = None
    evaluated: dict[str, Record] = field(default_factory=dict)

    def refresh(self) -> None:
        """Read the records that exist by now."""
        folder = self.settings.output_dir
        self.trained = results.read(folder, self.key)
        found = {name: results.read(folder, results.eval_key(self.key, task)) for name, task in self.tasks.items()}
        self.evaluated = {name: record for name, record in found.items() if record is not None}

    @property
    def missing(self) -> list[str]:
        return [name for name in self.tasks if name not in self.evaluated]

    @property
    def complete(self) -> bool:
        return self.trained is not None and not self.missing


def arm(label: str, settings: Settings, *, rerun: bool = False) -> Arm:
    """An arm with its keys and the records found for them."""
    identity = results.train_identity(settings)
    key = results.train_key(identity)
    if rerun:
        key = results.next_rerun(settings.output_dir, key)
    made = Arm(label, settings, key, identity, results.task_identities(settings))
    made.refresh()
    return made


def arms(settings: Settings) -> list[Arm]:
    """The rows of a trial's table: base, plain twin, with RNA, and retrained where there is such a model."""
    base = replace(
        settings,
        method=MethodSettings(name="none"),
        retain_loss="none",
        alpha={},
        noise=NoiseSettings(name="none", layers=[]),
    )
    rows = [arm("base", base)]
    if settings.method.name != "none":
        with_noise = settings.noise.name != "none"
        if with_noise and settings.baseline != "skip":
            rows.append(arm("plain", replace(settings, noise=NoiseSettings(name="none", layers=[]))))
        rows.append(arm("with RNA" if with_noise else "plain", settings, rerun=settings.rerun))
    elif settings.rerun:
        rows = [arm("base", base, rerun=True)]
    if settings.model.retrained:
        model = replace(settings.model, path=settings.model.retrained, revision=None)
        rows.append(arm("retrained", replace(base, model=model)))
    return rows


def to_compute(settings: Settings, rows: list[Arm]) -> list[Arm]:
    """The arms that want work, the longest first; a plain twin is left alone with `baseline=cached`."""
    order = {"with RNA": 0, "plain": 1, "base": 2, "retrained": 3}
    wanted = [row for row in rows if not row.complete]
    if settings.baseline == "cached" and settings.noise.name != "none":
        wanted = [row for row in wanted if row.label != "plain"]
    return sorted(wanted, key=lambda row: order[row.label])


@functools.lru_cache(maxsize=1)
def _loaded(path: str, dtype: str, device: str, revision: str | None) -> tuple[Any, Any]:
    """The last model loaded: trials of one process share it, as none of them writes to it."""
    from rna import model

    return model.load(path, dtype=dtype, device=device, revision=revision)


def work(row: Arm, progress: Progress) -> None:
    """Bring an arm's records into being. Whoever else wants the same waits for this one, and then finds it done.

    Raises:
        TrialFailed: after recording why, if a loss or gradient was not finite.
    """
    settings = row.settings
    with results.single_flight(settings.output_dir, row.key):
        row.refresh()
        if row.complete:
            return
        import torch

        from rna import track

        if settings.model.threads:
            torch.set_num_threads(settings.model.threads)
        progress("loading", 0, 1)
        options = settings.model
        decoder, tokenizer = _loaded(options.path, options.dtype, options.device, options.revision)
        fresh = row.trained is None and settings.method.name != "none"
        run_id = row.key if row.trained is None else f"{row.key}-{results.digest(sorted(row.missing))}"
        with track.tracking(settings, run_id=run_id, job_type="train" if fresh else "eval") as tracked:
            if row.trained is None:
                _train(row, decoder, tokenizer, tracked, progress)
            _evaluate(row, decoder, tokenizer, tracked, progress)
    row.refresh()


def _train(row: Arm, decoder: Any, tokenizer: Any, tracked: Any, progress: Progress) -> None:
    """Train and record; for `method=none` there is nothing to train, and the record says so."""
    settings, started = row.settings, time.perf_counter()
    curve: list[dict[str, float]] = []
    facts: Record = {}
    if settings.method.name != "none":
        from rna import data, model, train

        corpora = data.load(settings, tokenizer)
        feeds = train.feeds(settings, corpora, tokenizer.pad_token_id)
        model.self_check(decoder, next(train.feeds(settings, corpora, tokenizer.pad_token_id).retain))

        def on_step(step: int, report: dict[str, float]) -> None:
            curve.append(report)
            tracked.step(step, report)
            progress("training", step, settings.train.steps)

        try:
            deltas = train.train(settings, decoder, feeds, on_step)
        except train.NotFinite as error:
            _record_failure(row, error, curve)
        path = results.delta_path(settings.output_dir, row.key)
        model.save_deltas(deltas, path)
        every = [*corpora.forget.values(), corpora.retain]
        facts = {
            "delta": str(path.relative_to(settings.output_dir)),
            "truncated_documents": {corpus.name: corpus.truncated for corpus in every},
        }
    record = _describe(row, "train", started) | {"curve": curve, "wandb": tracked.path} | facts
    results.write(settings.output_dir, row.key, record)
    row.trained = record


def _record_failure(row: Arm, error: Any, curve: list[dict[str, float]]) -> NoReturn:
    name = results.next_failure(row.settings.output_dir, row.key)
    record = _describe(row, "failure", 0.0) | {"reason": "not finite", "step": error.step, "message": str(error)}
    path = results.write(row.settings.output_dir, name, record | {"curve": curve})
    advice = "try a lower train.lr, or train.max_grad_norm=1"
    raise TrialFailed(f"{row.label}: {error}; {advice}; recorded in {path}") from None


def _evaluate(row: Arm, decoder: Any, tokenizer: Any, tracked: Any, progress: Progress) -> None:
    """Evaluate what is missing with the unlearned tensors in place, one record for each task."""
    from rna import data, evaluate, model

    settings, started = row.settings, time.perf_counter()
    assert row.trained is not None
    deltas = model.load_deltas(results.delta_path(settings.output_dir, row.key)) if "delta" in row.trained else {}
    with model.installed(decoder, deltas):
        if settings.eval.kind == "choice":
            found = evaluate.multiple_choice(
                decoder, tokenizer, row.missing, settings.eval, functools.partial(progress, "evaluating")
            )
            outcome: dict[str, Any] = dict(found)
        else:
            corpora = data.load(settings, tokenizer)
            held_out = {f"forget_{topic}": corpus.held_out for topic, corpus in corpora.forget.items()}
            held_out["retain"] = corpora.retain.held_out
            judged = evaluate.perplexity(
                decoder, tokenizer, held_out, settings.eval, functools.partial(progress, "evaluating")
            )
            outcome = {"perplexity": judged}
    for name, metrics in outcome.items():
        key = results.eval_key(row.key, row.tasks[name])
        record = _describe(row, "eval", started) | {
            "train_key": row.key,
            "task": name,
            "task_identity": row.tasks[name],
            "metrics": metrics,
        }
        results.write(settings.output_dir, key, record)
        nested = metrics if settings.eval.kind == "perplexity" else {name: metrics}
        tracked.summarise(
            {f"eval/{part}/{metric}": value for part, values in nested.items() for metric, value in values.items()}
        )


def _describe(row: Arm, kind: str, started: float) -> Record:
    """What every record says of itself."""
    return {
        "kind": kind,
        "key": row.key,
        "label": row.label,
        "config": asdict(row.settings),
        "identity": row.identity,
        **results.provenance(),
        "seconds": round(time.perf_counter() - started, 3) if started else None,
        "peak_memory_bytes": _peak_memory(),
    }


def _peak_memory() -> dict[str, int]:
    """Peak resident memory of this process, and of the GPU's allocations where there is one."""
    import torch

    peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated()
    return peak
