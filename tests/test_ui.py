"""The door to MLflow's pages, as a process that a person starts and ends with Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from support.mlflow_server import free_port
from support.tracked_job import result, write_job

from llmexp import ui
from llmexp.config import Tracking
from llmexp.results import Run
from llmexp.tracking import open_store, store_uri

pytestmark = pytest.mark.service


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def _search(address: str, experiment_id: str) -> list[str]:
    body = json.dumps({"experiment_ids": [experiment_id]}).encode()
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/runs/search", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return [run["info"]["run_name"] for run in json.load(answer)["runs"]]


@pytest.mark.timeout(150)
def test_it_shows_the_store_of_this_directory_and_ends_cleanly(tmp_path: Path) -> None:
    open_store(Tracking(), tmp_path).log_job(Run.at(write_job(tmp_path / "job", result("shown"))), None)
    port = free_port()
    command = [sys.executable, "-m", "llmexp.ui", "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        told = process.stdout.readline() + process.stdout.readline()
        link = re.search(rf"(http://127\.0\.0\.1:{port})/#/experiments/(\d+)/runs", told)
        assert link, told
        assert _search(link[1], link[2]) == ["sonnet c=4"]
    finally:
        os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_taken_port_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert ui.main(["--port", str(port)]) == 2
    assert (
        capsys.readouterr().err
        == f"--port: {port} on 127.0.0.1 cannot be had (Address already in use); try --port {port + 1}\n"
    )


def test_a_server_has_pages_of_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user:secret@mlflow.example:8443")
    began = time.perf_counter()
    assert ui.main([]) == 0
    assert time.perf_counter() - began < 2
    assert "https://user:***@mlflow.example:8443" in capsys.readouterr().out


def test_the_store_is_the_one_of_plain_mlflow_ui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)
    assert store_uri(None, Path.cwd()) == mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    assert store_uri(None, Path.cwd()) == mlflow.get_tracking_uri()


def test_it_does_not_start_without_a_usable_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_text("this is no database, but a text that is long enough to be taken for one" * 9)
    assert ui.main(["--port", str(free_port())]) == 2
    assert "file is not a database" in capsys.readouterr().err
