"""`python -m rna.corpora theme WIKITEXT FOLDER --heading REGEX`: a forget and a retain set by the headings of articles.

Writes `forget.txt`, the paragraphs of articles whose heading matches, and `retain.txt`, those of all others. With
`--questions N` also `questions.jsonl`, which sentence follows in N paragraphs that are then not in `retain.txt`: for
`eval=answers eval.mmlu_path=FOLDER/questions.jsonl`.
"""

import argparse
from pathlib import Path

from rna import printing
from rna.corpora import themes
from rna.ends import guarded


def main() -> None:
    """The command line. A mistake ends in one line and exit code 2."""
    printing.prepare()
    parser = printing.Parser(prog=printing.program("corpora"), description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("theme", help="split Wikitext by theme; questions on what is retained")
    command.add_argument("wikitext", metavar="WIKITEXT", help="a file with a row a line of Wikitext, in the field text")
    command.add_argument("folder", metavar="FOLDER", type=Path, help="where to write; must not exist yet, or be empty")
    command.add_argument("--heading", required=True, metavar="REGEX", help="of the articles to forget, case ignored")
    command.add_argument("--questions", type=int, metavar="N", help="how many; their paragraphs are not retained")
    command.add_argument("--seed", type=int, default=0, help="of which paragraphs, wrong choices and their order")
    command.set_defaults(function=_theme)
    options = parser.parse_args()
    guarded(lambda: options.function(options))


def _theme(options: argparse.Namespace) -> None:
    theme(options.folder, options.wikitext, options.heading, questions=options.questions, seed=options.seed)


def theme(folder: Path, wikitext: str, heading: str, *, questions: int | None, seed: int) -> None:
    """Write the texts, and the questions where they are asked for.

    Raises:
        ValueError: if the folder is not empty, or `themes.split` or `themes.continuations` refuses.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"FOLDER={folder}: exists already; give a folder that does not, nothing is overwritten")
    forget, retain = themes.split(wikitext, heading)
    rows, retain = ([], retain) if questions is None else themes.continuations(retain, questions, seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, articles in (("forget", forget), ("retain", retain)):
        count = themes.write(folder / f"{name}.txt", articles)
        print(f"{folder / name}.txt: {count} paragraphs of {len(articles)} articles")
    if rows:
        themes.write_questions(folder / "questions.jsonl", rows)
        print(
            f"{folder / 'questions.jsonl'}: {len(rows)} questions on {len({row['subject'] for row in rows})} articles"
        )
    print("forget:", *(f"\n  {title}: {len(texts)}" for title, texts in forget.items()))


if __name__ == "__main__":
    main()
