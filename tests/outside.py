"""A user's own method, retain loss, defence and probe: a module, and the options that name its classes."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULE = '''"""Two losses, a defence and a probe of my own."""

from dataclasses import dataclass

from torch import Tensor

from rna.settings import Defence, Method, Probe, RetainLoss, above


@dataclass(kw_only=True)
class Mine(Method):
    """Log-probability, bounded: tau * tanh(log pi / tau)."""

    tau: float = above(0)
    label = "Bounded"

    def forget_loss(self, step) -> Tensor:
        return self.tau * (step.log_probs("forget") / self.tau).tanh().mean()


@dataclass(kw_only=True)
class L1(RetainLoss):
    label = "L1"

    def value(self, policy: Tensor, reference: Tensor) -> Tensor:
        return (policy.float().log_softmax(-1) - reference.float().log_softmax(-1)).abs().mean(-1)


@dataclass(kw_only=True)
class Echo(Defence):
    """Each retain text twice, of which the second counts."""

    label = "echo"

    def begin(self, ground) -> None:
        ground.kept["steps"] = 0

    def samples(self, ground, drawn):
        from rna.unlearning import Sample

        rows = [(row + row)[: ground.max_length] for row in drawn.retain]
        counted = [[place >= len(own) for place in range(len(row))] for own, row in zip(drawn.retain, rows)]
        return [Sample(rows, counted)]

    def learn(self, ground) -> None:
        ground.kept["steps"] += 1


@dataclass(kw_only=True)
class Half(Probe):
    """The trained layers at half their strength, one after the other."""

    def states(self, subject):
        from rna.decoder import model

        own = dict(subject.decoder.model.named_parameters())
        for layer in subject.settings.layer.trained:
            name = f"{subject.decoder.names[layer]}.mlp.down_proj.weight"
            with model.installed(subject.decoder, {name: own[name] / 2}):
                yield f"layer {layer} halved"
'''


def brought(folder: Path, module: str = "my_unlearning", source: str = MODULE) -> Path:
    """The user's folder: a module, and `conf/` beside it."""
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(source)
    for group, name, said in (
        ("method", "mine", f"name: mine\ntarget: {module}.Mine\ntau: 5.0\n"),
        ("retain_loss", "l1", f"name: l1\ntarget: {module}.L1\n"),
        ("defence", "echo", f"name: echo\ntarget: {module}.Echo\n"),
        ("probe", "half", f"name: half\ntarget: {module}.Half\n"),
    ):
        (folder / "conf" / group).mkdir(parents=True, exist_ok=True)
        (folder / "conf" / group / f"{name}.yaml").write_text(said)
    return folder


def wheel_of(folder: Path) -> Path:
    """A wheel of this checkout, built there."""
    folder.mkdir(exist_ok=True)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def installed(folder: Path) -> dict[str, str]:
    """The environment in which `rna` is an installed wheel of this checkout, and the checkout is not to be seen."""
    wheel = wheel_of(folder)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "site"), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    return os.environ | {"PYTHONPATH": str(folder / "site")}


STEPS, EVERY = 40, 5  # of a trial, and between two checkpoints
COUNTED = MODULE.replace(
    "        return self.tau *",
    '        import os, time\n\n        time.sleep(0.05)\n        with open(os.environ["MINE_CALLS"], "a") as stream:\n'
    '            stream.write("step\\n")\n        return self.tau *',
)


class Sweep:
    """Two trials of a user's method, from an installed wheel, in the user's own folder: begun, killed, begun again."""

    def __init__(self, folder: Path, *launcher: str) -> None:
        self.folder = brought(folder / "mine", source=COUNTED)
        self.calls = folder / "calls"
        self.output = folder / "o"
        self.environment = installed(folder / "wheel") | {"MINE_CALLS": str(self.calls)}
        self.words = ("--config-dir", "conf", "-m", "method=mine", "retain_loss=l1", "seed=0,1", "noise.nu=0.05")
        self.words += ("baseline=skip", "model.retrained=null", "eval.limit=4", "wandb=disabled", "train.lr=1e-5")
        self.words += (f"train.steps={STEPS}", f"train.checkpoint_every={EVERY}", f"output_dir={self.output}")
        self.words += ("hydra.sweeper.study_name=mine", *launcher)

    def start(self) -> "subprocess.Popen[bytes]":
        with (self.folder / "printed.log").open("a") as stream:
            command = [sys.executable, "-m", "rna.run", *self.words]
            return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=stream, stderr=stream)

    @property
    def printed(self) -> str:
        return (self.folder / "printed.log").read_text()

    @property
    def steps(self) -> int:
        return self.calls.read_text().count("\n") if self.calls.exists() else 0

    def keys(self) -> set[str]:
        """Of the trials that are trained."""
        found = (json.loads(file.read_text()) for file in (self.output / "results").glob("*.json"))
        return {one["key"] for one in found if one["kind"] == "train" and one["label"] == "with RNA"}

    def change(self) -> None:
        """One byte of the user's file."""
        (self.folder / "my_unlearning.py").write_text(COUNTED + "\n")
