"""Data files of LiteLLM's package, read without importing it (which takes seconds)."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path


def _roots() -> list[Path]:
    spec = importlib.util.find_spec("litellm")
    return [Path(root) for root in (spec.submodule_search_locations or ())] if spec is not None else []


def path(name: str) -> Path | None:
    """A file of the package by its name; None where the package lacks it."""
    return next((file for root in _roots() if (file := root / name).is_file()), None)


@cache
def content(name: str) -> Mapping[str, object]:
    """A JSON file of the package; empty where the package lacks it."""
    file = path(name)
    loaded: dict[str, object] = json.loads(file.read_bytes()) if file else {}
    return loaded


@lru_cache(maxsize=1)
def tokenizer_folders() -> tuple[Path, ...]:
    """Where the package keeps tokenizers."""
    return tuple(root / part / "tokenizers" for root in _roots() for part in ("litellm_core_utils", "llms"))
