"""Where a model is called and with which headers: base URL, path, credentials from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from llmexp import secrets
from llmexp.clients.base import Headers, Target
from llmexp.config import Model
from llmexp.errors import ConfigError

_PATH_SAFE = "/%:@!$&'()*+,;=~-._"
_QUERY_SAFE = f"{_PATH_SAFE}?[]|"


def target(base_url: str) -> Target:
    """Scheme, host and port of a base URL."""
    url = urlsplit(base_url)
    host = (url.hostname or "").replace("%25", "%")
    if not host.isascii():
        host = host.encode("idna").decode()
    if url.scheme == "https":
        return Target("https", host, url.port or 443)
    return Target("http", host, url.port or 80)


def path(base_url: str, suffix: str) -> str:
    """`suffix` below the base URL's path; a query of the base URL (Azure's `?api-version=…`) is kept."""
    url = urlsplit(base_url)
    joined = quote(f"{url.path.rstrip('/')}/{suffix.lstrip('/')}", safe=_PATH_SAFE)
    return f"{joined}?{quote(url.query, safe=_QUERY_SAFE)}" if url.query else joined


def api_key(model: Model) -> str | None:
    """The key that `model.api_key_env` names; None where none is needed."""
    return None if model.api_key_env is None else _secret("model.api_key_env", model.api_key_env)


def headers(model: Model, defaults: Mapping[str, str]) -> Headers:
    """`defaults`, then the model's plain headers, then those whose values are in the environment; later ones win."""
    hidden = {name: _secret(f"model.headers_env.{name}", variable) for name, variable in model.headers_env.items()}
    merged: dict[str, tuple[str, str]] = {}
    for source in (defaults, model.headers, hidden):
        for name, value in source.items():
            merged[name.lower()] = (name, _checked(name, value))
    return tuple(merged.values())


def _secret(key: str, variable: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(f"{key}: the environment variable {variable} is not set; export it, or name another one")
    secrets.register(value)
    return value


def _checked(name: str, value: str) -> str:
    """The value, if a header can carry it; the message does not show it."""
    if not value.isprintable() or not value.isascii() or not name.isascii():
        raise ConfigError(f"header {name}: its value holds characters that a header cannot carry")
    return value
