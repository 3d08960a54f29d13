"""What a companion is told of its job, and what it tells the driver."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from llmexp.clients.base import Target
from llmexp.companion.allowance import Spent
from llmexp.config import Config
from llmexp.metrics.prices import PriceList
from llmexp.metrics.so_far import Steps
from llmexp.workload.request import Request


@dataclass(frozen=True)
class Task:
    """A companion's part of a job."""

    config: Config
    base_url: str | None
    nonce: str
    worker: int
    workers: int
    warmup_requests: int
    """This worker's share."""
    most: int | None = None
    """Requests of the whole job, over all workers; None: as many as there is time for."""
    requests: tuple[Request, ...] | None = None
    """Fixed requests instead of the workload's own, indexed by their `index`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Throwaway credentials of a rehearsal; never a user's."""
    price: PriceList | None = None
    """Set where requests must be paid for before they are handed over."""


@dataclass(frozen=True)
class Built:
    """What the driver needs to know to plan the worker."""

    directory: str
    """Where the worker finds the companion."""
    target: Target
    signed: bool
    """Requests carry signatures that expire."""
    own_stream: bool
    """LiteLLM must send and time itself."""
    paid: bool
    """Requests cost money: few are handed over ahead, lest many go out before a bill that breaks the limit is read."""
    due: int | None
    """Requests that fall to this worker; None: as many as there is time for."""
    sessions: int | None
    """Sessions of the whole job, lone requests among them; None: not known before the end."""
    tokenizer: str
    tokenizer_source: str
    declared_cache_share: float
    workload_notes: tuple[str, ...]
    workload_size: int | None
    """Different texts that the workload has; None: no end."""


class Drained(NamedTuple):
    """What there is to tell since the last time."""

    batches: list[bytes]
    """Records as Arrow batches."""
    counts: dict[str, int]
    """Requests by status, tokens, missed service levels: so far."""
    problem: str | None
    """A reason to stop the job, or a fault of our own."""
    flying: list[int]
    """Indexes of the requests on the wire: lost, should this host die now."""
    ttft: Steps
    """Times to first token so far, of completed requests."""
    spent: Spent = Spent()


@dataclass(frozen=True)
class Work:
    """What explaining cost, and what was lost."""

    decoded: int
    chunks: int
    decode_s: float
    cpu_s: float
    lost_requests: int
    """Launched requests whose worker died before it handed back what it had of them."""
    problem: str | None


def nonce_of(job_id: str) -> str:
    """A fresh nonce for a job; its first letter keeps a command line from reading digits, or `12e34`, as a number."""
    return "n" + hashlib.sha256(job_id.encode()).hexdigest()[:15]
