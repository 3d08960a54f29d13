"""Turns of sessions: in order, after their answers, a stream for each session, dealt whole to several workers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import accumulate, pairwise

import pytest
from support.in_process import Outcome, config, pair, run
from support.sse_server import End, Received, Script, head, serve, streamed

from llmexp.companion.turns import Turns
from llmexp.config import Config, Tokens, Workload
from llmexp.endpoints.simulator import Latency, Options
from llmexp.endpoints.simulator.server import listening
from llmexp.records import Record
from llmexp.workload.request import Message
from llmexp.workload.source import Source
from llmexp.workload.tokens import Estimate

pytestmark = pytest.mark.service

QUICK = Options(ttft=Latency(0.004), inter_token=Latency(0.001))
TURNS = 3
SHORT = Tokens(mean=24)


def talking(address: str, **changes: object) -> Config:
    """Conversations of three turns."""
    shape = {"workload__kind": "conversation", "workload__turns": TURNS}
    return config(address, **{**shape, "run__max_requests": 12, **changes})


def by_session(rows: list[Record]) -> dict[int, list[Record]]:
    """The rows of each session, in the order of their turns."""
    found = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.turn):
        assert row.session is not None
        found[row.session].append(row)
    return found


def most_sessions(rows: list[Record]) -> int:
    """Sessions under way at once, from their first send to the end of their last answer."""
    steps = []
    for turns in by_session(rows).values():
        steps += [(turns[0].sent_ns or 0, 1), (turns[-1].end_ns or 0, -1)]
    return max(accumulate(step for _, step in sorted(steps)))


def test_a_turn_follows_the_answer_before_it_and_a_session_holds_its_stream() -> None:
    async def body() -> None:
        async with listening(QUICK) as (_, address), pair(talking(address)) as both:
            watch = await both.measure(count=4)
            outcome = await both.finish()
        assert outcome.statuses() == ["completed"] * watch.launched == ["completed"] * 12
        for turns in by_session(outcome.records).values():
            assert [row.turn for row in turns] == list(range(TURNS))
            for before, after in pairwise(turns):
                assert (after.sent_ns or 0) > (before.end_ns or 0)
                assert after.intended_ns >= (before.end_ns or 0)
        assert most_sessions(outcome.records) == 2

    run(body())


def test_think_time_is_waited_for_without_giving_the_stream_away() -> None:
    async def body() -> None:
        async with listening(QUICK) as (_, address):
            told = talking(address, workload__think_time_s=0.05, concurrency=1, run__max_requests=6)
            async with pair(told) as both:
                await both.measure(count=2)
                outcome = await both.finish()
        assert most_sessions(outcome.records) == 1
        for turns in by_session(outcome.records).values():
            for before, after in pairwise(turns):
                assert after.intended_ns == (before.end_ns or 0) + 50_000_000
                assert (after.sent_ns or 0) >= after.intended_ns

    run(body())


def test_an_open_loop_starts_sessions_and_turns_follow_by_themselves() -> None:
    async def body() -> None:
        async with listening(QUICK) as (_, address):
            told = talking(address, load__kind="constant", load__rate=50, concurrency=None)
            async with pair(told, offsets=[0.0, 0.02, 0.04, 0.06], streams=None, spare=4) as both:
                watch = await both.measure(count=4)
                outcome = await both.finish()
        firsts = [turns[0] for _, turns in sorted(by_session(outcome.records).items())]
        assert [round((row.intended_ns - watch.started_ns) / 1e9, 6) for row in firsts] == [0.0, 0.02, 0.04, 0.06]
        assert outcome.statuses() == ["completed"] * 12

    run(body())


@asynccontextmanager
async def scripted(*scripts: Script) -> AsyncIterator[tuple[str, list[Received]]]:
    async with serve(*scripts) as server:
        yield f"http://127.0.0.1:{server.port}", server.received


def said(text: str) -> Script:
    return streamed(
        f'data: {{"choices":[{{"delta":{{"content":"{text}"}},"finish_reason":null}}]}}\n\n'.encode(),
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    )


def test_the_real_answer_is_the_history_of_the_next_turn() -> None:
    async def body() -> None:
        async with scripted(said("first words"), said("second"), said("third")) as (address, received):
            told = talking(address, concurrency=1, run__max_requests=3)
            async with pair(told) as both:
                await both.measure(count=1)
                outcome = await both.finish()
        assert outcome.statuses() == ["completed"] * 3
        assert b"first words" in received[1].body
        assert b"first words" in received[2].body
        assert b"second" in received[2].body

    run(body())


@pytest.mark.parametrize("last", [False, True], ids=["more sessions follow", "the last session fails"])
def test_a_failed_turn_ends_its_session_and_frees_its_stream(last: bool) -> None:
    broken = [head("500 Oops", length=0)]
    scripts = [said("one"), broken, said("a"), said("b"), said("c")]

    async def body() -> None:
        async with scripted(*scripts) as (address, received):
            asked = 3 if last else 6
            told = talking(address, concurrency=1, run__max_requests=asked)
            async with pair(told) as both:
                watch = await both.measure(count=2)
                outcome = await both.finish()
        expected = ["completed", "failed"] if last else ["completed", "failed", *["completed"] * 3]
        assert outcome.statuses() == expected
        assert outcome.counts["turns_skipped"] == 1
        assert len(received) == watch.launched == len(expected)

    run(body())


def test_sessions_are_dealt_whole_and_evenly() -> None:
    async def half(address: str, worker: int) -> Outcome:
        async with pair(talking(address, run__max_requests=24), worker=worker, workers=2) as both:
            assert both.built.due == 12
            await both.measure(count=4)
            return await both.finish()

    async def body() -> None:
        async with listening(QUICK) as (_, address):
            first, second = await half(address, 0), await half(address, 1)
        mine, theirs = set(by_session(first.records)), set(by_session(second.records))
        assert not mine & theirs
        assert len(mine) == len(theirs) == 4
        assert sorted(row.index for row in first.records + second.records) == list(range(24))

    run(body())


def test_a_session_whose_connection_is_cut_while_a_turn_is_held_is_dropped_with_the_load() -> None:
    async def body() -> None:
        async with listening(QUICK) as (_, address):
            told = talking(address, workload__think_time_s=60.0, concurrency=2, run__max_requests=6)
            async with pair(told, timeout_s=0.2) as both:
                watch = await both.measure(count=2)
                outcome = await both.finish()
        assert watch.launched == len(outcome.records) == both.companion._odometer.read() == 2
        assert outcome.statuses() == ["completed"] * 2

    run(body())


def test_a_turn_is_made_once_the_answer_before_it_is_known_and_dropped_with_its_session() -> None:
    source = Source(
        Workload(kind="conversation", turns=TURNS, input_tokens=SHORT, output_tokens=SHORT),
        Estimate(),
        seed=1,
        nonce="",
    )
    turns, first = Turns(source), source.request(0)
    turns.given(first)
    assert turns.next() is None
    assert turns.waiting
    turns.answered(first, Message("assistant", "hello"), end_ns=5)
    second = turns.next()
    assert second is not None
    assert (second.request.index, second.not_before_ns) == (1, 5)
    assert second.request.messages[:2] == (*first.messages, Message("assistant", "hello"))
    assert not turns.waiting
    turns.given(second.request)
    assert turns.failed(second.request)
    assert turns.skipped == 1
    assert not turns.waiting
    assert not turns.failed(source.request(2))


def test_a_turn_far_in_the_future_is_kept_back_so_that_its_signature_stays_fresh() -> None:
    told = Workload(kind="conversation", turns=2, think_time_s=3600.0, input_tokens=SHORT, output_tokens=SHORT)
    source = Source(told, Estimate(), seed=1, nonce="")
    turns, first = Turns(source), source.request(0)
    turns.given(first)
    turns.answered(first, Message("assistant", "hello"), end_ns=10**17)
    assert turns.next() is None
    assert turns.waiting


def test_a_worker_that_dies_in_a_later_turn_loses_that_turn_and_none_that_waits() -> None:
    async def body() -> None:
        scripts = [said("one"), [End.HANG]]
        async with scripted(*scripts) as (address, received), pair(talking(address, concurrency=1)) as both:
            await both.give(3)
            running = asyncio.create_task(both.worker.run(warmup=False))
            while len(received) < 2:
                await asyncio.sleep(0.005)
            assert both.companion.drain().flying == [1]
            both.kill_worker()
            await running
            outcome = await both.finish(died=True)
        rows = sorted(outcome.records, key=lambda row: row.index)
        assert [(row.index, row.turn, row.status) for row in rows] == [(0, 0, "completed"), (1, 1, "failed")]
        assert rows[1].error_class == "client"

    run(body())
