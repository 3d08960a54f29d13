"""Schedules against exact expectations and, for the random ones, goodness-of-fit tests."""

from __future__ import annotations

import itertools
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from llmexp.config import Load
from llmexp.errors import ConfigError
from llmexp.schedule import limits, offsets, shard
from llmexp.schedule.trace import notes


def load(**keys: Any) -> Load:
    return Load.model_validate(keys)


def times(spec: Load, *, seed: int = 1, timeout_s: float = 60.0, max_requests: int | None = None) -> list[float]:
    made = offsets(spec, seed=seed, timeout_s=timeout_s, max_requests=max_requests)
    assert made is not None
    return list(made)


def gaps(values: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(values)]


def test_closed_loops_have_no_times() -> None:
    assert offsets(load(kind="closed"), seed=1, timeout_s=10, max_requests=5) is None
    ramp = load(kind="ramp", of="concurrency", **{"from": 1, "to": 4})
    assert offsets(ramp, seed=1, timeout_s=10, max_requests=5) is None
    assert limits(load(kind="poisson", rate=3), timeout_s=10) is None


def test_constant_is_exact() -> None:
    assert times(load(kind="constant", rate=4), max_requests=5) == [0, 0.25, 0.5, 0.75, 1.0]
    assert len(times(load(kind="constant", rate=4), timeout_s=10)) == 40


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("spec", "shape"), [({"kind": "poisson"}, 1.0), ({"kind": "burst", "burstiness": 0.25}, 0.25)])
def test_random_gaps_follow_their_distribution(seed: int, spec: dict[str, Any], shape: float) -> None:
    values = times(load(rate=50, **spec), seed=seed, timeout_s=1e6, max_requests=5000)
    fit = stats.kstest(gaps(values), stats.gamma(shape, scale=1 / (50 * shape)).cdf)
    assert fit.pvalue > 0.001
    lag_one = stats.pearsonr(gaps(values)[:-1], gaps(values)[1:])
    assert abs(lag_one.statistic) < 0.06


@pytest.mark.parametrize("spec", [{"kind": "poisson"}, {"kind": "burst", "burstiness": 0.1}])
@pytest.mark.parametrize(("rate", "count"), [(3, 32), (2000, 150_000)])
def test_random_shapes_keep_the_mean_rate(spec: dict[str, Any], rate: float, count: int) -> None:
    values = times(load(rate=rate, **spec), timeout_s=1e6, max_requests=count)
    assert values[0] == 0
    assert len(values) == count
    assert values == sorted(values)
    assert (count - 1) / values[-1] == pytest.approx(rate, rel=1e-9)


def test_without_a_number_of_requests_the_time_bounds_them() -> None:
    values = times(load(kind="poisson", rate=20), timeout_s=30)
    assert len(values) == 600
    assert values[-1] < 30


def test_the_seed_decides_and_a_repeat_is_the_same() -> None:
    spec = load(kind="poisson", rate=5)
    assert times(spec, seed=7, max_requests=50) == times(spec, seed=7, max_requests=50)
    assert times(spec, seed=7, max_requests=50) != times(spec, seed=8, max_requests=50)


def test_a_linear_ramp_arrives_where_its_integral_says() -> None:
    values = times(load(kind="ramp", duration_s=10, **{"from": 2, "to": 12}), timeout_s=12)
    assert all(index == pytest.approx(2 * at + at * at / 2) for index, at in enumerate(values) if at <= 10)
    assert gaps([at for at in values if at > 10.01]) == pytest.approx([1 / 12] * 22)
    assert len(values) == 70 + 24


def test_a_falling_ramp_thins_out() -> None:
    values = times(load(kind="ramp", duration_s=10, **{"from": 12, "to": 2}), timeout_s=10)
    assert all(index == pytest.approx(12 * at - at * at / 2) for index, at in enumerate(values))
    assert len(values) == 70


def test_a_stepped_ramp_holds_each_rate() -> None:
    values = times(load(kind="ramp", duration_s=30, steps=3, **{"from": 2, "to": 6}), timeout_s=40)
    counts = [sum(begin <= at < begin + 10 for at in values) for begin in (0, 10, 20, 30)]
    assert counts == [20, 40, 60, 60]
    assert gaps([at for at in values if 10 <= at < 20]) == pytest.approx([0.25] * 39)


def test_concurrency_rises_one_by_one_or_in_steps() -> None:
    keys: dict[str, Any] = {"kind": "ramp", "of": "concurrency", "from": 1, "to": 5, "duration_s": 8}
    assert list(limits(load(**keys), timeout_s=60) or ()) == [(0, 1), (2, 2), (4, 3), (6, 4), (8, 5)]
    assert list(limits(load(**keys, steps=2), timeout_s=60) or ()) == [(0, 1), (4, 5)]
    assert list(limits(load(**keys), timeout_s=60, streams=3) or ())[-1] == (8, 3)
    falling = load(kind="ramp", of="concurrency", **{"from": 3, "to": 1})
    assert list(limits(falling, timeout_s=20) or ()) == [(0, 3), (10, 2), (20, 1)]


TRACES = {
    "plain.txt": "# seconds\n100.5\n101\n103.5\n",
    "azure.csv": (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.5000000,374,44\n"
        "2023-11-16 18:15:47.0000000,396,109\n2023-11-16 18:15:49.5000000,879,55\n"
    ),
    "zoned.csv": (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,1,2\n"
        "2024-05-10 00:00:00.509930+00:00,1,2\n2024-05-10 00:00:03.009930+00:00,1,2\n"
    ),
    "burst.csv": (
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n"
        "5.5,ChatGPT,1087,230,1317,Conversation log\n8,GPT-4,417,276,693,API log\n"
    ),
    "rows.jsonl": "".join(json.dumps({"timestamp": at, "prompt": "x"}) + "\n" for at in (1, 1.5, 4)),
}


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_begins_at_zero_and_keeps_its_gaps(tmp_path: Any, name: str) -> None:
    path = tmp_path / name
    path.write_text(TRACES[name])
    assert times(load(kind="replay", file=str(path))) == pytest.approx([0, 0.5, 3.0])
    assert times(load(kind="replay", file=str(path), speed=2)) == pytest.approx([0, 0.25, 1.5])
    assert times(load(kind="replay", file=str(path)), timeout_s=1) == pytest.approx([0, 0.5])
    assert times(load(kind="replay", file=str(path)), max_requests=1) == [0]


def test_a_parquet_trace_may_hold_real_times(tmp_path: Any) -> None:
    from datetime import datetime, timedelta

    import pyarrow as pa
    import pyarrow.parquet as pq

    start = datetime(2026, 1, 31, 12)
    offsets = [timedelta(0), timedelta(seconds=0.5), timedelta(seconds=3)]
    figures = [Decimal("7.00"), Decimal("7.50"), Decimal("10.00")]
    for written in ([start + offset for offset in offsets], offsets, figures):
        pq.write_table(pa.table({"arrival_time": written}), tmp_path / "trace.parquet")
        assert times(load(kind="replay", file=str(tmp_path / "trace.parquet"))) == pytest.approx([0, 0.5, 3.0])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.txt", "1\nsoon\n", "row 2 .* holds 'soon'"),
        ("t.txt", "2\n1\n", "row 2 .* goes back"),
        ("t.txt", "0.5\n1e300\n", "row 2 .* holds '1e300', which is no time"),
        ("t.jsonl", '{"timestamp": 0.5}\n{"timestamp": true}\n', "row 2 .* holds 'True', which is no time"),
        ("t.jsonl", '{"timestamp": 0.5}\n{"timestamp": NaN}\n', "row 2 .* has no timestamp"),
        ("t.txt", "", "holds no times"),
        ("t.csv", "when\n1\n", "row 1 .* has no timestamp"),
        ("t.xlsx", "1\n", r"must end in one of \.jsonl"),
        (None, "", "cannot be read"),
    ],
)
def test_a_bad_trace_is_named_with_its_row(tmp_path: Any, name: str | None, text: str, message: str) -> None:
    path = tmp_path / (name or "missing.txt")
    if name is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=rf"load\.file: .*{message}"):
        times(load(kind="replay", file=str(path)))


def test_workers_share_the_times_without_loss() -> None:
    spec = load(kind="poisson", rate=5)
    parts = [list(shard(iter(times(spec, max_requests=11)), worker, 3)) for worker in range(3)]
    assert [len(part) for part in parts] == [4, 4, 3]
    assert sorted(itertools.chain(*parts)) == times(spec, max_requests=11)


# --- units, rows and ends of traces ----------------------------------------------------------------------------------


def trace(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


LENGTHS: dict[str, Any] = {"input_length": 10, "output_length": 5}
UNITS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "mooncake": ([{"timestamp": at, **LENGTHS, "hash_ids": [1]} for at in (200, 700, 3200)], "milliseconds"),
    "mooncake without ids": ([{"timestamp": at, **LENGTHS} for at in (200, 700, 3200)], "milliseconds"),
    "named": ([{"arrival_time_ms": at, "prompt": "x"} for at in (200, 700, 3200)], "milliseconds"),
    "named ns": ([{"ts_ns": at * 10**6, "prompt": "x"} for at in (200, 700, 3200)], "nanoseconds"),
    "epoch": ([{"timestamp": 1.7e12 + at, "prompt": "x"} for at in (200, 700, 3200)], "milliseconds"),
    "spans": ([{"startTimeUnixNano": (10**6 + at) * 10**6, "prompt": "x"} for at in (200, 700, 3200)], "nanoseconds"),
    "named in brackets": ([{"Timestamp [ms]": at, "prompt": "x"} for at in (200, 700, 3200)], "milliseconds"),
    "fractions beside hashes": ([{"timestamp": at / 1000, **LENGTHS, "hash_ids": [1]} for at in (200, 700, 3200)], ""),
    "whole, with fractions": ([{"timestamp": at, "prompt": "x"} for at in (0.0, 0.5, 3.0)], ""),
    "fractions": ([{"timestamp": at / 1000, "prompt": "x"} for at in (200, 700, 3200)], ""),
}


@pytest.mark.parametrize("name", UNITS)
def test_the_unit_is_what_the_file_shows_and_is_told(tmp_path: Path, name: str) -> None:
    rows, said = UNITS[name]
    spec = load(kind="replay", file=trace(tmp_path, "t.jsonl", rows))
    assert times(spec) == pytest.approx([0, 0.5, 3.0])
    found = notes(spec, timeout_s=60, max_requests=None)
    assert len(found) == bool(said)
    assert said in "".join(found)


def test_a_unit_that_nothing_shows_is_asked_for(tmp_path: Path) -> None:
    file = trace(tmp_path, "t.jsonl", [{"timestamp": at, "prompt": "x"} for at in (0, 500, 3000)])
    with pytest.raises(ConfigError, match=r"load\.time_unit: must be given for .*1,500 apart .*load\.time_unit=ms"):
        times(load(kind="replay", file=file))
    assert times(load(kind="replay", file=file, time_unit="ms")) == pytest.approx([0, 0.5, 3.0])
    assert times(load(kind="replay", file=file, time_unit="s"), timeout_s=600) == [0, 500]


def test_whole_numbers_that_are_near_are_seconds_and_that_is_told(tmp_path: Path) -> None:
    spec = load(kind="replay", file=trace(tmp_path, "t.jsonl", [{"timestamp": at, "prompt": "x"} for at in (0, 2, 5)]))
    assert times(spec) == [0, 2, 5]
    [said] = notes(spec, timeout_s=60, max_requests=None)
    assert said == "load.file: times read as seconds (whole numbers without a unit; load.time_unit may say another)"


def test_failed_rows_of_a_trace_are_left_out_and_counted(tmp_path: Path) -> None:
    head = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
    rows = ["5,ChatGPT,472,18,490,API log", "6,ChatGPT,1087,0,1087,API log", "8,GPT-4,417,276,693,API log"]
    (tmp_path / "burst.csv").write_text("\n".join([head, *rows]) + "\n")
    spec = load(kind="replay", file=str(tmp_path / "burst.csv"))
    assert times(spec) == [0, 3]
    assert "1 of 3 rows left out (row 2 (line 3)" in notes(spec, timeout_s=60, max_requests=None)[0]


def test_a_trace_that_is_cut_short_says_so(tmp_path: Path) -> None:
    rows = [{"timestamp": at, "prompt": "x"} for at in (0.0, 1.5, 10.0, 25.0, 100.0, 400.5)]
    spec = load(kind="replay", file=trace(tmp_path, "t.jsonl", rows))
    assert notes(spec, timeout_s=500, max_requests=None) == []
    [cut] = notes(spec, timeout_s=20, max_requests=None)
    assert "of its 6 requests over 400.5 s, run.timeout_s=20 leaves out the last 3" in cut
    [fewer] = notes(spec, timeout_s=20, max_requests=2)
    assert "run.max_requests=2 leaves out the last 4" in fewer
