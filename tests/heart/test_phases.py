"""A worker's phases against the simulator: what is sent, when, how many at a time, and how it ends."""

from __future__ import annotations

import asyncio
import time
from itertools import accumulate, pairwise
from time import monotonic_ns

import pytest
from support.in_process import Outcome, config, pair, run

from llmexp.endpoints.simulator import Latency, Options
from llmexp.endpoints.simulator.server import listening
from llmexp.records import Record
from llmexp.worker.arrivals import Slots
from llmexp.workload.request import Request

pytestmark = pytest.mark.service

QUICK = Options(ttft=Latency(0.004), inter_token=Latency(0.001))
SLOW = Options(ttft=Latency(0.1), inter_token=Latency(0.05))
NS = 1_000_000_000


def most_in_flight(rows: list[Record]) -> int:
    """How many requests were on the wire at once."""
    steps = [(row.sent_ns or 0, 1) for row in rows] + [(row.end_ns or 0, -1) for row in rows]
    return max(accumulate(step for _, step in sorted(steps)))


@pytest.mark.parametrize(("streams", "asked"), [(1, 3), (3, 10), (8, 5)])
def test_a_closed_loop_sends_each_request_once_and_keeps_its_streams_full(streams: int, asked: int) -> None:
    async def body() -> None:
        async with listening(QUICK) as (_, address):
            told = config(address, concurrency=streams, run__max_requests=asked)
            async with pair(told) as both:
                watch = await both.measure()
                outcome = await both.finish()
        assert sorted(row.index for row in outcome.records) == list(range(asked))
        assert outcome.statuses() == ["completed"] * asked
        assert watch.launched == outcome.counts["completed"] == asked
        assert both.companion._odometer.read() == asked
        assert most_in_flight(outcome.records) == min(streams, asked)

    run(body())


def test_only_a_few_shots_are_ready_and_the_rest_follows_on_demand() -> None:
    async def body() -> None:
        async with listening(QUICK) as (_, address), pair(config(address, run__max_requests=40), ahead=6) as both:
            await both.measure(count=3)
            outcome = await both.finish()
        assert outcome.statuses() == ["completed"] * 40
        assert [row.index for row in sorted(outcome.records, key=lambda row: row.sent_ns or 0)] == list(range(40))

    run(body())


def test_an_open_loop_sends_at_its_times_whatever_has_become_of_those_before() -> None:
    offsets = [0.0, 0.01, 0.012, 0.05]

    async def body() -> None:
        async with listening(SLOW) as (_, address):
            told = config(address, load__kind="constant", load__rate=10, concurrency=None, run__max_requests=4)
            async with pair(told, offsets=offsets, streams=None, spare=4) as both:
                watch = await both.measure()
                outcome = await both.finish()
        rows = sorted(outcome.records, key=lambda row: row.index)
        assert [row.intended_ns - watch.started_ns for row in rows] == [int(at * NS) for at in offsets]
        assert all(row.dispatched_ns >= row.intended_ns for row in rows)
        assert most_in_flight(rows) == 4
        assert watch.not_sent == 0

    run(body())


def test_arrivals_above_the_ceiling_wait_and_say_how_long() -> None:
    async def body() -> None:
        async with listening(QUICK) as (_, address):
            told = config(address, load__kind="constant", load__rate=10, run__max_requests=4)
            async with pair(told, offsets=[0.0, 0.0, 0.0, 0.0], streams=2) as both:
                await both.measure()
                outcome = await both.finish()
        assert most_in_flight(outcome.records) == 2
        waits = [row.wait_s for row in sorted(outcome.records, key=lambda row: row.index)]
        assert min(waits[2:]) > max(waits[:2])

    run(body())


def test_what_the_end_keeps_from_being_sent_is_counted() -> None:
    async def body() -> None:
        async with listening(SLOW) as (_, address):
            told = config(address, load__kind="constant", load__rate=10, run__max_requests=5, run__grace_s=5)
            async with pair(told, offsets=[0.0] * 5, streams=2, timeout_s=0.02) as both:
                watch = await both.measure()
                outcome = await both.finish()
        assert (watch.launched, watch.not_sent, len(outcome.records)) == (2, 3, 2)
        assert watch.stopped

    run(body())


def test_a_ramp_allows_more_at_each_step() -> None:
    async def body() -> None:
        async with listening(QUICK) as (_, address):
            told = config(
                address, load__kind="ramp", load__from=1, load__to=3, load__of="concurrency", concurrency=None
            )
            async with pair(told, streams=1, limits=((0.0, 1), (0.03, 2), (0.06, 3)), timeout_s=0.12, spare=3) as both:
                watch = await both.measure()
                outcome = await both.finish()
        rows = outcome.records
        early = [row for row in rows if (row.sent_ns or 0) < watch.started_ns + 0.029 * NS]
        if early:
            assert most_in_flight(early) == 1
        assert most_in_flight(rows) <= 3
        assert set(outcome.statuses()) == {"completed"}

    run(body())


def test_a_ramp_whose_first_step_gives_this_worker_nothing() -> None:
    async def body() -> None:
        async with listening(QUICK) as (_, address):
            ramp = {"load__kind": "ramp", "load__from": 1, "load__to": 4, "load__of": "concurrency"}
            told = config(address, **ramp, concurrency=None, run__warmup_requests=2)
            async with pair(told, streams=0, limits=((0.0, 0), (0.05, 2)), timeout_s=5, spare=2) as both:
                assert len(await both.warm()) == 2
                watch = await both.measure()
                outcome = await both.finish()
        assert outcome.statuses() == ["completed"] * 8
        assert min(row.sent_ns or 0 for row in outcome.records) >= watch.started_ns + 0.049 * NS
        assert most_in_flight(outcome.records) == 2

    run(body())


def test_nothing_starts_after_the_time_and_grace_cuts_the_rest() -> None:
    async def body() -> Outcome:
        async with listening(SLOW) as (_, address):
            told = config(address, run__max_requests=100, workload__output_tokens={"mean": 400, "stddev": 0})
            async with pair(told, timeout_s=0.15, grace_s=0.15) as both:
                await both.measure(count=8)
                return await both.finish()

    async def check() -> None:
        outcome = await body()
        assert outcome.statuses() == ["unfinished"] * 2
        assert all(row.chunk_tokens and row.error_class is None for row in outcome.records)

    run(check())


@pytest.mark.parametrize("cut", [False, True])
def test_the_driver_can_stop_it(cut: bool) -> None:
    async def body() -> None:
        async with listening(SLOW) as (_, address), pair(config(address, run__max_requests=50)) as both:
            await both.give()
            running = asyncio.create_task(both.worker.run(warmup=False))
            while both.worker._streams is None or not both.worker._streams.in_flight:
                await asyncio.sleep(0)
            both.companion.stop(cut=cut)
            both.watch = await running
            outcome = await both.finish()
        assert outcome.statuses() == (["unfinished"] if cut else ["completed"]) * both.watch.launched
        assert both.watch.launched < 50
        assert both.watch.stopped

    run(body())


def test_warm_up_requests_are_others_and_never_counted() -> None:
    async def body() -> None:
        async with listening(QUICK) as (_, address), pair(config(address, run__warmup_requests=3)) as both:
            warm = await both.warm()
            await both.measure()
            outcome = await both.finish()
        assert [row.status for row in warm] == ["completed"] * 3
        assert len(outcome.records) == outcome.counts["completed"] == 8
        assert not {row.prompt_digest for row in warm} & {row.prompt_digest for row in outcome.records}
        assert all(row.connect_s == 0 for row in outcome.records)

    run(body())


def test_a_worker_without_anything_to_send_is_done() -> None:
    async def body() -> None:
        async with listening(QUICK) as (_, address):
            told = config(address, run__max_requests=2)  # for three workers: the last one has none
            async with pair(told, worker=2, workers=3) as both:
                assert both.built.due == 0
                watch = await both.measure()
                outcome = await both.finish()
        assert watch.launched == 0
        assert outcome.records == []

    run(body())


def test_a_stop_between_two_phases_is_not_forgotten() -> None:
    async def body() -> None:
        async with listening(QUICK) as (_, address), pair(config(address, run__warmup_requests=1)) as both:
            await both.warm()
            await both.give()
            both.companion.stop(cut=False)
            both.watch = await both.worker.run(warmup=False)
            outcome = await both.finish()
        assert both.watch.launched == 0
        assert both.watch.stopped
        assert outcome.records == []

    run(body())


def test_large_bodies_are_prepared_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmexp.companion.supply.PREPARED_BYTES", 5000)
    most = 0

    async def body() -> None:
        nonlocal most
        async with listening(QUICK) as (_, address), pair(config(address, run__max_requests=60)) as both:
            supply = both.companion._supply
            make = supply._make

            def counted(request: Request, key: int) -> int:
                nonlocal most
                made = make(request, key)
                most = max(most, len(supply._sizes))
                return made

            monkeypatch.setattr(supply, "_make", counted)
            both.companion.prepare(60)
            await both.measure(count=60)
            outcome = await both.finish()
        assert outcome.statuses() == ["completed"] * 60
        assert supply._bytes == 0

    run(body())
    assert most <= 9


def test_streams_that_a_pause_holds_up_start_later_and_not_in_a_burst() -> None:
    started: list[tuple[int, int]] = []

    def due(wanted_ns: int) -> None:
        started.append((wanted_ns, monotonic_ns()))
        if len(started) == 20:
            time.sleep(0.05)  # what another program's slice does to the loop

    async def body() -> None:
        slots = Slots(200, (), due, lambda _limit: None)
        slots.start(monotonic_ns())
        while len(started) < 200:
            await asyncio.sleep(0.001)
        slots.stop()

    run(body())
    late = [at for at, (wanted_ns, began_ns) in enumerate(started) if began_ns - wanted_ns > 0.04 * NS]
    assert late
    assert len(late) <= 32  # those of the same turn of the loop, of 180 that were held up
    assert all(after[0] > before[0] for before, after in pairwise(started))
