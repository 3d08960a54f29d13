"""Records of logs as mappings, one at a time: JSON lines, JSON arrays or single objects, CSV, Parquet; packed; folders.

Which of the JSON forms a file has is told by its beginning: exporters name them as they like.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import lzma
import zlib
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import IO, NamedTuple

from llmexp.errors import ConfigError
from llmexp.workload.tables import delimiter, suffix_of, unpacked

_KNOWN = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".log", ".txt", "")
_PIECE = 1 << 20
_LARGEST_VALUE = 1 << 30
_LARGEST_CELL = 1 << 27


class Found(NamedTuple):
    """A record and where it stands; `record` is the reason, as text, where it cannot be read."""

    where: str
    record: Mapping[str, object] | str


def records(source: str) -> Iterator[Found]:
    """Every record of a file or of all files below a folder, in the order of their names."""
    path = Path(source)
    files = [path]
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file() and _kind(one) in _KNOWN and _kind(one))
    if not files or not path.exists():
        raise ConfigError(f"SOURCE: no such file, or a folder without logs: '{source}'")
    for file in files:
        try:
            yield from _of_file(file)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise ConfigError(f"SOURCE: '{file}' cannot be read ({error})") from None


def _kind(path: Path) -> str:
    return suffix_of(Path(path.name))


def _of_file(path: Path) -> Iterator[Found]:
    kind = _kind(path)
    if kind == ".parquet":
        yield from _parquet(path)
        return
    read = _csv if kind in (".csv", ".tsv") else _json
    with unpacked(path) as raw:
        is_utf_16 = raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # as shells of Windows write it
    with unpacked(path) as raw:
        yield from read(path, io.BytesIO(raw.read().decode("utf-16", "replace").encode()) if is_utf_16 else raw)


def _csv(path: Path, raw: IO[bytes]) -> Iterator[Found]:
    csv.field_size_limit(_LARGEST_CELL)
    with io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="") as text:
        head = text.readline()
        lines = csv.DictReader(chain((head,), text), delimiter=delimiter(head))
        while True:
            try:
                row = next(lines, None)
            except csv.Error as error:
                yield Found(f"{path.name}, line {lines.line_num}", f"it is no CSV: {error}")
                continue
            if row is None:
                return
            yield Found(f"{path.name}, line {lines.line_num}", {str(name): value for name, value in row.items()})


def _parquet(path: Path) -> Iterator[Found]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield Found(f"{path.name}, row {number}", row)
    except pa.ArrowInvalid as error:
        raise ConfigError(f"SOURCE: '{path}' is no Parquet ({error})") from None


def _json(path: Path, raw: IO[bytes]) -> Iterator[Found]:
    """JSON lines, unless the file begins with an array or with an object that goes on over its line."""
    number, first = 0, b""
    for line in raw:
        number += 1
        if line.strip(b"\xef\xbb\xbf \t\r\n"):
            first = line
            break
    text = first.decode("utf-8", "replace").removeprefix("\ufeff")
    goes_on = text.lstrip().startswith("{") and not text.rstrip().endswith("}")
    if text.lstrip().startswith("[") or goes_on:
        with io.TextIOWrapper(raw, encoding="utf-8", errors="replace") as rest:
            yield from _values(path, text, rest)
        return
    if text.strip():
        yield Found(f"{path.name}, line {number}", _parsed(text))
    for line in raw:
        number += 1
        if line.strip():
            yield Found(f"{path.name}, line {number}", _parsed(line.decode("utf-8", "replace")))


def _parsed(text: str) -> Mapping[str, object] | str:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"it is no JSON: {error}"
    return tree if isinstance(tree, dict) else "it is no JSON object"


def _values(path: Path, text: str, rest: IO[str]) -> Iterator[Found]:
    """The objects of an array, or one after the other, however they are broken into lines."""
    decoder = json.JSONDecoder()
    number, more = 0, True
    while True:
        text = text.lstrip(" \t\r\n,[")
        if not text.strip("] \t\r\n") and not more:
            return
        try:
            tree, end = decoder.raw_decode(text) if text and text[0] != "]" else (None, 0)
        except (ValueError, RecursionError) as error:
            tree, end = None, 0
            if not more or len(text) > _LARGEST_VALUE:
                yield Found(f"{path.name}, record {number + 1}", f"it is no JSON: {error}")
                return
        if end:
            number += 1
            text = text[end:]
            yield Found(f"{path.name}, record {number}", tree if isinstance(tree, dict) else "it is no JSON object")
            continue
        if not more:
            return
        piece = rest.read(max(_PIECE, len(text)))
        more = bool(piece)
        text = text.removeprefix("]") + piece
