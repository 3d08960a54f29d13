"""Writes the pages of docs/ that the code knows best: the config reference, the metric dictionary, the columns, and
what architecture.md says of rooms and modules.

python scripts/generate_docs.py           write them
python scripts/generate_docs.py --check   exit 1 when they are not what the code says
"""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import json
import runpy
import sys
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llmexp import config, records
from llmexp.metrics.dictionary import DICTIONARY
from llmexp.metrics.distributions import PERCENTILES, needed
from llmexp.records import Record
from llmexp.results.model import Cost, Environment, ErrorClass, JobInfo, Notes, Result

DOCS = Path(__file__).resolve().parent.parent / "docs"
GENERATED = "<!-- Written by scripts/generate_docs.py; edit the code instead. -->"


def config_reference() -> str:
    """Every key with type, default and meaning, a table for each part."""
    lines = [GENERATED, "# Config reference", "", _CONFIG_HEAD]
    for name, field in config.Config.model_fields.items():
        models = _models(field.annotation)
        if not models:
            continue
        lines += [f"\n## {name}", "", _doc(models[0])]
        for model in models:
            lines += _table(model, name)
    lines += ["\n## Keys of the top level", "", *_table(config.Config, "", nested=False)]
    return "\n".join(lines) + "\n"


_CONFIG_HEAD = """\
Every key of a job. Files in `conf/` say what differs from these defaults; the command line overrides both:
`python -m llmexp model=simulated concurrency=8 run.max_requests=100`. Keys that a mapping does not have yet take a
plus: `+model.params.temperature=0`. `python -m llmexp --cfg job` prints the whole composed config."""


def _table(model: type[BaseModel], prefix: str, *, nested: bool = True) -> list[str]:
    rows = list(_rows(model, prefix, nested=nested))
    if not rows:
        return []
    return ["", "| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows]


def _rows(model: type[BaseModel], prefix: str, *, nested: bool) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = ".".join(part for part in (prefix, field.alias or name) if part)
        models = _models(field.annotation)
        if models and not nested:
            continue
        if len(models) == 1 and not _is_list(field.annotation):
            yield from _rows(models[0], key, nested=True)
        elif models and not _is_list(field.annotation):
            for each in models:
                yield f"| `{key}` ({_kind(each)}) | | | {_doc(each)} |"
                yield from _rows(each, key, nested=True)
        else:
            yield f"| `{key}` | {_type(field)} | {_default(field)} | {field.description or ''} |"


def _kind(model: type[BaseModel]) -> str:
    annotation = model.model_fields["kind"].annotation
    return f"kind: {typing.get_args(annotation)[0]}"


def _doc(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _is_list(annotation: Any) -> bool:
    return typing.get_origin(annotation) is list


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in typing.get_args(annotation) for model in _models(arg)]


def _type(field: FieldInfo) -> str:
    return _type_name(field.annotation) + _bounds(field)


def _type_name(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _type_name(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(annotation))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_type_name(arg) for arg in typing.get_args(annotation) if arg is not type(None)) + " or null"
    if origin in (list, dict):
        return {list: "list", dict: "mapping"}[origin]
    names = {int: "integer", float: "number", str: "text", bool: "true or false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    metadata = [
        *field.metadata,
        *(m for arg in typing.get_args(field.annotation) for m in getattr(arg, "__metadata__", ())),
    ]
    found = [
        f"{sign} {value:g}"
        for each in metadata
        for constraint in (each, *getattr(each, "metadata", ()))
        for name, sign in signs.items()
        if (value := getattr(constraint, name, None)) is not None
    ]
    return f" ({', '.join(dict.fromkeys(found))})" if found else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    return f"`{json.dumps(field.default)}`" if not isinstance(field.default, BaseModel) else ""


def metric_dictionary() -> str:
    """Every number of a run: name, unit, definition."""
    lines = [GENERATED, "# Metric dictionary", "", _METRIC_HEAD, ""]
    for kind, title in (("distribution", "Distributions"), ("number", "Numbers of a run")):
        lines += [f"## {title}", "", "| metric | unit | definition |", "| --- | --- | --- |"]
        lines += [
            f"| `{metric.name}` | {metric.unit} | {metric.definition} |"
            for metric in DICTIONARY.values()
            if metric.kind == kind
        ]
        lines.append("")
    carried = ", ".join(f"{name} from n = {needed(int(name[1:]))}" for name in PERCENTILES)
    lines += [
        "## Which percentiles a sample carries",
        "",
        f"{carried}. Others are shown with a mark and decide nothing.",
    ]
    return "\n".join(lines) + "\n"


_METRIC_HEAD = """\
Times are readings of one monotonic clock per worker, in ns: `intended` (when the schedule wanted the request),
`dispatched` (when the worker turned to it), `sent` (just before its bytes go to an open connection), each chunk's
arrival, `first token`, `last token`, `end`. A distribution has `count, mean, stddev, min, p25, p50, p75, p90, p95, p99,
max`; in MLflow a slash joins: `ttft_s/p95`. What does not exist is null, never 0. Failed requests are counted and
never enter a latency."""


def files_page() -> str:
    """What a job leaves: the keys of its result and the columns of its requests."""
    lines = [GENERATED, "# result.json and requests.parquet", "", "## result.json", "", _RESULT_HEAD, ""]
    lines += ["| key | meaning |", "| --- | --- |"]
    for part, prefix in _RESULT_PARTS:
        lines += [f"| `{prefix}{name}` | {meaning} |" for name, meaning in _attribute_docs(part).items()]
    lines += ["", "## requests.parquet", "", _FILES_HEAD, "", "| column | type | meaning |", "| --- | --- | --- |"]
    meanings = _attribute_docs(Record)
    lines += [f"| `{field.name}` | {field.type} | {meanings[field.name]} |" for field in records.schema()]
    return "\n".join(lines) + "\n"


_RESULT_PARTS = (
    (Result, ""),
    (JobInfo, "job."),
    (Environment, "environment."),
    (ErrorClass, "errors.CLASS."),
    (Cost, "cost."),
    (Notes, "notes."),
)
_RESULT_HEAD = """\
Strict JSON: no NaN, and what does not exist is null. It is complete on disk before anything is made of it, and is
replaced in one step. Files of earlier versions stay readable; a reader should ignore keys that it does not know."""
_FILES_HEAD = """\
A row for each request that was sent. `requests.parquet` is complete when a job has ended; while it runs, and after a
kill, `requests.arrows` holds the same rows (an Arrow stream, readable to its last whole batch). Times ending in `_ns`
are readings of one monotonic clock in ns; `anchor` in the file's metadata holds one reading together with the wall
clock's. What does not exist is null.

```python
import pandas as pd

requests = pd.read_parquet("outputs/…/requests.parquet")
done = requests[requests.status == "completed"]
ttft_s = (done.first_token_ns - done.sent_ns) / 1e9
```"""


PACKAGE = DOCS.parent / "llmexp"
ROOMS_BEGIN, ROOMS_END = "<!-- rooms: written by scripts/generate_docs.py -->\n", "<!-- end of rooms -->\n"


def architecture() -> str:
    """The page as it is, with the rooms and modules of today between its two marks."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    head, _, rest = text.partition(ROOMS_BEGIN)
    _, _, tail = rest.partition(ROOMS_END)
    return f"{head}{ROOMS_BEGIN}\n{_rooms()}\n{_modules()}\n{ROOMS_END}{tail}"


def _rooms() -> str:
    """Who may import whom, from the table that the test holds the imports to."""
    walls = _walls()
    lines = ["## The rooms", "", "| room | its duty | may import |", "| --- | --- | --- |"]
    for room, allowed in walls["ROOMS"].items():
        path = PACKAGE / room / "__init__.py" if (PACKAGE / room).is_dir() else PACKAGE / f"{room}.py"
        if path.exists():
            lines.append(f"| `{room}` | {_duty(path)} | {', '.join(sorted(allowed)) or '–'} |")
    doors = ", ".join(f"`{door}`" for door in sorted(walls["DOORS"]))
    lines += ["", f"Doors, which a person opens, may import every room, and no room imports one: {doors}.", ""]
    return "\n".join(lines)


def _walls() -> dict[str, Any]:
    return runpy.run_path(str(DOCS.parent / "tests" / "support" / "walls.py"))


def _modules() -> str:
    lines = ["## Every module", ""]
    for folder in [PACKAGE, *sorted(path for path in PACKAGE.rglob("*") if (path / "__init__.py").exists())]:
        name = "llmexp" if folder == PACKAGE else folder.relative_to(PACKAGE).as_posix()
        files = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
        lines += [f"**`{name}/`** {_duty(folder / '__init__.py')}", "", "| module | does |", "| --- | --- |"]
        lines += [f"| `{path.name}` | {_duty(path)} |" for path in files]
        lines.append("")
    return "\n".join(lines)


def _duty(path: Path) -> str:
    """The first paragraph of a module's docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def _attribute_docs(described: type) -> dict[str, str]:
    """Attribute → the string below it, on one line; an attribute without one is an error."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(described))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for node, after in itertools.pairwise(definition.body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            described_by = after.value if isinstance(after, ast.Expr) else None
            if not isinstance(described_by, ast.Constant):
                raise TypeError(f"{described.__name__}.{node.target.id} has no documentation below it")
            found[node.target.id] = " ".join(str(described_by.value).split())
    return found


def main() -> int:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the pages are up to date")
    check = parser.parse_args().check
    pages = (
        ("config.md", config_reference()),
        ("metrics.md", metric_dictionary()),
        ("files.md", files_page()),
        ("architecture.md", architecture()),
    )
    stale = []
    for name, text in pages:
        path = DOCS / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.write_text(text)
    if check and stale:
        print(f"stale: {', '.join(stale)}; run python scripts/generate_docs.py", file=sys.stderr)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
