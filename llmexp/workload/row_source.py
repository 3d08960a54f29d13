"""The rows of a workload's file by number: all in memory where the file is small, else found again by an index.

A long file of JSON lines is read no further than it is asked for: it starts at once, whatever its size, and memory
holds eight bytes a row. What cannot be known without reading it all is taken from rows spread over it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

from llmexp.errors import ConfigError
from llmexp.workload.lines import Lines
from llmexp.workload.rows import Row, Unusable, read_rows, row_of
from llmexp.workload.tables import is_plain_text, line_value

LONG_BYTES = 64 << 20
SAMPLE = 64
_LINES = (".jsonl", ".ndjson")
_NAMED = 3


class RowSource(Protocol):
    """Rows that can be sent, in the order of the file."""

    @property
    def count(self) -> int | None:
        """How many there are; None: the end was not seen yet."""
        ...

    def row(self, index: int) -> Row:
        """The row of an index; after the last comes the first again."""
        ...

    def again(self, index: int) -> int:
        """How often the whole file was gone through before this index."""
        ...

    def sample(self) -> Sequence[Row]:
        """All rows of a small file; rows spread over a long one."""
        ...

    def estimated_count(self) -> int:
        """How many there are, or about how many."""
        ...

    def notes(self) -> Iterator[str]:
        """Which rows were left out, and why."""
        ...


def rows_of(key: str, path: str) -> RowSource:
    """The rows of a file."""
    file = Path(path)
    is_long = file.suffix.lower() in _LINES and file.is_file() and file.stat().st_size > LONG_BYTES
    if is_long and is_plain_text(file):
        return LongFile(key, path)
    return ShortFile(key, path)


class ShortFile:
    """All rows at once."""

    def __init__(self, key: str, path: str) -> None:
        self._key = key
        self._read = read_rows(key, path)

    @property
    def count(self) -> int:
        """Rows."""
        return len(self._read.rows)

    def row(self, index: int) -> Row:
        """Negative indexes count from the end."""
        return self._read.rows[index % self.count]

    def again(self, index: int) -> int:
        """Whole rounds."""
        return index // self.count

    def sample(self) -> Sequence[Row]:
        """All of them."""
        return self._read.rows

    def estimated_count(self) -> int:
        """As many as there are."""
        return self.count

    def notes(self) -> Iterator[str]:
        """What was left out."""
        return self._read.notes(self._key)


class LongFile:
    """Rows as they are asked for."""

    def __init__(self, key: str, path: str) -> None:
        self._key = key
        self._path = path
        self._folder = Path(path).parent
        self._lines = Lines(key, path)
        self._usable = array("Q")
        """Line of each row that can be sent, as far as the file was read."""
        self._passed = 0
        self._left_out: dict[str, list[int]] = {}
        self._at = lru_cache(maxsize=256)(self._read)
        if not self._extend(1):
            raise ConfigError(f"{key}: has no rows to send, got '{path}'")

    def _extend(self, count: int) -> bool:
        """Whether there are so many rows that can be sent."""
        while len(self._usable) < count:
            try:
                if self._at(self._passed) is None:
                    return False
                self._usable.append(self._passed)
            except Unusable as error:
                self._left_out.setdefault(str(error), []).append(self._passed)
            self._passed += 1
        return True

    def _read(self, line: int) -> Row | None:
        found = self._lines[line]
        return None if found is None else self._parsed(found, line)

    def _parsed(self, found: bytes, line: int) -> Row:
        try:
            return row_of(line_value(found.decode("utf-8-sig")), self._folder)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            where = self._lines.line_number(line)
            raise ConfigError(f"{self._key}: line {where} of '{self._path}' cannot be used: {error}") from None

    @property
    def count(self) -> int | None:
        """Rows, once the end was seen."""
        return None if self._lines.count is None else len(self._usable)

    def row(self, index: int) -> Row:
        """Negative indexes take rows of the sample, for the end is not known."""
        if index < 0:
            return self.sample()[index % len(self.sample())]
        if not self._extend(index + 1):
            index %= len(self._usable)
        found = self._at(self._usable[index])
        assert found is not None
        return found

    def again(self, index: int) -> int:
        """None before the end was seen."""
        return 0 if self.count is None else index // self.count

    def sample(self) -> Sequence[Row]:
        """Rows spread over the file."""
        return self._sampled

    @cached_property
    def _sampled(self) -> list[Row]:
        found = []
        for line in self._lines.sample(SAMPLE):
            try:
                found.append(row_of(line_value(line.decode("utf-8-sig")), self._folder))
            except (Unusable, ValueError, TypeError, KeyError, AttributeError, RecursionError):  # told in its turn
                continue
        return found or [self.row(0)]

    def estimated_count(self) -> int:
        """By the mean length of the sampled lines."""
        return self.count or self._lines.estimated_count()

    def notes(self) -> Iterator[str]:
        """What was left out so far."""
        yield f"{self._key}: is read as it is sent; lengths are estimated from {len(self.sample())} rows spread over it"
        for reason, lines in self._left_out.items():
            named = ", ".join(f"row {line + 1}" for line in lines[:_NAMED])
            yield f"{self._key}: {len(lines)} rows left out ({named}{'…' if len(lines) > _NAMED else ''}): {reason}"
