"""Columns of text as wide as the terminal: whole columns go before a number or a word is broken."""

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

GAP = "  "


def width() -> int | None:
    """The terminal's, or what COLUMNS says; a file or a pipe has none."""
    return shutil.get_terminal_size().columns if "COLUMNS" in os.environ or sys.stdout.isatty() else None


def laid(
    titles: Sequence[str],
    lines: Sequence[Sequence[str]],
    *,
    left: Sequence[str] = (),
    spare: Sequence[str] = (),
    shorten: Sequence[str] = (),
    width: int | None = None,
) -> list[str]:
    """The lines under their titles.

    Args:
        left: the columns of words; the others are numbers, and end alike.
        spare: the columns that may go where there is no room, the first one first.
        shorten: the columns whose longest texts lose their beginning (a path's end tells more) if that is not enough.
        width: of the terminal; None is any.
    """
    from rich.cells import cell_len

    kept = list(range(len(titles)))
    widths = [max(map(cell_len, (title, *(line[place] for line in lines)))) for place, title in enumerate(titles)]

    def total() -> int:
        return sum(widths[place] for place in kept) + len(GAP) * (len(kept) - 1)

    for title in spare:
        if width is None or total() <= width:
            break
        kept.remove(titles.index(title))
    narrow = [titles.index(title) for title in shorten if titles.index(title) in kept]
    while width is not None and total() > width and any(widths[place] > 8 for place in narrow):
        widest = max(narrow, key=lambda place: widths[place])
        widths[widest] -= 1

    def cell(place: int, text: str) -> str:
        if cell_len(text) > widths[place]:
            while cell_len(text) > widths[place] - 1:
                text = text[1:]
            text = f"…{text}"
        room = " " * (widths[place] - cell_len(text))
        return text + room if titles[place] in left else room + text

    return [GAP.join(cell(place, line[place]) for place in kept).rstrip() for line in [titles, *lines]]


def wrapped(lines: Sequence[str], width: int | None) -> list[str]:
    """Sentences, broken between words alone."""
    if width is None:
        return list(lines)
    return [
        part
        for line in lines
        for part in textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]
    ]
