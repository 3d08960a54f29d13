"""A composed mapping → one frozen `Config`, or a `ConfigError` with a line per problem."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import ValidationError

from llmexp.config import checks, credentials
from llmexp.config.messages import explained
from llmexp.config.schema import Config
from llmexp.errors import ConfigError
from llmexp.json_types import branch

if TYPE_CHECKING:
    from omegaconf import DictConfig

OPEN = ("model.params", "model.headers", "model.headers_env", "model.deployment", "tracking.tags", "search.space")
"""Parts that take keys of the user's own. Kinds of deployment that do not are held to their keys by the schema."""


def defaults() -> dict[str, object]:
    """The whole schema with its defaults as a plain mapping, to lie under every composition."""
    blank = Config.model_validate({"model": {"name": "none"}})
    tree: dict[str, object] = blank.model_dump(mode="json", by_alias=True)
    return {**tree, "model": {**branch(tree, "model"), "name": "???"}}


def schema_node() -> DictConfig:
    """`defaults` as Hydra composes over it: closed, but for the parts in `OPEN`, whose keys need no plus."""
    from omegaconf import OmegaConf

    node = OmegaConf.create(defaults())
    for path in OPEN:
        part = OmegaConf.select(node, path)
        assert part is not None
        OmegaConf.set_struct(part, False)
    return node


def load(tree: Mapping[str, object]) -> Config:
    """The composed mapping as a `Config`.

    Raises `ConfigError` whose message has a line for each problem.
    """
    halves = [key for key, value in flatten(tree).items() if _holds_half(key) or _holds_half(value)]
    if halves:
        said = "holds half of a character, or bytes that this locale cannot read; set PYTHONUTF8=1 if it was typed"
        raise ConfigError("\n".join(f"{key.encode('ascii', 'backslashreplace').decode()}: {said}" for key in halves))
    try:
        config = Config.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise ConfigError("\n".join(explained(error.errors(include_url=False)))) from None
    problems = [*credentials.problems(tree, os.environ), *checks.problems(config)]
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def _holds_half(value: object) -> bool:
    """Whether a text, or one in a list, holds what no file can hold."""
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return True
    return False


def flatten(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`; lists and empty mappings stay values."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
