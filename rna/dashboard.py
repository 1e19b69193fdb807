"""`python -m rna.track sync|close|workspace [NAME]`: a study on Weights & Biases, from what lies in the output folder.

`close` writes the study's closing run (leaderboard, figures, what moved the scores), as a sweep does at its end;
`sync` uploads offline runs once each; `workspace` builds the dashboard, or writes its definition where there is no
account. Without a NAME all records count.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rna import printing, track
from rna.corpora import digest
from rna.report import __main__ as reporting
from rna.report import importance, reading, records, sheet
from rna.report.page import Chapter
from rna.report.records import Filters, Trial
from rna.report.sheet import Table
from rna.settings import WandbSettings, config
from rna.sweep import ledger

CHUNK = 20  # offline runs a call of `wandb sync`
CLOSING_SECONDS = 900  # that a sweep waits for its closing run


def main() -> None:
    """The command line. A mistake ends in one line and exit code 2, an upload that stopped in one line and code 1."""
    printing.prepare()
    parser = printing.Parser(prog=printing.program("track"), description=__doc__)
    parser.add_argument("action", choices=["sync", "close", "workspace"])
    parser.add_argument("name", nargs="?", metavar="NAME", help="a sweep; without one: all records")
    parser.add_argument("--output-dir", default="outputs", help="where the records lie (outputs)")
    said = os.environ.get
    parser.add_argument("--entity", default=said("WANDB_ENTITY"), help="the W&B entity; none: the account's own")
    parser.add_argument("--project", default=said("WANDB_PROJECT") or "rna", help="the W&B project (rna)")
    parser.add_argument("--mode", choices=["offline", "online"], help="of the closing run (WANDB_MODE, or offline)")
    parser.add_argument("--dir", default=said("WANDB_DIR"), help="where the closing run lies (the output folder)")
    options = parser.parse_args()
    wandb = WandbSettings(options.mode or said("WANDB_MODE") or "offline", options.project, options.entity or None)
    wandb.dir = options.dir or None
    try:
        config.check_wandb(wandb)
        if options.action == "sync":
            found = sync(options.output_dir, options.name)
            print(f"{found.done} of {found.total} runs are uploaded")
            for folder in found.unended:
                print(f"{folder} has no end: its process was killed, or is at work", file=sys.stderr)
            if found.done + len(found.unended) < found.total:
                print("error: an upload stopped; the same command goes on where this one was", file=sys.stderr)
                sys.exit(1)
        elif options.action == "close":
            print(close(options.output_dir, options.name, wandb))
        else:
            print(workspace(options.output_dir, options.name, wandb.project, wandb.entity))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _selected(output_dir: str, name: str | None) -> list[Trial]:
    keys = records.keys_of(output_dir, name) if name else None
    found = records.select(reading.load(output_dir).trials, Filters(), keys)
    if not found:
        raise ValueError(f"no records in {Path(output_dir) / 'results'}; python -m rna.run makes one")
    return found


# Uploading


@dataclass
class Uploaded:
    """How many of a study's runs are online by now."""

    done: int
    total: int
    unended: list[Path]  # whose process was killed or is still at work: sent as far as they go, or not readable at all


def offline_runs(output_dir: str, name: str | None) -> list[Path]:
    """The offline runs of a study, oldest first: its trials', their evaluations' and its closing run's.

    A resumed trial and a study closed twice have several with one id, of which the last holds all.
    """
    trials = _selected(output_dir, name)
    keys = {trial.key for trial in trials}
    places = {Path(where) / "wandb" for where in (output_dir, os.environ.get("WANDB_DIR") or output_dir)}
    places |= {Path(str(trial.facts["wandb"])).parent for trial in trials if trial.facts.get("wandb")}
    found = (folder for place in places for folder in place.glob("offline-run-*"))
    folders = sorted(found, key=lambda folder: folder.name)
    closing = closing_id(name)
    last = {run_id: folder for folder in folders for run_id in [_run_id(folder)]}
    ours = (folder for run_id, folder in last.items() if run_id == closing or run_id.split("-")[0] in keys)
    return sorted(ours, key=lambda folder: folder.name)


def _run_id(folder: Path) -> str:
    """`offline-run-TIME-ID`: the id, which may hold dashes itself."""
    return folder.name.split("-", 3)[3]


def uploaded(folder: Path) -> bool:
    """W&B's own mark beside a run's file."""
    return any(folder.glob("*.wandb.synced"))


def sync(
    output_dir: str,
    name: str | None,
    send: Callable[[Sequence[Path]], None] | None = None,
    ended: Callable[[Path], bool] | None = None,
) -> Uploaded:
    """Upload what is not uploaded yet; what was is marked, and not sent again.

    One run that cannot be read holds up all that `wandb sync` is called with. Those without an end are then sent one by
    one, and the others again; where these fail too, it stops.

    Raises:
        ValueError: without records; without an account or a network, if anything waits.
    """
    folders = offline_runs(output_dir, name)
    waiting = [folder for folder in folders if not uploaded(folder)]
    if waiting and send is None:
        track.check_online("sync", "nothing was sent")
    send, ended = send or _wandb_sync, ended or _ended
    unended: list[Path] = []
    for start in range(0, len(waiting), CHUNK):
        chunk = waiting[start : start + CHUNK]
        send(chunk)
        left = [folder for folder in chunk if not uploaded(folder)]
        without_end = [folder for folder in left if not ended(folder)]
        whole = [folder for folder in left if folder not in without_end]
        unended += without_end
        if without_end and whole:
            send(whole)
        for folder in without_end:
            send([folder])
        if not all(uploaded(folder) for folder in whole):
            break
        print(f"{min(start + CHUNK, len(waiting))} of {len(waiting)} sent", flush=True)
    return Uploaded(sum(uploaded(folder) for folder in folders), len(folders), unended)


def _wandb_sync(folders: Sequence[Path]) -> None:
    """W&B's own upload, whose exit code does not tell whether it worked: its marks do."""
    command = [sys.executable, "-m", "wandb", "sync", "--yes", *map(str, folders)]
    subprocess.run(command, check=False, stdin=subprocess.DEVNULL, env=_beside(folders[0]) | {"WANDB_MODE": "online"})


def _beside(folder: Path) -> dict[str, str]:
    """An environment in which W&B's own logs lie beside the runs, not where the command is given."""
    return os.environ | {"WANDB_DIR": str(folder.absolute().parents[1])}


def _ended(folder: Path) -> bool:
    """Whether a run's file says how its process ended, by W&B's own reader."""
    for file in folder.glob("*.wandb"):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(file)]
        done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8", env=_beside(folder))
        if done.returncode == 0 and json.loads(done.stdout).get("exit_code") is not None:
            return True
    return False


# The closing run


def closing_id(name: str | None) -> str:
    return f"sweep-{name or 'all'}"


def close(output_dir: str, name: str | None, options: WandbSettings) -> str:
    """Report on the study, and log its tables, figures and each method's gain as one run; returns its folder.

    The first group of records stands at the top level, others below `study2/` and so on, as in the report.

    Raises:
        ValueError: without records, or if no run can be opened.
    """
    import wandb

    track.check(options)
    command = f"python -m rna.report {name}" if name else "python -m rna.report"
    folder, chapters = reporting.written([name] if name else [], Filters(), output_dir, command)
    run = track.opened(
        options,
        output_dir,
        group=name,
        job_type="sweep",
        id=closing_id(name),
        name=f"{name or 'all'}: {chapters[0].study.name}",
    )
    logged: dict[str, Any] = {}
    for chapter in chapters:
        moved = importance.table(chapter.study)
        sheet.write(moved, folder / chapter.folder / "tables")
        for made in [*chapter.tables, moved]:
            if made.rows:
                logged[f"{chapter.folder}table/{made.name}"] = _table(made)
        if moved.rows:
            logged[f"{chapter.folder}importance"] = _bars(moved)
        for file in sorted((folder / chapter.folder / "figures").glob("*.png")):
            logged[f"{chapter.folder}figure/{file.stem}"] = wandb.Image(str(file))
        run.summary.update(_gains(chapter))
    run.log(logged)
    run.finish()
    return str(Path(run.dir).parent)


def _table(made: Table) -> Any:
    """A table whose numbers a dashboard can sort by: an interval has columns of its own."""
    import wandb

    header, *rows = sheet.plain(made)
    return wandb.Table(columns=[column or "arm" for column in header], data=list[Any](rows), allow_mixed_types=True)


def _bars(moved: Table) -> Any:
    """How much each setting moved the first score."""
    import wandb

    score = moved.columns[2]
    found = wandb.Table(columns=["setting", score], data=[[row[0], row[2]] for row in moved.rows])
    return wandb.plot.bar(found, "setting", score, title=moved.title)


def _gains(chapter: Chapter) -> dict[str, Any]:
    """By method, RNA − plain on the perturbed task and the word for it, for a dashboard's columns."""
    found: dict[str, Any] = {}
    (summary,) = (made for made in chapter.tables if made.name == "summary")
    for row in summary.rows:
        cells = dict(zip(summary.columns, row, strict=True))
        gain = cells["Δ perturbed"]
        if isinstance(gain, sheet.Estimate):
            found[f"{chapter.folder}gain/{cells['method']}"] = gain.value
            found[f"{chapter.folder}verdict/{cells['method']}"] = str(cells["verdict"])
    return found


def finish(folder: Path) -> None:
    """A sweep's last words: its leaderboard, its report, and on W&B its closing run, unless there is nothing new.

    The closing run is made by a process of its own: whatever happens to it costs the sweep a line.
    """
    from rna.sweep import keeping, leaderboard

    keeping.release(folder)  # the last trial may have failed, and looked at nothing
    leaderboard.finish(folder)
    done = [trial.address for trial in ledger.trials(folder) if trial.status == ledger.DONE and trial.address]
    settings = _wandb_of(folder, done)
    state = digest(sorted([where["key"], *sorted(where["evals"].values())] for where in done))
    if settings is None or ledger.read_json(folder / "closed.json") == state:
        return
    output_dir = folder.parents[1]
    command = [sys.executable, "-m", "rna.track", "close", folder.name, "--output-dir", str(output_dir)]
    options = {f"--{name}": settings.get(name) for name in ("project", "entity", "mode", "dir")}
    command += [word for option, value in options.items() if value for word in (option, str(value))]
    print(f"{folder.name}: writing the report and the closing W&B run", file=sys.stderr, flush=True)
    try:
        pipes: dict[str, Any] = {"capture_output": True, "stdin": subprocess.DEVNULL, "encoding": "utf-8"}
        spoken = os.environ | {"PYTHONIOENCODING": "utf-8"}
        made = subprocess.run(command, check=True, timeout=CLOSING_SECONDS, env=spoken, **pipes)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        again = f"python -m rna.track close {folder.name} --output-dir {output_dir}"
        print(f"no closing run: {said[-1] if said else error}; `{again}` tries again", file=sys.stderr)
        return
    ledger.write_json(folder / "closed.json", state)
    print(f"report {output_dir / 'reports' / folder.name / 'index.html'} · W&B {made.stdout.strip()}")


def _wandb_of(folder: Path, done: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The W&B settings of the sweep's newest trial; None where it has none, or was told to leave W&B alone."""
    fixed = (ledger.read_json(folder / "sweep.json") or {}).get("fixed") or []
    said = [item for item in fixed if item.startswith(("wandb=", "wandb.mode="))] or [os.environ.get("WANDB_MODE", "")]
    if said[-1].endswith("disabled"):
        return None
    files = [Path(where["output_dir"]) / "results" / f"{where['key']}.json" for where in done]
    read = [record for file in files if (record := ledger.read_json(file)) is not None]
    if not read:
        return None
    newest = max(read, key=lambda record: record.get("created") or "")["config"]["wandb"]
    return None if newest["mode"] == "disabled" else newest


# The dashboard


def definition(trials: Sequence[Trial], name: str | None, project: str, entity: str | None) -> Any:
    """The workspace: ν against accuracies, parallel coordinates, loss curves, leaderboard.

    Every panel reads what each trial logs, so no run need be renamed.
    """
    try:
        from wandb_workspaces import workspaces
        from wandb_workspaces.reports import v2
    except ImportError:
        raise ValueError("workspace: needs `pip install 'rna-unlearning[dashboard]'` (wandb-workspaces)") from None

    tasks = sorted({item.task for trial in trials for item in trial.evaluations})
    metric = "acc" if all(trial.kind == "choice" for trial in trials) else "nll"
    scores = {task: v2.SummaryMetric(f"eval/{task}/{metric}") for task in tasks}
    nu = v2.Config("noise.nu")
    column = v2.ParallelCoordinatesPlotColumn
    coordinates: list[Any] = [column(v2.Config(key)) for key in ("row", "noise.nu", "seed")]
    coordinates += [column(score) for score in scores.values()]
    losses = ("train/forget_loss", "train/retain_loss", "train/grad_norm")
    group = "row"  # the method with its retain loss
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
    """Write the workspace's definition beside the report and, with an account, save it there; returns where it is.

    The second time it is the same workspace, brought up to date.

    Raises:
        ValueError: if W&B cannot be reached or refuses.
    """
    trials = _selected(output_dir, name)
    online = bool(os.environ.get("WANDB_API_KEY")) and os.environ.get("WANDB_MODE", "online") == "online"
    if not online:
        file = _write_definition(definition(trials, name, project, entity), output_dir, name)
        return f"{file} (no account here: set WANDB_API_KEY and give the command again to build it online)"
    import requests
    import wandb

    try:
        entity = entity or wandb.Api().default_entity
        if not entity:
            raise ValueError("--entity: this account has no default entity; name one")
        made = definition(trials, name, project, entity)
        saved = _write_definition(made, output_dir, name).with_name("workspace_online.json")
        known = ledger.read_json(saved)
        if known is not None and (known["entity"], known["project"]) == (entity, project):
            made._internal_name, made._internal_id = known["name"], known["id"]
        made.save()
    except (wandb.Error, requests.RequestException) as error:
        raise ValueError(f"workspace: W&B did not take it: {str(error).splitlines()[0]}") from None
    names = {"entity": entity, "project": project, "name": made._internal_name, "id": made._internal_id}
    ledger.write_json(saved, names)
    return str(made.url)


def _write_definition(made: Any, output_dir: str, name: str | None) -> Path:
    file = Path(output_dir) / "reports" / (name or "all") / "workspace.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = made._to_model().model_dump_json(by_alias=True, exclude_none=True)  # no public way to a text exists
    file.write_text(json.dumps(json.loads(text), indent=1), encoding="utf-8")
    return file


if __name__ == "__main__":
    main()
