"""Command lines of plain flags, for all doors but the first: `--version`, and one line for what is mistyped."""

from __future__ import annotations

import argparse
import difflib
import math
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import NoReturn

from llmexp.errors import WRONG


class Parser(argparse.ArgumentParser):
    """argparse's parser that says what is wrong in one line, with the nearest flag."""

    def __init__(self, *, prog: str | None = None, description: str | None = None, epilog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, epilog=epilog)
        version = f"llmexp {metadata.version('llmexp')}"
        self.add_argument("--version", action="version", version=version, help="print the version and end")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """As argparse does, but an unknown flag is told before what is missing: it may be the same."""
        words = list(sys.argv[1:] if args is None else args)
        flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
        for word in words[: words.index("--")] if "--" in words else words:
            name = word.partition("=")[0]
            if name.startswith("--") and not any(flag.startswith(name) for flag in flags):
                near = difflib.get_close_matches(name, flags, n=1)
                remedy = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(flags))}"
                self.error(f"{name}: unknown flag; {remedy}")
        return self.parse_intermixed_args(words, namespace)  # flags may stand between the names

    def error(self, message: str) -> NoReturn:
        """One line on stderr, exit status 2: the flag, the value, what it must be."""
        said = message.removeprefix("argument ")
        for pattern, ours in _SAID:
            said = re.sub(pattern, ours, said)
        self.exit(WRONG, f"{said} (see {self.prog} --help)\n")


_SAID = (
    (r": invalid (?:int|port|_numbers) value: '(.*)'$", r": must be a whole number, got '\1'"),
    (r": invalid (?:float|at_least_0) value: '(.*)'$", r": must be a number, got '\1'"),
    (r": invalid choice: (.*) \(choose from (.*)\)$", r": must be one of \2, got \1"),
)
"""argparse's words → ours."""


def port(text: str) -> int:
    """The type of a port's flag; 0 is any that is free."""
    number = int(text)
    if not 0 <= number <= HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"must be from 0 to {HIGHEST_PORT}, got {number}")
    return number


def at_least_0(text: str) -> float:
    """The type of a flag that takes seconds, or a share."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {text}")
    return number


HIGHEST_PORT = 65535
