"""Finished jobs into MLflow from their files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from support.mlflow_server import free_port
from support.tracked_job import result, write_job, write_sweep

from llmexp import relog

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(autouse=True)
def _plain_environment(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)


def _runs(uri: str, experiment: str) -> dict[str, tuple[str, str | None]]:
    """Run name → (status, id of the parent), of an experiment."""
    client = MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: (run.info.status, run.data.tags.get("mlflow.parentRunId")) for run in found}


def test_a_sweep_comes_in_whole_and_only_once(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = {
        "0": result("e0", "sonnet", 1),
        "1": result("e1", "sonnet", 4),
        "1.attempt1": result("e1-old", "sonnet", 4, status="failed", job={"name": "old"}),
    }
    directory = write_sweep(tmp_path / "sweep", "away", jobs)
    asked = [str(directory), "--experiment", "whole"]
    assert relog.main(asked) == 0
    said = capsys.readouterr().out
    first = _runs(uri, "whole")
    assert relog.main(asked) == 0
    assert _runs(uri, "whole") == first
    assert capsys.readouterr().out == said

    client = MlflowClient(tracking_uri=uri)
    parent = client.get_run(said.split()[-1])
    assert first["sweep"] == ("FINISHED", None)
    assert first["sonnet c=1"] == ("FINISHED", parent.info.run_id)
    assert first["old"] == ("FAILED", parent.info.run_id)
    assert "2 jobs: 2 finished" in parent.data.tags["mlflow.note.content"]
    assert parent.info.end_time - parent.info.start_time == 30_500
    assert "comparison.html" in {item.path for item in client.list_artifacts(parent.info.run_id)}


def test_a_job_of_a_sweep_finds_its_parent(uri: str, tmp_path: Path) -> None:
    directory = write_sweep(
        tmp_path / "sweep", "parted", {"0": result("f0", "llama", 1), "1": result("f1", "llama", 2)}
    )
    shutil.move(directory / "1", tmp_path / "later")
    assert relog.main([str(directory), "--experiment", "parted"]) == 0
    assert relog.main([str(tmp_path / "later"), "--experiment", "parted"]) == 0
    found = _runs(uri, "parted")
    assert found["llama c=2"][1] == found["llama c=1"][1] is not None


def test_the_job_s_own_configuration_says_where_to(uri: str, tmp_path: Path) -> None:
    tree = result("own")
    tree["config"]["tracking"] |= {"kind": "none", "experiment": "from-config"}
    assert relog.main([str(write_job(tmp_path / "own", tree))]) == 0
    assert _runs(uri, "from-config") == {"sonnet c=4": ("FINISHED", None)}


def test_what_is_no_job_is_refused_and_the_others_go_on(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "result.json").write_text('{"job": ')
    good = write_job(tmp_path / "good", result("good"))
    asked = [str(tmp_path / "missing"), str(tmp_path / "empty"), str(broken), str(good), "--experiment", "mixed"]
    assert relog.main(asked) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert "missing: is not a directory" in errors[0]
    assert "empty: holds neither result.json nor directories with one" in errors[1]
    assert "broken/result.json: cannot be read" in errors[2]
    assert list(_runs(uri, "mixed")) == ["sonnet c=4"]


def test_a_store_that_is_away_is_exit_status_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = write_job(tmp_path / "job", result("away"))
    before = json.loads((job / "result.json").read_text())
    assert relog.main([str(job), "--uri", f"http://127.0.0.1:{free_port()}"]) == 4
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "cannot be reached" in message
    assert json.loads((job / "result.json").read_text()) == before
