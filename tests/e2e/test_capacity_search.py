"""A whole capacity search against the simulator over sockets: eight slots, 0.4 s each, so 20 requests a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e
SLOTS, SERVICE_S = 8, 0.06 + 17 * 0.02
OVERRIDES = [
    "experiment=capacity",
    "model=simulated",
    "tracking=none",
    f"model.deployment.profile.slots={SLOTS}",
    "model.deployment.profile.ttft.mean_s=0.06",
    "workload.output_tokens.mean=18",
    "workload.output_tokens.stddev=0",
    "slo.ttft_s=0.3",
    "capacity.start=15",
    "capacity.probe_s=4",
    "capacity.precision=0.07",
]


def test_the_interval_holds_slots_over_service_time(tmp_path: Path) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-m", "llmexp", *OVERRIDES, f"hydra.run.dir={tmp_path}/job"],
        cwd=tmp_path,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads((tmp_path / "job" / "result.json").read_text())
    capacity = result["metrics"]["capacity"]
    assert capacity["low"] <= SLOTS / SERVICE_S * 1.02, done.stdout
    assert capacity["high"] >= SLOTS / SERVICE_S * 0.98, done.stdout
    assert capacity["high"] / capacity["low"] <= 1.1 / 0.9
    assert f"(between {capacity['low']:.3g} and {capacity['high']:.3g})" in done.stdout

    probes = [json.loads(path.read_text()) for path in sorted((tmp_path / "job" / "probes").glob("*/result.json"))]
    assert len(probes) == capacity["probes"] <= 12
    assert len({probe["notes"]["nonce"] for probe in probes}) == len(probes)
    assert {probe["config"]["load"]["kind"] for probe in probes} == {"constant"}
    assert {(probe["job"]["choices"]["model"], probe["job"]["choices"]["workload"]) for probe in probes} == {
        ("simulated", "quick")
    }
    assert any(probe["notes"]["ended_early"] for probe in probes)
    best = probes[capacity["probe"] - 1]
    assert best["config"]["load"]["rate"] == capacity["passed_at"]
    assert result["metrics"]["ttft_s"] == best["metrics"]["ttft_s"]
    assert result["metrics"]["slo"]["met"]
    sent = len((tmp_path / "job" / "truth.jsonl").read_text().splitlines())
    counts = ("requests_completed", "requests_failed", "requests_unfinished")
    measured = sum(probe["metrics"][name] for probe in probes for name in counts)
    assert sent >= measured
