"""Questions with known answers: workloads that make them, files that hold them, a simulator that knows them."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.simulated import PATHS, body, explain, simulator, text

from llmexp.clients import build as build_client
from llmexp.companion.calls import calls_of
from llmexp.config import Model, Quality, Workload
from llmexp.endpoints.simulator.knowledge import Knowledge, asked, offered
from llmexp.endpoints.simulator.options import Options
from llmexp.errors import ConfigError
from llmexp.quality.build import build
from llmexp.quality.grade import Given
from llmexp.quality.layouts import follows
from llmexp.workload import recorded_calls
from llmexp.workload.answers import bare_digest, key_of, right_text
from llmexp.workload.expected import expected_of, question_of
from llmexp.workload.puzzles import Solution, arithmetic, solve
from llmexp.workload.request import Request, ToolCall
from llmexp.workload.rows import read_rows, row_of
from llmexp.workload.source import Source
from llmexp.workload.tokens import Tokenizer, tokenizer_for

pytestmark = pytest.mark.service

KINDS = ("arithmetic", "lookup", "format")
OPTIONS = {"input_tokens": {"mean": 300, "stddev": 40}, "output_tokens": {"dist": "fixed", "mean": 64}}


@pytest.fixture(scope="module")
def o200k() -> Tokenizer:
    return tokenizer_for(Model(name="none", tokenizer="o200k_base"), None)


def source(tokenizer: Tokenizer, kind: str, nonce: str = "one", **more: Any) -> Source:
    return Source(Workload.model_validate({"kind": kind, **OPTIONS, **more}), tokenizer, seed=3, nonce=nonce)


# --- workloads -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("difficulty", [1, 2, 3, 6])
def test_questions_are_as_long_as_asked_and_can_be_answered(o200k: Tokenizer, kind: str, difficulty: int) -> None:
    made = source(o200k, kind, difficulty=difficulty)
    requests = [made.request(index) for index in range(40)]
    mean, limit = made.mean_tokens(), made.context_tokens()
    assert sum(request.input_tokens for request in requests) / 40 == pytest.approx(mean[0], rel=0.05)
    for request in requests:
        assert request.input_tokens == o200k.count(request.messages[0].text)
        assert request.input_tokens + request.max_tokens <= limit
        solution = solve(request.messages[0].text)
        assert solution is not None
        assert is_right(solution.right, request)
        assert not is_right(solution.wrong, request)
    assert len({request.prompt_digest for request in requests}) == 40


def is_right(answer: str, request: Request) -> bool:
    if isinstance(request.expected, str):
        return answer == request.expected
    return follows(answer, request.expected, request) == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_questions_depend_on_seed_and_index_alone(o200k: Tokenizer, kind: str) -> None:
    one, two = source(o200k, kind), source(o200k, kind, nonce="two")
    assert [one.request(index).prompt_digest for index in range(5)] == [
        two.request(index).prompt_digest for index in range(5)
    ]
    assert one.request(0).messages != two.request(0).messages
    assert one.request(0, warmup=True).prompt_digest != one.request(0).prompt_digest


def test_lengths_are_exact_where_the_question_fits(o200k: Tokenizer) -> None:
    made = source(o200k, "lookup", input_tokens={"dist": "fixed", "mean": 500}, difficulty=5)
    assert {made.request(index).input_tokens for index in range(30)} == {500}


def test_a_fact_stands_anywhere_in_the_text(o200k: Tokenizer) -> None:
    made = source(o200k, "lookup", difficulty=1)
    places = []
    for index in range(40):
        request = made.request(index)
        prompt = request.messages[0].text
        places.append(prompt.index(f" is {request.expected}.") / len(prompt))
    assert min(places) < 0.25
    assert max(places) > 0.65


def test_what_is_too_short_for_its_question_is_noted(o200k: Tokenizer) -> None:
    short = source(o200k, "lookup", difficulty=8, input_tokens={"mean": 40, "stddev": 4})
    assert "raise input_tokens.mean" in short.notes()[0]
    assert short.request(0).expected in short.request(0).messages[0].text


def test_products_bind_before_sums() -> None:
    assert solve("What is 2 + 3 * 4 - 5?") == Solution("9", "16")
    assert arithmetic(Random(1), 1).expected == str(eval(arithmetic(Random(1), 1).question[8:-1]))
    assert solve("What is love?") is None


def test_layouts_are_checked() -> None:
    assert follows("Here:\n- a\n* b\n3. c", {"items": 3}, None) == 1
    assert follows("- a\n- b", {"items": 3}, None) == 0
    assert follows('```json\n{"x": 1, "y": 2}\n```', {"keys": ["y", "x"]}, None) == 1
    assert follows('{"x": 1}', {"keys": ["y", "x"]}, None) == 0
    assert follows("Sky, dry, fly.", {"without": "e"}, None) == 1
    assert follows("Sea, dry, fly.", {"without": "e"}, None) == 0
    assert follows("fly", None, None) is None


# --- files -----------------------------------------------------------------------------------------------------------

FOUR = ["a", "b", "c", "d"]
LAYOUTS: list[tuple[dict[str, Any], object, str]] = [
    ({"prompt": "Q", "expected": ["x", "y"]}, ["x", "y"], "Q"),
    ({"prompt": "Q", "expected": {"a": 1}}, {"a": 1}, "Q"),
    ({"question": "Q", "answer": "2+2 #### 4"}, "2+2 #### 4", "Q"),
    ({"input": "Q", "ideal": "z"}, "z", "Q"),
    ({"question": "Q", "choices": FOUR, "answer": 2}, "C", "Q\nA. a\nB. b\nC. c\nD. d"),
    ({"question": "Q", "choices": str(FOUR).replace("'", '"'), "answer": "d"}, "D", "Q\nA. a\nB. b\nC. c\nD. d"),
    ({"question": "Q", "A": "x", "B": "y", "answer": "B"}, "B", "Q\nA. x\nB. y"),
    ({"question": "Q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "1"}, "A", "Q\nA. x\nB. y"),
    ({"context": "C", "question": "Q", "answers": {"text": ["x", "x", "y"]}}, ["x", "y"], "C\n\nQ"),
    ({"question": "Q", "answer": {"value": "x", "aliases": ["y"]}}, ["x", "y"], "Q"),
    ({"context": "C", "question": "Q", "answers": {"text": []}}, None, "C\n\nQ"),
    ({"prompt": "Q"}, None, "Q"),
    ({"prompt": "Q", "expected": []}, None, "Q"),
    ({"question": "Q", "choices": "['x', \"y's\"]", "answer": "1"}, "B", "Q\nA. x\nB. y's"),
    ({"question": "Q", "answers": "{'text': ['x'], 'answer_start': [3]}"}, ["x"], "Q"),
    ({"prompt": "Q", "expected": "[not a list"}, "[not a list", "Q"),
    ({"prompt": "Q", "expected": "{1, 2}"}, "{1, 2}", "Q"),
    ({"prompt": "Q", "expected": r"[\d]+"}, r"[\d]+", "Q"),
    ({"ctx": "Q", "endings": ["x", "y"], "label": "1"}, "B", "Q\nA. x\nB. y"),
    ({"ctx": "Q", "endings": ["x", "y"], "label": ""}, None, "Q"),
    ({"question": "Q", "choices": ["x", "y"], "answer": 1.0}, "B", "Q\nA. x\nB. y"),
    ({"question": "Q", "choices": ["x", "y"], "answer": -1}, None, "Q\nA. x\nB. y"),
    ({"question": "Q", "choices": ["x", "y"], "answer": ["y"]}, ["B"], "Q\nA. x\nB. y"),
    ({"question": "Q", "options": ["A) x", "B) y"], "answer": "(B)"}, "B", "Q\nA. x\nB. y"),
    (
        {"question": "Q", "choices": [{"text": "x", "label": "1"}, {"text": "y", "label": "2"}], "answerKey": "2"},
        "B",
        "Q\nA. x",
    ),
    ({"question": "Q", "opa": "x", "opb": "y", "cop": 1}, "B", "Q\nA. x\nB. y"),
    ({"sentence": "Q", "option1": "x", "option2": "y", "answer": "2"}, "B", "Q\nA. x\nB. y"),
    ({"passage": "P", "question": "Q", "answer": False}, False, "P\n\nQ"),
    ({"question": "Q", "answer": {"Value": "x", "Aliases": ["y"]}}, ["x", "y"], "Q"),
    ({"article": "P", "question": "Q", "options": ["x", "y"], "answer": "B"}, "B", "P\n\nQ\nA. x\nB. y"),
    ({"Body": "P", "Question": "Q", "Answer": 5.0}, 5.0, "P\n\nQ"),
    ({"context": "P", "query": "Q", "options": ["x", "y"], "correct_option": 1}, "B", "P\n\nQ\nA. x\nB. y"),
    ({"context": "P", "question": "Q", "answerA": "x", "answerB": "y", "label": "2"}, "B", "P\n\nQ\nA. x\nB. y"),
    ({"passage": "P", "question": "Q", "answers_spans": {"spans": ["3"], "types": ["number"]}}, ["3"], "P\n\nQ"),
    ({"prompt": "Q", "referenceResponse": "x", "category": "c"}, "x", "Q"),
    ({"question": "Q", "answer": "a model's", "ground_truth": "x"}, "x", "Q"),
    ({"question": "Q", "answer": None, "answer_number": 18}, 18, "Q"),
    ({"task_id": "1", "prompt": "Q", "canonical_solution": "x", "test": "y"}, None, "Q"),
]


@pytest.mark.parametrize(("row", "expected", "asked"), LAYOUTS)
def test_layouts_that_people_have(row: dict[str, Any], expected: object, asked: str) -> None:
    assert expected_of(row) == expected
    assert question_of(row, "Q").startswith(asked)


def test_a_right_answer_among_wrong_ones_has_no_place_of_its_own() -> None:
    letters = []
    for at in range(30):
        apart = {"Question": f"Q{at}", "Correct Answer": "x", "Incorrect Answer 1": "y", "Incorrect Answer 2": "z"}
        targets = {"question": f"Q{at}", "mc1_targets": {"choices": ["x", "y", "z"], "labels": [1, 0, 0]}}
        letters.append(expected_of(apart))
        assert f"{letters[-1]}. x" in question_of(apart, "Q").splitlines()
        assert (expected_of(targets), question_of(targets, "Q")) == (letters[-1], question_of(apart, "Q"))
    assert set(letters) == {"A", "B", "C"}


@pytest.mark.parametrize(
    "row",
    [
        {"inputs": {"question": "Q"}, "expectations": {"expected_response": "x"}},
        {"inputs": {"messages": [{"role": "user", "content": "Q"}]}, "expectations": {"expected_response": "x"}},
        {"inputs": {"question": "Q"}, "outputs": {"answer": "x"}},
        {"doc_id": 0, "doc": {"question": "Q", "answer": "x"}},
        {"user_input": "Q", "reference": "x", "response": "a model's"},
    ],
)
def test_rows_of_evaluations_are_read(row: dict[str, Any], tmp_path: Path) -> None:
    found = row_of(row, tmp_path)
    assert ([message.text for message in found.messages], found.expected) == (["Q"], "x")


def test_files_of_squad_and_triviaqa_as_they_are_published(tmp_path: Path) -> None:
    question = {"question": "Q?", "id": "1", "answers": [{"text": "x", "answer_start": 1}, {"text": "y"}]}
    unknown = {"question": "R?", "answers": [], "is_impossible": True}
    squad = {"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": "C", "qas": [question, unknown]}]}]}
    trivia = {"Version": 1.0, "Data": [{"Question": "Q?", "Answer": {"Value": "x", "Aliases": ["y"]}}]}
    read = []
    for name, tree in (("squad.json", squad), ("trivia.json", trivia)):
        (tmp_path / name).write_text(json.dumps(tree))
        rows = read_rows("workload.file", str(tmp_path / name)).rows
        read.append([(row.messages[0].text, row.expected) for row in rows])
    assert read == [[("C\n\nQ?", ["x", "y"]), ("C\n\nR?", None)], [("Q?", ["x", "y"])]]


def test_expected_travels_with_a_file_s_requests(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    rows: list[dict[str, Any]] = [
        {"question": "1+1?", "answer": "#### 2", "output_tokens": 8},
        {"prompt": "Hi", "output_tokens": 8},
        {"question": {"stem": "Q", "choices": [{"text": "x", "label": "A"}]}, "answerKey": "A", "output_tokens": 8},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    workload = Workload(kind="file", file=str(file))
    made = Source(workload, tokenizer_for(Model(name="m", tokenizer="estimate"), None), seed=1, nonce="n")
    assert [made.request(index).expected for index in range(4)] == ["#### 2", None, "A", "#### 2"]
    assert "Q\nA. x" in made.request(2).messages[-1].text
    assert key_of([made.request(0)]) == {bare_digest("1+1?"): "2"}


# --- the simulator ---------------------------------------------------------------------------------------------------


def said(options: dict[str, Any], count: int = 2000, in_flight: int = 1, temperature: object = None) -> list[str]:
    knowledge = Knowledge(Options.of(options))
    found = [knowledge.says(f"nonce{at} What is {at} + 1?", in_flight, temperature) for at in range(count)]
    return [each.kind for each in found if each is not None]


def test_the_simulator_is_right_as_often_as_it_is_told() -> None:
    kinds = said({"accuracy": 0.8, "unparsed_share": 0.1})
    assert kinds.count("right") / 2000 == pytest.approx(0.8, abs=0.03)
    assert kinds.count("unparsed") / 2000 == pytest.approx(0.1, abs=0.03)
    assert said({}) == []


@pytest.mark.parametrize(
    ("slots", "in_flight", "share"), [(4, 1, 0.9), (4, 4, 0.5), (4, 9, 0.5), (None, 8, 0.5), (1, 2, 0.5)]
)
def test_accuracy_falls_with_load(slots: int | None, in_flight: int, share: float) -> None:
    options = {"accuracy": 0.9, "accuracy_under_load": 0.5, "slots": slots}
    assert Knowledge(Options.of(options)).accuracy(in_flight) == pytest.approx(share)


def test_at_temperature_zero_the_nonce_does_not_count() -> None:
    knowledge = Knowledge(Options.of({"accuracy": 0.5}))
    for number in range(20):
        kinds = {
            each.kind
            for nonce in ("amber river stone window", "cloud lights mill hidden")
            if (each := knowledge.says(f"{nonce}. What is {number} + 1?", 1, 0))
        }
        assert len(kinds) == 1


@pytest.mark.parametrize("share", ["accuracy", "accuracy_under_load", "unparsed_share"])
def test_a_share_above_one_is_refused(share: str) -> None:
    with pytest.raises(ConfigError, match=f"{share}: must be from 0 to 1"):
        Options.of({share: 1.5})


def test_every_wire_carries_the_answer_and_the_truth_tells_which(tmp_path: Path) -> None:
    keys = "Describe the text above as a JSON object with exactly these keys: one, two."
    with simulator(tmp_path, accuracy=1.0) as running:
        for wire, path in PATHS.items():
            client = running.client()
            client.send(path, body(wire, 64, prompt=keys))
            answer = explain(wire, client.read())
            assert json.loads(text(answer)) == {"one": "text", "two": "text"}, wire
            assert answer.failure is None
        assert {truth["answer"] for truth in running.truths(len(PATHS))} == {"right"}


def test_answers_of_a_job_are_known_and_the_limit_cuts_them(tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    key.write_text(json.dumps({bare_digest("Who?"): "somebody whose name is long"}))
    with simulator(tmp_path, accuracy=1.0, answers=str(key)) as running:
        client = running.client()
        client.send(PATHS["openai"], body("openai", 64, prompt="amber river stone window.\n\nWho?"))
        assert text(explain("openai", client.read())) == "somebody whose name is long"
        client.send(PATHS["openai"], body("openai", 3, prompt="Who?"))
        cut = explain("openai", client.read())
        assert (cut.finish_reason, cut.usage.output_tokens) == ("length", 3)
        client.send(PATHS["openai"], body("openai", 3, prompt="What for?"))
        client.read()
        assert [truth["answer"] for truth in running.truths(3)] == ["right", "right", None]


PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS: dict[str, Any] = {
    "openai": {"tools": [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]},
    "anthropic": {"tools": [{"name": "weather", "input_schema": PARAMETERS}]},
    "bedrock": {"toolConfig": {"tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": PARAMETERS}}}]}},
    "gemini": {"tools": [{"functionDeclarations": [{"name": "weather", "parameters": PARAMETERS}]}]},
}
TOOLS["sagemaker"] = TOOLS["openai"]


def test_every_wire_carries_calls_of_tools_that_can_be_graded(tmp_path: Path) -> None:
    wanted = {"name": "weather", "arguments": {"city": "Oslo", "days": 2}}
    key = tmp_path / "key.json"
    key.write_text(json.dumps({bare_digest("Rain?"): right_text(wanted)}))
    grader = build(Quality(kind="tool_call"))
    for accuracy, right in ((1.0, True), (0.0, False)):
        with simulator(tmp_path, accuracy=accuracy, answers=str(key)) as running:
            for wire, offered in TOOLS.items():
                client = running.client()
                client.send(PATHS[wire], body(wire, 64, prompt="Rain?") | offered)
                answer = explain(wire, client.read())
                assert answer.failure is None, wire
                calls = tuple(ToolCall("", **call) for call in calls_of(answer.events))
                assert [call.name for call in calls] == ["weather"], wire
                assert grader(Given("", wanted, calls)).right is right, wire
                client.send(PATHS[wire], body(wire, 64, prompt="Rain?"))
                assert calls_of(explain(wire, client.read()).events) == [], wire


@pytest.mark.parametrize("api", ["openai", "anthropic", "bedrock"])
def test_rehearsed_sessions_call_the_recorded_tools(api: str, tmp_path: Path) -> None:
    recorded = Workload.model_validate({"kind": "sessions", "file": "shipped:agents.jsonl"})
    key = tmp_path / "key.json"
    key.write_text(json.dumps(recorded_calls(recorded)))
    knowledge, made = Knowledge(Options.of({"accuracy": 1.0, "answers": str(key)})), source_of(recorded)
    client = build_client(Model.model_validate({"name": "m", "api": api}), "http://127.0.0.1:1")
    for request in map(made.request, range(made.size or 0)):
        sent = json.loads(client.prepare(request).body)
        said = knowledge.says(asked(sent), 1, None, offered(sent))
        assert not made.off_script(request, frozenset({said.tool} if said and said.tool else ()))


def source_of(workload: Workload) -> Source:
    return Source(workload, tokenizer_for(Model(name="m", tokenizer="estimate"), None), seed=1, nonce="n")


def test_the_busiest_moment_of_late_counts_as_the_load() -> None:
    knowledge = Knowledge(Options.of({"accuracy": 1.0, "accuracy_under_load": 0.0}))
    kinds = [knowledge.says(f"What is {at} + 1?", in_flight, None) for at, in_flight in enumerate((1, 8, 1))]
    assert [each and each.kind for each in kinds] == ["right", "wrong", "wrong"]
