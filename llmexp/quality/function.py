"""A grader of the user's own: `f(answer, expected, request) → float or None`."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import SupportsFloat

from llmexp.errors import ConfigError
from llmexp.quality.grade import Given, Grade, Grader, graded, ungraded, unparsed
from llmexp.quality.texts import wordless

KEY = "quality.function"


def load_function(name: str) -> Callable[..., object]:
    """What `package.module:name` names; modules of the working directory are found too.

    Raises `ConfigError` with the key, the value and the remedy.
    """
    module, colon, inside = name.partition(":")
    if not (module and colon and inside):
        raise ConfigError(f"{KEY}: must be package.module:name, got '{name}'")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found: object = importlib.import_module(module)
        for part in inside.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- a module of the user's may raise anything
        raise ConfigError(f"{KEY}: '{name}' cannot be imported ({type(error).__name__}: {error})") from None
    if not callable(found):
        raise ConfigError(f"{KEY}: '{name}' is no function")
    if inspect.iscoroutinefunction(found):
        raise ConfigError(f"{KEY}: '{name}' is async; give a plain function")
    if not _takes_three(found):
        raise ConfigError(f"{KEY}: '{name}' must take three arguments: answer, expected, request")
    return found


def _takes_three(call: Callable[..., object]) -> bool:
    try:
        inspect.signature(call).bind("", None, None)
    except TypeError:
        return False
    except ValueError:  # a function of C without a signature
        return True
    return True


def function(threshold: float, call: Callable[..., object]) -> Grader:
    """What the function returns is the score; None, an error or a number outside 0 to 1 leaves the answer ungraded."""

    def grade(given: Given) -> Grade:
        if given.blank or (wordless(given.text) and not given.tool_calls):
            return unparsed("the answer is empty")
        try:
            score = call(given.text, given.expected, given.request)
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- one answer's grade is lost, not the job's
            return ungraded(f"the function raised {type(error).__name__}: {error}", quotes=True)
        if score is None:
            return ungraded("the function gave no score")
        share = _share(score)
        if share is None:
            return ungraded(f"the function must give a score from 0 to 1, gave {score!r}", quotes=True)
        return graded(share, threshold)

    return grade


def _share(score: object) -> float | None:
    """A number from 0 to 1, of numpy's kinds too; None where it is none."""
    if isinstance(score, str | bytes) or not isinstance(score, SupportsFloat):
        return None
    try:
        share = float(score)
    except (TypeError, ValueError, OverflowError):
        return None
    return share if not math.isnan(share) and 0 <= share <= 1 else None
