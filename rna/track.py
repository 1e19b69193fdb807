"""Weights & Biases: one run for each trial, comparable in a dashboard without renaming anything."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rna.settings import Settings, WandbSettings

ANSWERED = 5.0  # seconds in which W&B must have answered, so that a trial need not end for want of it
TAG = 64  # letters that W&B allows a tag
LOGIN = "`wandb login` or WANDB_API_KEY gives one"
READ_ELSEWHERE = ("WANDB_API_KEY", "WANDB_DIR", "WANDB_ENTITY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_SILENT")
INSTEAD = "wandb=offline needs no account and no network: `python -m rna.track sync` uploads its runs later"


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
    beside = [*([settings.defence.name] if settings.defended else []), *settings.forget_side.values()]
    found = [settings.method.name, settings.retain_loss, *beside, noise, layer, settings.model.name]
    return [tag[:TAG] for tag in found if tag]


def row(settings: Settings) -> str:
    """What a dashboard groups by: the method with its retain loss, `npo+mse` or `rmu`."""
    name, retain = settings.method.name, settings.retain_loss
    return name if retain in ("representation", "none") else f"{name}+{retain}"


def config_of(settings: Settings) -> dict[str, Any]:
    """A run's configuration: the trial's settings, its row, and whether noise was on it."""
    other = {"none": "base", "given": "given"}.get(settings.method.name)
    arm = other or ("defended" if settings.defences else "plain" if settings.noise.name == "none" else "rna")
    return asdict(settings) | {"row": row(settings), "arm": arm}


def check(options: WandbSettings) -> None:
    """What can be known of a run before there is one: nothing is asked of W&B but with `wandb=online`.

    Raises:
        ValueError: if the runs' folder cannot be written, for a variable of the environment that W&B would refuse when
            the run is opened; as `check_online` does.
    """
    if options.mode == "disabled":
        return
    if options.dir is not None:
        try:
            Path(options.dir).mkdir(parents=True, exist_ok=True)
            written = os.access(options.dir, os.R_OK | os.W_OK | os.X_OK)
        except OSError:
            written = False
        if not written:
            key = "WANDB_DIR" if os.environ.get("WANDB_DIR") == options.dir else "wandb.dir"
            raise ValueError(f"{key}={options.dir}: cannot write there; give a folder that can be written")
    _check_environment()
    if options.mode == "online":
        check_online("WANDB_MODE=online" if os.environ.get("WANDB_MODE") in ("online", "run") else "wandb=online")


def _check_environment() -> None:
    """Refuse a WANDB_… variable that W&B does, by its name; without any W&B is not even imported."""
    names = [name for name in sorted(os.environ) if name.startswith("WANDB_") and name not in READ_ELSEWHERE]
    if not names:
        return
    import wandb

    for name in names:
        try:
            wandb.Settings().update_from_env_vars({name: os.environ[name]})
        except (wandb.Error, ValueError) as error:
            said = f"{name}={os.environ[name][:200]}"
            raise ValueError(f"{said}: W&B refuses it ({_one_line(error)}); unset it, or wandb=disabled") from None


def check_online(asked: str, instead: str = INSTEAD) -> None:
    """Ask W&B for the account that a run would be of, and nobody for a key.

    Args:
        asked: what wanted it, for the message.
        instead: what else could be done.

    Raises:
        ValueError: without an account that W&B knows, or if it does not answer.
    """
    import requests
    import wandb

    try:
        with _told("online"):
            wandb.login(verify=False)
            found = wandb.setup().settings
    except wandb.Error as error:
        raise ValueError(f"{asked}: no account ({_one_line(error)}): {LOGIN}; {instead}") from None
    except ValueError as error:
        raise ValueError(f"{asked}: the environment's WANDB_… have what W&B refuses: {_one_line(error)}") from None
    host = str(found.base_url).rstrip("/")
    query = {"query": "query Viewer { viewer { id } }", "variables": {}}
    login = ("api", found.api_key) if found.api_key else None
    try:
        answer = requests.post(f"{host}/graphql", json=query, auth=login, timeout=ANSWERED)
    except requests.exceptions.SSLError:  # somebody answers, and W&B's own client has certificates of its own
        return
    except requests.RequestException as error:
        raise ValueError(f"{asked}: {host} cannot be reached ({type(error).__name__}); {instead}") from None
    nobody = login and answer.ok and '"viewer":null' in answer.text.replace(" ", "")
    if nobody or answer.status_code in (401, 403):
        raise ValueError(f"{asked}: {host} does not know this account; {LOGIN}; {instead}")
    if not answer.ok and answer.status_code != requests.codes.too_many_requests:
        raise ValueError(f"{asked}: {host} answers {answer.status_code}; {instead}")


@contextmanager
def _told(mode: str) -> Generator[None]:
    """W&B reads the environment, also where it was told otherwise: for the block the two say the same.

    In silence it also asks nobody for a key, whatever terminal there is.
    """
    before = {name: os.environ.get(name) for name in ("WANDB_MODE", "WANDB_SILENT")}
    os.environ |= {"WANDB_MODE": mode, "WANDB_SILENT": "true"}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).partition(" [type=")[0].split()).rstrip(".")


def opened(options: WandbSettings, output_dir: str, **about: Any) -> Any:
    """`wandb.init` as every run here is opened: online only where that was asked for, and in silence.

    Raises:
        ValueError: with what W&B says, if it opens none.
    """
    import wandb

    mode = "online" if options.mode == "online" else "offline"
    try:
        with _told(mode):
            return wandb.init(
                mode=mode,
                project=options.project,
                entity=options.entity,
                dir=str(options.folder(output_dir).parent),
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True),
                **about,
            )
    except (wandb.Error, ValueError) as error:
        raise ValueError(f"wandb={mode}: no run ({_one_line(error)}); wandb=disabled does without") from None


@contextmanager
def tracking(settings: Settings, group: str | None = None, *, run_id: str, job_type: str) -> Generator[Track]:
    """Open a run for the block; offline by default, and never a prompt for an account.

    Args:
        group: the runs it belongs to, where the settings name none.
    """
    if settings.wandb.mode == "disabled":
        yield Track(None, None)
        return
    run = opened(
        settings.wandb,
        settings.output_dir,
        resume="allow" if settings.wandb.mode == "online" else None,  # else a resumed trial's first half would be lost
        group=settings.wandb.group or group,
        job_type=job_type,
        id=run_id,
        name=f"{'-'.join(tags(settings)[:3])}-s{settings.seed}",
        tags=tags(settings),
        config=config_of(settings),
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
