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
from llmexp.clients.payloads import Payload, Text, is_end_mark, payloads
from llmexp.clients.repeats import tidy
from llmexp.clients.sse import names_end, names_error
from llmexp.json_types import texts
from llmexp.secrets import trimmed

BEYOND_BELIEF = 2**60
"""Larger ones are read as this one: no stream bears it out, and sums of a few stay within 64 bits."""
_MOST_TOKENS = 2**31
_LONGEST_S = 1e6
_LONGEST_BEAT = 200
_WORD = re.compile(r"[^\W\d_]+")
_BEAT_WORDS = """
    ping pong heartbeat heart beat keepalive keep alive hb noop tick ok waiting queued processing loading still your
    request openrouter connected open opened start started begin init stream null none undefined nan
"""
_TIME_WORDS = """
    mon tue wed thu fri sat sun monday tuesday wednesday thursday friday saturday sunday
    jan feb mar apr may jun jul aug sep sept oct nov dec
    january february march april june july august september october november december
    t z utc gmt am pm cet cest bst est edt cst cdt mst mdt pst pdt ist jst time date timestamp ts 年 月 日
"""
_PASSED_WORDS = frozenset((_BEAT_WORDS + _TIME_WORDS).split())
_BEATING_KEYS = ("type", "event", "object", "status", "message", "msg")
_BEATS = frozenset({"ping", "pong", "heartbeat", "keepalive", "keepAlive", "keep_alive"})
_DESCRIBING = """
    id object created model type event system_fingerprint service_tier provider usage request_id requestId
    x_request_id trace_id timestamp ts time status seed obfuscation sequence_number citations search_results nonce
    code message msg success ok error_code errcode errno status_code
    state progress position queue_position queue_size eta
    prompt_filter_results content_filter_results content_filter_offsets prompt_logprobs
    created_at conversation_id session_id thread_id message_id run_id sources references annotations stage phase step
"""
_ABOUT = frozenset(_DESCRIBING.split())
"""Keys of objects that only describe an answer, or say that all is well."""
_DESCRIBING_EVENTS = "metadata metrics stats usage progress status citations sources search_results"
_ABOUT_EVENTS = frozenset(_DESCRIBING_EVENTS.split())
"""Names of events that do the same, whatever they hold."""


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
    calls: dict[tuple[int, int], tuple[object, str]] = field(default_factory=dict)
    """Where a call of a tool stands → its id and its name, for servers that repeat the name in every event."""
    arguments: dict[tuple[int, int], str] = field(default_factory=dict)
    """The same place → the arguments so far."""
    ends_with_body: bool = False
    """The format has no end mark of its own (LMI's lines of outputs)."""
    stated: dict[str, object] = field(default_factory=dict)
    """The latest of each figure of a usage that comes in parts."""

    def say(self, at_ns: int, kind: TokenKind, text: str, stream: int = 0, call: str = "") -> None:
        """Generated text has arrived."""
        if text:
            self.events.append(TokenEvent(at_ns, kind, text, call))
            self.streams.append(stream)

    def call(self, at_ns: int, name: str, arguments: str, stream: int = 0, *, goes_on: bool = False) -> None:
        """A call of a tool, from its name on; a name is never compared with the texts around it.

        `goes_on`: the name is the rest of the one before, which came in pieces.
        """
        self.say(at_ns, "tool", name + arguments, ~len(self.events) if name else stream, "" if goes_on else name)

    def end(self, reason: object, words: object = None) -> None:
        """The wire's finish reason; of several the one that is no good end counts."""
        inner = reason.get("type") if isinstance(reason, dict) else reason
        if isinstance(reason, dict):
            words = words or reason.get("message")
        text = mend(as_text(inner)) if inner else ""
        if endings.is_open(text):
            return
        known = self.finish_reason
        if known is None or endings.failure(known, "", has_text=False) is None:
            self.finish_reason, self.finish_words = text, mend(as_text(words))
        self.finished = True

    def count(self, usage: Usage) -> None:
        """A further statement of usage: a later count replaces an earlier one, but no zero or nonsense a figure."""
        pairs = zip(_counts(self.usage), _counts(usage), strict=True)
        self.usage = Usage(*[old if old and not _is_figure(new) else old if new is None else new for old, new in pairs])

    def took(self, seconds: object, per_second: float = 1) -> None:
        """The server's own figure for the whole request."""
        figure = number(seconds)
        if figure is not None and 0 <= figure / per_second < _LONGEST_S:
            self.server_latency_s = figure / per_second

    def answer(self) -> Answer:
        """The finished type."""
        tidied, remarks = tidy(self.events, self.streams, self.usage.output_tokens)
        has_text = any(event.kind != "reasoning" and event.text.strip() for event in tidied)
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
            self.failure or endings.failure(self.finish_reason, self.finish_words, has_text=has_text),
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


def _is_figure(count: int | None) -> bool:
    """Whether a count says something that could be true."""
    return count is not None and 0 < count < _MOST_TOKENS


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
        if isinstance(tree, dict) and not names_error(event) and is_chunk(tree):
            take(draft, at_ns, event, tree)
        elif isinstance(tree, str) and is_end_mark(tree):
            draft.finished = True
        elif isinstance(tree, list) and tree:
            _read(draft, [Payload(at_ns, event, inner) for inner in tree], wire)
        else:
            _other(draft, event, tree)
        if draft.failure is not None:
            return


def _other(draft: Draft, event: str, tree: object) -> None:
    """What is no chunk: marks of the end and noise are passed over, the rest is an error."""
    is_error = names_error(event) or _is_error(tree)
    if not is_error and isinstance(tree, dict) and _says_again(draft, tree):
        draft.repeated = True
    elif not is_error and names_end(event):
        draft.finished = True
    elif not is_error and (_is_noise(tree) or _is_noisy(event)):
        draft.noise += 1
    elif isinstance(tree, Text) and not is_error:
        raise NotJson(f"an event that is not JSON: {trimmed(tree.text, 400)}")
    else:
        words = tree.text if isinstance(tree, Text) else tree
        draft.failure = failures.of_event(words if words or event == "error" else f"an event named '{event}'")


def _is_error(tree: object) -> bool:
    """Whether it says itself that it is one."""
    return tree.is_error if isinstance(tree, Text) else isinstance(tree, dict) and failures.is_error(tree)


def _is_noisy(event: str) -> bool:
    """Whether an event's name says that it is no part of the answer."""
    return bool(event) and (event.lower() in _ABOUT_EVENTS or is_noise(event))


def _is_noise(tree: object) -> bool:
    if isinstance(tree, Text):
        return is_noise(tree.text)
    if isinstance(tree, str):
        return is_noise(tree)
    if not isinstance(tree, dict):
        return True  # null, numbers, truth values, empty lists
    words = (tree.get(key) for key in _BEATING_KEYS)
    beats = any(isinstance(word, str) and word and is_noise(word) for word in words)
    return beats or not tree.keys().isdisjoint(_BEATS) or {key for key in tree if not _is_empty(tree[key])} <= _ABOUT


def _is_empty(value: object) -> bool:
    return value is None or value is False or value in ("", [])


def _says_again(draft: Draft, tree: Mapping[str, object]) -> bool:
    """Whether an object of no known kind holds just the text that was streamed, as some closing events do."""
    said = "".join([event.text for event in draft.events if event.kind == "answer"]).strip()
    return (
        bool(said) and not failures.is_error(tree) and any(text.strip() == said for text in texts(tree, _DEEPEST_TEXT))
    )


def is_noise(text: str) -> bool:
    """Whether a text is a heartbeat or a time: figures, marks, and words of these alone."""
    if len(text) >= _LONGEST_BEAT:
        return False
    words = _WORD.findall(text.lower().replace("no-op", "noop"))
    return all(word in _PASSED_WORDS for word in words)


# --- values ----------------------------------------------------------------------------------------------------------


def count(value: object) -> int | None:
    """A token count as some server wrote it; None for anything that is no whole number."""
    if isinstance(value, str):
        value = _as_figure(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return min(value, BEYOND_BELIEF)
    figure = number(value)
    if figure is None or figure < 0 or figure != figure // 1:
        return None
    return min(int(figure), BEYOND_BELIEF)


def total(value: object) -> int | None:
    """The same for a main count: what is there and is no count becomes one that nothing bears out, so that it shows."""
    counted = count(value)
    return counted if counted is not None or value is None or value == "" else BEYOND_BELIEF


def _as_figure(text: str) -> object:
    """The number that a text holds."""
    try:
        return float(text) if len(text) < 40 else None
    except ValueError:
        return None


def number(value: object) -> float | None:
    """A figure as some server wrote it; None for anything that is no finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        figure = float(value)
    except OverflowError:
        return None
    return figure if math.isfinite(figure) else None


def as_text(value: object) -> str:
    """Generated text as some server wrote it: a string, or JSON (tool arguments as an object)."""
    if isinstance(value, str):
        return value
    return "" if value is None else dumps(value)


_TEXT_KEYS = ("text", "thinking", "thought", "summary", "content", "reasoning", "reasoningText", "reasoning_content")
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
