"""What the program knows of a forget loss, a retain loss, a defence and a probe, whoever wrote them: four classes to
derive from.

An option of `conf/method`, `conf/retain_loss`, `conf/defence` or `conf/probe` names a class with `target:
package.module.Class` and gives its numbers, which are the class's fields. Nothing else has to know the class by name.
"""

import importlib
import inspect
import math
import sys
import traceback
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rna import ends

if TYPE_CHECKING:
    from torch import Tensor

    from rna.evaluation.subject import Subject
    from rna.settings.fields import Settings
    from rna.unlearning.defence import Drawn, Ground, Sample
    from rna.unlearning.step import Step

UNDEFENDED = UNPROBED = "none"
LAYER, LOGITS = "layer", "logits"  # what a loss reads: the stream that leaves the unlearn layer, or the model's end


@dataclass(frozen=True)
class Aim:
    """How far a method drives the forget tokens: one of its numbers, against their norm at the unlearn layer.

    On Zephyr-7B, with norms of 2.2 to 3.2, the paper's c are 6.5 (RMU) and 10 (RSV), 5 to 100 in its search: 1.6 to 45
    times the norm. Far below it RMU's target is the origin, whatever the direction, and RSV's is where the token was;
    far above it the forget loss is all that there is.
    """

    number: str
    relative: bool  # the number is in units of that norm already
    least: float
    most: float
    suggested: float


@dataclass(frozen=True)
class Released:
    """How the authors' released code reads its data for a method."""

    longer_than: int  # characters of the texts that count
    characters: int | None = None  # texts are cut at; the forget texts are stripped first
    raw_cyber: bool = True  # the cyber corpus is lines as they stand
    retain_length: int | None = None  # of retain samples; None: the topic's


@dataclass(kw_only=True)
class Method:
    """A forget loss. Its numbers are a subclass's fields: one without a default must be given by the option's YAML.

    A field made by `above`, `at_least` or `one_of` is checked before anything is loaded; what else there is to check
    goes into `__post_init__`, as a ValueError.
    """

    name: str = ""

    label: ClassVar[str] = ""  # in tables and figures; "": the name
    reads: ClassVar[str] = LOGITS  # LAYER: nothing above the unlearn layer runs | LOGITS
    trains: ClassVar[bool] = True
    refusals: ClassVar[bool] = False  # whether steps hold refusals
    draws: ClassVar[str | None] = None  # the function of `rna.unlearning.losses` that draws its directions
    aim: ClassVar[Aim | None] = None
    released: ClassVar[Released | None] = None  # None: there is no variant=official of it

    def forget_loss(self, step: "Step") -> "Tensor":
        """The loss of a step's forget batch, a scalar: see `rna.unlearning.Step` for what there is to use."""
        raise NotImplementedError(f"{type(self).__name__}.forget_loss")

    def official_forget_loss(self, step: "Step") -> "Tensor":
        """The same as the authors' released code has it, of a step whose values are that code's."""
        return self.forget_loss(step)


@dataclass(kw_only=True)
class RetainLoss:
    """A retain loss between the policy and the (noised) reference, with numbers as a `Method` has them."""

    name: str = ""

    label: ClassVar[str] = ""  # behind a method's, in capitals; "": not shown
    reads: ClassVar[str] = LOGITS  # LAYER | LOGITS: of the methods that it goes with

    def value(self, policy: "Tensor", reference: "Tensor") -> "Tensor":
        """The loss of each token [N], or their mean, from logits [N, V] or the unlearn layer's hidden states [N, D].

        Of logits it is called with some tokens at a time, each of which must count alone.
        """
        raise NotImplementedError(f"{type(self).__name__}.value")

    def value_and_slope(self, policy: "Tensor", reference: "Tensor") -> "tuple[Tensor, Tensor]":
        """Of logits, the values [N] and their slopes by the policy's logits [N, V]; may overwrite both arguments."""
        import torch

        with torch.enable_grad():
            leaf = policy.detach().requires_grad_()
            values_N = self.value(leaf, reference)
            (slope_NV,) = torch.autograd.grad(values_N.sum(), leaf)
        return values_N.detach(), slope_NV

    def official_value(self, policy: "Tensor", reference: "Tensor") -> "Tensor":
        """The mean over all tokens as the authors' released code has it."""
        return self.value(policy, reference).mean()


@dataclass(kw_only=True)
class Defence:
    """What is done to retain samples before both policy and reference read them, with numbers as a `Method` has them.

    The loss is L_forget + α·Σ wᵢ·Lᵢ over the samples of a step, each Lᵢ the method's own retain loss, a mean over the
    tokens that its sample counts. What is to live through all steps, and in checkpoints, goes into `ground.kept`.
    """

    name: str = ""

    label: ClassVar[str] = ""  # in tables and figures; "": the name
    limit: ClassVar[str] = ""  # what it does not protect, as the end of a sentence that begins with its name

    def begin(self, ground: "Ground") -> None:
        """Called once before the first step, and before a checkpoint brings back what was kept."""

    def samples(self, ground: "Ground", drawn: "Drawn") -> "list[Sample]":
        """What the retain loss reads in place of the retain texts drawn for a step: see `rna.unlearning.defence`."""
        raise NotImplementedError(f"{type(self).__name__}.samples")

    def learn(self, ground: "Ground") -> None:
        """Called after a step's backward passes."""


TEXTS, LAYERS, RETRAINED, SEED = "texts", "layers", "retrained", "seed"  # what a probe may read beside questions


@dataclass(kw_only=True)
class Probe:
    """A way to ask whether what was unlearned is still there, with numbers as a `Method` has them.

    The model is asked the questions of some roles as it is, and again in one state after another.
    """

    name: str = ""
    roles: list[str] = field(default_factory=lambda: ["forget"])  # of the tasks that are asked; []: all

    label: ClassVar[str] = ""  # in tables and figures; "": the name

    def needs(self) -> tuple[str, ...]:
        """What its outcome depends on beside the model and its questions: TEXTS, LAYERS, RETRAINED, SEED."""
        return ()

    def files(self) -> dict[str, str]:
        """Of its numbers those that are paths of texts, whose content counts and not their place: name -> path."""
        return {}

    def tells(self) -> tuple[str, ...]:
        """The names of its summary's numbers."""
        return "before", "after", "gain"

    def check(self, settings: "Settings") -> None:
        """Raises ValueError for settings it cannot work with; called before anything is loaded."""

    def begin(self, subject: "Subject") -> None:
        """Raises ValueError for what the loaded model or its texts lack; called before anything is trained."""

    def states(self, subject: "Subject") -> Generator[str]:
        """Puts the model into one state after another, and yields the name of each while it is in it, within a `with`
        or `try` that ends the state whatever happens: see `rna.evaluation.subject`."""
        raise NotImplementedError(f"{type(self).__name__}.states")

    def run(self, subject: "Subject") -> dict[str, Any]:
        """What is recorded: `states`, by name what was answered in each, first `before`, the model as it is; and the
        numbers of a summary, which `tells` names."""
        states = {"before": subject.ask("before")}
        with closing(
            self.states(subject)
        ) as names:  # an error in a state leaves the model as it was, which others share
            for name in names:
                states[name] = subject.ask(name)
        return {"states": states, **self.summary(subject, states)}

    def summary(self, subject: "Subject", states: dict[str, Any]) -> dict[str, Any]:
        """`after`, in the `state` that knows most on the `select` half, `before`, and the `gain` from this to that, all
        on the `report` half."""
        return subject.strongest(states)


Loss = Method | RetainLoss
Plugin = Loss | Defence | Probe


def above(bound: int | float, **options: Any) -> Any:
    """A number that must be finite and greater than `bound`."""
    return field(metadata={"above": bound}, **options)


def at_least(bound: int | float, **options: Any) -> Any:
    """A number that must be finite and no smaller than `bound`."""
    return field(metadata={"at_least": bound}, **options)


def one_of(*words: str, **options: Any) -> Any:
    """One of a few words."""
    return field(metadata={"one_of": words}, **options)


def numbers(part: Plugin) -> dict[str, Any]:
    """What parts it from others of its class: its fields without the name, and without those at their default."""
    found = {item.name: (getattr(part, item.name), _default(item)) for item in fields(part) if item.name != "name"}
    return {name: value for name, (value, default) in found.items() if value is not None and value != default}


def required(kind: type[Plugin]) -> list[str]:
    return [item.name for item in fields(kind) if not _has_default(item)]


def check_numbers(group: str, part: Plugin) -> None:
    """Raises ValueError for a number out of its range, or a word that is not allowed."""
    for item in fields(part):
        value, said = getattr(part, item.name), f"{group}.{item.name}"
        if "one_of" in item.metadata and value not in item.metadata["one_of"]:
            from rna.settings.config import nearest

            raise ValueError(f"{said}={value}: {nearest(str(value), list(item.metadata['one_of']))}")
        for bound, fits, sign in (("above", lambda a, b: a > b, ">"), ("at_least", lambda a, b: a >= b, "≥")):
            if bound in item.metadata and not (math.isfinite(value) and fits(value, item.metadata[bound])):
                raise ValueError(f"{said}={value}: must be a finite number {sign} {item.metadata[bound]:g}")


def _default(item: "Field[Any]") -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def _has_default(item: "Field[Any]") -> bool:
    return item.default is not MISSING or item.default_factory is not MISSING


# From a target to its class


def load(target: str, kind: type[Plugin], key: str) -> type[Any]:
    """The class that `target` names.

    Raises:
        ValueError: if it cannot be imported, with the file and the line where that failed, or is no such class.
    """
    module, _, name = target.rpartition(".")
    wanted = f"a subclass of {kind.__module__.rpartition('.')[0]}.{kind.__name__}"
    if not module:
        raise ValueError(f"{key}.target={target}: must be package.module.Class, {wanted}")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # the user's module, whatever is wrong in it
        looked = ", ".join(str(Path(place or ".").absolute()) for place in sys.path[:2])
        missing = isinstance(error, ModuleNotFoundError) and module.startswith(error.name or " ")
        where = f"; looked for in {looked} and on PYTHONPATH" if missing else ""
        raise ValueError(f"{key}.target={target}: {place_of(error)}{type(error).__name__}: {error}{where}") from None
    if not (inspect.isclass(found) and issubclass(found, kind)):
        raise ValueError(f"{key}.target={target}: must be {wanted}")
    return found


def place_of(error: BaseException) -> str:
    """`FILE, line N: `, of the innermost line of an error that is neither ours nor of a library."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: "
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _outside(frame.filename)]
    return f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames else ""


def _outside(filename: str) -> bool:
    inside = (str(Path(__file__).parents[1]), "<frozen")
    return (
        not filename.startswith(inside)
        and not {"site-packages", "dist-packages"} & set(Path(filename).parts)
        and (not filename.startswith(str(Path(importlib.__file__).parents[1])))
    )


def is_own(kind: type[Plugin]) -> bool:
    """Whether the class is one of this package's, whose versions `NUMERICS` counts."""
    return kind.__module__.startswith("rna.")


def source(kind: type[Plugin]) -> Path | None:
    """The file that a user's class stands in, which counts in a trial's key; None of one of our own."""
    return None if is_own(kind) else Path(inspect.getfile(kind))


def identity(part: Plugin) -> dict[str, Any]:
    """What a trial's key says of a part: its name and numbers, and of a user's class the bytes of its file."""
    file = source(type(part))
    code = {} if file is None else {"class": type(part).__qualname__, "source": sha256(file.read_bytes()).hexdigest()}
    return {"name": part.name, **numbers(part), **code}


class OwnCodeFailed(RuntimeError):
    """A user's class raised an error."""

    reason = "own code"


@contextmanager
def users_code(part: Plugin) -> Generator[None]:
    """Name the user's file and line where a class that is not ours fails; memory that is short is not its failure."""
    if is_own(type(part)):
        yield
        return
    try:
        yield
    except OwnCodeFailed:
        raise
    except Exception as error:
        if ends.out_of_memory(error) or ends.device_failed(error):
            raise
        said = str(error).splitlines()[0] if str(error) else ""
        where = place_of(error) or f"{source(type(part))}: "
        raise OwnCodeFailed(f"{where}{type(error).__name__}: {said}") from error


@cache
def known(name: str) -> type[Method] | None:
    """The class of one of our own methods, by the option's name."""
    return _known("method", name, Method)


@cache
def known_retain(name: str) -> type[RetainLoss] | None:
    return _known("retain_loss", name, RetainLoss)


def _known(group: str, name: str, kind: type[Plugin]) -> Any:
    targets = own_targets(group)
    return load(targets[name], kind, group) if name in targets else None


@cache
def own_targets(group: str) -> dict[str, str]:
    """The options of one of our groups, with their targets."""
    import yaml

    from rna.settings.fields import CONF

    found: dict[str, str] = {}
    for file in sorted((CONF / group).glob("*.yaml")):
        plain = yaml.safe_load(file.read_text(encoding="utf-8"))
        found[file.stem] = plain.get(group, plain)["target"]
    return found


def made(name: str, **given: Any) -> Method:
    """One of our own methods with these numbers."""
    kind = known(name)
    assert kind is not None
    return kind(name=name, **given)


def told(settings: "Settings") -> dict[str, str]:
    """What a record says of its losses, defences and probe, for readers who have not their classes."""
    chosen, retain = settings.method, settings.retain
    title = _title(chosen.label or chosen.name, retain.label or "") if chosen.trains else ""
    found = {"title": title, "reads": chosen.reads, "method": _target(chosen), "retain_loss": _target(retain)}
    found |= {"probe": _target(settings.probe)} if settings.probed else {}
    if not chosen.trains or not settings.defences:
        return found
    return found | {"title": ", ".join([title, *settings.defences]), "defence": _target(settings.defence)}


def _target(part: Plugin) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"


def title_of(record: dict[str, Any]) -> str:
    """A trial's method as the paper writes it: RMU, NPO+KL; empty for what was not trained."""
    name, retain = record["config"]["method"]["name"], record["config"]["retain_loss"]
    if "losses" in record:
        return record["losses"]["title"]
    kind, of_retain = known(name), known_retain(retain)  # a record from before they said it themselves
    if kind is not None and not kind.trains:
        return ""
    label = kind.label if kind else name
    return _title(label, of_retain.label if of_retain else retain.upper())


def reads_of(record: dict[str, Any]) -> str:
    """What a trial's losses read: LAYER or LOGITS."""
    if "losses" in record:
        return record["losses"]["reads"]
    kind = known(record["config"]["method"]["name"])
    return kind.reads if kind else LOGITS


def _title(label: str, retain: str) -> str:
    return f"{label}+{retain}" if retain else label
