"""A worker and its companion in this process, without Ray: the same cores, the same feed, one event loop.

    async with listening(Options(...)) as (_, address), pair(config(address)) as both:
        await both.warm()
        watch = await both.measure()
        outcome = await both.finish()

The worker's core runs on the test's own loop, beside the simulator if that is there too. The companion's threads are
real. Nothing here waits by the clock: each call returns when what it waits for has happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvloop

from llmexp.companion.core import Core as Companion
from llmexp.companion.task import Built, Drained, Task, Work
from llmexp.config import Config, defaults, load
from llmexp.metrics.prices import PriceList
from llmexp.records import Record, from_batch
from llmexp.worker.core import Core as Worker
from llmexp.worker.plan import Plan, Watch
from llmexp.workload.request import Request

LIMIT_S = 30.0
"""Nothing in these tests takes so long unless it hangs."""


def config(address: str | None = None, **changes: object) -> Config:
    """A config for an OpenAI-compatible endpoint at `address`; changes as `workload__turns=3`."""
    tree: dict[str, Any] = defaults()
    base_url = f"{address or 'http://127.0.0.1:1'}/v1"
    tree["model"] |= {"name": "simulated", "api": "openai", "base_url": base_url, "tokenizer": "o200k_base"}
    tree["run"] |= {"max_requests": 8, "timeout_s": 20.0, "grace_s": 5.0, "warmup_requests": 0, "nonce": "abc"}
    tree["workload"]["input_tokens"] = {"mean": 96, "stddev": 8}
    tree["workload"]["output_tokens"] = {"mean": 4, "stddev": 0}
    tree["concurrency"] = 2
    for key, value in changes.items():
        node = tree
        *path, last = key.split("__")
        for name in path:
            node = node[name]
        node[last] = value
    return load(tree)


@dataclass
class Outcome:
    """What a load left."""

    records: list[Record]
    counts: Mapping[str, int]
    problem: str | None
    work: Work

    def statuses(self) -> list[str]:
        """Status of each record, in the order of the index."""
        return [row.status for row in sorted(self.records, key=lambda row: row.index)]


@dataclass
class Pair:
    """A worker and a companion that have met."""

    task: Task
    built: Built
    companion: Companion
    worker: Worker
    plan: Plan
    watch: Watch | None = None
    drained: list[Drained] = field(default_factory=list)

    async def warm(self) -> list[Record]:
        """Warm-up."""
        await self._hand_over(self.companion.give_warmup)
        await self.worker.run(warmup=True)
        return await asyncio.to_thread(self.companion.warmup_records)

    async def give(self, count: int | None = None) -> int:
        """Have the first shots handed over; how many."""
        wanted = self.built.due if count is None else count
        return await self._hand_over(self.companion.give, self.plan.ahead if wanted is None else wanted)

    async def _hand_over(self, method: Any, *arguments: int) -> int:
        given, _ = await asyncio.gather(asyncio.to_thread(method, *arguments), self.worker.load_shots())
        return int(given)

    async def measure(self, count: int | None = None) -> Watch:
        """The load itself, `count` shots given before it."""
        await self.give(count)
        self.watch = await self.worker.run(warmup=False)
        return self.watch

    async def finish(self, *, died: bool = False) -> Outcome:
        """Everything explained."""
        launched = None if died or self.watch is None else self.watch.launched
        work = await asyncio.to_thread(self.companion.finish, launched)
        self.drained.append(self.companion.drain())
        batches = [from_batch(data) for drained in self.drained for data in drained.batches]
        rows = [Record(**row) for batch in batches for row in batch.to_pylist()]
        last = self.drained[-1]
        return Outcome(rows, last.counts, last.problem, work)

    def kill_worker(self) -> None:
        """As if its process had ended: the feed closes, nothing more is handed back."""
        self.worker._feed._transport.abort()  # type: ignore[union-attr]


@asynccontextmanager
async def pair(
    told: Config,
    *,
    worker: int = 0,
    workers: int = 1,
    requests: Sequence[Request] | None = None,
    after: Pair | None = None,
    price: PriceList | None = None,
    **plan: Any,
) -> AsyncIterator[Pair]:
    """A pair that is ready for its phases. `plan` replaces what the config gives; `after`: the pair of the last job."""
    task = Task(
        config=told,
        base_url=told.model.base_url,
        nonce=told.run.nonce or "",
        worker=worker,
        workers=workers,
        warmup_requests=len(range(worker, told.run.warmup_requests, workers)),
        most=told.max_requests,
        requests=None if requests is None else tuple(requests),
        price=price,
    )
    companion = Companion(task)
    built = await asyncio.to_thread(companion.build)
    wanted = Plan(
        worker=worker,
        workers=workers,
        target=built.target,
        streams=told.streams,
        offsets=None,
        max_requests=built.due,
        timeout_s=told.run.timeout_s,
        grace_s=told.run.grace_s,
        spare=told.streams or 0,
    )
    core = Worker(replace(wanted, **plan), Path(built.directory))
    await asyncio.gather(asyncio.to_thread(companion.attach), core.connect(after.worker if after else None))
    try:
        yield Pair(task, built, companion, core, replace(wanted, **plan))
    finally:
        await core.close()
        await asyncio.to_thread(companion.close)


def run(body: Coroutine[Any, Any, None]) -> None:
    """Runs a test's coroutine, on the loop that workers use."""

    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            await body

    uvloop.run(limited())
