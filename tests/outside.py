"""A user's own method and retain loss: a module, and the options that name its classes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULE = '''"""Two losses of my own."""

from dataclasses import dataclass

from torch import Tensor

from rna.settings import Method, RetainLoss, above


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
'''


def brought(folder: Path, module: str = "my_unlearning", source: str = MODULE) -> Path:
    """The user's folder: a module, and `conf/` beside it."""
    (folder / f"{module}.py").write_text(source)
    for group, name, said in (
        ("method", "mine", f"name: mine\ntarget: {module}.Mine\ntau: 5.0\n"),
        ("retain_loss", "l1", f"name: l1\ntarget: {module}.L1\n"),
    ):
        (folder / "conf" / group).mkdir(parents=True, exist_ok=True)
        (folder / "conf" / group / f"{name}.yaml").write_text(said)
    return folder


def installed(folder: Path) -> dict[str, str]:
    """The environment in which `rna` is an installed wheel of this checkout, and the checkout is not to be seen."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "site"), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    return os.environ | {"PYTHONPATH": str(folder / "site")}
