"""The simulator: every wire, its times, tokens, slots and records, over real sockets."""

from __future__ import annotations

import json
import time
import urllib.request
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.simulated import FAST, PATHS, PROMPT, body, explain, simulator, text

from llmexp.endpoints.simulator import Latency, Options
from llmexp.endpoints.simulator.draws import Draws
from llmexp.errors import ConfigError
from llmexp.workload import words

pytestmark = pytest.mark.service

WIRES = list(PATHS)


def get(url: str, data: dict[str, Any] | None = None) -> Any:
    content = None if data is None else json.dumps(data).encode()
    with urllib.request.urlopen(urllib.request.Request(url, content), timeout=5) as response:
        found = response.read().decode()
    return json.loads(found) if response.headers["content-type"] == "application/json" else found


def test_every_wire_streams_what_was_asked_for(tmp_path: Path) -> None:
    with simulator(tmp_path) as running:
        answers = [running.client().ask(wire, 8)[1] for wire in WIRES]
        truths = running.truths(len(WIRES))
    for wire, answer, truth in zip(WIRES, answers, truths, strict=True):
        assert answer.failure is None, wire
        assert answer.finished, wire
        assert words.count(text(answer)) == len(answer.events) == 8, wire
        assert answer.usage.output_tokens == 8, wire
        if wire != "tgi":
            assert answer.usage.input_tokens == truth["input_tokens"] >= words.count(PROMPT), wire
        assert (truth["outcome"], truth["output_tokens"], truth["chunks"]) == ("finished", 8, 8), wire


def test_reasoning_comes_before_the_answer_and_inside_the_limit(tmp_path: Path) -> None:
    with simulator(tmp_path, reasoning_tokens=5) as running:
        for wire in ("openai", "anthropic", "bedrock", "gemini"):
            _, answer = running.client().ask(wire, 8)
            assert words.count(text(answer, "reasoning")) == 5, wire
            assert words.count(text(answer)) == 3, wire
            assert [event.kind for event in answer.events] == ["reasoning"] * 5 + ["answer"] * 3, wire
            assert answer.usage.output_tokens == 8, wire


def test_answers_without_a_stream(tmp_path: Path) -> None:
    with simulator(tmp_path) as running:
        for wire in ("openai", "completions", "anthropic"):
            sent_ns, answer = running.client().ask(wire, 6, stream=False)
            assert answer.failure is None, wire
            assert words.count(text(answer)) == 6, wire
            assert answer.events[0].at_ns - sent_ns >= 14_000_000, wire  # TTFT and five gaps


def test_times_are_kept_and_recorded(tmp_path: Path) -> None:
    slow = {"ttft": {"mean_s": 0.1}, "inter_token": {"mean_s": 0.01}}
    with simulator(tmp_path, **slow) as running:
        sent_ns, answer = running.client().ask("openai", 11)
        truth = running.truths(1)[0]
    assert sent_ns <= truth["arrival_ns"] <= truth["start_ns"] <= truth["first_token_ns"]
    assert truth["intended_first_token_ns"] - truth["start_ns"] == 100_000_000
    assert truth["intended_last_token_ns"] - truth["intended_first_token_ns"] == 100_000_000
    assert truth["first_token_ns"] >= truth["intended_first_token_ns"]
    assert truth["first_token_ns"] <= answer.events[0].at_ns
    assert truth["last_token_ns"] <= answer.events[-1].at_ns
    late_ns = [truth[f"{name}_token_ns"] - truth[f"intended_{name}_token_ns"] for name in ("first", "last")]
    assert max(late_ns) < 50_000_000


def test_a_saturated_simulator_keeps_an_absolute_schedule(tmp_path: Path) -> None:
    """A late write does not push the later ones: 100 gaps of 1 ms last 100 ms, not 100 times (1 ms and an overhead)."""
    with simulator(tmp_path) as running:
        _, answer = running.client().ask("openai", 101)
    assert (answer.events[-1].at_ns - answer.events[0].at_ns) / 1e9 == pytest.approx(0.1, abs=0.05)


def test_chunks_of_several_tokens_take_the_time_of_all_of_them(tmp_path: Path) -> None:
    slow = {"inter_token": {"mean_s": 0.01}, "tokens_per_chunk": 4}
    with simulator(tmp_path, **slow) as running:
        _, answer = running.client().ask("openai", 10)
        truth = running.truths(1)[0]
    assert [words.count(event.text) for event in answer.events] == [4, 4, 2]
    assert truth["intended_last_token_ns"] - truth["intended_first_token_ns"] == 60_000_000


def test_slots_queue_in_the_order_of_arrival(tmp_path: Path) -> None:
    with simulator(tmp_path, slots=1, ttft={"mean_s": 0.05}) as running:
        clients = [running.client() for _ in range(3)]
        for client in clients:
            client.send(PATHS["openai"], body("openai", 4))
            time.sleep(0.01)
        waiting = get(f"{running.address}/metrics")
        for client in clients:
            assert client.read().complete
        truths = running.truths(3)
    assert 'vllm:num_requests_running{model_name="simulated"} 1' in waiting
    assert 'vllm:num_requests_waiting{model_name="simulated"} 2' in waiting
    assert [truth["index"] for truth in truths] == [0, 1, 2]
    for before, after in pairwise(truths):
        assert after["start_ns"] >= before["last_token_ns"]
        assert after["start_ns"] - after["arrival_ns"] > 20_000_000


def test_a_client_that_leaves_frees_its_slot(tmp_path: Path) -> None:
    with simulator(tmp_path, slots=1, ttft={"mean_s": 0.05}) as running:
        gone = running.client()
        gone.send(PATHS["openai"], body("openai", 10_000))
        time.sleep(0.1)
        gone.close()
        _, answer = running.client().ask("openai", 4)
        first = running.truths(1)[0]
    assert len(answer.events) == 4
    assert first["outcome"] == "disconnected"
    assert first["output_tokens"] < 10_000


def test_one_connection_serves_many_requests_and_knows_pipelining(tmp_path: Path) -> None:
    with simulator(tmp_path) as running:
        client = running.client()
        answers = [client.ask("openai", 3)[1] for _ in range(3)]
        ports = {truth["peer_port"] for truth in running.truths(3)}
        client.send("/health", None)
        client.send("/v1/models", None)
        time.sleep(0.1)
        both = client.socket.recv(65536)
    assert [len(answer.events) for answer in answers] == [3, 3, 3]
    assert len(ports) == 1
    assert both.count(b"HTTP/1.1 200 OK") == 2


def test_idle_connections_are_closed_when_asked(tmp_path: Path) -> None:
    with simulator(tmp_path, idle_close_s=0.2) as running:
        client = running.client()
        assert len(client.ask("openai", 3)[1].events) == 3
        assert client.closed(within_s=2)


def test_tokenize_counts_as_usage_does(tmp_path: Path) -> None:
    with simulator(tmp_path, model="mine") as running:
        tokens = get(f"{running.address}/tokenize", {"content": PROMPT})["tokens"]
        models = get(f"{running.address}/v1/models")["data"]
        _, answer = running.client().ask("completions", 3)
        metrics = get(f"{running.address}/metrics")
    assert len(tokens) == words.count(PROMPT) == answer.usage.input_tokens == 6
    assert [model["id"] for model in models] == ["mine"]
    assert 'vllm:prompt_tokens_total{model_name="mine"} 6' in metrics
    assert 'vllm:generation_tokens_total{model_name="mine"} 3' in metrics
    assert 'vllm:request_success_total{model_name="mine"} 1' in metrics


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    with simulator(tmp_path) as running:
        client = running.client()
        for path, status in (("/v1/chat/completions", 400), ("/v1/messages", 400), ("/nothing", 404)):
            client.send(path, {"messages": []})
            response = client.read()
            assert response.status == status
            assert explain("openai", response).failure is not None
        assert len(client.ask("openai", 3)[1].events) == 3


def test_ids_and_digests_match_requests(tmp_path: Path) -> None:
    with simulator(tmp_path) as running:
        client = running.client()
        client.send(PATHS["openai"], body("openai", 2), {"X-Request-Id": "seven"})
        assert client.read().complete
        truth = running.truths(1)[0]
    assert truth["id"] == "seven"
    assert len(truth["body_digest"]) == 16


# --- draws and tokens, without sockets -------------------------------------------------------------------------------


def test_draws_follow_from_seed_and_index() -> None:
    options = Options(ttft=Latency(0.2, 0.5), inter_token=Latency(0.02, 0.5), seed=3)
    first = [Draws(options, index, 10).ttft_ns for index in range(50)]
    assert first == [Draws(options, index, 10).ttft_ns for index in range(50)]
    assert len(set(first)) == 50
    assert first != [Draws(Options(ttft=Latency(0.2, 0.5), seed=4), index, 10).ttft_ns for index in range(50)]


def test_latencies_have_the_mean_and_spread_that_were_asked_for() -> None:
    options = Options(ttft=Latency(0.2, 0.5), ttft_s_per_1k_input_tokens=0.1)
    drawn = [Draws(options, index, 2000).ttft_ns / 1e9 - 0.2 for index in range(4000)]
    mean = sum(drawn) / len(drawn)
    spread = (sum((value - mean) ** 2 for value in drawn) / len(drawn)) ** 0.5
    assert mean == pytest.approx(0.2, rel=0.05)
    assert spread / mean == pytest.approx(0.5, rel=0.1)


def test_failures_have_the_rate_that_was_asked_for() -> None:
    options = Options(failure_rate=0.25, failure="cut, server")
    drawn = [Draws(options, index, 0).failure for index in range(2000)]
    assert sum(kind is not None for kind in drawn) / 2000 == pytest.approx(0.25, abs=0.04)
    assert {kind for kind in drawn if kind} == {"cut", "server"}


def test_answers_are_never_longer_than_asked() -> None:
    options = Options(answer_tokens=Latency(20, 0.5))
    lengths = [Draws(options, index, 0).answer_tokens(options, 30) for index in range(500)]
    assert max(lengths) == 30
    assert min(lengths) < 12


def test_texts_have_the_tokens_they_claim() -> None:
    for start in range(words.VOCABULARY):
        assert words.count(words.text(start, 7).decode()) == 7
    assert words.count("") == 0
    assert words.pieces("Hello, wonderful world") == ["Hello", ",", " wonder", "ful", " world"]


@pytest.mark.parametrize(
    "settings",
    [
        {"failure": "sometimes"},
        {"slots": 0},
        {"failure_rate": 1.5},
        {"ttft": {"mean_s": -1}},
        {"shape": {"role": "last"}},
        {"shape": {"events_per_write": 0}},
    ],
)
def test_wrong_options_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"must be"):
        Options.of({**FAST, **settings})
