"""A metric for people: its label, unit and direction from the dictionary, and its values in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmexp.metrics.dictionary import DICTIONARY, STATISTICS, Better, Entry
from llmexp.metrics.wording import decimals_for, format_step

CAPACITY = "capacity/estimate"
"""The highest load that a search found to keep the service level."""
SHOWN = (
    CAPACITY,
    "ttft_s/mean",
    "ttft_s/p50",
    "ttft_s/p95",
    "ttft_s/p99",
    "time_to_first_answer_token_s/mean",
    "time_per_output_token_s/mean",
    "time_per_output_token_s/p95",
    "inter_token_latency_s/p99",
    "e2e_latency_s/mean",
    "e2e_latency_s/p50",
    "e2e_latency_s/p95",
    "response_ttft_s/mean",
    "response_ttft_s/p95",
    "response_latency_s/mean",
    "response_latency_s/p95",
    "output_tokens_per_s",
    "requests_per_s",
    "goodput_per_s",
    "right_share",
    "right_per_s",
    "right_goodput_per_s",
    "time_to_first_tool_call_s/mean",
    "session_duration_s/mean",
    "session_duration_s/p95",
    "sessions_per_s",
    "error_rate",
    "output_tokens/mean",
    "cost_usd",
    "usd_per_million_output_tokens",
    "usd_per_thousand_right",
    "gpu/joules_per_output_token",
    "gpu/joules_per_good_request",
    "gpu/joules_per_right_answer",
    "gpu/energy_j",
    "gpu/power_w",
    "cpu/joules_per_output_token",
)
"""What a comparison shows, in this order; the primary metric comes first wherever it stands."""

AT_A_LOAD = tuple(name for name, entry in DICTIONARY.items() if entry.label)
"""Beginnings of the metrics that mean something only beside the load they were measured at."""
_COUNTED = ("requests", "sessions", "turns", "connections")
"""Units of what is counted: whole numbers are shown without decimals."""
_OPEN_LOOP_ONLY = ("response_ttft_s", "response_latency_s")


def _entry(base: str) -> Entry:
    """A metric's entry; one that is outside the dictionary (`client/…`) is read by the end of its name."""
    known = DICTIONARY.get(base)
    if known is not None:
        return known
    if base == CAPACITY:
        return Entry(base, "", "number", "", label="capacity", better="higher")
    last = base.rpartition("/")[2]
    if last in DICTIONARY:
        return DICTIONARY[last]
    if last.endswith("_per_s"):
        return Entry(base, "", "number", "", better="higher")
    if last.endswith("_s"):
        return Entry(base, "s", "number", "", better="lower")
    return Entry(base, "tokens" if last.endswith("_tokens") else "", "number", "")


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a run's summary."""

    name: str

    @property
    def base(self) -> str:
        """The distribution it belongs to: `ttft_s` of `ttft_s/p95`; a plain number's own name."""
        head, _, statistic = self.name.rpartition("/")
        return head if head and statistic in STATISTICS else self.name

    @property
    def statistic(self) -> str:
        """`p95` of `ttft_s/p95`; empty for plain numbers."""
        return self.name.removeprefix(self.base).removeprefix("/")

    @property
    def percent(self) -> int | None:
        """95 of `ttft_s/p95`."""
        return int(self.statistic[1:]) if self.statistic[:1] == "p" and self.statistic[1:].isdigit() else None

    @property
    def label(self) -> str:
        """For people: `p95 TTFT`."""
        return self._with_statistic(_entry(self.base).label or self.base.replace("_", " "))

    @property
    def column(self) -> str:
        """The same at the head of a narrow column: `p95 end to end`."""
        short = _entry(self.base).column
        return self._with_statistic(short) if short else self.label

    @property
    def row(self) -> str:
        """The distribution at the head of a row: `first token (TTFT)`."""
        return _entry(self.base).row or Metric(self.base).label

    def _with_statistic(self, words: str) -> str:
        return f"{self.statistic} {words}" if self.statistic else words

    @property
    def better(self) -> Better | None:
        """Which direction is better; None where neither is."""
        return _entry(self.base).better

    @property
    def unit(self) -> str:
        """`s`, `tokens/s`, `requests/s`, `USD`, `share`, `tokens`, … or nothing for a scale (`0 to 1`)."""
        unit = _entry(self.base).unit
        return "" if unit[:1].isdigit() else unit

    @property
    def open_loop_only(self) -> bool:
        """Says nothing new in a closed loop."""
        return self.base in _OPEN_LOOP_ONLY

    def show(self, value: float | None) -> str:
        """A value with its unit, three significant digits: `213 ms`, `1.32 s`, `$0.0123`."""
        if value is None or not math.isfinite(value):
            return "–"
        if self.unit in _COUNTED and value == math.floor(value):
            return _join(f"{value:,.0f}", self.unit)
        scale, unit = self._scale(abs(value))
        return _join(self._number(value * scale, decimals_for(abs(value * scale))), unit)

    def show_range(self, low: float, high: float) -> str:
        """Two values with one unit: `180–240 ms`."""
        scale, unit = self._scale(max(abs(low), abs(high)))
        step = decimals_for(max(abs(low), abs(high)) * scale)
        first, second = (self._number(value * scale, step) for value in (low, high))
        dash = "–" if low >= 0 else " to "
        return _join(first if first == second else f"{first}{dash}{second}", unit)

    def show_gap(self, low: float, high: float) -> str:
        """A difference: as `show_range`, but shares differ by percentage points."""
        shown = self.show_range(low, high)
        return f"{shown.removesuffix(' %')} percentage points" if self.unit == "share" else shown

    def _number(self, value: float, decimals: int) -> str:
        """Cents are always shown."""
        return "0" if value == 0 else format_step(value, max(decimals, 2) if self.unit == "USD" else decimals)

    def _scale(self, size: float) -> tuple[float, str]:
        if self.unit == "s":
            return (1e3, "ms") if size < 1 else (1.0, "s")
        return (100.0, "%") if self.unit == "share" else (1.0, self.unit)


def _join(number: str, unit: str) -> str:
    if unit == "USD":
        return f"−${number[1:]}" if number.startswith("−") else f"${number}"
    return f"{number} {unit}" if unit else number
