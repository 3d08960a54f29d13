"""Whether answers to `workload=format` have the layout that was asked for: a grader function like a user's own."""

from __future__ import annotations

from collections.abc import Mapping

from llmexp.quality.structured import find_json
from llmexp.workload import puzzles


def follows(answer: str, expected: object, request: object) -> float | None:  # noqa: ARG001 -- the form of a grader
    """1 where the answer keeps the layout, 0 where it does not, None where nothing was asked for."""
    if not isinstance(expected, Mapping):
        return None
    found = find_json(answer)
    return float(puzzles.follows(answer, None if found is None else found.value, expected))
