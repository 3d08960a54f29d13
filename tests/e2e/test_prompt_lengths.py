"""Prompts sized by o200k_base, counted by the real small model's own server."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from llmexp.config import LlamaCpp, Model, Tokens, Workload
from llmexp.endpoints import opened
from llmexp.workload.source import Source
from llmexp.workload.tokens import tokenizer_for

pytestmark = pytest.mark.e2e
MODEL = Path(__file__).parents[2] / "conf" / "model" / "smollm2.yaml"
LENGTHS = Tokens(dist="uniform", min=30, max=2000)


def test_the_small_model_counts_what_was_asked_for(tmp_path: Path) -> None:
    model = Model.model_validate(OmegaConf.to_container(OmegaConf.load(MODEL)))
    assert isinstance(model.deployment, LlamaCpp)
    workload = Workload(input_tokens=LENGTHS, output_tokens=Tokens(mean=150, stddev=80))
    talk = workload.model_copy(update={"kind": "conversation", "turns": 3, "input_tokens": Tokens(mean=60)})
    yardstick = tokenizer_for(Model(name="any", tokenizer="o200k_base"), None)
    small = model.deployment.model_copy(update={"context_tokens": 256, "slots": 1})  # it only counts
    model = model.model_copy(update={"deployment": small})
    with opened(model, workload, 1, rehearse=False, log_dir=tmp_path) as running:
        own = tokenizer_for(model, running.base_url)
        assert (own.name, own.source) == ("endpoint", "tokenizer")
        for made in (Source(each, yardstick, seed=5, nonce="job") for each in (workload, talk)):
            requests = [made.request(index) for index in range(30)]
            found = [sum(own.count_many(m.text for m in request.messages)) for request in requests]
            assert found == [request.input_tokens for request in requests]
        assert own.count("Write 150 tokens.") == yardstick.count("Write 150 tokens.") + 2  # it does count by itself
