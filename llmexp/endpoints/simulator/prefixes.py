"""A prompt cache as servers keep one: what prompts began with is known when another begins alike."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b

BLOCK_TOKENS = 16
_PIECE = 128
"""Characters hashed at once."""
_KEPT = 200_000
"""Pieces remembered; the longest unused go first."""
_PROMPT = ("tools", "toolConfig", "system", "systemInstruction", "messages", "contents", "prompt", "inputs")
_MARKED = {"anthropic": b'"cache_control"', "bedrock": b'"cachePoint"'}
"""Wires whose servers cache only what is marked, and the mark."""


class Prefixes:
    """Remembers the beginnings of prompts."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def cached(self, wire: str, raw: bytes, body: Mapping[str, object], tokens: int) -> int:
        """How many of a prompt's tokens are known, in whole blocks; the rest is from now on."""
        mark = _MARKED.get(wire)
        if mark is not None and mark not in raw:
            return 0
        text = "".join(json.dumps(body[name], separators=(",", ":")) for name in _PROMPT if name in body)
        state, known, going = b"", 0, True
        for start in range(0, len(text), _PIECE):
            state = blake2b(text[start : start + _PIECE].encode(), key=state, digest_size=16).digest()
            going = going and state in self._seen
            known += _PIECE if going else 0
            self._seen[state] = None
            self._seen.move_to_end(state)
        while len(self._seen) > _KEPT:
            self._seen.popitem(last=False)
        share = min(1.0, known / max(1, len(text)))
        return max(0, min(int(share * tokens), tokens - 1)) // BLOCK_TOKENS * BLOCK_TOKENS
