"""A server that gives back what it should keep to itself: it echoes the request's headers in errors and in answers.

Every second request is refused with a body that holds all headers as they came, decoded, and in base64 and URL form;
the others get an answer that repeats the key, with escape sequences for a terminal.
"""

from __future__ import annotations

import base64
import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

ESCAPES = "\x1b[31mred\x1b]0;title\x07"


class Echo(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    turns = itertools.count()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if next(self.turns) % 2:
            self._refuse()
        else:
            self._answer()

    def _said(self) -> str:
        values = [str(value) for name, value in self.headers.items() if name.lower() not in ("host", "content-length")]
        words = [word for value in values for word in (value, value.removeprefix("Bearer "))]
        coded = [base64.b64encode(word.encode()).decode() for word in words] + [quote(word, safe="") for word in words]
        # As a gateway quotes another's JSON.
        others = [word.replace("/", "\\/").replace("=", "\\u003d") for word in words]
        return " ".join([*words, *coded, *others])

    def _refuse(self) -> None:
        body = json.dumps(
            {"error": {"message": f"{ESCAPES} [/x] you sent {self._said()}", "code": self._said()}}
        ).encode()
        self._head(401, "application/json", len(body))
        self.wfile.write(body)

    def _answer(self) -> None:
        words = ["Your", " headers: ", self._said()]
        events = [{"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in words]
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        events.append({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 12, "total_tokens": 22}})
        body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"
        self._head(200, "text/event-stream", len(body))
        self.wfile.write(body)

    def _head(self, status: int, kind: str, length: int) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(length))
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Quiet."""


@contextmanager
def echoing() -> Iterator[str]:
    """The server's base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
