"""CloudWatch's view of a run: what the service itself measured in the same minutes.

CloudWatch keeps one point a minute for each metric and publishes it a minute or two late, so the figures cover whole
minutes and are asked for until they have come. A metric that never comes is named as missing, not shown as 0.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

Scope = Literal["sagemaker", "instances", "bedrock"]
Dimensions = dict[Scope, dict[str, str]]
_MINUTE = timedelta(minutes=1)
_STATISTICS = ("SampleCount", "Average", "Maximum", "Sum")
_POLL_S = 10.0


class Metric(NamedTuple):
    """One CloudWatch metric, and what it is called here."""

    scope: Scope
    name: str
    key: str
    kind: Literal["latency", "count", "share"]
    scale: float = 1.0
    """What CloudWatch's unit is multiplied with."""
    awaited: bool = False
    """Published for every run with traffic, so worth waiting for."""


_US, _MS = 1e-6, 1e-3
METRICS = (
    Metric("sagemaker", "Invocations", "invocations", "count", awaited=True),
    Metric("sagemaker", "ModelLatency", "model_latency_s", "latency", _US, awaited=True),
    Metric("sagemaker", "OverheadLatency", "overhead_latency_s", "latency", _US, awaited=True),
    Metric("sagemaker", "FirstChunkModelLatency", "first_chunk_model_latency_s", "latency", _US),
    Metric("sagemaker", "FirstChunkOverheadLatency", "first_chunk_overhead_latency_s", "latency", _US),
    Metric("sagemaker", "Invocation4XXErrors", "invocation_4xx_errors", "count"),
    Metric("sagemaker", "Invocation5XXErrors", "invocation_5xx_errors", "count"),
    Metric("sagemaker", "MidStreamErrors", "mid_stream_errors", "count"),
    Metric("instances", "CPUUtilization", "cpu_utilization_percent", "share", awaited=True),
    Metric("instances", "MemoryUtilization", "memory_utilization_percent", "share", awaited=True),
    Metric("instances", "GPUUtilization", "gpu_utilization_percent", "share"),
    Metric("instances", "GPUMemoryUtilization", "gpu_memory_utilization_percent", "share"),
    Metric("bedrock", "Invocations", "invocations", "count", awaited=True),
    Metric("bedrock", "InvocationLatency", "invocation_latency_s", "latency", _MS, awaited=True),
    Metric("bedrock", "TimeToFirstToken", "time_to_first_token_s", "latency", _MS),
    Metric("bedrock", "InvocationThrottles", "invocation_throttles", "count"),
    Metric("bedrock", "InvocationClientErrors", "invocation_4xx_errors", "count"),
    Metric("bedrock", "InvocationServerErrors", "invocation_5xx_errors", "count"),
    Metric("bedrock", "InputTokenCount", "input_tokens", "count"),
    Metric("bedrock", "OutputTokenCount", "output_tokens", "count"),
)
_NAMESPACES: dict[Scope, str] = {
    "sagemaker": "AWS/SageMaker",
    "instances": "/aws/sagemaker/Endpoints",
    "bedrock": "AWS/Bedrock",
}


def figures(client: object, dimensions: Dimensions, start: datetime, end: datetime, wait_s: float) -> dict[str, object]:
    """`metrics` by our names and `missing` by CloudWatch's, for the whole minutes around the window."""
    asked = [metric for metric in METRICS if metric.scope in dimensions]
    first = start.replace(second=0, microsecond=0)
    last = end.replace(second=0, microsecond=0) + _MINUTE
    deadline = time.monotonic() + wait_s
    before: dict[str, dict[str, float]] | None = None
    while True:
        found = _fetch(client, asked, dimensions, first, last)
        settled = found == before and all(metric.key in found for metric in asked if metric.awaited)
        pause = min(_POLL_S, wait_s / 10, deadline - time.monotonic())
        if settled or pause <= 0:
            break
        before = found
        time.sleep(pause)
    return {
        "from": first.isoformat(),
        "to": last.isoformat(),
        "metrics": found,
        "missing": [metric.name for metric in asked if metric.key not in found],
    }


def _fetch(
    client: Any, metrics: list[Metric], dimensions: Dimensions, start: datetime, end: datetime
) -> dict[str, dict[str, float]]:
    points: dict[str, list[float]] = {}
    pages = client.get_paginator("get_metric_data").paginate(
        MetricDataQueries=list(_queries(metrics, dimensions)), StartTime=start, EndTime=end, ScanBy="TimestampAscending"
    )
    for page in pages:
        for result in page["MetricDataResults"]:
            points.setdefault(result["Id"], []).extend(result["Values"])
    folded = {metric.key: _fold(metric, at, points) for at, metric in enumerate(metrics)}
    return {key: value for key, value in folded.items() if value}


def _queries(metrics: list[Metric], dimensions: Dimensions) -> Iterator[dict[str, object]]:
    for at, metric in enumerate(metrics):
        named = [{"Name": name, "Value": value} for name, value in dimensions[metric.scope].items()]
        about = {"Namespace": _NAMESPACES[metric.scope], "MetricName": metric.name, "Dimensions": named}
        for statistic in _STATISTICS:
            yield {
                "Id": _id(at, statistic),
                "MetricStat": {"Metric": about, "Period": 60, "Stat": statistic},
                "ReturnData": True,
            }


def _id(at: int, statistic: str) -> str:
    return f"m{at}_{statistic.lower()}"


def _fold(metric: Metric, at: int, points: dict[str, list[float]]) -> dict[str, float]:
    """The minutes of one metric as one figure; empty where CloudWatch has none."""
    counts, means, maxima, sums = (points.get(_id(at, statistic), []) for statistic in _STATISTICS)
    count = sum(counts)
    if not count:
        return {}
    if metric.kind == "count":
        return {"sum": sum(sums) * metric.scale}
    mean = sum(number * mean for number, mean in zip(counts, means, strict=False)) / count * metric.scale
    return {"mean": mean, "max": max(maxima) * metric.scale} | ({"count": count} if metric.kind == "latency" else {})
