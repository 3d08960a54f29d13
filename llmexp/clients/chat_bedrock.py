"""Messages and tools as Bedrock's Converse writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmexp.clients.chat_anthropic import SYSTEM, arguments, schema_of, sides, tool_id
from llmexp.workload.request import Image, Message, Part, Request, Tool

Tree = dict[str, object]
_POINT: Tree = {"cachePoint": {"type": "default"}}


def parts(request: Request, cache_points: Sequence[str]) -> Tree:
    """`messages`, and `system` and `toolConfig` where there are any.

    Neighbours of one side stand in one message, as Bedrock demands; a cache point follows what shall be cached.
    """
    system: list[Tree] = [{"text": message.text} for message in request.messages if message.role in SYSTEM]
    spoken = [message for message in request.messages if message.role not in SYSTEM]
    turns = [
        (side, [block for message in group for block in _blocks(message, request)]) for side, group in sides(spoken)
    ]
    tools: list[Tree] = [{"toolSpec": _tool(tool)} for tool in request.tools]
    if "history" in cache_points and turns:
        turns[-1][1].append(_POINT)
    for name, made in (("system", system), ("tools", tools)):
        if name in cache_points and made:
            made.append(_POINT)
    sent: Tree = {"messages": [{"role": side, "content": blocks} for side, blocks in turns]}
    if system:
        sent["system"] = system
    if tools:
        sent["toolConfig"] = {"tools": tools}
    return sent


def _blocks(message: Message, request: Request) -> Iterator[Tree]:
    if message.is_plain and (message.text or request.is_plain):
        yield {"text": message.text}
        return
    shaped = [_part(part) for part in message.parts]
    if message.role == "tool":
        # Bedrock wants at least one block in a result.
        yield {"toolResult": {"toolUseId": tool_id(message.tool_call_id or ""), "content": shaped or [{"text": ""}]}}
        return
    yield from shaped
    for call in message.tool_calls:
        made = {"toolUseId": tool_id(call.id), "name": call.name, "input": arguments(call.arguments) or {}}
        yield {"toolUse": made}


def _part(part: Part) -> Tree:
    if not isinstance(part, Image):
        return {"text": part.text}
    return {"image": {"format": part.media_type.removeprefix("image/"), "source": {"bytes": part.data}}}


def _tool(tool: Tool) -> Tree:
    described: Tree = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "inputSchema": {"json": schema_of(tool)}}
