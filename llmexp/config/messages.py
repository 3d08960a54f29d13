"""One problem that the schema found, in words: the key, the value, what to do."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from llmexp.config.schema import Config

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
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def explain(problem: ErrorDetails) -> str:
    """One pydantic problem as `key: must be …, got …`."""
    kind, context, value = problem["type"], problem.get("ctx", {}), problem["input"]
    path = [str(part) for part in problem["loc"]]
    if "deployment" in path:
        path = [part for at, part in enumerate(path) if not (part in _TAGS and path[at - 1] == "deployment")]
    key = ".".join(path)
    if kind == "extra_forbidden":
        return f"{key}: unknown key{_suggest(path)}"
    if kind == "missing":
        return f"{key}: must be given"
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"{key}: must be {words} {context[name]:g}, got {_show(value)}"
    if kind == "literal_error":
        return f"{key}: must be one of {context['expected'].replace(' or ', ', ')}, got {_show(value)}"
    if kind == "union_tag_invalid":
        return f"{key}.kind: must be one of {context['expected_tags']}, got '{context['tag']}'"
    if kind == "string_too_short":
        return f"{key}: must not be empty"
    if kind in _TYPES:
        return f"{key}: must be {_TYPES[kind]}, got {_show(value)}"
    return f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {_show(value)}"


def _show(value: object) -> str:
    return json.dumps(value) if not isinstance(value, str) else f"'{value}'"


def unknown_key(path: list[str], groups: list[str]) -> str:
    """What to say of a key that the schema does not have; `groups` may be set at the top too."""
    for depth in range(1, len(path) + 1):
        known = _keys_at(Config, path[: depth - 1])
        if path[depth - 1] not in known and known:
            more = groups if depth == 1 else []
            return f"{'.'.join(path)}: unknown key{_suggest(path[:depth], more)}"
    return f"{'.'.join(path)}: unknown key"


def _suggest(path: list[str], more: Sequence[str] = ()) -> str:
    """The remedy for an unknown key: the nearest known one, or all that there are."""
    known = [*_keys_at(Config, path[:-1]), *more]
    near = difflib.get_close_matches(path[-1], known, n=1)
    if near:
        return f"; did you mean {'.'.join([*path[:-1], near[0]])}?"
    return f"; known here: {', '.join(sorted(set(known)))}" if known else ""


def _keys_at(part: object, path: list[str]) -> list[str]:
    models = [arg for arg in (part, *_walk_args(part)) if isinstance(arg, type) and issubclass(arg, BaseModel)]
    if not path:
        return [field.alias or name for model in models for name, field in model.model_fields.items()]
    found = (model.model_fields[path[0]] for model in models if path[0] in model.model_fields)
    return [key for field in found for key in _keys_at(field.annotation, path[1:])]


def _walk_args(annotation: object) -> Iterator[object]:
    for arg in get_args(annotation):
        yield arg
        yield from _walk_args(arg)
