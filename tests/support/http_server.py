"""A program for tests of started servers: answers GET like an inference server, in ways that the flags choose.

`python http_server.py --port N` serves; it prints what it was told first. `--spread` starts three descendants that
detach themselves and do not listen to SIGTERM, and writes all pids to a file.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    """`/v1/models` and `/version`."""

    def do_GET(self) -> None:
        bodies = {
            "/v1/models": {"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 4096}]},
            "/version": {"version": "9.9"},
        }
        found = bodies.get(self.path)
        body = json.dumps(found).encode()
        self.send_response(200 if found else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Quiet."""


def spread(file: Path) -> None:
    """A child, a grandchild in a session of its own, and its orphan; none of them listens."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(3):
        if os.fork():
            return
        os.setsid()
        with file.open("a") as out:
            out.write(f"{os.getpid()}\n")
        if os.fork() == 0:
            with file.open("a") as out:
                out.write(f"{os.getpid()}\n")
            time.sleep(600)
    time.sleep(600)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--spread", type=Path)
    parser.add_argument("--daemon", action="store_true")
    parser.add_argument("--die", type=int)
    parser.add_argument("--die-after", type=float)
    parser.add_argument("--say", default="")
    asked = parser.parse_args()
    print("told", asked.say, os.environ.get("OWN_VARIABLE"), flush=True)
    if asked.die is not None:
        print("the last line", file=sys.stderr, flush=True)
        sys.exit(asked.die)
    if asked.spread is not None:
        with asked.spread.open("a") as out:
            out.write(f"{os.getpid()}\n")
        spread(asked.spread)
    if asked.daemon and os.fork():
        sys.exit(0)
    server = ThreadingHTTPServer(("127.0.0.1", asked.port), Handler)
    if asked.die_after is not None:
        server.timeout = 0.05
        end = time.monotonic() + asked.die_after
        while time.monotonic() < end:
            server.handle_request()
        sys.exit(7)
    server.serve_forever()


if __name__ == "__main__":
    main()
