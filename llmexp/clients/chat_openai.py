"""Messages and tools as OpenAI's wire writes them: what vLLM, SageMaker's chat containers and LiteLLM take too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmexp.workload.request import Image, Message, Part, Request, Tool

Tree = dict[str, object]
_SYSTEM = ("system", "developer")
_MARK: Tree = {"cache_control": {"type": "ephemeral"}}


def messages(request: Request) -> list[Tree]:
    """The `messages` of a chat."""
    return [message(one) for one in request.messages]


def message(one: Message) -> Tree:
    """One message; content stays text where it is text."""
    sent: Tree = {"role": one.role, "content": content(one)}
    if one.name is not None and one.role != "tool":
        sent["name"] = one.name
    if one.tool_calls:
        sent["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in one.tool_calls
        ]
    if one.tool_call_id is not None:
        sent["tool_call_id"] = one.tool_call_id
    return sent


def content(one: Message) -> str | list[Tree] | None:
    """A message's content; null beside tool calls without a word."""
    if isinstance(one.content, tuple):
        return [_part(part) for part in one.content]
    return one.content or (None if one.tool_calls else "")


def tools(declared: Iterable[Tool]) -> list[Tree]:
    """The `tools` of a chat."""
    return [{"type": "function", "function": _function(tool)} for tool in declared]


def text_alone(request: Request) -> str:
    """The prompt of a wire without messages."""
    return "\n\n".join(one.text for one in request.messages)


def address_of(image: Image) -> str:
    """An image's address, or its bytes as one."""
    return image.url if image.url is not None else f"data:{image.media_type};base64,{image.data}"


def _part(part: Part) -> Tree:
    if not isinstance(part, Image):
        return {"type": "text", "text": part.text}
    url: Tree = {"url": address_of(part)}
    if part.detail is not None:
        url["detail"] = part.detail
    return {"type": "image_url", "image_url": url}


def _function(tool: Tool) -> Tree:
    parts: Tree = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    parts["strict"] = tool.strict
    return {name: value for name, value in parts.items() if value is not None}


# --- cache points: LiteLLM takes Anthropic's marks in OpenAI's messages, and translates them for Bedrock --------------


def marked(request: Request, cache_points: Sequence[str]) -> list[Tree]:
    """The messages with marks where a prompt cache shall be written."""
    sent = messages(request)
    last_system = max((at for at, one in enumerate(request.messages) if one.role in _SYSTEM), default=None)
    wanted = {"system": last_system, "history": len(sent) - 1}
    for point in cache_points:
        at = wanted.get(point)
        if at is not None:
            sent[at]["content"] = _marked_content(sent[at]["content"])
    return sent


def marked_tools(declared: Sequence[Tool], cache_points: Sequence[str]) -> list[Tree]:
    """The tools, the last of them marked where tools shall be cached."""
    sent = tools(declared)
    if sent and "tools" in cache_points:
        sent[-1] |= _MARK
    return sent


def _marked_content(content_sent: object) -> object:
    if isinstance(content_sent, str):
        return [{"type": "text", "text": content_sent} | _MARK]
    if isinstance(content_sent, list) and content_sent:
        return [*content_sent[:-1], content_sent[-1] | _MARK]
    return content_sent
