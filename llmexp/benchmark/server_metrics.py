"""The server's side of a run: what it says of itself in Prometheus' format, beside what we saw of it.

`Watch` asks once a second, from the driver's process, from before the load until after it. `report` puts the answers on
the clock of the run's own curves and checks them against each other: tokens served against tokens received, the
server's mean time to first token against ours.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import ssl
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit

from llmexp.benchmark import prometheus
from llmexp.config import Config

INTERVAL_S = 1.0
TIMEOUT_S = 2.0
SETTLE_S = 1.0
"""How long the server may take to count what it has sent."""
SETTLE_STEP_S = 0.1
MAX_BYTES = 16 * 2**20
PLAIN_TYPES = ("text/plain", "application/openmetrics-text")
_PROGRESS = ("output_tokens", "input_tokens", "requests", "running")
log = logging.getLogger("llmexp")


@dataclass(frozen=True, slots=True)
class Source:
    """Where metrics may be."""

    url: str
    guessed: bool = False
    """Nobody said that there are any: nothing is said if there are none."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One answer."""

    wall_ns: int
    """Half-way between asking and the answer."""
    values: dict[str, float]
    """Under the common names of `llmexp.prometheus`."""


def source_of(config: Config, base_url: str | None, known_url: str | None) -> Source | None:
    """Where this job's endpoint may publish metrics; `known_url` is that of an endpoint that we started.

    A rehearsal asks the simulator and nothing else. A server of OpenAI's wire that is none of ours is asked once
    where such servers have them.
    """
    model = config.model
    if model.metrics_url == "none":
        return None
    if model.metrics_url is not None and not config.rehearse:
        return Source(model.metrics_url)
    if known_url is not None:
        return Source(known_url)
    if (
        config.rehearse
        or base_url is None
        or model.api != "openai"
        or model.deployment.kind not in ("external", "served")
    ):
        return None
    return Source(f"{base_url.rstrip('/').removesuffix('/v1')}/metrics", guessed=True)


class Watch:
    """A context that reads a server's metrics while it is open. It never raises for what a server does."""

    def __init__(self, source: Source | None, model: str, interval_s: float = INTERVAL_S) -> None:
        self.source = source
        self.engine: prometheus.Engine | None = None
        self.readings: list[Reading] = []
        self.missed = 0
        self.problem: str | None = None
        """Why there is nothing, where something was promised."""
        self._model = model
        self._interval_s = interval_s
        self._connection: http.client.HTTPConnection | None = None
        self._holds_json = False
        """The last answer was JSON."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="server-metrics", daemon=True)

    def __enter__(self) -> Watch:
        if self.source is None:
            return self
        if self._read() or self._read_elsewhere(self.source):
            self._thread.start()
        elif not self.source.guessed:
            log.warning("no metrics of the server: %s", self.problem)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.ident is not None:
            self._stop.set()
            self._thread.join(2 * TIMEOUT_S)
            if not self._thread.is_alive():
                self._settle()
        if self._connection is not None:
            self._connection.close()

    def _read_elsewhere(self, source: Source) -> bool:
        """TensorRT-LLM has figures as JSON where others have theirs as text, and the text at a path of its own."""
        if not (source.guessed and self._holds_json):
            return False
        self.source = Source(source.url.removesuffix("/metrics") + "/prometheus/metrics", guessed=True)
        return self._read()

    def _follow(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + self._interval_s, time.monotonic())
            if self._stop.wait(due - time.monotonic()):
                return
            self.missed += not self._read()

    def _settle(self) -> None:
        """Read until the counters stand still: servers count a little later than they send."""
        end = time.monotonic() + SETTLE_S
        before: list[float | None] = []
        while self._read():
            now = [self.readings[-1].values.get(name) for name in _PROGRESS]
            if now == before or time.monotonic() > end:
                return
            before = now
            time.sleep(SETTLE_STEP_S)
        self.missed += 1

    def _read(self) -> bool:
        assert self.source is not None
        try:
            begun = time.time_ns()
            text = self._fetch(self.source.url)
            found = None if text is None else prometheus.read(text, self._model)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._drop()
            self.problem = f"{self.source.url}: {error or type(error).__name__}"
            return False
        if found is None:
            self.problem = self.problem or f"{self.source.url} holds no metrics of a server that is known"
            return False
        self.engine = found[0]
        self.readings.append(Reading((begun + time.time_ns()) // 2, found[1]))
        return True

    def _fetch(self, url: str) -> str | None:
        """The text; None when something else than metrics answers, whose body is left unread."""
        parts = urlsplit(url)
        if self._connection is None:
            self._connection = _connection(parts.scheme, parts.hostname or "", parts.port)
        path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        self._connection.request("GET", path, headers={"Accept": "text/plain", "User-Agent": "llmexp"})
        response = self._connection.getresponse()
        kind = response.getheader("content-type", "")
        self._holds_json = response.status == 200 and kind.startswith("application/json")
        if response.status != 200 or not kind.startswith(PLAIN_TYPES):
            self.problem = f"{url} answers {response.status} {kind}".rstrip()
            self._drop()
            return None
        return response.read(MAX_BYTES).decode(errors="replace")

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None


def _connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
