"""What a capacity search leaves: its place in MLflow, its row on the terminal, its folder under a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.tracked_job import result, write_job

from llmexp.config import Tracking
from llmexp.metrics.wording import capacity_headline
from llmexp.results import Run, parse
from llmexp.results.run import find
from llmexp.terminal import glance
from llmexp.tracking import MlflowStore, open_store
from llmexp.tracking.job import job_entry

pytestmark = pytest.mark.service

CAPACITY = {
    "of": "rate",
    "unit": "requests/s",
    "low": 3.9,
    "high": 4.3,
    "estimate": 4.1,
    "passed_at": 4.0,
    "failed_at": 4.2,
    "probes": 2,
    "probe": 1,
    "reason": None,
}
CURVE = {
    "of": "rate",
    "unit": "requests/s",
    "level": [4.0, 4.25],
    "probe": [1, 2],
    "passed": [True, False],
    "attainment": [1.0, 0.4],
    "why": ["carried", "service level missed"],
    "goodput_per_s": [3.9, 1.2],
    "ttft_s_p95": [0.2, 0.3],
    "response_ttft_s_p95": [0.21, 0.9],
    "time_per_output_token_s_p95": [0.02, None],
}


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    """A job's folder with two probes."""
    tree: dict[str, Any] = result("search")
    tree["metrics"]["capacity"], tree["capacity_curve"] = CAPACITY, CURVE
    tree["notes"] = {"remarks": []}
    job = write_job(tmp_path / "sweep" / "0", tree)
    for number in (1, 2):
        write_job(job / "probes" / f"{number:02}", result(f"search-{number}", job={"probe": number}))
    return job


def test_probes_are_runs_below_the_jobs_run(searched: Path, tmp_path: Path) -> None:
    store = open_store(Tracking(uri=f"sqlite:///{tmp_path}/runs.db"), tmp_path)
    assert isinstance(store, MlflowStore)
    run_id = store.log_job(Run.at(searched), None)
    client = store._client
    below = client.search_runs([store.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    assert sorted((run.data.tags["llmexp.kind"], run.data.tags["llmexp.probe"]) for run in below) == [
        ("probe", "1"),
        ("probe", "2"),
    ]
    job = client.get_run(run_id)
    assert (job.data.metrics["capacity/low"], job.data.metrics["capacity/estimate"]) == (3.9, 4.1)
    assert "4.1 requests/s (between 3.9 and 4.3)" in job.data.tags["mlflow.note.content"]
    points = client.get_metric_history(run_id, "over_requests_per_100_s/attainment")
    assert [(point.step, point.value) for point in points] == [(400, 1.0), (425, 0.4)]
    names = {item.path for item in client.list_artifacts(run_id)}
    assert {"result.json", "requests.parquet", ".hydra"} <= names
    assert "probes" not in names
    assert store.log_job(Run.at(searched), None) == run_id
    assert len(client.search_runs([store.experiment_id])) == 3


def test_curves_over_the_load_are_steps_in_whole_numbers(searched: Path) -> None:
    curves = job_entry(Run.at(searched)).curves
    assert curves["over_requests_per_100_s/response_ttft_s_p95"] == [(400, 0.21), (425, 0.9)]
    assert curves["over_requests_per_100_s/passed"] == [(400, 1.0), (425, 0.0)]
    assert curves["over_requests_per_100_s/time_per_output_token_s_p95"] == [(400, 0.02)]


def test_a_comparison_takes_the_job_and_not_its_probes(searched: Path, tmp_path: Path) -> None:
    assert find([searched.parent]) == [searched]
    assert find([tmp_path]) == [searched]


def test_the_terminal_shows_the_interval_and_each_probe() -> None:
    tree: dict[str, Any] = result("search")
    tree["metrics"]["capacity"], tree["capacity_curve"] = CAPACITY, CURVE
    tree["errors"], tree["notes"] = {}, {"remarks": []}
    text = glance.render(parse(tree, "here"), colour=False)
    assert "4.1 requests/s (between 3.9 and 4.3)" in text
    assert "service level missed" in text
    assert "900 ms" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"high": None, "failed_at": None, "estimate": None}, "at least 4 requests/s"),
        ({"low": None, "passed_at": None, "estimate": None}, "less than 4.2 requests/s"),
        ({"of": "concurrency", "unit": "in flight", "low": 6, "high": 7, "estimate": 6}, "6 in flight; 7 are too many"),
        ({"low": None, "high": None, "estimate": None}, "not found"),
    ],
)
def test_what_was_not_found_is_said(change: dict[str, Any], said: str) -> None:
    assert capacity_headline({**CAPACITY, **change}) == said
