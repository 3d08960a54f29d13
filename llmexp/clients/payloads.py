"""Payloads off a body in any of its forms, each with the stamp of the read that completed it.

A body is an event stream, one JSON object (an answer that was not streamed), a JSON array, or JSON lines; which of them
is told by how it begins and by whether any line is framed, for servers label it wrongly. Servers report failures in
fields of their own and outside of any framing, too: what stands there is handed over like the rest.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from llmexp.clients.base import Response, excerpt
from llmexp.clients.json_text import NotJson, loads, several
from llmexp.clients.sse import SseEvent, events, names_error

DONE = "[DONE]"
_END_WORDS = """
    done end eof eos eot stop finish finished complete completed close closed endoftext im_end /s
    end_of_stream endofstream stream_end stream_done stream_complete stream_completed
"""
_ENDS = frozenset(_END_WORDS.split())
_JSON_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}"]', re.DOTALL)
_FRAMED = re.compile(rb"^data:", re.MULTILINE)
"""A line of an event stream: no JSON holds a bare line like it."""
_SSE_LINE = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?::|data|event|id|retry)")
_PREFIXES = re.compile(rb"\A(?:\s|\xef\xbb\xbf|data:)+")
"""Marks that a gateway wrote once more before an event's data."""
_BETWEEN = b" \t\r\n,[]"
_ERROR_FIELD = re.compile(r"\s*(?:error|exception|err|fatal)\s*:\s*(.*)", re.IGNORECASE | re.DOTALL)
_OTHER_FIELD = re.compile(r"[\w.-]{1,40}(?::|$)")
_TROUBLE = re.compile(
    r"error|exception|fail|exceed|unavailable|timed? ?out|traceback|refused|denied|unhealthy|no healthy|bad gateway|"
    r"overload|crashed|aborted|out of memory|too many requests|rate limit|panic",
    re.IGNORECASE,
)


class Payload(NamedTuple):
    """One JSON value of a body; `tree` is DONE for OpenAI's end mark, and a `Text` for what is no JSON."""

    at_ns: int
    event: str
    tree: object


class Text(NamedTuple):
    """What stands in a body and is no JSON."""

    text: str
    is_error: bool
    """It says itself that it is one."""


def is_end_mark(text: str) -> bool:
    """Whether a text says that the stream is over: OpenAI's mark, and those that others made up."""
    return text.strip("\ufeff\x00 \t\r\n[]<>|.!").lower().replace(" ", "_") in _ENDS


def payloads(response: Response) -> Iterator[Payload]:
    """The JSON values of a body; raises `NotJson` where it holds something else."""
    if _first_byte(response) in (b"{", b"[") and not _FRAMED.search(response.content):
        return _objects(response)
    return _from_events(response)


def _first_byte(response: Response) -> bytes:
    return next((text[:1] for _, data in response.body if (text := data.lstrip(b"\xef\xbb\xbf \t\r\n"))), b"")


def _from_events(response: Response) -> Iterator[Payload]:
    nothing_framed = True
    for found in events(response.body):
        at_ns, event, data, whole, framed = found
        if not framed:
            yield from _stray(found, is_whole=found.whole or response.complete)
            continue
        nothing_framed = False
        try:
            trees = [_unwrapped(loads(data))]
        except NotJson:
            if not whole and not names_error(event) and not is_end_mark(data.decode("utf-8", "replace")):
                return  # half an event: the connection was cut, which is told from the framing
            bare = _PREFIXES.sub(b"", data)
            trees = [_read_kindly(part) for part in several(bare) or [bare]]
        for tree in trees:
            yield Payload(at_ns, event, tree)
    if nothing_framed:
        _refuse_other_text(response)


def _unwrapped(tree: object) -> object:
    """The object that a text holds as JSON: some gateways write each event so."""
    if not isinstance(tree, str) or tree.lstrip()[:1] != "{":
        return tree
    inner = _json_or_none(tree)
    return inner if isinstance(inner, dict) else tree


def _read_kindly(data: bytes) -> object:
    """JSON, the end mark, or the text itself."""
    try:
        return loads(data)
    except NotJson:
        text = data.decode("utf-8", "replace").strip("\ufeff\x00 \t\r\n")
        return DONE if is_end_mark(text) else Text(text, _says_trouble(text))


def _refuse_other_text(response: Response) -> None:
    body = response.content
    if body.strip() and response.complete and not _SSE_LINE.match(body):
        raise NotJson(f"the body is neither JSON nor an event stream: {excerpt(body)}")


def _stray(found: SseEvent, *, is_whole: bool) -> Iterator[Payload]:
    """Lines outside of the framing: an error in a field of its own, JSON without `data:`, a field that nobody knows."""
    text = found.data.decode("utf-8", "replace").strip()
    named = _ERROR_FIELD.match(text)
    if named is not None:
        inner = _json_or_none(named[1])
        yield Payload(found.at_ns, "error", Text(named[1], is_error=True) if inner is None else inner)
        return
    tree = _json_or_none(text)
    if tree is None and _OTHER_FIELD.match(text):
        value = _json_or_none(text.partition(":")[2])
        tree = value if isinstance(value, dict) else None
        if tree is None and not _TROUBLE.search(text):
            text = ""  # the standard says to ignore it
    if tree is None and (is_whole or _TROUBLE.search(text)):
        tree = Text(text, text[:1] != "<" and _TROUBLE.search(text) is not None)
    if tree is not None:
        yield Payload(found.at_ns, found.event, tree)


def _says_trouble(text: str) -> bool:
    """Whether a text that is no JSON, nor half of it, is an error in a server's own words."""
    return text[:1] not in "{<" and text[:2] not in ("[{", '["') and _TROUBLE.search(text) is not None


def _json_or_none(text: str) -> object:
    try:
        return loads(text.encode("utf-8", "surrogateescape"))
    except NotJson:
        return None


def _objects(response: Response) -> Iterator[Payload]:
    """The outermost JSON objects of a body, alone, in an array or one after the other."""
    content = response.content
    ends = list(accumulate(len(data) for _, data in response.body))
    last = 0
    for start, end in _outermost(content):
        at_ns = response.body[bisect_left(ends, end)][0]
        yield from _between(at_ns, content[last:start])
        last = end
        try:
            tree = loads(content[start:end])
        except NotJson as error:
            raise NotJson(f"the body is not JSON: {error}") from None
        yield Payload(at_ns, "", tree)
    if response.complete and response.body:
        yield from _between(response.body[-1][0], content[last:])


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


def _between(at_ns: int, gap: bytes) -> Iterator[Payload]:
    """What stands between the objects: white space and the array's marks, each line of anything else."""
    for line in gap.splitlines():
        text = line.strip(_BETWEEN).removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").strip()
        if is_end_mark(text.removeprefix("data:")):
            yield Payload(at_ns, "", DONE)
        elif text:
            named = _ERROR_FIELD.match(text)
            yield Payload(at_ns, "", Text(named[1] if named else text, named is not None))
