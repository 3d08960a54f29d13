"""The Ray token benchmark: companions and workers side by side, started together, records gathered as they come.

Few workers with many streams each; an actor call carries a worker's whole share. Ray is started once per process and
kept for all jobs of a sweep, away from other clusters on the host, and its runtime environment carries nothing.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmexp.benchmark.host_load import LoadWatch
from llmexp.config import Config, Ray
from llmexp.errors import ConfigError, JobError
from llmexp.records import Record, Writer
from llmexp.workload.request import Request

if TYPE_CHECKING:
    from llmexp.companion.task import Built, Task, Work
    from llmexp.worker.plan import Plan, Watch

STREAMS_PER_WORKER = 512
RATE_PER_WORKER = 2500.0
OWN_STREAMS_PER_WORKER = 8
READY_AT_ONCE = 20_000
"""Requests prepared before the clock, at most; longer runs are fed while they go."""
SIGNED_AHEAD = 4
START_DELAY_S = 0.25
POLL_S = 1.0
RAY_ATTEMPTS = 3
QUIET = {
    # Ray runs its workers at niceness 15: stamps would wait for whatever else this machine does.
    "worker_niceness": 0,
    # One node and a handful of actors need no reports ten times a second.
    "raylet_report_resources_period_milliseconds": 2000,
    "raylet_check_gc_period_milliseconds": 2000,
    "health_check_period_ms": 10_000,
    "metrics_report_interval_ms": 60_000,
    "memory_monitor_refresh_ms": 0,
    "task_events_report_interval_ms": 0,
    "enable_metrics_collection": False,
}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What the benchmark needs beside the config."""

    config: Config
    base_url: str | None
    nonce: str
    directory: Path
    """Where `requests.arrows` is written."""
    endpoint_pids: tuple[int, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    requests: tuple[Request, ...] | None = None
    spend: Callable[[Counter[str]], str | None] = lambda _progress: None
    """Told the counts so far; returns a reason to stop."""
    enough: Callable[[Counter[str]], str | None] = lambda _progress: None
    """Told the counts so far; returns why no more can be learnt: ends the load and what is in flight, is no failure."""
    progress: Callable[[Counter[str], float], None] = lambda _progress, _elapsed_s: None
    beside: AbstractContextManager[object] = field(default_factory=nullcontext)
    """Open while the load runs, in this process: entered after the warm-up, left when the wire is silent."""


@dataclass
class Measurement:
    """What a run left beside its records."""

    watches: dict[int, Watch] = field(default_factory=dict)
    companions: dict[int, Work] = field(default_factory=dict)
    built: Built | None = None
    workers: int = 0
    workers_lost: int = 0
    warmup: list[Record] = field(default_factory=list)
    other_load_share: float | None = None
    endpoint_share: float | None = None
    client_cpu_s: float | None = None
    reason: str | None = None
    """Why the job stopped before its time, in words."""
    enough: str | None = None
    """Why the load ended early although nothing went wrong."""
    failed: bool = False
    interrupted: bool = False
    anchor: dict[str, int] = field(default_factory=dict)
    started_wall_ns: int = 0
    ended_wall_ns: int = 0


def workers_for(config: Config, *, own_stream: bool, cores: int) -> int:
    """How many workers carry this load: as few as can, at most one a core."""
    if config.ray.workers is not None:
        return config.ray.workers
    streams, rate = config.streams, config.peak_rate or 0.0
    if own_stream:
        wanted = math.ceil((streams or rate or 1) / OWN_STREAMS_PER_WORKER)
    elif config.closed and streams is not None:
        wanted = math.ceil(streams / STREAMS_PER_WORKER)
    else:
        wanted = math.ceil(rate / RATE_PER_WORKER)
    return max(1, min(wanted, cores, streams or cores, config.max_requests or cores))


def share(total: int | None, worker: int, workers: int) -> int | None:
    """How many of `total` fall to a worker when they are dealt round."""
    return None if total is None else len(range(worker, total, workers))


def ensure_ray(ray_config: Ray) -> None:
    """Start Ray once, or join the cluster that the config names."""
    import ray

    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"configure_logging": True, "logging_level": logging.ERROR, "log_to_driver": False}
    on_term = signal.getsignal(signal.SIGTERM)
    children = _children()
    for attempt in range(RAY_ATTEMPTS):
        try:
            if ray_config.kind == "local":
                ray.init(
                    address="local", include_dashboard=False, num_cpus=os.cpu_count(), _system_config=QUIET, **options
                )
            else:
                ray.init(address=ray_config.address, **options)
        except (ConnectionError, ValueError) as error:
            raise ConfigError(f"ray.address: cannot reach {ray_config.address or 'a local Ray'}: {error}") from error
        except Exception as error:
            # Ray gives a busy machine 30 s, then raises a bare Exception and leaves behind what it had started.
            ray.shutdown()
            _end_children(children)
            if attempt + 1 == RAY_ATTEMPTS:
                raise JobError(f"Ray did not start: {error}") from error
        else:
            break
    if ray_config.kind == "local":
        _drop_watchers()
    if threading.current_thread() is threading.main_thread():
        # Ray's own handler would end us on the spot; what was measured has to be kept.
        signal.signal(signal.SIGTERM, on_term)


def _drop_watchers() -> None:
    """End what of Ray works for nobody beside the load: log monitor and autoscaler, which read and ask many times a
    second, and the dashboard's head, which starts without a dashboard too.
    """
    from ray._private import worker

    node = worker._global_node
    for name in ("kill_log_monitor", "kill_monitor", "kill_dashboard"):
        with contextlib.suppress(Exception):
            getattr(node, name)(check_alive=False)


def _children() -> set[int]:
    import psutil

    return {child.pid for child in psutil.Process().children(recursive=True)}


def _end_children(but: set[int]) -> None:
    """End the processes that were started below us since `but` was taken."""
    import psutil

    for pid in _children() - but:
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).kill()


def stop_ray() -> None:
    """End the Ray that `ensure_ray` started."""
    import ray

    if ray.is_initialized():
        ray.shutdown()


class _Pair:
    """A worker and its companion, on one node."""

    def __init__(self, task: Task) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from llmexp.companion.actor import Companion
        from llmexp.worker.actor import Worker

        self.number = task.worker
        self.alive = True
        self.due: int | None = None
        """Requests that it will send, where that is known before the clock."""
        self.companion: Any = (
            ray.remote(Companion)
            .options(num_cpus=0, max_concurrency=4, max_restarts=0, scheduling_strategy="SPREAD")
            .remote()
        )
        self.built: Built = ray.get(self.companion.begin.remote(task))
        node = ray.get(self.companion.node.remote())
        here = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        self.worker: Any = ray.remote(Worker).options(num_cpus=0, max_restarts=0, scheduling_strategy=here).remote()

    def connect(self, plan: Plan) -> None:
        import ray

        self.due = plan.max_requests
        attached = self.companion.attach.remote()
        ray.get([self.worker.begin.remote(plan, self.built.directory), attached])

    def kill(self) -> None:
        import ray

        for actor in (self.worker, self.companion):
            with contextlib.suppress(Exception):
                ray.kill(actor)


class Benchmark:
    """One run of the load. `run` is the whole of it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._config = job.config
        self._pairs: list[_Pair] = []
        self._writer: Writer | None = None
        self._progress: dict[int, Counter[str]] = {}
        self.result = Measurement()

    def run(self) -> Measurement:
        """Build, warm up, measure, gather. Ctrl-C keeps what was measured and marks it interrupted."""
        ensure_ray(self._config.ray)
        try:
            self._build()
            if self._warm():
                self._measure()
        finally:
            if self._writer is not None:
                self._writer.close()
            self._close()
        return self.result

    # -- before the clock ---------------------------------------------------------------------------------------------

    def _build(self) -> None:
        from ray.exceptions import RayError, RayTaskError

        cores = os.cpu_count() or 1
        try:
            first = _Pair(self._task(0, 1)) if self._config.ray.workers is None else None
            own = bool(first and first.built.own_stream)
            workers = workers_for(self._config, own_stream=own, cores=cores)
            if first is not None and workers == 1:
                self._pairs = [first]
            else:
                if first is not None:
                    first.kill()
                self._pairs = [_Pair(self._task(number, workers)) for number in range(workers)]
        except RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, ConfigError) else JobError(str(cause))) from error
        except RayError as error:
            raise JobError(f"Ray could not start the workers: {error}") from error
        self.result.workers = workers
        self.result.built = self._pairs[0].built
        for pair in self._pairs:
            pair.connect(self._plan(pair, workers))

    def _task(self, worker: int, workers: int) -> Task:
        from llmexp.companion.task import Task

        run = self._config.run
        return Task(
            config=self._config,
            base_url=self._job.base_url,
            nonce=self._job.nonce,
            worker=worker,
            workers=workers,
            warmup_requests=share(run.warmup_requests, worker, workers) or 0,
            most=self._most(),
            requests=self._job.requests,
            environment=self._job.environment,
        )

    def _most(self) -> int | None:
        """How many requests the job sends at most: as asked for, or as many as its schedule has arrivals."""
        from llmexp import schedule

        run = self._config.run
        offsets = schedule.offsets(
            self._config.load,
            seed=run.seed,
            streams=self._config.streams,
            timeout_s=run.timeout_s,
            max_requests=self._config.max_requests,
        )
        if offsets is None or self._waits_for_answers:
            return self._config.max_requests
        return sum(1 for _ in offsets)

    def _plan(self, pair: _Pair, workers: int) -> Plan:
        from llmexp import schedule
        from llmexp.worker.plan import Plan

        config, run, streams = self._config, self._config.run, self._config.streams
        begins = pair.built.sessions if self._waits_for_answers else config.max_requests
        offsets = schedule.offsets(
            config.load, seed=run.seed, streams=streams, timeout_s=run.timeout_s, max_requests=begins
        )
        mine = share(streams, pair.number, workers)
        # A list, so that it travels to the worker.
        due = None if offsets is None else list(schedule.shard(offsets, pair.number, workers))
        limits = schedule.limits(config.load, streams=streams, timeout_s=run.timeout_s)
        ramp = tuple((at, share(limit, pair.number, workers) or 0) for at, limit in limits or ())
        return Plan(
            worker=pair.number,
            workers=workers,
            target=pair.built.target,
            streams=ramp[0][1] if ramp else mine,
            offsets=due,
            limits=ramp,
            max_requests=pair.built.due,
            timeout_s=run.timeout_s,
            grace_s=run.grace_s,
            spare=max((limit for _, limit in ramp), default=mine or self._spare(workers)),
            ahead=self._ahead(pair, mine),
            own_stream=(config.model, self._job.base_url) if pair.built.own_stream else None,
        )

    def _spare(self, workers: int) -> int:
        """Connections to open ahead in an open loop without ceiling: about a second's arrivals."""
        rate = self._config.peak_rate or 64.0
        return max(4, min(512, math.ceil(rate / workers)))

    def _ahead(self, pair: _Pair, streams: int | None) -> int:
        if pair.built.signed:
            rate = math.ceil(self._config.peak_rate or 0.0)
            return SIGNED_AHEAD + max(2 * (streams or 0) if not rate else 0, 4 * rate)
        per_s = 0.0 if self._waits_for_answers else self._config.peak_rate or 0.0
        return max(256, 4 * (streams or 64), 4 * math.ceil(per_s / len(self._pairs)))

    def _warm(self) -> bool:
        """Warm-up requests, then the first shots; False when the job must not go on."""
        import ray

        if any(self._hand_over("give_warmup")):
            ray.get([pair.worker.warm.remote() for pair in self._pairs])
            found = ray.get([pair.companion.warmup_records.remote() for pair in self._pairs])
            self.result.warmup = [row for rows in found for row in rows]
            if self._warmup_is_hopeless():
                return False
        self._hand_over("give", self._first_shots)
        return True

    def _hand_over(self, method: str, argument: Callable[[_Pair], int] | None = None) -> list[int]:
        """Have companions give and workers take at the same time: more than a socket's buffer would block."""
        import ray

        taken = [pair.worker.load_shots.remote() for pair in self._pairs]
        gives = [
            (getattr(pair.companion, method), () if argument is None else (argument(pair),)) for pair in self._pairs
        ]
        ray.get([give.remote(*arguments) for give, arguments in gives])
        counts: list[int] = ray.get(taken)
        return counts

    def _warmup_is_hopeless(self) -> bool:
        from llmexp.companion.tally import HOPELESS

        classes = {row.error_class for row in self.result.warmup}
        if len(classes) != 1 or not (classes & set(HOPELESS)):
            return False
        row = self.result.warmup[0]
        self.result.failed = True
        self.result.reason = f"every warm-up request failed with '{row.error_class}': {row.error_message}"
        return True

    def _first_shots(self, pair: _Pair) -> int:
        """All of them where that is few enough: what is ready before the clock costs no time beside the load.

        Turns that wait for answers come in between the others, so there only some are given ahead.
        """
        due = pair.due
        if due is not None and due <= READY_AT_ONCE and not pair.built.signed and not self._waits_for_answers:
            return due
        ahead = self._ahead(pair, share(self._config.streams, pair.number, len(self._pairs)))
        return ahead if due is None else min(ahead, due)

    @property
    def _waits_for_answers(self) -> bool:
        """Whether some requests can only be prepared when an earlier one has been answered."""
        return self._config.workload.kind in ("conversation", "sessions", "mix")

    # -- the clock ----------------------------------------------------------------------------------------------------

    def _measure(self) -> None:
        with self._job.beside:
            self._load()
        self._finish()

    def _load(self) -> None:
        self._writer = Writer(self._job.directory, self._anchor())
        target = self._pairs[0].built.target
        with LoadWatch(target.host, target.port, self._job.endpoint_pids) as watch:
            self.result.started_wall_ns = start = time.time_ns() + int(START_DELAY_S * 1e9)
            pending = {pair.worker.measure.remote(start): pair for pair in self._pairs}
            try:
                self._gather(pending, start)
            except KeyboardInterrupt:
                self.result.interrupted = True
                self.result.reason = "interrupted"
                self._stop(cut=True)
                self._gather(pending, start)
        self.result.ended_wall_ns = time.time_ns()
        self.result.other_load_share = watch.other_share
        self.result.endpoint_share = watch.endpoint_share
        self.result.client_cpu_s = watch.client_cpu_s

    def _anchor(self) -> dict[str, int]:
        self.result.anchor = {"wall_ns": time.time_ns(), "monotonic_ns": time.monotonic_ns()}
        return self.result.anchor

    def _gather(self, pending: dict[Any, _Pair], start_wall_ns: int) -> None:
        """Poll until every worker is done; a worker that dies is noted and the rest goes on."""
        import ray
        from ray.exceptions import RayActorError, RayError

        while pending:
            done, _ = ray.wait(list(pending), num_returns=1, timeout=POLL_S)
            for ref in done:
                pair = pending.pop(ref)
                try:
                    self.result.watches[pair.number] = ray.get(ref)
                except RayActorError:
                    pair.alive = False
                    self.result.workers_lost += 1
                    log.warning("worker %d died; its requests in flight count as client errors", pair.number)
                except RayError as error:
                    raise JobError(f"worker {pair.number} failed: {error}") from error
            self._drain(time.time_ns() - start_wall_ns)

    def _drain(self, elapsed_ns: int) -> None:
        import ray
        from ray.exceptions import RayError

        for pair in self._pairs:
            try:
                batches, progress, problem = ray.get(pair.companion.drain.remote())
            except RayError as error:
                raise JobError(f"the companion of worker {pair.number} died: {error}") from error
            self._progress[pair.number] = Counter(progress)
            for batch in batches:
                self._writer.append(batch)  # type: ignore[union-attr]
            if problem and self.result.reason is None:
                self._give_up(problem)
        total = sum(self._progress.values(), Counter())
        if self.result.reason is None and (reason := self._job.spend(total)):
            self._give_up(reason)
        if self.result.reason is None and self.result.enough is None and (enough := self._job.enough(total)):
            self.result.enough = enough
            self._stop(cut=True)
        self._job.progress(total, max(0.0, elapsed_ns / 1e9))

    def _give_up(self, reason: str) -> None:
        self.result.failed = True
        self.result.reason = reason
        self._stop(cut=False)

    def _stop(self, *, cut: bool) -> None:
        for pair in self._pairs:
            pair.companion.stop.remote(cut=cut)

    def _finish(self) -> None:
        """Let the companions explain what is left, then take the last records."""
        import ray

        refs = []
        for pair in self._pairs:
            watch = self.result.watches.get(pair.number)
            refs.append((pair, pair.companion.finish.remote(watch.launched if watch else None)))
        for pair, ref in refs:
            while not ray.wait([ref], timeout=POLL_S)[0]:
                self._drain(self.result.ended_wall_ns - self.result.started_wall_ns)
            self.result.companions[pair.number] = ray.get(ref)
        self._drain(self.result.ended_wall_ns - self.result.started_wall_ns)

    def _close(self) -> None:
        import ray

        ends = [actor.close.remote() for pair in self._pairs for actor in (pair.worker, pair.companion)]
        with contextlib.suppress(Exception):
            ray.wait(ends, num_returns=len(ends), timeout=3.0)
        for pair in self._pairs:
            pair.kill()
