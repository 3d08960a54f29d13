"""What the decoders of JSON wires share: what each payload is, and the answer under construction.

A payload is a chunk of the wire, a mark of the end, noise, or an error. What is no chunk and not known as noise is an
error, wherever it stands: servers report failures in fields of their own, outside of any framing, and in objects
without the word error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from llmexp.clients import endings, failures
from llmexp.clients.base import Answer, Failure, Response, TokenEvent, TokenKind, Usage
from llmexp.clients.json_text import NotJson, TooLarge, dumps, mend
from llmexp.clients.payloads import DONE, Payload, Text, payloads
from llmexp.clients.repeats import tidy
from llmexp.secrets import trimmed

_LARGEST_COUNT = 2**60
"""Larger ones are read as this one: no stream bears it out, and sums of a few stay within 64 bits."""
_LONGEST_S = 1e6
_BEAT = re.compile(
    r"\W*(?:ping|pong|heart[ _-]?beat|keep[ _-]?alive|hb|beat|no-?op|ok|alive|waiting|queued|[\w :]*processing|"
    r"connected|open|null|none|undefined)?\W*",
    re.IGNORECASE,
)
_TIME = re.compile(
    r"(?:(?:mon|tue|wed|thu|fri|sat|sun|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[\s,.]*"
    r"|[\d:.,/+\-\s]|T(?=\d)|Z\b|UTC|GMT|AM|PM)+",
    re.IGNORECASE,
)
_BEATING_KEYS = ("type", "event", "object", "status", "message", "msg")
_BEATS = frozenset({"ping", "pong", "heartbeat", "keepalive", "keep_alive"})
_DESCRIBING = """
    id object created model type event system_fingerprint service_tier provider usage choices request_id requestId
    x_request_id trace_id timestamp ts time status seed obfuscation sequence_number citations search_results nonce
    code message msg success
"""
_ABOUT = frozenset(_DESCRIBING.split())
"""Keys of objects that only describe an answer, or say that all is well."""


@dataclass(slots=True)
class Draft:
    """An `Answer` under construction."""

    events: list[TokenEvent] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)
    """Which answer or content block each event is of."""
    usage: Usage = Usage()  # noqa: RUF009 -- frozen
    finish_reason: str | None = None
    finish_words: str = ""
    """What the server said beside it."""
    failure: Failure | None = None
    server_latency_s: float | None = None
    finished: bool = False
    reasoning_summarised: bool = False
    noise: int = 0
    in_pieces: bool = False
    """Text came in pieces, so that a whole answer behind them is the same text again."""
    repeated: bool = False
    """A closing frame held the whole answer again."""

    def say(self, at_ns: int, kind: TokenKind, text: str, stream: int = 0) -> None:
        """Generated text has arrived."""
        if text:
            self.events.append(TokenEvent(at_ns, kind, text))
            self.streams.append(stream)

    def end(self, reason: object, words: object = None) -> None:
        """The wire's finish reason; of several the one that is no good end counts."""
        inner = reason.get("type") if isinstance(reason, dict) else reason
        if isinstance(reason, dict):
            words = words or reason.get("message")
        if not inner or inner == "null":
            return
        text = mend(as_text(inner))
        known = self.finish_reason
        if known is None or endings.failure(known, "", has_text=False) is None:
            self.finish_reason, self.finish_words = text, mend(as_text(words))
        self.finished = True

    def count(self, usage: Usage) -> None:
        """A further statement of usage: a later count replaces an earlier one, but no zero a figure."""
        pairs = zip(_counts(self.usage), _counts(usage), strict=True)
        self.usage = Usage(*[old if new is None or (new == 0 and old) else new for old, new in pairs])

    def took(self, seconds: object, per_second: float = 1) -> None:
        """The server's own figure for the whole request."""
        figure = number(seconds)
        if figure is not None and 0 <= figure / per_second < _LONGEST_S:
            self.server_latency_s = figure / per_second

    def answer(self) -> Answer:
        """The finished type."""
        tidied, remarks = tidy(self.events, self.streams)
        if self.repeated:
            remarks.append("repeated_text")
        if self.noise:
            remarks.append("noise")
        if tidied and self.finished and self.finish_reason is None:
            remarks.append("no_finish_reason")
        return Answer(
            tidied,
            self.usage,
            self.finish_reason,
            self.failure or endings.failure(self.finish_reason, self.finish_words, has_text=bool(tidied)),
            self.server_latency_s,
            self.finished,
            self.reasoning_summarised,
            tuple(dict.fromkeys(remarks)),
            self.noise,
        )


def _counts(usage: Usage) -> tuple[int | None, ...]:
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
    )


class Wire(NamedTuple):
    """How one API's payloads are read."""

    is_chunk: Callable[[Mapping[str, object]], bool]
    """Whether an object belongs to the wire, however little it says."""
    take: Callable[[Draft, int, str, Mapping[str, object]], None]
    """One chunk into the draft: (draft, arrival, event name, object)."""


def decode(response: Response, wire: Wire) -> Answer:
    """What `response` means in that wire. Never raises for anything a server can send."""
    failure = failures.of_response(response)
    if failure is not None:
        return Answer(failure=failure)
    return decode_payloads(payloads(response), wire)


def decode_payloads(found: Iterable[Payload], wire: Wire, draft: Draft | None = None) -> Answer:
    """The same for payloads that came in another envelope (AWS event streams carry some of these wires too)."""
    draft = draft or Draft()
    try:
        _read(draft, found, wire)
    except (NotJson, TooLarge) as error:
        draft.failure = draft.failure or Failure.of("malformed", None, str(error))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        draft.failure = draft.failure or Failure.of("malformed", None, f"an event of unexpected shape: {error}")
    return draft.answer()


def _read(draft: Draft, found: Iterable[Payload], wire: Wire) -> None:
    is_chunk, take = wire
    for at_ns, event, tree in found:
        if isinstance(tree, dict) and event != "error" and is_chunk(tree):
            take(draft, at_ns, event, tree)
        elif tree == DONE:
            draft.finished = True
        elif isinstance(tree, list) and tree:
            _read(draft, [Payload(at_ns, event, inner) for inner in tree], wire)
        else:
            _other(draft, event, tree)
        if draft.failure is not None:
            return


def _other(draft: Draft, event: str, tree: object) -> None:
    """What is no chunk: noise is counted, the rest is an error."""
    if event != "error" and _is_noise(tree):
        draft.noise += 1
    elif isinstance(tree, Text):
        text = tree.text or "an error event without a message"
        if event == "error" or tree.is_error:
            draft.failure = failures.of_event(text)
        else:
            raise NotJson(f"an event that is not JSON: {trimmed(text, 400)}")
    else:
        draft.failure = failures.of_event(tree)


def _is_noise(tree: object) -> bool:
    if isinstance(tree, Text):
        return not tree.is_error and is_noise(tree.text)
    if isinstance(tree, str):
        return is_noise(tree)
    if not isinstance(tree, dict):
        return True  # null, numbers, truth values, empty lists
    if failures.is_error(tree):
        return False
    words = (tree.get(key) for key in _BEATING_KEYS)
    beats = any(isinstance(word, str) and is_noise(word) for word in words)
    return beats or not tree.keys().isdisjoint(_BEATS) or tree.keys() <= _ABOUT


def is_noise(text: str) -> bool:
    """Whether a text is a heartbeat or a time."""
    return len(text) < 200 and (_BEAT.fullmatch(text) is not None or _TIME.fullmatch(text) is not None)


# --- values ----------------------------------------------------------------------------------------------------------


def count(value: object) -> int | None:
    """A token count as some server wrote it; None for anything that is no whole number."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 19:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return min(value, _LARGEST_COUNT) if value >= 0 else None
    figure = number(value)
    return min(int(figure), _LARGEST_COUNT) if figure is not None and figure == figure // 1 and figure >= 0 else None


def number(value: object) -> float | None:
    """A figure as some server wrote it; None for anything that is no finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) else None


def as_text(value: object) -> str:
    """Generated text as some server wrote it: a string, or JSON (tool arguments as an object)."""
    if isinstance(value, str):
        return value
    return "" if value is None else dumps(value)


_TEXT_KEYS = ("text", "thinking", "summary", "content", "reasoning", "reasoningText", "reasoning_content")
_DEEPEST_TEXT = 6


def text_inside(value: object, depth: int = 0) -> str:
    """The text of a string, a list of parts or a part, under any of the names that parts use."""
    if isinstance(value, str):
        return value
    if depth < _DEEPEST_TEXT and isinstance(value, list):
        return "".join([text_inside(part, depth + 1) for part in value])
    if depth < _DEEPEST_TEXT and isinstance(value, dict):
        return next((text for key in _TEXT_KEYS if (text := text_inside(value.get(key), depth + 1))), "")
    return ""
