"""The grades of a job, once its load is over and its records are on disk."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from llmexp.config import Config, Model
from llmexp.errors import LlmexpError
from llmexp.jobs import judging
from llmexp.jobs.ledger import Ledger
from llmexp.jobs.spec import Spec

if TYPE_CHECKING:
    from llmexp.quality.grading import RequestOf
    from llmexp.workload.request import Request


log = logging.getLogger("llmexp")


@dataclass(frozen=True)
class Graded:
    """What grading left beside the grades."""

    cost: dict[str, object] | None = None
    """`cost.judge`, where judges were asked."""
    interrupted: bool = False


def grade(spec: Spec, nonce: str, base_url: str | None, requests: tuple[Request, ...] | None, ledger: Ledger) -> Graded:
    """Grade the records of a job, write the grades beside them, and drop texts that nobody asked to keep."""
    from llmexp.quality import build, grading

    config = spec.config
    if config.quality.kind == "judge":
        found = judging.judged(spec, ledger)
        keep = config.run.save_text or found.interrupted
        grading.attach(spec.directory, found.grades, keep_texts=keep)
        return Graded(found.cost, found.interrupted)
    grader = build.build(config.quality)
    request_of = _request_of(config, nonce, base_url, requests) if config.quality.kind == "function" else None
    grades = grading.grade_all(spec.directory, grader, request_of)
    grading.attach(spec.directory, grades, keep_texts=config.run.save_text)
    return Graded()


def answer_key(config: Config) -> dict[str, str]:
    """What is right, for a simulator that is to answer rightly; empty where no simulator is, or it can tell itself."""
    from llmexp import workload
    from llmexp.workload.answers import key_of

    deployment = config.model.deployment
    simulated = deployment.kind == "simulated" or config.rehearse
    idle = deployment.kind == "simulated" and deployment.profile.accuracy is None
    if not simulated or idle or config.workload.kind in ("arithmetic", "lookup", "format"):
        return {}
    return workload.recorded_calls(config.workload) | key_of(workload.every_request(config.workload))


def played(config: Config) -> Model:
    """The model with what the simulator that plays it needs: it answers rightly at times, and calls recorded tools."""
    from llmexp.endpoints import rehearsal

    if config.quality.graded:
        return rehearsal.knowing(config.model)
    if config.rehearse and config.workload.kind in ("sessions", "mix"):
        return rehearsal.knowing(config.model, 1.0)
    return config.model


def _request_of(config: Config, nonce: str, base_url: str | None, requests: tuple[Request, ...] | None) -> RequestOf:
    """The request of an index once more; none where the workload's file is no longer there."""
    from llmexp import workload

    if requests is not None:
        return requests.__getitem__
    try:
        return cache(workload.source_for(config, base_url, nonce).request)
    except LlmexpError as error:
        log.warning("quality.function gets no request: %s", error)
        return lambda _index: None
