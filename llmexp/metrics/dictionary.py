"""The dictionary of metrics: name, unit, definition, label and direction of every number that a run reports.

Documentation is generated from it, and a test holds the summary's names against it.
"""

from __future__ import annotations

import difflib
from typing import Literal, NamedTuple

Better = Literal["lower", "higher"]


class Entry(NamedTuple):
    """One metric."""

    name: str
    unit: str
    kind: Literal["distribution", "number"]
    definition: str
    label: str = ""
    """In a sentence; empty: its name with spaces."""
    better: Better | None = None
    """Which direction is better; None where neither is."""
    row: str = ""
    """At the head of a row; empty: its label."""
    column: str = ""
    """At the head of a narrow column; empty: its label."""


DICTIONARY: dict[str, Entry] = {
    metric.name: metric
    for metric in (
        Entry(
            "ttft_s", "s", "distribution", "First token − sent.", label="TTFT", better="lower", row="first token (TTFT)"
        ),
        Entry(
            "time_to_first_answer_token_s",
            "s",
            "distribution",
            "First token that is not reasoning − sent, of requests that streamed reasoning.",
            label="time to first answer token",
            better="lower",
            row="first answer token",
        ),
        Entry(
            "time_to_first_tool_call_s",
            "s",
            "distribution",
            "First chunk of a tool call − sent, of requests whose answer called one.",
            label="time to first tool call",
            better="lower",
        ),
        Entry(
            "e2e_latency_s",
            "s",
            "distribution",
            "Last token − sent; usage and the stream's close may come later.",
            label="end-to-end latency",
            better="lower",
            row="end to end",
            column="end to end",
        ),
        Entry(
            "time_per_output_token_s",
            "s",
            "distribution",
            "(Last token − first token) / (streamed tokens − tokens of the first chunk), per request; absent for "
            "answers of one chunk.",
            label="time per output token",
            better="lower",
            row="per output token (TPOT)",
            column="per token",
        ),
        Entry(
            "inter_token_latency_s",
            "s",
            "distribution",
            "Gap between chunks, shared evenly over the later chunk's tokens, pooled over all tokens.",
            label="inter-token latency",
            better="lower",
            row="between tokens (ITL)",
        ),
        Entry(
            "inter_chunk_latency_s",
            "s",
            "distribution",
            "Gap between chunks, pooled over all chunks.",
            label="inter-chunk latency",
            better="lower",
        ),
        Entry(
            "response_ttft_s",
            "s",
            "distribution",
            "First token − intended: free of coordinated omission.",
            label="TTFT from the intended send",
            better="lower",
            row="first token, from intended time",
        ),
        Entry(
            "response_latency_s",
            "s",
            "distribution",
            "Last token − intended: free of coordinated omission.",
            label="latency from the intended send",
            better="lower",
            row="end to end, from intended time",
        ),
        Entry(
            "schedule_lag_s",
            "s",
            "distribution",
            "Dispatched − intended, of all requests sent: the client's lateness.",
            label="schedule lag",
            better="lower",
        ),
        Entry(
            "wait_s",
            "s",
            "distribution",
            "Waiting for the concurrency ceiling, of all requests sent (open loop).",
            better="lower",
        ),
        Entry("connect_s", "s", "distribution", "Connecting, TLS included, of requests that had to.", better="lower"),
        Entry(
            "server_latency_s",
            "s",
            "distribution",
            "The server's own figure for a request, where it sends one.",
            better="lower",
        ),
        Entry(
            "output_tokens_per_s_per_request",
            "tokens/s",
            "distribution",
            "Streamed tokens / e2e_latency_s, per request.",
            label="tokens/s of a request",
            better="higher",
        ),
        Entry(
            "input_tokens", "tokens", "distribution", "The server's count, else the tokenizer's.", label="input tokens"
        ),
        Entry(
            "output_tokens",
            "tokens",
            "distribution",
            "What is billed: the server's count, else the tokenizer's.",
            label="output tokens",
        ),
        Entry("reasoning_tokens", "tokens", "distribution", "Reasoning inside output_tokens, where it is known."),
        Entry("cached_tokens", "tokens", "distribution", "Input read from a prompt cache, where it is known."),
        Entry("cache_write_tokens", "tokens", "distribution", "Input written to a prompt cache, where it is known."),
        Entry("input_tokens_counted", "tokens", "distribution", "The tokenizer's count of the user's text."),
        Entry("output_tokens_counted", "tokens", "distribution", "The tokenizer's count of the streamed text."),
        Entry(
            "window_s",
            "s",
            "number",
            "First sent to the last token of any request; start and warm-up outside.",
            better="lower",
        ),
        Entry(
            "output_tokens_per_s",
            "tokens/s",
            "number",
            "Tokens streamed inside the window / window, those of failed and unfinished requests included.",
            label="output throughput",
            better="higher",
            column="tokens/s",
        ),
        Entry(
            "requests_per_s",
            "requests/s",
            "number",
            "Completed requests / window.",
            label="request throughput",
            better="higher",
        ),
        Entry("requests_completed", "requests", "number", "Requests with a whole answer."),
        Entry("requests_failed", "requests", "number", "Requests with an error; see the classes.", better="lower"),
        Entry("requests_unfinished", "requests", "number", "Requests that the client cut at the end; no error."),
        Entry("requests_throttled", "requests", "number", "Failed requests that the provider's quota refused."),
        Entry(
            "error_rate",
            "share",
            "number",
            "Failed / (completed + failed).",
            label="error rate",
            better="lower",
            column="errors",
        ),
        Entry("inflight_mean", "requests", "number", "Mean number in flight, first to last sent."),
        Entry(
            "stale_connections",
            "connections",
            "number",
            "Reused connections that the server had closed, so that a request was written once more: they were reset "
            "within a round trip of the write. What ends later is `cut`; nothing else is ever sent twice.",
        ),
        Entry(
            "goodput_per_s",
            "requests/s",
            "number",
            "Requests that meet every threshold of the SLO / window; open loops count from the intended time.",
            label="goodput",
            better="higher",
            column="goodput",
        ),
        Entry("slo/attainment", "share", "number", "Share of completed + failed requests that meet the SLO."),
        Entry(
            "slo/met",
            "0 or 1",
            "number",
            "1 or 0: whether the attainment, and the share of right answers, are at least the ones asked for.",
        ),
        Entry(
            "cost_usd",
            "USD",
            "number",
            "Input, cached, output and reasoning tokens at their prices, failed requests with known usage included; "
            "hourly stacks: price × instances × window.",
            label="cost",
            better="lower",
        ),
        Entry(
            "usd_per_million_output_tokens",
            "USD",
            "number",
            "cost_usd / output tokens × 10⁶: input's cost is inside.",
            label="cost per million output tokens",
            better="lower",
            column="$/M out",
        ),
        Entry(
            "gpu/energy_j",
            "J",
            "number",
            "Drawn by the GPUs over the window, summed; only where all of it was seen.",
            label="GPU energy",
            better="lower",
        ),
        Entry(
            "gpu/power_w",
            "W",
            "number",
            "gpu/energy_j / window, else the mean of the readings inside it.",
            label="GPU power",
            better="lower",
        ),
        Entry(
            "gpu/utilization", "share", "number", "Mean over the window and the GPUs, 0 to 1.", label="GPU utilization"
        ),
        Entry(
            "gpu/memory_used_bytes",
            "bytes",
            "number",
            "The most that was used inside the window, GPUs summed.",
            label="GPU memory used",
        ),
        Entry(
            "gpu/joules_per_output_token",
            "J",
            "number",
            "gpu/energy_j / output tokens, as they are billed.",
            label="GPU energy per output token",
            better="lower",
        ),
        Entry(
            "gpu/joules_per_good_request",
            "J",
            "number",
            "gpu/energy_j / requests that meet the SLO.",
            label="GPU energy per good request",
            better="lower",
        ),
        Entry(
            "gpu/joules_per_right_answer",
            "J",
            "number",
            "gpu/energy_j / right answers, where answers are graded.",
            label="GPU energy per right answer",
            better="lower",
        ),
        Entry(
            "cpu/energy_j",
            "J",
            "number",
            "Drawn by the CPU by RAPL, where it may be read and the job starts the server.",
            label="CPU energy",
            better="lower",
        ),
        Entry("cpu/power_w", "W", "number", "cpu/energy_j / window.", label="CPU power", better="lower"),
        Entry(
            "cpu/joules_per_output_token",
            "J",
            "number",
            "cpu/energy_j / output tokens, as they are billed.",
            label="CPU energy per output token",
            better="lower",
        ),
        Entry(
            "cpu/joules_per_good_request",
            "J",
            "number",
            "cpu/energy_j / requests that meet the SLO.",
            label="CPU energy per good request",
            better="lower",
        ),
        Entry(
            "cpu/joules_per_right_answer",
            "J",
            "number",
            "cpu/energy_j / right answers, where answers are graded.",
            label="CPU energy per right answer",
            better="lower",
        ),
        Entry(
            "score",
            "0 to 1",
            "distribution",
            "What the grader gave each graded answer, 0 to 1; 0 for unparsed ones.",
            label="score",
            better="higher",
        ),
        Entry(
            "right_share",
            "share",
            "number",
            "Right / graded answers, where answers are graded (quality).",
            label="right answers",
            better="higher",
            column="right",
        ),
        Entry(
            "right_share_low",
            "share",
            "number",
            "Lower end of Wilson's 95 % interval of right_share.",
            label="right answers, lower end",
        ),
        Entry(
            "right_share_high",
            "share",
            "number",
            "Upper end of Wilson's 95 % interval of right_share.",
            label="right answers, upper end",
        ),
        Entry(
            "right_per_s", "requests/s", "number", "Right answers / window.", label="right answers/s", better="higher"
        ),
        Entry(
            "usd_per_thousand_right",
            "USD",
            "number",
            "cost_usd / right answers × 1,000; judges are not inside.",
            label="cost per thousand right answers",
            better="lower",
            column="$/k right",
        ),
        Entry("requests_graded", "requests", "number", "Completed requests with a grade, unparsed ones included."),
        Entry("requests_unparsed", "requests", "number", "Answers without anything to grade: wrong, with score 0."),
        Entry(
            "requests_ungraded",
            "requests",
            "number",
            "Completed requests without a grade: the judge failed, or nothing was expected.",
        ),
        Entry("requests_truncated", "requests", "number", "Completed requests that the token limit ended."),
        Entry(
            "right_goodput_per_s",
            "requests/s",
            "number",
            "Requests that keep the SLO's times and are right / window.",
            label="right and in time",
            better="higher",
        ),
        Entry(
            "session_duration_s",
            "s",
            "distribution",
            "Last token of the last turn − first sent, of sessions whose turns all completed; delays are inside.",
            label="session duration",
            better="lower",
        ),
        Entry(
            "sessions_completed",
            "sessions",
            "number",
            "Sessions whose turns all completed.",
            label="sessions completed",
        ),
        Entry(
            "sessions_per_s",
            "sessions/s",
            "number",
            "Completed sessions / window.",
            label="session throughput",
            better="higher",
        ),
        Entry("turns_skipped", "turns", "number", "Turns that were not sent, since one before them failed."),
        Entry(
            "requests_off_script",
            "requests",
            "number",
            "Answers that did not call a tool which the recorded answer called.",
        ),
        Entry(
            "turns",
            "as above",
            "number",
            "A list: latencies, tokens and cached tokens of each turn over all sessions, for result.json and the page.",
        ),
        Entry(
            "steady",
            "as above",
            "number",
            "The main metrics over the plateau (full load reached, drain not begun). Latencies are of requests sent in "
            "it; tokens and requests count at the moment of their event.",
        ),
    )
}

STATISTICS = ("mean", "stddev", "min", "p25", "p50", "p75", "p90", "p95", "p99", "max", "count")
_ELSEWHERE = ("capacity/", "client/", "server/", "steady/")
"""Beginnings of names that a run may have beside the dictionary's."""


def unknown_metric(name: str) -> str | None:
    """Why no run can have a metric of this name, with the nearest ones; None where it is one.

    A distribution needs its statistic (`ttft_s/mean`); a number has none.
    """
    base, _, statistic = name.rpartition("/")
    plain = DICTIONARY.get(name)
    spread = DICTIONARY.get(base)
    if (plain is not None and plain.kind == "number") or name.startswith(_ELSEWHERE):
        return None
    if spread is not None and spread.kind == "distribution" and statistic in STATISTICS:
        return None
    if plain is not None:
        return f"'{name}' is a distribution; name what of it, such as {name}/mean or {name}/p95"
    if spread is not None and spread.kind == "distribution":
        return f"'{base}' has no '{statistic}'; it has {', '.join(STATISTICS)}"
    near = difflib.get_close_matches(base or name, DICTIONARY, n=3, cutoff=0.5)
    near = near or [metric for metric in DICTIONARY if metric.startswith(name)]
    offered = [f"{metric}/mean" if DICTIONARY[metric].kind == "distribution" else metric for metric in near]
    meant = f"did you mean {' or '.join(offered)}? All" if offered else "all"
    return f"there is no metric '{name}'; {meant} of them are in docs/metrics.md"
