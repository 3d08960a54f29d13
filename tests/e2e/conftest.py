"""Runs the tool as a user does: a process of its own in an empty directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FAST = (
    "model=simulated",
    "model.deployment.profile.ttft.mean_s=0.05",
    "model.deployment.profile.inter_token.mean_s=0.005",
)
"""A simulated model that answers 64 tokens in 0.4 s."""


@dataclass
class Tool:
    """The tool in one directory."""

    directory: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_"))}
        return {**clean, "AWS_EC2_METADATA_DISABLED": "true", "COLUMNS": "110"}

    def start(self, *arguments: str, module: str = "llmexp") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str, module: str = "llmexp", timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, module=module)
        out, err = process.communicate(timeout=timeout_s)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def results(self) -> list[dict[str, Any]]:
        """Every result.json below, the folder's name added as `folder`."""
        paths = sorted((self.directory / "outputs").rglob("result.json"))
        return [{**json.loads(path.read_text()), "folder": path.parent} for path in paths]

    def mlflow_runs(self) -> list[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's own use of its libraries
            from mlflow.tracking import MlflowClient

            client = MlflowClient(f"sqlite:///{self.directory}/mlflow.db")
            experiment = client.get_experiment_by_name("llmexp")
            assert experiment is not None
            return list(client.search_runs([experiment.experiment_id]))


@pytest.fixture
def tool(tmp_path: Path) -> Iterator[Tool]:
    runner = Tool(tmp_path)
    yield runner
    for process in runner.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
