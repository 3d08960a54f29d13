"""Secrets: what is one, by its name; which ones this process knows, by their value; and the one funnel for texts.

Every text that comes from outside (a server's error, an answer, a library's exception) and every text that leaves (to a
file, a terminal, a log, MLflow) passes `redact`, which replaces the values that are known: those of variables whose
names say what they are, passwords inside URLs, and what the code registers where it reads a key. A value is found as
it is, and as base64, URL encoding, JSON and HTML write it.
"""

from __future__ import annotations

import base64
import html
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TextIO
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

SHORTEST = 8
"""Characters of a value that is looked for: a shorter one would be found in innocent words."""
LONG_LINE = 20
"""Characters of a line of a longer secret, such as a private key's, that is looked for by itself."""
DUMMIES = frozenset({"anything", "dummy-key", "no-key-required", "not-needed", "placeholder", "sk-no-key-required"})
"""What people set where a client insists on a key that the server does not want: words, and no secrets."""
OWN_WORDS = frozenset({"completed", "degraded", "finished", "interrupted", "simulated", "unfinished"})
"""What our own files mean something by: whose key it is has none."""
MASK = "***"

# --- by name ---------------------------------------------------------------------------------------------------------


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORDS = _words(
    "auth authorization authentication bearer cookie cookies credential credentials jwt passphrase passwd password "
    "passwords secret secrets"
)
_PAIRS = _words(
    "access-key access-token account-key api-key api-token auth-token bearer-token id-token master-key private-key "
    "refresh-token secret-key security-token session-key session-token shared-key signing-key subscription-key"
)
_SHORT_WORDS = _words("pass pat pwd")
"""At the end of a variable's name: DB_PASS, GITHUB_PAT."""
_INNOCENT_BEFORE_KEY = _words(
    "cache foreign group hash hot idempotency index json lookup partition primary public route routing row shard sort "
    "tool"
)
_INNOCENT_BEFORE_TOKEN = _words(
    "any bos cls content document draft each end eos final first image input inter last mask max min next num output "
    "pad per sep special start stop think time unk word"
)
_GLUED = re.compile(r"(api|access|auth|secret|private|subscription|session|bearer|refresh)(key|token)$|passw|secret")
_VARIABLE_NAMED = frozenset({"env", "environ", "variable"})
_PLACE = frozenset({"dir", "directory", "file", "host", "path", "sock", "socket", "uri", "url"})
_WORKING_DIRECTORY = frozenset({"PWD", "OLDPWD"})
"""Variables of every shell that sound like passwords."""
_SPLIT = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def is_credential_name(name: str) -> bool:
    """Whether a key, header, tag, option or variable of this name holds a credential.

    `api_key`, `X-Auth`, `accessToken`, `DB_PASSWORD` do; `max_tokens`, `prompt_cache_key`, `stop_token_ids`,
    `api_key_env` (the name of a variable) do not.
    """
    words = [word.lower() for word in _SPLIT.split(name) if word]
    if name in _WORKING_DIRECTORY or not words or words[-1] in _VARIABLE_NAMED | _PLACE:
        return False
    if any(word in _WORDS or _GLUED.search(word) for word in words) or "pwd" in words[1:]:
        return True
    if any(f"{one}-{two}" in _PAIRS for one, two in pairwise(words)):
        return True
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if name.isupper() and last in _SHORT_WORDS:
        return True
    if last == "key":
        return before not in _INNOCENT_BEFORE_KEY
    return last == "token" and before not in _INNOCENT_BEFORE_TOKEN


_PASSWORD_IN_URL = re.compile(
    r"([A-Za-z][\w+.-]*://[^\s:/@'\"<>]*):(?!\d{1,5}(?:[/?#,;|<>)\]}\s'\"]|$))([^\s'\"<>|]+)@"
)
"""Also one with a slash or an @ in it, which should have been written in URL form; a port is none."""
_URL = re.compile(r"[A-Za-z][\w+.-]*://(?:(?!,[A-Za-z][\w+.-]*://)[^\s'\"<>])+")
_SIGNED = re.compile(r"^(code|sig|signature|x-amz-signature|x-goog-signature)$", re.IGNORECASE)


def credentials_in_url(text: str) -> Iterator[tuple[str, str]]:
    """(what it is, its value) of each credential in the URLs of a text."""
    for found in _URL.findall(text):
        try:
            url = urlsplit(found)
        except ValueError:
            continue
        userinfo = url.netloc.rpartition("@")[0]
        user, _, password = userinfo.partition(":")
        if password:
            yield "a password", password
        elif user and url.scheme in ("http", "https"):
            yield "a user or token", user
        for name, value in parse_qsl(url.query) + parse_qsl(url.fragment):
            if value and (is_credential_name(name) or _SIGNED.match(name)):
                yield f"'{name}'", value
    for _, password in _PASSWORD_IN_URL.findall(text):
        yield "a password", password


# --- by value --------------------------------------------------------------------------------------------------------

_known: set[str] = set()
_lock = threading.Lock()
_pattern: re.Pattern[str] | None = None
_learned = False


def register(*values: str | None) -> None:
    """Remember secret values; short and empty ones are left out. Of one with several lines, the long ones by themselves
    too: who shows it shows it line by line.
    """
    global _pattern  # noqa: PLW0603 -- one registry a process is the point
    whole = [value for value in values if value and len(value) >= SHORTEST]
    lines = [line.strip() for value in whole if "\n" in value for line in value.splitlines()]
    fresh = {*whole, *(line for line in lines if len(line) >= LONG_LINE)} - _known - DUMMIES - OWN_WORDS
    if fresh:
        with _lock:
            _known.update(fresh)
            _pattern = None


def learn(environ: Mapping[str, str]) -> None:
    """Remember what an environment holds: variables named like a credential, and passwords inside URLs."""
    for name, value in environ.items():
        if is_credential_name(name) and not is_path(value):
            register(value, value.strip(), *(part.strip() for part in value.split(",")))
        if "://" in value:
            for _, found in credentials_in_url(value):
                register(found, unquote(found))
        if value.lstrip()[:1] in ("{", "["):
            register(*_inside(value))
        if ";" in value:  # a connection string: Name=value;Name=value
            pairs = (part.partition("=") for part in value.split(";"))
            register(*(one.strip() for called, _, one in pairs if is_credential_name(called.strip())))


def learn_overrides(words: Iterable[str]) -> None:
    """Remember credentials that were typed as `key=value`: they will be refused, and the refusal must not show them."""
    for word in words:
        key, equals, value = word.partition("=")
        if equals and is_credential_name(key.rpartition(".")[2]):
            register(value, value.strip("'\" "))


def _inside(document: str) -> Iterator[str]:
    """Credentials in a variable that holds JSON, such as a service account's key."""
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
    if "://" in text:
        text = _PASSWORD_IN_URL.sub(rf"\1:{MASK}@", text)
    return pattern.sub(MASK, text)


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
    return "/" in value and len(value) < 4096 and Path(value).expanduser().exists()


def _learn_once() -> None:
    global _learned  # noqa: PLW0603
    if not _learned:
        _learned = True
        learn(os.environ)


def _compile() -> re.Pattern[str]:
    """All forms of all values, the longest first, so that none leaves a rest of another."""
    global _pattern  # noqa: PLW0603
    _learn_once()
    with _lock:
        forms = sorted({form for value in _known for form in _forms(value)}, key=lambda form: (-len(form), form))
        _pattern = re.compile("|".join(map(re.escape, forms)) or r"(?!)")
        return _pattern


def _forms(value: str) -> Iterator[str]:
    yield value
    for encoded in (quote(value, safe=""), quote_plus(value), quote(value)):
        yield encoded
        yield re.sub(r"%[0-9A-F]{2}", lambda found: found.group().lower(), encoded)
    yield html.escape(value)
    yield html.escape(value).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")  # as templates write it
    for mark in ("'", '"'):
        yield value.replace(mark, 2 * mark)  # YAML's and CSV's way
    yield repr(value)[1:-1]
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield from _base64(value.encode())


def _base64(raw: bytes) -> Iterator[str]:
    """What base64 makes of the bytes at each of the three places they can begin at, without the letters on either side
    that their neighbours decide too.
    """
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + raw).decode()
        core = text[-(-8 * shift // 6) : (8 * (shift + len(raw))) // 6]
        yield core
        yield core.replace("+", "-").replace("/", "_")


class _Guarded:
    """A stream whose every text is redacted on its way through; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text without secrets."""
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def guard_streams() -> None:
    """Put the funnel before stdout, stderr and every log: prints, tracebacks and progress of whatever library, also
    where a user's logging writes to a file.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Guarded):
            setattr(sys, name, _Guarded(stream))
    if logging.getLogRecordFactory() is logging.LogRecord:
        logging.setLogRecordFactory(_Redacted)


class _Redacted(logging.LogRecord):
    """A log record whose words and traceback are redacted, whatever writes them."""

    def getMessage(self) -> str:  # noqa: N802 -- logging's name
        """The message, without secrets."""
        self._redact_traceback()
        return redact(super().getMessage())

    def _redact_traceback(self) -> None:
        if self.exc_info and not self.exc_text:
            self.exc_text = redact(logging.Formatter().formatException(self.exc_info))


class _OwnLog(logging.Filter):
    """Our own log in a process whose logging is somebody else's, such as a notebook's."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it pass, without secrets."""
        if not isinstance(record, _Redacted):
            record.msg, record.args = redact(record.getMessage()), ()
            if record.exc_info and not record.exc_text:
                record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return True


logging.getLogger("llmexp").addFilter(_OwnLog())


# --- what a terminal shows -------------------------------------------------------------------------------------------

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """A text from outside as it may be shown: control characters and changes of direction as escapes, not as acts."""
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def foreign(text: str) -> str:
    """A text from outside, fit for files and terminals: without secrets, without control characters."""
    return printable(redact(text))


def trimmed(text: str, limit: int) -> str:
    """The beginning of a text from outside. Secrets go first: half of one, cut at the limit, would not be known."""
    clean = redact(text)
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"
