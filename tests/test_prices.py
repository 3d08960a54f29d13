"""Prices against figures computed by hand."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from llmexp.config import Model
from llmexp.metrics import bill, prices
from llmexp.metrics.prices import PriceList

LISTED: dict[str, dict[str, Any]] = {
    "us.maker.big-v1:0": {
        "litellm_provider": "bedrock_converse",
        "input_cost_per_token": 3.3e-6,
        "output_cost_per_token": 16.5e-6,
        "cache_read_input_token_cost": 0.33e-6,
    },
    "maker.big-v1:0": {
        "litellm_provider": "bedrock_converse",
        "input_cost_per_token": 3e-6,
        "output_cost_per_token": 15e-6,
    },
    "bedrock/eu-west-1/maker.big-v1:0": {
        "litellm_provider": "bedrock",
        "input_cost_per_token": 4e-6,
        "output_cost_per_token": 20e-6,
    },
    "gpt-x": {
        "litellm_provider": "openai",
        "input_cost_per_token": 2e-6,
        "output_cost_per_token": 8e-6,
        "output_cost_per_reasoning_token": 10e-6,
    },
    "groq/open": {"litellm_provider": "groq", "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6},
    "ollama/free": {"litellm_provider": "ollama", "input_cost_per_token": 0.0, "output_cost_per_token": 0.0},
    "vertex_ai/gem": {
        "litellm_provider": "vertex_ai-language-models",
        "input_cost_per_token": 0,
        "output_cost_per_token": 5e-6,
    },
}


@pytest.fixture(autouse=True)
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "price_map", lambda: LISTED)


def model(**fields: Any) -> Model:
    return Model.model_validate({"name": "m"} | fields)


def test_cost_takes_cached_from_the_input_and_reasoning_from_the_output() -> None:
    price = PriceList(input_usd=3e-6, cached_input_usd=0.3e-6, output_usd=15e-6, reasoning_usd=20e-6)
    # 800 × 3 + 200 × 0.3 + 60 × 15 + 40 × 20 = 2400 + 60 + 900 + 800 millionths
    assert prices.cost(price, 1000, 200, 100, 40) == pytest.approx(4160e-6)


def test_unknown_special_prices_fall_back_to_the_ordinary_ones() -> None:
    price = PriceList(input_usd=2e-6, output_usd=8e-6)
    assert prices.cost(price, 1000, 400, 100, 50) == pytest.approx(2000e-6 + 800e-6)


@pytest.mark.parametrize("price", [PriceList(), PriceList(input_usd=1e-6), PriceList(output_usd=1e-6)])
def test_an_unknown_price_is_none_and_never_zero(price: PriceList) -> None:
    assert prices.cost(price, 10, 0, 10, 0) is None
    assert prices.estimate(price, 10, 1, 1) is None
    assert prices.usd_per_hour(price) is None
    assert prices.cost_of_window(price, 60) is None


def test_hours_count_every_instance() -> None:
    price = prices.price_list(model(api="sagemaker", price={"usd_per_instance_hour": 5.0, "instances": 3}))
    assert prices.usd_per_hour(price) == 15.0
    assert prices.cost_of_window(price, 120) == pytest.approx(0.5)
    assert prices.cost(price, 10, 0, 10, 0) is None
    assert price.source == "model file"


def test_an_estimate_is_requests_times_mean_tokens() -> None:
    price = PriceList(input_usd=3e-6, output_usd=15e-6)
    assert prices.estimate(price, 30, 1024, 1024) == pytest.approx(30 * (1024 * 3e-6 + 1024 * 15e-6))


def test_the_model_file_counts_first_field_by_field() -> None:
    own = {"usd_per_million_input_tokens": 1.0, "source": "contract", "as_of": "2026-11-01"}
    price = prices.price_list(model(name="gpt-x", price=own))
    assert (price.input_usd, price.output_usd, price.reasoning_usd) == pytest.approx((1e-6, 8e-6, 10e-6))
    assert price.source is not None
    assert price.source.startswith("contract; price map of LiteLLM ")
    assert price.as_of == "2026-11-01"


def test_a_stated_zero_is_a_price() -> None:
    own = {"usd_per_million_input_tokens": 0.0, "usd_per_million_output_tokens": 0.0}
    price = prices.price_list(model(base_url="http://127.0.0.1:8000/v1", price=own))
    assert prices.cost(price, 100, 0, 100, 0) == 0.0


@pytest.mark.parametrize(
    ("fields", "input_usd"),
    [
        ({"api": "bedrock", "name": "us.maker.big-v1:0"}, 3.3e-6),
        ({"api": "bedrock", "name": "global.maker.big-v1:0"}, 3e-6),
        ({"api": "bedrock", "name": "maker.big-v1:0", "region": "eu-west-1"}, 4e-6),
        ({"api": "bedrock", "name": "arn:aws:bedrock:us-east-1:1:inference-profile/us.maker.big-v1:0"}, 3.3e-6),
        ({"api": "litellm", "provider": "bedrock/converse", "name": "us.maker.big-v1:0"}, 3.3e-6),
        ({"api": "litellm", "provider": "groq", "name": "open"}, 1e-6),
        ({"api": "openai", "name": "open", "base_url": "https://api.groq.com/openai/v1"}, 1e-6),
        ({"api": "openai", "name": "gpt-x", "base_url": "https://api.openai.com/v1"}, 2e-6),
        ({"api": "openai", "name": "gpt-x", "base_url": "http://127.0.0.1:8000/v1"}, None),
        ({"api": "litellm", "provider": "hosted_vllm", "name": "gpt-x"}, None),
        ({"api": "litellm", "provider": "ollama", "name": "free"}, None),
        ({"api": "litellm", "provider": "sagemaker_chat", "name": "endpoint"}, None),
        ({"api": "sagemaker", "name": "maker.big-v1:0"}, None),
        ({"api": "bedrock", "name": "nobody.knows"}, None),
    ],
)
def test_the_map_is_searched_under_the_provider_that_charges(fields: dict[str, Any], input_usd: float | None) -> None:
    assert prices.price_list(model(**fields)).input_usd == (None if input_usd is None else pytest.approx(input_usd))


def test_a_zero_in_the_map_is_unknown() -> None:
    price = prices.price_list(model(api="litellm", provider="vertex_ai", name="gem"))
    assert price.input_usd is None
    assert price.output_usd == pytest.approx(5e-6)
    assert prices.cost(price, 10, 0, 10, 0) is None


def test_files_show_prices_per_million_with_their_source() -> None:
    shown = prices.as_dict(prices.price_list(model(name="gpt-x")))
    assert shown["usd_per_million_input_tokens"] == 2.0
    assert shown["usd_per_million_reasoning_tokens"] == 10.0
    assert shown["usd_per_million_cached_tokens"] is None
    assert "'gpt-x'" in shown["source"]


def test_litellm_s_own_map_is_read_without_importing_litellm() -> None:
    code = (
        "import sys; from llmexp.metrics import prices; from llmexp.config import Model;"
        "price = prices.price_list(Model(name='gpt-4o-mini'));"
        "assert price.input_usd and price.output_usd > price.input_usd, price;"
        "assert price.source and price.as_of, price; assert 'litellm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_writing_to_a_cache_has_a_price_of_its_own() -> None:
    price = PriceList(input_usd=3e-6, cached_input_usd=0.3e-6, output_usd=15e-6, cache_write_usd=3.75e-6)
    # 500 × 3 + 200 × 0.3 + 300 × 3.75 + 100 × 15 millionths
    assert prices.cost(price, 1000, 200, 100, 0, 300) == pytest.approx((1500 + 60 + 1125 + 1500) * 1e-6)
    assert prices.cost(price, 100, 90, 0, 0, 5000) == pytest.approx((27 + 37.5) * 1e-6)
    plain = PriceList(input_usd=3e-6, output_usd=15e-6)
    assert prices.cost(plain, 1000, 0, 0, 0, 300) == pytest.approx(3000e-6)
    own = model(price={"usd_per_million_cache_write_tokens": 3.75, "usd_per_million_input_tokens": 3})
    assert prices.price_list(own).cache_write_usd == pytest.approx(3.75e-6)


TIERED = {
    "litellm_provider": "openai",
    "input_cost_per_token": 1e-6,
    "output_cost_per_token": 2e-6,
    "input_cost_per_token_above_200k_tokens": 3e-6,
    "output_cost_per_token_above_200k_tokens": 4e-6,
    "input_cost_per_token_priority": 5e-6,
    "output_cost_per_token_priority": 6e-6,
    "input_cost_per_token_above_200k_tokens_priority": 7e-6,
}


@pytest.mark.parametrize(
    ("params", "own", "below", "above"),
    [
        ({}, {}, 1e-6 * 1e5 + 2e-6 * 10, 3e-6 * 3e5 + 4e-6 * 10),
        ({"service_tier": "priority"}, {}, 5e-6 * 1e5 + 6e-6 * 10, 7e-6 * 3e5 + 4e-6 * 10),
        ({"service_tier": "auto"}, {}, 1e-6 * 1e5 + 2e-6 * 10, 3e-6 * 3e5 + 4e-6 * 10),
        ({}, {"usd_per_million_input_tokens": 9.0}, 9e-6 * 1e5 + 2e-6 * 10, 9e-6 * 3e5 + 4e-6 * 10),
    ],
)
def test_long_inputs_and_service_tiers_have_prices_of_their_own(
    params: dict[str, Any], own: dict[str, Any], below: float, above: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prices, "price_map", lambda: {"gpt-t": TIERED})
    price = prices.price_list(model(name="gpt-t", params=params, price=own))
    assert prices.cost(price, 100_000, 0, 10, 0) == pytest.approx(below)
    assert prices.cost(price, 300_000, 0, 10, 0) == pytest.approx(above)
    assert prices.estimate(price, 2, 300_000, 10) == pytest.approx(2 * above)
    assert bill.at_most(price, 300_000, 10) == pytest.approx(above)
    assert "others above 200,000 input tokens" in str(price.source)
