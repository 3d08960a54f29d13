"""Messages and tools of files, as OpenAI's wire writes them, into `Message` and `Tool`.

An image stands as OpenAI's `image_url` part (`data:` URL, address, or the path of a file beside the workload's), or as
`{"type": "image", "path": …}`. What cannot be read raises `ValueError` with the reason.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from llmexp.workload.request import Image, Message, Part, Role, Text, Tool, ToolCall

ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
SHAREGPT_ROLES: Mapping[str, Role] = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
"""Who speaks in ShareGPT's chats, and in what is laid out like them."""
_MEDIA_TYPES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".gif": "gif", ".webp": "webp"}
_TEXT_KEYS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}


def messages_of(listed: object, folder: Path) -> tuple[Message, ...]:
    """The messages of a list; `folder` is where paths of images start."""
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise ValueError(f"messages must be a list, got {short(listed)}")  # noqa: TRY004 -- told like any bad row
    return tuple(message_of(entry, folder) for entry in listed)


def message_of(entry: object, folder: Path) -> Message:
    """One message."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"a message must be an object, got {short(entry)}")  # noqa: TRY004
    role = str(entry.get("role"))
    if role not in ROLES:
        raise ValueError(f"role '{role}' is not one of {', '.join(dict.fromkeys(ROLES))}")
    listed = entry.get("tool_calls") or ()
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise ValueError(f"tool_calls must be a list, got {short(listed)}")  # noqa: TRY004 -- told like any bad row
    calls = tuple(map(_call, listed))
    content = _content(entry.get("content"), folder)
    if role in ("system", "developer", "user") and not content:
        raise ValueError(f"a {role} message has no content")
    if role == "assistant" and not content and not calls:
        content = _optional_text(entry.get("refusal")) or ""
    result_of = _optional_text(entry.get("tool_call_id") or (entry.get("name") if role == "function" else None))
    if ROLES[role] == "tool" and result_of is None:
        raise ValueError("a tool message needs tool_call_id")
    name = _optional_text(entry.get("name")) if ROLES[role] != "tool" else None
    return Message(ROLES[role], content, calls, result_of, name)


def tools_of(listed: object) -> tuple[Tool, ...]:
    """The tools of a list."""
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise ValueError(f"tools must be a list, got {short(listed)}")  # noqa: TRY004
    return tuple(map(_tool, listed))


def image_at(path: Path) -> Image:
    """The image of a file."""
    kind = _MEDIA_TYPES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"an image must end in one of {', '.join(_MEDIA_TYPES)}, got '{path}'")
    try:
        return Image(f"image/{kind}", _base64_of(path))
    except OSError as error:
        raise ValueError(f"the image '{path}' cannot be read ({error.strerror})") from None


@lru_cache(maxsize=32)
def _base64_of(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _content(content: object, folder: Path) -> str | tuple[Part, ...]:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise ValueError(f"content must be text or a list of parts, got {short(content)}")  # noqa: TRY004
    parts = tuple(_part(part, folder) for part in content)
    if all(isinstance(part, Text) for part in parts) and len(parts) == 1:
        return "".join(part.text for part in parts if isinstance(part, Text))
    return parts


def _part(part: object, folder: Path) -> Part:
    if isinstance(part, str):
        return Text(part)
    if not isinstance(part, Mapping):
        raise ValueError(f"a part must be an object, got {short(part)}")  # noqa: TRY004
    kind = str(part.get("type", "text" if "text" in part else None))  # Bedrock's and Gemini's parts name no type
    key = _TEXT_KEYS.get(kind)
    if key is not None and isinstance(part.get(key), str):
        return Text(part[key])
    if kind in ("image_url", "input_image", "image"):
        return _image(part, folder)
    raise ValueError(f"a part of type '{kind}' is neither text nor an image")


def _image(part: Mapping[str, object], folder: Path) -> Image:
    asked = part.get("image_url") or part.get("path") or part.get("image")
    detail = _optional_text(part.get("detail"))
    if isinstance(asked, Mapping):
        detail = _optional_text(asked.get("detail")) or detail
        asked = asked.get("url")
    if not isinstance(asked, str) or not asked:
        raise ValueError("an image needs a url or a path")
    if asked.startswith("data:"):
        head, _, data = asked.removeprefix("data:").partition(",")
        media_type = head.removesuffix(";base64")
        if media_type == head or not data:
            raise ValueError("a data URL of an image must be data:image/…;base64,…")
        return Image(media_type, data, detail=detail)
    if "://" in asked:
        return Image(url=asked, detail=detail)
    found = image_at(folder / asked)
    return Image(found.media_type, found.data, detail=detail)


def _call(entry: object) -> ToolCall:
    function = entry.get("function") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(function, Mapping) or not function.get("name"):
        raise ValueError(f"a tool call needs function.name, got {short(entry)}")
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = "{}" if arguments is None else json.dumps(arguments, ensure_ascii=False)
    return ToolCall(str(entry.get("id") or function["name"]), str(function["name"]), arguments)


def _tool(entry: object) -> Tool:
    function = entry.get("function", entry) if isinstance(entry, Mapping) else None
    if not isinstance(function, Mapping) or not function.get("name"):
        raise ValueError(f"a tool needs function.name, got {short(entry)}")
    parameters, strict = function.get("parameters"), function.get("strict")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise ValueError(f"a tool's parameters must be a JSON schema, got {short(parameters)}")
    return Tool(
        str(function["name"]),
        _optional_text(function.get("description")),
        parameters,
        strict if isinstance(strict, bool) else None,
    )


def _optional_text(value: object) -> str | None:
    return None if value is None else str(value)


def short(value: object) -> str:
    """A value as it is written in JSON, for a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:79]}…"
