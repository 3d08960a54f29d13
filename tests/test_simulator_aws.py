"""The AWS wires as AWS would serve them: boto3 reads them, and signatures are checked."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import openai
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, EventStreamError
from support.simulated import PROMPT, body, simulator

from llmexp.endpoints.simulator.sigv4 import Refused, Signed, refusal
from llmexp.workload import words

pytestmark = pytest.mark.service

KEYS = ("AKIATEST", "secret", "a/session+token=")
MODEL = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4:0"


def client(service: str, address: str, secret: str = KEYS[1]) -> closing[Any]:
    found = boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=address,
        aws_access_key_id=KEYS[0],
        aws_secret_access_key=secret,
        aws_session_token=KEYS[2],
        config=Config(retries={"total_max_attempts": 1}),
    )
    return closing(found)


def converse(address: str, **options: Any) -> list[dict[str, Any]]:
    messages = [{"role": "user", "content": [{"text": PROMPT}]}]
    with client("bedrock-runtime", address, **options) as bedrock:
        answer = bedrock.converse_stream(modelId=MODEL, messages=messages, inferenceConfig={"maxTokens": 6})
        with closing(answer["stream"]) as stream:
            return list(stream)


def test_boto3_reads_converse_stream(tmp_path: Path) -> None:
    with simulator(tmp_path, aws=KEYS, reasoning_tokens=2) as running:
        events = converse(running.address)
    names = [next(iter(event)) for event in events]
    assert names == [
        "messageStart",
        *["contentBlockDelta"] * 2,
        "contentBlockStop",
        *["contentBlockDelta"] * 4,
        "contentBlockStop",
        "messageStop",
        "metadata",
    ]
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    assert words.count("".join(delta.get("text", "") for delta in deltas)) == 4
    assert deltas[0]["reasoningContent"]["text"]
    assert events[-1]["metadata"]["usage"]["outputTokens"] == 6
    assert events[-2]["messageStop"]["stopReason"] == "max_tokens"


def test_boto3_reads_sagemaker_parts(tmp_path: Path) -> None:
    with simulator(tmp_path, aws=KEYS) as running, client("sagemaker-runtime", running.address) as sagemaker:
        answer = sagemaker.invoke_endpoint_with_response_stream(
            EndpointName="llama", Body=json.dumps(body("sagemaker", 6)), ContentType="application/json"
        )
        with closing(answer["Body"]) as stream:
            parts = [event["PayloadPart"]["Bytes"] for event in stream]
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    lines = b"".join(parts).decode().split("\n\n")
    assert sum('"content":" ' in line for line in lines) == 6
    assert not all(part.endswith(b"\n\n") for part in parts)


def test_wrong_signatures_are_refused(tmp_path: Path) -> None:
    with simulator(tmp_path, aws=KEYS) as running, pytest.raises(ClientError) as caught:
        converse(running.address, secret="wrong")
    assert caught.value.response["Error"]["Code"] == "InvalidSignatureException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.mark.parametrize(
    ("kind", "code"), [("throttled", "ThrottlingException"), ("not_found", "ResourceNotFoundException")]
)
def test_boto3_knows_the_errors(kind: str, code: str, tmp_path: Path) -> None:
    with simulator(tmp_path, failure_rate=1.0, failure=kind) as running, pytest.raises(ClientError) as caught:
        converse(running.address)
    assert caught.value.response["Error"]["Code"] == code


def test_boto3_raises_exceptions_in_the_stream(tmp_path: Path) -> None:
    with (
        simulator(tmp_path, failure_rate=1.0, failure="in_stream") as running,
        pytest.raises(EventStreamError, match="modelStreamErrorException"),
    ):
        converse(running.address)


def test_the_openai_sdk_reads_chat_and_completions(tmp_path: Path) -> None:
    with (
        simulator(tmp_path) as running,
        openai.OpenAI(base_url=f"{running.address}/v1", api_key="none", max_retries=0) as sdk,
    ):
        chat: Any = sdk.chat.completions.create(**body("openai", 5))
        deltas = list(chat)
        whole: Any = sdk.chat.completions.create(**body("openai", 5, stream=False))
        plain: Any = sdk.completions.create(**body("completions", 5))
        texts = [chunk.choices[0].text for chunk in plain if chunk.choices]
    assert words.count("".join(chunk.choices[0].delta.content or "" for chunk in deltas if chunk.choices)) == 5
    assert deltas[-1].usage.completion_tokens == 5
    assert words.count(whole.choices[0].message.content) == whole.usage.completion_tokens == 5
    assert words.count("".join(texts)) == 5


# --- signatures, without sockets -------------------------------------------------------------------------------------


def signed(**changes: Any) -> Signed:
    """A request as botocore signs it, then changed."""
    path = "/model/us.anthropic.claude%3A0/converse-stream"
    request = AWSRequest("POST", f"http://127.0.0.1:1{path}?b=2&a=x%20y", {"X-Odd": " two  words "}, b'{"a": 1}')
    SigV4Auth(Credentials(*KEYS), "bedrock", "eu-west-1").add_auth(request)
    headers = {"host": "127.0.0.1:1", **{name.lower(): value for name, value in request.headers.items()}}
    given = Signed("POST", path, "b=2&a=x%20y", headers, b'{"a": 1}')
    return given._replace(**changes)


def test_a_good_signature_is_good() -> None:
    assert refusal(signed(), KEYS) is None


@pytest.mark.parametrize(
    "changes", [{"body": b"{}"}, {"path": "/model/other/converse-stream"}, {"query": ""}, {"method": "PUT"}]
)
def test_what_was_signed_cannot_be_changed(changes: dict[str, Any]) -> None:
    found = refusal(signed(**changes), KEYS)
    assert found is not None
    assert found.code == "InvalidSignatureException"


def test_signatures_expire() -> None:
    now = datetime.now(UTC)
    assert refusal(signed(), KEYS, now + timedelta(seconds=240)) is None
    for later in (timedelta(seconds=330), timedelta(days=1), -timedelta(seconds=330)):
        found = refusal(signed(), KEYS, now + later)
        assert found is not None
        assert "expired" in found.message


def test_other_keys_and_tokens_are_unknown() -> None:
    for keys in (("OTHER", KEYS[1], KEYS[2]), (KEYS[0], KEYS[1], "other"), (KEYS[0], KEYS[1], None)):
        found = refusal(signed(), keys)
        assert isinstance(found, Refused)
        assert found.code == "UnrecognizedClientException"
    bare = signed()._replace(headers={"host": "x"})
    assert refusal(bare, KEYS) == Refused("MissingAuthenticationTokenException", "Missing Authentication Token")
