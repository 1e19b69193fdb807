"""Hydra's own suites of launcher tests, on the pool: as under any launcher, with Hydra's own sweeper.

Nothing is left out but what the suites themselves leave to choice: `get_test_app_working_dir` and `generate_custom_cmd`
are for launchers of other machines.
"""

import pytest
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.plugins.launcher import Launcher
from hydra.test_utils.launcher_common_tests import (
    BatchedSweeperTestSuite,
    IntegrationTestSuite,
    LauncherTestSuite,
)
from hydra.version import VersionBase
from hydra_plugins.rna_gpu_pool_launcher.launcher import GpuPoolLauncher

POOL = ["hydra.launcher.processes=2"]


@pytest.fixture(autouse=True)
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    """None asked for, as the suites are written for, whatever was composed in this process before."""
    monkeypatch.delitem(Singleton._instances, VersionBase, raising=False)


def test_hydra_finds_the_launcher():
    found = {f"{plugin.__module__}.{plugin.__name__}" for plugin in Plugins.instance().discover(Launcher)}
    assert f"{GpuPoolLauncher.__module__}.{GpuPoolLauncher.__name__}" in found


@pytest.mark.slow
@pytest.mark.parametrize(("launcher_name", "overrides"), [("gpu_pool", POOL)])
class TestPool(LauncherTestSuite):
    pass


@pytest.mark.slow
@pytest.mark.parametrize(("launcher_name", "overrides"), [("gpu_pool", [*POOL, "hydra.sweeper.max_batch_size=2"])])
class TestPoolInBatches(BatchedSweeperTestSuite):
    pass


@pytest.mark.slow
@pytest.mark.parametrize(("task_launcher_cfg", "extra_flags"), [({}, ["-m", "hydra/launcher=gpu_pool", *POOL])])
class TestPoolInAnApp(IntegrationTestSuite):
    pass
