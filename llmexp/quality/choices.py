r"""The letter of a multiple-choice answer: `B`, `(B)`, `B) Paris`, `**B.**`, `The answer is B.`, `\boxed{B}`.

Looked for in this order, and the last of a kind counts: a box; a whole answer, or a first line, that is a letter; a
statement ("the answer is", "Answer:"); a line that begins with a letter and a mark; a capital that stands alone. "A or
B" and "A and B" choose neither, and "not B" does not choose B. An answer without a letter may still name one of the
choices in the question's own words.
"""

from __future__ import annotations

import re
from unicodedata import normalize

from llmexp.quality.texts import boxed, plain, unmarked

_LONE = re.compile(r"(?:(?:option|choice|answer)\s?)?([A-Za-z])", re.IGNORECASE)
_MARKS = re.compile(r"[\W_]+")
_STATED = re.compile(
    r"""(?:answer|choice|option|select|pick|choose|correct)\b     # a word of choosing
        (?:\s+(?:is|would\s+be|should\s+be|must\s+be|was|option|choice|letter|the|correct|answer)){0,6}
        \s*[:=\-–]?\s*
        (?:option\s+|choice\s+|letter\s+)?
        [(\["']?(?P<letter>[A-Z])(?:[)\]"'.,:;!]|\s*$|\s+(?![a-z])|(?=\s+(?:because|since|as|is|which|for|-)\b)
          |(?<=[B-HJ-Z])(?=\s))""",
    re.VERBOSE | re.MULTILINE,
)
_STATED_SMALL = re.compile(
    r"(?:answer|choice|option)(?:\s+(?:is|would\s+be|should\s+be|must\s+be|option|choice|letter)){0,3}"
    r"\s*[:=]?\s*[(\[]?([a-z])(?:[)\].]|\s*$)",
    re.MULTILINE,
)
_JUDGED = re.compile(r"(?<![\w'’])\(?([A-Zb-hj-z])\)?\s+is\s+(?:the\s+)?(?:correct|right|best|answer)\b")
_LINE = re.compile(
    r"^\s*(?:\(([A-Za-z])\)|\[([A-Za-z])\]|([A-Z])[).:,](?=\s|$)|([a-z])\)(?=\s|$)|([A-Z])\s+(?:because|since)\b)"
)
_LETTER = r"(?<![A-Za-zÀ-ɏ0-9_'’])([{letters}])(?![A-Za-zÀ-ɏ0-9_'’]|-\w)"
_ALONE = re.compile(_LETTER.format(letters="A-HJ-Z") + r"(?!\s+[a-z])")
_NO_WORD = re.compile(_LETTER.format(letters="B-HJ-Z"))
"""A and I are words as well."""
_IS_SMALL = re.compile(r"\b(?:is|it's|be|with|choose|pick|select|say)\s+\(?([b-hj-z])\)?\W*\Z", re.IGNORECASE)
_DECORATED = re.compile(r"\(([A-Za-z])\)")
_EITHER = re.compile(r"(?<![\w'’])\(?[A-Z]\)?(?:,\s?\(?[A-Z]\)?){0,9},?\s+or\s+\(?[A-Z]\)?(?![\w'’])")
_SEVERAL = re.compile(
    r"(?<![\w'’])\(?[A-Z]\)?(?:,\s?\(?[A-Z]\)?){0,9},?\s?(?:\b(?:and|nor)\b|[&/])\s?\(?[A-Z]\)?"
    r"(?=\s*(?:[.,;:!?]|$)|\s+(?:are|both|do|were)\b)",
    re.MULTILINE,
)
_LETTERS = re.compile(r"[^\w\n]*[A-Z](?:\s?,\s?[A-Z])+[^\w\n]*")
_REFUSED = re.compile(
    r"(?:\b[Nn](?:ot|either|or)|n['’]t|\bcannot)\s+(?:be\s+)?(?:(?:option|choice)\s+)?\(?[A-Z]\)?(?![\w'’])"
)
_REPLY = re.compile(r"(?:\A|\s)A:\s*\(?([A-Za-z])\)?[\W_]*\Z")
"""An answer as the examples of a prompt show it: `A: C`."""
_OFFERED = re.compile(r"^[ \t]*\(?([A-Z])[.):][ \t]*(\S.*)$", re.MULTILINE)


def letter_of(text: str) -> str | None:
    """The chosen letter as a capital; None where there is none."""
    text = normalize("NFKC", text)
    inside = boxed(text)
    text = unmarked(text).replace("*", "").strip()
    for whole in ("" if inside is None else unmarked(inside), text, text.partition("\n")[0]):
        if found := _LONE.fullmatch(_MARKS.sub(" ", whole).strip()) or _REPLY.search(whole):
            return found.group(1).upper()
        if _LETTERS.fullmatch(whole):
            return None
    for pattern in (_EITHER, _SEVERAL, _REFUSED):
        text = pattern.sub("…", text)
    return _stated(text) or _first_line(text) or _standing(text)


def choice_in(question: str, text: str) -> str | None:
    """The letter of the one choice of a question (`B. Paris`, a line each) whose words stand in a text."""
    said = f" {_worded(text)} "
    offered = {letter: f" {_worded(words)} " for letter, words in _OFFERED.findall(question)}
    named = [letter for letter, words in offered.items() if words.strip() and words in said]
    inside = {one for one in named for two in named if one != two and offered[one] in offered[two]}
    outer = [letter for letter in named if letter not in inside]
    return outer[0] if len(outer) == 1 else None


def _worded(text: str) -> str:
    return " ".join(re.findall(r"\w+", plain(text)))


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
    for pattern in (_DECORATED, _ALONE, _NO_WORD, _IS_SMALL):
        if found := pattern.findall(text):
            return str(found[-1]).upper()
    return None
