"""What decoding costs: CPU per chunk from raw bytes to a finished record.

    python benchmarks/decode.py [--chunks 128] [--tapes 400]

A tape here is an OpenAI stream of `--chunks` tokens, one chunked event of about 250 bytes a read, as most servers send
it. The bar is 15 µs a chunk.
"""

from __future__ import annotations

import argparse
import sys
from array import array
from time import process_time

import orjson

from llmexp.clients import build
from llmexp.clients.base import Client, Response
from llmexp.clients.http import unframe
from llmexp.companion.explain import record
from llmexp.config import Model
from llmexp.records import Record, Source
from llmexp.worker.pool import Tape
from llmexp.workload.request import Message, Request

BAR_US = 15.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
REQUEST = Request(0, (Message("user", "Say something."),), 128, 3, "digest")


class NoTokenizer:
    """Never asked here: the server says how many tokens there were."""

    source: Source = "tokenizer"
    in_process = True

    def count(self, text: str) -> int:
        """Characters over four."""
        return len(text) // 4


def pieces(chunks: int, line_end: bytes = b"\n") -> list[bytes]:
    """The reads of one response."""
    base = {"id": "chatcmpl-0123456789abcdef0123456789abcdef", "object": "chat.completion.chunk", "created": 1780000000}
    named = base | {"model": "meta-llama/Llama-3.1-8B-Instruct"}

    def event(choices: list[object], **more: object) -> bytes:
        data = b"data: " + orjson.dumps(named | {"choices": choices} | more) + line_end * 2
        return b"%x\r\n%b\r\n" % (len(data), data)

    def choice(delta: dict[str, str], reason: str | None = None) -> object:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason, "token_ids": None}

    usage = {"prompt_tokens": 3, "completion_tokens": chunks, "total_tokens": chunks + 3}
    done = b"data: [DONE]" + line_end * 2
    return [
        HEAD + event([choice({"role": "assistant", "content": ""})]),
        *[event([choice({"content": f" tok{at}"})]) for at in range(chunks)],
        event([choice({}, "length")]),
        event([], usage=usage) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(done), done),
    ]


def tape(reads: list[bytes]) -> Tape:
    """The reads as a worker would have stamped them, 20 ms apart."""
    stamps = array("q", range(1_000_000_000, 1_000_000_000 + 20_000_000 * len(reads), 20_000_000))
    return Tape(0, False, 0, 0, 500_000_000, 0.0, 0.0, stamps, reads, stamps[-1], False, None, False, 0)


def decoded(client: Client, taken: Tape) -> Record:
    """What a companion does with a tape."""
    return record(taken, REQUEST, client, NoTokenizer(), 0)


def measure(client: Client, taken: Tape, repeats: int, chunks: int) -> tuple[float, float]:
    """µs of CPU per chunk: of everything, and of taking the framing off alone."""
    whole, framing = [], []
    for _ in range(5):
        began = process_time()
        for _ in range(repeats // 5):
            decoded(client, taken)
        middle = process_time()
        for _ in range(repeats // 5):
            _framing_off(taken)
        whole.append((middle - began) / (repeats // 5) / chunks * 1e6)
        framing.append((process_time() - middle) / (repeats // 5) / chunks * 1e6)
    return min(whole), min(framing)


def _framing_off(taken: Tape) -> Response:
    return unframe(taken.stamps, taken.pieces, eof=taken.eof)


def main() -> int:
    """Print the cost; 1 when it is above the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=128, help="token events of a response")
    parser.add_argument("--tapes", type=int, default=400, help="responses decoded")
    given = parser.parse_args()
    client = build(Model.model_validate({"name": "m", "base_url": "http://127.0.0.1:1/v1"}))
    worst = 0.0
    for name, line_end in (("LF", b"\n"), ("CRLF", b"\r\n")):
        taken = tape(pieces(given.chunks, line_end))
        row = decoded(client, taken)
        if row.status != "completed" or sum(row.chunk_tokens) != given.chunks:
            raise SystemExit(f"decoded wrongly: {row}")
        whole, framing = measure(client, taken, given.tapes, given.chunks)
        size = sum(map(len, taken.pieces)) // len(taken.pieces)
        cost = f"{whole:.2f} µs a chunk, {framing:.2f} of it framing"
        sys.stdout.write(f"{name}: {cost}; {size} bytes a read; the bar is {BAR_US:g} µs\n")
        worst = max(worst, whole)
    return int(worst > BAR_US)


if __name__ == "__main__":
    sys.exit(main())
