"""Whole jobs and sweeps, through the door, on real endpoints of our own."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from e2e.conftest import FAST, Tool

from llmexp import records

pytestmark = pytest.mark.e2e
SMALL = ("run.warmup_requests=2", "concurrency=2")


def test_the_main_job_measures_a_real_model_and_records_it(tool: Tool) -> None:
    done = tool.run("run.max_requests=6", "run.warmup_requests=1", "workload.output_tokens.mean=16", "concurrency=2")
    assert done.returncode == 0, done.stderr
    (result,) = tool.results()
    folder = result["folder"]
    names = {path.name for path in folder.iterdir()}
    base = "SmolLM2-135M-Instruct_128_16"
    assert {"result.json", "requests.parquet", "report.html", ".hydra", f"{base}_summary.json"} <= names
    assert f"{base}_individual_responses.json" in names
    assert len([name for name in names if name.endswith("summary.json")]) == 1
    assert "requests.arrows" not in names
    assert result["metrics"]["requests_completed"] == 6
    assert result["metrics"]["output_tokens"]["mean"] <= 32
    table = pq.read_table(folder / "requests.parquet").to_pylist()
    assert [row["index"] for row in sorted(table, key=lambda row: row["index"])] == list(range(6))
    assert len({row["prompt_digest"] for row in table}) == 6
    assert all(row["output_tokens_source"] == "server" for row in table)
    assert all(sum(row["chunk_tokens"]) in (row["output_tokens"], row["output_tokens"] - 1) for row in table)
    (run,) = tool.mlflow_runs()
    assert run.info.status == "FINISHED"
    assert run.data.metrics["ttft_s/mean"] == pytest.approx(result["metrics"]["ttft_s"]["mean"])
    assert run.data.params["model.name"] == "SmolLM2-135M-Instruct"
    assert "python -m llmexp.ui" in done.stdout
    assert not [p for p in psutil.process_iter(["cmdline"]) if "llmexp.endpoints.llamacpp" in (p.info["cmdline"] or [])]


def test_a_sweep_is_one_parent_with_a_child_for_each_job(tool: Tool) -> None:
    done = tool.run("-m", *FAST, "concurrency=1,4", "run.max_requests=24", "model.deployment.profile.slots=4")
    assert done.returncode == 0, done.stderr
    by_load = {result["config"]["concurrency"]: result["metrics"] for result in tool.results()}
    ratio = by_load[4]["steady"]["output_tokens_per_s"] / by_load[1]["steady"]["output_tokens_per_s"]
    assert 3 < ratio < 4.5
    runs = tool.mlflow_runs()
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    assert len(runs) == 3
    assert {run.data.tags.get("mlflow.parentRunId") for run in runs} == {None, parents[0].info.run_id}
    sweep = tool.results()[0]["folder"].parent
    assert (sweep / "comparison.csv").exists()
    assert (sweep / "comparison.html").exists()


def test_any_openai_compatible_server_can_be_measured(tool: Tool) -> None:
    server = tool.start("--port", "0", "--ttft", "0.02", "--inter-token", "0.002", module="llmexp.simulate")
    assert server.stdout is not None
    url = next(word for line in iter(server.stdout.readline, "") for word in line.split() if word.startswith("http"))
    done = tool.run(
        "model=openai_compatible", f"model.base_url={url}", "model.name=anything", "run.max_requests=8", *SMALL
    )
    assert done.returncode == 0, done.stderr
    (result,) = tool.results()
    assert result["metrics"]["requests_completed"] == 8
    server.send_signal(signal.SIGTERM)


def test_failures_are_counted_and_make_the_job_fail(tool: Tool) -> None:
    done = tool.run(*FAST, "model.deployment.profile.failure_rate=0.5", "run.max_requests=20", *SMALL)
    assert done.returncode == 1, done.stderr
    (result,) = tool.results()
    metrics = result["metrics"]
    assert metrics["requests_completed"] + metrics["requests_failed"] == 20
    assert 0.1 < metrics["error_rate"] < 0.9
    assert sum(entry["count"] for entry in result["errors"].values()) == metrics["requests_failed"]


def test_a_refused_server_is_told_apart_and_hangs_nothing(tool: Tool) -> None:
    began = time.monotonic()
    done = tool.run(
        "model=openai_compatible", "model.base_url=http://127.0.0.1:9/v1", "model.name=x", "run.max_requests=8", *SMALL
    )
    assert done.returncode == 1
    (result,) = tool.results()
    assert set(result["errors"]) == {"connect"}
    assert time.monotonic() - began < 120


def wait_for_rows(tool: Tool, rows: int) -> Path:
    """The folder of the job under way, once so many rows are on disk."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for path in tool.directory.rglob("requests.arrows"):
            if records.read(path.parent).num_rows >= rows:
                return path.parent
        time.sleep(0.2)
    raise AssertionError("no rows were written in time")


def test_an_interrupt_keeps_and_records_what_was_measured(tool: Tool) -> None:
    process = tool.start("-m", *FAST, "concurrency=2,4", "run.max_requests=400", *SMALL)
    wait_for_rows(tool, 2)
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    (result,) = tool.results()
    assert result["status"] == "interrupted"
    assert result["metrics"]["requests_completed"] >= 2
    assert "run.grace_s" not in shown
    assert (
        f"To complete it: the same command with run.resume={result['folder'].parent.relative_to(tool.directory)}"
        in shown
    )
    assert {run.info.status for run in tool.mlflow_runs()} == {"KILLED"}


def test_a_killed_sweep_keeps_its_rows_and_resumes(tool: Tool) -> None:
    command = ("-m", *FAST, "concurrency=2,3", "run.max_requests=24", "run.warmup_requests=1")
    process = tool.start(*command)
    folder = wait_for_rows(tool, 3)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    kept = records.read(folder).num_rows
    assert kept >= 3
    done = tool.run(*command, f"run.resume={folder.parent}")
    assert done.returncode == 0, done.stderr
    attempt = folder.with_name(f"{folder.name}.attempt1")
    old = json.loads((attempt / "result.json").read_text())
    assert old["status"] == "interrupted"
    assert old["metrics"]["requests_completed"] >= 3
    fresh = [result for result in tool.results() if "attempt" not in result["folder"].name]
    assert sorted(result["config"]["concurrency"] for result in fresh) == [2, 3]
    assert all(result["metrics"]["requests_completed"] == 24 for result in fresh)
    again = tool.run(*command, f"run.resume={folder.parent}")
    assert again.returncode == 0
    assert "2 already there" in again.stderr
    superseded = [run for run in tool.mlflow_runs() if "llmexp.superseded" in run.data.tags]
    assert len(superseded) == 1


def test_time_that_runs_out_while_requests_are_prepared_ends_the_job(tool: Tool) -> None:
    """Megabytes of requests are on their way to the worker when it stops reading: nobody may wait for the other."""
    long = ("workload.input_tokens.mean=20000", "workload.output_tokens.mean=4", "run.max_requests=null")
    quick = ("model.deployment.profile.ttft.mean_s=0.001", "model.deployment.profile.slots=64")
    load = ("concurrency=32", "run.warmup_requests=0", "run.timeout_s=4")
    done = tool.run("model=simulated", *quick, *long, *load, timeout_s=120)
    assert done.returncode == 0, done.stderr
    (result,) = tool.results()
    assert result["metrics"]["requests_completed"] > 32


def workers_of(pid: int) -> list[psutil.Process]:
    """The processes that time the requests of the job that `pid` runs."""
    children = psutil.Process(pid).children(recursive=True)
    return [child for child in children if "ray::Worker" in " ".join(child.cmdline())]


def test_a_client_that_gets_no_time_says_that_its_run_is_invalid(tool: Tool) -> None:
    process = tool.start(*FAST, "run.max_requests=60", "concurrency=4")
    wait_for_rows(tool, 4)
    (worker,) = workers_of(process.pid)
    with suppress(psutil.NoSuchProcess):
        while process.poll() is None:  # an overloaded machine, made to order: the worker runs 20 ms of every 80
            worker.suspend()
            time.sleep(0.06)
            worker.resume()
            time.sleep(0.02)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    (result,) = tool.results()
    assert result["validity"]["verdict"] == "invalid"
    lag = next(reason for reason in result["validity"]["reasons"] if reason["reason"] == "loop_lag")
    assert lag["measured"] > lag["limit"] == 0.025
    assert "invalid" in out
    assert "event-loop lag" in out
    (run,) = tool.mlflow_runs()
    assert run.data.tags["llmexp.validity"] == "invalid"


def test_a_worker_that_dies_costs_only_what_it_had_in_flight(tool: Tool) -> None:
    process = tool.start(*FAST, "run.max_requests=120", "concurrency=4", "ray.workers=2", "run.max_error_rate=1")
    wait_for_rows(tool, 4)
    workers = workers_of(process.pid)
    assert len(workers) == 2
    workers[0].kill()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    (result,) = tool.results()
    assert result["status"] == "failed"
    assert result["client"]["workers_lost"] == 1
    assert 1 <= result["errors"]["client"]["count"] <= 2
    assert result["metrics"]["requests_completed"] >= 60
    assert any(reason["reason"] == "workers_lost" for reason in result["validity"]["reasons"])


def test_the_comparison_that_it_is_for_can_be_rehearsed(tool: Tool) -> None:
    done = tool.run("-m", "model=sonnet,llama,claude", "rehearse=true", "run.max_requests=6", *SMALL, "workload=qa")
    assert done.returncode == 0, done.stderr
    found = tool.results()
    assert len(found) == 3
    assert all(result["job"]["rehearsal"] for result in found)
    assert all(result["metrics"]["requests_completed"] == 6 for result in found)
    digests = {
        result["job"]["model"]: sorted(
            pq.read_table(result["folder"] / "requests.parquet")["prompt_digest"].to_pylist()
        )
        for result in found
    }
    assert digests["sonnet"] == digests["llama"] == digests["claude"]
    assert done.stdout.count("would have cost $") == 3
    reasons = {result["job"]["model"]: {each["reason"] for each in result["validity"]["notes"]} for result in found}
    # Claude's tokenizer is not public; what the server counts are whole prompts and answers.
    assert "chunk_tokens_estimated" in reasons["sonnet"]
    assert all(result["validity"]["verdict"] == "valid" or result["validity"]["reasons"] for result in found)
    assert "token_counts_estimated" not in json.dumps([result["validity"]["reasons"] for result in found])
    runs = tool.mlflow_runs()
    assert all("rehearsal" in json.dumps(run.data.tags) for run in runs)
    jobs = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert all(run.data.metrics["cost_usd"] > 0 for run in jobs)
    assert all("would have cost" in run.data.tags["mlflow.note.content"] for run in jobs)
    assert {run.data.tags["llmexp.deployment.wire"] for run in jobs} == {"bedrock", "sagemaker", "anthropic"}


@pytest.mark.parametrize("load", ["constant", "poisson"])
def test_an_open_loop_sends_when_its_schedule_says(tool: Tool, load: str) -> None:
    done = tool.run(*FAST, f"load={load}", "load.rate=20", "run.max_requests=60", "run.warmup_requests=2")
    assert done.returncode == 0, done.stderr
    (result,) = tool.results()
    table = pq.read_table(result["folder"] / "requests.parquet")
    sent = table["sent_ns"].to_numpy()
    intended = table["intended_ns"].to_numpy()
    assert (sent >= intended).all()
    span_s = (intended.max() - intended.min()) / 1e9
    assert 59 / span_s == pytest.approx(20, rel=0.01)
    assert result["metrics"]["response_ttft_s"]["mean"] >= result["metrics"]["ttft_s"]["mean"]


def test_a_conversation_carries_its_history(tool: Tool) -> None:
    done = tool.run(*FAST, "workload=multi_turn", "workload.think_time_s=0.1", "run.max_requests=12", "concurrency=2")
    assert done.returncode == 0, done.stderr
    (result,) = tool.results()
    rows = pq.read_table(result["folder"] / "requests.parquet").to_pylist()
    assert len(rows) == 12
    by_turn: dict[int, list[int]] = {}
    for row in rows:
        by_turn.setdefault(row["turn"], []).append(row["input_tokens"])
    assert len(by_turn) > 1
    means = [sum(counts) / len(counts) for _, counts in sorted(by_turn.items())]
    assert means == sorted(means)
    for later in (row for row in rows if row["turn"] > 0):
        before = next(row for row in rows if (row["session"], row["turn"]) == (later["session"], later["turn"] - 1))
        assert later["sent_ns"] >= before["end_ns"] + 0.1e9


def test_a_turn_that_is_still_being_thought_about_does_not_hold_up_the_end(tool: Tool) -> None:
    overrides = ["workload=multi_turn", "workload.think_time_s=600", "run.max_requests=12", "concurrency=2"]
    began = time.monotonic()
    done = tool.run(*FAST, *overrides, "run.timeout_s=4", "run.grace_s=2")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 100
    (result,) = tool.results()
    rows = pq.read_table(result["folder"] / "requests.parquet").to_pylist()
    assert rows
    assert len(rows) < 12
    assert {row["status"] for row in rows} == {"completed"}
