"""`rna COMMAND …`: the commands of `python -m rna.COMMAND …` under one name."""

import os
import sys
from collections.abc import Sequence

from rna import printing

COMMANDS = {
    "run": "unlearn a model, and compare it with the model before: one trial, or with -m a sweep",
    "suggest": "measure which strengths, noise and time fit a model and texts of your own",
    "sweep": "plan, watch, pause, retry and rank sweeps",
    "probe": "ask recorded trials whether what they forgot comes back",
    "report": "tables, figures and one page of what was recorded",
    "records": "find trials again, compare two, delete, see what takes how much room",
    "analyze": "the paper's analyses and theory on a model and trials of it",
    "export": "a trial's unlearned model as a whole Hugging Face folder",
    "corpora": "a forget and a retain set of Wikitext by theme, with questions",
    "perturb": "perturbed questions as a data set; n-grams to perturb with",
    "track": "the dashboard, closing runs and uploads on Weights & Biases",
    "demo": "build the demo's corpora, questions and models again",
    "completion": "print what completes these commands in a shell: bash or zsh",
}
HIDDEN = "complete"  # what the shells' scripts ask


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. An unknown command is one line with the nearest one, and exit code 2."""
    printing.prepare()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_listed())
    elif words[0] == "--version":
        from rna import __version__

        print(f"rna {__version__}")
    elif words[0] == HIDDEN:
        _complete(words[1:])
    elif words[0] == "completion":
        _script(words[1:])
    elif words[0] in COMMANDS:
        _run(words[0], words[1:])
    else:
        _refuse(f"{words[0]}: no such command", words[0], COMMANDS)


def _listed() -> str:
    commands = "\n".join(f"  {name:<10}  {said}" for name, said in COMMANDS.items())
    return (
        "rna: LLM unlearning with Random Noise Augmentation\n\n"
        f"rna COMMAND …, the same as python -m rna.COMMAND …\n{commands}\n\n"
        "rna run             without anything: the built-in demo, in about a minute\n"
        "rna COMMAND --help  what a command takes\n"
        "rna --version       the version"
    )


def _run(command: str, words: list[str]) -> None:
    """A command, as `python -m rna.COMMAND` runs it."""
    import runpy

    printing.PROGRAM = "rna "
    sys.argv = [
        f"rna {command}",
        *(os.fsdecode(word.encode()) for word in words),
    ]  # as the system gave them: it prepares
    runpy.run_module(f"rna.{command}", run_name="__main__", alter_sys=True)


def _script(words: list[str]) -> None:
    from rna.cli import completion

    if words[:1] and words[0] in completion.SHELLS:
        print(completion.script(words[0]), end="")
        return
    told = "\n".join(f'  {shell}: eval "$(rna completion {shell})"  in ~/.{shell}rc' for shell in completion.SHELLS)
    if words and words[0] not in ("-h", "--help"):
        _refuse(f"completion {words[0]}: no such shell", words[0], completion.SHELLS)
    print(f"rna completion bash|zsh: prints a script that completes `rna …` and `python -m rna.run …`\n{told}")


def _complete(words: list[str]) -> None:
    """A line for each word that may stand at the last one; what goes wrong is nothing to say at a prompt."""
    from rna.cli import completion

    try:
        print("\n".join(completion.candidates(words, list(COMMANDS))))
    except (ValueError, OSError):
        return


def _refuse(said: str, word: str, allowed: "dict[str, str] | tuple[str, ...]") -> None:
    import difflib

    close = difflib.get_close_matches(word, allowed, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    print(f"error: {said}; {hint}allowed: {', '.join(allowed)}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
