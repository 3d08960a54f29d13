"""Rehearsals: every API's own client, prepared and signed with throwaway credentials, answered by the simulator."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from llmexp import endpoints
from llmexp.clients import build
from llmexp.clients.base import Answer, HttpRequest
from llmexp.clients.http import unframe
from llmexp.config import Model, Workload
from llmexp.endpoints import Running, rehearsal
from llmexp.endpoints.simulator import truth
from llmexp.errors import ConfigError
from llmexp.workload import words
from llmexp.workload.request import Message, Request

pytestmark = pytest.mark.service

REQUEST = Request(0, (Message("user", "Say something."),), 6, 3, "digest")
FAST = {"ttft": {"mean_s": 0.01}, "inter_token": {"mean_s": 0.001}}
MODELS: dict[str, dict[str, Any]] = {
    "openai": {"name": "gpt", "api": "openai", "api_key_env": "REHEARSED_KEY"},
    "anthropic": {"name": "claude", "api": "anthropic", "api_key_env": "REHEARSED_KEY"},
    "bedrock": {"name": "us.anthropic.claude-sonnet-4:0", "api": "bedrock", "deployment": {"kind": "bedrock"}},
    "bedrock with a profile": {"name": "m", "api": "bedrock", "profile": "team", "region": "eu-west-1"},
    "sagemaker": {"name": "llama", "api": "sagemaker", "deployment": {"kind": "sagemaker"}},
    "sagemaker tgi": {"name": "llama", "api": "sagemaker", "deployment": {"kind": "sagemaker", "payload": "tgi"}},
    "sagemaker djl": {"name": "llama", "api": "sagemaker", "deployment": {"kind": "sagemaker", "payload": "djl"}},
    "litellm bedrock": {"name": "anthropic.claude-v2:1", "api": "litellm", "provider": "bedrock/converse"},
    "litellm sagemaker": {"name": "llama", "api": "litellm", "provider": "sagemaker_chat"},
    "litellm anthropic": {"name": "claude", "api": "litellm", "provider": "anthropic", "api_key_env": "REHEARSED_KEY"},
    "litellm gemini": {
        "name": "gemini-2.0-flash",
        "api": "litellm",
        "provider": "gemini",
        "api_key_env": "REHEARSED_KEY",
    },
    "litellm vllm": {"name": "m", "api": "litellm", "provider": "hosted_vllm"},
}
WIRES = {
    "openai": "openai",
    "anthropic": "anthropic",
    "bedrock": "bedrock",
    "bedrock with a profile": "bedrock",
    "sagemaker": "sagemaker",
    "sagemaker tgi": "sagemaker",
    "sagemaker djl": "sagemaker",
    "litellm bedrock": "bedrock",
    "litellm sagemaker": "sagemaker",
    "litellm anthropic": "anthropic",
    "litellm gemini": "gemini",
    "litellm vllm": "openai",
}


def model(name: str, **changes: Any) -> Model:
    return Model.model_validate(MODELS[name] | {"rehearsal": FAST} | changes)


def answered(given: Model, running: Running) -> Answer:
    """What the model's own client makes of the simulator's answer to its own request."""
    client = build(given, running.base_url)
    http: HttpRequest = client.sign(client.prepare(REQUEST))
    with socket.create_connection((client.target.host, client.target.port), timeout=10) as connection:
        connection.sendall(http.encode(client.target))
        stamps: list[int] = []
        pieces: list[bytes] = []
        while not pieces or not unframe(stamps, pieces, eof=False).complete:
            pieces.append(connection.recv(65536))
            stamps.append(time.monotonic_ns())
    return client.explain(unframe(stamps, pieces, eof=False))


@pytest.fixture(autouse=True)
def _users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user may have set, all of it wrong here."""
    monkeypatch.setenv("AWS_PROFILE", "the-users-own")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-users-own")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "the-users-own")
    monkeypatch.delenv("REHEARSED_KEY", raising=False)


@pytest.mark.filterwarnings("ignore:Items? .* on TypedDict class")  # LiteLLM's own
@pytest.mark.parametrize("name", MODELS)
def test_every_api_is_rehearsed_in_its_own_wire(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = model(name)
    with endpoints.opened(given, Workload(), 4, rehearse=True, log_dir=tmp_path) as running:
        for variable, value in running.environment.items():
            monkeypatch.setenv(variable, value)
        answer = answered(given, running)
    assert answer.failure is None
    assert words.count("".join(event.text for event in answer.events)) == 6
    assert running.truth is not None
    told = list(truth.read(running.truth))
    assert [(line["wire"], line["outcome"]) for line in told] == [(WIRES[name], "finished")]
    assert running.facts["rehearsal"] is True
    assert running.facts["wire"] == WIRES[name]


def test_a_request_that_is_not_signed_with_the_throwaway_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = model("bedrock")
    with endpoints.opened(given, Workload(), 4, rehearse=True, log_dir=tmp_path) as running:
        for variable, value in running.environment.items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
        answer = answered(given, running)
    assert answer.failure is not None
    assert answer.failure.error_class == "auth"


def test_throwaways_differ_and_leave_nothing(tmp_path: Path) -> None:
    with rehearsal.throwaway(model("bedrock")) as first, rehearsal.throwaway(model("bedrock")) as second:
        assert first.aws != second.aws
        files = [Path(first.environment[f"AWS_{name}_FILE"]) for name in ("CONFIG", "SHARED_CREDENTIALS")]
        assert all(file.is_file() for file in files)
    assert not any(file.exists() for file in files)
    assert os.environ["AWS_PROFILE"] == "the-users-own"


def test_simulated_models_are_no_rehearsal(tmp_path: Path) -> None:
    given = Model.model_validate({"name": "s", "deployment": {"kind": "simulated", "profile": FAST}})
    with endpoints.opened(given, Workload(), 4, rehearse=False, log_dir=tmp_path) as running:
        answer = answered(given, running)
    assert len(answer.events) == 6
    assert running.environment == {}
    assert "rehearsal" not in running.facts


def test_external_models_are_left_alone(tmp_path: Path) -> None:
    deployment = {"kind": "external", "gpu": "H100", "engine": "vLLM 0.12"}
    given = Model.model_validate({"name": "m", "base_url": "http://127.0.0.1:1/v1", "deployment": deployment})
    with endpoints.opened(given, Workload(), 4, rehearse=False, log_dir=tmp_path) as running:
        assert running.base_url == "http://127.0.0.1:1/v1"
    assert running.facts == {"gpu": "H100", "engine": "vLLM 0.12"}
    assert running.pids == ()


def test_wrong_profiles_are_found_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"failure: must be one of auth,.*got 'odd'"):
        endpoints.check(model("openai", rehearsal={"failure": "odd"}), rehearse=True)
    endpoints.check(model("openai", rehearsal={"failure": "odd"}), rehearse=False)


def test_a_simulated_judge_knows_right_from_wrong_unless_it_is_told_how_well() -> None:
    def accuracy(**profile: float) -> float | None:
        told = {"name": "s", "deployment": {"kind": "simulated", "profile": {**FAST, **profile}}}
        found = rehearsal.as_judge(Model.model_validate(told)).deployment
        assert found.kind == "simulated"
        return found.profile.accuracy

    assert (accuracy(), accuracy(accuracy=0.3)) == (1.0, 0.3)
