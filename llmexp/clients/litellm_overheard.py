"""What a server says in a stream that LiteLLM reads: errors, and how the answer ended.

LiteLLM passes over events that it does not know, and calls every end that it does not know `stop`. So the tape is
looked through for what says so in any wire; the text is LiteLLM's to read.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from llmexp.clients import aws_failures, endings, failures
from llmexp.clients.base import Failure, Response
from llmexp.clients.decoding import Draft
from llmexp.clients.eventstream import messages
from llmexp.clients.http import Malformed
from llmexp.clients.json_text import NotJson, TooLarge, loads
from llmexp.clients.payloads import Payload, Text, payloads
from llmexp.clients.sse import names_error

_REASONS = frozenset({"finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason", "completionReason"})
_DEEPEST = 6


class Overheard(NamedTuple):
    """What the tape says."""

    failure: Failure | None
    finish_reason: str | None


def overheard(response: Response) -> Overheard:
    """Never raises; what does not parse says nothing here."""
    draft = Draft()
    try:
        for payload in _payloads(draft, response):
            draft.failure = draft.failure or _failure(payload)
            for reason in _reasons(payload.tree):
                draft.end(reason)
            if draft.failure is not None:
                break
    except (Malformed, NotJson, TooLarge):
        pass
    bad_end = endings.failure(draft.finish_reason, draft.finish_words, has_text=True)
    return Overheard(draft.failure or bad_end, draft.finish_reason)


def _payloads(draft: Draft, response: Response) -> Iterator[Payload]:
    if "eventstream" not in response.headers.get("content-type", ""):
        yield from payloads(response)
        return
    for message in messages(response.body):
        draft.failure = aws_failures.stream_failure(message)
        yield Payload(message.at_ns, "", _unpacked(loads(message.payload)))


def _unpacked(tree: object) -> object:
    """What `InvokeModelWithResponseStream` carries as `bytes`."""
    inner = tree.get("bytes") if isinstance(tree, dict) else None
    if not isinstance(inner, str):
        return tree
    try:
        return loads(base64.b64decode(inner))
    except (NotJson, binascii.Error, ValueError):
        return None


def _failure(payload: Payload) -> Failure | None:
    tree = payload.tree
    if isinstance(tree, Text):
        return failures.of_event(tree.text) if tree.is_error or names_error(payload.event) else None
    if isinstance(tree, dict) and (names_error(payload.event) or _is_error(tree)):
        return failures.of_event(tree)
    return None


def _is_error(tree: Mapping[str, object]) -> bool:
    """Whether an object of a wire that we do not know says plainly that it is an error; `message` may be the answer."""
    if failures.has_error(tree) or failures.is_stated(tree.get("errors")) or failures.is_bad_code(tree.get("code")):
        return True
    if failures.is_nothing_else(tree):
        return True
    return any(str(tree.get(key)).lower() == "error" for key in ("type", "object", "event", "status"))


def _reasons(tree: object, depth: int = 0) -> Iterator[object]:
    """Every finish reason of a tree."""
    if depth >= _DEEPEST:
        return
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key in _REASONS and isinstance(value, str):
                yield value
            else:
                yield from _reasons(value, depth + 1)
    elif isinstance(tree, list):
        for value in tree:
            yield from _reasons(value, depth + 1)
