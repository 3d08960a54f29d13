"""How many workers carry a load, and what falls to each of them."""

from __future__ import annotations

import math

from llmexp import schedule
from llmexp.benchmark.measurement import Job
from llmexp.companion.task import Built, Task
from llmexp.config import Config
from llmexp.worker.plan import Plan

STREAMS_PER_WORKER = 512
RATE_PER_WORKER = 2500.0
OWN_STREAMS_PER_WORKER = 8
READY_AT_ONCE = 20_000
"""Requests prepared before the clock, at most; longer runs are fed while they go."""
SIGNED_AHEAD = 4
PAID_AHEAD = 16


def workers_for(config: Config, *, own_stream: bool, cores: int, nodes: int = 1) -> int:
    """How many workers carry this load: as few as can, at most one a core, and one on each node at least.

    `cores` are those of all nodes together. `own_stream`: LiteLLM times itself, which costs much more.
    """
    if config.ray.workers is not None:
        return config.ray.workers
    streams, rate = config.streams, config.peak_rate or 0.0
    if own_stream:
        wanted = math.ceil((streams or rate or 1) / OWN_STREAMS_PER_WORKER)
    elif config.closed and streams is not None:
        wanted = math.ceil(streams / STREAMS_PER_WORKER)
    else:
        wanted = math.ceil(rate / RATE_PER_WORKER)
    wanted = max(wanted, nodes)
    return max(1, min(wanted, cores, streams or cores, config.max_requests or cores))


def share(total: int | None, worker: int, workers: int) -> int | None:
    """How many of `total` fall to a worker when they are dealt round."""
    return None if total is None else len(range(worker, total, workers))


def waits_for_answers(config: Config) -> bool:
    """Whether some requests can only be prepared when an earlier one has been answered."""
    return config.workload.kind in ("conversation", "sessions", "mix")


def offsets(config: Config, begins: int | None) -> list[float] | None:
    """Intended times of an open loop, in s from its start, of so many requests or sessions; None for a closed one."""
    run = config.run
    times = schedule.offsets(
        config.load, seed=run.seed, streams=config.streams, timeout_s=run.timeout_s, max_requests=begins
    )
    return None if times is None else list(times)


def most(config: Config) -> int | None:
    """How many requests the job sends at most: as asked for, or as many as its schedule has arrivals."""
    times = None if waits_for_answers(config) else offsets(config, config.max_requests)
    return config.max_requests if times is None else len(times)


def arrivals(config: Config, built: Built) -> list[float] | None:
    """When the job's requests, or its sessions, begin; None for a closed loop."""
    return offsets(config, built.sessions if waits_for_answers(config) else config.max_requests)


def task(job: Job, worker: int, workers: int, requests: int | None) -> Task:
    """A companion's part. `requests`: of the whole job, see `most`."""
    return Task(
        config=job.config,
        base_url=job.base_url,
        nonce=job.nonce,
        worker=worker,
        workers=workers,
        warmup_requests=share(job.config.run.warmup_requests, worker, workers) or 0,
        most=requests,
        requests=job.requests,
        environment=job.environment,
        price=None if job.purse is None else job.purse.price,
    )


def plan(job: Job, built: Built, worker: int, workers: int, times: list[float] | None) -> Plan:
    """A worker's part."""
    config, run, streams = job.config, job.config.run, job.config.streams
    mine = share(streams, worker, workers)
    limits = schedule.limits(config.load, streams=streams, timeout_s=run.timeout_s)
    ramp = tuple((at, share(limit, worker, workers) or 0) for at, limit in limits or ())
    return Plan(
        worker=worker,
        workers=workers,
        target=built.target,
        streams=ramp[0][1] if ramp else mine,
        offsets=None if times is None else times[worker::workers],
        limits=ramp,
        max_requests=built.due,
        timeout_s=run.timeout_s,
        grace_s=run.grace_s,
        spare=max((limit for _, limit in ramp), default=mine or _spare(config, workers)),
        ahead=ahead(config, built, worker, workers),
        own_stream=(config.model, job.base_url) if built.own_stream else None,
    )


def _spare(config: Config, workers: int) -> int:
    """Connections to open ahead in an open loop without ceiling: about a second's arrivals."""
    rate = config.peak_rate or 64.0
    return max(4, min(512, math.ceil(rate / workers)))


def ahead(config: Config, built: Built, worker: int, workers: int) -> int:
    """How many shots a worker keeps ready."""
    streams = share(config.streams, worker, workers)
    if built.signed:
        rate = math.ceil(config.peak_rate or 0.0)
        return SIGNED_AHEAD + max(2 * (streams or 0) if not rate else 0, 4 * rate)
    per_s = 0.0 if waits_for_answers(config) else config.peak_rate or 0.0
    if built.paid:
        return max(PAID_AHEAD, 2 * (streams or 0), 2 * math.ceil(per_s / workers))
    return max(256, 4 * (streams or 64), 4 * math.ceil(per_s / workers))


def first_shots(config: Config, built: Built, worker: int, workers: int) -> int:
    """How many are handed over before the clock: those that are prepared, but few where each costs money."""
    ready = prepared(config, built, worker, workers)
    return min(ready, ahead(config, built, worker, workers)) if built.paid else ready


def prepared(config: Config, built: Built, worker: int, workers: int) -> int:
    """How many are prepared before the clock. All of them where that is few enough: what is ready costs no time.

    Turns that wait for answers come in between the others, so there only some are prepared.
    """
    due = built.due
    if due is not None and due <= READY_AT_ONCE and not built.signed and not waits_for_answers(config):
        return due
    some = ahead(config, built, worker, workers)
    return some if due is None else min(some, due)
