"""SageMaker endpoints by InvokeEndpointWithResponseStream, in the body formats that language-model containers take.

`model.deployment.payload` names the format:

- `messages`: OpenAI's chat completions (LMI, vLLM, SGLang and TGI containers; JumpStart models of today). Params go
  into the body as they stand.
- `tgi`: `{"inputs", "parameters", "stream"}` of Hugging Face's TGI.
- `djl`: the same shape as LMI takes it, answered in JSON lines.

For the last two the prompt is the text of the messages, without a chat template: the container applies none either.
Params go into `parameters`, except `inputs`, `stream` and other keys that the body itself knows.

The container's own stream comes inside PayloadPart frames, cut anywhere. It is put together first; then each JSON
object in it is understood by its shape, whichever format was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from llmexp.clients import address, aws, aws_failures, failures
from llmexp.clients.base import Answer, Failure, Headers, HttpRequest, Response, Target, TokenEvent, Usage
from llmexp.clients.eventstream import messages
from llmexp.clients.http import Malformed
from llmexp.clients.sse import events
from llmexp.config import Model, SageMaker
from llmexp.workload.request import Request

_HEADER = "X-Amzn-SageMaker-"
_BODY_KEYS = frozenset({"adapters", "inputs", "model", "parameters", "stream"})


class SageMakerClient:
    """One SageMaker endpoint; `model.name` is its name."""

    signature_lifetime_s: float | None = aws.SIGNATURE_LIFETIME_S

    def __init__(self, model: Model, base_url: str | None = None) -> None:
        session = aws.open_session(model)
        endpoint = aws.find_endpoint(model, aws.SAGEMAKER, base_url, session)
        self._model = model
        self._deployment = deployment_of(model)
        self._target = endpoint.target
        self._path = f"{endpoint.prefix}/endpoints/{aws.path_segment(model.name)}/invocations-response-stream"
        self._headers = _headers(model, self._deployment)
        self._signer = aws.Signer(model, aws.SAGEMAKER, endpoint, session)

    @property
    def target(self) -> Target:
        """Where the connections go."""
        return self._target

    def prepare(self, request: Request) -> HttpRequest:
        """The unsigned request."""
        shape = chat_body if self._deployment.payload == "messages" else text_body
        return HttpRequest("POST", self._path, self._headers, orjson.dumps(shape(request, self._model.params)))

    def sign(self, http: HttpRequest) -> HttpRequest:
        """The request, signed with the credentials of this moment."""
        return self._signer.sign(http)

    def explain(self, response: Response) -> Answer:
        """What the response means."""
        return explain(response)


def deployment_of(model: Model) -> SageMaker:
    """The model's SageMaker settings; the defaults when its file says nothing."""
    return (
        model.deployment if isinstance(model.deployment, SageMaker) else SageMaker.model_validate({"kind": "sagemaker"})
    )


def _headers(model: Model, deployment: SageMaker) -> Headers:
    defaults = {"Content-Type": "application/json"}
    if deployment.inference_component:
        defaults[f"{_HEADER}Inference-Component"] = deployment.inference_component
    if deployment.target_variant:
        defaults[f"{_HEADER}Target-Variant"] = deployment.target_variant
    return address.headers(model, defaults)


def chat_body(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's chat completions body. No `model`: the endpoint serves one, and some containers refuse other names."""
    body: dict[str, Any] = {
        "messages": list(request.messages),
        "max_tokens": request.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.force_output:
        body |= {"ignore_eos": True, "min_tokens": request.max_tokens}
    return body | params


def text_body(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """The body of TGI and LMI; `details` asks for token counts and the reason of the end."""
    inner: dict[str, Any] = {"max_new_tokens": request.max_tokens, "details": True}
    if request.force_output:
        inner |= {"ignore_eos_token": True, "min_new_tokens": request.max_tokens}
    inner |= {key: value for key, value in params.items() if key not in _BODY_KEYS}
    inner |= params.get("parameters", {})
    body = {"inputs": "\n\n".join(turn["content"] for turn in request.messages), "stream": True}
    return body | {key: value for key, value in params.items() if key in _BODY_KEYS} | {"parameters": inner}


# --- the answer ------------------------------------------------------------------------------------------------------


def explain(response: Response) -> Answer:
    """What a response of InvokeEndpointWithResponseStream means; never raises for anything a server can send."""
    if response.status != 200:
        return Answer(failure=aws_failures.http_failure(response))
    reading = _Reading()
    failure = None
    body: list[tuple[int, bytes]] = []
    try:
        for message in messages(response.body):
            failure = failure or aws_failures.stream_failure(message)
            if message.headers.get(":event-type") == "PayloadPart":
                body.append((message.at_ns, message.payload))
    except Malformed as error:
        failure = failure or Failure.of("malformed", None, str(error))
    for at_ns, data, whole in _objects(body):
        reading.take(at_ns, data, whole=whole and failure is None)
    return reading.answer(failure)


def _objects(body: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, bool]]:
    """(arrival ns, JSON, whether its end was seen) of each object in a container's stream, SSE or JSON lines."""
    head = b"".join(piece for _, piece in body[:64]).lstrip()[:1]
    if head in (b"{", b"["):
        yield from _lines(body)
        return
    for event in events(body):
        yield event.at_ns, event.data.strip(), event.whole


def _lines(body: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, bool]]:
    """Lines with the stamp of the part that completed them; the last one may lack its newline."""
    rest: list[bytes] = []
    at_ns = 0
    for at_ns, piece in body:
        *ended, tail = piece.split(b"\n")
        for line in ended:
            if whole := b"".join([*rest, line]).strip():
                yield at_ns, whole, True
            rest = []
        rest.append(tail)
    if left := b"".join(rest).strip():
        yield at_ns, left, False


class _Reading:
    """An answer as its JSON objects come in."""

    def __init__(self) -> None:
        self._events: list[TokenEvent] = []
        self._usage = Usage()
        self._finish_reason: str | None = None
        self._failure: Failure | None = None
        self._done = False

    def take(self, at_ns: int, data: bytes, *, whole: bool) -> None:
        """Understand one object; damage in a last one that never became whole is the cut, not a fault of its own."""
        if data == b"[DONE]":
            self._done = True
            return
        try:
            found = orjson.loads(data)
            self._take_object(at_ns, found[0] if isinstance(found, list) else found)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            if whole and self._failure is None:
                self._failure = Failure.of("malformed", None, f"{error}: {data[:200].decode(errors='replace')}")

    def _take_object(self, at_ns: int, found: dict[str, Any]) -> None:
        if found.get("error"):
            self._failure = self._failure or failures.of_event(found)
        elif "choices" in found:
            self._take_chat(at_ns, found)
        else:
            self._take_token(at_ns, found)

    def _take_chat(self, at_ns: int, chunk: dict[str, Any]) -> None:
        if usage := chunk.get("usage"):
            self._usage = _chat_usage(usage)
        for choice in chunk["choices"]:
            delta = choice.get("delta") or choice.get("message") or {}
            self._add(at_ns, "reasoning", delta.get("reasoning_content") or delta.get("reasoning"))
            self._add(at_ns, "answer", delta.get("content") or choice.get("text"))
            for call in delta.get("tool_calls") or ():
                self._add(at_ns, "tool", (call.get("function") or {}).get("arguments"))
            if choice.get("finish_reason"):
                self._finish_reason = str(choice["finish_reason"])

    def _take_token(self, at_ns: int, found: dict[str, Any]) -> None:
        """TGI's and LMI's token objects; the last repeats the whole text, which counts only if none was streamed."""
        token, details = found.get("token") or {}, found.get("details") or {}
        if not (token.get("special") or token.get("special_token")):
            self._add(at_ns, "answer", token.get("text") or "".join(found.get("outputs") or ()))
        whole = found.get("generated_text")
        if not self._events:
            self._add(at_ns, "answer", whole)
        if details.get("finish_reason") == "error":
            self._failure = self._failure or Failure.of("in_stream", None, f"the container failed: {details}")
        if details:
            self._usage = Usage(details.get("input_length"), details.get("generated_tokens"))
        if whole is not None or details.get("finish_reason"):
            self._finish_reason = str(details.get("finish_reason") or "stop")

    def _add(self, at_ns: int, kind: Any, text: str | None) -> None:
        if text:
            self._events.append(TokenEvent(at_ns, kind, str(text)))

    def answer(self, failure: Failure | None) -> Answer:
        return Answer(
            events=self._events,
            usage=self._usage,
            finish_reason=self._finish_reason,
            failure=self._failure if failure is None else failure,
            finished=self._done or self._finish_reason is not None,
        )


def _chat_usage(usage: dict[str, Any]) -> Usage:
    return Usage(
        input_tokens=usage.get("prompt_tokens"),
        output_tokens=usage.get("completion_tokens"),
        reasoning_tokens=(usage.get("completion_tokens_details") or {}).get("reasoning_tokens"),
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
    )
