"""What providers say when they refuse: error bodies and error events in all their shapes, as `Failure`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from llmexp.clients.base import BODY_LIMIT, ErrorClass, Failure, Response, classify_status
from llmexp.clients.json_text import NotJson, dumps, loads

_MESSAGE_KEYS = (
    "message",
    "Message",
    "msg",
    "faultstring",
    "detail",
    "details",
    "errorMessage",
    "error_message",
    "error_msg",
    "errmsg",
    "err_msg",
    "originalMessage",
    "error_description",
    "reason",
    "title",
    "status_msg",
    "exception",
    "err",
)
_NUMBER_KEYS = ("code", "status", "status_code", "statusCode", "error_code", "errcode", "errno", "http_status")
_CODE_KEYS = (*_NUMBER_KEYS, "type", "error_type", "__type", "ErrorCode", "errorType")
_WORDS = frozenset(_MESSAGE_KEYS) - {"reason", "title", "details"}
"""Keys that make an object an error where it is nothing else."""
_OF_ERRORS = frozenset({*_MESSAGE_KEYS, *_CODE_KEYS})
_INNER = ("base_resp", "response", "result", "data", "output", "fault", "status")
"""Objects inside which some servers say how it went."""
_BAD_WORDS = """
    error errors failed failure exception fatal
    abort aborted cancelled canceled timeout timed_out expired rejected crashed killed
"""
_BAD = frozenset(_BAD_WORDS.split())
_NO_ERROR = frozenset({"", "null", "none", "nil", "false", "0", "ok", "success", "no error", "undefined"})
_DEEPEST = 8
_THROTTLED = re.compile(
    r"throttl|too[ _-]?many[ _-]?requests|rate[ _-]?limit|resource[ _]?exhausted|^429$", re.IGNORECASE
)
_WELL = re.compile(
    r"\s*(ok|okay|success|successful|succeeded|done|processing|pending|running|queued|in[ _]progress|completed|"
    r"finished|started|streaming|ping|pong|heartbeat|keep[-_ ]?alive|connected|)\W*",
    re.IGNORECASE,
)
_LONGEST_WELL = 60


def of_response(response: Response) -> Failure | None:
    """The failure of a response whose status is not 2xx; None when it is."""
    if 200 <= response.status < 300:
        return None
    body = response.content[:BODY_LIMIT]
    code, message = _read(_parsed(body))
    code = response.headers.get("x-amzn-errortype", "").split(":")[0] or code
    message = message or body.decode("utf-8", "replace") or f"HTTP {response.status} without a body"
    error_class = _throttled(code) or classify_status(response.status)
    return Failure.of(error_class, code or response.status, message + _hint(response))


def of_event(payload: object) -> Failure:
    """The failure that an error event after a 200 stands for; `payload` is its JSON, or its text."""
    code, message = _read(payload)
    inner = _first(payload)
    stated = [inner, _first(inner.get("error"))] if isinstance(inner, dict) else []
    is_429 = any(isinstance(one, dict) and str(one.get(key)) == "429" for one in stated for key in _CODE_KEYS)
    error_class: ErrorClass = "throttled" if is_429 else _throttled(code) or _throttled(message) or "in_stream"
    return Failure.of(error_class, code, message or "an error event without a message")


def is_stated(error: object, depth: int = 0) -> bool:
    """Whether what stands under `error` says anything: some gateways write an empty one into every chunk."""
    if isinstance(error, dict | list) and depth < _DEEPEST:
        inner = error.values() if isinstance(error, dict) else error
        return any(is_stated(value, depth + 1) for value in inner)
    if isinstance(error, str):
        return error.strip().lower() not in _NO_ERROR
    if isinstance(error, int) and not isinstance(error, bool):
        return is_bad_code(error)
    return bool(error)


def has_error(tree: Mapping[str, object]) -> bool:
    """Whether an object of any kind holds an error under that name."""
    error = tree.get("error")
    return bool(error) and is_stated(error)


def is_error(tree: Mapping[str, object]) -> bool:
    """Whether an object that is no part of an answer says that something went wrong."""
    return _is_bad(tree) or _inner_error(tree) is not None


def is_nothing_else(tree: Mapping[str, object]) -> bool:
    """Whether it is an error, and holds nothing that an answer could stand in."""
    return tree.keys() <= _OF_ERRORS and is_error(tree) and not any(isinstance(said, dict) for said in tree.values())


def _is_bad(tree: Mapping[str, object]) -> bool:
    if any(is_stated(tree.get(key)) for key in ("error", "errors", "Error")):
        return True
    if tree.get("success") is False or tree.get("ok") is False:
        return True
    if any(_is_bad_word(tree.get(key)) for key in ("object", "type", "event", "status", "state")):
        return True
    if any(is_bad_code(tree.get(key)) for key in _NUMBER_KEYS):
        return True
    said = [value for key, value in tree.items() if key in _WORDS and value]
    return any(not isinstance(value, str) or not _is_well(value) for value in said)


def _is_well(words: str) -> bool:
    return len(words) < _LONGEST_WELL and _WELL.fullmatch(words) is not None


def _inner_error(tree: Mapping[str, object]) -> Mapping[str, object] | None:
    """The object inside that says that something went wrong."""
    inner = (tree.get(key) for key in _INNER)
    return next((found for found in inner if isinstance(found, dict) and _is_bad(found)), None)


def _is_bad_word(word: object) -> bool:
    return isinstance(word, str) and word.rpartition(".")[2].lower() in _BAD


def is_bad_code(code: object) -> bool:
    """Whether a number says that something went wrong; names alone say nothing."""
    if isinstance(code, str) and code.lstrip("-").isdecimal():
        code = int(code)
    return isinstance(code, int) and not isinstance(code, bool) and code != 0 and not 200 <= code < 300


def _hint(response: Response) -> str:
    """What the headers add to the body's message."""
    if 300 <= response.status < 400:
        return f" (redirected to {response.headers.get('location', 'nowhere')}: correct model.base_url)"
    wait = response.headers.get("retry-after")
    return f" (Retry-After: {wait})" if wait else ""


def _throttled(code: str | None) -> ErrorClass | None:
    return "throttled" if code is not None and _THROTTLED.search(code) else None


def _parsed(body: bytes) -> object:
    """JSON, or the first event of an error sent as a stream, or the text itself."""
    text = body.strip()
    if text.startswith((b"data:", b"event:")):
        text = next((line[5:] for line in text.splitlines() if line.startswith(b"data:")), text)
    try:
        return loads(text)
    except NotJson:
        return text.decode("utf-8", "replace")


def _read(payload: object) -> tuple[str | None, str]:
    """(code, message) of any shape; an unknown one is shown as it is."""
    outer = _first(payload)
    if not isinstance(outer, dict):
        return None, outer if isinstance(outer, str) else dumps(outer)
    inner = _first(outer.get("error") or outer.get("Error") or outer.get("errors"))
    if not inner and not _message(outer):
        within = _inner_error(outer)
        inner = within and (within.get("error") or within)
    if isinstance(inner, dict):
        return _code(inner) or _code(outer), _message(inner) or dumps(inner)
    message = inner if isinstance(inner, str) else _message(outer)
    return _code(outer), message or dumps(outer)


def _first(payload: object) -> object:
    """Some providers wrap their one error in a list."""
    return payload[0] if isinstance(payload, list) and payload else payload


def _message(payload: Mapping[str, object]) -> str:
    said = next((payload[key] for key in _MESSAGE_KEYS if payload.get(key)), "")
    return said if isinstance(said, str) else dumps(said)


def _code(payload: Mapping[str, object]) -> str | None:
    """A name (`rate_limit_exceeded`) says more than a number; `error` as a type is no name."""
    stated = [payload[key] for key in _CODE_KEYS if payload.get(key)]
    names = [value for value in stated if isinstance(value, str) and value != "error"]
    numbers = [value for value in stated if isinstance(value, int) and not isinstance(value, bool)]
    return str((names or numbers)[0]).split("#")[-1] if names or numbers else None
