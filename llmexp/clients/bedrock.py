"""Amazon Bedrock's ConverseStream: one request shape for every model that Bedrock serves.

`model.params` reaches the request like this: a key that ConverseStream itself knows (`additionalModelRequestFields`,
`guardrailConfig`, `performanceConfig`, `toolConfig`, …) goes where it stands there, `inferenceConfig` merged under what
follows; sampling parameters by any of their usual names (`temperature`, `top_p`, `stop`, `max_tokens`, …) go into
`inferenceConfig`; everything else is the model's own business and goes into `additionalModelRequestFields`.
`maxTokens` is always sent, because Bedrock reserves quota by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import orjson

from llmexp.clients import address, aws, aws_failures
from llmexp.clients.base import Answer, Failure, HttpRequest, Response, Target, TokenEvent, Usage
from llmexp.clients.eventstream import EventMessage, messages
from llmexp.clients.http import Malformed
from llmexp.config import Model
from llmexp.workload.request import Message, Request

_TOP_LEVEL = frozenset(
    {
        "additionalModelRequestFields",
        "additionalModelResponseFieldPaths",
        "guardrailConfig",
        "inferenceConfig",
        "outputConfig",
        "performanceConfig",
        "projectIdentifier",
        "promptVariables",
        "requestMetadata",
        "serviceTier",
        "toolConfig",
    }
)
_INFERENCE = {
    "max_tokens": "maxTokens",
    "maxTokens": "maxTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "topP": "topP",
    "stop": "stopSequences",
    "stop_sequences": "stopSequences",
    "stopSequences": "stopSequences",
}


class BedrockClient:
    """ConverseStream to one model: an id, an inference profile or any ARN that Bedrock takes."""

    signature_lifetime_s: float | None = aws.SIGNATURE_LIFETIME_S

    def __init__(self, model: Model, base_url: str | None = None) -> None:
        session = aws.open_session(model)
        endpoint = aws.find_endpoint(model, aws.BEDROCK, base_url, session)
        self._model = model
        self._target = endpoint.target
        self._path = f"{endpoint.prefix}/model/{aws.path_segment(model.name)}/converse-stream"
        self._headers = address.headers(model, {"Content-Type": "application/json", "Accept": aws.EVENT_STREAM})
        self._signer = aws.Signer(model, aws.BEDROCK, endpoint, session)

    @property
    def target(self) -> Target:
        """Where the connections go."""
        return self._target

    def prepare(self, request: Request) -> HttpRequest:
        """The unsigned request."""
        body = orjson.dumps(converse_body(request, self._model.params))
        return HttpRequest("POST", self._path, self._headers, body)

    def sign(self, http: HttpRequest) -> HttpRequest:
        """The request, signed with the credentials of this moment."""
        return self._signer.sign(http)

    def explain(self, response: Response) -> Answer:
        """What the response means."""
        return explain(response)


def converse_body(request: Request, params: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a ConverseStream request."""
    body: dict[str, Any] = {key: value for key, value in params.items() if key in _TOP_LEVEL}
    inference: dict[str, Any] = {"maxTokens": request.max_tokens} | body.get("inferenceConfig", {})
    extra: dict[str, Any] = dict(body.get("additionalModelRequestFields", {}))
    for key, value in params.items():
        if key in _INFERENCE:
            stop = key.startswith("stop") and isinstance(value, str)
            inference[_INFERENCE[key]] = [value] if stop else value
        elif key not in _TOP_LEVEL:
            extra[key] = value
    body["inferenceConfig"] = inference
    if extra:
        body["additionalModelRequestFields"] = extra
    return body | _conversation(request.messages)


def _conversation(turns: tuple[Message, ...]) -> dict[str, Any]:
    """Messages as content blocks: system ones apart, neighbours of one role in one message, as Bedrock demands."""
    system = [{"text": turn.text} for turn in turns if turn.role == "system"]
    spoken = [turn for turn in turns if turn.role != "system"]
    shaped = [
        {"role": role, "content": [{"text": turn.text} for turn in group]}
        for role, group in groupby(spoken, key=lambda turn: turn.role)
    ]
    return {"messages": shaped} | ({"system": system} if system else {})


def explain(response: Response) -> Answer:
    """What a ConverseStream response means; never raises for anything a server can send."""
    if response.status != 200:
        return Answer(failure=aws_failures.http_failure(response))
    reading = _Reading()
    try:
        for message in messages(response.body):
            reading.take(message)
    except (Malformed, ValueError, KeyError, TypeError, AttributeError) as error:
        reading.failure = reading.failure or Failure.of("malformed", None, f"{type(error).__name__}: {error}")
    return reading.answer()


class _Reading:
    """An answer as its frames come in."""

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self._events: list[TokenEvent] = []
        self._usage = Usage()
        self._finish_reason: str | None = None
        self._server_latency_s: float | None = None
        self._summarised = False

    def take(self, message: EventMessage) -> None:
        kind = message.headers.get(":event-type")
        if kind == "contentBlockDelta":
            self._take_delta(message.at_ns, orjson.loads(message.payload)["delta"])
        elif kind == "messageStop":
            self._finish_reason = str(orjson.loads(message.payload)["stopReason"])
        elif kind == "metadata":
            self._take_metadata(orjson.loads(message.payload))
        elif kind is None and self.failure is None:
            self.failure = aws_failures.stream_failure(message)

    def _take_delta(self, at_ns: int, delta: dict[str, Any]) -> None:
        if text := delta.get("text"):
            self._events.append(TokenEvent(at_ns, "answer", str(text)))
        elif reasoning := delta.get("reasoningContent"):
            self._take_reasoning(at_ns, reasoning)
        elif (tool := delta.get("toolUse")) and (text := tool.get("input")):
            self._events.append(TokenEvent(at_ns, "tool", str(text)))

    def _take_reasoning(self, at_ns: int, reasoning: dict[str, Any]) -> None:
        if text := reasoning.get("text"):
            self._events.append(TokenEvent(at_ns, "reasoning", str(text)))
        if reasoning.get("signature") or reasoning.get("redactedContent"):
            # Claude's marks: it bills its thinking in full and shows a summary of it, or nothing.
            self._summarised = True

    def _take_metadata(self, metadata: dict[str, Any]) -> None:
        if usage := metadata.get("usage"):
            self._usage = _usage(usage)
        latency_ms = (metadata.get("metrics") or {}).get("latencyMs")
        if latency_ms is not None:
            self._server_latency_s = float(latency_ms) / 1000

    def answer(self) -> Answer:
        return Answer(
            events=self._events,
            usage=self._usage,
            finish_reason=self._finish_reason,
            failure=self.failure,
            server_latency_s=self._server_latency_s,
            finished=self._finish_reason is not None,
            reasoning_summarised=self._summarised,
        )


def _usage(usage: dict[str, Any]) -> Usage:
    """Bedrock counts tokens read from or written to the cache beside `inputTokens`; here they are part of the input."""
    plain, read, written = (usage.get(key) for key in ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"))
    return Usage(
        input_tokens=None if plain is None else int(plain) + int(read or 0) + int(written or 0),
        output_tokens=usage.get("outputTokens"),
        cached_tokens=read,
    )
