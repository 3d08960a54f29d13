r"""The letter of a multiple-choice answer: `B`, `(B)`, `B) Paris`, `**B.**`, `The answer is B.`, `\boxed{B}`.

Looked for in this order, and the last of a kind counts: a box; a whole answer that is a letter; a statement ("the
answer is", "Answer:"); a line that begins with a letter and a mark; a capital that stands alone.
"""

from __future__ import annotations

import re

from llmexp.quality.texts import boxed, unmarked

_LONE = re.compile(r"\W*(?:option|choice|answer)?\W*([A-Za-z])\W*", re.IGNORECASE)
_STATED = re.compile(
    r"""(?:answer|choice|option|select|pick|choose|correct)\b     # a word of choosing
        (?:\s+(?:is|would\s+be|should\s+be|must\s+be|was|option|choice|letter|the|correct|answer))*
        \s*[:=\-–]?\s*
        (?:option\s+|choice\s+|letter\s+)?
        [(\["']?(?P<letter>[A-Z])(?:[)\]"'.,:;!]|\s*$|\s+(?![a-z])|(?=\s+(?:because|since|as|is|which|for|-)\b))""",
    re.VERBOSE | re.MULTILINE,
)
_STATED_SMALL = re.compile(r"(?:answer|choice|option)(?:\s+is)?\s*:?\s*[(\[]?([a-z])(?:[)\].]|\s*$)", re.MULTILINE)
_JUDGED = re.compile(r"(?<![\w'’])\(?([A-Z])\)?\s+is\s+(?:the\s+)?(?:correct|right|best|answer)\b")
_LINE = re.compile(r"^\s*(?:\(([A-Za-z])\)|\[([A-Za-z])\]|([A-Z])[).:,](?=\s|$))", re.MULTILINE)
_ALONE = re.compile(r"(?<![\w'’])(?<!not )(?<!Not )([A-HJ-Z])(?![\w'’])(?!\s+[a-z])")
_DECORATED = re.compile(r"\(([A-Za-z])\)")


def letter_of(text: str) -> str | None:
    """The chosen letter as a capital; None where there is none."""
    inside = boxed(text)
    if inside is not None and (found := _LONE.fullmatch(unmarked(inside))):
        return found.group(1).upper()
    text = unmarked(text).replace("*", "").strip()
    if found := _LONE.fullmatch(text):
        return found.group(1).upper()
    return _stated(text) or _first_line(text) or _standing(text)


def _stated(text: str) -> str | None:
    text = _lowered(text)
    last = [found.group("letter") for found in _STATED.finditer(text)]
    others = (found.group(1) for pattern in (_STATED_SMALL, _JUDGED) for found in pattern.finditer(text))
    return (last or list(others) or [""])[-1].upper() or None


def _lowered(text: str) -> str:
    """Words in lower case, single letters as they are."""
    return re.sub(r"[A-Za-z]{2,}", lambda word: word.group().lower(), text)


def _first_line(text: str) -> str | None:
    """A letter with its mark at the head of the answer, or of its last line."""
    lines = [line for line in text.splitlines() if line.strip()]
    for line in (lines[0], lines[-1]) if lines else ():
        if found := _LINE.match(line):
            return next(letter for letter in found.groups() if letter).upper()
    return None


def _standing(text: str) -> str | None:
    decorated, alone = _DECORATED.findall(text), _ALONE.findall(text)
    return (decorated or alone or [""])[-1].upper() or None
