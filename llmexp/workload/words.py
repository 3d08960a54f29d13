"""The simulator's tokens: a rule that anyone can apply, and texts of a known number of them."""

from __future__ import annotations

import re
from functools import lru_cache

_TOKEN = re.compile(r"\s*(?:[^\W_]{1,6}|\S)")
_MESSAGE_TOKENS, _TEMPLATE_TOKENS = 4, 3
_POOL = """
amber basin cedar delta ember fjord glade haven inlet jetty kelp ledge maple north opal pine quartz ridge
stone tide upland vale willow xylem yarrow zenith anchor bridge canal dune east ferry grove hill island jade
knoll lagoon meadow nest orchid pebble quay river shore tunnel umber valley west yonder arch brook cliff drift
elm field gull heath ivory juniper kiln lark marsh
"""
_TEXTS = [f" {word[:6]}" for word in _POOL.split()]
VOCABULARY = len(_TEXTS)


def count(text: str) -> int:
    """How many tokens `text` has."""
    return len(_TOKEN.findall(text))


def pieces(text: str) -> list[str]:
    """The tokens of `text`."""
    return _TOKEN.findall(text)


def templated(texts: list[str]) -> int:
    """Tokens of chat messages with these texts, template included."""
    return sum(map(count, texts)) + _MESSAGE_TOKENS * len(texts) + _TEMPLATE_TOKENS


@lru_cache(maxsize=4096)
def text(start: int, tokens: int) -> bytes:
    """Text of exactly `tokens` tokens, plain letters and spaces, from the vocabulary's word `start` on."""
    return "".join(_TEXTS[(start + at) % VOCABULARY] for at in range(tokens)).encode()
