"""The rules of docs/architecture.md, held by reading the imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "llmexp"
MODULES = sorted(PACKAGE.rglob("*.py"))
AWS = ("llmexp/clients/aws", "llmexp/clients/bedrock", "llmexp/clients/sagemaker", "llmexp/endpoints/")

ALLOWED = {
    "mlflow": ("llmexp/tracking/", "llmexp/ui.py", "llmexp/relog.py"),
    "ray": ("llmexp/benchmark.py", "llmexp/worker.py", "llmexp/companion.py"),
    "litellm": ("llmexp/clients/litellm_sdk.py",),
    "boto3": AWS,
    "botocore": AWS,
    "hydra": ("llmexp/__main__.py", "llmexp/sweep.py"),
}
PURE = (
    "metrics.py",
    "validity.py",
    "schedule.py",
    "timeline.py",
    "latencies.py",
    "distributions.py",
    "compare/stats.py",
)
IMPURE = {"socket", "http", "urllib", "requests", "time", "asyncio", "subprocess", "ray", "mlflow"}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(name imported, whether at module level and at run time)."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module]
        for name in names:
            yield name, node in tree.body


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("library", ALLOWED)
def test_a_heavy_library_is_imported_only_where_it_belongs(library: str) -> None:
    offenders = {
        short(path)
        for path in MODULES
        for name, _ in imports(path)
        if name.split(".")[0] == library and not short(path).startswith(ALLOWED[library])
    }
    assert not offenders


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_touch_no_network_and_no_clock(name: str) -> None:
    assert not {imported for imported, _ in imports(PACKAGE / name) if imported.split(".")[0] in IMPURE}


def test_nothing_imports_the_door_and_nothing_is_called_utils() -> None:
    assert not [path for path in MODULES if path.stem in ("utils", "helpers", "common")]
    assert not [short(path) for path in MODULES for name, _ in imports(path) if name == "llmexp.__main__"]


def test_there_is_no_circle_of_imports() -> None:
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        module = short(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        graph[module] = {name for name, top in imports(path) if top and name.startswith("llmexp.")}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' → '.join([*trail, module])}"
        if module in done or module not in graph:
            return
        for other in sorted(graph[module]):
            visit(other, (*trail, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_composing_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['llmexp', '--cfg', 'job']\n"
        "from llmexp.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'ray', 'mlflow', 'litellm', 'boto3', 'numpy', 'pyarrow', 'matplotlib', 'scipy', 'uvloop'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "HEAVY []" in done.stdout, done.stderr


def test_there_is_no_folder_that_would_make_a_group_of_an_integer_key() -> None:
    assert not (ROOT / "conf" / "concurrency").exists()


def test_generated_pages_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/generate_docs.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
