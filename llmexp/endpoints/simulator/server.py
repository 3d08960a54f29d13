"""The simulator: connections in, scripts on the agenda, slots, counters, truth."""

from __future__ import annotations

import asyncio
import gc
import json
import ssl
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llmexp.endpoints.simulator import routes, sigv4, truth
from llmexp.endpoints.simulator.agenda import Agenda
from llmexp.endpoints.simulator.exchange import Exchange
from llmexp.endpoints.simulator.http import Connection, Received
from llmexp.endpoints.simulator.knowledge import Knowledge
from llmexp.endpoints.simulator.options import STATUS_FAILURES, Options
from llmexp.endpoints.simulator.prefixes import Prefixes
from llmexp.endpoints.simulator.wires import BadRequest
from llmexp.errors import ConfigError
from llmexp.workload import words

_JSON = {"content-type": "application/json"}
_FLUSH_S = 0.5


class Simulator:
    """Answers requests as its options say."""

    def __init__(self, options: Options, loop: asyncio.AbstractEventLoop) -> None:
        self.options = options
        self.idle_close_s = options.idle_close_s
        self.connections: set[Connection] = set()
        self._loop = loop
        self._agenda = Agenda(loop)
        self._truth = truth.Log(options.truth)
        self._knowledge = Knowledge(options)
        self._prefixes = Prefixes() if options.prompt_cache else None
        self._running: set[Exchange] = set()
        self._waiting: deque[Exchange] = deque()
        self._counts: Counter[str] = Counter()
        self._index = 0
        self._flush()

    def _flush(self) -> None:
        self._truth.flush()
        self._flusher = self._loop.call_later(_FLUSH_S, self._flush)

    # --- requests ----------------------------------------------------------------------------------------------------

    def handle(self, connection: Connection, received: Received) -> None:
        """Starts the answer to one request."""
        wire = routes.wire_of(received.path)
        if wire is None:
            self._about(connection, received)
            return
        if self.options.aws is not None and wire in routes.AWS_WIRES:
            refused = sigv4.refusal(_signed(received), self.options.aws)
            if refused is not None:
                connection.reply(*routes.refusal(wire, "forbidden", refused.message, refused.code))
                return
        try:
            call = routes.read(wire, received, self._prefixes)
        except BadRequest as error:
            connection.reply(*routes.refusal(wire, "bad_request", str(error)))
            return
        in_flight = len(self._running) + len(self._waiting) + 1
        said = self._knowledge.says(call.question, in_flight, call.temperature, call.tools)
        exchange = Exchange(self.options, call, received, connection, self._index, self._ended, said)
        self._index += 1
        self._admit(exchange, wire)

    def _admit(self, exchange: Exchange, wire: str) -> None:
        failure = exchange.draws.failure
        if failure in STATUS_FAILURES:
            status, headers, body = routes.refusal(wire, failure, "simulated failure")
            if failure == "throttled":
                headers["retry-after"] = str(self.options.retry_after_s)
            exchange.fail(failure)
            exchange.connection.reply(status, headers, body)
            return
        exchange.connection.work = exchange
        self._waiting.append(exchange)
        self._fill()

    def _fill(self) -> None:
        """Starts waiting exchanges while there are slots."""
        slots = self.options.slots
        while self._waiting and (slots is None or len(self._running) < slots):
            exchange = self._waiting.popleft()
            self._running.add(exchange)
            self._agenda.start(exchange.play())

    def _ended(self, exchange: Exchange) -> None:
        """An exchange is over, whatever its outcome."""
        self._truth.add(exchange.truth())
        self._counts[exchange.outcome or ""] += 1
        self._counts["input_tokens"] += exchange.call.input_tokens
        self._counts["output_tokens"] += exchange.tokens
        if exchange.first_ns is not None:
            self._counts["first_tokens"] += 1
            self._counts["ttft_ns"] += exchange.first_ns - exchange.arrival_ns
        if exchange in self._running:
            self._running.discard(exchange)
            self._fill()
        elif exchange in self._waiting:
            self._waiting.remove(exchange)

    def close(self) -> None:
        """Ends all connections and writes the truth of what was under way."""
        self._flusher.cancel()
        for connection in list(self.connections):
            connection.shut()
        for exchange in [*self._running, *self._waiting]:
            self._truth.add(exchange.truth())
        self._agenda.close()
        self._truth.close()

    # --- everything else ---------------------------------------------------------------------------------------------

    def _about(self, connection: Connection, received: Received) -> None:
        path = received.path
        if path.endswith("/models"):
            model = {"id": self.options.model, "object": "model", "created": 0, "owned_by": "llmexp"}
            connection.reply(200, _JSON, _json({"object": "list", "data": [model]}))
        elif path.endswith("/health"):
            connection.reply(200, _JSON, _json({"status": "ok"}))
        elif path.endswith("/tokenize") and received.method == "POST":
            self._tokenize(connection, received)
        elif path.endswith("/metrics"):
            connection.reply(200, {"content-type": "text/plain; version=0.0.4"}, self._metrics().encode())
        else:
            connection.reply(*routes.refusal("openai", "not_found", f"the simulator knows no {path}"))

    @staticmethod
    def _tokenize(connection: Connection, received: Received) -> None:
        """As llama.cpp's: `{"content": text}` → `{"tokens": [ids]}`, with pieces on request."""
        try:
            tree = json.loads(received.body)
            found = words.pieces(str(tree["content"]))
        except (ValueError, KeyError, TypeError):
            connection.reply(*routes.refusal("openai", "bad_request", "content: must be given"))
            return
        ids = [hash_of(piece) for piece in found]
        with_pieces = [{"id": number, "piece": piece} for number, piece in zip(ids, found, strict=True)]
        connection.reply(200, _JSON, _json({"tokens": with_pieces if tree.get("with_pieces") else ids}))

    def _metrics(self) -> str:
        """Prometheus text, with the names that vLLM gives the same things."""
        counts, label = self._counts, f'{{model_name="{self.options.model}"}}'
        values = {
            "vllm:num_requests_running": ("gauge", len(self._running)),
            "vllm:num_requests_waiting": ("gauge", len(self._waiting)),
            "vllm:prompt_tokens_total": ("counter", counts["input_tokens"]),
            "vllm:generation_tokens_total": (
                "counter",
                counts["output_tokens"] + sum(exchange.tokens for exchange in self._running),
            ),
            "vllm:request_success_total": ("counter", counts["finished"]),
            "vllm:time_to_first_token_seconds_sum": ("counter", counts["ttft_ns"] / 1e9),
            "vllm:time_to_first_token_seconds_count": ("counter", counts["first_tokens"]),
        }
        return "".join(f"# TYPE {name} {kind}\n{name}{label} {value}\n" for name, (kind, value) in values.items())


def hash_of(piece: str) -> int:
    """An id for a token, the same in every process."""
    number = 0
    for character in piece:
        number = (number * 31 + ord(character)) % 50_000
    return number


def _signed(received: Received) -> sigv4.Signed:
    return sigv4.Signed(received.method, received.path, received.query, received.headers, received.body)


def _json(tree: object) -> bytes:
    return json.dumps(tree).encode()


def _tls(cert: str, key: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:
        raise ConfigError(f"cannot load the certificate {cert} with the key {key or cert}: {error}") from None
    return context


@asynccontextmanager
async def listening(options: Options) -> AsyncIterator[tuple[Simulator, str]]:
    """A simulator and its address (`http://host:port`), while the block runs."""
    loop = asyncio.get_running_loop()
    simulator = Simulator(options, loop)
    context = None if options.tls_cert is None else _tls(options.tls_cert, options.tls_key)
    server = await loop.create_server(
        lambda: Connection(simulator, simulator.connections), options.host, options.port, ssl=context, backlog=4096
    )
    scheme = "http" if context is None else "https"
    host = f"[{options.host}]" if ":" in options.host else options.host
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)
    try:
        yield simulator, f"{scheme}://{host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        simulator.close()
