"""LiteLLM's own streams, timed as they are: the fallback for providers whose requests cannot be taken off LiteLLM.

It stands where the worker's `pool.Pool` stands. Each answer is written down, after its end, as the tape of an
OpenAI-style event stream whose pieces carry the stamps at which LiteLLM handed its chunks over, so that everything
behind the worker stays the same. What LiteLLM spends on a chunk is inside these times; `validity` says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import groupby
from time import monotonic_ns

from llmexp.clients import litellm_sdk
from llmexp.clients.base import ErrorClass, Failure, TokenEvent, Usage, classify_status
from llmexp.clients.litellm_call import Caller
from llmexp.clients.litellm_replay import Heard, causes, start
from llmexp.config import Model
from llmexp.worker.pool import Exchange, Tape
from llmexp.workload.request import Request

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
_CONNECT = frozenset({"ConnectError", "ClientConnectorError", "ConnectionRefusedError", "gaierror"})
_CUT = frozenset(
    (
        *("ServerDisconnectedError", "ClientPayloadError", "ClientOSError", "ConnectionResetError", "BrokenPipeError"),
        *("RemoteProtocolError", "ReadError", "WriteError", "IncompleteReadError"),
    )
)
_TIMEOUT = frozenset({"Timeout", "ReadTimeout", "ConnectTimeout", "TimeoutError", "TimeoutException"})


class OwnStreams:
    """Sends requests through LiteLLM, one attempt each, on the worker's event loop."""

    def __init__(self, called: tuple[Model, str | None], ended: Callable[[Exchange, Tape], None]) -> None:
        litellm_sdk.load()
        self._caller = Caller(*called, region=None)
        self._on_end = ended
        self._running: dict[Exchange, tuple[asyncio.Task[None], Heard]] = {}

    @property
    def in_flight(self) -> int:
        """Exchanges that have not ended."""
        return len(self._running)

    async def open(self, count: int) -> None:
        """Nothing: LiteLLM opens its connections itself, when it sends."""

    def submit(self, exchange: Exchange) -> None:
        """Send now; `exchange.data` is the `Request`."""
        heard = Heard()
        task = asyncio.get_running_loop().create_task(self._run(exchange, heard))
        self._running[exchange] = task, heard

    def cut_all(self) -> None:
        """Our time is up: end every exchange as unfinished."""
        for exchange, (task, heard) in list(self._running.items()):
            task.cancel()
            self._end(exchange, heard, None, unfinished=True)

    async def close(self) -> None:
        """Let cancelled tasks come to an end."""
        await asyncio.sleep(0)

    async def _run(self, exchange: Exchange, heard: Heard) -> None:
        def announced() -> None:
            exchange.sent_ns = monotonic_ns()

        litellm_sdk.on_send.set(announced)
        failure = None
        try:
            assert isinstance(exchange.data, Request)
            call = self._caller.call(exchange.data)
            await heard.listen(await start(call), monotonic_ns)
        except Exception as error:  # noqa: BLE001 -- a failed request is data
            failure = failure_of(error, begun=bool(heard.events))
        if exchange in self._running:
            self._end(exchange, heard, failure)

    def _end(self, exchange: Exchange, heard: Heard, failure: Failure | None, *, unfinished: bool = False) -> None:
        del self._running[exchange]
        end_ns = monotonic_ns()
        exchange.sent_ns = exchange.sent_ns or exchange.dispatched_ns
        if heard.events or failure is None:
            write(exchange, heard, end_ns)
        self._on_end(exchange, exchange.tape(end_ns, eof=True, failure=failure, unfinished=unfinished))


def write(exchange: Exchange, heard: Heard, end_ns: int) -> None:
    """What was heard, as the stamps and pieces of an event stream."""
    head = _HEAD
    for at_ns, events in groupby(heard.events, key=lambda event: event.at_ns):
        exchange.stamps.append(at_ns)
        exchange.pieces.append(head + b"".join(framed({"delta": delta(event)}) for event in events))
        head = b""
    exchange.stamps.append(end_ns)
    exchange.pieces.append(head + _closing(heard))


def _closing(heard: Heard) -> bytes:
    finish = framed({"delta": {}, "finish_reason": heard.finish_reason}) if heard.finish_reason else b""
    return finish + _data({"choices": [], "usage": _usage(heard.usage)})


def framed(choice: dict[str, object]) -> bytes:
    """An event of OpenAI's stream with this choice."""
    return _data({"choices": [choice]})


def _data(payload: dict[str, object]) -> bytes:
    return f"data: {json.dumps(payload)}\n\n".encode()


def delta(heard: TokenEvent) -> dict[str, object]:
    """What was heard, as OpenAI's stream has it."""
    if heard.kind == "tool":
        function = {"name": heard.call} if heard.call else {}
        return {"tool_calls": [{"function": {**function, "arguments": heard.text[len(heard.call) :]}}]}
    return {"reasoning_content" if heard.kind == "reasoning" else "content": heard.text}


def _usage(usage: Usage) -> dict[str, object] | None:
    if usage == Usage():
        return None
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def failure_of(error: Exception, *, begun: bool) -> Failure:
    """LiteLLM states a connection that failed or was cut as HTTP 500; what caused it says more."""
    status = getattr(error, "status_code", None)
    code = status if isinstance(status, int) and status >= 400 else None
    names = {type(cause).__name__ for cause in causes(error)}
    error_class: ErrorClass = "client" if code is None else classify_status(code)
    if names & _CONNECT or "Cannot connect to host" in str(error):
        error_class, code = "connect", None
    elif names & _TIMEOUT:
        error_class, code = "timeout", None
    elif names & _CUT or "Server disconnected" in str(error):
        error_class, code = "cut", None
    elif begun:
        error_class = "in_stream"
    return Failure.of(error_class, code, str(error))
