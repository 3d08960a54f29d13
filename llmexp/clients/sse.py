"""Server-sent events off a stamped body.

The grammar is WHATWG's: lines end with LF, CR or CRLF; an empty line dispatches; comments are skipped; one space after
the colon is dropped; `data:` lines are joined with LF. An event's stamp is the read that carried its dispatching empty
line (its first byte, where that is CRLF). Where a server leaves that line out, an object behind a whole object is an
event of its own, since no JSON goes on like that; its stamp is the read that ended its line. What stands after the last
empty line is handed over too, marked as not whole: some servers close without a last blank line, and a cut connection
leaves half an event.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from llmexp.clients.json_text import NotJson, TooLarge, loads

_BOM = b"\xef\xbb\xbf"
_ERROR_NAME = re.compile(r"error|exception|fail|fatal|abort|cancel|time_?d?_?-?out", re.IGNORECASE)
_END_NAMES = "done end close complete completed finish finished stop stream_end end_of_stream message_end eos eof"
_ENDS = frozenset(_END_NAMES.split())
_BLANK = b" \t\x00"


@lru_cache(maxsize=256)
def names_error(event: str) -> bool:
    """Whether an event's name alone says that something went wrong."""
    return _ERROR_NAME.search(event) is not None


def names_end(event: str) -> bool:
    """Whether an event's name says that the stream is over."""
    return event.lower().replace("-", "_") in _ENDS


class SseEvent(NamedTuple):
    """One event."""

    at_ns: int
    event: str
    """Its name; empty where the server gave none."""
    data: bytes
    whole: bool = True
    """False for a last event that no empty line ended."""
    framed: bool = True
    """False for lines that are no field of the standard's: some servers write their errors so."""


def events(body: Iterable[tuple[int, bytes]]) -> Iterator[SseEvent]:
    """The events in `body`: (arrival ns, bytes) of each read."""
    reading = _Reading()
    at_ns = 0
    for at_ns, fragment in _without_bom(body):
        end = _one_plain_event(fragment) if reading.clean else 0
        if end:
            yield SseEvent(at_ns, "", fragment[6:end] if fragment[5] == 32 else fragment[5:end])
        else:
            yield from reading.feed(at_ns, fragment)
    yield from reading.rest(at_ns)


def _one_plain_event(fragment: bytes) -> int:
    r"""Where the data ends, from the right, if a fragment is just `data: …\n\n`, as most reads of most servers are."""
    if fragment[:5] != b"data:" or fragment.count(b"\n") != 2:
        return 0
    if fragment[-2:] == b"\n\n":
        return 0 if b"\r" in fragment else -2
    return -4 if fragment[-4:] == b"\r\n\r\n" and fragment.count(b"\r") == 2 else 0


def _without_bom(body: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """The same fragments less a byte-order mark at the very start, however it was split."""
    iterator = iter(body)
    head = b""
    for at_ns, fragment in iterator:
        head += fragment
        if head[:3] == _BOM:
            yield at_ns, head[3:]
            break
        if not _BOM.startswith(head):
            yield at_ns, head
            break
    yield from iterator


class _Reading:
    """Lines and fields between two dispatches."""

    __slots__ = ("_at_ns", "_data", "_event", "_partial", "_skip_lf", "_strays", "_strays_behind")

    def __init__(self) -> None:
        self._partial: list[bytes] = []
        self._data: list[bytes] = []
        self._strays: list[bytes] = []
        self._event = ""
        self._at_ns = 0
        self._strays_behind = False
        self._skip_lf = False

    @property
    def clean(self) -> bool:
        """Nothing is pending: the next byte begins an event."""
        return not (self._partial or self._data or self._event or self._skip_lf or self._strays)

    def feed(self, at_ns: int, fragment: bytes) -> Iterator[SseEvent]:
        if self._skip_lf and fragment:
            fragment = fragment[1:] if fragment[0] == 10 else fragment
            self._skip_lf = False
        if not fragment:
            return
        if b"\n" not in fragment and b"\r" not in fragment:
            self._partial.append(fragment)
            return
        lines = (b"".join(self._partial) + fragment).splitlines(keepends=True)
        self._partial = [lines.pop()] if lines[-1][-1] not in b"\r\n" else []
        self._skip_lf = fragment[-1] == 13
        for line in lines:
            text = line.rstrip(b"\r\n")
            if text:
                if self._data and self._is_next(text):
                    yield from self._dispatch(self._at_ns, whole=True)
                self._field(text)
                self._at_ns = at_ns
            elif self._data or self._event or self._strays:
                yield from self._dispatch(at_ns, whole=True)

    def rest(self, at_ns: int) -> Iterator[SseEvent]:
        """What the end of the body left without an empty line."""
        if self._partial:
            self._field(b"".join(self._partial))
        yield from self._dispatch(at_ns, whole=False)

    def _is_next(self, line: bytes) -> bool:
        """Whether the line begins an event though no empty line ended the one before."""
        value = line[5:].lstrip() if line[:5] == b"data:" else b""
        if value[:1] != b"{" and value[:6] != b"[DONE]":
            return False
        return self._data[0].lstrip()[:1] == b"{" and self._data[-1].rstrip()[-1:] == b"}"

    def _field(self, line: bytes) -> None:
        if line[:3] == _BOM:
            line = line[3:]
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name not in (b"", b"id", b"retry"):
            self._other(line, name, value)

    def _other(self, line: bytes, name: bytes, value: bytes) -> None:
        """`Data:` and ` data:` are meant as data, zeros as nothing; what else stands there is kept as it is."""
        if name.strip(_BLANK).lower() == b"data":
            self._data.append(value)
        elif line[:1] == b"\x00":
            self._field(line.lstrip(b"\x00"))
        elif line.strip(_BLANK):
            self._strays_behind = bool(self._data) if not self._strays else self._strays_behind
            self._strays.append(line)

    def _dispatch(self, at_ns: int, *, whole: bool) -> Iterator[SseEvent]:
        if self._strays_behind and _is_json(self._data + self._strays):
            self._data, self._strays = self._data + self._strays, []  # only its first line is marked
        found: list[SseEvent] = []
        if self._strays:
            found.append(SseEvent(at_ns, self._event, b"\n".join(self._strays), whole, framed=False))
        speaks = names_error(self._event) or names_end(self._event)
        if self._data or (speaks and not self._strays):
            found.append(SseEvent(at_ns, self._event, b"\n".join(self._data), whole))
        yield from reversed(found) if self._strays_behind else found
        self._data, self._strays, self._event, self._strays_behind = [], [], "", False


def _is_json(lines: list[bytes]) -> bool:
    """Whether the lines are one value together."""
    try:
        loads(b"\n".join(lines))
    except (NotJson, TooLarge):
        return False
    return True
