"""ConverseStream against a server that verifies signatures from the raw request, beside boto3 itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config as BotoConfig
from botocore.exceptions import ClientError, EventStreamError
from support.aws_server import (
    ACCESS_KEY,
    BEARER,
    SECRET_KEY,
    SESSION_TOKEN,
    AwsServer,
    Reply,
    call,
    clean_environment,
    converse,
    event,
    exception,
    frame,
    model_of,
    refusal,
    request_of,
    throttled,
)

from llmexp.clients.base import Answer, Response, Usage
from llmexp.clients.bedrock import BedrockClient, converse_body, explain
from llmexp.errors import ConfigError, JobError
from llmexp.workload.request import Message, Request

pytestmark = pytest.mark.service

TEXTS = ["Hel", "lo", " wörld"]
ARN = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc.d:0"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


def _ask(client: BedrockClient, request: Request | None = None) -> tuple[Response, Answer]:
    response = call(client.sign(client.prepare(request or request_of())), client.target)
    return response, client.explain(response)


@contextmanager
def _boto(url: str, service: str = "bedrock-runtime") -> Iterator[Any]:
    """A boto3 client with one attempt, its sockets closed at the end."""
    config = BotoConfig(retries={"total_max_attempts": 1}, read_timeout=5)
    with closing(boto3.Session().client(service, endpoint_url=url, config=config)) as client:
        yield client


def _boto_events(url: str) -> list[dict[str, Any]]:
    with _boto(url) as boto:
        answer = boto.converse_stream(modelId="m.x", messages=[{"role": "user", "content": [{"text": "Hi"}]}])
        with closing(answer["stream"]) as stream:
            return list(stream)


def _of(frames: list[bytes]) -> Answer:
    return explain(Response(200, {}, [(at, data) for at, data in enumerate(frames)], complete=True))


# --- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["us.anthropic.claude-sonnet-4-6", "anthropic.claude-3-sonnet-20240229-v1:0", ARN])
def test_what_goes_out_is_what_boto3_sends_for_the_same(name: str) -> None:
    params = {"temperature": 0.5, "stop": "END", "top_k": 5, "performanceConfig": {"latency": "optimized"}}
    request = Request(
        0,
        (Message("system", "Be brief."), Message("user", "Hi")),
        max_tokens=9,
        input_tokens=1,
        prompt_digest="",
    )
    with AwsServer("bedrock", Reply(converse(TEXTS))) as server:
        _ask(BedrockClient(model_of(name=name, params=params), server.url), request)
        with _boto(server.url) as boto:
            boto.converse_stream(
                modelId=name,
                system=[{"text": "Be brief."}],
                messages=[{"role": "user", "content": [{"text": "Hi"}]}],
                inferenceConfig={"maxTokens": 9, "temperature": 0.5, "stopSequences": ["END"]},
                additionalModelRequestFields={"top_k": 5},
                performanceConfig={"latency": "optimized"},
            )["stream"].close()
    ours, theirs = server.requests
    assert server.refused == []
    assert (ours.method, ours.path) == (theirs.method, theirs.path)
    assert ours.json == theirs.json
    assert ours.header("content-type") == theirs.header("content-type") == "application/json"


def test_answer_equals_what_boto3_reads() -> None:
    with AwsServer("bedrock", Reply(converse(TEXTS, stop="max_tokens"))) as server:
        _, answer = _ask(BedrockClient(model_of(), server.url))
        theirs = _boto_events(server.url)
    assert [e.text for e in answer.events] == [
        e["contentBlockDelta"]["delta"]["text"] for e in theirs if "contentBlockDelta" in e
    ]
    metadata = theirs[-1]["metadata"]
    assert answer.usage == Usage(metadata["usage"]["inputTokens"], metadata["usage"]["outputTokens"])
    assert answer.server_latency_s == metadata["metrics"]["latencyMs"] / 1000
    assert (answer.finish_reason, answer.finished, answer.failure) == ("max_tokens", True, None)


def test_stamps_follow_the_frames() -> None:
    with AwsServer("bedrock", Reply(converse(TEXTS), gap_s=0.02)) as server:
        _, answer = _ask(BedrockClient(model_of(), server.url))
    stamps = [event.at_ns for event in answer.events]
    assert len(stamps) == 3
    assert all(later - earlier > 10e6 for earlier, later in pairwise(stamps))


def test_reads_of_a_few_bytes_change_nothing() -> None:
    with AwsServer("bedrock", Reply(converse(TEXTS), piece_bytes=1)) as server:
        response, answer = _ask(BedrockClient(model_of(), server.url))
    assert response.complete
    assert [event.text for event in answer.events] == TEXTS
    assert answer.finished


def test_a_connection_lost_anywhere_keeps_what_came_and_never_raises() -> None:
    whole = b"".join(converse(TEXTS))
    lengths = {len([1 for e in _of([whole[:cut]]).events]) for cut in range(len(whole))}
    assert lengths == {0, 1, 2, 3}
    assert all(_of([whole[:cut]]).failure is None for cut in range(len(whole)))
    with AwsServer("bedrock", Reply(converse(TEXTS), cut_at=len(whole) // 2)) as server:
        response, answer = _ask(BedrockClient(model_of(), server.url))
    assert not response.complete
    assert not answer.finished


def test_max_tokens_always_goes_out_and_params_win() -> None:
    assert converse_body(request_of(max_tokens=7), {})["inferenceConfig"] == {"maxTokens": 7}
    given = {"inferenceConfig": {"maxTokens": 3, "topP": 0.9}, "max_tokens": 5, "thinking": {"type": "disabled"}}
    body = converse_body(request_of(), given)
    assert body["inferenceConfig"] == {"maxTokens": 5, "topP": 0.9}
    assert body["additionalModelRequestFields"] == {"thinking": {"type": "disabled"}}
    assert given["inferenceConfig"] == {"maxTokens": 3, "topP": 0.9}
    taken = {"temperature": None, "max_tokens": None, "thinking": None, "guardrailConfig": None}
    assert converse_body(request_of(max_tokens=7), taken) == converse_body(request_of(max_tokens=7), {})


def test_neighbours_of_one_role_share_a_message() -> None:
    turns = [("user", "a"), ("user", "b"), ("assistant", "c"), ("user", "d")]
    messages = tuple(Message(role, text) for role, text in turns)
    body = converse_body(Request(0, messages, 1, 1, ""), {})
    assert [(m["role"], len(m["content"])) for m in body["messages"]] == [("user", 2), ("assistant", 1), ("user", 1)]
    assert "system" not in body


def test_prefix_of_the_base_url_and_own_headers_are_signed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM", "blue")
    with AwsServer("bedrock", Reply(converse(TEXTS))) as server:
        model = model_of(headers={"X-Amzn-Bedrock-Trace": "ENABLED"}, headers_env={"x-team": "TEAM"})
        _ask(BedrockClient(model, f"{server.url}/gateway/"))
    [seen] = server.requests
    assert server.refused == []
    assert seen.path.startswith("/gateway/model/us.anthropic")
    assert (seen.header("x-team"), seen.header("x-amzn-bedrock-trace")) == ("blue", "ENABLED")


# --- signatures and credentials --------------------------------------------------------------------------------------


def test_an_altered_body_is_refused() -> None:
    with AwsServer("bedrock", Reply(converse(TEXTS))) as server:
        client = BedrockClient(model_of(), server.url)
        signed = client.sign(client.prepare(request_of()))
        altered = type(signed)(signed.method, signed.path, signed.headers, signed.body.replace(b"Write.", b"Write!"))
        answer = client.explain(call(altered, client.target))
        assert client.explain(call(signed, client.target)).failure is None
    assert answer.failure is not None
    assert (answer.failure.error_class, answer.failure.code) == ("auth", "InvalidSignatureException")
    assert "does not match" in answer.failure.message


def test_an_old_signature_is_refused_and_a_new_one_replaces_it() -> None:
    with AwsServer("bedrock", Reply(converse(TEXTS)), clock_ahead_s=301) as late:
        client = BedrockClient(model_of(), late.url)
        answer = client.explain(call(client.sign(client.prepare(request_of())), client.target))
    assert answer.failure is not None
    assert answer.failure.error_class == "auth"
    assert "Signature expired" in answer.failure.message
    with AwsServer("bedrock", Reply(converse(TEXTS)), clock_ahead_s=295) as server:
        client = BedrockClient(model_of(), server.url)
        twice = client.sign(client.sign(client.prepare(request_of())))
        assert [name.lower() for name, _ in twice.headers].count("authorization") == 1
        assert client.explain(call(twice, client.target)).failure is None


def test_wrong_key_and_wrong_region() -> None:
    with AwsServer("bedrock", Reply(converse(TEXTS)), region="eu-west-1") as server:
        _, answer = _ask(BedrockClient(model_of(), server.url))
        assert answer.failure is not None
        assert "valid region" in answer.failure.message
        _, answer = _ask(BedrockClient(model_of(region="eu-west-1"), server.url))
        assert answer.failure is None
        server.keys.clear()
        _, answer = _ask(BedrockClient(model_of(region="eu-west-1"), server.url))
        assert answer.failure is not None
        assert (answer.failure.error_class, answer.failure.code) == ("auth", "UnrecognizedClientException")


def test_bearer_key_takes_the_signatures_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", BEARER)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with AwsServer("bedrock", Reply(converse(TEXTS))) as server:
        _, answer = _ask(BedrockClient(model_of(), server.url))
    assert answer.failure is None
    assert server.requests[0].header("authorization") == f"Bearer {BEARER}"


def test_the_models_own_key_variable_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "another")
    monkeypatch.setenv("TEAM_KEY", BEARER)
    with AwsServer("bedrock", Reply(converse(TEXTS))) as server:
        _, answer = _ask(BedrockClient(model_of(api_key_env="TEAM_KEY"), server.url))
    assert answer.failure is None


def _profile(folder: Path, text: str, name: str = "credentials") -> None:
    (folder / name).write_text(text)
    stamp = (folder / name).stat().st_mtime_ns + len(text) * 1_000_000
    os.utime(folder / name, ns=(stamp, stamp))


def test_a_rewritten_credentials_file_is_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    _profile(tmp_path, f"[team]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n")
    with AwsServer("bedrock", Reply(converse(TEXTS))) as server:
        client = BedrockClient(model_of(profile="team"), server.url)
        assert _ask(client)[1].failure is None
        _profile(
            tmp_path,
            f"[team]\naws_access_key_id = {ACCESS_KEY}TEMP\naws_secret_access_key = {SECRET_KEY}\n"
            f"aws_session_token = {SESSION_TOKEN}\n",
        )
        assert _ask(client)[1].failure is None
    assert [seen.header("x-amz-security-token") for seen in server.requests] == [None, SESSION_TOKEN]


def test_credentials_that_expire_are_fetched_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A credential process whose answers live for a minute: botocore refreshes those at each signature."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    script = tmp_path / "issue.py"
    script.write_text(
        "import datetime, json, pathlib\n"
        f"log = pathlib.Path({str(tmp_path / 'calls')!r})\n"
        "log.write_text(log.read_text() + 'x' if log.exists() else 'x')\n"
        "end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=1)\n"
        f"print(json.dumps(dict(Version=1, AccessKeyId={ACCESS_KEY + 'TEMP'!r}, SecretAccessKey={SECRET_KEY!r},\n"
        f"    SessionToken={SESSION_TOKEN!r}, Expiration=end.isoformat())))\n"
    )
    _profile(tmp_path, f"[profile p]\nregion = us-east-1\ncredential_process = python {script}\n", "config")
    with AwsServer("bedrock", Reply(converse(TEXTS))) as server:
        client = BedrockClient(model_of(profile="p"), server.url)
        assert [_ask(client)[1].failure for _ in range(2)] == [None, None]
    assert len((tmp_path / "calls").read_text()) >= 2


def test_no_credentials_is_a_job_error_that_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    client = BedrockClient(model_of(), "http://127.0.0.1:9")
    with pytest.raises(JobError, match="AWS_ACCESS_KEY_ID"):
        client.sign(client.prepare(request_of()))


# --- where it goes ---------------------------------------------------------------------------------------------------


def test_endpoint_as_boto3_finds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def address(**fields: Any) -> tuple[str, str]:
        target = BedrockClient(model_of(**fields)).target
        return target.scheme, target.authority

    assert address() == ("https", "bedrock-runtime.us-east-1.amazonaws.com")
    assert address(region="cn-north-1") == ("https", "bedrock-runtime.cn-north-1.amazonaws.com.cn")
    (tmp_path / "config").write_text(
        "[profile vpc]\nregion = eu-west-1\nservices = inner\n"
        "[services inner]\nbedrock_runtime =\n  endpoint_url = https://vpce.example:8443\n"
    )
    assert address(profile="vpc") == ("https", "vpce.example:8443")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert address() == ("http", "127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://127.0.0.1:2")
    assert address() == ("http", "127.0.0.1:2")
    assert BedrockClient(model_of(), "http://127.0.0.1:3").target.port == 3


def test_region_from_wherever_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(ConfigError, match=r"model\.region"):
        BedrockClient(model_of())
    assert BedrockClient(model_of(name=ARN)).target.host == "bedrock-runtime.eu-west-1.amazonaws.com"
    assert BedrockClient(model_of(), "http://127.0.0.1:3").target.port == 3
    monkeypatch.setenv("AWS_REGION_NAME", "ap-south-1")
    assert BedrockClient(model_of()).target.host == "bedrock-runtime.ap-south-1.amazonaws.com"
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert BedrockClient(model_of()).target.host == "bedrock-runtime.us-west-2.amazonaws.com"


@pytest.mark.parametrize("field", [{"region": "not a region"}, {"profile": "nobody"}])
def test_wrong_region_or_profile_is_a_config_error(field: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(field.values()))):
        BedrockClient(model_of(**field))


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status", "expected"),
    [
        ("ThrottlingException", 429, "throttled"),
        ("ServiceQuotaExceededException", 400, "throttled"),
        ("AccessDeniedException", 403, "auth"),
        ("ExpiredTokenException", 400, "auth"),
        ("ResourceNotFoundException", 404, "not_found"),
        ("ValidationException", 400, "bad_request"),
        ("ModelTimeoutException", 408, "server"),
        ("ModelErrorException", 424, "server"),
        ("InternalServerException", 500, "server"),
        ("ServiceUnavailableException", 503, "server"),
    ],
)
def test_error_answers(name: str, status: int, expected: str) -> None:
    with AwsServer("bedrock", refusal(name, "because", status)) as server:
        response, answer = _ask(BedrockClient(model_of(), server.url))
    assert response.status == status
    assert answer.failure is not None
    assert (answer.failure.error_class, answer.failure.code, answer.failure.message) == (expected, name, "because")


def test_error_answer_in_a_shape_of_its_own() -> None:
    def failure(status: int, body: bytes) -> tuple[str, str | None]:
        found = explain(Response(status, {}, [(1, body)], complete=True)).failure
        assert found is not None
        return found.error_class, found.code

    assert failure(503, b"<html>gone</html>") == ("server", "503")
    assert failure(400, b'{"__type":"com.amazon.coral#ThrottlingException"}') == ("throttled", "ThrottlingException")
    assert failure(403, b"[]") == ("auth", "403")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("throttlingException", "throttled"),
        ("modelStreamErrorException", "in_stream"),
        ("internalServerException", "in_stream"),
        ("serviceUnavailableException", "in_stream"),
        ("validationException", "in_stream"),
    ],
)
def test_exceptions_inside_the_stream(kind: str, expected: str) -> None:
    frames = [*converse(TEXTS)[:3], exception(kind, {"message": "half way"})]
    with AwsServer("bedrock", Reply(frames)) as server:
        _, answer = _ask(BedrockClient(model_of(), server.url))
        with pytest.raises(EventStreamError) as theirs:
            _boto_events(server.url)
    assert answer.failure is not None
    assert (answer.failure.error_class, answer.failure.code) == (expected, kind)
    assert theirs.value.response["Error"] == {"Code": kind, "Message": answer.failure.message}
    assert [event.text for event in answer.events] == TEXTS[:2]
    assert not answer.finished


def test_error_frames_and_damage() -> None:
    error = frame({":message-type": "error", ":error-code": "InternalError", ":error-message": "oops"}, b"")
    failed = _of([*converse(TEXTS)[:2], error]).failure
    assert failed is not None
    assert (failed.error_class, failed.code, failed.message) == ("in_stream", "InternalError", "oops")
    delta = "contentBlockDelta"
    for bad in (b"x" * 40, event(delta, b"{"), event(delta, {"delta": 3})):
        answer = _of([*converse(TEXTS)[:2], bad])
        assert answer.failure is not None
        assert answer.failure.error_class == "malformed"
        assert [e.text for e in answer.events] == TEXTS[:1]


def test_reasoning_tools_and_cache() -> None:
    deltas = [
        {"reasoningContent": {"text": "Hmm"}},
        {"reasoningContent": {"signature": "c2ln"}},
        {"text": ""},
        {"text": "Yes"},
        {"toolUse": {"input": '{"a"'}},
    ]
    frames = [event("contentBlockDelta", {"contentBlockIndex": 0, "delta": delta}) for delta in deltas]
    usage = {"inputTokens": 4, "outputTokens": 9, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 20}
    answer = _of([*frames, *converse([], usage=usage)])
    assert [(e.kind, e.text) for e in answer.events] == [("reasoning", "Hmm"), ("answer", "Yes"), ("tool", '{"a"')]
    assert answer.usage == Usage(input_tokens=124, output_tokens=9, cached_tokens=100, cache_write_tokens=20)
    assert answer.reasoning_summarised
    assert not _of([frames[0], *converse([])]).reasoning_summarised


def test_unknown_events_are_passed_over() -> None:
    answer = _of([event("somethingNew", b"not json"), *converse(TEXTS)])
    assert (answer.finished, answer.failure) == (True, None)


def test_boto3_is_throttled_by_the_same_server() -> None:
    with AwsServer("bedrock", throttled()) as server:
        with pytest.raises(ClientError) as theirs:
            _boto_events(server.url)
        _, answer = _ask(BedrockClient(model_of(), server.url))
    assert len(server.requests) == 2
    assert answer.failure is not None
    assert answer.failure.code == theirs.value.response["Error"]["Code"]
    assert answer.failure.message == theirs.value.response["Error"]["Message"]


def test_body_is_plain_json() -> None:
    client = BedrockClient(model_of(), "http://127.0.0.1:9")
    http = client.prepare(request_of("ünïcode"))
    assert json.loads(http.body)["messages"][0]["content"] == [{"text": "ünïcode"}]
    assert not any(name.lower() == "authorization" for name, _ in http.headers)
    assert client.signature_lifetime_s == 60
