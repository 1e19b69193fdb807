"""A copy of the project in which one thing at a time is otherwise, under its tests."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextmanager
def checkout() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "outputs", ".venv"))
        yield copy


def first_red(copy: Path, file: Path, text: str, *runs: list[str]) -> str | None:
    """With this text in a file of the copy, the first test of these runs of pytest that fails; None if all pass."""
    own = file.read_text(encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": f"{copy}:{copy / 'launchers'}"}
    file.write_text(text, encoding="utf-8")
    try:
        for words in runs:
            command = [sys.executable, "-m", "pytest", "-x", "-q", *words]
            done = subprocess.run(command, cwd=copy, capture_output=True, text=True, env=environment, check=False)
            if done.returncode:
                failed = (line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR")))
                return next(failed, done.stdout[-200:])
    finally:
        file.write_text(own, encoding="utf-8")
    return None
