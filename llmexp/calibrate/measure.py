"""The engine against an endpoint whose times are known: how far off is the client, at a load, on this machine?

The endpoint is the simulator, which notes when each request arrived and when each first and last token left. What the
client says beyond that is the client's own error: nothing is subtracted. Both share this machine's cores, and the
loopback device lies between them: the error is an upper bound of what the client adds to a remote endpoint's times.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmexp.config import Config, load

if TYPE_CHECKING:
    from llmexp.benchmark import Measurement
    from llmexp.endpoints import Running
    from llmexp.records.observed import Observed
    from llmexp.workload.request import Request

TTFT_S = 0.2
START_S = 8.0
"""What a point takes beside its load: workers, endpoint, files."""
NONCE = "calibrate"


@dataclass(frozen=True, slots=True)
class Load:
    """One point of the grid: a closed loop over answers of equal length."""

    streams: int
    gap_s: float = 0.02
    """Between tokens of one stream."""
    tokens: int = 128
    requests: int = 0
    """0: three rounds, and 128 at least."""

    @property
    def count(self) -> int:
        """How many requests are sent."""
        return self.requests or self.streams * max(3, math.ceil(128 / self.streams))

    @property
    def answer_s(self) -> float:
        """How long one answer takes."""
        return TTFT_S + self.gap_s * (self.tokens - 1)

    @property
    def tokens_per_s(self) -> float:
        """What the endpoint serves when every stream is busy."""
        return self.streams * self.tokens / self.answer_s

    @property
    def expected_s(self) -> float:
        """How long the point takes, starting included."""
        return START_S + math.ceil(self.count / self.streams) * self.answer_s

    @property
    def limit_s(self) -> float:
        """When nothing new starts any more."""
        return 2 * math.ceil(self.count / self.streams) * self.answer_s + 5


@dataclass(frozen=True, slots=True)
class Stamps:
    """One request as a client saw it."""

    sent_ns: int
    first_token_ns: int
    last_token_ns: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Errors:
    """A client's numbers less the truth; seconds, and a share for the rate."""

    matched: int
    """Requests that both sides know."""
    ttft_p50_s: float
    ttft_p99_s: float
    e2e_p50_s: float
    e2e_p99_s: float
    tokens_per_s: float
    """Relative."""


@dataclass(frozen=True, slots=True)
class Point:
    """What one load showed."""

    streams: int
    gap_s: float
    tokens_per_s: float
    """That the endpoint can serve at this load."""
    requests: int
    completed: int
    errors: Errors | None
    held: float | None
    loop_lag_p99_s: float | None
    worker_cpu_share: float | None
    workers: int
    client_cpu_s: float | None
    verdict: str
    reasons: list[str] = field(default_factory=list)
    disturbed: bool = False
    """Other programs were at work: an idle machine may do better."""

    def honest(self, limit_s: float) -> bool:
        """Whether this load is measured honestly: `valid`, and TTFT within the limit at p99."""
        return self.verdict == "valid" and self.errors is not None and self.errors.ttft_p99_s <= limit_s


# --- against the truth -----------------------------------------------------------------------------------------------


def errors(seen: Mapping[str, Stamps], truth: Iterable[Mapping[str, Any]]) -> Errors | None:
    """The client's error over the requests that both sides finished; keys are digests of request bodies."""
    import numpy as np

    pairs = [
        (seen[line["body_digest"]], line)
        for line in truth
        if line["body_digest"] in seen and line["outcome"] == "finished" and line["first_token_ns"] is not None
    ]
    if not pairs:
        return None
    ttft = [(one.first_token_ns - one.sent_ns) - (line["first_token_ns"] - line["arrival_ns"]) for one, line in pairs]
    e2e = [(one.last_token_ns - one.sent_ns) - (line["last_token_ns"] - line["arrival_ns"]) for one, line in pairs]
    (ttft_p50, ttft_p99), (e2e_p50, e2e_p99) = (np.percentile(ns, (50, 99)) / 1e9 for ns in (ttft, e2e))
    ours = _rate((one.sent_ns, one.last_token_ns, one.tokens) for one, _ in pairs)
    theirs = _rate((line["arrival_ns"], line["last_token_ns"], line["output_tokens"]) for _, line in pairs)
    return Errors(
        len(pairs), float(ttft_p50), float(ttft_p99), float(e2e_p50), float(e2e_p99), float(ours / theirs - 1)
    )


def _rate(rows: Iterable[tuple[int, int, int]]) -> float:
    """Tokens per second from the first begin to the last end."""
    begins, ends, tokens = zip(*rows, strict=True)
    return float(sum(tokens) / ((max(ends) - min(begins)) / 1e9))


def stamps(observed: Observed, digests: Mapping[int, str]) -> dict[str, Stamps]:
    """Body digest → what the client saw, of completed requests."""
    columns = (observed.sent_ns, observed.first_token_ns, observed.last_token_ns, observed.streamed_tokens)
    rows = zip(observed.index.tolist(), observed.completed.tolist(), *(one.tolist() for one in columns), strict=True)
    return {digests[index]: Stamps(*values) for index, completed, *values in rows if completed}


# --- one point -------------------------------------------------------------------------------------------------------


def config_of(given: Load, **model: object) -> Config:
    """The job of a point; `model` overrides what is called."""
    tokens = {"dist": "fixed", "mean": given.tokens}
    profile = {"ttft": {"mean_s": TTFT_S}, "inter_token": {"mean_s": given.gap_s}, "slots": None}
    simulated = {"name": "simulated", "deployment": {"kind": "simulated", "profile": profile}}
    return load(
        {
            "model": {**simulated, "metrics_url": "none", "ready_timeout_s": 30.0, **model},
            "workload": {"input_tokens": {"dist": "fixed", "mean": 32}, "output_tokens": tokens},
            "concurrency": given.streams,
            "run": {
                "max_requests": given.count,
                "warmup_requests": min(4, given.streams),
                "timeout_s": given.limit_s,
                "grace_s": given.answer_s + 2,
            },
            "tracking": {"kind": "none"},
        }
    )


def requests_of(given: Load) -> tuple[Request, ...]:
    """Requests that differ in their text, so that each is known on both sides."""
    from llmexp.workload.request import Message, Request

    text = "Write about the river, the hill and the road between them, and do not stop early. " * 2
    found = []
    for index in range(given.count):
        content = f"{NONCE} {index:06d}. {text}"
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        found.append(Request(index, (Message("user", content),), given.tokens, 40, digest))
    return tuple(found)


def measure(given: Load, directory: Path) -> Point:
    """Run the engine at this load against a simulator of its own; its files go to `directory`."""
    from llmexp import endpoints

    config = config_of(given)
    with endpoints.opened(config.model, config.workload, config.streams, rehearse=False, log_dir=directory) as running:
        finish = measure_at(given, config, running, directory)
    return finish(directory / "truth.jsonl")


def measure_at(given: Load, config: Config, running: Running, directory: Path) -> Callable[[Path], Point]:
    """Run the load; what is given back makes the point of the truth log, once the endpoint has closed it."""
    from llmexp.benchmark import Benchmark, Job
    from llmexp.clients import build

    requests = requests_of(given)
    client = build(config.model, running.base_url)
    digests = {one.index: hashlib.sha256(client.prepare(one).body).hexdigest()[:16] for one in requests}
    job = Job(
        config=config,
        base_url=running.base_url,
        nonce=NONCE,
        directory=directory,
        endpoint_pids=running.pids,
        requests=requests,
    )
    measurement = Benchmark(job).run()

    def finish(truth: Path) -> Point:
        return _point(given, config, measurement, directory, digests, truth)

    return finish


def _point(
    given: Load, config: Config, measurement: Measurement, directory: Path, digests: Mapping[int, str], truth: Path
) -> Point:
    from llmexp.benchmark import client_report as observations
    from llmexp.endpoints.simulator import truth as log
    from llmexp.metrics import summary as metrics
    from llmexp.metrics import validity

    observed = metrics.observe(directory)
    summary = metrics.summarize(observed, slo=config.slo, open_loop=False, streams=config.streams)
    seen = observations.client(measurement)
    verdict = validity.judge(observations.facts(config, measurement, observed, summary, seen))
    return Point(
        streams=given.streams,
        gap_s=given.gap_s,
        tokens_per_s=given.tokens_per_s,
        requests=given.count,
        completed=int(observed.completed.sum()),
        errors=errors(stamps(observed, digests), log.read(truth)),
        held=metrics.concurrency_held(observed, given.streams),
        loop_lag_p99_s=(seen["loop_lag_s"] or {}).get("p99"),
        worker_cpu_share=seen["worker_cpu_share"],
        workers=measurement.workers,
        client_cpu_s=measurement.client_cpu_s,
        verdict=verdict.verdict,
        reasons=[str(reason) for reason in verdict.reasons],
        disturbed=any(reason.reason == "other_load" for reason in verdict.reasons),
    )
