"""Made-up texts in the place of real ones: as long, laid out alike, and sharing with each other what those shared.

A text is cut into lines and these into runs of a few words. A run becomes as many words as it has tokens, drawn by a
keyed hash over the text up to its end: two texts that begin alike still do, as far as they did before, and nothing can
be told from the words. The key is drawn for each conversion and kept nowhere; a seed makes it repeatable.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import blake2b, shake_128
from random import Random

from llmexp.workload.pictures import picture
from llmexp.workload.text import nonce_words

_RUN_WORDS = 6
_WORD = re.compile(r"\S+\s*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}")
_PIXELS = 512
_LARGEST_PIXELS = 8192


class MadeUp:
    """Replaces texts, JSON values and pictures."""

    def __init__(self, count: Callable[[str], int], seed: int | None = None) -> None:
        key = secrets.token_bytes(16) if seed is None else str(seed).encode()
        self._key = blake2b(key, digest_size=16).digest()
        self._count = lru_cache(maxsize=65536)(count)
        self.text = lru_cache(maxsize=4096)(self._text)

    def _text(self, real: str) -> str:
        """A made-up text in the place of this one."""
        state, lines = self._key, []
        for line in real.split("\n"):
            runs = _WORD.findall(line)
            made = []
            for at in range(0, len(runs), _RUN_WORDS):
                run = "".join(runs[at : at + _RUN_WORDS])
                state = blake2b(run.encode("utf-8", "surrogatepass"), key=state, digest_size=16).digest()
                counted = self._count(f" {run.strip()}" if at else run.strip())
                made.append(self._words(state, max(1, counted)))
            state = blake2b(b"\n", key=state, digest_size=16).digest()
            lines.append(" ".join(made))
        return "\n".join(lines)

    def _words(self, state: bytes, count: int) -> str:
        words = nonce_words()
        drawn = struct.unpack(f"<{count}H", shake_128(state).digest(2 * count))
        return " ".join(words[number % len(words)] for number in drawn)

    def name(self, real: str) -> str:
        """One made-up word in the place of a name."""
        return self._words(blake2b(real.encode("utf-8", "surrogatepass"), key=self._key).digest()[:16], 2).replace(
            " ", "_"
        )

    def json_text(self, real: str, keys: frozenset[str]) -> str:
        """JSON as text: its structure stays, and so do the keys in `keys`. Anything else is text."""
        try:
            tree = json.loads(real)
        except (ValueError, RecursionError):
            return self.text(real)
        if not isinstance(tree, dict | list):
            return self.text(real)
        return json.dumps(self.value(tree, keys), ensure_ascii=False)

    def value(self, real: object, keys: frozenset[str]) -> object:
        """A JSON value with everything replaced but its structure, `keys`, truth values and nulls."""
        if isinstance(real, str):
            return self.text(real)
        if isinstance(real, Mapping):
            return {
                (name if name in keys else self.name(str(name))): self.value(inner, keys)
                for name, inner in real.items()
            }
        if isinstance(real, list):
            return [self.value(inner, keys) for inner in real]
        if isinstance(real, bool) or real is None:
            return real
        return self._number(real)

    def _number(self, real: object) -> object:
        figure = int.from_bytes(shake_128(self._key + repr(real).encode()).digest(8), "big")
        if isinstance(real, int):
            length = len(str(abs(real)))
            return figure % 9 * 10 ** (length - 1) + 10 ** (length - 1) + figure // 9 % 10 ** (length - 1)
        return round(figure % 10**6 / 997, 3)

    def schema(self, real: object) -> object:
        """A JSON schema: types and names stay, what is written in it (descriptions, examples, choices) does not."""
        if isinstance(real, list):
            return [self.schema(inner) for inner in real]
        if not isinstance(real, Mapping):
            return real
        made: dict[str, object] = {}
        for name, inner in real.items():
            if name in ("description", "title", "$comment") and isinstance(inner, str):
                made[name] = self.text(inner)
            elif name in ("enum", "examples", "const", "default"):
                made[name] = self.value(inner, frozenset())
            else:
                made[name] = self.schema(inner)
        return made

    def image_url(self, real: str) -> str:
        """A made-up picture of the same size and form; of a common size where the real one lies elsewhere."""
        head, _, data = real.removeprefix("data:").partition(",")
        width, height = size_of(data) if real.startswith("data:") else (_PIXELS, _PIXELS)
        kind = "jpeg" if "jpeg" in head or "jpg" in head else "png"
        made = picture(Random(blake2b(real.encode(), key=self._key).digest()), width, height, kind)
        return f"data:image/{kind};base64,{base64.b64encode(made).decode()}"


def keys_of(schema: object) -> frozenset[str]:
    """The names of all properties that a JSON schema declares."""
    found: set[str] = set()
    if isinstance(schema, Mapping):
        properties = schema.get("properties")
        if isinstance(properties, Mapping):
            found |= {str(name) for name in properties}
        for inner in schema.values():
            found |= keys_of(inner)
    elif isinstance(schema, list):
        for inner in schema:
            found |= keys_of(inner)
    return frozenset(found)


def tool_name(real: str) -> bool:
    """Whether a tool's name may stay: a name, not a text."""
    return _NAME.fullmatch(real) is not None


def size_of(data: str) -> tuple[int, int]:
    """Width and height of a PNG, JPEG or GIF in base64, as far as they can be read."""
    try:
        raw = base64.b64decode(data[: 1 << 18])
    except ValueError:
        return _PIXELS, _PIXELS
    width = height = _PIXELS
    if raw.startswith(b"\x89PNG") and len(raw) >= 24:
        width, height = struct.unpack(">II", raw[16:24])
    elif raw.startswith(b"GIF8") and len(raw) >= 10:
        width, height = struct.unpack("<HH", raw[6:10])
    elif raw.startswith(b"\xff\xd8"):
        found = re.search(rb"\xff[\xc0\xc1\xc2]..\x08(..)(..)", raw, re.DOTALL)
        if found is not None:
            height, width = struct.unpack(">HH", found[1] + found[2])
    return min(max(1, width), _LARGEST_PIXELS), min(max(1, height), _LARGEST_PIXELS)
