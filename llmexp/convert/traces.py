"""Rows of traces for `workload=file`: arrival times and lengths, and for Mooncake the blocks that prompts share.

| format | a row | version looked at |
| --- | --- | --- |
| `mooncake` | `{"timestamp": ms, "input_length", "output_length", "hash_ids": […]}` | the traces of the FAST'25 paper |
| `azure` | `TIMESTAMP,ContextTokens,GeneratedTokens` | AzureLLMInferenceTrace of 2023 and of 2024 |
| `burstgpt` | `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type` | BurstGPT 1.1 to 2.0 |
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import shake_128

from llmexp.convert.exchange import Unusable
from llmexp.workload.rows import LONGEST_PROMPT, column
from llmexp.workload.text import nonce_words

BLOCK_TOKENS = 512
"""Tokens of a Mooncake block."""
_INPUT = ("inputlength", "contexttokens", "requesttokens", "inputtokens", "prompttokens")
_OUTPUT = ("outputlength", "generatedtokens", "responsetokens", "outputtokens", "completiontokens")
_TIME = ("timestamp", "time", "arrivaltime")
_FRACTION = re.compile(r"(\.\d{6})\d+")

_LATEST = 1e14
"""No time, in any unit: a sum of such numbers would have no fractions left."""

Row = dict[str, object]


class Traces:
    """Turns one trace's records into rows, one after the other; times count from the first."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._first_s: float | None = None
        self._last_s = 0.0

    def row(self, record: Mapping[str, object]) -> Row:
        """The row of a record; raises `Unusable`."""
        asked, answered = _count(record, _INPUT, "input"), _count(record, _OUTPUT, "output")
        if answered == 0:
            raise Unusable("no output tokens: the request failed")
        if asked == 0:
            raise Unusable("no input tokens")
        row: Row = {"timestamp": self._seconds(record)}
        blocks = record.get("hash_ids") if self._kind == "mooncake" else None
        if self._kind == "mooncake":
            if not isinstance(blocks, list) or not all(isinstance(one, int) and one >= 0 for one in blocks):
                raise Unusable("hash_ids must be a list of whole numbers")
            row |= {"prompt": prompt_of(blocks, asked, record), "input_length": asked}
        else:
            row["input_tokens"] = asked
        return row | {"output_tokens": answered, "nonce": "job"}

    def _seconds(self, record: Mapping[str, object]) -> float:
        written = column(record, _TIME)
        at = _time(written)
        if at is None:
            raise Unusable("no timestamp" if written is None else f"'{written}' is no time")
        if self._kind == "mooncake":
            at /= 1000
        if self._first_s is None:
            self._first_s = at
        seconds = round(at - self._first_s, 6)
        if seconds < self._last_s:
            raise Unusable("its time goes back; sort the trace by its times")
        self._last_s = seconds
        return seconds


def _count(record: Mapping[str, object], names: tuple[str, ...], what: str) -> int:
    value = column(record, names)
    try:
        figure = max(0, int(float(str(value))))
    except (ValueError, OverflowError):
        raise Unusable(f"no number of {what} tokens") from None
    if figure > LONGEST_PROMPT:
        raise Unusable(f"more {what} tokens than any model knows")
    return figure


def _time(written: object) -> float | None:
    """Seconds: a number, or a date and time (UTC where no zone is given)."""
    try:
        number = float(str(written))
    except ValueError:
        pass
    else:
        return number if abs(number) < _LATEST else None
    try:
        moment = datetime.fromisoformat(_FRACTION.sub(r"\1", str(written)))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def prompt_of(blocks: list[int], tokens: int, record: Mapping[str, object]) -> str:
    """A prompt of so many tokens: the text of each block, the same wherever the block stands.

    The last block is often a part of one: its text is cut. What the blocks leave is the row's own.
    """
    words: list[str] = []
    for block in blocks:
        words += _block(block)
        if len(words) >= tokens:
            break
    if len(words) < tokens:
        words += _drawn(f"row/{sorted(record.items(), key=str)}".encode(), tokens - len(words))
    return " ".join(words[:tokens])


@lru_cache(maxsize=16384)
def _block(number: int) -> tuple[str, ...]:
    """A block's words. The first ones spell its number, so that no two blocks begin alike."""
    words, left = nonce_words(), number
    spelt: list[str] = []
    while left or not spelt:
        left, digit = divmod(left, len(words))
        spelt.append(words[digit])
    return (*spelt, *_drawn(f"block/{number}".encode(), BLOCK_TOKENS - len(spelt)))


def _drawn(seed: bytes, count: int) -> Iterator[str]:
    words = nonce_words()
    return (words[number % len(words)] for number in struct.unpack(f"<{count}H", shake_128(seed).digest(2 * count)))
