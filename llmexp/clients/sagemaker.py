"""SageMaker endpoints by InvokeEndpointWithResponseStream, in the body formats that language-model containers take.

`model.deployment.payload` names the format:

- `messages`: OpenAI's chat completions (LMI, vLLM, SGLang and TGI containers; JumpStart models of today). Params are
  laid over the body.
- `tgi`: `{"inputs", "parameters", "stream"}` of Hugging Face's TGI.
- `djl`: the same shape as LMI takes it, answered in JSON lines.

For the last two the prompt is the text of the messages, without a chat template: the container applies none either.
Params go into `parameters`, except `inputs`, `stream` and other keys that the body itself knows.

The container's own stream comes inside PayloadPart frames, cut anywhere. It is put together first; then each JSON
object in it is understood by its shape, whichever format was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import orjson

from llmexp.clients import address, aws, aws_failures, decoding, openai
from llmexp.clients.base import Answer, Failure, Headers, HttpRequest, Response, Target, TokenEvent, Usage
from llmexp.clients.eventstream import messages
from llmexp.clients.http import Malformed
from llmexp.config import Model, SageMaker
from llmexp.workload.request import Request

_HEADER = "X-Amzn-SageMaker-"
_BODY_KEYS = frozenset({"adapters", "inputs", "model", "parameters", "stream"})
_TOKEN_KEYS = frozenset({"token", "generated_text", "outputs"})


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
        return HttpRequest("POST", self._path, self._headers, orjson.dumps(shape(self._model, request)))

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


def chat_body(model: Model, request: Request) -> dict[str, Any]:
    """OpenAI's body. No `model` unless params say one: the endpoint serves one, and some containers refuse names."""
    sent = openai.body(model, request)
    return sent if "model" in model.params else {key: value for key, value in sent.items() if key != "model"}


def text_body(model: Model, request: Request) -> dict[str, Any]:
    """The body of TGI and LMI; `details` asks for token counts and the reason of the end."""
    inner: dict[str, Any] = {"max_new_tokens": request.max_tokens, "details": True}
    if request.force_output:
        inner |= {"ignore_eos_token": True, "min_new_tokens": request.max_tokens}
    outer = {key: value for key, value in model.params.items() if key in _BODY_KEYS}
    inner |= {key: value for key, value in model.params.items() if key not in _BODY_KEYS} | outer.get("parameters", {})
    prompt = "\n\n".join(turn.text for turn in request.messages)
    return {"inputs": prompt, "stream": True} | outer | {"parameters": inner}


# --- the answer ------------------------------------------------------------------------------------------------------


def explain(response: Response) -> Answer:
    """What a response of InvokeEndpointWithResponseStream means; never raises for anything a server can send."""
    if response.status != 200:
        return Answer(failure=aws_failures.http_failure(response))
    body, failure = _container_stream(response)
    # What a failed stream left half written is no fault of its own.
    inner = Response(200, {}, body, complete=response.complete and failure is None)
    answer = decoding.decode_payloads(decoding.payloads(inner), fold)
    return answer if failure is None else replace(answer, failure=failure)


def _container_stream(response: Response) -> tuple[list[tuple[int, bytes]], Failure | None]:
    """What the container wrote, put together from PayloadPart frames, and the failure that ended it, if one did."""
    body: list[tuple[int, bytes]] = []
    try:
        for message in messages(response.body):
            if message.headers.get(":event-type") == "PayloadPart":
                body.append((message.at_ns, message.payload))
            elif failure := aws_failures.stream_failure(message):
                return body, failure
    except Malformed as error:
        return body, Failure.of("malformed", None, str(error))
    return body, None


def fold(draft: decoding.Draft, payloads: Iterable[decoding.Payload]) -> None:
    """A container's objects into `draft`: token objects of TGI and LMI here, everything else is OpenAI's."""
    for payload in payloads:
        if isinstance(payload.tree, dict) and not _TOKEN_KEYS.isdisjoint(payload.tree):
            _token(draft, payload.at_ns, payload.tree)
        else:
            openai.fold(draft, (payload,))
        if draft.failure is not None:
            return


def _token(draft: decoding.Draft, at_ns: int, tree: dict[str, Any]) -> None:
    """One token; the last object repeats the whole text, which counts only if none was streamed."""
    token, details = tree.get("token") or {}, tree.get("details") or {}
    special = token.get("special") or token.get("special_token")
    text = "" if special else token.get("text") or "".join(tree.get("outputs") or ())
    whole = tree.get("generated_text")
    if text := text or ("" if draft.events else whole or ""):
        draft.events.append(TokenEvent(at_ns, "answer", decoding.as_text(text)))
    if details.get("finish_reason") == "error" or token.get("error_msg"):
        draft.failure = Failure.of("in_stream", None, str(token.get("error_msg") or f"the container failed: {details}"))
        return
    if details:
        read, written = (decoding.count(details.get(name)) for name in ("input_length", "generated_tokens"))
        draft.usage = Usage(read, written)
    if whole is not None or details.get("finish_reason"):
        draft.finish_reason, draft.finished = str(details.get("finish_reason") or "stop"), True
