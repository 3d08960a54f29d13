"""Every shape of a stream and every failure that the simulator can play, read back over a real socket."""

from __future__ import annotations

import ssl
import subprocess
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.simulated import PATHS, Client, body, explain, simulator, text

from llmexp.clients.base import Response
from llmexp.workload import words

pytestmark = pytest.mark.service

WIRES = ("openai", "anthropic", "bedrock", "gemini")


def stream(folder: Path, wire: str = "openai", tokens: int = 8, **settings: Any) -> Response:
    """One streamed response."""
    with simulator(folder, **settings) as running:
        client = running.client()
        client.send(PATHS[wire], body(wire, tokens))
        return client.read()


# --- shapes ----------------------------------------------------------------------------------------------------------

SHAPES: dict[str, dict[str, Any]] = {
    "role early": {"role": "early"},
    "no role": {"role": "none"},
    "late head": {"head": "late"},
    "comments": {"comments": 2},
    "no space": {"data_space": False},
    "crlf": {"crlf": True},
    "late usage": {"usage": "late"},
    "inline usage": {"usage": "inline"},
    "no done": {"done": False},
    "length": {"body": "length"},
    "close": {"body": "close"},
    "gzip": {"gzip": True},
    "gzip and length": {"gzip": True, "body": "length"},
    "split": {"split": True},
    "split, crlf, close": {"split": True, "crlf": True, "body": "close"},
    "several events": {"events_per_write": 3},
    "everything": {"comments": 1, "crlf": True, "gzip": True, "split": True, "events_per_write": 2, "usage": "late"},
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_carry_the_same_answer(name: str, tmp_path: Path) -> None:
    response = stream(tmp_path, shape=SHAPES[name])
    answer = explain("openai", response)
    assert response.complete
    assert answer.failure is None
    assert words.count(text(answer)) == 8
    assert len(answer.events) == 8
    assert answer.usage.output_tokens == 8
    assert answer.finish_reason == "length"


def test_shapes_are_what_they_say(tmp_path: Path) -> None:
    found = {
        name: stream(tmp_path, shape=shape).content
        for name, shape in {
            "plain": {},
            "crlf": {"crlf": True},
            "no space": {"data_space": False},
            "no role": {"role": "none"},
            "comments": {"comments": 4},
            "no done": {"done": False},
        }.items()
    }
    assert b'"role":"assistant"' in found["plain"]
    assert b'"role":"assistant"' not in found["no role"]
    assert b"\r\n" not in found["plain"]
    assert found["crlf"].count(b"\n") == found["crlf"].count(b"\r\n")
    assert b"data: " not in found["no space"]
    assert found["comments"].count(b": keep-alive\n\n") == 3
    assert found["plain"].endswith(b"data: [DONE]\n\n")
    assert b"[DONE]" not in found["no done"]


def test_usage_may_be_absent_or_unasked(tmp_path: Path) -> None:
    with simulator(tmp_path, shape={"usage": "never"}) as running:
        assert running.client().ask("openai")[1].usage.output_tokens is None
    unasked = {key: value for key, value in body("openai", 4).items() if key != "stream_options"}
    for usage, expected in (("end", None), ("always", 4)):
        with simulator(tmp_path, shape={"usage": usage}) as running:
            client = running.client()
            client.send(PATHS["openai"], unasked)
            assert explain("openai", client.read()).usage.output_tokens == expected


def test_splits_really_arrive_apart(tmp_path: Path) -> None:
    """An event is complete only with its second part, which is the time that the truth log tells."""
    with simulator(tmp_path, shape={"split": True, "split_s": 0.01}, inter_token={"mean_s": 0.03}) as running:
        client = running.client()
        client.send(PATHS["openai"], body("openai", 6))
        response = client.read()
        truth = running.truths(1)[0]
    answer = explain("openai", response)
    assert len(response.body) > 9
    assert truth["first_token_ns"] - truth["intended_first_token_ns"] >= 10_000_000
    assert 0 <= answer.events[-1].at_ns - truth["last_token_ns"] < 30_000_000


def test_events_of_one_write_arrive_together(tmp_path: Path) -> None:
    answer = explain("openai", stream(tmp_path, tokens=9, shape={"events_per_write": 3}, inter_token={"mean_s": 0.01}))
    stamps = [event.at_ns for event in answer.events]
    assert stamps[0] == stamps[2] < stamps[3] == stamps[5] < stamps[6] == stamps[8]


def test_the_late_head_comes_with_the_first_token(tmp_path: Path) -> None:
    with simulator(tmp_path, shape={"head": "late"}, ttft={"mean_s": 0.1}) as running:
        client = running.client()
        sent_ns = client.send(PATHS["openai"], body("openai", 2))
        client.socket.settimeout(5)
        assert client.socket.recv(1) == b"H"
        client.socket.settimeout(0.001)
    assert sent_ns > 0


@pytest.mark.parametrize("parts", ["cut", "whole"])
def test_payload_parts(parts: str, tmp_path: Path) -> None:
    with simulator(tmp_path, shape={"payload_parts": parts}) as running:
        for wire in ("sagemaker", "tgi"):
            client = running.client()
            client.send(PATHS[wire], body(wire, 8))
            response = client.read()
            assert len(explain(wire, response).events) == 8
            events = response.content.count(b":event-type")
            assert events > 16 if parts == "cut" else events <= 11


def test_djl_answers_in_json_lines(tmp_path: Path) -> None:
    response = stream(tmp_path, "tgi", shape={"sagemaker": "djl", "payload_parts": "whole"})
    assert len(explain("tgi", response).events) == 8
    assert b"data:" not in response.content


def test_tls(tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    with simulator(tmp_path, tls_cert=str(cert), tls_key=str(key)) as running:
        assert running.address.startswith("https://")
        context = ssl.create_default_context(cafile=str(cert))
        with urllib.request.urlopen(f"{running.address}/health", timeout=5, context=context) as response:
            assert response.status == 200


# --- failures --------------------------------------------------------------------------------------------------------


Failed = tuple[Response, Any, dict[str, Any]]


def all_failed(folder: Path, kind: str, wires: Sequence[str], **settings: Any) -> list[Failed]:
    """(response, answer, truth) of requests that fail, one for each wire."""
    with simulator(folder, failure_rate=1.0, failure=kind, **settings) as running:
        responses = []
        for wire in wires:
            client = running.client()
            client.send(PATHS[wire], body(wire, 8))
            responses.append(client.read(timeout_s=1))
            client.close()
        answers = [explain(wire, response) for wire, response in zip(wires, responses, strict=True)]
        return list(zip(responses, answers, running.truths(len(wires)), strict=True))


def failed(folder: Path, kind: str, wire: str = "openai", **settings: Any) -> Failed:
    """The same of one request."""
    return all_failed(folder, kind, [wire], **settings)[0]


@pytest.mark.parametrize(
    ("kind", "status", "error_class"),
    [
        ("auth", 401, "auth"),
        ("forbidden", 403, "auth"),
        ("not_found", 404, "not_found"),
        ("bad_request", 400, "bad_request"),
        ("throttled", 429, "throttled"),
        ("server", 500, "server"),
        ("unavailable", 503, "server"),
    ],
)
def test_statuses(kind: str, status: int, error_class: str, tmp_path: Path) -> None:
    for response, answer, truth in all_failed(tmp_path, kind, WIRES, retry_after_s=7):
        assert response.status == status
        assert answer.failure.error_class == error_class
        assert truth["outcome"] == kind
        assert response.headers.get("retry-after") == ("7" if kind == "throttled" else None)


def test_sagemaker_throttles_with_400(tmp_path: Path) -> None:
    response, answer, _ = failed(tmp_path, "throttled", "sagemaker")
    assert response.status == 400
    assert answer.failure.error_class == "throttled"


def test_an_error_in_the_stream_comes_after_tokens(tmp_path: Path) -> None:
    for response, answer, truth in all_failed(tmp_path, "in_stream", [*WIRES, "sagemaker"]):
        assert response.status == 200
        assert response.complete
        assert len(answer.events) == 3 == truth["output_tokens"]
        assert answer.failure.error_class == "in_stream"


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("kind", ["cut", "reset", "stalled"])
def test_broken_streams_stay_incomplete(kind: str, framing: str, tmp_path: Path) -> None:
    response, answer, truth = failed(tmp_path, kind, shape={"body": framing})
    assert not response.complete
    assert len(answer.events) == 3
    assert not answer.finished
    assert truth["outcome"] == kind


def test_garbage_does_not_parse(tmp_path: Path) -> None:
    _, answer, truth = failed(tmp_path, "garbage")
    assert answer.failure.error_class == "malformed"
    assert truth["outcome"] == "garbage"


def test_empty_answers_are_whole(tmp_path: Path) -> None:
    response, answer, truth = failed(tmp_path, "empty")
    assert response.complete
    assert answer.events == []
    assert truth["output_tokens"] == 0


def test_slow_is_ten_times_slower(tmp_path: Path) -> None:
    _, answer, truth = failed(tmp_path, "slow")
    assert len(answer.events) == 8
    assert truth["intended_first_token_ns"] - truth["start_ns"] == 100_000_000
    assert truth["intended_last_token_ns"] - truth["intended_first_token_ns"] == 70_000_000


@pytest.mark.parametrize("kind", ["hung", "dead"])
def test_some_never_answer(kind: str, tmp_path: Path) -> None:
    with simulator(tmp_path, failure_rate=1.0, failure=kind) as running:
        client = running.client()
        client.send(PATHS["openai"], body("openai", 8))
        assert client.closed(within_s=0.5) == (kind == "dead")
        client.close()
        assert running.truths(1)[0]["outcome"] == kind


def test_what_was_under_way_at_the_end_is_recorded(tmp_path: Path) -> None:
    with ExitStack() as stack:
        with simulator(tmp_path, ttft={"mean_s": 30}) as running:
            client = Client(running.address)
            stack.callback(client.close)
            client.send(PATHS["openai"], body("openai", 8))
            client.closed(within_s=0.3)
        assert running.truths(1)[0]["outcome"] == "unfinished"
