"""A worker whose device is broken: `sitecustomize` for the processes of a sweep, which break where a test says.

On the places of BROKEN_GPUS torch's backward pass raises torch's own error of a device, as its kernels would.
"""

import textwrap
from pathlib import Path

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


def install(folder: Path, module: str, patch: str) -> str:
    """Write it where PYTHONPATH finds it, and return that folder; `patch` is the code of a function of the module."""
    folder.mkdir()
    code = textwrap.dedent(CODE).format(module=module) + "\n\ndef patch(module):\n" + textwrap.indent(patch, "    ")
    (folder / "sitecustomize.py").write_text(code)
    return str(folder)


BACKWARD = f"""
import torch
own = torch.Tensor.backward
def backward(self, *words, **options):
    if os.environ.get("CUDA_VISIBLE_DEVICES") in os.environ.get("BROKEN_GPUS", "").split():
        raise torch.AcceleratorError({ECC!r})
    return own(self, *words, **options)
torch.Tensor.backward = backward
"""
