"""Saved views of the experiment's page: the columns and charts that a load test is read by.

MLflow shows no metric as a column and sorts its charts by the alphabet, the client's own first. A saved view (the
`Views` menu of its page) is an experiment's tag that holds the page's state as JSON. A version of MLflow that does not
know some of it ignores that.
"""

from __future__ import annotations

import json

VIEW, CHARTS = "llmexp", "llmexp-charts"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
QUERY = "workflowType=machine_learning"
"""Asks for the pages of runs, rather than those of traces and prompts."""

_COLUMNS = (
    "params.`model`",
    "params.`concurrency`",
    "metrics.`ttft_s/p50`",
    "metrics.`ttft_s/p95`",
    "params.`load.rate`",
    "params.`workload`",
    "metrics.`e2e_latency_s/p95`",
    "metrics.`output_tokens_per_s`",
    "tags.`llmexp.validity`",
)
"""Few: MLflow puts metrics in the order of the alphabet, and TTFT has to stand on the first screen."""
_SECTIONS = {
    "Latency": ("ttft_s/p50", "ttft_s/p95", "time_per_output_token_s/p50", "e2e_latency_s/p95"),
    "Over concurrency": ("concurrency:ttft_s/p95", "concurrency:output_tokens_per_s"),
    "Throughput and cost": ("output_tokens_per_s", "requests_per_s", "error_rate", "cost_usd"),
    "Over time": ("over_time/inflight", "over_time/output_tokens_per_s"),
}
"""Title of a section → metrics; `param:metric` is a scatter plot."""
_LINE = {
    "xAxisKey": "step",
    "xAxisScaleType": "linear",
    "scaleType": "linear",
    "yAxisKey": "metric",
    "yAxisExpressions": [],
    "range": {},
    "lineSmoothness": 0,
    "selectedXAxisMetricKey": "",
    "ignoreOutliers": False,
    "useGlobalXaxisKey": True,
    "useGlobalLineSmoothing": True,
}


def saved_views() -> dict[str, str]:
    """Tag → view. The first is the table: newest first, jobs nested below their sweep. The second is of charts.

    MLflow draws no chart of runs that are folded away, and folds a sweep's jobs when runs are sorted by time. Sorted by
    their source, which is the same for all, they stand openly and are still in the order of time.
    """
    table = _state(order_by="attributes.start_time")
    charts = _state(order_by="tags.`mlflow.source.name`")
    views = {VIEW: ("Sweeps and their jobs", table), CHARTS: ("Charts: latency, throughput and cost", charts)}
    return {
        f"mlflow.sharedViewState.{key}": json.dumps({"name": name, "createdAt": 0, "state": json.dumps(state)})
        for key, (name, state) in views.items()
    }


def _state(order_by: str) -> dict[str, object]:
    titles = list(_SECTIONS)
    return {
        "orderByKey": order_by,
        "orderByAsc": False,
        "selectedColumns": list(_COLUMNS),
        "runsHiddenMode": "FIRST_20_RUNS",
        "isAccordionReordered": True,
        "compareRunSections": [_section(title) for title in titles],
        "compareRunCharts": [_chart(key, title) for title in titles for key in _SECTIONS[title]],
    }


def _section(title: str) -> dict[str, object]:
    return {"uuid": title, "name": title, "display": True, "isReordered": True, "deleted": False, "isGenerated": False}


def _chart(key: str, section: str) -> dict[str, object]:
    common = {"uuid": key, "metricSectionId": section, "deleted": False, "isGenerated": False, "displayName": key}
    param, _, metric = key.rpartition(":")
    if param:
        axes = {"xaxis": {"key": param, "type": "PARAM"}, "yaxis": {"key": metric, "type": "METRIC"}}
        return common | axes | {"type": "SCATTER", "runsCountToCompare": 100}
    kind = {"type": "LINE", **_LINE} if key.startswith("over_time/") else {"type": "BAR"}
    return common | kind | {"metricKey": key, "runsCountToCompare": 20}
