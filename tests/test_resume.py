"""A resumed sweep: what stands counts, what failed runs again, what was not recorded is."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from support.without_load import command, no_load  # noqa: F401 -- a fixture

from llmexp.errors import FAILED, OK, ConfigError
from llmexp.jobs import lock

pytestmark = pytest.mark.service

SWEEP = ("model.name=fast,slow",)


def change(path: Path, **changes: object) -> None:
    tree = json.loads(path.read_text())
    for key, value in changes.items():
        node = tree
        *parents, last = key.split("__")
        for parent in parents:
            node = node[parent]
        node[last] = value
    path.write_text(json.dumps(tree))


@pytest.mark.usefixtures("no_load")
def test_the_exit_status_of_a_resume_counts_what_stands() -> None:
    assert command(*SWEEP, "tracking=none").status == OK
    again = (*SWEEP, "tracking=none", "run.resume=out")
    assert command(*again).status == OK
    change(Path("out/0/result.json"), metrics__error_rate=0.5)
    assert command(*again).status == FAILED
    assert not Path("out/0.attempt1").exists(), "it was finished, however badly"


@pytest.mark.usefixtures("no_load")
def test_a_job_that_is_not_finished_runs_again_and_its_folder_is_kept() -> None:
    command(*SWEEP, "tracking=none")
    change(Path("out/1/result.json"), status="failed", reason="worker 0 died")
    before = json.loads(Path("out/1/result.json").read_text())["job"]["id"]
    assert command(*SWEEP, "tracking=none", "run.resume=out").status == OK
    after = json.loads(Path("out/1/result.json").read_text())
    assert after["status"] == "finished"
    assert after["job"]["id"] != before
    assert json.loads(Path("out/1.attempt1/result.json").read_text())["job"]["id"] == before


@pytest.mark.usefixtures("no_load")
def test_half_a_result_is_run_again() -> None:
    command(*SWEEP, "tracking=none")
    Path("out/0/result.json").write_text('{"job": {"id"')
    Path("out/sweep.json").write_text("")
    assert command(*SWEEP, "tracking=none", "run.resume=out").status == OK
    assert json.loads(Path("out/0/result.json").read_text())["status"] == "finished"
    assert Path("out/0.attempt1").is_dir()


PRICE = ("model.price.usd_per_million_input_tokens=0", "model.price.usd_per_million_output_tokens=1000")


@pytest.mark.usefixtures("no_load")
def test_what_a_killed_job_without_a_limit_cost_counts_once_there_is_one() -> None:
    command(*SWEEP, *PRICE, "tracking=none", "run.max_usd=null")
    costs = [json.loads(Path(f"out/{job}/result.json").read_text())["cost"]["cost_usd"] for job in (0, 1)]
    spent = json.loads(Path("out/ledger.json").read_text())["entries"]
    assert sum(one["billed"] for one in spent.values()) == pytest.approx(sum(costs))
    killed = json.loads(Path("out/1/result.json").read_text())
    killed |= {"status": "interrupted", "metrics": {}, "cost": {}}  # as `_begin` wrote it, and 60 rows on disk
    Path("out/1/result.json").write_text(json.dumps(killed))
    ledger = {"entries": {key: one for key, one in spent.items() if key != killed["job"]["id"]}}
    Path("out/ledger.json").write_text(json.dumps(ledger))
    again = (*SWEEP, *PRICE, "tracking=none", "run.resume=out")
    with pytest.raises(ConfigError, match=r"run\.max_usd: .* are spent"):
        command(*again, f"run.max_usd={sum(costs) * 1.2}")
    for _ in range(2):  # it is counted once
        entries = json.loads(Path("out/ledger.json").read_text())["entries"]
        assert sum(one["billed"] for one in entries.values()) == pytest.approx(sum(costs))
        with pytest.raises(ConfigError, match=r"run\.max_usd: .* are spent"):
            command(*again, f"run.max_usd={sum(costs) * 1.2}")


@pytest.mark.usefixtures("no_load")
def test_another_number_of_requests_is_another_sweep() -> None:
    command(*SWEEP, "tracking=none")
    with pytest.raises(ConfigError, match=r"run\.max_requests was 60, is 30"):
        command(*SWEEP, "tracking=none", "run.resume=out", "run.max_requests=30")
    assert sorted(path.name for path in Path("out").glob("[0-9]*")) == ["0", "1"]


@pytest.mark.usefixtures("no_load")
def test_a_sweep_never_joins_one_that_is_there() -> None:
    first, second = command(*SWEEP, "tracking=none"), command(*SWEEP, "tracking=none")
    assert (first.directory, second.directory) == (Path("out").resolve(), Path("out-2").resolve())
    assert not list(Path().rglob(lock.LOCK))


@pytest.mark.service
@pytest.mark.usefixtures("no_load")
def test_what_an_earlier_command_could_not_record_is_recorded_by_the_resume() -> None:
    command(*SWEEP, "tracking=none")
    assert command(*SWEEP, "run.resume=out").status == OK
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own use of its libraries
        from mlflow.tracking import MlflowClient

        client = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
        (experiment,) = client.search_experiments(filter_string="name = 'llmexp'")
        runs = client.search_runs([experiment.experiment_id])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert sorted(run.data.params["model.name"] for run in children) == ["fast", "slow"]
    assert all(run.info.status == "FINISHED" for run in runs)
