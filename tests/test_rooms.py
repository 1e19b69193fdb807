"""The plan of the house: few files at the top, doors that say what enters and leaves, and nobody through the wall."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "rna"
ROOMS = [door.parent.name for door in sorted(ROOT.glob("*/__init__.pyi"))]


def test_the_first_listing_is_short():
    assert len(list(ROOT.glob("*.py"))) <= 12
    assert len(ROOMS) >= 7


@pytest.mark.parametrize("room", ROOMS)
def test_a_door_says_what_enters_what_leaves_and_what_to_open_first(room: str):
    said = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text())) or ""
    assert len(said.splitlines()) <= 8
    for word in ("In: ", "Out: ", "Open `"):
        assert word in said
    for name in (word for word in said.split("`")[1::2] if word.endswith(".py")):
        assert (ROOT / room / name).is_file(), name


def imports(node: ast.AST, types_only: bool = False) -> list[ast.ImportFrom]:
    """Those that run; what is there for type checkers alone does not."""
    found: list[ast.ImportFrom] = []
    for child in ast.iter_child_nodes(node):
        checking = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if isinstance(child, ast.ImportFrom) and not types_only:
            found.append(child)
        found += imports(child, types_only or checking)
    return found


def test_other_rooms_are_entered_by_their_doors():
    through: list[str] = []
    for file in sorted(ROOT.rglob("*.py")):
        parts = file.relative_to(ROOT).parts
        for line in imports(ast.parse(file.read_text())):
            _, _, where = (line.module or "").partition("rna.")
            room, _, inner = where.partition(".")
            if inner and room in ROOMS and (len(parts) == 1 or parts[0] != room):
                through.append(f"{'/'.join(parts)}: {line.module}")
    assert through == []


@pytest.mark.whole
def test_a_door_hands_on_without_opening_every_cupboard():
    code = (
        "import sys, rna.settings, rna.corpora, rna.decoder, rna.unlearning, rna.evaluation, rna.store, rna.sweep,"
        "rna.records;"
        "from rna.unlearning import Step as _; assert 'torch' in sys.modules"
    )
    light = "assert 'torch' not in sys.modules and 'transformers' not in sys.modules and 'lm_eval' not in sys.modules;"
    code = code.replace("from rna.unlearning", light + "from rna.unlearning")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent)
