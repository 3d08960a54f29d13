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

from collections.abc import Iterator, Mapping

import orjson

from llmexp.clients import address, aws, aws_failures, chat_openai, failures, openai
from llmexp.clients.base import Answer, Failure, Headers, HttpRequest, Response, Target, Usage
from llmexp.clients.decoding import Draft, Wire, as_text, decode_payloads, text_inside, total
from llmexp.clients.eventstream import messages
from llmexp.clients.http import Malformed
from llmexp.clients.json_text import listing, mapping
from llmexp.clients.payloads import Payload, payloads
from llmexp.config import Model, SageMaker
from llmexp.json_types import branch
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


def chat_body(model: Model, request: Request) -> dict[str, object]:
    """OpenAI's body. No `model` unless params say one: the endpoint serves one, and some containers refuse names."""
    sent = openai.body(model, request)
    return sent if "model" in model.params else {key: value for key, value in sent.items() if key != "model"}


def text_body(model: Model, request: Request) -> dict[str, object]:
    """The body of TGI and LMI; `details` asks for token counts and the reason of the end."""
    inner: dict[str, object] = {"max_new_tokens": request.max_tokens, "details": True}
    if request.force_output:
        inner |= {"ignore_eos_token": True, "min_new_tokens": request.max_tokens}
    outer = {key: value for key, value in model.params.items() if key in _BODY_KEYS}
    inner = openai.merged(inner, {key: value for key, value in model.params.items() if key not in _BODY_KEYS})
    inner = openai.merged(inner, dict(branch(outer, "parameters")))
    prompt = chat_openai.text_alone(request)
    return openai.merged({"inputs": prompt, "stream": True}, outer) | {"parameters": inner}


# --- the answer ------------------------------------------------------------------------------------------------------


def explain(response: Response) -> Answer:
    """What a response of InvokeEndpointWithResponseStream means; never raises for anything a server can send."""
    if response.status != 200:
        return Answer(failure=aws_failures.http_failure(response))
    body, failure = _container_stream(response)
    # What a failed stream left half written is no fault of its own.
    inner = Response(200, {}, body, complete=response.complete and failure is None)
    draft = Draft()
    return decode_payloads(_then(inner, draft, failure), WIRE, draft)


def _then(inner: Response, draft: Draft, failure: Failure | None) -> Iterator[Payload]:
    """The payloads, and then the failure that ended the stream; what the container itself said counts first."""
    yield from payloads(inner)
    draft.failure = draft.failure or failure
    if draft.ends_with_body and inner.complete:
        draft.finished = True


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
        return body, aws_failures.unframed(error)
    return body, None


def _is_chunk(tree: Mapping[str, object]) -> bool:
    return not _TOKEN_KEYS.isdisjoint(tree) or openai.WIRE.is_chunk(tree)


def _take(draft: Draft, at_ns: int, event: str, tree: Mapping[str, object]) -> None:
    """One object of a container: token objects of TGI and LMI here, everything else is OpenAI's."""
    if _TOKEN_KEYS.isdisjoint(tree):
        openai.WIRE.take(draft, at_ns, event, tree)
    elif failures.has_error(tree):
        draft.failure = failures.of_event(tree)
    else:
        _token(draft, at_ns, tree)


WIRE = Wire(_is_chunk, _take)


def _token(draft: Draft, at_ns: int, tree: Mapping[str, object]) -> None:
    """One token; the last object repeats the whole text, which counts only if none was streamed."""
    token, details = mapping(tree.get("token")), mapping(tree.get("details"))
    special = token.get("special") or token.get("special_token")
    text = "" if special else as_text(token.get("text")) or text_inside(list(listing(tree.get("outputs"))))
    whole = tree.get("generated_text")
    draft.ends_with_body = draft.ends_with_body or "outputs" in tree
    draft.say(at_ns, "answer", text or ("" if draft.events else as_text(whole)))
    reason = details.get("finish_reason")
    if details:
        draft.count(Usage(total(details.get("input_length")), total(details.get("generated_tokens"))))
    if whole is not None or reason:
        draft.end(reason or "stop", token.get("error_msg"))
    if token.get("error_msg"):
        draft.failure = Failure.of("in_stream", None, as_text(token["error_msg"]))
