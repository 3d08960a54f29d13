"""The numbers: cases checked by hand, a plain reference, invariants, and what a large job costs."""

import json
import math
import resource
import statistics
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.samples import failure, record, table

from llmexp.config import Slo, flatten
from llmexp.metrics.distributions import PERCENTILES, distribution, needed
from llmexp.metrics.summary import (
    DICTIONARY,
    all_uncarried,
    cached_beyond,
    concurrency_held,
    curves,
    errors,
    observe,
    output_length,
    schedule_lag,
    sessions_held,
    summarize,
    token_sources,
    uncarried,
)
from llmexp.records import Record, from_batch, to_batch

NONE = Slo()


def numbers(records: Sequence[Record], *, slo: Slo = NONE, open_loop: bool = False, **rest: Any) -> dict[str, Any]:
    summary = summarize(table(records), slo=slo, open_loop=open_loop, **rest)
    json.dumps(summary, allow_nan=False)
    return summary


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_one_request_by_hand() -> None:
    # Intended at 0, sent at 0.1; chunks of 1, 2, 1 tokens at 0.5, 0.7, 0.8; the stream closes at 2.0.
    one = record(sent=0.1, intended=0.0, dispatched=0.02, chunks=[0.5, 0.7, 0.8], tokens=[1, 2, 1], end=2.0)
    summary = numbers([one])
    assert summary["ttft_s"]["mean"] == pytest.approx(0.4)
    assert summary["e2e_latency_s"]["mean"] == pytest.approx(0.7)
    assert summary["time_per_output_token_s"]["mean"] == pytest.approx(0.3 / 3)
    assert summary["inter_token_latency_s"] | {"stddev": 0} == pytest.approx(
        {"count": 3, "mean": 0.1, "stddev": 0, "min": 0.1, "max": 0.1}
        | dict.fromkeys(("p25", "p50", "p75", "p90", "p95", "p99"), 0.1)
    )
    assert summary["inter_chunk_latency_s"]["min"] == pytest.approx(0.1)
    assert summary["inter_chunk_latency_s"]["max"] == pytest.approx(0.2)
    assert summary["inter_chunk_latency_s"]["count"] == 2
    assert summary["response_ttft_s"]["mean"] == pytest.approx(0.5)
    assert summary["response_latency_s"]["mean"] == pytest.approx(0.8)
    assert summary["schedule_lag_s"]["mean"] == pytest.approx(0.02)
    assert summary["output_tokens_per_s_per_request"]["mean"] == pytest.approx(4 / 0.7)
    assert summary["window_s"] == pytest.approx(0.7)
    assert summary["output_tokens_per_s"] == pytest.approx(4 / 0.7)
    assert summary["requests_per_s"] == pytest.approx(1 / 0.7)
    assert summary["ttft_s"]["stddev"] is None
    assert summary["inflight_mean"] is None
    assert summary["time_to_first_answer_token_s"] is None
    assert summary["reasoning_tokens"] is None


def test_a_distribution_by_hand() -> None:
    found = distribution(np.array([4.0, 1.0, 3.0, 2.0]))
    assert found == {
        "count": 4,
        "mean": 2.5,
        "stddev": pytest.approx(math.sqrt(5 / 3)),
        "min": 1.0,
        "p25": 1.75,
        "p50": 2.5,
        "p75": 3.25,
        "p90": pytest.approx(3.7),
        "p95": pytest.approx(3.85),
        "p99": pytest.approx(3.97),
        "max": 4.0,
    }
    assert distribution(np.empty(0)) is None


def test_reasoning_is_a_token_but_not_an_answer() -> None:
    thinking = record(0, chunks=[0.2, 0.4, 0.9, 1.0], reasoning_streamed=True, reasoning_tokens=2)
    thinking.first_answer_token_ns = thinking.chunk_ns[2]
    summary = numbers([thinking, record(1, chunks=[0.3])])
    assert summary["ttft_s"]["min"] == pytest.approx(0.2)
    assert summary["time_to_first_answer_token_s"]["count"] == 1
    assert summary["time_to_first_answer_token_s"]["mean"] == pytest.approx(0.9)
    assert summary["reasoning_tokens"]["count"] == 1


def test_hidden_reasoning_is_billed_but_not_streamed() -> None:
    hidden = record(chunks=[1.0, 1.5], output_tokens=102, reasoning_tokens=100)
    summary = numbers([hidden])
    assert summary["time_per_output_token_s"]["mean"] == pytest.approx(0.5)
    assert summary["output_tokens_per_s"] == pytest.approx(2 / 1.5)
    assert summary["output_tokens"]["mean"] == 102


def test_answers_of_one_chunk_have_no_time_per_token() -> None:
    summary = numbers([record(chunks=[0.5], tokens=[7]), record(1, chunks=[0.5, 0.6])])
    assert summary["time_per_output_token_s"]["count"] == 1
    assert numbers([record(chunks=[0.5], tokens=[7])])["time_per_output_token_s"] is None
    assert numbers([record(chunks=[0.5], tokens=[7])])["inter_token_latency_s"] is None


def test_a_chunk_without_a_token_hands_its_gap_on() -> None:
    summary = numbers([record(chunks=[0.1, 0.2, 0.4], tokens=[1, 0, 2])])
    assert summary["inter_token_latency_s"]["count"] == 2
    assert summary["inter_token_latency_s"]["mean"] == pytest.approx(0.15)
    assert summary["inter_chunk_latency_s"]["count"] == 2
    assert summary["time_per_output_token_s"]["mean"] == pytest.approx(0.15)


def test_failed_and_unfinished_count_but_have_no_latency() -> None:
    records = [
        record(0, sent=0.0, chunks=[1.0, 2.0]),
        failure(1, sent=0.0, chunks=[50.0]),
        failure(2, "throttled", "429", sent=None),
        record(3, sent=1.0, chunks=[2.0, 3.0, 4.0], status="unfinished"),
    ]
    summary = numbers(records)
    assert summary["ttft_s"]["count"] == 1
    assert summary["ttft_s"]["max"] == pytest.approx(1.0)
    counts = ("requests_completed", "requests_failed", "requests_unfinished", "requests_throttled")
    assert [summary[name] for name in counts] == [1, 2, 1, 1]
    assert summary["error_rate"] == pytest.approx(2 / 3)
    assert summary["window_s"] == pytest.approx(50.0)
    assert summary["output_tokens_per_s"] == pytest.approx(6 / 50)
    assert summary["requests_per_s"] == pytest.approx(1 / 50)


def test_nothing_but_failures_has_no_window_and_no_zero() -> None:
    summary = numbers([failure(0), failure(1, "connect", "refused", sent=None)], slo=Slo(ttft_s=1))
    for name in ("ttft_s", "window_s", "output_tokens_per_s", "requests_per_s", "goodput_per_s", "cost_usd", "steady"):
        assert summary[name] is None, name
    assert summary["error_rate"] == 1.0
    assert summary["slo"] == {"attainment": 0.0, "met": False}


def test_no_request_at_all() -> None:
    summary = numbers([])
    assert summary["requests_completed"] == 0
    assert summary["error_rate"] is None
    assert curves(observe([])) is None
    assert output_length(observe([])) is None


def test_inflight_is_the_time_average_from_first_to_last_sent() -> None:
    # One alone during [0, 1), two during [1, 2), one during [2, 4]; the last is sent at 4.
    records = [
        record(0, sent=0.0, chunks=[2.0]),
        record(1, sent=1.0, chunks=[4.0]),
        record(2, sent=4.0, chunks=[9.0]),
    ]
    assert numbers(records)["inflight_mean"] == pytest.approx((1 + 2 + 2) / 4)


def test_a_closed_loops_held_concurrency() -> None:
    full = [record(at, sent=at // 2, chunks=[at // 2 + 1.0]) for at in range(20)]
    assert concurrency_held(observe(table(full)), 2) == pytest.approx(1.0)
    half = [record(at, sent=at, chunks=[at + 1.0]) for at in range(20)]
    assert concurrency_held(observe(table(half)), 2) == pytest.approx(0.5)
    assert concurrency_held(observe(table(full[:2])), 2) is None


def test_goodput_and_attainment() -> None:
    records = [
        record(0, sent=0.0, chunks=[0.2, 0.3]),
        record(1, sent=0.0, chunks=[0.6, 0.7]),
        record(2, sent=0.0, chunks=[0.2, 10.0]),
        failure(3),
    ]
    summary = numbers(records, slo=Slo(ttft_s=0.5, time_per_output_token_s=0.1, attainment=0.25))
    assert summary["slo"] == {"attainment": 0.25, "met": True}
    assert summary["goodput_per_s"] == pytest.approx(1 / 10)
    assert numbers(records, slo=Slo(e2e_latency_s=1))["slo"] == {"attainment": 0.5, "met": False}


def test_an_answer_of_one_chunk_cannot_miss_time_per_token() -> None:
    summary = numbers([record(chunks=[0.2], tokens=[3])], slo=Slo(time_per_output_token_s=0.001))
    assert summary["slo"]["attainment"] == 1.0


def test_the_slo_counts_from_the_intended_time_in_open_loops() -> None:
    late = [record(0, intended=0.0, sent=1.0, chunks=[1.2, 1.3])]
    assert numbers(late, slo=Slo(ttft_s=0.5))["slo"]["met"] is True
    assert numbers(late, slo=Slo(ttft_s=0.5), open_loop=True)["slo"]["met"] is False


def price(asked: int, cached: int, made: int, thought: int, written: int) -> float:
    return (asked - cached) * 1e-6 + cached * 0.1e-6 + made * 5e-6 + (thought + written) * 0


def test_cost_by_hand() -> None:
    records = [
        record(0, chunks=[1.0, 2.0], input_tokens=100, cached_tokens=40, output_tokens=50),
        failure(1),
        failure(2, input_tokens=10, input_tokens_source="server"),
        record(3, chunks=[1.0], status="unfinished", input_tokens=None, input_tokens_source=None, output_tokens=None),
    ]
    usd = (60 + 4 + 250) * 1e-6 + 10e-6 + (10 + 5) * 1e-6
    summary = numbers(records, cost=price)
    assert summary["cost_usd"] == pytest.approx(usd)
    assert summary["usd_per_million_output_tokens"] == pytest.approx(usd / 51 * 1e6)
    hourly = numbers(records, usd_per_hour=36.0)
    assert hourly["cost_usd"] == pytest.approx(36.0 * 2 / 3600)
    assert numbers(records, cost=price, usd_per_hour=36.0)["cost_usd"] == pytest.approx(usd + 0.02)
    assert numbers(records, cost=lambda *_: None)["cost_usd"] is None
    assert numbers(records)["usd_per_million_output_tokens"] is None


def test_the_plateau_of_a_closed_loop() -> None:
    # Two streams; the second starts at 1. Full from 1 to the last send at 4, then the drain.
    records = [
        record(0, sent=0.0, chunks=[1.0, 2.0]),
        record(1, sent=1.0, chunks=[2.0, 3.0]),
        record(2, sent=2.0, chunks=[3.0, 4.0]),
        record(3, sent=3.0, chunks=[4.0, 5.0]),
        record(4, sent=4.0, chunks=[5.0, 6.0]),
    ]
    steady = numbers(records, streams=2)["steady"]
    assert (steady["start_s"], steady["duration_s"]) == (1.0, 3.0)
    # Tokens at 1; 2, 2; 3, 3; 4, 4.
    assert steady["output_tokens_per_s"] == pytest.approx(7 / 3)
    assert steady["requests_per_s"] == pytest.approx(3 / 3)
    assert steady["inflight_mean"] == pytest.approx(2.0)
    assert steady["ttft_s"]["count"] == 4
    assert steady["inter_token_latency_s"]["count"] == 3
    assert numbers(records, streams=2, stationary=False)["steady"] is None


def test_the_plateau_of_an_open_loop_begins_a_median_latency_in() -> None:
    records = [record(at, sent=at / 10, chunks=[at / 10 + 0.5]) for at in range(20)]
    steady = numbers(records, open_loop=True)["steady"]
    assert steady["start_s"] == pytest.approx(0.5)
    assert steady["inflight_mean"] == pytest.approx(5.0)
    assert steady["output_tokens_per_s"] == pytest.approx(15 / 1.4)


def test_no_plateau_where_all_is_sent_at_once() -> None:
    assert numbers([record(at, sent=at * 1e-6, chunks=[1.0]) for at in range(4)], streams=4)["steady"] is None


def test_curves_by_hand() -> None:
    records = [
        record(0, sent=0.0, chunks=[0.5, 1.5], tokens=[1, 3]),
        record(1, sent=1.0, chunks=[2.0, 2.8]),
        failure(2, sent=0.0, end=1.25),
    ]
    found = curves(observe(table(records)))
    assert found == {
        "step_s": 1,
        "t_s": [0, 1, 2],
        "inflight": [2.0, 1.75, 1.0],
        "output_tokens_per_s": [1.0, 3.0, 2.5],
        "requests_per_s": [0.0, 1.0, 1.25],
        "errors": [0, 1, 0],
    }


def test_curves_of_a_long_run_keep_to_their_points_and_lose_nothing() -> None:
    records = [record(at, sent=float(at), chunks=[at + 0.25, at + 0.5]) for at in range(1000)]
    found = curves(observe(table(records)))
    assert found is not None
    assert 200 <= len(found["t_s"]) <= 300
    assert found["t_s"][1] == found["step_s"] == 4
    assert sum(found["output_tokens_per_s"]) * 4 == pytest.approx(2000, rel=0.01)


def test_errors_by_class() -> None:
    records = [failure(at, "throttled", "429") for at in range(4)] + [failure(9, "connect", "refused"), record(10)]
    found = errors(observe(table(records)))
    assert list(found) == ["throttled", "connect"]
    assert found["throttled"]["count"] == 4
    assert found["throttled"]["codes"] == {"429": 4}
    assert found["throttled"]["examples"] == [{"index": 0, "code": "429", "message": "throttled 429"}]


def test_schedule_lag_is_of_all_that_was_sent() -> None:
    late = [record(at, sent=1.0, intended=0.0, dispatched=0.25, status="unfinished") for at in range(2)]
    assert schedule_lag(observe(table([*late, failure(2, sent=None, dispatched=9.0)]))) == pytest.approx(0.25)
    assert schedule_lag(observe([])) is None


def test_output_length_control() -> None:
    records = [record(at, chunks=[1.0], output_tokens=100 if at < 8 else 5, max_tokens=105) for at in range(10)]
    found = output_length(observe(table(records)))
    assert found is not None
    assert (found["share_held"], found["held"], found["finish_reasons"]) == (0.8, False, {"stop": 10})


def test_sources_and_undeclared_cache_hits() -> None:
    records = [
        record(0, chunks=[1.0], input_tokens=130, input_tokens_counted=100, cached_tokens=36),
        record(1, chunks=[1.0], input_tokens=130, input_tokens_counted=100, cached_tokens=129),
    ]
    observed = observe(table(records))
    assert token_sources(observed)["input_tokens"] == {"server": 2}
    assert cached_beyond(observed, 0.0) == pytest.approx((129 - 30 - 16) / 260)
    assert cached_beyond(observed, 0.3) == pytest.approx((129 - 30 - 16) / 260 - 0.3)
    assert cached_beyond(observed, 0.5) == 0.0
    assert cached_beyond(observe(table([record(chunks=[1.0])])), 0.0) is None


def test_counts_that_their_streams_contradict_are_counted_once_a_completed_row() -> None:
    rows = [record(at, sent=at, chunks=[at + 0.5]) for at in range(5)]
    rows[0].remarks = ["output_tokens_refused", "input_tokens_refused", "noise"]
    rows[1].remarks = ["noise", "repeated_text"]
    rows[2].remarks = ["cached_tokens_refused"]
    rows[3].remarks, rows[3].status = ["output_tokens_refused"], "failed"
    observed = observe(table(rows))
    assert observed.contradicted == 2
    assert observed.remarks["output_tokens_refused"] == observed.remarks["noise"] == 2


def test_which_percentiles_a_sample_carries() -> None:
    found = all_uncarried(numbers([record(at, sent=float(at), chunks=[at + 1.0]) for at in range(30)], streams=1))
    assert found["ttft_s"] == ["p95", "p99"]
    assert found["steady/ttft_s"] == ["p95", "p99"]
    assert [uncarried(count) for count in (4, 5, 11, 29, 59, 299)] == [
        ["p25", "p50", "p75", "p90", "p95", "p99"],
        ["p25", "p75", "p90", "p95", "p99"],
        ["p90", "p95", "p99"],
        ["p95", "p99"],
        ["p99"],
        [],
    ]
    assert {name: needed(int(name[1:])) for name in PERCENTILES} == {
        "p25": 11,
        "p50": 5,
        "p75": 11,
        "p90": 29,
        "p95": 59,
        "p99": 299,
    }


def test_the_dictionary_names_what_a_summary_holds() -> None:
    summary = numbers([record(chunks=[0.1])], slo=Slo(ttft_s=1))
    names = set(summary) - {"slo"} | {f"slo/{name}" for name in summary["slo"]}
    assert names == {name for name in DICTIONARY if not name.startswith(("gpu/", "cpu/"))}
    assert all(metric.unit and metric.definition.endswith(".") for metric in DICTIONARY.values())


# --- against a plain reference, and invariants -----------------------------------------------------------------------


@st.composite
def requests(draw: st.DrawFn) -> list[Record]:
    made = []
    for index in range(draw(st.integers(1, 12))):
        intended = draw(st.integers(0, 5000)) / 1000
        sent = intended + draw(st.integers(0, 50)) / 1000
        gaps = draw(st.lists(st.integers(1, 900), min_size=1, max_size=6))
        chunks = [sent + sum(gaps[: at + 1]) / 1000 for at in range(len(gaps))]
        tokens = draw(st.lists(st.integers(1, 5), min_size=len(gaps), max_size=len(gaps)))
        status = draw(st.sampled_from(["completed", "completed", "failed", "unfinished"]))
        made.append(record(index, sent=sent, intended=intended, chunks=chunks, tokens=tokens, status=status))
    return made


def reference(records: list[Record]) -> dict[str, Any]:
    """The definitions once more, the slow way."""
    done = [one for one in records if one.status == "completed"]
    window = (max(one.last_token_ns for one in records) - min(one.sent_ns for one in records)) / 1e9
    token_gaps, per_token = [], []
    for one in done:
        for at in range(1, len(one.chunk_ns)):
            gap = (one.chunk_ns[at] - one.chunk_ns[at - 1]) / 1e9
            token_gaps += [gap / one.chunk_tokens[at]] * one.chunk_tokens[at]
        if len(one.chunk_ns) > 1:
            per_token.append((one.last_token_ns - one.first_token_ns) / 1e9 / sum(one.chunk_tokens[1:]))
    return {
        "output_tokens_per_s": sum(sum(one.chunk_tokens) for one in records) / window,
        "requests_per_s": len(done) / window,
        "ttft_s": [(one.first_token_ns - one.sent_ns) / 1e9 for one in done],
        "e2e_latency_s": [(one.last_token_ns - one.sent_ns) / 1e9 for one in done],
        "response_latency_s": [(one.last_token_ns - one.intended_ns) / 1e9 for one in done],
        "time_per_output_token_s": per_token,
        "inter_token_latency_s": token_gaps,
    }


@settings(max_examples=150, deadline=None)
@given(requests())
def test_the_summary_equals_the_reference(records: list[Record]) -> None:
    summary = numbers(records)
    for name, expected in reference(records).items():
        if isinstance(expected, list):
            if not expected:
                assert summary[name] is None
                continue
            assert summary[name]["count"] == len(expected)
            assert summary[name]["mean"] == pytest.approx(statistics.fmean(expected))
            assert summary[name]["p90"] == pytest.approx(float(np.percentile(expected, 90)))
            if len(expected) > 1:
                assert summary[name]["stddev"] == pytest.approx(statistics.stdev(expected), abs=1e-12)
        else:
            assert summary[name] == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(requests(), st.randoms(use_true_random=False))
def test_order_batches_and_clock_origin_do_not_matter(records: list[Record], random: Any) -> None:
    expected = numbers(records, streams=2)
    shuffled = random.sample(records, len(records))
    for one in shuffled:
        one.chunk_ns = [at + 10**15 for at in one.chunk_ns]
        for name in ("intended", "dispatched", "sent", "first_byte", "first_token", "last_token", "end"):
            setattr(one, f"{name}_ns", getattr(one, f"{name}_ns") + 10**15)
    cut = random.randint(0, len(records))
    batches = [from_batch(to_batch(part)) for part in (shuffled[:cut], shuffled[cut:])]
    found = summarize(iter(batches), slo=NONE, open_loop=False, streams=2)
    assert flatten(found) == pytest.approx(flatten(expected), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(requests())
def test_invariants(records: list[Record]) -> None:
    summary = numbers(records, slo=Slo(ttft_s=0.5), streams=2)
    for found in [value for value in summary.values() if isinstance(value, dict) and "p50" in value]:
        ladder = [found[name] for name in ("min", "p25", "p50", "p75", "p90", "p95", "p99", "max")]
        assert ladder == sorted(ladder)
        assert found["min"] <= found["mean"] <= found["max"]
        assert (found["stddev"] is None) == (found["count"] == 1)
    counts = (summary["requests_completed"], summary["requests_failed"], summary["requests_unfinished"])
    assert sum(counts) == len(records)
    assert (summary["goodput_per_s"] or 0) <= (summary["requests_per_s"] or 0)
    found = curves(observe(table(records)))
    assert found is not None
    assert sum(found["errors"]) == summary["requests_failed"]
    assert len({len(values) for name, values in found.items() if name != "step_s"}) == 1
    if summary["inflight_mean"] is not None:
        assert 0 <= summary["inflight_mean"] <= len(records)


# --- scale -----------------------------------------------------------------------------------------------------------


def test_millions_of_chunks_take_seconds_and_little_memory() -> None:
    script = textwrap.dedent("""
        import json, resource, time
        import numpy as np, pyarrow as pa
        from support.samples import record
        from llmexp.config import Slo
        from llmexp.metrics.summary import curves, observe, summarize
        from llmexp.records import schema, from_batch, to_batch

        def batches(count=112, rows=500, chunks=128):
            plain = from_batch(to_batch([record(at) for at in range(rows)]))
            for at in range(count):
                sent = 10**12 + np.arange(rows) * 10**6 + at * 10**9
                stamps = sent[:, None] + 2 * 10**8 + np.arange(chunks) * 2 * 10**7
                offsets = pa.array(np.arange(rows + 1) * chunks, pa.int32())
                new = {
                    "sent_ns": sent, "intended_ns": sent, "dispatched_ns": sent, "first_token_ns": stamps[:, 0],
                    "last_token_ns": stamps[:, -1], "end_ns": stamps[:, -1],
                    "chunk_ns": pa.ListArray.from_arrays(offsets, stamps.ravel()),
                    "chunk_tokens": pa.ListArray.from_arrays(offsets, pa.array(np.ones(rows * chunks, np.int32))),
                }
                columns = [new.get(name, plain.column(name)) for name in schema().names]
                yield pa.record_batch([pa.array(column) for column in columns], schema=schema())

        summarize(batches(1), slo=Slo(), open_loop=False, streams=64)
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        base, began = peak(), time.process_time()
        observed = observe(batches())
        summary = summarize(observed, slo=Slo(ttft_s=1), open_loop=False, streams=64, cost=lambda *_: 1e-6)
        curves(observed)
        print(json.dumps([summary["inter_token_latency_s"]["count"], summary["inter_token_latency_s"]["p99"],
                          time.process_time() - began, (peak() - base) / 1024]))
    """)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
        timeout=120,
    )
    count, p99, cpu_s, grown_mb = json.loads(done.stdout)
    assert count == 56_000 * 127
    assert p99 == pytest.approx(0.02)
    assert cpu_s < 15
    assert grown_mb < (300 if resource.getpagesize() == 4096 else 400)


# --- sessions --------------------------------------------------------------------------------------------------------


def turn(index: int, session: int, number: int, sent: float, *, turns: int = 3, **fields: Any) -> Record:
    found = record(index, sent=sent, chunks=[sent + 0.1, sent + 0.2], session=session, turn=number, **fields)
    found.session_turns = turns
    return found


def test_sessions_by_hand() -> None:
    records = [
        turn(0, 0, 0, 1.0, input_tokens=100, cached_tokens=0),
        turn(1, 0, 1, 2.0, input_tokens=200, cached_tokens=100, off_script=True),
        turn(2, 0, 2, 4.0, input_tokens=300, cached_tokens=200),
        turn(3, 1, 0, 1.5, input_tokens=100, cached_tokens=50),
        failure(4, session=1, turn=1, session_turns=3, sent=2.5),
        turn(5, 2, 0, 2.0),
        record(6, sent=3.0, chunks=[3.1]),
    ]
    summary = numbers(records)
    assert summary["sessions_completed"] == 1
    assert summary["session_duration_s"]["mean"] == pytest.approx(3.2)
    assert summary["sessions_per_s"] == pytest.approx(1 / 3.2)
    assert (summary["turns_skipped"], summary["requests_off_script"]) == (1, 1)
    first, second, third = summary["turns"]
    assert [one["requests_completed"] for one in (first, second, third)] == [3, 1, 1]
    assert (second["requests_failed"], second["cached_share"]) == (1, 0.5)
    assert first["cached_tokens"]["mean"] == 25
    assert third["ttft_s"]["p50"] == pytest.approx(0.1)
    nothing = numbers([record(0, chunks=[0.1])])
    assert (nothing["sessions_completed"], nothing["turns"], nothing["turns_skipped"]) == (None, None, None)


def test_the_concurrency_of_sessions_counts_them_from_first_to_last_turn() -> None:
    """Two at a time: while they wait between turns nothing is in flight, and yet both streams are held."""
    records = [
        turn(2 * session + number, session, number, 10.0 * (session // 2) + 9.8 * number, turns=2)
        for session in range(6)
        for number in range(2)
    ]
    assert sessions_held(observe(table(records)), 2) == pytest.approx(1.0)
    assert sessions_held(observe(table(records)), 6) is None
    assert sessions_held(observe(table([record(0, chunks=[0.1])])), 1) is None


def test_a_service_level_may_ask_for_right_answers() -> None:
    rows = [
        record(
            at, sent=at * 0.1, chunks=[at * 0.1 + (0.1 if at else 0.9)], right=at < 3, score=1.0, grade_status="graded"
        )
        for at in range(4)
    ]
    kept = numbers(rows, slo=Slo(right_share=0.75))
    assert kept["slo"] == {"attainment": None, "met": True}
    assert kept["goodput_per_s"] is None
    assert numbers(rows, slo=Slo(right_share=0.8))["slo"]["met"] is False
    both = numbers(rows, slo=Slo(ttft_s=0.5, right_share=0.75, attainment=0.7))
    assert both["slo"] == {"attainment": 0.75, "met": True}
    assert both["right_goodput_per_s"] * both["window_s"] == pytest.approx(2)  # the first one is right and late
    assert numbers([record(chunks=[0.1])], slo=Slo(right_share=0.1))["slo"]["met"] is False
