"""Which secrets this process knows, by their values; and the one funnel for texts."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

from llmexp.secrets import forms
from llmexp.secrets.forms import SHORTEST
from llmexp.secrets.names import credentials_in_url, is_credential_name, passwords_in_urls

LONG_LINE = 20
"""Characters of a line of a longer secret, such as a private key's, that is looked for by itself."""
DUMMIES = frozenset({"anything", "dummy-key", "no-key-required", "not-needed", "placeholder", "sk-no-key-required"})
"""What people set where a client insists on a key that the server does not want: words, and no secrets."""
OWN_WORDS = frozenset({"completed", "degraded", "finished", "interrupted", "simulated", "unfinished"})
"""What our own files mean something by: whose key it is has none."""
MASK = "***"
LONGEST_PATH = 4096

_known: set[str] = set()
_lock = threading.Lock()
_pattern: re.Pattern[str] | None = None
_learned = False


def register(*values: str | None) -> None:
    """Remember secret values; short and empty ones are left out.

    Of what stands for a header (`Bearer …`, `Basic …`, a cookie) what it carries is remembered too, and of a value with
    several lines the long ones: who shows it may show that alone.
    """
    global _pattern  # noqa: PLW0603 -- one registry a process is the point
    whole = [value for value in values if value and len(value) >= SHORTEST]
    parts = [part for value in whole for part in _parts(value) if len(part) >= SHORTEST]
    fresh = {*whole, *parts} - _known - DUMMIES - OWN_WORDS
    if fresh:
        with _lock:
            _known.update(fresh)
            _pattern = None


_SCHEME = re.compile(
    r"(?:api-?key|basic|bearer|digest|jwt|key|negotiate|ntlm|sso-key|ssws|token)\s+(\S+)", re.IGNORECASE
)
_COOKIE = re.compile(r"(?<![^\s;,])[^\s=;,]+=([^\s;]{16,})(?:;|$)")


def _parts(value: str) -> Iterator[str]:
    """What a secret consists of, as far as it is secret by itself."""
    if "\n" in value:
        yield from (text for line in value.splitlines() if len(text := line.strip()) >= LONG_LINE)
    found = _SCHEME.fullmatch(value.strip())
    if found is not None:
        yield found[1]
        yield from _user_and_password(found[1])
    if "; " in value:
        yield from _COOKIE.findall(value)


def _user_and_password(coded: str) -> Iterator[str]:
    """What `Basic …` says in base64, and the password in it."""
    try:
        plain = base64.b64decode(coded, validate=True).decode()
    except (binascii.Error, ValueError):
        return
    _, colon, password = plain.partition(":")
    if colon and plain.isprintable():
        yield plain
        yield password


def learn(environ: Mapping[str, str]) -> None:
    """Remember what an environment holds: variables named like a credential, and credentials inside of others."""
    for name, value in environ.items():
        if is_credential_name(name) and not is_path(value):
            register(value, value.strip(), *(part.strip() for part in value.split(",")))
        register(*_inside(value))


_SAID = re.compile(
    r"""(?<![\w.])([A-Za-z][\w.-]{0,80})['"]?\s*[=:]\s*['"]?((?:basic|bearer|token)(?:\s|%20)+)?([^\s,;&'"{}\[\]]+)""",
    re.IGNORECASE,
)


def _inside(value: str) -> Iterator[str]:
    """Credentials in a value with an innocent name: in URLs, JSON, connection strings, headers, options."""
    if "://" in value:
        for _, found in credentials_in_url(value):
            yield from (found, unquote(found))
    if value.lstrip()[:1] in ("{", "["):
        yield from _in_json(value)
    for name, scheme, said in _SAID.findall(value):
        if is_credential_name(name) and not is_path(said) and not said.startswith(("$", "//", "oc.env")):
            yield from (said, unquote(said))
            if scheme.lower().startswith("basic"):
                yield from _user_and_password(said)


def learn_words(words: Iterable[str]) -> None:
    """Remember credentials that were typed on a command line: they will be refused, and no refusal must show them."""
    for word in words:
        key, equals, value = word.partition("=")
        if "headers_env" in key:  # names of variables
            continue
        if equals and is_credential_name(key.rpartition(".")[2]) and not is_path(value):
            register(value, value.strip("'\" "))
        register(*_inside(word))


def _in_json(document: str) -> Iterator[str]:
    """Those in JSON, such as a service account's key."""
    try:
        nodes = [json.loads(document)]
    except (ValueError, RecursionError):
        return
    while nodes:
        node = nodes.pop()
        if isinstance(node, list):
            nodes += node
        elif isinstance(node, dict):
            nodes += node.values()
            yield from (text for name, text in node.items() if isinstance(text, str) and is_credential_name(name))


def redact(text: str) -> str:
    """The text without any secret that is known, and without passwords in URLs."""
    pattern = _pattern or _compile()
    text = _without_passwords(text)
    return forms.unwrapped(pattern.sub(MASK, text), pattern, MASK)


def _without_passwords(text: str) -> str:
    shown, last = [], 0
    for start, end in passwords_in_urls(text):
        shown += [text[last:start], MASK]
        last = end
    return "".join([*shown, text[last:]]) if shown else text


def holds(text: str, value: str, least: int = SHORTEST) -> bool:
    """Whether a text holds a value in any form, or a part of it that is secret by itself and so long at least."""
    return text == value or (len(value) >= least and _pattern_of(value, least).search(text) is not None)


@lru_cache(maxsize=512)
def _pattern_of(value: str, least: int) -> re.Pattern[str]:
    return forms.pattern({value, *(part for part in _parts(value) if len(part) >= least)})


def redact_tree(value: object) -> object:
    """Nested mappings and lists with every text in them redacted, keys included; anything else stays as it is."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(key)): redact_tree(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [redact_tree(one) for one in value]
    return value


def is_path(value: str) -> bool:
    """Whether a value is the path of something that exists: the place of a secret, and none itself."""
    if "/" not in value or len(value) >= LONGEST_PATH:
        return False
    try:
        return Path(value).expanduser().exists()
    except PermissionError:
        return True
    except (OSError, RuntimeError, ValueError):  # too long for a name, nobody's home, a zero byte
        return False


def _learn_once() -> None:
    global _learned  # noqa: PLW0603
    if not _learned:
        _learned = True
        learn(os.environ)


def _compile() -> re.Pattern[str]:
    """All forms of all values."""
    global _pattern  # noqa: PLW0603
    _learn_once()
    with _lock:
        _pattern = forms.pattern(_known)
        return _pattern


# --- what a terminal shows -------------------------------------------------------------------------------------------

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """A text from outside as it may be shown: control characters and changes of direction as escapes, not as acts."""
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def foreign(text: str) -> str:
    """A text from outside, fit for files and terminals: without secrets, without control characters."""
    return printable(redact(text))


LOOKED_AT = 16_384
"""Characters of a very long text in which secrets are looked for; what stands behind them is never shown."""
HELD_BACK = 8_192
"""Of those, how many may hold the beginning of a secret that goes on behind them."""


def beginning(text: str) -> str:
    """The beginning of a text of any length, without secrets, and without the part of one that was cut off."""
    if len(text) <= LOOKED_AT:
        return redact(text)
    clean = redact(text[:LOOKED_AT])  # at its end may stand a part of one that goes on
    most_words = max((len(value.split()) for value in _known), default=0)
    by_words = clean.rsplit(None, 1 + most_words)
    safe = [by_words[0] if len(by_words) > 1 + most_words else "", clean[:-HELD_BACK]]
    if MASK in clean:
        safe.append(clean[: clean.rindex(MASK) + len(MASK)])
    return max(safe, key=len)


def trimmed(text: str, limit: int) -> str:
    """The beginning of a text from outside. Secrets go first: half of one, cut at the limit, would not be known."""
    clean = redact(text)
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"
