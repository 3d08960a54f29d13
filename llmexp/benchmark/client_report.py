"""What the benchmark saw of itself → the `client`, `cost` and `notes` parts of a result, and the facts that validity
judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmexp.config import Config
from llmexp.errors import ConfigError

if TYPE_CHECKING:
    from llmexp.benchmark import Measurement
    from llmexp.benchmark.hosts import HostReport
    from llmexp.metrics.prices import PriceList
    from llmexp.metrics.validity import ClientFacts
    from llmexp.records.observed import Observed
    from llmexp.worker.plan import Watch as WorkerWatch


def client(measurement: Measurement) -> dict[str, Any]:
    """How the client fared, worker by worker and in all; seconds and shares of a core."""
    from llmexp.metrics.distributions import distribution

    watches = measurement.watches.values()
    lags = [lag for watch in watches for lag in watch.loop_lag_s]
    shares = [_cpu_share(watch) for watch in watches]
    companions = measurement.companions.values()
    built = measurement.built
    chunks = sum(one.chunks for one in companions)
    decode_s = sum(one.decode_s for one in companions)
    return {
        "workers": measurement.workers,
        "workers_lost": measurement.workers_lost,
        "requests_lost": sum(one.lost_requests for one in companions),
        "requests_not_sent": sum(watch.not_sent for watch in watches),
        "loop_lag_s": distribution(lags),
        "worker_cpu_share": max(shares, default=None),
        "worker_cpu_s": sum(watch.cpu_s for watch in watches),
        "gc_pause_max_s": max((pause for watch in watches for pause in watch.gc_pauses_s), default=None),
        "decode_s": decode_s,
        "decode_us_per_chunk": decode_s / chunks * 1e6 if chunks else None,
        "other_load_share": measurement.other_load_share,
        "endpoint_cpu_share": measurement.endpoint_share,
        "client_cpu_s": measurement.client_cpu_s,
        "tokenizer": built.tokenizer if built else None,
        "tokenizer_source": built.tokenizer_source if built else None,
        "own_stream": built is not None and built.own_stream,
        "clock_uncertainty_s": measurement.clock_uncertainty_s,
        "load_lost_share": measurement.lost_share,
        "hosts": [_host(host, measurement.watches) for host in measurement.hosts],
    }


def _host(host: HostReport, watches: Mapping[int, WorkerWatch]) -> dict[str, object]:
    """An entry of `hosts`: the loop lag is that of the workers that ran there."""
    from llmexp.metrics.distributions import distribution

    lags = [lag for number in host.numbers if number in watches for lag in watches[number].loop_lag_s]
    return {**host.as_dict(), "loop_lag_s": distribution(lags)}


def _cpu_share(watch: WorkerWatch) -> float:
    duration = (watch.ended_ns - watch.started_ns) / 1e9
    return watch.cpu_s / duration if duration > 0 else 0.0


def client_metrics(seen: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers among them, for the `client/` metrics."""
    return {
        name: value
        for name, value in seen.items()
        if isinstance(value, int | float | Mapping) and not isinstance(value, bool)
    }


def facts(
    config: Config,
    measurement: Measurement,
    observed: Observed,
    summary: Mapping[str, Any],
    seen: Mapping[str, Any],
) -> ClientFacts:
    """What validity judges."""
    from llmexp.metrics import summary as metrics
    from llmexp.metrics.validity import ClientFacts

    lag = seen["loop_lag_s"] or {}
    closed = config.load.kind == "closed" and config.streams is not None
    estimated = {name for name, found in metrics.token_sources(observed).items() if "estimate" in found}
    declared = measurement.built.declared_cache_share if measurement.built else 0.0
    return ClientFacts(
        requests_completed=int(observed.completed.sum()),
        requests_failed=int(observed.failed.sum()),
        requests_unfinished=int(observed.unfinished.sum()),
        ended_by=measurement.reason,
        loop_lag_p99_s=lag.get("p99"),
        concurrency_held=_held(config, observed) if closed else None,
        worker_cpu_share=seen["worker_cpu_share"],
        schedule_lag_p99_s=(summary.get("schedule_lag_s") or {}).get("p99"),
        workers_lost=measurement.workers_lost,
        litellm_own_stream=bool(seen["own_stream"]),
        token_counts_estimated=bool(estimated - {"chunk_tokens"}),
        chunk_tokens_estimated="chunk_tokens" in estimated,
        contradicted_counts=observed.contradicted,
        undeclared_cache_hits=metrics.cached_beyond(observed, declared),
        other_load_share=seen["other_load_share"],
        endpoint_on_this_machine=seen["endpoint_cpu_share"] is not None,
        clock_uncertainty_s=measurement.clock_uncertainty_s,
        load_lost_share=measurement.lost_share,
        gc_pause_max_s=seen["gc_pause_max_s"],
        rehearsal=config.rehearse,
    )


def _held(config: Config, observed: Observed) -> float | None:
    """Concurrency held, of what the requests could fill: 3 requests cannot hold 16 streams."""
    from llmexp.metrics import summary as metrics

    streams = config.streams or 1
    if config.workload.kind in ("sessions", "conversation"):
        return metrics.sessions_held(observed, streams)
    return metrics.concurrency_held(observed, min(streams, config.max_requests or streams))


def money(config: Config, price: PriceList, summary: Mapping[str, Any], measurement: Measurement) -> dict[str, Any]:
    """What the job cost, warm-up apart, and where the price comes from.

    A rehearsal costs nothing: its figures are what as many tokens and as much time would cost at the model's prices.
    """
    from llmexp.metrics import prices

    rows = measurement.warmup
    warm = [
        prices.cost(
            price,
            row.input_tokens or 0,
            row.cached_tokens or 0,
            row.output_tokens or 0,
            row.reasoning_tokens or 0,
            row.cache_write_tokens or 0,
        )
        for row in rows
    ]
    warmup_usd = None if None in warm else sum(usd for usd in warm if usd is not None)
    return {
        "cost_usd": summary.get("cost_usd"),
        "warmup_usd": warmup_usd if rows else 0.0,
        "price": prices.as_dict(price),
        "rehearsal": config.rehearse,
    }


def _of_trace(config: Config) -> list[str]:
    """How a replayed trace was read and what was cut off; a file that is gone by now costs no more than that."""
    if config.load.kind != "replay":
        return []
    from llmexp.schedule import trace

    try:
        return trace.notes(config.load, timeout_s=config.run.timeout_s, max_requests=config.max_requests)
    except ConfigError as error:
        return [f"the trace could not be read again after the load: {error}"]


def notes(config: Config, measurement: Measurement, observed: Observed, nonce: str) -> dict[str, Any]:
    """What a reader of the numbers should know beside them."""
    from llmexp.metrics import summary as metrics

    built = measurement.built
    workload = [*measurement.notes, *(built.workload_notes if built else ())]
    workload += _of_trace(config)
    size = built.workload_size if built else None
    if size is not None and len(observed) > size:
        workload.append(f"the workload has {size} texts; beyond that they come again under new nonces")
    return {
        "nonce": nonce,
        "ended_early": measurement.enough,
        "token_sources": metrics.token_sources(observed),
        # What is graded is asked for an answer, not for a length.
        "output_length": None if config.quality.graded else metrics.output_length(observed),
        "streams": dict(observed.remarks.most_common()),
        "uncarried_percentiles": metrics.uncarried(int(observed.completed.sum())),
        "load": "closed" if config.closed else "open",
        "workload": workload,
    }
