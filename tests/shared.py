"""The optional folder of real data beside the checkout. Where it is present, what it should hold must be there too."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "shared"
WIKITEXT = FOLDER / "data" / "wikitext-2-raw-v1.test.jsonl"
MMLU = FOLDER / "data" / "mmlu_test"

needed = pytest.mark.skipif(not FOLDER.is_dir(), reason="the optional data folder ../shared is not here")
