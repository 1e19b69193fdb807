"""What is printed or written: the user's text as it stands; on any stream, also a closed one, or one nobody reads."""

import argparse
import codecs
import difflib
import errno
import io
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from rich.console import Console

DASHES = dict.fromkeys("−–—", "-")  # where a question mark would take a number's sign
MARKS = re.compile(r"[\\`*|<&~$]|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])")  # where Markdown would see a mark
GONE = (errno.EPIPE, errno.ECONNRESET, errno.EIO)  # a pipe whose reader left, a socket's, a terminal's

PROGRAM = "python -m rna."  # or `rna `, which sets it

NARROWEST = 80  # characters that a table takes; a narrower terminal breaks its lines, and no number is left out


def console(*, stderr: bool = False, width: int | None = None) -> "Console":
    """Where tables and bars are drawn. `width` is that of a log without COLUMNS; a terminal has its own.

    No text is markup: names, paths and keywords are the user's, and `[/b]` or `:sun:` in one is what it is.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    own = stream.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(file=stream, width=None if own else width, markup=False, emoji=False, highlight=False)


def program(command: str) -> str:
    """How the running command was called, for its usage line."""
    return f"{PROGRAM}{command}"


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes are one line."""

    def error(self, message: str) -> NoReturn:
        refuse(self, message)


def refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """What argparse has to say of a mistake, in one line with the nearest word, and exit code 2."""
    options = [word for action in vars(parser)["_actions"] for word in action.option_strings if word[:2] == "--"]
    if unknown := re.fullmatch(r"unrecognized arguments: (\S+).*", message, re.S):
        message, word, allowed = f"{unknown[1]}: not known here", unknown[1].partition("=")[0], options
    else:
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        word, allowed = (choice[1], re.findall(r"[\w./-]+", choice[2])) if choice else ("", [])
    close = difflib.get_close_matches(word, allowed, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else f"; allowed: {', '.join(options)}" if unknown else ""
    print(f"error: {message}{hint}", file=sys.stderr)
    sys.exit(2)


def wrapped(text: str, width: int) -> str:
    """Text in lines of at most this width, broken between words alone; a value and its ± stay together, and so do the
    two ends of an interval."""
    kept = re.sub(r"(\[[+−]?\d[^\s,]*), (?=[+−]?\d[^\s,]*\])", "\\1,\0", text.replace(" ± ", "\0±\0"))
    lines = textwrap.wrap(kept, width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def command(words: Sequence[str], width: int) -> str:
    """A command line to paste, in lines of at most this width if its words allow it."""
    lines = [""]
    for word in map(shlex.quote, words):
        if lines[-1] and len(lines[-1]) + len(word) + 3 > width:
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return " \\\n".join(lines)


def in_markdown(text: str) -> str:
    """Text on one line of Markdown, also in a table's cell, that reads as it stands."""
    return MARKS.sub(r"\\\g<0>", " ".join(text.splitlines()))


def prepare() -> None:
    """Let standard output and error take whatever is printed: every command line and worker process begins with this.

    A stream that is closed becomes the null device, and so does one whose reader leaves; a character that its encoding
    has no sign for becomes a question mark. Work does not end because nobody watches. The command's words are text in
    UTF-8 in any locale; one that is none ends the process in one line and exit code 2.
    """
    _fill_gaps()
    codecs.register_error("rna.plain", _plain)
    sys.stdout = _lasting(sys.stdout, sys.__stdout__, 1)
    sys.stderr = _lasting(sys.stderr, sys.__stderr__, 2)
    for place, word in enumerate(sys.argv):
        try:
            sys.argv[place] = os.fsencode(word).decode("utf-8")
        except UnicodeEncodeError:  # nothing the system gave us, so already text
            continue
        except UnicodeDecodeError:
            print(f"error: {word}: its bytes are no UTF-8, in which records are written; spell it so", file=sys.stderr)
            sys.exit(2)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that an encoding does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(DASHES.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


def _fill_gaps() -> None:
    """Open what is closed of the first three descriptors: else the next file gets its number, and what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)


class _Lasting(io.FileIO):
    """A descriptor that swallows what is written once nobody reads it."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in GONE:
                raise
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return len(data)


def _lasting(stream: Any, own: Any, number: int) -> Any:
    """The stream, so that it takes everything; one that was put in its place, by us or by a test, is left alone."""
    if stream is not own:
        return stream
    if stream is not None:
        with suppress(OSError):
            stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Lasting(number, "w", closefd=False)),
        encoding="utf-8" if stream is None else stream.encoding,
        errors="rna.plain",
        line_buffering=number == 2 or (stream is not None and stream.line_buffering),
        write_through=stream is not None and stream.write_through,
    )
