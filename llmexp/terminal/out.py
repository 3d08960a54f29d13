"""Text for stdout and stderr, whatever they are: an encoding that lacks a letter, or a pipe that nobody reads any more.

A benchmark must not end because its table could not be shown: letters that the encoding does not have become `?`, and
what goes to a closed pipe goes nowhere.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


def open_closed() -> None:
    """Streams into the void in place of those that the shell closed (`>&-`), which Python has as None."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 -- for good


def show(text: str) -> None:
    """A text on stdout, at once."""
    _write("stdout", text)


def tell(text: str) -> None:
    """A message on stderr, at once."""
    _write("stderr", text)


def _write(name: str, text: str) -> None:
    stream = getattr(sys, name)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        stream.flush()
    except BrokenPipeError:
        _forget(name)
    except ValueError:  # closed
        return


def finish() -> None:
    """Flush both streams at the end of a process: the interpreter must find no closed pipe to complain of."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (OSError, ValueError, AttributeError):
            _forget(name)


def _forget(name: str) -> None:
    """Let a stream whose reader has gone write into the void."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        void = os.open(os.devnull, os.O_WRONLY)
        os.dup2(void, getattr(sys, name).fileno())
        os.close(void)
