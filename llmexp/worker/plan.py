"""A worker's part of a job, and what it saw of itself while it did it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from llmexp.clients.base import Target
from llmexp.config import Model

NS = 1_000_000_000


@dataclass(frozen=True)
class Plan:
    """One worker's part of a job."""

    worker: int
    workers: int
    target: Target
    streams: int | None
    """In flight at most; None: no ceiling."""
    offsets: Sequence[float] | None
    """Intended send times in s from the start (open loop); None: closed loop."""
    limits: tuple[tuple[float, int], ...] = ()
    """(s from the start, in flight allowed), for ramps of concurrency."""
    max_requests: int | None = None
    timeout_s: float = 300.0
    grace_s: float = 30.0
    spare: int = 0
    """Connections opened before the clock."""
    ahead: int = 64
    """Shots to keep ready."""
    own_stream: tuple[Model, str | None] | None = None
    """Set where LiteLLM must time its own stream: the model, and the address that it answers at."""


@dataclass
class Watch:
    """What the worker saw of itself during a phase."""

    started_ns: int = 0
    ended_ns: int = 0
    launched: int = 0
    not_sent: int = 0
    """Arrivals of an open loop that the ceiling or the end kept from being sent."""
    loop_lag_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    gc_pauses_s: list[float] = field(default_factory=list)
    anchor_wall_ns: int = 0
    anchor_monotonic_ns: int = 0
    stopped: bool = False


class Left(NamedTuple):
    """What is left of a job on a worker whose companion has died."""

    batches: list[bytes]
    """Rows that the companion had made."""
    launched: list[int]
    """Indexes of all measured requests that were sent."""
