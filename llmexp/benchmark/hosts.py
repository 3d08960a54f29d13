"""The hosts that a load uses: looked at before it, their clocks read around it, their load watched beside it.

On another host an actor does this; on the driver's own, in local mode, the driver does it itself.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from time import monotonic_ns
from typing import TYPE_CHECKING

import llmexp
from llmexp.benchmark import clocks
from llmexp.benchmark.host_load import LoadWatch
from llmexp.benchmark.nodes import Node
from llmexp.errors import ConfigError, JobError
from llmexp.installed import versions

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from llmexp.clients.base import Target
    from llmexp.config import Model

LOOK_S = 90.0
ANSWER_S = 15.0
MEMORY_PER_PAIR = 256 << 20
CLOCKS_AT_ONCE = 8
PACKAGES = ("ray", "litellm", "uvloop", "pyarrow", "numpy")
log = logging.getLogger("llmexp")


@dataclass(frozen=True)
class Sight:
    """What a node says of itself."""

    versions: dict[str, str]
    problems: tuple[str, ...] = ()
    """Credentials that it lacks."""
    memory_bytes: int = 0
    """Free."""


@dataclass(frozen=True)
class Load:
    """What a node saw of its own load."""

    other_share: float | None = None
    endpoint_share: float | None = None
    cpu_s: float | None = None


@dataclass(frozen=True)
class HostReport:
    """A host that was used: an entry of `client.hosts`, and what is summed over all."""

    node_id: str
    address: str
    workers: int
    numbers: tuple[int, ...]
    """Which workers ran there."""
    cores: int
    clock_offset_s: float
    clock_uncertainty_s: float
    other_load_share: float | None
    endpoint_share: float | None
    cpu_s: float | None
    versions: dict[str, str]

    def as_dict(self) -> dict[str, object]:
        """For `result.json`; the loop lag of its workers is added there."""
        hidden = ("numbers", "endpoint_share")
        return {key: value for key, value in asdict(self).items() if key not in hidden}


class Agent:
    """The body of the actor that stands for a node."""

    def __init__(self) -> None:
        self._clock: clocks.Server | None = None
        self._load: LoadWatch | None = None

    def look(self, models: Sequence[Model]) -> Sight:
        """What this node has; the credentials that it lacks for these models."""
        return sight(models)

    def tell_clock(self, address: str, token: bytes) -> int:
        """Tell the clock at a port of this address; which."""
        if self._clock is not None:
            self._clock.close()
        self._clock = clocks.Server(address, token)
        return self._clock.port

    def now(self) -> int:
        """This host's monotonic clock, for a driver that cannot reach the port."""
        return monotonic_ns()

    def watch(self, host: str, port: int, pids: tuple[int, ...], ours: tuple[int, ...]) -> None:
        """Begin to watch this host's load."""
        self._load = LoadWatch(host, port, pids, (os.getpid(), *ours))
        self._load.__enter__()

    def seen(self) -> Load:
        """What became of it since."""
        watch, self._load = self._load, None
        return Load() if watch is None else _seen(watch)


def _seen(watch: LoadWatch) -> Load:
    watch.__exit__()
    return Load(watch.other_share, watch.endpoint_share, watch.client_cpu_s)


def sight(models: Sequence[Model]) -> Sight:
    """What this machine has for a load."""
    import psutil

    from llmexp.clients import credentials

    problems = dict.fromkeys(line for model in models for line in credentials.problems(model))
    return Sight(_versions(), tuple(problems), psutil.virtual_memory().available)


def _versions() -> dict[str, str]:
    """Python, llmexp, and what matters for its numbers."""
    return versions(PACKAGES) | {"llmexp": llmexp.__version__}


@dataclass
class Host:
    """A node in use."""

    node: Node
    agent: ActorHandle[Agent] | None
    """None: the driver's own process."""
    sight: Sight
    clock: clocks.Clock = field(default_factory=clocks.Clock)
    numbers: list[int] = field(default_factory=list)
    """Workers that run on it."""
    _watch: LoadWatch | None = None
    _token: bytes = b""
    _port: int | None = None

    def renew(self) -> None:
        """Ready for the next job: nothing of the last one is left."""
        self.clock, self.numbers, self._watch = clocks.Clock(), [], None

    # -- its clock ----------------------------------------------------------------------------------------------------

    def _read_clock(self) -> clocks.Reading:
        import ray

        agent = self.agent
        if agent is None or self.node.here:
            return clocks.Reading(monotonic_ns(), 0, 0)
        if self._port is None:
            self._token = secrets.token_bytes(clocks.TOKEN_BYTES)
            self._port = ray.get(agent.tell_clock.remote(self.node.address, self._token), timeout=ANSWER_S)
        try:
            return clocks.read_over_socket(self.node.address, self._port or 0, self._token)
        except OSError:
            # Only Ray's own ports are open between the two: an exchange then takes some tenths of a millisecond more.
            return clocks.read(lambda: int(ray.get(agent.now.remote(), timeout=ANSWER_S)))

    def read_clock(self, *, after: bool = False) -> None:
        """Measure the offset of this host's clock, before the load or after it."""
        from ray.exceptions import RayError

        try:
            reading = self._read_clock()
        except (RayError, OSError) as error:
            if not after:
                raise ConfigError(f"{self.node}: its clock could not be read ({error})") from error
            log.warning("%s: its clock could not be read after the load (%s)", self.node, error)
            return
        self.clock = clocks.Clock(self.clock.before if after else reading, reading if after else None)

    # -- its load -----------------------------------------------------------------------------------------------------

    def watch(self, target: Target, endpoint_pids: tuple[int, ...], ours: tuple[int, ...]) -> None:
        """Begin to watch who uses this host. `ours`: our processes on it, where they are not below the driver."""
        import ray

        if self.agent is None:
            self._watch = LoadWatch(target.host, target.port, endpoint_pids)
            self._watch.__enter__()
            return
        pids, roots = (endpoint_pids, (os.getpid(), *ours)) if self.node.here else ((), ours)
        ray.get(self.agent.watch.remote(target.host, target.port, pids, roots), timeout=ANSWER_S)

    def _load(self) -> Load:
        import ray
        from ray.exceptions import RayError

        if self._watch is not None:
            return _seen(self._watch)
        if self.agent is None:
            return Load()
        try:
            seen: Load = ray.get(self.agent.seen.remote(), timeout=ANSWER_S)
        except RayError:
            return Load()
        return seen

    def report(self, end_ns: int) -> HostReport:
        """What became of it; `end_ns` is when the load ended, by the driver's clock."""
        load = self._load()
        return HostReport(
            node_id=self.node.id,
            address=self.node.address,
            workers=len(self.numbers),
            numbers=tuple(self.numbers),
            cores=self.node.cores,
            clock_offset_s=self.clock.offset_ns / clocks.NS,
            clock_uncertainty_s=self.clock.uncertainty_s(end_ns),
            other_load_share=load.other_share,
            endpoint_share=load.endpoint_share,
            cpu_s=load.cpu_s,
            versions=self.sight.versions,
        )


def read_clocks(hosts: Iterable[Host], *, after: bool = False) -> None:
    """Read all clocks; a few at a time, so that exchanges do not wait for each other."""
    with ThreadPoolExecutor(CLOCKS_AT_ONCE, "clocks") as pool:
        list(pool.map(lambda host: host.read_clock(after=after), hosts))


# --- looking at nodes before anything is sent ------------------------------------------------------------------------


def enter(nodes: Sequence[Node], models: Sequence[Model]) -> dict[Node, Host]:
    """Look at each node of a cluster. What one of them lacks is a `ConfigError` that names it."""
    _same_version(nodes)
    agents = {node: _agent(node) for node in nodes}
    sights = _asked({node: agent.look.remote(list(models)) for node, agent in agents.items()})
    found: dict[Node, Host] = {}
    problems: list[str] = []
    for node, seen in sights.items():
        if isinstance(seen, Sight):
            problems += [f"{node}: {line}" for line in seen.problems]
            found[node] = Host(node, agents[node], seen)
        else:
            problems.append(f"{node}: could not be asked ({seen})")
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def check(known: Sequence[Host], models: Sequence[Model]) -> None:
    """Ask hosts that are in use for the credentials of these models."""
    agents = {host.node: host.agent for host in known if host.agent is not None}
    problems = []
    for node, seen in _asked({node: agent.look.remote(list(models)) for node, agent in agents.items()}).items():
        if not isinstance(seen, Sight):
            raise JobError(f"{node}: does not answer any more ({seen})")
        problems += [f"{node}: {line}" for line in seen.problems]
    if problems:
        raise ConfigError("\n".join(problems))


def _agent(node: Node) -> ActorHandle[Agent]:
    import ray

    options = {"num_cpus": 0, "max_restarts": 0, "max_concurrency": 2, "scheduling_strategy": on(node)}
    agent: ActorHandle[Agent] = ray.remote(Agent).options(**options).remote()
    return agent


def on(node: Node) -> object:
    """Ray's strategy that places something on this node and nowhere else."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy: object = NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
    return strategy


def _same_version(nodes: Sequence[Node]) -> None:
    """Ask each node for its llmexp. The question travels as code, so that a node without ours understands it too."""
    import ray

    def version() -> str | None:
        try:
            import llmexp as theirs
        except ImportError:
            return None
        return str(theirs.__version__)

    ask = ray.remote(version)
    refs = {node: ask.options(num_cpus=0, max_retries=0, scheduling_strategy=on(node)).remote() for node in nodes}
    wrong = []
    for node, told in _asked(refs).items():
        if told is None:
            wrong.append(f"{node}: llmexp is not installed there; install llmexp=={llmexp.__version__} on every node")
        elif isinstance(told, Exception):
            wrong.append(f"{node}: could not be asked for its version ({told})")
        elif told != llmexp.__version__:
            wrong.append(f"{node}: has llmexp {told}, the driver {llmexp.__version__}; install the same on every node")
    if wrong:
        raise ConfigError("\n".join(wrong))


def _asked(refs: Mapping[Node, object]) -> dict[Node, object]:
    """Node → its answer, or the error in place of one. One wait for all."""
    import ray
    from ray.exceptions import RayError

    ray.wait(list(refs.values()), num_returns=len(refs), timeout=LOOK_S)
    answers: dict[Node, object] = {}
    for node, ref in refs.items():
        try:
            answers[node] = ray.get(ref, timeout=1.0)
        except RayError as error:
            answers[node] = error
    return answers
