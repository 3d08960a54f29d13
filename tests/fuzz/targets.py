"""What is fuzzed: bytes from outside, through everything that reads them, and what must hold whatever they are.

No exception escapes, no answer is both good and erroneous, a record fits into its file, and nothing is larger than the
bytes that came (a compressed body apart, which has a bound of its own).
"""

from __future__ import annotations

import base64
import io
import json
import os
import tempfile
from array import array
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from support.aws_server import event
from support.reader import REQUEST, Words

from llmexp.clients import anthropic, bedrock, bedrock_invoke, cohere, gemini, ollama, openai, sagemaker
from llmexp.clients.base import Answer, Response
from llmexp.clients.decoding import Wire, decode
from llmexp.clients.eventstream import messages
from llmexp.clients.http import Malformed, unframe
from llmexp.clients.json_text import NotJson, dumps, loads, mend
from llmexp.companion.explain import record
from llmexp.config import Load, Model
from llmexp.errors import ConfigError
from llmexp.records import Record, to_batch
from llmexp.schedule.trace import notes
from llmexp.worker.pool import Tape
from llmexp.workload.rows import read_rows

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
AROUND = 96
"""Tokens that an answer may have beyond the bytes that came."""
_MS = 1_000_000
_FRAMES = ("contentBlockDelta", "contentBlockStart", "messageStop", "metadata", "messageStart", "somethingNew")


class _Client:
    """A client that only explains."""

    def __init__(self, explain: Callable[[Response], Answer]) -> None:
        self.explain = explain


def _of(wire: Wire) -> _Client:
    return _Client(lambda response: decode(response, wire))


_CLIENTS: dict[str, _Client] = {
    "openai": _of(openai.WIRE),
    "anthropic": _of(anthropic.WIRE),
    "gemini": _of(gemini.WIRE),
    "cohere": _of(cohere.WIRE),
    "ollama": _of(ollama.WIRE),
    "bedrock_invoke": _Client(bedrock_invoke.explain),
    "bedrock": _Client(bedrock.explain),
    "sagemaker": _Client(sagemaker.explain),
}


def _pieces(data: bytes) -> list[bytes]:
    """The bytes as reads of some lengths that the bytes themselves choose."""
    size = 1 + (data[-1] if data else 0)
    return [data[at : at + size] for at in range(0, len(data), size)]


def explained(wire: str, pieces: list[bytes]) -> Record:
    """The record of what came, and what must hold of it."""
    stamps = array("q", range(_MS, _MS * (len(pieces) + 1), _MS))
    tape = Tape(7, False, 0, 100, _MS // 2, 0.25, 0.0, stamps, pieces, _MS * 999_999, True, None, False, 0)
    row = record(tape, REQUEST, _CLIENTS[wire], Words(), 0)
    assert row.error_class != "client", row.error_message
    assert (row.status == "completed") == (row.error_class is None)
    if row.status == "completed":
        assert row.first_token_ns is not None
        assert row.first_token_ns == row.chunk_ns[0]
        assert row.last_token_ns == row.chunk_ns[-1]
        assert row.output_tokens is not None
        assert row.output_tokens > 0
    assert len(row.chunk_ns) == len(row.chunk_tokens) <= len(pieces)
    assert row.chunk_ns == sorted(row.chunk_ns)
    assert all(tokens >= 0 for tokens in row.chunk_tokens)
    came = sum(map(len, pieces))
    if b"encoding" not in b"".join(pieces[:20]).lower():
        assert sum(row.chunk_tokens) <= 4 * came + AROUND
        assert len(row.text or "") <= 4 * came
    to_batch([row])
    return row


def answers(wire: str) -> Callable[[bytes], None]:
    """A body in this wire, its head fixed."""

    def target(data: bytes) -> None:
        explained(wire, [HEAD, *_pieces(data)])

    return target


def http(data: bytes) -> None:
    """Raw bytes of a response, head and framing included."""
    explained("openai", _pieces(data))
    try:
        unframe([1], [data], eof=True)
    except Malformed as error:
        assert error.partial is None or error.partial.status >= 200  # noqa: PT017


def frames(data: bytes) -> None:
    """JSON in whole frames of ConverseStream: lines whose first byte names the event."""
    made = [event(_FRAMES[line[0] % len(_FRAMES)], line[1:]) for line in data.split(b"\n") if line]
    explained("bedrock", [HEAD, *made])


def parts(data: bytes) -> None:
    """A container's stream in PayloadPart frames."""
    made = [event("PayloadPart", piece, "application/octet-stream") for piece in _pieces(data)]
    explained("sagemaker", [HEAD, *made])


def chunks(data: bytes) -> None:
    """Lines as the objects of a model of its own kind, in Bedrock's frames."""
    made = [event("chunk", {"bytes": base64.b64encode(line).decode()}) for line in data.split(b"\n") if line]
    explained("bedrock_invoke", [HEAD, *made])


def event_stream(data: bytes) -> None:
    """Raw frames of AWS."""
    try:
        for message in messages([(1, data)]):
            assert len(message.payload) <= len(data)
    except Malformed:
        pass
    explained("bedrock", [HEAD, data])


@cache
def _litellm() -> _Client:
    """A client that reads by LiteLLM whatever the wire."""
    from llmexp.clients.litellm import LiteLLMClient

    os.environ["LLMEXP_FUZZ_KEY"] = "k"
    fields = {"name": "m", "api": "litellm", "provider": "hosted_vllm", "api_key_env": "LLMEXP_FUZZ_KEY"}
    return _Client(LiteLLMClient(Model.model_validate(fields), "http://127.0.0.1:9/v1").explain_slowly)


def replay(data: bytes) -> None:
    """A stream as LiteLLM reads it from the tape."""
    _CLIENTS["litellm"] = _litellm()
    explained("litellm", [HEAD, *_pieces(data)])


def json_text(data: bytes) -> None:
    """JSON, read kindly."""
    try:
        value = loads(data)
    except NotJson:
        return
    mend(dumps(value)).encode()


def _file(suffix: str, read: Callable[[str], object]) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="llmexp-fuzz-") as folder:
            path = Path(folder) / f"rows{suffix}"
            path.write_bytes(data)
            try:
                read(str(path))
            except ConfigError as error:
                assert str(path) in str(error)  # noqa: PT017

    return target


def parquet(data: bytes) -> None:
    """A file as it is, or the rows that JSON lines make."""
    if not data.startswith(b"PAR1"):
        rows = []
        for line in data.splitlines():
            with suppress(ValueError, RecursionError):
                rows.append(json.loads(line))
        sink = io.BytesIO()
        try:
            pq.write_table(pa.Table.from_pylist([row for row in rows if isinstance(row, dict)]), sink)
        except (pa.ArrowException, ValueError, TypeError, OverflowError, KeyError):
            return
        data = sink.getvalue()
    _file(".parquet", _rows)(data)


def _rows(path: str) -> None:
    for row in read_rows("workload.file", path).rows:
        assert row.messages or row.input_tokens
        for message in row.messages:
            message.text.encode()


def _trace(path: str) -> None:
    notes(Load(kind="replay", file=path), timeout_s=60, max_requests=5)


TARGETS: dict[str, Callable[[bytes], None]] = {
    **{wire: answers(wire) for wire in ("openai", "anthropic", "gemini", "cohere", "ollama")},
    "chunks": chunks,
    "http": http,
    "frames": frames,
    "parts": parts,
    "event_stream": event_stream,
    "replay": replay,
    "json_text": json_text,
    "jsonl": _file(".jsonl", _rows),
    "json": _file(".json", _rows),
    "csv": _file(".csv", _rows),
    "parquet": parquet,
    "trace": _file(".jsonl", _trace),
    "plain_trace": _file(".txt", _trace),
}
