"""The seam between workers and APIs: small frozen types, and the one protocol that an API implements.

A client never opens a socket. It turns a `Request` into bytes (`prepare`, then `sign` shortly before the send) and a
finished `Response` into an `Answer` (`explain`). Both run in a worker's companion process, never beside the stamping
loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

from llmexp.clients.json_text import mend
from llmexp.secrets import LOOKED_AT, beginning, foreign, trimmed
from llmexp.workload.request import Request

ErrorClass = Literal[
    "connect",
    "tls",
    "auth",
    "not_found",
    "throttled",
    "bad_request",
    "server",
    "in_stream",
    "malformed",
    "cut",
    "empty",
    "timeout",
    "client",
]
TokenKind = Literal["answer", "reasoning", "tool"]
Headers = tuple[tuple[str, str], ...]
MESSAGE_LIMIT = 500
CODE_LIMIT = 100
EXCERPT = 200
BODY_LIMIT = 4 * LOOKED_AT + 4
"""Bytes of a body that people are shown the beginning of: more characters than are looked at, whatever they are."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where connections of a client go."""

    scheme: Literal["http", "https"]
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        default = 443 if self.scheme == "https" else 80
        bare = self.host.partition("%")[0]  # the zone of a link-local address is of this machine alone
        name = f"[{bare}]" if ":" in bare else bare
        return name if self.port == default else f"{name}:{self.port}"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP/1.1 request; `headers` without Host, Content-Length, Connection and Accept-Encoding."""

    method: str
    path: str
    """Path and query, percent-encoded as it goes on the wire."""
    headers: Headers
    body: bytes

    def with_headers(self, headers: Headers) -> HttpRequest:
        """The same request with other headers."""
        return replace(self, headers=headers)

    def encode(self, target: Target) -> bytes:
        """The bytes of the wire. Asks for `identity`: compression would hide when tokens arrive."""
        present = {name.lower() for name, _ in self.headers}
        lines = [f"{self.method} {self.path} HTTP/1.1"]
        if "host" not in present:
            lines.append(f"Host: {target.authority}")
        lines += [f"{name}: {value}" for name, value in self.headers]
        if "accept-encoding" not in present:
            lines.append("Accept-Encoding: identity")
        lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1") + self.body


@dataclass(frozen=True, slots=True)
class Response:
    """A response taken off a tape: framing and compression undone, arrival stamps kept."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: list[tuple[int, bytes]]
    """(arrival in ns, bytes) of each read that carried body bytes."""
    complete: bool
    """False when the connection ended before the body did."""

    @property
    def content(self) -> bytes:
        """The whole body."""
        return b"".join(data for _, data in self.body)


class TokenEvent(NamedTuple):
    """Generated text as one event of the stream carried it."""

    at_ns: int
    kind: TokenKind
    text: str
    call: str = ""
    """The name of the tool whose call begins here; the text begins with it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as the server states them; None where it does not."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    """What is billed as output, reasoning included."""
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    """Input tokens read from a prompt cache; they are part of `input_tokens`."""
    cache_write_tokens: int | None = None
    """Input tokens written to a prompt cache at a price of their own; they are part of `input_tokens`."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request has no good answer."""

    error_class: ErrorClass
    code: str | None
    """HTTP status or the API's own code, as text."""
    message: str

    @classmethod
    def of(cls, error_class: ErrorClass, code: object, message: str) -> Failure:
        """A failure with its message on one line, without secrets, trimmed to `MESSAGE_LIMIT` characters after that."""
        said = None if code is None else _shown(str(code), CODE_LIMIT)
        return cls(error_class, said, _shown(message, MESSAGE_LIMIT))


def _shown(text: str, limit: int) -> str:
    return trimmed(foreign(mend(" ".join(beginning(text).split()))), limit)


def excerpt(body: bytes) -> str:
    """How a body begins, without secrets, for people to read: at most `EXCERPT` characters."""
    return trimmed(beginning(body[:BODY_LIMIT].decode("utf-8", "replace")), EXCERPT)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a response means."""

    events: list[TokenEvent] = field(default_factory=list)
    """Generated text in the order of arrival; events without text are not listed."""
    usage: Usage = Usage()
    finish_reason: str | None = None
    failure: Failure | None = None
    server_latency_s: float | None = None
    """The server's own figure for the whole request, where it sends one."""
    finished: bool = False
    """True when the wire's own end mark was seen (finish reason, [DONE], messageStop)."""
    reasoning_summarised: bool = False
    """The streamed reasoning is a summary, or left out: its tokens are not those that usage bills."""
    remarks: tuple[str, ...] = ()
    """What is unusual about the stream, by the names of `records.REMARKS`."""
    noise: int = 0
    """Events that are neither part of the answer nor an error: times, pings, null."""


class Client(Protocol):
    """One API. Instances are built once per companion process and are not shared between threads."""

    @property
    def target(self) -> Target:
        """Where the connections go."""
        ...

    def prepare(self, request: Request) -> HttpRequest:
        """The HTTP request, complete but for signatures that expire. May be called minutes ahead."""
        ...

    @property
    def signature_lifetime_s(self) -> float | None:
        """How long a signed request may wait before it is sent; None: `sign` is the identity."""
        ...

    def sign(self, http: HttpRequest) -> HttpRequest:
        """The request with a fresh signature; called at most `signature_lifetime_s` before the send."""
        ...

    def explain(self, response: Response) -> Answer:
        """What the response means; never raises for anything a server can send."""
        ...


def classify_status(status: int) -> ErrorClass:
    """The error class of an HTTP status that is not 2xx."""
    if status in (401, 403):
        return "auth"
    if status == 404:
        return "not_found"
    if status == 429:
        return "throttled"
    return "server" if status >= 500 else "bad_request"
