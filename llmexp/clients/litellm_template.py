"""Fills LiteLLM's own requests without LiteLLM.

LiteLLM takes 5 to 10 ms for a request whose only news are its texts and its token limit. `learn` compares two requests
that it made from known texts and limits, finds where these landed, and proves the find on the second; what it
cannot prove gets no template. Pure: no LiteLLM, no I/O.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

from llmexp.clients.base import HttpRequest
from llmexp.workload.request import Message, Request

LIMIT = -1
_LIMITS = (1237, 2411)


@dataclass(frozen=True, slots=True)
class Template:
    """A finished request with holes; a hole is the index of a message, or `LIMIT`."""

    http: HttpRequest
    texts: tuple[bytes, ...]
    """Fixed bytes; one more than there are holes."""
    holes: tuple[int, ...]
    ascii_only: bool

    def fill(self, request: Request) -> HttpRequest:
        """What LiteLLM would send for this request."""
        values = [_inner(message.text, self.ascii_only) for message in request.messages]
        values.append(str(request.max_tokens).encode())
        parts = [self.texts[0]]
        for hole, text in zip(self.holes, self.texts[1:], strict=True):
            parts += (values[hole], text)
        return replace(self.http, body=b"".join(parts))


def probes(request: Request) -> tuple[Request, Request]:
    """Two requests of the same shape with texts and limits that are easy to find again."""
    return _probe(request, 0), _probe(request, 1)


def learn(asked: tuple[Request, Request], made: tuple[HttpRequest, HttpRequest]) -> Template | None:
    """The template behind two requests, or None where they differ in more than their texts and limits."""
    template = _cut(asked[0], made[0])
    return template if template is not None and template.fill(asked[1]) == made[1] else None


def same(one: HttpRequest, other: HttpRequest) -> bool:
    """Equal but for the way JSON was written."""
    return replace(one, body=b"") == replace(other, body=b"") and _parsed(one.body) == _parsed(other.body)


def fits(request: Request) -> bool:
    """False for texts that an SDK might trim or refuse; those go the long way."""
    texts = [message.text for message in request.messages]
    return all(text and text == text.strip() for text in texts)


def _probe(request: Request, which: int) -> Request:
    messages = tuple(
        Message(role=message.role, content=f"Prübe {which} of message {at} ends here.")
        for at, message in enumerate(request.messages)
    )
    return replace(request, messages=messages, max_tokens=_LIMITS[which])


def _cut(asked: Request, made: HttpRequest) -> Template | None:
    ascii_only = b"Pr\\u00fcbe" in made.body
    texts = [_inner(message.text, ascii_only) for message in asked.messages]
    if not all(text in made.body for text in texts):
        return None
    limit = rb"(?<![\w.\-])" + str(asked.max_tokens).encode() + rb"(?![\w.\-])"
    pattern = re.compile(b"|".join([*(re.escape(text) for text in texts), limit]))
    found = list(pattern.finditer(made.body))
    holes = tuple(texts.index(match[0]) if match[0] in texts else LIMIT for match in found)
    edges = [0, *(edge for match in found for edge in match.span()), len(made.body)]
    fixed = tuple(made.body[edges[at] : edges[at + 1]] for at in range(0, len(edges), 2))
    return Template(replace(made, body=b""), fixed, holes, ascii_only)


def _inner(text: str, ascii_only: bool) -> bytes:
    """The text as it stands between the quotes of a JSON string."""
    return json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode("utf-8", "surrogatepass")


def _parsed(body: bytes) -> object:
    try:
        parsed: object = json.loads(body)
    except ValueError:
        return body
    return parsed


def shape(request: Request) -> tuple[object, ...]:
    """What two requests must share to share a template."""
    return (request.force_output, *(message.role for message in request.messages))


__all__ = ["Template", "fits", "learn", "probes", "same", "shape"]
