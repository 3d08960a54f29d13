"""Arrival times from a trace file.

| file | a row's time |
| --- | --- |
| `.txt`, `.log`, no suffix | the line |
| `.csv`, `.jsonl`, `.json`, `.parquet` | the column `timestamp`, or `arrival_time`, `time`, `arrived_at` (any case) |

A time is a number of seconds (from any zero) or an ISO 8601 date and time. The first becomes 0. Lengths that a trace
carries beside its times make the prompts with `workload=file workload.file=…` (see `llmexp.workload.rows`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmexp.errors import ConfigError
from llmexp.workload.rows import column, records

_KEY = "load.file"
_NAMES = ("timestamp", "arrivaltime", "time", "arrivedat")
_PLAIN = ("", ".txt", ".log")


def timestamps(path: str) -> Iterator[float]:
    """Seconds from the first arrival, in the order of the file, read as they are asked for.

    Raises `ConfigError` for what is no time, and where the times go back.
    """
    first = last = None
    for number, written in enumerate(_written(path), 1):
        at = _seconds(path, number, written)
        if last is not None and at < last:
            raise ConfigError(f"{_KEY}: row {number} of '{path}' goes back in time; sort the file by its times")
        first = at if first is None else first
        last = at
        yield at - first


def _written(path: str) -> Iterator[Any]:
    if Path(path).suffix.lower() in _PLAIN:
        yield from _lines(path)
        return
    for record in records(_KEY, path):
        yield column(record, _NAMES) if isinstance(record, dict) else record


def _lines(path: str) -> Iterator[str]:
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            yield from (line.strip() for line in file if line.strip() and not line.startswith("#"))
    except OSError as error:
        raise ConfigError(f"{_KEY}: cannot be read, got '{path}' ({error.strerror})") from None


def _seconds(path: str, number: int, written: Any) -> float:
    if isinstance(written, datetime):
        return _aware(written)
    try:
        return float(written)
    except (TypeError, ValueError):
        pass
    try:
        return _aware(datetime.fromisoformat(str(written)))
    except ValueError:
        what = "has no timestamp" if written is None else f"holds '{written}', which is no time"
        raise ConfigError(
            f"{_KEY}: row {number} of '{path}' {what}; seconds, or dates such as 2026-01-31 12:00:00.5, in a column "
            f"'timestamp'"
        ) from None


def _aware(moment: datetime) -> float:
    """Seconds of the epoch; a moment without a zone is taken as UTC, so that daylight saving makes no gap."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
