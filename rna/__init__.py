"""Random Noise Augmentation: LLM unlearning that stays robust when a forget-token turns up in a harmless question."""

import sys

__version__ = "0.1.0"
NUMERICS = 3

if sys.platform == "win32":  # locks between processes are the kernel's, by fcntl
    sys.exit("error: rna runs on Linux and macOS; on Windows use WSL")
