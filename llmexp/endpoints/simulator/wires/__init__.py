"""The wires that the simulator speaks. A module each: how a request is read, how an answer is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from llmexp.endpoints.simulator.options import Shape
from llmexp.workload import words

Kind = Literal["reasoning", "answer", "tool"]
DEFAULT_LIMIT = 128
"""Tokens of an answer to a request that sets no limit."""


class BadRequest(Exception):  # noqa: N818
    """A request that the real API would answer with 400; the message says why."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Tokens of one answer."""

    input_tokens: int
    answer_tokens: int
    reasoning_tokens: int
    limit: int
    cached_tokens: int = 0

    @property
    def output_tokens(self) -> int:
        """What would be billed."""
        return self.answer_tokens + self.reasoning_tokens

    @property
    def at_limit(self) -> bool:
        """Whether the token limit ended the answer."""
        return self.output_tokens >= self.limit


class Wire(Protocol):
    """Writes one answer. Each method returns bytes of the response's body, before HTTP frames them."""

    content_type: str

    def opening(self) -> bytes:
        """What comes before the first token."""
        ...

    def begin(self, kind: Kind) -> bytes:
        """What comes before the first chunk of a kind."""
        ...

    def chunk(self, text: bytes) -> bytes:
        """An event with generated text of the kind that began, escaped as JSON asks."""
        ...

    def closing(self, counts: Counts) -> bytes:
        """What comes after the last token."""
        ...

    def late(self, counts: Counts) -> bytes:
        """What of it comes late (`Shape.usage`); mostly nothing."""
        ...

    def error(self) -> bytes:
        """An error event in the stream."""
        ...

    def whole(self, text: str, reasoning: str, counts: Counts) -> bytes:
        """The answer as one body, for requests that asked for no stream."""
        ...


Build = Callable[["Call", Shape, int], Wire]


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks for."""

    wire: str
    model: str
    input_tokens: int
    limit: int
    build: Build
    stream: bool = True
    usage_asked: bool = True
    cached_tokens: int = 0
    """Input tokens that the prompt cache knew."""
    question: str = ""
    """The text of the last message."""
    temperature: object = None
    tools: frozenset[str] = frozenset()
    """Names of the tools that the model may call."""
    tool: str | None = None
    """The tool that the answer calls: its text is the call's arguments."""


def limit_of(values: Mapping[str, object], *names: str) -> int:
    """The first token limit that is set among `names`."""
    for name in names:
        value = values.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or value < 1:
            raise BadRequest(f"{name}: must be a whole number of at least 1, got {value!r}")
        return value
    return DEFAULT_LIMIT


def parsed(arguments: str) -> object:
    """A call's arguments as an object; an empty one where a token limit cut them."""
    try:
        found: object = json.loads(arguments)
    except ValueError:
        return {}
    return found


def texts_of(messages: object, key: str = "content") -> list[str]:
    """The texts of chat messages whose content is a string or a list of parts with a `text`."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise BadRequest("messages: at least one message is required")
    return [text_of(message.get(key)) if isinstance(message, Mapping) else "" for message in messages]


def text_of(content: object) -> str:
    """The text of a content: a string, or parts with a `text`."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(str(part.get("text") or "") if isinstance(part, Mapping) else str(part) for part in content)
    return ""


def chat_tokens(messages: object, system: object = None, key: str = "content") -> int:
    """Input tokens of a chat, template included."""
    texts = texts_of(messages, key)
    return words.templated([*texts, text_of(system)] if system else texts)
