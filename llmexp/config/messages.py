"""The problems that the schema found, in words: the key, the value, what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from pydantic_core import ErrorDetails

from llmexp.config.keys import suggestion

_TAGS = {"external", "llamacpp", "simulated", "served", "sagemaker", "bedrock"}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("greater than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


_KIND_OF_UNION = re.compile(r"str|int|float|bool|constrained-\w+|(?:dict|list|tuple)\[.*\]|Goal")
"""What pydantic calls the kinds of value that a key may have, where it may have several."""


def explained(problems: Iterable[ErrorDetails]) -> list[str]:
    """A line for each key that has a problem, of whichever kind its value may be."""
    found: dict[str, list[ErrorDetails]] = {}
    inside = {of for problem in problems for of in _unions_above(problem)}
    for problem in problems:
        path = _path(problem)
        if path not in inside:
            found.setdefault(".".join(path), []).append(problem)
    return list(dict.fromkeys(line for each in found.values() for line in _lines(each)))


def _unions_above(problem: ErrorDetails) -> list[tuple[str, ...]]:
    """Keys of several kinds whose value was of one of them as far as that goes: what is wrong lies further down."""
    parts = [str(part) for part in problem["loc"]]
    found: list[tuple[str, ...]] = []
    path: list[str] = []
    for at, part in enumerate(parts):
        if at and _KIND_OF_UNION.fullmatch(part):
            if any(not _KIND_OF_UNION.fullmatch(one) for one in parts[at + 1 :]):
                found.append(tuple(path))
        else:
            path.append(part)
    return found


def _path(problem: ErrorDetails) -> tuple[str, ...]:
    whole = [str(part) for part in problem["loc"]]
    path = [part for at, part in enumerate(whole) if not (part in _TAGS and whole[at - 1] == "deployment")]
    return tuple(part for at, part in enumerate(path) if not (at and _KIND_OF_UNION.fullmatch(part)))


def _lines(problems: list[ErrorDetails]) -> list[str]:
    """Of one key; that it is of none of several kinds is one problem."""
    kinds = [problem["type"] for problem in problems]
    if len(kinds) == 1 or any(kind not in _TYPES for kind in kinds):
        return [explain(problem) for problem in problems]
    *others, last = dict.fromkeys(_TYPES[kind] for kind in kinds)
    must = f"{', '.join(others)} or {last}" if others else last
    return [f"{'.'.join(_path(problems[0]))}: must be {must}, got {_show(problems[0]['input'])}"]


def explain(problem: ErrorDetails) -> str:
    """One pydantic problem as `key: must be …, got …`."""
    kind, context, value = problem["type"], problem.get("ctx", {}), problem["input"]
    whole = [str(part) for part in problem["loc"]]
    path = list(_path(problem))
    key = ".".join(path)
    if kind == "extra_forbidden":
        return f"{key}: unknown key{suggestion(path, kind=_deployment_of(whole))}"
    if kind == "missing":
        return f"{key}: must be given"
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"{key}: must be {words} {context[name]:g}, got {_show(value)}"
    if kind == "literal_error":
        return f"{key}: must be one of {context['expected'].replace(' or ', ', ')}, got {_show(value)}"
    if kind == "union_tag_invalid":
        return f"{key}.kind: must be one of {context['expected_tags']}, got '{context['tag']}'"
    if kind == "string_pattern_mismatch":
        return f"{key}: must not be empty"
    if kind in _TYPES:
        return f"{key}: must be {_TYPES[kind]}, got {_show(value)}{_remedy(key, value, kind)}"
    return f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {_show(value)}"


def _deployment_of(whole: list[str]) -> str | None:
    """The kind of deployment whose keys are meant."""
    return next((part for at, part in enumerate(whole) if part in _TAGS and whole[at - 1] == "deployment"), None)


def _remedy(key: str, value: object, kind: str) -> str:
    if isinstance(value, list) and value:
        return f"; several values make a sweep: -m {key}={','.join(map(_bare, value))}"
    if kind == "string_type" and isinstance(value, int | float):
        return f"; quote it: \"{key}='{_show(value)}'\""
    return ""


def _bare(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _show(value: object) -> str:
    return json.dumps(value) if not isinstance(value, str) else f"'{value}'"
