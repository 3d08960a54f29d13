"""A loopback server that plays the two AWS runtimes, and judges signatures as AWS does: from the raw request alone.

It shares no code with what it tests: its SigV4 is hashlib and hmac, its frames are struct and binascii.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import json
import os
import re
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from llmexp.clients.base import HttpRequest, Response, Target
from llmexp.clients.http import unframe
from llmexp.config import Model
from llmexp.workload.request import Message, Request

ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = "AKIATESTONLY", "test/secret+key", "test-session-token"
BEARER = "bedrock-api-key-for-tests"
SKEW = timedelta(minutes=5)
MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)


# --- frames ----------------------------------------------------------------------------------------------------------


def frame(headers: dict[str, str], payload: bytes | dict[str, Any]) -> bytes:
    if isinstance(payload, dict):
        payload = json.dumps(payload).encode()
    block = b""
    for name, value in headers.items():
        key, text = name.encode(), value.encode()
        block += struct.pack("B", len(key)) + key + struct.pack(">BH", 7, len(text)) + text
    lengths = struct.pack(">II", 16 + len(block) + len(payload), len(block))
    head = lengths + struct.pack(">I", binascii.crc32(lengths))
    return head + block + payload + struct.pack(">I", binascii.crc32(head + block + payload))


def event(kind: str, payload: bytes | dict[str, Any], content_type: str = "application/json") -> bytes:
    return frame({":event-type": kind, ":content-type": content_type, ":message-type": "event"}, payload)


def exception(kind: str, payload: dict[str, Any]) -> bytes:
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, payload)


def converse(
    texts: Iterable[str],
    *,
    stop: str = "end_turn",
    usage: dict[str, int] | None = None,
    latency_ms: int = 321,
) -> list[bytes]:
    """The frames of a whole ConverseStream answer."""
    deltas = [
        event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}, "p": "abcdefgh"}) for text in texts
    ]
    usage = usage or {"inputTokens": 11, "outputTokens": len(deltas), "totalTokens": 11 + len(deltas)}
    return [
        event("messageStart", {"role": "assistant"}),
        *deltas,
        event("contentBlockStop", {"contentBlockIndex": 0}),
        event("messageStop", {"stopReason": stop}),
        event("metadata", {"usage": usage, "metrics": {"latencyMs": latency_ms}}),
    ]


def parts(stream: bytes, size: int) -> list[bytes]:
    """A container's stream in PayloadPart frames of `size` bytes each."""
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    return [event("PayloadPart", piece, "application/octet-stream") for piece in pieces]


# --- the server ------------------------------------------------------------------------------------------------------


@dataclass
class Reply:
    """What the next request gets, if its signature holds."""

    frames: list[bytes] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    piece_bytes: int | None = None
    """Write the body in pieces of this many bytes; None: a frame at a time."""
    cut_at: int | None = None
    """Close the connection after so many bytes of the body."""
    gap_s: float = 0.0


def refusal(name: str, message: str, status: int) -> Reply:
    headers = {"x-amzn-ErrorType": f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/"}
    return Reply(status=status, headers=headers, body=json.dumps({"message": message}).encode())


def throttled() -> Reply:
    return refusal("ThrottlingException", "Too many requests, please wait before trying again.", 429)


@dataclass
class Seen:
    """One request as it came over the wire."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class AwsServer:
    """`with AwsServer("bedrock") as server:` answers each request with the next of `replies`, or the last one again."""

    def __init__(self, service: str, *replies: Reply, region: str = "us-east-1", clock_ahead_s: float = 0) -> None:
        self.service, self.region = service, region
        self.replies = list(replies)
        self.requests: list[Seen] = []
        self.refused: list[str] = []
        self.keys = {ACCESS_KEY: (SECRET_KEY, None), f"{ACCESS_KEY}TEMP": (SECRET_KEY, SESSION_TOKEN)}
        self._clock_ahead = timedelta(seconds=clock_ahead_s)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> AwsServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.close_connections()
        self._server.server_close()
        self._thread.join(5)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._clock_ahead

    def answer(self, seen: Seen) -> Reply:
        self.requests.append(seen)
        if problem := self._judge(seen):
            name, message = problem
            self.refused.append(f"{name}: {message}")
            return refusal(name, message, 403)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def _judge(self, seen: Seen) -> tuple[str, str] | None:
        """What AWS would object to in the request's authentication."""
        given = seen.header("authorization")
        if given is None:
            return "MissingAuthenticationTokenException", "Missing Authentication Token"
        if given.startswith("Bearer "):
            good = given == f"Bearer {BEARER}" and self.service == "bedrock"
            return None if good else ("AccessDeniedException", "Authentication failed: invalid API key")
        found = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?"
            r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})",
            given,
        )
        if not found:
            return "IncompleteSignatureException", f"Authorization header is not a valid one: {given}"
        key, day, region, service, signed, signature = found.groups()
        return (
            self._judge_key(key, seen)
            or self._judge_scope(day, region, service, seen)
            or self._judge_signature(self.keys[key][0], (day, region, service), signed.split(";"), signature, seen)
        )

    def _judge_key(self, key: str, seen: Seen) -> tuple[str, str] | None:
        secret = self.keys.get(key)
        if secret is None or secret[1] != seen.header("x-amz-security-token"):
            return "UnrecognizedClientException", "The security token included in the request is invalid."
        return None

    def _judge_scope(self, day: str, region: str, service: str, seen: Seen) -> tuple[str, str] | None:
        if service != self.service:
            return "InvalidSignatureException", f"Credential should be scoped to correct service: '{self.service}'."
        if region != self.region:
            return "InvalidSignatureException", f"Credential should be scoped to a valid region, not '{region}'."
        stamp = seen.header("x-amz-date") or ""
        if not re.fullmatch(r"\d{8}T\d{6}Z", stamp) or stamp[:8] != day:
            return "IncompleteSignatureException", "Date in Credential scope does not match YYYYMMDD from X-Amz-Date."
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if at < self.now() - SKEW:
            now = f"{self.now():%Y%m%dT%H%M%SZ}"
            edge = f"{self.now() - SKEW:%Y%m%dT%H%M%SZ}"
            return (
                "InvalidSignatureException",
                f"Signature expired: {stamp} is now earlier than {edge} ({now} - 5 min.)",
            )
        if at > self.now() + SKEW:
            return "InvalidSignatureException", f"Signature not yet current: {stamp} is still later than now + 5 min."
        return None

    def _judge_signature(
        self, secret: str, scope: tuple[str, str, str], signed: list[str], signature: str, seen: Seen
    ) -> tuple[str, str] | None:
        present = {name.lower() for name, _ in seen.headers if name.lower().startswith("x-amz-")}
        if not ({"host"} | present) <= set(signed) or signed != sorted(signed):
            return "InvalidSignatureException", f"Host and x-amz-* headers must be signed, got {signed}"
        if not hmac.compare_digest(signature_of(seen, secret, scope, signed), signature):
            return "InvalidSignatureException", MISMATCH
        return None


def signature_of(seen: Seen, secret: str, scope: tuple[str, str, str], signed: list[str]) -> str:
    """SigV4 of a request as it came over the wire."""
    path, _, query = seen.path.partition("?")
    values = {name: " ".join((seen.header(name) or "").split()) for name in signed}
    canonical = "\n".join(
        [
            seen.method,
            quote(path, safe="/-._~"),  # AWS encodes the path that it received once more (S3 alone does not)
            "&".join(sorted(query.split("&"))) if query else "",
            *(f"{name}:{value}" for name, value in values.items()),
            "",
            ";".join(signed),
            hashlib.sha256(seen.body).hexdigest(),
        ]
    )
    day, region, service = scope
    credential = f"{day}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", seen.header("x-amz-date") or "", credential, digest])
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    owner: AwsServer

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: list[socket.socket] = []
        self.accepted = 0

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.append(request)
        self.accepted += 1
        super().process_request(request, client_address)

    def close_connections(self) -> None:
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class _Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        number = self.server.accepted
        try:
            while (seen := self._read(number)) is not None and self._write(self.server.owner.answer(seen)):
                pass
        except (ConnectionError, TimeoutError, ValueError):
            return

    def _read(self, number: int) -> Seen | None:
        line = self.rfile.readline().decode().rstrip("\r\n")
        if not line:
            return None
        method, path, _ = line.split(" ")
        headers = []
        while line := self.rfile.readline().decode("latin-1").rstrip("\r\n"):
            name, _, value = line.partition(":")
            headers.append((name, value.strip()))
        seen = Seen(method, path, headers, b"", number)
        seen.body = self.rfile.read(int(seen.header("content-length") or 0))
        return seen

    def _write(self, reply: Reply) -> bool:
        """Whether the connection lives on."""
        headers = {"x-amzn-RequestId": "11111111-2222-3333-4444-555555555555"} | reply.headers
        if not reply.frames:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(reply.body))}
            self.wfile.write(_head(reply.status, headers) + reply.body)
            return True
        headers |= {"Content-Type": "application/vnd.amazon.eventstream", "Transfer-Encoding": "chunked"}
        self.wfile.write(_head(reply.status, headers))
        for piece in _pieces(reply):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            time.sleep(reply.gap_s)
        if reply.cut_at is not None:
            return False
        self.wfile.write(b"0\r\n\r\n")
        return True


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in headers.items()), "\r\n"]
    return "\r\n".join(lines).encode()


def _pieces(reply: Reply) -> Iterator[bytes]:
    whole = b"".join(reply.frames)[: reply.cut_at]
    if reply.piece_bytes is None and reply.cut_at is None:
        yield from reply.frames
        return
    size = reply.piece_bytes or max(1, len(whole))
    yield from (whole[at : at + size] for at in range(0, len(whole), size))


# --- what tests set up -----------------------------------------------------------------------------------------------


def clean_environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """No credentials but the server's own, no files but those in `folder`, no metadata service."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "LLMEXP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def model_of(**fields: Any) -> Model:
    return Model.model_validate({"name": "us.anthropic.claude-sonnet-4-6", "api": "bedrock"} | fields)


def request_of(text: str = "Write.", max_tokens: int = 64, **fields: Any) -> Request:
    return Request(
        index=0,
        messages=(Message("user", text),),
        max_tokens=max_tokens,
        input_tokens=3,
        prompt_digest="",
        **fields,
    )


# --- a client of nothing but a socket --------------------------------------------------------------------------------


def call(http: HttpRequest, target: Target) -> Response:
    """One exchange over a fresh connection, each read stamped."""
    stamps, pieces = [], []
    with socket.create_connection((target.host, target.port), timeout=10) as connection:
        connection.sendall(http.with_headers((*http.headers, ("Connection", "close"))).encode(target))
        connection.settimeout(10)
        while data := connection.recv(65536):
            stamps.append(time.monotonic_ns())
            pieces.append(data)
            if data.endswith(b"0\r\n\r\n") or _has_length(b"".join(pieces)):
                break
    return unframe(stamps, pieces, http.method, eof=True)


def _has_length(data: bytes) -> bool:
    head, _, body = data.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)content-length: (\d+)", head)
    return found is not None and len(body) >= int(found[1])
