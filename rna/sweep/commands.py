"""`python -m rna.sweep`: what a sweep will do, is doing and has found, and what a user asks of it.

Without a command it lists the sweeps. Each command is a file of its own beside this one.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rna import printing
from rna.settings import config, outside
from rna.sweep import asked, leaderboard, logs, plan, retry, shown, status


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; a mistake ends in one line and exit code 2."""
    printing.prepare()
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if options.command != "plan" or any(word.startswith("-") for word in rest):
        options = parser.parse_args(arguments)  # which says what it does not know
    else:
        options.overrides += rest  # argparse takes none of them behind an option
    try:
        _run(options)
    except (ValueError, OSError) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> printing.Parser:
    parser = printing.Parser(prog=printing.program("sweep"), description=__doc__)
    parser.add_argument("--output-dir", default="outputs", help="where the sweep was run (default: outputs)")
    parser.add_argument("--json", action="store_true", help="for scripts")
    commands = parser.add_subparsers(dest="command", help="default: list the sweeps")
    common = printing.Parser(add_help=False)
    common.add_argument("name", metavar="NAME")
    common.add_argument("--output-dir", default=argparse.SUPPRESS)
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
    planned = commands.add_parser("plan", parents=[common], help="cells, done, left, hours, disk; starts nothing")
    planned.add_argument("--config-dir", help="a folder of options of your own, as of python -m rna.run")
    planned.add_argument("overrides", nargs="*", help="as they will be given to python -m rna.run -m sweep=NAME")
    watched = commands.add_parser("status", parents=[common], help="done, running and where, failed")
    watched.add_argument("--watch", action="store_true", help="a live view, until Ctrl-C")
    board = commands.add_parser("leaderboard", parents=[common], help="rows, plain twins, intervals, who wins")
    board.add_argument("--sort", metavar="METRIC", help="default: the sweep's first objective")
    told = commands.add_parser("logs", parents=[common], help="what a trial printed")
    told.add_argument("number", type=int, metavar="NUMBER")
    told.add_argument("-f", "--follow", action="store_true", help="and what it prints, until it is over")
    ended = commands.add_parser(
        "cancel", parents=[common], help="end the sweep in good order, or single trials for good"
    )
    ended.add_argument("numbers", nargs="*", type=int, metavar="NUMBER", help="default: the sweep")
    commands.add_parser("pause", parents=[common], help="start no more trials; what is in work goes on")
    commands.add_parser("resume", parents=[common], help="go on after pause")
    again = commands.add_parser("retry", parents=[common], help="queue failed trials again")
    again.add_argument(
        "numbers",
        nargs="*",
        type=int,
        metavar="NUMBER",
        help="default: all that failed; pruned and cancelled ones by their numbers",
    )
    commands.add_parser("prune-checkpoints", parents=[common], help="delete checkpoints that no trial in work needs")
    return parser


def _run(options: argparse.Namespace) -> None:
    sweeps = Path(options.output_dir) / "sweeps"
    if options.command is None:
        return _show(options, status.listing(sweeps), status.listing_lines)
    if options.command == "plan":
        outside.bring(options.config_dir)
        return _show(options, plan.plan(sweeps, options.name, options.overrides), plan.plan_lines)
    folder = existing(sweeps, options.name)
    if options.command == "status":
        if options.watch and not options.json:
            return status.watch(folder)
        return _show(options, status.status(folder), status.status_lines)
    if options.command == "leaderboard":
        found = leaderboard.leaderboard(folder, options.sort, None if options.json else shown.MOST)
        return print(json.dumps(found)) if options.json else shown.show(found)
    if options.command == "logs":
        if options.follow and options.json:
            raise ValueError("--follow: prints text as it comes; allowed without --json")
        if options.follow:
            return logs.print_followed(folder, options.number)
        return _show(options, logs.logs(folder, options.number), logs.log_lines)
    if options.command == "cancel":
        return _show(options, asked.cancel(folder, options.numbers), asked.cancel_lines)
    if options.command in ("pause", "resume"):
        found = asked.pause(folder) if options.command == "pause" else asked.resume(folder)
        return _show(options, found, asked.pause_lines)
    if options.command == "retry":
        return _show(options, {"queued": retry.retry(folder, options.numbers)}, retry.retry_lines)
    return _show(options, retry.prune_checkpoints(folder), retry.prune_lines)


def _show(options: argparse.Namespace, found: dict[str, Any], lines: Callable[[dict[str, Any]], list[str]]) -> None:
    print(json.dumps(found) if options.json else "\n".join(lines(found)))


def existing(sweeps: Path, name: str) -> Path:
    """A sweep's folder. Raises ValueError, with the nearest name, if there is none."""
    folder = sweeps / name
    if not (folder / "trials").is_dir():
        raise ValueError(f"{name}: no such sweep in {sweeps}; {config.nearest(name, status.names(sweeps))}")
    return folder
