"""Could this client measure that? Facts about the client → a verdict with reasons and remedies.

The worst reason counts. A reason says what was seen, against which limit, why it spoils the numbers and what to do. A
note says what a reader should know and spoils nothing. A fact that is None was not measured or does not apply.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

Verdict = Literal["valid", "degraded", "invalid"]
Level = Literal["note", "degraded", "invalid"]

GC_PAUSE_LIMIT_S = 0.005
OTHER_LOAD_LIMIT, OTHER_LOAD_NOTED = 0.25, 0.10


CHUNK_TOKENS = "chunk_tokens_estimated"
"""The note that makes `ROUGH_BY_CHUNK` rough."""
ROUGH_BY_CHUNK = ("inter_token_latency_s", "steady/inter_token_latency_s", "steady/output_tokens_per_s")
"""Metrics that rest on how an answer's tokens fell on its chunks."""


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """What a run knows of its own client."""

    requests_completed: int
    requests_failed: int = 0
    requests_unfinished: int = 0
    ended_by: str | None = None
    """What ended the job before its time, in the job's own words."""
    loop_lag_p99_s: float | None = None
    """How late the event loops of the workers were."""
    concurrency_held: float | None = None
    """Share of the concurrency asked for, first to last `sent`; closed loops only."""
    worker_cpu_share: float | None = None
    """Of one core, the busiest worker's."""
    schedule_lag_p99_s: float | None = None
    """Dispatched − intended. In a closed loop a request is intended the moment a stream falls free."""
    workers_lost: int = 0
    litellm_own_stream: bool = False
    """True when LiteLLM did not let its request be taken, so that its own stream had to be timed."""
    token_counts_estimated: bool = False
    """Of whole prompts or answers."""
    contradicted_counts: int = 0
    """Completed requests whose streams do not bear out what the server counts."""
    chunk_tokens_estimated: bool = False
    """The answers' counts are the server's, how they fall on the chunks is not known."""
    undeclared_cache_hits: float | None = None
    """Share of input tokens that a cache served beyond what the workload declares."""
    other_load_share: float | None = None
    """Share of this machine's CPU that went to neither the client nor an endpoint that the job started."""
    endpoint_on_this_machine: bool = False
    """The job started the endpoint beside the client."""
    clock_uncertainty_s: float | None = None
    """How far off another host's stamps may be, in the driver's clock; the worst host's."""
    load_lost_share: float | None = None
    """Share of the load that was offered and lost with workers."""
    gc_pause_max_s: float | None = None
    rehearsal: bool = False


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that spoils a measurement, or that its reader should know."""

    reason: str
    level: Level
    measured: float | None = None
    limit: float | None = None
    seen: str = ""
    why: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        seen = self.seen or self.reason.replace("_", " ")
        said = f"{seen}: {self.why}" if self.why else seen
        return f"{said}. {self.remedy}".rstrip()


@dataclass(frozen=True, slots=True)
class Validity:
    """The verdict, what led to it (worst first), and notes that did not."""

    verdict: Verdict
    reasons: tuple[Reason, ...] = ()
    notes: tuple[Reason, ...] = ()


def judge(facts: ClientFacts) -> Validity:
    """The verdict on a run. With nothing measured there is nothing to trust, and the client's part does not matter."""
    if facts.requests_completed:
        found = [*_passed_limits(facts), *_circumstances(facts), *_notes(facts)]
    else:
        found = [_insufficient(facts), *_losses(facts), *_notes(facts)]
    reasons = [reason for reason in found if reason.level != "note"]
    reasons.sort(key=lambda reason: reason.level != "invalid")
    verdict: Verdict = "valid"
    if reasons:
        verdict = "invalid" if reasons[0].level == "invalid" else "degraded"
    return Validity(verdict, tuple(reasons), tuple(reason for reason in found if reason.level == "note"))


def _insufficient(facts: ClientFacts) -> Reason:
    seen, why = "no request was completed", "there is nothing to measure"
    return Reason("insufficient_data", "invalid", 0, 1, seen, why, _remedy(facts))


def _remedy(facts: ClientFacts) -> str:
    """What to do, by what ended the job: most often the endpoint is at fault, and not always."""
    ended_by = facts.ended_by or ""
    if ended_by.startswith("internal error"):
        return "This is a fault of llmexp itself: its traceback stands in the log; please report it."
    if ended_by.startswith("run.max_usd"):
        return "Raise run.max_usd, or ask for fewer requests or shorter answers."
    if ended_by == "interrupted":
        return "Run again."
    if facts.requests_unfinished and not facts.requests_failed and not ended_by:
        return (
            "The endpoint took the requests and did not answer in time: see whether it answers at all, else raise "
            "run.timeout_s and run.grace_s."
        )
    if facts.requests_failed or not ended_by:
        return "See the errors; mend the endpoint, its address or the credentials and run again."
    return "See the reason above, mend it and run again."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    """A row of the table that compares a fact with limits."""

    fact: str
    reason: str
    degraded: float
    invalid: float | None = None
    below: bool = False
    """True where small values are the bad ones."""
    unit: Literal["ms", "%"]
    seen: str
    why: str
    remedy: str

    def check(self, facts: ClientFacts) -> Iterator[Reason]:
        """The reason, if the fact passed a limit."""
        value = getattr(facts, self.fact)
        for level, limit in (("invalid", self.invalid), ("degraded", self.degraded)):
            if value is None or limit is None or not (value < limit if self.below else value > limit):
                continue
            seen = self.seen.format(self._show(value), self._show(limit))
            yield Reason(self.reason, cast("Level", level), value, limit, seen, self.why, self.remedy)
            return

    def _show(self, value: float) -> str:
        return _ms(value) if self.unit == "ms" else f"{value * 100:.3g} %"


_LIMITS = (
    _Limit(
        fact="loop_lag_p99_s",
        reason="loop_lag",
        degraded=0.005,
        invalid=0.025,
        unit="ms",
        seen="event-loop lag was {} at p99 (limit {})",
        why="tokens were stamped that much later than they arrived",
        remedy="Lower the concurrency, raise ray.workers, or give the client more or idler cores.",
    ),
    _Limit(
        fact="concurrency_held",
        reason="concurrency_held",
        degraded=0.97,
        invalid=0.90,
        below=True,
        unit="%",
        seen="{} of the concurrency asked for was in flight on average (limit {})",
        why="throughput and latencies belong to a lower load than the one they are labelled with",
        remedy="Raise run.max_requests so that starting up weighs less, raise ray.workers, or lower the concurrency.",
    ),
    _Limit(
        fact="worker_cpu_share",
        reason="worker_cpu",
        degraded=0.70,
        invalid=0.90,
        unit="%",
        seen="the busiest worker used {} of a core (limit {})",
        why="a worker without room to spare stamps late whenever chunks come in bursts",
        remedy="Raise ray.workers, lower the concurrency, or use a machine with more cores.",
    ),
    _Limit(
        fact="schedule_lag_p99_s",
        reason="schedule_lag",
        degraded=0.005,
        invalid=0.050,
        unit="ms",
        seen="requests were taken up {} after their intended time at p99 (limit {})",
        why="the load that arrived is not the load that was asked for",
        remedy="Lower load.rate or the concurrency, raise ray.workers, or use a machine with more cores.",
    ),
    _Limit(
        fact="undeclared_cache_hits",
        reason="undeclared_cache_hits",
        degraded=0.01,
        unit="%",
        seen="{} of the input tokens came from a prompt cache that the workload does not declare (limit {})",
        why="time to first token is better than new prompts would see",
        remedy="Leave run.nonce null, so that each run draws its own, or declare workload.prefix_tokens.",
    ),
    _Limit(
        fact="clock_uncertainty_s",
        reason="clock_uncertainty",
        degraded=0.001,
        invalid=0.010,
        unit="ms",
        seen="the clock of a host is known to {} (limit {})",
        why="its stamps are off by up to that much against those of the other hosts",
        remedy="Use hosts that are nearer to the driver's (one zone, one network), or leave that host out (ray.nodes).",
    ),
    _Limit(
        fact="load_lost_share",
        reason="load_lost",
        degraded=0.0,
        invalid=0.10,
        unit="%",
        seen="{} of the load was lost with workers that died (limit {})",
        why="what was measured is a lower load than the one it is labelled with",
        remedy="See the log for what ended them (memory, a lost node), and run again.",
    ),
    _Limit(
        fact="other_load_share",
        reason="other_load",
        degraded=OTHER_LOAD_LIMIT,
        unit="%",
        seen="other programs used {} of a client machine's CPU (limit {})",
        why="they delay the client at moments that look like the endpoint's",
        remedy="Stop them, or run on a machine of its own.",
    ),
)


def _passed_limits(facts: ClientFacts) -> Iterator[Reason]:
    for limit in _LIMITS:
        yield from limit.check(facts)


def _circumstances(facts: ClientFacts) -> Iterator[Reason]:
    """The rows of the table that degrade and no more."""
    yield from _losses(facts)
    yield from _inexact(facts)


def _losses(facts: ClientFacts) -> Iterator[Reason]:
    if facts.workers_lost:
        yield Reason(
            "workers_lost",
            "degraded",
            facts.workers_lost,
            0,
            f"{facts.workers_lost} worker{'s' if facts.workers_lost > 1 else ''} died during the run",
            "their requests count as client errors and the load fell short while the rest went on",
            "See the log for what killed them (often memory) and run again.",
        )


def _inexact(facts: ClientFacts) -> Iterator[Reason]:
    if facts.litellm_own_stream:
        yield Reason(
            "litellm_own_stream",
            "degraded",
            None,
            None,
            "LiteLLM did not let this provider's request be taken, so its own stream was timed",
            "LiteLLM's processing time is inside every latency",
            "Use the provider's own wire (model.api) where there is one, and keep the concurrency low.",
        )
    if facts.token_counts_estimated:
        yield Reason(
            "token_counts_estimated",
            "degraded",
            None,
            None,
            "token counts were estimated",
            "neither the server's usage nor the model's tokenizer was at hand, so every number per token is rough",
            "Ask the server for usage, or set model.tokenizer.",
        )
    if facts.contradicted_counts:
        yield Reason(
            "token_counts_contradicted",
            "degraded",
            facts.contradicted_counts,
            0,
            f"the server's token counts contradict the streams of {facts.contradicted_counts} of "
            f"{facts.requests_completed} answers",
            "those were counted here instead, so that tokens and costs of the run rest on two ways of counting",
            "Correct the usage that the server or its gateway sends; `remarks` in requests.parquet names the rows.",
        )


def _notes(facts: ClientFacts) -> Iterator[Reason]:
    if facts.rehearsal:
        yield _note(
            "rehearsal", "this is a rehearsal", "the simulator played the model; no number here is a measurement"
        )
    if facts.endpoint_on_this_machine:
        yield _note(
            "endpoint_on_this_machine",
            "the endpoint ran on this machine",
            "client and endpoint share its cores, as they would not in production",
        )
    if facts.chunk_tokens_estimated and not facts.token_counts_estimated:
        yield _note(
            CHUNK_TOKENS,
            "how an answer's tokens fell on its chunks was estimated",
            "the server counts whole answers and the model's tokenizer is not at hand: inter-token latency and the "
            "steady tokens/s are rough; TTFT, time per output token, latencies, totals and costs are exact",
        )
    if facts.other_load_share is not None and OTHER_LOAD_NOTED < facts.other_load_share <= OTHER_LOAD_LIMIT:
        seen = f"other programs used {facts.other_load_share * 100:.3g} % of a client machine's CPU"
        yield _note("other_load", seen, "they may delay the client now and then", facts.other_load_share)
    if facts.requests_completed and facts.loop_lag_p99_s is None:
        yield _note("loop_lag_unknown", "event-loop lag was not measured", "the stamps' own error is unknown")
    if facts.gc_pause_max_s is not None and facts.gc_pause_max_s > GC_PAUSE_LIMIT_S:
        seen = f"the longest pause of Python's garbage collector was {_ms(facts.gc_pause_max_s)}"
        yield _note("gc_pause", seen, "a chunk that arrived in it was stamped at its end", facts.gc_pause_max_s)


def _note(name: str, seen: str, why: str, measured: float | None = None) -> Reason:
    return Reason(name, "note", measured, None, seen, why, "")


def _ms(value: float) -> str:
    return f"{value * 1e3:.3g} ms"
