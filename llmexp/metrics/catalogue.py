"""What a comparison knows about each metric: its name for people, its unit, and which direction is better."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher"]
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

_WORDS = {
    "ttft_s": "TTFT",
    "time_to_first_answer_token_s": "time to first answer token",
    "time_to_first_tool_call_s": "time to first tool call",
    "e2e_latency_s": "end-to-end latency",
    "session_duration_s": "session duration",
    "sessions_completed": "sessions completed",
    "sessions_per_s": "session throughput",
    "time_per_output_token_s": "time per output token",
    "inter_token_latency_s": "inter-token latency",
    "inter_chunk_latency_s": "inter-chunk latency",
    "response_ttft_s": "TTFT from the intended send",
    "response_latency_s": "latency from the intended send",
    "schedule_lag_s": "schedule lag",
    "output_tokens_per_s": "output throughput",
    "output_tokens_per_s_per_request": "tokens/s of a request",
    "requests_per_s": "request throughput",
    "goodput_per_s": "goodput",
    "error_rate": "error rate",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "cost_usd": "cost",
    "usd_per_million_output_tokens": "cost per million output tokens",
    "score": "score",
    "right_share": "right answers",
    "right_share_low": "right answers, lower end",
    "right_share_high": "right answers, upper end",
    "right_per_s": "right answers/s",
    "usd_per_thousand_right": "cost per thousand right answers",
    "right_goodput_per_s": "right and in time",
    "gpu/energy_j": "GPU energy",
    "gpu/power_w": "GPU power",
    "gpu/utilization": "GPU utilization",
    "gpu/memory_used_bytes": "GPU memory used",
    "gpu/joules_per_output_token": "GPU energy per output token",
    "gpu/joules_per_good_request": "GPU energy per good request",
    "gpu/joules_per_right_answer": "GPU energy per right answer",
    "cpu/energy_j": "CPU energy",
    "cpu/power_w": "CPU power",
    "cpu/joules_per_output_token": "CPU energy per output token",
    "cpu/joules_per_good_request": "CPU energy per good request",
    "cpu/joules_per_right_answer": "CPU energy per right answer",
}
AT_A_LOAD = tuple(_WORDS)
"""Beginnings of the metrics that mean something only beside the load they were measured at."""
_DRAWN = ("gpu/", "cpu/")
"""Groups of plain numbers: no distribution stands behind such a name."""
_OPEN_LOOP_ONLY = ("response_ttft_s", "response_latency_s")


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a run's summary."""

    name: str

    @property
    def base(self) -> str:
        """The distribution it belongs to: `ttft_s` of `ttft_s/p95`."""
        return self.name if self.name.startswith(_DRAWN) else self.name.rpartition("/")[0] or self.name

    @property
    def statistic(self) -> str:
        """`p95` of `ttft_s/p95`; empty for plain numbers."""
        return self.name.rpartition("/")[2] if self.base != self.name else ""

    @property
    def percent(self) -> int | None:
        """95 of `ttft_s/p95`."""
        return int(self.statistic[1:]) if self.statistic[:1] == "p" and self.statistic[1:].isdigit() else None

    @property
    def label(self) -> str:
        """For people: `p95 TTFT`."""
        if self.name == CAPACITY:
            return "capacity"
        words = _WORDS.get(self.base, self.base.replace("_", " "))
        return f"{self.statistic} {words}" if self.statistic else words

    @property
    def better(self) -> Better | None:
        """Which direction is better; None where neither is."""
        rises = ("_per_s", "_per_s_per_request")
        if self.name == CAPACITY or self.base.endswith(rises) or self.base in ("score", "right_share"):
            return "higher"
        if self.base.endswith("_s") or self.base in ("error_rate", "requests_failed") or "usd" in self.base:
            return "lower"
        if self.base.endswith(("energy_j", "power_w")) or "joules" in self.base:
            return "lower"
        return None

    @property
    def unit(self) -> str:
        """`s`, `tokens/s`, `requests/s`, `USD`, `share`, `tokens` or nothing."""
        if self.base.startswith("output_tokens_per_s"):
            return "tokens/s"
        if self.base in ("requests_per_s", "goodput_per_s", "right_per_s", "right_goodput_per_s"):
            return "requests/s"
        if self.base == "sessions_per_s":
            return "sessions/s"
        if "usd" in self.base:
            return "USD"
        if self.base.endswith("energy_j") or "joules" in self.base:
            return "J"
        if self.base.endswith("power_w"):
            return "W"
        if self.base in ("error_rate", "gpu/utilization") or self.base.startswith("right_share"):
            return "share"
        return "s" if self.base.endswith("_s") else "tokens" if self.base.endswith("_tokens") else ""

    @property
    def open_loop_only(self) -> bool:
        """Says nothing new in a closed loop."""
        return self.base in _OPEN_LOOP_ONLY

    def show(self, value: float | None) -> str:
        """A value with its unit, three significant digits: `213 ms`, `1.32 s`, `$0.0123`."""
        if value is None or not math.isfinite(value):
            return "–"
        scale, unit = self._scale(abs(value))
        return _join(self._number(value * scale, _step(abs(value * scale))), unit)

    def show_range(self, low: float, high: float) -> str:
        """Two values with one unit: `180–240 ms`."""
        scale, unit = self._scale(max(abs(low), abs(high)))
        step = _step(max(abs(low), abs(high)) * scale)
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


def digits(value: float, significant: int = 3) -> str:
    """A number with so many significant digits, without an exponent, thousands grouped, a true minus."""
    if value == 0:
        return "0"
    return format_step(value, _step(abs(value), significant))


def _step(size: float, significant: int = 3) -> int:
    """Decimals that show a number of this size with so many significant digits."""
    return min(9, max(0, significant - 1 - math.floor(math.log10(size)))) if size else 0


def format_step(value: float, decimals: int) -> str:
    """Fixed decimals, thousands grouped, a true minus sign, no negative zero."""
    text = f"{abs(value):,.{decimals}f}"
    return f"−{text}" if value < 0 and text.strip("0.,") else text


def signed_points(low: float, high: float) -> str:
    """A difference of two shares as percentage points: `−1.6 to +2.4 points`."""
    first, second = (_signed(100 * value) for value in (low, high))
    return f"{first} to {second} points"


def _signed(points: float) -> str:
    text = format_step(points, 1)
    return f"+{text}" if points > 0 and text.strip("0.") else text


def percent_range(low: float, high: float) -> str:
    """Two relative differences as percent: `12–16 %`."""
    first, second = (digits(value * 100, 2) for value in (low, high))
    return f"{first}{'–' if low >= 0 else ' to '}{second} %" if first != second else f"{first} %"
