"""Tools, images and cache points in each wire's own form, held against LiteLLM's translation of the same chat."""

import json
from dataclasses import replace
from typing import Any

import pytest

from llmexp.clients import build
from llmexp.clients.carry import problem
from llmexp.config import Config, Model, defaults, load
from llmexp.errors import ConfigError
from llmexp.workload.request import Image, Message, Request, Text, Tool, ToolCall

SCHEMA = {"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]}
FIND = Tool("find", "Finds an order.", SCHEMA)
PICTURE = Image("image/png", "iVBORw0KGgo=")
CALL = ToolCall("call_1", "find", '{"order": 1}')
CHAT = Request(
    0,
    (
        Message("system", "Help with orders."),
        Message("user", (Text("Where is this one?"), PICTURE)),
        Message("assistant", "I look.", (CALL,)),
        Message("tool", "It has left.", tool_call_id="call_1"),
        Message("assistant", "It has left."),
        Message("user", "And the next?"),
    ),
    16,
    3,
    "",
    tools=(FIND,),
    session=0,
    turn=2,
)
ALL = ["system", "tools", "history"]


pytestmark = [
    pytest.mark.service,
    pytest.mark.filterwarnings("ignore:Item .* on TypedDict:UserWarning"),  # about LiteLLM's types
]


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, "test")


def body(model: Model, request: Request = CHAT) -> Any:
    return json.loads(build(model).prepare(request).body)


@pytest.mark.parametrize("points", [[], ALL], ids=["plain", "cached"])
def test_our_bodies_are_what_litellm_makes_of_the_same(points: list[Any]) -> None:
    claude = {"name": "claude-sonnet-4-5", "api_key_env": "ANTHROPIC_API_KEY", "cache_points": points}
    ours = body(Model(api="anthropic", **claude))
    theirs = body(Model(api="litellm", provider="anthropic", **claude))
    if not points:
        theirs["system"] = "".join(block["text"] for block in theirs["system"])
    del theirs["tools"][0]["type"]
    if points:  # a mark inside the result or on it is the same to the server
        assert ours["messages"][-1]["content"][-1]["cache_control"] == {"type": "ephemeral"}
    assert ours == theirs
    nova = {"name": "us.amazon.nova-pro-v1:0", "region": "us-east-1", "cache_points": points}
    assert body(Model(api="bedrock", **nova)) == body(Model(api="litellm", provider="bedrock/converse", **nova))


def test_gemini_gets_function_declarations_calls_and_responses() -> None:
    sent = body(Model(api="litellm", provider="gemini", name="gemini-2.5-flash", api_key_env="GEMINI_API_KEY"))
    parts = [part for content in sent["contents"] for part in content["parts"]]
    assert sent["tools"] == [
        {"function_declarations": [{"name": "find", "description": "Finds an order.", "parameters": SCHEMA}]}
    ]
    assert parts[1] == {"inline_data": {"data": PICTURE.data, "mime_type": "image/png"}}
    assert parts[3] == {"function_call": {"name": "find", "args": {"order": 1}}}
    assert parts[4]["function_response"] == {"name": "find", "response": {"content": "It has left."}}


def test_openai_s_shape_goes_to_openai_vllm_and_sagemaker() -> None:
    url = {"base_url": "http://127.0.0.1:1/v1"}
    ours = body(Model(api="openai", name="m", **url))
    assert ours["messages"][1]["content"][1]["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgo="
    assert ours["messages"][2]["tool_calls"][0]["function"] == {"name": "find", "arguments": '{"order": 1}'}
    assert ours["messages"][3] == {"role": "tool", "content": "It has left.", "tool_call_id": "call_1"}
    theirs = body(Model(api="litellm", provider="hosted_vllm", name="m", **url))
    assert (ours["messages"], ours["tools"]) == (theirs["messages"], theirs["tools"])
    captured = body(Model(api="sagemaker", name="m", region="us-east-1", base_url="http://127.0.0.1:1"))
    assert (captured["messages"], captured["tools"]) == (ours["messages"], ours["tools"])


def test_ids_that_a_wire_does_not_take_are_rewritten_alike_on_both_ends() -> None:
    odd = replace(CALL, id="functions.find:0")
    messages = (CHAT.messages[1], Message("assistant", "", (odd,)), Message("tool", "x", tool_call_id=odd.id))
    sent = body(Model(api="anthropic", name="m", base_url="http://127.0.0.1:1"), replace(CHAT, messages=messages))
    assert sent["messages"][1]["content"][0]["id"] == sent["messages"][2]["content"][0]["tool_use_id"]
    assert sent["messages"][1]["content"][0]["id"] == "functions_find_0"


CLAUDE = Model(api="anthropic", name="m")
BEDROCK = Model(api="bedrock", name="m")
PLAIN = Model(api="openai", name="m", route="completions")


@pytest.mark.parametrize(
    ("model", "changes", "said"),
    [
        (PLAIN, {}, "cannot carry tools"),
        (PLAIN, {"tools": (), "messages": CHAT.messages[:2]}, "cannot carry images"),
        (Model.model_validate({"name": "m", "api": "sagemaker", "deployment": {"kind": "sagemaker", "payload": "tgi"}}),
         {}, "'tgi' cannot carry tools; choose a chat wire, such as model.deployment.payload=messages"),
        (BEDROCK, {"tools": ()}, "no tools are declared"),
        (BEDROCK, {"messages": (Message("user", (Image(url="https://x.test/a.png"),)),)}, "by its address"),
        (BEDROCK, {"messages": (Message("user", (Image("image/tiff", "AA=="),)),)}, "type 'image/tiff'"),
        (CLAUDE, {"messages": (Message("user", "a", name="Ada"),)}, "a speaker's name"),
        (CLAUDE, {"messages": (Message("user", "a"), Message("system", "b"))}, "system message after others"),
        (CLAUDE, {"messages": (Message("user", "a"), Message("assistant", "", (ToolCall("c", "f", "[1"),)))},
         "no JSON object"),
    ],
)  # fmt: skip
def test_what_a_wire_cannot_carry_is_named(model: Model, changes: dict[str, Any], said: str) -> None:
    found = problem(model, replace(CHAT, **changes))
    assert found is not None
    assert said in found


@pytest.mark.parametrize("model", [CLAUDE, BEDROCK, Model(api="openai", name="m")])
def test_what_a_wire_can_carry_is_no_problem(model: Model) -> None:
    assert problem(model, CHAT) is None


def test_marks_for_a_cache_need_a_wire_that_takes_them() -> None:
    tree = defaults()
    tree["model"] |= {"name": "m", "api": "openai", "cache_points": ["history"]}
    tree["workload"] |= {"input_tokens": {"mean": 30}, "output_tokens": {"mean": 4}}
    with pytest.raises(ConfigError, match=r"model\.cache_points: .* Anthropic and Bedrock"):
        load(tree)
    tree["model"]["api"] = "bedrock"
    assert isinstance(load(tree), Config)
