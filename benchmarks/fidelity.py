"""How faithful is the client? Its error and its cost, beside a bare-socket client's in the same run.

    python benchmarks/fidelity.py [--rows openai:64,openai:256,openai:1024,litellm:64,litellm:256,tls:64]

The simulator is the truth (TTFT 200 ms, 20 ms a token, 128 tokens, one token a chunk). In each row first a bare client
(one uvloop process that writes prepared bytes, stamps what it reads and understands it after the end) and then the
engine run the same closed loop. An error is what a client says less what the simulator noted; the bars hold for what
the engine is off by beyond the bare client, so that a noisy machine does not decide. All share this machine's cores.
CPU is that of the whole process tree, Ray's own processes included, while the load runs.
Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import json
import os
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns, process_time
from typing import Any, cast
from urllib.parse import urlsplit

from llmexp.calibrate.measure import TTFT_S, Errors, Load, Point, Stamps, config_of, errors, measure_at, requests_of
from llmexp.endpoints import Running
from llmexp.endpoints.process import Child, serving
from llmexp.endpoints.simulator import truth

ROWS = "openai:64,openai:256,openai:1024,litellm:64,litellm:256,tls:64"
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Bar:
    """What a row may be off by beyond the bare client."""

    ttft_p50_ms: float
    ttft_p99_ms: float
    e2e_p50_ms: float
    rate: float
    held: float


BARS = {
    ("openai", 64): Bar(0.5, 3, 2, 0.005, 0.99),
    ("tls", 64): Bar(0.5, 3, 2, 0.005, 0.99),
    ("openai", 256): Bar(1, 8, 3, 0.005, 0.98),
    ("openai", 1024): Bar(2, 20, 5, 0.01, 0.97),
    ("litellm", 64): Bar(1, 8, 3, 0.01, 0.97),
    ("litellm", 256): Bar(2, 20, 5, 0.01, 0.95),
}
CPU_TIMES, CPU_PLUS_S = 2.0, 0.5


@dataclass(frozen=True)
class Row:
    """One path at one load, by both clients."""

    path: str
    load: Load
    bare: Errors
    bare_cpu_s: float
    engine: Point

    def missed(self) -> Iterator[str]:
        """The bars that do not hold, in words."""
        bar, ours = BARS.get((self.path, self.load.streams)), self.engine.errors
        if self.engine.verdict != "valid":
            yield f"says '{self.engine.verdict}': {' '.join(self.engine.reasons)}"
        if ours is None:
            yield "no request of the engine's is in the truth log"
        if bar is None or ours is None:
            return
        beyond = {
            "TTFT p50": (ours.ttft_p50_s - self.bare.ttft_p50_s, bar.ttft_p50_ms),
            "TTFT p99": (ours.ttft_p99_s - self.bare.ttft_p99_s, bar.ttft_p99_ms),
            "e2e p50": (ours.e2e_p50_s - self.bare.e2e_p50_s, bar.e2e_p50_ms),
        }
        for name, (seconds, most_ms) in beyond.items():
            if seconds * 1e3 > most_ms:
                yield f"{name} is {seconds * 1e3:.2f} ms beyond the bare client's (bar {most_ms:g})"
        if abs(ours.tokens_per_s) > bar.rate:
            yield f"tokens/s is {ours.tokens_per_s:+.2%} off (bar {bar.rate:.1%})"
        if (self.engine.held or 1.0) < bar.held:
            yield f"{self.engine.held:.1%} in flight (bar {bar.held:.0%})"
        if (self.engine.client_cpu_s or 0.0) > CPU_TIMES * self.bare_cpu_s + CPU_PLUS_S:
            yield f"{self.engine.client_cpu_s:.1f} s of CPU against {self.bare_cpu_s:.1f} s"


# --- the bare client -------------------------------------------------------------------------------------------------


class Bare(asyncio.Protocol):
    """One stream: sends the next request, stamps every read, understands nothing."""

    def __init__(self, waiting: list[int], wires: list[bytes], seen: dict[int, Any], left: asyncio.Semaphore) -> None:
        self._waiting, self._wires, self._seen, self._left = waiting, wires, seen, left
        self._stamps: list[int] = []
        self._pieces: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected; nothing is sent yet."""
        self._transport = cast("asyncio.Transport", transport)

    def send(self) -> None:
        """Send the next request, if there is one."""
        if not self._waiting:
            self._transport.close()
            return
        index = self._waiting.pop()
        self._stamps, self._pieces = [], []
        self._seen[index] = (monotonic_ns(), self._stamps, self._pieces)
        self._transport.write(self._wires[index])

    def data_received(self, data: bytes) -> None:
        """Stamp, and go on when the last chunk is there."""
        self._stamps.append(monotonic_ns())
        self._pieces.append(data)
        if data.endswith(b"\r\n0\r\n\r\n") or (data == b"0\r\n\r\n" and len(self._pieces) > 1):
            self._left.release()
            self.send()


async def _bare(given: argparse.Namespace, wires: list[bytes]) -> tuple[dict[int, Any], float]:
    """Every request's stamps and reads, and the CPU time from the first send to the last read."""
    url, loop = urlsplit(given.bare), asyncio.get_running_loop()
    context = ssl.create_default_context() if url.scheme == "https" else None
    waiting, seen, left = list(range(len(wires)))[::-1], {}, asyncio.Semaphore(0)  # type: ignore[var-annotated]
    opened = [
        await loop.create_connection(lambda: Bare(waiting, wires, seen, left), url.hostname, url.port, ssl=context)
        for _ in range(given.streams)
    ]
    gc.freeze()
    gc.disable()
    cpu_s = process_time()
    for _, protocol in opened:
        protocol.send()
    for _ in wires:
        await left.acquire()
    return seen, process_time() - cpu_s


def bare_client(given: argparse.Namespace) -> None:
    """The bare client's process: stamps to stdout as JSON."""
    import uvloop

    from llmexp.clients import decoding, openai
    from llmexp.clients.http import unframe

    load = Load(given.streams, tokens=given.tokens, requests=given.requests)
    client = openai.OpenAIClient(config_of(load).model, f"{given.bare}/v1")
    prepared = [client.prepare(one) for one in requests_of(load)]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen, cpu_s = runner.run(_bare(given, [one.encode(client.target) for one in prepared]))
    found = {}
    for index, (sent_ns, stamps, pieces) in seen.items():
        answer = decoding.decode(unframe(stamps, pieces, eof=False), openai.WIRE)
        digest = hashlib.sha256(prepared[index].body).hexdigest()[:16]
        found[digest] = (sent_ns, answer.events[0].at_ns, answer.events[-1].at_ns, answer.usage.output_tokens)
    json.dump({"cpu_s": cpu_s, "seen": found}, sys.stdout)


# --- a row -----------------------------------------------------------------------------------------------------------


@contextmanager
def simulator(load: Load, folder: Path, certificate: Path | None) -> Iterator[Child]:
    """The endpoint, its truth in `folder`."""
    settings: dict[str, Any] = {
        "ttft": {"mean_s": TTFT_S},
        "inter_token": {"mean_s": load.gap_s},
        "truth": str(folder / "truth.jsonl"),
    }
    if certificate is not None:
        settings |= {"tls_cert": str(certificate), "tls_key": str(certificate.with_suffix(".key"))}
    with serving("llmexp.endpoints.simulator", settings, log=folder / "endpoint.log", timeout_s=30) as child:
        yield child


def run_bare(load: Load, folder: Path, certificate: Path | None) -> tuple[Errors, float]:
    """The bare client's errors and CPU seconds."""
    with simulator(load, folder, certificate) as child:
        flags = {"bare": child.ready["address"], "streams": load.streams, "tokens": load.tokens, "requests": load.count}
        command = [
            sys.executable,
            __file__,
            *(part for name, value in flags.items() for part in (f"--{name}", str(value))),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=load.limit_s + 60)
    said = json.loads(done.stdout)
    seen = {digest: Stamps(*values) for digest, values in said["seen"].items()}
    found = errors(seen, truth.read(folder / "truth.jsonl"))
    assert found is not None
    return found, said["cpu_s"]


def run_engine(path: str, load: Load, folder: Path, certificate: Path | None) -> Point:
    """The engine's point."""
    model = {"api": "litellm", "provider": "hosted_vllm"} if path == "litellm" else {}
    with simulator(load, folder, certificate) as child:
        base_url = f"{child.ready['address']}/v1"
        config = config_of(load, **model)
        finish = measure_at(load, config, Running(base_url, {}, (child.pid,)), folder)
    return finish(folder / "truth.jsonl")


def run_row(path: str, load: Load, certificate: Path) -> Row:
    """Both clients, one after the other."""
    used = certificate if path == "tls" else None
    with ExitStack() as stack:
        first, second = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        bare, cpu_s = run_bare(load, first, used)
        return Row(path, load, bare, cpu_s, run_engine(path, load, second, used))


def make_certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that this process and its children trust."""
    certificate = folder / "certificate.pem"
    files = ["-keyout", str(certificate.with_suffix(".key")), "-out", str(certificate)]
    subject = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=IP:{HOST}"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject, *files]
    subprocess.run(command, check=True, capture_output=True)
    os.environ["SSL_CERT_FILE"] = str(certificate)
    return certificate


# --- the table -------------------------------------------------------------------------------------------------------

HEAD = ("path", "streams", "client", "TTFT p50", "TTFT p99", "e2e p50", "tokens/s", "held", "CPU s", "verdict")


def show(row: Row) -> None:
    """Both clients' lines, then ratios, then missed bars."""
    engine, bare = row.engine, row.bare
    _line(row.path, f"{row.load.streams:,}", "bare", *_errors(bare), "", f"{row.bare_cpu_s:.2f}", "")
    if engine.errors is not None:
        held = "" if engine.held is None else f"{engine.held:.1%}"
        cpu_s = engine.client_cpu_s or 0.0
        _line("", "", "llmexp", *_errors(engine.errors), held, f"{cpu_s:.2f}", engine.verdict)
        pairs = [(engine.errors.ttft_p50_s, bare.ttft_p50_s), (engine.errors.ttft_p99_s, bare.ttft_p99_s)]
        pairs += [(engine.errors.e2e_p50_s, bare.e2e_p50_s)]
        ratios = [f"×{ours / theirs:.1f}" if theirs > 0 else "" for ours, theirs in pairs]
        _line("", "", "ratio", *ratios, "", "", f"×{cpu_s / row.bare_cpu_s:.1f}" if row.bare_cpu_s else "", "")
    for words in row.missed():
        print(f"    {row.path} at {row.load.streams:,}: {words}")
    sys.stdout.flush()


def _errors(found: Errors) -> list[str]:
    times = (found.ttft_p50_s, found.ttft_p99_s, found.e2e_p50_s)
    return [*(f"{seconds * 1e3:+.2f} ms" for seconds in times), f"{found.tokens_per_s:+.2%}"]


def _line(*cells: str) -> None:
    print("  ".join(cell.ljust(7) if at < 3 else cell.rjust(9) for at, cell in enumerate(cells)).rstrip())


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    given = _parser().parse_args(arguments)
    if given.bare is not None:
        bare_client(given)
        return 0
    from llmexp import benchmark
    from llmexp.config import Ray

    rows = [part.split(":") for part in given.rows.split(",")]
    loads = [(path, Load(int(streams), tokens=given.tokens, requests=given.requests)) for path, streams in rows]
    print(f"about {sum(2 * load.expected_s for _, load in loads):.0f} s", file=sys.stderr)
    _line(*HEAD)
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(Path(folder))  # before Ray, whose workers take over the environment
        benchmark.ensure_ray(Ray())
        for path, load in loads:
            row = run_row(path, load, certificate)
            show(row)
            missed += bool(list(row.missed()))
        benchmark.stop_ray()
    return 1 if missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The client's error and cost beside a bare-socket client's.")
    parser.add_argument(
        "--rows", default=ROWS, metavar="PATH:STREAMS,…", help="paths: openai, litellm, tls (%(default)s)"
    )
    parser.add_argument("--tokens", type=int, default=128, help="of each answer (%(default)s)")
    parser.add_argument("--requests", type=int, default=0, help="of each row (three a stream, 128 or more)")
    parser.add_argument("--bare", metavar="ADDRESS", help=argparse.SUPPRESS)
    parser.add_argument("--streams", type=int, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
