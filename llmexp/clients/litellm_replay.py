"""LiteLLM reads an answer.

`replay` runs a call again with the recorded response in place of the network and notes which fragment had been handed
out when each of LiteLLM's chunks came back, so that events carry the stamps of the wire. LiteLLM's guesses at usage
never pass as the server's: only what chunks carried counts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from llmexp.clients import failures, litellm_sdk
from llmexp.clients.base import Answer, ErrorClass, Failure, Response, TokenEvent, TokenKind, Usage

Call = Mapping[str, Any]
"""Arguments of LiteLLM's `acompletion`, or of `atext_completion` where they hold a prompt."""
_UNDONE = ("content-encoding", "content-length", "transfer-encoding", "connection")


async def start(call: Call) -> Any:
    """LiteLLM's stream for this call."""
    litellm = litellm_sdk.load()
    complete = litellm.atext_completion if "prompt" in call else litellm.acompletion
    return await complete(**call)


@dataclass(slots=True)
class Heard:
    """What has come out of one of LiteLLM's streams so far."""

    events: list[TokenEvent] = field(default_factory=list)
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    finished: bool = False

    async def listen(self, stream: Any, now_ns: Callable[[], int]) -> None:
        """Reads the stream to its end; what was read before an error is kept."""
        try:
            async for chunk in stream:
                at_ns = now_ns()
                self.events.extend(TokenEvent(at_ns, kind, text) for kind, text in _texts(chunk))
        finally:
            self.finish_reason = getattr(stream, "received_finish_reason", None)
            self.finished = self.finish_reason is not None
            self.usage = _usage(getattr(stream, "chunks", ()))

    def answer(self, failure: Failure | None) -> Answer:
        """The same as an `Answer`."""
        return Answer(self.events, self.usage, self.finish_reason, failure, finished=self.finished)


async def replay(call: Call, is_main: Callable[[Any], bool], response: Response) -> Answer:
    """What LiteLLM makes of a recorded response."""
    failure = failures.of_response(response)
    if failure is not None:
        return Answer(failure=failure)
    tape, heard = _Tape(response), Heard()

    def play(http: Any, request: Any) -> Any:
        return tape.response(http, request) if is_main(request) else litellm_sdk.PASS

    with litellm_sdk.taking(play):
        try:
            await heard.listen(await start(call), lambda: tape.at_ns)
        except Exception as error:  # noqa: BLE001 -- a server can make LiteLLM raise anything
            failure = _replay_failure(error, response)
    return heard.answer(failure)


class _Tape:
    """Hands out fragments one by one and remembers the stamp of the latest."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self.at_ns = response.body[0][0] if response.body else 0

    def response(self, http: Any, request: Any) -> Any:
        headers = {name: value for name, value in self._response.headers.items() if name not in _UNDONE}
        reads = {"__aiter__": lambda _: self._later(http), "__iter__": lambda _: self._now()}
        stream = type("TapeStream", (http.AsyncByteStream, http.SyncByteStream), reads)
        return http.Response(self._response.status, headers=headers, stream=stream(), request=request)

    def _now(self) -> Iterator[bytes]:
        for at_ns, data in self._response.body:
            self.at_ns = at_ns
            yield data

    async def _later(self, http: Any) -> AsyncIterator[bytes]:
        for data in self._now():
            yield data
        if not self._response.complete:
            raise http.RemoteProtocolError("the connection ended before the body did")


def _replay_failure(error: Exception, response: Response) -> Failure:
    error_class: ErrorClass = "in_stream"
    if not response.complete:
        error_class = "cut"
    elif any(isinstance(cause, ValueError) for cause in causes(error)):
        error_class = "malformed"
    return Failure.of(error_class, getattr(error, "status_code", None), str(error))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _texts(chunk: Any) -> Iterator[tuple[TokenKind, str]]:
    """The generated text of one chunk, reasoning first."""
    for choice in chunk.choices or ():
        delta = getattr(choice, "delta", None)
        if delta is None:
            if getattr(choice, "text", None):
                yield "answer", choice.text
            continue
        if getattr(delta, "reasoning_content", None):
            yield "reasoning", delta.reasoning_content
        if getattr(delta, "content", None):
            yield "answer", delta.content
        for call in getattr(delta, "tool_calls", None) or ():
            if call.function is not None and call.function.arguments:
                yield "tool", call.function.arguments


def _usage(chunks: Any) -> Usage:
    """Usage as chunks carried it, later ones over earlier ones; LiteLLM's own closing sum is not among them."""
    usage = Usage()
    for chunk in chunks:
        stated = getattr(chunk, "usage", None)
        if stated is None:
            continue
        counts = {
            "input_tokens": getattr(stated, "prompt_tokens", None),
            "output_tokens": getattr(stated, "completion_tokens", None),
            "reasoning_tokens": getattr(getattr(stated, "completion_tokens_details", None), "reasoning_tokens", None),
            "cached_tokens": getattr(getattr(stated, "prompt_tokens_details", None), "cached_tokens", None),
        }
        usage = replace(usage, **{name: count for name, count in counts.items() if count})
    return usage
