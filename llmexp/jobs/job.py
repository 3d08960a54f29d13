"""One job from its spec to its result: the endpoint opened, then one load or a capacity search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp.config import Config
from llmexp.errors import ConfigError
from llmexp.jobs import capacity_job, grading
from llmexp.jobs.ledger import Ledger
from llmexp.jobs.measure import cloudwatch, conclude
from llmexp.jobs.sending import send
from llmexp.jobs.spec import Spec, environment_problems
from llmexp.results import Result, Run
from llmexp.results.guard import Guard
from llmexp.terminal.progress import Progress

if TYPE_CHECKING:
    from llmexp.endpoints.served import Servers
    from llmexp.workload.request import Request

_OURS = ("llamacpp", "served", "simulated")


def run(
    spec: Spec,
    ledger: Ledger,
    *,
    requests: tuple[Request, ...] | None = None,
    quiet: bool = False,
    servers: Servers | None = None,
    guard: Guard | None = None,
    before_load: Callable[[], None] = lambda: None,
) -> Run:
    """Measure one job into `spec.directory`; its numbers are on disk then.

    `servers` keeps a server that a command starts for the jobs that follow. `guard` notes what came after the numbers.
    `before_load` is called when the warm-up is over: it ends what is still being done for an earlier job.
    Raises `ConfigError` or `JobError` when nothing could be measured.
    """
    try:
        run = _run(spec, ledger, requests, servers, guard or Guard(), before_load, quiet=quiet)
    except BaseException:
        _let_go(servers)
        raise
    if run.result.status == "failed":
        _let_go(servers)
    return run


def _let_go(servers: Servers | None) -> None:
    """What served a job that failed is not handed on to the next one."""
    if servers is not None:
        servers.stop()


def _run(
    spec: Spec,
    ledger: Ledger,
    requests: tuple[Request, ...] | None,
    servers: Servers | None,
    guard: Guard,
    before_load: Callable[[], None],
    *,
    quiet: bool,
) -> Run:
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
            grading.played(config),
            config.workload,
            config.streams,
            rehearse=config.rehearse,
            log_dir=spec.directory,
            servers=servers,
            answers=grading.answer_key(config),
        ) as running:
            progress.say("warming up")
            if config.capacity.enabled:
                return capacity_job.run(spec, running, ledger, progress, started, guard, before_load)
            job, measurement, watch = send(spec, running, ledger, progress, requests=requests, before_load=before_load)
    measured = conclude(spec, measurement, running, started, job.nonce, ledger, watch, requests)
    with guard("CloudWatch's figures were not fetched", "look at its console"):
        return cloudwatch(spec, measured, measurement)
    return measured


def measure(
    config: Config, directory: Path, *, quiet: bool = False, requests: Sequence[Request] | None = None
) -> Result:
    """One job into `directory` without a command of ours around it; its result.

    `requests` are sent instead of the workload's. Raises `ConfigError` before anything is sent, or `JobError`.
    """
    problems = environment_problems(config)
    if problems:
        raise ConfigError("\n".join(problems))
    tree = config.model_dump(mode="json", by_alias=True)
    spec = Spec(config, tree, config.model.name, (), 0, 0, name=config.model.name, directory=directory)
    own = None if requests is None else tuple(requests)
    return run(spec, Ledger(config.run.max_usd), requests=own, quiet=quiet).result


def _begin(spec: Spec, started: datetime) -> None:
    """Leave a result.json that says what was being measured, should this process be killed."""
    from llmexp import results

    results.write(
        spec.directory,
        results.build(
            job=spec.info(), status="interrupted", reason="the process was killed", started=started, config=spec.tree
        ),
    )
