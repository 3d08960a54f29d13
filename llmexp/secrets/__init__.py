"""Secrets: what is one, by its name; which ones this process knows, by their value; and the one funnel for texts.

Every text that comes from outside (a server's error, an answer, a library's exception) and every text that leaves (to a
file, a terminal, a log, MLflow) passes `redact`, which replaces the values that are known: those of variables whose
names say what they are, passwords inside URLs, and what the code registers where it reads a key. A value is found as
it is, and as base64, URL encoding, JSON, HTML and others write it (`forms`).
"""

from llmexp.secrets.forms import SHORTEST
from llmexp.secrets.names import credentials_in_url, is_credential_name
from llmexp.secrets.streams import guard_streams
from llmexp.secrets.values import (
    LOOKED_AT,
    MASK,
    beginning,
    foreign,
    holds,
    is_path,
    learn,
    learn_words,
    printable,
    redact,
    redact_tree,
    register,
    trimmed,
)

__all__ = [
    "LOOKED_AT",
    "MASK",
    "SHORTEST",
    "beginning",
    "credentials_in_url",
    "foreign",
    "guard_streams",
    "holds",
    "is_credential_name",
    "is_path",
    "learn",
    "learn_words",
    "printable",
    "redact",
    "redact_tree",
    "register",
    "trimmed",
]
