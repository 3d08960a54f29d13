"""Endpoints: what the tool can start or describe itself.

`opened` is the way in: it gives the address of a model that answers, and what is known about its deployment. What it
started ends with the block, and with this process, however that ends.
"""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llmexp.errors import ConfigError, JobError
from llmexp.json_types import branch

if TYPE_CHECKING:
    from llmexp.config import Model, Profile, Workload
    from llmexp.endpoints.process import Child
    from llmexp.endpoints.served import Servers

__all__ = ["Running", "check", "opened", "prepare"]


@dataclass(frozen=True, slots=True)
class Running:
    """A model that answers."""

    base_url: str | None
    """Where, in the form that the model's API takes; None: the provider's own address."""
    facts: dict[str, object] = field(default_factory=dict)
    """What is known about the deployment, to be logged with the run."""
    pids: tuple[int, ...] = ()
    """Processes on this host that serve it."""
    metrics_url: str | None = None
    """Its Prometheus metrics."""
    truth: Path | None = None
    """The simulator's own record of true times (`llmexp.endpoints.simulator.truth`)."""
    environment: dict[str, str] = field(default_factory=dict)
    """Rehearsal: variables for every process that prepares or signs requests."""
    ended: Callable[[], str | None] = lambda: None
    """Whether what the job started has ended although it should serve: how, in words; None while it runs."""


@contextmanager
def opened(
    model: Model,
    workload: Workload,
    streams: int | None,  # noqa: ARG001 (part of the seam: an endpoint may size itself by it)
    *,
    rehearse: bool,
    log_dir: Path,
    servers: Servers | None = None,
    answers: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """The model, answering, while the block runs.

    `streams` is the concurrency that will be asked of it. `servers` keeps what a command started for the jobs that
    follow; without it, it ends with the block. `answers` is what a
    simulator knows (`llmexp.workload.answers`). Raises `ConfigError` for what is wrong with the
    configuration, `JobError` when the endpoint does not come up within `model.ready_timeout_s`.
    """
    deployment = model.deployment
    with ExitStack() as stack:
        if servers is not None:
            servers.make_room(None if rehearse else identity_of(model))
        if rehearse or deployment.kind == "simulated":
            yield stack.enter_context(_simulated(model, answers or {}, rehearse=rehearse, log_dir=log_dir))
        elif deployment.kind == "llamacpp":
            from llmexp.endpoints import llamacpp

            child = stack.enter_context(llamacpp.serve(model, deployment, workload, log_dir))
            address = str(child.ready["address"])
            _await_health(address, model.ready_timeout_s)
            yield Running(
                f"{address}/v1",
                dict(branch(child.ready, "facts")),
                (child.pid,),
                f"{address}/metrics",
                ended=_watching(child, log_dir),
            )
        elif deployment.kind == "served":
            from llmexp.endpoints import rehearsal, served

            kept = servers or stack.enter_context(served.Servers())
            server, fresh = kept.serve(model, deployment, log_dir, "127.0.0.1")
            base_url = rehearsal.base_url(rehearsal.wire_of(model), server.address)
            facts = served.facts(server, deployment, fresh=fresh)
            yield Running(base_url, facts, (server.pid,), ended=server.ended)
        else:
            yield Running(model.base_url, _facts(model))


def identity_of(model: Model) -> str | None:
    """What two jobs must have in common to share a started server; None where none is started by a command."""
    if model.deployment.kind != "served":
        return None
    from llmexp.endpoints import served

    return served.identity(model)


def _watching(child: Child, log_dir: Path) -> Callable[[], str | None]:
    """Tells when a child of ours ended under the load."""

    def ended() -> str | None:
        status = child.status()
        return None if status is None else f"ended with exit status {status}; its log is {log_dir / 'endpoint.log'}"

    return ended


def check(model: Model, *, rehearse: bool, starts: bool = True) -> None:
    """Raises `ConfigError` for what can be known to be wrong before anything is started; cheap.

    `starts`: whether this command will start what it can; a plan alone needs no programs.
    """
    if rehearse or model.deployment.kind == "simulated":
        from llmexp.endpoints.simulator.options import Options

        Options.of(_profile(model, rehearse=rehearse).model_dump())
    elif model.deployment.kind == "llamacpp":
        from llmexp.endpoints import llamacpp

        llamacpp.require()
    elif model.deployment.kind == "served":
        from llmexp.endpoints import command

        problems = list(command.problems(model, model.deployment, starts=starts))
        if problems:
            raise ConfigError("\n".join(problems))


def prepare(model: Model, *, rehearse: bool) -> None:
    """Gets what takes long, weights, before anything is started or shown; `opened` would get it too."""
    if model.deployment.kind == "llamacpp" and not rehearse:
        from llmexp.endpoints import weights

        weights.find(model.deployment)


def _profile(model: Model, *, rehearse: bool) -> Profile:
    if model.deployment.kind == "simulated":
        return model.deployment.profile
    assert rehearse
    return model.rehearsal


def _facts(model: Model) -> dict[str, object]:
    """What is known about an endpoint that runs by itself."""
    deployment = model.deployment
    if deployment.kind == "external":
        return dict(deployment.model_extra or {})
    from llmexp.endpoints import aws

    facts: dict[str, object] = aws.facts(model)
    return facts


# --- the simulator ---------------------------------------------------------------------------------------------------


@contextmanager
def _simulated(model: Model, answers: Mapping[str, str], *, rehearse: bool, log_dir: Path) -> Iterator[Running]:
    from llmexp.endpoints import rehearsal
    from llmexp.endpoints.process import serving

    wire, profile, truth = rehearsal.wire_of(model), _profile(model, rehearse=rehearse), log_dir / "truth.jsonl"
    with ExitStack() as stack:
        log_dir.mkdir(parents=True, exist_ok=True)
        truth.unlink(missing_ok=True)
        settings = {**profile.model_dump(), "model": model.name, "truth": str(truth.resolve())}
        environment: dict[str, str] = {}
        if rehearse:
            credentials = stack.enter_context(rehearsal.throwaway(model))
            settings["aws"], environment = credentials.aws, credentials.environment
        settings["shape"] = _shape(model)
        if profile.accuracy is not None and answers:
            settings["answers"] = str(stack.enter_context(_kept(answers)))
        log, timeout_s = log_dir / "endpoint.log", model.ready_timeout_s
        child = stack.enter_context(serving("llmexp.endpoints.simulator", settings, log=log, timeout_s=timeout_s))
        address = str(child.ready["address"])
        _await_health(address, timeout_s)
        facts = _simulated_facts(model, profile, wire, rehearse=rehearse)
        yield Running(
            rehearsal.base_url(wire, address),
            facts,
            (child.pid,),
            f"{address}/metrics",
            truth,
            environment,
            _watching(child, log_dir),
        )


@contextmanager
def _kept(answers: Mapping[str, str]) -> Iterator[Path]:
    """The answers as a file, for the simulator to read."""
    with tempfile.NamedTemporaryFile("w", prefix="llmexp-answers-", suffix=".json", encoding="utf-8") as file:
        json.dump(answers, file)
        file.flush()
        yield Path(file.name)


def _shape(model: Model) -> dict[str, object]:
    payload = getattr(model.deployment, "payload", "messages")
    return {"sagemaker": payload} if payload in ("tgi", "djl") else {}


def _simulated_facts(model: Model, profile: Profile, wire: str, *, rehearse: bool) -> dict[str, object]:
    facts: dict[str, object] = {"engine": "simulator", "wire": wire, "slots": profile.slots}
    if rehearse:
        facts |= {"rehearsal": True, "rehearsed_deployment": model.deployment.kind}
        facts |= model.deployment.model_dump(exclude={"kind", "profile"}, exclude_none=True)
    return facts


# --- readiness -------------------------------------------------------------------------------------------------------


def _await_health(address: str, timeout_s: float) -> None:
    """Returns when GET /health says 200."""
    deadline = time.monotonic() + timeout_s
    while not _is_healthy(address):
        if time.monotonic() > deadline:
            raise JobError(f"the endpoint at {address} did not answer within {timeout_s:g} s")
        time.sleep(0.02)


def _is_healthy(address: str) -> bool:
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
