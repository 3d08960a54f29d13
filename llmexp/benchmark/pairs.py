"""Pairs of a worker and its companion: placed on nodes, kept from one job to the next.

A worker needs a core to itself while its load runs, so where a cluster is shared each pair reserves one of Ray's CPUs.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from llmexp.benchmark import cluster, hosts
from llmexp.benchmark.hosts import Host
from llmexp.benchmark.nodes import Node
from llmexp.benchmark.patience import patiently
from llmexp.config import Config
from llmexp.errors import ConfigError, JobError
from llmexp.metrics.so_far import Steps

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

    from llmexp.companion.actor import Companion
    from llmexp.companion.luggage import Luggage
    from llmexp.companion.task import Built, Task
    from llmexp.worker.actor import Worker
    from llmexp.worker.plan import Plan

T = TypeVar("T")
ROOM_S = 60.0
"""A node of a cluster must have started its pairs by then: it is full or broken otherwise."""
BUILD_S = 300.0
CLOSE_S = 3.0
KILL_S = 3.0
log = logging.getLogger("llmexp")


class Pair:
    """A worker and its companion, on one host."""

    def __init__(self, host: Host, *, reserve: bool) -> None:
        import ray

        from llmexp.companion.actor import Companion
        from llmexp.worker.actor import Worker

        self.node = host.node
        self.directory: str | None = None
        """The companion's, on its host."""
        options = {"max_restarts": 0, "scheduling_strategy": hosts.on(host.node)}
        self.companion: ActorHandle[Companion] = (
            ray.remote(Companion).options(num_cpus=int(reserve), max_concurrency=4, **options).remote()
        )
        self.worker: ActorHandle[Worker] = ray.remote(Worker).options(num_cpus=0, **options).remote()
        self.join(host, 0)

    def join(self, host: Host, number: int) -> None:
        """Become worker `number` of the next job."""
        self.host = host
        self.number = number
        self.built: Built
        self.worker_lives = self.companion_lives = True
        self.counts: Counter[str] = Counter()
        """Of its requests so far."""
        self.ttft: Steps = Counter()
        """Times to first token so far, of completed requests."""
        self.flying: list[int] = []
        """Requests on the wire when it was last heard of."""
        self.received = 0
        """Batches of rows that its companion has handed over."""

    @property
    def alive(self) -> bool:
        """Neither half has died."""
        return self.worker_lives and self.companion_lives

    def kill(self) -> None:
        """End both. What a companion keeps on disk is removed here where it can be."""
        if cluster.alive():  # else Ray would start another one for this call
            for actor in (self.worker, self.companion):
                _kill(actor)
        if self.node.here and self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)

    def kill_companion(self) -> None:
        """End the companion alone, which ends the load of its worker."""
        _kill(self.companion)

    def kill_worker(self) -> None:
        """End the worker alone; its companion explains what it has."""
        _kill(self.worker)

    def __str__(self) -> str:
        return f"worker {self.number}" if self.node.here else f"worker {self.number} on {self.node}"


def _kill(actor: ActorHandle[Companion] | ActorHandle[Worker]) -> None:
    import ray

    with contextlib.suppress(Exception):
        patiently(lambda: ray.kill(actor), KILL_S)


class Crew:
    """All pairs and hosts of this process, kept while Ray lives."""

    def __init__(self) -> None:
        self._session: object = None
        self._pairs: list[Pair] = []
        self._hosts: dict[Node, Host] = {}

    def _renew(self) -> None:
        """What belonged to an earlier Ray is gone with it."""
        if self._session is not cluster.session():
            self._session, self._pairs, self._hosts = cluster.session(), [], {}

    def hosts(self, config: Config, nodes: Sequence[Node]) -> list[Host]:
        """The hosts of these nodes, ready for a job: looked at where they are not this machine's own."""
        self._renew()
        new = [node for node in nodes if node not in self._hosts]
        if config.ray.kind == "local":
            self._hosts |= {node: Host(node, None, hosts.sight(())) for node in new}
        else:
            models = () if config.rehearse else (config.model,)
            hosts.check([self._hosts[node] for node in nodes if node in self._hosts], models)
            self._hosts |= hosts.enter(new, models)
        for node in nodes:
            self._hosts[node].renew()
        return [self._hosts[node] for node in nodes]

    def start(self, on: Sequence[Host], workers: int) -> None:
        """Start pairs that the next job will take, without waiting for them."""
        for number in range(len(self._pairs), workers):
            self._pairs.append(_new(on[number % len(on)], reserve=False))

    def pairs(self, on: Sequence[Host], *, reserve: bool) -> list[Pair]:
        """A pair on each of these hosts, in this order: one kept from an earlier job, else a new one."""
        free = [pair for pair in self._pairs if pair.alive]
        taken: list[Pair] = []
        fresh: list[Pair] = []
        for number, host in enumerate(on):
            pair = next((one for one in free if one.node == host.node), None)
            if pair is None:
                pair = _new(host, reserve=reserve)
                fresh.append(pair)
            else:
                free.remove(pair)
            pair.join(host, number)
            host.numbers.append(number)
            taken.append(pair)
        self._pairs += fresh
        _await_room(fresh, limit_s=ROOM_S if reserve else BUILD_S)
        return taken

    def dismiss(self) -> None:
        """End all of them: the command is over, and Ray may be somebody else's."""
        if self._session is cluster.session() and cluster.alive():
            _closed([pair for pair in self._pairs if pair.companion_lives])
        self.drop(list(self._pairs))
        self._session, self._pairs, self._hosts = None, [], {}

    def drop(self, pairs: Sequence[Pair]) -> None:
        """End these: their state is not known any more."""
        for pair in pairs:
            pair.kill()
            if pair in self._pairs:
                self._pairs.remove(pair)


def _new(host: Host, *, reserve: bool) -> Pair:
    return patiently(lambda: Pair(host, reserve=reserve))


def _closed(pairs: Sequence[Pair]) -> None:
    """Have companions, elsewhere too, remove what they keep on disk."""
    import ray

    refs = [pair.companion.close.remote() for pair in pairs]
    if refs:
        with contextlib.suppress(Exception):
            ray.wait(refs, num_returns=len(refs), timeout=CLOSE_S)


crew = Crew()


def placed(nodes: Sequence[Node], workers: int) -> list[Node]:
    """A node for each worker, spread evenly; a node that cannot take its share is a `ConfigError`."""
    chosen = [nodes[number % len(nodes)] for number in range(workers)]
    for node, share in Counter(chosen).items():
        if share > node.cores:
            raise ConfigError(
                f"ray.workers: {node} offers {node.cores} CPUs and would get {share} of {workers} workers, one a CPU; "
                f"lower ray.workers, add nodes, or leave it out with ray.nodes"
            )
    return chosen


def check_memory(on: Sequence[Host], workers: Sequence[Node]) -> None:
    """Whether each host has memory for its pairs."""
    for host in on:
        share = workers.count(host.node)
        if host.sight.memory_bytes < share * hosts.MEMORY_PER_PAIR:
            raise ConfigError(
                f"ray.workers: {host.node} has {host.sight.memory_bytes >> 20} MiB of memory free, its {share} workers "
                f"need {share * hosts.MEMORY_PER_PAIR >> 20}; lower ray.workers, or leave it out with ray.nodes"
            )


def _await_room(fresh: Sequence[Pair], limit_s: float) -> None:
    """Wait until new pairs have been started."""
    import ray
    from ray.exceptions import RayError

    refs = {pair: pair.companion.node.remote() for pair in fresh}
    if not refs:
        return
    ready = _wait_for(list(refs.values()), limit_s)
    for pair, ref in refs.items():
        if ref not in ready:
            crew.drop(fresh)
            raise ConfigError(
                f"ray.workers: {pair.node} did not start its share of workers within {limit_s:.0f} s; its CPUs are in "
                f"use or it is out of order: free it, lower ray.workers, or leave it out with ray.nodes"
            )
        try:
            ray.get(ref)
        except RayError as error:
            crew.drop(fresh)
            raise JobError(f"{pair.node}: Ray could not start a worker: {error}") from error


def ask(pairs: Sequence[Pair], call: Callable[[Pair], ObjectRef[T]], limit_s: float, what: str) -> list[T]:
    """The answers of all, asked at the same time."""
    return answers(pairs, [call(pair) for pair in pairs], limit_s, what)


def answers(pairs: Sequence[Pair], refs: Sequence[ObjectRef[T]], limit_s: float, what: str) -> list[T]:
    """What they answered to calls that were made before; what goes wrong names the host."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError, RayTaskError

    _wait_for(refs, limit_s)
    found: list[T] = []
    for pair, ref in zip(pairs, refs, strict=True):
        try:
            found.append(ray.get(ref, timeout=1.0))
        except RayTaskError as error:
            if isinstance(error.cause, ConfigError):
                where = "" if pair.node.here else f"{pair.node}: "
                raise ConfigError(f"{where}{error.cause}") from None
            log.debug("%s failed to %s", pair, what, exc_info=error)  # redacted on its way, as a cause would not be
            raise JobError(f"{pair} failed to {what}: {error.cause}") from None
        except GetTimeoutError as error:
            raise JobError(f"{pair} did not {what} within {limit_s:.0f} s") from error
        except RayError as error:
            raise JobError(f"{pair} died before it could {what}: {error}") from error
    return found


def _wait_for(refs: Sequence[ObjectRef[T]], limit_s: float) -> list[ObjectRef[T]]:
    """What is there within `limit_s`; `JobError` where Ray has died, without which nothing more will come."""
    import ray

    end = lived = time.monotonic()
    end += limit_s
    ready: list[ObjectRef[T]] = []
    while len(ready) < len(refs) and time.monotonic() < end:
        left_s = max(0.0, end - time.monotonic())
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=min(cluster.LOOK_S, left_s))
        if cluster.alive():
            lived = time.monotonic()
        elif len(ready) < len(refs) and time.monotonic() - lived > cluster.DEAD_FOR_S:
            raise JobError("Ray died, or one of its processes was stopped, before the load began")
    return ready


def begin(pairs: Sequence[Pair], task: Callable[[Pair], Task], files: Luggage) -> None:
    """Have companions build what their part of the job needs. `files` travel once to each host."""
    import ray

    luggage = ray.put(dict(files))
    built: list[Built] = ask(
        pairs, lambda pair: pair.companion.begin.remote(task(pair), luggage), BUILD_S, "prepare the job"
    )
    for pair, one in zip(pairs, built, strict=True):
        pair.built, pair.directory = one, one.directory


def connect(pairs: Sequence[Pair], plan: Callable[[Pair], Plan], first_shots: Callable[[Pair], int]) -> None:
    """Have workers join their companions and connect to the endpoint, while companions prepare the first requests."""
    prepared = [pair.companion.prepare.remote(first_shots(pair)) for pair in pairs]
    attached = [pair.companion.attach.remote() for pair in pairs]
    ask(pairs, lambda pair: pair.worker.begin.remote(plan(pair), pair.built.directory), BUILD_S, "connect")
    answers(pairs, attached, BUILD_S, "meet its worker")
    answers(pairs, prepared, BUILD_S, "prepare its requests")
