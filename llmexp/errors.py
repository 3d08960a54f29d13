"""What can go wrong outside a measurement, and the exit status each becomes.

    LlmexpError
    ├── ConfigError        a config value or the environment is wrong     exit 2, nothing sent
    │   └── ResultError    files that hold no job of ours, or half of one
    ├── JobError           one job could not be measured                  exit 1, other jobs go on
    └── RecordingError     measured, but the tracking store refused it    exit 4, files complete

A failed *request* is none of these: it is data (see `llmexp.records`).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import NoReturn

from llmexp.secrets import redact

OK, FAILED, WRONG, MISSED, UNRECORDED, INTERRUPTED = 0, 1, 2, 3, 4, 130
_SEVERITY = (INTERRUPTED, WRONG, FAILED, MISSED, UNRECORDED, OK)


class LlmexpError(Exception):
    """Base of all errors that reach a user as one message without a traceback; it never shows a secret."""

    exit_status = FAILED

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(message))


class ConfigError(LlmexpError):
    """A config key or the environment is wrong; the message names key, value and remedy."""

    exit_status = WRONG


class ResultError(ConfigError):
    """Files that were named hold no result of a job, or half of one; the message names the file."""


class JobError(LlmexpError):
    """A job could not be measured; the message says why."""


class RecordingError(LlmexpError):
    """The numbers are in files, but the tracking store did not take them."""

    exit_status = UNRECORDED


def is_interrupt(error: BaseException | None) -> bool:
    """Whether an exception is what a library made of Ctrl-C that reached it at an unlucky moment."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__context__ or error.__cause__
    return False


def worst(statuses: Iterable[int]) -> int:
    """The exit status of several outcomes: 130, 2, 1, 3, 4, in that order, else 0."""
    return min(statuses, key=_SEVERITY.index, default=OK)


# --- what this process has to say at its end: one exit status from all that happened

_statuses: list[int] = []


def report(status: int) -> None:
    """Add the status of a job, a sweep or a check."""
    _statuses.append(status)


def reported() -> bool:
    """Whether anything was reported, that is, whether composing succeeded and our own code ran."""
    return bool(_statuses)


_at_once = False


def leave_at_once() -> None:
    """Have `leave` skip the farewells of libraries: one of them would wait for parts that are half there, or crash."""
    global _at_once  # noqa: PLW0603 -- a process ends once
    _at_once = True


def leave(status: int) -> NoReturn:
    """End this process."""
    if _at_once:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


def final() -> int:
    """The exit status of all that was reported."""
    return worst(_statuses)
