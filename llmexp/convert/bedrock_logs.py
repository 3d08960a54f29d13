"""Amazon Bedrock's model invocation logs (schemaType ModelInvocationLog, schemaVersion 1.0), from S3 or CloudWatch.

Bodies of Converse and ConverseStream, and of InvokeModel with Anthropic's, OpenAI's or Nova's messages. A body of more
than 100 kB lies in an object of its own, which the record only names: such a record cannot be used.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmexp.convert import blocks, openai_logs
from llmexp.convert.exchange import Exchange, Tree, Unusable, assistant, call, list_of, seconds_of, tokens_of, tree_of


def exchange_of(record: Mapping[str, object]) -> Exchange:
    """The call of a record; raises `Unusable`."""
    record = tree_of(record.get("message")) or tree_of(record.get("@message")) or record
    asked, answered = tree_of(record.get("input")), tree_of(record.get("output"))
    if record.get("errorCode"):
        raise Unusable(f"the call failed: {record['errorCode']}")
    body = tree_of(asked.get("inputBodyJson"))
    if not body:
        where = asked.get("inputBodyS3Path")
        raise Unusable("its body lies in another object (inputBodyS3Path)" if where else "no inputBodyJson")
    if not list_of(body.get("messages")):
        raise Unusable(f"a body without messages ({record.get('operation') or 'unknown operation'})")
    native = _is_openai(body)
    messages = openai_logs.exchange_of(body).messages if native else blocks.messages_of(body)
    tools = openai_logs.tools_of(body) if native else blocks.tools_of(body)
    answer, latency_s = _answer(answered.get("outputBodyJson"))
    start = seconds_of(record.get("timestamp"))
    return Exchange(
        messages,
        tools,
        answer,
        start,
        None if start is None or latency_s is None else start + latency_s,
        tokens_of(answered.get("outputTokenCount")),
        _session(record),
    )


def _is_openai(body: Mapping[str, object]) -> bool:
    messages = [tree_of(each) for each in list_of(body.get("messages"))]
    tools = [tree_of(each) for each in list_of(body.get("tools"))]
    return any(each.get("role") in ("system", "tool", "developer") or "tool_calls" in each for each in messages) or any(
        "function" in each for each in tools
    )


def _session(record: Mapping[str, object]) -> str:
    metadata = tree_of(record.get("requestMetadata"))
    names = ("sessionId", "session_id", "conversationId", "conversation_id")
    return next((str(metadata[name]) for name in names if metadata.get(name)), "")


def _answer(body: object) -> tuple[Tree | None, float | None]:
    """The answer, and how long it took where the log says it."""
    listed = list_of(body)
    if listed:
        return _from_events([tree_of(each) for each in listed]), None
    tree = tree_of(body)
    latency_ms = tree_of(tree.get("metrics")).get("latencyMs")
    seconds = latency_ms / 1000 if isinstance(latency_ms, int | float) else None
    message = tree_of(tree_of(tree.get("output")).get("message"))
    if message:
        return blocks.answer_of(message.get("content")), seconds
    if list_of(tree.get("content")):
        return blocks.answer_of(tree["content"]), seconds
    return openai_logs.answer_of(tree)[0], seconds


def _from_events(events: list[Mapping[str, object]]) -> Tree | None:
    """Events of a stream: Anthropic's, Converse's or OpenAI's."""
    if any("choices" in event for event in events):
        return openai_logs.from_chunks(events)[0]
    text = ""
    calls: list[tuple[object, object]] = []
    pieces: list[str] = []
    for event in events:
        start = tree_of(event.get("content_block")) or tree_of(tree_of(event.get("contentBlockStart")).get("start"))
        use = tree_of(start.get("toolUse")) or (start if start.get("type") == "tool_use" else {})
        if use:
            calls.append((use.get("name"), use.get("id") or use.get("toolUseId")))
            pieces.append("")
        delta = tree_of(event.get("delta")) or tree_of(tree_of(event.get("contentBlockDelta")).get("delta"))
        text += str(delta["text"]) if isinstance(delta.get("text"), str) else ""
        arguments = delta.get("partial_json") or tree_of(delta.get("toolUse")).get("input") or ""
        if pieces and isinstance(arguments, str):
            pieces[-1] += arguments
    made = [call(name, piece or "{}", each) for (name, each), piece in zip(calls, pieces, strict=True)]
    return assistant(text, made)
