"""What the decoders of JSON wires share: payloads off a body in any of its forms, and the answer under construction.

A body is an event stream, one JSON object (an answer that was not streamed), a JSON array, or JSON lines; which of them
is told by its first byte, for servers label it wrongly. Each payload carries the stamp of the read that completed it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import orjson

from llmexp.clients.base import Answer, Failure, Response, TokenEvent, Usage
from llmexp.clients.failures import of_response
from llmexp.clients.sse import SseEvent, events

DONE, _DONE = "[DONE]", b"[DONE]"
_COUNT_LIMIT = 2**53
_JSON_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}"]', re.DOTALL)
_BETWEEN = b" \t\r\n,[]"
_SSE_LINE = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?::|data|event|id|retry)")


class NotJson(Exception):  # noqa: N818 -- a finding about the bytes, no error of the program
    """The body holds something that is not the wire's JSON."""


class Payload(NamedTuple):
    """One JSON value of a body; `tree` is DONE for OpenAI's end mark, and a str for an error event's plain text."""

    at_ns: int
    event: str
    tree: Any


@dataclass(slots=True)
class Draft:
    """An `Answer` under construction."""

    events: list[TokenEvent] = field(default_factory=list)
    usage: Usage = Usage()  # noqa: RUF009 -- frozen
    finish_reason: str | None = None
    failure: Failure | None = None
    server_latency_s: float | None = None
    finished: bool = False
    reasoning_summarised: bool = False

    def answer(self) -> Answer:
        """The finished type."""
        return Answer(
            self.events,
            self.usage,
            self.finish_reason,
            self.failure,
            self.server_latency_s,
            self.finished,
            self.reasoning_summarised,
        )


Fold = Callable[[Draft, Iterable[Payload]], None]


def decode(response: Response, fold: Fold) -> Answer:
    """What `response` means when `fold` understands its payloads. Never raises for anything a server can send."""
    failure = of_response(response)
    if failure is not None:
        return Answer(failure=failure)
    return decode_payloads(payloads(response), fold)


def decode_payloads(found: Iterable[Payload], fold: Fold) -> Answer:
    """The same for payloads that came in another envelope (AWS event streams carry some of these wires too)."""
    draft = Draft()
    try:
        fold(draft, found)
    except NotJson as error:
        draft.failure = Failure.of("malformed", None, str(error))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        draft.failure = Failure.of("malformed", None, f"an event of unexpected shape: {error}")
    return draft.answer()


def payloads(response: Response) -> Iterator[Payload]:
    """The JSON values of a body; raises `NotJson` where it holds something else."""
    if _first_byte(response) in (b"{", b"["):
        return _objects(response)
    return _from_events(response)


def _first_byte(response: Response) -> bytes:
    return next((text[:1] for _, data in response.body if (text := data.lstrip(b"\xef\xbb\xbf \t\r\n"))), b"")


def _from_events(response: Response) -> Iterator[Payload]:
    loads, nothing_yet = orjson.loads, True
    for found in events(response.body):
        at_ns, event, data, whole = found
        nothing_yet = False
        try:
            tree = loads(data)
        except orjson.JSONDecodeError:
            text = data.strip()
            if not text:
                continue
            if not whole and event != "error" and text != _DONE:
                return  # half an event: the connection was cut, which is told from the framing
            tree = _text_of(found)
        yield Payload(at_ns, event, tree)
    if nothing_yet:
        _refuse_other_text(response)


def _text_of(found: SseEvent) -> str:
    """Data that is not JSON and yet allowed: the end mark, and an error event's text."""
    text = found.data.decode("utf-8", "replace").strip()
    if text == DONE:
        return DONE
    if found.event == "error":
        return text
    raise NotJson(f"an event that is not JSON: {text[:200]}")


def _refuse_other_text(response: Response) -> None:
    body = response.content
    if body.strip() and response.complete and not _SSE_LINE.match(body):
        raise NotJson(f"the body is neither JSON nor an event stream: {body[:200].decode('utf-8', 'replace')}")


def _objects(response: Response) -> Iterator[Payload]:
    """The outermost JSON objects of a body, alone, in an array or one after the other."""
    content = response.content
    ends = list(accumulate(len(data) for _, data in response.body))
    last = 0
    for start, end in _outermost(content):
        _refuse_between(content[last:start])
        last = end
        try:
            tree = orjson.loads(content[start:end])
        except orjson.JSONDecodeError as error:
            raise NotJson(f"the body is not JSON: {error}") from None
        yield Payload(response.body[bisect_left(ends, end)][0], "", tree)
    if response.complete:
        _refuse_between(content[last:])


def _outermost(content: bytes) -> Iterator[tuple[int, int]]:
    """(start, end) of each outermost `{…}`, as far as the content goes."""
    depth = start = 0
    for token in _JSON_TOKEN.finditer(content):
        mark = token[0]
        if mark == b"{":
            start = token.start() if depth == 0 else start
            depth += 1
        elif mark == b"}":
            depth -= 1
            if depth == 0:
                yield start, token.end()
        elif mark == b'"':
            return  # a string that was cut
        if depth < 0:
            return


def _refuse_between(gap: bytes) -> None:
    rest = gap.translate(None, _BETWEEN).removeprefix(b"\xef\xbb\xbf")
    if rest:
        raise NotJson(f"the body is not JSON: {rest[:200].decode('utf-8', 'replace')}")


def count(value: Any) -> int | None:
    """A token count as some server wrote it; None for anything that is no whole number."""
    figure = number(value)
    return int(figure) if figure is not None and figure == figure // 1 and 0 <= figure < _COUNT_LIMIT else None


def number(value: Any) -> float | None:
    """A figure as some server wrote it; None for anything that is no number."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def as_text(value: Any) -> str:
    """Generated text as some server wrote it: a string, or JSON (tool arguments as an object)."""
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()
