"""What a tape means: the one place where stamps, an answer and token counts become a `Record`.

Runs in a worker's companion, after the response has ended. A request that failed keeps what was timed until then.
"""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, Protocol

from llmexp.clients.base import Answer, Client, Failure, Response, excerpt
from llmexp.clients.http import Headless, Malformed, unframe
from llmexp.clients.json_text import TooLarge
from llmexp.companion.belief import believed
from llmexp.companion.calls import calls_of
from llmexp.companion.token_shares import Allotment, Counter, allot
from llmexp.records import Record, Source, Status
from llmexp.workload.request import Request

if TYPE_CHECKING:
    from llmexp.worker.pool import Tape


_CUT_BY_LIMIT = {"length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"}
"""Finish reasons of a token limit, in lower case."""


class Explainer(Protocol):
    """The part of a `Client` that is needed here."""

    def explain(self, response: Response) -> Answer:
        """What the response means."""
        ...


def record(tape: Tape, request: Request, client: Client | Explainer, tokenizer: Counter, worker: int) -> Record:
    """The row of `requests.parquet` for one exchange; its texts are always set, for the caller to keep or drop."""
    seen = _read(tape, client)
    failure = _failure(tape, seen)
    usage, remarks = believed(seen.answer, request, tokenizer)
    answer = replace(seen.answer, usage=usage)
    row = _bare(tape, request, worker, _status(tape, failure))
    row.finish_reason = seen.answer.finish_reason
    row.server_latency_s = seen.answer.server_latency_s
    row.http_status = seen.response.status if seen.response else None
    if failure is not None:
        row.error_class, row.error_code, row.error_message = failure.error_class, failure.code, failure.message
    row.remarks, row.noise_events = list(remarks), answer.noise
    _input(row, request, answer, tokenizer.source)
    if answer.events:
        _times(row, answer)
        _output(row, answer, allot(answer, tokenizer))
    elif usage.output_tokens is not None:
        row.output_tokens, row.output_tokens_source = usage.output_tokens, "server"
    _texts(row, request)
    return row


def unexplained(tape: Tape, request: Request, worker: int, error: Exception) -> Record:
    """The row of an exchange whose tape could not be explained, through a fault of ours."""
    failure = Failure.of("client", type(error).__name__, f"internal error while explaining the answer: {error}")
    row = _bare(tape, request, worker, "failed")
    row.error_class, row.error_code, row.error_message = failure.error_class, failure.code, failure.message
    return row


def _bare(tape: Tape, request: Request, worker: int, status: Status) -> Record:
    """Which request it was, and what the worker itself saw of it."""
    return Record(
        index=request.index,
        worker=worker,
        status=status,
        intended_ns=tape.intended_ns,
        dispatched_ns=tape.dispatched_ns,
        sent_ns=tape.sent_ns,
        wait_s=tape.wait_s,
        connect_s=tape.connect_s,
        first_byte_ns=tape.stamps[0] if tape.stamps else None,
        end_ns=tape.end_ns,
        max_tokens=request.max_tokens,
        stale_connections=tape.stale_connections,
        prompt_digest=request.prompt_digest,
        session=request.session,
        turn=request.turn,
        session_turns=None if request.session is None else request.turns,
    )


# --- what was seen ---------------------------------------------------------------------------------------------------


class _Seen(NamedTuple):
    """A tape, as far as it could be read."""

    response: Response | None
    answer: Answer
    fault: Failure | None
    """Malformed framing or compression."""


def _read(tape: Tape, client: Client | Explainer) -> _Seen:
    fault = None
    try:
        response: Response | None = unframe(tape.stamps, tape.pieces, eof=tape.eof)
    except Headless:
        response = None
    except Malformed as error:
        response, fault = error.partial, Failure.of("malformed", None, str(error))
    return _Seen(response, Answer() if response is None else _explained(client, response), fault)


def _explained(client: Client | Explainer, response: Response) -> Answer:
    """The client's answer; a fault of the client itself costs one request, never the others."""
    try:
        return client.explain(response)
    except TooLarge as error:
        return Answer(failure=Failure.of("malformed", None, str(error)))
    except Exception as error:  # noqa: BLE001 -- see above
        return Answer(failure=Failure.of("client", type(error).__name__, f"the answer could not be explained: {error}"))


# --- the verdict -----------------------------------------------------------------------------------------------------


def _status(tape: Tape, failure: Failure | None) -> Status:
    if failure is not None:
        return "failed"
    return "unfinished" if tape.unfinished else "completed"


def _failure(tape: Tape, seen: _Seen) -> Failure | None:
    """Why there is no good answer: what the server said counts before what the transport met."""
    found = seen.answer.failure or seen.fault
    if found is not None or tape.unfinished:
        return found
    return tape.failure or _shortcoming(seen)


def _shortcoming(seen: _Seen) -> Failure | None:
    """A transport that met nothing may still have brought no answer, or half of one."""
    response, answer = seen.response, seen.answer
    if response is None:
        return Failure.of("cut", None, "the connection was closed before a whole response head")
    if not answer.finished and (answer.events or not response.complete):
        return Failure.of("cut", None, f"the stream ended after {len(answer.events)} events without a finish mark")
    if not answer.events:
        return Failure.of("empty", None, _emptiness(response, answer))
    return None


def _emptiness(response: Response, answer: Answer) -> str:
    billed = answer.usage.output_tokens
    if billed:
        return f"no token was streamed, though the server counts {billed} (reasoning that it does not show?)"
    body = excerpt(response.content)
    return f"{response.status} without a token: {body}" if body else f"{response.status} with an empty body"


# --- texts -----------------------------------------------------------------------------------------------------------


def _texts(row: Record, request: Request) -> None:
    """What a grader will look at, and what remains of an answer when its text is dropped."""
    row.question = _question(request)
    row.expected = None if request.expected is None else json.dumps(request.expected, ensure_ascii=False)
    if row.status == "completed":
        answer = json.dumps([row.text or "", row.tool_calls])
        row.answer_digest = blake2b(answer.encode(), digest_size=8).hexdigest()
        row.truncated = (row.finish_reason or "").lower() in _CUT_BY_LIMIT


def _question(request: Request) -> str:
    """What was asked, for a person or a judge to read: one message as it is, of several who said what."""
    asked = request.messages
    if request.session is not None:  # the session so far stands in the turns before
        said = max((at for at, message in enumerate(asked) if message.role == "assistant"), default=-1)
        asked = asked[said + 1 :]
    if len(asked) == 1:
        return asked[0].text
    return "\n\n".join(f"{message.role}: {message.text}" for message in asked)


# --- numbers ---------------------------------------------------------------------------------------------------------


def _input(row: Record, request: Request, answer: Answer, counted_by: Source) -> None:
    usage = answer.usage
    row.input_tokens_counted = request.input_tokens
    row.input_tokens, row.input_tokens_source = request.input_tokens, counted_by
    if usage.input_tokens is not None:
        row.input_tokens, row.input_tokens_source = usage.input_tokens, "server"
    if usage.cached_tokens is not None:
        row.cached_tokens, row.cached_tokens_source = usage.cached_tokens, "server"
    row.cache_write_tokens = usage.cache_write_tokens


def _times(row: Record, answer: Answer) -> None:
    events = answer.events
    row.first_token_ns, row.last_token_ns = events[0].at_ns, events[-1].at_ns
    row.first_answer_token_ns = next((event.at_ns for event in events if event.kind != "reasoning"), None)
    row.reasoning_streamed = any(event.kind == "reasoning" for event in events)
    row.text = "".join([event.text for event in events if event.kind == "answer"])
    row.first_tool_call_ns = next((event.at_ns for event in events if event.kind == "tool"), None)
    if row.first_tool_call_ns is not None:
        row.tool_calls = json.dumps(calls_of(events), ensure_ascii=False)


def _output(row: Record, answer: Answer, allotment: Allotment) -> None:
    usage = answer.usage
    row.chunk_tokens_source = allotment.source
    row.output_tokens_counted = allotment.counted
    row.output_tokens, row.output_tokens_source = allotment.total, allotment.total_source
    if usage.output_tokens is not None:
        row.output_tokens, row.output_tokens_source = usage.output_tokens, "server"
    if usage.reasoning_tokens is not None:
        row.reasoning_tokens, row.reasoning_tokens_source = usage.reasoning_tokens, "server"
    elif row.reasoning_streamed:
        shares = zip(answer.events, allotment.tokens, strict=True)
        row.reasoning_tokens = sum(tokens for event, tokens in shares if event.kind == "reasoning")
        row.reasoning_tokens_source = allotment.source
    _merge(row, answer, allotment.tokens)


def _merge(row: Record, answer: Answer, tokens: list[int]) -> None:
    """Events of one read are one chunk."""
    at, counts, last_ns = row.chunk_ns, row.chunk_tokens, None
    for event, share in zip(answer.events, tokens, strict=True):
        if event.at_ns == last_ns:
            counts[-1] += share
        else:
            last_ns = event.at_ns
            at.append(last_ns)
            counts.append(share)
