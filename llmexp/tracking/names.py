"""Names and values within the limits that MLflow sets. Knows nothing else of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from llmexp.secrets import redact, trimmed

KEY_LIMIT, PARAM_LIMIT, TAG_LIMIT = 250, 6000, 8000
_ODD = re.compile(r"[^\w.\-: /]")


def as_params(flat: Mapping[str, object]) -> dict[str, str]:
    """Values as text within the store's limits. What is not set (null, empty) is left out rather than shown as such."""
    given = {key: value for key, value in flat.items() if value not in (None, [], {}, "")}
    return {clean_name(key): trimmed(as_text(value), PARAM_LIMIT) for key, value in given.items()}


def as_tags(tags: Mapping[str, object]) -> dict[str, str]:
    """Tags as text within the store's limits, those without a value left out."""
    given = {key: value for key, value in tags.items() if value is not None}
    return {clean_name(key): trimmed(as_text(value), TAG_LIMIT) for key, value in given.items()}


def clean_name(name: str) -> str:
    """A name that the store takes: its alphabet, its length, and no path that means another one."""
    plain = _ODD.sub("_", name)[:KEY_LIMIT]
    return "/".join(part for part in plain.split("/") if part not in ("", ".", "..")) or "_"


def as_text(value: object) -> str:
    """As it would be written on the command line, without secrets: text bare, anything else as JSON."""
    return redact(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
