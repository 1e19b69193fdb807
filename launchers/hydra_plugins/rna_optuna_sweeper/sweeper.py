"""`hydra/sweeper=rna_optuna`: every trial exactly once, whatever is killed in between.

Truth is the ledger, `rna.sweep.ledger`, and, where the app has a record store, its records; the Optuna study follows.
A launcher that can `start` a trial and `poll` for those that ended gets as many at a time as it has `places` for; any
other is called for one trial after another.

Hydra imports the modules of its plugins at every start, but for those whose name begins with an underscore.
"""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

from . import space as search_space
from ._checks import check_sampler
from ._one_by_one import OneByOne
from ._outcomes import Stopped, one_line
from .config import RnaOptunaConf


class RnaOptunaSweeper(Sweeper):
    """The plugin: options as in `RnaOptunaConf`."""

    def __init__(self, **options: Any) -> None:
        self.options: RnaOptunaConf = SimpleNamespace(**options)  # type: ignore[assignment]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Run what is missing. A user's mistake ends in one line and exit code 2, failed trials in exit code 1."""
        from rna import ends

        try:
            with ends.prompt():
                failures = self._sweep(arguments)
        except (ValueError, HydraException) as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            print(f"error: {one_line(error)}", file=sys.stderr)
            sys.exit(2)
        except OSError as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            room = "make room, and " if ends.disk_is_full(error) else ""
            advice = f"{room}give the same command again"
            print(f"error: {one_line(error)}; nothing that was written is lost: {advice}", file=sys.stderr)
            sys.exit(1)
        except (Stopped, ends.Interrupted, KeyboardInterrupt) as stop:
            number = getattr(stop, "number", signal.SIGINT)
            name = signal.Signals(number).name
            print(f"stopped by {name}; the same command goes on where this one was", file=sys.stderr)
            sys.exit(128 + number)
        if failures:
            sys.exit(1)

    def _sweep(self, arguments: list[str]) -> int:
        from rna.sweep import ledger

        from ._sweep import run_sweep

        options = self.options
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        space = search_space.asked(parser, options, arguments)
        sampler = check_sampler(options, space)
        name = options.study_name or f"{self.config.hydra.job.name}-{space.digest()}"
        if Path(name).name != name or name.startswith("."):
            raise ValueError(
                f"hydra.sweeper.study_name={name}: must be the name of a folder, without / and no leading ."
            )
        folder = Path(options.folder) / name
        ours = self.config.hydra.sweeper
        with read_write(ours), open_dict(ours):
            ours.study_name = name
        with ledger.held(folder):
            return run_sweep(self, space, sampler, folder)

    def launcher(self) -> Any:
        """The launcher, with `start` and `poll` whatever it is.

        Raises:
            ValueError: if more than one trial at a time is asked of a launcher that cannot do that.
        """
        try:
            made = Plugins.instance().instantiate_launcher(
                hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
            )
        except HydraException as error:
            raise ValueError(one_line(error.__cause__ or error)) from None
        if hasattr(made, "start"):
            return made
        if (self.options.n_jobs or 1) > 1:
            raise ValueError(
                f"hydra.sweeper.n_jobs={self.options.n_jobs}: {type(made).__name__} runs one trial at a time here; "
                "allowed: 1, or hydra/launcher=gpu_pool"
            )
        return OneByOne(made, self.config)
