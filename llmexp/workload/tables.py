"""The rows of a file, JSONL, JSON, CSV or Parquet, each with the place where a person finds it.

A file that does not parse is a `ConfigError` that names the key, the line and the column; nothing is left out or bent:
a line of CSV with more cells than its head, a quote that is never closed and bytes that are no UTF-8 are told.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from llmexp.errors import ConfigError

_LARGEST_CELL = 2**31 - 1


class Entry(NamedTuple):
    """One row."""

    where: str
    """As messages name it: `row 3`, with its line where blank lines or line breaks in cells shift that."""
    record: object


def entries(key: str, path: str) -> Iterator[Entry]:
    """The rows of a file, read as they are asked for."""
    reader = _READERS.get(Path(path).suffix.lower())
    if reader is None:
        raise ConfigError(f"{key}: must end in one of {', '.join(_READERS)}, got '{path}'")
    try:
        yield from reader(Path(path))
    except OSError as error:
        raise ConfigError(f"{key}: cannot be read, got '{path}' ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        wrong = f"byte {error.start} of a piece is 0x{error.object[error.start]:02x}"
        raise ConfigError(f"{key}: '{path}' is not UTF-8 text ({wrong}); save it as UTF-8") from None
    except (ValueError, csv.Error, RecursionError) as error:
        raise ConfigError(f"{key}: '{path}' does not parse as {Path(path).suffix[1:]} ({error})") from None


def column(record: Mapping[str, object], names: Iterable[str]) -> object:
    """The first column of that name that holds something; names are compared as `normal` writes them."""
    named = {normal(name): value for name, value in record.items() if isinstance(name, str)}
    return next((named[name] for name in names if not _is_empty(named.get(name))), None)


def _is_empty(value: object) -> bool:
    """Tables write NaN for what they do not have."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def normal(name: str) -> str:
    """A column's name in lower case, without spaces, underscores and hyphens."""
    return "".join([letter for letter in name.lower() if letter not in " _-\ufeff"])


def _place(number: int, line: int) -> str:
    return f"row {number}" if number == line else f"row {number} (line {line})"


def _jsonl(path: Path) -> Iterator[Entry]:
    number = 0
    with path.open(encoding="utf-8-sig") as file:
        for at, line in enumerate(file, 1):
            if not line.strip():
                continue
            number += 1
            try:
                record: object = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{_place(number, at)}, column {error.colno}: {error.msg}") from None
            except RecursionError:
                raise ValueError(f"{_place(number, at)}: nested too deeply") from None
            yield Entry(_place(number, at), record)


def _json(path: Path) -> Iterator[Entry]:
    try:
        parsed: object = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(parsed, list):
        raise ValueError("the outermost value must be a list")  # noqa: TRY004 -- reported like text that does not parse
    for number, record in enumerate(parsed, 1):
        yield Entry(f"row {number}", record)


def _csv(path: Path) -> Iterator[Entry]:
    csv.field_size_limit(_LARGEST_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
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
    import pyarrow.parquet as pq

    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            for record in batch.to_pylist():
                number += 1
                yield Entry(f"row {number}", record)


_READERS: Mapping[str, Callable[[Path], Iterator[Entry]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
