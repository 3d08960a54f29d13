"""A key of answers: which text is right for which question, for an endpoint that plays a model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b

from llmexp.workload.request import Request

_NONCE = re.compile(r"\A(?:[a-z]+ ){3}[a-z]+\.\s*")


def bare_digest(question: str) -> str:
    """Identifies a question, whatever nonce stands before it."""
    return blake2b(_NONCE.sub("", question).strip().encode(), digest_size=8).hexdigest()


def key_of(requests: Iterable[Request]) -> dict[str, str]:
    """Question's digest → a right answer, of the requests that say what is expected."""
    return {
        bare_digest(request.messages[-1].text): text
        for request in requests
        if (text := right_text(request.expected)) is not None
    }


def right_text(expected: object) -> str | None:
    """A text that answers rightly: the first of a list, what stands behind `####`, an object as JSON."""
    if isinstance(expected, list | tuple):
        return right_text(expected[0]) if expected else None
    if isinstance(expected, str):
        return expected.rpartition("####")[2].strip()
    if isinstance(expected, Mapping | bool):
        return json.dumps(expected, ensure_ascii=False)
    return None if expected is None else str(expected)
