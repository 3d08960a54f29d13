"""Jobs over hosts with addresses, monotonic clocks and files of their own."""

from __future__ import annotations

import itertools
import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.hosts import AHEAD_S, Hosts, cluster

import llmexp
from llmexp import records, schedule
from llmexp.config import Load

pytestmark = pytest.mark.hosts
TTFT_S, GAP_S, TOKENS = 0.05, 0.01, 16


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with cluster(tmp_path_factory.mktemp("hosts"), nodes=("a", "b"), names=("a", "b", "c", "d")) as found:
        delays = ("--ttft", str(TTFT_S), "--inter-token", str(GAP_S))
        where = ("--host", found.address("a"), "--port", "8900")
        found.start("a", sys.executable, "-m", "llmexp.simulate", *where, *delays, log="endpoint.log")
        deadline = time.monotonic() + 60
        while "ready" not in (found.directory / "endpoint.log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield found


def arguments(hosts: Hosts, name: str) -> list[str]:
    """A job on the cluster, into a folder of this name."""
    return [
        "ray=cluster",
        f"ray.address={hosts.head}",
        "model=openai_compatible",
        f"model.base_url=http://{hosts.address('a')}:8900/v1",
        "model.name=simulated",
        f"workload.output_tokens.mean={TOKENS}",
        "workload.output_tokens.stddev=0",
        "run.warmup_requests=2",
        "tracking=none",
        f"paths.outputs={hosts.directory / name}",
    ]


def results(hosts: Hosts, name: str) -> list[dict[str, Any]]:
    paths = sorted((hosts.directory / name).rglob("result.json"))
    return [{**json.loads(path.read_text()), "folder": path.parent} for path in paths]


def rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    table = pq.read_table(result["folder"] / "requests.parquet").to_pylist()
    return sorted(table, key=lambda row: int(row["index"]))


def by_address(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {host["address"]: host for host in result["client"]["hosts"]}


def test_a_closed_loop_over_two_hosts_has_one_clock_and_its_files(hosts: Hosts) -> None:
    prompts = hosts.directory / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Question {at}?"}) + "\n" for at in range(40)))
    before_ns = time.monotonic_ns()
    done = hosts.run(
        *arguments(hosts, "closed"),
        "workload=sharegpt",
        f"workload.file={prompts}",
        f"workload.output_tokens.mean={TOKENS}",
        "concurrency=8",
        "run.max_requests=40",
    )
    after_ns = time.monotonic_ns()
    assert done.returncode == 0, done.stderr
    (result,) = results(hosts, "closed")
    used = by_address(result)
    assert set(used) == {hosts.address("a"), hosts.address("b")}
    own, other = used[hosts.address("a")], used[hosts.address("b")]
    assert (own["clock_offset_s"], own["clock_uncertainty_s"]) == (0, 0)
    assert abs(other["clock_offset_s"] - AHEAD_S["b"]) <= other["clock_uncertainty_s"] + 1e-6
    assert other["clock_uncertainty_s"] < 0.01
    assert [host["workers"] for host in (own, other)] == [1, 1]
    expected = {"node_id", "cores", "other_load_share", "loop_lag_s", "cpu_s", "versions"}
    assert expected <= set(other)
    assert other["versions"] == own["versions"]
    seen = rows(result)
    assert [row["index"] for row in seen] == list(range(40))
    assert {row["worker"] for row in seen} == {0, 1}
    for name in (
        "intended_ns",
        "dispatched_ns",
        "sent_ns",
        "first_byte_ns",
        "first_token_ns",
        "last_token_ns",
        "end_ns",
    ):
        assert all(before_ns < row[name] < after_ns for row in seen), name
    assert all(before_ns < ns < after_ns for row in seen for ns in row["chunk_ns"])
    # Five rounds of an answer: what a host alone would need, not the clocks' difference.
    assert result["metrics"]["window_s"] < 20 * 5 * (TTFT_S + TOKENS * GAP_S)
    assert result["metrics"]["inflight_mean"] <= 8


def test_an_open_loop_keeps_one_schedule_over_hosts(hosts: Hosts) -> None:
    done = hosts.run(*arguments(hosts, "open"), "load=poisson", "load.rate=40", "run.max_requests=60")
    assert done.returncode == 0, done.stderr
    (result,) = results(hosts, "open")
    seen = rows(result)
    wanted = schedule.offsets(Load(kind="poisson", rate=40.0), seed=11111, timeout_s=300, max_requests=60)
    intended = np.array([row["intended_ns"] for row in seen])
    off_s = (intended - intended[0]) / 1e9 - np.array(list(wanted or ()))
    assert {row["worker"] for row in seen} == {0, 1}
    uncertainty_s = max(host["clock_uncertainty_s"] for host in result["client"]["hosts"])
    assert np.abs(off_s).max() < 2 * uncertainty_s + 1e-5


def test_conversations_are_dealt_over_hosts_turn_by_turn(hosts: Hosts) -> None:
    done = hosts.run(
        *arguments(hosts, "turns"), "workload=multi_turn", "workload.turns=3", "concurrency=4", "run.max_requests=24"
    )
    assert done.returncode == 0, done.stderr
    (result,) = results(hosts, "turns")
    sessions: dict[int, list[dict[str, Any]]] = {}
    for row in rows(result):
        sessions.setdefault(row["session"], []).append(row)
    assert {row["worker"] for row in rows(result)} == {0, 1}
    for turns in sessions.values():
        assert len({row["worker"] for row in turns}) == 1
        turns.sort(key=lambda row: int(row["turn"]))
        assert [row["turn"] for row in turns] == [0, 1, 2]
        assert all(later["sent_ns"] >= row["end_ns"] for row, later in itertools.pairwise(turns))


def test_litellm_times_its_own_streams_on_each_host(hosts: Hosts) -> None:
    client = Path(llmexp.__file__).parent / "clients" / "litellm.py"
    will_not_be_stopped = client.read_text().replace("self.times_itself = ", "self.times_itself = True or ", 1)
    path = ["model.api=litellm", "model.provider=hosted_vllm", "ray.workers=2", "ray.nodes=own"]
    with third_host(hosts, "c", '--resources={"own": 1}', replaced={client: will_not_be_stopped}):
        done = hosts.run(*arguments(hosts, "own"), *path, "concurrency=4", "run.max_requests=16", timeout_s=200)
    assert done.returncode == 0, done.stderr
    (result,) = results(hosts, "own")
    seen = rows(result)
    assert {row["worker"] for row in seen} == {0, 1}
    assert set(by_address(result)) == {hosts.address("c")}
    for row in seen:
        assert row["status"] == "completed"
        assert TTFT_S <= (row["first_token_ns"] - row["sent_ns"]) / 1e9 < 20 * TTFT_S
    assert result["metrics"]["window_s"] < 20 * 4 * (TTFT_S + TOKENS * GAP_S)
    assert "litellm_own_stream" in {reason["reason"] for reason in result["validity"]["reasons"]}


def test_workers_stay_beside_an_endpoint_that_the_job_starts(hosts: Hosts) -> None:
    own = ["ray=cluster", f"ray.address={hosts.head}", "model=simulated", "run.max_requests=8", "tracking=none"]
    done = hosts.run(*own, "concurrency=4", f"paths.outputs={hosts.directory / 'beside'}")
    assert done.returncode == 0, done.stderr
    (result,) = results(hosts, "beside")
    assert set(by_address(result)) == {hosts.address("a")}
    assert "all workers run beside it" in done.stderr
    assert "all workers run beside it" in " ".join(result["notes"]["workload"])


def test_a_host_that_cannot_be_timed_to_ten_milliseconds_makes_the_run_invalid(hosts: Hosts) -> None:
    with third_host(hosts, "d"):
        job = ["concurrency=6", "run.max_requests=60"]
        done = hosts.run(*arguments(hosts, "far"), *job)
        assert done.returncode == 0, done.stderr
    (result,) = results(hosts, "far")
    far = by_address(result)[hosts.address("d")]
    assert 0.015 <= far["clock_uncertainty_s"] < 0.1
    assert abs(far["clock_offset_s"] - AHEAD_S["d"]) <= far["clock_uncertainty_s"]
    assert result["validity"]["verdict"] == "invalid"
    (reason,) = [one for one in result["validity"]["reasons"] if one["reason"] == "clock_uncertainty"]
    assert reason["level"] == "invalid"


def test_a_sweep_keeps_its_pairs_and_nodes_can_be_chosen(hosts: Hosts) -> None:
    done = hosts.run("-m", *arguments(hosts, "sweep"), "ray.nodes=others", "concurrency=2,4", "run.max_requests=12")
    assert done.returncode == 0, done.stderr
    for result in results(hosts, "sweep"):
        assert set(by_address(result)) == {hosts.address("b")}
        assert [row["index"] for row in rows(result)] == list(range(12))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["ray.workers=6", "concurrency=12"], "ray.workers"),
        (["ray.nodes=gpu-pool"], "ray.nodes"),
        (["model.api_key_env=HOSTS_TEST_KEY"], "HOSTS_TEST_KEY"),
    ],
)
def test_what_a_node_cannot_do_is_told_before_anything_is_sent(hosts: Hosts, more: list[str], said: str) -> None:
    name = said.lower()
    done = hosts.run(*arguments(hosts, name), *more, environment={"HOSTS_TEST_KEY": "k" * 20})
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    if said != "ray.nodes":
        named = hosts.address("a") if said == "ray.workers" else hosts.address("b")
        assert named in done.stderr
    assert not [result for result in results(hosts, name) if result["metrics"]]


def test_probes_of_a_search_keep_their_hosts(hosts: Hosts) -> None:
    search = ["capacity.enabled=true", "capacity.of=concurrency", "capacity.max_probes=3", "slo.e2e_latency_s=20"]
    done = hosts.run(*arguments(hosts, "search"), *search, "run.max_requests=30", timeout_s=200)
    assert done.returncode == 0, done.stderr
    probes = [result for result in results(hosts, "search") if result["folder"].parent.name == "probes"]
    assert len(probes) == 3
    for result in probes:
        uncertain = max(host["clock_uncertainty_s"] for host in result["client"]["hosts"])
        assert uncertain < 0.01
        assert all(row["status"] == "completed" for row in rows(result))
    assert set(by_address(probes[-1])) == {hosts.address("a"), hosts.address("b")}


def test_a_token_that_is_not_the_clusters_is_refused_by_name(hosts: Hosts) -> None:
    done = hosts.run(*arguments(hosts, "token"), environment={"RAY_AUTH_TOKEN": "w" * 64})
    assert done.returncode == 2, done.stderr
    assert "ray.address" in done.stderr
    assert "RAY_AUTH_TOKEN" in done.stderr
    assert "w" * 64 not in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_keeps_what_both_hosts_measured(hosts: Hosts) -> None:
    tool = hosts.start_tool(*arguments(hosts, "interrupted"), "concurrency=4", "run.max_requests=4000")
    wait_for_rows(hosts.directory / "interrupted", 30)
    tool.send_signal(signal.SIGINT)
    _, err = tool.communicate(timeout=60)
    assert tool.returncode == 130, err
    (result,) = results(hosts, "interrupted")
    assert result["status"] == "interrupted"
    assert result["metrics"]["requests_completed"] >= 30
    assert {row["worker"] for row in rows(result)} == {0, 1}


def wait_for_rows(directory: Path, count: int) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        for path in directory.rglob(records.ARROWS):
            if records.read(path.parent).num_rows >= count:
                return
        time.sleep(0.2)
    raise AssertionError("no rows were written in time")


def test_another_version_on_a_node_is_refused_and_a_node_that_dies_costs_its_requests_alone(
    hosts: Hosts,
) -> None:
    with third_host(hosts, replaced={Path(llmexp.__file__): '__version__ = "0.0.7"\n'}):
        done = hosts.run(*arguments(hosts, "version"), "concurrency=4")
        assert done.returncode == 2, done.stderr
        assert "0.0.7" in done.stderr
        assert hosts.address("c") in done.stderr
    with third_host(hosts):
        sweep = f"hydra.sweep.dir={hosts.directory / 'dies'}"
        job = ["-m", *arguments(hosts, "dies"), "concurrency=6", "run.max_requests=900"]
        tool = hosts.start_tool(*job, sweep)
        wait_for_rows(hosts.directory / "dies", 60)
        hosts.end("c")
        _, err = tool.communicate(timeout=100)
    assert tool.returncode == 1, err
    (result,) = results(hosts, "dies")
    assert result["status"] == "failed"
    assert hosts.address("c") in result["reason"]
    seen = rows(result)
    lost = [row for row in seen if row["error_class"] == "client"]
    assert 1 <= len(lost) <= 2
    assert {row["worker"] for row in lost} == {2}
    for worker in (0, 1):
        own = [row for row in seen if row["worker"] == worker]
        assert [row["status"] for row in own] == ["completed"] * 300
    reasons = {reason["reason"]: reason for reason in result["validity"]["reasons"]}
    assert reasons["load_lost"]["level"] == "invalid"
    assert 0.1 < reasons["load_lost"]["measured"] < 1 / 3
    done = hosts.run(*job, f"run.resume={hosts.directory / 'dies'}", timeout_s=200)
    assert done.returncode == 0, done.stderr
    again = next(result for result in results(hosts, "dies") if result["status"] == "finished")
    assert [row["index"] for row in rows(again)] == list(range(900))
    assert set(by_address(again)) == {hosts.address("a"), hosts.address("b")}


@contextmanager
def third_host(
    hosts: Hosts, name: str = "c", *options: str, replaced: Mapping[Path, str] | None = None
) -> Iterator[None]:
    """A node that comes and goes, with options of `ray start`; `replaced` are files that read otherwise there."""
    for at, (file, text) in enumerate((replaced or {}).items()):
        other = hosts.directory / f"other{at}.py"
        other.write_text(text)
        hosts.replaced.setdefault(name, {})[file] = other
    hosts.start_ray(name, *options)
    hosts.wait_for_nodes(3)
    try:
        yield
    finally:
        hosts.end(name)
        hosts.replaced.clear()
        hosts.wait_for_nodes(2)
