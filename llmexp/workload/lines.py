"""The lines of a large file by their number, with an index of where they begin that grows as they are asked for.

Nothing is read before it is needed: the first line of a file of any size is there at once, and memory holds eight bytes
for each line that was passed.
"""

from __future__ import annotations

import weakref
from array import array
from pathlib import Path

from llmexp.errors import ConfigError
from llmexp.workload.tables import is_plain_text

_BLANK = b"\xef\xbb\xbf \t\r\n"


class Lines:
    """Lines that hold something, counted from 0; each with its number in the file for messages."""

    def __init__(self, key: str, path: str) -> None:
        self._key = key
        self._path = path
        try:
            self._file = Path(path).open("rb")  # noqa: SIM115 -- lives as long as the workload
            weakref.finalize(self, self._file.close)
            self._bytes = Path(path).stat().st_size
            is_plain = is_plain_text(Path(path))
        except OSError as error:
            raise ConfigError(f"{key}: cannot be read, got '{path}' ({error.strerror})") from None
        if not is_plain:
            raise ConfigError(f"{key}: is packed or UTF-16, got '{path}'; its lines are read where they lie: unpack it")
        self._starts = array("Q")
        self._next = 0
        self._ended = False

    def __getitem__(self, number: int) -> bytes | None:
        """The line of this number, None behind the last one."""
        while len(self._starts) <= number and not self._ended:
            self._pass_one()
        if number >= len(self._starts):
            return None
        self._file.seek(self._starts[number])
        return self._file.readline()

    @property
    def count(self) -> int | None:
        """How many there are, once the last has been passed."""
        return len(self._starts) if self._ended else None

    def sample(self, size: int) -> list[bytes]:
        """About `size` lines spread evenly over the file, found without reading what lies between them."""
        found: dict[int, bytes] = {}
        for at in range(size):
            self._file.seek(self._bytes * at // size)
            if at:
                self._file.readline()
            start, line = self._file.tell(), self._file.readline()
            if line.strip(_BLANK):
                found[start] = line
        return list(found.values())

    def estimated_count(self) -> int:
        """How many there are: exact where the last has been passed, else by a sample's mean length."""
        if self._ended:
            return len(self._starts)
        lengths = [len(line) for line in self.sample(64)]
        return max(len(self._starts), round(self._bytes * len(lengths) / max(1, sum(lengths))), 1)

    def _pass_one(self) -> None:
        self._file.seek(self._next)
        line = self._file.readline()
        if not line:
            self._ended = True
        elif line.strip(_BLANK):
            self._starts.append(self._next)
        self._next += len(line)

    def line_number(self, number: int) -> int:
        """The number that an editor shows: blank lines count there. Reads the file up to it; for messages alone."""
        self._file.seek(0)
        wanted = self._starts[number]
        lines = 1
        while self._file.tell() < wanted:
            self._file.readline()
            lines += 1
        return lines
