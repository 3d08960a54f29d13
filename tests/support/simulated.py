"""The simulator as a child process, and a bare-socket client that stamps what it reads."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llmexp.clients import anthropic, bedrock, decoding, gemini, openai, sagemaker
from llmexp.clients.base import Answer, Response
from llmexp.clients.http import unframe
from llmexp.endpoints.process import serving
from llmexp.endpoints.simulator import truth

FAST: dict[str, Any] = {"ttft": {"mean_s": 0.01}, "inter_token": {"mean_s": 0.001}}
PROMPT = "How wide is the river?"
PATHS = {
    "openai": "/v1/chat/completions",
    "completions": "/v1/completions",
    "anthropic": "/v1/messages",
    "bedrock": "/model/us.anthropic.claude-sonnet-4%3A0/converse-stream",
    "sagemaker": "/endpoints/llama/invocations-response-stream",
    "tgi": "/endpoints/llama/invocations-response-stream",
    "gemini": "/v1beta/models/gemini-pro:streamGenerateContent?alt=sse",
}


@dataclass(frozen=True)
class Simulated:
    """A simulator that runs."""

    address: str
    pid: int
    _truth: Path
    _stack: ExitStack

    def client(self) -> Client:
        """A new connection; it ends with the simulator."""
        client = Client(self.address)
        self._stack.callback(client.close)
        return client

    def truths(self, count: int) -> list[dict[str, Any]]:
        """The first `count` lines of its truth log, as soon as they are written."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            lines = list(truth.read(self._truth))
            if len(lines) >= count:
                return lines[:count]
            time.sleep(0.05)
        raise AssertionError(f"the truth log has fewer than {count} lines")


@contextmanager
def simulator(folder: Path, **settings: Any) -> Iterator[Simulated]:
    """A simulator in a child process."""
    log = folder / "truth.jsonl"
    given = {**FAST, "truth": str(log), **settings}
    with ExitStack() as stack:
        child = stack.enter_context(
            serving("llmexp.endpoints.simulator", given, log=folder / "endpoint.log", timeout_s=20)
        )
        yield Simulated(child.ready["address"], child.pid, log, stack)


def body(wire: str, tokens: int, *, stream: bool = True, prompt: str = PROMPT) -> dict[str, Any]:
    """A request body in this wire."""
    messages = [{"role": "user", "content": prompt}]
    options = {"stream_options": {"include_usage": True}} if stream else {}
    chat = {"model": "m", "messages": messages, "max_tokens": tokens, "stream": stream, **options}
    bodies: dict[str, dict[str, Any]] = {
        "openai": chat,
        "completions": {"model": "m", "prompt": prompt, "max_tokens": tokens, "stream": stream, **options},
        "anthropic": {"model": "m", "messages": messages, "max_tokens": tokens, "stream": stream},
        "bedrock": {
            "messages": [{"role": "user", "content": [{"text": prompt}]}],
            "inferenceConfig": {"maxTokens": tokens},
        },
        "sagemaker": chat,
        "tgi": {"inputs": prompt, "parameters": {"max_new_tokens": tokens}, "stream": stream},
        "gemini": {"contents": [{"parts": [{"text": prompt}]}], "generationConfig": {"maxOutputTokens": tokens}},
    }
    return bodies[wire]


@dataclass
class Client:
    """One connection."""

    address: str

    def __post_init__(self) -> None:
        url = urlsplit(self.address)
        self.socket = socket.create_connection((url.hostname, url.port), timeout=10)

    def send(self, path: str, body: dict[str, Any] | None, headers: dict[str, str] | None = None) -> int:
        """Writes a request; the time just before (ns)."""
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "Host: simulated"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        data = "\r\n".join([*lines, f"Content-Length: {len(content)}", "\r\n"]).encode() + content
        sent_ns = time.monotonic_ns()
        self.socket.sendall(data)
        return sent_ns

    def read(self, timeout_s: float = 10) -> Response:
        """The response, or what there is of it when the server closes or says nothing more."""
        stamps: list[int] = []
        pieces: list[bytes] = []
        self.socket.settimeout(timeout_s)
        eof = False
        while not eof:
            try:
                piece = self.socket.recv(65536)
            except (TimeoutError, ConnectionResetError):
                break
            eof = not piece
            stamps.append(time.monotonic_ns())
            pieces.append(piece)
            if _is_whole(stamps, pieces):
                break
        return unframe(stamps, pieces, eof=eof)

    def ask(self, wire: str, tokens: int = 8, **options: Any) -> tuple[int, Answer]:
        """A request and what its response means; (sent ns, answer)."""
        sent_ns = self.send(PATHS[wire], body(wire, tokens, **options))
        return sent_ns, explain(wire, self.read())

    def closed(self, within_s: float) -> bool:
        """Whether the server closes the connection by itself."""
        self.socket.settimeout(within_s)
        try:
            return self.socket.recv(1) == b""
        except TimeoutError:
            return False

    def close(self) -> None:
        """Hangs up."""
        self.socket.close()


def _is_whole(stamps: list[int], pieces: list[bytes]) -> bool:
    if b"\r\n\r\n" not in b"".join(pieces):
        return False
    head = b"".join(pieces).split(b"\r\n\r\n")[0].lower()
    return b"connection: close" not in head and unframe(stamps, pieces, eof=False).complete


def explain(wire: str, response: Response) -> Answer:
    """What our own decoder makes of a response."""
    if wire == "bedrock":
        return bedrock.explain(response)
    if wire in ("sagemaker", "tgi"):
        return sagemaker.explain(response)
    folds = {"anthropic": anthropic.WIRE, "gemini": gemini.WIRE}
    return decoding.decode(response, folds.get(wire, openai.WIRE))


def text(answer: Answer, kind: str = "answer") -> str:
    """The text of an answer."""
    return "".join(event.text for event in answer.events if event.kind == kind)
