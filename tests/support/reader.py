"""Plays a script against the real engine and gives back what it left: the tape, and what the server received."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic_ns

from llmexp.clients import build
from llmexp.clients.base import Client
from llmexp.companion.explain import record
from llmexp.config import Model
from llmexp.records import Record, Source
from llmexp.worker.dial import Dialer
from llmexp.worker.pool import Exchange, Pool, Tape
from llmexp.workload.request import Message, Request
from support.sse_server import WANTED, Received, Script, serve

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


def played_all(scripts: Sequence[Script], **fields: object) -> list[Record]:
    """The records of as many requests, sent at once, that the server answers with a script each."""
    client, tapes = asyncio.run(_exchanges(scripts, fields))
    return [record(tape, REQUEST, client, Words(), 0) for tape in tapes]


async def _exchanges(scripts: Sequence[Script], fields: dict[str, object]) -> tuple[Client, list[Tape]]:
    async with serve(*scripts) as server:
        client = build(model(**fields), f"http://127.0.0.1:{server.port}/v1")
        loop = asyncio.get_running_loop()
        ended: list[asyncio.Future[Tape]] = [loop.create_future() for _ in scripts]
        pool = Pool(Dialer(client.target), lambda _, tape: ended[tape.index].set_result(tape))
        await pool.open(len(scripts))
        http, now = client.prepare(REQUEST), monotonic_ns()
        for number in range(len(scripts)):
            asked = http.with_headers((*http.headers, (WANTED, str(number))))
            pool.submit(Exchange(number, asked.encode(client.target), now, now))
        tapes = await asyncio.wait_for(asyncio.gather(*ended), 20)
        await pool.close()
        return client, tapes


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
