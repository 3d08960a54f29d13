"""llmexp from Python: what needs no load."""

from __future__ import annotations

import subprocess
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import synthetic
from support.samples import record, table
from support.synthetic import Truth

import llmexp
from llmexp import records
from llmexp.api import Job, Sweep, with_latencies
from llmexp.config import Slo
from llmexp.errors import ConfigError
from llmexp.metrics.summary import observe, summarize

pytestmark = pytest.mark.e2e  # whole commands, composed as the user's are


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, llmexp; print({'ray', 'mlflow', 'pandas', 'numpy', 'hydra', 'litellm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_notebook_completes_what_is_there() -> None:
    assert {"load", "run", "sweep"} <= set(dir(llmexp))


@pytest.mark.parametrize(
    ("overrides", "config_dir", "message"),
    [
        (["concurency=4"], None, "concurency: unknown key; did you mean concurrency?"),
        (["model=sonet"], None, "model=sonet: no such option; did you mean model=sonnet?"),
        (["concurrency=0", "model=simulated"], None, "concurrency: must be at least 1, got 0"),
        (["model=simulated,smollm2"], None, "these overrides make 2 jobs; use llmexp.sweep"),
        (["model=simulated", "run.repeats=3"], None, "run.repeats=3 makes 3 jobs; use llmexp.sweep"),
        (["model=simulated", "run.resume=."], None, "run.resume completes a sweep; use llmexp.sweep"),
        ("model=simulated", None, "overrides: must be a list of texts, such as ['model=simulated']"),
        (["model=simulated", "dry_run=true"], None, "dry_run: nothing is run"),
        ([], "nowhere", "config_dir: no such directory: 'nowhere'"),
    ],
)
def test_what_the_command_answers_with_2_is_raised(
    overrides: list[str], config_dir: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        llmexp.run(overrides, config_dir)
    assert message in str(raised.value)
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize(
    "override",
    [
        "model.api_key=KEY",
        "models.api_key=KEY",
        "model.headers={Authorization: KEY",
        "model.name=${oc.env:LLMEXP_NOT_SET}-KEY",
        "+model.params.api_key=KEY",
    ],
)
def test_what_a_notebook_prints_of_an_error_holds_no_key(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    key = "-".join(["sk", "proj", "Qm7xT2vB9cLwR4nZ8kHd"])
    with pytest.raises(ConfigError) as raised:
        llmexp.run(["model=gpt", override.replace("KEY", key)])
    printed = "".join(traceback.format_exception(raised.value))
    assert "Qm7x" not in printed
    assert "8kHd" not in printed


def test_a_job_is_loaded_with_its_latencies(tmp_path: Path) -> None:
    directory = synthetic.write_job(tmp_path / "0", Truth(requests=40), 1)
    job = llmexp.load(directory)
    assert isinstance(job, Job)
    frame = job.requests()
    summary = summarize(observe(directory), slo=Slo(), open_loop=False, streams=4)
    done = frame[frame.status == "completed"]
    for name in ("ttft_s", "e2e_latency_s", "time_per_output_token_s", "output_tokens_per_s_per_request"):
        assert np.isclose(done[name].mean(), summary[name]["mean"], rtol=1e-6), name
    assert len(frame) == records.read(directory).num_rows
    assert "pages" not in job._repr_html_()
    assert repr(job) == f"<Job {job.run.name}: finished, valid; {directory}>"


def test_a_sweep_is_loaded_with_table_and_comparison(tmp_path: Path) -> None:
    stacks = [Truth("a", requests=20), Truth("b", requests=20, ttft_s=0.3)]
    directory = synthetic.write_sweep(tmp_path / "sweep", stacks, [1, 4], repeats=3)
    sweep = llmexp.load(directory)
    assert isinstance(sweep, Sweep)
    table = sweep.table()
    assert len(table) == 12
    assert set(table.model) == {"a", "b"}
    assert "ttft_s/p50" in table
    assert "a" in sweep.comparison.headline
    assert repr(sweep) == f"<Sweep of 12 jobs; {directory}>"


def test_a_folder_of_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no job"):
        llmexp.load(tmp_path)


def test_derived_columns_are_absent_where_they_do_not_exist() -> None:
    whole = replace(record(0), sent_ns=10**9, first_token_ns=2 * 10**9, last_token_ns=3 * 10**9)
    broken = replace(record(1), status="failed", sent_ns=10**9, first_token_ns=None, last_token_ns=None)
    frame = with_latencies(table([whole, broken]).to_pandas())
    assert frame.ttft_s.notna().tolist() == [True, False]
    assert frame.ttft_s[0] == 1.0
