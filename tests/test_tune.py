"""A search for settings: what may be asked, where it looks next, what the winner's verdict is."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr

from llmexp.config import Config, load
from llmexp.errors import ConfigError
from llmexp.jobs import tune, tune_goal
from llmexp.results import Result

pytestmark = pytest.mark.service

optuna = pytest.importorskip("optuna")


def config(search: dict[str, object], **parts: object) -> Config:
    tree = {
        "model": {"name": "m", "price": {"usd_per_instance_hour": 1.0}},
        "workload": {"input_tokens": {"mean": 8}, "output_tokens": {"mean": 8}},
        "slo": {"ttft_s": 0.5},
        "search": {"space": {"concurrency": [1, 2]}, **search},
    }
    return load(tree | parts)


@pytest.mark.parametrize(
    ("search", "parts", "words"),
    [
        ({}, {"slo": {}}, "slo: goodput_per_usd counts requests that keep a service level"),
        ({"goal": "ttft_s/p59"}, {}, "search.goal: 'ttft_s' has no 'p59'"),
        ({"goal": "output_tokens/mean"}, {}, "search.direction: output_tokens/mean has none of its own"),
        ({"goal": "goodput_per_joule"}, {"rehearse": True}, "search.goal: goodput_per_joule needs the energy"),
        ({"goal": "goodput_per_joule"}, {}, "search.goal: goodput_per_joule needs the energy: set model.gpu_metrics"),
        ({"goal": "goodput_per_watt"}, {}, "search.goal: "),
        ({"goal": "capacity/estimate"}, {}, "search.goal: capacity/estimate is the answer of a capacity search"),
        ({"goal": "right_per_s"}, {}, "search.goal: right_per_s needs graded answers"),
        ({"space": {"concurrency": 4}}, {}, "search.space.concurrency: must be a list of choices"),
        ({"space": {"concurrency": {"low": 4, "high": 1}}}, {}, "search.space.concurrency: "),
        (
            {"space": {"concurrency": {"low": 1, "high": 4, "steps": 1}}},
            {},
            "search.space.concurrency.steps: unknown key",
        ),
        ({"space": {"concurrency": {"low": "a", "high": 4}}}, {}, "search.space.concurrency.low: must be a number"),
        ({"space": {}}, {"load": {"kind": "poisson", "rate": 2.0}}, "search.space: is empty, and an open load"),
        ({"space": {"a": {"b": []}}}, {}, "search.space.a.b: must be a list of choices"),
        ({"space": {"slo": {"ttft_s": [0.5, 5]}}}, {}, "search.space.slo.ttft_s: is what trials are held against"),
        ({"space": {"quality": ["exact", "contains"]}}, {}, "search.space.quality: is what trials are held against"),
    ],
)
def test_what_is_refused(search: dict[str, object], parts: dict[str, object], words: str) -> None:
    assert words in "\n".join(tune_goal.problems(config(search, **parts)))


def test_what_is_fine() -> None:
    for search in ({}, {"goal": "ttft_s/p95"}, {"goal": {"metric": "output_tokens/mean", "direction": "minimize"}}):
        assert not list(tune_goal.problems(config(search)))
    assert tune_goal.direction(config({"goal": "ttft_s/p95"})) == "minimize"
    assert tune_goal.direction(config({"goal": "output_tokens_per_s"})) == "maximize"
    assert tune_goal.direction(config({"goal": "ttft_s/p95", "direction": "maximize"})) == "maximize"


def test_nested_keys_and_ranges() -> None:
    found = tune_goal.space({"model": {"deployment": {"slots": [1, 2]}}, "load.rate": {"low": 1, "high": 9.5}})
    assert list(found) == ["model.deployment.slots", "load.rate"]
    assert list(tune_goal.space({})) == ["concurrency"]
    with pytest.raises(ConfigError, match="must be a list of choices"):
        tune_goal.space({"a": 1})


def test_what_a_job_was_worth() -> None:
    metrics = {
        "goodput_per_s": 4.0,
        "window_s": 10.0,
        "cost_usd": 0.5,
        "gpu": {"energy_j": 800.0},
        "ttft_s": {"p95": 0.2},
    }
    result = Result.model_validate({"job": {"id": "a"}, "metrics": metrics})
    assert tune_goal.value_of(result, "goodput_per_usd") == 80.0
    assert tune_goal.value_of(result, "goodput_per_joule") == 0.05
    assert tune_goal.value_of(result, "ttft_s/p95") == 0.2
    for capacity, value in (
        ({"estimate": 7.5, "passed_at": 7.0, "failed_at": 8.0}, 7.5),
        ({"passed_at": 32.0}, 32.0),
        ({"failed_at": 1.0}, 0.0),
        ({}, None),
    ):
        found = Result.model_validate({"job": {"id": "a"}, "metrics": {"capacity": capacity}})
        assert tune_goal.value_of(found, "capacity/estimate") == value
    free = Result.model_validate({"job": {"id": "a"}, "metrics": metrics | {"cost_usd": 0.0}})
    assert tune_goal.value_of(free, "goodput_per_usd") is None
    assert "set model.price" in tune_goal.why_none(free, "goodput_per_usd")


@pytest.mark.parametrize(
    ("pairs", "direction", "expected"),
    [
        ([(10, 15), (11, 16), (10, 15.5)], "maximize", "better"),
        ([(10, 15), (11, 16), (10, 15.5)], "minimize", "worse"),
        ([(10, 10.05), (10, 9.98), (10, 10.02)], "maximize", "same"),
        ([(10, 15), (10, 8), (10, 12)], "maximize", "undecided"),
        ([(10, 15)], "maximize", "undecided"),
        ([(0, 15), (0, 15)], "maximize", "undecided"),
    ],
)
def test_the_winner_s_verdict(pairs: list[tuple[float, float]], direction: str, expected: str) -> None:
    assert tune.verdict(pairs, "goodput_per_s", direction, margin=0.03)["verdict"] == expected


def test_what_was_tried_is_read_back_and_a_broken_file_is_none(tmp_path: Path) -> None:
    assert tune._told(tmp_path) == []
    (tmp_path / tune.FILE).write_text('{"trials": [{"params": {"concurrency": 4}}, {"params": {}}]}')
    assert tune._told(tmp_path) == [{"concurrency": 4}, {}]


def test_15_trials_find_the_best_goodput_of_a_known_space() -> None:
    """Slots, tokens in a chunk and load of a server of which all is known, with 1 % of noise."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    from llmexp.jobs.tune_sampler import HEADROOM, IN_SERVICE, YIELD, Surface

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space: dict[str, Any] = {
        "slots": CategoricalDistribution([1, 2, 4, 8]),
        "tokens": CategoricalDistribution([1, 2, 4]),
        "concurrency": IntDistribution(1, 16, log=True),
    }

    def serve(params: dict[str, Any], noise: tuple[float, float]) -> tuple[float, float, float]:
        slots, load = params["slots"], params["concurrency"]
        service_s = 0.05 + 0.02 * (64 - params["tokens"])
        served = math.log(min(load, slots) / service_s) + noise[0]
        late = math.log((0.05 + max(0, load - slots) / slots * service_s) / 0.4) + noise[1]
        return math.exp(served) * float(ndtr(-late / 0.05)), served, late

    grid = [dict(zip(space, point, strict=True)) for point in itertools.product([1, 2, 4, 8], [1, 2, 4], range(1, 17))]
    best = max(serve(point, (0, 0))[0] for point in grid)
    for seed in range(1):
        draw = np.random.default_rng(seed)
        study = optuna.create_study(direction="maximize", sampler=Surface(space, seed, 15))
        for _ in range(15):
            trial = study.ask(fixed_distributions=space)
            value, served, late = serve(trial.params, tuple(draw.normal(0, 0.01, 2)))
            trial.set_user_attr(YIELD, served)
            trial.set_user_attr(HEADROOM, [late, late + 1.28 * 0.05])
            trial.set_user_attr(
                IN_SERVICE, min(trial.params["slots"], trial.params["concurrency"]) + draw.normal(0, 0.1)
            )
            study.tell(trial, value)
        assert serve(study.best_trial.params, (0, 0))[0] >= 0.95 * best


def test_how_many_requests_were_in_service_follows_from_their_waiting() -> None:
    """11 in flight on 8 slots of 0.5 s each: 16 a second, of which each waits 3 / 16 s on average."""
    metrics = {
        "requests_per_s": 16.0,
        "ttft_s": {"mean": 0.1 + 3 / 16, "min": 0.1, "p50": 0.1, "p90": 0.6},
        "e2e_latency_s": {"mean": 0.5 + 3 / 16},
    }
    result = Result.model_validate({"job": {"id": "a"}, "metrics": metrics})
    parts = tune_goal.behind(result, config({"goal": "goodput_per_s"}))
    assert parts is not None
    assert parts.in_service == pytest.approx(8)
    assert parts.headroom == pytest.approx((math.log(0.2), math.log(1.2)))
    late = tune_goal.behind(result, config({"goal": "goodput_per_s"}, slo={"ttft_s": 0.05}))
    assert late is not None
    assert late.in_service is None
    assert tune_goal.behind(result, config({"goal": "ttft_s/p50"})) is None


def test_a_search_goes_where_trials_end() -> None:
    """The best lies beside settings with which the server does not start."""
    from optuna.distributions import IntDistribution

    from llmexp.jobs.tune_sampler import Surface

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space: dict[str, Any] = {"batch": IntDistribution(1, 64), "step": IntDistribution(1, 8)}
    study = optuna.create_study(direction="maximize", sampler=Surface(space, 1, 12))
    for _ in range(12):
        trial = study.ask(fixed_distributions=space)
        fails = trial.params["batch"] > 40
        study.tell(trial, None if fails else trial.params["batch"], state=optuna.trial.TrialState(3 if fails else 1))
    assert study.best_value >= 36
