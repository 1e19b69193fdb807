"""`python -m rna.track sync|close|workspace [NAME]`: a study on Weights & Biases, from what lies in the output folder.

`close` writes the study's closing run (leaderboard and figures), `sync` uploads offline runs once each, `workspace`
builds the dashboard, or writes its definition where there is no account. Without a NAME all records count.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rna.report import __main__ as reporting
from rna.report import records, tables
from rna.report.records import Filters, Trial

CHUNK = 20  # offline runs a call of `wandb sync`


def main() -> None:
    """The command line. A mistake ends in one line and exit code 2, an upload that stopped in one line and code 1."""
    parser = argparse.ArgumentParser(prog="python -m rna.track", description=__doc__)
    parser.add_argument("action", choices=["sync", "close", "workspace"])
    parser.add_argument("name", nargs="?", metavar="NAME", help="a sweep; without one: all records")
    parser.add_argument("--output-dir", default="outputs", help="where the records lie (outputs)")
    parser.add_argument("--entity", help="the W&B entity; none: the account's own")
    parser.add_argument("--project", default="rna", help="the W&B project (rna)")
    options = parser.parse_args()
    try:
        if options.action == "sync":
            done, total = sync(options.output_dir, options.name)
            print(f"{done} of {total} runs are uploaded")
            if done < total:
                print("error: an upload stopped; the same command goes on where this one was", file=sys.stderr)
                sys.exit(1)
        elif options.action == "close":
            print(close(options.output_dir, options.name, options.project, options.entity))
        else:
            print(workspace(options.output_dir, options.name, options.project, options.entity))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _selected(output_dir: str, name: str | None) -> list[Trial]:
    keys = records.keys_of(output_dir, name) if name else None
    found = records.select(records.load(output_dir).trials, Filters(), keys)
    if not found:
        raise ValueError(f"no records in {Path(output_dir) / 'results'}; python -m rna.run makes one")
    return found


# Uploading


def offline_runs(output_dir: str, name: str | None) -> list[Path]:
    """The offline runs of a study, oldest first: its trials', their evaluations' and its closing run's.

    A resumed trial has several; they share an id and become one run.
    """
    keys = {trial.key for trial in _selected(output_dir, name)}
    folders = sorted((Path(output_dir) / "wandb").glob("offline-run-*"))
    closing = closing_id(name)
    return [folder for folder in folders if (run_id := _run_id(folder)) == closing or run_id.split("-")[0] in keys]


def _run_id(folder: Path) -> str:
    """`offline-run-TIME-ID`: the id, which may hold dashes itself."""
    return folder.name.split("-", 3)[3]


def uploaded(folder: Path) -> bool:
    """W&B's own mark beside a run's file."""
    return any(folder.glob("*.wandb.synced"))


def sync(output_dir: str, name: str | None, upload: Callable[[Sequence[Path]], bool] | None = None) -> tuple[int, int]:
    """Upload what is not uploaded yet; returns how many runs are by now, and how many there are.

    Stops at the first call that fails; what was uploaded is marked and not sent again.
    """
    send = upload or _wandb_sync
    folders = offline_runs(output_dir, name)
    waiting = [folder for folder in folders if not uploaded(folder)]
    for start in range(0, len(waiting), CHUNK):
        if not send(waiting[start : start + CHUNK]):
            break
        print(f"{min(start + CHUNK, len(waiting))} of {len(waiting)} sent", flush=True)
    return sum(uploaded(folder) for folder in folders), len(folders)


def _wandb_sync(folders: Sequence[Path]) -> bool:
    command = [sys.executable, "-m", "wandb", "sync", "--yes", *map(str, folders)]
    return subprocess.run(command, check=False).returncode == 0


# The closing run


def closing_id(name: str | None) -> str:
    return f"sweep-{name or 'all'}"


def close(output_dir: str, name: str | None, project: str, entity: str | None) -> str:
    """Report on the study, and log summary table, figures and each method's gain as one run; returns its folder."""
    import wandb

    command = f"python -m rna.report {name}" if name else "python -m rna.report"
    folder = reporting.report([name] if name else [], Filters(), output_dir, command)
    study = records.studies(_selected(output_dir, name))[0]
    made = {table.name: table for table in tables.every(study, [])}
    run = wandb.init(
        mode="offline",
        project=project,
        entity=entity,
        group=name,
        job_type="sweep",
        id=closing_id(name),
        name=f"{name or 'all'}: {study.name}",
        dir=output_dir,
        reinit="create_new",
        settings=wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True),
    )
    logged: dict[str, Any] = {
        f"table/{key}": wandb.Table(
            columns=[column or "arm" for column in table.columns], data=list[Any](table.texts())
        )
        for key, table in made.items()
        if table.rows
    }
    logged |= {f"figure/{file.stem}": wandb.Image(str(file)) for file in sorted((folder / "figures").glob("*.png"))}
    run.log(logged)
    summary = made["summary"]
    for row in summary.rows:
        cells = dict(zip(summary.columns, row, strict=True))
        gain = cells["Δ perturbed"]
        if isinstance(gain, tables.Estimate):
            run.summary[f"gain/{cells['method']}"] = gain.value
            run.summary[f"verdict/{cells['method']}"] = str(cells["verdict"])
    run.finish()
    return str(Path(run.dir).parent)


# The dashboard


def definition(trials: Sequence[Trial], name: str | None, project: str, entity: str | None) -> Any:
    """The workspace: ν against accuracies, parallel coordinates, loss curves, leaderboard.

    Every panel reads what each trial logs, so no run need be renamed.
    """
    try:
        from wandb_workspaces import workspaces
        from wandb_workspaces.reports import v2
    except ImportError:
        raise ValueError("workspace: needs `pip install 'rna[dashboard]'` (wandb-workspaces)") from None

    tasks = sorted({item.task for trial in trials for item in trial.evaluations})
    metric = "acc" if all(trial.kind == "choice" for trial in trials) else "nll"
    scores = {task: v2.SummaryMetric(f"eval/{task}/{metric}") for task in tasks}
    nu = v2.Config("noise.nu")
    column = v2.ParallelCoordinatesPlotColumn
    coordinates: list[Any] = [column(v2.Config(key)) for key in ("method.name", "retain_loss", "noise.nu", "seed")]
    coordinates += [column(score) for score in scores.values()]
    losses = ("train/forget_loss", "train/retain_loss", "train/grad_norm")
    group = "method.name"
    perturbed = f"eval/perturbed/{metric}" if "perturbed" in tasks else f"eval/{tasks[0]}/{metric}" if tasks else ""
    sections = [
        workspaces.Section(
            name="Noise scale against scores",
            panels=[v2.ScatterPlot(title=task, x=nu, y=score) for task, score in scores.items()],
            is_open=True,
        ),
        workspaces.Section(
            name="What matters",
            panels=[
                v2.ParallelCoordinatesPlot(title="Settings and scores", columns=coordinates),
                v2.ParameterImportancePlot(with_respect_to=perturbed),
            ],
            is_open=True,
        ),
        workspaces.Section(
            name="Losses",
            panels=[v2.LinePlot(title=key, x="train/step", y=[key], groupby=v2.Config(group)) for key in losses],
            is_open=True,
        ),
        workspaces.Section(
            name="Leaderboard",
            panels=[
                *(
                    v2.BarPlot(title=task, metrics=[f"eval/{task}/{metric}"], groupby=v2.Config(group))
                    for task in tasks
                ),
                v2.RunComparer(),
            ],
            is_open=True,
        ),
    ]
    where: Any = workspaces.RunsetSettings(groupby=[workspaces.Config(group)])
    if name:
        where.filters = workspaces.And(workspaces.Metric("group") == name)
    title = f"rna: {name or 'all records'}"
    return workspaces.Workspace(
        entity=entity or "", project=project, name=title, sections=sections, runset_settings=where
    )


def workspace(output_dir: str, name: str | None, project: str, entity: str | None) -> str:
    """Write the workspace's definition beside the report and, with an account, save it there; returns where it is."""
    made = definition(_selected(output_dir, name), name, project, entity)
    file = Path(output_dir) / "reports" / (name or "all") / "workspace.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = made._to_model().model_dump_json(by_alias=True, exclude_none=True)  # no public way to a text exists
    file.write_text(json.dumps(json.loads(text), indent=1), encoding="utf-8")
    if os.environ.get("WANDB_API_KEY") and os.environ.get("WANDB_MODE", "online") == "online":
        return str(made.save().url)
    return f"{file} (no account here: set WANDB_API_KEY and give the command again to build it online)"


if __name__ == "__main__":
    main()
