"""What arrives in MLflow, on real stores: SQLite databases and a server process on loopback."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from support.tracked_job import config, result, write_job, write_sweep

from llmexp import secrets
from llmexp.config import Tracking
from llmexp.errors import ConfigError, RecordingError
from llmexp.results import Run, parse
from llmexp.tracking import MlflowStore, NoStore, download, open_store, store_uri
from llmexp.tracking.connection import created_alone, shown_uri
from llmexp.tracking.job import job_entry, metrics_of
from llmexp.tracking.names import PARAM_LIMIT, TAG_LIMIT, as_params, clean_name
from llmexp.tracking.pages import with_links
from llmexp.tracking.sweep import sweep_of

pytestmark = pytest.mark.service


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def module_store(tmp_path_factory: pytest.TempPathFactory) -> MlflowStore:
    """One database for the tests that need not have it to themselves: creating one takes a second."""
    store = open_store(Tracking(uri=f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"), Path.cwd())
    assert isinstance(store, MlflowStore)
    return store


def client_of(store: MlflowStore) -> MlflowClient:
    return MlflowClient(tracking_uri=store.uri)


# --- one job ---------------------------------------------------------------------------------------------------------


def test_a_job_becomes_a_run_with_its_own_times_numbers_and_files(module_store: MlflowStore, tmp_path: Path) -> None:
    job_dir = write_job(tmp_path / "job", result("whole"))
    run_id = module_store.log_job(Run.at(job_dir), None)
    run = client_of(module_store).get_run(run_id)

    assert run.info.run_name == "sonnet c=4"
    assert run.info.status == "FINISHED"
    assert (run.info.end_time - run.info.start_time) == 30_500
    params = run.data.params
    assert params["concurrency"] == "4"
    assert params["model.name"] == "sonnet-1b"
    assert params["workload.input_tokens.mean"] == "128.0"
    assert params["run.save_text"] == "false"
    assert json.loads(params["model.params.stop"]) == ["\n", "END"]
    assert params["model"] == "sonnet"
    assert params["deployment.instance_type"] == "ml.g5.2xlarge"
    assert params["deployment.container.image"] == "djl:0.27"
    numbers = run.data.metrics
    assert numbers["ttft_s/p50"] == pytest.approx(0.388)
    assert numbers["client/loop_lag_s/p99"] == 0.001
    assert numbers["errors/throttled"] == 1
    assert numbers["slo/met"] == 1
    assert run.data.tags["llmexp.validity"] == "valid"
    assert run.data.tags["mlflow.source.git.commit"] == "a" * 40
    assert run.data.tags["llmexp.deployment.instance_type"] == "ml.g5.2xlarge"
    assert run.data.tags["team"] == "search"
    names = {item.path for item in client_of(module_store).list_artifacts(run_id)}
    assert names == {".hydra", "result.json", "requests.parquet", "quick_summary.json", "report.html", "timeline.png"}


def test_what_does_not_exist_is_absent(module_store: MlflowStore, tmp_path: Path) -> None:
    job_dir = write_job(tmp_path / "job", result("absent"))
    run = client_of(module_store).get_run(module_store.log_job(Run.at(job_dir), None))

    assert "time_to_first_answer_token_s" not in run.data.metrics
    assert "usd_per_million_output_tokens" not in run.data.metrics
    assert "load.rate" not in run.data.params
    assert "model.base_url" not in run.data.params
    assert not [key for key in run.data.params if key.startswith("model.rehearsal")]
    assert all(math.isfinite(value) for value in run.data.metrics.values())


def test_curves_are_step_metrics_over_seconds(module_store: MlflowStore, tmp_path: Path) -> None:
    run_id = module_store.log_job(Run.at(write_job(tmp_path / "job", result("curve", concurrency=16))), None)
    history = client_of(module_store).get_metric_history(run_id, "over_time/inflight")

    assert [point.step for point in history] == list(range(30))
    assert [point.value for point in history][:3] == [1, 2, 3]
    assert history[5].timestamp - history[4].timestamp == 1000


def test_logging_again_updates_the_same_run(module_store: MlflowStore, tmp_path: Path) -> None:
    tree = result("again")
    first = module_store.log_job(Run.at(write_job(tmp_path / "job", tree)), None)
    before = client_of(module_store).get_run(first)
    assert module_store.log_job(Run.at(tmp_path / "job"), None) == first
    same = client_of(module_store).get_run(first)
    assert (same.data, same.info.end_time) == (
        before.data,
        before.info.end_time,
    ) or same.to_dictionary() == before.to_dictionary()
    assert len(client_of(module_store).get_metric_history(first, "ttft_s/p50")) == 1

    tree["metrics"]["ttft_s"]["p50"] = 0.1
    tree["config"]["run"]["seed"] = 7
    reason = {
        "reason": "worker_cpu",
        "level": "degraded",
        "seen": "the busiest worker used 74 % of a core (limit 70 %)",
    }
    tree["validity"] = {
        "verdict": "degraded",
        "reasons": [reason | {"why": "it stamps late", "remedy": "Add workers."}],
    }
    (tmp_path / "job" / "result.json").write_text(json.dumps(tree))
    assert module_store.log_job(Run.at(tmp_path / "job"), None) == first
    changed = client_of(module_store).get_run(first)
    assert changed.data.metrics["ttft_s/p50"] == 0.1
    assert changed.data.params["run.seed"] == "11111"
    assert changed.data.tags["llmexp.validity"] == "degraded"
    note = changed.data.tags["mlflow.note.content"]
    assert "- degraded: the busiest worker used 74 % of a core (limit 70 %): it stamps late. Add workers." in note
    assert "- 3 requests were cut when run.grace_s ended." in note
    assert "| first token (TTFT) | 100 ms | 580 ms | 400 ms |" in note
    assert "Again: `python -m llmexp model=sonnet concurrency=4`" in note


@pytest.mark.parametrize(("status", "shown"), [("failed", "FAILED"), ("interrupted", "KILLED")])
def test_a_job_that_did_not_finish_says_so(module_store: MlflowStore, tmp_path: Path, status: str, shown: str) -> None:
    tree = result(status, status=status, reason="every request was refused (401)", metrics={}, curves=None, client=None)
    run = client_of(module_store).get_run(
        module_store.log_job(Run.at(write_job(tmp_path / "job", tree, requests=0)), None)
    )

    assert run.info.status == shown
    assert "every request was refused (401)" in run.data.tags["mlflow.note.content"]
    assert not run.inputs.dataset_inputs


def test_the_inputs_have_a_digest_that_follows_the_prompts_not_the_stack(
    module_store: MlflowStore, tmp_path: Path
) -> None:
    jobs = [
        write_job(tmp_path / "a", result("in-a", "sonnet")),
        write_job(tmp_path / "b", result("in-b", "llama")),
        write_job(tmp_path / "c", result("in-c", "llama"), workload="chat"),
    ]
    client = client_of(module_store)
    inputs = [client.get_run(module_store.log_job(Run.at(job), None)).inputs.dataset_inputs[0] for job in jobs]

    assert [one.dataset.name for one in inputs] == ["quick", "quick", "chat"]
    assert inputs[0].dataset.digest == inputs[1].dataset.digest != inputs[2].dataset.digest
    assert json.loads(inputs[0].dataset.profile)["num_rows"] == 8


def test_an_unset_concurrency_is_shown_as_what_it_stands_for() -> None:
    from llmexp.tracking.job import params_of

    def shown(tree: dict[str, Any]) -> dict[str, str]:
        return params_of(Run(parse({"job": {"id": "a1"}, "config": tree}, "here")))

    assert shown(config("m", None))["concurrency"] == "4"
    opened = config("m", None)
    opened["load"] |= {"kind": "poisson", "rate": 2.0}
    assert "concurrency" not in shown(opened)


def test_a_result_with_little_in_it_is_logged_all_the_same(module_store: MlflowStore, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "result.json").write_text('{"job": {"id": "bare"}}')
    run = client_of(module_store).get_run(module_store.log_job(Run.at(bare), None))

    assert (run.info.run_name, run.info.status) == ("bare", "FINISHED")


def test_names_and_values_stay_within_what_the_store_takes() -> None:
    assert clean_name("model.params.a b/ü$x/../y//z") == "model.params.a b/ü_x/y/z"
    assert len(clean_name("k" * 300)) == 250
    assert len(as_params({"long": "x" * 7000})["long"]) == PARAM_LIMIT
    assert metrics_of(
        parse({"job": {"id": "a1"}, "metrics": {"a": {"b": 1, "c": None, "d": "text", "e": math.inf}}}, "here")
    ) == {"a/b": 1.0}


def test_a_large_job_costs_little_to_log(module_store: MlflowStore, tmp_path: Path) -> None:
    tree = result("large")
    tree["metrics"] |= {f"extra_{number}": float(number) for number in range(60)}
    job_dir = write_job(tmp_path / "job", tree)
    module_store.log_job(Run.at(write_job(tmp_path / "warm", result("warm"))), None)
    began = time.perf_counter()
    module_store.log_job(Run.at(job_dir), None)
    assert time.perf_counter() - began < 2.0


# --- sweeps ----------------------------------------------------------------------------------------------------------


def test_a_sweep_is_a_parent_with_children_and_a_verdict(module_store: MlflowStore, tmp_path: Path) -> None:
    later = {"started_at": "2026-01-05T10:01:00.000000Z", "ended_at": "2026-01-05T10:01:30.500000Z"}
    jobs = {"0": result("s0", "sonnet"), "1": result("s1", "llama", status="failed", **later)}
    directory = write_sweep(tmp_path / "sweep", "sweep-1", jobs)
    client = client_of(module_store)

    parent = module_store.start_sweep(
        "sweep-1", "sonnet against llama", {"team": "search"}, {"load": {"kind": "closed"}}
    )
    assert client.get_run(parent).info.status == "RUNNING"
    children = [module_store.log_job(Run.at(directory / name), parent) for name in jobs]
    module_store.finish_sweep(parent, "failed", "sonnet's TTFT is **lower**", directory)

    run = client.get_run(parent)
    assert (run.info.run_name, run.info.status) == ("sonnet against llama", "FAILED")
    note, place = run.data.tags["mlflow.note.content"], f"#/experiments/{module_store.experiment_id}/runs"
    assert note.startswith("sonnet's TTFT is **lower**\n\nEach job's page: [sonnet c=4](")
    assert [f"({place}/{child}/artifacts/report.html)" in note for child in children] == [True, True]
    page = Path(client.download_artifacts(parent, "comparison.html", str(tmp_path))).read_text()
    assert page == '<h1 id="top">sonnet is faster</h1><a href="#top">up</a> sonnet c=4'
    assert run.data.params["load.kind"] == "closed"
    assert {item.path for item in client.list_artifacts(parent)} == {
        "comparison.csv",
        "comparison.html",
        "multirun.yaml",
    }
    for child in children:
        assert client.get_run(child).data.tags["mlflow.parentRunId"] == parent
        assert client.get_run(child).data.tags["llmexp.sweep"] == "sweep-1"


def test_a_long_description_keeps_its_words_and_as_many_links_as_there_is_room_for() -> None:
    jobs = [(f"vllm_a · c{at}", f"{at:032}") for at in range(100)]
    note = with_links("x" * 5000, "123", jobs)
    assert note.startswith("x" * 5000)
    assert 7800 < len(note) <= TAG_LIMIT
    assert re.search(
        r"\[vllm\\_a · c0\]\(#/experiments/123/runs/0+/artifacts/report\.html\), .* and \d\d more below$", note
    )
    assert with_links("x" * 9000, "123", jobs) == "x" * (TAG_LIMIT - 1) + "…"
    assert with_links("said", "123", []) == "said"


def test_a_sweep_without_a_verdict_says_what_became_of_its_jobs(module_store: MlflowStore, tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "sweep", "mute", {"0": result("m0"), "1": result("m1", status="failed")})
    parent = module_store.start_sweep("mute", "mute", {}, {})
    module_store.finish_sweep(parent, "failed", "", directory)
    note = client_of(module_store).get_run(parent).data.tags["mlflow.note.content"]
    assert note.startswith("A sweep of 2 jobs: 1 finished, 1 failed.")


def test_a_sweep_is_taken_up_again_and_replaced_jobs_are_marked(module_store: MlflowStore, tmp_path: Path) -> None:
    assert module_store.resume_sweep("sweep-2") is None
    parent = module_store.start_sweep("sweep-2", "before", {}, {"a": 1})
    module_store.finish_sweep(parent, "interrupted", "cut", tmp_path)
    old = module_store.log_job(Run.at(write_job(tmp_path / "0", result("old", job={"sweep": "sweep-2"}))), parent)

    assert module_store.resume_sweep("sweep-2") == parent
    secrets.register("name-of-a-model-0123")
    named = module_store.start_sweep("sweep-2", "after name-of-a-model-0123", {}, {"a": 2, "b": 3})
    assert named == parent
    assert module_store.find_job("old") == old
    module_store.supersede(old)
    run = client_of(module_store).get_run(parent)
    assert (run.info.status, run.info.run_name, run.data.params) == ("RUNNING", "after ***", {"a": "1", "b": "3"})
    assert client_of(module_store).get_run(old).data.tags["llmexp.superseded"] == "true"


def test_a_sweep_directory_tells_what_its_parent_needs(tmp_path: Path) -> None:
    jobs = {str(number): result(f"d{number}", "sonnet", 2**number) for number in range(11)}
    jobs["3.attempt1"] = result("d3-old", "sonnet", 8, status="failed")
    sweep = sweep_of(write_sweep(tmp_path / "2026-01-05", "sweep-3", jobs))

    names = [run.directory.name for run in sweep.runs if run.directory]
    assert names == ["0", "1", "2", "3", "3.attempt1", "4", "5", "6", "7", "8", "9", "10"]
    assert (sweep.id, sweep.name, sweep.status) == ("sweep-3", "2026-01-05", "finished")
    assert sweep.params["model.name"] == "sonnet-1b"
    assert "concurrency" not in sweep.params
    (tmp_path / "2026-01-05" / "sweep.json").write_text('{"name": "sonnet", "description": "a tie"}')
    assert (sweep_of(tmp_path / "2026-01-05").name, sweep_of(tmp_path / "2026-01-05").description) == (
        "sonnet",
        "a tie",
    )


def test_download_finds_runs_sweeps_and_jobs(module_store: MlflowStore, tmp_path: Path) -> None:
    jobs = {"0": result("w0", "sonnet"), "1": result("w1", "llama"), "1.attempt1": result("w1-old", "llama")}
    directory = write_sweep(tmp_path / "sweep", "sweep-4", jobs)
    parent = module_store.start_sweep("sweep-4", "four", {}, {})
    runs = [module_store.log_job(Run.at(directory / name), parent) for name in jobs]

    def ids(wanted: str) -> list[str]:
        found = download(wanted, module_store.uri)
        return [json.loads((path / "result.json").read_text())["job"]["id"] for path in found]

    assert sorted(ids("sweep-4")) == sorted(ids(parent)) == ["w0", "w1"]
    assert ids(runs[1]) == ids("w1") == ["w1"]
    with pytest.raises(ConfigError, match=r"nothing-like-it: no run, sweep or job"):
        download("nothing-like-it", module_store.uri)


# --- the store -------------------------------------------------------------------------------------------------------


def test_the_default_store_is_the_one_that_mlflow_ui_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert store_uri("sqlite:///here/a.db", tmp_path) == f"sqlite:///{tmp_path}/here/a.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert store_uri(None, tmp_path) == "http://127.0.0.1:9"
    assert store_uri("sqlite:////x.db", tmp_path) == "sqlite:////x.db"
    assert shown_uri("postgresql://me:secret@db/x") == "postgresql://me:***@db/x"


def test_no_store_does_nothing(tmp_path: Path) -> None:
    store = open_store(Tracking(kind="none"), tmp_path)
    assert isinstance(store, NoStore)
    assert store.start_sweep("s", "name", {}, {}) == store.log_job(Run(parse(result("none"), "here")), None) == ""
    assert store.resume_sweep("s") is None
    assert list(tmp_path.iterdir()) == []


def test_the_experiment_explains_itself_and_asks_for_the_runs_view(module_store: MlflowStore) -> None:
    experiment = client_of(module_store).get_experiment(module_store.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert "ttft_s/p50" in experiment.tags["mlflow.note.content"]
    assert Path(experiment.artifact_location.removeprefix("file://")).parent.name == "mlruns"


SCRIPT = """
import sys
from pathlib import Path
from llmexp.config import Tracking
from llmexp.results import Run
from llmexp.tracking import open_store
store = open_store(Tracking(), Path.cwd())
for job in sys.argv[1:]:
    print(store.log_job(Run.at(Path(job)), None))
"""


def _logging(cwd: Path, *jobs: Path, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, **variables}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, *map(str, jobs)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_several_processes_create_the_store_at_once_and_say_nothing(tmp_path: Path) -> None:
    jobs = [write_job(tmp_path / f"job{number}", result(f"p{number}")) for number in range(2)]
    half_made = tmp_path / ".mlflow.db.partial"  # by a process that was killed
    half_made.write_bytes(b"SQLite format 3")
    processes = [_logging(tmp_path, job, MLFLOW_RUN_ID="f" * 32) for job in jobs]
    answers = [process.communicate(timeout=120) for process in processes]

    assert [process.returncode for process in processes] == [0, 0], answers
    assert [stderr for _, stderr in answers] == ["", ""]
    assert all(len(stdout.split()) == 1 and stdout.strip() != "f" * 32 for stdout, _ in answers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own use of its libraries, the first time in a process
        found = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db").search_runs(["1"])
    assert {run.data.tags["llmexp.job"] for run in found} == {"p0", "p1"}
    assert not half_made.exists()


def test_an_absent_server_costs_seconds_and_says_what_to_do(tmp_path: Path) -> None:
    from support.mlflow_server import free_port

    port = free_port()
    began = time.perf_counter()
    with pytest.raises(RecordingError) as caught:
        open_store(Tracking(uri=f"http://127.0.0.1:{port}"), tmp_path)
    assert time.perf_counter() - began < 20
    message = str(caught.value)
    assert "\n" not in message
    assert f"http://127.0.0.1:{port}: cannot be reached (" in message
    assert "Connection refused" in message
    assert caught.value.exit_status == 4


def test_a_deleted_experiment_and_a_server_s_experiment_are_explained(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    store = open_store(Tracking(uri=uri, experiment="gone"), tmp_path)
    assert isinstance(store, MlflowStore)
    client_of(store).delete_experiment(store.experiment_id)
    with pytest.raises(RecordingError, match=r"'gone' .* is deleted; restore it"):
        open_store(Tracking(uri=uri, experiment="gone"), tmp_path)
    client_of(store).create_experiment("served", artifact_location="mlflow-artifacts:/7")
    with pytest.raises(RecordingError, match="MLFLOW_TRACKING_URI"):
        open_store(Tracking(uri=uri, experiment="served"), tmp_path)


@pytest.mark.timeout(150)
def test_a_server_takes_the_same_runs_and_gives_the_files_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from support.mlflow_server import serving

    directory = write_sweep(tmp_path / "sweep", "remote", {"0": result("r0"), "1": result("r1", "llama")})
    with serving(tmp_path) as uri:
        store: Any = open_store(Tracking(uri=uri), tmp_path)
        parent = store.start_sweep("remote", "remote", {}, {})
        run_id = store.log_job(Run.at(directory / "0"), parent)
        assert store.log_job(Run.at(directory / "0"), parent) == run_id
        store.log_job(Run.at(directory / "1"), parent)
        store.finish_sweep(parent, "finished", "a tie", directory)

        assert capfd.readouterr().out == ""
        run = MlflowClient(tracking_uri=uri).get_run(run_id)
        assert run.data.metrics["ttft_s/p50"] == pytest.approx(0.388)
        assert run.inputs.dataset_inputs[0].dataset.name == "quick"
        found = download("remote", uri)
        assert len(found) == 2
        assert all(str(path).startswith(str(tmp_path / "cache")) for path in found)
        (first,) = [path for path in found if run_id in path.parts]
        assert (first / "requests.parquet").read_bytes() == (directory / "0" / "requests.parquet").read_bytes()
        stamp = (first / "result.json").stat().st_mtime_ns
        assert (download(run_id, uri)[0] / "result.json").stat().st_mtime_ns == stamp
    with pytest.raises(RecordingError, match="cannot be reached"):
        store.log_job(Run.at(directory / "0"), parent)


def test_importing_it_imports_no_mlflow() -> None:
    code = (
        "import sys, llmexp.tracking, llmexp.relog, llmexp.ui; print('mlflow' in sys.modules, 'pyarrow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_run_s_name_holds_no_secret(tmp_path: Path) -> None:
    secrets.register("name-of-a-model-4567")
    run = Run.at(write_job(tmp_path / "0", result("x", "name-of-a-model-4567")))
    assert "name-of-a-model-4567" in run.name
    assert "name-of-a-model-4567" not in job_entry(run).name


def test_the_entry_of_a_replaced_attempt_is_superseded(tmp_path: Path) -> None:
    assert job_entry(Run.at(write_job(tmp_path / "4.attempt2", result("x")))).tags["llmexp.superseded"] == "true"
    assert "llmexp.superseded" not in job_entry(Run.at(write_job(tmp_path / "4", result("y")))).tags


def test_one_process_at_a_time_creates_a_database_and_no_file_marks_it(tmp_path: Path) -> None:
    with created_alone(tmp_path / "mlflow.db"):
        assert list(tmp_path.iterdir()) == []
        descriptor = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_grades_become_a_table_with_the_wrong_ones_first(module_store: MlflowStore, tmp_path: Path) -> None:
    from llmexp.quality.grade import graded, ungraded
    from llmexp.quality.grading import attach

    job_dir = write_job(tmp_path / "job", result("graded"), requests=1200)
    grades = {row: graded(float(row % 3 > 0), 1.0, "read: 4") for row in range(1200)} | {
        7: ungraded("the judge failed")
    }
    attach(job_dir, grades, keep_texts=False)
    for _ in range(2):  # logging again changes nothing
        run_id = module_store.log_job(Run.at(job_dir), None)
    client = client_of(module_store)
    table = json.loads(Path(client.download_artifacts(run_id, "grades.json", str(tmp_path))).read_text())
    assert [row[table["columns"].index("right")] for row in table["data"]] == [False] * 400 + [None] + [True] * 599
    assert "text" not in table["columns"]
    assert json.loads(client.get_run(run_id).data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "grades.json", "type": "table"}
    ]
