"""What the endpoint says of a run beside what the run says of it, through the whole tool."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e


def result_of(directory: Path, *overrides: str) -> dict[str, Any]:
    line = ["tracking=none", "workload.output_tokens.mean=12", "workload.output_tokens.stddev=2", "concurrency=2"]
    line += ["run.warmup_requests=1", f"hydra.run.dir={directory / 'job'}", *overrides]
    done = subprocess.run(
        [sys.executable, "-m", "llmexp", *line],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((directory / "job" / "result.json").read_text())
    return found


def agrees(result: dict[str, Any]) -> dict[str, Any]:
    """The `server` part of a run in which both sides must count the same."""
    server: dict[str, Any] = result["server"]
    checks = {check["name"]: check for check in server["checks"]}
    for name in ("output_tokens", "input_tokens"):
        assert checks[name]["server"] == checks[name]["client"] == server["change"][name] > 0
    assert server["curves"]["t_s"] == result["curves"]["t_s"]
    assert 0 < server["gauges"]["running"]["max"] <= 2
    return server


def test_the_simulator_and_the_client_count_the_same(tmp_path: Path) -> None:
    result = result_of(tmp_path, "model=simulated", "run.max_requests=8", "model.deployment.profile.slots=1")
    server = agrees(result)
    assert server["change"]["requests"] == server["change"]["first_tokens"] == 8
    assert server["gauges"]["waiting"]["max"] > 0
    assert server["source"]["engine"] == "vllm"
    seen = result["metrics"]["ttft_s"]["mean"]
    assert server["change"]["ttft_mean_s"] <= seen < server["change"]["ttft_mean_s"] + 0.5


def test_the_real_model_and_the_client_count_the_same(tmp_path: Path) -> None:
    result = result_of(tmp_path, "model=smollm2", "run.max_requests=4", "workload.input_tokens.mean=40")
    assert agrees(result)["source"]["engine"] == "llama.cpp"


def test_metrics_can_be_left_alone(tmp_path: Path) -> None:
    result = result_of(tmp_path, "model=simulated", "run.max_requests=2", "model.metrics_url=none")
    assert result["server"] == {}
    assert result["notes"]["remarks"] == []
