"""Money: nothing is handed out twice, nothing is forgotten, nothing starts that could pass the limit."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.samples import failure, record
from support.samples import table as records_table

from llmexp import composition
from llmexp.benchmark.purse import End, Spending
from llmexp.clients import unlimited
from llmexp.companion.allowance import Allowance
from llmexp.config import Model, Price, Slo
from llmexp.errors import FAILED, OK
from llmexp.jobs import demands, lock, plan
from llmexp.jobs import spec as jobs
from llmexp.jobs.ledger import LEDGER, Account, Ledger
from llmexp.jobs.sweep import CommandRun
from llmexp.metrics import bill, prices
from llmexp.metrics.prices import PriceList
from llmexp.metrics.summary import summarize
from llmexp.records import Record
from llmexp.regrade import _Money
from llmexp.workload.request import Image, Message, Request, Text

PRICE = PriceList(input_usd=0.001, output_usd=0.01)


def request(index: int, input_tokens: int = 10, max_tokens: int = 9) -> Request:
    """One that costs 0.1 USD at its token limit."""
    return Request(
        index=index,
        messages=(Message("user", "x"),),
        max_tokens=max_tokens,
        input_tokens=input_tokens,
        prompt_digest=f"{index:04x}",
    )


# --- the ledger ------------------------------------------------------------------------------------------------------


def test_what_is_reserved_is_not_to_be_had_again(tmp_path: Path) -> None:
    ledger = Ledger(1.0, tmp_path)
    assert ledger.reserve("judge", 0.6)
    assert not ledger.reserve("judge", 0.6)
    ledger.settle("judge", 0.6, 0.2)
    assert ledger.remaining() == pytest.approx(0.8)
    assert ledger.reserve("judge", 0.8)
    ledger.settle("judge", 0.8, None)
    assert ledger.unsure_usd == pytest.approx(0.8)
    assert not ledger.reserve("judge", 0.01)


def test_a_resume_goes_on_where_the_money_was_left(tmp_path: Path) -> None:
    first = Ledger(1.0, tmp_path)
    account = first.account("job a", PRICE, 0.0)
    account.take(0.5)
    assert Ledger(1.0, tmp_path).unsure_usd == pytest.approx(0.5), "nobody knows yet what of it is spent"
    account.book(0.3, 0.0, 0.05)
    again = Ledger(1.0, tmp_path)  # the first process was killed: what it had in flight may have been billed
    assert again.billed_usd == pytest.approx(0.3)
    assert again.unsure_usd == pytest.approx(0.05)
    account.close()
    assert Ledger(1.0, tmp_path).remaining() == pytest.approx(0.7)


NOT_A_NUMBER = '{"entries": {"a": {"billed": NaN}}}'


@pytest.mark.parametrize(
    "damage", [None, "", "{", "[]", '{"entries": 3}', '{"entries": {"a": null}}', NOT_A_NUMBER], ids=str
)
def test_a_broken_ledger_blocks_nothing_and_forgets_nothing(tmp_path: Path, damage: str | None) -> None:
    if damage is not None:
        (tmp_path / LEDGER).write_text(damage)
    assert Ledger(1.0, tmp_path).remaining() == 1.0
    job = {"job": {"id": "a", "model": "m", "name": "m", "repeat": 0, "index": 0}, "status": "failed"}
    for place, cost in (("0", {"cost_usd": 0.25}), ("0.attempt1", {"cost_usd": 0.125, "judge": {"usd": 0.125}})):
        (tmp_path / place).mkdir()
        (tmp_path / place / "result.json").write_text(json.dumps({**job, "cost": cost}))
    assert Ledger(1.0, tmp_path).remaining() == 0.5


def test_what_was_reserved_and_never_spent_does_not_stay_in_the_file(tmp_path: Path) -> None:
    account = Ledger(10.0, tmp_path).account("job a", PRICE, 0.0)
    account.take(10.0)
    account.close()
    entries = json.loads((tmp_path / LEDGER).read_text())["entries"]
    assert entries["job a"] == {"billed": 0.0, "unsure": 0.0, "reserved": 0.0, "at_risk": 0.0}
    Ledger(10.0, tmp_path / "free").account("job b", PRICE, 0.0).close()
    assert not (tmp_path / "free").exists()


def test_a_name_that_is_used_again_has_spent_before(tmp_path: Path) -> None:
    for spent in (0.25, 0.5):
        account = Ledger(1.0, tmp_path).account("judge", PRICE, 0.0)
        account.take(0.25)
        account.book(0.25, 0.0, 0.0)
        account.close()
        assert Ledger(1.0, tmp_path).billed_usd == spent
    ledger = Ledger(None, tmp_path)
    ledger.add("judge", 0.25)
    assert ledger.billed_usd == 0.75


@pytest.mark.parametrize(
    ("params", "tokens"),
    [
        ({}, 9),
        ({"temperature": 0.0, "max_tokens": None, "n_predict": -1, "n": 1}, 9),
        ({"max_tokens": 900}, 900),
        ({"max_tokens": 3}, 3),
        ({"max_tokens": 9e2}, 900),
        ({"max_tokens": "900", "n": "4"}, 3600),
        ({"max_completion_tokens": 900, "n": 4}, 3600),
        ({"inferenceConfig": {"maxTokens": 900}}, 900),
        ({"parameters": {"max_new_tokens": 900, "num_return_sequences": 2}}, 1800),
        ({"generationConfig": {"candidateCount": 3}}, 27),
        ({"tools": [{"n": 5}], "response_format": {"n": 5}}, 9),
    ],
)
def test_what_params_allow_beyond_the_workload_is_reserved(params: dict[str, object], tokens: int) -> None:
    allowance = Allowance(PRICE, params)
    allowance.grant(10 * PRICE.input_usd + tokens * PRICE.output_usd, 0.0)  # type: ignore[operator]
    assert allowance.reserve(0, request(0))
    assert allowance.state().free == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("api", "params", "why"),
    [
        ("openai", {"max_tokens": None}, None),
        ("openai", {"max_completion_tokens": None}, "null leaves"),
        ("openai", {"max_tokens": None, "max_completion_tokens": None}, "null leaves"),
        ("openai", {"max_tokens": None, "max_completion_tokens": 500}, None),
        ("openai", {"n_predict": -1}, "n_predict=-1 is"),
        ("openai", {"options": {"num_predict": -2}}, "num_predict=-2 is"),
        ("openai", {"response_format": {"max_tokens": -1}}, None),
        ("anthropic", {"max_tokens": None}, "null leaves"),
        ("bedrock", {"inferenceConfig": {"maxTokens": None}}, "null leaves"),
        ("sagemaker", {"parameters": {"max_new_tokens": -1}}, "max_new_tokens=-1 is"),
        ("litellm", {"max_tokens": None}, None),
        ("litellm", {"max_tokens": -1}, "max_tokens=-1 is"),
    ],
)
def test_params_that_take_the_token_limit_away_are_known(api: str, params: dict[str, object], why: str | None) -> None:
    price = {"usd_per_million_input_tokens": 1, "usd_per_million_output_tokens": 1}
    tree = {"name": "m", "api": api, "base_url": "http://h/v1", "provider": "openai", "params": params, "price": price}
    told = Model.model_validate(tree)
    found = unlimited.reason(told)
    assert found is None if why is None else str(found).startswith(why)
    refusal, remark = plan.unheld([told], 5.0), plan.remark([told])
    if why is None:
        assert refusal is remark is None
    else:
        assert refusal == f"run.max_usd: model.params of m: {found}, so 5 USD cannot be held; {plan.SET_A_LIMIT}"
        assert remark == f"model.params of m: {found}: run.max_usd can be passed by what is in flight"
    free = told.model_copy(update={"price": Price(usd_per_million_input_tokens=0, usd_per_million_output_tokens=0)})
    assert plan.unheld([free], 5.0) is None


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("overrides", "is_set"),
    [
        ([], False),
        (["run.max_usd=5"], True),
        (["++run.max_usd=5"], True),
        (["run={timeout_s: 9, max_usd: 5}"], True),
        (["run={timeout_s: 9}"], False),
        (["experiment=plain"], False),
        (["experiment=limited"], True),
        (["experiment=beside"], True),
        (["experiment=deep/from_the_top"], True),
    ],
)
def test_a_limit_is_the_user_s_wherever_the_user_set_it(overrides: list[str], is_set: bool, tmp_path: Path) -> None:
    files = {
        "plain": "run: {timeout_s: 9}",
        "limited": "run: {max_usd: 5}",
        "beside": "defaults: [limited, _self_]\nrun: {timeout_s: 9}",
        "deep/from_the_top": "defaults: [/experiment/beside, _self_]",
    }
    for name, content in files.items():
        path = tmp_path / "experiment" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# @package _global_\n{content}\n")
    with composition.opened(tmp_path):
        (composed,) = composition.compose_all(["model=simulated", *overrides])
        assert jobs.specs([composed])[0].limit_is_set is is_set


@pytest.mark.e2e
def test_a_command_has_one_limit() -> None:
    with composition.opened(None):
        found = jobs.specs(composition.compose_all(["model=simulated", "run.max_usd=1,2"]))
    assert demands.problems(found) == ["run.max_usd: is the limit of the whole command, got 1, 2; give it one value"]
    assert not demands.problems(found[:1])


def test_without_a_limit_it_only_counts(tmp_path: Path) -> None:
    ledger = Ledger(None, tmp_path)
    assert ledger.reserve("judge", 1e9)
    ledger.settle("judge", 1e9, 5.0)
    assert json.loads((tmp_path / LEDGER).read_text())["entries"]["judge"]["billed"] == 5.0
    assert not ledger.passed()


# --- the bill --------------------------------------------------------------------------------------------------------


def test_bills() -> None:
    done = record(0, chunks=(0.1, 0.2), tokens=(1, 4))
    assert bill.of(PRICE, done) == (pytest.approx(0.06), True)
    refused = failure(1, "throttled", "429", max_tokens=9)
    assert bill.of(PRICE, refused) == (0.0, True)
    unsent = failure(2, "connect", "", sent=None)
    assert bill.of(PRICE, unsent) == (0.0, True)
    cut = record(3, chunks=(0.1,), tokens=(3,), status="failed", error_class="cut", output_tokens_source="tokenizer")
    assert bill.of(PRICE, cut) == (pytest.approx(0.04), False)
    stated = record(4, chunks=(0.1,), tokens=(3,), status="failed", error_class="cut", output_tokens=7)
    assert bill.of(PRICE, stated) == (pytest.approx(0.08), True)
    dear = PriceList(input_usd=0.001, output_usd=0.01, reasoning_usd=0.1, cache_write_usd=0.002)
    assert bill.at_most(dear, 10, 9) == pytest.approx(0.92)
    assert bill.at_most(PriceList(), 10, 9) is None


IN_STREAM = {"error_class": "throttled", "status": "failed", "chunks": (0.1,), "tokens": (3,)}


@pytest.mark.parametrize(
    ("row", "usd", "whole"),
    [
        (record(0, **IN_STREAM, output_tokens_source="tokenizer"), 0.04, False),
        (record(0, **{**IN_STREAM, "error_class": "server"}, output_tokens=7), 0.08, True),
        (failure(0, "server", "529", input_tokens=10, input_tokens_source="server", output_tokens=None), 0.01, False),
        (failure(0, "bad_request", "400"), 0.0, True),
    ],
)
def test_an_error_in_the_middle_of_a_stream_takes_no_money_back(row: Record, usd: float, whole: bool) -> None:
    assert bill.of(PRICE, row) == (pytest.approx(usd), whole)
    stated = summarize(records_table([row]), slo=Slo(), open_loop=False, cost=partial(prices.cost, PRICE))["cost_usd"]
    assert stated == pytest.approx(usd), "the job's own figure and the ledger's are one"


# --- an allowance ----------------------------------------------------------------------------------------------------


def test_a_request_is_held_until_there_is_money_for_it() -> None:
    allowance = Allowance(PRICE)
    allowance.grant(0.15, 0.0)
    assert allowance.reserve(0, request(0))
    assert not allowance.reserve(1, request(1))
    assert allowance.state().wanted == pytest.approx(0.05)
    allowance.settle(0, record(0, chunks=(0.1,), tokens=(4,)))  # 0.05: less than reserved
    assert allowance.reserve(1, request(1))
    assert allowance.reserve(1, request(1)), "one that is signed anew needs no second reservation"
    allowance.release()
    assert allowance.state().free == pytest.approx(0.1)


def test_a_longer_answer_than_allowed_overdraws() -> None:
    allowance = Allowance(PRICE)
    allowance.grant(0.3, 0.0)
    assert all(allowance.reserve(key, request(key)) for key in range(3))
    allowance.settle(0, record(0, chunks=(0.1,), tokens=(900,)))
    assert allowance.overdrawn
    assert allowance.state().overdrawn


def test_the_chat_template_is_reckoned_with_once_it_is_known() -> None:
    allowance = Allowance(PRICE)
    allowance.grant(0.2, 0.0)
    allowance.reserve(0, request(0))
    allowance.settle(0, record(0, chunks=(0.1,), tokens=(4,), input_tokens=60, input_tokens_counted=10))
    assert not allowance.reserve(1, request(1)), "0.1 are left, and 60 + 9 tokens cost 0.15"


def pictured(index: int, images: int) -> Request:
    parts = (Text("x"), *(Image("image/png", "aGk=") for _ in range(images)))
    return replace(request(index), messages=(Message("user", parts),))


def test_images_are_paid_for_before_the_server_has_counted_any() -> None:
    allowance = Allowance(PriceList(input_usd=0.001, output_usd=0.0))
    allowance.grant(10.0, 0.0)
    for key in range(3):
        assert allowance.reserve(key, pictured(key, 2))
    assert not allowance.reserve(3, pictured(3, 2)), "each is 10 + 2 x 1,600 tokens until the server says"
    allowance.settle(0, record(0, chunks=(0.1,), tokens=(4,), input_tokens=510, input_tokens_counted=10))
    assert allowance.reserve(3, pictured(3, 2)), "250 each"
    assert allowance.state().reserved == pytest.approx(2 * 3.21 + 0.51)


# --- a load ----------------------------------------------------------------------------------------------------------


def load(limit: float, bills: Sequence[Sequence[int]]) -> tuple[Ledger, list[int], End | None]:
    """Companions that send one request after the other while there is money; `bills`: output tokens of each answer.

    A round of polling after each request of all. Returns what was sent.
    """
    ledger = Ledger(limit)
    account = Account(ledger, "job", PRICE, 0.0)
    spending = Spending(account, len(bills))
    allowances = [Allowance(PRICE) for _ in bills]
    sent = [0] * len(bills)
    for at, grant in enumerate(spending.first()):
        allowances[at].grant(*grant)
    end = None
    for _ in range(200):
        for at, allowance in enumerate(allowances):
            if sent[at] < len(bills[at]) and allowance.reserve(sent[at], request(sent[at])):
                allowance.settle(sent[at], record(0, chunks=(0.1,), tokens=(bills[at][sent[at]],)))
                sent[at] += 1
            spending.heard(at, allowance.state())
        grants, end = spending.decide(lambda at: allowances[at].give_back())
        for at, grant in grants.items():
            allowances[at].grant(*grant)
        if end is not None or all(sent[at] == len(one) for at, one in enumerate(bills)):
            break
    spending.end()
    account.close()
    return ledger, sent, end


workers = st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=4)


@given(limit=st.floats(0.05, 3.0), bills=workers)
def test_no_limit_is_passed_while_answers_keep_theirs(limit: float, bills: list[list[int]]) -> None:
    ledger, sent, end = load(limit, bills)
    spent = sum(0.01 + 0.01 * tokens for at, one in enumerate(bills) for tokens in one[: sent[at]])
    assert ledger.billed_usd == pytest.approx(spent)
    assert ledger.billed_usd <= limit + 1e-9
    if end is None:
        assert sent == [len(one) for one in bills]
    else:
        assert limit - spent < 0.1 + 1e-9, "it ends only where another request could pass the limit"
        assert end.reason.startswith("run.max_usd: ")


def test_passing_the_limit_ends_what_is_in_flight() -> None:
    ledger, sent, end = load(1.0, [[9, 9_000, 9, 9]])
    assert sent == [2]
    assert end is not None
    assert end.cut
    assert ledger.passed()
    assert ledger.summary()["overspent_usd"] == pytest.approx(89.11)
    assert "was passed by what was in flight" in end.reason


@pytest.mark.parametrize("price", [PriceList(instance_hour_usd=360.0), replace(PRICE, instance_hour_usd=360.0)])
def test_an_hourly_price_runs_by_itself_and_ends_the_load_in_time(price: PriceList) -> None:
    ledger = Ledger(0.1)
    account = Account(ledger, "job", price, 0.1)
    spending, over, ends = Spending(account, 1), threading.Event(), []
    (grant,) = spending.first()
    assert grant.usd == pytest.approx(0.05 if price.input_usd else 0.0)
    began = time.monotonic()
    spending.start(lambda end: (ends.append(end), over.set()))
    assert over.wait(20)
    spending.end()
    account.close()
    assert ends[0].cut
    assert time.monotonic() - began >= (0.1 - grant.usd) / 0.1 - 0.25
    assert ledger.billed_usd >= 0.1 - grant.usd - 0.025


def test_what_a_lost_companion_had_on_the_wire_may_have_been_billed() -> None:
    ledger = Ledger(1.0)
    account = Account(ledger, "job", PRICE, 0.0)
    spending, allowance = Spending(account, 1), Allowance(PRICE)
    (grant,) = spending.first()
    allowance.grant(*grant)
    allowance.reserve(0, request(0))
    spending.heard(0, allowance.state())
    spending.end()
    account.close()
    assert ledger.unsure_usd == pytest.approx(0.1)
    assert ledger.remaining() == pytest.approx(0.9)


def test_a_warm_up_that_is_broken_off_may_have_cost_what_a_kill_would_count() -> None:
    ledger = Ledger(10.0)
    account = Account(ledger, "job", PRICE, 0.0, head_usd=2.0)
    spending, allowance = Spending(account, 2), Allowance(PRICE)
    allowance.grant(*spending.first()[0])
    allowance.reserve(0, request(0))
    spending.heard(0, allowance.state())  # asked at the end; the other one does not answer any more
    spending.end()
    account.close()
    assert ledger.unsure_usd == pytest.approx(0.1 + 2.0 / 2)
    assert ledger.remaining() == pytest.approx(10.0 - 1.1)


def test_what_a_companion_spent_since_it_last_told_is_reckoned_when_it_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger, now = Ledger(10.0), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    spending, allowance = Spending(account := Account(ledger, "job", PRICE, 0.0), 1), Allowance(PRICE)
    allowance.grant(*spending.first()[0])
    for key in range(10):
        now[0] += 1.0
        allowance.reserve(key, request(key))
        allowance.settle(key, record(0, chunks=(0.1,), tokens=(9,)))
        spending.heard(0, allowance.state())
        spending.decide(lambda _at: 0.0)
    now[0] += 60.0
    spending.lost(0)
    spending.end()
    account.close()
    assert ledger.billed_usd == pytest.approx(1.0)
    assert ledger.unsure_usd == pytest.approx(6.0, rel=0.02), "60 s at 0.1 USD a second"


def test_what_was_spent_beyond_the_limit_is_exit_status_1_whoever_spent_it(tmp_path: Path) -> None:
    command = CommandRun([], lock.claim(tmp_path / "job"), None)
    command.ledger = Ledger(1.0)
    command.ledger.add("job/judge0", 1.0)
    assert command._status() == OK
    command.ledger.add("job/judge0", 0.1)
    assert command._status() == FAILED


def test_regrading_several_folders_has_one_limit(tmp_path: Path) -> None:
    money = _Money(1.0)
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    Ledger(5.0, tmp_path / "b").add("job", 0.3)
    assert money.of(tmp_path / "a").remaining() == pytest.approx(1.0)
    money.of(tmp_path / "a").add("judge", 0.6)
    assert money.of(tmp_path / "b").remaining() == pytest.approx(0.4), "of this command; 0.7 of the folder's own"
    money.of(tmp_path / "b").add("judge", 0.3)
    assert money.of(tmp_path / "c").remaining() == pytest.approx(0.1)
    assert money.of(tmp_path / "a").remaining() == pytest.approx(0.1)
    assert money.passed is None
    money.of(tmp_path / "c").add("judge", 0.2)
    assert money.passed == "run.max_usd: 0.2000 USD of 0.1 are spent"


def test_a_price_source_of_any_text_is_text_in_the_plan() -> None:
    expected = plan.Estimate((plan.Expected("[/b] job", 1, 1.0, 1.0, 1.0, 0.1, "[/x]"),))
    assert "[/x]" in plan.render(expected)


def test_a_killed_load_leaves_most_of_the_limit_to_its_resume(tmp_path: Path) -> None:
    account = Account(Ledger(10.0, tmp_path), "job", PRICE, 0.0, head_usd=0.4)
    spending, allowance = Spending(account, 1), Allowance(PRICE)
    allowance.grant(*spending.first()[0])
    assert Ledger(10.0, tmp_path).remaining() == pytest.approx(9.6), "before the first figures"
    for key in range(3):
        allowance.reserve(key, request(key))
    allowance.settle(0, record(0, chunks=(0.1,), tokens=(4,)))
    spending.heard(0, allowance.state())
    spending.decide(lambda _at: 0.0)
    left = Ledger(10.0, tmp_path)
    assert left.billed_usd == pytest.approx(0.05)
    assert left.unsure_usd == pytest.approx(0.2), "two requests are in flight"
