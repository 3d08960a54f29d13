"""Counts of a worker's requests as their tapes are explained, and whether there is any sense in going on."""

from __future__ import annotations

from collections import Counter

from llmexp.config import Config
from llmexp.metrics.service_level import kept
from llmexp.metrics.so_far import Steps, step
from llmexp.records import Record

HOPELESS = ("auth", "not_found", "bad_request")
UNREACHABLE = ("connect", "tls")
FIRST = 5
"""So many first requests that all fail alike end a job early."""


class Tally:
    """Counts records; `reason` says why more of them would teach nothing."""

    def __init__(self, config: Config, due: int | None) -> None:
        self._config = config
        self._due = due
        self._counts: Counter[str] = Counter()
        self._ttft: Steps = Counter()
        self._first_errors: list[str | None] = []
        self.reason: str | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Requests by status, their tokens, missed service levels."""
        return dict(self._counts)

    @property
    def ttft(self) -> Steps:
        """Times to first token of completed requests."""
        return self._ttft.copy()

    @property
    def done(self) -> int:
        """Requests that have a record."""
        return self._counts["completed"] + self._counts["failed"] + self._counts["unfinished"]

    def add(self, row: Record) -> bool:
        """Count a record; True where it has just become plain that the job is hopeless."""
        counts = self._counts
        counts[row.status] += 1
        counts["output_tokens"] += row.output_tokens or 0
        counts["input_tokens"] += row.input_tokens or 0
        counts["cached_tokens"] += row.cached_tokens or 0
        counts["slo_missed"] += self._missed(row)
        if row.status == "completed" and row.first_token_ns is not None and row.sent_ns is not None:
            self._ttft[step((row.first_token_ns - row.sent_ns) / 1e9)] += 1
        if self.reason is not None or len(self._first_errors) >= 4 * FIRST:
            return False
        self._first_errors.append(row.error_class)
        self.reason = hopeless(self._first_errors, row.error_message, self._due)
        return self.reason is not None

    def skip(self, turns: int) -> None:
        """Count turns that will not be sent, because their session ended before them."""
        self._counts["turns_skipped"] += turns

    def _missed(self, row: Record) -> bool:
        """Whether a request missed the service level; what the client cut itself neither kept nor missed it."""
        slo = self._config.slo
        if not slo.thresholds or row.status == "unfinished":
            return False
        return not kept(row, slo, open_loop=not self._config.closed)


def hopeless(errors: list[str | None], message: str | None, expected: int | None) -> str | None:
    """Why to stop early: the first requests all failed alike in a way that more requests cannot mend."""
    alike = set(errors)
    if len(alike) != 1:
        return None
    kind = errors[0]
    if kind in HOPELESS:
        enough = FIRST
    elif kind in UNREACHABLE:
        enough = 4 * FIRST
    else:
        return None
    if len(errors) < min(enough, expected or enough):
        return None
    return f"the first {len(errors)} requests all failed with '{kind}': {message}"
