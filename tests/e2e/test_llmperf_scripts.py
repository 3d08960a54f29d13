"""LLMPerf's two command lines as users run them, against the simulator on loopback."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.e2e


@pytest.fixture
def endpoint(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    """A base URL, and the file in which the endpoint notes each request."""
    truth = tmp_path / "truth.jsonl"
    more = getattr(request, "param", [])
    line = [sys.executable, "-m", "llmexp.simulate", "--port", "0", "--ttft", "0.05", "--inter-token", "0.005"]
    with subprocess.Popen(
        [*line, *more, "--truth", truth], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as one:
        assert one.stdout is not None
        yield one.stdout.readline().strip(), truth
        one.terminate()


def script(name: str, url: str, cwd: Path, *flags: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "OPENAI_"))}
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / f"{name}.py", "--model", "sim/model-1.0", *flags],
        env={**kept, "OPENAI_API_BASE": url, **environ},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_token_benchmark(endpoint: tuple[str, Path], tmp_path: Path) -> None:
    url, truth = endpoint
    flags = "--mean-input-tokens 100 --stddev-input-tokens 10 --mean-output-tokens 20 --stddev-output-tokens 3"
    flags += " --max-num-completed-requests 12 --num-concurrent-requests 3 --results-dir out --metadata a=b"
    uri = f"sqlite:///{tmp_path}/runs.db"
    done = script("token_benchmark_ray", url, tmp_path, *flags.split(), MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stderr
    assert "12 completed" in done.stdout
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"sim-model-1-0_100_20_{end}.json" for end in ("individual_responses", "summary")]
    summary = json.loads((tmp_path / "out" / names[1]).read_text())
    assert (summary["results_num_completed_requests"], summary["results_error_rate"], summary["a"]) == (12, 0.0, "b")
    assert summary["results_ttft_s_quantiles_p50"] == pytest.approx(0.05, abs=0.05)
    assert len(truth.read_text().splitlines()) == 12
    with sqlite3.connect(tmp_path / "runs.db") as store:
        assert store.execute("select status from runs").fetchall() == [("FINISHED",)]
    notebook = subprocess.run(
        [sys.executable, ROOT / "tests" / "support" / "llmperf_notebook.py", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(notebook.stdout.splitlines()[-1])["completed"] == 12


def test_correctness_without_a_results_dir_writes_nothing(endpoint: tuple[str, Path], tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    flags = "--max-num-completed-requests 4 --num-concurrent-requests 2"
    done = script("llm_correctness", endpoint[0], work, *flags.split())
    assert done.returncode == 0, done.stderr
    assert "of 4 answers" in done.stdout
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("endpoint", [["--failure-rate", "1", "--failure", "server"]], indirect=True)
def test_failed_requests_are_results(endpoint: tuple[str, Path], tmp_path: Path) -> None:
    flags = "--max-num-completed-requests 2 --num-concurrent-requests 1 --results-dir out"
    done = script("llm_correctness", endpoint[0], tmp_path, *flags.split())
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out").glob("*correctness_summary.json")
    summary = json.loads(path.read_text())
    assert (summary["number_errors"], summary["mismatch_rate"]) == (2, None)
