"""LiteLLM's private names may go: each in turn is taken away, and what stays is what its table says."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
from support.marks import THROUGH_LITELLM

from llmexp.clients import litellm_private, litellm_sdk
from llmexp.clients.base import Usage
from llmexp.clients.litellm_call import Caller
from llmexp.clients.litellm_replay import Heard
from llmexp.config import Model

pytestmark = THROUGH_LITELLM


class Stream:
    """A stream of chunks as LiteLLM hands them over, with whatever else it keeps."""

    def __init__(self, *trees: dict[str, object], **kept: object) -> None:
        self._trees = iter(trees)
        self.__dict__.update(kept)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> dict[str, object]:
        for tree in self._trees:
            return tree
        raise StopAsyncIteration


def chunk(reason: str | None = None, **delta: object) -> dict[str, object]:
    return {"choices": [{"delta": delta, "finish_reason": reason}], "usage": {"completion_tokens": 99}}


def heard(stream: Stream) -> Heard:
    found = Heard()
    litellm_sdk.run(found.listen(stream, lambda: 7))
    return found


def test_settings_that_are_gone_are_left_out() -> None:
    module = SimpleNamespace(telemetry=True)
    litellm_private.quieten(module)
    assert vars(module) == {"telemetry": False}


def test_what_is_set_today_is_there_today() -> None:
    litellm = litellm_sdk.load()
    gone = {name for name in litellm_private._SETTINGS if not hasattr(litellm, name)}
    assert gone <= {"telemetry"}  # gone from LiteLLM 1.110


@pytest.mark.parametrize("gone", ["_ensure_access_token", "_ensure_access_token_async"])
def test_without_the_method_of_google_s_token_nothing_stands_in(monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    litellm_sdk.load()
    base = importlib.import_module("litellm.llms.vertex_ai.vertex_llm_base").VertexBase
    for name in ("_ensure_access_token", "_ensure_access_token_async"):
        monkeypatch.setattr(base, name, getattr(base, name))
    assert litellm_private.stand_in_for_google()
    monkeypatch.delattr(base, gone)
    assert not litellm_private.stand_in_for_google()


def test_without_the_stream_s_own_attributes_chunks_tell() -> None:
    trees = [chunk(reasoning_content="hm"), chunk(content=" a"), chunk("length")]
    sent = [{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}]
    whole = heard(Stream(*trees, received_finish_reason="stop", chunks=sent)).answer(None)
    assert (whole.finish_reason, whole.usage) == ("stop", Usage(3, 5))
    bare = heard(Stream(*trees)).answer(None)
    assert (bare.finish_reason, bare.finished, bare.usage) == ("length", True, Usage())
    assert [(event.kind, event.text) for event in bare.events] == [("reasoning", "hm"), ("answer", " a")]


def test_without_aiohttp_s_method_nothing_is_wrapped() -> None:
    assert not litellm_private.replace_aiohttp_request(SimpleNamespace(), lambda request: request)
    assert not litellm_private.replace_aiohttp_request(SimpleNamespace(ClientSession=SimpleNamespace()), lambda r: r)


def test_without_its_check_of_keys_none_is_named() -> None:
    assert litellm_private.missing_keys(SimpleNamespace(), "openai/m") == []
    assert litellm_private.missing_keys(SimpleNamespace(validate_environment=lambda model: {}), "openai/m") == []


def test_other_words_are_shown_as_they_are() -> None:
    caller = Caller(Model.model_validate({"name": "m", "api": "litellm", "provider": "openai"}), None, None)
    said = caller.explain(RuntimeError("litellm.SomethingNew: no such luck\nand more"))
    assert said == "model: LiteLLM cannot make a request for openai/m: no such luck"
    assert not caller.forgo(RuntimeError("another wording"))
