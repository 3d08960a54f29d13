"""One load: companions and workers side by side, started together, records gathered as they come."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING

from llmexp import records
from llmexp.benchmark import cluster, hosts, pairs, sizing
from llmexp.benchmark.gathering import Gathering, first_line
from llmexp.benchmark.hosts import Host
from llmexp.benchmark.measurement import Job, Measurement
from llmexp.benchmark.nodes import Node, evenly, nodes_for, own_node
from llmexp.benchmark.pairs import Pair, crew
from llmexp.companion import luggage
from llmexp.errors import ConfigError, JobError
from llmexp.records import Record, Writer

if TYPE_CHECKING:
    from ray import ObjectRef


START_DELAY_NS = 250_000_000
WARM_S = 60.0
"""Warm-up requests may take so much longer than `run.timeout_s` and `run.grace_s`."""
PIDS_S = 15.0
LATE_S = 30.0
"""A worker may take so much longer than its load, or than being told to cut it."""
log = logging.getLogger("llmexp")


class Benchmark:
    """One run of the load. `run` is the whole of it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._config = job.config
        self._hosts: list[Host] = []
        self._pairs: list[Pair] = []
        self._writer: Writer | None = None
        self._gathering: Gathering | None = None
        self.result = Measurement()

    def run(self) -> Measurement:
        """Build, warm up, measure, gather. Ctrl-C keeps what was measured and marks it interrupted."""
        cluster.ensure_ray(self._config.ray)
        whole = False
        try:
            gathering = self._gathering = self._build()
            gathering.give_money()
            if self._warm():
                self._measure(gathering)
            whole = True
        except KeyboardInterrupt:
            self._interrupted()
        except Exception as error:
            if self._writer is None:
                raise
            # What was measured is worth more than a clean end.
            log.exception("internal error beside the load")
            self.result.failed = True
            self.result.reason = self.result.reason or f"internal error: {type(error).__name__}: {first_line(error)}"
        finally:
            if self._gathering is not None:
                self._gathering.end()
            if self._writer is not None:
                self._writer.close()
                self.result.held = self._writer.held
            self._part(whole=whole)
        return self.result

    def _interrupted(self) -> None:
        self.result.interrupted = True
        self.result.reason = "interrupted"

    # -- before the clock ---------------------------------------------------------------------------------------------

    def _build(self) -> Gathering:
        nodes = self._nodes()
        self._hosts = crew.hosts(self._config, nodes)
        cores = evenly(nodes)
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
        return Gathering(self._job, self._pairs, self.result)

    def _nodes(self) -> list[Node]:
        """The nodes that take workers. An endpoint that the job started listens on this host alone."""
        asked = self._config.ray
        if asked.kind == "cluster" and self._job.endpoint_pids:
            said = "the endpoint that the job started listens on this host alone: all workers run beside it"
            self.result.notes.append(said)
            log.warning("ray.nodes: %s", said)
            return [own_node()]
        return nodes_for(asked)

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

    def _measure(self, gathering: Gathering) -> None:
        self._job.before_load()
        hosts.read_clocks(self._hosts)
        with self._job.beside:
            end_ns = self._load(gathering)
        gathering.finish()
        hosts.read_clocks(self._hosts, after=True)
        self.result.hosts = [host.report(end_ns) for host in self._hosts if host.numbers]
        self._take_out_drift()

    def _load(self, gathering: Gathering) -> int:
        """Have all workers begin at one time, until the last one ends; when that was, by the driver's clock."""
        self.result.anchor = {"wall_ns": time.time_ns(), "monotonic_ns": monotonic_ns()}
        self._writer = Writer(self._job.directory, self.result.anchor)
        self._watch_hosts()
        self.result.started_wall_ns = time.time_ns() + START_DELAY_NS
        start_ns = monotonic_ns() + START_DELAY_NS
        pending = {
            pair.worker.measure.remote(pair.host.clock.there(start_ns)): pair for pair in self._pairs if pair.alive
        }
        gathering.begin(self._writer, start_ns)
        run = self._config.run
        try:
            gathering.gather(pending, run.timeout_s + run.grace_s + LATE_S)
        except KeyboardInterrupt:
            self._interrupted()
            gathering.stop(cut=True)
            gathering.gather(pending, LATE_S)
        self.result.ended_wall_ns = time.time_ns()
        return monotonic_ns()

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

    # -- after the load -----------------------------------------------------------------------------------------------

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
