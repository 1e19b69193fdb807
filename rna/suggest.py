"""`python -m rna.suggest model=… data=… [method=…] [OVERRIDE …]`: strengths that fit a model nobody has tuned.

Measures the scales of the model and the texts and what a step costs, and prints a command of `rna.run` whose strengths
follow from them, with a line of reason each. Without method=… for RMU and for NPO+KL. What an OVERRIDE says stays as it
is. With --search it trains a ladder of strengths, each rung a trial with a record, up to the weakest that forgets.
"""

import argparse
import itertools
import math
import os
import resource
import shlex
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rna import printing
from rna.ends import guarded
from rna.intervals import answers
from rna.settings import CONF, LAYER, NoiseSettings, Settings, compose, config, hydra_text, known, own_targets
from rna.store import results

if TYPE_CHECKING:
    from rna.corpora import Corpora
    from rna.decoder import Decoder
    from rna.intervals import Estimate
    from rna.trial import Arm

# What carries over between models, as seen on SmolLM2-135M and the demo: where one forgets at the first rung and the
# other at the highest. Both losses of RM are in units of the stream's square, those of PO in nats: once the target is a
# multiple of the norm, no α depends on the scale of activations.
ALPHA = {"representation": 100.0, "kl": 50.0, "mse": 5.0}
MOVE = {"representation": 0.03, "kl": 0.01, "mse": 0.01}  # of its norm that a first step moves a forget token
STEPS = {"representation": 40, "kl": 75, "mse": 75}  # of each topic
ZEPHYR_RMS = 0.08  # of a dimension at layer 7 of Zephyr-7B on Wikitext, which the paper's ν belong to
RUNGS = 6
PO_RUNG = {"retain.alpha.default": 0.45}
RETAIN_RISE = 0.05  # of the retain perplexity that forgetting may cost
RETAIN_DROP = 5.0  # points of retain accuracy
PROBE = 1e-3  # learning rate of the measured steps over the weights' root mean square
PROBED_STEPS = 3
LENGTHS = 256  # documents whose length is told


@dataclass(frozen=True)
class Scales:
    """What a model and its texts measure; norms and root mean squares are the middle token's, at the unlearn layer."""

    forget_norms: dict[str, float]  # by topic
    retain_norm: float
    largest_norm: float  # of a retain token
    rms: float  # of a dimension, on retain text
    weight_rms: float  # of the trained tensors' entries


@dataclass(frozen=True)
class Cost:
    """A training step and an evaluation."""

    step_seconds: float
    gib: float  # peak memory, of the GPU where there is one
    move: float  # of its norm that the middle forget token moved in a step at `lr`
    lr: float
    evaluation_seconds: float | None


@dataclass(frozen=True)
class Choice:
    """One override and why."""

    key: str
    value: float | int
    reason: str

    @property
    def override(self) -> str:
        return f"{self.key}={self.value:g}"


def main() -> None:
    printing.prepare()
    parser = printing.Parser(
        prog=printing.program("suggest"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as on rna.run's command line")
    parser.add_argument("--search", action="store_true", help="train up to the weakest strength that forgets")
    parser.add_argument("--rungs", type=int, default=RUNGS, help=f"strengths that --search tries at most ({RUNGS})")
    parser.add_argument("--output-dir", default="outputs", help="where everything is written (outputs)")
    options = parser.parse_intermixed_args()
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported; progress is shown by `rna.progress`
    guarded(lambda: suggest(options))


def suggest(options: argparse.Namespace) -> None:
    """Measure, and print what follows.

    Raises:
        ValueError: for settings that `rna.run` refuses, method=none, or a strength that is said and to be searched.
    """
    config.register_resolvers()
    said = said_by(options.overrides)
    if options.rungs < 1:
        raise ValueError(f"--rungs {options.rungs}: must be a whole number ≥ 1")
    common = [
        *options.overrides,
        *([] if options.output_dir == "outputs" else [f"output_dir={hydra_text(options.output_dir)}"]),
    ]
    common += _fitting(common)
    cells = _cells(said)
    every = [config.check(compose([*common, *cell], None)) for cell in cells]
    if not every[0].method.trains:
        raise ValueError(
            f"method={every[0].method.name}: has no strength; allowed: "
            + ", ".join(name for name in own_targets("method") if (kind := known(name)) and kind.trains)
        )
    if every[0].layer.site == "mlp":
        raise ValueError("layer.site=mlp: measured is the residual stream; allowed: residual")
    results.check_writable(every[0].output_dir)

    from rna import trial
    from rna.corpora import data
    from rna.unlearning import strength

    read: list[str] = []
    for settings in every:
        read += data.validate(settings, trial.cache_of(settings), known=read)
    for line in strength.keyword_warnings(every[0]):
        print(f"warning: {line}", file=sys.stderr)
    if every[0].model.threads:
        import torch

        torch.set_num_threads(every[0].model.threads)
    for number, (cell, settings) in enumerate(zip(cells, every, strict=True)):
        decoder, tokenizer = trial.load_model(settings)
        corpora = data.load(settings, tokenizer, trial.cache_of(settings))
        scales = measured(settings, decoder, corpora, tokenizer.pad_token_id)
        if number == 0:
            tell_scales(settings, scales)
            tell_documents(settings, tokenizer, corpora)
        try:
            cost = probed(settings, decoder, tokenizer, corpora, scales)
        except ArithmeticError as error:
            raise ValueError(
                f"model.path={settings.model.path}: cannot be measured ({error}); try model.dtype=float32"
            ) from None
        choices = [choice for choice in chosen(settings, scales, cost) if choice.key not in said]
        tell_choices(settings, cost, choices)
        words = [*common, *cell]
        if options.search:
            search(settings, words, choices, said, options.rungs)
        else:
            print(f"\n{command(words, choices)}\n")
    if not options.search:
        print("(A suggestion: nobody tuned it on this model. --search tries it, and what is stronger.)")


def _cells(said: set[str]) -> list[list[str]]:
    """The methods to suggest for, beside what is said."""
    if said & {"method", "experiment"}:
        return [[]]
    return [["method=npo"]] if said & {"retain", "retain_loss"} else [["method=rmu"], ["method=npo", "retain=kl"]]


def said_by(overrides: list[str]) -> set[str]:
    """The keys that a user said, and those that a user's key stands for."""
    keys = {item.lstrip("+~").partition("=")[0] for item in overrides}
    if any(key.startswith("retain.alpha.") for key in keys):
        keys.add("retain.alpha.default")
    if any(item.startswith(("noise=none", "noise=relative")) for item in overrides):
        keys.add("noise.nu")
    return keys


def _fitting(overrides: list[str]) -> list[str]:
    """Own texts are judged by their perplexity, as there are no questions on them."""
    said = said_by(overrides)
    return ["eval=perplexity"] if "eval" not in said and "data=text" in overrides else []


def measured(settings: Settings, decoder: "Decoder", corpora: "Corpora", pad_id: int) -> Scales:
    """The scales of the model as it is."""
    from rna.decoder import model
    from rna.unlearning import strength

    layer = settings.layer.unlearn
    norms = {
        name: strength.token_norms(decoder, corpus.documents, [layer], pad_id)[layer]
        for name, corpus in {**corpora.forget, "": corpora.retain}.items()
    }
    retain = norms.pop("")
    own = dict(decoder.model.named_parameters())
    trained = [own[name] for name in model.trained_names(decoder, settings.layer.trained, settings.layer.trainable)]
    squares = sum(tensor.float().square().sum().item() for tensor in trained)
    return Scales(
        forget_norms={topic: found.median().item() for topic, found in norms.items()},
        retain_norm=retain.median().item(),
        largest_norm=retain.max().item(),
        rms=strength.root_mean_square(retain, decoder.width),
        weight_rms=(squares / sum(tensor.numel() for tensor in trained)) ** 0.5,
    )


def probed(settings: Settings, decoder: "Decoder", tokenizer: Any, corpora: "Corpora", scales: Scales) -> Cost:
    """A few steps of the method itself, of which nothing is kept: their time, their memory, how far the first moves."""
    from rna.unlearning import train

    pad_id = _pad_id(settings, tokenizer)
    if decoder.device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    move = moved(settings, decoder, corpora, tokenizer, scales)
    ends: list[float] = []
    timed = _plain(settings, rate(scales), PROBED_STEPS)
    train.train(timed, decoder, train.feeds(timed, corpora, pad_id), lambda *_: ends.append(time.perf_counter()))
    return Cost(
        step_seconds=min(after - before for before, after in itertools.pairwise(ends)),
        gib=_peak_bytes() / 2**30,
        move=move,
        lr=rate(scales),
        evaluation_seconds=_evaluation_seconds(settings, decoder, tokenizer, corpora),
    )


def rate(scales: Scales) -> float:
    """The learning rate of the measured steps."""
    return PROBE * scales.weight_rms


def _plain(settings: Settings, lr: float, steps: int) -> Settings:
    noise = NoiseSettings(name="none", layers=[])
    return replace(settings, noise=noise, train=replace(settings.train, lr=lr, steps=steps))


def _pad_id(settings: Settings, tokenizer: Any) -> int:
    return tokenizer.eos_token_id if settings.variant == "official" else tokenizer.pad_token_id


def moved(settings: Settings, decoder: "Decoder", corpora: "Corpora", tokenizer: Any, scales: Scales) -> float:
    """How far a first step at `rate` moves the middle forget token at the unlearn layer, over its norm.

    AdamW's first step is the learning rate's size in every entry, so a token moves in proportion to it.
    """
    import torch

    from rna.decoder import model
    from rna.unlearning import train

    plain, pad_id = _plain(settings, rate(scales), 1), _pad_id(settings, tokenizer)
    policy = train.train(plain, decoder, train.feeds(plain, corpora, pad_id), lambda *_: None)
    batch = next(next(iter(train.feeds(plain, corpora, pad_id).forget.values()))).to(decoder.device)
    with torch.no_grad():
        entry = model.embed(decoder, batch)
        streams = (
            model.stream_at(decoder, entry, settings.layer.unlearn, policy=tensors) for tensors in (None, policy)
        )
        before, after = (hidden_BTD[batch.mask_BT.to(hidden_BTD.device)].float() for hidden_BTD in streams)
    return ((after - before).norm(dim=-1) / before.norm(dim=-1)).median().item()


def _peak_bytes() -> int:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _evaluation_seconds(settings: Settings, decoder: "Decoder", tokenizer: Any, corpora: "Corpora") -> float | None:
    """Of one model, from a batch of documents, or from a few questions of each task; None where nothing is judged."""
    from rna.evaluation import evaluate

    options = settings.eval
    if settings.train_only or options.backend != "torch":
        return None
    if options.kind == "perplexity":
        counts = [min(len(corpus.held_out), options.max_documents) for corpus in corpora.forget.values()]
        counts += 4 * [min(len(corpora.retain.held_out), options.max_documents)]  # as it is, and three times in part
        size = options.batch_size or 8
        some = [corpora.retain.documents[index] for index in range(min(size, len(corpora.retain.documents)))]
        started = time.perf_counter()
        evaluate.token_losses(decoder, some, [0] * len(some), batch_size=size, pad_id=tokenizer.pad_token_id)
        return (time.perf_counter() - started) * sum(counts) / len(some)
    few = replace(options, limit=8)
    names = list(options.tasks)
    started = time.perf_counter()
    found = evaluate.multiple_choice(decoder, tokenizer, names, few, lambda *_: None)
    seconds = time.perf_counter() - started
    asked = sum(metrics["n"] for metrics in found.values())
    return seconds * evaluate.questions_of(names, options) / asked


def chosen(settings: Settings, scales: Scales, cost: Cost) -> list[Choice]:
    """The strengths that follow from the scales: the weakest that is worth trying."""
    aim, of_layer, retain = settings.method.aim, settings.method.reads == LAYER, settings.retain_loss
    norm = sum(scales.forget_norms.values()) / len(scales.forget_norms)
    found: list[Choice] = []
    if aim is not None:
        times = aim.suggested
        if aim.relative:
            why = f"{times:g} times each token's own norm; 3 on Zephyr-7B"
            found.append(Choice(f"method.{aim.number}", times, why))
        else:
            value = _short(times * norm)
            why = f"{times:g} times the forget tokens' norm ({norm:.3g}), as on Zephyr-7B"
            found.append(Choice(f"method.{aim.number}", value, why))
    unit = "the target's square, in which both losses are" if of_layer else "nats, which know no scale"
    found.append(Choice("retain.alpha.default", ALPHA[retain], f"in units of {unit}"))
    lr = _short(MOVE[retain] * cost.lr / cost.move)
    why = (
        f"a first step moves the forget tokens by {100 * MOVE[retain]:g} % of their norm (measured); "
        f"{100 * lr / scales.weight_rms:.2g} % of the weights' root mean square"
    )
    found.append(Choice("train.lr", lr, why))
    topics = len(settings.data.topics)
    steps = STEPS[retain] * topics
    found.append(Choice("train.steps", steps, f"{STEPS[retain]} a topic; more go further and cost the retain set more"))
    if settings.noise.name == "rna" or settings.noise.name == "none":
        share = zephyr_nu(settings.method.name, retain) / ZEPHYR_RMS
        std = share * scales.rms
        why = f"{share:.2g} of a dimension's root mean square ({scales.rms:.2g}), as on Zephyr-7B"
        found.append(Choice("noise.nu", _short(std**2 if settings.noise.scale == "variance" else std), why))
    return found


def zephyr_nu(method: str, retain_loss: str) -> float:
    """The paper's ν for a method on Zephyr-7B (arXiv:2501.19202, Appendix A.4)."""
    import yaml

    tuned = yaml.safe_load((CONF / "tuned" / "zephyr_7b" / f"{method}_{retain_loss}.yaml").read_text(encoding="utf-8"))
    return float(tuned["tuned"]["nu"])


def _short(value: float) -> float:
    """Two digits, which is more than anybody knows."""
    return float(f"{value:.2g}")


def command(words: list[str], choices: list[Choice]) -> str:
    """Ready to be pasted."""
    return shlex.join(["python", "-m", "rna.run", *words, *(choice.override for choice in choices)])


def tell_scales(settings: Settings, scales: Scales) -> None:
    layer = settings.layer.unlearn
    forget = ", ".join(f"{topic} {norm:.3g}" for topic, norm in scales.forget_norms.items())
    print(f"token norms at layer {layer} (median): forget {forget}; retain {scales.retain_norm:.3g}")
    if scales.largest_norm > 4 * scales.retain_norm:
        print(f"  a few tokens are far larger (up to {scales.largest_norm:.3g}), and count for little here")
    print(f"root mean square of a dimension there: {scales.rms:.3g}; of the trained weights: {scales.weight_rms:.3g}")


def tell_documents(settings: Settings, tokenizer: Any, corpora: "Corpora") -> None:
    """How long the documents are before they are cut, as far as the first ones tell."""
    from rna.corpora import data

    keys = settings.data.corpora()
    for (key, limits), corpus in zip(keys.items(), [*corpora.forget.values(), corpora.retain], strict=True):
        texts = itertools.islice(data.read_texts(limits, f"{key}.path"), LENGTHS)
        lengths = [len(tokenizer(text, verbose=False)["input_ids"]) for text in texts]
        mean, longest, count = sum(lengths) / len(lengths), max(lengths), len(corpus.documents) + len(corpus.held_out)
        known, seen = corpus.truncated, sum(length > limits.max_length for length in lengths)
        cut = seen / len(lengths) if known is None else known / count
        print(
            f"{key}: {count} documents of {mean:.0f} tokens on average, {longest} at most (the first {len(lengths)}); "
            f"{100 * cut:.0f} % cut at max_length={limits.max_length}"
        )


def tell_choices(settings: Settings, cost: Cost, choices: list[Choice]) -> None:
    evaluation = "" if cost.evaluation_seconds is None else f"; an evaluation about {cost.evaluation_seconds:.0f} s"
    print(f"\n{_title(settings)}: a step {cost.step_seconds:.2g} s, {cost.gib:.2g} GiB (measured){evaluation}")
    tuned = CONF / "tuned" / settings.model.name / f"{settings.method.name}_{settings.retain_loss}.yaml"
    if tuned.is_file():
        print(f"  (rna.run has searched values for this model, {tuned.relative_to(CONF.parent)})")
    width = max((len(choice.override) for choice in choices), default=0)
    for choice in choices:
        print(f"  {choice.override:<{width}}  {choice.reason}")


def _title(settings: Settings) -> str:
    name = settings.method.name
    return name if settings.method.reads == LAYER else f"{name}+{settings.retain_loss}"


def stronger(settings: Settings, choices: list[Choice], rung: int) -> list[Choice]:
    """The same strengths, `rung` times raised: learning rate and RM's target half as large again, PO's α under half."""
    aim = settings.method.aim
    own = {f"method.{aim.number}": 1.5} if aim is not None else PO_RUNG
    factors = {"train.lr": 1.5, **own}
    return [replace(one, value=_short(one.value * factors.get(one.key, 1.0) ** rung)) for one in choices]


def search(settings: Settings, words: list[str], choices: list[Choice], said: set[str], rungs: int) -> None:
    """Climb until a rung forgets, plain and then with its noise, or costs the retain set too much.

    Raises:
        ValueError: if all that a rung would raise is said, or nothing judges.
    """
    from rich.table import Table

    if settings.train_only:
        raise ValueError("train_only=True: --search judges by the evaluation; allowed: false")
    if stronger(settings, choices, 1) == choices:
        raise ValueError(f"--search: nothing is left to raise, as {', '.join(sorted(said))} are said")
    unit = "points" if settings.eval.kind == "choice" else "%"
    made = Table(title=f"{settings.model.name} · {_title(settings)} · one seed")
    for title in ("strengths", "", "verdict", "", f"retain, {unit}", "record"):
        made.add_column(title, overflow="fold")
    reached: dict[str, list[Choice]] = {}  # the weakest that forget, plain, and with noise as well
    for rung in range(rungs):
        raised = stronger(settings, choices, rung)
        cell = config.check(compose([*words, *(choice.override for choice in raised)], None))
        strengths, bearable = " ".join(one.override for one in raised if one.key != "noise.nu"), True
        for label in ("plain", "with RNA") if cell.noise.name != "none" else ("plain",):
            row, forgot, retain = _tried(cell, label)
            verdict, _, told = forgot.partition(": ")
            cost, bearable = _retain_cost(settings, retain)
            shown = "–" if cost is None else f"{cost:+.1f}"
            made.add_row(strengths, label, verdict, told, shown, row.key)
            if verdict != answers.FORGOTTEN or not bearable:
                break
            reached.setdefault(label, raised)
            strengths = ""
        else:
            break
        if not bearable:
            break
    printing.console(width=200).print(made)
    if not reached:
        print(f"{_title(settings)}: no rung forgets at a retain cost of at most {_allowed(settings)}; see the table")
        return
    weakest = reached.get("with RNA", reached["plain"])
    alone = "" if "with RNA" in reached or settings.noise.name == "none" else " without noise, and none with it"
    print(f"{_title(settings)}: the weakest of these that forgets{alone} (one seed; nobody tuned it further):\n")
    print(f"{command(words, weakest)}\n")


def _tried(cell: Settings, label: str) -> "tuple[Arm, str, Estimate | None]":
    """A rung's plain trial or the one with noise, what it forgot, and what that cost the retain set.

    What has a record is not computed again.
    """
    from rna import progress, show, trial

    wanted = replace(cell, noise=NoiseSettings(name="none", layers=[])) if label == "plain" else cell
    rows = trial.arms(replace(wanted, baseline="skip", model=replace(cell.model, retrained=None)))
    base, row = rows[0], rows[-1]
    if missing := [one for one in (row, base) if not one.complete]:
        progress.work_on(missing)
    for one in rows:
        one.refresh()
    forgot = show.forgot(row, base)
    if forgot is None:
        raise ValueError(f"eval={cell.eval.name}: --search needs forget tasks to judge by")
    return row, forgot, show.changed(row, base, "retain")


def _allowed(settings: Settings) -> str:
    return f"{RETAIN_DROP:g} points" if settings.eval.kind == "choice" else f"{100 * RETAIN_RISE:g} % of perplexity"


def _retain_cost(settings: Settings, change: "Estimate | None") -> tuple[float | None, bool]:
    """The change on the retain set, in points of accuracy or percent of perplexity, and whether it may be."""
    if change is None:
        return None, True
    if settings.eval.kind == "choice":
        return change.value, change.value >= -RETAIN_DROP
    rise = math.exp(min(change.value, 700.0)) - 1
    return 100 * rise, rise <= RETAIN_RISE


if __name__ == "__main__":
    main()
