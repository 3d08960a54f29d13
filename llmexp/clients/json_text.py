"""JSON as servers write it, read without a complaint wherever its meaning is plain.

`loads` takes what Python's and orjson's readers refuse between them: halves of surrogate pairs (a character that was
split over two events), bytes that are no UTF-8 (the same, split by bytes), NaN and infinities, numbers beyond 64 bits,
line breaks inside strings, and nesting of any depth (levels below `DEEPEST` are read as null). Of a key that occurs
twice the last value counts.

`mend` puts halves of characters together again, once the texts that hold them stand side by side.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

import orjson

from llmexp.secrets import trimmed

DEEPEST = 64
LARGEST = 16 * 2**20
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}"]', re.DOTALL)
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_END = "[DONE]"
_BETWEEN = re.compile(r"(?:\s|data:)*")
_FIRST_HALVES = re.compile("^[\ud800-\udfff]+")


class NotJson(ValueError):  # noqa: N818 -- a finding about the bytes, no error of the program
    """The text is no JSON, however kindly it is read."""


class TooLarge(ValueError):  # noqa: N818 -- the same
    """The text is longer than anything that a server has to say."""


def loads(data: bytes) -> object:
    """The value in `data`; raises `NotJson`, or `TooLarge` where reading it would take memory without bound."""
    if len(data) > LARGEST:
        raise TooLarge(f"an event of {len(data) >> 20} MiB: more than {LARGEST >> 20} MiB are not read")
    try:
        value: object = orjson.loads(data)
    except orjson.JSONDecodeError:
        return _kindly(_decoded(data))
    return value


def _decoded(data: bytes) -> str:
    """Text without the marks that stand around it; halves of characters, written as bytes, stay what they are."""
    bare = data.strip(b"\x00 \t\r\n")
    try:
        text = bare.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        text = bare.decode("utf-8", "surrogateescape")
    return text.removeprefix("\ufeff")


def several(data: bytes) -> list[bytes]:
    """The objects in data that holds more than one, line by line or one after the other; empty where it does not.

    Servers that leave out the empty line between two events write such data.
    """
    lines = [line for line in data.splitlines() if line.strip()]
    if len(lines) > 1 and all(line.lstrip()[:1] in b"{[" for line in lines):
        return lines
    text = data.decode("latin-1")  # a letter a byte: what divides JSON is ASCII
    found: list[bytes] = []
    at = 0
    try:
        while text[at : at + 1] in ("{", "["):
            if text[at : at + len(_END)] == _END:
                return [*found, data[at:]]
            _, end = _READER.raw_decode(text, at)
            found.append(data[at:end])
            following = _BETWEEN.match(text, end)
            at = following.end() if following else end
    except (RecursionError, ValueError):
        return []
    return found if at == len(text) and len(found) > 1 else []


def dumps(value: object) -> str:
    """Compact JSON of whatever `loads` gave; never raises."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        pass
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    except (RecursionError, TypeError, ValueError):
        return "…"


def mapping(value: object) -> Mapping[str, object]:
    """An object of the JSON; empty for null and what is empty of another kind. Raises `TypeError` for anything else.

    Programs in PHP write an object without keys as `[]`, others as `""`.
    """
    if isinstance(value, dict):
        return value
    if not value:
        return {}
    raise TypeError(f"an object was expected, not {trimmed(dumps(value), 60)}")


def listing(value: object) -> Sequence[object]:
    """An array of the JSON; empty for null and what is empty of another kind. Raises `TypeError` for anything else."""
    if isinstance(value, list):
        return value
    if not value:
        return ()
    raise TypeError(f"an array was expected, not {trimmed(dumps(value), 60)}")


def mend(text: str) -> str:
    """The text with halves of characters joined; what stays alone becomes U+FFFD, so that any file can hold it."""
    if is_whole(text):
        return text
    joined = _PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
    return _HALF.sub("\ufffd", joined).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def is_whole(text: str) -> bool:
    """Whether no character of the text is half of one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def borrow(text: str, later: str) -> tuple[str, str]:
    """Both texts, the halves at the beginning of the later one moved to the end of the first if that ends in one."""
    halves = _FIRST_HALVES.match(later)
    if halves is None or not text or not "\ud800" <= text[-1] <= "\udfff":
        return text, later
    return text + halves[0], later[halves.end() :]


def _kindly(text: str) -> object:
    try:
        value: object = _READER.decode(text)
    except RecursionError:
        return _shallow(text)
    except ValueError as error:
        raise NotJson(str(error)) from None
    return value


def _shallow(text: str) -> object:
    """The value without its deepest levels: null stands in their place."""
    pieces: list[str] = []
    depth = kept = 0
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark == '"':
            raise NotJson("a string is not closed")
        if mark in "{[":
            depth += 1
            if depth == DEEPEST:
                pieces += (text[kept : token.start()], "null")
        elif mark in "}]":
            if depth == DEEPEST:
                kept = token.end()
            depth -= 1
    if depth:
        raise NotJson("brackets are not closed")
    pieces.append(text[kept:])
    try:
        value: object = _READER.decode("".join(pieces))
    except (RecursionError, ValueError) as error:
        raise NotJson(str(error)) from None
    return value


def _whole_number(digits: str) -> int | float:
    """A number beyond 64 bits is read as a float, as orjson does."""
    return int(digits) if len(digits) < 19 else float(digits)


_READER = json.JSONDecoder(parse_int=_whole_number, strict=False)
