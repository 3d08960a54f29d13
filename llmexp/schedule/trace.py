"""Arrival times from a trace file.

| file | a row's time |
| --- | --- |
| `.txt`, `.log`, no suffix | the line |
| `.csv`, `.jsonl`, `.json`, `.parquet` | the column `timestamp`, `arrival_time`, `time`, `arrived_at`, … (any case) |

A time is a number (from any zero) or an ISO 8601 date and time. The first becomes 0. The unit of numbers is
`load.time_unit`, else what the file shows: the column's name (`timestamp_ms`), the layout (Mooncake's is milliseconds,
BurstGPT's seconds), the size of a date, fractions. Whole numbers far apart could be either: that is asked.

Lengths that a trace carries beside its times make the prompts with `workload=file workload.file=…` (see
`llmexp.workload.rows`); a row that is left out there is left out here, so that times and prompts stay together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from llmexp.config import Load
from llmexp.errors import ConfigError
from llmexp.workload.rows import is_usable
from llmexp.workload.tables import Entry, column, entries, normal

_KEY = "load.file"
_NAMES = (
    "timestamp",
    "arrivaltime",
    "time",
    "arrivedat",
    "arrivaltimestamp",
    "requesttimestamp",
    "requesttime",
    "starttime",
    "createdat",
    "relativetime",
    "relativetimestamp",
    "arrival",
    "offset",
    "ts",
    "datetime",
    "date",
    "startedat",
)
_PLAIN = ("", ".txt", ".log")
PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_SUFFIXES = {
    "ms": "ms",
    "millis": "ms",
    "milliseconds": "ms",
    "us": "us",
    "micros": "us",
    "microseconds": "us",
    "ns": "ns",
    "nanos": "ns",
    "nanoseconds": "ns",
    "unixnano": "ns",
    "s": "s",
    "sec": "s",
    "secs": "s",
    "seconds": "s",
}
_ALL_NAMES = (*_NAMES, *(f"{name}{suffix}" for name in _NAMES for suffix in _SUFFIXES))
_DATES = (("ns", 1e17), ("us", 1e14), ("ms", 1e11), ("s", 1e9))
"""Numbers so large are dates since 1970 in this unit."""
_LOOKED_AT = 1000
_NAMED = 3
_LATEST_S = 1e11
_SUSPICIOUS_GAP = 20
"""Whole numbers so far apart on average are hardly seconds."""


class _Unit(NamedTuple):
    name: str
    why: str


def timestamps(load: Load, left_out: list[str] | None = None) -> Iterator[float]:
    """Seconds from the first arrival at the trace's own speed, in the order of the file, read as they are asked for.

    Rows that are no request are added to `left_out`. Raises `ConfigError` for what is no time, and where times go back.
    """
    path = load.file or ""
    head, rest = _peeked(path)
    per_second = PER_SECOND[_unit_of(load, head).name]
    first = last = None
    for where, record in chain(head, rest):
        if isinstance(record, Mapping) and not is_usable(record, path):
            if left_out is not None:
                left_out.append(where)
            continue
        at = _seconds(path, where, _written(record), per_second)
        if last is not None and at < last:
            raise ConfigError(f"{_KEY}: {where} of '{path}' goes back in time; sort the file by its times")
        first = at if first is None else first
        last = at
        yield at - first


def notes(load: Load, *, timeout_s: float, max_requests: int | None) -> list[str]:
    """What a reader of the results should know: the unit that was taken, rows left out, and what was cut off."""
    path = load.file or ""
    unit = _unit_of(load, _peeked(path)[0])
    left_out: list[str] = []
    times = [at / load.speed for at in timestamps(load, left_out)]
    found = [f"{_KEY}: times read as {_WORDS[unit.name]} ({unit.why})"] if unit.why else []
    if left_out:
        whole = len(times) + len(left_out)
        more = "" if len(left_out) <= _NAMED else f" and {len(left_out) - _NAMED} more"
        named = ", ".join(left_out[:_NAMED]) + more
        found.append(f"{_KEY}: {len(left_out)} of {whole} rows left out ({named}): no request that can be sent")
    sent = sum(at < timeout_s for at in times)
    if max_requests is not None and max_requests < sent:
        found.append(_cut(len(times), times[-1], max_requests, f"run.max_requests={max_requests}"))
    elif sent < len(times):
        found.append(_cut(len(times), times[-1], sent, f"run.timeout_s={timeout_s:g}"))
    return found


def _cut(arrivals: int, lasts_s: float, sent: int, by: str) -> str:
    return (
        f"{_KEY}: the trace is cut short: of its {arrivals} requests over {lasts_s:,.1f} s, {by} leaves out the last "
        f"{arrivals - sent}"
    )


# --- rows ------------------------------------------------------------------------------------------------------------


def _read(path: str) -> Iterator[Entry]:
    if Path(path).suffix.lower() in _PLAIN:
        return _lines(path)
    return entries(_KEY, path)


def _peeked(path: str) -> tuple[list[Entry], Iterator[Entry]]:
    """The first rows, and those behind them."""
    rows = _read(path)
    return list(islice(rows, _LOOKED_AT)), rows


def _lines(path: str) -> Iterator[Entry]:
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            lines = (line.strip() for line in file if line.strip() and not line.startswith("#"))
            yield from (Entry(f"row {number}", line) for number, line in enumerate(lines, 1))
    except OSError as error:
        raise ConfigError(f"{_KEY}: cannot be read, got '{path}' ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{_KEY}: '{path}' is not UTF-8 text; save it as UTF-8") from None


def _written(record: object) -> object:
    return column(record, _ALL_NAMES) if isinstance(record, Mapping) else record


# --- times -----------------------------------------------------------------------------------------------------------


def _unit_of(load: Load, head: list[Entry]) -> _Unit:
    """The unit of numbers, and why where that is worth a word."""
    if load.time_unit is not None:
        return _Unit(load.time_unit, "")
    numbers = [number for _, record in head if (number := _number(_written(record))) is not None]
    named = {normal(str(name)) for _, record in head if isinstance(record, Mapping) for name in record}
    if not numbers:
        return _Unit("s", "")
    for name, suffix in ((name, suffix) for name in _NAMES for suffix in _SUFFIXES):
        if f"{name}{suffix}" in named and name not in named:
            return _Unit(_SUFFIXES[suffix], "the column's name")
    for unit, least in _DATES:
        if numbers[0] >= least:
            return _Unit(unit, "dates since 1970")
    seconds = {"requesttokens", "responsetokens"} <= named or {"nonce", "turns"} & named  # BurstGPT's; our own files
    if seconds or any(_is_fraction(_written(record)) for _, record in head):
        return _Unit("s", "")
    if "hashids" in named or {"inputlength", "outputlength"} <= named:
        return _Unit("ms", "Mooncake's layout")
    apart = (numbers[-1] - numbers[0]) / max(1, len(numbers) - 1)
    if apart >= _SUSPICIOUS_GAP and Path(load.file or "").suffix.lower() not in _PLAIN:
        raise ConfigError(
            f"load.time_unit: must be given for '{load.file}': its times are whole numbers, {apart:,.0f} apart on "
            "average; set load.time_unit=s or load.time_unit=ms"
        )
    return _Unit("s", "whole numbers without a unit; load.time_unit may say another" if apart else "")


def _is_fraction(written: object) -> bool:
    """Whether a number is written with its fraction, be that zero: those who count milliseconds write none."""
    return isinstance(written, float | Decimal) or (isinstance(written, str) and "." in written)


def _number(written: object) -> float | None:
    if isinstance(written, bool) or not isinstance(written, int | float | str | Decimal):
        return None
    try:
        number = float(written)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _seconds(path: str, where: str, written: object, per_second: float) -> float:
    if isinstance(written, datetime):
        return _aware(written)
    if isinstance(written, timedelta):
        return written.total_seconds()
    number = _number(written)
    if number is not None and abs(number / per_second) < _LATEST_S:
        return number / per_second
    try:
        return _aware(datetime.fromisoformat(str(written).removesuffix(" UTC")))
    except ValueError:
        what = "has no timestamp" if written is None else f"holds '{str(written)[:60]}', which is no time"
        raise ConfigError(
            f"{_KEY}: {where} of '{path}' {what}; seconds, or dates such as 2026-01-31 12:00:00.5, in a column "
            f"'timestamp'"
        ) from None


def _aware(moment: datetime) -> float:
    """Seconds of the epoch; a moment without a zone is taken as UTC, so that daylight saving makes no gap."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
