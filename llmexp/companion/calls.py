"""Which tools an answer called: out of what its tool events carried, the same for every wire.

A wire streams a call's name and then its arguments in pieces. An event says where a call begins; where none does, a
name followed by a JSON object is a call, and what comes after that the next one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from llmexp.clients.base import TokenEvent

Call = dict[str, str]


def calls_of(events: Iterable[TokenEvent]) -> list[Call]:
    """The calls of an answer: name and arguments of each."""
    pieces: list[str] = []
    for event in events:
        if event.kind != "tool":
            continue
        if event.call or not pieces:
            pieces.append("")
        pieces[-1] += event.text
    return [call for piece in pieces for call in _cut(piece)]


def _cut(text: str) -> Iterator[Call]:
    decoder = json.JSONDecoder()
    while text:
        name, brace, _ = text.partition("{")
        if not brace:
            break
        try:
            _, end = decoder.raw_decode(text, len(name))
        except (ValueError, RecursionError):  # the limit cut it, or the model wrote no JSON
            yield {"name": name.strip(), "arguments": text[len(name) :]}
            return
        yield {"name": name.strip(), "arguments": text[len(name) : end]}
        text = text[end:]
    if text.strip():
        yield {"name": text.strip(), "arguments": ""}
