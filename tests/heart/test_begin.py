"""A pair of actors that does one job after another: nothing of a job is left in the next."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.in_process import config, run

from llmexp.companion.actor import Companion
from llmexp.companion.task import Task, Work
from llmexp.config import Config
from llmexp.endpoints.simulator import Latency, Options
from llmexp.endpoints.simulator.server import Simulator, listening
from llmexp.records import Record
from llmexp.worker.actor import Worker
from llmexp.worker.plan import Plan
from llmexp.worker.pool import Pool

pytestmark = pytest.mark.service

QUICK = Options(ttft=Latency(0.004), inter_token=Latency(0.001))


@pytest.fixture
def companion(monkeypatch: pytest.MonkeyPatch) -> Iterator[Companion]:
    """Its body, at this process's own priority."""
    monkeypatch.setattr("llmexp.companion.actor.give_way", lambda: None)
    actor = Companion()
    yield actor
    actor.close()


@contextmanager
def the_worker() -> Iterator[Worker]:
    """Its body, which runs a loop of its own."""
    actor = Worker()
    yield actor
    actor.close()
    actor._loop.close()


def task(told: Config, nonce: str, environment: dict[str, str] | None = None) -> Task:
    return Task(
        told, told.model.base_url, nonce, 0, 1, told.run.warmup_requests, told.run.max_requests, None, environment or {}
    )


def one_job(companion: Companion, worker: Worker, given: Task) -> tuple[list[Record], Work]:
    """As the driver does it, without Ray: calls that must run side by side do so in threads."""
    built = companion.begin(given)
    streams = given.config.streams
    plan = Plan(0, 1, built.target, streams, None, max_requests=built.due, spare=streams or 0, timeout_s=20)
    preparing = threading.Thread(target=companion.prepare, args=(built.due,))
    attaching = threading.Thread(target=companion.attach)
    preparing.start()
    attaching.start()
    worker.begin(plan, built.directory)
    preparing.join()
    attaching.join()
    phases = [(companion.give_warmup, ())] if given.warmup_requests else []
    for give, arguments in [*phases, (companion.give, (built.due or 0,))]:
        giving = threading.Thread(target=give, args=arguments)
        giving.start()
        assert worker.load_shots() == (built.due if arguments else given.warmup_requests)
        giving.join()
        if arguments:
            watch = worker.measure(0)
        else:
            worker.warm()
            assert len(companion.warmup_records()) == given.warmup_requests
    work = companion.finish(watch.launched)
    from llmexp.records import from_batch

    rows = [Record(**row) for batch in companion.drain().batches for row in from_batch(batch).to_pylist()]
    return rows, work


def test_a_pair_does_one_job_after_another_and_keeps_its_connections_alone(
    companion: Companion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMEXP_TEST_KEPT", "as it was")
    monkeypatch.delenv("LLMEXP_TEST_LENT", raising=False)

    def jobs(address: str, simulator: Simulator) -> None:
        with the_worker() as worker:
            lent = {"LLMEXP_TEST_LENT": "throwaway", "LLMEXP_TEST_KEPT": "other"}
            first, work = one_job(companion, worker, task(config(address, run__warmup_requests=2), "one", lent))
            assert (os.environ["LLMEXP_TEST_LENT"], os.environ["LLMEXP_TEST_KEPT"]) == ("throwaway", "other")
            assert [row.status for row in first] == ["completed"] * 8
            assert work.decoded == 10
            connections = set(simulator.connections)
            before = weakref.ref(companion._now), weakref.ref(worker._now)
            directory = companion._now._directory

            second, work = one_job(companion, worker, task(config(address, run__max_requests=5), "two"))
            gc.collect()
            assert [thing() for thing in before] == [None, None]
            assert not directory.exists()
            assert "LLMEXP_TEST_LENT" not in os.environ
            assert os.environ["LLMEXP_TEST_KEPT"] == "as it was"
            assert sorted(row.index for row in second) == list(range(5))
            assert (work.decoded, work.lost_requests) == (5, 0)
            assert companion._now._odometer.read() == 5
            told = companion.drain()
            assert (told.counts["completed"], told.ttft.total()) == (5, 5)
            digests = {row.index: row.prompt_digest for row in first if row.index < 5}
            assert {row.index: row.prompt_digest for row in second} == digests
            assert all(row.connect_s == 0 for row in second)
            assert simulator.connections == connections

    async def body() -> None:
        async with listening(QUICK) as (simulator, address):
            await asyncio.to_thread(jobs, address, simulator)

    run(body())


def test_another_target_gets_connections_of_its_own(companion: Companion) -> None:
    def jobs(first: str, second: str) -> None:
        with the_worker() as worker:
            one_job(companion, worker, task(config(first), "one"))
            pool = worker._now._streams
            rows, _ = one_job(companion, worker, task(config(second), "two"))
            assert isinstance(pool, Pool)
            assert pool.closed
            assert [row.status for row in rows] == ["completed"] * 8

    async def body() -> None:
        async with listening(QUICK) as (one, first), listening(QUICK) as (other, second):
            await asyncio.to_thread(jobs, first, second)
            assert one._counts["finished"] == other._counts["finished"] == 8

    run(body())


def test_each_job_has_its_own_nonce(companion: Companion) -> None:
    texts = []
    for nonce in ("one", "two", "one"):
        companion.begin(task(config(), nonce))
        texts.append(companion._now._supply.take(1)[0].data)
    assert texts[0] == texts[2] != texts[1]


def test_a_job_that_was_never_started_leaves_nothing_either(companion: Companion) -> None:
    built = companion.begin(task(config(), "one"))
    assert Path(built.directory).exists()
    companion.close()
    assert not Path(built.directory).exists()
    with pytest.raises(RuntimeError, match="no job has begun"):
        Worker().warm()
