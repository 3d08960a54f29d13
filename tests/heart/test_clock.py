"""The wall clock may jump as it likes while a load runs: stamps are of the monotonic clock."""

from __future__ import annotations

import itertools
import time

import pytest
from support.in_process import config, pair, run

from llmexp.endpoints.simulator import Latency, Options
from llmexp.endpoints.simulator.server import listening

pytestmark = pytest.mark.service

QUICK = Options(ttft=Latency(0.004), inter_token=Latency(0.001))


def test_a_wall_clock_that_jumps_by_hours_moves_no_stamp(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = itertools.cycle([0, 3600, -7200])
    real, real_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + next(jumps) * 10**9)

    async def body() -> None:
        async with listening(QUICK) as (_, address), pair(config(address)) as both:
            watch = await both.measure()
            outcome = await both.finish()
        assert outcome.statuses() == ["completed"] * 8
        assert watch.ended_ns - watch.started_ns < 20 * 10**9
        for row in outcome.records:
            stamps = [
                row.intended_ns,
                row.dispatched_ns,
                row.sent_ns,
                row.first_token_ns,
                row.last_token_ns,
                row.end_ns,
            ]
            assert stamps == sorted(stamps)

    run(body())
