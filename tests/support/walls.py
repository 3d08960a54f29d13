"""Who may import whom, and what the code does: the walls of docs/architecture.md as data."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

BASE = {"errors", "config", "json_types", "secrets"}
NUMBERS = BASE | {"records", "metrics", "litellm_package", "installed"}
READER = NUMBERS | {"results"}
MEASURING = NUMBERS | {"workload", "schedule", "clients", "worker", "companion", "endpoints", "benchmark"}
READERS = {"terminal", "tracking", "llmperf", "report", "compare"}
BELOW_JOBS = MEASURING | READERS | {"quality", "results", "telemetry"}
DOORS = {
    "__main__",
    "api",
    "calibrate",
    "command_line",
    "compare.__main__",
    "composition",
    "convert",
    "llmperf.correctness",
    "llmperf.flags",
    "llmperf.llm_correctness",
    "llmperf.script",
    "llmperf.token_benchmark_ray",
    "mistakes",
    "plain_flags",
    "regrade",
    "relog",
    "simulate",
    "ui",
}
"""Modules that a person calls. They may import every room, and no room imports one."""

ROOMS: Mapping[str, set[str]] = {
    "secrets": set(),
    "errors": {"secrets"},
    "json_types": set(),
    "installed": set(),
    "litellm_package": {"json_types"},
    "config": {"errors", "json_types", "secrets"},
    "records": {"errors", "json_types", "secrets"},
    "metrics": BASE | {"records", "litellm_package"},
    "workload": BASE | {"litellm_package"},
    "schedule": BASE | {"workload"},
    "clients": BASE | {"workload", "litellm_package"},
    "worker": BASE | {"clients", "workload"},
    "companion": NUMBERS | {"worker", "clients", "workload"},
    "endpoints": BASE | {"clients", "workload"},
    "benchmark": NUMBERS | {"companion", "worker", "clients", "schedule", "workload"},
    "telemetry": NUMBERS | {"benchmark"},
    "quality": NUMBERS | {"workload"},
    "results": NUMBERS,
    "terminal": READER,
    "tracking": READER,
    "llmperf": READER,
    "compare": READER,
    "report": READER | {"compare"},
    "jobs": BELOW_JOBS,
}
"""Room → the rooms it may import. A room is a package or a module of `llmexp/`."""


def modules(package: Path) -> dict[str, Path]:
    """Dotted name below the package → file; the package's own `__init__` is left out."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        if name != "__init__":
            found[name] = path
    return found


def imports(source: str, package: str, known: Mapping[str, object]) -> Iterator[str]:
    """Modules of `package` that a source imports anywhere: at the top, inside functions, for type checkers alone.

    `from package import x` and `from package.y import x` name the module `x` where there is one.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[2] for alias in node.names if alias.name.startswith(f"{package}."))
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            head, _, inside = node.module.partition(".")
            if head != package:
                continue
            for alias in node.names:
                below = f"{inside}.{alias.name}" if inside else alias.name
                if below in known:
                    yield below
                elif inside:
                    yield inside
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "relative imports say nothing about the room: name it"


def room_of(module: str, rooms: Mapping[str, object]) -> str | None:
    """The room that a module stands in; None for a door."""
    if module in DOORS or module.partition(".")[0] in DOORS:
        return None
    head = module.partition(".")[0]
    return head if head in rooms else f"no room: {module}"


def graph(sources: Mapping[str, str], package: str) -> dict[str, set[str]]:
    """Module → modules it imports."""
    return {name: set(imports(source, package, sources)) - {name} for name, source in sources.items()}


def breaches(arrows: Mapping[str, set[str]], rooms: Mapping[str, set[str]]) -> list[str]:
    """Imports through a wall, in words."""
    found = []
    for module, targets in sorted(arrows.items()):
        own = room_of(module, rooms)
        for target in sorted(targets):
            theirs = room_of(target, rooms)
            if own is None or own == theirs:
                continue
            if theirs is None:
                found.append(f"{module} imports the door {target}")
            elif theirs not in rooms.get(own, set()):
                found.append(f"{module} imports {target}: {own} may not import {theirs}")
    return found


def circles(arrows: Mapping[str, set[str]]) -> list[str]:
    """Every way round that the imports allow, one for each module it is met at."""
    found: list[str] = []
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        if module in trail:
            found.append(" → ".join([*trail[trail.index(module) :], module]))
            return
        if module in done:
            return
        for target in sorted(arrows.get(module, ())):
            # A package and its own modules are one thing: `__init__` names what they offer.
            visit(target, (*trail, module))
        done.add(module)

    for module in sorted(arrows):
        visit(module, ())
    return found
