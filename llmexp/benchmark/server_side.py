"""What a server's own metrics say of a run, on the clock of the run's curves, and whether both sides agree.

Pure: readings and records in, the `server` part of `result.json` out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmexp.benchmark.server_metrics import Reading, Watch
from llmexp.metrics.timeline import ends_ns
from llmexp.records.observed import Floats, Observed, known

LIMIT = 0.02
"""Relative difference between both sides that is worth a remark."""
TTFT_FLOOR_S = 0.005
"""Smaller differences in mean time to first token say nothing."""
GAUGES = ("running", "waiting", "kv_cache_usage", "prefix_cache_hit_rate")
COUNTERS = ("input_tokens", "output_tokens", "requests", "preemptions", "prefix_cache_hits", "prefix_cache_queries")


@dataclass(frozen=True, slots=True)
class Received:
    """The client's side; None where it cannot be known."""

    requests: int
    output_tokens: int
    """Of every request, whatever became of it."""
    input_tokens: int | None
    """As the server's own usage states them, when every request has one."""
    cached_tokens: int
    ttft_mean_s: float | None
    lost: int = 0
    """Requests that failed or were cut."""
    connect_s: float | None = None
    """The fastest connection: about one round trip."""


def received(observed: Observed, ttft_mean_s: float | None) -> Received:
    """The client's side of a run."""
    sent = known(observed.sent_ns)
    stated = np.where(known(observed.output_tokens), observed.output_tokens, 0)
    output = np.where(observed.completed & (stated > 0), stated, np.maximum(stated, observed.streamed_tokens))
    whole = bool(observed.completed[sent].all()) and set(observed.sources["input_tokens"]) == {"server"}
    cached = observed.cached_tokens[known(observed.cached_tokens)]
    return Received(
        requests=int(observed.completed.sum()),
        output_tokens=int(output.sum()),
        input_tokens=int(observed.input_tokens[observed.completed].sum()) if whole else None,
        cached_tokens=int(cached.sum()),
        ttft_mean_s=ttft_mean_s,
        lost=int(sent.sum()) - int(observed.completed.sum()),
        connect_s=float(observed.connect_s[observed.connect_s > 0].min()) if (observed.connect_s > 0).any() else None,
    )


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of the run's own curves, on the wall clock."""

    origin_wall_ns: int
    """The first `sent`."""
    t_s: list[int]
    end_s: float

    @classmethod
    def of(cls, observed: Observed, ours: Mapping[str, Any] | None, anchor: Mapping[str, int]) -> Steps | None:
        """None where nothing was sent."""
        sent = known(observed.sent_ns)
        if not ours or not anchor or not sent.any():
            return None
        first, last = int(observed.sent_ns[sent].min()), int(ends_ns(observed)[sent].max())
        return cls(first - anchor["monotonic_ns"] + anchor["wall_ns"], list(ours["t_s"]), (last - first) / 1e9)


def of_run(
    watch: Watch,
    observed: Observed,
    summary: Mapping[str, Any],
    ours: Mapping[str, Any] | None,
    anchor: Mapping[str, int],
) -> dict[str, Any]:
    """The `server` part of a run's result: `ours` are its curves, `anchor` is one moment on both clocks."""
    ttft_mean_s = (summary.get("ttft_s") or {}).get("mean")
    return report(watch, Steps.of(observed, ours, anchor), received(observed, ttft_mean_s))


def report(watch: Watch, steps: Steps | None, client: Received) -> dict[str, Any]:
    """The `server` part of a result; empty where a server publishes nothing and nobody said that it would."""
    if watch.source is None or watch.engine is None:
        missing = watch.source is not None and not watch.source.guessed
        return {"source": {"url": watch.source.url, "problem": watch.problem}} if missing and watch.source else {}
    change, over_time = changes(watch.readings), curves(watch.readings, steps)
    return {
        "source": {
            "url": watch.source.url,
            "engine": watch.engine.name,
            "readings": len(watch.readings),
            "missed": watch.missed,
        },
        "curves": over_time,
        "gauges": gauges(over_time),
        "change": change,
        "checks": list(_checks(change, client, without_cached=watch.engine.input_without_cached)),
    }


def changes(readings: Sequence[Reading]) -> dict[str, float | int | None]:
    """What was added between the first reading and the last; None where a counter fell (the server started anew)."""
    first, last = readings[0].values, readings[-1].values
    sums = ("ttft_sum_s", "ttft_count", "queue_sum_s", "queue_count")
    added = {name: _added(first, last, name) for name in (*COUNTERS, *sums)}
    count, total = added.pop("ttft_count"), added.pop("ttft_sum_s")
    queued, waited = added.pop("queue_count"), added.pop("queue_sum_s")
    queries, hits = added.pop("prefix_cache_queries"), added.pop("prefix_cache_hits")
    change: dict[str, float | int | None] = {
        name: value if value is None else round(value) for name, value in added.items()
    }
    change["ttft_mean_s"] = total / count if count and total is not None else None
    change["queue_mean_s"] = waited / queued if queued and waited is not None else None
    change["prefix_cache_hit_rate"] = hits / queries if queries and hits is not None else None
    change["first_tokens"] = None if count is None else round(count)
    return {name: value for name, value in change.items() if value is not None}


def _added(first: Mapping[str, float], last: Mapping[str, float], name: str) -> float | None:
    """A counter without a line before the load stood at 0: labels appear with their first event."""
    if name not in last:
        return None
    added = last[name] - first.get(name, 0.0)
    return added if added >= 0 else None


def gauges(over_time: Mapping[str, Sequence[float | None]]) -> dict[str, dict[str, float]]:
    """Mean and highest step of each gauge."""
    found = {name: [value for value in over_time.get(name, ()) if value is not None] for name in GAUGES}
    return {name: {"mean": sum(some) / len(some), "max": max(some)} for name, some in found.items() if some}


# --- curves ----------------------------------------------------------------------------------------------------------


def curves(readings: Sequence[Reading], steps: Steps | None) -> dict[str, list[Any]]:
    """Gauges as each step's mean, counters as rates per second; `t_s` as in the run's own curves."""
    if steps is None or len(readings) < 2:
        return {}
    at_s = np.array([(one.wall_ns - steps.origin_wall_ns) / 1e9 for one in readings])
    edges = np.append(np.asarray(steps.t_s, dtype=float), max(steps.end_s, steps.t_s[-1] + 1e-3))
    series: dict[str, Callable[[Floats], Floats]] = {}
    found: dict[str, list[Any]] = {"t_s": steps.t_s}
    for name in (*GAUGES, *COUNTERS):
        if all(name in one.values for one in readings):
            series[name] = _series(at_s, np.array([one.values[name] for one in readings]))
    for name in GAUGES:
        if name in series:
            found[name] = _plain(_means(at_s, series[name], edges))
    for name in ("input_tokens", "output_tokens", "preemptions"):
        if name in series:
            found[f"{name}_per_s"] = _plain(np.diff(series[name](edges)) / np.diff(edges))
    if "prefix_cache_hits" in series and "prefix_cache_queries" in series:
        hits, queries = (np.diff(series[f"prefix_cache_{name}"](edges)) for name in ("hits", "queries"))
        with np.errstate(invalid="ignore", divide="ignore"):
            found["prefix_cache_hit_rate"] = _plain(np.where(queries > 0, hits / queries, np.nan))
    return found


def _series(at_s: Floats, values: Floats) -> Callable[[Floats], Floats]:
    """Values over time, straight between readings and level beyond them."""
    return lambda when: np.interp(when, at_s, values)


def _means(at_s: Floats, series: Callable[[Floats], Floats], edges: Floats) -> Floats:
    """Each step's mean reading; between readings where it has none."""
    steps = np.searchsorted(edges, at_s, side="right") - 1
    inside = (steps >= 0) & (steps < len(edges) - 1)
    counts = np.bincount(steps[inside], minlength=len(edges) - 1)
    sums = np.bincount(steps[inside], weights=series(at_s)[inside], minlength=len(edges) - 1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), series((edges[:-1] + edges[1:]) / 2))


def _plain(values: Floats) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 4) for value in values]


# --- checks ----------------------------------------------------------------------------------------------------------


def _checks(change: Mapping[str, Any], client: Received, *, without_cached: bool) -> Any:
    """Each thing that both sides count: what the server says, what we saw, and words where they differ."""
    if "output_tokens" in change:
        yield _counted("output_tokens", change["output_tokens"], client.output_tokens, client.lost)
    if "input_tokens" in change and client.input_tokens is not None:
        sent = client.input_tokens - (client.cached_tokens if without_cached else 0)
        yield _counted("input_tokens", change["input_tokens"], sent, client.lost)
    if "ttft_mean_s" in change and client.ttft_mean_s is not None:
        yield _ttft(change["ttft_mean_s"], client.ttft_mean_s, change.get("queue_mean_s"), client.connect_s)


def _counted(name: str, served: int, seen: int, lost: int) -> dict[str, Any]:
    difference = (served - seen) / seen if seen else None
    agrees = served == seen if difference is None else abs(difference) <= LIMIT
    what = name.replace("_", " ")
    share = "" if difference is None else f", {abs(difference):.1%} {'more' if served > seen else 'fewer'} than ours"
    words = f"the server counts {served:,} {what} during the run, this client {seen:,}{share}: "
    if served > seen:
        cut = f", {lost} requests failed or were cut," if lost else ""
        words += f"another client was served too{cut} or tokens were generated that never arrived."
    else:
        words += "its metrics cover only a part of what answered (one replica of several?), or count otherwise."
    return _check(name, served, seen, difference, None if agrees else words)


def _ttft(served_s: float, seen_s: float, queue_s: float | None, connect_s: float | None) -> dict[str, Any]:
    gap_s = seen_s - served_s
    difference = -gap_s / seen_s if seen_s else None
    words = f"the server's mean time to first token is {_ms(served_s)}, this client's {_ms(seen_s)}: "
    if gap_s > 0:
        words += _of_the_gap(gap_s, connect_s)
    else:
        words += "the server's figure holds requests that were not ours, or that did not complete."
    if queue_s is not None:
        words += f" Inside the server a request waited {_ms(queue_s)} on average before the engine took it."
    agrees = abs(gap_s) <= max(TTFT_FLOOR_S, LIMIT * seen_s)
    return _check("ttft_mean_s", served_s, seen_s, difference, None if agrees else words)


def _of_the_gap(gap_s: float, connect_s: float | None) -> str:
    """Where the time between both clocks goes: a round trip on the network, the rest before the server's clock."""
    before = "a proxy, or a queue before the server's own clock starts."
    if connect_s is None:
        return f"the rest is the network, {before}"
    network = f"of the {_ms(gap_s)} between, about {_ms(min(connect_s, gap_s))} is the network (as a connection took)"
    return f"{network}." if connect_s > 0.8 * gap_s else f"{network}, the rest {before}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.4g} ms"


def _check(name: str, server: float, client: float, difference: float | None, words: str | None) -> dict[str, Any]:
    return {
        "name": name,
        "server": server,
        "client": client,
        "difference": difference,
        "limit": LIMIT,
        "agrees": words is None,
        "remark": words,
    }
