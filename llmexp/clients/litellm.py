"""Every model that LiteLLM knows, without LiteLLM's cost on the wire.

LiteLLM finishes a request (URL, headers, body) and is stopped before it sends; the engine sends it and stamps the
answer. A template learnt from LiteLLM's own requests fills the later ones in microseconds. AWS signatures are ours:
LiteLLM signs with placeholder keys and its signature is dropped. Answers in a wire that we know are read by our own
decoders, what is left is replayed through LiteLLM. Where LiteLLM will not be stopped, `times_itself` is true and it is
timed as it is.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from llmexp import secrets
from llmexp.clients import address, aws, failures, litellm_replay, litellm_sdk, litellm_template, litellm_wires
from llmexp.clients.base import Answer, Headers, HttpRequest, Response, Target
from llmexp.clients.litellm_call import AWS, Caller, problems
from llmexp.clients.litellm_private import Http, Sent, Url
from llmexp.clients.litellm_sdk import NotTaken, Taken
from llmexp.config import Model
from llmexp.errors import ConfigError, JobError
from llmexp.json_types import texts
from llmexp.workload.request import Message, Request

SEVERAL_REQUESTS = frozenset({"replicate", "microsoft_365_copilot", "vllm", "a2a", "langgraph", "manus"})
"""Providers whose answer takes more than one exchange, or none at all."""
TOKEN_LIFETIME_S = 600.0
"""How old a token that LiteLLM fetched by itself may be; clouds let theirs live for an hour."""
_NOT_OURS = frozenset({"host", "content-length", "connection", "accept-encoding", "transfer-encoding"})
_SIGNATURE = frozenset({"authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"})
_CHECKS = 2
"""Requests of a shape that are made both ways before its template is trusted."""
_PROBE = Request(0, (Message(role="user", content="probe"),), 16, 1, "")
_PROBE_TEXT = re.compile(rb"of.{1,3}message.{1,3}0.{1,3}ends")


@dataclass(slots=True)
class _Shape:
    """What is known about requests of one shape."""

    template: litellm_template.Template | None
    checks_left: int = _CHECKS


class LiteLLMClient:
    """One model through LiteLLM."""

    def __init__(self, model: Model, base_url: str | None) -> None:
        """Asks LiteLLM for one request, so that whatever is wrong is said now; raises `ConfigError`."""
        wrong = problems(model, base_url)
        if wrong:
            raise ConfigError("\n".join(wrong))
        self._model = model
        self._aws = _aws_side(model, base_url)
        self._caller = Caller(model, base_url, self._aws.endpoint.region if self._aws else None)
        self._shapes: dict[tuple[object, ...], _Shape] = {}
        self._wire: litellm_wires.Wire | None = None
        self._fresh: tuple[float, Headers] | None = None
        self._url: tuple[Target, str] | None = None
        self.times_itself = model.provider in SEVERAL_REQUESTS or not self._probe()

    # --- before ----------------------------------------------------------------------------------------------------

    @property
    def target(self) -> Target:
        """Where LiteLLM would send."""
        if self._url is None:
            raise JobError(f"{self._model.provider} sends by itself; its requests cannot be taken")
        return self._aws.endpoint.target if self._aws else self._caller.redirect or self._url[0]

    def prepare(self, request: Request) -> HttpRequest:
        """LiteLLM's finished request; from the template where it has proved itself."""
        if not request.is_plain or self._model.cache_points:
            return self.prepare_slowly(request)
        key = litellm_template.shape(request)
        known = self._shapes.get(key)
        if known is None:
            known = self._shapes[key] = _Shape(self._learn(request))
        if known.template is None or not litellm_template.fits(request):
            return self.prepare_slowly(request)
        filled = known.template.fill(request)
        if known.checks_left:
            made = self.prepare_slowly(request)
            known.checks_left -= 1
            if not litellm_template.same(made, filled):
                known.template = None
            return made
        return filled

    def prepare_slowly(self, request: Request) -> HttpRequest:
        """The same by LiteLLM itself: 5 to 10 ms. Raises `ConfigError` where it goes another way than the probe."""
        try:
            return self._finish(self._take(request, self._is_main))
        except NotTaken as other:
            raise ConfigError(self._other_way(str(other))) from None

    @property
    def signature_lifetime_s(self) -> float | None:
        """AWS's signatures and tokens that LiteLLM fetches by itself expire."""
        if self._aws:
            return aws.SIGNATURE_LIFETIME_S if self._aws.signs else None
        return TOKEN_LIFETIME_S if self._caller.fetches_token else None

    def sign(self, http: HttpRequest) -> HttpRequest:
        """The request with a signature or token of now."""
        if self._aws:
            return self._aws.signer.sign(http) if self._aws.signs else http
        if not self._caller.fetches_token:
            return http
        now_s = time.monotonic()
        if self._fresh is None or now_s - self._fresh[0] > TOKEN_LIFETIME_S / 2:
            self._fresh = (now_s, self.prepare_slowly(_PROBE).headers)
        return http.with_headers(self._fresh[1])

    # --- after -----------------------------------------------------------------------------------------------------

    def explain(self, response: Response) -> Answer:
        """By our own decoder where the wire is known, else by LiteLLM from the tape."""
        failure = failures.of_response(response)
        if failure is not None and self._aws is None:
            return Answer(failure=failure)
        self._wire = self._wire or litellm_wires.recognise(self._url[1] if self._url else "", response)
        if self._wire is not None:
            return litellm_wires.explain(self._wire, response)
        return self.explain_slowly(response)

    def explain_slowly(self, response: Response) -> Answer:
        """By LiteLLM from the tape: 0.4 ms a chunk."""
        call = self._caller.call(_PROBE)
        return litellm_sdk.run(litellm_replay.replay(call, self._is_main, response))

    # --- inside ----------------------------------------------------------------------------------------------------

    def _probe(self) -> bool:
        """Whether LiteLLM's request can be taken; remembers where it goes."""
        probe, _ = litellm_template.probes(_PROBE)

        def is_main(request: Sent) -> bool:
            return _PROBE_TEXT.search(request.content) is not None

        try:
            taken = self._take(probe, is_main)
        except NotTaken:
            return False
        except Exception as error:  # noqa: BLE001 -- LiteLLM raises what it likes
            if self._caller.forgo(error):
                return self._probe()
            raise ConfigError(self._caller.explain(error)) from None
        self._url = (_target_of(taken.url), taken.url.path)
        missing = self._caller.missing_key(taken)
        if missing:
            raise ConfigError(missing)
        return True

    def _is_main(self, request: Sent) -> bool:
        return self._url is not None and (_target_of(request.url), request.url.path) == self._url

    def _other_way(self, path: str) -> str:
        known = self._url[1] if self._url else "the route that is known"
        instead = f"to {path} instead of {known}" if path else f"by another way than {known}"
        return (
            f"model.api: LiteLLM sends these requests {instead}, where they cannot be timed; use model.api=openai, or "
            "take away what makes LiteLLM do so, such as tools or model.params.reasoning_effort"
        )

    def _take(self, request: Request, is_main: Callable[[Sent], bool]) -> Sent:
        """The request that LiteLLM makes of ours, before it is sent; only what fetches a token or asks is let out."""
        call = self._caller.call(request)

        def taker(_http: Http, sent: Sent) -> object:
            if is_main(sent):
                raise Taken(sent)
            if self._url is not None and _carries(sent, request):
                raise NotTaken(sent.url.path)  # it would be paid for, and no row would tell of it
            return litellm_sdk.PASS

        async def caught() -> Sent:
            try:
                async for _ in await litellm_replay.start(call):
                    break
            except Taken as taken:
                return taken.request
            raise NotTaken

        with litellm_sdk.taking(taker):
            return litellm_sdk.run(caught())

    def _learn(self, request: Request) -> litellm_template.Template | None:
        asked = litellm_template.probes(request)
        return litellm_template.learn(asked, (self.prepare_slowly(asked[0]), self.prepare_slowly(asked[1])))

    def _finish(self, request: Sent) -> HttpRequest:
        """A request of httpx as ours."""
        dropped = _NOT_OURS | (_SIGNATURE if self._aws and self._aws.signs else frozenset())
        raw = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        headers = tuple((name, value) for name, value in raw if name.lower() not in dropped)
        _remember(headers)
        http = HttpRequest(request.method, request.url.raw_path.decode("ascii"), headers, bytes(request.content))
        if self._aws:
            http = replace(http, path=self._aws.endpoint.prefix + http.path)
            return http.with_headers((*http.headers, *self._aws.headers))
        return self._caller.redirected(http)


def _remember(headers: Headers) -> None:
    """What LiteLLM fetched by itself, such as a cloud's token, is a secret as any other key."""
    for name, value in headers:
        if secrets.is_credential_name(name):
            secrets.register(value, value.partition(" ")[2])


# --- AWS -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Aws:
    endpoint: aws.Endpoint
    signer: aws.Signer
    signs: bool
    """False where an API key of Bedrock takes the signature's place."""
    headers: Headers


def _aws_side(model: Model, base_url: str | None) -> _Aws | None:
    """Endpoint and signer of a model on AWS; None for any other."""
    family = (model.provider or "").split("/")[0]
    if family not in AWS:
        return None
    service = aws.BEDROCK if family == "bedrock" else aws.SAGEMAKER
    session = aws.open_session(model)
    endpoint = aws.find_endpoint(model, service, base_url, session)
    return _Aws(endpoint, aws.Signer(model, service, endpoint, session), model.api_key_env is None, _sagemaker(model))


def _sagemaker(model: Model) -> Headers:
    """Headers that pick a part of a SageMaker endpoint."""
    deployment = model.deployment
    if deployment.kind != "sagemaker":
        return ()
    wanted = {
        "X-Amzn-SageMaker-Inference-Component": deployment.inference_component,
        "X-Amzn-SageMaker-Target-Variant": deployment.target_variant,
    }
    return tuple((name, value) for name, value in wanted.items() if value)


def _carries(sent: Sent, request: Request) -> bool:
    """Whether a request of LiteLLM's holds what is asked of the model, wherever it goes and however it is shaped."""
    words = _squeezed(max((message.text for message in request.messages), key=len, default=""))
    try:
        body: object = json.loads(sent.content)
    except ValueError:
        return bool(words) and words in _squeezed(sent.content.decode("utf-8", "replace"))
    return any(words in _squeezed(text) for text in texts(body))


def _squeezed(text: str) -> str:
    """Without the white space that an SDK may trim."""
    return "".join(text.split())


def _target_of(url: Url) -> Target:
    return address.target(f"{url.scheme}://{urlsplit(str(url)).netloc}")


def takes_capture(model: Model, base_url: str | None = None) -> bool:
    """Whether LiteLLM lets this model's requests be taken."""
    return not LiteLLMClient(model, base_url).times_itself
