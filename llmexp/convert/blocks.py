"""Content blocks of Anthropic's Messages and of Bedrock's Converse as OpenAI's messages: what AWS's logs hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from llmexp.convert.exchange import (
    Tree,
    Unusable,
    assistant,
    call,
    content_of,
    image_part,
    list_of,
    text_of,
    text_part,
    tool,
    tree_of,
)

_FORMATS = {"jpg": "jpeg"}


def messages_of(body: Mapping[str, object]) -> list[Tree]:
    """`system` and `messages` of a request in either form."""
    made: list[Tree] = []
    system = "\n\n".join(_texts(body.get("system")))
    if system:
        made.append({"role": "system", "content": system})
    for entry in list_of(body.get("messages")):
        message = tree_of(entry)
        made += list(_messages(str(message.get("role") or "user"), message.get("content")))
    if not any(message["role"] != "system" for message in made):
        raise Unusable("no messages in the request")
    return made


def tools_of(body: Mapping[str, object]) -> list[Tree]:
    """`tools` of Anthropic, `toolConfig.tools` of Converse."""
    made = []
    for entry in (*list_of(body.get("tools")), *list_of(tree_of(body.get("toolConfig")).get("tools"))):
        each = tree_of(entry)
        spec = tree_of(each.get("toolSpec"))
        if spec.get("name"):
            made.append(tool(spec["name"], spec.get("description"), tree_of(spec.get("inputSchema")).get("json")))
        elif each.get("name"):
            made.append(tool(each["name"], each.get("description"), each.get("input_schema")))
    return made


def answer_of(content: object) -> Tree | None:
    """An answer's blocks as the assistant's message."""
    made = list(_messages("assistant", content))
    return made[0] if made else None


def _texts(system: object) -> Iterator[str]:
    if isinstance(system, str):
        yield system
        return
    for block in list_of(system):
        found = tree_of(block).get("text") if isinstance(block, Mapping) else block
        if isinstance(found, str) and found:
            yield found


def _messages(role: str, content: object) -> Iterator[Tree]:
    """A message of blocks as one message, or several: each tool's result is one of its own."""
    if isinstance(content, str):
        yield {"role": role, "content": content}
        return
    blocks = [tree_of(block) for block in list_of(content)]
    results = [made for block in blocks if (made := _result(block))]
    calls = [made for block in blocks if (made := _call(block))]
    parts = [part for block in blocks for part in _parts(block)]
    yield from results
    if role == "assistant":
        text = content_of(parts)
        made = assistant(text if isinstance(text, str) else "", calls)
        if made is not None:
            yield made
    elif parts:
        yield {"role": "user", "content": content_of(parts)}


def _result(block: Mapping[str, object]) -> Tree | None:
    converse = tree_of(block.get("toolResult"))
    if converse:
        return _tool_message(converse.get("toolUseId"), converse.get("content"))
    if block.get("type") == "tool_result":
        return _tool_message(block.get("tool_use_id"), block.get("content"))
    return None


def _tool_message(call_id: object, content: object) -> Tree:
    if isinstance(content, str):
        return {"role": "tool", "tool_call_id": str(call_id), "content": content}
    pieces: list[Tree] = []
    for block in list_of(content):
        tree = tree_of(block)
        pieces += [text_part(text_of(tree["json"]))] if "json" in tree else _parts(tree)
    return {"role": "tool", "tool_call_id": str(call_id), "content": content_of(pieces)}


def _call(block: Mapping[str, object]) -> Tree | None:
    converse = tree_of(block.get("toolUse"))
    if converse.get("name"):
        return call(converse["name"], converse.get("input"), converse.get("toolUseId"))
    if block.get("type") == "tool_use" and block.get("name"):
        return call(block["name"], block.get("input"), block.get("id"))
    return None


def _parts(block: Mapping[str, object]) -> Iterable[Tree]:
    """Text and images; thoughts and marks of caches are left out, for no request sends them."""
    if isinstance(block.get("text"), str) and block.get("type", "text") == "text":
        return [text_part(str(block["text"]))] if block["text"] else []
    image = tree_of(block.get("image"))
    if image:
        kind = str(image.get("format") or "png")
        source = tree_of(image.get("source"))
        return [image_part(_data(f"image/{_FORMATS.get(kind, kind)}", source.get("bytes")))]
    if block.get("type") == "image":
        source = tree_of(block.get("source"))
        if source.get("type") == "url":
            return [image_part(str(source.get("url")))]
        return [image_part(_data(str(source.get("media_type") or "image/png"), source.get("data")))]
    return []


def _data(media_type: str, data: object) -> str:
    """A data URL; an image that the log keeps elsewhere becomes an empty one, whose place a made-up picture takes."""
    return f"data:{media_type};base64,{data if isinstance(data, str) else ''}"
