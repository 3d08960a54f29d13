"""What the clients send."""

import json

import pytest
from support.reader import REQUEST, model, received
from support.sse_server import streamed

from llmexp.clients import address, build
from llmexp.clients.base import HttpRequest
from llmexp.errors import ConfigError
from llmexp.workload.request import Message, Request

pytestmark = pytest.mark.service

TURNS = Request(
    0,
    (Message("system", "Be brief."), Message("user", "Hi.")),
    16,
    3,
    "digest",
    force_output=True,
)


def prepared(request: Request = REQUEST, **fields: object) -> HttpRequest:
    return build(model(**fields)).prepare(request)


def body(request: Request = REQUEST, **fields: object) -> dict[str, object]:
    found: dict[str, object] = json.loads(prepared(request, **fields).body)
    return found


def test_openai_body() -> None:
    assert body() == {
        "model": "m",
        "messages": [{"role": "user", "content": "Say something."}],
        "max_tokens": 16,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert body(TURNS) | {"messages": []} == body() | {"messages": [], "ignore_eos": True, "min_tokens": 16}
    assert body(TURNS, route="completions")["prompt"] == "Be brief.\n\nHi."


@pytest.mark.parametrize(
    ("params", "limits"),
    [
        ({}, {"max_tokens": 16}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": None}, {"max_completion_tokens": 16}),
        ({"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ({"max_tokens": None, "max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ({"max_tokens": None, "max_completion_tokens": None}, {}),
    ],
)
def test_openai_limits(params: dict[str, object], limits: dict[str, int]) -> None:
    assert {key: value for key, value in body(params=params).items() if "max" in key} == limits


def test_params_lie_over_the_body_and_null_takes_away() -> None:
    sent = body(params={"temperature": 0, "stream_options": None, "model": "other"})
    assert (sent["temperature"], sent["model"], "stream_options" in sent) == (0, "other", False)
    whole = body(params={"stream": False})
    assert (whole["stream"], "stream_options" in whole) == (False, False)


@pytest.mark.parametrize(
    ("base_url", "route", "path"),
    [
        ("http://h:8000/v1", "chat", "/v1/chat/completions"),
        ("http://h:8000/v1/", "completions", "/v1/completions"),
        ("https://h", "chat", "/chat/completions"),
        ("https://h/v1?team=日本&q=a%20b", "chat", "/v1/chat/completions?team=%E6%97%A5%E6%9C%AC&q=a%20b"),
        (
            "https://x.openai.azure.com/openai/deployments/my gpt?api-version=2024-10-21",
            "chat",
            "/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21",
        ),
    ],
)
def test_openai_paths(base_url: str, route: str, path: str) -> None:
    assert prepared(base_url=base_url, route=route).path == path


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://api.openai.com/v1", ("https", "api.openai.com", 443)),
        ("http://127.0.0.1:8000/v1", ("http", "127.0.0.1", 8000)),
        ("http://[::1]/v1", ("http", "::1", 80)),
        ("http://[fe80::1%25eth0]:8000/v1", ("http", "fe80::1%eth0", 8000)),
        ("http://bücher.example/v1", ("http", "xn--bcher-kva.example", 80)),
    ],
)
def test_targets(url: str, target: tuple[str, str, int]) -> None:
    found = address.target(url)
    assert (found.scheme, found.host, found.port) == target
    assert "%" not in found.authority


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "k1\n")
    monkeypatch.setenv("OTHER_KEY", "k2")
    assert dict(prepared(api_key_env="SOME_KEY").headers)["Authorization"] == "Bearer k1"
    azure = dict(prepared(headers_env={"api-key": "OTHER_KEY"}, headers={"X-Team": "a"}).headers)
    assert (azure["api-key"], azure["X-Team"], "Authorization" in azure) == ("k2", "a", False)
    replaced = dict(prepared(api_key_env="SOME_KEY", headers_env={"authorization": "OTHER_KEY"}).headers)
    assert (replaced["authorization"], "Authorization" in replaced) == ("k2", False)


def test_a_missing_or_unusable_key_is_named_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"model\.api_key_env.*SOME_KEY is not set"):
        build(model(api_key_env="SOME_KEY"))
    with pytest.raises(ConfigError, match=r"model\.headers_env\.api-key.*SOME_KEY is not set"):
        build(model(headers_env={"api-key": "SOME_KEY"}))
    monkeypatch.setenv("SOME_KEY", "two\nlines")
    with pytest.raises(ConfigError, match="Authorization") as caught:
        build(model(api_key_env="SOME_KEY"))
    assert "two" not in str(caught.value)


def test_anthropic_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "k1")
    sent = prepared(TURNS, api="anthropic", api_key_env="SOME_KEY", params={"temperature": 0, "top_k": None})
    assert sent.path == "/v1/messages"
    headers = dict(sent.headers)
    assert (headers["x-api-key"], headers["anthropic-version"]) == ("k1", "2023-06-01")
    assert json.loads(sent.body) == {
        "model": "m",
        "max_tokens": 16,
        "messages": [{"role": "user", "content": "Hi."}],
        "system": "Be brief.",
        "stream": True,
        "temperature": 0,
    }


@pytest.mark.parametrize("base_url", ["http://h/gateway", "http://h/gateway/v1", "http://h/gateway/v1/"])
def test_anthropic_paths_take_both_habits(base_url: str) -> None:
    assert prepared(api="anthropic", base_url=base_url).path == "/gateway/v1/messages"


def test_on_the_wire_identity_is_asked_for() -> None:
    seen = received(streamed(b"data: [DONE]\n\n"))
    assert (seen.method, seen.path) == ("POST", "/v1/chat/completions")
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.headers["content-type"] == "application/json"
    assert json.loads(seen.body)["model"] == "m"
