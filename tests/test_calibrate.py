"""Calibration: the client against the truth, what is kept, when jobs warn; and one small point for real."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmexp.calibrate import __main__ as calibrate
from llmexp.calibrate import measure as calibration
from llmexp.calibrate.measure import Load, Point, Stamps
from llmexp.config import Config, load
from llmexp.results.calibration import warning
from llmexp.results.environment import host

pytestmark = pytest.mark.service

MS = 10**6


def line(digest: str, arrival_ms: float, outcome: str = "finished") -> dict[str, Any]:
    """A request of 10 tokens that the endpoint answers from 200 to 380 ms after its arrival."""
    return {
        "body_digest": digest,
        "outcome": outcome,
        "arrival_ns": int(arrival_ms * MS),
        "first_token_ns": int((arrival_ms + 200) * MS),
        "last_token_ns": int((arrival_ms + 380) * MS),
        "output_tokens": 10,
    }


def stamps(sent_ms: float, first_ms: float, last_ms: float) -> Stamps:
    return Stamps(int(sent_ms * MS), int(first_ms * MS), int(last_ms * MS), 10)


TRUTH = [line("a", 10), line("b", 20), line("c", 30)]


def test_errors_are_what_the_client_says_less_what_was() -> None:
    seen = {"b": stamps(19, 221, 402), "a": stamps(10, 210, 390), "c": stamps(30, 234, 410)}
    found = calibration.errors(seen, TRUTH)
    assert found is not None
    assert found.matched == 3
    assert found.ttft_p50_s == pytest.approx(0.002)  # 0, 2 and 4 ms
    assert found.ttft_p99_s == pytest.approx(0.00396)
    assert found.e2e_p50_s == pytest.approx(0.0)  # 0, 0 and 3 ms
    assert found.tokens_per_s == pytest.approx(0.0)


def test_a_client_that_ends_late_reports_fewer_tokens_per_second() -> None:
    seen = {"a": stamps(10, 210, 390), "b": stamps(20, 220, 400), "c": stamps(30, 230, 450)}
    found = calibration.errors(seen, TRUTH)
    assert found is not None
    assert found.tokens_per_s == pytest.approx(400 / 440 - 1)


def test_only_what_both_sides_finished_is_compared() -> None:
    seen = {"a": stamps(10, 210, 390), "b": stamps(20, 500, 900), "other": stamps(0, 1, 2)}
    found = calibration.errors(seen, [line("a", 10), line("b", 20, "cut"), line("warm-up", 1)])
    assert found is not None
    assert (found.matched, found.ttft_p99_s) == (1, 0)
    assert calibration.errors(seen, [line("none", 1)]) is None


def test_loads_are_bounded() -> None:
    assert Load(16).count == 128
    assert Load(1024).count == 3072
    assert Load(4, requests=10).count == 10
    assert Load(64).tokens_per_s == pytest.approx(64 * 128 / 2.74)
    config = calibration.config_of(Load(64))
    assert (config.concurrency, config.run.max_requests) == (64, 192)
    assert config.run.timeout_s == pytest.approx(2 * 3 * 2.74 + 5)
    requests = calibration.requests_of(Load(2, requests=3))
    assert len({one.messages[0].text for one in requests}) == 3


# --- what is kept ----------------------------------------------------------------------------------------------------


def point(streams: int, p99_ms: float = 1.0, verdict: str = "valid", **more: Any) -> Point:
    errors = calibration.Errors(streams * 3, 0.0002, p99_ms / 1e3, 0.0004, 0.002, -0.001)
    given = {"held": 0.999, "loop_lag_p99_s": 0.001, "worker_cpu_share": 0.1, "workers": 1, "client_cpu_s": 1.0}
    rate = Load(streams).tokens_per_s
    return Point(streams, 0.02, rate, streams * 3, streams * 3, errors, verdict=verdict, **{**given, **more})


POINTS = [point(16), point(64), point(256, p99_ms=30), point(1024, verdict="invalid", reasons=["loop lag was much"])]


def test_the_largest_honest_load_is_valid_and_within_the_limit() -> None:
    found = calibrate.result(POINTS, 0.02)
    assert found["largest"] == {"streams": 64, "tokens_per_s": pytest.approx(Load(64).tokens_per_s)}
    assert found["tried"]["streams"] == 1024
    assert [one["honest"] for one in found["points"]] == [True, True, False, False]
    assert found["machine"]["cores"] == host()["cores"]
    assert calibrate.result(POINTS, 0.05)["largest"]["streams"] == 256
    assert calibrate.result(POINTS[2:], 0.02)["largest"] is None


def test_the_table_says_how_to_read_it() -> None:
    text = calibrate.render(POINTS, calibrate.result(POINTS, 0.02))
    rows = [row.split() for row in text.splitlines()]
    assert next(row for row in rows if row[:1] == ["64"])[-1] == "honest"
    assert next(row for row in rows if row[:1] == ["256"])[-3:] == ["too", "far", "off"]
    assert "~+1.00 ms" in text  # 48 requests carry no p99
    assert "Honest up to 64 streams and 2,990 tokens/s" in text
    assert "1,024 streams: loop lag was much" in text
    assert "upper bound" in text
    assert "No load was measured honestly" in calibrate.render(POINTS[2:], calibrate.result(POINTS[2:], 0.02))


# --- when jobs warn --------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMEXP_CACHE", str(tmp_path))
    return tmp_path / "calibration.json"


def config(**more: Any) -> Config:
    workload = {"input_tokens": {"mean": 10}, "output_tokens": {"mean": 100}}
    return load({"model": {"name": "m"}, "workload": workload, **more})


def test_jobs_warn_of_loads_beyond_the_latest_calibration(cache: Path) -> None:
    assert warning(config(concurrency=4096)) is None
    cache.write_text(json.dumps(calibrate.result(POINTS, 0.02)))
    assert warning(config(concurrency=64)) is None
    assert warning(config()) is None
    beyond = warning(config(concurrency=65))
    assert beyond is not None
    assert beyond.startswith("concurrency=65: the calibration of 20")
    assert "honest up to 64 streams" in beyond
    assert "python -m llmexp.calibrate" in beyond
    assert warning(config(concurrency=65, rehearse=True)) is None
    cache.write_text(json.dumps(calibrate.result(POINTS[:2], 0.02)))
    assert "tried no more than 64 streams" in str(warning(config(concurrency=65)))
    cache.write_text(json.dumps(calibrate.result(POINTS[2:], 0.02)))
    assert "no load that this machine measures honestly" in str(warning(config()))


def test_an_open_loop_is_judged_by_its_tokens(cache: Path) -> None:
    cache.write_text(json.dumps(calibrate.result(POINTS, 0.02)))
    assert warning(config(load={"kind": "poisson", "rate": 29})) is None
    beyond = warning(config(load={"kind": "poisson", "rate": 31}))
    assert "load.rate=31 × 100 output tokens: " in str(beyond)
    assert "honest up to 2,990 tokens/s" in str(beyond)


def test_a_calibration_of_another_machine_or_none_that_can_be_read_says_nothing(cache: Path) -> None:
    found = calibrate.result(POINTS, 0.02)
    cache.write_text(json.dumps({**found, "machine": {**found["machine"], "cores_usable": 9999}}))
    assert warning(config(concurrency=65)) is None
    for text in ("", "[]", "{}", '{"machine": 3}'):
        cache.write_text(text)
        assert warning(config(concurrency=65)) is None


# --- the command -----------------------------------------------------------------------------------------------------


def test_help_and_a_wrong_flag() -> None:
    with pytest.raises(SystemExit) as ended:
        calibrate.main(["--help"])
    assert ended.value.code == 0
    with pytest.raises(SystemExit) as ended:
        calibrate.main(["--streams", "0"])
    assert ended.value.code == 2


@pytest.mark.e2e
def test_a_small_calibration_runs_and_is_kept(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llmexp.calibrate", "--streams", "4", "--tokens", "16", "--requests", "12"],
        env={**os.environ, "LLMEXP_CACHE": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "1 load, about" in done.stderr
    row = next(row.split() for row in done.stdout.splitlines() if row.split()[:1] == ["4"])
    errors_ms = [float(cell.strip("~+")) for cell in row[2:8:2]]
    assert all(-5 < error < 500 for error in errors_ms), done.stdout
    kept = tmp_path / "calibration.json"
    if "Not kept" not in done.stdout:
        assert json.loads(kept.read_text())["points"][0]["errors"]["matched"] == 12
    else:
        assert not kept.exists()
