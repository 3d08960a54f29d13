"""A companion that dies costs no row that it had made."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.in_process import config, pair, run

from llmexp.endpoints.simulator import Latency, Options
from llmexp.endpoints.simulator.server import listening
from llmexp.records import from_batch
from llmexp.worker.journal import Journal, left

pytestmark = pytest.mark.service

QUICK = Options(ttft=Latency(0.004), inter_token=Latency(0.001))


def test_it_holds_what_the_driver_may_not_have(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    journal = Journal(path)
    assert left(path, 0) == []
    for batch in (b"one", b"two"):
        journal.add(batch)
    assert left(path, 0) == [b"one", b"two"]
    journal.taken([b"one", b"two"])
    assert left(path, 0) == [b"one", b"two"]  # the answer may have been lost on its way
    assert left(path, 2) == []
    journal.add(b"three")
    assert left(path, 2) == [b"three"]
    journal.taken([b"three"])
    journal.taken([])
    assert left(path, 0) == [b"three"]
    journal.add(b"four")
    with path.open("ab") as file:
        file.write(b"\x05")  # killed in the middle of a write
    assert left(path, 3) == [b"four"]
    journal.close()


def test_a_journal_that_cannot_be_written_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "no such folder" / "rows")
    journal.add(b"one")
    journal.taken([b"one"])
    journal.close()
    assert left(tmp_path / "no such folder" / "rows", 0) == []


def test_the_worker_tells_what_its_dead_companion_leaves() -> None:
    async def body() -> None:
        async with listening(QUICK) as (_, address), pair(config(address, run__max_requests=400)) as both:
            await both.give(400)
            running = asyncio.create_task(both.worker.run(warmup=False))
            batches: list[bytes] = []
            while len(batches) < 1:  # rows are handed over once
                await asyncio.sleep(0.02)
                batches += both.companion.drain().batches
            seen = both.companion._tally.done
            while both.companion._tally.done < seen + 20:
                await asyncio.sleep(0.01)
            both.companion._rows.flush(force=True)
            made = both.companion._tally.done
            both.companion._feed.close()  # as a kill does
            watch = await running
            remains = both.worker.left(received=len(batches))
            rows = [row for data in batches + remains.batches for row in from_batch(data).to_pylist()]
            assert made <= len(rows) <= len(remains.launched) == watch.launched < 400
            assert {row["index"] for row in rows} <= set(remains.launched)
            assert len({row["index"] for row in rows}) == len(rows)
            assert not Path(both.built.directory).exists()

    run(body())
