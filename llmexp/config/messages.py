"""One problem that the schema found, in words: the key, the value, what to do."""

from __future__ import annotations

import json

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
    whole = [str(part) for part in problem["loc"]]
    path = [part for at, part in enumerate(whole) if not (part in _TAGS and whole[at - 1] == "deployment")]
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
