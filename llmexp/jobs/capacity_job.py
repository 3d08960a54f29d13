"""A capacity search as one job: probes on one endpoint and one Ray, each with its own folder and files, and their sum.

Between two probes nothing is left of the first: what a lost probe had in flight is cut, and the next one begins when
its warm-up requests, which queue behind whatever the server still works on, have been answered.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp import records, results
from llmexp.config import Config, Slo, load
from llmexp.errors import LlmexpError
from llmexp.jobs import capacity_probes as probes
from llmexp.jobs import measure as experiment
from llmexp.jobs import readers, sending
from llmexp.jobs.capacity_probes import Verdict
from llmexp.jobs.capacity_search import Interval, Search
from llmexp.jobs.keep import Kept, keep_result
from llmexp.jobs.spec import Spec
from llmexp.json_types import branch
from llmexp.metrics import summary as metrics
from llmexp.results.guard import Guard

if TYPE_CHECKING:
    from llmexp.endpoints import Running
    from llmexp.jobs.ledger import Ledger
    from llmexp.metrics.validity import Validity
    from llmexp.results import Run
    from llmexp.results.model import Notes, Result, Status
    from llmexp.terminal.progress import Progress

FOLDER = "probes"
UNITS = {"rate": "requests/s", "concurrency": "in flight"}
CURVE = {
    "goodput_per_s": "goodput_per_s",
    "requests_per_s": "requests_per_s",
    "output_tokens_per_s": "output_tokens_per_s",
    "inflight_mean": "inflight_mean",
    "error_rate": "error_rate",
    "ttft_s_p95": "ttft_s/p95",
    "response_ttft_s_p95": "response_ttft_s/p95",
    "time_per_output_token_s_p95": "time_per_output_token_s/p95",
    "e2e_latency_s_p95": "e2e_latency_s/p95",
}
"""Column of the curve → a probe's metric."""
_WORST = ("valid", "degraded", "invalid")
log = logging.getLogger("llmexp")


@dataclass(frozen=True)
class Probe:
    """One probe that was measured."""

    number: int
    level: float
    directory: Path
    result: Result
    verdict: Verdict


def run(
    spec: Spec,
    running: Running,
    ledger: Ledger,
    progress: Progress,
    started: datetime,
    guard: Guard,
    before_load: Callable[[], None] = lambda: None,
) -> Run:
    """Search, and write the job's numbers."""
    job = _Job(spec, running, ledger, progress, guard, before_load)
    job.search_all()
    return job.conclude(started)


@dataclass
class _Job:
    spec: Spec
    running: Running
    ledger: Ledger
    progress: Progress
    guard: Guard
    before_load: Callable[[], None]
    done: list[Probe] = field(default_factory=list)
    status: Status = "finished"

    def __post_init__(self) -> None:
        from llmexp.companion.task import nonce_of

        self.config: Config = self.spec.config
        told = self.config.capacity
        self.search = Search(told.start, told.max_probes, told.precision, integer=told.of == "concurrency")
        self.nonce = self.config.run.nonce or nonce_of(self.spec.id)
        self.spent_before = self.ledger.billed_usd

    # -- the search ---------------------------------------------------------------------------------------------------

    def search_all(self) -> None:
        """Probe until the search is over; what was learnt survives whatever ends it."""
        try:
            while (level := self.search.next()) is not None:
                requests = probes.length(self.config, level, self._answer_s())
                if not self._affordable(requests):
                    return
                self._probe(level, requests)
        except KeyboardInterrupt:
            self._end("interrupted", "interrupted")
        except Exception as error:
            if not self.done:
                raise
            if not isinstance(error, LlmexpError):
                log.exception("%s: internal error", self.spec.name)
            self._end("failed", f"probe {len(self.done) + 1} ended the search: {error}")

    def _probe(self, level: float, requests: int) -> None:
        spec = self._spec(level, requests)
        self.progress.begin(spec.config, spec.name)
        began = datetime.now(UTC)
        job, measured, watch = sending.send(
            spec,
            self.running,
            self.ledger,
            self.progress,
            enough=_enough(self.config.slo, requests),
            before_load=self.before_load,
        )
        run = experiment.conclude(spec, measured, self.running, began, job.nonce, self.ledger, watch)
        observed = metrics.observe(spec.directory) if records.exists(spec.directory) else metrics.observe([])
        of_rate = self.config.capacity.of == "rate"
        verdict = probes.judge(observed, self.config.slo, of_rate=of_rate, stopped=measured.enough is not None)
        readers.write_files(run, self.guard)
        self.done.append(Probe(len(self.done) + 1, level, spec.directory, run.result, verdict))
        if measured.interrupted or measured.failed:
            for_money = (measured.reason or "").startswith("run.max_usd")
            status: Status = "finished" if for_money and self.search.told else "failed"
            if measured.interrupted:
                status = "interrupted"
            self._end(status, measured.reason or status)
            return
        self.search.tell(level, verdict.outcome)
        log.info("%s: %s", spec.name, _said(verdict))

    def _spec(self, level: float, requests: int) -> Spec:
        number, spec = len(self.done) + 1, self.spec
        tries = len(self.search.told.get(level, ()))
        tree = probes.tree_of(spec.tree, self.config, level, requests, tries, nonce=f"{self.nonce}-{number}")
        return replace(
            spec,
            config=load(tree),
            tree=tree,
            id=f"{spec.id}-{number}",
            name=f"{spec.name} · probe {number}: {level:g} {UNITS[self.config.capacity.of]}",
            directory=spec.directory / FOLDER / f"{number:02}",
            probe=number,
        )

    def _answer_s(self) -> float | None:
        """How long an answer takes where the server was least busy."""
        found = [each.result.metrics.number("e2e_latency_s/p50") for each in self.done]
        return min((seconds for seconds in found if seconds), default=None)

    def _affordable(self, requests: int) -> bool:
        """Whether the next probe fits into what is left of `run.max_usd`, at the price of a request so far."""
        sent = sum(_sent(one.result) for one in self.done)
        spent = self.ledger.billed_usd - self.spent_before
        expected = spent / sent * (requests + self.config.run.warmup_requests) if sent else 0.0
        if expected and (problem := self.ledger.problem(expected)):
            self.search.stop(f"{problem} for the next probe")
            return False
        return True

    def _end(self, status: Status, reason: str) -> None:
        self.status = status
        self.search.stop(reason)

    # -- its sum ------------------------------------------------------------------------------------------------------

    def conclude(self, started: datetime) -> Run:
        """The job's files: the numbers of the highest level that passed, and what the search found."""
        interval = self.search.interval
        main = self._main(interval)
        result = self._result(main, interval, started)
        if main is not None and records.exists(main.directory):
            _link(main.directory / records.PARQUET, self.spec.directory / records.PARQUET)
        return keep_result(self.spec, result, Kept(self.spec.directory))

    def _main(self, interval: Interval) -> Probe | None:
        """The probe that speaks for the job: at the highest level that passed, else at the lowest that was tried."""
        if not self.done:
            return None
        if interval.passed_at is not None:
            return next(one for one in reversed(self.done) if one.level == interval.passed_at and one.verdict.passed)
        return min(self.done, key=lambda one: one.level)

    def _result(self, main: Probe | None, interval: Interval, started: datetime) -> Result:
        tree = {**self.spec.tree, "load": {**branch(self.spec.tree, "load"), "kind": probes.kind(self.config)}}
        base = results.build(
            job=self.spec.info(),
            status=self.status,
            reason=None if self.status == "finished" else interval.reason,
            started=started,
            ended=datetime.now(UTC),
            config=tree,
        )
        if main is None:
            return base
        own = ("job", "status", "reason", "started_at", "ended_at", "config")
        spent = self.ledger.billed_usd - self.spent_before
        return main.result.model_copy(
            update={name: getattr(base, name) for name in own}
            | {
                "metrics": results.Metrics({**main.result.metrics, "capacity": self._capacity(main, interval)}),
                "capacity_curve": curve(self.done, self.config),
                "validity": self._validity(main, interval),
                "cost": main.result.cost.model_copy(update={"search_usd": spent}),
                "notes": self._notes(main),
            }
        )

    def _capacity(self, main: Probe, interval: Interval) -> dict[str, object]:
        return {
            "of": self.config.capacity.of,
            "unit": UNITS[self.config.capacity.of],
            "low": interval.low,
            "high": interval.high,
            "estimate": interval.estimate,
            "passed_at": interval.passed_at,
            "failed_at": interval.failed_at,
            "probes": len(self.done),
            "probe": main.number,
            "reason": interval.reason,
        }

    def _validity(self, main: Probe, interval: Interval) -> Validity:
        """The worst verdict on the probes that decide: a client that could not keep up makes a level fail too."""
        deciding = [one for one in self.done if one.level in (interval.passed_at, interval.failed_at)] or [main]
        return max((each.result.validity for each in deciding), key=lambda validity: _WORST.index(validity.verdict))

    def _notes(self, main: Probe) -> Notes:
        kind = "highest level that passed" if main.verdict.passed else "lowest level that was tried"
        unit = UNITS[self.config.capacity.of]
        said = (
            f"Latencies, throughput and requests are those of probe {main.number} at {main.level:g} {unit}, the {kind}."
        )
        notes = main.result.notes
        return notes.model_copy(update={"nonce": self.nonce, "remarks": (said, *notes.remarks)})


def curve(done: list[Probe], config: Config) -> dict[str, object]:
    """What the probes saw, by rising level."""
    rising = sorted(done, key=lambda one: (one.level, one.number))
    table: dict[str, object] = {
        "of": config.capacity.of,
        "unit": UNITS[config.capacity.of],
        "level": [one.level for one in rising],
        "probe": [one.number for one in rising],
        "passed": [one.verdict.passed for one in rising],
        "attainment": [one.verdict.attainment for one in rising],
        "why": [one.verdict.why for one in rising],
    }
    return table | {name: [each.result.metrics.number(metric) for each in rising] for name, metric in CURVE.items()}


def _enough(slo: Slo, requests: int) -> Callable[[Counter[str]], str | None]:
    """Ends a probe that has missed too often to pass whatever comes."""
    allowed = probes.misses_allowed(slo, requests)

    def enough(counts: Counter[str]) -> str | None:
        missed = counts["slo_missed"]
        return f"{missed} requests missed the service level, {allowed} may" if missed > allowed else None

    return enough


def _said(verdict: Verdict) -> str:
    share = "" if verdict.attainment is None else f", {verdict.attainment:.1%} kept the service level"
    return f"{'passed' if verdict.passed else 'failed'} ({verdict.why}{share})"


def _sent(result: Result) -> int:
    return result.answered + int(result.metrics.number("requests_unfinished") or 0)


def _link(source: Path, target: Path) -> None:
    """The same file in a second place, without a copy where the disk allows it."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
