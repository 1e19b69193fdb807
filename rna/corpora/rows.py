"""Rows of text files, one after the other, with what to say of a row that will not do."""

import lzma
import zlib
from collections.abc import Iterator, Sequence

from rna.corpora.formats import NoField, Row, check_content, picked, read_raw, reader, undecoded
from rna.corpora.sources import text_files

Placed = tuple[str, Row]  # (where the row stands: file and line, the row)


def read_rows(
    path: str,
    columns: Sequence[str],
    key: str,
    *,
    pattern: str | None = None,
    usual: str | None = None,
    raw: bool = False,
) -> Iterator[Placed]:
    """The rows of the files a path stands for, in file order, each with all of `columns`; a line of .txt is a `text`.

    A column is one of this name, or what lies in another: `data.text` is `text` of `data`. Of other columns nothing is
    read where the format allows. A large file needs no more memory than a small one, but for its largest row, and for
    a .json file that is no array.

    Args:
        pattern, usual: which files of a folder, as for `text_files`.
        raw: each line of a text file as it stands, whatever it holds, with its end.

    Raises:
        ValueError: naming `key`, the file and the line, for a row without a column, or a file that cannot be read.
    """
    for file in text_files(path, key, pattern, usual):
        try:
            check_content(file, columns)
            for where, row in (read_raw if raw else reader(file))(file, columns):
                yield where, picked(where, row, columns)
        except UnicodeDecodeError:
            raise ValueError(f"{key}={path}: {undecoded(file)}; it must be UTF-8 (iconv converts it)") from None
        except NoField as error:
            stem = key.removesuffix(".path")
            advice = f"{stem}.field=NAME, or {stem}.question=NAME and {stem}.answer=NAME" if stem != key else "another"
            raise ValueError(f"{key}={path}: {error}; give {advice}") from None
        except ValueError as error:
            raise ValueError(f"{key}={path}: {error}") from None
        except (EOFError, zlib.error, lzma.LZMAError):
            raise ValueError(f"{key}={path}: {file.name} is cut short or damaged; fetch it again") from None
        except OSError as error:
            raise ValueError(f"{key}={path}: {file.name} cannot be read ({error.strerror or error})") from None


def whole(text: str) -> str:
    """A text with U+FFFD in the place of each half of a character, as JSON's `\\ud83d` alone is; two are joined."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
