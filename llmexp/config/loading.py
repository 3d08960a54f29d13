"""A composed mapping → one frozen `Config`, or a `ConfigError` with a line per problem."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from llmexp.config import checks
from llmexp.config.messages import explain
from llmexp.config.schema import Config
from llmexp.errors import ConfigError


def defaults() -> dict[str, Any]:
    """The whole schema with its defaults as a plain mapping, to lie under every composition."""
    blank = Config.model_validate({"model": {"name": "none"}})
    tree: dict[str, Any] = blank.model_dump(mode="json", by_alias=True)
    tree["model"]["name"] = "???"
    return tree


def load(tree: Mapping[str, object]) -> Config:
    """The composed mapping as a `Config`.

    Raises `ConfigError` whose message has a line for each problem.
    """
    try:
        config = Config.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        lines = [explain(problem) for problem in error.errors(include_url=False)]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None
    problems = list(checks.problems(config))
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def flatten(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`; lists and empty mappings stay values."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
