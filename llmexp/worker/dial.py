"""Opening connections: TCP, TLS with the user's CA, proxies from the environment.

Names are resolved once per worker, before the clock, so that no request waits for DNS. A proxy is taken from
`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` (names, addresses, networks such as 10.0.0.0/8) as other clients
do; loopback addresses never go through one. Only proxies that speak plain HTTP are used; another kind is an error. A CA
bundle is taken from `SSL_CERT_FILE`, `SSL_CERT_DIR`, `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE` or `AWS_CA_BUNDLE`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import os
import socket
import ssl
import struct
import urllib.request
from dataclasses import replace
from urllib.parse import SplitResult, unquote, urlsplit

from llmexp.clients.base import ErrorClass, Failure, HttpRequest, Target

CONNECT_TIMEOUT_S = 30.0
_TCP_INFO_RTT = 68
"""Where Linux's `struct tcp_info` has `tcpi_rtt`, in µs."""


def proxy_for(target: Target) -> SplitResult | None:
    """The proxy that the environment names for this target, or None."""
    if _is_loopback(target.host) or urllib.request.proxy_bypass(f"{target.host}:{target.port}"):
        return None
    if urllib.request.proxy_bypass(target.host) or _is_in_networks(target.host):
        return None
    proxies = urllib.request.getproxies()
    url = proxies.get(target.scheme) or proxies.get("all")
    if not url:
        return None
    return urlsplit(url if "://" in url else f"http://{url}")


def _is_in_networks(host: str) -> bool:
    """Whether `NO_PROXY` names a network that an address is in."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    for entry in (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(","):
        with contextlib.suppress(ValueError):
            if "/" in entry and address in ipaddress.ip_network(entry.strip(), strict=False):
                return True
    return False


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def tls_context() -> ssl.SSLContext:
    """The system's trust, and the user's own CA bundle where a variable names one. Offers HTTP/1.1 only."""
    context = ssl.create_default_context()
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE"):
        path = os.environ.get(variable)
        if path:
            is_dir = os.path.isdir(path)  # noqa: PTH112 -- a string from the environment
            context.load_verify_locations(capath=path if is_dir else None, cafile=None if is_dir else path)
    context.set_alpn_protocols(["http/1.1"])
    return context


def through_proxy(http: HttpRequest, target: Target) -> HttpRequest:
    """The request in the form a plain-HTTP proxy takes, where the environment names one for `target`."""
    proxy = proxy_for(target) if target.scheme == "http" else None
    if proxy is None:
        return http
    headers = http.headers
    if proxy.username:
        headers += (("Proxy-Authorization", _basic(proxy)),)
    return replace(http, path=f"http://{target.authority}{http.path}", headers=headers)


def _basic(proxy: SplitResult) -> str:
    pair = f"{unquote(proxy.username or '')}:{unquote(proxy.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


class Dialled(asyncio.Protocol):
    """What a dialer opens: a protocol that can also be given up."""

    def abort(self) -> None:
        """Close at once, whatever state it is in."""
        raise NotImplementedError


class Dialer:
    """Opens connections to one target."""

    def __init__(self, target: Target, *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._proxy = proxy_for(target)
        self._tls = tls_context() if target.scheme == "https" else None
        self._address: tuple[str, int] | None = None
        self.round_trip_ns = 0
        """The shortest that connecting took: what a packet needs there and back. 0: not known."""

    async def connect(self, connection: Dialled) -> Failure | None:
        """Open `connection`; the failure if that is not possible."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._connect(connection)
        except Exception as error:  # noqa: BLE001 -- whatever a socket can do becomes a classified failure
            connection.abort()
            return classify(error, self._target)
        return None

    async def _connect(self, connection: Dialled) -> None:
        loop = asyncio.get_running_loop()
        if self._proxy is not None and self._tls is not None:
            await self._tunnel(loop, connection)
            return
        host, port = await self._resolved(loop)
        server_hostname = self._target.host if self._tls is not None else None
        transport, _ = await loop.create_connection(
            lambda: connection, host, port, ssl=self._tls, server_hostname=server_hostname
        )
        _no_delay(transport)
        took_ns = _round_trip_ns(transport)
        if took_ns:
            self.round_trip_ns = min(self.round_trip_ns or took_ns, took_ns)

    async def _resolved(self, loop: asyncio.AbstractEventLoop) -> tuple[str, int]:
        if self._address is None:
            addresses, port = await self._look_up(loop)
            self._address = await self._first_that_answers(loop, addresses, port)
        return self._address

    async def _look_up(self, loop: asyncio.AbstractEventLoop) -> tuple[list[tuple[object, ...]], int]:
        if self._proxy is not None and self._proxy.scheme != "http":
            raise ProxyRefusedError(
                f"the environment names the proxy {self._proxy.scheme}://{self._proxy.hostname}, and only http:// ones "
                f"can be used: set HTTPS_PROXY or HTTP_PROXY to one, or add {self._target.host} to NO_PROXY"
            )
        host = (self._proxy.hostname if self._proxy else None) or self._target.host
        port = (self._proxy.port or 80) if self._proxy else self._target.port
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [info[4][:2] for info in found], port

    async def renew(self) -> bool:
        """Look the name up again, for another job; whether it still stands for the address in use."""
        if self._address is None:
            return True
        try:
            addresses, _ = await self._look_up(asyncio.get_running_loop())
        except OSError:
            return True  # as good as what we have
        if any(str(address[0]) == self._address[0] for address in addresses):
            return True
        self._address = None
        return False

    async def _first_that_answers(
        self, loop: asyncio.AbstractEventLoop, addresses: list[tuple[object, ...]], port: int
    ) -> tuple[str, int]:
        """`localhost` may mean ::1 while the server listens on 127.0.0.1 only: keep the address that works."""
        hosts = list(dict.fromkeys(str(address[0]) for address in addresses))
        for host in hosts[:-1]:
            with contextlib.suppress(OSError):
                transport, _ = await loop.create_connection(asyncio.Protocol, host, port)
                transport.close()
                return host, port
        return hosts[-1], port

    async def _tunnel(self, loop: asyncio.AbstractEventLoop, connection: Dialled) -> None:
        host, port = await self._resolved(loop)
        opened: asyncio.Future[None] = loop.create_future()
        transport, tunnel = await loop.create_connection(lambda: _Tunnel(opened), host, port)
        tunnel.ask(transport, self._target, self._proxy)
        await opened
        transport.set_protocol(connection)
        assert self._tls is not None
        inner = await loop.start_tls(transport, connection, self._tls, server_hostname=self._target.host)
        assert inner is not None
        connection.connection_made(inner)


class ProxyRefusedError(OSError):
    """The proxy answered CONNECT with something other than 200."""


class _Tunnel(asyncio.Protocol):
    """Speaks CONNECT to a proxy until it says 200."""

    def __init__(self, opened: asyncio.Future[None]) -> None:
        self._opened = opened
        self._seen = b""

    def ask(self, transport: asyncio.Transport, target: Target, proxy: SplitResult | None) -> None:
        host = f"[{target.host}]" if ":" in target.host else target.host
        head = f"CONNECT {host}:{target.port} HTTP/1.1\r\nHost: {host}:{target.port}\r\n"
        if proxy is not None and proxy.username:
            head += f"Proxy-Authorization: {_basic(proxy)}\r\n"
        transport.write(f"{head}\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if b"\r\n\r\n" in self._seen and not self._opened.done():
            status = self._seen.split(b"\r\n", 1)[0].decode("latin-1")
            if " 200" in status:
                self._opened.set_result(None)
            else:
                self._opened.set_exception(ProxyRefusedError(f"proxy answered: {status}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._opened.done():
            self._opened.set_exception(exc or ProxyRefusedError("proxy closed the connection"))


def _no_delay(transport: asyncio.BaseTransport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _round_trip_ns(transport: asyncio.BaseTransport) -> int:
    """What connecting took, as the kernel measured it; 0 where it does not tell."""
    sock = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_INFO", None)
    if sock is None or option is None:
        return 0
    try:
        told = sock.getsockopt(socket.IPPROTO_TCP, option, _TCP_INFO_RTT + 4)
    except OSError:
        return 0
    (round_trip_us,) = struct.unpack_from("=I", told, _TCP_INFO_RTT)
    return int(round_trip_us) * 1000


def classify(error: BaseException, target: Target) -> Failure:
    """The failure of an attempt to connect."""
    where = f"{target.scheme}://{target.authority}"
    error_class: ErrorClass = "connect"
    if isinstance(error, TimeoutError):
        error_class = "timeout"
    elif isinstance(error, ssl.SSLError | ssl.CertificateError):
        error_class = "tls"
    text = str(error) or type(error).__name__
    code = getattr(error, "errno", None)
    return Failure.of(error_class, code, f"{where}: {text}")
