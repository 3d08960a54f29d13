"""Server-sent events as bytes."""

from __future__ import annotations

from llmexp.endpoints.simulator.options import Shape

COMMENT = ": keep-alive"


class Sse:
    """Lays out events as a `Shape` says."""

    __slots__ = ("_comments", "_count", "eol", "head", "plain", "tail")

    def __init__(self, shape: Shape) -> None:
        self.eol = b"\r\n" if shape.crlf else b"\n"
        self.head = b"data: " if shape.data_space else b"data:"
        self.tail = self.eol * 2
        self._comments = shape.comments
        self.plain = not shape.comments
        self._count = 0

    def event(self, data: bytes, name: bytes = b"") -> bytes:
        """One event; a name gives it an `event:` line."""
        line = b"event: " + name + self.eol if name else b""
        return line + self.head + data + self.tail

    def comment(self) -> bytes:
        """A comment that clients skip."""
        return COMMENT.encode() + self.tail if self._comments else b""

    def between(self) -> bytes:
        """The comment that is due before the next event, if one is."""
        if not self._comments:
            return b""
        self._count += 1
        return b"" if self._count % self._comments else self.comment()
