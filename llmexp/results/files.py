"""A job's `result.json`: the one pair of functions that writes and reads it, and strict JSON for every other file.

Strict JSON: what does not exist is null, never NaN. A file is replaced in one step, so that a reader sees the old one
or the new one, never half of one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import TextIO

from pydantic import ValidationError

from llmexp.errors import ResultError
from llmexp.json_types import Json, text
from llmexp.results.model import SCHEMA_VERSION, Result
from llmexp.secrets import foreign, redact, redact_tree

RESULT = "result.json"


def write(directory: Path, result: Result) -> Path:
    """Write `result.json`."""
    return write_json(directory / RESULT, strict(tree_of(result)), indent=1)


def tree_of(result: Result) -> dict[str, object]:
    """The result as it stands in its file."""
    tree = result.model_dump(mode="python")
    if tree["capacity_curve"] is None:
        del tree["capacity_curve"]
    return tree


def read(directory: Path) -> Result:
    """The job's result; `ResultError` where the directory holds none that can be read."""
    path = directory / RESULT
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultError(f"{directory}: holds no {RESULT}; name the directory of a finished job or sweep") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ResultError(f"{path}: cannot be read ({error}); is it a whole file of a job?") from None
    return parse(tree, str(path))


def parse(tree: object, where: str) -> Result:
    """A result from plain data; `where` names it in the message of a `ResultError`."""
    if not isinstance(tree, Mapping) or not text(tree, "job", "id"):
        raise ResultError(f"{where}: is not the result of a job (it has no job.id)")
    version = tree.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ResultError(
            f"{where}: was written by a newer llmexp (schema {version}, this one reads up to {SCHEMA_VERSION}); upgrade"
        )
    try:
        return Result.model_validate({key: value for key, value in tree.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ResultError(f"{where}: is not the result of a job ({key}: {first['msg']})") from None


def strict(value: object) -> Json:
    """The value as strict JSON holds it: numpy's numbers as Python's, NaN and infinities as null, texts clean."""
    if isinstance(value, Mapping):
        return {redact(str(key)): strict(each) for key, each in value.items()}
    if isinstance(value, str):
        return foreign(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Sequence):
        return [strict(each) for each in value]
    if hasattr(value, "tolist"):
        return strict(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int) else foreign(str(value))


def write_json(path: Path, value: Json, indent: int) -> Path:
    """Strict JSON in one step."""
    with replacing(path) as file:
        json.dump(redact_tree(value), file, indent=indent, allow_nan=False, ensure_ascii=False)
        file.write("\n")
    return path


def put(path: Path, text: str) -> Path:
    """A text in one step, without secrets."""
    with replacing(path) as file:
        file.write(redact(text))
    return path


@contextmanager
def replacing(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """A file that takes the place of `path` once the block has ended well.

    It is written under a name that nobody can foresee, and never through a link: the folder that a user names may be
    one that others write to as well.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{token_hex(8)}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
