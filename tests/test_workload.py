"""Prompts: exact lengths, what they depend on, what a cache may know of them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from llmexp import config
from llmexp.config import Model, Simulated, Tokens, Workload
from llmexp.errors import ConfigError
from llmexp.workload import context_tokens, source_for, validate
from llmexp.workload.kit import digest
from llmexp.workload.lengths import lengths
from llmexp.workload.numerals import in_words
from llmexp.workload.request import Message
from llmexp.workload.source import Source
from llmexp.workload.text import nonce_text, reference_nonce
from llmexp.workload.tokens import Estimate, Tokenizer, tokenizer_for

CONF = Path(__file__).parents[1] / "conf"
CHAT = Workload(input_tokens=Tokens(mean=550, stddev=150), output_tokens=Tokens(mean=150, stddev=80))
SHORT = Workload(input_tokens=Tokens(mean=60, stddev=15), output_tokens=Tokens(mean=20, stddev=5))
NONCE_TOKENS = 5


def tokenizer(name: str) -> Tokenizer:
    if name == "simulator":
        return tokenizer_for(Model(name="any", deployment=Simulated(kind="simulated")), None)
    return tokenizer_for(Model(name="any", tokenizer=name), None)


def source(workload: Workload, *, name: str = "estimate", seed: int = 1, nonce: str = "job") -> Source:
    return Source(workload, tokenizer(name), seed=seed, nonce=nonce)


def text(request: Any) -> str:
    return str(request.messages[0].text)


def common(texts: list[str]) -> str:
    """What all the texts begin with."""
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    return "".join(letters[0] for letters in alike)


def bare(request: Any) -> str:
    """The text behind the nonce."""
    return text(request).split(".", 1)[1]


@pytest.mark.parametrize("name", ["estimate", "simulator", "cl100k_base", "o200k_base", "anthropic"])
def test_prompts_have_exactly_the_drawn_length(name: str) -> None:
    counter, made = tokenizer(name), source(CHAT, name=name)
    drawn = lengths("input", CHAT.input_tokens)
    for index in range(120):
        request = made.request(index)
        assert request.input_tokens == max(drawn.draw(1, "input", index), 0)
        assert counter.count(text(request)) == request.input_tokens
        assert f"exactly {in_words(request.max_tokens)} tokens" in text(request)[-80:]


def test_long_prompts_are_exact_though_the_corpus_ends() -> None:
    request = source(Workload(input_tokens=Tokens(mean=20_000), output_tokens=Tokens(mean=8)), name="cl100k_base")
    assert request.request(0).input_tokens == 20_000


@pytest.mark.parametrize("mean", [1, 5, 24, 27])
def test_the_shortest_prompt_is_nonce_and_instruction(mean: float) -> None:
    made = source(Workload(input_tokens=Tokens(mean=mean), output_tokens=Tokens(mean=30)), name="cl100k_base")
    request = made.request(0)
    assert text(request).startswith(nonce_text("job", "", 0))
    assert "thirty tokens" in text(request)
    assert request.input_tokens == max(21, mean)
    assert made.mean_tokens()[0] == pytest.approx(max(21, mean))
    assert [note.partition(":")[0] for note in made.notes()] == (["workload.input_tokens"] if mean < 21 else [])


def test_a_prompt_depends_on_seed_and_index_alone() -> None:
    forwards = [source(SHORT).request(index) for index in range(20)]
    one = source(SHORT)
    assert [one.request(index) for index in reversed(range(20))] == forwards[::-1]
    assert len({bare(request) for request in forwards}) == 20
    assert source(SHORT, seed=2).request(3) != forwards[3]


def test_the_nonce_changes_the_head_and_nothing_else() -> None:
    here, there = source(SHORT, nonce="a"), source(SHORT, nonce="b")
    for index in range(20):
        one, other = here.request(index), there.request(index)
        assert text(one).split(".")[0] != text(other).split(".")[0]
        assert bare(one) == bare(other)
        assert (one.prompt_digest, one.max_tokens, one.input_tokens) == (
            other.prompt_digest,
            other.max_tokens,
            other.input_tokens,
        )


def test_warmup_requests_are_never_measured_ones() -> None:
    made = source(SHORT)
    warm, measured = ([made.request(index, warmup=flag) for index in range(50)] for flag in (True, False))
    assert all(request.warmup for request in warm)
    assert not {bare(request) for request in warm} & {bare(request) for request in measured}
    heads = [text(request)[:20] for request in warm + measured]
    assert len(set(heads)) == len(heads)


@pytest.mark.parametrize("name", ["estimate", "simulator", "cl100k_base", "o200k_base", "anthropic"])
def test_a_nonce_has_a_fixed_token_length(name: str) -> None:
    counter = tokenizer(name)
    assert {counter.count(nonce_text("job", "", index)) for index in range(500)} == {NONCE_TOKENS}
    assert len({nonce_text("job", "", index) for index in range(20_000)}) == 20_000


def test_prompts_stay_what_they_were() -> None:
    request = source(SHORT, seed=11111, nonce="fixed").request(0)
    assert (request.prompt_digest, request.input_tokens, request.max_tokens) == PINNED
    assert request.prompt_digest == digest([bare(request)], request.max_tokens)


def test_a_shared_prefix_is_shared_by_the_declared_share() -> None:
    workload = Workload(
        input_tokens=Tokens(mean=300, stddev=20),
        output_tokens=Tokens(mean=20),
        prefix_tokens=200,
        prefix_share=0.75,
        prefix_count=3,
    )
    made, counter = source(workload, name="cl100k_base"), tokenizer("cl100k_base")
    requests = [made.request(index) for index in range(400)]
    heads = [text(request)[:300] for request in requests]
    repeated = {head for head in heads if heads.count(head) > 1}
    assert len(repeated) == 3
    assert sum(head in repeated for head in heads) / 400 == pytest.approx(0.75, abs=0.08)
    assert made.declared_cache_share() == pytest.approx(0.75 * 200 / 300, abs=0.01)
    one, other = ([request for request in requests if text(request)[:300] == head] for head in sorted(repeated)[:2])
    assert counter.count(common([text(request) for request in one])) == pytest.approx(200, abs=2)
    assert common([text(one[0]), text(other[0])]).count(" ") < 3
    assert text(source(workload, nonce="b").request(requests.index(one[0])))[:300] != text(one[0])[:300]
    assert all(counter.count(text(request)) == request.input_tokens for request in requests[:40])
    drawn = lengths("input", workload.input_tokens)
    assert all(request.input_tokens == drawn.draw(1, "input", request.index) for request in requests)


def test_an_instruction_of_ones_own_replaces_the_closing() -> None:
    workload = SHORT.model_copy(update={"instruction": "Answer {with} {output_tokens} words."})
    request = source(workload).request(0)
    assert text(request).endswith(f". Answer {{with}} {request.max_tokens} words.")
    assert text(source(SHORT.model_copy(update={"instruction": ""})).request(0)).endswith(".")


def test_force_output_and_index_travel() -> None:
    request = source(SHORT.model_copy(update={"force_output": True})).request(17)
    assert (request.index, request.force_output, request.session) == (17, True, None)


# --- conversations ---------------------------------------------------------------------------------------------------

TALK = Workload(
    kind="conversation",
    input_tokens=Tokens(mean=60, stddev=10),
    output_tokens=Tokens(mean=30, stddev=5),
    turns=3,
    think_time_s=1.5,
)


def test_a_conversations_turns_follow_each_other_and_one_that_does_not_fit_is_not_started() -> None:
    made = source(TALK)
    requests = [made.request(index) for index in range(6)]
    assert [(request.session, request.turn) for request in requests] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert {request.turns for request in requests} == {3}
    assert [request.delay_s for request in requests[:3]] == [0, TALK.think_time_s, TALK.think_time_s]
    assert list(made.sessions(8)) == [range(3), range(3, 6)]


def test_a_turn_carries_the_real_history_behind_one_nonce() -> None:
    made, counter = source(TALK, name="cl100k_base"), tokenizer("cl100k_base")
    first = made.request(0)
    history = (*first.messages, Message("assistant", "A real answer."))
    second = made.request(1, history=history)
    assert second.messages[:2] == history
    assert [message.role for message in second.messages] == ["user", "assistant", "user"]
    assert not second.messages[2].text.startswith(nonce_text("job", "", 0))
    assert second.input_tokens == sum(counter.count(message.text) for message in second.messages)
    other = source(TALK, name="cl100k_base", nonce="b").request(1, history=history[:1])
    assert other.prompt_digest == second.prompt_digest != first.prompt_digest


def test_a_turn_without_an_answer_before_it_gets_a_made_up_one() -> None:
    made = source(TALK)
    third = made.request(2)
    assert [message.role for message in third.messages] == ["user", "assistant"] * 2 + ["user"]
    assert third.messages[0] == made.request(0).messages[0]
    assert all(message.text for message in third.messages)


def test_a_conversations_estimate_counts_its_history() -> None:
    made = source(TALK)
    requests = [made.request(index) for index in range(240)]
    mean_input, mean_output = made.mean_tokens()
    assert sum(request.input_tokens for request in requests) / 240 == pytest.approx(mean_input, rel=0.04)
    assert mean_output == pytest.approx(30, rel=0.01)
    assert made.declared_cache_share() == pytest.approx(1 - 60 / 150, abs=0.01)
    assert max(request.input_tokens + request.max_tokens for request in requests) <= made.context_tokens()
    assert {request.session for request in (made.request(5, warmup=True),)} == {None}


# --- mixes -----------------------------------------------------------------------------------------------------------


def test_a_mix_deals_by_weight_and_keeps_parts_whole(tmp_path: Path) -> None:
    talk = tmp_path / "talk.yaml"
    OmegaConf.save(OmegaConf.create(TALK.model_dump(exclude_defaults=True)), talk)
    parts = [{"workload": "qa", "weight": 3}, {"workload": str(talk), "weight": 1}]
    made = source(Workload.model_validate({"kind": "mix", "parts": parts}))
    requests = [made.request(index) for index in range(400)]
    assert [request.index for request in requests] == list(range(400))
    talks = [request for request in requests if request.session is not None]
    assert len(talks) / 400 == pytest.approx(0.25, abs=0.07)
    for request in talks:
        before = requests[request.index - 1]
        assert request.turn == 0 or (before.session, before.turn) == (request.session, request.turn - 1)
    assert len({text(request)[:20] for request in requests if request.turn == 0}) == 400 - sum(
        r.turn > 0 for r in talks
    )
    backwards = source(Workload.model_validate({"kind": "mix", "parts": parts}))
    assert [backwards.request(index) for index in (399, 7, 250)] == [requests[index] for index in (399, 7, 250)]
    assert made.mean_tokens()[0] == pytest.approx(0.75 * 96 + 0.25 * 150, rel=0.02)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must be the path of a YAML file, or one of .*chat"),
        ("kind: mix\nparts: [{workload: qa}]\n", "a mix cannot hold another mix"),
        ("input_tokens: {mean: -1}\n", r"workload\.input_tokens\.mean"),
        ("input_tokens: [", "cannot be read as YAML"),
    ],
)
def test_a_bad_part_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "part.yaml"
    if content is not None:
        path.write_text(content)
    workload = Workload.model_validate({"kind": "mix", "parts": [{"workload": str(path)}]})
    with pytest.raises(ConfigError, match=rf"(?s)workload\.parts\.0\.workload.*{message}"):
        validate(workload)


# --- what ships ------------------------------------------------------------------------------------------------------


def composed(group: str, option: Path, **more: Any) -> config.Config:
    tree = OmegaConf.create(config.defaults())
    quick = {"model": {"name": "any"}, "workload": OmegaConf.load(CONF / "workload" / "quick.yaml")}
    tree = OmegaConf.merge(tree, quick if group != "workload" else {"model": {"name": "any"}})
    tree = OmegaConf.merge(tree, {group: OmegaConf.load(option)}, more)
    plain: Any = OmegaConf.to_container(tree, resolve=True)
    return config.load(plain)


@pytest.mark.parametrize("option", sorted((CONF / "workload").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_workloads_load_and_say_what_they_are(option: Path, tmp_path: Path) -> None:
    assert option.read_text().startswith("# ")
    rows = tmp_path / "rows.jsonl"
    row = '{"prompt": "Why is the sky blue?", "output_tokens": 12}\n'
    turn = '{"messages": [{"role": "user", "content": "Why?"}], "output_tokens": 12}'
    rows.write_text(f'{{"turns": [{", ".join([turn] * 30)}]}}\n' if option.stem == "sessions" else row)
    more = {"workload": {"file": str(rows)}} if option.stem in ("sharegpt", "file", "sessions") else {}
    loaded = composed("workload", option, **more)
    made = source_for(loaded, None, "job")
    bound = context_tokens(loaded.workload)
    for index in range(30):
        request = made.request(index)
        assert 0 < request.input_tokens + request.max_tokens <= bound
    means = SHIPPED.get(option.stem)
    assert means is None or made.mean_tokens() == pytest.approx(means, rel=0.01)


@pytest.mark.parametrize("option", sorted((CONF / "load").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_loads_load(option: Path, tmp_path: Path) -> None:
    needed = {
        "closed": {},
        "ramp": {"from": 1, "to": 4},
        "replay": {"file": str(tmp_path / "trace.csv")},
    }.get(option.stem, {"rate": 5})
    loaded = composed("load", option, load=needed)
    assert loaded.load.kind == option.stem
    if needed:
        with pytest.raises(ConfigError, match=rf"load\.{next(iter(needed))}"):
            composed("load", option)


SHIPPED = {"quick": (128, 64), "chat": (550, 150), "article": (1024, 1024)}


def test_a_workload_can_name_another_yardstick() -> None:
    tree = config.defaults()
    tree["workload"]["input_tokens"]["mean"] = tree["workload"]["output_tokens"]["mean"] = 100
    tree["workload"]["tokenizer"] = "cl100k_base"
    sent = []
    for name in ("gpt-4o", "claude-3-haiku"):
        tree["model"]["name"] = name
        made = source_for(config.load(tree), None, "job")
        sent.append([made.request(index) for index in range(5)])
        assert all(tokenizer("cl100k_base").count(text(request)) == request.input_tokens for request in sent[-1])
    assert sent[0] == sent[1]


def test_a_thousand_prompts_take_about_a_second() -> None:
    import time

    counter = tokenizer("o200k_base")
    counter.count("loaded")
    began = time.thread_time()
    made = Source(CHAT, counter, seed=1, nonce="job")
    for index in range(1000):
        made.request(index)
    assert time.thread_time() - began < 4
    assert made.size is None


def test_fitting_is_exact_for_a_tokenizer_that_joins_pieces() -> None:
    class Joining(Estimate):
        """Loses a token for every third sentence that follows another: sums of pieces are wrong."""

        def count(self, text: str) -> int:
            return super().count(text) - text.count(". The") // 3

    counter, off = Joining(), []
    made = Source(CHAT, counter, seed=1, nonce="job")
    drawn = lengths("input", CHAT.input_tokens)
    for index in range(60):
        request = made.request(index)
        assert counter.count(text(request)) == request.input_tokens
        off.append(abs(request.input_tokens - drawn.draw(1, "input", index)))
    assert max(off) <= 1
    assert reference_nonce() not in text(made.request(0))


PINNED = ("7039164d8b73a2d48450da32de0e8fc8", 62, 23)
