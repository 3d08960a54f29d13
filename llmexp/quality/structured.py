"""Graders of structure: JSON, and calls of tools. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Protocol

from llmexp.quality.grade import Given, Grade, Grader, graded, ungraded, unparsed

_MOST_STARTS = 100
_NAMES = ("name", "tool", "function", "tool_name")
_ARGUMENTS = ("arguments", "args", "parameters", "input")
_FENCED = re.compile(r"```[\w+-]*[ \t]*\n(.*?)```", re.DOTALL)


class Schema(Protocol):
    """A compiled JSON Schema: what `jsonschema` gives."""

    def iter_errors(self, instance: object) -> Iterator[Exception]:
        """Every way in which the instance breaks the schema."""
        ...


# --- JSON ------------------------------------------------------------------------------------------------------------


def json_grader(threshold: float, schema: Schema | None) -> Grader:
    """The answer is JSON, keeps the schema, holds the fields of `expected`; further ones do not matter, at any depth.

    The score is the share of expected fields that are as they should be; 0 where the schema is broken.
    """

    def grade(given: Given) -> Grade:
        found = find_json(given.text)
        if found is None:
            return unparsed("no JSON in the answer")
        try:
            broken = None if schema is None else _broken(schema, found.value)
        except Exception as error:  # noqa: BLE001 -- one answer's grade is lost, not the job's
            return ungraded(f"the schema could not be applied: {type(error).__name__}: {error}", quotes=True)
        if broken is not None:
            return graded(0.0, threshold, f"breaks the schema: {broken}", quotes=True)
        wanted = _wanted(given.expected)
        if not wanted:
            return graded(1.0, threshold) if schema is not None else ungraded("nothing is expected of this answer")
        score, note = max((_fields(found.value, one) for one in wanted), key=lambda each: each[0])
        return graded(score, threshold, note, quotes=True)

    return grade


class Found:
    """JSON that stands in a text; a class, because null is a value too."""

    def __init__(self, value: object) -> None:
        self.value = value


def find_json(text: str) -> Found | None:
    """The JSON of an answer: the whole text, else the last code fence with some, else the last object or list.

    Of those that stand among words, one less than half as long as the longest is taken for a remark, such as `[1]`.
    """
    text = text.removeprefix("\ufeff")
    for candidate in (text, *reversed(_FENCED.findall(text))):
        if (found := _parsed(candidate)) is not None:
            return found
    return _last(text)


def _last(text: str) -> Found | None:
    decoder, best, longest, end = json.JSONDecoder(parse_constant=_refused), None, 0, 0
    for start in [found.start() for found in re.finditer(r"[{\[]", text)][:_MOST_STARTS]:
        if start < end:
            continue
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        longest = max(longest, end - start)
        if 2 * (end - start) >= longest:
            best = Found(value)
    return best


def _parsed(text: str) -> Found | None:
    try:
        value = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return None
    return Found(value)


def _refused(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _broken(schema: Schema, value: object) -> str | None:
    error = next(schema.iter_errors(value), None)
    return None if error is None else str(getattr(error, "message", error))


def _wanted(expected: object) -> list[object]:
    """The values that will do. A text that holds JSON stands for it; a list of objects means any of them, or itself."""
    if expected is None:
        return []
    if isinstance(expected, str):
        found = _parsed(expected)
        return [expected if found is None else found.value]
    if isinstance(expected, list) and expected and all(isinstance(one, Mapping) for one in expected):
        return [*expected, expected]
    return [expected]


def _fields(value: object, wanted: object) -> tuple[float, str | None]:
    """Share of the wanted fields that the value holds, and the first that it does not."""
    if not isinstance(wanted, Mapping):
        return (1.0, None) if _holds(value, wanted) else (0.0, f"read: {_brief(value)}")
    if not isinstance(value, Mapping):
        return 0.0, f"not an object: {_brief(value)}"
    wrong = [name for name, one in wanted.items() if name not in value or not _holds(value[name], one)]
    held = 1 - len(wrong) / max(1, len(wanted))
    return held, None if not wrong else f"{wrong[0]}: {_brief(value.get(wrong[0], 'missing'))}"


def _holds(value: object, wanted: object) -> bool:
    """Whether a value is the wanted one, further fields of objects aside."""
    if isinstance(value, Mapping) and isinstance(wanted, Mapping):
        return all(name in value and _holds(value[name], one) for name, one in wanted.items())
    if isinstance(value, list) and isinstance(wanted, list):
        return len(value) == len(wanted) and all(map(_holds, value, wanted))
    return same(value, wanted)


def same(one: object, two: object) -> bool:
    """Equal as JSON: numbers by value, texts without white space around, objects whatever the order of their keys."""
    if isinstance(one, bool) or isinstance(two, bool):
        return one is two
    if isinstance(one, int | float) and isinstance(two, int | float):
        return _decimal(one) == _decimal(two)
    if isinstance(one, str) and isinstance(two, str):
        return one.strip() == two.strip()
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return one.keys() == two.keys() and all(same(one[name], two[name]) for name in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(same, one, two))
    return one is None and two is None


def _decimal(value: float) -> Decimal | float:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return value


def _brief(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


# --- calls of tools --------------------------------------------------------------------------------------------------


def tool_call(threshold: float) -> Grader:
    """The expected tool is called, with equal arguments where any are given. A text instead of a call is unparsed."""

    def grade(given: Given) -> Grade:
        wanted = _alternatives(given.expected)
        if not wanted:
            return ungraded("no tool call is expected of this answer")
        if not given.tool_calls:
            return unparsed("the answer calls no tool")
        made = [_Made(call.name, _arguments(call.arguments)) for call in given.tool_calls]
        if any(_all_made(calls, made) for calls in wanted):
            return graded(1.0, threshold, f"called: {given.tool_calls[0].name}", quotes=True)
        shown = "; ".join(f"{call.name}({call.arguments})" for call in given.tool_calls)
        return graded(0.0, threshold, f"called: {shown}", quotes=True)

    return grade


def _all_made(wanted: list[_Wanted], made: list[_Made]) -> bool:
    """Whether each wanted call was made, two alike twice; further calls do not matter."""
    left = list(made)
    for one in sorted(wanted, key=lambda call: call.arguments is None):
        fitting = next((each for each in left if each.fits(one)), None)
        if fitting is None:
            return False
        left.remove(fitting)
    return True


class _Made:
    """A call that the model made."""

    def __init__(self, name: str, arguments: Found | None) -> None:
        self._name, self._arguments = name, arguments

    def fits(self, wanted: _Wanted) -> bool:
        if self._name != wanted.name:
            return False
        if wanted.arguments is None:
            return True
        return self._arguments is not None and same(self._arguments.value, wanted.arguments)


class _Wanted:
    """A call that is expected; without arguments, any will do."""

    def __init__(self, name: str, arguments: object) -> None:
        self.name, self.arguments = name, arguments


def _alternatives(expected: object) -> list[list[_Wanted]]:
    """Sets of calls, any of which will do: a call, a list of alternatives, or `{"tool_calls": [all of these]}`."""
    if isinstance(expected, Mapping) and isinstance(expected.get("tool_calls"), list):
        calls = [found for one in expected["tool_calls"] if (found := _call(one))]
        return [calls] if calls else []
    entries = expected if isinstance(expected, list) else [expected]
    return [[found] for one in entries if (found := _call(one))]


def _call(entry: object) -> _Wanted | None:
    """`{"name": …, "arguments": …}`, in the names of any API, OpenAI's `{"function": {…}}`, or a name alone."""
    if isinstance(entry, str) and entry.strip():
        found = _parsed(entry)
        return _call(found.value) if found and isinstance(found.value, Mapping) else _Wanted(entry.strip(), None)
    if not isinstance(entry, Mapping):
        return None
    for outer in ("function", "function_call", "toolUse"):
        if isinstance(entry.get(outer), Mapping):
            return _call(entry[outer])
    name = next((entry[key] for key in _NAMES if key in entry), None)
    arguments = next((entry[key] for key in _ARGUMENTS if key in entry), None)
    if not isinstance(name, str):
        return None
    if isinstance(arguments, str):
        found = _arguments(arguments)
        arguments = arguments if found is None else found.value
    return _Wanted(name, arguments)


def _arguments(text: str) -> Found | None:
    """Arguments as they came: JSON; no text at all, and null, for none."""
    return _parsed("{}" if text.strip() in ("", "null") else text)
