"""Chat logs in OpenAI's shapes: what proxies, gateways and the API's own exports write.

A record is a request with its response (`{"request": …, "response": …}`, a line of the Batch API's input, stored
completions with `input` and `output`), a request alone, or a whole chat (`{"messages": […]}` that ends with an answer).
Looked at: OpenAI's API reference as of 2026, its fine-tuning and Batch formats, LiteLLM's and vLLM's request logs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from llmexp.convert.exchange import (
    Exchange,
    Tree,
    Unusable,
    assistant,
    call,
    list_of,
    seconds_of,
    text_of,
    tokens_of,
    tree_of,
)
from llmexp.workload.chat import ROLES

_REQUESTS = ("request", "body", "input", "kwargs", "request_body", "requestBody", "payload")
_RESPONSES = ("response", "output", "response_body", "responseBody", "completion", "result")
_STARTS = ("timestamp", "start_time", "startTime", "created_at", "created", "time", "ts", "@timestamp", "date")
_ENDS = ("end_time", "endTime", "completed_at", "finished_at")
_LATENCIES = {"latency_s": 1.0, "duration_s": 1.0, "latency_ms": 1e3, "duration_ms": 1e3, "elapsed_ms": 1e3}
_SESSIONS = ("session_id", "session", "conversation_id", "conversationId", "thread_id", "chat_id", "trace_id")


def exchange_of(record: Mapping[str, object]) -> Exchange:
    """The call of a record; raises `Unusable`."""
    request = request_of(record)
    messages = [_message(tree_of(message)) for message in list_of(request.get("messages"))]
    if not messages:
        raise Unusable("no messages: neither the record nor its request has any")
    if unknown := next((each for each in messages if each.get("role") not in ROLES), None):
        raise Unusable(f"a message of the role '{unknown.get('role')}'")
    if isinstance(request.get("instructions"), str):
        messages.insert(0, {"role": "system", "content": request["instructions"]})
    answer, usage = answer_of(record)
    if answer is None and messages[-1].get("role") == "assistant":
        return Exchange(messages, tools_of(request), session=_session(record, request), whole=True)
    start, end = _times(record)
    return Exchange(
        messages,
        tools_of(request),
        answer,
        start,
        end,
        tokens_of(usage.get("completion_tokens") or usage.get("output_tokens")),
        _session(record, request),
    )


def request_of(record: Mapping[str, object]) -> Mapping[str, object]:
    """The request inside a record, however deep: the first object that has messages."""
    if isinstance(record.get("messages"), list | str):
        return record
    for name in _REQUESTS:
        if name == "input" and list_of(record.get(name)):
            return {**record, "messages": list_of(record[name])}
        inner = tree_of(record.get(name))
        if inner:
            found = request_of(inner)
            if list_of(found.get("messages")):
                return found
    return record


def _message(item: Mapping[str, object]) -> Tree:
    """A message as it is; an item of the Responses API as the message that it would be."""
    if item.get("type") == "function_call":
        made = call(item.get("name"), item.get("arguments"), item.get("call_id"))
        return {"role": "assistant", "content": None, "tool_calls": [made]}
    if item.get("type") == "function_call_output":
        return {"role": "tool", "tool_call_id": str(item.get("call_id")), "content": text_of(item.get("output") or "")}
    return dict(item)


def tools_of(request: Mapping[str, object]) -> list[Tree]:
    """Tools, and functions as they were called before."""
    tools = [dict(tree_of(tool)) for tool in list_of(request.get("tools"))]
    functions = [tree_of(each) for each in list_of(request.get("functions"))]
    return tools or [{"type": "function", "function": dict(each)} for each in functions if each]


def answer_of(record: Mapping[str, object]) -> tuple[Tree | None, Mapping[str, object]]:
    """The answer and the usage of a record's response: whole, as a list of chunks, or as the text of its stream."""
    for tree in (record, *(record.get(name) for name in _RESPONSES)):
        found = _answer(tree)
        if found[0] is not None:
            return found
    return None, {}


def _answer(response: object) -> tuple[Tree | None, Mapping[str, object]]:
    if isinstance(response, str):
        events = list(_events(response))
        return from_chunks(events) if events else _answer(tree_of(response) or list(list_of(response)))
    if isinstance(response, Sequence):
        trees = [tree_of(each) for each in response]
        if any("delta" in tree_of(choice) for tree in trees for choice in list_of(tree.get("choices"))):
            return from_chunks(trees)
        spoken = [made for tree in trees if (made := _message(tree)).get("role") == "assistant"]
        return (_joined(spoken), {}) if spoken else (None, {})
    tree = tree_of(response)
    choices = [tree_of(choice) for choice in list_of(tree.get("choices"))]
    if choices:
        message = tree_of(choices[0].get("message"))
        if message:
            return dict(message) | {"role": "assistant"}, tree_of(tree.get("usage"))
    if tree.get("role") == "assistant":
        return dict(tree), {}
    if list_of(tree.get("output")):  # the Responses API
        return _answer(list_of(tree["output"]))[0], tree_of(tree.get("usage"))
    inner = tree.get("body")
    return _answer(inner) if inner is not None and inner is not response else (None, {})


def _joined(spoken: Sequence[Tree]) -> Tree:
    """Text and calls of one answer, which the Responses API lists one by one."""
    if len(spoken) == 1:
        return spoken[0]
    parts = [part for message in spoken for part in list_of(message.get("content"))]
    text = "".join(str(tree_of(part).get("text") or "") for part in parts)
    text += "".join(str(message["content"]) for message in spoken if isinstance(message.get("content"), str))
    calls = [dict(tree_of(each)) for message in spoken for each in list_of(message.get("tool_calls"))]
    return assistant(text, calls) or spoken[0]


def _events(text: str) -> Iterator[Mapping[str, object]]:
    """The payloads of a recorded event stream."""
    for line in text.splitlines():
        if line.startswith("data:"):
            tree = tree_of(line[5:].strip())
            if tree:
                yield tree


def from_chunks(chunks: Sequence[Mapping[str, object]]) -> tuple[Tree | None, Mapping[str, object]]:
    """Chunks of a stream put together."""
    text = ""
    calls: dict[int, Tree] = {}
    usage: Mapping[str, object] = {}
    for chunk in chunks:
        usage = tree_of(chunk.get("usage")) or usage
        for choice in list_of(chunk.get("choices"))[:1]:
            delta = tree_of(tree_of(choice).get("delta")) or {"content": tree_of(choice).get("text")}
            content = delta.get("content")
            text += content if isinstance(content, str) else ""
            for each in list_of(delta.get("tool_calls")):
                _add_call(calls, tree_of(each))
    return assistant(text, list(calls.values())), usage


def _add_call(calls: dict[int, Tree], piece: Mapping[str, object]) -> None:
    at = piece.get("index")
    function = tree_of(piece.get("function"))
    known = calls.setdefault(
        at if isinstance(at, int) else len(calls),
        {"id": str(piece.get("id") or ""), "type": "function", "function": {"name": "", "arguments": ""}},
    )
    inner = dict(tree_of(known["function"]))
    inner["name"] = f"{inner['name']}{function.get('name') or ''}"
    inner["arguments"] = f"{inner['arguments']}{function.get('arguments') or ''}"
    known["function"] = inner


def _times(record: Mapping[str, object]) -> tuple[float | None, float | None]:
    """Start and end in seconds, as far as the record or its response has them."""
    start, end = _first(record, _STARTS), _first(record, _ENDS)
    if start is None:
        start = _first(tree_of(record.get("response")), ("created",))
    for name, unit in _LATENCIES.items():
        latency = record.get(name)
        if end is None and start is not None and isinstance(latency, int | float):
            end = start + latency / unit
    return start, end


def _first(record: Mapping[str, object], names: Sequence[str]) -> float | None:
    return next((found for name in names if (found := seconds_of(record.get(name))) is not None), None)


def _session(record: Mapping[str, object], request: Mapping[str, object]) -> str:
    trees = [record, request, *(tree_of(each.get("metadata")) for each in (record, request))]
    found = (tree.get(name) for tree in trees for name in _SESSIONS)
    return next((json.dumps(each, sort_keys=True) for each in found if isinstance(each, str | int) and each), "")
