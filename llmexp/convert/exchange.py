"""One call of a model as a log holds it, in OpenAI's shapes whatever the log's own are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

Tree = dict[str, object]


class Unusable(Exception):  # noqa: N818 -- about a row, no error of the program
    """A record that no request can be made of; the message says why. Counted and told, never dropped in silence."""


@dataclass(slots=True)
class Exchange:
    """What was asked, and what came back as far as the log knows."""

    messages: list[Tree]
    tools: list[Tree] = field(default_factory=list)
    answer: Tree | None = None
    """The assistant's message."""
    start_s: float | None = None
    """Seconds of the epoch; None where the log has no times."""
    end_s: float | None = None
    output_tokens: int | None = None
    session: str = ""
    """What the log calls the conversation; exchanges of different names are never put together."""
    whole: bool = False
    """A whole chat with its answers, not one call of it."""
    remark: str = ""
    """What was left out of it; counted and told."""


def seconds_of(value: object) -> float | None:
    """Seconds of the epoch: a number (of seconds, milliseconds, microseconds or nanoseconds), or a date and time."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    text = str(value)
    try:
        figure = float(text)
    except ValueError:
        try:
            return seconds_of(datetime.fromisoformat(text))
        except ValueError:
            return None
    for unit in (1e9, 1e6, 1e3):
        if figure > 1e8 * unit:
            return figure / unit
    return figure


def tokens_of(value: object) -> int | None:
    """A token count; None for what is none."""
    if isinstance(value, bool):
        return None
    try:
        count = int(float(str(value)))
    except (ValueError, OverflowError):
        return None
    return count if count > 0 else None


def tree_of(value: object) -> Mapping[str, object]:
    """A JSON object, or text that holds one; an empty one for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, Mapping) else {}


def list_of(value: object) -> Sequence[object]:
    """A JSON list, or text that holds one; an empty one for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return ()
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def text_of(value: object) -> str:
    """Text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def call(name: object, arguments: object, call_id: object) -> Tree:
    """A tool call."""
    written = "{}" if arguments is None else text_of(arguments)
    return {
        "id": str(call_id or name),
        "type": "function",
        "function": {"name": str(name), "arguments": written},
    }


def tool(name: object, description: object, parameters: object) -> Tree:
    """A tool's declaration."""
    function: Tree = {"name": str(name)}
    if description:
        function["description"] = str(description)
    if isinstance(parameters, Mapping):
        function["parameters"] = dict(parameters)
    return {"type": "function", "function": function}


def assistant(text: str, calls: list[Tree]) -> Tree | None:
    """An answer; None where there is nothing in it."""
    if not text and not calls:
        return None
    made: Tree = {"role": "assistant", "content": text or None}
    return made | ({"tool_calls": calls} if calls else {})


def text_part(text: str) -> Tree:
    """A part that is text."""
    return {"type": "text", "text": text}


def image_part(url: str) -> Tree:
    """A part that is an image."""
    return {"type": "image_url", "image_url": {"url": url}}


def content_of(parts: list[Tree]) -> str | list[Tree]:
    """Parts as a content: text where they are text alone."""
    if all(part["type"] == "text" for part in parts):
        return "".join(str(part["text"]) for part in parts)
    return parts
