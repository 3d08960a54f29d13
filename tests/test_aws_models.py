"""The model files for AWS as they ship: they load, they are priced, and they say what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from support.aws_server import clean_environment

from llmexp import config
from llmexp.clients import build
from llmexp.clients.aws_credentials import credential_problems
from llmexp.endpoints.aws import declared
from llmexp.metrics import prices

pytestmark = pytest.mark.service

CONF = Path(__file__).parents[1] / "conf"
NAMES = ("sonnet", "haiku", "nova", "llama", "llama_bedrock")
LENGTHS = {"input_tokens": {"mean": 128}, "output_tokens": {"mean": 64}}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


def _load(name: str, *overrides: object) -> config.Config:
    layers = [config.defaults(), {"workload": LENGTHS}, {"model": OmegaConf.load(CONF / "model" / f"{name}.yaml")}]
    tree = OmegaConf.to_container(OmegaConf.merge(*layers, *overrides), resolve=True)
    assert isinstance(tree, dict)
    return config.load({str(key): value for key, value in tree.items()})


@pytest.mark.parametrize("name", NAMES)
def test_model_file_loads_and_is_priced(name: str) -> None:
    model = _load(name).model
    price = prices.price_list(model)
    assert price.instance_hour_usd if model.api == "sagemaker" else price.input_usd and price.output_usd
    assert price.source
    assert model.rehearsal.ttft.mean_s > 0
    assert model.deployment.kind == model.api == declared(model)["kind"]
    assert build(model).target.scheme == "https"


@pytest.mark.parametrize("name", NAMES)
def test_missing_credentials_are_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMEXP_SAGEMAKER_ENDPOINT", "llama-3")
    assert credential_problems(_load(name).model) == []
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    [problem] = credential_problems(_load(name).model)
    assert "AWS_ACCESS_KEY_ID" in problem


def test_llama_takes_its_endpoint_from_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    [problem] = credential_problems(_load("llama").model)
    assert "LLMEXP_SAGEMAKER_ENDPOINT" in problem
    monkeypatch.setenv("LLMEXP_SAGEMAKER_ENDPOINT", "my-llama")
    assert _load("llama").model.name == "my-llama"
    assert credential_problems(_load("llama").model) == []


def test_article_experiment() -> None:
    article = OmegaConf.load(CONF / "experiment" / "article.yaml")
    assert list(article.pop("defaults")) == [{"override /model": "sonnet"}, {"override /workload": "article"}]
    job = _load("sonnet", article)
    assert f"{job.model.provider}/{job.model.name}" == "bedrock/converse/anthropic.claude-3-sonnet-20240229-v1:0"
    assert (job.concurrency, job.run.max_requests, job.run.timeout_s) == (1, 30, 300)
    price = prices.price_list(job.model)
    assert (price.input_usd, price.output_usd) == (pytest.approx(3e-6), pytest.approx(15e-6))
