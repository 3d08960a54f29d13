"""The dictionary of metrics: name, unit and definition of every number that a run reports.

Documentation is generated from it, and a test holds the summary's names against it.
"""

from __future__ import annotations

import difflib
from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """One entry of the dictionary of metrics."""

    name: str
    unit: str
    kind: Literal["distribution", "number"]
    definition: str


DICTIONARY: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("ttft_s", "s", "distribution", "First token − sent."),
        Metric(
            "time_to_first_answer_token_s",
            "s",
            "distribution",
            "First token that is not reasoning − sent, of requests that streamed reasoning.",
        ),
        Metric(
            "time_to_first_tool_call_s",
            "s",
            "distribution",
            "First chunk of a tool call − sent, of requests whose answer called one.",
        ),
        Metric("e2e_latency_s", "s", "distribution", "Last token − sent; usage and the stream's close may come later."),
        Metric(
            "time_per_output_token_s",
            "s",
            "distribution",
            "(Last token − first token) / (streamed tokens − tokens of the first chunk), per request; absent for "
            "answers of one chunk.",
        ),
        Metric(
            "inter_token_latency_s",
            "s",
            "distribution",
            "Gap between chunks, shared evenly over the later chunk's tokens, pooled over all tokens.",
        ),
        Metric("inter_chunk_latency_s", "s", "distribution", "Gap between chunks, pooled over all chunks."),
        Metric("response_ttft_s", "s", "distribution", "First token − intended: free of coordinated omission."),
        Metric("response_latency_s", "s", "distribution", "Last token − intended: free of coordinated omission."),
        Metric(
            "schedule_lag_s", "s", "distribution", "Dispatched − intended, of all requests sent: the client's lateness."
        ),
        Metric("wait_s", "s", "distribution", "Waiting for the concurrency ceiling, of all requests sent (open loop)."),
        Metric("connect_s", "s", "distribution", "Connecting, TLS included, of requests that had to."),
        Metric("server_latency_s", "s", "distribution", "The server's own figure for a request, where it sends one."),
        Metric(
            "output_tokens_per_s_per_request",
            "tokens/s",
            "distribution",
            "Streamed tokens / e2e_latency_s, per request.",
        ),
        Metric("input_tokens", "tokens", "distribution", "The server's count, else the tokenizer's."),
        Metric("output_tokens", "tokens", "distribution", "What is billed: the server's count, else the tokenizer's."),
        Metric("reasoning_tokens", "tokens", "distribution", "Reasoning inside output_tokens, where it is known."),
        Metric("cached_tokens", "tokens", "distribution", "Input read from a prompt cache, where it is known."),
        Metric("cache_write_tokens", "tokens", "distribution", "Input written to a prompt cache, where it is known."),
        Metric("input_tokens_counted", "tokens", "distribution", "The tokenizer's count of the user's text."),
        Metric("output_tokens_counted", "tokens", "distribution", "The tokenizer's count of the streamed text."),
        Metric("window_s", "s", "number", "First sent to the last token of any request; start and warm-up outside."),
        Metric(
            "output_tokens_per_s",
            "tokens/s",
            "number",
            "Tokens streamed inside the window / window, those of failed and unfinished requests included.",
        ),
        Metric("requests_per_s", "1/s", "number", "Completed requests / window."),
        Metric("requests_completed", "requests", "number", "Requests with a whole answer."),
        Metric("requests_failed", "requests", "number", "Requests with an error; see the classes."),
        Metric("requests_unfinished", "requests", "number", "Requests that the client cut at the end; no error."),
        Metric("requests_throttled", "requests", "number", "Failed requests that the provider's quota refused."),
        Metric("error_rate", "share", "number", "Failed / (completed + failed)."),
        Metric("inflight_mean", "requests", "number", "Mean number in flight, first to last sent."),
        Metric("stale_connections", "connections", "number", "Reused connections that died before a response byte."),
        Metric(
            "goodput_per_s",
            "1/s",
            "number",
            "Requests that meet every threshold of the SLO / window; open loops count from the intended time.",
        ),
        Metric("slo/attainment", "share", "number", "Share of completed + failed requests that meet the SLO."),
        Metric(
            "slo/met",
            "0 or 1",
            "number",
            "Whether the attainment, and the share of right answers, are at least the ones asked for.",
        ),
        Metric(
            "cost_usd",
            "USD",
            "number",
            "Input, cached, output and reasoning tokens at their prices, failed requests with known usage included; "
            "hourly stacks: price × instances × window.",
        ),
        Metric(
            "usd_per_million_output_tokens", "USD", "number", "cost_usd / output tokens × 10⁶: input's cost is inside."
        ),
        Metric(
            "gpu/energy_j", "J", "number", "Drawn by the GPUs over the window, summed; only where all of it was seen."
        ),
        Metric("gpu/power_w", "W", "number", "gpu/energy_j / window, else the mean of the readings inside it."),
        Metric("gpu/utilization", "share", "number", "Mean over the window and the GPUs, 0 to 1."),
        Metric("gpu/memory_used_bytes", "bytes", "number", "The most that was used inside the window, GPUs summed."),
        Metric("gpu/joules_per_output_token", "J", "number", "gpu/energy_j / output tokens, as they are billed."),
        Metric("gpu/joules_per_good_request", "J", "number", "gpu/energy_j / requests that meet the SLO."),
        Metric("gpu/joules_per_right_answer", "J", "number", "gpu/energy_j / right answers, where answers are graded."),
        Metric(
            "cpu/energy_j",
            "J",
            "number",
            "Drawn by the CPU by RAPL, where it may be read and the job starts the server.",
        ),
        Metric("cpu/power_w", "W", "number", "cpu/energy_j / window."),
        Metric("cpu/joules_per_output_token", "J", "number", "cpu/energy_j / output tokens, as they are billed."),
        Metric("cpu/joules_per_good_request", "J", "number", "cpu/energy_j / requests that meet the SLO."),
        Metric("cpu/joules_per_right_answer", "J", "number", "cpu/energy_j / right answers, where answers are graded."),
        Metric("score", "0 to 1", "distribution", "What the grader gave each graded answer; 0 for unparsed ones."),
        Metric("right_share", "share", "number", "Right / graded answers, where answers are graded (quality)."),
        Metric("right_share_low", "share", "number", "Lower end of Wilson's 95 % interval of right_share."),
        Metric("right_share_high", "share", "number", "Upper end of Wilson's 95 % interval of right_share."),
        Metric("right_per_s", "1/s", "number", "Right answers / window."),
        Metric("usd_per_thousand_right", "USD", "number", "cost_usd / right answers × 1,000; judges are not inside."),
        Metric("requests_graded", "requests", "number", "Completed requests with a grade, unparsed ones included."),
        Metric("requests_unparsed", "requests", "number", "Answers without anything to grade: wrong, with score 0."),
        Metric(
            "requests_ungraded",
            "requests",
            "number",
            "Completed requests without a grade: the judge failed, or nothing was expected.",
        ),
        Metric("requests_truncated", "requests", "number", "Completed requests that the token limit ended."),
        Metric("right_goodput_per_s", "1/s", "number", "Requests that keep the SLO's times and are right / window."),
        Metric(
            "session_duration_s",
            "s",
            "distribution",
            "Last token of the last turn − first sent, of sessions whose turns all completed; delays are inside.",
        ),
        Metric("sessions_completed", "sessions", "number", "Sessions whose turns all completed."),
        Metric("sessions_per_s", "1/s", "number", "Completed sessions / window."),
        Metric("turns_skipped", "turns", "number", "Turns that were not sent, since one before them failed."),
        Metric(
            "requests_off_script",
            "requests",
            "number",
            "Answers that did not call a tool which the recorded answer called.",
        ),
        Metric(
            "turns",
            "as above",
            "number",
            "A list: latencies, tokens and cached tokens of each turn over all sessions, for result.json and the page.",
        ),
        Metric(
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
    return f"there is no metric '{name}'{_or(offered)}; docs/metrics.md lists them all"


def _or(names: list[str]) -> str:
    return f"; did you mean {' or '.join(names)}?" if names else ""
