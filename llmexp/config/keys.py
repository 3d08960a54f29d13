"""The keys of a configuration as they are written on a command line, and which one a mistyped word may mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import get_args

from pydantic import BaseModel

from llmexp.config.schema import Config, Deployment

_DEEPEST = 5
_MOST_MEANT = 3
"""A name that stands at more places than these means nothing in particular."""
_FORMER = {"workload.conversations": "concurrency, which is sessions in flight"}
"""Keys of earlier versions → what to write now."""
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "stop", "frequency_penalty", "presence_penalty")
"""What people set of a request's body; `model.params` takes any key."""


def unknown_key(path: list[str], groups: list[str]) -> str:
    """What to say of a key that the schema does not have; `groups` may be set at the top too."""
    for depth in range(1, len(path) + 1):
        known = _keys_at(path[: depth - 1])
        if path[depth - 1] not in known and known:
            more = groups if depth == 1 else []
            return f"{'.'.join(path)}: unknown key{suggestion(path[:depth], more, whole=path)}"
    return f"{'.'.join(path)}: unknown key{suggestion(path)}"


def suggestion(path: list[str], more: Sequence[str] = (), whole: Sequence[str] = (), kind: str | None = None) -> str:
    """The remedy for an unknown key: the nearest known one here, that name elsewhere, or all that there are here.

    `kind`: of the deployment that the path goes into; the others' keys are none of its own.
    """
    key = ".".join(whole or path)
    if key in _FORMER:
        return f"; it is now {_FORMER[key]}"
    here = _keys_of_kind(path[:-1], kind) if kind else _keys_at(path[:-1])
    known = [name for name in (*here, *more) if ".".join([*path[:-1], name]) != key]
    near = difflib.get_close_matches(path[-1], known, n=1)
    if kind and not near:
        near = [f"{name}.{path[-1]}" for name in here if path[-1] in _keys_of_kind([*path[:-1], name], kind)]
    if near:
        return f"; did you mean {'.'.join([*path[:-1], near[0]])}?"
    meant = [each for each in elsewhere((whole or path)[-1]) if each != key]
    if meant:
        return f"; did you mean {' or '.join(meant)}?"
    if known:
        return f"; known here: {', '.join(sorted(set(known)))}"
    parent = ".".join(path[:-1])
    return f"; {parent} is a value and has no keys" if parent in _all_keys() else ""


def elsewhere(name: str) -> list[str]:
    """Keys whose last part is this name or nearly so, wherever they stand; of several those that stand highest."""
    if name in _SAMPLING:
        return [f"model.params.{name}"]
    plain = [key for key in _all_keys() if not _of_a_simulator(key)]
    return _named(name, plain) or _named(name, [key for key in _all_keys() if key.startswith("model.deployment.")])


def _of_a_simulator(key: str) -> bool:
    """How a simulator plays a model: seldom what is meant."""
    return key.startswith("model.rehearsal.") or ".profile." in key


def _named(name: str, keys: Sequence[str]) -> list[str]:
    places: dict[str, list[str]] = {}
    for key in keys:
        places.setdefault(key.rpartition(".")[2], []).append(key)
    near = difflib.get_close_matches(name, places, n=1, cutoff=0.8)
    found = places[near[0]] if near else []
    highest = min((key.count(".") for key in found), default=0)
    meant = [key for key in found if key.count(".") == highest]
    return meant if len(meant) <= _MOST_MEANT else []


def meant(word: str) -> str | None:
    """The one key that a word may mean, dotted or not; None where there is none, or several."""
    if word in _all_keys():
        return word
    near = difflib.get_close_matches(word, _keys_at([]), n=1, cutoff=0.8)
    found = near or elsewhere(word.rpartition(".")[2])
    return found[0] if len(found) == 1 else None


def is_flag(key: str) -> bool:
    """Whether a key is either true or false."""
    return _all_keys().get(key) is bool


@cache
def _all_keys() -> dict[str, object]:
    """Every dotted key → its type."""
    return dict(_walk(Config, "", _DEEPEST))


def _walk(part: object, before: str, deepest: int) -> Iterator[tuple[str, object]]:
    for model in _models(part):
        for name, field in model.model_fields.items():
            key = f"{before}{field.alias or name}"
            yield key, field.annotation
            if deepest:
                yield from _walk(field.annotation, f"{key}.", deepest - 1)


def _keys_of_kind(path: Sequence[str], kind: str) -> list[str]:
    """The names that may stand below a path into a deployment of this kind."""
    at = path.index("deployment") + 1
    found = {model for model in _models(Deployment) if get_args(model.model_fields["kind"].annotation) == (kind,)}
    for name in path[at:]:
        found = {deeper for model in found for deeper in _models(model.model_fields[name].annotation)}
    return [field.alias or name for model in found for name, field in model.model_fields.items()]


def _keys_at(path: Sequence[str]) -> list[str]:
    """The names that may stand below a path."""
    before = "".join(f"{part}." for part in path)
    found = (key.removeprefix(before) for key in _all_keys() if key.startswith(before))
    return [name for name in found if "." not in name]


def _models(part: object) -> list[type[BaseModel]]:
    return [arg for arg in (part, *_arguments(part)) if isinstance(arg, type) and issubclass(arg, BaseModel)]


def _arguments(annotation: object) -> Iterator[object]:
    for arg in get_args(annotation):
        yield arg
        yield from _arguments(arg)
