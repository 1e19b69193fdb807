"""Split Wikitext by theme: the paragraphs of articles whose heading matches, and those of all other articles.

    python tests/bench/wikitext_theme.py wikitext-2-raw-v1.test.jsonl outputs/storms --heading 'hurricane|typhoon'

The input is Wikitext as the hub has it, a line a row, ` = Title = ` above each article. Writes `forget.txt` and
`retain.txt` to the folder, a paragraph a line, in an order by hash, so that the last ones, which `data.holdout` keeps
from training, come from all articles.
"""

import argparse
import hashlib
import itertools
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from rna.corpora.rows import read_rows

TITLE = re.compile(r"= ([^=]+) =")
WORDS = 40  # of a paragraph, at least


def split(path: str, heading: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Title -> paragraphs, of the articles whose title matches and of the others."""
    articles: dict[str, list[str]] = {}
    title, above_is_blank = "", True
    for _, row in read_rows(path, ["text"], "wikitext"):
        text = row["text"].strip()
        found = TITLE.fullmatch(text)
        if found and above_is_blank:
            title = found[1]
        elif title and not text.startswith("=") and len(text.split()) >= WORDS:
            articles.setdefault(title, []).append(text)
        above_is_blank = not text
    wanted = re.compile(heading, re.IGNORECASE)
    matching = {title: texts for title, texts in articles.items() if wanted.search(title)}
    return matching, {title: texts for title, texts in articles.items() if title not in matching}


def write(file: Path, articles: dict[str, list[str]]) -> int:
    """A paragraph a line, in an order by hash; returns how many there are."""
    texts = sorted(itertools.chain(*articles.values()), key=lambda text: hashlib.sha256(text.encode()).digest())
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return len(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wikitext", help="a .jsonl or .parquet file with the field text")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--heading", required=True, help="a regular expression, case ignored")
    options = parser.parse_args()
    forget, retain = split(options.wikitext, options.heading)
    if not forget or not retain:
        parser.error(f"--heading {options.heading}: {len(forget)} articles match, {len(retain)} do not")
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, articles in (("forget", forget), ("retain", retain)):
        count = write(options.folder / f"{name}.txt", articles)
        print(f"{options.folder / name}.txt: {count} paragraphs of {len(articles)} articles")
    print("forget:", *(f"\n  {title}: {len(texts)}" for title, texts in forget.items()))


if __name__ == "__main__":
    main()
