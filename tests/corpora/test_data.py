"""Texts from files, tokenised documents, endless batches, and what is said of a file that will not do."""

import json
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rna.corpora import data, documents
from rna.corpora.cache import Cache
from rna.corpora.documents import Documents
from rna.corpora.feed import Feed
from rna.settings.fields import (
    BUILTIN,
    CorpusSettings,
    DataSettings,
    ModelSettings,
    Settings,
    TrainSettings,
)
from tests.setups import method_of

NO_CACHE = Cache(None, 0)

TEXTS = ["first text", "zweiter Text ä", "третий"]


def lines(path: Path, *rows: str) -> str:
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


def jsonl(path: Path, *texts: str, field: str = "text") -> str:
    return lines(path, *(json.dumps({"id": 1, field: text}) for text in texts))


def parquet(path: Path, texts: list, field: str = "text") -> str:
    pyarrow.parquet.write_table(pyarrow.table({field: texts}), path)
    return str(path)


def read(path: str, field: str = "text") -> list[str]:
    return list(data.read_texts(CorpusSettings(path, field), "data.retain.path"))


def error(path: str, field: str = "text") -> str:
    with pytest.raises(ValueError, match=r"^data\.retain\.path=") as caught:
        read(path, field)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_txt_is_a_text_a_line_without_the_empty_ones(tmp_path):
    assert read(lines(tmp_path / "a.txt", TEXTS[0], "", "  ", *TEXTS[1:])) == TEXTS


def test_jsonl_reads_the_field_of_each_row(tmp_path):
    path = lines(tmp_path / "a.jsonl", '{"body": "x"}', "", '{"body": " "}', '{"text": "no", "body": "y"}')
    assert read(path, "body") == ["x", "y"]


def test_parquet_reads_the_column_without_the_empty_rows(tmp_path):
    assert read(parquet(tmp_path / "a.parquet", [TEXTS[0], " ", "", *TEXTS[1:]], "body"), "body") == TEXTS


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    for name, line in (("a.txt", "first"), ("b.jsonl", '{"text": "first"}')):
        (tmp_path / name).write_text(f"{line}\n", encoding="utf-8-sig")
        assert read(str(tmp_path / name)) == ["first"]


def test_a_folder_is_its_files_in_order_of_name(tmp_path):
    jsonl(tmp_path / "b.jsonl", "second")
    jsonl(tmp_path / "a.jsonl", "first")
    lines(tmp_path / "README.txt", "not a text")
    assert read(str(tmp_path)) == ["first", "second"]


def test_a_missing_field_names_file_line_and_what_was_found(tmp_path):
    path = lines(tmp_path / "a.jsonl", '{"text": "x"}', "", '{"body": "y", "abstract": "z"}')
    said = error(path)
    assert "a.jsonl, line 3 has no text field 'text' (found: abstract, body)" in said


@pytest.mark.parametrize(("row", "found"), [("[1, 2]", "list"), ('{"text": 3}', "text")])
def test_a_row_that_is_no_text_is_refused(tmp_path, row, found):
    said = error(lines(tmp_path / "a.jsonl", row))
    assert "line 1" in said
    assert found in said


def test_a_null_is_refused_alike_in_jsonl_and_parquet(tmp_path):
    said = error(lines(tmp_path / "a.jsonl", '{"text": "x"}', '{"text": null}'))
    assert said.endswith("a.jsonl, line 2: the field 'text' is null, and must be text")
    said = error(parquet(tmp_path / "a.parquet", ["x", None]))
    assert said.endswith("a.parquet, row 2: the field 'text' is null, and must be text")


def test_a_column_that_is_no_text_is_refused(tmp_path):
    assert "a.parquet, row 1: the field 'text' is of type int" in error(parquet(tmp_path / "a.parquet", [1, 2]))


def test_a_missing_column_names_file_and_columns(tmp_path):
    said = error(parquet(tmp_path / "a.parquet", ["x"], "body"))
    assert "a.parquet has no column 'text' (found: body)" in said


def test_bad_json_names_the_line(tmp_path):
    assert "a.jsonl, line 2 is not JSON" in error(lines(tmp_path / "a.jsonl", '{"text": "x"}', '{"text": '))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_text_that_is_not_utf8_names_the_file(tmp_path, name):
    (tmp_path / name).write_bytes('{"text": "caf\xe9"}\n'.encode("latin-1"))
    assert f"{name} is not UTF-8" in error(str(tmp_path / name))


def test_a_file_that_is_not_parquet_is_refused_by_name(tmp_path):
    lines(tmp_path / "a.parquet", "plain text")
    assert "a.parquet is not a sound parquet file" in error(str(tmp_path))


def test_a_damaged_parquet_file_is_refused_by_name(tmp_path):
    path = tmp_path / "a.parquet"
    parquet(path, ["some text"] * 99)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)
    assert ": a.parquet " in error(str(path))


def words(texts: list[str], **options: bool) -> dict[str, list[list[int]]]:
    """A tokenizer: begin-of-text, then a token for each word's length."""
    assert options["add_special_tokens"]
    return {"input_ids": [[0, *(len(word) for word in text.split())] for text in texts]}


def tokenise(*texts: str, max_length: int = 100) -> dict[str, torch.Tensor]:
    return documents.tokenise(words, iter(texts), max_length=max_length)


def test_tokenise_counts_what_it_cuts():
    made = tokenise("a bb ccc", "a bb", "a bb ccc dddd", max_length=3)
    assert Documents(made["ids"], made["lengths"]) == [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    assert made["truncated"] == 2


def test_tokenise_drops_documents_in_which_nothing_is_predicted():
    made = tokenise("a b", "", "a")
    assert (made["lengths"].tolist(), int(made["short"])) == ([3, 2], 1)
    assert len(tokenise("")["ids"]) == 0


@pytest.mark.parametrize(("together", "letters"), [(1, 2**20), (7, 2**20), (256, 100), (256, 2**20)])
def test_texts_tokenised_together_are_those_of_each_alone(together: int, letters: int, demo: Any, monkeypatch: Any):
    texts = [
        line for count in (0, 1, 3, 80) for line in ("", "The lake", "Größe 🙂 of\ta  lake ", "a" * 300)[: count + 1]
    ]
    alone = [demo[1](text)["input_ids"][:50] for text in texts]
    monkeypatch.setattr(documents, "TOGETHER", together)
    monkeypatch.setattr(documents, "LETTERS", letters)
    made = documents.tokenise(demo[1], iter(texts), max_length=50)
    assert list(Documents(made["ids"], made["lengths"])) == [ids for ids in alone if len(ids) >= 2]
    assert int(made["short"]) == sum(len(ids) < 2 for ids in alone)


def packed(rows: list[list[int]]) -> Documents:
    ids = torch.tensor([token for row in rows for token in row], dtype=torch.int32)
    return Documents(ids, torch.tensor([len(row) for row in rows], dtype=torch.int32))


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=2, max_size=9), max_size=6), st.integers(0, 6))
def test_documents_are_a_list_of_lists(rows: list[list[int]], cut: int):
    made = packed(rows)
    assert list(made) == rows
    assert len(made) == len(rows)
    assert (made[:cut], made[cut:]) == (rows[:cut], rows[cut:])
    assert list(made[cut:][:1]) == rows[cut:][:1]
    assert made.digest() == packed(rows).digest()
    if rows:
        assert made[-1] == rows[-1]
        assert packed([*rows[:-1], [*rows[-1][:-1], 7, 7]]).digest() != made.digest()


@pytest.mark.whole
def test_a_large_corpus_is_read_in_little_memory(tmp_path):
    """40 MB of text cut to 8 tokens a document: what is kept grows with the tokens kept, not with the file."""
    path = tmp_path / "large.txt"
    with path.open("w") as stream:
        for _ in range(4000):
            stream.write("word " * 2000 + "\n")

    def by_length(texts: list[str], **_: Any) -> dict[str, list[range]]:
        return {"input_ids": [range(len(text) // 500) for text in texts]}

    tracemalloc.start()
    texts = data.read_texts(CorpusSettings(str(path)), "data.retain.path")
    made = documents.tokenise(by_length, texts, max_length=8)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(made["lengths"]) == 4000
    assert peak < 2e6


def test_holdout_is_the_last_share(tmp_path):
    path = lines(tmp_path / "a.txt", *("a " * count for count in range(1, 11)))
    made = data.load(settings(path, path, holdout=0.3), words, NO_CACHE).retain
    assert [len(ids) - 1 for ids in made.documents] == [1, 2, 3, 4, 5, 6, 7]
    assert [len(ids) - 1 for ids in made.held_out] == [8, 9, 10]


def test_load_wants_a_batch_of_documents(tmp_path):
    path = lines(tmp_path / "a.txt", "a", "b", "c")
    with pytest.raises(ValueError, match=r"data.topics.bio.path=.*has 1 documents.*train.batch_size=2"):
        data.load(settings(path, path, holdout=0.5), words, NO_CACHE)


DOCUMENTS = [[10 + number] * (1 + number % 3) for number in range(10)]


def first_tokens(count: int, *, batch_size: int, seed: int = 0) -> list[int]:
    """The documents of `count` batches, told apart by their first token."""
    source = torch.Generator().manual_seed(seed)
    endless = Feed(DOCUMENTS, batch_size=batch_size, pad_id=0, generator=source)
    return [row for batch in islice(endless, count) for row in batch.ids_BT[:, 0].tolist()]


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_each_pass_covers_every_document_once(batch_size):
    drawn = first_tokens(40 // batch_size, batch_size=batch_size)
    for start in range(0, 40, 10):
        assert sorted(drawn[start : start + 10]) == list(range(10, 20))


def test_passes_come_in_fresh_orders():
    drawn = first_tokens(2, batch_size=10)
    assert drawn[:10] != drawn[10:]
    assert drawn[:10] != sorted(drawn[:10])


def test_the_order_belongs_to_the_generator():
    torch.rand(3)
    assert first_tokens(5, batch_size=4) == first_tokens(5, batch_size=4)
    assert first_tokens(5, batch_size=4) != first_tokens(5, batch_size=4, seed=1)


def test_batches_hold_whole_documents():
    batch = next(Feed([[1, 2, 3], [4]], batch_size=2, pad_id=9, generator=torch.Generator()))
    assert sorted(row[mask].tolist() for row, mask in zip(batch.ids_BT, batch.mask_BT, strict=True)) == [[1, 2, 3], [4]]


def settings(retain: str, forget: str, *, method: str = "npo", refusals: str | None = None, **rest) -> Settings:
    made = DataSettings("text", {"bio": CorpusSettings(forget)}, CorpusSettings(retain), refusals, **rest)
    model = ModelSettings(name="demo", path=str(BUILTIN / "base"))
    return Settings(method=method_of(method), model=model, data=made, train=TrainSettings(batch_size=2))


def test_validate_accepts_what_can_be_trained_on(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", "x 1", "y 1")
    data.validate(settings(path, path))
    data.validate(settings(path, path, method="dpo"))


def test_large_files_are_validated_once_by_their_content(tmp_path, monkeypatch, capsys):
    """Found again elsewhere under another name; read anew where a byte or what is asked of them differs."""
    monkeypatch.setattr(data, "LARGE", 0)
    rows = ["x", " ", *[LONG] * 9]
    first, again = jsonl(tmp_path / "a.jsonl", *rows), jsonl(tmp_path / "b.jsonl", *rows)
    kept, read = Cache(tmp_path / "cache", 2**30), []
    own = data._counted
    monkeypatch.setattr(data, "_counted", lambda key, *more, **asked: (read.append(key), own(key, *more, **asked))[1])
    data.validate(settings(first, first, method="dpo"), kept)
    told = capsys.readouterr().err
    assert "1 blank row left out" in told
    assert read == ["data.topics.bio.path", "data.refusals"]  # the retain set is the same file
    data.validate(settings(again, again, method="dpo"), kept)
    assert capsys.readouterr().err == told.replace("a.jsonl", "b.jsonl")
    with pytest.raises(ValueError, match=r"has 1 documents after data\.holdout=0\.9"):
        data.validate(settings(again, again, holdout=0.9), kept)
    assert len(read) == 2
    judged = settings(again, again, holdout=0.5)
    judged.eval.kind = "perplexity"
    data.validate(judged, kept)
    data.validate(settings(jsonl(tmp_path / "c.jsonl", *rows, "more of it"), first), kept)
    assert read[2:] == ["data.topics.bio.path", "data.retain.path"]


@pytest.mark.parametrize("short", ["data.retain", "data.topics.bio"])
def test_validate_wants_a_batch_of_each_corpus(tmp_path, short):
    enough, few = jsonl(tmp_path / "a.jsonl", "x 1", "y 1"), jsonl(tmp_path / "b.jsonl", "x", " ")
    made = settings(few, enough) if short == "data.retain" else settings(enough, few)
    with pytest.raises(ValueError, match=rf"^{short}\.path=.*b\.jsonl: has 1 documents.*train.batch_size=2"):
        data.validate(made)


def test_validate_counts_what_the_holdout_leaves(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", "x 1", "y 1", "z 1")
    with pytest.raises(ValueError, match=r"has 1 documents after data.holdout=0.6"):
        data.validate(settings(path, path, holdout=0.6))


def test_validate_wants_a_held_out_document_for_perplexity(tmp_path):
    made = settings(path := jsonl(tmp_path / "a.jsonl", *[LONG] * 9), path, holdout=0.05)
    data.validate(made)
    made.eval.kind = "perplexity"
    with pytest.raises(
        ValueError, match=r"^data\.topics\.bio\.path=.*data\.holdout=0\.05 leaves none of its 9 documents"
    ):
        data.validate(made)
    made.data.holdout = 0.1  # an interval over one document has no width
    with pytest.raises(ValueError, match=r"leaves 1 of its 9 documents.*give data\.holdout=0\.22 or more"):
        data.validate(made)
    made.data.holdout = 0.22
    data.validate(made)


LONG = "one two three four five six seven eight"


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        (["one two three four"] * 4, "of its 4 held-out documents none has 8 tokens or more"),
        (["one two", "x", LONG, "one two three"], "of its 4 held-out documents 1 has 8 tokens or more"),
        (["x" * 99, LONG, "y" * 99, LONG], None),
        (["a, b, c, d, e", "(a) (b) (c)"] * 2, None),  # as many tokens in fewer words
    ],
)
def test_validate_wants_held_out_documents_that_perplexity_can_judge(tmp_path, held_out, said):
    """The demo's tokenizer has a token for each of its words and marks; what is trained on may be shorter."""
    path, enough = lines(tmp_path / "a.txt", *["one two"] * 4, *held_out), lines(tmp_path / "b.txt", *[LONG] * 8)
    made = settings(enough, path, holdout=0.5)
    data.validate(made)
    made.eval.kind = "perplexity"
    if said is None:
        data.validate(made)
        return
    with pytest.raises(
        ValueError, match=rf"^data\.topics\.bio\.path=.*a\.txt: {said}.*give longer documents"
    ) as caught:
        data.validate(made)
    assert ("raise data.holdout" in str(caught.value)) is False


def test_held_out_documents_are_counted_as_they_will_be(tmp_path):
    """Of 12 lines 4 are a token: of the other 8 the last 4 are held out, two of which are long enough."""
    path = lines(tmp_path / "a.txt", *["one two"] * 4, LONG, "one two", *"abcd", LONG, "one two")
    made = settings(path, path, holdout=0.5)
    made.eval.kind = "perplexity"
    data.validate(made)
    held_out = data.load(made, tokenizer(made), NO_CACHE).retain.held_out
    assert sum(len(ids) >= 8 for ids in held_out) == 2


def tokenizer(made: Settings) -> Any:
    return data._tokenizer(made)()


def test_documents_that_are_not_used_are_said_and_counted(tmp_path, capsys):
    path = lines(tmp_path / "a.txt", *"abc", "one two", "three four", "d" * 40)
    made = settings(path, path)
    data.validate(made)
    said = "6 documents from 1 file (a.txt), 4 of a single token not used"
    assert capsys.readouterr().err.splitlines() == [f"data.topics.bio: {said}", f"data.retain: {said}"]


def test_validate_names_key_file_and_line_of_a_bad_row(tmp_path):
    good, bad = jsonl(tmp_path / "a.jsonl", "x 1", "y 1"), lines(tmp_path / "b.jsonl", '{"text": "x"}', '{"body": "y"}')
    with pytest.raises(ValueError, match=r"^data\.topics\.bio\.path=.*b\.jsonl, line 2 has no text field"):
        data.validate(settings(good, bad))


def test_validate_reads_refusals_only_for_dpo(tmp_path):
    path, few = jsonl(tmp_path / "a.jsonl", "x 1", "y 1"), lines(tmp_path / "no.txt", "I do not know.")
    data.validate(settings(path, path, refusals=few))
    with pytest.raises(ValueError, match=r"^data\.refusals=.*no\.txt: has 1 lines"):
        data.validate(settings(path, path, method="dpo", refusals=few))


def test_validate_says_what_was_read(tmp_path, capsys):
    (tmp_path / "many" / "data").mkdir(parents=True)
    for number in range(7):
        jsonl(tmp_path / "many" / "data" / f"train-{number}.jsonl", "two words", " ", "half \ud83d one")
    one = lines(tmp_path / "r.txt", "two words", "and three words")
    lines(tmp_path / "many" / "data" / "train-notes.md", "not read")
    lines(tmp_path / "many" / "LICENSE.txt", "not read either")
    data.validate(settings(one, str(tmp_path / "many"), method="dpo"))
    assert capsys.readouterr().err.splitlines() == [
        "data.topics.bio: 14 documents from 7 files (train-0.jsonl, train-1.jsonl, train-2.jsonl, …, train-6.jsonl), "
        "2 files beside not read (LICENSE.txt, data/train-notes.md), 7 blank rows left out, "
        "U+FFFD put for half a character in 7 texts",
        "data.retain: 2 documents from 1 file (r.txt)",
        "data.refusals: 100 documents from 1 file (refusals.txt)",
    ]


def test_validate_refuses_documents_in_which_nothing_is_predicted(tmp_path):
    """The demo's tokenizer has a token for each of its words."""
    short, enough = lines(tmp_path / "a.txt", *"abcd"), lines(tmp_path / "b.txt", *"abcd", "a b", "c d")
    data.validate(settings(enough, enough))
    with pytest.raises(ValueError, match=r"^data\.topics\.bio\.path=.*a\.txt: has 0 documents of two tokens or more"):
        data.validate(settings(enough, short))


def test_load_tokenises_each_role(tmp_path):
    forget = jsonl(tmp_path / "f.jsonl", "a", "b", "c", "d")
    retain = lines(tmp_path / "r.txt", "a b", "a b c", "d", "e")
    made = data.load(settings(retain, forget, holdout=0.5), words, NO_CACHE)
    assert made.forget["bio"].name == "forget/bio"
    assert made.retain.documents == [[0, 1, 1], [0, 1, 1, 1]]
    assert (len(made.forget["bio"].documents), len(made.forget["bio"].held_out)) == (2, 2)
    assert made.refusals is None


def test_load_brings_a_hundred_refusals_of_its_own_for_dpo(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", "a", "b", "c", "d")
    refusals = data.load(settings(path, path, method="dpo", holdout=0.5), words, NO_CACHE).refusals
    assert refusals is not None
    assert (len(refusals.documents), refusals.held_out) == (100, [])


@pytest.mark.whole  # where calls are not checked against their types, which looks at some of the documents
def test_documents_of_large_files_are_tokenised_as_they_are_drawn(tmp_path, demo: Any, monkeypatch: pytest.MonkeyPatch):
    rows = ["One two three.", "x", "größer als ein Wort", "ab", *(f"{LONG} {number}" for number in range(20)), "y"]
    path = jsonl(tmp_path / "a.jsonl", *rows, LONG * 200)
    made, cache = settings(path, path, holdout=0.3), Cache(tmp_path / "cache", 2**30)
    before = data.load(made, demo[1], cache).retain
    monkeypatch.setattr(data, "LARGE", 1)
    asked: list[str] = []
    tokenise = data.tokenise

    def noted(tokenizer: Any, texts: Any, **options: Any) -> Any:
        asked.extend(found := list(texts))
        return tokenise(tokenizer, iter(found), **options)

    monkeypatch.setattr(data, "tokenise", noted)
    first = data.load(made, demo[1], cache).retain
    assert set(asked) <= {"x", "ab", "y"}  # of which their letters leave open whether they are two tokens
    asked.clear()
    drawn = data.load(made, demo[1], cache).retain
    assert asked == []
    assert drawn.documents[1] == before.documents[1]
    assert len(asked) == 1
    assert (first.documents, first.held_out) == (before.documents, before.held_out)
    assert (drawn.documents[2:5], drawn.held_out) == (before.documents[2:5], before.held_out)
    assert (drawn.short, drawn.truncated) == (before.short, None)
    digests = [first.documents.digest(), first.held_out.digest(), drawn.documents[1:].digest()]
    assert len(set(digests)) == 3
    assert drawn.documents.digest() == digests[0]
