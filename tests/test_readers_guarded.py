"""Nothing measured is ever lost: a failure planted into each reader in turn, with all readers and files real."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.without_load import command, no_load  # noqa: F401 -- a fixture

from llmexp import records, results
from llmexp.benchmark import driver
from llmexp.benchmark.measurement import Measurement
from llmexp.config import Tracking
from llmexp.errors import FAILED, INTERRUPTED, MISSED, OK, UNRECORDED, ConfigError, JobError
from llmexp.jobs.reading import Reading
from llmexp.jobs.sweep import CommandRun
from llmexp.results import Run
from llmexp.results.guard import Guard
from llmexp.tracking import open_store

pytestmark = [pytest.mark.usefixtures("no_load"), pytest.mark.service]
SWEEP = ("model.name=fast,slow", "tracking=none")
LONG = "an-open-model-of-a-very-long-name/" * 9


def boom(*_: object, **__: object) -> None:
    raise RuntimeError("planted\nover two lines")


def whole(directory: str) -> Run:
    """The job of a folder with all of its numbers and requests."""
    run = Run.at(Path(directory))
    assert run.result.status == "finished"
    assert run.metrics.number("requests_completed") == 60
    assert records.read(Path(directory)).num_rows == 60
    assert not (Path(directory) / records.ARROWS).exists()
    return run


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert all("\n" not in line for line in lines)
    return lines


READERS = {
    "llmexp.llmperf.files.write_job": ("LLMPerf's files were not written", "python -m llmexp.relog out/0"),
    "llmexp.report.job": ("report.html was not drawn", "python -m llmexp.relog out/0"),
    "llmexp.report.timeline._steps": ("timeline.png was not drawn", "python -m llmexp.relog out/0"),
    "llmexp.terminal.line.render": ("the job's table could not be shown", "out/0"),
    "llmexp.compare.compare": ("the comparison could not be made", "python -m llmexp.compare out"),
    "llmexp.compare.write": ("comparison.csv and comparison.json were not written", "python -m llmexp.compare out"),
    "llmexp.compare.render": ("the comparison's table could not be shown", "python -m llmexp.compare out"),
    "llmexp.report.comparison": ("comparison.html was not drawn", "python -m llmexp.compare out"),
    "llmexp.report.plots._intervals": ("comparison_verdicts.png was not drawn", "python -m llmexp.compare out"),
}
FILES = {"comparison.csv", "comparison.json", "comparison.html"}


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_that_fails_costs_one_line_and_nothing_else(
    reader: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said, later = READERS[reader]
    monkeypatch.setattr(reader, boom)
    assert command(*SWEEP).status == OK
    for folder in ("out/0", "out/1"):
        whole(folder)
    lines = [line for line in errors(caplog) if later in line]
    assert lines, errors(caplog)
    assert lines[0].startswith(said)
    assert "RuntimeError: planted over two lines" in lines[0]
    missing = FILES - {path.name for path in Path("out").iterdir()}
    unmade = {"llmexp.compare.compare": FILES, "llmexp.report.comparison": {"comparison.html"}}
    assert missing == unmade.get(reader, FILES - {"comparison.html"} if reader == "llmexp.compare.write" else set())


def test_a_sweep_says_a_line_for_each_job_and_one_block_at_the_end(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "llmexp")
    assert command(*SWEEP).status == OK
    shown = capsys.readouterr().out.splitlines()
    jobs = [line for line in shown if "60 completed" in line]
    assert len(jobs) == 2
    assert all(": valid · TTFT p50 " in line and " tokens/s · " in line for line in jobs)
    assert [line for line in shown if line.startswith("concurrency 4")], "the comparison's table"
    begun = [record.getMessage() for record in caplog.records if record.getMessage().startswith("[")]
    assert not begun[0].endswith("left")
    assert begun[1].startswith("[2/2]")
    assert begun[1].endswith(" left")


def test_a_store_that_refuses_one_job_keeps_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from llmexp.tracking import store

    genuine = store.job_entry
    monkeypatch.setattr(store, "job_entry", lambda job: boom() if job.directory.name == "0" else genuine(job))
    assert command("model.name=fast,slow").status == UNRECORDED
    for folder in ("out/0", "out/1"):
        whole(folder)
    (line,) = errors(caplog)
    assert line.startswith("the job was not recorded in MLflow: MLflow at sqlite")
    assert line.endswith("later: python -m llmexp.relog out/0")
    opened = open_store(Tracking(), Path.cwd())
    runs = opened._client.search_runs([opened.experiment_id])  # type: ignore[attr-defined]
    states = {run.data.tags["llmexp.kind"]: run.info.status for run in runs}
    assert states == {"job": "FINISHED", "sweep": "FINISHED"}
    assert len(runs) == 2


def test_mlflow_shows_a_sweep_as_people_compare_it() -> None:
    """Options by name, repeats from 1, what was sent, the metrics that are compared, and the sweep's own curves."""
    over = ["model.name=fast,slow", "concurrency=2,4", "run.repeats=2", "workload=quick"]
    assert command(*over).status == OK
    opened = open_store(Tracking(), Path.cwd())
    runs = opened._client.search_runs([opened.experiment_id])  # type: ignore[attr-defined]
    (parent,) = [run for run in runs if run.data.tags["llmexp.kind"] == "sweep"]
    jobs = [run for run in runs if run is not parent]
    assert len(jobs) == 8
    assert {run.data.params["model"] for run in jobs} == {"openai_compatible"}
    assert {run.data.params["workload"] for run in jobs} == {"quick"}
    assert {run.data.params["concurrency"] for run in jobs} == {"2", "4"}
    assert {run.data.tags["llmexp.repeat"] for run in jobs} == {"1", "2"}
    assert {dataset.dataset.name for run in jobs for dataset in run.inputs.dataset_inputs} == {"quick"}
    for run in jobs:
        assert {"ttft_s/p50", "ttft_s/mean", "e2e_latency_s/p99", "inter_token_latency_s/p50"} <= set(run.data.metrics)
        compared = [name for name in run.data.metrics if not name.startswith("over_")]
        assert 40 <= len(compared) <= 75, sorted(compared)
    note = parent.data.tags["mlflow.note.content"]
    assert "'s mean TTFT is lower than " in note or "'s mean TTFT is" in note
    assert "| load | stack | mean TTFT |" in note
    curves = {name for name in parent.data.metrics if name.startswith("over_concurrency/")}
    assert {f"over_concurrency/ttft_s_p95/{stack}" for stack in ("fast", "slow")} <= curves
    points = opened._client.get_metric_history(parent.info.run_id, "over_concurrency/ttft_s_p95/fast")  # type: ignore[attr-defined]
    assert [point.step for point in points] == [2, 4]


def test_a_store_that_is_away_is_said_once_and_costs_4(caplog: pytest.LogCaptureFixture) -> None:
    assert command("model.name=fast,slow", "tracking.uri=http://127.0.0.1:9").status == UNRECORDED
    for folder in ("out/0", "out/1"):
        whole(folder)
    (line,) = errors(caplog)
    assert "MLflow at http://127.0.0.1:9: cannot be reached" in line
    assert line.endswith("later: python -m llmexp.relog out")


@pytest.mark.parametrize("demand", ["slo.enforce=true", "compare.fail_on=regression compare.baseline=fast"])
def test_a_demanded_comparison_that_could_not_be_made_is_missed(demand: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmexp.compare.compare", boom)
    assert command(*SWEEP, "slo.ttft_s=9", *demand.split()).status == MISSED


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_while_the_last_job_is_read(
    times: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first one waits for the readers, the second one does not; the sweep is ended and compared both times."""
    from llmexp.llmperf import files

    genuine, waits, ended = files.write_job, threading.Event(), threading.Event()
    monkeypatch.setattr(Reading, "finish", _inside(Reading.finish, waits))
    monkeypatch.setattr(CommandRun, "_end", _after(CommandRun._end, ended))

    def pressed(run: Run) -> None:
        if [*Path("out").glob("*/report.html")]:
            assert waits.wait(10), "the command waits for this reader, and nothing else is to be done"
            for heard in range(1, times + 1):
                os.kill(os.getpid(), signal.SIGINT)
                while sum("what is under way" in said for said in caplog.messages) + ended.is_set() < heard:
                    time.sleep(0.01)
        genuine(run)

    monkeypatch.setattr("llmexp.llmperf.files.write_job", pressed)
    assert command(*SWEEP).status == INTERRUPTED
    for folder in ("out/0", "out/1"):
        whole(folder)
    assert {path.name for path in Path("out").iterdir()} >= FILES
    said = "the last job's files may not be complete: interrupted; later: python -m llmexp.relog out"
    assert [line for line in errors(caplog) if line.startswith("the last job")] == [said] * (times - 1)


def _inside(method: Callable[[Reading, float | None], None], inside: threading.Event) -> Callable[..., None]:
    def run(self: Reading, limit_s: float | None = None) -> None:
        inside.set()
        method(self, limit_s)
        inside.clear()

    return run


def _after(method: Callable[[CommandRun], None], ended: threading.Event) -> Callable[[CommandRun], None]:
    def run(self: CommandRun) -> None:
        method(self)
        ended.set()

    return run


def test_cloudwatch_is_waited_for_once_the_numbers_are_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    def asked(*_: object) -> dict[str, float]:
        seen.append(int(whole("out/0").metrics.number("requests_completed") or 0))
        raise KeyboardInterrupt

    monkeypatch.setattr("llmexp.endpoints.aws.cloudwatch", asked)
    monkeypatch.setattr("llmexp.endpoints.aws.facts", lambda *_, **__: {})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAxxxxxxxx")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "for-a-test-only")
    over = ["model.deployment.kind=sagemaker", "model.region=us-east-1", "+model.deployment.cloudwatch=true"]
    assert command(*SWEEP[1:], "model.name=fast", *over).status == INTERRUPTED
    assert seen == [60]
    whole("out/0")


@contextmanager
def disk_full_at(size: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes: what a write gets from a full disk, but for its number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_during_the_load_keeps_every_number(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with disk_full_at(16_000):
        assert command(*SWEEP).status == FAILED
    shown = capsys.readouterr().out
    assert shown.count("60 completed") == 2, "the line of each job, from memory"
    assert shown.count("the disk was full: 60 requests are in these numbers") == 2
    assert errors(caplog)


def test_a_job_whose_disk_was_full_does_not_count_as_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    compared = CommandRun._compare

    def load(_self: driver.Benchmark) -> Measurement:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
        raise JobError("no room for what came back")

    def with_room_again(self: CommandRun) -> str:
        assert results.read(Path("out/0")).reason == "the process was killed", "what a job's folder says as it begins"
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        return compared(self)

    monkeypatch.setattr(driver.Benchmark, "run", load)
    monkeypatch.setattr(CommandRun, "_compare", with_room_again)
    try:
        assert command("tracking=none", "model.name=fast").status == FAILED
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    found = results.read(Path("out/0"))
    assert (found.status, found.reason) == ("failed", "no room for what came back")
    page = Path("out/comparison.html").read_text()
    assert "no room for what came back" in page
    assert "killed" not in page


def test_what_a_full_disk_did_not_take_is_held_and_written_when_there_is_room(tmp_path: Path) -> None:
    batches = [
        records.to_batch([records.Record(at, 0, "completed", at, at, error_message="x" * 900)]) for at in range(9)
    ]
    with records.Writer(tmp_path, {"wall_ns": 1, "monotonic_ns": 1}) as writer:
        writer.append(batches[0])
        size = (tmp_path / records.ARROWS).stat().st_size
        with disk_full_at(size + len(batches[1]) + 100):
            for batch in batches[1:]:
                writer.append(batch)
            assert len(writer.held) == 7
            assert records.read(tmp_path).num_rows == 2, "whole batches alone"
    assert (writer.held, records.read(tmp_path)["index"].to_pylist()) == ([], list(range(9)))


def test_a_name_that_no_file_system_takes(caplog: pytest.LogCaptureFixture) -> None:
    assert command("tracking=none", f"model.name={LONG},slow").status == OK
    whole("out/0")
    (summary,) = Path("out/0").glob("*summary.json")
    assert json.loads(summary.read_text())["model"] == LONG
    assert errors(caplog) == []


def test_numbers_on_disk_are_never_overwritten_by_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmexp.jobs import job

    genuine = job.conclude

    def later(*given: object, **named: object) -> Run:
        genuine(*given, **named)  # type: ignore[arg-type]
        return boom()  # type: ignore[return-value]

    monkeypatch.setattr(job, "conclude", later)
    command(*SWEEP)
    for folder in ("out/0", "out/1"):
        whole(folder)


SHOWS = """
import sys
from llmexp.terminal import out
for at in range(20000):
    out.show(f"line {at} – µs · 表 ✓")
out.finish()
sys.exit(3)
"""


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_output_that_the_terminal_cannot_encode_or_nobody_reads(encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    script = f"{sys.executable} -c '{SHOWS}' | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (3, b"")
    assert done.stdout.startswith(b"line 0 ")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_that_the_shell_closed_take_what_is_said(closed: str) -> None:
    says = "from llmexp.terminal import out; import sys; out.open_closed(); out.show(str(sys.stdout.isatty())); "
    script = f"{sys.executable} -c '{says} out.tell(str(sys.stderr.isatty())); out.finish()' {closed}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, b"" if "2>" in closed else b"False")


def test_the_guard_names_what_later_and_status(caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard()
    with guard("it was not done", "do it", UNRECORDED):
        raise OSError(28, "No space left on device", "/x/y")
    assert errors(caplog) == ["it was not done: [Errno 28] No space left on device: '/x/y'; later: do it"]
    assert guard.statuses == [UNRECORDED]


def test_a_result_is_readable_before_the_first_reader_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    def reads(run: Run) -> None:
        assert run.directory is not None
        found.append(results.read(run.directory).status)
        whole(str(run.directory))

    monkeypatch.setattr("llmexp.llmperf.files.write_job", reads)
    assert command(*SWEEP).status == OK
    assert found == ["finished", "finished"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["compare.primary=ttft"], "compare.primary: there is no metric 'ttft'; did you mean ttft_s/"),
        (["compare.baseline=fats"], "compare.baseline: no model of this command is called 'fats'; there are: "),
        (["compare.fail_on=regression"], "within one sweep a regression needs a stack to be held against"),
    ],
)
def test_what_no_comparison_could_answer_is_said_before_anything_is_sent(asked: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        command(*SWEEP, *asked)
    assert not Path("out").exists()
