"""A table and its three formats: CSV for programs, Markdown for READMEs and LaTeX (booktabs) for papers."""

import csv
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rna.intervals import Estimate
from rna.printing import in_markdown

Cell = str | float | int | Estimate | None

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "Δ": r"$\Delta$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "–": "--",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
}
WORDY = "settings"  # a column of long text, which LaTeX leaves out
GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega"
SET_AS_THEY_ARE = "ßæøœÆØŒ§©£·’‘"  # beside ASCII, and its letters with accents
ACCENTS = "\u0300\u0301\u0302\u0303\u0308\u030a\u0327\u030c"


@dataclass
class Table:
    """Columns and cells; a cell that is None is missing. `digits` of its numbers."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    digits: int = 1
    signed: tuple[str, ...] = ()  # columns that are differences
    command: str | None = None  # for a table without rows: what would fill it

    def text(self, cell: Cell, column: str) -> str:
        """A cell for a reader: `52.1 [48.0, 56.2]`, `–` where there is nothing."""

        def number(value: float) -> str:
            text = f"{value:{'+' if column in self.signed else ''}.{self.digits}f}"
            return text.replace("-", "−") if float(text) else text.lstrip("+-")

        if isinstance(cell, Estimate):
            made = number(cell.value)
            if cell.low is not None and cell.high is not None:
                made += f" [{number(cell.low)}, {number(cell.high)}]" + ("*" if cell.over != "seeds" else "")
            return made
        if isinstance(cell, float):
            return "–" if math.isnan(cell) else number(cell)
        return "–" if cell is None else str(cell)

    def texts(self) -> list[list[tuple[str, str]]]:
        """The cells in rows, each with its interval apart: `("52.1 ", "[48.0, 56.2]")`."""
        return [
            [self._parted(cell, column) for cell, column in zip(row, self.columns, strict=True)] for row in self.rows
        ]

    def _parted(self, cell: Cell, column: str) -> tuple[str, str]:
        value, bracket, interval = (
            self.text(cell, column).partition("[") if isinstance(cell, Estimate) else ("", "", "")
        )
        return (value, bracket + interval) if bracket else (self.text(cell, column), "")


# Writing


def write(table: Table, folder: Path) -> None:
    """NAME.csv, NAME.md and NAME.tex."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{table.name}.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(plain(table))
    (folder / f"{table.name}.md").write_text(markdown(table), encoding="utf-8")
    (folder / f"{table.name}.tex").write_text(latex(table), encoding="utf-8")


def plain(table: Table) -> list[list[Any]]:
    """Header and rows for a program: an interval takes four columns, a missing number is empty."""
    spread = [any(isinstance(row[place], Estimate) for row in table.rows) for place in range(len(table.columns))]
    parts = ("", " low", " high", " interval over")
    rows: list[list[Any]] = [
        [
            column + part
            for column, wide in zip(table.columns, spread, strict=True)
            for part in (parts if wide else ("",))
        ]
    ]
    for row in table.rows:
        cells: list[Any] = []
        for cell, wide in zip(row, spread, strict=True):
            if isinstance(cell, Estimate):
                cells += [cell.value, cell.low, cell.high, cell.over if cell.low is not None else None]
            else:
                cells += [cell, None, None, None] if wide else [cell]
        rows.append(cells)
    return rows


def markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    def texts(row: list[Cell]) -> list[str]:
        cells = zip(row, table.columns, strict=True)
        return [in_markdown(cell) if isinstance(cell, str) else table.text(cell, column) for cell, column in cells]

    lines = [f"**{in_markdown(table.title)}**", ""]
    if table.rows:
        ruler = "|" + "|".join("---" for _ in table.columns) + "|"
        lines += [line([*map(in_markdown, table.columns)]), ruler, *(line(texts(row)) for row in table.rows)]
    elif table.command:
        lines += ["Missing. What would compute it:", "", *(f"    {part}" for part in table.command.splitlines())]
    else:
        lines.append("Missing.")
    return "\n".join([*lines, "", *(f"- {in_markdown(note)}" for note in table.notes)]).rstrip() + "\n"


def latex(table: Table) -> str:
    r"""A `table` environment for \usepackage{booktabs,graphicx}, no wider than the line."""
    shown = _shown(table)
    head = " & ".join(escaped(table.columns[place]) for place in shown) + r" \\"
    body = [" & ".join(_small(row[place]) for place in shown) + r" \\" for row in table.texts()]
    if not table.rows:
        body = [rf"\multicolumn{{{max(len(shown), 1)}}}{{l}}{{missing}} \\"]
    caption = " ".join([table.title + ".", *table.notes])
    said = [f"% column “{WORDY}”: in {table.name}.csv"] if len(shown) < len(table.columns) else []
    lines = [
        *said,
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        rf"\label{{tab:{table.name}}}",
        r"\medskip",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{_alignment(table, shown)}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _shown(table: Table) -> list[int]:
    """The columns that LaTeX shows: without the wordy one, as long as no two rows then have the same name."""
    places = list(range(len(table.columns)))
    short = [place for place in places if table.columns[place] != WORDY]
    names = [tuple(row[place] for place in short if isinstance(row[place], str)) for row in table.rows]
    return short if short and len(set(names)) == len(names) else places


def _alignment(table: Table, shown: Sequence[int]) -> str:
    numeric = [any(isinstance(row[place], int | float | Estimate) for row in table.rows) for place in shown]
    return "".join("r" if right else "l" for right in numeric) or "l"


def _small(cell: tuple[str, str]) -> str:
    """A cell, its interval smaller."""
    value, interval = cell
    return rf"{escaped(value)}{{\scriptsize [{escaped(interval[1:])}}}" if interval else escaped(value)


def escaped(text: str) -> str:
    """Text as LaTeX shows it; a letter that pdflatex has no sign for is told by its number, as U+4E2D."""
    made = "".join(map(_letter, text.replace("\n", " ").replace("\t", " ")))
    return f"{{{made[0]}}}{made[1:]}" if made[:1] in ("[", "*") else made  # else an argument of the row's end before


def _letter(letter: str) -> str:
    if letter in LATEX:
        return LATEX[letter]
    name = unicodedata.name(letter, "").removeprefix("GREEK SMALL LETTER ").lower()
    if name in GREEK.split():
        return rf"$\{name}$"
    plain = unicodedata.normalize("NFD", letter)
    accented = len(plain) == 2 and plain[0].isascii() and plain[0].isalpha() and plain[1] in ACCENTS
    known = letter.isascii() and letter.isprintable()
    return letter if known or accented or letter in SET_AS_THEY_ARE else f"U+{ord(letter):04X}"
