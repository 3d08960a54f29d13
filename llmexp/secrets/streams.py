"""The funnel before this process's streams and logs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TextIO, TypeAlias

from llmexp.secrets.values import learn_words, redact

Raised: TypeAlias = "tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]"


class _Guarded:
    """A stream whose every text is redacted on its way through; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text without secrets."""
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def guard_streams() -> None:
    """Put the funnel before stdout, stderr and every log: prints, tracebacks and progress of whatever library, also
    where a user's logging writes to a file. What a person typed on the command line is known from then on.
    """
    learn_words(sys.argv[1:])
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Guarded):
            setattr(sys, name, _Guarded(stream))
    if logging.getLogRecordFactory() is logging.LogRecord:
        logging.setLogRecordFactory(_Redacted)


class _Redacted(logging.LogRecord):
    """A log record whose words and traceback are redacted before any handler sees them, whatever it takes of them."""

    def __init__(  # logging's own parameters
        self,
        name: str,
        level: int,
        pathname: str,
        lineno: int,
        msg: object,
        args: tuple[object, ...] | Mapping[str, object] | None,
        exc_info: Raised | None,
        func: str | None = None,
        sinfo: str | None = None,
    ) -> None:
        super().__init__(name, level, pathname, lineno, msg, args, exc_info, func, sinfo)
        _clean(self)

    def getMessage(self) -> str:  # noqa: N802 -- logging's name
        """The message, without secrets."""
        return redact(super().getMessage())


def _clean(record: logging.LogRecord) -> None:
    """Redact the record's parts, and put the traceback's text in the place of the traceback: a format may cut them."""
    record.msg = _shown(record.msg)
    if isinstance(record.args, Mapping):
        record.args = {name: _shown(one) for name, one in record.args.items()}
    elif record.args:
        record.args = tuple(map(_shown, record.args))
    if record.exc_info and not record.exc_text:
        record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        record.exc_info = None
    if record.stack_info:
        record.stack_info = redact(record.stack_info)


def _shown(value: object) -> object:
    """A part of a message; one that holds a secret becomes its text without it."""
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, int | float):
        return value
    text, inside = str(value), repr(value)
    return value if redact(text) == text and redact(inside) == inside else redact(text)


class _OwnLog(logging.Filter):
    """Our own log in a process whose logging is somebody else's, such as a notebook's."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it pass, without secrets."""
        if not isinstance(record, _Redacted):
            _clean(record)
            record.msg, record.args = redact(record.getMessage()), ()
        return True


logging.getLogger("llmexp").addFilter(_OwnLog())
