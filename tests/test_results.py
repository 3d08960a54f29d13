"""The files of a job, and what a person sees of it."""

import json
import math
import subprocess
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from support.samples import failure, record, table

from llmexp import results
from llmexp.config import Slo, defaults
from llmexp.errors import ResultError
from llmexp.metrics.summary import curves, errors, observe, output_length, summarize
from llmexp.metrics.validity import ClientFacts, judge
from llmexp.records import Record
from llmexp.results import JobInfo, Result
from llmexp.results.build import remarks
from llmexp.results.environment import environment, git_state
from llmexp.results.model import Metrics
from llmexp.terminal import glance

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
KEYS = """schema_version job status reason started_at ended_at config environment deployment metrics curves server
errors validity client cost notes"""


def result_of(rows: list[Record], facts: ClientFacts | None = None, **changes: Any) -> Result:
    observed = observe(table(rows))
    parts: dict[str, Any] = {
        "job": JobInfo(id="a1", name="sonnet c=4"),
        "status": "finished",
        "reason": None,
        "started": NOON,
        "ended": NOON,
        "config": defaults(),
        "environment": {},
        "metrics": summarize(observed, slo=Slo(ttft_s=0.5), open_loop=False, streams=4, cost=lambda *_: 0.001),
        "curves": curves(observed),
        "errors": errors(observed),
        "notes": {"output_length": output_length(observed)},
        "validity": judge(facts or ClientFacts(len(rows), loop_lag_p99_s=0.001)),
    }
    return results.build(**{**parts, **changes})


def several(count: int = 40) -> list[Record]:
    return [record(at, sent=at / 4, chunks=[at / 4 + 0.2 + 0.02 * one for one in range(20)]) for at in range(count)]


# --- result.json -----------------------------------------------------------------------------------------------------


def test_what_cut_requests_is_said_rightly() -> None:
    cut = {"requests_unfinished": 3}
    assert "when run.grace_s ended" in remarks(cut, {}, {}, "finished")[0]
    interrupted = remarks(cut, {}, {}, "interrupted")[0]
    assert interrupted == "3 requests were cut when the job was interrupted: latencies are censored."


def test_a_result_has_the_documented_keys_and_comes_back_as_written(tmp_path: Path) -> None:
    result = result_of([*several(), failure(99)])
    assert list(results.tree_of(result)) == KEYS.split()
    path = results.write(tmp_path, result)
    assert [one.name for one in tmp_path.iterdir()] == ["result.json"]
    assert results.read(tmp_path) == result
    assert "NaN" not in path.read_text()
    assert result.metrics.number("ttft_s/count") == 40
    assert result.errors["server"].count == 1


def test_what_strict_json_cannot_hold_becomes_what_it_can() -> None:
    loose = {
        "a": math.nan,
        "b": np.float64(2.5),
        "c": np.int64(3),
        "d": (1, math.inf),
        "e": Path("x"),
        4: np.array([1]),
    }
    assert results.strict(loose | {4: np.array([1]), "f": np.bool_(True), "g": None}) == {
        "a": None,
        "b": 2.5,
        "c": 3,
        "d": [1, None],
        "e": "x",
        "4": [1],
        "f": True,
        "g": None,
    }


def test_a_job_that_measured_nothing_is_invalid(tmp_path: Path) -> None:
    result = results.build(job=JobInfo(id="a1"), status="failed", reason="no endpoint", started=NOON, config=defaults())
    assert result.validity.verdict == "invalid"
    assert result.validity.reasons[0].reason == "insufficient_data"
    assert result.ended_at is None
    results.write(tmp_path, result)
    assert "no endpoint" in glance.render(result)


def test_times_of_day_are_utc() -> None:
    there = datetime(2026, 1, 5, 14, 0, 0, 5, tzinfo=timezone(timedelta(hours=2)))
    assert results.timestamp(there) == "2026-01-05T12:00:00.000005Z"


def test_nothing_is_written_through_a_link_or_under_a_name_that_can_be_foreseen(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("result.json", ".result.json.partial"):
        (tmp_path / name).symlink_to(victim)
    results.write_json(tmp_path / "result.json", {"a": 1}, indent=1)
    assert victim.read_text() == "precious"
    assert not (tmp_path / "result.json").is_symlink()
    with results.replacing(tmp_path / "report.md") as one, results.replacing(tmp_path / "report.md") as two:
        names = {path.name for path in tmp_path.glob(".*.partial") if not path.is_symlink()}
        one.write("one")
        two.write("two")
    assert len(names) == 2, "two that write the same file do not meet"
    assert (tmp_path / "report.md").read_text() == "one", "the last to end is the last to be there"
    assert [path.name for path in tmp_path.glob(".*.partial")] == [".result.json.partial"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    results.write_json(file, {"a": 1}, indent=1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.write_json(file, {"a": math.nan}, indent=1)
    assert json.loads(file.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read"),
        ('{"job": ', "cannot be read"),
        ("[]", "it has no job.id"),
        ("{}", "it has no job.id"),
        ('{"job": {"name": "x"}}', "it has no job.id"),
        ('{"job": {"id": "x"}, "status": "done"}', "status: Input should be"),
        ('{"job": {"id": "x"}, "metrics": 3}', "metrics: Value error, must be an object"),
        ('{"job": {"id": "x"}, "schema_version": 99}', "written by a newer llmexp"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_foreign_and_half_written_files_are_one_kind_of_error(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(ResultError, match=said) as caught:
        results.read(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_newer_version_added_survives_reading_and_writing(tmp_path: Path) -> None:
    tree = results.tree_of(result_of(several())) | {"quality": {"kind": "exact"}}
    tree["cost"]["judge"] = {"usd": 0.1}
    read = results.parse(results.strict(tree), "here")
    results.write(tmp_path, read)
    found = json.loads((tmp_path / "result.json").read_text())
    assert (found["quality"], found["cost"]["judge"]) == ({"kind": "exact"}, {"usd": 0.1})


def test_a_result_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        result_of(several()).status = "failed"


def test_remarks_in_words() -> None:
    rows = several()
    rows[0].status = "unfinished"
    for row in rows:
        row.max_tokens = 100
    first, second = result_of(rows).notes.remarks
    assert first.startswith("1 request was cut when run.grace_s ended: latencies are censored")
    assert second.startswith(
        "0% of the answers had the length asked for (±10%): 100 tokens were asked on average, 20 came"
    )
    assert result_of(several()).notes.remarks == ()


# --- environment -----------------------------------------------------------------------------------------------------


def test_the_environment_names_versions_and_host() -> None:
    found = environment()
    assert {"python", "llmexp", "ray", "litellm", "mlflow", "boto3"} <= set(found["versions"])
    assert found["host"]["cores"] >= found["host"]["cores_usable"] >= 1
    assert found["host"]["memory_bytes"] > 10**8
    assert found["host"]["cpu"]
    json.dumps(found, allow_nan=False)


def test_git_state_of_a_checkout_and_of_none(tmp_path: Path) -> None:
    assert git_state(tmp_path) == {"git_commit": None, "git_dirty": None}

    def git(*words: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    clean = git_state(tmp_path)
    assert (len(clean["git_commit"]), clean["git_dirty"]) == (40, False)
    (tmp_path / "file").write_text("2")
    assert git_state(tmp_path) == clean | {"git_dirty": True}


# --- at a glance -----------------------------------------------------------------------------------------------------


def test_the_table_says_what_counts() -> None:
    rows = [*several(), failure(50, "throttled", "429", sent=1.0), record(51, sent=9.0, status="unfinished")]
    text = glance.render(result_of(rows, ClientFacts(40, loop_lag_p99_s=0.031)), Path("outputs/x"), colour=False)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "sonnet c=4 · invalid"
    assert "first token (TTFT) 200 ms 200 ms 200 ms ~200 ms 200 ms" in lines
    assert "between tokens (ITL) 20 ms 20 ms 20 ms 20 ms 20 ms" in [line.replace("20.0", "20") for line in lines]
    assert "~ more requests are needed to carry this percentile" in lines
    assert "requests 40 completed · 1 failed (2.4%) · 1 unfinished" in lines
    assert "errors 1 throttled: 429 throttled 429" in lines
    assert "SLO met, kept by 97.6% of the requests · goodput 3.87 requests/s" in lines
    assert any(line.startswith("cost $0.0410 · $51.25 per million output tokens") for line in lines)
    assert any(line.startswith("invalid event-loop lag was 31 ms at p99 (limit 25 ms)") for line in lines)
    assert "files outputs/x" in lines
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 110


def test_energy_stands_beside_the_cost() -> None:
    drawn = {"energy_j": 3426.4, "power_w": 400.02, "joules_per_output_token": 2.2934}
    result = result_of(several())
    metrics = Metrics({**result.metrics.tree, "gpu": drawn, "cpu": {"power_w": 31.0}})
    text = glance.render(result.model_copy(update={"metrics": metrics}), colour=False)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "energy GPU 3,426 J · 400 W · 2.29 J per output token" in lines
    assert "CPU not known · 31.0 W" in lines


def test_colour_only_for_terminals() -> None:
    assert "\x1b[" in glance.render(result_of(several()), colour=True)
    assert "\x1b[" not in glance.render(result_of(several()))


def test_a_rehearsal_cannot_pass_for_a_measurement() -> None:
    result = result_of(several(), job=JobInfo(id="a1", name="sonnet", rehearsal=True))
    assert "REHEARSAL" in glance.render(result, colour=False).splitlines()[0]


def test_open_loops_show_latency_from_the_intended_time_first() -> None:
    tree = defaults()
    tree["load"] |= {"kind": "poisson", "rate": 4.0}
    text = glance.render(result_of(several(), config=tree), colour=False)
    assert text.index("first token, from intended time") < text.index("first token (TTFT)")
    assert "intended" not in glance.render(result_of(several()), colour=False)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0000021, "2.10 µs"),
        (0.0201, "20.1 ms"),
        (0.204, "204 ms"),
        (1.234, "1.23 s"),
        (12.34, "12.3 s"),
        (0.0, "0 µs"),
    ],
)
def test_durations(value: float, shown: str) -> None:
    assert glance.duration(value) == shown


def test_what_streams_and_files_held_is_told() -> None:
    notes = {
        "workload": ["workload.file: 1 of 8 rows left out (row 4): why"],
        "streams": {"noise": 1, "repeated_text": 3},
    }
    said = remarks({}, notes, {}, "finished")
    assert said[0] == "workload.file: 1 of 8 rows left out (row 4): why."
    assert said[1].startswith("1 answer: the stream held events that are no part of an answer")
    assert said[2].startswith("3 answers: the last event repeated the whole answer")
