"""What is printed and written: the user's text as it stands, on streams that are closed, narrow or not read."""

import ast
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from markdown_it import MarkdownIt

from rna import export, printing, run
from rna.analyze import draw
from rna.analyze.command import _markdown
from rna.perturb.__main__ import card
from rna.report import drawing, page, sheet
from rna.report.__main__ import report
from rna.report.records import Filters
from rna.report.sheet import Table
from rna.settings import config, hydra_text
from tests import generated

ROOT = Path(__file__).parents[1]
HOSTILE = "[/INST] a|b\\|c <script>x</script> & $x_{$ :sun: *y* [u] [v](w)"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of bash as a user gives it, with the exit code of its pipe's first command."""
    read, write = os.pipe()
    words = ["bash", "-c", f"{line}; echo ${{PIPESTATUS[0]}} >&{write}"]
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            pass_fds=[write],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        done.returncode = int(os.read(read, 100))
    finally:
        os.close(write)
        os.close(read)
    return done


# The user's text


Made = tuple[Path, list[str], str]  # the output folder, the command's words, what it printed


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A base and a trained model, made by workers, with all that a user may name called by text like markup."""
    folder = tmp_path_factory.mktemp("outputs") / "r[/b]"
    words = [f"output_dir={hydra_text(str(folder))}", f"eval.keyword={hydra_text(HOSTILE)}", "method=rmu"]
    words += ["train.steps=2", "eval.limit=2", "baseline=skip", "model.retrained=null", "wandb.group='[/red]'"]
    done = shell(f"{shlex.join([sys.executable, '-m', 'rna.run', *words])} 2>&-", WANDB_MODE="offline")
    assert done.returncode == 0, done.stdout
    (folder / "sweeps" / "s" / "trials").mkdir(parents=True)
    cell = {"number": 0, "cell": ["noise.nu=0.014"], "status": "failed", "reason": "error", "message": "ν − 1 [/b]"}
    (folder / "sweeps" / "s" / "trials" / "0.json").write_text(json.dumps(cell))
    return folder, words, done.stdout.decode()


@pytest.mark.whole
def test_a_run_prints_and_records_text_that_looks_like_markup(made: Made):
    folder, _, printed = made
    assert "r[/b]: results/KEY.json" in printed
    records = [json.loads(file.read_text()) for file in (folder / "results").glob("*.json")]
    assert len(records) == 2 * 7
    assert {record["config"]["eval"]["keyword"] for record in records} == {HOSTILE}
    assert {record["config"]["wandb"]["group"] for record in records} == {"[/red]"}
    assert [Path(record["wandb"]).is_dir() for record in records if record["kind"] == "train"] == [True, True]
    assert f"Forget-token: '{HOSTILE}'." in " ".join(printed.split())


def test_lines_break_between_words_alone_and_never_within_a_number():
    text = "accuracy 30.0 ± 2.8 points, /a/very-long/path-that-is-wider/than/the-line -40.0 ± 2.8"
    lines = printing.wrapped(text, 20).splitlines()
    assert " ".join(lines) == text
    assert lines[0] == "accuracy 30.0 ± 2.8"
    for width in range(8, 60):
        assert not [line for line in printing.wrapped(text, width).splitlines() if line.strip("± ") != line]
    assert all(len(line) <= 20 or " " not in line for line in lines)
    assert "/a/very-long/path-that-is-wider/than/the-line" in lines
    text = "accuracy −3.0 points [−12.5, +6.5] or 2.01e+05 times [1.96e+05, 2.07e+05], seeds 0, 1"
    for width in range(8, 60):
        broken = printing.wrapped(text, width)
        assert " ".join(broken.splitlines()) == text
        assert {"[−12.5, +6.5]", "[1.96e+05, 2.07e+05],"} <= set(re.findall(r"\[[^]\n]*\],?", broken))


def test_a_command_can_be_pasted_at_any_width():
    words = ["python", "-m", "rna.run", "eval.keyword='a b'", "output_dir=/a/b c/d", "seed=0,1"]
    for width in (10, 30, 40, 200):
        made = printing.command(words, width)
        read = subprocess.run(["bash", "-c", rf"printf '%s\n' {made}"], capture_output=True, text=True, check=True)
        assert read.stdout.splitlines() == words
        assert all(len(line) <= width or line.count(" ") <= 7 for line in made.splitlines())
    assert printing.command(words, 200).count("\n") == 0
    assert printing.command(words, 40).count("\n") >= 2


def test_bars_show_labels_as_they_are():
    """On a terminal of its own."""
    ours, theirs = pty.openpty()
    said = "from rna import progress\nwith progress.display() as tell: tell('[/b]x', '[red]y', 1, 1)"
    done = subprocess.run([sys.executable, "-c", said], stderr=theirs, check=False)
    os.close(theirs)
    printed = os.read(ours, 10000).decode()
    os.close(ours)
    assert done.returncode == 0, printed
    assert "[/b]x" in printed
    assert "[red]y" in printed


def test_tables_are_drawn_in_one_place():
    """Elsewhere a Console would read markup, and a TextColumn does unless it is told."""
    for file in [*ROOT.glob("rna/**/*.py"), *ROOT.glob("launchers/**/*.py")]:
        if file.name == "printing.py":
            continue
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        for call in calls:
            name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
            assert name not in ("Console", "from_markup", "render_markup"), file
            if name in ("TextColumn", "Live", "Progress"):
                assert {item.arg for item in call.keywords} & {"markup", "console"}, (file, name)


class Page(HTMLParser):
    """The elements of a page by name, and the text of its cells and notes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def read(text: str) -> Page:
    made = Page()
    made.feed(text)
    return made


@pytest.mark.whole
def test_a_report_s_page_and_tables_hold_text_as_text(tmp_path: Path):
    name = HOSTILE.replace("/", "")
    for seed in range(2):
        for nu in (0.0, 0.02):
            of = generated.settings(nu=nu, seed=seed, model=name, keyword=HOSTILE)
            generated.trial(tmp_path, of, generated.scores(30, 60 + 500 * nu))
    folder = report([], Filters(), str(tmp_path), f"python -m rna.report '{HOSTILE}'")
    found = read((folder / "index.html").read_text())
    assert found.tags.count("script") == 1
    assert HOSTILE in found.text
    assert name in found.text
    for file in (folder / "tables").glob("*.md"):
        rows = [line for line in file.read_text().splitlines() if line.startswith("|")]
        html = MarkdownIt("commonmark", {"html": True}).enable("table").render(file.read_text())
        assert html.count("<tr>") == max(len(rows) - 1, 0), file
        assert "<script>" not in html
        assert "<em>" not in html


def test_a_text_cell_is_shown_whole_and_an_interval_apart():
    made = Table("t", "t", ["text", "score"], [["5 [b] [c]", sheet.Estimate(52.1, 48.0, 56.2, 3, "seeds")]])
    assert made.texts() == [[("5 [b] [c]", ""), ("52.1 ", "[48.0, 56.2]")]]
    assert "5 [b] [c] &" in sheet.latex(made)
    assert r"52.1 {\scriptsize [48.0, 56.2]}" in sheet.latex(made)


def cells(text: str) -> list[str]:
    """What the cells of a Markdown table say once rendered."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    found = [
        token.children or [] for place, token in enumerate(tokens) if tokens[place - 1].type in ("td_open", "th_open")
    ]
    return ["".join(part.content for part in parts) for parts in found]


@pytest.mark.parametrize("word", [HOSTILE, "|", "\\", "\\|", "a\nb", "`c`", "_d_ e_f", "&lt;", "[x][y]", "<!-- -->"])
def test_markdown_reads_as_it_stands(word: str):
    shown = " ".join(word.splitlines())
    assert cells(f"| a |\n|---|\n| {printing.in_markdown(word)} |")[-1] == shown
    assert cells(_markdown([{"a": word, word: 1.5}])) == ["a", shown, shown, "1.5"]
    assert cells(sheet.markdown(Table("t", word, [word, "b"], [[word, 1]])))[-4:] == [shown, "b", shown, "1"]


def test_the_cards_hold_text_as_text():
    rows = [{"question": "q", "subject": "s", "choices": ["a", HOSTILE, "c", "d"], "answer": 0}]
    written = card("mmlu", "p", rows, 0, HOSTILE, 0, 1, "random", "d")
    assert dict(zip(cells(written)[::2], cells(written)[1::2], strict=True))["keyword"] == HOSTILE
    command = shlex.split(next(line for line in written.splitlines() if line.strip().startswith("lm_eval")))
    assert json.loads(command[-1])["keyword"] == HOSTILE

    made = generated.settings(model=HOSTILE)
    made.data.topics = {HOSTILE: made.data.topics["bio"]}
    trained = generated.record(made)
    written = export.card(trained, [generated.evaluation(trained, HOSTILE, 0.5, more={"acc_stderr": 0.1})], [])
    assert f"{HOSTILE}, accuracy in %" in cells(written)
    assert f"base_model: {json.dumps(HOSTILE)}" in written


@pytest.mark.parametrize("text", [r"$\frac{$", "$x_$", "a $5"])
def test_a_figure_takes_a_dollar_for_a_dollar(text: str, tmp_path: Path):
    draw.save(tmp_path, lambda figure: figure.suptitle(text), width=2.0, height=1.0)
    with drawing.styled():
        from matplotlib.figure import Figure

        figure = Figure()
        figure.suptitle(text)
        figure.savefig(tmp_path / "report.svg")


def test_a_drawing_s_ids_are_made_of_letters_alone():
    svg = '<svg width="1pt" height="1pt"><g id="a"/><use href="#a"/></svg>'
    assert page.inline(svg, r'x\1"><script>') == '<svg><g id="x_1___script_-a"/><use href="#x_1___script_-a"/></svg>'


TEXTS = [
    HOSTILE,
    "marsh fevers",
    "[/INST]",
    "a,b",
    "a\\'b",
    "end\\",
    "null",
    "1e5",
    "ν",
    " a  b ",
    "${x}",
    "a\\${x}",
    "'",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_command_gives_text_to_hydra_as_it_stands(text: str):
    word = f"eval.keyword={hydra_text(text)}"
    assert not OverridesParser.create().parse_override(word).is_sweep_override()
    assert config.check(run.compose([word], None)).eval.keyword == text


# Streams


PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
STREAMS = {
    "closed": (">&- 2>&- <&-", {}),
    "head": ("2>&1 | head -1", {}),
    "nobody": ("2>&1 | true", {}),
    "ascii": ("2>&1", {"PYTHONIOENCODING": "ascii"}),
    "locale": ("2>&1", PLAIN),
    "latin": ("2>&1", {"PYTHONIOENCODING": "latin-1"}),
}
COMMANDS: dict[str, tuple[str, ...]] = {
    "status": ("rna.sweep", "status", "s", "--output-dir", "{}"),
    "report": ("rna.report", "--output-dir", "{}"),
    "perturb": ("rna.perturb", "export", "{new}/set", "--path", "{new}/rows.jsonl", "--keyword", "ν"),
    "export": ("rna.export", "{key}", "{new}/model", "--output-dir", "{}"),
    "analyze": ("rna.analyze", "backdoor", "{key}", "--limit", "2", "--output-dir", "{}"),
}
SLOW = pytest.mark.slow
TRIED = [pytest.param("run", stream, marks=[] if stream in ("closed", "ascii") else SLOW) for stream in STREAMS]
TRIED += [
    ("report", "nobody"),
    ("status", "locale"),
    pytest.param("perturb", "locale", marks=SLOW),
]
SELDOM = (("export", "closed"), ("export", "locale"), ("analyze", "closed"), ("analyze", "locale"))
TRIED += [pytest.param(*case, marks=SLOW) for case in SELDOM]


@pytest.mark.whole
@pytest.mark.parametrize(("name", "stream"), TRIED)
def test_a_command_ends_well_on_any_stream(name: str, stream: str, made: Made, tmp_path: Path):
    folder, run_words, _ = made
    key = next(file.name for file in (folder / "trials").iterdir())
    row = {"question": "q", "subject": "s", "choices": ["a", "b", "c", "d"], "answer": 0}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    words = ["rna.run", *run_words] if name == "run" else COMMANDS[name]
    words = [word.replace("{}", str(folder)).replace("{key}", key).replace("{new}", str(tmp_path)) for word in words]
    redirection, environment = STREAMS[stream]
    ended = shell(f"{shlex.join([sys.executable, '-m', *words])} {redirection}", **environment)
    assert ended.returncode == 0, ended.stdout
    assert b"Traceback" not in ended.stdout + ended.stderr
    assert b"Exception ignored" not in ended.stdout + ended.stderr
    if name == "run" and stream in ("ascii", "locale"):
        assert re.search(rb"\d \? \d", ended.stdout)
    if name == "status" and stream == "locale":
        assert b"? - 1 [/b]" in ended.stdout  # a minus sign is never lost
    if name == "report":
        assert (folder / "reports" / "all" / "index.html").is_file()
    if name == "export":
        assert (tmp_path / "model" / "model.safetensors").is_file()
    if name == "perturb":
        assert "ν" in (tmp_path / "set" / "questions.jsonl").read_text(encoding="utf-8")


def test_what_is_printed_never_lands_in_a_file(tmp_path: Path):
    """A closed standard output leaves its number to the next file that is opened."""
    code = "from rna import printing; printing.prepare()\nwith open('f', 'w') as f: print('said'); f.write('written')"
    command = shlex.join([sys.executable, "-c", code])
    assert shell(f"cd {tmp_path} && {command} >&- 2>&-").returncode == 0
    assert (tmp_path / "f").read_text() == "written"


def test_words_that_are_no_text_are_refused_in_one_line(tmp_path: Path):
    ended = shell(f"cd {tmp_path} && {sys.executable} -m rna.run $'output_dir=a\\xff'")
    assert ended.returncode == 2
    assert ended.stderr.decode().count("\n") == 1
    assert "no UTF-8" in ended.stderr.decode()
    assert not list(tmp_path.iterdir())


def test_every_command_line_and_worker_prepares_its_streams_first():
    files = [
        file for file in ROOT.glob("rna/**/*.py") if re.search("if __name__ ==|^def main\\(", file.read_text(), re.M)
    ]
    assert len(files) >= 11
    for file in files:
        mains = [node for node in ast.parse(file.read_text()).body if getattr(node, "name", "") == "main"]
        for main in mains:
            done = [node for node in main.body if not isinstance(node, ast.Import | ast.ImportFrom)]
            said = ast.get_docstring(main) is not None
            assert ast.unparse(done[said]) == "printing.prepare()", file
        runs_another = "runpy.run_module" in file.read_text() or "import main" in file.read_text()
        assert mains or runs_another, file
    for name in (
        "rna/sweep/pool.py",
        "rna/evaluation/ngrams.py",
        "rna/demo/rebuild.py",
    ):  # what runs in processes of their own
        assert re.search(
            r"def (_serve|_start|build_one)\(.*?printing\.prepare\(\)", (ROOT / name).read_text(), re.DOTALL
        )
