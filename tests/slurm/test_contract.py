"""Hydra's own suite of launcher tests, on SLURM. Those of batches and of apps would tell no more, at a job each."""

import pytest
from hydra.test_utils.launcher_common_tests import LauncherTestSuite

QUICK = ["hydra.launcher.submit_every=0", "hydra.launcher.time_min=20"]


@pytest.mark.slurm
@pytest.mark.parametrize(("launcher_name", "overrides"), [("slurm", QUICK)])
class TestSlurm(LauncherTestSuite):
    pass
