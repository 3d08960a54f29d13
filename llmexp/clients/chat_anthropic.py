"""Messages and tools as Anthropic's wire writes them: content blocks, tool results in the user's turn, system apart."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from llmexp.workload.request import Image, Message, Part, Request, Tool

Tree = dict[str, object]
SYSTEM = ("system", "developer")
_MARK: Tree = {"cache_control": {"type": "ephemeral"}}
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST_ID = 64


def parts(request: Request, cache_points: Sequence[str]) -> Tree:
    """`messages`, and `system` and `tools` where there are any, with marks at the cache points."""
    spoken = [message for message in request.messages if message.role not in SYSTEM]
    system = [message.text for message in request.messages if message.role in SYSTEM]
    plain = request.is_plain and "history" not in cache_points
    sent: Tree = {"messages": [_as_text(message) for message in spoken] if plain else _turns(spoken)}
    if system:
        sent["system"] = "\n\n".join(system)
    if request.tools:
        sent["tools"] = [_tool(tool) for tool in request.tools]
    return _marked(sent, cache_points)


def tool_id(name: str) -> str:
    """A call's id in the letters and the length that Anthropic and Bedrock allow."""
    return _NOT_IN_IDS.sub("_", name)[-_LONGEST_ID:]


def arguments(text: str) -> Tree | None:
    """A call's arguments as the object that Anthropic, Bedrock and Gemini want; None where they are none."""
    try:
        tree = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return None
    return tree if isinstance(tree, dict) else None


def schema_of(tool: Tool) -> Tree:
    """The arguments' schema; an object without properties where none was declared."""
    return dict(tool.parameters or {"type": "object", "properties": {}})


def sides(spoken: Iterable[Message]) -> Iterator[tuple[str, list[Message]]]:
    """Neighbours of one side together: what a tool answers is said by the user's side."""
    for side, group in groupby(spoken, key=lambda one: "assistant" if one.role == "assistant" else "user"):
        yield side, list(group)


def _as_text(message: Message) -> Tree:
    return {"role": message.role, "content": message.text}


def _turns(spoken: Sequence[Message]) -> list[Tree]:
    return [
        {"role": side, "content": [block for message in group for block in _blocks(message)]}
        for side, group in sides(spoken)
    ]


def _blocks(message: Message) -> Iterator[Tree]:
    shaped = [_part(part) for part in message.parts]
    if message.role == "tool":
        result: Tree = {"type": "tool_result", "tool_use_id": tool_id(message.tool_call_id or "")}
        if shaped:
            result["content"] = message.text if isinstance(message.content, str) else shaped
        yield result
        return
    yield from shaped
    for call in message.tool_calls:
        yield {"type": "tool_use", "id": tool_id(call.id), "name": call.name, "input": arguments(call.arguments) or {}}


def _part(part: Part) -> Tree:
    if not isinstance(part, Image):
        return {"type": "text", "text": part.text}
    if part.url is not None:
        return {"type": "image", "source": {"type": "url", "url": part.url}}
    return {"type": "image", "source": {"type": "base64", "media_type": part.media_type, "data": part.data}}


def _tool(tool: Tool) -> Tree:
    described: Tree = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "input_schema": schema_of(tool)}


def _marked(sent: Tree, points: Sequence[str]) -> Tree:
    """Marks at the end of what shall be cached: the system's text, the tools, all messages so far."""
    system, tools, turns = sent.get("system"), sent.get("tools"), sent["messages"]
    if "system" in points and system:
        sent["system"] = [{"type": "text", "text": system} | _MARK]
    if "tools" in points and isinstance(tools, list):
        tools[-1] = tools[-1] | _MARK
    if "history" in points and isinstance(turns, list) and turns:
        last = turns[-1]["content"]
        last[-1] = last[-1] | _MARK
    return sent
