"""What the shell offers, by the function that it asks, and by sourcing the scripts in bash and zsh."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rna.__main__ import COMMANDS
from rna.cli import candidates, completion, tree
from tests.outside import brought

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("rna r", ["run", "report", "records"]),
        ("rna completion z", ["zsh"]),
        ("rna sweep s", []),
        ("-m rna.s", ["rna.suggest", "rna.sweep"]),
        ("rna run meth", ["method.", "method="]),
        ("rna.run meth", ["method.", "method="]),
        ("rna run noise=a", ["noise=all_layers"]),
        ("rna run noise.", ["noise.layers=", "noise.nu=", "noise.scale="]),
        ("rna run method=rmu method.", ["method.coefficient="]),
        ("rna run method=dpo method.log_prob=", ["method.log_prob=mean", "method.log_prob=sum"]),
        ("rna run defence=soft defence.sites=t", ["defence.sites=trained"]),
        ("rna run model.dt", ["model.dtype="]),
        ("rna run model.dtype=b", ["model.dtype=bfloat16"]),
        ("rna run train.compile=", ["train.compile=false", "train.compile=true"]),
        ("rna run experiment=p", ["experiment=paper/"]),
        ("rna run experiment=paper/rm", ["experiment=paper/rmu"]),
        ("rna run ++train.l", ["++train.lr="]),
        ("rna run ~eval.key", ["~eval.keyword", "~eval.keywords"]),
        ("rna run model.path=", []),
        ("rna run sw", []),
        ("rna run -m sw", ["sweep="]),
        ("rna run -m sweep=noise_s", ["sweep=noise_scale"]),
        ("rna run -m method=npo,si", ["method=npo,simnpo"]),
        ("rna run -m retain=kl,", ["retain=kl,mse", "retain=kl,none", "retain=kl,representation"]),
        ("rna run -m hydra/launcher=g", ["hydra/launcher=gpu_pool"]),
        ("rna run -m hydra/launcher=slurm hydra.launcher.mem", ["hydra.launcher.mem_gb="]),
        ("rna run -m hydra.sweeper.sampler=t", ["hydra.sweeper.sampler=tpe"]),
        ("rna run --c", ["--cfg", "--config-dir"]),
        ("rna run --cfg ", ["job", "hydra", "all"]),
        ("rna run --config-dir ", []),
        ("rna run --help wan", ["wandb", "wandb."]),
    ],
)
def test_what_may_stand_there(line: str, offered: list[str]):
    assert candidates(line.split(" "), list(COMMANDS)) == offered


def test_options_of_ones_own_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tree.outside, "FOLDERS", [])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "")
    folder = brought(tmp_path / "mine") / "conf"
    tree.options.cache_clear()
    try:
        words = ["rna", "run", "--config-dir", str(folder), "method=mi"]
        assert candidates(words, list(COMMANDS)) == ["method=mine"]
    finally:
        tree.options.cache_clear()


def test_every_word_that_is_offered_is_a_key():
    known = {key.name for words in ([], ["-m"]) for key in tree.composed(words)} | {
        key.name for key in tree.of_sweeper()
    }
    known |= {key.name for name in ("perplexity", "wmdp") for key in tree.of_option("eval", name)} | {"hydra/launcher"}
    of_groups = {f"{group}.{name}" for group in tree.groups() for name in ("name", "kind", "backend")}
    assert set(completion.WORDS) <= known | of_groups


def _environment(folder: Path) -> dict[str, str]:
    """`rna` as an installed command, and `python` this one."""
    (folder / "bin").mkdir()
    for name, words in (("rna", f'{sys.executable} -m rna "$@"'), ("python", f'{sys.executable} "$@"')):
        (folder / "bin" / name).write_text(f"#!/bin/sh\nexec {words}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "aardvark.txt").touch()
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "TERM": "dumb", "PS1": "$ ", "PYTHONPATH": str(ROOT), "HOME": str(folder)}


class Shell:
    """An interactive shell on a terminal of its own."""

    def __init__(self, words: list[str], folder: Path) -> None:
        environment = _environment(folder)
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment, start_new_session=True
        )
        os.close(theirs)

    def typed(self, text: str, until: str) -> str:
        """What is on the terminal behind these keys, once this is among it."""
        os.write(self.ours, text.encode())
        shown, stop = "", time.monotonic() + 20
        while until not in shown and time.monotonic() < stop:
            if select.select([self.ours], [], [], 0.2)[0]:
                shown += os.read(self.ours, 65536).decode(errors="replace").replace("\a", "")
        assert until in shown, shown
        return shown

    def ended(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


TYPED = [
    ("rna run metho\t=sim\t", "method=simnpo "),
    ("rna run -m retain=mse,rep\t", "retain=mse,representation "),
    ("python -m rna.run model.dt\tbf\t", "model.dtype=bfloat16 "),
    ("python -m rna.sugg\t", "rna.suggest "),
    ("python aard\t", "aardvark.txt "),
    ("rna run model.path=aard\t", "model.path=aardvark.txt"),
]


@pytest.mark.whole
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_that_sources_the_script_completes(shell: str, tmp_path: Path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    words, first = {
        "bash": (["bash", "--norc", "--noprofile", "-i"], "bind 'set enable-bracketed-paste off'"),
        "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u -D; PS1='$ '"),
    }[shell]
    terminal = Shell(words, tmp_path)
    try:
        terminal.typed(f'{first}; eval "$(rna completion {shell})"; echo rea""dy\n', "ready")
        for keys, until in TYPED:
            terminal.typed(keys, until)
            terminal.typed("\x15", "")
    finally:
        terminal.ended()


@pytest.mark.whole
def test_bash_keeps_the_completion_of_python_that_was_there(tmp_path: Path):
    code = """
    theirs() { COMPREPLY=(was_there); }
    complete -F theirs python
    eval "$(rna completion bash)"
    COMP_LINE="python -c "; COMP_POINT=${#COMP_LINE}; _rna_python python "" -c; echo "${COMPREPLY[@]}"
    COMP_LINE="python -m rna.run noise.s"; COMP_POINT=${#COMP_LINE}; _rna_python; echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=_environment(tmp_path), check=True)
    assert done.stdout.split() == ["was_there", "noise.scale="]
