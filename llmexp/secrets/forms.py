"""How texts write a secret: as it is, escaped, quoted, in URL form, as HTML, and in base64 at any offset.

Nobody knows which program wrote a text: Go's JSON escapes `&` by its number, PHP's puts a backslash before `/`, Python
shows bytes as hexadecimal digits, JavaScript leaves `!'()*` as they are in a URL, and any of them may have been wrapped
in another. So each character that somebody writes otherwise stands for all its spellings, however they are mixed.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

SHORTEST = 8
"""Characters of a value that is looked for: a shorter one would be found in innocent words."""
LONGEST_ESCAPE = 8
"""Backslashes before a character: JSON in JSON in JSON has seven."""
_ESCAPES = rf"\\{{0,{LONGEST_ESCAPE}}}"
_SLASHES = rf"\\{{1,{LONGEST_ESCAPE}}}"
_PERCENT = "%(?:25)*"
_AMPERSAND = rf"(?:&|{_SLASHES}u0026)(?:amp;)*"
_PARTS = re.compile(r"\\+|\s+|.", re.DOTALL)
_SPACE = (
    rf"(?:{_ESCAPES}\s|{_SLASHES}(?:[nrtf]|u00(?:20|0[9a-dA-D]))|{_PERCENT}(?:20|0[9a-dA-D])|\+|"
    rf"{_AMPERSAND}(?:nbsp|#0*(?:9|10|13|32)|#[xX]0*(?:9|[aAdD]|20));){{1,200}}"
)
"""White space between two words, as much as it was before or not: lines are folded, and messages put on one line."""
_SHORT = {"\b": "b"}
_NAMED = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}
_OTHERWISE = {
    "'": ("''", "'\"'\"'", r"'\\''"),  # YAML and SQL; a shell
    '"': ('""',),  # CSV
    "&": (rf"{_AMPERSAND[:-1]}+",),
}


def pattern(values: Iterable[str]) -> re.Pattern[str]:
    """What finds each of the values in any of its forms: the longest first, so that none leaves a rest of another."""
    longest_first = sorted(values, key=lambda value: (-len(value), value))
    by_first: dict[str, list[str]] = {}
    for value in longest_first:
        for form in _patterns(value):
            first = form[:1] if form[:1].isalnum() else ""
            by_first.setdefault(first, []).append(form[len(first) :])
    # One way on from each letter: most letters of a text are then passed over after one look.
    return re.compile("|".join(f"{first}(?:{'|'.join(ways)})" for first, ways in by_first.items()) or r"(?!)")


def _patterns(value: str) -> Iterator[str]:
    """Regular expressions that find a value in any of its forms."""
    core = value.strip()  # white space around it is no part that anybody could use
    if len(core) < SHORTEST:
        yield re.escape(value)
        return
    yield "".join(map(_piece, _PARTS.findall(core))).removeprefix(_ESCAPES)  # what stands before it may stay
    for core in _cores(_bytes(value)):
        yield "".join(_IN_BASE64.get(letter, letter) for letter in core)


def _piece(part: str) -> str:
    """A character, or a run of backslashes or of white space, which is one piece: two could share it in many ways."""
    if part[0] == "\\":
        return _backslashes(len(part))
    return _SPACE if part.isspace() else _spelled(part)


def _bytes(value: str) -> bytes:
    """The value's bytes, also where the environment holds some that are no UTF-8."""
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass")


@lru_cache(maxsize=4096)
def _spelled(character: str) -> str:
    """All spellings of a character; letters and digits of ASCII have one."""
    if character.isascii() and character.isalnum():
        return character
    ways = "|".join([*_OTHERWISE.get(character, ()), *_codes(character), re.escape(character)])
    return f"{_ESCAPES}(?:{ways})"


def _backslashes(count: int) -> str:
    """So many of them, each of which may be escaped."""
    ways = [f"(?:{code}){{{count}}}" for code in _codes("\\")]
    return f"(?:{'|'.join(ways)}|" + rf"\\{{{count},{LONGEST_ESCAPE * count}}})"


def _codes(character: str) -> Iterator[str]:
    """Escapes that name a character by its number or its name."""
    raw, point = _bytes(character), ord(character)
    yield "".join(_PERCENT + _hex(f"{byte:02x}") for byte in raw)
    if character in _SHORT:
        yield _SLASHES + _SHORT[character]
    pairs = character.encode("utf-16-be", "surrogatepass").hex()
    yield "".join(f"{_SLASHES}u{_hex(pairs[at : at + 4])}" for at in range(0, len(pairs), 4))
    yield f"{_SLASHES}U{_hex(f'{point:08x}')}"
    yield "".join(f"{_SLASHES}x{_hex(f'{byte:02x}')}" for byte in raw)
    if 0x80 <= point < 0x100:
        yield f"{_SLASHES}x{_hex(f'{point:02x}')}"
    yield f"{_AMPERSAND}#0*{point};"
    yield f"{_AMPERSAND}#[xX]0*{_hex(f'{point:x}')};"
    if character in _NAMED:
        yield f"{_AMPERSAND}{_NAMED[character]};"


def _hex(digits: str) -> str:
    """Digits in either case."""
    return "".join(digit if digit.isdecimal() else f"[{digit}{digit.upper()}]" for digit in digits)


_IN_BASE64 = {"+": f"(?:-|{_spelled('+')})", "/": f"(?:_|{_spelled('/')})"}
"""Both alphabets; the standard one's signs are themselves escaped in JSON and in URLs."""


def _cores(raw: bytes) -> Iterator[str]:
    """What base64 makes of the bytes at each of the three places they can begin at, without the letters on either side
    that their neighbours decide too.
    """
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + raw).decode()
        yield text[-(-8 * shift // 6) : (8 * (shift + len(raw))) // 6]


_END_OF_LINE = r"(?:\r?\n|\\r\\n|\\n)[ \t]*"
_LETTER = "[A-Za-z0-9+/_=-]"
_WRAPPED = re.compile(rf"(?<!{_LETTER})(?:{_LETTER}{{40,}}{_END_OF_LINE})+{_LETTER}+")
_BREAKS = re.compile(_END_OF_LINE)


def unwrapped(text: str, pattern: re.Pattern[str], mask: str) -> str:
    """The text with those blocks of base64 on one line, without the value, whose lines hid one from the pattern."""
    if "\n" not in text and "\\n" not in text:
        return text

    def cleaned(found: re.Match[str]) -> str:
        whole = _BREAKS.sub("", found[0])
        clean = pattern.sub(mask, whole)
        return found[0] if clean == whole else clean

    return _WRAPPED.sub(cleaned, text)
