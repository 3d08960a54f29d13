"""One load on an endpoint that answers: run it, turn its records into numbers, write the files."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp.config import Config
from llmexp.errors import FAILED, INTERRUPTED, MISSED, OK, ResultError
from llmexp.jobs import finished, grading
from llmexp.jobs.finished import Count
from llmexp.jobs.keep import keep_records, keep_result
from llmexp.jobs.spec import Spec
from llmexp.results.guard import Guard, shown

if TYPE_CHECKING:
    from llmexp.benchmark import Measurement
    from llmexp.endpoints import Running
    from llmexp.jobs.ledger import Ledger
    from llmexp.jobs.sending import Seen
    from llmexp.metrics.prices import PriceList
    from llmexp.records.observed import Observed
    from llmexp.results.model import Result, Status
    from llmexp.results.run import Run
    from llmexp.workload.request import Request

log = logging.getLogger("llmexp")


def conclude(
    spec: Spec,
    measurement: Measurement,
    running: Running,
    started: datetime,
    nonce: str,
    ledger: Ledger,
    seen: Seen | None = None,
    requests: tuple[Request, ...] | None = None,
) -> Run:
    """Records on disk → numbers, verdict on the client, `result.json`."""
    from llmexp import records, results
    from llmexp.benchmark import client_report as observations
    from llmexp.benchmark import server_side
    from llmexp.metrics import prices, validity
    from llmexp.metrics import summary as metrics

    config = spec.config
    kept, graded = keep_records(spec, measurement), grading.Graded()
    if config.quality.graded and records.exists(spec.directory):
        with Guard()("answers were not graded", f"python -m llmexp.regrade {shown(spec.directory)} quality=…"):
            graded = grading.grade(spec, nonce, running.base_url, requests, ledger)
            measurement.interrupted |= graded.interrupted
    observed = kept.observe()
    price = prices.price_list(config.model)
    summary = _summary(config, observed, price)
    client = observations.client(measurement)
    summary["client"] = observations.client_metrics(client)
    counted = finished.count(config, measurement, observed)
    facts = observations.facts(config, measurement, observed, summary, client)
    cost = observations.money(config, price, summary, measurement)
    if graded.cost is not None:
        cost["judge"] = graded.cost
    if not config.rehearse:
        cost["command"] = _booked(spec, ledger, cost)
    curves = metrics.curves(observed)
    server: dict[str, object] = {}
    if seen is not None:
        server = server_side.of_run(seen.server, observed, summary, curves, measurement.anchor)
        curves, drawn = _drawn(seen, observed, summary, curves)
        server |= drawn
    result = results.build(
        job=spec.info(),
        status="failed" if kept.held else _status(measurement, counted),
        reason=kept.shortfall or measurement.reason or counted.fault,
        started=started,
        ended=datetime.now(UTC),
        config=dict(spec.tree),
        deployment=running.facts,
        metrics=summary,
        curves=curves,
        server=server,
        errors=metrics.errors(observed),
        validity=validity.judge(facts),
        client=client,
        cost=cost,
        notes={**observations.notes(config, measurement, observed, nonce), "requests": counted.as_dict()},
    )
    return keep_result(spec, with_its_own_judge(spec, result), kept)


def with_its_own_judge(spec: Spec, result: Result) -> Result:
    """The result, with a remark where a model graded its own answers."""
    if all(judge.name != spec.config.model.name for judge in spec.judges):
        return result
    said = (
        f"The judge {spec.config.model.name} is the model on trial: models tend to prefer answers of their own. "
        "Let another one judge (quality.judge.model)."
    )
    remarks = (*(each for each in result.notes.remarks if each != said), said)
    return result.model_copy(update={"notes": result.notes.model_copy(update={"remarks": remarks})})


def _booked(spec: Spec, ledger: Ledger, cost: Mapping[str, object]) -> dict[str, object]:
    """The command's money after this load. Without a limit nobody counted while it ran: what is known is booked now."""
    known = [usd for usd in (cost["cost_usd"], cost["warmup_usd"]) if isinstance(usd, float)]
    if ledger.limit_usd is None:
        ledger.add(spec.id, sum(known))
    return ledger.summary()


def _drawn(
    seen: Seen, observed: Observed, summary: dict[str, object], curves: dict[str, object] | None
) -> tuple[dict[str, object] | None, dict[str, object]]:
    """Adds what the hardware drew to the summary; the curves with it, and where it comes from."""
    from llmexp import telemetry
    from llmexp.metrics import summary as metrics

    work, sources = telemetry.Work.of(observed, summary, metrics.billed_output_tokens(observed)), {}
    for name, watch in (("gpu", seen.gpu), ("cpu", seen.cpu)):
        found = telemetry.report(watch, work, curves)
        if found.metrics:
            summary[name] = found.metrics
        if found.source:
            sources[name] = found.source
        if curves is not None:
            curves = {**curves, **{f"{name}_{curve}": values for curve, values in found.curves.items()}}
    return curves, {"power": sources} if sources else {}


def _summary(config: Config, observed: Observed, price: PriceList) -> dict[str, object]:
    """The numbers of what was observed, under this config's service level and these prices."""
    from llmexp.metrics import prices
    from llmexp.metrics import summary as metrics

    return metrics.summarize(
        observed,
        slo=config.slo,
        open_loop=not config.closed,
        cost=lambda *tokens: prices.cost(price, *tokens),
        usd_per_hour=prices.usd_per_hour(price),
        streams=config.streams if config.load.kind == "closed" else None,
        stationary=config.load.kind not in ("ramp", "replay"),
    )


def cloudwatch(spec: Spec, run: Run, measurement: Measurement) -> Run:
    """The run with what CloudWatch saw of it, which takes minutes to come: asked once the numbers are safe."""
    from llmexp import results

    deployment = spec.config.model.deployment
    if deployment.kind != "sagemaker" or not deployment.cloudwatch or spec.config.rehearse:
        return run
    if not measurement.ended_wall_ns or run.directory is None:
        return run
    from llmexp.endpoints import aws

    start, end = (
        datetime.fromtimestamp(ns / 1e9, UTC) for ns in (measurement.started_wall_ns, measurement.ended_wall_ns)
    )
    seen = aws.cloudwatch(spec.config.model, start, end, deployment.cloudwatch_wait_s)
    facts = results.strict({**run.result.deployment, "cloudwatch": seen})
    result = run.result.model_copy(update={"deployment": facts})
    results.write(run.directory, result)
    return results.Run(result, run.directory)


def _status(measurement: Measurement, counted: Count) -> Status:
    if measurement.interrupted:
        return "interrupted"
    return "failed" if measurement.failed or counted.fault else "finished"


def failed(spec: Spec, reason: str) -> Run:
    """The job that could not be measured, or, where its numbers are on disk already, as they stand there."""
    from llmexp import results

    with contextlib.suppress(ResultError):
        known = results.read(spec.directory)
        if known.metrics and known.job.id == spec.id:
            return results.Run(known, spec.directory)
    now = datetime.now(UTC)
    result = results.build(
        job=spec.info(), status="failed", reason=reason, started=now, ended=now, config=dict(spec.tree)
    )
    try:
        results.write(spec.directory, result)
    except OSError as error:
        log.error("%s: result.json could not be written: %s", spec.name, error)  # noqa: TRY400
    return results.Run(result, spec.directory)


def interrupted(spec: Spec) -> Run | None:
    """What a job has on disk that was interrupted outside its load; None where it had not begun."""
    from llmexp import results

    found = salvage(spec.directory)
    if found is None or found.job.id != spec.id:
        return None
    if found.status == "interrupted":
        found = results.parse({**results.tree_of(found), "reason": "interrupted"}, str(spec.directory))
        results.write(spec.directory, found)
    return results.Run(found, spec.directory)


def salvage(directory: Path) -> Result | None:
    """The result of a folder whose job was killed, from what it had written; None where there is none."""
    from llmexp import records, results
    from llmexp.config import load
    from llmexp.metrics import prices
    from llmexp.metrics import summary as metrics

    try:
        result = results.read(directory)
    except ResultError:
        return None
    if result.metrics or not records.exists(directory):
        return result
    try:
        config = load(result.config)
        records.to_parquet(directory)
        observed = metrics.observe(directory)
        numbers = {
            "metrics": _summary(config, observed, prices.price_list(config.model)),
            "curves": metrics.curves(observed) or {},
            "errors": metrics.errors(observed),
        }
        salvaged = results.parse({**results.tree_of(result), **numbers}, str(directory))
        results.write(directory, salvaged)
    except Exception as error:  # noqa: BLE001 -- whatever half a file raises must not keep the job from running again
        log.warning("%s: its rows cannot be read (%s); they stay where they are", directory, error)
        return result
    return salvaged


def regraded(result: Result, spec: Spec, graded: grading.Graded, command: Mapping[str, object] | None = None) -> Result:
    """A job's result with the numbers of its new grades, everything else as it was measured.

    `command`: what the whole command has spent, where judges were asked anew.
    """
    from llmexp import results, telemetry
    from llmexp.metrics import prices
    from llmexp.metrics import summary as metrics
    from llmexp.metrics.quality import NOTHING

    observed = metrics.observe(spec.directory)
    numbers = _summary(spec.config, observed, prices.price_list(spec.config.model))
    changed = {name: numbers[name] for name in (*NOTHING, "slo")}
    work = telemetry.Work.of(observed, numbers, output_tokens=0)
    changed |= telemetry.regraded(result.metrics, None if work is None else work.right_answers)
    tree = results.tree_of(result)
    cost = result.cost.model_dump() | {"judge": graded.cost or {}}
    cost |= {"command": dict(command)} if command is not None and not spec.config.rehearse else {}
    new = {"config": dict(spec.tree), "metrics": {**result.metrics.tree, **changed}, "cost": cost}
    return with_its_own_judge(spec, results.parse({**tree, **new}, str(spec.directory)))


def status_of(result: Result, config: Config) -> int:
    """The exit status of one job."""
    if result.status == "interrupted":
        return INTERRUPTED
    if result.status == "failed" or _too_many_failed(result, config):
        return FAILED
    return MISSED if result.slo_missed else OK


def why_not_ok(result: Result, config: Config) -> str | None:
    """One line on what makes the exit status of a job what it is; None where it is 0, or the user's own interrupt."""
    if result.status == "failed":
        return f"{result.job.name}: {result.reason or 'failed'}"
    if _too_many_failed(result, config):
        failed = result.metrics.number("error_rate") or 0.0
        limit = config.run.max_error_rate
        return f"run.max_error_rate: {result.job.name}: {failed:.1%} of the requests failed, more than {limit:.1%}"
    return result.slo_shortfall if result.slo_missed and result.status != "interrupted" else None


def _too_many_failed(result: Result, config: Config) -> bool:
    return (result.metrics.number("error_rate") or 0.0) > config.run.max_error_rate
