"""What holds a credential, by its name: keys, headers, options, variables, and parts of a URL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from urllib.parse import parse_qsl, urlsplit


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


_SCHEME = r"[A-Za-z][\w+.-]{0,30}://"
"""No longer than any scheme is: what looks for one goes once through a text, whoever wrote it."""
_RUN = re.compile(r"[^\s'\"<>|]+")
_BEFORE_PASSWORD = re.compile(rf"{_SCHEME}[^\s:/@'\"<>]*:(?!\d{{1,5}}(?:[/?#,;)\]}}]|$))")
"""A port is no password."""
_URL = re.compile(rf"{_SCHEME}(?:(?!,{_SCHEME})[^\s'\"<>])+")
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
    for start, end in passwords_in_urls(text):
        yield "a password", text[start:end]


def passwords_in_urls(text: str) -> Iterator[tuple[int, int]]:
    """Where the passwords in the URLs of a text begin and end; also of those with a slash or an @ in them, which should
    have been written in URL form.
    """
    if "://" not in text or "@" not in text:
        return
    for run in _RUN.finditer(text):
        end = run[0].rfind("@")
        found = _BEFORE_PASSWORD.search(run[0]) if end > 0 else None
        if found is not None and found.end() < end:
            yield run.start() + found.end(), run.start() + end
