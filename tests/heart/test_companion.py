"""A companion's duties: signatures, backlog, losses, hopeless ends, records that cannot be kept."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from support.aws_server import ACCESS_KEY, SECRET_KEY, clean_environment
from support.in_process import Pair, config, pair, run

from llmexp.clients.base import Target
from llmexp.companion.allowance import Spent
from llmexp.companion.rows import batch_of
from llmexp.companion.spool import Spool, SpoolFullError
from llmexp.companion.tally import hopeless
from llmexp.config.places import socket_folder
from llmexp.endpoints.simulator import Latency, Options
from llmexp.endpoints.simulator.server import listening
from llmexp.records import Record, from_batch
from llmexp.worker.line import SOCKET

pytestmark = pytest.mark.service

QUICK = Options(ttft=Latency(0.004), inter_token=Latency(0.001))
SLOW = Options(ttft=Latency(30.0), inter_token=Latency(0.05))


# --- signatures ------------------------------------------------------------------------------------------------------


def test_shots_whose_signature_grew_old_are_signed_again_and_sent_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clean_environment(monkeypatch, tmp_path)
    monkeypatch.setattr("llmexp.worker.watching.PROBE_S", 0.002)
    monkeypatch.setattr("llmexp.worker.watching.PROBES_PER_ROUND", 1)
    options = replace(QUICK, aws=(ACCESS_KEY, SECRET_KEY, None))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)

    async def body() -> None:
        async with listening(options) as (_, address):
            bedrock = {"model__api": "bedrock", "model__region": "eu-west-1", "model__base_url": address}
            told = config(address, **bedrock, concurrency=1)
            async with pair(told) as both:
                signed: list[object] = []
                client = both.companion._client
                sign = client.sign
                monkeypatch.setattr(client, "sign", lambda http: signed.append(http) or sign(http))
                await both.give()
                assert len(signed) == 8
                for shot in list(both.worker._feed.ready)[1:]:
                    shot.expires_ns = 1
                both.watch = await both.worker.run(warmup=False)
                outcome = await both.finish()
        assert len(signed) > 8
        assert outcome.statuses() == ["completed"] * 8
        assert both.companion._odometer.read() == 8

    run(body())


# --- backlog ---------------------------------------------------------------------------------------------------------


def test_a_backlog_keeps_its_order_beyond_memory() -> None:
    spool = Spool(memory=10, disk=1000)
    items = [bytes([number]) * (number + 1) for number in range(12)]
    for item in items[:8]:
        spool.put(item)
    assert [spool.get() for _ in range(3)] == items[:3]
    for item in items[8:]:
        spool.put(item)
    assert [spool.get() for _ in range(9)] == items[3:]
    assert spool.get() is None
    spool.put(b"again")
    assert spool.get() == b"again"
    spool.close()


def test_a_backlog_has_a_bound_on_disk_too() -> None:
    spool = Spool(memory=10, disk=100)
    spool.put(b"x" * 10)
    spool.put(b"y" * 80)
    with pytest.raises(SpoolFullError, match="wait to be explained"):
        spool.put(b"z" * 80)
    spool.put(b"small", small=True)
    assert min(filter(None, (spool.get() for _ in range(4)))) == b"small"
    spool.close()


def _held_up(both: Pair, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Have the companion explain nothing until the event is set."""
    let_go = threading.Event()
    explain = both.companion._explain

    def later(tape: object) -> None:
        let_go.wait(10)
        explain(tape)  # type: ignore[arg-type]

    monkeypatch.setattr(both.companion, "_explain", later)
    return let_go


@pytest.mark.parametrize(("memory", "disk", "kept"), [(100, 2**20, 8), (100, 200, 1)], ids=["on disk", "no room"])
def test_answers_pile_up_on_disk_and_what_finds_no_room_is_that_requests_loss(
    monkeypatch: pytest.MonkeyPatch, memory: int, disk: int, kept: int
) -> None:
    async def body() -> None:
        async with listening(QUICK) as (_, address), pair(config(address, concurrency=1)) as both:
            both.companion._tapes = Spool(memory, disk)
            let_go = _held_up(both, monkeypatch)
            await both.measure()
            let_go.set()
            outcome = await both.finish()
        assert len(outcome.records) == 8
        assert outcome.statuses().count("completed") <= kept
        lost = [row for row in outcome.records if row.status == "failed"]
        assert all(row.error_class == "client" and "backlog is full" in (row.error_message or "") for row in lost)
        assert (lost == []) == (kept == 8)

    run(body())


# --- losses ----------------------------------------------------------------------------------------------------------


def test_what_a_dead_worker_had_in_flight_is_counted_and_the_rest_is_kept() -> None:
    async def body() -> None:
        options = replace(QUICK, failure="hung", failure_rate=0.5, seed=3)
        async with listening(options) as (_, address):
            told = config(address, run__max_requests=40, concurrency=3)
            async with pair(told) as both:
                await both.give()
                running = asyncio.create_task(both.worker.run(warmup=False))
                while both.worker._streams is None or both.companion._odometer.read() < 3:
                    await asyncio.sleep(0)
                # All streams hang sooner or later: wait until the three on the wire are such.
                seen = -1
                while seen != (seen := both.companion._odometer.read()) or both.worker._streams.in_flight < 3:
                    await asyncio.sleep(0.1)
                both.kill_worker()
                await running
                outcome = await both.finish(died=True)
        launched = both.companion._odometer.read()
        assert len(outcome.records) == launched
        assert sorted(row.index for row in outcome.records) == list(range(launched))
        lost = [row for row in outcome.records if row.error_class == "client"]
        assert len(lost) == outcome.work.lost_requests == 3
        assert outcome.counts["completed"] == launched - 3

    run(body())


def test_what_a_worker_never_handed_back_is_not_waited_for() -> None:
    async def body() -> None:
        async with listening(QUICK) as (_, address), pair(config(address)) as both:
            put = both.companion._tapes.put
            dropped: list[bytes] = []

            def lose_one(item: bytes, *, small: bool = False) -> None:
                if dropped:
                    put(item, small=small)
                    return
                dropped.append(item)
                with both.companion._idle:
                    both.companion._unexplained -= 1

            both.companion._tapes.put = lose_one  # type: ignore[method-assign]
            await both.measure()
            outcome = await both.finish()
        assert len(outcome.records) == 8
        assert outcome.work.lost_requests == 1
        assert [row.error_class for row in outcome.records].count("client") == 1

    run(body())


def test_a_fault_of_ours_costs_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with listening(QUICK) as (_, address), pair(config(address)) as both:
            monkeypatch.setattr("llmexp.companion.explain._output", _broken_once())
            await both.measure()
            outcome = await both.finish()
        assert outcome.statuses().count("completed") == 7
        (row,) = [row for row in outcome.records if row.status == "failed"]
        assert row.error_class == "client"
        assert "internal error" in (row.error_message or "")
        assert row.sent_ns is not None

    run(body())


def _broken_once() -> object:
    from llmexp.companion.explain import _output

    calls = iter((True,))

    def broken(*arguments: object) -> None:
        if next(calls, False):
            raise ValueError("a surprise")
        _output(*arguments)  # type: ignore[arg-type]

    return broken


@pytest.mark.parametrize(
    "bad",
    [
        {"output_tokens": 2**63},
        {"chunk_tokens": [2**31], "chunk_ns": [5]},
        {"server_latency_s": "soon"},
        {"text": "half an emoji \ud83d"},
        {"http_status": 2**40},
    ],
    ids=lambda bad: next(iter(bad)),
)
def test_a_value_that_no_column_holds_costs_its_own_row(bad: dict[str, object]) -> None:
    rows = [Record(index, 0, "completed", 1, 2, sent_ns=3, output_tokens=4, end_ns=9) for index in range(5)]
    for name, value in bad.items():
        setattr(rows[2], name, value)
    kept = from_batch(batch_of(rows)).to_pylist()
    assert [row["index"] for row in kept] == list(range(5))
    assert [row["status"] for row in kept] == ["completed", "completed", "failed", "completed", "completed"]
    assert kept[2]["error_class"] == "malformed"
    assert (kept[2]["sent_ns"], kept[2]["end_ns"]) == (3, 9)
    assert kept[3]["output_tokens"] == 4


# --- hopeless --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", ["auth", "not_found", "bad_request"])
def test_a_job_that_cannot_succeed_stops_early_and_says_why(failure: str) -> None:
    async def body() -> None:
        async with listening(replace(QUICK, failure=failure, failure_rate=1.0)) as (_, address):
            told = config(address, run__max_requests=2000, concurrency=1)
            async with pair(told) as both:
                watch = await both.measure(count=8)
                outcome = await both.finish()
        assert 5 <= watch.launched < 2000
        assert len(outcome.records) == watch.launched
        assert f"all failed with '{failure}'" in (outcome.problem or "")

    run(body())


def test_an_endpoint_that_nobody_listens_at_is_given_more_tries() -> None:
    told = [("connect", "refused")] * 19
    assert hopeless([kind for kind, _ in told], "refused", 500) is None
    assert "20 requests all failed with 'connect'" in (hopeless(["connect"] * 20, "refused", 500) or "")
    assert "3 requests" in (hopeless(["connect"] * 3, "refused", 3) or "")
    assert hopeless(["auth", "connect", "auth", "auth", "auth"], "no", 500) is None
    assert hopeless(["throttled"] * 20, "slow down", 500) is None
    assert hopeless([None] * 20, None, 20) is None


# --- the target ------------------------------------------------------------------------------------------------------


def test_what_a_driver_is_told_of_a_pair() -> None:
    async def body() -> None:
        async with listening(QUICK) as (_, address), pair(config(address)) as both:
            port = int(address.rpartition(":")[2])
            assert both.built.target == Target("http", "127.0.0.1", port)
            assert (both.built.signed, both.built.own_stream, both.built.due) == (False, False, 8)
            # Asked before anything was sent: nothing yet, no problem.
            assert both.companion.drain() == ([], {}, None, [], Counter(), Spent())
            await both.measure()
            assert (await both.finish()).problem is None

    run(body())


def test_a_long_temporary_folder_leaves_room_for_the_socket_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("t" * 86)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    folder = socket_folder()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / SOCKET))
    assert folder.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(folder)
