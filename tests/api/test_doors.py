"""`rna.unlearn`, `rna.load` and `rna.trials` beside every submodule, in a process and in a notebook's kernel."""

import importlib.util
import os
import subprocess
import sys
import uuid
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import importlib, json, pkgutil
import rna
for found in pkgutil.walk_packages(rna.__path__, "rna."):
    importlib.import_module(found.name)
assert all(callable(one) for one in (rna.unlearn, rna.load, rna.trials))

from transformers import AutoModelForCausalLM, AutoTokenizer
from rna.settings import BUILTIN
model = AutoModelForCausalLM.from_pretrained(BUILTIN / "base", dtype="float32")
tokenizer = AutoTokenizer.from_pretrained(BUILTIN / "base")
texts = [json.loads(line)["text"] for line in (BUILTIN / "retain.jsonl").read_text().splitlines()]
done = rna.unlearn(model, tokenizer, forget=texts[:8], retain=texts[8:16], unlearn_layer=2, train={"steps": 2},
                   output_dir="here", method="npo")
loaded = rna.load(done.key, "here", model=model, tokenizer=tokenizer)[0]
(row,) = rna.trials("here")
assert row["key"] == done.key and len(done.curve) == 2
same = all((loaded.state_dict()[name] == tensor).all() for name, tensor in done.deltas.items())
print("all three, the same:", bool(same))
"""


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> Generator[str]:
    """A mark in the environment of all that is started here, by which it is seen whether any of it is left."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv("RNA_TEST_MARK", mark)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield mark
    assert left(mark) == []


def left(mark: str) -> list[int]:
    """The processes, but this one, in whose environment the mark is."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


@pytest.mark.whole
def test_in_a_process_and_none_is_left(tmp_path: Path, marked: str):
    done = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "all three, the same: True" in done.stdout
    assert marked


@pytest.mark.whole
def test_in_a_notebooks_kernel_and_none_is_left(tmp_path: Path, marked: str, monkeypatch: pytest.MonkeyPatch):
    if importlib.util.find_spec("ipykernel") is None or importlib.util.find_spec("jupyter_client") is None:
        pytest.skip("ipykernel and jupyter_client are not installed")
    from jupyter_client.manager import start_new_kernel

    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    manager, client = start_new_kernel(cwd=str(tmp_path))
    said: list[str] = []

    def heard(message: dict) -> None:
        content = message["content"]
        said.append(content.get("text") or "\n".join(content.get("traceback", ())))

    try:
        assert len(left(marked)) == 1
        reply = client.execute_interactive(CODE, timeout=240, output_hook=heard)
        assert reply["content"]["status"] == "ok", "".join(said)
        assert "all three, the same: True" in "".join(said)
        assert len(left(marked)) == 1
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=False)


@pytest.mark.whole
def test_the_first_import_loads_nothing():
    code = "import sys, rna; assert not {'torch', 'numpy', 'hydra', 'lazy_loader'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
