"""Finished means: rows = sent = asked, or the reason why not."""

from __future__ import annotations

import pytest
from support.in_process import config
from support.samples import failure, record, table

from llmexp.benchmark.measurement import Measurement
from llmexp.jobs import finished
from llmexp.metrics import summary as metrics
from llmexp.metrics.validity import ClientFacts, judge
from llmexp.worker.plan import Watch

pytestmark = pytest.mark.service


def count(
    rows: int, sent: int, *, asked: int | None = 8, failed: int = 0, stopped: bool = False, reason: str | None = None
) -> finished.Count:
    records = [record(at, chunks=(0.1,)) for at in range(rows - failed)]
    records += [failure(rows + at) for at in range(failed)]
    measurement = Measurement(workers=1, watches={0: Watch(launched=sent, stopped=stopped)}, reason=reason)
    return finished.count(config(run__max_requests=asked), measurement, metrics.observe(table(records)))


def test_all_that_was_asked_for_has_a_row() -> None:
    found = count(8, 8)
    assert found == finished.Count(asked=8, sent=8, recorded=8)
    assert found.as_dict() == {"asked": 8, "sent": 8, "recorded": 8, "why": None}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (count(7, 8), "8 requests were sent and 7 have a row"),
        (count(9, 8), "8 requests were sent and 9 have a row"),
        (count(5, 5), "5 of 8 requests were sent, and nothing says why"),
        (count(2, 2, asked=2, failed=2), "no request was completed: 2 failed"),
    ],
)
def test_what_nobody_can_explain_is_not_finished(found: finished.Count, words: str) -> None:
    assert found.fault is not None
    assert words in found.fault


def test_time_that_ran_out_is_a_reason_and_no_fault() -> None:
    found = count(5, 5, stopped=True)
    assert found.fault is None
    assert found.why == "run.timeout_s=20 ended the load after 5 of 8 requests"
    assert count(5, 5, reason="run.max_usd: spent").why == "run.max_usd: spent"


def test_without_a_number_there_is_nothing_to_fall_short_of() -> None:
    assert count(5, 5, asked=None).fault is None


@pytest.mark.parametrize(
    ("ended_by", "remedy"),
    [
        ("internal error: KeyError: 3", "fault of llmexp itself"),
        ("run.max_usd: 1.0 USD of 1 are spent", "Raise run.max_usd"),
        ("Ray did not start: no space", "See the reason above"),
        (None, "mend the endpoint"),
    ],
)
def test_a_job_without_answers_is_told_what_to_mend_and_nothing_of_the_client(
    ended_by: str | None, remedy: str
) -> None:
    verdict = judge(ClientFacts(requests_completed=0, ended_by=ended_by, worker_cpu_share=1.69, loop_lag_p99_s=1.0))
    (reason,) = verdict.reasons
    assert remedy in reason.remedy


def test_an_endpoint_that_never_answers_is_named_as_such() -> None:
    (reason,) = judge(ClientFacts(requests_completed=0, requests_unfinished=2)).reasons
    assert "did not answer in time" in reason.remedy
