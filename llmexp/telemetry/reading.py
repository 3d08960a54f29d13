"""One look at one device, and what can be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Reading:
    """One device at one moment; what it does not tell is None."""

    energy_j: float | None = None
    """A counter: only differences mean something."""
    power_w: float | None = None
    utilization: float | None = None
    """0 to 1."""
    memory_used_bytes: float | None = None


class Source(Protocol):
    """Where readings come from. `read` raises `SourceError` for what may pass, and closes what it must itself."""

    name: str
    interval_s: float

    def read(self) -> Mapping[str, Reading]:
        """Device → what it says now."""

    def close(self) -> None:
        """Let go of it."""


class SourceError(Exception):
    """It cannot be read, in words."""


def chosen(index: int | None, uuid: str, wanted: tuple[int | str, ...] | None) -> bool:
    """Whether a GPU is one of `model.gpus`: by index or by (the beginning of) its UUID."""
    if wanted is None:
        return True
    return any(str(one) == str(index) or (len(str(one)) > 4 and uuid.startswith(str(one))) for one in wanted)
