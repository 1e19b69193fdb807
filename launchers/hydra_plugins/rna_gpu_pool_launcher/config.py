"""The options of `hydra/launcher=gpu_pool`."""

from dataclasses import dataclass

from hydra.core.config_store import ConfigStore


@dataclass
class GpuPoolConf:
    _target_: str = "hydra_plugins.rna_gpu_pool_launcher.launcher.GpuPoolLauncher"
    gpus: int | None = None  # how many to use; None: all that CUDA_VISIBLE_DEVICES leaves visible
    trials_per_gpu: int = 1
    gpus_per_trial: int = 1  # for a model laid over several by model.device_map
    processes: int | None = None  # on a machine without a GPU; None: one for each core


ConfigStore.instance().store(group="hydra/launcher", name="gpu_pool", node=GpuPoolConf, provider="rna")
