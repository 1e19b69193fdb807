"""`optuna-dashboard` on a sweep's journal, in a real browser: the trials, by their names, while the sweep runs."""

import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.launchers.running import STORE, start

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytest.importorskip("optuna_dashboard", reason="needs optuna-dashboard")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")]
README = Path(__file__).parents[2] / "launchers" / "README.md"
OBJECTIVES = "hydra.sweeper.objectives={loss: minimize, x: maximize}"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[Any]]:
    pool = ("hydra/launcher=gpu_pool", "hydra.launcher.processes=1")
    made = start(tmp_path, *pool, *STORE, "+x=1,2,3", "+y=0,7", "+sleep=3", OBJECTIVES)
    yield made
    made.kill()
    made.wait()


@pytest.fixture
def address(tmp_path: Path, running: subprocess.Popen[Any]) -> Iterator[str]:
    """The dashboard's own program, as a user starts it."""
    journal = tmp_path / "sweeps" / "toy" / "journal.log"
    deadline = time.monotonic() + 30
    while not (journal.exists() and "metric_names" in journal.read_text()):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (line,) = [line for line in README.read_text().splitlines() if line.startswith("optuna-dashboard ")]
    program, shown = shlex.split(line, comments=True)
    assert shown.endswith("/sweeps/noise_scale/journal.log")
    command = [
        str(Path(sys.executable).with_name(program)),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--server",
        "wsgiref",
        str(journal),
    ]
    served = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        assert served.poll() is None
        assert time.monotonic() < deadline + 30
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/dashboard"
    served.terminate()
    served.wait()


@pytest.fixture
def tab(address: str) -> Iterator[Any]:
    """A page; afterwards nothing may have been asked of another machine."""
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        away: list[str] = []
        host = address.split("/")[2]
        opened.on("request", lambda asked: away.append(asked.url) if host not in asked.url[:40] else None)
        yield opened
        browser.close()
        assert [url for url in away if url.startswith("http")] == []


def shown(tab: Any, text: str) -> int:
    return tab.inner_text("body").splitlines().count(text)


def test_trials_show_by_name_and_end_before_ones_eyes(tab: Any, address: str, running: subprocess.Popen[Any]):
    tab.goto(f"{address}/")
    tab.click("text=toy")
    tab.wait_for_selector("text=Pareto Front")
    study = tab.url.split("?")[0].rstrip("/")
    tab.goto(f"{study}/trials")
    tab.wait_for_selector("text=Trial 5")
    before = shown(tab, "Complete")
    assert running.poll() is None
    assert shown(tab, "Waiting") > 0
    tab.wait_for_function(  # without loading the page again
        f"document.body.innerText.split('\\n').filter((line) => line == 'Complete').length > {before}", timeout=30_000
    )
    assert running.wait(60) == 0
    tab.goto(f"{study}/trials?numbers=5")
    tab.wait_for_selector("text=loss 14.29", timeout=30_000)  # (3 − 0.3)² + 7; the dashboard asks every few seconds
    page = tab.inner_text("body")
    assert "x 3" in page  # the parameters' names as they are written on the command line
    assert "y 7" in page
    assert "key x3_y7" in page
    assert shown(tab, "Failed") == 0
    tab.goto(study)
    tab.wait_for_selector("text=Objective X:")
    page = tab.inner_text("body")
    assert page.index("Objective X:\nloss") < page.index("Objective Y:\nx")  # the metrics', not "Objective 0"
