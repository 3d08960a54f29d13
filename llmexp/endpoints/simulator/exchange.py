"""One request being answered: a script that writes each piece when its time has come."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import monotonic_ns
from typing import TYPE_CHECKING

from llmexp.endpoints.simulator.draws import NS, Draws
from llmexp.endpoints.simulator.http import Connection, Framing, Received
from llmexp.endpoints.simulator.knowledge import Said
from llmexp.endpoints.simulator.options import Options
from llmexp.endpoints.simulator.wires import Call, Counts, Kind
from llmexp.workload import words

if TYPE_CHECKING:
    from llmexp.endpoints.simulator.agenda import Script

_BROKEN = frozenset({"stalled", "cut", "reset", "garbage", "in_stream"})
_CALLS_WHOLE = frozenset({"gemini"})
"""Wires that send a call's arguments in one piece."""
_FRAMED = frozenset({"bedrock", "sagemaker"})
"""Wires that HTTP always frames in chunks."""
_GARBAGE = b'data: {"choices": [{"delta": \x00\xff\xfe<html>\n\n'


class Exchange:
    """An answer from the moment its request was understood to its last byte."""

    def __init__(
        self,
        options: Options,
        call: Call,
        received: Received,
        connection: Connection,
        index: int,
        on_end: Callable[[Exchange], None],
        said: Said | None = None,
    ) -> None:
        if said is not None:
            call = replace(call, tool=said.tool)
        self.call, self.connection, self.index = call, connection, index
        self._options, self._received, self._on_end, self._said = options, received, on_end, said
        self.draws = Draws(options, index, call.input_tokens - call.cached_tokens)
        self.counts = self._counted()
        self._wire = call.build(call, options.shape, index)
        framing = "chunked" if call.wire in _FRAMED else options.shape.body
        self._framing = Framing(framing, gzip=options.shape.gzip)
        self.outcome: str | None = None
        self.start_ns: int | None = None
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self._due_first: int | None = None
        self._due_last: int | None = None
        self.tokens = 0
        self._chunks = 0
        self._over = False

    def _counted(self) -> Counts:
        call = self.call
        total = 0 if self.draws.failure == "empty" else self.draws.answer_tokens(self._options, call.limit)
        reasoning = min(self._options.reasoning_tokens, max(0, total - 1))
        if self._said is not None and total:
            total = min(total, reasoning + len(self._said.pieces))
        return Counts(call.input_tokens, total - reasoning, reasoning, call.limit, call.cached_tokens)

    @property
    def arrival_ns(self) -> int:
        """When the request's last byte was read."""
        return self._received.at_ns

    # --- the script --------------------------------------------------------------------------------------------------

    def play(self) -> Script:
        """Yields when it wants to go on (ns); the caller resumes it then."""
        self.start_ns = start = monotonic_ns()
        if self.draws.failure == "hung":
            return self._stay("hung")
        if self.draws.failure == "dead":
            return self._break_off("dead")
        return self._stream(start) if self.call.stream else self._whole(start)

    def _stay(self, outcome: str) -> Script:
        """Says nothing more and keeps the slot until the client gives up."""
        self.outcome = outcome
        yield from ()

    def _break_off(self, outcome: str) -> Script:
        self.connection.break_off(reset=outcome == "reset")
        self._end(outcome)
        yield from ()

    def _stream(self, start: int) -> Script:
        connection, shape, framing = self.connection, self._options.shape, self._framing
        head, prelude = self._opening()
        if shape.head == "early":
            connection.send(head)
            head = b""
        due = self._due_first = start + self.draws.ttft_ns
        for at, (tokens, data) in enumerate(self._writes(prelude)):
            if at:
                due += self.draws.gap_ns(tokens)
            yield due
            if self.outcome is not None:  # the client has gone
                return
            framed = framing.body(data)
            if head:
                framed, head = head + framed, b""
            if shape.split and len(framed) > 1:
                cut = 1 + (at * 31 + self.index) % (len(framed) - 1)
                connection.send(framed[:cut])
                yield monotonic_ns() + int(shape.split_s * NS)
                framed = framed[cut:]
            if tokens:
                self._chunks += 1
                self.tokens += tokens
                self._due_last = due
                self.last_ns = monotonic_ns()
                if not at:
                    self.first_ns = self.last_ns
            connection.send(framed)
        yield from self._close(head)

    def _opening(self) -> tuple[bytes, bytes]:
        """What leaves before the first token, and what leaves together with it."""
        shape, opening = self._options.shape, self._wire.opening()
        length = self._length(opening) if shape.body == "length" else None
        head = self._framing.head(self._wire.content_type, self._extra_headers(), length)
        if shape.role == "early" and shape.head == "early":
            return head + self._framing.body(opening), b""
        return head, opening

    def _length(self, opening: bytes) -> int:
        """Length of the whole body: a twin writes it once before, for nothing."""
        framing = Framing("length", gzip=self._options.shape.gzip)
        mine, self._wire = self._wire, self.call.build(self.call, self._options.shape, self.index)
        self._wire.opening()
        early = self._options.shape.role == "early" and self._options.shape.head == "early"
        parts = [opening] if early else []
        parts += [data for _, data in self._writes(b"" if early else opening)]
        parts += self._ending()
        self._wire = mine
        return sum(len(framing.body(part)) for part in parts) + len(framing.end())

    def _ending(self) -> tuple[bytes, bytes]:
        """What follows the last token, and what of it comes late."""
        if self.draws.failure == "garbage":
            return _GARBAGE, b""
        if self.draws.failure == "in_stream":
            return self._wire.error(), b""
        return self._wire.closing(self.counts), self._wire.late(self.counts)

    def _extra_headers(self) -> dict[str, str]:
        if self.call.wire == "sagemaker":
            return {"x-amzn-invoked-production-variant": "AllTraffic"}
        return {"cache-control": "no-cache", "x-request-id": f"sim-{self.index}"}

    def _close(self, head: bytes) -> Script:
        """The end of a stream, good or bad."""
        connection, framing, failure = self.connection, self._framing, self.draws.failure
        if failure == "stalled":
            yield from self._stay(failure)
            return
        if failure in ("cut", "reset"):
            yield from self._break_off(failure)
            return
        closing, late = self._ending()
        connection.send(head + framing.body(closing))
        if late:
            yield monotonic_ns() + int(self._options.shape.late_s * NS)
            connection.send(framing.body(late))
        end = framing.end()
        if end:
            connection.send(end)
        self._end(failure if failure and failure != "slow" else "finished")
        connection.finish(close=framing.closes)

    def _whole(self, start: int) -> Script:
        """An answer that is not streamed leaves when its last token is due."""
        counts, draws = self.counts, self.draws
        self._due_first = due = start + draws.ttft_ns
        due += draws.gap_ns(max(0, counts.output_tokens - 1))
        yield due
        if self.outcome is not None:
            return
        if draws.failure in _BROKEN:
            yield from self._break_off(draws.failure or "")
            return
        reasoning = words.text(self.index, counts.reasoning_tokens).decode()
        text = words.text(self.index, counts.answer_tokens).decode()
        if self._said is not None:
            text = "".join(self._said.pieces[: counts.answer_tokens])
        self.first_ns = self.last_ns = monotonic_ns()
        self._due_last, self.tokens, self._chunks = due, counts.output_tokens, 1
        body = self._wire.whole(text, reasoning, counts)
        self._end("finished")
        self.connection.reply(200, {"content-type": "application/json", **self._extra_headers()}, body)

    # --- the bytes ---------------------------------------------------------------------------------------------------

    def _writes(self, prelude: bytes) -> Iterator[tuple[int, bytes]]:
        """(tokens, bytes) of each write that carries tokens, up to where a failure strikes."""
        many, wire, vocabulary = self._options.shape.events_per_write, self._wire, words.VOCABULARY
        data, tokens, held, said = prelude, 0, 0, self._said is not None
        left = self._options.fail_after if self.draws.failure in _BROKEN else -1
        for kind, total in self._kinds():
            data += wire.begin(kind)
            size = total if kind == "tool" and self.call.wire in _CALLS_WHOLE else self._options.tokens_per_chunk
            for at in range(0, total, size):
                if not left:
                    break
                left -= 1
                count = size if at + size <= total else total - at
                event = wire.chunk(
                    self._piece(at, count)
                    if said and kind != "reasoning"
                    else words.text((self.index + at) % vocabulary, count)
                )
                data = data + event if data else event
                tokens, held = tokens + count, held + 1
                if held >= many:
                    yield tokens, data
                    data, tokens, held = b"", 0, 0
        if data:
            yield tokens, data

    def _piece(self, at: int, count: int) -> bytes:
        """So many tokens of the answer that was chosen, as they stand inside JSON."""
        assert self._said is not None
        return json.dumps("".join(self._said.pieces[at : at + count]))[1:-1].encode()

    def _kinds(self) -> Iterator[tuple[Kind, int]]:
        counts = self.counts
        parts: tuple[tuple[Kind, int], ...] = (
            ("reasoning", counts.reasoning_tokens),
            ("answer" if self.call.tool is None else "tool", counts.answer_tokens),
        )
        return (part for part in parts if part[1])

    # --- the end -----------------------------------------------------------------------------------------------------

    def lost(self) -> None:
        """The client is gone."""
        self._end("disconnected")

    def fail(self, name: str) -> None:
        """The answer was a status; the script never runs."""
        self._end(name)

    def _end(self, outcome: str) -> None:
        """Once; a client that leaves what stalled changes nothing about why."""
        if not self._over:
            self._over = True
            self.outcome = self.outcome or outcome
            self._on_end(self)

    def truth(self) -> dict[str, object]:
        """The line of the truth log."""
        return {
            "index": self.index,
            "wire": self.call.wire,
            "outcome": self.outcome or "unfinished",
            "id": self._received.headers.get("x-request-id"),
            "body_digest": hashlib.sha256(self._received.body).hexdigest()[:16],
            "peer_port": self.connection.peer_port,
            "arrival_ns": self._received.at_ns,
            "start_ns": self.start_ns,
            "intended_first_token_ns": self._due_first,
            "first_token_ns": self.first_ns,
            "intended_last_token_ns": self._due_last,
            "last_token_ns": self.last_ns,
            "input_tokens": self.call.input_tokens,
            "output_tokens": self.tokens,
            "reasoning_tokens": min(self.tokens, self.counts.reasoning_tokens),
            "chunks": self._chunks,
            "answer": None if self._said is None else self._said.kind,
        }
