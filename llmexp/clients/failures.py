"""What providers say when they refuse: error bodies and error events in all their shapes, as `Failure`."""

from __future__ import annotations

from typing import Any

import orjson

from llmexp.clients.base import ErrorClass, Failure, Response, classify_status

_THROTTLED = ("throttlingexception", "throttling", "toomanyrequestsexception")
_MESSAGE_KEYS = ("message", "Message", "msg", "detail", "errorMessage", "originalMessage", "error_description")
_CODE_KEYS = ("code", "status", "type", "error_type", "__type", "ErrorCode", "errorType")
_BODY_LIMIT = 20_000


def of_response(response: Response) -> Failure | None:
    """The failure of a response whose status is not 2xx; None when it is."""
    if 200 <= response.status < 300:
        return None
    body = response.content[:_BODY_LIMIT]
    code, message = _read(_parsed(body))
    code = response.headers.get("x-amzn-errortype", "").split(":")[0] or code
    message = message or body.decode("utf-8", "replace") or f"HTTP {response.status} without a body"
    error_class = _throttled(code) or classify_status(response.status)
    return Failure.of(error_class, code or response.status, message + _hint(response))


def of_event(payload: Any) -> Failure:
    """The failure that an error event after a 200 stands for; `payload` is its JSON, or its text."""
    code, message = _read(payload)
    return Failure.of(_throttled(code) or "in_stream", code, message or "an error event without a message")


def _hint(response: Response) -> str:
    """What the headers add to the body's message."""
    if 300 <= response.status < 400:
        return f" (redirected to {response.headers.get('location', 'nowhere')}: correct model.base_url)"
    wait = response.headers.get("retry-after")
    return f" (Retry-After: {wait})" if wait else ""


def _throttled(code: str | None) -> ErrorClass | None:
    return "throttled" if code is not None and code.lower() in _THROTTLED else None


def _parsed(body: bytes) -> Any:
    """JSON, or the first event of an error sent as a stream, or the text itself."""
    text = body.strip()
    if text.startswith((b"data:", b"event:")):
        text = next((line[5:] for line in text.splitlines() if line.startswith(b"data:")), text)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text.decode("utf-8", "replace")


def _read(payload: Any) -> tuple[str | None, str]:
    """(code, message) of any shape; an unknown one is shown as it is."""
    outer = _first(payload)
    if not isinstance(outer, dict):
        return None, outer if isinstance(outer, str) else _shown(outer)
    inner = _first(outer.get("error") or outer.get("Error"))
    if isinstance(inner, dict):
        return _code(inner) or _code(outer), _message(inner) or _shown(inner)
    message = inner if isinstance(inner, str) else _message(outer)
    return _code(outer), message or _shown(outer)


def _first(payload: Any) -> Any:
    """Some providers wrap their one error in a list."""
    return payload[0] if isinstance(payload, list) and payload else payload


def _message(payload: dict[str, Any]) -> str:
    found = next((payload[key] for key in _MESSAGE_KEYS if payload.get(key)), "")
    return found if isinstance(found, str) else _shown(found)


def _code(payload: dict[str, Any]) -> str | None:
    """A name (`rate_limit_exceeded`) says more than a number; `error` as a type is no name."""
    found = [payload[key] for key in _CODE_KEYS if payload.get(key)]
    names = [value for value in found if isinstance(value, str) and value != "error"]
    numbers = [value for value in found if isinstance(value, int) and not isinstance(value, bool)]
    return str((names or numbers)[0]).split("#")[-1] if names or numbers else None


def _shown(payload: Any) -> str:
    try:
        return orjson.dumps(payload).decode()
    except (TypeError, ValueError):
        return str(payload)
