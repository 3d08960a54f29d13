"""What is graded, and what a grade is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmexp import secrets
from llmexp.records import GradeStatus
from llmexp.workload.request import Request, ToolCall

NOTE_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Given:
    """One completed answer beside what was expected of it."""

    text: str
    """The answer without the model's reasoning."""
    expected: object = None
    """JSON as the workload's row holds it; None: nothing is expected."""
    tool_calls: tuple[ToolCall, ...] = ()
    question: str = ""
    request: Request | None = None
    """What was asked; only functions look at it."""

    @property
    def blank(self) -> bool:
        """Whether there is nothing that could be graded."""
        return not self.text.strip() and not self.tool_calls


@dataclass(frozen=True, slots=True)
class Grade:
    """What an answer is worth."""

    status: GradeStatus
    score: float | None = None
    """0 to 1; None where it is ungraded."""
    right: bool | None = None
    note: str | None = None
    """Why, in a few words: what was read, what was missed."""
    quotes: bool = False
    """Whether the note quotes the answer, so that it is kept as long as the answer is."""


Grader = Callable[[Given], Grade]


def graded(score: float, threshold: float, note: str | None = None, *, quotes: bool = False) -> Grade:
    """A grade; right from the threshold on."""
    return Grade("graded", score, score >= threshold, trimmed(note), quotes)


def unparsed(note: str) -> Grade:
    """An answer without anything to grade is wrong, and counted apart."""
    return Grade("unparsed", 0.0, False, trimmed(note))


def ungraded(note: str, *, quotes: bool = False) -> Grade:
    """No grade: it says nothing about the answer."""
    return Grade("ungraded", None, None, trimmed(note), quotes)


def trimmed(note: str | None) -> str | None:
    """A note on one line, at most `NOTE_LIMIT` characters, without secrets: a user's function may have raised it."""
    return None if note is None else secrets.trimmed(" ".join(secrets.foreign(note).split()), NOTE_LIMIT)
