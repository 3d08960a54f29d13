"""HTTP/1.1 framing and compression off a tape: raw bytes with stamps in, one `Response` out.

Every fragment of the body keeps the stamp of the read that carried it. The grammar is llhttp's (through httptools), so
that the worker, which looks for the end of a response with the same parser, and this module never disagree;
`response_parser` gives both the same leniencies.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Protocol

import httptools

from llmexp.clients.base import Response

INFLATED_BYTES = 64 * 2**20
"""A compressed body may inflate to so many bytes."""
KEPT_BYTES = 2**20
"""What is kept of one that is larger."""
_STEP_BYTES = 2**20
_BROTLI_STEP = 64
"""Bytes of Brotli fed at a time: it inflates all that it is given, and up to 16 MiB come of a few."""
_GZIP, _ZLIB, _RAW_DEFLATE = 31, 15, -15
_IDENTITY = frozenset({"", "identity", "none", "utf-8", "utf8", "binary"})
"""Codings that change nothing; some servers write a charset there."""


class Malformed(Exception):  # noqa: N818 -- named after the error class that it becomes
    """Bytes that do not parse; `partial` is what had been read well until then."""

    def __init__(self, message: str, partial: Response | None = None) -> None:
        super().__init__(message)
        self.partial = partial


class Headless(Malformed):
    """The bytes ended before the response's head did: there is no status to judge by."""


def response_parser(protocol: object) -> httptools.HttpResponseParser:
    """A response parser that takes what other clients take too.

    Chunks beside a length, spaces after a chunk's size, lines that end with LF alone.
    """
    made = httptools.HttpResponseParser(protocol)
    made.set_dangerous_leniencies(
        lenient_chunked_length=True,
        lenient_spaces_after_chunk_size=True,
        lenient_optional_cr_before_lf=True,
    )
    return made


def unframe(stamps: Sequence[int], pieces: Sequence[bytes], method: str = "POST", *, eof: bool) -> Response:
    """The response in `pieces`, read at `stamps` (ns).

    `eof` says that the peer closed the connection, which ends a body that has no length. Raises `Malformed`, with what
    could be read before the fault as its `partial`.
    """
    reading = _Reading(method)
    fault = reading.run(stamps, pieces)
    response = reading.response(eof=eof)
    if fault is not None:
        raise Malformed(f"the response is not HTTP/1.1: {fault}", response)
    if response is None:
        raise Headless("the connection ended before the response's head")
    return _decompressed(response)


class _Reading:
    """httptools' callbacks, collecting one final response; interim 1xx responses are skipped."""

    def __init__(self, method: str) -> None:
        self._at_ns = 0
        self._ended = False
        self._method = method
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body: list[tuple[int, bytes]] = []
        self._parser: httptools.HttpResponseParser | None = None

    def run(self, stamps: Sequence[int], pieces: Sequence[bytes]) -> Exception | None:
        """Read the pieces up to the response's end; what the grammar objected to, if anything."""
        self._parser = response_parser(self)
        feed = self._parser.feed_data
        try:
            for at_ns, piece in zip(stamps, pieces, strict=True):
                self._at_ns = at_ns
                feed(piece)
                if self._ended:
                    break
        except httptools.HttpParserError as error:
            return None if self._ended else error
        except httptools.HttpParserUpgrade:
            return None if self._ended else ValueError("it switches to another protocol")
        finally:
            self._parser = None  # it holds this object's methods: leave no cycle behind
        return None

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._status >= 200:
            return  # a trailer
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self._status = self._parser.get_status_code()
        if self._status < 200:
            self._headers = {}
        elif self._method == "HEAD":
            self._ended = True

    def on_body(self, data: bytes) -> None:
        if not self._ended:
            self._body.append((self._at_ns, data))

    def on_message_complete(self) -> None:
        self._ended = self._status >= 200

    def response(self, *, eof: bool) -> Response | None:
        """What has been read; None while the head is incomplete."""
        if self._status < 200:
            return None
        return Response(self._status, self._headers, self._body, self._ended or (eof and self._ends_by_close()))

    def _ends_by_close(self) -> bool:
        chunked = "chunked" in self._headers.get("transfer-encoding", "").lower()
        return not chunked and "content-length" not in self._headers


class _Inflater(Protocol):
    """The part of `zlib.decompressobj` that is used; brotli's decompressor is wrapped to look like it."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def unconsumed_tail(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _decompressed(response: Response) -> Response:
    codings = [name.strip().lower() for name in response.headers.get("content-encoding", "").split(",")]
    for coding in reversed([name for name in codings if name not in _IDENTITY]):
        response = _undo(coding, response)
    return response


def _undo(coding: str, response: Response) -> Response:
    """One content coding off the body; each output keeps the stamp of the input that released it."""
    body: list[tuple[int, bytes]] = []
    partial = Response(response.status, response.headers, body, complete=False)
    try:
        whole = _inflate(coding, response.body, body)
    except _CodingUnknown as error:
        raise Malformed(str(error), partial) from None
    except _InflatedTooFar:
        _shorten(body)
        words = f"the {coding} body inflates to more than {INFLATED_BYTES >> 20} MiB; the rest was not read"
        raise Malformed(words, partial) from None
    except Exception as error:  # noqa: BLE001 -- zlib.error, brotli.error: a library loaded on demand
        raise Malformed(f"the body is not {coding}: {error}", partial) from None
    return Response(response.status, response.headers, body, response.complete and whole)


def _inflate(coding: str, fragments: Iterable[tuple[int, bytes]], into: list[tuple[int, bytes]]) -> bool:
    """Decompress `fragments`; True when the compressed stream had its own end (or was empty)."""
    inflater: _Inflater | None = None
    size = 0
    for at_ns, fragment in fragments:
        data, full = fragment, False
        while data or full:
            if inflater is None or inflater.eof:
                inflater = _inflater(coding, data)
            text = inflater.decompress(data, _STEP_BYTES)
            if text:
                into.append((at_ns, text))
                size += len(text)
                if size > INFLATED_BYTES:
                    raise _InflatedTooFar
            full = len(text) >= _STEP_BYTES and not inflater.eof
            data = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    return inflater is None or inflater.eof


def _shorten(body: list[tuple[int, bytes]]) -> None:
    """Keep the beginning alone."""
    kept = size = 0
    while kept < len(body) and size < KEPT_BYTES:
        size += len(body[kept][1])
        kept += 1
    del body[kept:]


class _InflatedTooFar(Exception):  # noqa: N818
    pass


class _CodingUnknown(Exception):  # noqa: N818
    pass


def _inflater(coding: str, first: bytes) -> _Inflater:
    if coding in ("gzip", "x-gzip"):
        return zlib.decompressobj(_GZIP)
    if coding == "deflate":
        # Meant as zlib's format, sent raw by some; zlib's first byte has 8 in its low half.
        return zlib.decompressobj(_ZLIB if first[0] & 0x0F == 8 else _RAW_DEFLATE)
    if coding == "br":
        return _Brotli()
    if coding == "zstd":
        return _Zstandard()
    raise _CodingUnknown(f"content-encoding {coding} is not understood, and identity was asked for")


class _BrotliModule(Protocol):
    """What both modules for Brotli give."""

    def is_finished(self) -> bool: ...

    def process(self, data: bytes, /) -> bytes: ...


class _Brotli:
    """Brotli, where a module for it is installed."""

    unused_data = b""
    unconsumed_tail = b""

    def __init__(self) -> None:
        for name in ("brotli", "brotlicffi"):
            try:
                self._inner: _BrotliModule = import_module(name).Decompressor()
            except ImportError:
                continue
            return
        raise _CodingUnknown("content-encoding br was sent although identity was asked for; install brotli to read it")

    @property
    def eof(self) -> bool:
        return bool(self._inner.is_finished())

    def decompress(self, data: bytes, _max_length: int, /) -> bytes:
        self.unconsumed_tail = data[_BROTLI_STEP:]
        return bytes(self._inner.process(data[:_BROTLI_STEP]))


class _ZstandardModule(Protocol):
    """What a decompressor of the module for Zstandard gives."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class _Zstandard:
    """Zstandard, where a module for it is installed. Fed in small steps, as Brotli is."""

    unconsumed_tail = b""

    def __init__(self) -> None:
        try:
            self._inner: _ZstandardModule = import_module("zstandard").ZstdDecompressor().decompressobj()
        except ImportError:
            words = "content-encoding zstd was sent although identity was asked for; install zstandard to read it"
            raise _CodingUnknown(words) from None

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data + self.unconsumed_tail

    def decompress(self, data: bytes, _max_length: int, /) -> bytes:
        self.unconsumed_tail = data[_BROTLI_STEP:]
        return self._inner.decompress(data[:_BROTLI_STEP])
