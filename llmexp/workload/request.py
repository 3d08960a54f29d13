"""The request: what will be sent, before any API gives it a shape."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "developer", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Text:
    """A part of a message that is text."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """A part of a message that is an image: its bytes, or an address that the server reads it from."""

    media_type: str = ""
    """Such as `image/png`; empty for an address."""
    data: str = ""
    """The bytes in base64; empty for an address."""
    url: str | None = None
    detail: str | None = None
    """OpenAI's `low`, `high` or `auto`."""


Part = Text | Image


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that an assistant's message makes."""

    id: str
    name: str
    arguments: str
    """JSON, as the model wrote it."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: Mapping[str, object] | None = None
    """JSON schema of the arguments."""
    strict: bool | None = None

    @property
    def declaration(self) -> str:
        """Name, description and schema as one text, to be counted."""
        parts = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return json.dumps({name: value for name, value in parts.items() if value is not None}, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat."""

    role: Role
    content: str | tuple[Part, ...] = ""
    tool_calls: tuple[ToolCall, ...] = ()
    """What an assistant's message calls."""
    tool_call_id: str | None = None
    """The call whose result a tool's message is."""
    name: str | None = None
    """Who speaks, where several take one role."""

    @property
    def text(self) -> str:
        """The text of all parts."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, Text))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content as parts; empty text is none."""
        if isinstance(self.content, str):
            return (Text(self.content),) if self.content else ()
        return self.content

    @property
    def is_plain(self) -> bool:
        """Whether role and text are all there is."""
        return isinstance(self.content, str) and not self.tool_calls and self.tool_call_id is None and self.name is None


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a workload.

    Messages and lengths depend on seed, workload and index alone; only nonces differ between jobs.
    """

    index: int
    """0, 1, 2, … in the order of the schedule; warm-up requests count from 0 on their own."""
    messages: tuple[Message, ...]
    max_tokens: int
    """The token limit sent, and the length asked for in the prompt."""
    input_tokens: int
    """Tokens of the request's texts (nonce included), by the workload's tokenizer."""
    prompt_digest: str
    """Hex digest of what is asked, without the nonce, and of `max_tokens`."""
    force_output: bool = False
    """Ask the server to ignore its end-of-sequence token, where it knows how."""
    warmup: bool = False
    tools: tuple[Tool, ...] = ()
    expected: object = None
    """What a right answer is, as the workload's file says it: a text, a list of texts, an object; None: not said."""
    session: int | None = None
    """Which session a turn belongs to; turns of one are sent in order."""
    turn: int = 0
    turns: int = 1
    """How many turns the session has."""
    delay_s: float = 0.0
    """From the end of the answer before to when this turn is due."""

    @property
    def texts(self) -> Iterator[str]:
        """Every text that goes to the model: contents, tool calls, and the tools' declarations."""
        return texts_of(self.messages, self.tools)

    @property
    def image_data(self) -> Iterator[str]:
        """The data of every image, in base64."""
        return (part.data for message in self.messages for part in message.parts if isinstance(part, Image))

    @property
    def is_plain(self) -> bool:
        """Whether the messages are text alone, and there are no tools."""
        return not self.tools and all(message.is_plain for message in self.messages)


def texts_of(messages: tuple[Message, ...], tools: tuple[Tool, ...] = ()) -> Iterator[str]:
    """Every text of these, one by one."""
    for tool in tools:
        yield tool.declaration
    for message in messages:
        if message.text or message.is_plain:
            yield message.text
        for call in message.tool_calls:
            yield f"{call.name}{call.arguments}"
