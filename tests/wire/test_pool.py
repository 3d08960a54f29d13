"""The engine on real sockets: every exchange ends exactly once, whatever the server does."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from support.sse_server import End, Script, chunk, head, serve, streamed, whole

from llmexp.clients.base import HttpRequest, Target
from llmexp.worker.dial import Dialer, Dialled, proxy_for, through_proxy
from llmexp.worker.pool import Exchange, Pool, Tape

pytestmark = pytest.mark.service

EVENT = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'


def request(target: Target) -> bytes:
    return HttpRequest("POST", "/v1/x", (("Content-Type", "application/json"),), b"{}").encode(target)


class Ends:
    """Collects tapes and wakes whoever waits for them."""

    def __init__(self) -> None:
        self.tapes: list[Tape] = []
        self._more = asyncio.Event()

    def __call__(self, exchange: Exchange, tape: Tape) -> None:
        self.tapes.append(tape)
        self._more.set()

    async def wait(self, count: int) -> list[Tape]:
        async with asyncio.timeout(10):
            while len(self.tapes) < count:
                self._more.clear()
                await self._more.wait()
        return self.tapes


def run(body: Callable[[], Awaitable[None]]) -> None:
    uvloop.run(body())  # type: ignore[arg-type]


async def one_after_another(port: int, count: int, pool: Pool | None = None) -> tuple[list[Tape], Pool]:
    target = Target("http", "127.0.0.1", port)
    ends = Ends()
    pool = pool or Pool(Dialer(target), ends)
    pool.on_end = ends
    for index in range(count):
        pool.submit(Exchange(index, request(target), 1, 2))
        await ends.wait(index + 1)
    return ends.tapes, pool


@pytest.mark.parametrize(
    ("script", "complete"),
    [
        (streamed(EVENT, EVENT), True),
        (whole(b"{}"), True),
        ([head(more="Connection: close\r\n"), EVENT, 0.01, EVENT, End.CLOSE], True),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", *streamed(EVENT)], True),
        ([b"".join(streamed(EVENT, EVENT))], True),
        ([bytes([byte]) for byte in b"".join(streamed(EVENT))], True),
    ],
    ids=["chunked", "length", "until close", "interim", "one write", "byte by byte"],
)
def test_a_response_ends_where_its_framing_says(script: Script, complete: bool) -> None:
    async def body() -> None:
        async with serve(script) as server:
            tapes, pool = await one_after_another(server.port, 2)
            await pool.close()
            sent = b"".join(step for step in script if isinstance(step, bytes))
            for tape in tapes:
                assert b"".join(tape.pieces) == sent
                assert tape.failure is None
                assert list(tape.stamps) == sorted(tape.stamps)
                assert tape.sent_ns is not None
                assert tape.sent_ns <= tape.stamps[0]
                assert tape.end_ns is not None
                assert tape.end_ns >= tape.stamps[-1]

    run(body)


def test_connections_are_kept_and_opened_before_the_request() -> None:
    async def body() -> None:
        async with serve(streamed(EVENT)) as server:
            target = Target("http", "127.0.0.1", server.port)
            ends = Ends()
            pool = Pool(Dialer(target), ends)
            await pool.open(3)
            for index in range(5):
                pool.submit(Exchange(index, request(target), 1, 2))
                await ends.wait(index + 1)
            await pool.close()
            assert server.connections == 3
            assert all(tape.connect_s == 0 for tape in ends.tapes)

    run(body)


def test_a_connection_closed_while_idle_is_not_used_again() -> None:
    async def body() -> None:
        script = [*streamed(EVENT), 0.02, End.CLOSE]
        async with serve(script) as server:
            tapes, pool = await one_after_another(server.port, 1)
            await asyncio.sleep(0.1)
            tapes, pool = await one_after_another(server.port, 1, pool)
            await pool.close()
            assert tapes[0].failure is None
            assert tapes[0].stale_connections == 0
            assert tapes[0].connect_s > 0
            assert server.connections == 2

    run(body)


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round trip so long that a busy test machine is never later."""
    monkeypatch.setattr("llmexp.worker.pool.LEAST_ROUND_TRIP_NS", 2_000_000_000)


@pytest.mark.usefixtures("far_away")
def test_a_reused_connection_that_is_reset_unanswered_gets_one_fresh_write() -> None:
    async def body() -> None:
        async with serve(streamed(EVENT), [End.RESET], streamed(EVENT)) as server:
            tapes, pool = await one_after_another(server.port, 2)
            await pool.close()
            assert tapes[1].failure is None
            assert tapes[1].stale_connections == 1
            assert tapes[1].sent_ns is not None
            assert tapes[1].sent_ns > tapes[0].end_ns  # type: ignore[operator]
            assert len(server.received) == 3

    run(body)


@pytest.mark.usefixtures("far_away")
def test_it_is_not_written_a_third_time() -> None:
    async def body() -> None:
        async with serve(streamed(EVENT), [End.RESET], [End.RESET]) as server:
            tapes, pool = await one_after_another(server.port, 2)
            await pool.close()
            assert tapes[1].failure is not None
            assert tapes[1].failure.error_class == "cut"
            assert len(server.received) == 3

    run(body)


@pytest.mark.parametrize(
    "script",
    [[End.CLOSE], [0.05, End.CLOSE], [0.05, End.RESET]],
    ids=["closed at once", "closed later", "reset later"],
)
def test_a_request_that_a_server_has_read_is_not_sent_again(script: Script) -> None:
    async def body() -> None:
        async with serve(streamed(EVENT), script) as server:
            tapes, pool = await one_after_another(server.port, 2)
            await pool.close()
            assert tapes[1].failure is not None
            assert tapes[1].failure.error_class == "cut"
            assert tapes[1].stale_connections == 0
            assert len(server.received) == 2

    run(body)


def test_a_connection_whose_close_has_only_reached_the_kernel_is_not_used() -> None:
    async def body() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            target = Target("http", "127.0.0.1", listener.getsockname()[1])
            ends = Ends()
            pool = Pool(Dialer(target), ends)
            await pool.open(1)
            peer, _ = listener.accept()
            peer.close()
            pool.submit(Exchange(0, request(target), 1, 2))  # no turn of the loop between
            again, _ = await asyncio.to_thread(listener.accept)
            again.sendall(b"".join(streamed(EVENT)))
            (tape,) = await ends.wait(1)
            again.close()
            await pool.close()
            assert tape.failure is None
            assert tape.stale_connections == 0

    run(body)


def test_a_response_without_end_costs_one_request_and_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmexp.worker.pool.RESPONSE_BYTES", 4 * 2**20)
    flood = [head(chunked=True), *[chunk(EVENT * 1000)] * 2000]

    async def body() -> None:
        async with serve(flood, streamed(EVENT)) as server:
            tapes, pool = await one_after_another(server.port, 2)
            await pool.close()
            assert tapes[0].failure is not None
            assert tapes[0].failure.error_class == "malformed"
            assert "larger than 4 MiB" in tapes[0].failure.message
            assert 0 < sum(map(len, tapes[0].pieces)) < 2 * 2**20
            assert len(tapes[0].pieces) == len(tapes[0].stamps)
            assert tapes[1].failure is None

    run(body)


def test_a_fresh_connection_that_dies_unanswered_is_cut_at_once() -> None:
    async def body() -> None:
        async with serve([End.RESET]) as server:
            tapes, pool = await one_after_another(server.port, 1)
            await pool.close()
            assert tapes[0].failure is not None
            assert tapes[0].failure.error_class == "cut"
            assert len(server.received) == 1

    run(body)


def test_a_cut_in_the_middle_keeps_what_came() -> None:
    async def body() -> None:
        async with serve([head(chunked=True), chunk(EVENT), End.CLOSE]) as server:
            tapes, pool = await one_after_another(server.port, 1)
            await pool.close()
            assert tapes[0].eof
            assert b"".join(tapes[0].pieces).endswith(chunk(EVENT))

    run(body)


def test_garbage_ends_the_exchange_and_the_connection() -> None:
    async def body() -> None:
        async with serve([b"\x16\x03 this is not HTTP\r\n\r\n"]) as server:
            tapes, pool = await one_after_another(server.port, 2)
            await pool.close()
            assert len(tapes) == 2
            assert server.connections == 2

    run(body)


def test_refused_and_unknown_hosts_are_connect_failures() -> None:
    async def body() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for target in (Target("http", "127.0.0.1", port), Target("http", "no-such-host.invalid", 80)):
            ends = Ends()
            pool = Pool(Dialer(target), ends)
            await pool.open(2)
            pool.submit(Exchange(0, b"x", 1, 2))
            (tape,) = await ends.wait(1)
            assert tape.failure is not None
            assert tape.failure.error_class == "connect"
            assert tape.sent_ns is None
            await pool.close()

    run(body)


def test_our_own_limit_cuts_what_is_in_flight() -> None:
    async def body() -> None:
        async with serve([head(chunked=True), chunk(EVENT), End.HANG]) as server:
            target = Target("http", "127.0.0.1", server.port)
            ends = Ends()
            pool = Pool(Dialer(target), ends)
            pool.submit(Exchange(0, request(target), 1, 2))
            await asyncio.sleep(0.1)
            pool.cut_all()
            (tape,) = ends.tapes
            assert tape.unfinished
            assert tape.pieces
            assert pool.in_flight == 0
            await pool.close()

    run(body)


def test_a_name_that_moved_between_two_jobs_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with serve(streamed(EVENT)) as server:
            target = Target("http", "localhost", server.port)
            ends = Ends()
            pool = Pool(Dialer(target), ends)
            at = "127.0.0.1"

            async def look_up(_dialer: Dialer, _loop: object) -> tuple[list[tuple[object, ...]], int]:
                return [(at, server.port)], server.port

            monkeypatch.setattr(Dialer, "_look_up", look_up)
            await pool.open(2)
            pool.single_use = True
            await pool.renew()
            assert len(pool._idle) == 2
            assert not pool.single_use
            at = "127.0.0.2"
            await pool.renew()
            assert pool._idle == []
            at = "127.0.0.1"
            await pool.open(1)
            pool.submit(Exchange(0, request(target), 1, 2))
            (tape,) = await ends.wait(1)
            assert tape.failure is None
            await pool.close()

    run(body)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1."""
    where = tmp_path_factory.mktemp("tls") / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
            *("-keyout", where, "-out", where.with_suffix(".crt")),
        ],
        check=True,
        capture_output=True,
    )
    where.write_bytes(where.read_bytes() + where.with_suffix(".crt").read_bytes())
    return where


async def tls_server(certificate: Path) -> asyncio.Server:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"".join(streamed(EVENT)))
        await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)


def test_tls_trusts_the_users_bundle_and_nothing_else(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetch(port: int) -> Tape:
        target = Target("https", "127.0.0.1", port)
        ends = Ends()
        pool = Pool(Dialer(target), ends)
        pool.submit(Exchange(0, request(target), 1, 2))
        (tape,) = await ends.wait(1)
        await pool.close()
        return tape

    async def body() -> None:
        server = await tls_server(certificate)
        port = server.sockets[0].getsockname()[1]
        refused = await fetch(port)
        assert refused.failure is not None
        assert refused.failure.error_class == "tls"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
        trusted = await fetch(port)
        assert trusted.failure is None
        assert b"HTTP/1.1 200" in trusted.pieces[0]
        server.close()

    run(body)


def test_https_goes_through_a_proxy_by_connect(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target's name is no loopback address, so the proxy applies; it leads to our TLS server all the same."""
    seen: list[bytes] = []

    async def body() -> None:
        server = await tls_server(certificate)
        port = server.sockets[0].getsockname()[1]

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))

        front = await asyncio.start_server(proxy, "127.0.0.1", 0)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
        monkeypatch.setenv("https_proxy", f"http://user:pass@127.0.0.1:{front.sockets[0].getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        target = Target("https", "api.test", 443)
        ends = Ends()
        pool = Pool(Dialer(target), ends)
        pool.submit(Exchange(0, request(target), 1, 2))
        (tape,) = await ends.wait(1)
        # The certificate is for localhost: reaching its check proves that TLS ran inside the tunnel.
        assert tape.failure is not None
        assert tape.failure.error_class == "tls"
        assert seen[0].startswith(b"CONNECT api.test:443 HTTP/1.1\r\n")
        assert b"Proxy-Authorization: Basic dXNlcjpwYXNz" in seen[0]
        await pool.close()
        front.close()
        server.close()

    run(body)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except ConnectionError:
        pass
    writer.close()


def test_plain_http_names_the_whole_url_to_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    http = HttpRequest("POST", "/v1/x", (), b"")
    assert through_proxy(http, Target("http", "api.test", 8000)).path == "http://api.test:8000/v1/x"
    assert through_proxy(http, Target("http", "127.0.0.1", 8000)).path == "/v1/x"


class Never(Dialled):
    """A connection that is not to be opened."""

    def abort(self) -> None:
        pass


@pytest.mark.parametrize("named", ["socks5h://127.0.0.1:1080", "https://user:secret@127.0.0.1:3128"])
def test_a_proxy_of_another_kind_is_told_and_not_called(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", named)
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)

    async def body() -> None:
        failure = await Dialer(Target("http", "api.test", 80)).connect(Never())
        assert failure is not None
        assert failure.error_class == "connect"
        assert (
            "only http:// ones can be used: set HTTPS_PROXY or HTTP_PROXY to one, or add api.test to" in failure.message
        )
        assert "secret" not in failure.message

    run(body)


@pytest.mark.parametrize(
    ("host", "is_past"),
    [
        ("10.0.3.4", True),
        ("11.0.3.4", False),
        ("fd00::5", True),
        ("api.test", True),
        ("x.api.test", True),
        ("t", False),
    ],
)
def test_no_proxy_takes_names_and_networks(host: str, is_past: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
    monkeypatch.setenv("no_proxy", "localhost, 10.0.0.0/8, fd00::/8, api.test:8000, none/x")
    assert (proxy_for(Target("http", host, 8000)) is None) == is_past


def test_a_server_that_drops_each_connection_unannounced_costs_one_request_at_most() -> None:
    async def body() -> None:
        script = [*streamed(EVENT), 0.003, End.CLOSE]
        async with serve(*[script] * 40) as server:
            tapes, pool = await one_after_another(server.port, 12)
            await pool.close()
        assert pool.single_use
        assert sum(tape.failure is not None for tape in tapes) <= 1

    run(body)
