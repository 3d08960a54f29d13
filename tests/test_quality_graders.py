"""What each grader makes of the answers that models give."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given as forall
from hypothesis import strategies as st

from llmexp import secrets
from llmexp.config import Quality, load
from llmexp.errors import ConfigError
from llmexp.quality import patience
from llmexp.quality.build import build, compiled, needs_expected, problem_of
from llmexp.quality.choices import letter_of
from llmexp.quality.function import function, load_function
from llmexp.quality.grade import Given, Grade
from llmexp.quality.judge import score_of
from llmexp.quality.numbers import final_number
from llmexp.quality.overlap import longest_common, rouge_l
from llmexp.quality.structured import find_json
from llmexp.workload.request import ToolCall


def grade(kind: str, answer: str, expected: object, calls: tuple[ToolCall, ...] = (), **options: Any) -> Grade:
    return build(Quality.model_validate({"kind": kind, **options}))(Given(answer, expected, calls))


def verdict(*arguments: Any, **options: Any) -> str:
    found = grade(*arguments, **options)
    return found.status if found.status != "graded" else "right" if found.right else "wrong"


@pytest.mark.parametrize(
    ("answer", "expected", "seen"),
    [
        ("42", "42", "right"),
        ("The answer is 42.", "42", "right"),
        ("So he has 6 × 7 apples.\n#### 42", "6*7=<<6*7=42>>42\n#### 42", "right"),
        ("#### 42\nI used 7 steps.", "42", "right"),
        ("#### Step 3: times 5\nwhich makes 40", "40", "right"),
        ("#### 1. First step\n= 12", "12", "right"),
        (r"Thus \boxed{1,234} and 5 more words", "1234", "right"),
        (r"\boxed{\frac{3}{4}}", "0.75", "right"),
        ("It costs **$1,234.50**.", "1234.5", "right"),
        ("$ 18", "18", "right"),
        ("It is −5 degrees", "-5", "right"),
        ("x=-3", "-3", "right"),
        ("-$5", "-5", "right"),
        ("a range of 2-3", "3", "right"),
        ("- 42", "42", "right"),
        ("1 1/2 cups", "1.5", "right"),
        ("45 %", "0.45", "right"),
        ("45%", "45", "right"),
        ("1.5 million", "1500000", "right"),
        ("6.02e23", "602000000000000000000000", "right"),
        ("1\u202f234\u202f567", "1234567", "right"),
        ("123456789012345678901234567890", "123456789012345678901234567891", "wrong"),
        ("42.0", "42", "right"),
        ("42 apples", 42, "right"),
        ("43", "42", "wrong"),
        ("41 or 42", ["40", "42"], "right"),
        ("€1.234,50", "1234.5", "right"),
        ("1.000.000", "1000000", "right"),
        ("0,5", "0.5", "right"),
        ("5", "0,5", "wrong"),
        ("1,2,3", "3", "right"),
        ("(3,4)", "4", "right"),
        ("1 234", "1234", "right"),
        ("rooms 1 234", "234", "right"),
        ("12,34,567", "1234567", "right"),
        ("1½", "1.5", "right"),
        ("3 × 10⁸ m/s", "3e8", "right"),
        ("2^10", "1024", "right"),
        ("2^10", "10", "wrong"),
        ("10^9999", "1", "unparsed"),
        ("$12k", "12000", "right"),
        ("He came 42nd.", "42", "right"),
        ("So 42.\n\n1. Add them\n2. Check", "42", "right"),
        ("1. Add them\n2. Check", "2", "right"),
        ("on 2024-05-06", "6", "right"),
        ("It is 42 (as of 2024-05-06, or 6.5.2024).", "42", "right"),
        ("3/4/5 and 1/2", "0.5", "right"),
        (r"\boxed{5 \times 10^{3}}", "5000", "right"),
        (r"\(1.5 \cdot 10^{-3}\)", "0.0015", "right"),
        ("1.5*10**3", "1500", "right"),
        (r"\boxed{3\frac{1}{2}}", "3.5", "right"),
        ("−½", "-0.5", "right"),
        ("The area is 100 cm^2.", "100", "right"),
        (r"\boxed{12\text{ cm}^{2}}", "12", "right"),
        ("5^2", "25", "right"),
        ("12 000,50 €", "12000.5", "right"),
        ("1\u202f234,5", "1234.5", "right"),
        ("It is 1 234, he said.", "1234", "right"),
        ("negative 7", "-7", "right"),
        ("The sum is minus 7.", "-7", "right"),
        ("8 minus 7", "7", "right"),
        ("1.2 bn", "1200000000", "right"),
        ("£3.5m", "3500000", "right"),
        ("5 m", "5", "right"),
        ("7 1⁄2", "7.5", "right"),
        ("I do not know.", "42", "unparsed"),
        ("H2O", "2", "unparsed"),
        ("", "42", "unparsed"),
        ("1/0", "1", "unparsed"),
        ("42", "forty-two", "ungraded"),
        ("42", None, "ungraded"),
    ],
)
def test_numbers(answer: str, expected: object, seen: str) -> None:
    assert verdict("number", answer, expected) == seen


def test_a_tolerance_is_absolute_and_exact() -> None:
    assert verdict("number", "3.14", "3.15", tolerance=0.01) == "right"
    assert verdict("number", "0.7", "1", tolerance=0.3) == "right"
    assert verdict("number", "3.14", "3.16", tolerance=0.01) == "wrong"
    assert verdict("number", "3.14", "3.14159", tolerance=0.01) == "right"
    assert verdict("number", "0.3", "0.1", tolerance=0.2) == "right"


@forall(st.integers(-(10**12), 10**12), st.sampled_from(["{}", "It is {}.", "**{}**", "({})", "= {}\n", "${:,}$"]))
def test_every_whole_number_is_read_back(value: int, wording: str) -> None:
    found = final_number(wording.format(value))
    assert found is not None
    assert found.readings[0] == Fraction(value)


@forall(st.text(max_size=80))
def test_no_text_breaks_a_grader(text: str) -> None:
    for kind in ("exact", "contains", "number", "choice", "overlap", "json"):
        assert grade(kind, text, text or "x").status in ("graded", "unparsed", "ungraded")


@pytest.mark.parametrize(
    ("answer", "expected", "seen"),
    [
        ("Paris", "paris", "right"),
        (" **Paris**.\n", "Paris", "right"),
        ('"Paris"', "Paris", "right"),
        ("It’s “here”", 'It\'s "here"', "right"),
        ("```\nParis\n```", "Paris", "right"),
        ("The capital is Paris", "Paris", "wrong"),
        ("Paris", ["London", "Paris"], "right"),
        ("5", 5, "right"),
        ("True", True, "right"),
        ("Yes.", True, "right"),
        ("No", False, "right"),
        ("3", 3.0, "right"),
        ("72", "6*12=72\n#### 72", "right"),
        ("12*6=72\n#### 72", "6*12=72\n#### 72", "right"),
        ("ｐａｒｉｓ", "Paris", "right"),
        ("Cafe\u0301", "Café", "right"),
        ("\u200bParis", "Paris", "right"),
        ("東京。", "東京", "right"),
        ("+", "+", "right"),
        ("👍", ["👍"], "right"),
        (r"So it is \boxed{\frac{1}{2}}.", r"Add them: $\boxed{\frac{1}{2}}$", "right"),
        ("Paris", "", "ungraded"),
        ("Paris", {"city": "Paris"}, "ungraded"),
        ("…", "Paris", "unparsed"),
        ("  \n", "Paris", "unparsed"),
    ],
)
def test_exact(answer: str, expected: object, seen: str) -> None:
    assert verdict("exact", answer, expected) == seen


@pytest.mark.parametrize(
    ("answer", "expected", "seen"),
    [
        ("either ~ or **", "~", "right"),
        ("neither", "~", "wrong"),
        ("\u200b", "\u200b", "right"),
        ("The capital is **Paris**, of course.", "paris", "right"),
        ("Let us start", "art", "wrong"),
        ("It is 3.5", "3", "wrong"),
        ("It is 3.", "3", "right"),
        ("1,300", "300", "wrong"),
        ("either of Rome or Oslo", ["Bern", "Oslo"], "right"),
        ("New\nYork", "New York", "right"),
        ("日本の東京です", "東京", "right"),
        ("It is -5.", "5", "wrong"),
        ("3-5", "5", "right"),
        ("Yes, it is", True, "right"),
        ("I’d say A", "D", "wrong"),
        ("l’eau", "eau", "right"),
        ("", "x", "unparsed"),
    ],
)
def test_contains(answer: str, expected: object, seen: str) -> None:
    assert verdict("contains", answer, expected) == seen


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("**B.**", "B"),
        ("B) Paris", "B"),
        ("The answer is (B) Paris", "B"),
        ("Answer:\nB", "B"),
        ("ANSWER: C", "C"),
        (r"\boxed{\text{C}}", "C"),
        ("I think A is wrong. B is a trap. So it's C", "C"),
        ("A) is wrong.\nB) is wrong.\nSo the answer is C.", "C"),
        ("D. Because of rain", "D"),
        ("The answer is not B, it is D", "D"),
        ("B is correct", "B"),
        ("The best choice is option B because it rains", "B"),
        ("b) paris", "B"),
        ("Ｂ", "B"),
        ("答案是B", "B"),
        ("B\n\nA is not right because C is.", "B"),
        ("I think B fits best", "B"),
        ("Answer: B and that is that", "B"),
        ("I think it's b", "B"),
        ("The answer would be: b) Paris", "B"),
        ("I'm going with b.", "B"),
        ("I think that b is correct", "B"),
        ("Among A, B, C or D, the answer is J", "J"),
        ("The answer isn't B, it's D", "D"),
        ("The answer isn't C.", None),
        ("It cannot be (A); it is (C).", "C"),
        ("Neither A nor B fits, so C.", "C"),
        ("B and C are wrong. D", "D"),
        ("The answer is C and A is wrong", "C"),
        ("A because it rains", "A"),
        ("Q: Which? A: C", "C"),
        ("A and C", None),
        ("A, B", None),
        ("Answer: B and C", None),
        ("A or B?", None),
        ("The answer is A or B", None),
        ("the answer is a good one", None),
        ("A cat sat", None),
        ("I don't know", None),
        ("", None),
    ],
)
def test_choices(answer: str, letter: str | None) -> None:
    assert letter_of(answer) == letter


def test_a_choice_is_compared_by_letter() -> None:
    assert verdict("choice", "The answer is B.", "(b)") == "right"
    assert verdict("choice", "C", ["A", "B"]) == "wrong"
    assert verdict("choice", "no idea", "B") == "unparsed"
    assert verdict("choice", "B", "Paris") == "ungraded"
    question = "Which?\nA. Rome\nB. Paris\nC. New Paris"
    for answer, status in (("It is Paris.", True), ("New Paris", False), ("Rome or Paris", None), ("Berlin", None)):
        found = build(Quality(kind="choice"))(Given(answer, "B", question=question))
        assert (found.right if found.status == "graded" else None) is status, answer


def test_regular_expressions() -> None:
    assert verdict("regex", "answer: 3\nanswer: 4.", "4", pattern=r"answer: (\S+)") == "right"
    assert verdict("regex", "answer: four", "4", pattern=r"answer: (\S+)") == "wrong"
    assert verdict("regex", "no", "4", pattern=r"answer: (\S+)") == "unparsed"
    assert verdict("regex", "answer:", "4", pattern=r"answer:(.*)") == "unparsed"
    assert verdict("regex", "Yes, sure", None, pattern=r"(?i)^yes") == "right"
    assert verdict("regex", "No", None, pattern=r"(?i)^yes") == "wrong"
    assert verdict("regex", " ", None, pattern=r"(?i)^yes") == "unparsed"


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Here it is:\n```json\n{"a": [1, 2]}\n```\nDone.', {"a": [1, 2]}),
        ('I say {"a": 1} and {"b": {"c": 2}}.', {"b": {"c": 2}}),
        ("[1, 2]", [1, 2]),
        ("null", None),
    ],
)
def test_json_is_found_among_words(answer: str, value: object) -> None:
    found = find_json(answer)
    assert found is not None
    assert found.value == value


def test_json_is_graded_by_fields_and_schema() -> None:
    schema = {"type": "object", "required": ["age"], "properties": {"age": {"type": "integer"}}}
    assert verdict("json", '{"age": 3, "more": 1}', {"age": 3.0}) == "right"
    assert grade("json", '{"age": 3, "name": "x"}', {"age": 3, "name": "y"}).score == 0.5
    assert verdict("json", '{"age": 3, "name": "x"}', {"age": 3, "name": "y"}, threshold=0.5) == "right"
    assert verdict("json", '{"age": 4}', [{"age": 3}, {"age": 4}]) == "right"
    assert verdict("json", '{"age": "3"}', '{"age": 3}') == "wrong"
    assert verdict("json", '{"age": "3"}', None, schema=schema) == "wrong"
    assert verdict("json", '{"age": 3}', None, schema=schema) == "right"
    assert verdict("json", '{"age": NaN}', {"age": 3}) == "unparsed"
    assert verdict("json", '{"age": 3', {"age": 3}) == "unparsed"
    assert verdict("json", '{"of": {"age": 3, "more": [1]}}', {"of": {"age": 3.0}}) == "right"
    assert verdict("json", '{"of": [{"age": 3, "more": 1}]}', {"of": [{"age": 4}]}) == "wrong"
    assert verdict("json", '[{"age": 3}, {"age": 4}]', [{"age": 3}, {"age": 4}]) == "right"
    assert verdict("json", 'First {"age": 3}. At last {"age": 4} [1].', {"age": 4}) == "right"
    assert verdict("json", '{"age": 1, "age": 2}', {"age": 2}) == "right"
    assert verdict("json", "{}", {}) == "right"
    assert "integer" in str(grade("json", '{"age": "3"}', None, schema=schema).note)


def test_tool_calls() -> None:
    called = (ToolCall("1", "weather", '{"city": "Oslo", "days": 2}'),)
    wanted = {"name": "weather", "arguments": {"days": 2.0, "city": "Oslo"}}
    assert verdict("tool_call", "", wanted, called) == "right"
    assert (
        verdict("tool_call", "", {"function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}, called) == "wrong"
    )
    assert verdict("tool_call", "", "weather", called) == "right"
    assert verdict("tool_call", "", [{"name": "other"}, wanted], called) == "right"
    both = {"tool_calls": [wanted, {"name": "time"}]}
    assert verdict("tool_call", "", both, called) == "wrong"
    assert verdict("tool_call", "", both, (*called, ToolCall("2", "time", ""))) == "right"
    twice = {"tool_calls": [{"name": "weather"}, wanted]}
    assert verdict("tool_call", "", twice, called) == "wrong"
    assert verdict("tool_call", "Let me look.", twice, (*called, ToolCall("2", "weather", "null"))) == "right"
    for name in ("args", "parameters", "input"):
        assert verdict("tool_call", "", {"name": "weather", name: {"city": "Bergen", "days": 2}}, called) == "wrong"
    assert verdict("tool_call", "I would call weather.", wanted) == "unparsed"
    assert verdict("tool_call", "", wanted, (ToolCall("1", "weather", "{half"),)) == "wrong"


def naive(one: list[int], two: list[int]) -> int:
    table = [[0] * (len(two) + 1) for _ in range(len(one) + 1)]
    for i, x in enumerate(one):
        for j, y in enumerate(two):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@forall(st.lists(st.integers(0, 4), max_size=30), st.lists(st.integers(0, 4), max_size=30))
def test_the_longest_common_subsequence_is_the_tables(one: list[int], two: list[int]) -> None:
    assert longest_common([str(x) for x in one], [str(x) for x in two]) == naive(one, two)


def test_overlap_by_hand() -> None:
    assert rouge_l("the cat sat on the mat", "The cat lay on a mat.") == pytest.approx(2 * 4 / 12)
    assert rouge_l("猫が好きです", "猫が好き") == pytest.approx(2 * 4 / 10)
    assert verdict("overlap", "the cat sat on the mat", "The cat lay on a mat.") == "right"
    assert verdict("overlap", "a dog", ["the cat", "one dog barks"]) == "wrong"


def by_length(answer: str, expected: object, request: object) -> float | None:
    if answer == "raise":
        raise RuntimeError("no")
    if answer == "exit":
        raise SystemExit
    if answer == "numpy":
        return np.float32(0.5)  # type: ignore[return-value]
    return {"none": None, "much": 2.0, "nan": float("nan")}.get(answer, 0.5)


async def awaited(answer: str, expected: object, request: object) -> float:
    return 1.0


def test_functions() -> None:
    name = f"{__name__}:by_length"
    assert verdict("function", "half", None, function=name) == "right"
    assert verdict("function", "half", None, function=name, threshold=0.6) == "wrong"
    assert verdict("function", "numpy", None, function=name) == "right"
    for answer in ("none", "much", "nan", "raise", "exit"):
        assert verdict("function", answer, None, function=name) == "ungraded"


@pytest.mark.parametrize(
    "name", ["nothing", "no.such.module:f", "math:pi", "math:no_such", "math:sqrt", f"{__name__}:awaited"]
)
def test_a_function_that_is_none_is_told(name: str) -> None:
    with pytest.raises(ConfigError, match=r"quality\.function: .*"):
        load_function(name)


def test_what_no_row_can_be_graded_by_is_told() -> None:
    number = Quality(kind="number")
    assert "no row says" in str(problem_of(number, [None, None]))
    assert "holds no number" in str(problem_of(number, ["Paris"]))
    assert problem_of(number, ["Paris", "7"]) is None
    assert needs_expected(number)
    assert not needs_expected(Quality(kind="regex", pattern="yes"))
    with pytest.raises(ConfigError, match=r"quality\.schema: is no JSON Schema"):
        compiled({"type": "nonsense"})
    for reference in ("http://127.0.0.1:1/x.json", "#/$defs/nothing"):
        with pytest.raises(ConfigError, match=r"quality\.schema: refers to"):
            compiled({"properties": {"a": {"$ref": reference}}})


def test_a_schema_may_refer_to_itself() -> None:
    schema = {"properties": {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#"}}, "$defs": {"n": {"type": "integer"}}}
    assert verdict("json", '{"a": 1, "b": {"a": 2}}', None, schema=schema) == "right"
    assert verdict("json", '{"a": 1, "b": {"a": "x"}}', None, schema=schema) == "wrong"


def test_patterns_that_never_end_leave_answers_ungraded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SECONDS", 0.05)
    grader, endless = build(Quality(kind="regex", pattern="^(a+)+$")), Given("a" * 40 + "b", "a")
    assert grader(Given("aa", "aa")).right
    assert [grader(endless).status for _ in range(patience.MOST + 2)] == ["ungraded"] * (patience.MOST + 2)
    assert score_of("a" * 40 + "b", "^(a+)+$") is None


def test_no_text_takes_long() -> None:
    from time import process_time

    pieces = ("(", "A, ", "A or ", "answer ", "*a ", "__a ", "1,", "1 234 ", "{", "\\frac{", "\n", "#### ", "1^")
    before = process_time()
    for piece in pieces:
        for kind in ("exact", "contains", "number", "choice", "overlap", "json"):
            build(Quality.model_validate({"kind": kind}))(Given(piece * 1000, "B 42", question=piece * 1000))
    assert process_time() - before < 10


def test_ten_thousand_answers_take_seconds() -> None:
    from time import process_time

    text = "First there were 12 apples, then 30 more came, at $1.50 each. " * 12 + "\nThe answer is **42**."
    before = process_time()
    for kind in ("exact", "contains", "number", "choice", "overlap", "json"):
        made = build(Quality.model_validate({"kind": kind}))
        for _ in range(1000):
            made(Given(text, "B 42"))
    assert process_time() - before < 10


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        ({"quality": {"kind": "regex"}}, "quality.pattern: quality=regex needs"),
        ({"quality": {"kind": "regex", "pattern": "("}}, "quality.pattern: must be a regular expression"),
        ({"quality": {"kind": "function"}}, "quality.function: quality=function needs"),
        ({"quality": {"kind": "judge"}}, "quality.judge.model: quality=judge needs an option"),
        ({"quality": {"kind": "judge", "judge": {"model": ["a", "b"]}}}, "quality.judge.model: judges vote"),
        ({"quality": {"kind": "judge", "judge": {"model": "a", "rubric": "x"}}}, "quality.judge.rubric: must hold"),
        (
            {"quality": {"kind": "judge", "judge": {"model": "a", "answer": "x"}}},
            "quality.judge.answer: must have a group",
        ),
        ({"quality": {"kind": "nothing"}}, "quality.kind: must be one of"),
        ({"quality": {"kind": "number", "tolerance": -1}}, "quality.tolerance: must be at least 0"),
        ({"quality": {"kind": "number"}, "workload": {"force_output": True}}, "workload.force_output: true makes"),
        ({"slo": {"right_share": 0.9}}, "slo.right_share: no answer is graded"),
        ({"slo": {"right_share": 1.5}, "quality": {"kind": "number"}}, "slo.right_share: must be at most 1"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_told(tree: dict[str, Any], problem: str) -> None:
    lengths = {"input_tokens": {"mean": 8.0}, "output_tokens": {"mean": 8.0}}
    whole = {"model": {"name": "m"}, **tree, "workload": {**lengths, **tree.get("workload", {})}}
    with pytest.raises(ConfigError) as caught:
        load(whole)
    assert str(caught.value).startswith(problem)


def test_what_a_function_raises_is_noted_without_secrets() -> None:
    secrets.register("grader-secret-0123")

    def call(_answer: str, _expected: object, _request: object) -> float:
        raise RuntimeError(f"{'x' * 145} at grader-secret-0123\x1b[31m")

    note = function(0.5, call)(Given(text="a", expected="b")).note
    assert note is not None
    assert "grader" not in note
    assert "\x1b" not in note
