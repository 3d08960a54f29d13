"""LiteLLM kept at arm's length: the one module that imports it, and the hook that takes its requests.

LiteLLM and the SDKs under it send with httpx or its successor httpx2. While `taking` is active, `send` of both hands
the finished request to a callable instead of a socket; the callable answers with a response of its own or raises
`Taken`. Nothing is patched that LiteLLM calls private, so one hook covers every provider that speaks HTTP this way.

Only companions and, where LiteLLM times itself, workers load this.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import threading
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import TypeVar, cast

from llmexp.clients import litellm_private
from llmexp.clients.litellm_private import Http, LiteLLM, Reply, Sent

_Result = TypeVar("_Result")
_Taker = Callable[[Http, Sent], object]
"""(httpx or httpx2, its request) → its response, or `PASS` to let the request go out."""

PASS = object()
_TEMPLATE_HOST = "huggingface.co"

_taker: _Taker | None = None
_taking = threading.Lock()
on_send: ContextVar[Callable[[], None] | None] = ContextVar("on_send", default=None)
"""Called just before LiteLLM sends for real; set where LiteLLM times itself."""


class Taken(BaseException):
    """Carries a finished request out of LiteLLM. Not an `Exception`: no retry, fallback or logger may catch it."""

    def __init__(self, request: Sent) -> None:
        super().__init__("request taken")
        self.request = request


class NotTaken(BaseException):
    """LiteLLM went for the network by another way than the one that is known; nothing was sent."""


@cache
def load() -> LiteLLM:
    """The litellm module, quiet, offline and hooked. The first call takes seconds."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ.setdefault("LITELLM_TELEMETRY", "False")
    litellm = importlib.import_module("litellm")
    litellm_private.quieten(litellm)
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"pydantic\.")  # about LiteLLM's types
    for name in ("httpx", "httpx2"):
        with suppress(ImportError):
            _hook_httpx(cast("Http", importlib.import_module(name)))
    with suppress(ImportError):
        litellm_private.replace_aiohttp_request(importlib.import_module("aiohttp"), _guarded)
    return cast("LiteLLM", litellm)


def version() -> str:
    """LiteLLM's version, without importing it."""
    from importlib.metadata import version as installed

    return installed("litellm")


@contextmanager
def taking(taker: _Taker) -> Iterator[None]:
    """Requests go to `taker` while this is open. One at a time; others wait."""
    global _taker  # noqa: PLW0603
    with _taking:
        _taker = taker
        try:
            yield
        finally:
            _taker = None


def run(work: Coroutine[object, None, _Result]) -> _Result:
    """The coroutine's result, from an event loop in a thread of its own: callers may have a loop themselves."""
    return asyncio.run_coroutine_threadsafe(work, _loop()).result()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="litellm", daemon=True).start()
    return loop


def _offered(http: Http, request: Sent) -> object:
    """What the taker makes of a request; chat templates on Hugging Face are never fetched."""
    if _taker is None:
        return PASS
    if request.url.host == _TEMPLATE_HOST:
        return http.Response(404, request=request)
    return _taker(http, request)


def _hook_httpx(http: Http) -> None:
    send, asend = http.Client.send, http.AsyncClient.send

    def hooked(self: object, request: Sent, **options: object) -> object:
        if _taker is not None:
            request.read()
        response = _offered(http, request)
        if response is PASS:
            _announce()
            return send(self, request, **options)
        if not options.get("stream"):
            cast("Reply", response).read()
        return response

    async def ahooked(self: object, request: Sent, **options: object) -> object:
        if _taker is not None:
            await request.aread()
        response = _offered(http, request)
        if response is PASS:
            _announce()
            with _let_through():
                return await cast("Awaitable[object]", asend(self, request, **options))
        if not options.get("stream"):
            await cast("Reply", response).aread()
        return response

    http.Client.send, http.AsyncClient.send = hooked, ahooked


_passing: ContextVar[bool] = ContextVar("passing", default=False)


@contextmanager
def _let_through() -> Iterator[None]:
    token = _passing.set(True)
    try:
        yield
    finally:
        _passing.reset(token)


def _guarded(request: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
    """LiteLLM's httpx may stand on aiohttp; a provider that goes to aiohttp directly is stopped before it sends."""

    async def hooked(*args: object, **options: object) -> object:
        if _taker is not None and not _passing.get():
            raise NotTaken
        if not _passing.get():
            _announce()
        return await request(*args, **options)

    return hooked


def _announce() -> None:
    tell = on_send.get()
    if tell is not None:
        tell()
