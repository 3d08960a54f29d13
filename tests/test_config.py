"""Every wrong value is answered with the key, the value and the remedy."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from llmexp.config import Config, defaults, flatten, load, places
from llmexp.errors import ConfigError


def tree(**changes: Any) -> dict[str, Any]:
    """A composed config that is fine, with dotted changes."""
    composed = defaults()
    composed["model"]["name"] = "m"
    composed["workload"]["input_tokens"]["mean"] = 100
    composed["workload"]["output_tokens"]["mean"] = 10
    for dotted, value in changes.items():
        *path, last = dotted.split("__")
        at = composed
        for part in path:
            at = at[part]
        at[last] = value
    return composed


def problems(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tree(**changes))
    return str(caught.value).splitlines()


def test_the_defaults_are_the_contracts() -> None:
    config = load(tree())
    assert (config.run.max_requests, config.max_requests) == ("auto", 32)
    assert (config.run.timeout_s, config.run.grace_s) == (300, 30)
    assert (config.run.warmup_requests, config.run.seed, config.run.repeats) == (4, 11111, 1)
    assert (config.run.max_error_rate, config.run.max_usd) == (0.05, 10)
    assert (config.compare.primary, config.compare.margin, config.compare.fail_on) == ("ttft_s/mean", 0.03, None)
    assert (config.slo.attainment, config.slo.enforce) == (0.95, False)
    assert config.paths.outputs == "outputs"


def test_concurrency_follows_from_the_load_where_it_is_null() -> None:
    assert load(tree()).streams == 4
    assert load(tree(load__kind="poisson", load__rate=2.0)).streams is None
    assert load(tree(concurrency=7)).streams == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"concurrency": 0}, "concurrency: must be at least 1, got 0"),
        ({"concurrency": -4}, "concurrency: must be at least 1, got -4"),
        ({"concurrency": "four"}, "concurrency: must be a whole number, got 'four'"),
        ({"concurrency": 1.5}, "concurrency: must be a whole number, got 1.5"),
        ({"run__timeout_s": 0}, "run.timeout_s: must be greater than 0, got 0"),
        ({"run__max_requests": 0}, "run.max_requests: must be at least 1, got 0"),
        ({"run__max_error_rate": 2}, "run.max_error_rate: must be at most 1, got 2"),
        ({"workload__input_tokens__mean": -5}, "workload.input_tokens.mean: must be greater than 0, got -5"),
        (
            {"workload__input_tokens__mean": None, "workload__input_tokens__stddev": 3.0},
            "workload.input_tokens.mean: must be given (stddev is 3)",
        ),
        (
            {"workload__input_tokens__mean": 1e12},
            "workload.input_tokens.mean: must be at most 1e+07, got 1000000000000",
        ),
        ({"model__api": "opnai"}, "model.api: must be one of"),
        ({"model__base_url": "localhost"}, "model.base_url: must be a URL such as http://127.0.0.1:8000/v1"),
        ({"model__base_ulr": "x"}, "model.base_ulr: unknown key; did you mean model.base_url?"),
        ({"model__name": " "}, "model.name: must not be empty"),
        ({"tracking__experiment": ""}, "tracking.experiment: must not be empty"),
        ({"model__name": "a\udcc3"}, "model.name: holds half of a character, or bytes that this locale cannot read"),
        ({"model__params": {"stop": ["\ud83d"]}}, "model.params.stop: holds half of a character"),
        ({"model__api": "litellm"}, "model.provider: api=litellm needs LiteLLM's prefix"),
        ({"model__headers": {"X-Api-Key": "s"}}, "model.headers.X-Api-Key: looks like a secret"),
        ({"model__deployment": {"kind": "llamacpp", "slots": 0}}, "model.deployment.slots: must be at least 1, got 0"),
        ({"model__deployment": {"kind": "k8s"}}, "model.deployment.kind: must be one of"),
        ({"ray": {"kind": "cluster", "address": "head"}}, "ray.address: must be HOST:PORT of the cluster's head"),
        ({"ray": {"kind": "cluster", "address": "head:99999"}}, "ray.address: must be HOST:PORT of the cluster's head"),
        ({"load__kind": "poisson"}, "load.rate: load=poisson needs requests per second"),
        ({"load__rate": 3.0}, "load.rate: load=closed has no rate, got 3"),
        ({"load__kind": "ramp"}, "load.from: load=ramp needs load.from and load.to"),
        ({"slo__enforce": True}, "slo.enforce: there is no threshold to enforce"),
        ({"run__rerun_invalid": True}, "run.rerun_invalid: goes with run.resume"),
        ({"rehearse": "maybe"}, "rehearse: must be true or false, got 'maybe'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_wrong_value_is_named_with_its_remedy(changes: dict[str, Any], message: str) -> None:
    assert any(line.startswith(message) for line in problems(**changes)), problems(**changes)


def test_all_problems_are_said_at_once() -> None:
    lines = problems(concurrency=0, run__timeout_s=-1, model__api="x")
    assert len(lines) == 3


def test_a_config_is_frozen() -> None:
    config = load(tree())
    with pytest.raises(ValueError, match="frozen"):
        config.concurrency = 5  # type: ignore[misc]


def test_texts_take_what_people_type_and_null_takes_a_key_away() -> None:
    texts = {"ticket": 4711, "prod": True, "team": "a", "gone": None}
    found = load(tree(tracking__tags=texts, model__headers={"X-Try": 2, "X-Gone": None}, run__nonce=123))
    assert found.tracking.tags == {"ticket": "4711", "prod": "true", "team": "a"}
    assert (found.model.headers, found.run.nonce) == ({"X-Try": "2"}, "123")
    assert problems(tracking__tags={"version": 1.10}) == [
        "tracking.tags.version: must be text, got 1.1; quote it: \"tracking.tags.version='1.1'\""
    ]


def test_flatten_keeps_lists_and_empty_mappings() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1, 2]}) == {"a.b": 1, "a.c": {}, "d": [1, 2]}


def test_every_field_can_be_overridden_because_the_defaults_carry_it() -> None:
    assert set(defaults()) == {field.alias or name for name, field in Config.model_fields.items()}
    assert {"base_url", "api_key_env", "headers_env", "region"} <= set(defaults()["model"])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:80000/v1", "its port must be a number from 1 to 65535"),
        ("http://127.0.0.1:0/v1", "its port must be a number from 1 to 65535"),
        ("http://127.0.0.1:/v1", "its port must be a number from 1 to 65535"),
        ("http://127.0.0.1:http/v1", "its port must be a number from 1 to 65535"),
        ("http://[::1:8000/v1", "an IPv6 address stands in brackets"),
        ("http://exa mple/v1", "white space"),
        ("http://ex%61mple/v1", "no name of a host"),
        ("http://a..example/v1", "no name of a host"),
        (f"http://{'a' * 64}.example/v1", "no name of a host"),
        ("http://host/v1#top", "never sent"),
        ("host:8000/v1", "must be a URL such as http://127.0.0.1:8000/v1"),
        ("ftp://host/v1", "must be a URL such as http://127.0.0.1:8000/v1"),
        ("http://host/v1/chat/completions", "set model.base_url=http://host/v1"),
        ("http://host/v1/v1/", "names /v1 twice, got 'http://host/v1/v1/'; set model.base_url=http://host/v1/"),
        ("http://host/v1/messages/", "would go to /v1/messages/messages"),
        ("http://host/openai/v1/completions?api-version=1", "set model.base_url=http://host/openai/v1?api-version=1"),
    ],
)
def test_an_address_that_cannot_be_called_is_told_before_anything_is_sent(url: str, said: str) -> None:
    [line] = problems(model__base_url=url)
    assert line.startswith("model.base_url: ")
    assert said in line


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1]:8000/v1",
        "https://a-b.example/v1?api-version=2024",
        "http://my_host:1/",
        "http://bücher.example/v1",
    ],
)
def test_addresses_that_can_be_called(url: str) -> None:
    assert load(tree(model__base_url=url)).model.base_url == url


def test_a_number_that_may_be_a_word_is_checked_in_one_line() -> None:
    for wrong, said in ((0, "must be at least 1, got 0"), ("many", "must be a whole number, auto or null, got 'many'")):
        composed = tree()
        composed["run"]["max_requests"] = wrong
        with pytest.raises(ConfigError, match=rf"^run\.max_requests: {said}$"):
            load(composed)


RAYS_LONGEST = "/r/session_2026-11-28_00-23-34_375276_1234567/sockets/plasma_store"


@pytest.mark.parametrize("length", [20, 25, 26, 28, 40, 86])
def test_sockets_have_room_below_any_temporary_folder(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        base = Path(short) / ("x" * max(1, length - len(short) - 1))
        base.mkdir(exist_ok=True)
        monkeypatch.setattr(tempfile, "tempdir", str(base))
        folder = places.socket_folder()
        try:
            assert len(f"{folder}{RAYS_LONGEST}") <= 107
            assert folder.stat().st_mode & 0o777 == 0o700
            assert (folder.parent == base) == (length <= places.LONGEST_BASE)
        finally:
            folder.rmdir()


TOKENS = {"input_tokens": {"mean": 8}, "output_tokens": {"mean": 8}}


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"quality": {"kind": "judge", "judge": {"model": 5}}}, "quality.judge.model: must be text or a list, got 5"),
        ({"quality": {"schema": [1]}}, "quality.schema: must be a mapping or text, got [1]"),
        ({"search": {"goal": {"metrc": "x"}}}, "search.goal.metric: must be given\nsearch.goal.metrc: unknown key"),
        ({"model": {"gpus": ["a", 1.5]}}, "model.gpus.1: must be a whole number or text, got 1.5"),
        ({"model": {"gpus": {"a": 1}}}, 'model.gpus: must be a list, a whole number or text, got {"a": 1}'),
        ({"quality": {"tolerance": float("inf")}}, "quality.tolerance: must be a finite number, got Infinity"),
        ({"quality": {"margin": 2}}, "quality.margin: must be less than 1, got 2"),
        ({"quality": {"kind": "regex", "pattern": ""}}, "quality.pattern: quality=regex needs a regular expression"),
    ],
)
def test_a_key_of_several_kinds_is_named_once(tree: dict[str, dict[str, object]], said: str) -> None:
    whole = {"model": {"name": "m", **tree.get("model", {})}, "workload": TOKENS}
    with pytest.raises(ConfigError) as error:
        load(whole | {key: value for key, value in tree.items() if key != "model"})
    assert str(error.value).startswith(said)
