"""Plays a script against the real engine and gives back what it left: the tape, and what the server received."""

from __future__ import annotations

import asyncio
from time import monotonic_ns

from llmexp.clients import build
from llmexp.clients.base import Client
from llmexp.companion.explain import record
from llmexp.config import Model
from llmexp.records import Record, Source
from llmexp.worker.dial import Dialer
from llmexp.worker.pool import Exchange, Pool, Tape
from llmexp.workload.request import Message, Request
from support.sse_server import Received, Script, serve

REQUEST = Request(7, (Message("user", "Say something."),), 16, 3, "digest")


class Words:
    """A tokenizer that counts words."""

    def __init__(self, *, source: Source = "tokenizer", in_process: bool = True) -> None:
        self.source: Source = source
        self.in_process = in_process

    def count(self, text: str) -> int:
        return len(text.split())


def model(**fields: object) -> Model:
    """A model of the OpenAI wire, unless told otherwise."""
    return Model.model_validate({"name": "m", **fields})


def played(script: Script, *, limit_s: float = 5.0, cut_after_s: float | None = None, **fields: object) -> Record:
    """The record of one request that the server answers with `script`."""
    tape, client, _ = asyncio.run(_exchange(script, limit_s, cut_after_s, fields))
    return record(tape, REQUEST, client, Words(), 0)


def received(script: Script, **fields: object) -> Received:
    """The request as the server saw it."""
    return asyncio.run(_exchange(script, 5.0, None, fields))[2]


async def _exchange(
    script: Script, limit_s: float, cut_after_s: float | None, fields: dict[str, object]
) -> tuple[Tape, Client, Received]:
    async with serve(script) as server:
        client = build(model(**fields), f"http://127.0.0.1:{server.port}/v1")
        ended: asyncio.Future[Tape] = asyncio.get_running_loop().create_future()
        pool = Pool(Dialer(client.target), lambda _, tape: ended.set_result(tape))
        await pool.open(1)
        now = monotonic_ns()
        pool.submit(Exchange(REQUEST.index, client.prepare(REQUEST).encode(client.target), now, now))
        if cut_after_s is not None:
            await asyncio.sleep(cut_after_s)
            pool.cut_all()
        tape = await asyncio.wait_for(ended, limit_s)
        await pool.close()
        return tape, client, server.received[0]
