"""What a load is given, and what it leaves beside its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp.config import Config
from llmexp.metrics.so_far import SoFar
from llmexp.records import Record
from llmexp.workload.request import Request

if TYPE_CHECKING:
    from llmexp.benchmark.hosts import HostReport
    from llmexp.benchmark.purse import Purse
    from llmexp.companion.task import Built, Work
    from llmexp.worker.plan import Watch


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
    purse: Purse | None = None
    """Money that requests are paid from before they are sent; None: they cost nothing, or there is no limit."""
    enough: Callable[[Counter[str]], str | None] = lambda _progress: None
    """Told the counts so far; returns why no more can be learnt: ends the load and what is in flight, is no failure."""
    progress: Callable[[SoFar], None] = lambda _so_far: None
    before_load: Callable[[], None] = lambda: None
    """Called when the warm-up is over: it ends what this process was still doing for an earlier job."""
    beside: AbstractContextManager[object] = field(default_factory=nullcontext)
    """Open while the load runs, in this process: entered after the warm-up, left when the wire is silent."""


@dataclass
class Measurement:
    """What a run left beside its records."""

    held: list[bytes] = field(default_factory=list)
    """Batches of records that a full disk did not take."""
    watches: dict[int, Watch] = field(default_factory=dict)
    companions: dict[int, Work] = field(default_factory=dict)
    built: Built | None = None
    workers: int = 0
    workers_lost: int = 0
    lost_share: float = 0.0
    """Share of the load that was offered and lost with workers."""
    warmup: list[Record] = field(default_factory=list)
    hosts: list[HostReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What a reader should know of where the workers ran."""
    reason: str | None = None
    """Why the job stopped before its time, in words."""
    enough: str | None = None
    """Why the load ended early although nothing went wrong."""
    failed: bool = False
    interrupted: bool = False
    anchor: dict[str, int] = field(default_factory=dict)
    started_wall_ns: int = 0
    ended_wall_ns: int = 0

    @property
    def other_load_share(self) -> float | None:
        """Of the host that had most of it."""
        return max((host.other_load_share for host in self.hosts if host.other_load_share is not None), default=None)

    @property
    def endpoint_share(self) -> float | None:
        """Share of its host's cores that the endpoint used, where it ran beside workers."""
        return next((host.endpoint_share for host in self.hosts if host.endpoint_share is not None), None)

    @property
    def client_cpu_s(self) -> float | None:
        """What the client used on all hosts; None where a host did not tell."""
        told = [host.cpu_s for host in self.hosts]
        return None if not told or None in told else sum(cpu_s for cpu_s in told if cpu_s is not None)

    @property
    def clock_uncertainty_s(self) -> float:
        """Of the host whose clock is known worst."""
        return max((host.clock_uncertainty_s for host in self.hosts), default=0.0)
