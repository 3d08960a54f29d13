"""Choices of rows that hold a right answer and wrong ones apart, lettered in an order that does not give it away.

| layout | right | wrong |
| --- | --- | --- |
| GPQA-, SciQ-like | `correct_answer` | `incorrect_answer_1`, …; `distractor1`, … |
| TruthfulQA's `mc1_targets` | the choice whose label is 1, always the first in the file | the others |

The order depends on the question's and the choices' words alone, so that it is the same for every stack and run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from string import ascii_uppercase
from typing import NamedTuple

from llmexp.workload.tables import column, is_empty, normal

_WRONG = re.compile(r"(?:incorrectanswer|wronganswer|distractor)\d+")
_QUESTION = ("question", "problem", "prompt")


class Drawn(NamedTuple):
    """Lettered choices, and the letter of the right one."""

    choices: dict[str, str]
    right: str


def drawn(record: Mapping[str, object]) -> Drawn | None:
    """The row's choices in an order of their own; None where it holds none apart."""
    found = _targets(record) or _columns(record)
    if found is None or len(found[1]) > len(ascii_uppercase) - 1:
        return None
    right, wrong = found
    question = str(column(record, _QUESTION))
    texts = sorted({right, *wrong}, key=lambda text: blake2b(f"{question}\n{text}".encode(errors="replace")).digest())
    choices = dict(zip(ascii_uppercase, texts, strict=False))
    return Drawn(choices, next(letter for letter, text in choices.items() if text == right))


def _targets(record: Mapping[str, object]) -> tuple[str, list[str]] | None:
    targets = column(record, ("mc1targets",))
    if not isinstance(targets, Mapping):
        return None
    choices, labels = targets.get("choices"), targets.get("labels")
    if not (isinstance(choices, list) and isinstance(labels, list)) or len(choices) != len(labels):
        return None
    if labels.count(1) != 1 or len(choices) < 2:
        return None
    right = labels.index(1)
    return str(choices[right]), [str(choice) for at, choice in enumerate(choices) if at != right]


def _columns(record: Mapping[str, object]) -> tuple[str, list[str]] | None:
    right = column(record, ("correctanswer",))
    wrong = [
        str(value) for name, value in record.items() if _WRONG.fullmatch(normal(str(name))) and not is_empty(value)
    ]
    return (right, wrong) if isinstance(right, str) and wrong else None
