"""What a server sends without measure costs its own row, never the client's memory or the rows beside it."""

from __future__ import annotations

import gzip
import json
import resource

import pytest
from support.in_process import config, pair, run
from support.sse_server import Script, chunk, head, serve, streamed

pytestmark = pytest.mark.service

EVENT = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
GOOD = streamed(EVENT, b"data: [DONE]\n\n")
MIB = 2**20


def bomb() -> Script:
    packed = gzip.compress(EVENT + b": " + bytes(300 * MIB), compresslevel=1)
    return [head(length=len(packed), more="Content-Encoding: gzip\r\n"), packed]


def huge_event() -> Script:
    text = json.dumps({"choices": [{"delta": {"content": "x" * (20 * MIB)}}]}).encode()
    return streamed(b"data: " + text + b"\n\n", EVENT, b"data: [DONE]\n\n")


def huge_body() -> Script:
    tree = json.dumps({"choices": [{"message": {"content": "x" * (20 * MIB)}, "finish_reason": "stop"}]}).encode()
    return [head(content_type="application/json", length=len(tree)), tree]


def flood() -> Script:
    return [head(chunked=True), *[chunk(EVENT * 2000)] * 300]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (bomb, "inflates to more than 64 MiB"),
        (huge_event, "an event of 20 MiB"),
        (huge_body, "an event of 20 MiB"),
        (flood, "larger than 16 MiB"),
    ],
)
def test_it_is_one_failed_row_in_words(monkeypatch: pytest.MonkeyPatch, script: object, says: str) -> None:
    assert callable(script)
    if script is flood:
        monkeypatch.setattr("llmexp.worker.pool.RESPONSE_BYTES", 16 * MIB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    async def body() -> None:
        async with serve(GOOD, script(), GOOD) as server:
            told = config(f"http://127.0.0.1:{server.port}", concurrency=1, run__max_requests=4)
            async with pair(told) as both:
                await both.measure()
                outcome = await both.finish()
        assert outcome.statuses() == ["completed", "failed", "completed", "completed"]
        (row,) = [row for row in outcome.records if row.status == "failed"]
        assert row.error_class == "malformed"
        assert says in (row.error_message or "")

    run(body())
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 1000  # the server of this test, which holds what it sends, included
