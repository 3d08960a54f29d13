"""The rows of a file, JSONL, JSON, CSV or Parquet, each with the place where a person finds it.

What is packed by gzip, bzip2, xz or Zstandard is unpacked, and UTF-16 is read where the file begins with its mark.
Which of the forms of JSON a file has is told by what it holds: many a `.json` holds lines or a table written column by
column, and some `.jsonl` an array or objects over several lines. Lines of comments (`#`, `//`) are passed over.

A file that does not parse is a `ConfigError` that names the key, the line and the column; nothing is left out or bent:
a line of CSV with more cells than its head, a quote that is never closed and bytes that are no UTF-8 are told.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple, TypeGuard, cast

from llmexp.errors import ConfigError

_LARGEST_CELL = 2**31 - 1
_LONGEST_SPREAD = 256 << 20
_WIDEST_GAP = 1000
_COMMENTS = ("#", "//")
_COLUMNS = frozenset({"prompt", "question", "instruction", "input", "text", "query", "messages", "conversations"})
"""Names that tell a table which is written column by column."""
_DELIMITERS = ",;\t|"
PACKED = (".gz", ".bz2", ".xz", ".zst")
_GZIP, _BZIP2, _XZ, _ZSTANDARD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_OTHERS = {b"PK\x03\x04": "a zip archive or a workbook: unpack it, or save it as CSV", b"PAR1": "Parquet: name it so"}
_QUOTED = re.compile(r'"[^"]*"')
_OF_MESSAGES = frozenset({"role", "from", "content", "value", "parts"})
_UNDER = ("data", "rows", "prompts", "requests", "examples", "instances", "items", "train", "test")
"""Names under which an object keeps the rows."""


class Entry(NamedTuple):
    """One row."""

    where: str
    """As messages name it: `row 3`, with its line where blank lines or line breaks in cells shift that."""
    record: object


def entries(key: str, path: str) -> Iterator[Entry]:
    """The rows of a file, read as they are asked for."""
    suffix = suffix_of(Path(path))
    reader = _READERS.get(suffix)
    if reader is None:
        raise ConfigError(f"{key}: must end in one of {', '.join(_READERS)}, got '{path}'")
    try:
        yield from reader(Path(path))
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"{key}: cannot be read, got '{path}' ({why})") from None
    except UnicodeDecodeError as error:
        wrong = f"byte {error.start} of a piece is 0x{error.object[error.start]:02x}"
        raise ConfigError(f"{key}: '{path}' is not UTF-8 text ({wrong}); save it as UTF-8") from None
    except (ValueError, csv.Error, RecursionError) as error:
        raise ConfigError(f"{key}: '{path}' does not parse as {suffix[1:]} ({error})") from None


def suffix_of(path: Path) -> str:
    """The ending that says what a file holds, in lower case, below that of its packing."""
    return (path.with_suffix("") if path.suffix.lower() in PACKED else path).suffix.lower()


def column(record: Mapping[str, object], names: Iterable[str]) -> object:
    """The first column of that name that holds something; names are compared as `normal` writes them."""
    named = {normal(name): value for name, value in record.items() if isinstance(name, str)}
    return next((named[name] for name in names if not is_empty(named.get(name))), None)


def is_empty(value: object) -> bool:
    """Tables write NaN for what they do not have."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def normal(name: str) -> str:
    """A column's name in lower case, without spaces, underscores, hyphens and brackets."""
    return "".join([letter for letter in name.lower() if letter not in " _-()[]\ufeff"])


def _place(number: int, line: int) -> str:
    return f"row {number}" if number == line else f"row {number} (line {line})"


def _open(path: Path) -> IO[str]:
    """A file of text, packed or not."""
    with unpacked(path) as file:
        head = file.read(4)
    for mark, words in _OTHERS.items():
        if head == mark:
            raise ValueError(f"it is {words}")
    encoding = "utf-16" if head[:2] in _UTF_16 else "utf-8-sig"
    return io.TextIOWrapper(unpacked(path), encoding=encoding, newline="")


def unpacked(path: Path) -> IO[bytes]:
    """What the file holds, unpacked."""
    with path.open("rb") as file:
        head = file.read(5)
    if head.startswith(_GZIP):
        return cast("IO[bytes]", gzip.open(path))
    if head.startswith(_BZIP2):
        return bz2.open(path)
    if head.startswith(_XZ):
        return lzma.open(path)
    if head.startswith(_ZSTANDARD):
        import pyarrow as pa

        return io.BufferedReader(cast("io.RawIOBase", pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")))
    return path.open("rb")


def _jsonl(path: Path) -> Iterator[Entry]:
    number = 0
    with _open(path) as file:
        for at, line in enumerate(file, 1):
            bare = line.strip()
            if not bare or bare.startswith(_COMMENTS):
                continue
            number += 1
            try:
                record = line_value(line)
            except json.JSONDecodeError as error:
                if number == 1 and (listed := _over_lines(path)) is not None:
                    yield from listed
                    return
                raise ValueError(f"{_place(number, at)}, column {error.colno}: {error.msg}") from None
            except RecursionError:
                raise ValueError(f"{_place(number, at)}: nested too deeply") from None
            except ValueError:
                raise ValueError(f"{_place(number, at)}: a number of thousands of digits") from None
            if number == 1 and _is_whole_array(record):
                yield from (Entry(f"row {row}", inner) for row, inner in enumerate(record, 1))
                number = len(record)
                continue
            yield Entry(_place(number, at), record)


def line_value(line: str) -> object:
    """What a line of JSON lines holds; the comma of an array's row may stand behind it."""
    return json.loads(line.rstrip().removesuffix(","))


def is_plain_text(path: Path) -> bool:
    """Whether a file is neither packed nor UTF-16, so that its lines can be found by their bytes."""
    with path.open("rb") as file:
        head = file.read(5)
    return not head.startswith((_GZIP, _BZIP2, _XZ, _ZSTANDARD, *_UTF_16))


def _is_whole_array(record: object) -> TypeGuard[list[object]]:
    """Whether the first line holds all rows; a list of messages is one row."""
    if not isinstance(record, list) or not record:
        return False
    return all(isinstance(row, Mapping) and row.keys().isdisjoint(_OF_MESSAGES) for row in record)


def _over_lines(path: Path) -> list[Entry] | None:
    """The rows of an array, or objects, that are written over several lines; None where it holds no such thing."""
    with _open(path) as file:
        text = file.read(_LONGEST_SPREAD).strip()
    try:
        if text[:1] == "[":
            return list(_json(path, may_be_lines=False))
        return list(_spread(text)) if text[:1] == "{" else None
    except (ValueError, RecursionError):
        return None


def _spread(text: str) -> Iterator[Entry]:
    """Objects one after the other, each over several lines."""
    decoder, at, number = json.JSONDecoder(), 0, 0
    while at < len(text):
        record, end = decoder.raw_decode(text, at)
        number += 1
        yield Entry(f"row {number} (line {text.count(chr(10), 0, at) + 1})", record)
        rest = text[end : end + _WIDEST_GAP]
        at = end + len(rest) - len(rest.lstrip(" \t\r\n,"))


def _json(path: Path, *, may_be_lines: bool = True) -> Iterator[Entry]:
    try:
        with _open(path) as file:
            parsed: object = json.load(file)
    except json.JSONDecodeError as error:
        if may_be_lines and error.msg == "Extra data" and error.lineno > 1:
            yield from _jsonl(path)
            return
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if isinstance(parsed, dict) and (columns := _columns(parsed)):
        parsed = columns
    if isinstance(parsed, dict):
        under = {normal(name): value for name, value in parsed.items() if isinstance(value, list)}
        parsed = next((under[name] for name in _UNDER if name in under), parsed)
    if not isinstance(parsed, list):
        words = f"the outermost value must be a list, or an object with one under {', '.join(_UNDER)}"
        raise ValueError(words)  # noqa: TRY004 -- reported like text that does not parse
    for number, record in enumerate(_unnested(parsed), 1):
        yield Entry(f"row {number}", record)


def _unnested(records: list[object]) -> Iterator[object]:
    """A question a row, with the paragraph that it is about, of articles as SQuAD's own files hold them."""
    for record in records:
        paragraphs = record.get("paragraphs") if isinstance(record, Mapping) else None
        if not isinstance(paragraphs, list):
            yield record
            continue
        for paragraph in paragraphs:
            asked = paragraph.get("qas") if isinstance(paragraph, Mapping) else None
            for question in asked if isinstance(asked, list) else ():
                whole = isinstance(question, Mapping)
                yield {"context": paragraph.get("context"), **question} if whole else question


def _columns(table: Mapping[str, object]) -> list[dict[str, object]]:
    """The rows of a table that is written column by column, as pandas and `datasets` do; empty for anything else."""
    named = [cells for name, cells in table.items() if normal(name) in _COLUMNS and isinstance(cells, dict | list)]
    if not named:
        return []
    columns = [list(cells.values()) if isinstance(cells, dict) else cells for cells in table.values()]
    lists = [cells for cells in columns if isinstance(cells, list) and len(cells) == len(named[0])]
    if len(lists) < len(table) or any(isinstance(cell, Mapping) for cell in lists[0]):
        return []
    return [dict(zip(table, cells, strict=True)) for cells in zip(*lists, strict=True)]


def delimiter(head: str) -> str:
    """What stands between the cells below this head: a comma, unless it holds none and another mark."""
    bare = _QUOTED.sub("", head)
    return next((mark for mark in _DELIMITERS if mark in bare), ",")


def _head(path: Path) -> str:
    with _open(path) as file:
        return file.readline()


def _csv(path: Path) -> Iterator[Entry]:
    csv.field_size_limit(_LARGEST_CELL)
    with _open(path) as file:
        reader = csv.DictReader(file, strict=True, delimiter=delimiter(_head(path)))
        twice = [name for name, count in Counter(reader.fieldnames or ()).items() if name and count > 1]
        if twice:
            raise ValueError(f"two columns are named '{twice[0]}'")
        began = 1
        try:
            for number, record in enumerate(reader, 1):
                where = f"row {number} (line {began + 1})"
                began = reader.line_num
                cells: Mapping[object, object] = {**record}
                if cells.get(None):  # where the reader puts cells without a head
                    raise ValueError(f"{where} has more cells than the head: quote texts that hold commas")
                yield Entry(where, record)
        except csv.Error as error:
            raise ValueError(f"line {began + 1}: {error}") from None


def _parquet(path: Path) -> Iterator[Entry]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for record in batch.to_pylist():
                    number += 1
                    yield Entry(f"row {number}", record)
    except (pa.ArrowException, OverflowError) as error:
        raise ValueError(str(error)) from None


_READERS: Mapping[str, Callable[[Path], Iterator[Entry]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
