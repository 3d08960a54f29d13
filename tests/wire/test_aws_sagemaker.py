"""InvokeEndpointWithResponseStream against a server that verifies signatures, beside boto3 itself."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config as BotoConfig
from support.aws_server import (
    AwsServer,
    Reply,
    call,
    clean_environment,
    event,
    exception,
    model_of,
    parts,
    refusal,
    request_of,
)

from llmexp.clients.base import Answer, Response, Usage
from llmexp.clients.sagemaker import SageMakerClient, chat_body, explain, text_body
from llmexp.config import Model

pytestmark = pytest.mark.service

TEXTS = ["Hel", "lo", " wörld"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


def _model(payload: str = "messages", **fields: Any) -> Model:
    deployment = {"kind": "sagemaker", "payload": payload} | fields.pop("deployment", {})
    return model_of(name="llama-3", api="sagemaker", deployment=deployment, **fields)


def _ask(client: SageMakerClient, **request: Any) -> tuple[Response, Answer]:
    response = call(client.sign(client.prepare(request_of(**request))), client.target)
    return response, client.explain(response)


def _data(*trees: Any) -> bytes:
    return b"".join(b"data: " + (t if isinstance(t, bytes) else json.dumps(t).encode()) + b"\n\n" for t in trees)


def _chat_stream() -> bytes:
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} for text in TEXTS]
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}}
    return _data(*chunks, last, usage, b"[DONE]")


def _tokens() -> list[dict[str, Any]]:
    trees: list[dict[str, Any]] = [
        {"index": at, "token": {"id": at, "text": text, "logprob": -0.1, "special": False}, "generated_text": None}
        for at, text in enumerate(TEXTS)
    ]
    details = {"finish_reason": "eos_token", "generated_tokens": 4, "input_length": 6}
    special = {"id": 2, "text": "</s>", "logprob": 0.0, "special": True}
    return [*trees, {"index": 4, "token": special, "generated_text": "".join(TEXTS), "details": details}]


def _tgi_stream() -> bytes:
    return b"".join(b"data:" + json.dumps(tree).encode() + b"\n\n" for tree in _tokens())


def _djl_stream() -> bytes:
    trees = [{"token": {"id": tree["index"], "text": text}} for tree, text in zip(_tokens(), TEXTS, strict=False)]
    details = {"finish_reason": "length", "generated_tokens": 3, "inputs": None}
    last = trees[-1] | {"details": details, "generated_text": "".join(TEXTS)}
    return b"".join(json.dumps(tree, ensure_ascii=False).encode() + b"\n" for tree in [*trees[:-1], last])


STREAMS = {
    "messages": (_chat_stream(), Usage(5, 3), "length"),
    "tgi": (_tgi_stream(), Usage(6, 4), "eos_token"),
    "djl": (_djl_stream(), Usage(None, 3), "length"),
}


def _of(frames: list[bytes], *, complete: bool = True) -> Answer:
    return explain(Response(200, {}, list(enumerate(frames)), complete=complete))


def _boto_bytes(url: str, **arguments: Any) -> bytes:
    config = BotoConfig(retries={"total_max_attempts": 1}, read_timeout=5)
    with closing(boto3.Session().client("sagemaker-runtime", endpoint_url=url, config=config)) as boto:
        answer = boto.invoke_endpoint_with_response_stream(EndpointName="llama-3", **arguments)
        with closing(answer["Body"]) as stream:
            return b"".join(part["PayloadPart"]["Bytes"] for part in stream)


# --- over the wire ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", STREAMS)
def test_boto3_and_we_send_and_read_the_same(payload: str) -> None:
    stream, usage, reason = STREAMS[payload]
    with AwsServer("sagemaker", Reply(parts(stream, 50))) as server:
        client = SageMakerClient(_model(payload, deployment={"inference_component": "ic-1"}), server.url)
        _, answer = _ask(client)
        theirs = _boto_bytes(
            server.url,
            Body=client.prepare(request_of()).body,
            ContentType="application/json",
            InferenceComponentName="ic-1",
        )
    ours, sent = server.requests
    assert server.refused == []
    assert (ours.method, ours.path, ours.body) == (sent.method, sent.path, sent.body)
    for name in ("content-type", "x-amzn-sagemaker-inference-component"):
        assert ours.header(name) == sent.header(name) is not None
    assert theirs == stream
    assert [event.text for event in answer.events] == TEXTS
    assert (answer.usage, answer.finish_reason) == (usage, reason)
    assert (answer.finished, answer.failure) == (True, None)


def test_an_altered_body_is_refused() -> None:
    with AwsServer("sagemaker", Reply(parts(_chat_stream(), 50))) as server:
        client = SageMakerClient(_model(), server.url)
        signed = client.sign(client.prepare(request_of()))
        altered = type(signed)(signed.method, signed.path, signed.headers, signed.body + b" ")
        answer = client.explain(call(altered, client.target))
    assert answer.failure is not None
    assert (answer.failure.error_class, answer.failure.code) == ("auth", "InvalidSignatureException")


def test_target_variant_and_endpoint_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with AwsServer("sagemaker", Reply(parts(_chat_stream(), 50))) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", server.url)
        _, answer = _ask(SageMakerClient(_model(deployment={"target_variant": "blue"})))
    assert server.requests[0].header("X-Amzn-SageMaker-Target-Variant") == "blue"
    assert server.requests[0].path == "/endpoints/llama-3/invocations-response-stream"
    assert answer.finished
    monkeypatch.delenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME")
    assert SageMakerClient(_model(region="eu-west-1")).target.host == "runtime.sagemaker.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("name", "status", "body", "expected"),
    [
        ("ModelError", 424, {"Message": "oom", "OriginalStatusCode": 500}, "server"),
        ("ModelError", 424, {"Message": "bad parameter", "OriginalStatusCode": 422}, "bad_request"),
        ("ModelError", 424, {"Message": "busy", "OriginalStatusCode": 429}, "throttled"),
        ("ModelNotReadyException", 429, {"Message": "loading"}, "server"),
        ("ThrottlingException", 400, {"message": "Rate exceeded"}, "throttled"),
        ("ValidationError", 400, {"message": "Endpoint llama-3 of account 123456789012 not found."}, "not_found"),
        ("ValidationError", 400, {"message": "Inference Component Name header is required"}, "bad_request"),
        ("AccessDeniedException", 403, {"message": "no"}, "auth"),
        ("InternalFailure", 500, {"Message": "sorry"}, "server"),
    ],
)
def test_error_answers(name: str, status: int, body: dict[str, Any], expected: str) -> None:
    reply = refusal(name, "", status)
    reply.body = json.dumps(body).encode()
    with AwsServer("sagemaker", reply) as server:
        _, answer = _ask(SageMakerClient(_model(), server.url))
    assert answer.failure is not None
    assert (answer.failure.error_class, answer.failure.code) == (expected, name)
    assert answer.failure.message == (body.get("Message") or body["message"])


# --- cuts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", STREAMS)
def test_parts_cut_at_every_byte_mean_the_same(payload: str) -> None:
    stream, usage, reason = STREAMS[payload]
    for cut in range(1, len(stream)):
        answer = _of([event("PayloadPart", piece) for piece in (stream[:cut], stream[cut:])])
        assert [event.text for event in answer.events] == TEXTS
        assert (answer.usage, answer.finish_reason, answer.failure) == (usage, reason, None)


@pytest.mark.parametrize("payload", STREAMS)
def test_one_byte_parts_and_one_part_for_all(payload: str) -> None:
    stream, usage, _ = STREAMS[payload]
    small, whole = _of(parts(stream, 1)), _of(parts(stream, len(stream)))
    assert [e.text for e in small.events] == [e.text for e in whole.events] == TEXTS
    assert small.usage == whole.usage == usage
    assert len({e.at_ns for e in whole.events}) == 1
    assert sorted({e.at_ns for e in small.events}) == [e.at_ns for e in small.events]
    assert len({e.at_ns for e in small.events}) == len(TEXTS)


@pytest.mark.parametrize("payload", STREAMS)
def test_a_connection_lost_anywhere_keeps_what_came(payload: str) -> None:
    frames = b"".join(parts(STREAMS[payload][0], 23))
    answers = [_of([frames[:cut]], complete=False) for cut in range(len(frames))]
    assert [answer.failure for answer in answers] == [None] * len(frames)
    assert {len(answer.events) for answer in answers} >= {0, 1, 2}
    assert not answers[len(frames) // 3].finished


# --- failures in the stream ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        ("InternalStreamFailure", {"Message": "broken"}, "broken"),
        ("ModelStreamError", {"Message": "late", "ErrorCode": "ModelInvocationTimeExceeded"}, "Exceeded: late"),
    ],
)
def test_exceptions_end_the_stream_and_keep_what_came(kind: str, body: dict[str, str], message: str) -> None:
    stream = _chat_stream()
    answer = _of([*parts(stream[: len(stream) // 3], 20), exception(kind, body)])
    assert answer.failure is not None
    assert (answer.failure.error_class, answer.failure.code) == ("in_stream", kind)
    assert answer.failure.message.endswith(message)
    assert [e.text for e in answer.events] == TEXTS[:1]


@pytest.mark.parametrize(
    "stream",
    [
        _data({"choices": [{"delta": {"content": "Hel"}}]}, {"error": {"message": "oom", "code": 500}}),
        _data(_tokens()[0], {"error": "Request failed during generation", "error_type": "generation"}),
        json.dumps(_tokens()[0]).encode() + b'\n{"error": "oom", "code": 500}\n',
        _data(
            {"token": {"text": "Hel", "error_msg": None}},
            {"token": {"text": ""}, "details": {"finish_reason": "error"}},
        ),
    ],
)
def test_errors_that_the_container_streams(stream: bytes) -> None:
    answer = _of(parts(stream, 30))
    assert answer.failure is not None
    assert answer.failure.error_class == "in_stream"
    assert [e.text for e in answer.events] == ["Hel"]


def test_bytes_that_are_no_stream_are_malformed() -> None:
    for frames in ([b"\0" * 32], parts(b"<html>no</html>", 5), parts(b'{"token": {}} nonsense', 5)):
        answer = _of(frames)
        assert answer.failure is not None
        assert answer.failure.error_class == "malformed"


@pytest.mark.parametrize(
    "body",
    [
        [{"generated_text": "Hi"}],
        {"generated_text": "Hi"},
        {"outputs": ["Hi"]},
        {"choices": [{"message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]},
    ],
)
def test_a_container_that_does_not_stream_still_answers(body: Any) -> None:
    answer = _of(parts(json.dumps(body, indent=1).encode(), 7))
    assert [e.text for e in answer.events] == ["Hi"]
    assert answer.failure is None


# --- requests --------------------------------------------------------------------------------------------------------


def test_chat_body() -> None:
    body = chat_body(_model(params={"temperature": 0, "top_p": None}), request_of(max_tokens=9, force_output=True))
    assert body == {
        "messages": [{"role": "user", "content": "Write."}],
        "max_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "min_tokens": 9,
        "temperature": 0,
    }
    assert chat_body(_model(params={"model": "lora-1"}), request_of())["model"] == "lora-1"


def test_text_body() -> None:
    params = {"temperature": 0.5, "adapters": ["a"], "parameters": {"do_sample": True}}
    assert text_body(_model("tgi", params=params), request_of(max_tokens=9)) == {
        "inputs": "Write.",
        "stream": True,
        "adapters": ["a"],
        "parameters": {"max_new_tokens": 9, "details": True, "temperature": 0.5, "do_sample": True},
    }
    taken = text_body(_model("tgi", params={"temperature": None, "details": None, "stream": None}), request_of())
    assert (set(taken), set(taken["parameters"])) == ({"inputs", "parameters"}, {"max_new_tokens"})
    forced = text_body(_model("djl"), request_of(max_tokens=9, force_output=True))["parameters"]
    assert (forced["min_new_tokens"], forced["ignore_eos_token"]) == (9, True)
