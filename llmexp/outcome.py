"""What this process has to say at its end: one exit status from all that happened."""

from __future__ import annotations

from llmexp.errors import worst

_statuses: list[int] = []


def report(status: int) -> None:
    """Add the status of a job, a sweep or a check."""
    _statuses.append(status)


def reported() -> bool:
    """Whether anything was reported, that is, whether composing succeeded and our own code ran."""
    return bool(_statuses)


def final() -> int:
    """The exit status of all that was reported."""
    return worst(_statuses)
