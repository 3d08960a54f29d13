"""Whether a URL of the configuration can be called at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

_HOST = re.compile(r"[A-Za-z0-9._~-]+")
_DOUBLED = re.compile(r"/(v\d+)(?=/\1(?:/|$))")
_ROUTES = ("chat/completions", "completions", "messages", "responses", "embeddings", "converse-stream", "invocations")
"""Ends of paths that the client adds itself."""


def url_problems(key: str, value: str, example: str) -> Iterator[str]:
    """A line for what is wrong with a URL: key, value, remedy; nothing where it can be called."""
    reason = _reason(value)
    if reason is not None:
        yield f"{key}: must be a URL such as {example}, got '{value}'{reason}"


def base_url_problems(key: str, value: str) -> Iterator[str]:
    """The same for a base URL, to which the client adds a route."""
    wrong = list(url_problems(key, value, "http://127.0.0.1:8000/v1"))
    yield from wrong
    path = "" if wrong else urlsplit(value).path.rstrip("/")
    route = next((route for route in _ROUTES if path.endswith(f"/{route}")), None)
    if route is not None:
        bare = value.replace(f"/{route}", "", 1)
        yield (
            f"{key}: ends in /{route}, which is added to it: the requests would go to {path}/{route}; "
            f"set {key}={bare.rstrip('/')}"
        )
    doubled = _DOUBLED.search(path)
    if doubled is not None:
        yield f"{key}: names /{doubled[1]} twice, got '{value}'; set {key}={value.replace(doubled[0], '', 1)}"


def _is_host(host: str) -> bool:
    """Whether a name could be looked up; letters beyond ASCII travel as IDNA."""
    try:
        return _HOST.fullmatch(host.encode("idna").decode()) is not None
    except UnicodeError:  # an empty part, or one of more than 63 letters
        return False


def _reason(value: str) -> str | None:
    """What is wrong, in words behind the value; empty where the whole is no URL."""
    if value != value.strip() or any(letter.isspace() or not letter.isprintable() for letter in value):
        return " (it holds white space or control characters)"
    try:
        url = urlsplit(value)
        host = url.hostname
    except ValueError as error:
        return (
            f" ({str(error)[:1].lower()}{str(error)[1:]}: an IPv6 address stands in brackets, as http://[::1]:8000/v1)"
        )
    if url.scheme not in ("http", "https") or not host:
        return ""
    try:
        port = url.port
    except ValueError:
        return " (its port must be a number from 1 to 65535)"
    if port == 0 or url.netloc.endswith(":"):
        return " (its port must be a number from 1 to 65535)"
    if ":" not in host and not _is_host(host):
        return f" ('{host}' is no name of a host)"
    if url.fragment or value.endswith("#"):
        return " (what follows # is never sent: take it away)"
    return None
