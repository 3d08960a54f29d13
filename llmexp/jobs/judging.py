"""The judges' load: after the job's own, through the same clients, each answer asked about once by each judge.

A judge's calls are recorded in `judge/N` beside the job's files, as any requests are; the money is the command's.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp.config import Capacity, Load, Model, Quality, Run, Slo, Tokens, Workload
from llmexp.errors import LlmexpError
from llmexp.jobs.ledger import Ledger
from llmexp.jobs.spec import Spec

if TYPE_CHECKING:
    from llmexp.quality.grade import Given, Grade
    from llmexp.quality.judge import Reply
    from llmexp.workload.request import Request

FOLDER = "judge"
SECONDS_A_CALL = 120.0
"""Nothing new is asked once every call could have taken so long."""
log = logging.getLogger("llmexp")


@dataclass
class Judged:
    """The judges' grades, and what they took."""

    grades: dict[int, Grade]
    """By row."""
    cost: dict[str, object] = field(default_factory=dict)
    interrupted: bool = False


@dataclass
class _Heard:
    """One judge's replies by row, and what they took."""

    replies: dict[int, Reply] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    usd: float | None = 0.0
    interrupted: bool = False


def judged(spec: Spec, ledger: Ledger) -> Judged:
    """Have the job's answers graded by its judges."""
    from llmexp.quality import judge
    from llmexp.quality.grading import answers

    quality = spec.config.quality
    grades: dict[int, Grade] = {}
    asked: dict[int, Given] = {}
    for row, given in answers(spec.directory):
        grade = judge.settled(quality, given)
        if grade is None:
            asked[row] = given
        else:
            grades[row] = grade
    heard: list[_Heard] = []
    for at, model in enumerate(spec.judges):
        heard.append(_ask(spec, model, at, asked, ledger))
        if heard[-1].interrupted:
            break
    missing = judge.Reply(None, "it was not asked")
    for row in asked:
        replies = [one.replies.get(row, missing) for one in heard]
        grades[row] = judge.verdict(quality, [*replies, *[missing] * (len(spec.judges) - len(heard))])
    return Judged(grades, _cost(spec.judges, heard), any(one.interrupted for one in heard))


def _cost(models: Sequence[Model], heard: Sequence[_Heard]) -> dict[str, object]:
    """`cost.judge` of the result."""
    errors = sum((one.errors for one in heard), Counter[str]())
    usd = [one.usd for one in heard]
    return {
        "usd": None if None in usd else sum(each or 0.0 for each in usd),
        "calls": sum(one.calls for one in heard),
        "errors": dict(errors),
        "models": [
            {"name": model.name, "calls": one.calls, "errors": dict(one.errors), "usd": one.usd}
            for model, one in zip(models, heard, strict=False)
        ],
    }


# --- one judge -------------------------------------------------------------------------------------------------------


def _ask(spec: Spec, model: Model, at: int, asked: Mapping[int, Given], ledger: Ledger) -> _Heard:
    """Ask one judge about every answer; a judge that cannot be reached grades nothing and costs the job nothing."""
    if not asked:
        return _Heard()
    requests, rows = _requests(spec.config.quality, asked), list(asked)
    own = _spec(spec, model, at, requests)
    try:
        heard = _Heard(interrupted=_load(own, requests, ledger))
    except KeyboardInterrupt:
        return _Heard(interrupted=True)
    except LlmexpError as error:
        log.error("%s: %s", own.name, error)  # noqa: TRY400 -- one clear message, no traceback
        return _Heard(errors=Counter({"not started": len(requests)}))
    _read(own, rows, heard)
    if ledger.limit_usd is None and heard.usd and not spec.config.rehearse:
        ledger.add(own.id, heard.usd)
    if not spec.config.run.save_text:
        _forget(own.directory)
    return heard


def _requests(quality: Quality, asked: Mapping[int, Given]) -> tuple[Request, ...]:
    from llmexp.quality import judge
    from llmexp.workload.tokens import estimate_tokenizer

    count, rubric = estimate_tokenizer().count, quality.judge.rubric
    return tuple(
        judge.request(index, rubric, given, count(judge.filled(rubric, given)))
        for index, given in enumerate(asked.values())
    )


def _spec(spec: Spec, model: Model, at: int, requests: Sequence[Request]) -> Spec:
    """The judge's load as a job: a closed loop, without warm-up, whose answers are kept until they are read."""
    judge, run = spec.config.quality.judge, spec.config.run
    longest = float(max(request.input_tokens for request in requests))
    reply = float(requests[0].max_tokens)
    workload = Workload(
        input_tokens=Tokens(dist="fixed", mean=2 * longest), output_tokens=Tokens(dist="fixed", mean=reply)
    )
    load = Run(
        max_requests=len(requests),
        timeout_s=max(run.timeout_s, SECONDS_A_CALL * (1 + len(requests) / judge.concurrency)),
        grace_s=SECONDS_A_CALL,
        warmup_requests=0,
        seed=run.seed,
        max_usd=run.max_usd,
        max_error_rate=1.0,
        save_text=True,
    )
    config = spec.config.model_copy(
        update={
            "model": model,
            "workload": workload,
            "load": Load(),
            "concurrency": judge.concurrency,
            "run": load,
            "slo": Slo(),
            "quality": Quality(),
            "capacity": Capacity(),
        }
    )
    return replace(
        spec,
        config=config,
        tree=config.model_dump(mode="json", by_alias=True),
        id=f"{spec.id}-judge-{at + 1}",
        name=f"{spec.name} · judge {model.name}",
        directory=spec.directory / FOLDER / str(at + 1),
        composed=None,
        judges=(),
    )


def _load(own: Spec, requests: tuple[Request, ...], ledger: Ledger) -> bool:
    """Send the requests; whether somebody interrupted it."""
    from llmexp import endpoints
    from llmexp.benchmark import ensure_ray
    from llmexp.endpoints import rehearsal
    from llmexp.jobs.sending import send
    from llmexp.terminal.progress import Progress

    config = own.config
    endpoints.prepare(config.model, rehearse=config.rehearse)
    own.directory.mkdir(parents=True, exist_ok=True)
    with Progress(config, own.name) as progress:
        ensure_ray(config.ray)
        model = rehearsal.as_judge(config.model)
        with endpoints.opened(
            model, config.workload, config.streams, rehearse=config.rehearse, log_dir=own.directory
        ) as running:
            _, measurement, _ = send(own, running, ledger, progress, requests=requests)
    if measurement.reason is not None:
        log.warning("%s: %s", own.name, measurement.reason)
    return measurement.interrupted


def _read(own: Spec, rows: Sequence[int], heard: _Heard) -> None:
    """Take the replies from the judge's records."""
    from llmexp import records
    from llmexp.metrics import prices
    from llmexp.metrics import summary as metrics
    from llmexp.quality.judge import Reply

    if not records.exists(own.directory):
        return
    records.to_parquet(own.directory)
    for record in records.records(own.directory):
        heard.calls += 1
        if record.status == "completed":
            heard.replies[rows[record.index]] = Reply(record.text or "")
            continue
        kind = record.error_class or record.status
        heard.errors[kind] += 1
        heard.replies[rows[record.index]] = Reply(None, f"{kind} {record.error_message or ''}".strip())
    if own.config.rehearse:
        return
    price = prices.price_list(own.config.model)
    found = metrics.summarize(
        own.directory,
        slo=own.config.slo,
        open_loop=False,
        cost=lambda *tokens: prices.cost(price, *tokens),
        usd_per_hour=prices.usd_per_hour(price),
    )["cost_usd"]
    heard.usd = found if isinstance(found, float) else None


def _forget(directory: Path) -> None:
    """Drop the texts of a judge's calls: they quote the answers."""
    from llmexp import records
    from llmexp.quality.grading import attach

    if records.exists(directory):
        attach(directory, {}, keep_texts=False)
