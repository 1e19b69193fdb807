"""Mining n-grams: what counts as one, which are chosen, what repeats, and what is refused."""

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rna.evaluation import ngrams
from rna.evaluation.ngrams import Kept, Miner, mine, select, words_of
from rna.perturb import mined, perturb_with
from rna.perturb.mined import read_groups


def encode(texts):
    """A bag of words: each word a fixed direction, so that a document is nearest to its commonest words."""
    rows = []
    for text in texts:
        row = np.zeros(64, dtype=np.float32)
        for word in text.casefold().split():
            source = np.random.default_rng(int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big"))
            row += source.standard_normal(64).astype(np.float32)
        rows.append(row / np.linalg.norm(row))
    return np.stack(rows)


def miner(sizes, k, **options):
    return Miner(encode, sizes, k, list(mined.GROUPS), **options)


def grams(text, n):
    return ngrams.ngrams(words_of(text), n)


def test_ngrams_are_windows_of_words_without_marks_at_their_ends():
    assert grams("Dengue virus, spread by mosquitoes.", 2) == [
        "Dengue virus",
        "virus, spread",
        "spread by",
        "by mosquitoes",
    ]
    assert grams("one\ntwo three", 2) == ["one two", "two three"]
    assert grams("two words", 4) == []


def test_ngrams_are_distinct_whatever_their_case_and_marks():
    assert (
        grams("dengue virus. Dengue Virus! dengue virus", 2) == ["dengue virus", "virus. Dengue", "Virus! dengue"][:2]
    )


@pytest.mark.parametrize(
    "text", ["of the", "and in", "12 34", "et al", "see https://a.org", "doi 10.1/x", "© Elsevier", "- -", "a b"]
)
def test_boilerplate_is_no_ngram(text):
    assert grams(text, 2) == []


def test_a_line_that_came_before_is_left_out_and_a_short_one_is_not():
    seen: set[int] = set()
    head = "All rights of this journal reserved"
    assert words_of(f"{head}\nmarsh fevers", seen) == [head.split(), ["marsh", "fevers"]]
    assert words_of(f"{head.upper()}\nmarsh fevers", seen) == [["marsh", "fevers"]]


def test_groups_are_the_ends_and_the_middle():
    scores = np.array([0.9, 0.1, 0.5, 0.52, 0.95, 0.0, 0.47])  # mean 0.491…
    assert select(scores, 2) == {"top": [4, 0], "mean": [2, 6], "bottom": [5, 1]}
    assert select(scores, 2, ["mean"]) == {"mean": [2, 6]}


def test_groups_never_share_and_shrink_alike():
    found = select(np.linspace(0, 1, 8), 10)
    assert [len(members) for members in found.values()] == [2, 2, 2]
    assert len({index for members in found.values() for index in members}) == 6
    skewed = np.array([0.0, 0.1, 0.9, 1.0, 1.0, 1.0])  # two of the top are nearer to the mean than what is left
    assert select(skewed, 2) == {"top": [3, 4], "mean": [2, 5], "bottom": [0, 1]}


def test_an_encoder_that_keeps_gives_the_same_and_forgets_the_oldest():
    calls: list[str] = []

    def counted(texts):
        calls.extend(texts)
        return encode(texts)

    kept = Kept(counted, 2)
    np.testing.assert_array_equal(kept(["a", "b", "a"]), encode(["a", "b", "a"]))
    assert calls == ["a", "b"]
    np.testing.assert_array_equal(kept(["b", "c"]), encode(["b", "c"]))
    assert calls == ["a", "b", "c"]
    kept(["a"])
    assert calls[-1] == "a"
    assert list(kept.rows) == ["c", "a"]


DOCUMENTS = [
    "dengue virus spreads by mosquitoes. dengue virus harms. An unrelated castle stands on a green hill somewhere far",
    "buffer overflow attacks smash stacks. A buffer overflow writes beyond its end while rivers flow quietly to seas",
]


def test_the_top_ngrams_are_those_nearest_to_the_document():
    rows = [row for chunk in mine(DOCUMENTS, miner([2], 3)) for row in chunk]
    best = [row["ngram"] for row in rows if row["group"] == "top" and row["rank"] == 0]
    assert best[0].casefold().startswith("dengue virus")
    assert best[1].casefold().startswith("buffer overflow")
    for row in rows:
        expected = float(encode([row["ngram"]])[0] @ encode([DOCUMENTS[row["document"]]])[0])
        assert row["score"] == pytest.approx(expected, abs=1e-6)
    for document in (0, 1):
        top, middle, bottom = (
            [row["score"] for row in rows if (row["document"], row["group"]) == (document, group)]
            for group in mined.GROUPS
        )
        assert top == sorted(top, reverse=True)
        assert bottom == sorted(bottom)
        assert min(top) > max(middle) >= min(middle) > max(bottom)


def test_slices_and_cache_change_nothing(monkeypatch):
    def found(**options):
        rows = [row for chunk in mine(DOCUMENTS, miner([2, 4], 2, **options)) for row in chunk]
        return [row.pop("score") for row in rows], rows

    scores, rows = found()
    monkeypatch.setattr(ngrams, "SLICE", 3)
    again, same = found(cache=4)
    assert same == rows
    assert again == pytest.approx(scores, abs=1e-6)  # a product of fewer rows is summed in another order


def test_a_repeated_document_counts_once_and_documents_stream():
    drawn = []

    def texts():
        for text in (DOCUMENTS[0], DOCUMENTS[0].upper().replace(" ", "  "), DOCUMENTS[1]):
            drawn.append(text)
            yield text

    chunks = mine(texts(), miner([2], 1))
    assert {row["document"] for row in next(chunks)} == {0}
    assert len(drawn) == 1
    assert {row["document"] for chunk in chunks for row in chunk} == {2}


def test_documents_too_short_are_left_out_and_refused_only_if_all_are():
    short = ["marsh fevers harm people daily", *DOCUMENTS]
    assert {row["document"] for chunk in mine(short, miner([8], 1)) for row in chunk} == {1, 2}
    with pytest.raises(ValueError, match=r"n=16: none of the 1 distinct documents has 3 n-grams of that size"):
        list(mine(short[:1], miner([2, 16], 1)))


ROW = {"question": "What?", "subject": "x", "choices": ["a", "b", "c", "d"], "answer": 1}


def write_mined(path: Path, sizes: tuple[int, ...] = (2,), words: str = "p q") -> None:
    """A mined file with two n-grams in each group."""
    with mined.parquet(path, {}) as write:
        for n in sizes:
            for group in mined.GROUPS:
                grams = [f"{words} {n}{group}{rank}" for rank in range(2)]
                same = {"document": 0, "n": n, "group": group, "score": 0.5}
                write([same | {"rank": rank, "ngram": gram} for rank, gram in enumerate(grams)])


def test_each_question_draws_its_ngram_from_the_seed():
    rows = [ROW | {"question": f"What {i}?"} for i in range(40)]
    drawn = perturb_with(rows, ["p q", "r s", "b"], 0)
    assert drawn == perturb_with(rows[::-1], ["p q", "r s", "b"], 0)[::-1]
    assert drawn != perturb_with(rows, ["p q", "r s", "b"], 1)
    put = [choice for row in drawn for choice in row["choices"] if choice not in "abcd"]
    assert set(put) == {"p q", "r s"}
    assert len(put) == 40
    assert all(row["choices"][1] == "b" for row in drawn)
    with pytest.raises(ValueError, match="all stand among the choices"):
        perturb_with([ROW], ["B", "d"], 0)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rna.evaluation.ngrams", *arguments]


def options(**given):
    parser = __import__("argparse").ArgumentParser()
    ngrams._add_arguments(parser)
    parsed = parser.parse_args([])
    for name, value in given.items():
        assert hasattr(parsed, name)
        setattr(parsed, name, value)
    return parsed


@pytest.fixture
def installed(monkeypatch):
    """As if sentence-transformers were there, and the packaged model were not."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: SimpleNamespace(origin=None))


def test_without_sentence_transformers_there_is_a_hint(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="pip install 'rna-unlearning\\[similarity\\]'"):
        ngrams.run(options(output=tmp_path / "out.parquet"))


def fake_miner() -> Miner:
    return miner([2, 4], 2)


@pytest.mark.slow
def test_several_processes_give_what_one_gives():
    texts = [f"{text} number {i}" for i in range(12) for text in DOCUMENTS]
    with ngrams.workers(2, fake_miner) as apply:
        several = list(mine(texts, fake_miner(), apply=apply))
    assert several == list(mine(texts, fake_miner()))


@pytest.mark.usefixtures("installed")
def test_the_command_writes_scores_and_perturbed_questions(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(ngrams, "sentence_bert", lambda *_, **__: encode)
    source, questions = tmp_path / "forget.txt", tmp_path / "exam.jsonl"
    source.write_text("\n".join(DOCUMENTS))
    questions.write_text(json.dumps(ROW) + "\n")
    output = tmp_path / "made" / "ngrams.parquet"
    ngrams.run(options(documents=[str(source)], n=[2, 4], k=2, workers=1, output=output, questions=questions))
    groups = read_groups(output)
    assert set(groups) == {(n, group) for n in (2, 4) for group in mined.GROUPS}
    assert all(len(found) == 4 for found in groups.values())
    assert "2 documents" in capsys.readouterr().out
    made = json.loads((output.parent / "exam_4gram_bottom.jsonl").read_text())
    assert len(set(made["choices"]) & set(groups[4, "bottom"])) == 1
    assert sorted(path.name for path in output.parent.iterdir())[0] == "exam_2gram_bottom.jsonl"  # nothing half-made


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 0}, "--k 0: must be at least 1"),
        ({"n": [2, 0]}, "--n 0: must be at least 1"),
        ({"documents": ["nowhere.txt"]}, "documents=nowhere.txt: no such file"),
        ({"encoder": "/no/such/folder"}, "--encoder /no/such/folder: no such folder"),
        ({"workers": 0}, "--workers 0: must be at least 1"),
        ({"documents": ["short.txt"]}, "n=2: none of the 1 distinct documents"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_bad_input_is_refused(given, message, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("short.txt").write_text("one two")
    monkeypatch.setattr(ngrams, "sentence_bert", lambda *_, **__: encode)
    with pytest.raises(ValueError, match=message):
        ngrams.run(options(output=tmp_path / "out.parquet", **{"workers": 1, **given}))
    assert not list(tmp_path.glob("*parquet*"))


@pytest.mark.real
def test_minilm_finds_what_a_document_is_about(tmp_path: Path):
    pytest.importorskip("sentence_transformers")
    pytest.importorskip(ngrams.PACKAGED)
    source = tmp_path / "forget.txt"
    source.write_text(
        "Dengue virus is carried by mosquitoes and causes fever in the tropics. The old clerk bought green curtains, "
        "paid in small coins, and walked home along the river. Dengue virus has four serotypes, and infection with one "
        "protects against that one alone."
    )
    output = tmp_path / "ngrams.parquet"
    done = subprocess.run(
        command(str(source), "--n", "2", "--k", "3", "--output", str(output)), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    groups = read_groups(output)
    assert any("dengue" in gram.casefold() for gram in groups[2, "top"])
    assert not any("dengue" in gram.casefold() for gram in groups[2, "bottom"])
    missing = subprocess.run(command("--encoder", str(tmp_path / "none")), capture_output=True, text=True)
    assert missing.returncode == 2
    assert f"--encoder {tmp_path}/none: no such folder" in missing.stderr
    assert "Traceback" not in missing.stderr
