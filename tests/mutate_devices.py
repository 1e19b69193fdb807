"""Remove each `.to(…device…)` of the package in turn, and see a test turn red.

`python tests/mutate_devices.py [PART OF A PATH …]`: by hand, some seconds a call. One that can go without a red test is
not needed, or not tested.
"""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
ANALYSES = ("measure", "findings", "scales", "theory", "export")  # what their tests look at first
DTYPES = ("dtype", "torch.float", "torch.bfloat", "float32")


def calls(file: Path) -> list[ast.Call]:
    """The calls of `.to` in a file that move something, not merely round it."""
    found: list[ast.Call] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("to", "cpu"):
            said = ", ".join(map(ast.unparse, [*node.args, *(keyword.value for keyword in node.keywords)]))
            if not any(said.endswith(word) or said.startswith(word) for word in DTYPES):
                found.append(node)
    return sorted(found, key=lambda node: (node.lineno, node.col_offset))


def without(source: str, call: ast.Call) -> str:
    """The source with the call replaced by what it was called on."""
    lines = source.encode().splitlines(keepends=True)
    starts = [sum(map(len, lines[:number])) for number in range(len(lines))]
    ends: list[int] = []
    for node in (call.func.value, call):  # pyright: ignore[reportAttributeAccessIssue]
        ends.append(starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0))
    text = source.encode()
    return (text[: ends[0]] + text[ends[1] :]).decode()


def tested(copy: Path, which: str) -> subprocess.CompletedProcess[str]:
    """The tests on pretended devices whose names fit, up to the first that fails."""
    command = [sys.executable, "-m", "pytest", "-m", "not slow", "-n", "0", "-x", "-q", "tests/test_devices.py"]
    command += ["-k", which]
    environment = os.environ | {"PYTHONPATH": f"{copy}:{copy / 'launchers'}"}
    return subprocess.run(command, cwd=copy, capture_output=True, text=True, env=environment, check=False)


def main() -> None:
    wanted = sys.argv[1:]
    green = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "outputs", ".venv"))
        for file in sorted((copy / "rna").rglob("*.py")):
            source = file.read_text(encoding="utf-8")
            for call in calls(file):
                where = f"{file.relative_to(copy)}:{call.lineno}"
                if wanted and not any(word in where for word in wanted):
                    continue
                file.write_text(without(source, call), encoding="utf-8")
                done = tested(copy, "analysis or relative or export" if file.stem in ANALYSES else "whole_trial")
                done = tested(copy, "not whole_trial") if done.returncode == 0 else done
                done = tested(copy, "whole_trial") if done.returncode == 0 else done
                file.write_text(source, encoding="utf-8")
                first = next((line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), "")
                green += done.returncode == 0
                said = "red  " if done.returncode else "GREEN"
                print(f"{said} {where}  {ast.unparse(call)[-60:]}  {first[:100]}", flush=True)
    print(f"{green} calls can go without a red test")
    sys.exit(green > 0)


if __name__ == "__main__":
    main()
