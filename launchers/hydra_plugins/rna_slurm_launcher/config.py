"""The options of `hydra/launcher=slurm`."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore


@dataclass
class SlurmConf:
    _target_: str = "hydra_plugins.rna_slurm_launcher.launcher.SlurmLauncher"
    folder: str = "${hydra.sweep.dir}/slurm"  # scripts, pickles and SLURM's own logs; all nodes must see it
    partition: str | None = None
    account: str | None = None
    constraint: str | None = None
    gpus_per_trial: int | None = None
    cpus: int = 1
    mem_gb: float | None = None
    time_min: int = 240  # of one trial; one that is not done by then goes on from its checkpoint
    warn_s: int = 90  # ahead of the time limit, to write the checkpoint
    max_parallel: int = 256  # of an array's trials at a time
    max_in_flight: int = 1000  # trials handed to SLURM, running or waiting
    submit_every: float = 20.0  # seconds between two sbatch calls
    ask_every: float = 30.0  # seconds between two looks at the queue
    setup: list[str] = field(default_factory=list)  # lines before python: module load …
    extra: Any = None  # further options of sbatch: {qos: low}
    wait: bool = True  # false: submit and leave; the same command collects later


ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=SlurmConf, provider="rna")
