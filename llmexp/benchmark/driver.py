"""One load: companions and workers side by side, started together, records gathered as they come."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING

from llmexp import records
from llmexp.benchmark import cluster, hosts, pairs, sizing
from llmexp.benchmark.hosts import Host
from llmexp.benchmark.measurement import Job, Measurement
from llmexp.benchmark.pairs import Pair, crew
from llmexp.benchmark.purse import End, Spending
from llmexp.companion import luggage
from llmexp.errors import ConfigError, JobError
from llmexp.records import Record, Writer

if TYPE_CHECKING:
    from ray import ObjectRef

    from llmexp.companion.task import Drained, Work
    from llmexp.worker.plan import Left, Watch

START_DELAY_NS = 250_000_000
POLL_S = 1.0
ANSWER_S = 60.0
"""A companion that answers nothing for so long is lost: it may be stopped, or starved of CPU."""
WARM_S = 60.0
"""Warm-up requests may take so much longer than `run.timeout_s` and `run.grace_s`."""
PIDS_S = 15.0
LATE_S = 30.0
"""A worker may take so much longer than its load, or than being told to cut it."""
LEFT_S = 15.0
"""A worker whose companion died ends its load at once and tells what is left."""
log = logging.getLogger("llmexp")


class Benchmark:
    """One run of the load. `run` is the whole of it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._config = job.config
        self._hosts: list[Host] = []
        self._pairs: list[Pair] = []
        self._writer: Writer | None = None
        self._reported: dict[Pair, ObjectRef[Drained]] = {}
        """Reports of companions that were asked for and have not come."""
        self._heard_s: dict[Pair, float] = {}
        self._start_ns = self._end_ns = 0
        self._spending = Spending(None, 0)
        self.result = Measurement()

    def run(self) -> Measurement:
        """Build, warm up, measure, gather. Ctrl-C keeps what was measured and marks it interrupted."""
        cluster.ensure_ray(self._config.ray)
        whole = False
        try:
            self._build()
            self._give_money()
            if self._warm():
                self._measure()
            whole = True
        except KeyboardInterrupt:
            self._interrupted()
        except Exception as error:
            if self._writer is None:
                raise
            # What was measured is worth more than a clean end.
            log.exception("internal error beside the load")
            self.result.failed = True
            self.result.reason = self.result.reason or f"internal error: {type(error).__name__}: {_first_line(error)}"
        finally:
            self._spending.end()
            if self._writer is not None:
                self._writer.close()
                self.result.held = self._writer.held
            self._part(whole=whole)
        return self.result

    def _interrupted(self) -> None:
        self.result.interrupted = True
        self.result.reason = "interrupted"

    # -- before the clock ---------------------------------------------------------------------------------------------

    def _build(self) -> None:
        nodes = self._nodes()
        self._hosts = crew.hosts(self._config, nodes)
        cores = sum(node.cores for node in nodes)
        reserve = self._config.ray.kind == "cluster" and not self._job.endpoint_pids
        files = luggage.pack(self._config) if self._config.ray.kind == "cluster" else {}
        own = self._times_itself(files)
        workers = sizing.workers_for(self._config, own_stream=own, cores=cores, nodes=len(nodes))
        place = pairs.placed(nodes, workers) if reserve else [nodes[at % len(nodes)] for at in range(workers)]
        if reserve:
            pairs.check_memory(self._hosts, place)
        by_node = {host.node: host for host in self._hosts}
        self._pairs = crew.pairs([by_node[node] for node in place], reserve=reserve)
        most = sizing.most(self._config)
        pairs.begin(self._pairs, lambda pair: sizing.task(self._job, pair.number, workers, most), files)
        self.result.workers = workers
        self.result.built = self._pairs[0].built
        times = sizing.arrivals(self._config, self._pairs[0].built)
        pairs.connect(
            self._pairs,
            lambda pair: sizing.plan(self._job, pair.built, pair.number, workers, times),
            lambda pair: sizing.prepared(self._config, pair.built, pair.number, workers),
        )

    def _nodes(self) -> list[cluster.Node]:
        """The nodes that take workers. An endpoint that the job started listens on this host alone."""
        asked = self._config.ray
        if asked.kind == "cluster" and self._job.endpoint_pids:
            said = "the endpoint that the job started listens on this host alone: all workers run beside it"
            self.result.notes.append(said)
            log.warning("ray.nodes: %s", said)
            return [cluster.own_node()]
        return cluster.nodes(asked)

    def _times_itself(self, files: luggage.Luggage) -> bool:
        """Whether LiteLLM must time its own streams, which takes more workers: a companion is asked."""
        if self._config.model.api != "litellm" or self._config.ray.workers is not None:
            return False
        (first,) = crew.pairs(self._hosts[:1], reserve=False)
        self._hosts[0].numbers.clear()
        pairs.begin([first], lambda _pair: sizing.task(self._job, 0, 1, None), files)
        return first.built.own_stream

    def _first_shots(self, pair: Pair) -> int:
        return sizing.first_shots(self._config, pair.built, pair.number, len(self._pairs))

    def _give_money(self) -> None:
        """Before the first request: warm-up is paid for like any other."""
        self._spending = Spending(self._job.purse, len(self._pairs))
        if self._spending.counts:
            grants = self._spending.first()
            ask = "take its money"
            pairs.ask(self._pairs, lambda pair: pair.companion.grant.remote(*grants[pair.number]), PIDS_S, ask)
            self._spending.start(self._out_of_money)

    def _spend(self) -> None:
        """Portions for those that need one; the end where nothing more may start."""
        grants, end = self._spending.decide(self._recall)
        for at, grant in grants.items():
            self._pairs[at].companion.grant.remote(*grant)
        if end is not None:
            self._out_of_money(end)

    def _recall(self, at: int) -> float:
        if not self._pairs[at].companion_lives:
            return 0.0
        with contextlib.suppress(JobError):
            found: list[float] = pairs.ask(
                self._pairs[at : at + 1], lambda pair: pair.companion.give_back.remote(), POLL_S, "pay back"
            )
            return found[0]
        return 0.0

    def _out_of_money(self, end: End) -> None:
        if self.result.reason is None:
            self._give_up(end.reason)
        if end.cut:
            self._stop(cut=True)

    def _warm(self) -> bool:
        """Warm-up requests, then the first shots; False when the job must not go on."""
        if any(self._hand_over("warm-up", lambda pair: pair.companion.give_warmup.remote())):
            run = self._config.run
            limit_s = run.timeout_s + run.grace_s + WARM_S
            pairs.ask(self._pairs, lambda pair: pair.worker.warm.remote(), limit_s, "finish the warm-up")
            found: list[list[Record]] = pairs.ask(
                self._pairs, lambda pair: pair.companion.warmup_records.remote(), limit_s, "explain the warm-up"
            )
            self.result.warmup = [row for rows in found for row in rows]
            if self._warmup_is_hopeless() or self.result.reason is not None:
                return False
        self._hand_over("first", lambda pair: pair.companion.give.remote(self._first_shots(pair)))
        return True

    def _hand_over(self, what: str, give: Callable[[Pair], ObjectRef[int]]) -> list[int]:
        """Have companions give and workers take at the same time: more than a socket's buffer would block."""
        taken = [pair.worker.load_shots.remote() for pair in self._pairs]
        pairs.ask(self._pairs, give, pairs.BUILD_S, f"hand over its {what} requests")
        counts: list[int] = pairs.answers(self._pairs, taken, pairs.BUILD_S, f"take its {what} requests")
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

    # -- the clock ----------------------------------------------------------------------------------------------------

    def _measure(self) -> None:
        hosts.read_clocks(self._hosts)
        with self._job.beside:
            self._load()
        self._finish()
        hosts.read_clocks(self._hosts, after=True)
        self.result.hosts = [host.report(self._end_ns) for host in self._hosts if host.numbers]
        self._take_out_drift()

    def _load(self) -> None:
        self.result.anchor = {"wall_ns": time.time_ns(), "monotonic_ns": monotonic_ns()}
        self._writer = Writer(self._job.directory, self.result.anchor)
        self._watch_hosts()
        self.result.started_wall_ns = time.time_ns() + START_DELAY_NS
        self._start_ns = monotonic_ns() + START_DELAY_NS
        pending = {
            pair.worker.measure.remote(pair.host.clock.there(self._start_ns)): pair
            for pair in self._pairs
            if pair.alive
        }
        self._heard_s = dict.fromkeys(self._pairs, time.monotonic())
        run = self._config.run
        try:
            self._gather(pending, run.timeout_s + run.grace_s + LATE_S)
        except KeyboardInterrupt:
            self._interrupted()
            self._stop(cut=True)
            self._gather(pending, LATE_S)
        self.result.ended_wall_ns, self._end_ns = time.time_ns(), monotonic_ns()

    def _watch_hosts(self) -> None:
        target = self._pairs[0].built.target
        ours: dict[str, tuple[int, ...]] = {}
        if any(host.agent is not None for host in self._hosts):
            workers: list[int] = pairs.ask(
                self._pairs, lambda pair: pair.worker.__ray_call__.remote(_pid), PIDS_S, "answer"
            )
            companions: list[int] = pairs.ask(
                self._pairs, lambda pair: pair.companion.__ray_call__.remote(_pid), PIDS_S, "answer"
            )
            for pair, *pids in zip(self._pairs, workers, companions, strict=True):
                ours[pair.node.id] = (*ours.get(pair.node.id, ()), *pids)
        for host in self._hosts:
            host.watch(target, self._job.endpoint_pids, ours.get(host.node.id, ()))

    # -- while it runs ------------------------------------------------------------------------------------------------

    def _gather(self, pending: dict[ObjectRef[Watch], Pair], limit_s: float) -> None:
        """Until every worker is done: once a second, one round of reports from all pairs, whatever their number.

        Workers end by themselves well within `limit_s`; one that does not is stopped or starved, and given up.
        """
        import ray

        polled = 0.0
        limit_s += time.monotonic()
        while pending:
            done, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0.0)
            if not done:
                wait_s = max(0.01, polled + POLL_S - time.monotonic())
                done, _ = ray.wait(list(pending), num_returns=1, timeout=wait_s)
            for ref in done:
                self._worker_ended(pending.pop(ref), ref)
            for ref in [ref for ref, pair in pending.items() if not pair.alive]:
                del pending[ref]
            if time.monotonic() - polled >= POLL_S:
                polled = time.monotonic()
                self._poll()
            if time.monotonic() > limit_s:
                while pending:
                    self._give_up_worker(pending.popitem()[1], "did not end its load in time")
        self._poll()

    def _give_up_worker(self, pair: Pair, why: str) -> None:
        """Its companion explains what came back, and counts the rest as lost."""
        pair.worker_lives = False
        self._lost(f"{pair} {why}")
        pair.kill_worker()

    def _worker_ended(self, pair: Pair, ref: ObjectRef[Watch]) -> None:
        import ray
        from ray.exceptions import RayActorError, RayError

        try:
            self.result.watches[pair.number] = ray.get(ref)
        except RayActorError as error:
            pair.worker_lives = False
            self._lost(f"{pair} died ({_first_line(error)})")
        except RayError as error:
            self._give_up_worker(pair, f"failed ({_first_line(error)})")

    def _poll(self) -> None:
        """One round: every companion is asked at once, and what has come within a second is taken."""
        import ray

        for pair in self._pairs:
            if pair.companion_lives and pair not in self._reported:
                self._reported[pair] = pair.companion.drain.remote()
        waiting = {ref: pair for pair, ref in self._reported.items()}
        if waiting:
            done, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=POLL_S)
            for ref in done:
                self._hear(waiting[ref], ref)
        self._give_up_silent()
        self._judge()

    def _hear(self, pair: Pair, ref: ObjectRef[Drained]) -> None:
        import ray
        from ray.exceptions import RayError

        del self._reported[pair]
        try:
            told = ray.get(ref)
        except RayError as error:
            self._bury(pair, f"the companion of {pair} died ({_first_line(error)})")
            return
        self._heard_s[pair] = time.monotonic()
        pair.counts, pair.flying = Counter(told.counts), told.flying
        self._spending.heard(pair.number, told.spent)
        pair.received += len(told.batches)
        for batch in told.batches:
            self._write(pair, batch)
        if told.problem and self.result.reason is None:
            self._give_up(told.problem)

    def _write(self, pair: Pair, batch: bytes) -> None:
        assert self._writer is not None
        offset_ns = pair.host.clock.offset_ns
        if offset_ns:
            self._writer.append_batch(records.moved(records.from_batch(batch), -offset_ns))
        else:
            self._writer.append(batch)

    def _give_up_silent(self) -> None:
        """A companion that is stopped or starved must not hold up the rest for ever."""
        now_s = time.monotonic()
        for pair in list(self._reported):
            if now_s - self._heard_s[pair] > ANSWER_S:
                del self._reported[pair]
                self._bury(pair, f"the companion of {pair} answered nothing for {ANSWER_S:.0f} s")

    def _judge(self) -> None:
        """Whether to go on, by what all have counted so far."""
        total = self._counts()
        self._spend()
        if self.result.reason is None and (reason := self._job.spend(total)):
            self._give_up(reason)
        if self.result.reason is None and self.result.enough is None and (enough := self._job.enough(total)):
            self.result.enough = enough
            self._stop(cut=True)
        self._job.progress(total, max(0.0, (monotonic_ns() - self._start_ns) / 1e9))

    def _counts(self) -> Counter[str]:
        return sum((pair.counts for pair in self._pairs), Counter())

    def _give_up(self, reason: str) -> None:
        self.result.failed = True
        self.result.reason = reason
        self._stop(cut=False)

    def _stop(self, *, cut: bool) -> None:
        for pair in self._pairs:
            if pair.companion_lives:
                pair.companion.stop.remote(cut=cut)

    # -- losses -------------------------------------------------------------------------------------------------------

    def _lost(self, why: str) -> None:
        """A worker is gone: the job has failed, the others go on."""
        self.result.workers_lost += 1
        self.result.failed = True
        self.result.reason = self.result.reason or f"{why}; its requests in flight count as client errors"
        log.warning("%s; its requests in flight count as client errors", why)

    def _bury(self, pair: Pair, why: str) -> None:
        """Nothing more comes of this pair: its rows are kept, what it had on the wire is lost with it."""
        worker_lived = pair.worker_lives
        if worker_lived:
            self._lost(why)
        pair.worker_lives = pair.companion_lives = False
        self._spending.lost(pair.number)
        pair.kill_companion()
        gone = self._left(pair) if worker_lived and self._writer is not None else pair.flying
        pair.kill()
        now = monotonic_ns()
        rows = [
            Record(
                index=index,
                worker=pair.number,
                status="failed",
                intended_ns=now,
                dispatched_ns=now,
                error_class="client",
                error_message=f"{why} while this request was in flight",
            )
            for index in gone
        ]
        if rows and self._writer is not None:
            self._writer.append(records.to_batch(rows))
            pair.counts["failed"] += len(rows)

    def _left(self, pair: Pair) -> list[int]:
        """Keep the rows that a dead companion had made and not handed over; what was sent and has no row."""
        try:
            told: list[Left] = pairs.ask(
                [pair], lambda one: one.worker.left.remote(one.received), LEFT_S, "tell the rest"
            )
        except (ConfigError, JobError):
            return pair.flying
        left = told[0]
        for data in left.batches:
            self._write(pair, data)
            pair.counts.update(records.from_batch(data).column("status").to_pylist())
        kept: set[int] = set()
        for batch in records.iterate(self._job.directory):
            places = zip(batch.column("worker").to_pylist(), batch.column("index").to_pylist(), strict=True)
            kept.update(index for worker, index in places if worker == pair.number)
        return [index for index in left.launched if index not in kept]

    def _lost_share(self) -> float:
        """Share of the load that was asked for and that nobody sent or answered because workers died."""
        gone = [pair for pair in self._pairs if not pair.alive]
        dues = [pair.built.due for pair in self._pairs]
        if not gone:
            return 0.0
        if None in dues:
            return len(gone) / len(self._pairs)
        answered = {pair: pair.counts["completed"] + pair.counts["unfinished"] for pair in gone}
        missing = sum(max(0, (pair.built.due or 0) - answered[pair]) for pair in gone)
        return missing / max(1, sum(due or 0 for due in dues))

    # -- after the load -----------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Let the companions explain what is left, then take the last records."""
        import ray

        waiting: dict[ObjectRef[Work], Pair] = {}
        for pair in self._pairs:
            if pair.companion_lives:
                watch = self.result.watches.get(pair.number)
                waiting[pair.companion.finish.remote(watch.launched if watch else None)] = pair
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=POLL_S)
            for ref in done:
                self._explained(waiting.pop(ref), ref)
            if waiting:
                self._poll()
                waiting = {ref: pair for ref, pair in waiting.items() if pair.companion_lives}
        self._poll()
        self.result.lost_share = self._lost_share()

    def _explained(self, pair: Pair, ref: ObjectRef[Work]) -> None:
        import ray
        from ray.exceptions import RayError

        try:
            self.result.companions[pair.number] = ray.get(ref)
        except RayError as error:
            self._reported.pop(pair, None)
            self._bury(pair, f"the companion of {pair} died ({_first_line(error)})")

    def _take_out_drift(self) -> None:
        """Other hosts' stamps were moved by what their clocks showed before the load; now their drift is known too."""
        assert self._writer is not None
        self._writer.close()
        drifts = {
            number: (host.clock.before.driver_ns, host.clock.drift)
            for host in self._hosts
            for number in host.numbers
            if host.clock.drift
        }
        if drifts:
            records.take_out_drift(self._job.directory, drifts)

    def _part(self, *, whole: bool) -> None:
        """Keep the pairs for the next job where nothing is left open; end the others."""
        broken = [pair for pair in self._pairs if not whole or not pair.alive]
        crew.drop(broken)
        if self._job.endpoint_pids and whole:
            # Servers wait for open connections when they end.
            with contextlib.suppress(ConfigError, JobError):
                alive = [pair for pair in self._pairs if pair.alive]
                pairs.ask(alive, lambda pair: pair.worker.close.remote(), PIDS_S, "hang up")


def _pid(_actor: object) -> int:
    return os.getpid()


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
