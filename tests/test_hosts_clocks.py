"""Clocks of hosts, read over real sockets, and stamps moved from one to another."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from llmexp import records
from llmexp.benchmark import clocks
from llmexp.benchmark.clocks import Clock, Reading
from llmexp.metrics.validity import ClientFacts, judge
from llmexp.records import Record, Writer

pytestmark = pytest.mark.service

TOKEN = b"t" * clocks.TOKEN_BYTES
DAY_NS = 86_400 * 10**9


def test_a_clock_that_is_our_own_has_no_offset_beyond_what_is_unsure() -> None:
    server = clocks.Server("127.0.0.1", TOKEN)
    reading = clocks.read_over_socket("127.0.0.1", server.port, TOKEN)
    assert abs(reading.offset_ns) <= reading.uncertainty_ns
    again = clocks.read_over_socket("127.0.0.1", server.port, TOKEN)
    assert again.driver_ns > reading.driver_ns
    server.close()


def test_a_clock_tells_nothing_without_its_token() -> None:
    server = clocks.Server("127.0.0.1", TOKEN)
    with pytest.raises(ConnectionError):
        clocks.read_over_socket("127.0.0.1", server.port, b"x" * clocks.TOKEN_BYTES)
    assert clocks.read_over_socket("127.0.0.1", server.port, TOKEN).uncertainty_ns > 0
    server.close()


@pytest.mark.parametrize("delayed", ["asking", "answering"])
def test_the_true_offset_lies_within_what_is_unsure_however_slow_one_way_is(delayed: str) -> None:
    delay_s, true_ns = 0.012, 3 * DAY_NS

    def ask() -> int:
        if delayed == "asking":
            time.sleep(delay_s)
        stamp = time.monotonic_ns() + true_ns
        if delayed == "answering":
            time.sleep(delay_s)
        return stamp

    reading = clocks.read(ask)
    assert reading.uncertainty_ns >= delay_s / 2 * 1e9
    assert abs(reading.offset_ns - true_ns) <= reading.uncertainty_ns


def test_the_fastest_exchange_counts() -> None:
    turns = iter(range(clocks.EXCHANGES))

    def ask() -> int:
        if next(turns) != 5:
            time.sleep(0.02)
        return time.monotonic_ns()

    assert clocks.read(ask).uncertainty_ns < 10_000_000


def test_drift_is_taken_out_of_every_stamp_between_two_readings(tmp_path: Path) -> None:
    """A host 1 day ahead that gains 20 µs a second: its stamps come out as the driver's."""
    gained = 2e-5
    start = 1_000 * 10**9
    clock = Clock(Reading(start, DAY_NS, 1000), Reading(start + 100 * 10**9, DAY_NS + 2_000_000, 3000))
    assert clock.drift == pytest.approx(gained)
    assert clock.there(start) == start + DAY_NS
    assert clock.uncertainty_s(0) == 3e-6
    true = [start + at * 10**9 for at in range(1, 90)]

    def theirs(ns: int) -> int:
        return ns + DAY_NS + round((ns - start) * gained)

    row = Record(1, 7, "completed", theirs(true[0]), theirs(true[0]), sent_ns=theirs(true[0]), end_ns=theirs(true[-1]))
    row.chunk_ns, row.chunk_tokens = [theirs(ns) for ns in true], [1] * len(true)
    own = Record(2, 8, "failed", true[0], true[0], sent_ns=None)
    with Writer(tmp_path, {"wall_ns": 5, "monotonic_ns": 6}) as writer:
        moved = records.moved(records.from_batch(records.to_batch([row])), -clock.offset_ns)
        writer.append_batch(moved)
        writer.append(records.to_batch([own]))
    records.take_out_drift(tmp_path, {7: (clock.before.driver_ns, clock.drift)})
    first, second = records.records(tmp_path)
    assert all(abs(seen - ns) <= 20 for seen, ns in zip(first.chunk_ns, true, strict=True))
    assert abs((first.end_ns or 0) - true[-1]) <= 20
    assert first.first_token_ns is None
    assert (second.intended_ns, second.sent_ns, second.chunk_ns) == (true[0], None, [])
    assert records.anchor(tmp_path) == {"wall_ns": 5, "monotonic_ns": 6}


def test_a_host_that_is_gone_is_less_sure_with_every_second() -> None:
    clock = Clock(Reading(0, DAY_NS, 100_000))
    assert clock.uncertainty_s(0) == pytest.approx(1e-4)
    assert clock.uncertainty_s(100 * 10**9) == pytest.approx(1e-4 + 100 * clocks.UNMEASURED_DRIFT)
    assert Clock().uncertainty_s(100 * 10**9) == 0


@pytest.mark.parametrize(
    ("facts", "reason", "verdict"),
    [
        ({"clock_uncertainty_s": 0.001}, None, "valid"),
        ({"clock_uncertainty_s": 0.0011}, "clock_uncertainty", "degraded"),
        ({"clock_uncertainty_s": 0.0101}, "clock_uncertainty", "invalid"),
        ({"load_lost_share": 0.0}, None, "valid"),
        ({"load_lost_share": 0.001}, "load_lost", "degraded"),
        ({"load_lost_share": 0.11}, "load_lost", "invalid"),
        ({"other_load_share": 0.2}, None, "valid"),
        ({"other_load_share": 0.26}, "other_load", "degraded"),
    ],
)
def test_unsure_clocks_and_lost_load_are_judged(facts: dict[str, float], reason: str | None, verdict: str) -> None:
    found = judge(ClientFacts(requests_completed=9, loop_lag_p99_s=0.001, **facts))
    assert found.verdict == verdict
    assert [one.reason for one in found.reasons] == ([reason] if reason else [])


def test_a_clock_server_serves_one_after_another_and_survives_who_hangs_up() -> None:
    server = clocks.Server("127.0.0.1", TOKEN)
    with socket.create_connection(("127.0.0.1", server.port)) as rude:
        rude.sendall(TOKEN[:3])
    done: list[Reading] = []
    reader = threading.Thread(target=lambda: done.append(clocks.read_over_socket("127.0.0.1", server.port, TOKEN)))
    reader.start()
    reader.join(10)
    assert len(done) == 1
    server.close()
