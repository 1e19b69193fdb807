"""Workers with other devices than the machine has: `sitecustomize` for the processes of a sweep.

BACKWARD breaks those of BROKEN_GPUS: there torch's backward pass raises torch's own error of a device. PRETENDED gives
each worker pretended GPUs, as many as are visible to it.
"""

import os
import textwrap
from pathlib import Path

from tests.launchers.running import environment

ECC = (
    "CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be asynchronously reported at some other"
)
CODE = '''
    import importlib.abc, importlib.util, os, sys

    class After(importlib.abc.MetaPathFinder):
        """Patches a module once it is imported."""

        def find_spec(self, name, path, target=None):
            if name != "{module}":
                return None
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            own = spec.loader.exec_module
            def exec_module(module):
                own(module)
                patch(module)
            spec.loader.exec_module = exec_module
            return spec

    sys.meta_path.insert(0, After())
'''


def on_path(folder: Path, module: str, patch: str) -> str:
    """Write it, and return a PYTHONPATH that finds it; `patch` is what is done once the module is imported."""
    folder.mkdir()
    code = textwrap.dedent(CODE).format(module=module) + "\n\ndef patch(module):\n" + textwrap.indent(patch, "    ")
    (folder / "sitecustomize.py").write_text(code)
    return os.pathsep.join([str(folder), environment()["PYTHONPATH"]])


BACKWARD = f"""
import torch
own = torch.Tensor.backward
def backward(self, *words, **options):
    if os.environ.get("CUDA_VISIBLE_DEVICES") in os.environ.get("BROKEN_GPUS", "").split():
        raise torch.AcceleratorError({ECC!r})
    return own(self, *words, **options)
torch.Tensor.backward = backward
"""

PRETENDED = """
import multiprocessing
visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
if multiprocessing.parent_process() is not None and visible:
    from tests import pretended
    module.pretended = pretended.gpus(len(visible.split(",")))
    module.pretended.__enter__()
    with open(os.environ["PRETENDED"], "a") as stream:
        print(visible, file=stream)
"""
