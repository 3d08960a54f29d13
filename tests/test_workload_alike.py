"""One text for all models, as long to each: prompts sized by one tokenizer have the same count under the others."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from llmexp import config
from llmexp.config import Model, Tokens, Workload
from llmexp.workload import source_for
from llmexp.workload.kit import DEFAULT_INSTRUCTION, filled
from llmexp.workload.numerals import SPREAD_WORDS, in_words
from llmexp.workload.request import Request
from llmexp.workload.source import Source
from llmexp.workload.tokens import Tokenizer, tokenizer_for

CONF = Path(__file__).parents[1] / "conf" / "workload"
OTHERS = ("cl100k_base", "anthropic", "deepseek", "estimate")
MODELS = (
    Model(name="gpt-4o"),
    Model(name="gpt-4", tokenizer="cl100k_base"),
    Model(name="anthropic.claude-v2:1", tokenizer="anthropic"),
    Model(name="deepseek-ai/DeepSeek-V3"),
    Model(name="meta-llama/Llama-3.1-8B-Instruct", tokenizer="estimate"),
)


@cache
def tokenizer(name: str) -> Tokenizer:
    return tokenizer_for(Model(name="any", tokenizer=name), None)


def counts(request: Request, name: str) -> int:
    return sum(tokenizer(name).count(message.text) for message in request.messages)


def shipped(option: str) -> Workload:
    return Workload.model_validate(OmegaConf.to_container(OmegaConf.load(CONF / f"{option}.yaml")))


def corpus(name: str) -> list[str]:
    return (files("llmexp.workload") / name).read_text(encoding="ascii").splitlines()


@pytest.mark.parametrize("name", ["o200k_base", *OTHERS])
def test_every_word_and_mark_of_the_prose_is_one_token(name: str) -> None:
    count, pieces = tokenizer(name).count, re.compile(r" [A-Za-z]+|[.,]")
    split = {}
    for line in corpus("corpus.txt"):
        found = pieces.findall(f" {line}")
        assert "".join(found) == f" {line}", line
        if count(f" {line}") != len(found):
            split[line] = [piece for piece in found if count(piece) != 1]
    assert split == {}
    assert [word for word in corpus("nonce.txt") if (count(word), count(f" {word}")) != (1, 1)] == []


def test_the_prose_is_varied() -> None:
    lines = corpus("corpus.txt")
    lengths = {len(re.findall(r"[a-z]+|[.,]", line.lower())) for line in lines}
    assert len(set(lines)) == len(lines) > 300
    assert set(range(4, 29)) <= lengths
    assert all(line.endswith(".") for line in lines)


@pytest.mark.parametrize("mean", [30, 31, 60, 128, 550, 1024, 2000])
def test_made_up_prompts_are_as_long_to_every_tokenizer(mean: int) -> None:
    workload = Workload(input_tokens=Tokens(mean=mean, stddev=mean / 8), output_tokens=Tokens(mean=150, stddev=80))
    made = Source(workload, tokenizer("o200k_base"), seed=3, nonce="job")
    for index in range(12):
        request = made.request(index)
        assert {name: counts(request, name) for name in OTHERS} == dict.fromkeys(OTHERS, request.input_tokens)


@pytest.mark.parametrize("option", ["article", "chat", "mix", "multi_turn", "qa", "quick", "shared_prefix", "write"])
def test_shipped_workloads_are_as_long_to_every_tokenizer(option: str) -> None:
    made = Source(shipped(option), tokenizer("o200k_base"), seed=3, nonce="job")
    for index in range(4, 48, 5):  # later turns of conversations too
        request = made.request(index)
        assert {name: counts(request, name) for name in OTHERS} == dict.fromkeys(OTHERS, request.input_tokens)


@pytest.mark.parametrize("option", ["quick", "multi_turn", "shared_prefix", "summarize"])
def test_all_models_are_sent_the_same(option: str) -> None:
    tree = config.defaults()
    tree["workload"] = shipped(option).model_dump()
    tree["model"]["name"] = "any"
    composed, sent = config.load(tree), []
    for model in MODELS:
        made = source_for(composed.model_copy(update={"model": model}), None, "job")
        sent.append([made.request(index) for index in range(6)])
    assert len({tokenizer_for(model, None).name for model in MODELS}) == len(MODELS)
    assert len({tuple(request.prompt_digest for request in requests) for requests in sent}) == 1
    assert all(requests == sent[0] for requests in sent)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (7, "seven"),
        (20, "twenty"),
        (64, "sixty four"),
        (150, "one hundred and fifty"),
        (1024, "one thousand and twenty four"),
        (2500, "two thousand five hundred"),
        (115_016, "one hundred and fifteen thousand and sixteen"),
        (1_000_000, "1000000"),
    ],
)
def test_numbers_in_words(number: int, words: str) -> None:
    assert in_words(number) == words
    assert len(in_words(777_777).split()) == 1 + SPREAD_WORDS


@pytest.mark.parametrize("name", OTHERS)
def test_the_asked_length_costs_every_tokenizer_the_same(name: str) -> None:
    for number in (*range(1, 1100, 3), 4096, 131_072):
        asked = f". {filled(DEFAULT_INSTRUCTION, number)}"
        assert tokenizer(name).count(asked) == tokenizer("o200k_base").count(asked), asked
    assert filled("Use {output_tokens} tokens. ", 12) == "Use 12 tokens."
