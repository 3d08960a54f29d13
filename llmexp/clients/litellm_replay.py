"""LiteLLM reads an answer.

`replay` runs a call again with the recorded response in place of the network and notes which fragment had been handed
out when each of LiteLLM's chunks came back, so that events carry the stamps of the wire. LiteLLM's guesses at usage
never pass as the server's: only what chunks carried counts. Nor does it decide what is an error or a good end
(`litellm_overheard`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from llmexp.clients import failures, litellm_private, litellm_sdk, openai
from llmexp.clients.base import Answer, ErrorClass, Failure, Response, TokenEvent, Usage
from llmexp.clients.decoding import Draft
from llmexp.clients.litellm_overheard import overheard
from llmexp.clients.litellm_private import Http, Reply, Sent, Stream

Call = Mapping[str, object]
"""Arguments of LiteLLM's `acompletion`, or of `atext_completion` where they hold a prompt."""
_UNDONE = ("content-encoding", "content-length", "transfer-encoding", "connection")


async def start(call: Call) -> Stream:
    """LiteLLM's stream for this call."""
    litellm = litellm_sdk.load()
    complete = litellm.atext_completion if "prompt" in call else litellm.acompletion
    return await complete(**call)


@dataclass(slots=True)
class Heard:
    """What has come out of one of LiteLLM's streams so far: chunks of OpenAI's wire, read by its decoder."""

    draft: Draft = field(default_factory=Draft)
    usage: Usage = field(default_factory=Usage)

    @property
    def events(self) -> list[TokenEvent]:
        """Generated text, with the stamps at which it came out."""
        return self.draft.events

    @property
    def finish_reason(self) -> str | None:
        """The server's, as LiteLLM names it."""
        return self.draft.finish_reason

    async def listen(self, stream: Stream, now_ns: Callable[[], int]) -> None:
        """Reads the stream to its end; what was read before an error is kept."""
        try:
            async for chunk in stream:
                at_ns = now_ns()
                tree = litellm_private.plain(chunk)
                openai.WIRE.take(self.draft, at_ns, "", {"choices": tree.get("choices")})
        finally:
            reason = litellm_private.finish_reason(stream, self.draft.finish_reason)
            self.draft.finish_reason, self.draft.finished = reason, reason is not None
            self.usage = _usage(litellm_private.chunks_heard(stream))

    def answer(self, failure: Failure | None) -> Answer:
        """The same as an `Answer`."""
        read = self.draft.answer()
        return replace(read, usage=self.usage, failure=failure or read.failure)


async def replay(call: Call, is_main: Callable[[Sent], bool], response: Response) -> Answer:
    """What LiteLLM makes of a recorded response."""
    failure = failures.of_response(response)
    if failure is not None:
        return Answer(failure=failure)
    tape, heard = _Tape(response), Heard()

    def play(http: Http, request: Sent) -> object:
        return tape.response(http, request) if is_main(request) else litellm_sdk.PASS

    with litellm_sdk.taking(play):
        try:
            await heard.listen(await start(call), lambda: tape.at_ns)
        except Exception as error:  # noqa: BLE001 -- a server can make LiteLLM raise anything
            failure = _replay_failure(error, response)
    said = overheard(response)
    if said.finish_reason is not None and heard.finish_reason is not None:
        heard.draft.finish_reason = said.finish_reason
    return heard.answer(said.failure or failure)


class _Tape:
    """Hands out fragments one by one and remembers the stamp of the latest."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self.at_ns = response.body[0][0] if response.body else 0

    def response(self, http: Http, request: Sent) -> Reply:
        headers = {name: value for name, value in self._response.headers.items() if name not in _UNDONE}
        reads = {"__aiter__": lambda _: self._later(http), "__iter__": lambda _: self._now()}
        stream = type("TapeStream", (http.AsyncByteStream, http.SyncByteStream), reads)
        return http.Response(self._response.status, headers=headers, stream=stream(), request=request)

    def _now(self) -> Iterator[bytes]:
        for at_ns, data in self._response.body:
            self.at_ns = at_ns
            yield data

    async def _later(self, http: Http) -> AsyncIterator[bytes]:
        for data in self._now():
            yield data
        if not self._response.complete:
            raise http.RemoteProtocolError("the connection ended before the body did")


def _replay_failure(error: Exception, response: Response) -> Failure:
    error_class: ErrorClass = "in_stream"
    if not response.complete or litellm_private.is_cut(error):
        error_class = "cut"
    elif any(isinstance(cause, ValueError) for cause in causes(error)):
        error_class = "malformed"
    return Failure.of(error_class, getattr(error, "status_code", None), str(error))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _usage(chunks: Iterable[object]) -> Usage:
    """Usage as chunks carried it, later ones over earlier ones; LiteLLM's own closing sum is not among them."""
    draft = Draft()
    for chunk in chunks:
        stated = litellm_private.plain(chunk).get("usage")
        stated = stated if isinstance(stated, dict) else litellm_private.plain(getattr(chunk, "usage", None))
        if stated:
            usage = openai.usage_of(stated)
            draft.count(Usage(*[count or None for count in (usage.input_tokens, usage.output_tokens)]))
            draft.count(Usage(None, None, usage.reasoning_tokens or None, usage.cached_tokens or None))
    return draft.usage
