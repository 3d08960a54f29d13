"""Recorded sessions: what is sent in which turn, and a worker and a companion that replay them."""

import asyncio
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.in_process import config, pair, run

from llmexp import secrets
from llmexp.companion.core import Core
from llmexp.config import Workload
from llmexp.endpoints.simulator import Options
from llmexp.endpoints.simulator.server import listening
from llmexp.errors import ConfigError
from llmexp.workload.request import Message, ToolCall
from llmexp.workload.source import Source
from llmexp.workload.text import nonce_text
from llmexp.workload.tokens import Estimate

pytestmark = pytest.mark.service

TOOL = {
    "type": "function",
    "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"where": "up"}'}}
TOOLED = {
    "session": "tooled",
    "turns": [
        {
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is up there?"}],
            "tools": [TOOL],
            "output_tokens": 9,
        },
        {
            "messages": [
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "call_1", "content": "A cloud."},
            ],
            "delay_s": 0.25,
        },
        {
            "messages": [{"role": "assistant", "content": "A cloud."}, {"role": "user", "content": "Is it large?"}],
            "expected": "yes",
        },
    ],
}
PLAIN = {"session": "plain", "turns": [{"messages": [{"role": "user", "content": f"Question {n}?"}]} for n in range(2)]}
ONE = {"session": "one", "turns": [{"messages": [{"role": "user", "content": "Only this."}], "output_tokens": 5}]}


def written(path: Path, *sessions: object) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in sessions))
    return str(path)


def source(file: str, nonce: str = "job", **fields: Any) -> Source:
    return Source(Workload(kind="sessions", file=file, **fields), Estimate(), seed=1, nonce=nonce)


def spoken(messages: Sequence[Message]) -> list[str]:
    return [f"{message.role}:{message.text or message.tool_calls[0].name}" for message in messages]


def test_each_turn_is_sent_with_the_recorded_history(tmp_path: Path) -> None:
    made = source(written(tmp_path / "s.jsonl", TOOLED, PLAIN))
    nonce = nonce_text("job", "job/", 0)
    first, second, third = (made.request(index) for index in range(3))
    assert spoken(first.messages) == [f"system:{nonce}\n\nBe brief.", "user:What is up there?"]
    assert spoken(second.messages) == [*spoken(first.messages), "assistant:look", "tool:A cloud."]
    assert spoken(third.messages) == [*spoken(second.messages), "assistant:A cloud.", "user:Is it large?"]
    assert second.messages[2].tool_calls == (ToolCall("call_1", "look", '{"where": "up"}'),)
    assert (first.max_tokens, third.max_tokens, third.expected) == (9, 256, "yes")
    assert [request.delay_s for request in (first, second, third)] == [0, 0.25, 0]
    assert [request.session for request in (first, second, third)] == [0, 0, 0]
    assert second.tools == third.tools == first.tools
    assert first.tools[0].description == f"{nonce} Looks."
    assert made.request(3).session == 1
    assert made.request(4).turn == 1


def test_the_same_is_asked_in_every_job_but_for_the_nonce(tmp_path: Path) -> None:
    file = written(tmp_path / "s.jsonl", TOOLED)
    one, other = (source(file, nonce).request(2) for nonce in ("a", "b"))
    assert one.messages[0] != other.messages[0]
    assert one.messages[1:] == other.messages[1:]
    assert one.prompt_digest == other.prompt_digest


def test_live_history_takes_the_models_text_and_keeps_recorded_calls(tmp_path: Path) -> None:
    made = source(written(tmp_path / "s.jsonl", TOOLED), history="live")
    first = made.request(0)
    second = made.after(first, Message("assistant", "I do not look."))
    assert second is not None
    assert spoken(second.messages)[2:] == ["assistant:look", "tool:A cloud."]
    third = made.after(second, Message("assistant", "Mist."))
    assert third is not None
    assert spoken(third.messages)[4:] == ["assistant:Mist.", "user:Is it large?"]
    assert made.after(third, Message("assistant", "Yes.")) is None
    assert made.off_script(first, frozenset())
    assert not made.off_script(first, frozenset({"look", "other"}))
    assert not made.off_script(second, frozenset())


@pytest.mark.parametrize(
    ("limit", "started"),
    [(None, [3, 2, 1]), (6, [3, 2, 1]), (5, [3, 2]), (4, [3, 1]), (2, [2]), (1, [1]), (9, [3, 2, 1, 3]), (0, [])],
)
def test_a_session_that_does_not_fit_is_not_started(tmp_path: Path, limit: int | None, started: list[int]) -> None:
    made = source(written(tmp_path / "s.jsonl", TOOLED, PLAIN, ONE))
    assert [len(turns) for turns in made.sessions(limit)] == started
    assert len({index for turns in made.sessions(limit) for index in turns}) == sum(started)


def test_a_file_played_again_shares_nothing_with_its_first_time(tmp_path: Path) -> None:
    made = source(written(tmp_path / "s.jsonl", TOOLED, ONE))
    again = list(made.sessions(7))[2]
    first, second = made.request(0), made.request(again.start)
    assert second.session == 2
    assert first.messages[0] != second.messages[0]
    assert first.messages[1:] == second.messages[1:]
    assert first.prompt_digest == second.prompt_digest


def test_a_whole_chat_is_cut_at_its_answers(tmp_path: Path) -> None:
    said = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")]
    chat = {"messages": [{"role": role, "content": text} for role, text in said]}
    made = source(written(tmp_path / "s.jsonl", chat))
    assert [len(turns) for turns in made.sessions(None)] == [3]
    assert [len(made.request(index).messages) for index in range(3)] == [1, 3, 5]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 .* cannot be used"),
        ('{"turns": []}', "line 2 .* it has no turns"),
        ('{"turns": [{"messages": [{"role": "robot", "content": "x"}]}]}', "turn 0: role 'robot'"),
        ('{"turns": [{"messages": [{"role": "assistant", "content": "x"}]}]}', "turn 0: it asks nothing"),
        ('{"turns": [{"messages": [{"role": "user", "content": "x"}], "delay_s": -1}]}', "delay_s must be"),
        ('{"turns": [{"messages": [{"role": "tool", "content": "x"}]}]}', "tool_call_id"),
        ('{"turns": [{"messages": [{"role": "assistant", "tool_calls": 5}]}]}', "tool_calls must be a list, got 5"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(f"{json.dumps(ONE)}\n{line}\n")
    with pytest.raises(ConfigError, match=message):
        list(source(str(path)).sessions(None))


def test_a_worker_holds_as_many_sessions_as_asked_and_waits_after_each_answer(tmp_path: Path) -> None:
    file = written(tmp_path / "s.jsonl", TOOLED, PLAIN, TOOLED, ONE)

    async def body() -> None:
        async with listening(Options()) as (_, address):
            told = config(address, workload__kind="sessions", workload__file=file, run__max_requests=None)
            async with pair(told) as both:
                watch = await both.measure()
                outcome = await both.finish()
        assert outcome.problem is None
        assert watch.launched == 9
        assert outcome.statuses() == ["completed"] * 9
        rows = sorted(outcome.records, key=lambda row: row.index)
        for before, after in pairwise(rows):
            if before.session == after.session:
                delay_ns = 0.25e9 if (after.session in (0, 2) and after.turn == 1) else 0
                assert after.intended_ns == (before.end_ns or 0) + delay_ns
                assert (after.sent_ns or 0) >= after.intended_ns
        spans = [(rows[a].sent_ns or 0, rows[b].end_ns or 0) for a, b in ((0, 2), (3, 4), (5, 7), (8, 8))]
        assert max(sum(s <= at <= e for s, e in spans) for at, _ in spans) == 2

    run(body())


def test_a_failed_turn_ends_its_session(tmp_path: Path) -> None:
    file = written(tmp_path / "s.jsonl", TOOLED, PLAIN)

    async def body() -> None:
        async with listening(Options(failure_rate=1.0, failure="server")) as (_, address):
            told = config(address, workload__kind="sessions", workload__file=file, run__max_requests=None)
            async with pair(told) as both:
                await both.measure()
                outcome = await both.finish()
        assert outcome.statuses() == ["failed"] * 2
        assert outcome.counts["turns_skipped"] == 3

    run(body())


def test_a_ramp_raises_the_sessions_in_flight(tmp_path: Path) -> None:
    slow = {**PLAIN, "turns": [{**turn, "output_tokens": 4, "delay_s": 0.05} for turn in PLAIN["turns"]]}
    file = written(tmp_path / "s.jsonl", *[slow] * 12)

    async def body() -> None:
        async with listening(Options()) as (_, address):
            told = config(address, workload__kind="sessions", workload__file=file, run__max_requests=None)
            async with pair(told, streams=1, limits=((0.0, 1), (0.5, 3))) as both:
                await both.measure()
                outcome = await both.finish()
        assert outcome.statuses() == ["completed"] * 24
        spans: dict[int, list[int]] = {}
        for row in outcome.records:
            spans.setdefault(row.session or 0, []).extend([row.sent_ns or 0, row.end_ns or 0])
        starts = sorted(spans.values(), key=min)
        open_at = [sum(min(s) <= min(each) <= max(s) for s in starts) for each in starts]
        assert open_at[0] == 1
        assert max(open_at) == 3

    run(body())


def test_a_fault_in_the_companion_is_told_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets.register("known-to-it-alone-0123")

    def faulty(_self: object) -> bool:
        raise RuntimeError("refused known-to-it-alone-0123")

    async def body() -> None:
        async with pair(config()) as both:
            work = await asyncio.to_thread(both.companion.finish, 0)
            said = both.companion.drain().problem
        assert said == "internal error while explaining answers: RuntimeError: refused ***"
        assert work.problem == "RuntimeError: refused ***"

    monkeypatch.setattr(Core, "_step", faulty)
    run(body())
