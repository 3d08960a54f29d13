"""Requests are paid for before they go out: a worker and its companion against the simulator, with a price."""

from __future__ import annotations

import asyncio

import pytest
from support.in_process import Outcome, config, pair, run
from support.sse_server import serve, streamed
from support.streams import OpenAI

from llmexp.endpoints.simulator import Latency, Options
from llmexp.endpoints.simulator.server import listening
from llmexp.metrics.prices import PriceList

pytestmark = pytest.mark.service

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


def answers(tokens: int) -> list[bytes]:
    """An answer of so many tokens, whatever was asked for."""
    wire = OpenAI()
    return streamed(
        *wire.begin(), *[wire.text(" x")] * tokens, *wire.end("stop"), *wire.usage(10, tokens), *wire.done()
    )


@pytest.mark.parametrize("streams", [1, 3])
def test_answers_beyond_their_limit_cost_what_was_in_flight_and_nothing_starts_after(streams: int) -> None:
    async def body() -> None:
        async with serve(answers(400)) as server:
            told = config(f"http://127.0.0.1:{server.port}", run__max_requests=50, concurrency=streams)
            async with pair(told, price=PRICE, ahead=2 * streams) as both:
                both.companion.grant(3.0, 0.0)
                watch = await both.measure(2 * streams)
                outcome = await both.finish()
        assert len(outcome.records) == watch.launched
        assert watch.launched <= 6 * streams  # this server answers at once, before anything could be read
        assert both.companion._allowance.state().overdrawn

    run(body())
