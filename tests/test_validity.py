"""The verdict on a client: the table's limits from both sides."""

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmexp.metrics.validity import ClientFacts, judge

GOOD: dict[str, Any] = {
    "requests_completed": 32,
    "loop_lag_p99_s": 0.001,
    "concurrency_held": 0.99,
    "worker_cpu_share": 0.3,
    "schedule_lag_p99_s": 0.001,
}


def verdict(**facts: Any) -> str:
    return judge(ClientFacts(**{**GOOD, **facts})).verdict


def test_a_good_client_is_valid_without_a_word() -> None:
    found = judge(ClientFacts(**GOOD))
    assert (found.verdict, found.reasons, found.notes) == ("valid", (), ())


@pytest.mark.parametrize(
    ("fact", "fine", "degraded", "invalid"),
    [
        ("loop_lag_p99_s", [0.0, 0.005], [0.00501, 0.025], [0.0251, 9.0]),
        ("concurrency_held", [1.0, 0.97], [0.969, 0.90], [0.899, 0.0]),
        ("worker_cpu_share", [0.0, 0.70], [0.701, 0.90], [0.901, 1.0]),
        ("schedule_lag_p99_s", [0.0, 0.005], [0.0051, 0.050], [0.0501, 9.0]),
    ],
)
def test_limits(fact: str, fine: list[float], degraded: list[float], invalid: list[float]) -> None:
    assert [verdict(**{fact: value}) for value in fine] == ["valid"] * 2
    assert [verdict(**{fact: value}) for value in degraded] == ["degraded"] * 2
    assert [verdict(**{fact: value}) for value in invalid] == ["invalid"] * 2
    assert verdict(**{fact: None}) == "valid"


@pytest.mark.parametrize(
    "fact",
    [
        {"workers_lost": 1},
        {"litellm_own_stream": True},
        {"token_counts_estimated": True},
        {"contradicted_counts": 1},
        {"undeclared_cache_hits": 0.2},
        {"other_load_share": 0.5},
    ],
)
def test_circumstances_degrade(fact: dict[str, Any]) -> None:
    assert verdict(**fact) == "degraded"


def test_small_shares_are_nobodys_business() -> None:
    assert verdict(undeclared_cache_hits=0.01, other_load_share=0.1) == "valid"


def test_notes_spoil_nothing() -> None:
    facts = ClientFacts(
        **{**GOOD, "loop_lag_p99_s": None}, endpoint_on_this_machine=True, rehearsal=True, gc_pause_max_s=1
    )
    found = judge(facts)
    assert found.verdict == "valid"
    names = ["rehearsal", "endpoint_on_this_machine", "loop_lag_unknown", "gc_pause"]
    assert [note.reason for note in found.notes] == names


def test_nothing_measured_is_invalid_and_says_so_first() -> None:
    found = judge(ClientFacts(requests_completed=0, workers_lost=2))
    assert found.verdict == "invalid"
    assert [reason.reason for reason in found.reasons] == ["insufficient_data", "workers_lost"]


def test_a_reason_says_what_was_seen_the_limit_why_and_what_to_do() -> None:
    (reason,) = judge(ClientFacts(**{**GOOD, "loop_lag_p99_s": 0.031})).reasons
    assert str(reason) == (
        "event-loop lag was 31 ms at p99 (limit 25 ms): tokens were stamped that much later than they arrived. "
        "Lower the concurrency, raise ray.workers, or give the client more or idler cores."
    )
    assert (reason.measured, reason.limit, reason.level) == (0.031, 0.025, "invalid")


@given(
    st.builds(
        ClientFacts,
        requests_completed=st.integers(0, 3),
        loop_lag_p99_s=st.none() | st.floats(0, 1),
        concurrency_held=st.none() | st.floats(0, 1),
        worker_cpu_share=st.none() | st.floats(0, 2),
        schedule_lag_p99_s=st.none() | st.floats(0, 1),
        workers_lost=st.integers(0, 2),
    )
)
def test_the_worst_reason_counts_and_each_has_a_remedy(facts: ClientFacts) -> None:
    found = judge(facts)
    levels = [reason.level for reason in found.reasons]
    assert found.verdict == ("invalid" if "invalid" in levels else "degraded" if levels else "valid")
    assert levels == sorted(levels, reverse=True)
    assert all(reason.seen and reason.why and reason.remedy for reason in found.reasons)
    json.dumps(asdict(found), allow_nan=False)


def test_a_split_of_tokens_that_is_estimated_is_a_note() -> None:
    found = judge(ClientFacts(10, loop_lag_p99_s=0.001, chunk_tokens_estimated=True))
    assert found.verdict == "valid"
    assert [note.reason for note in found.notes] == ["chunk_tokens_estimated"]
    both = judge(ClientFacts(10, loop_lag_p99_s=0.001, chunk_tokens_estimated=True, token_counts_estimated=True))
    assert (both.verdict, both.notes) == ("degraded", ())
