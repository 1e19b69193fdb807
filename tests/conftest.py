"""No network, one thread, and in the default tests every function of `rna` checked against its types and shapes."""

import os
import sys
from collections.abc import Callable, Iterator

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "WANDB_MODE": "disabled",
    "TQDM_DISABLE": "1",
}
os.environ.pop("COLUMNS", None)  # as into a pipe, whatever terminal the tests were started from

import gc
import signal
from functools import partial

import hypothesis
import pytest
import torch
import yaml
from jaxtyping import install_import_hook

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
if CORES and (worker := os.environ.get("PYTEST_XDIST_WORKER")):
    # A core for each, its children's too: on one core arms are worked on in turn, by no processes of their own.
    os.sched_setaffinity(0, {CORES[int(worker.removeprefix("gw")) % len(CORES)]})

yaml.SafeLoader = yaml.CSafeLoader  # Hydra reads some 25 files for each of a thousand compositions
gc.freeze()
gc.set_threshold(100_000, 50, 100)
torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores
hypothesis.settings.register_profile("rna", database=None, deadline=None)
hypothesis.settings.load_profile("rna")


def pytest_configure(config: pytest.Config) -> None:
    """Whole programs run as users run them, and a fifth faster, without the checks of every call."""
    if "not whole" in config.option.markexpr:
        install_import_hook("rna", "beartype.beartype")


@pytest.fixture(autouse=True)
def resolvers():
    from rna.settings import config

    config.register_resolvers()


@pytest.fixture
def hangups() -> Iterator[None]:
    """SIGHUP as programs at a terminal have it, also where the tests run under nohup, which has it ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def demo():
    """The demo's base model and its tokenizer."""
    from rna.decoder import model
    from rna.settings.fields import BUILTIN

    return model.load(str(BUILTIN / "base"), dtype="float32", device="cpu", revision=None)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A command's `main` in this process, which has paid for its imports; returns what it printed, errors first."""

    def call(main: Callable[[], None], *arguments: str, code: int = 0) -> str:
        monkeypatch.setattr("rna.settings.cores.available", lambda: 1)  # one arm after another, no further processes
        monkeypatch.setattr(sys, "argv", [main.__module__, *arguments])
        capfd.readouterr()
        try:
            main()
            ended: object = 0
        except SystemExit as stop:
            ended = stop.code or 0
        printed = capfd.readouterr()
        assert ended == code, printed.out + printed.err
        return printed.err + printed.out

    return call


@pytest.fixture
def rna_here(called: Callable[..., str]) -> Callable[..., str]:
    """`python -m rna.run`, called."""
    from rna import run

    return partial(called, run.main)


def pytest_collection_finish() -> None:
    gc.freeze()  # what all imports made; trials collect, and would look at it each time
