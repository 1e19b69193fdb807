"""One SLURM for all tests of this folder."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session", autouse=True)
def cluster() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("a SLURM of one's own needs root")
    root = {"SLURM_TEST_ROOT": "/tmp/rna-test-slurm"}
    started = subprocess.run(
        [HERE / "start-slurm.sh"], env=os.environ | root, capture_output=True, text=True, check=False
    )
    if started.returncode != 0:
        pytest.skip(f"no SLURM here: {started.stderr.strip().splitlines()[-1:]}")
    os.environ["SLURM_CONF"] = str(re.search(r"SLURM_CONF=(\S+)", started.stdout)[1])  # type: ignore[index]
    yield
    subprocess.run([HERE / "stop-slurm.sh"], env=os.environ | root, check=True)
