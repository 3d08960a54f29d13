"""A client that posts JSON and signs nothing: what the OpenAI and Anthropic wires have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson

from llmexp.clients.base import Answer, Headers, HttpRequest, Response, Target
from llmexp.clients.decoding import Wire, decode
from llmexp.workload.request import Request


class UnsignedClient:
    """Posts `body(request)` as JSON to one path and reads the answer in `wire`."""

    def __init__(
        self,
        target: Target,
        path: str,
        headers: Headers,
        body: Callable[[Request], Mapping[str, object]],
        wire: Wire,
    ) -> None:
        self._target = target
        self._path = path
        self._headers = headers
        self._body = body
        self._wire = wire

    @property
    def target(self) -> Target:
        """Where the connections go."""
        return self._target

    @property
    def signature_lifetime_s(self) -> float | None:
        """None: nothing is signed."""
        return None

    def prepare(self, request: Request) -> HttpRequest:
        """The whole HTTP request."""
        return HttpRequest("POST", self._path, self._headers, orjson.dumps(self._body(request)))

    def sign(self, http: HttpRequest) -> HttpRequest:
        """The same request."""
        return http

    def explain(self, response: Response) -> Answer:
        """What the response means."""
        return decode(response, self._wire)
