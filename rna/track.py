"""Weights & Biases: one run for each trial, comparable in a dashboard without renaming anything."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rna import ledger
from rna.settings import Settings


@dataclass
class Track:
    """An open W&B run, or nothing at all with `wandb=disabled`."""

    run: Any
    path: str | None

    def step(self, step: int, report: dict[str, float]) -> None:
        """Log one training step, as W&B's own step too.

        A resumed trial logs the steps that its checkpoint brings back: its offline run holds the whole curve, and an
        online one, which has them, leaves them out.
        """
        if self.run is not None:
            self.run.log({"train/step": step, **report}, step=step, commit=True)

    def summarise(self, metrics: dict[str, float]) -> None:
        """Final numbers, for a dashboard's columns."""
        if self.run is not None:
            self.run.summary.update(metrics)


def tags(settings: Settings) -> list[str]:
    """What a dashboard filters by: method, retain loss, noise, unlearn layer, model."""
    noise = f"nu={settings.noise.nu:g}" if settings.noise.name != "none" else "plain"
    layer = f"layer={settings.layer.unlearn}"
    return [settings.method.name, settings.retain_loss, noise, layer, settings.model.name]


def row(settings: Settings) -> str:
    """What a dashboard groups by: the method with its retain loss, `npo+mse` or `rmu`."""
    name, retain = settings.method.name, settings.retain_loss
    return name if retain in ("representation", "none") else f"{name}+{retain}"


def config_of(settings: Settings) -> dict[str, Any]:
    """A run's configuration: the trial's settings, its row, and whether noise was on it."""
    arm = "base" if settings.method.name == "none" else "plain" if settings.noise.name == "none" else "rna"
    return asdict(settings) | {"row": row(settings), "arm": arm}


@contextmanager
def tracking(settings: Settings, *, run_id: str, job_type: str) -> Generator[Track]:
    """Open a run for the block; offline by default, and never a prompt for an account."""
    if settings.wandb.mode == "disabled":
        yield Track(None, None)
        return
    import wandb

    online = settings.wandb.mode == "online"
    run = wandb.init(
        mode="online" if online else "offline",
        resume="allow" if online else None,  # else a resumed trial's first half would be thrown away
        project=settings.wandb.project,
        entity=settings.wandb.entity,
        group=settings.wandb.group or ledger.sweep(),
        job_type=job_type,
        id=run_id,
        name=f"{'-'.join(tags(settings)[:3])}-s{settings.seed}",
        tags=tags(settings),
        config=config_of(settings),
        dir=settings.output_dir,
        reinit="create_new",
        settings=wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True),
    )
    run.define_metric("train/step")
    run.define_metric("train/*", step_metric="train/step")
    try:
        yield Track(run, str(Path(run.dir).parent))
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


if __name__ == "__main__":
    import runpy

    runpy.run_module("rna.dashboard", run_name="__main__")  # the command line lives in the entry layer
