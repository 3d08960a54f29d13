"""What makes an exit status other than 0 has a line of its own on stderr; a store that cannot be is told before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import tracked_job

from llmexp import results
from llmexp.config import load
from llmexp.errors import FAILED, MISSED, OK, ConfigError
from llmexp.jobs import measure
from llmexp.terminal import glance
from llmexp.tracking.connection import store_uri

TEN_OF_TWELVE = {"requests_completed": 10, "requests_failed": 2, "error_rate": 2 / 12}


@pytest.mark.parametrize(
    ("changes", "metrics", "slo", "status", "said"),
    [
        ({}, {}, {}, OK, None),
        ({"status": "failed", "reason": "the endpoint died"}, {}, {}, FAILED, "sonnet c=4: the endpoint died"),
        (
            {},
            TEN_OF_TWELVE,
            {},
            FAILED,
            "run.max_error_rate: sonnet c=4: 16.7% of the requests failed, more than 5.0%",
        ),
        (
            {},
            {"slo": {"met": False, "attainment": 0.5}},
            {"ttft_s": 0.1},
            MISSED,
            "slo.enforce: sonnet c=4: 50.0% of the requests kept the service level, 95.0% had to",
        ),
        (
            {},
            {"slo": {"met": False, "attainment": None}, "right_share": 0.4},
            {"right_share": 0.9},
            MISSED,
            "slo.enforce: sonnet c=4: 40.0% of the answers are right, 90.0% had to be",
        ),
    ],
)
def test_a_job_s_exit_status_has_its_reason(
    changes: dict[str, Any], metrics: dict[str, Any], slo: dict[str, Any], status: int, said: str | None
) -> None:
    tree = tracked_job.result("j1", **changes)
    tree["metrics"] |= metrics
    tree["config"]["slo"] |= {**slo, "enforce": bool(slo)}
    tree["config"]["quality"]["kind"] = "number" if "right_share" in slo else "none"
    result = results.parse(tree, "here")
    config = load(tree["config"])
    assert measure.status_of(result, config) == status
    assert measure.why_not_ok(result, config) == said
    if "right_share" in slo:
        assert "40.0% of the answers are right, 90.0% had to be" in glance.render(result, colour=False)


def test_a_store_that_mlflow_does_not_know_is_told_by_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"tracking\.uri: MLflow has no stores of the kind 's3:', got 's3://bucket/x'"
    ):
        store_uri("s3://bucket/x", tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nfs:/runs")
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI: MLflow has no stores of the kind 'nfs:'"):
        store_uri(None, tmp_path)
    for known in ("postgresql+psycopg2://host/runs", "https://mlflow.example", "databricks", "databricks://profile"):
        assert store_uri(known, tmp_path) == known
