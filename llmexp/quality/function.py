"""A grader of the user's own: `f(answer, expected, request) → float or None`."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path

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
    except Exception as error:  # noqa: BLE001 -- a module of the user's may raise anything while it is imported
        raise ConfigError(f"{KEY}: '{name}' cannot be imported ({type(error).__name__}: {error})") from None
    if not callable(found):
        raise ConfigError(f"{KEY}: '{name}' is no function")
    return found


def function(threshold: float, call: Callable[..., object]) -> Grader:
    """What the function returns is the score; None, an error or a number outside 0 to 1 leaves the answer ungraded."""

    def grade(given: Given) -> Grade:
        if given.blank or (wordless(given.text) and not given.tool_calls):
            return unparsed("the answer is empty")
        try:
            score = call(given.text, given.expected, given.request)
        except Exception as error:  # noqa: BLE001 -- one answer's grade is lost, not the job's
            return ungraded(f"the function raised {type(error).__name__}: {error}", quotes=True)
        if score is None:
            return ungraded("the function gave no score")
        if not isinstance(score, int | float) or math.isnan(score) or not 0 <= score <= 1:
            return ungraded(f"the function must give a score from 0 to 1, gave {score!r}")
        return graded(float(score), threshold)

    return grade
