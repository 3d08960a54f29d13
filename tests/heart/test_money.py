"""Requests are paid for before they go out: a worker and its companion against the simulator, with a price."""

from __future__ import annotations

import asyncio

from support.in_process import Outcome, config, pair, run

from llmexp.endpoints.simulator import Latency, Options
from llmexp.endpoints.simulator.server import listening
from llmexp.metrics.prices import PriceList

QUICK = Options(ttft=Latency(0.004), inter_token=Latency(0.001))
PRICE = PriceList(input_usd=0.0, output_usd=0.01)
"""A request of 4 tokens costs 0.04 USD at the most."""


async def load(usd: float, later: float = 0.0, **changes: object) -> tuple[int, Outcome, float]:
    """Requests sent, what came of them, and what they cost; `later`: money that comes when the first is spent."""
    async with listening(QUICK) as (_, address):
        told = config(address, run__max_requests=12, **changes)
        async with pair(told, price=PRICE) as both:
            both.companion.grant(usd, 0.0)
            load = asyncio.create_task(both.measure())
            while not both.companion._allowance.state().wanted and not load.done():
                await asyncio.sleep(0.005)
            most = both.companion._allowance.state()
            assert most.billed + most.reserved <= usd + 1e-9
            if later:
                both.companion.grant(later, 0.0)
            else:
                while both.companion._allowance.state().reserved > 1e-9:
                    await asyncio.sleep(0.005)
                both.companion.stop(cut=False)
            watch = await load
            outcome = await both.finish()
            return watch.launched, outcome, both.companion._allowance.state().billed


def test_no_more_is_sent_than_there_is_money_for() -> None:
    async def body() -> None:
        launched, outcome, billed = await load(0.21)
        assert launched == len(outcome.records) == 5
        assert abs(billed - 0.20) < 1e-9

    run(body())


def test_more_money_lets_the_rest_go_out() -> None:
    async def body() -> None:
        launched, outcome, billed = await load(0.21, later=1.0)
        assert launched == 12
        assert outcome.statuses() == ["completed"] * 12
        assert abs(billed - 0.48) < 1e-9

    run(body())


def test_warm_up_is_paid_for_too() -> None:
    async def body() -> None:
        async with listening(QUICK) as (_, address):
            told = config(address, run__warmup_requests=4)
            async with pair(told, price=PRICE) as both:
                both.companion.grant(0.09, 0.0)
                rows = await both.warm()
                assert len(rows) == 2
                assert abs(both.companion._allowance.state().billed - 0.08) < 1e-9

    run(body())
