"""The whole command of a search, with loads that are made up: failed trials, resumes, money, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.without_load import MODEL, load_of, no_load  # noqa: F401 -- a fixture

import llmexp
from llmexp import composition
from llmexp.benchmark import driver
from llmexp.benchmark.measurement import Measurement
from llmexp.errors import FAILED, INTERRUPTED, OK, ConfigError, JobError
from llmexp.jobs import command, lock, readers
from llmexp.jobs.sweep import Outcome
from llmexp.tracking.sweep import job_dirs

pytestmark = pytest.mark.service
pytest.importorskip("optuna")

ASKED = (
    *MODEL,
    "experiment=tune",
    "model.name=plain",
    "run.max_requests=60",
    "run.warmup_requests=0",
    "tracking=none",
    "search.goal=ttft_s/mean",
    "search.confirm=0",
)
NAMES = "search.space={model.name: [fast, broken, other]}"


def search(*overrides: str) -> Outcome:
    with composition.opened(None):
        (one,) = composition.compose_all([*ASKED, "hydra.run.dir=out", *overrides])
        return command.run_composed(one.task, one.hydra)


def told() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("out/search.json").read_text())
    return found


def ids() -> dict[str, str]:
    """Trial → the id of its job."""
    files = [file for file in Path("out/trials").glob("*/result.json") if file.parent.name.isdigit()]
    return {file.parent.name: json.loads(file.read_text())["job"]["id"] for file in files}


@pytest.fixture
def loads(no_load: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, BaseException]:  # noqa: F811
    """Model name → what its load raises."""
    raised: dict[str, BaseException] = {}

    def load(self: driver.Benchmark) -> Measurement:
        error = raised.get(self._job.config.model.name)
        if error is not None:
            raise error
        if self._job.purse is not None:
            self._job.purse.book(3.84, 0.0, 0.0)
        return load_of(self)

    monkeypatch.setattr(driver.Benchmark, "run", load)
    monkeypatch.setattr(readers, "write_files", lambda *_arguments: None)
    return raised


def test_a_trial_that_fails_costs_itself_and_a_resume_tries_it_again_and_no_other(
    loads: dict[str, BaseException],
) -> None:
    loads["broken"] = JobError("the server ended with exit status 3")
    assert search(NAMES, "search.trials=4").status == FAILED
    trials = {one["params"].get("model.name"): one for one in told()["trials"]}
    assert set(trials) == {None, "fast", "broken", "other"}
    assert trials["broken"]["value"] is None
    assert "exit status 3" in trials["broken"]["why"]
    assert told()["best"]["params"] == {"model.name": "fast"}
    before = ids()
    del loads["broken"]
    promised = lock.claim(Path("out"), promise=True)
    assert promised.path.name == "out-2"
    assert search(NAMES, "search.trials=4", "run.resume=out", f"hydra.run.dir={promised.path}").status == OK
    assert not promised.path.exists()
    after, number = ids(), str(trials["broken"]["number"])
    assert before.pop(number) != after.pop(number)
    assert before == after
    assert [one["params"] for one in told()["trials"]] == [one["params"] for one in trials.values()]
    assert all(one["value"] for one in told()["trials"])


def test_an_interrupted_trial_ends_the_search_and_the_resume_begins_with_it(loads: dict[str, BaseException]) -> None:
    loads["fast"] = KeyboardInterrupt()
    assert search("search.space={model.name: [fast]}", "search.trials=4").status == INTERRUPTED
    assert [one["value"] is None for one in told()["trials"]] == [False, True]
    first = ids()["0"]
    del loads["fast"]
    resumed = search("search.space={model.name: [fast]}", "search.trials=4", "run.resume=out", "search.confirm=2")
    assert resumed.status == OK
    assert ids()["0"] == first
    assert len(told()["verdict"]["values"]) == 2
    assert len(told()["trials"]) == 2, "there are no more settings"
    compared = json.loads(Path("out/comparison.json").read_text())["headline"]
    assert compared.startswith(f"{told()['headline']}.")


def test_a_configuration_without_a_value_ends_the_search(loads: dict[str, BaseException]) -> None:
    loads["plain"] = JobError("no server")
    assert search(NAMES).status == FAILED
    assert [one["why"] for one in told()["trials"]] == ["no server"]


def test_money_for_the_repeats_that_confirm_is_kept(loads: dict[str, BaseException]) -> None:
    """A job is estimated at 60 requests × 64 tokens × 1,000 USD per million tokens, and costs that: 3.84 USD."""
    priced = ("model.price.usd_per_million_output_tokens=1000", "model.price.usd_per_million_input_tokens=0")
    more = (*priced, "search.space={model.name: [fast], run.grace_s: [28, 29]}", "search.confirm=1")
    assert not loads
    assert search(*more, "run.max_usd=16").status == OK
    assert len(told()["trials"]) == 2
    assert len(told()["verdict"]["values"]) == 1
    logged = [str(path.relative_to("out")) for path in job_dirs(Path("out"))]
    assert logged == ["trials/0", "trials/1", "0", "1"], "what relog takes for its jobs"
    with pytest.raises(ConfigError, match=r"run\.max_usd: this is estimated at .* above 15"):
        search(*more, "run.max_usd=15")


def test_what_is_wrong_in_the_space_is_known_before_anything_is_sent(loads: dict[str, BaseException]) -> None:
    assert not loads
    with pytest.raises(ConfigError) as error:
        search(
            "search.space={model.nmae: [a, b], concurrency: [1, 0], run.warmup_requests: {low: -1, high: 4}, "
            "load: [closed, clsed], run.max_requests: {low: 4.0, high: 8.0}}"
        )
    said = str(error.value)
    assert "search.space.model.nmae: is no key of the configuration" in said
    assert "search.space.concurrency: concurrency: must be at least 1, got 0" in said
    assert "search.space.run.warmup_requests: run.warmup_requests: must be at least 0, got -1" in said
    assert "search.space.run.max_requests: run.max_requests: " in said
    assert "search.space.load: " in said
    assert not Path("out/search.json").exists()


@pytest.mark.parametrize("more", [["dry_run=true"], ["search.goal=ttft_s/p59"], ["run.resume=none"]], ids=str)
def test_a_search_that_does_not_begin_leaves_no_folder(loads: dict[str, BaseException], more: list[str]) -> None:
    assert not loads
    lock.claim(Path("out"), promise=True)  # as Hydra's callback does
    try:
        outcome = search(NAMES, *more)
    except ConfigError:
        assert "dry_run=true" not in more
    else:
        assert (outcome.status, outcome.directory) == (OK, None)
    assert not Path("out").exists()
    assert not lock._held


def test_a_group_may_be_searched_and_from_python_too(loads: dict[str, BaseException]) -> None:
    assert not loads
    more = ("search.space={workload: [qa, chat]}", "search.trials=2", "workload=quick")
    found = llmexp.sweep([*ASKED, *more, "hydra.run.dir=out"])
    assert (found.exit_status, len(found.jobs)) == (OK, 2)
    assert found.search == told()
    assert {one["params"].get("workload") for one in told()["trials"]} <= {None, "qa", "chat"}
    with pytest.raises(ConfigError, match=r"use llmexp\.sweep"):
        llmexp.run(["experiment=tune", "model=simulated"])
