"""One job, top to bottom: open the endpoint, run the load, turn records into numbers, write the files."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmexp.config import Config
from llmexp.errors import FAILED, INTERRUPTED, MISSED, OK, ConfigError
from llmexp.jobs import Spec
from llmexp.progress import Progress

if TYPE_CHECKING:
    from llmexp.benchmark import Measurement
    from llmexp.endpoints import Running
    from llmexp.observed import Observed
    from llmexp.prices import PriceList
    from llmexp.server_metrics import Watch
    from llmexp.sweep import Budget
    from llmexp.workload.request import Request

log = logging.getLogger("llmexp")


def run(
    spec: Spec, budget: Budget, *, requests: tuple[Request, ...] | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Measure one job into `spec.directory`; the content of its result.json.

    Raises `ConfigError` or `JobError` when nothing could be measured.
    """
    from llmexp import endpoints
    from llmexp.benchmark import ensure_ray

    config = spec.config
    started = datetime.now(UTC)
    _begin(spec, started)
    endpoints.prepare(config.model, rehearse=config.rehearse)
    with Progress(config, spec.name, quiet=quiet) as progress:
        progress.say("starting Ray")
        ensure_ray(config.ray)
        progress.say("starting the endpoint" if config.model.deployment.kind in _OURS else "warming up")
        with endpoints.opened(
            config.model, config.workload, config.streams, rehearse=config.rehearse, log_dir=spec.directory
        ) as running:
            progress.say("warming up")
            if config.capacity.enabled:
                from llmexp import capacity_job

                return capacity_job.run(spec, running, budget, progress, started)
            job, measurement = send(spec, running, budget, progress, requests=requests)
    return conclude(spec, measurement, running, started, job.nonce, budget, job.beside)


def send(
    spec: Spec,
    running: Running,
    budget: Budget,
    progress: Progress,
    *,
    requests: tuple[Request, ...] | None = None,
    enough: Callable[[Counter[str]], str | None] = lambda _counts: None,
) -> tuple[Any, Measurement]:
    """The load itself, on an endpoint that answers: its `benchmark.Job` and what it left."""
    from llmexp.benchmark import Benchmark
    from llmexp.server_metrics import Watch, source_of

    watch = Watch(source_of(spec.config, running.base_url, running.metrics_url), spec.config.model.name)
    job = replace(_job(spec, running, budget, progress, requests, watch), enough=enough)
    return job, Benchmark(job).run()


def measure(
    config: Config, directory: Path, *, quiet: bool = False, requests: Sequence[Request] | None = None
) -> dict[str, Any]:
    """One job into `directory` without a command of ours around it; the content of its result.json.

    `requests` are sent instead of the workload's. Raises `ConfigError` before anything is sent, or `JobError`.
    """
    from llmexp.jobs import environment_problems
    from llmexp.sweep import Budget

    problems = environment_problems(config)
    if problems:
        raise ConfigError("\n".join(problems))
    tree = config.model_dump(mode="json", by_alias=True)
    spec = Spec(config, tree, config.model.name, (), 0, 0, name=config.model.name, directory=directory)
    own = None if requests is None else tuple(requests)
    return run(spec, Budget(config.run.max_usd), requests=own, quiet=quiet)


_OURS = ("llamacpp", "simulated")


def _begin(spec: Spec, started: datetime) -> None:
    """Leave a result.json that says what was being measured, should this process be killed."""
    from llmexp import results

    results.write(
        spec.directory,
        results.build(
            job=spec.info(), status="interrupted", reason="the process was killed", started=started, config=spec.tree
        ),
    )


def _job(
    spec: Spec,
    running: Running,
    budget: Budget,
    progress: Progress,
    requests: tuple[Request, ...] | None,
    watch: Watch,
) -> Any:
    from llmexp.benchmark import Job
    from llmexp.companion import nonce_of

    return Job(
        config=spec.config,
        base_url=running.base_url,
        nonce=spec.config.run.nonce or nonce_of(spec.id),
        directory=spec.directory,
        endpoint_pids=running.pids,
        environment=dict(running.environment),
        requests=requests,
        spend=_spender(spec.config, budget),
        progress=progress.update,
        beside=watch,
    )


def _spender(config: Config, budget: Budget) -> Any:
    from llmexp import prices

    price = prices.price_list(config.model)

    def spend(counts: Counter[str]) -> str | None:
        if config.rehearse:
            return None
        usd = prices.cost(price, counts["input_tokens"], counts["cached_tokens"], counts["output_tokens"], 0)
        return budget.reason(usd)

    return spend


def conclude(
    spec: Spec,
    measurement: Measurement,
    running: Running,
    started: datetime,
    nonce: str,
    budget: Budget,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Records on disk → numbers, verdict on the client, files."""
    from llmexp import metrics, observations, prices, records, results, server_side, validity

    config = spec.config
    measured = records.exists(spec.directory)
    if measured:
        records.to_parquet(spec.directory)
    observed = metrics.observe(spec.directory) if measured else metrics.observe([])
    price = prices.price_list(config.model)
    summary = _summary(config, observed, price)
    client = observations.client(measurement)
    summary["client"] = observations.client_metrics(client)
    facts = observations.facts(config, measurement, observed, summary, client)
    cost = observations.money(config, price, summary, measurement, budget)
    curves = metrics.curves(observed)
    result = results.build(
        job=spec.info(),
        status=_status(measurement, summary),
        reason=measurement.reason,
        started=started,
        ended=datetime.now(UTC),
        config=dict(spec.tree),
        deployment=_deployment(config, running, measurement),
        metrics=summary,
        curves=curves,
        server=None if watch is None else server_side.of_run(watch, observed, summary, curves, measurement.anchor),
        errors=metrics.errors(observed),
        validity=validity.judge(facts),
        client=client,
        cost=cost,
        notes=observations.notes(config, measurement, observed, nonce),
    )
    results.write(spec.directory, result)
    if measured:
        results.write_llmperf(spec.directory, result)
        _draw(spec.directory)
    return result


def _summary(config: Config, observed: Observed, price: PriceList) -> dict[str, Any]:
    """The numbers of what was observed, under this config's service level and these prices."""
    from llmexp import metrics, prices

    return metrics.summarize(
        observed,
        slo=config.slo,
        open_loop=not config.closed,
        cost=lambda *tokens: prices.cost(price, *tokens),
        usd_per_hour=prices.usd_per_hour(price),
        streams=config.streams if config.load.kind == "closed" else None,
        stationary=config.load.kind not in ("ramp", "replay"),
    )


def _draw(directory: Path) -> None:
    """The job's page; a fault in it must not cost the numbers."""
    from llmexp import report

    try:
        report.job(directory)
    except Exception:
        log.exception("report.html could not be drawn")


def _deployment(config: Config, running: Running, measurement: Measurement) -> dict[str, Any]:
    """Facts about the endpoint, and what CloudWatch saw of the run where it is asked."""
    facts = dict(running.facts)
    deployment = config.model.deployment
    if deployment.kind == "sagemaker" and deployment.cloudwatch and not config.rehearse and measurement.ended_wall_ns:
        from llmexp.endpoints import aws

        start, end = (
            datetime.fromtimestamp(ns / 1e9, UTC) for ns in (measurement.started_wall_ns, measurement.ended_wall_ns)
        )
        facts["cloudwatch"] = aws.cloudwatch(config.model, start, end, deployment.cloudwatch_wait_s)
    return facts


def _status(measurement: Measurement, summary: Mapping[str, Any]) -> str:
    if measurement.interrupted:
        return "interrupted"
    nothing = summary.get("requests_completed", 0) + summary.get("requests_unfinished", 0) == 0
    return "failed" if measurement.failed or nothing else "finished"


def failed(spec: Spec, reason: str) -> dict[str, Any]:
    """The result of a job that could not be measured at all."""
    from llmexp import results

    now = datetime.now(UTC)
    result: dict[str, Any] = results.build(
        job=spec.info(), status="failed", reason=reason, started=now, ended=now, config=dict(spec.tree)
    )
    results.write(spec.directory, result)
    return result


def salvage(directory: Path) -> dict[str, Any] | None:
    """The result of a folder whose job was killed, from what it had written; None where there is none."""
    from llmexp import metrics, prices, records, results
    from llmexp.config import load

    try:
        result: dict[str, Any] = json.loads((directory / "result.json").read_text())
    except (OSError, ValueError):
        return None
    if result.get("metrics") or not records.exists(directory):
        return result
    config = load(result["config"])
    records.to_parquet(directory)
    observed = metrics.observe(directory)
    result["metrics"] = _summary(config, observed, prices.price_list(config.model))
    result["curves"], result["errors"] = metrics.curves(observed), metrics.errors(observed)
    results.write(directory, result)
    return result


def status_of(result: Mapping[str, Any], config: Config) -> int:
    """The exit status of one job."""
    if result["status"] == "interrupted":
        return INTERRUPTED
    error_rate = (result.get("metrics") or {}).get("error_rate") or 0.0
    if result["status"] == "failed" or error_rate > config.run.max_error_rate:
        return FAILED
    if config.slo.enforce and (result["metrics"].get("slo") or {}).get("met") is False:
        return MISSED
    return OK


def render(result: Mapping[str, Any], directory: Path) -> str:
    """The job's table for stdout."""
    from llmexp import results

    return str(results.render_job(result, directory))
