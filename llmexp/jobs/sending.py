"""One load on an endpoint that answers: sent, and watched while it runs."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmexp.errors import JobError
from llmexp.jobs.spec import Spec
from llmexp.terminal.progress import Progress

if TYPE_CHECKING:
    from llmexp.benchmark import Job, Measurement
    from llmexp.benchmark.server_metrics import Watch
    from llmexp.config import Config
    from llmexp.endpoints import Running
    from llmexp.jobs.ledger import Account, Ledger
    from llmexp.metrics.prices import PriceList
    from llmexp.telemetry import PowerWatch
    from llmexp.workload.request import Request

_ENDED = "the server that the job started"
TOLD_S = 1.5
LONGER = 1.5
"""The first requests may be so much longer than the mean."""
FIRST_ROUNDS, FIRST_OPEN = 6, 32
"""Requests that may go out before the first figures come: for each stream, and where there is no ceiling."""
HEAD_S = 60.0
"""Seconds that an hourly price may run before the first figures come: warm-up, mostly."""


@dataclass(frozen=True)
class Seen:
    """What others said while a load ran."""

    server: Watch
    """The server's own metrics."""
    gpu: PowerWatch
    cpu: PowerWatch


def send(
    spec: Spec,
    running: Running,
    ledger: Ledger,
    progress: Progress,
    *,
    requests: tuple[Request, ...] | None = None,
    enough: Callable[[Counter[str]], str | None] = lambda _counts: None,
    before_load: Callable[[], None] = lambda: None,
) -> tuple[Job, Measurement, Seen]:
    """The load itself, on an endpoint that answers: its `benchmark.Job`, what it left, and what others saw of it."""
    from llmexp import telemetry
    from llmexp.benchmark import Benchmark
    from llmexp.benchmark.server_metrics import Watch, source_of

    watch = Watch(source_of(spec.config, running.base_url, running.metrics_url), spec.config.model.name)
    account = _account(spec, ledger)
    job = _job(spec, running, progress, requests, watch)
    job = replace(job, enough=enough, spend=_while_it_serves(running), purse=account, before_load=before_load)
    gpu, cpu = telemetry.choose(spec.config)
    try:
        with gpu, cpu:
            measurement = Benchmark(job).run()
    except JobError as error:
        # Whatever failed on the way, a server that is gone is why.
        how = _how_it_ended(running)
        if how is None:
            raise
        raise JobError(f"{_ENDED} {how}") from error
    finally:
        if account is not None:
            account.close()
    if (how := running.ended()) is not None and measurement.reason is None:
        measurement.failed, measurement.reason = True, f"{_ENDED} {how}"
    return job, measurement, Seen(watch, gpu, cpu)


def _how_it_ended(running: Running) -> str | None:
    """How the server ended that refused us; it may take a moment until its keeper has told."""
    deadline = time.monotonic() + TOLD_S
    while (how := running.ended()) is None and running.pids and time.monotonic() < deadline:
        time.sleep(0.05)
    return how


def _while_it_serves(running: Running) -> Callable[[Counter[str]], str | None]:
    """A load on a server of ours that has ended is over."""

    def reason(_counts: Counter[str]) -> str | None:
        how = running.ended()
        return None if how is None else f"{_ENDED} {how}"

    return reason


def _job(
    spec: Spec,
    running: Running,
    progress: Progress,
    requests: tuple[Request, ...] | None,
    watch: Watch,
) -> Job:
    from llmexp.benchmark import Job
    from llmexp.companion.task import nonce_of

    return Job(
        config=spec.config,
        base_url=running.base_url,
        nonce=spec.config.run.nonce or nonce_of(spec.id),
        directory=spec.directory,
        endpoint_pids=running.pids,
        environment=dict(running.environment),
        requests=requests,
        progress=progress.update,
        beside=watch,
    )


def _account(spec: Spec, ledger: Ledger) -> Account | None:
    """The load's share of the command's money; None where nothing has to be paid for before it is sent."""
    from llmexp.metrics import prices

    price = prices.price_list(spec.config.model)
    if spec.config.rehearse or ledger.limit_usd is None or not prices.costs(price):
        return None
    per_s = (prices.usd_per_hour(price) or 0.0) / 3600
    return ledger.account(spec.id, price, per_s, _head_usd(spec.config, price) + HEAD_S * per_s)


def _head_usd(config: Config, price: PriceList) -> float:
    """What warm-up and the first requests can cost, until the companions have told of them."""
    from llmexp.clients import token_limits
    from llmexp.jobs import plan
    from llmexp.metrics import bill

    into, out = (math.ceil(count * LONGER) for count in plan.mean_tokens(config))
    each = bill.at_most(price, into, token_limits.most(config.model.params, out)) or 0.0
    return each * (config.run.warmup_requests + FIRST_ROUNDS * (config.streams or FIRST_OPEN))
