"""From `quality=` to a grader, and what is wrong with it before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from llmexp.config import Quality
from llmexp.errors import ConfigError
from llmexp.quality import rules, structured
from llmexp.quality.function import function, load_function
from llmexp.quality.grade import Given, Grader
from llmexp.quality.patience import patient

_SCHEMA = "quality.schema"


def build(quality: Quality) -> Grader:
    """The grader of everything but judges. Raises `ConfigError` with key, value and remedy."""
    threshold = quality.right_from
    if quality.kind == "exact":
        return rules.exact(threshold)
    if quality.kind == "contains":
        return rules.contains(threshold)
    if quality.kind == "choice":
        return rules.choice(threshold)
    if quality.kind == "number":
        return rules.number(threshold, quality.tolerance)
    if quality.kind == "regex":
        return patient(rules.regex(threshold, quality.pattern or ""), "the pattern")
    if quality.kind == "overlap":
        return rules.overlap(threshold)
    if quality.kind == "json":
        return _json(threshold, quality.schema_)
    if quality.kind == "tool_call":
        return structured.tool_call(threshold)
    if quality.kind == "function":
        return function(threshold, load_function(quality.function or ""))
    raise ValueError(f"quality '{quality.kind}' grades nothing by itself")


def _json(threshold: float, schema: Mapping[str, object] | str | None) -> Grader:
    if schema is None:
        return structured.json_grader(threshold, None)
    return patient(structured.json_grader(threshold, compiled(schema)), "the schema")


def compiled(schema: Mapping[str, object] | str) -> structured.Schema:
    """A JSON Schema, from a mapping or a file, ready to check with. What it refers to must be inside it."""
    from jsonschema import exceptions, validators
    from jsonschema_specifications import REGISTRY

    tree: object = schema
    if isinstance(schema, str):
        try:
            tree = json.loads(Path(schema).read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise ConfigError(f"{_SCHEMA}: cannot be read, got '{schema}' ({error.strerror})") from None
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{_SCHEMA}: '{schema}' does not parse as JSON ({error})") from None
    if not isinstance(tree, Mapping | bool):
        raise ConfigError(f"{_SCHEMA}: must be a JSON Schema, an object, got {json.dumps(tree)}")
    made = validators.validator_for(tree, default=validators.Draft202012Validator)
    try:
        made.check_schema(tree)
    except exceptions.SchemaError as error:
        raise ConfigError(f"{_SCHEMA}: is no JSON Schema ({error.message})") from None
    if isinstance(tree, Mapping) and (missing := _unresolved(tree)) is not None:
        raise ConfigError(
            f"{_SCHEMA}: refers to '{missing}', which is not inside it; put it under $defs and refer to #/$defs/…"
        )
    checker: structured.Schema = made(tree, registry=REGISTRY)  # which asks no network for what is missing
    return checker


def _unresolved(tree: Mapping[str, object]) -> str | None:
    """The first reference of a schema that leads nowhere; None where all lead somewhere."""
    from jsonschema_specifications import REGISTRY
    from referencing import Resource, exceptions
    from referencing.jsonschema import DRAFT202012, SchemaResource

    whole: SchemaResource = Resource.from_contents(dict(tree), default_specification=DRAFT202012)
    left = [(whole, REGISTRY.resolver_with_root(whole))]
    while left:
        part, resolver = left.pop()
        if isinstance(part.contents, Mapping) and isinstance(reference := part.contents.get("$ref"), str):
            try:
                resolver.lookup(reference)
            except exceptions.Unresolvable:
                return reference
        left += [(inner, resolver.in_subresource(inner)) for inner in part.subresources()]
    return None


def needs_expected(quality: Quality) -> bool:
    """Whether an answer can only be graded beside what was expected of it."""
    import re

    if quality.kind == "function":
        return False
    if quality.kind == "regex":
        return bool(re.compile(quality.pattern or "").groups)
    if quality.kind == "json":
        return quality.schema_ is None
    if quality.kind == "judge":
        return "{expected}" in quality.judge.rubric
    return True


def problem_of(quality: Quality, expected: Iterable[object]) -> str | None:
    """Why none of these rows could be graded; None where one can. `expected` is what each row expects, or None."""
    grader = None if quality.kind in ("judge", "function") else build(quality)
    why = "no row says what a right answer is: give rows a column 'expected', or use workload=arithmetic"
    for each in expected:
        if each is None:
            continue
        if grader is None:
            return None
        grade = grader(Given("", each))
        if grade.status != "ungraded":
            return None
        why = f"no row can be graded: {grade.note}"
    return f"quality.kind: {quality.kind}: {why}"
