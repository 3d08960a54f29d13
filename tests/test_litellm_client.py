"""LiteLLM's requests against what LiteLLM itself sends, its answers against what the server said."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from support.aws_server import AwsServer, Reply, Seen, call, clean_environment, converse, event, parts
from support.marks import THROUGH_LITELLM

from llmexp.clients import credentials, litellm_sdk
from llmexp.clients.base import HttpRequest, Response, TokenEvent, Usage
from llmexp.clients.http import unframe
from llmexp.clients.litellm import LiteLLMClient, takes_capture
from llmexp.config import Model, defaults, load
from llmexp.endpoints.simulator.routes import wire_of
from llmexp.errors import ConfigError
from llmexp.worker.own_stream import OwnStreams
from llmexp.worker.pool import Exchange, Tape
from llmexp.workload.request import Message, Request, Tool

pytestmark = THROUGH_LITELLM

TEXTS = [
    "plain words",
    'quotes " and \\ back',
    "line\nbreaks\tand\x01controls",
    "Grüße, 東京, 🦙",
    "llmexp 1237 2411",
    "x" * 9000,
]
KEY = "secret-for-tests"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GROQ_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEST_KEY", KEY)


def model(provider: str, name: str = "some-model", **fields: Any) -> Model:
    return Model.model_validate({"api": "litellm", "provider": provider, "name": name} | fields)


def request(*texts: str, limit: int = 64, **fields: Any) -> Request:
    roles = ["user", "assistant"] * len(texts)
    messages = tuple(Message(role=role, content=text) for role, text in zip(roles, texts, strict=False))
    return Request(0, messages, limit, 3, "", **fields)


# --- a server of nothing but what is asked of it ---------------------------------------------------------------------


class Plain:
    """`with Plain(body) as server:` answers every POST with the same pieces, and closes."""

    def __init__(self, *pieces: bytes, status: int = 200, content_type: str = "text/event-stream") -> None:
        self.requests: list[Seen] = []
        seen = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                seen.append(Seen("POST", self.path, list(self.headers.items()), body, 0))
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Connection", "close")
                self.end_headers()
                for piece in pieces:
                    self.wfile.write(piece)
                    self.wfile.flush()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Plain:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def sse(*payloads: Any) -> list[bytes]:
    return [f"data: {p if isinstance(p, str) else json.dumps(p)}\n\n".encode() for p in payloads]


def chat(*texts: str, usage: dict[str, Any] | None = None) -> list[bytes]:
    chunks: list[Any] = [{"id": "1", "choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    chunks.append({"id": "1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage:
        chunks.append({"id": "1", "choices": [], "usage": usage})
    return sse(*chunks, "[DONE]")


def messages_stream() -> list[bytes]:
    return sse(
        {
            "type": "message_start",
            "message": {"id": "1", "role": "assistant", "content": [], "usage": {"input_tokens": 5}},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    )


def itself(provider: str, sent: Request, **arguments: Any) -> None:
    """LiteLLM sends this request over its own connection and reads the answer."""

    async def listen() -> None:
        litellm = litellm_sdk.load()
        stream = await litellm.acompletion(
            model=f"{provider}/some-model",
            messages=[{"role": message.role, "content": message.text} for message in sent.messages],
            max_tokens=sent.max_tokens,
            stream=True,
            stream_options={"include_usage": True},
            num_retries=0,
            max_retries=0,
            **arguments,
        )
        async for _ in stream:
            pass

    litellm_sdk.run(listen())


_WIRE_ONLY = {"host", "accept-encoding", "connection", "content-length", "authorization", "x-amz-date"}


def essence(seen: Seen) -> tuple[str, str, Any, dict[str, str]]:
    """Method, path, body and the headers that do not belong to one connection or one second."""
    headers = {name.lower(): value for name, value in seen.headers if name.lower() not in _WIRE_ONLY}
    body = seen.json
    body.pop("sagemaker_base_url", None)  # LiteLLM lets its own redirection slip into the body
    return seen.method, seen.path, body, headers


# --- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "suffix", "answer"),
    [
        ("hosted_vllm", "/v1", chat("Hello")),
        ("openai", "/v1", chat("Hello")),
        ("groq", "/v1", chat("Hello")),
        ("anthropic", "", messages_stream()),
    ],
)
def test_what_we_send_is_what_litellm_sends(provider: str, suffix: str, answer: list[bytes]) -> None:
    with Plain(*answer) as server:
        base_url = server.url + suffix
        client = LiteLLMClient(model(provider, base_url=base_url, api_key_env="TEST_KEY"), base_url)
        sent = request('Grüße, \n "world"', limit=77)
        response = call(client.sign(client.prepare(sent)), client.target)
        itself(provider, sent, api_base=base_url, api_key=KEY)
    ours, theirs = server.requests
    assert essence(ours) == essence(theirs)
    assert ours.header("authorization") == theirs.header("authorization")
    assert KEY in (ours.header("authorization") or ours.header("x-api-key") or "")
    assert "".join(token.text for token in client.explain(response).events) == "Hello"


def test_bedrock_s_request_is_litellm_s_under_our_signature() -> None:
    with AwsServer("bedrock", Reply(converse(["Hel", "lo"]))) as server:
        client = LiteLLMClient(model("bedrock/converse"), server.url)
        sent = request("Write.", limit=77)
        response = call(client.sign(client.prepare(sent)), client.target)
        itself("bedrock/converse", sent, aws_bedrock_runtime_endpoint=server.url, aws_region_name="us-east-1")
    assert server.refused == []
    assert essence(server.requests[0]) == essence(server.requests[1])
    answer = client.explain(response)
    assert [token.text for token in answer.events] == ["Hel", "lo"]
    assert (answer.usage.output_tokens, answer.finish_reason, answer.server_latency_s) == (2, "end_turn", 0.321)
    assert client.signature_lifetime_s == 60


def test_sagemaker_s_request_is_litellm_s_under_our_signature() -> None:
    stream = b"".join(chat("Hel", "lo", usage={"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}))
    with AwsServer("sagemaker", Reply(parts(stream, 7))) as server:
        client = LiteLLMClient(model("sagemaker_chat"), server.url)
        sent = request("Write.", limit=77)
        response = call(client.sign(client.prepare(sent)), client.target)
        url = f"{server.url}/endpoints/some-model/invocations-response-stream"
        itself("sagemaker_chat", sent, sagemaker_base_url=url, aws_region_name="us-east-1")
    assert server.refused == []
    assert essence(server.requests[0]) == essence(server.requests[1])
    answer = client.explain(response)
    assert [token.text for token in answer.events] == ["Hel", "lo"]
    assert answer.usage == Usage(5, 2)


def test_an_inference_component_and_a_variant_are_named_under_the_signature() -> None:
    deployment = {"kind": "sagemaker", "inference_component": "part", "target_variant": "blue"}
    with AwsServer("sagemaker", Reply(parts(b"".join(chat("a")), 99))) as server:
        client = LiteLLMClient(model("sagemaker_chat", deployment=deployment), server.url)
        call(client.sign(client.prepare(request("Write."))), client.target)
    assert server.refused == []
    assert server.requests[0].header("x-amzn-sagemaker-inference-component") == "part"
    assert server.requests[0].header("x-amzn-sagemaker-target-variant") == "blue"


@pytest.mark.parametrize(
    "provider", ["hosted_vllm", "openai", "azure", "bedrock/converse", "sagemaker", "gemini", "anthropic"]
)
def test_the_template_fills_what_litellm_would_write(provider: str) -> None:
    base_url = "http://127.0.0.1:9/v1"
    client = LiteLLMClient(model(provider, base_url=base_url), base_url)
    for _ in range(3):
        client.prepare(request("warm up the template"))
    for limit, text in enumerate(TEXTS, start=1000):
        asked = request(text, limit=limit)
        filled, made = client.prepare(asked), client.prepare_slowly(asked)
        assert json.loads(filled.body) == json.loads(made.body)
        assert (filled.method, filled.path, filled.headers) == (made.method, made.path, made.headers)


def test_the_template_is_used_once_it_has_proved_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    client = LiteLLMClient(model("hosted_vllm"), "http://127.0.0.1:9/v1")
    for _ in range(3):
        client.prepare(request("a", "b", "c"))

    def never(_: Request) -> HttpRequest:
        raise AssertionError("LiteLLM was asked")

    monkeypatch.setattr(client, "prepare_slowly", never)
    filled = json.loads(client.prepare(request("eins", "zwei", "drei", limit=9)).body)
    assert [message["content"] for message in filled["messages"]] == ["eins", "zwei", "drei"]
    assert filled["max_tokens"] == 9
    with pytest.raises(AssertionError, match="LiteLLM was asked"):
        client.prepare(request(" an edge that an SDK may trim"))


def test_a_template_that_does_not_hold_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    client = LiteLLMClient(model("hosted_vllm"), "http://127.0.0.1:9/v1")
    slowly = client.prepare_slowly

    def moody(asked: Request) -> HttpRequest:
        made = slowly(asked)
        return made if b"Pr" in made.body else HttpRequest(made.method, made.path, made.headers, b'{"other": 1}')

    monkeypatch.setattr(client, "prepare_slowly", moody)
    assert [client.prepare(request("hello")).body for _ in range(4)] == [b'{"other": 1}'] * 4


def test_forced_output_params_and_headers_are_passed_on() -> None:
    asked = model(
        "hosted_vllm",
        params={"temperature": 0.5, "top_k": 3},
        headers={"X-Team": "a"},
        headers_env={"X-Secret": "TEST_KEY"},
    )
    made = LiteLLMClient(asked, "http://127.0.0.1:9/v1").prepare(request("hello", limit=9, force_output=True))
    body, headers = json.loads(made.body), {name.lower(): value for name, value in made.headers}
    assert {key: body[key] for key in ("ignore_eos", "min_tokens", "temperature", "top_k")} == {
        "ignore_eos": True,
        "min_tokens": 9,
        "temperature": 0.5,
        "top_k": 3,
    }
    assert body["stream_options"] == {"include_usage": True}
    assert (headers["x-team"], headers["x-secret"]) == ("a", KEY)


@pytest.mark.parametrize(("provider", "refused"), [("bytez", "stream_options"), ("gradient_ai", "max_retries")])
def test_a_provider_may_refuse_what_only_we_ask_for(provider: str, refused: str) -> None:
    made = LiteLLMClient(model(provider, api_key_env="TEST_KEY"), None).prepare(request("hello"))
    assert b"hello" in made.body
    assert refused.encode() not in made.body


def test_plain_completions_have_a_prompt() -> None:
    made = LiteLLMClient(model("hosted_vllm", route="completions"), "http://127.0.0.1:9/v1").prepare(request("hello"))
    assert made.path == "/v1/completions"
    assert json.loads(made.body)["prompt"] == "hello"


def test_gemini_keeps_the_path_of_its_public_api_when_redirected() -> None:
    client = LiteLLMClient(model("gemini"), "http://127.0.0.1:9")
    assert (client.target.host, client.target.port) == ("127.0.0.1", 9)
    assert client.prepare(request("hello")).path.endswith("/models/some-model:streamGenerateContent?alt=sse")


# --- what is wrong is said before anything is sent -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (model("nobody"), "model.provider: LiteLLM"),
        (model("openai"), "export OPENAI_API_KEY and set model.api_key_env=OPENAI_API_KEY"),
        (model("groq"), "export GROQ_API_KEY"),
        (model("anthropic"), "export ANTHROPIC_API_KEY"),
        (model("openai", api_key_env="NOT_THERE"), "NOT_THERE is not set"),
        (model("hosted_vllm"), "model.base_url: provider 'hosted_vllm' has no public address"),
        (model("azure", api_key_env="TEST_KEY"), "model.base_url: provider 'azure'"),
        (model("bedrock/converse", params={"aws_role_name": "x"}), "model.params.aws_role_name"),
        (model("anthropic", api_key_env="TEST_KEY", params={"logit_bias": {"1": 1}}), "model.params: LiteLLM refuses"),
    ],
)
def test_a_wrong_model_is_a_config_error_that_names_the_key(wrong: Model, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LiteLLMClient(wrong, None)
    assert said in str(caught.value)
    assert KEY not in str(caught.value)


# --- the model files -------------------------------------------------------------------------------------------------

CONF = Path(__file__).parent.parent / "conf" / "model"
LENGTHS = {"input_tokens": {"mean": 8}, "output_tokens": {"mean": 8}}
NEEDS = {
    "claude": "ANTHROPIC_API_KEY",
    "gpt": "OPENAI_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "mistral": "MISTRAL_API_KEY",
    "together": "TOGETHERAI_API_KEY",
    "groq": "GROQ_API_KEY",
    "azure": "AZURE_API_KEY",
    "databricks": "DATABRICKS_API_KEY",
    "vertex": None,
    "openai_compatible": None,
}


def shipped(name: str, **fields: Any) -> Model:
    """A model file over the schema's defaults, its mandatory keys filled in."""
    tree: Any = OmegaConf.to_container(
        OmegaConf.merge(defaults(), {"model": OmegaConf.load(CONF / f"{name}.yaml")}, {"workload": LENGTHS})
    )
    filled = {"name": "some-model", "base_url": "http://127.0.0.1:9/v1"}
    given = {key: filled[key] if value == "???" else value for key, value in tree["model"].items()}
    return load(tree | {"model": given | fields}).model


@pytest.mark.parametrize(("name", "variable"), NEEDS.items())
def test_a_model_file_loads_and_names_the_variable_that_it_needs(
    name: str, variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = shipped(name)
    assert asked.api_key_env == variable
    assert asked.rehearsal.ttft.mean_s > 0
    if variable is not None:
        monkeypatch.delenv(variable, raising=False)
        [problem] = credentials.problems(asked)
        assert problem.startswith(f"model.api_key_env: environment variable {variable} is not set")


def test_what_would_send_a_request_again_is_refused() -> None:
    again = {"num_retries": 3, "max_retries": 2, "fallbacks": ["gpt-4o"]}
    tree = {"name": "m", "api": "litellm", "provider": "openai", "base_url": "http://127.0.0.1:1/v1"}
    lines = credentials.problems(Model.model_validate({**tree, "params": again}))
    assert [line.partition(": each request is one attempt")[0] for line in lines] == [
        f"model.params.{key}" for key in again
    ]
    assert not credentials.problems(Model.model_validate({**tree, "params": dict.fromkeys(again, 0)}))


@pytest.mark.parametrize("name", NEEDS)
def test_a_model_file_s_request_can_be_taken_off_litellm_and_redirected(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = NEEDS[name]
    if variable is not None:
        monkeypatch.setenv(variable, KEY)
    asked = shipped(name, api="litellm", base_url="http://127.0.0.1:9/v1")
    client = LiteLLMClient(asked, asked.base_url)
    made = client.prepare(request("the text of the prompt"))
    assert not client.times_itself
    assert (client.target.host, client.target.port) == ("127.0.0.1", 9)
    assert wire_of(made.path.partition("?")[0]) is not None
    assert b"the text of the prompt" in made.body
    assert variable is None or any(KEY in value for _, value in made.headers)


# --- answers that only LiteLLM can read ------------------------------------------------------------------------------


def lines(*texts: str, usage: dict[str, int] | None = None) -> list[bytes]:
    """Ollama's wire: a JSON object a line."""
    said = [{"model": "m", "message": {"role": "assistant", "content": text}, "done": False} for text in texts]
    end = {"model": "m", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
    return [json.dumps(tree).encode() + b"\n" for tree in (*said, end | (usage or {}))]


def response(pieces: list[bytes], *, complete: bool = True) -> Response:
    body = [(1000 * at, piece) for at, piece in enumerate(pieces)]
    return Response(200, {"content-type": "text/event-stream"}, body, complete)


@pytest.fixture(scope="module")
def stranger() -> LiteLLMClient:
    """A provider whose answers LiteLLM is made to read."""
    return LiteLLMClient(model("ollama_chat", base_url="http://127.0.0.1:9"), "http://127.0.0.1:9")


def test_a_replayed_answer_carries_the_stamps_of_the_wire(stranger: LiteLLMClient) -> None:
    pieces = lines("Hel", "lo", "!", usage={"prompt_eval_count": 5, "eval_count": 3})
    answer = stranger.explain_slowly(response([pieces[0][:9], pieces[0][9:] + pieces[1], *pieces[2:]]))
    assert answer.events == [
        TokenEvent(1000, "answer", "Hel"),
        TokenEvent(1000, "answer", "lo"),
        TokenEvent(2000, "answer", "!"),
    ]
    assert (answer.usage, answer.finish_reason, answer.finished, answer.failure) == (Usage(5, 3), "stop", True, None)


def test_litellm_s_guess_at_usage_is_not_the_server_s(stranger: LiteLLMClient) -> None:
    answer = stranger.explain_slowly(response(lines("Hel", "lo")))
    assert answer.usage == Usage()
    assert len(answer.events) == 2


def test_a_model_may_repeat_itself(stranger: LiteLLMClient) -> None:
    assert len(stranger.explain_slowly(response(lines(*["again "] * 300))).events) == 300


def test_a_replayed_cut_and_garbage_are_failures_with_what_was_timed(stranger: LiteLLMClient) -> None:
    cut = stranger.explain_slowly(response(lines("Hel", "lo")[:-1], complete=False))
    assert cut.failure is not None
    assert (cut.failure.error_class, [token.at_ns for token in cut.events]) == ("cut", [0, 1000])
    garbage = stranger.explain_slowly(response([b"{not json\n"]))
    assert (garbage.events, garbage.finished) == ([], False)
    refused = stranger.explain_slowly(Response(429, {}, [(1, b'{"message": "slow down"}')], complete=True))
    assert refused.failure is not None
    assert (refused.failure.error_class, refused.failure.message) == ("throttled", "slow down")


def test_an_event_stream_is_replayed_as_our_decoder_reads_it() -> None:
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}} for t in ("Hel", "lo")
    ]
    trees = [
        {
            "type": "message_start",
            "message": {"id": "1", "role": "assistant", "content": [], "usage": {"input_tokens": 5}},
        },
        *deltas,
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    ]
    frames = [event("chunk", {"bytes": base64.b64encode(json.dumps(tree).encode()).decode()}) for tree in trees]
    client = LiteLLMClient(model("bedrock/invoke", name="anthropic.claude-3-haiku-20240307-v1:0"), "http://127.0.0.1:9")
    recorded = Response(
        200, {"content-type": "application/vnd.amazon.eventstream"}, response(frames).body, complete=True
    )
    for answer in (client.explain(recorded), client.explain_slowly(recorded)):
        assert answer.failure is None
        assert answer.events == [TokenEvent(1000, "answer", "Hel"), TokenEvent(2000, "answer", "lo")]
        assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.finished) == (5, 2, True)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (b'data: {"code": 50501, "message": "Model is busy", "data": ""}', "50501", "Model is busy"),
        (b'error: {"code": 500, "message": "context size", "type": "server_error"}', "server_error", "context size"),
        (b'event: error\ndata: {"x": 1}', None, '{"x":1}'),
        (b'data: {"detail": "Internal"}', None, "Internal"),
        (b"data: Internal Server Error", None, "Internal Server Error"),
        (b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "abort"}]}', "abort", "reason 'abort'"),
        (b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}', "error", "reason 'error'"),
    ],
)
def test_what_litellm_passes_over_is_told_all_the_same(error: bytes, code: str | None, message: str) -> None:
    client = LiteLLMClient(model("hosted_vllm"), "http://127.0.0.1:9/v1")
    first, second, *rest = chat("Hel", "lo", "!")
    answer = client.explain_slowly(response([first, second, error + b"\n\n", *rest]))
    assert answer.failure is not None
    assert (answer.failure.error_class, answer.failure.code) == ("in_stream", code)
    assert message in answer.failure.message
    assert [token.text for token in answer.events[:2]] == ["Hel", "lo"]


@pytest.mark.parametrize(("reason", "good"), [("stop", True), ("length", True), ("load", False), ("unheard_of", False)])
def test_an_end_that_litellm_calls_a_good_one_is_the_server_s(stranger: LiteLLMClient, reason: str, good: bool) -> None:
    *said, end = lines("Hel", "lo")
    answer = stranger.explain_slowly(response([*said, end.replace(b'"stop"', f'"{reason}"'.encode())]))
    assert (answer.finish_reason, answer.failure is None, len(answer.events)) == (reason, good, 2)


@pytest.mark.parametrize(
    "first", [{"type": "ping"}, {"type": "message"}, {"usageMetadata": {}}, {"done": False, "message": {}}]
)
def test_a_heartbeat_does_not_pass_for_another_wire(first: dict[str, object]) -> None:
    client = LiteLLMClient(model("hosted_vllm"), "http://127.0.0.1:9/v1")
    answer = client.explain(response([*sse(first), *chat("Hel", "lo")]))
    assert "an object was expected" not in str(answer.failure)
    for _ in range(2):  # what the first answer looked like is not held against the later ones
        answer = client.explain(response(chat("Hel", "lo")))
        assert (answer.failure, len(answer.events)) == (None, 2)


def test_litellm_reads_what_our_decoders_read() -> None:
    client = LiteLLMClient(model("hosted_vllm"), "http://127.0.0.1:9/v1")
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    recorded = response(chat("Hel", "lo", "!", usage=usage))
    ours, theirs = client.explain(recorded), client.explain_slowly(recorded)
    assert ours.events == theirs.events
    assert ours.usage == theirs.usage == Usage(5, 3)


# --- where LiteLLM times itself --------------------------------------------------------------------------------------


def own(asked: Model, base_url: str, count: int, *, cut: bool = False) -> list[Tape]:
    """Tapes of requests that LiteLLM sends itself."""
    tapes: list[Tape] = []

    async def go() -> None:
        streams = OwnStreams((asked, base_url), lambda _, tape: tapes.append(tape))
        for index in range(count):
            sent: Any = request("hello")
            streams.submit(Exchange(index, sent, 1, 1))
        if cut:
            await asyncio.sleep(0.2)
            streams.cut_all()
        while streams.in_flight:
            await asyncio.sleep(0.01)
        await streams.close()

    litellm_sdk.run(asyncio.wait_for(go(), 30))
    return tapes


def test_a_provider_that_cannot_be_taken_is_found_out_without_sending() -> None:
    with Plain(*chat("Hello")) as server:
        base_url = server.url + "/v1"
        assert not takes_capture(model("aiohttp_openai", base_url=base_url), base_url)
        assert takes_capture(model("hosted_vllm", base_url=base_url), base_url)
    assert server.requests == []


def test_litellm_s_own_stream_becomes_a_tape_like_any_other() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    with Plain(*chat("Hel", "lo", usage=usage)) as server:
        base_url = server.url + "/v1"
        asked = model("hosted_vllm", base_url=base_url)
        tapes = own(asked, base_url, 3)
        client = LiteLLMClient(asked, base_url)
    assert len(server.requests) == len(tapes) == 3
    for tape in tapes:
        assert tape.failure is None
        assert tape.sent_ns is not None
        assert tape.sent_ns < tape.stamps[0] <= tape.stamps[-1] == tape.end_ns
        answer = client.explain(unframe(tape.stamps, tape.pieces, eof=tape.eof))
        assert "".join(token.text for token in answer.events) == "Hello"
        assert (answer.finished, answer.finish_reason, answer.usage) == (True, "stop", Usage(5, 2))


def test_litellm_s_own_failures_are_classified_after_one_attempt() -> None:
    with Plain(b'{"error": {"message": "broken"}}', status=500, content_type="application/json") as server:
        base_url = server.url + "/v1"
        [tape] = own(model("hosted_vllm", base_url=base_url), base_url, 1)
    assert len(server.requests) == 1
    assert tape.failure is not None
    assert tape.failure.error_class == "server"
    [tape] = own(model("hosted_vllm", base_url="http://127.0.0.1:9/v1"), "http://127.0.0.1:9/v1", 1)
    assert tape.failure is not None
    assert tape.failure.error_class == "connect"


@pytest.mark.parametrize("provider", ["hosted_vllm", "openai"])
def test_an_own_stream_that_the_server_cuts_was_one_attempt_and_is_no_error_of_the_server(provider: str) -> None:
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def read_and_close() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    heads.append(connection.recv(2**16))
                    threading.Event().wait(0.2)

        thread = threading.Thread(target=read_and_close)
        thread.start()
        base_url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        [tape] = own(model(provider, base_url=base_url), base_url, 1)
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert len(heads) == 1
    assert tape.failure is not None
    assert (tape.failure.error_class, tape.failure.code) == ("cut", None), "it may have been billed"


def test_an_own_stream_that_is_cut_is_unfinished() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        base_url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        [tape] = own(model("hosted_vllm", base_url=base_url), base_url, 1, cut=True)
    assert (tape.unfinished, tape.failure) == (True, None)


@pytest.mark.parametrize(("provider", "params"), [("openai", {"reasoning_effort": "low"}), ("azure", {})])
def test_what_litellm_would_send_by_another_route_is_refused_and_never_sent(
    provider: str, params: dict[str, Any]
) -> None:
    """With tools, LiteLLM turns from chat completions to Responses for these models."""
    tools = (Tool("look_up", parameters={"type": "object", "properties": {}}),)
    with Plain(*chat("never"), content_type="application/json") as server:
        asked = model(provider, "gpt-5.4", params=params, base_url=f"{server.url}/v1")
        client = LiteLLMClient(asked, asked.base_url)
        assert client.prepare(request("a question in plain words")).path.partition("?")[0].endswith("/chat/completions")
        with pytest.raises(ConfigError, match=r"to \S*/responses instead of \S*/chat/completions.*model\.api=openai"):
            client.prepare(request("a question with a “tool”", tools=tools))
        assert server.requests == []
