"""The page in a real browser: sorting, filtering, a phone's width, dark mode, no errors and no network."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rna.report.__main__ import report
from rna.report.records import Filters
from tests import generated

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("world")
    generated.references(folder)
    for method in ("npo", "dpo"):
        for seed in (0, 1):
            for nu in (0.0, 0.02):
                made = generated.settings(method, "kl", nu=nu, seed=seed)
                generated.trial(folder, made, generated.scores(9.5 + 10 * seed, 50 + 400 * nu + seed), curve=9)
    return (report([], Filters(), str(folder), "python -m rna.report") / "index.html").as_uri()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Any]:
    """The page; afterwards nothing may have gone wrong, and nothing may have been fetched."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    wrong: list[str] = []
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda asked: wrong.append(asked.url) if asked.url not in (address, "data:,") else None)
    tab.goto(address)
    yield tab
    context.close()
    assert wrong == []


def column(tab: Any, number: int) -> list[str]:
    return tab.eval_on_selector_all(
        "#trials tbody tr:not([hidden])", f"rows => rows.map((row) => row.cells[{number}].textContent)"
    )


def test_a_click_sorts_by_number_and_a_second_one_turns_it_round(opened: Any):
    before = column(opened, 5)
    opened.click("#trials th:has-text('forget') >> nth=0")
    values = [float(text.split()[0]) for text in column(opened, 5)]
    assert values == sorted(values) != [float(text.split()[0]) for text in before]
    assert values[0] == 9.5  # which is after 19.5 as a text
    assert opened.get_attribute("#trials th:has-text('forget') >> nth=0", "aria-sort") == "ascending"
    opened.click("#trials th:has-text('forget') >> nth=0")
    assert [float(text.split()[0]) for text in column(opened, 5)] == values[::-1]


def test_filters_combine(opened: Any):
    assert len(column(opened, 0)) == 10
    opened.select_option("#method", "NPO+KL")
    assert column(opened, 0) == ["NPO+KL"] * 4
    opened.select_option("#arm", "rna")
    assert column(opened, 1) == ["with RNA"] * 2
    opened.fill("#search", "0.02 nothing-like-this")
    assert column(opened, 0) == []
    assert opened.inner_text("#count") == "0 of 10"
    opened.fill("#search", "")
    opened.select_option("#method", "")
    opened.select_option("#arm", "")
    assert opened.inner_text("#count") == "10 of 10"


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_is_never_wider_than_the_screen(opened: Any, width: int):
    opened.set_viewport_size({"width": width, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_mode_turns_page_and_figures(opened: Any):
    def brightness(selector: str, name: str) -> float:
        said = opened.eval_on_selector(selector, f"(item) => getComputedStyle(item).{name}")
        red, green, blue = (float(value) for value in re.findall(r"[\d.]+", said)[:3])
        return (red + green + blue) / 765

    assert (
        brightness("body", "backgroundColor")
        > 0.9
        > 0.3
        > brightness('figure svg g[style*="fill: currentColor"]', "fill")
    )
    opened.emulate_media(color_scheme="dark")
    assert brightness("body", "backgroundColor") < 0.2
    assert brightness('figure svg g[style*="fill: currentColor"]', "fill") > 0.7


def test_print_hides_the_controls_and_opens_the_table(opened: Any):
    opened.emulate_media(media="print")
    assert not opened.is_visible("#search")
    assert opened.eval_on_selector("#trials", "(item) => getComputedStyle(item).overflow") == "visible"


def test_print_leaves_out_the_commands_of_single_trials(opened: Any):
    assert opened.locator("#trials td details").first.is_visible()
    opened.emulate_media(media="print")
    assert not opened.locator("#trials td details").first.is_visible()
    assert opened.locator("details.missing pre").first.is_visible()
    assert opened.locator("#reproduce ~ pre").first.is_visible()


def test_filters_hold_while_sorting_and_sorting_works_by_keyboard(opened: Any):
    opened.select_option("#arm", "plain")
    header = opened.locator("#trials th:has-text('seed') button")
    header.focus()
    opened.keyboard.press("Enter")
    assert column(opened, 4) == ["0", "0", "1", "1"]
    opened.keyboard.press("Enter")
    assert column(opened, 4) == ["1", "1", "0", "0"]
    assert set(column(opened, 1)) == {"plain"}


def test_a_page_saves_no_state_outside_itself(opened: Any, tmp_path: Path):
    opened.pdf(path=str(tmp_path / "print.pdf"))
    assert (tmp_path / "print.pdf").read_bytes().startswith(b"%PDF")
