"""What really happened, by the simulator's own clock: a line of JSON for each request, appended.

| field | is |
| --- | --- |
| `index`, `wire`, `outcome` | order of arrival; which wire; `finished`, a failure's name, or `disconnected` |
| `id` | the request's `x-request-id` header |
| `body_digest`, `peer_port` | first 16 hex digits of the body's SHA-256; the client's port |
| `arrival_ns`, `start_ns` | last byte of the request read; a slot was free |
| `intended_first_token_ns`, `first_token_ns` | when it was due, and the clock just before its write |
| `intended_last_token_ns`, `last_token_ns` | the same of the last token |
| `input_tokens`, `output_tokens`, `reasoning_tokens`, `chunks` | tokens written so far, reasoning included in output |
| `answer` | `right`, `wrong` or `unparsed`, where the simulator knows the question; else null |

Times are `time.monotonic_ns()` of this host; what never happened is null.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

_FLUSH_BYTES = 256 * 1024


class Log:
    """Lines are kept and written when there are many, when the simulator is idle, or at the end."""

    def __init__(self, path: str | None) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644) if path else -1
        self._lines: list[str] = []
        self._size = 0

    def add(self, line: dict[str, object]) -> None:
        """Keeps one request's truth."""
        if self._fd < 0:
            return
        text = json.dumps(line, separators=(",", ":"))
        self._lines.append(text)
        self._size += len(text)
        if self._size > _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what is kept."""
        if self._lines:
            os.write(self._fd, ("\n".join(self._lines) + "\n").encode())
            self._lines.clear()
            self._size = 0

    def close(self) -> None:
        """Writes the rest."""
        self.flush()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read(path: Path) -> Iterator[dict[str, object]]:
    """The requests of a truth log, less a last line that was not written to its end."""
    for line in path.read_text().splitlines():
        if line.endswith("}"):
            yield json.loads(line)
