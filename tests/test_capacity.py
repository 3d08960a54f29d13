"""The search against exact expectations, and with the judgement of probes against queues whose capacity is known."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest

from llmexp import records
from llmexp.config import Config, Load, Slo, defaults, load
from llmexp.jobs import capacity_probes as probes
from llmexp.jobs.capacity_search import RESOLUTION, Outcome, Search
from llmexp.metrics import summary as metrics
from llmexp.metrics.service_level import kept
from llmexp.records.observed import Observed
from llmexp.schedule import offsets

NS = 10**9


def levels(search: Search, passes: Callable[[float, int], bool]) -> list[float]:
    """Every level probed; `passes` is told the level and how often it was probed before."""
    found: list[float] = []
    while (level := search.next()) is not None:
        search.tell(level, Outcome(passes(level, found.count(level))))
        found.append(level)
    return found


# --- the search ------------------------------------------------------------------------------------------------------


def test_it_doubles_bisects_and_repeats_both_sides() -> None:
    search = Search(start=1, precision=0.2)
    assert levels(search, lambda level, _: level <= 5) == [1, 2, 4, 8, 5.657, 4.757, 4.757, 5.657]
    found = search.interval
    assert (found.passed_at, found.failed_at, found.reason) == (4.757, 5.657, None)
    assert found.low == pytest.approx(4.757 / (1 + RESOLUTION))
    assert found.high == pytest.approx(5.657 * (1 + RESOLUTION))
    assert found.estimate == pytest.approx((4.757 * 5.657) ** 0.5)


def test_it_halves_when_the_first_level_fails() -> None:
    search = Search(start=16, precision=0.5)
    assert levels(search, lambda level, _: level <= 3) == [16, 8, 4, 2, 2.828, 2.828, 4]
    assert (search.interval.passed_at, search.interval.failed_at) == (2.828, 4)


def test_whole_numbers_end_at_neighbours() -> None:
    search = Search(start=4, integer=True)
    assert levels(search, lambda level, _: level <= 5) == [4, 8, 6, 5, 5, 6]
    assert (search.interval.low, search.interval.high, search.interval.estimate) == (5, 6, 5)


def test_never_failed_says_at_least() -> None:
    search = Search(start=1, max_probes=5)
    assert levels(search, lambda *_: True) == [1, 2, 4, 8, 32]
    assert (search.interval.passed_at, search.interval.high, search.interval.estimate) == (32, None, None)
    assert search.interval.reason == "no level failed: the capacity is at least 32"


def test_never_passed_ends_where_requests_are_alone() -> None:
    search = Search(start=4)
    while (level := search.next()) is not None:
        search.tell(level, Outcome(passed=False, alone=level <= 1))
    assert list(search.told) == [4, 2, 1]
    assert search.interval.low is None
    assert search.interval.high == pytest.approx(1 * (1 + RESOLUTION))
    assert "out of reach at any load" in (search.interval.reason or "")


def test_one_stream_that_fails_is_the_end() -> None:
    search = Search(start=2, integer=True)
    assert levels(search, lambda *_: False) == [2, 1]
    assert search.interval.reason == "no level passed: the capacity is below 1"


def test_a_disputed_level_opens_the_interval_to_its_neighbours() -> None:
    search = Search(start=8, precision=0.2)
    told = levels(search, lambda level, before: level < 11 or (level < 12 and not before))
    assert told == [8, 16, 11.31, 13.45, 11.31, 8, 13.45]
    assert (search.interval.passed_at, search.interval.failed_at) == (8, 13.45)
    assert search.interval.reason == "probes disagreed about 11.31, so the interval reaches to the neighbours"


def test_a_disputed_level_far_from_the_next_one_is_probed_beside() -> None:
    search = Search(start=20, precision=0.05)
    told = levels(search, lambda level, before: level < 19.5 or (level < 20.5 and not before))
    assert told == [20, 40, 28.28, 23.78, 21.81, 20.89, 20, 19.05, 19.05, 20.89]
    assert (search.interval.passed_at, search.interval.failed_at) == (19.05, 20.89)


def test_it_never_exceeds_its_probes_and_keeps_two_for_the_repeats() -> None:
    search = Search(start=1, max_probes=8, precision=0.01)
    told = levels(search, lambda level, _: level <= 13)
    assert len(told) == 8
    assert sorted(told[-2:]) == [search.interval.passed_at, search.interval.failed_at]
    assert "capacity.max_probes (8)" in (search.interval.reason or "")


def test_a_search_that_is_stopped_says_why_and_what_it_knew() -> None:
    search = Search(start=1)
    search.tell(1, Outcome(passed=True))
    search.stop("run.max_usd: no money")
    assert search.next() is None
    assert search.interval.reason == "run.max_usd: no money; no level failed: the capacity is at least 1"


# --- probes ----------------------------------------------------------------------------------------------------------


def settings(slots_slo: Slo, load_kind: str = "constant", **capacity: object) -> Config:
    tree = defaults()
    tree["model"]["name"] = "queue"
    tree["workload"]["input_tokens"]["mean"] = tree["workload"]["output_tokens"]["mean"] = 10.0
    tree["slo"] = slots_slo.model_dump()
    tree["quality"]["kind"] = "none" if slots_slo.right_share is None else "number"
    tree["load"]["kind"] = load_kind
    tree["run"]["max_requests"] = None
    tree["capacity"] |= {"enabled": True, **capacity}
    return load(tree)


def served(load: Load, requests: int, *, slots: int, service_s: float, cv: float, seed: int) -> Observed:
    """What a server with so many slots answers, in order of arrival; a fifth of the service brings the first token."""
    draw = random.Random(f"{seed}/{load.rate}/{requests}")
    arrivals = offsets(load, seed=seed, timeout_s=1e9, max_requests=requests)
    free = [0.0] * slots
    rows = []
    for index, at in enumerate(arrivals or ()):
        start = max(at, heapq.heappop(free))
        service = service_s * max(0.05, draw.gauss(1, cv))
        heapq.heappush(free, start + service)
        late = abs(draw.gauss(0, 0.002))
        rows.append(row(index, at, start + service / 5 + late, start + service + late))
    return observed(rows)


def row(index: int, at_s: float, first_s: float, last_s: float, status: records.Status = "completed") -> records.Record:
    base, first, last = (NS + int(moment * NS) for moment in (at_s, first_s, last_s))
    return records.Record(
        index,
        0,
        status,
        intended_ns=base,
        dispatched_ns=base,
        sent_ns=base,
        first_byte_ns=first,
        first_token_ns=first,
        first_answer_token_ns=first,
        last_token_ns=last,
        end_ns=last,
        chunk_ns=[first, last],
        chunk_tokens=[1, 10],
    )


def observed(rows: list[records.Record]) -> Observed:
    return metrics.observe([records.from_batch(records.to_batch(rows))])


def search_queue(config: Config, *, slots: int, service_s: float, cv: float, seed: int) -> Search:
    told = config.capacity
    search = Search(told.start, told.max_probes, told.precision)
    while (level := search.next()) is not None:
        requests = probes.length(config, level, service_s)
        load = config.load.model_copy(update={"rate": level})
        tries = len(search.told.get(level, ()))
        seen = served(load, requests, slots=slots, service_s=service_s, cv=cv, seed=seed + tries)
        search.tell(level, probes.judge(seen, config.slo, of_rate=True).outcome)
    return search


@pytest.mark.parametrize(
    ("slots", "service_s", "cv", "ttft_s", "start"),
    [
        (4, 1.46, 0.0, 0.5, 1),
        (8, 0.4, 0.1, 0.25, 5),
        (32, 5.0, 0.3, 2.0, 1),
        (2, 0.1, 0.05, 0.5, 1),
        (1, 3.0, 0.05, 4.0, 1),
    ],
)
def test_the_interval_holds_slots_over_service_time(
    slots: int, service_s: float, cv: float, ttft_s: float, start: float
) -> None:
    truth = slots / service_s
    config = settings(Slo(ttft_s=ttft_s), start=start)
    found = [search_queue(config, slots=slots, service_s=service_s, cv=cv, seed=seed).interval for seed in range(10)]
    narrow = [one for one in found if one.low and one.high and one.high / one.low <= 1.1 / 0.9]
    assert len(narrow) == 10
    assert sum(one.low <= truth <= one.high for one in narrow if one.low and one.high) >= 9, (truth, found)


def test_poisson_arrivals_carry_less_than_even_ones() -> None:
    slo = Slo(ttft_s=0.5)
    even, random_ = (
        search_queue(settings(slo, kind), slots=4, service_s=1.46, cv=0.0, seed=3).interval
        for kind in ("constant", "poisson")
    )
    assert even.low is not None
    assert random_.high is not None
    assert random_.high < even.low


@pytest.mark.parametrize(
    ("excess", "passes"), [(-0.05, True), (-0.02, True), (0.03, False), (0.1, False), (1.0, False)]
)
def test_a_queue_that_grows_slowly_is_seen(excess: float, passes: bool) -> None:
    config = settings(Slo(ttft_s=1.0))
    level = 8 / 0.5 * (1 + excess)
    seen = served(
        config.load.model_copy(update={"rate": level}),
        probes.length(config, level, 0.5),
        slots=8,
        service_s=0.5,
        cv=0.05,
        seed=1,
    )
    assert probes.judge(seen, config.slo, of_rate=True).passed is passes


def test_without_a_latency_threshold_a_growing_queue_still_fails() -> None:
    config = settings(Slo(time_per_output_token_s=1.0))
    verdicts = []
    for level in (15.0, 18.0):
        load_ = config.load.model_copy(update={"rate": level})
        seen = served(load_, probes.length(config, level, 0.5), slots=8, service_s=0.5, cv=0.0, seed=1)
        verdicts.append(probes.judge(seen, config.slo, of_rate=True))
    assert [one.passed for one in verdicts] == [True, False]
    assert verdicts[1].growth == pytest.approx(18 / 16 - 1, rel=0.2)
    assert "queue grew" in verdicts[1].why


def test_a_single_slow_request_out_of_many_is_no_miss_of_the_level() -> None:
    rows = [row(index, index, index + 0.1, index + 0.2) for index in range(40)]
    rows[7] = row(7, 7, 9, 9.1)
    verdict = probes.judge(observed(rows), Slo(ttft_s=0.5), of_rate=True)
    assert verdict.passed
    assert verdict.attainment == pytest.approx(39 / 40)
    assert verdict.alone


def test_what_the_grace_cut_is_a_miss_and_what_we_cut_is_not() -> None:
    rows = [row(index, index, index + 0.1, index + 0.2) for index in range(18)]
    rows += [row(index, index, index + 0.1, index + 0.2, "unfinished") for index in (18, 19)]
    slo = Slo(ttft_s=0.5)
    assert probes.judge(observed(rows), slo, of_rate=True).attainment == pytest.approx(0.9)
    assert probes.judge(observed(rows), slo, of_rate=True, stopped=True).attainment == 1.0


def test_the_length_of_a_probe_follows_answers_thresholds_and_bounds() -> None:
    config = settings(Slo(ttft_s=0.5))
    assert probes.length(config, 10, None) == 100
    assert probes.length(config, 10, 4.0) == 400
    assert probes.length(config, 0.5, None) == 20
    assert probes.length(config, 0.01, None) == 3
    assert probes.length(settings(Slo(e2e_latency_s=9)), 10, 4.0) == 540
    assert probes.length(settings(Slo(ttft_s=1), "closed", of="concurrency"), 16, 4.0) == 128
    right = Slo(ttft_s=1, right_share=0.8)
    assert probes.length(settings(right, "closed", of="concurrency"), 2, 4.0) == 100
    assert probes.length(settings(right), 2, None) == 100


def test_a_probe_is_the_job_under_another_load() -> None:
    config = settings(Slo(ttft_s=0.5))
    tree = config.model_dump(mode="json", by_alias=True)
    one = load(probes.tree_of(tree, config, 2.5, 50, 1, "n-1"))
    assert (one.load.kind, one.load.rate, one.run.max_requests, one.run.seed) == ("constant", 2.5, 50, 11112)
    assert (one.run.timeout_s, one.run.nonce) == (21.0, "n-1")
    assert not one.capacity.enabled
    closed = settings(Slo(ttft_s=0.5), "closed", of="concurrency")
    many = load(probes.tree_of(closed.model_dump(mode="json", by_alias=True), closed, 6, 48, 0, "n-2"))
    assert (many.load.kind, many.streams, many.load.rate) == ("closed", 6, None)


@pytest.mark.parametrize("open_loop", [True, False])
def test_one_record_is_judged_as_all_records_are(open_loop: bool) -> None:
    slo = Slo(ttft_s=0.3, time_per_output_token_s=0.05, e2e_latency_s=0.7)
    draw = random.Random(5)
    rows = [row(at, at, at + draw.uniform(0.1, 0.4), at + draw.uniform(0.45, 0.9)) for at in range(200)]
    for one in rows[::3]:
        one.sent_ns = one.intended_ns + 10**8
    rows[5].status = "failed"
    rows[6].chunk_ns, rows[6].chunk_tokens = rows[6].chunk_ns[:1], [11]
    whole = metrics.meets(observed(rows), slo, open_loop=open_loop)
    assert [kept(one, slo, open_loop=open_loop) for one in rows] == whole.tolist()
    assert 10 < whole.sum() < 190


def test_a_level_with_too_few_right_answers_is_lost() -> None:
    from support.samples import record, table

    from llmexp.config import Slo
    from llmexp.jobs.capacity_probes import judge
    from llmexp.records.observed import observe

    rows = [
        record(at, sent=at * 1.0, chunks=[at + 0.1], right=at % 4 > 0, score=float(at % 4 > 0), grade_status="graded")
        for at in range(40)
    ]
    seen = observe(table(rows))
    assert judge(seen, Slo(ttft_s=1, right_share=0.7), of_rate=False).passed
    lost = judge(seen, Slo(ttft_s=1, right_share=0.8), of_rate=False)
    assert (lost.passed, lost.attainment) == (False, 1.0)
    assert lost.why == "too few right answers: 75.0%, 80.0% are asked"
    assert not judge(seen, Slo(right_share=0.8), of_rate=False).passed
    ungraded = observe(table([record(0, chunks=[0.1])]))
    assert not judge(ungraded, Slo(right_share=0.8), of_rate=False).passed
