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
pytestmark = [pytest.mark.whole, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")]


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


def test_the_first_screen_is_the_answer(opened: Any):
    """Question, sentence with its number, figure and table stand above the fold, the table beside the figure."""
    for selector in ("h1", ".asked", "header figure svg", "header .front table"):
        box = opened.locator(selector).first.bounding_box()
        assert box["y"] + box["height"] <= 900, selector
        assert box["x"] + box["width"] <= 1280, selector
    figure, table = (opened.locator(f"header {one}").first.bounding_box() for one in ("figure svg", ".front table"))
    assert table["x"] >= figure["x"] + figure["width"]
    assert re.search(r"[+−]\d+\.\d", opened.inner_text("h1"))
    said = opened.inner_text(".asked")
    assert all(word in said for word in ("NPO+KL, DPO+KL", "0, 1", "demo", "marsh fevers"))
    rows = opened.eval_on_selector_all("header .front tbody tr", "rows => rows.map((row) => row.cells[0].textContent)")
    assert rows == ["base", "retrained", "NPO+KL", "+ RNA, ν 0.02", "DPO+KL", "+ RNA, ν 0.02"]
    cut = "boxes => boxes.filter((box) => box.scrollWidth > box.clientWidth + 1).length"
    assert opened.eval_on_selector_all("header .scroll", cut) == 0


def test_what_is_missing_is_folded_at_the_end(opened: Any):
    assert not opened.locator("details.missing pre").first.is_visible()
    assert opened.eval_on_selector_all("main > section:last-of-type details.missing", "all => all.length") == 1
    opened.click("details.missing summary")
    assert "python -m rna.run" in opened.locator("details.missing pre").first.inner_text()


def test_on_a_phone_a_table_scrolls_in_its_own_box_below_its_first_column(opened: Any):
    opened.set_viewport_size({"width": 390, "height": 844})
    box, cell = opened.locator("header .front .scroll"), opened.locator("header .front tbody tr:last-child td").first
    before = cell.bounding_box()["x"]
    assert box.evaluate("box => { box.scrollLeft = 9999; return box.scrollLeft; }") > 50
    assert cell.bounding_box()["x"] == pytest.approx(before, abs=1)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390


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


def test_on_paper_tables_stand_open_and_whole_and_fold_again(opened: Any):
    opened.set_viewport_size({"width": 718, "height": 1000})  # A4 between margins
    opened.emulate_media(media="print")
    opened.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    wide = "all => all.filter((one) => one.offsetParent).map((one) => one.getBoundingClientRect().right)"
    seen = opened.eval_on_selector_all("table", wide)
    assert len(seen) > 5
    assert max(seen) <= 718
    assert not opened.locator("details.missing").first.is_visible()
    opened.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert opened.eval_on_selector_all("main details[open]", "all => all.length") == 0


def test_print_leaves_out_the_commands_of_single_trials(opened: Any):
    assert opened.locator("#trials td details").first.is_visible()
    opened.emulate_media(media="print")
    assert not opened.locator("#trials td details").first.is_visible()
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
