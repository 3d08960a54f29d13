r"""Texts as a person reads them: without what is only formatting.

| rule | takes away |
| --- | --- |
| `unmarked` | markdown's bold, italics, code marks and headings; LaTeX's `$`, `\text{}`, thin spaces |
| `plain` | also letter case, kinds of quotes and dashes, repeated white space, quotes around, a full stop at the end |
| `boxed` | finds what stands in the last `\boxed{}` |
"""

from __future__ import annotations

import re
import unicodedata

_SAME = str.maketrans({"“": '"', "”": '"', "„": '"', "’": "'", "‘": "'", "`": "'", "–": "-", "—": "-", "−": "-"})
_FENCE = re.compile(r"\A\s*```[\w+-]*[ \t]*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)
_LATEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mathsf|operatorname)\s*\{([^{}]*)\}")
_LATEX_SPACE = re.compile(r"\\[,;:!]|\\\s|~")
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,3}|_{2,3})(?=\S)(.{1,1000}?)(?<=\S)\1(?![\w*])", re.DOTALL)
_ITALIC = re.compile(r"(?<!\w)_(?=\S)(.{1,1000}?)(?<=\S)_(?!\w)")
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s+(?=\D)", re.MULTILINE)
_WHOLE_LATEX = re.compile(r"\A\s*(\${1,2})(?!\d)([^$]+)\1\s*\Z")
_UNSEEN = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))
_NO_SPACES = r"\u0e00-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
UNSPACED = re.compile(f"[{_NO_SPACES}]")
"""Scripts that write words without spaces between them, or endings behind them."""
WORD = re.compile(rf"[{_NO_SPACES}]|(?:(?![{_NO_SPACES}])[^\W_])+")
"""A word, or a character where words cannot be told apart."""
_STARTS = " \"'*「『«"
_ENDS = " \t\r\n\"'.,;:!?*_。、」』»"


_THOUGHTS = re.compile(r"<(think|thinking|reasoning)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_THOUGHTS_END = re.compile(r"\A.*</(?:think|thinking|reasoning)>", re.DOTALL | re.IGNORECASE)


def without_thoughts(text: str) -> str:
    """An answer without thoughts that a server left in it: `<think>…</think>`, opened by the prompt or cut off."""
    return _THOUGHTS_END.sub("", _THOUGHTS.sub("", text))


def unfenced(text: str) -> str:
    """The inside of a text that is one code fence as a whole; else the text."""
    found = _FENCE.match(text)
    return found.group(1) if found else text


def unmarked(text: str) -> str:
    """The text without markdown's and LaTeX's marks; words and numbers stay."""
    text = _LATEX_TEXT.sub(r"\1", unfenced(text))
    text = text.replace("{,}", ",").replace(r"\$", "$").replace(r"\%", "%")
    text = text.replace(r"\(", " ").replace(r"\)", " ").replace(r"\[", " ").replace(r"\]", " ")
    text = _LATEX_SPACE.sub(" ", text)
    text = _HEADING.sub("", text)
    for pattern, group in ((_EMPHASIS, r"\2"), (_EMPHASIS, r"\2"), (_ITALIC, r"\1")):
        text = pattern.sub(group, text)
    return text.replace("`", "")


def plain(text: str) -> str:
    """What two texts that mean the same letter by letter have in common; of a text of marks alone, the marks."""
    bare = _WHOLE_LATEX.sub(r"\2", unmarked(text).translate(_UNSEEN))
    bare = " ".join(unicodedata.normalize("NFKC", bare).translate(_SAME).casefold().split())
    return bare.lstrip(_STARTS).rstrip(_ENDS) or bare or text


def wordless(text: str) -> bool:
    """Whether a text holds no letter and no digit: dots, dashes, white space."""
    return not any(letter.isalnum() for letter in text)


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}`, inner braces included; None where there is none."""
    at = text.rfind(r"\boxed")
    if at < 0:
        return None
    start = text.find("{", at)
    if start < 0 or text[at + 6 : start].strip():
        return None
    depth = 0
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[start + 1 : place]
    return None
