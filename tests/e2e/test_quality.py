"""Right answers as a user meets them: a graded sweep with its page, a judge, grading again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.e2e
FAST = (
    "model.deployment.profile.ttft.mean_s=0.02",
    "model.deployment.profile.inter_token.mean_s=0.001",
    "run.warmup_requests=1",
    "tracking=none",
)
JUDGE = """\
defaults: [simulated, _self_]
name: judge
deployment:
  profile: {ttft: {mean_s: 0.01}, inter_token: {mean_s: 0.001}, accuracy: 1.0, failure_rate: 0.2, seed: 3}
price: {usd_per_million_input_tokens: 1.0, usd_per_million_output_tokens: 5.0}
"""


def run(folder: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_a_judge_that_fails_now_and_then_and_grading_again(tmp_path: Path) -> None:
    options = tmp_path / "own" / "model"
    options.mkdir(parents=True)
    (options / "judge.yaml").write_text(JUDGE)
    asked = ("model=simulated", "workload=arithmetic", "quality=judge", "quality.judge.model=judge")
    more = ("run.max_requests=30", "run.save_text=true", "model.deployment.profile.accuracy=0.7")
    job = tmp_path / "job"
    done = run(tmp_path, "llmexp", *asked, *more, *FAST, "--config-dir", str(options.parent), f"hydra.run.dir={job}")
    assert done.returncode == 0, done.stderr
    result = json.loads((job / "result.json").read_text())
    metrics, judge = result["metrics"], result["cost"]["judge"]
    truth = [json.loads(line)["answer"] for line in (job / "truth.jsonl").read_text().splitlines()][-30:]
    calls = pq.read_table(job / "judge" / "1" / "requests.parquet")["status"].to_pylist()
    assert judge["calls"] == len(calls) == 30
    assert judge["errors"]["server"] == calls.count("failed") == metrics["requests_ungraded"] > 0
    assert metrics["requests_graded"] == 30 - metrics["requests_ungraded"]
    assert judge["usd"] > 0
    assert result["cost"]["command"]["billed_usd"] == pytest.approx(judge["usd"])
    assert "judged for" in done.stdout

    again = run(tmp_path, "llmexp.regrade", str(job), "quality=number")
    assert again.returncode == 0, again.stderr
    metrics = json.loads((job / "result.json").read_text())["metrics"]
    assert metrics["requests_graded"] == 30
    assert metrics["right_share"] == truth.count("right") / 30
    assert "Wrong answers" in (job / "report.html").read_text()
    assert run(tmp_path, "llmexp.regrade", str(job), "quality=choice").returncode == 2


def test_nothing_to_grade_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    done = run(tmp_path, "llmexp", "model=simulated", "quality=number", *FAST)
    assert done.returncode == 2
    assert done.stderr.startswith("quality.kind: number: no row says what a right answer is")
    assert not list(tmp_path.rglob("truth.jsonl"))
    forced = run(
        tmp_path, "llmexp", "model=simulated", "workload=arithmetic", "quality=number", "workload.force_output=true"
    )
    assert (forced.returncode, forced.stderr.split(":")[0]) == (2, "workload.force_output")
    lost = run(tmp_path, "llmexp", "model=simulated", "workload=arithmetic", "quality=judge", "quality.judge.model=nix")
    assert lost.returncode == 2
    assert "quality.judge.model: must be an option of conf/model" in lost.stderr
