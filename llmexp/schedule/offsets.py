"""When requests are sent: seeded generators of times, the same for every stack of a comparison.

`offsets` gives the intended send times of an open loop, in seconds from its start; the first is 0. `limits` gives how
many may be in flight, and from when, where the concurrency itself rises. A closed loop has neither: a request starts
when another ends.

The random shapes are scaled so that N arrivals span (N−1)/rate exactly. A Poisson process that is known to have N
arrivals in a given time is just that, so the gaps keep their distribution, and two stacks, or two seeds, are offered
the same mean rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, count, islice, takewhile
from typing import TypeVar

from llmexp.config import Load, closed_loop
from llmexp.errors import ConfigError

T = TypeVar("T")
_BLOCK = 1 << 16
_GAPS = 0x67617073
"""Keeps the draws of gaps apart from other uses of the seed."""


def offsets(
    load: Load,
    *,
    seed: int,
    timeout_s: float,
    max_requests: int | None,
    streams: int | None = None,  # noqa: ARG001 -- no shape of today depends on it
) -> Iterator[float] | None:
    """Intended send times before `timeout_s`, at most `max_requests`; None for closed loops.

    What is wrong with a trace's beginning is raised here, not at the first send.
    """
    if closed_loop(load.kind, load.of):
        return None
    times = _times(load, seed, timeout_s, max_requests)
    return islice(takewhile(lambda at: at < timeout_s, times), max_requests)


def _times(load: Load, seed: int, timeout_s: float, max_requests: int | None) -> Iterator[float]:
    if load.kind == "replay":
        return _replay(load)
    if load.kind == "ramp":
        return ramp(*ends(load), load.duration_s or timeout_s, load.steps)
    rate = load.rate
    if rate is None:
        raise ConfigError(f"load.rate: load={load.kind} needs requests per second, such as load.rate=5")
    if load.kind == "constant":
        return (at / rate for at in count())
    shape = 1.0 if load.kind == "poisson" else load.burstiness or 1.0
    wanted = math.ceil(rate * timeout_s)
    return gamma(rate, shape, seed, wanted if max_requests is None else min(wanted, max_requests))


def gamma(rate: float, shape: float, seed: int, arrivals: int) -> Iterator[float]:
    """Arrivals with gamma-distributed gaps: shape 1 is Poisson, smaller is burstier, larger more even.

    The first is at 0, the last at (arrivals − 1) / rate.
    """
    import numpy as np

    draws = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, _GAPS])))
    yield 0.0
    start, left = 0.0, arrivals - 1
    while left > 0:
        size = min(left, _BLOCK)
        gaps = draws.standard_gamma(shape, size)
        total = float(gaps.sum())
        scale = size / rate / total if total > 0 else 0.0
        yield from (start + np.cumsum(gaps) * scale).tolist()
        start += size / rate
        left -= size


def ramp(first: float, last: float, duration_s: float, steps: int | None) -> Iterator[float]:
    """Arrivals at a rate that goes from `first` to `last` within `duration_s` and then stays.

    Arrival i is where the rate's integral reaches i. With `steps`, the rate holds equal steps of equal length, the
    first and the last of them at the two rates; without, it changes evenly.
    """
    pieces = _pieces(first, last, duration_s, steps)
    began, arrived = 0.0, 0.0
    index = count()
    here = next(index)
    for low, high, length in pieces:
        arrives = (low + high) / 2 * length
        while here <= arrived + arrives:
            yield began + _when(here - arrived, low, high, length)
            here = next(index)
        began, arrived = began + length, arrived + arrives
    for at in chain((here,), index):
        yield began + (at - arrived) / last


def _pieces(first: float, last: float, duration_s: float, steps: int | None) -> list[tuple[float, float, float]]:
    """(rate at the start, rate at the end, seconds) of each piece of the ramp."""
    if steps is None:
        return [(first, last, duration_s)]
    return [(rate, rate, duration_s / steps) for rate in levels(first, last, steps)]


def levels(first: float, last: float, steps: int) -> list[float]:
    """The values of equal steps; a single one is the last value."""
    return [last] if steps == 1 else [first + (last - first) * step / (steps - 1) for step in range(steps)]


def _when(arrivals: float, low: float, high: float, length: float) -> float:
    """Seconds into a piece at which so many have arrived: the root of low·t + (high − low)·t² / (2·length)."""
    under = low * low + 2 * (high - low) / length * arrivals
    return 2 * arrivals / (low + math.sqrt(max(under, 0.0)))


def _replay(load: Load) -> Iterator[float]:
    from llmexp.schedule.trace import timestamps

    times = timestamps(load)
    first = next(times, None)
    if first is None:
        raise ConfigError(f"load.file: holds no times, got '{load.file}'")
    return (at / load.speed for at in chain((first,), times))


def limits(load: Load, *, timeout_s: float, streams: int | None = None) -> Iterator[tuple[float, int]] | None:
    """(seconds from the start, requests allowed in flight from then on) of a concurrency ramp, else None.

    `streams` is a ceiling over the ramp. Without `steps` the limit changes by one at a time, evenly.
    """
    if load.kind != "ramp" or load.of != "concurrency":
        return None
    first, last = (max(1, round(end)) for end in ends(load))
    duration_s = load.duration_s or timeout_s
    if load.steps is None:
        change = abs(last - first)
        values = range(first, last + (1 if last >= first else -1), 1 if last >= first else -1)
        planned = [(duration_s * at / max(1, change), value) for at, value in enumerate(values)]
    else:
        rising = levels(first, last, load.steps)
        planned = [(duration_s * at / load.steps, max(1, round(value))) for at, value in enumerate(rising)]
    return iter([(at, min(value, streams or value)) for at, value in planned])


def ends(load: Load) -> tuple[float, float]:
    """First and last value of a ramp."""
    if load.from_ is None or load.to is None:
        raise ConfigError("load.from: load=ramp needs load.from and load.to")
    return load.from_, load.to


def shard(iterator: Iterator[T], worker: int, workers: int) -> Iterator[T]:
    """What falls to one of several workers when the items are dealt round: item i goes to worker i mod workers."""
    return islice(iterator, worker, None, workers)
