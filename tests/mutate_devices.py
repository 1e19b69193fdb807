"""Remove each `.to(…device…)` of the package in turn, and see a test turn red.

`python tests/mutate_devices.py [PART OF A PATH …]`: by hand, some seconds a call. One that can go without a red test is
not needed, or not tested.
"""

import ast
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests import mutated

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


def tests(which: str) -> list[str]:
    """Those on pretended devices whose names fit."""
    return ["-m", "not slow", "-n", "0", "tests/test_devices.py", "-k", which]


def main() -> None:
    wanted = sys.argv[1:]
    green = 0
    with mutated.checkout() as copy:
        for file in sorted((copy / "rna").rglob("*.py")):
            source = file.read_text(encoding="utf-8")
            for call in calls(file):
                where = f"{file.relative_to(copy)}:{call.lineno}"
                if wanted and not any(word in where for word in wanted):
                    continue
                first = "analysis or relative or export" if file.stem in ANALYSES else "whole_trial"
                runs = map(tests, (first, "not whole_trial", "whole_trial"))
                red = mutated.first_red(copy, file, without(source, call), *runs)
                green += red is None
                said = "GREEN" if red is None else "red  "
                print(f"{said} {where}  {ast.unparse(call)[-60:]}  {(red or '')[:100]}", flush=True)
    print(f"{green} calls can go without a red test")
    sys.exit(green > 0)


if __name__ == "__main__":
    main()
