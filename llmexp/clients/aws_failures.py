"""What AWS says when a request fails: error answers, and exceptions inside a stream after status 200."""

from __future__ import annotations

from collections.abc import Mapping

from llmexp.clients import failures
from llmexp.clients.base import BODY_LIMIT, ErrorClass, Failure, Response, classify_status, excerpt
from llmexp.clients.eventstream import EventMessage, Unframed
from llmexp.clients.http import Malformed
from llmexp.clients.json_text import NotJson, loads

_BY_CLASS: dict[ErrorClass, tuple[str, ...]] = {
    "throttled": (
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "ServiceQuotaExceededException",
    ),
    "auth": (
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    ),
    "not_found": ("ResourceNotFoundException", "ResourceNotFound"),
    # Models that time out or fail answer 408, 424 or 429: the endpoint's trouble, not the request's.
    "server": (
        "InternalDependencyException",
        "InternalFailure",
        "InternalServerException",
        "ModelError",
        "ModelErrorException",
        "ModelNotReadyException",
        "ModelTimeoutException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
    ),
}
_CLASS_OF = {name: error_class for error_class, names in _BY_CLASS.items() for name in names}


def http_failure(response: Response) -> Failure:
    """What an HTTP status other than 200 means; the code is AWS's name of the error where it gives one."""
    body = _json(response.content)
    name = _error_name(response.headers.get("x-amzn-errortype") or body.get("__type") or body.get("code"))
    message = body.get("message") or body.get("Message") or response.content[:BODY_LIMIT].decode(errors="replace")
    error_class = _CLASS_OF.get(name or "") or classify_status(response.status)
    original = body.get("OriginalStatusCode")
    if name == "ModelError" and isinstance(original, int) and 400 <= original < 500:
        error_class = classify_status(original)
    if error_class == "bad_request" and "not found" in str(message).lower() and "endpoint" in str(message).lower():
        error_class = "not_found"
    return Failure.of(error_class, name or response.status, str(message))


def stream_failure(message: EventMessage) -> Failure | None:
    """The failure that a frame after status 200 carries, if it is one."""
    kind = message.headers.get(":message-type", "event")
    named = message.headers.get(":event-type", "")
    if kind == "event" and named.lower().endswith(("exception", "error")):
        kind = "exception"
    if kind == "error":
        name, text = message.headers.get(":error-code"), message.headers.get(":error-message", "")
    elif kind == "exception":
        name, body = message.headers.get(":exception-type", named), _json(message.payload)
        text = str(body.get("message") or body.get("Message") or message.payload[:BODY_LIMIT].decode(errors="replace"))
        detail = body.get("ErrorCode") or body.get("originalStatusCode")
        text = f"{detail}: {text}" if detail else text
    else:
        return None
    proper = (name or "")[:1].upper() + (name or "")[1:]
    return Failure.of("throttled" if _CLASS_OF.get(proper) == "throttled" else "in_stream", name, text)


def unframed(error: Malformed) -> Failure:
    """Bytes that are no frame: what a gateway said there in its own words, else that they do not parse."""
    rest = error.rest.strip() if isinstance(error, Unframed) else b""
    said = _json(rest) if rest[:1] == b"{" else {}
    if said:
        return failures.of_event(said)
    text = excerpt(rest)
    return Failure.of("malformed", None, f"{error}: {text}" if text and text.isprintable() else str(error))


def _error_name(raw: object) -> str | None:
    """`ThrottlingException` of `com.amazon#ThrottlingException:http://…`."""
    return str(raw).partition(":")[0].rpartition("#")[2] or None if raw else None


def _json(raw: bytes) -> Mapping[str, object]:
    """The object in `raw`; empty when it holds anything else."""
    try:
        tree = loads(raw)
    except NotJson:
        return {}
    return tree if isinstance(tree, dict) else {}
