"""Amazon Bedrock's ConverseStream: one request shape for every model that Bedrock serves.

`model.params` reaches the request like this: a key that ConverseStream itself knows (`additionalModelRequestFields`,
`guardrailConfig`, `performanceConfig`, `toolConfig`, …) goes where it stands there, `inferenceConfig` merged under what
follows; sampling parameters by any of their usual names (`temperature`, `top_p`, `stop`, `max_tokens`, …) go into
`inferenceConfig`; everything else is the model's own business and goes into `additionalModelRequestFields`.
`maxTokens` is always sent, because Bedrock reserves quota by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from llmexp.clients import address, aws, aws_failures, aws_stream, chat_bedrock, failures
from llmexp.clients.base import Answer, Failure, HttpRequest, Response, Target, Usage
from llmexp.clients.decoding import Draft, Wire, as_text, count, text_inside, total
from llmexp.clients.eventstream import EventMessage
from llmexp.clients.json_text import NotJson, loads, mapping
from llmexp.clients.payloads import Payload
from llmexp.config import Model
from llmexp.json_types import branch
from llmexp.workload.request import Request

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
        body = orjson.dumps(converse_body(request, self._model.params, self._model.cache_points))
        return HttpRequest("POST", self._path, self._headers, body)

    def sign(self, http: HttpRequest) -> HttpRequest:
        """The request, signed with the credentials of this moment."""
        return self._signer.sign(http)

    def explain(self, response: Response) -> Answer:
        """What the response means."""
        return explain(response)


def converse_body(
    request: Request, params: Mapping[str, object], cache_points: Sequence[str] = ()
) -> dict[str, object]:
    """The body of a ConverseStream request. Null takes a key away; the limit stays, as AWS reserves quota by it."""
    params = {key: value for key, value in params.items() if value is not None}
    body: dict[str, object] = {key: value for key, value in params.items() if key in _TOP_LEVEL}
    inference: dict[str, object] = {"maxTokens": request.max_tokens, **mapping(body.get("inferenceConfig"))}
    extra: dict[str, object] = dict(mapping(body.get("additionalModelRequestFields")))
    for key, value in params.items():
        if key in _INFERENCE:
            stop = key.startswith("stop") and isinstance(value, str)
            inference[_INFERENCE[key]] = [value] if stop else value
        elif key not in _TOP_LEVEL:
            extra[key] = value
    body["inferenceConfig"] = inference
    if extra:
        body["additionalModelRequestFields"] = extra
    return body | _with_choice(chat_bedrock.parts(request, cache_points), body)


def _with_choice(parts: dict[str, object], params: Mapping[str, object]) -> dict[str, object]:
    """The workload's tools under what `model.params.toolConfig` says beside them, such as a `toolChoice`."""
    if "toolConfig" in parts:
        parts["toolConfig"] = {**mapping(params.get("toolConfig")), **mapping(parts["toolConfig"])}
    return parts


# --- the answer ------------------------------------------------------------------------------------------------------

EVENTS = frozenset({"contentBlockStart", "contentBlockDelta", "messageStop", "metadata"})
"""Events that say something."""
_PASSED = frozenset({"messageStart", "contentBlockStop"})
_UNKNOWN = "unknown"
_REDACTED = "[REDACTED]"


def explain(response: Response) -> Answer:
    """What a ConverseStream response means; never raises for anything a server can send."""
    return aws_stream.explain(response, WIRE, _read)


def _read(message: EventMessage) -> Payload | Failure | None:
    """An event of the stream."""
    kind = message.headers.get(":event-type")
    if kind in EVENTS and message.headers.get(":message-type", "event") == "event":
        return Payload(message.at_ns, kind or "", mapping(loads(message.payload)))
    if failure := aws_failures.stream_failure(message):
        return failure
    if kind in _PASSED:
        return None
    return Payload(message.at_ns, _UNKNOWN, _object_or_none(message.payload))


def _object_or_none(payload: bytes) -> object:
    """What an event of an unknown kind holds, where that is an error; None: it is passed over."""
    try:
        tree = loads(payload)
    except NotJson:
        return None
    return tree if isinstance(tree, dict) and failures.is_error(tree) else None


def _take(draft: Draft, at_ns: int, event: str, tree: Mapping[str, object]) -> None:
    if event == _UNKNOWN:
        draft.failure = failures.of_event(tree)
        return
    index = tree.get("contentBlockIndex")
    block = index if isinstance(index, int) else 0
    if event == "contentBlockDelta":
        _delta(draft, at_ns, mapping(tree["delta"]), block)
    elif event == "contentBlockStart":
        # A tool call begins with its name, as on the other wires.
        draft.call(at_ns, as_text(mapping(mapping(tree.get("start")).get("toolUse")).get("name")), "", block)
    elif event == "messageStop":
        draft.finished = True
        draft.end(tree.get("stopReason"))
    else:
        draft.count(_usage(branch(tree, "usage")))
        draft.took(branch(tree, "metrics").get("latencyMs"), per_second=1000)


WIRE = Wire(lambda _: True, _take)


def _delta(draft: Draft, at_ns: int, delta: Mapping[str, object], block: int) -> None:
    draft.say(at_ns, "answer", as_text(delta.get("text")), block)
    reasoning = mapping(delta.get("reasoningContent"))
    if reasoning:
        text = text_inside(reasoning)
        draft.say(at_ns, "reasoning", "" if text == _REDACTED else text, block)
        if reasoning.get("signature") or reasoning.get("redactedContent") or text == _REDACTED:
            # Claude's and Nova's marks: they bill their thinking in full and show a summary of it, or nothing.
            draft.reasoning_summarised = True
    draft.say(at_ns, "tool", as_text(mapping(delta.get("toolUse")).get("input")), block)


def _usage(usage: Mapping[str, object]) -> Usage:
    """Bedrock counts tokens read from or written to the cache beside `inputTokens`; here they are part of the input."""
    plain = total(usage.get("inputTokens"))
    read, written = count(usage.get("cacheReadInputTokens")), count(usage.get("cacheWriteInputTokens"))
    whole = None if plain is None else plain + (read or 0) + (written or 0)
    return Usage(whole, total(usage.get("outputTokens")), cached_tokens=read, cache_write_tokens=written)
