"""OpenTelemetry's spans under the semantic conventions for generative AI.

Looked at: the conventions 1.37 to 1.41 (`gen_ai.input.messages`, `gen_ai.output.messages`,
`gen_ai.system_instructions`, `gen_ai.tool.definitions`, on the span or on an event of it) and the indexed attributes of
OpenLLMetry (`gen_ai.prompt.0.content`, `llm.request.functions.0.name`). Spans stand in OTLP's JSON, as collectors write
it to files (a batch a line), or one a record as SDKs print them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime

from llmexp.convert.exchange import (
    Exchange,
    Tree,
    Unusable,
    assistant,
    call,
    content_of,
    image_part,
    list_of,
    seconds_of,
    text_of,
    text_part,
    tokens_of,
    tool,
    tree_of,
)

_INDEXED = re.compile(r"(gen_ai\.prompt|gen_ai\.completion|llm\.request\.functions)\.(\d+)\.(.+)")
_CALL = re.compile(r"tool_calls\.(\d+)\.(id|name|arguments)")
_OTHERS = frozenset({"execute_tool", "invoke_agent", "create_agent", "embeddings", "invoke_workflow", "retrieval"})
"""Operations that are no call of a model, or hold one that has a span of its own."""


def spans(record: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """The spans of a record, which may be a batch of OTLP."""
    for resource in list_of(record.get("resourceSpans")):
        for scope in list_of(tree_of(resource).get("scopeSpans")):
            yield from (tree_of(span) for span in list_of(tree_of(scope).get("spans")))
    if "resourceSpans" not in record:
        yield record


def concerns(span: Mapping[str, object]) -> bool:
    """Whether a span is a call of a model: traces hold many others, which are no rows at all."""
    found = _attributes(span)
    operation = found.get("gen_ai.operation.name")
    if operation in _OTHERS:
        return False
    return operation is not None or any(str(name).startswith("gen_ai.") for name in found)


def exchange_of(span: Mapping[str, object]) -> Exchange:
    """The call of a span; raises `Unusable`."""
    found = _attributes(span)
    messages, tools, answer = _current(found)
    if not messages:
        messages, tools, answer = _indexed(found)
    if not any(message["role"] != "system" for message in messages):
        raise Unusable("no messages on the span: its instrumentation did not capture content")
    return Exchange(
        messages,
        tools,
        answer,
        _time(span, "startTimeUnixNano", "start_time"),
        _time(span, "endTimeUnixNano", "end_time"),
        tokens_of(found.get("gen_ai.usage.output_tokens") or found.get("gen_ai.usage.completion_tokens")),
        str(found.get("gen_ai.conversation.id") or found.get("session.id") or ""),
    )


def _attributes(span: Mapping[str, object]) -> dict[str, object]:
    """The span's attributes and those of its events."""
    made = _of(span.get("attributes"))
    for event in list_of(span.get("events")):
        made = _of(tree_of(event).get("attributes")) | made
    return made


def _of(attributes: object) -> dict[str, object]:
    if isinstance(attributes, Mapping):
        return {str(name): value for name, value in attributes.items()}
    pairs = [tree_of(pair) for pair in list_of(attributes)]
    return {str(pair.get("key")): _value(tree_of(pair.get("value"))) for pair in pairs}


def _value(value: Mapping[str, object]) -> object:
    """A value of OTLP's JSON as plain JSON."""
    for name in ("stringValue", "boolValue", "doubleValue"):
        if name in value:
            return value[name]
    if "intValue" in value:
        return int(str(value["intValue"]))
    if "arrayValue" in value:
        return [_value(tree_of(each)) for each in list_of(tree_of(value["arrayValue"]).get("values"))]
    if "kvlistValue" in value:
        return _of(tree_of(value["kvlistValue"]).get("values"))
    return None


def _time(span: Mapping[str, object], nanos: str, iso: str) -> float | None:
    written = span.get(nanos)
    if written is not None:
        try:
            return int(str(written)) / 1e9
        except ValueError:
            return None
    found = span.get(iso)
    return seconds_of(found if isinstance(found, str | int | float | datetime) else None)


# --- the conventions from 1.37 on ------------------------------------------------------------------------------------


def _current(found: Mapping[str, object]) -> tuple[list[Tree], list[Tree], Tree | None]:
    messages: list[Tree] = []
    system = content_of(_parts(found.get("gen_ai.system_instructions")))
    if system:
        messages.append({"role": "system", "content": system})
    for entry in list_of(found.get("gen_ai.input.messages")):
        messages += list(_messages(tree_of(entry)))
    answers = [made for entry in list_of(found.get("gen_ai.output.messages")) for made in _messages(tree_of(entry))]
    answer = next((made for made in answers if made["role"] == "assistant"), None)
    return messages, _tools(found.get("gen_ai.tool.definitions")), answer


def _messages(entry: Mapping[str, object]) -> Iterator[Tree]:
    """A message of parts as one message, or several: each tool's response is one of its own."""
    role, parts = str(entry.get("role") or "user"), [tree_of(part) for part in list_of(entry.get("parts"))]
    if isinstance(entry.get("content"), str) and not parts:
        yield {"role": role, "content": entry["content"]}
        return
    for part in parts:
        if part.get("type") == "tool_call_response":
            said = part.get("response", part.get("result", ""))
            yield {"role": "tool", "tool_call_id": str(part.get("id")), "content": text_of(said)}
    calls = [
        call(part.get("name"), part.get("arguments"), part.get("id"))
        for part in parts
        if part.get("type") == "tool_call" and part.get("name")
    ]
    content = content_of(_parts(parts))
    if role == "assistant":
        made = assistant(content if isinstance(content, str) else "", calls)
        if made is not None:
            yield made
    elif content:
        yield {"role": role if role in ("system", "developer") else "user", "content": content}


def _parts(listed: object) -> list[Tree]:
    """Text and images; reasoning is left out, for no request sends it."""
    made = []
    for entry in list_of(listed):
        part = tree_of(entry)
        kind, modality = part.get("type"), str(part.get("modality") or part.get("mime_type") or "")
        if kind == "text" and isinstance(part.get("content"), str):
            made.append(text_part(str(part["content"])))
        elif kind == "blob" and modality.startswith("image"):
            data = part.get("content") or part.get("data") or ""
            made.append(image_part(f"data:{part.get('mime_type') or 'image/png'};base64,{data}"))
        elif kind == "uri" and modality.startswith("image"):
            made.append(image_part(str(part.get("uri"))))
    return made


def _tools(listed: object) -> list[Tree]:
    made = []
    for entry in list_of(listed):
        each = tree_of(entry)
        function = tree_of(each.get("function")) or each
        if function.get("name"):
            made.append(tool(function["name"], function.get("description"), function.get("parameters")))
    return made


# --- indexed attributes ----------------------------------------------------------------------------------------------


def _indexed(found: Mapping[str, object]) -> tuple[list[Tree], list[Tree], Tree | None]:
    grouped: dict[str, dict[int, dict[str, object]]] = {}
    for name, value in found.items():
        match = _INDEXED.fullmatch(name)
        if match is not None:
            grouped.setdefault(match[1], {}).setdefault(int(match[2]), {})[match[3]] = value
    prompts, answers, functions = (
        [each for _, each in sorted(grouped.get(name, {}).items())]
        for name in ("gen_ai.prompt", "gen_ai.completion", "llm.request.functions")
    )
    tools = [
        tool(each["name"], each.get("description"), tree_of(each.get("parameters")))
        for each in functions
        if "name" in each
    ]
    messages = [made for each in prompts if (made := _indexed_message(each))]
    answer = next((made for each in answers if (made := _indexed_message({**each, "role": "assistant"}))), None)
    return messages, tools, answer


def _indexed_message(each: Mapping[str, object]) -> Tree | None:
    role, content = str(each.get("role") or "user"), each.get("content")
    text = content if isinstance(content, str) else ("" if content is None else text_of(content))
    calls: dict[int, dict[str, object]] = {}
    for name, value in each.items():
        match = _CALL.fullmatch(name)
        if match is not None:
            calls.setdefault(int(match[1]), {})[match[2]] = value
    if role == "assistant":
        made = [call(one.get("name"), one.get("arguments"), one.get("id")) for _, one in sorted(calls.items())]
        return assistant(text, made)
    if role == "tool":
        return {"role": "tool", "tool_call_id": str(each.get("tool_call_id")), "content": text}
    return {"role": role, "content": text} if text else None
