"""JSON as Python holds it, and ways into a tree of it that trust nothing about its shape.

Files of earlier versions, facts of a provider and answers of a server are such trees. What is not there, or is of
another kind than asked for, is None or empty: a reader states what it looks for and never fails over what it finds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""A value of a JSON document."""
Tree: TypeAlias = Mapping[str, object]
"""An object of a JSON document whose values are not checked yet."""


def at(tree: object, *path: str) -> object:
    """The value at the end of the path; None where the path ends early."""
    for name in path:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def branch(tree: object, *path: str) -> Tree:
    """The object there; empty where there is none."""
    found = at(tree, *path)
    return found if isinstance(found, Mapping) else {}


def items(tree: object, *path: str) -> list[object]:
    """The array there; empty where there is none."""
    found = at(tree, *path)
    return list(found) if isinstance(found, list | tuple) else []


def number(tree: object, *path: str) -> float | None:
    """The finite number there; true and false are none."""
    found = at(tree, *path)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return None
    return found


def text(tree: object, *path: str) -> str | None:
    """The text there."""
    found = at(tree, *path)
    return found if isinstance(found, str) else None


def texts(tree: object, depth: int | None = None) -> Iterator[str]:
    """Every text of a tree, names of its objects apart; `depth` levels down at most."""
    if isinstance(tree, str):
        yield tree
    elif depth != 0 and isinstance(tree, Mapping | list):
        for value in tree.values() if isinstance(tree, Mapping) else tree:
            yield from texts(value, None if depth is None else depth - 1)


def numbers(tree: Tree, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a tree under its path, as `ttft_s/p95`; true is 1, false 0, what is not finite is left out."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            yield f"{prefix}{name}", float(value)
