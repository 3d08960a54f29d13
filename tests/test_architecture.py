"""The rules of docs/architecture.md, held by reading the imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import walls

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "llmexp"
MODULES = sorted(PACKAGE.rglob("*.py"))
AWS = ("llmexp/clients/aws", "llmexp/clients/bedrock", "llmexp/clients/sagemaker", "llmexp/endpoints/")

ALLOWED = {
    "mlflow": ("llmexp/tracking/", "llmexp/ui.py", "llmexp/relog.py"),
    "ray": ("llmexp/benchmark/", "llmexp/worker/actor.py", "llmexp/companion/actor.py"),
    "litellm": ("llmexp/clients/litellm_sdk.py",),
    "boto3": AWS,
    "botocore": AWS,
    "hydra": ("llmexp/__main__.py", "llmexp/composition.py", "llmexp/mistakes.py", "llmexp/jobs/"),
}
PURE = ("metrics/", "schedule/", "compare/stats.py")
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
    place = PACKAGE / name
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    assert files
    assert not {
        (short(path), imported)
        for path in files
        for imported, _ in imports(path)
        if imported.split(".")[0] in IMPURE and not imported.startswith("urllib.parse")
    }


def test_nothing_is_called_utils() -> None:
    assert not [path for path in MODULES if path.stem in ("utils", "helpers", "common")]


# --- the walls -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    return walls.graph({name: path.read_text() for name, path in walls.modules(PACKAGE).items()}, "llmexp")


def test_no_module_imports_through_a_wall(arrows: dict[str, set[str]]) -> None:
    assert len(arrows) > 100
    assert walls.breaches(arrows, walls.ROOMS) == []


def test_no_module_imports_in_a_circle(arrows: dict[str, set[str]]) -> None:
    assert walls.circles(arrows) == []


def test_the_table_of_rooms_has_no_circle_and_names_only_rooms_and_the_ones_to_come() -> None:
    assert walls.circles(dict(walls.ROOMS)) == []
    there = {name.partition(".")[0] for name in walls.modules(PACKAGE)}
    doors = {name.partition(".")[0] for name in walls.DOORS}
    assert there <= set(walls.ROOMS) | doors


TOP = "bottom.cellar imports top: bottom may not import top"
MIDDLE = "bottom.cellar imports middle.door: bottom may not import middle"
SKETCH = {"top": {"middle", "bottom"}, "middle": {"bottom"}, "bottom": set[str]()}


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("from house.top import x", TOP),
        ("import house.top", TOP),
        ("from house import top", TOP),
        (
            "def f():\n    from house.middle import door",
            MIDDLE,
        ),
        ("if TYPE_CHECKING:\n    from house.top import X", TOP),
        (
            "def f():\n    import house.middle.door as d",
            MIDDLE,
        ),
        ("from house import api", "bottom.cellar imports the door api"),
        ("from ..top import x", "relative imports say nothing about the room"),
    ],
)
def test_each_kind_of_forbidden_import_is_caught(source: str, seen: str) -> None:
    sources = {"top": "", "middle": "", "middle.door": "", "bottom.cellar": source, "api": ""}
    assert any(seen in breach for breach in walls.breaches(walls.graph(sources, "house"), SKETCH))


def test_allowed_imports_are_let_through() -> None:
    sources = {
        "top": "from house import bottom\nfrom house.middle import x",
        "middle": "",
        "bottom": "",
        "api": "import house.top",
    }
    assert walls.breaches(walls.graph(sources, "house"), SKETCH) == []


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("from house.two import b", "def f():\n    from house.one import a"),
        ("from house import two", "if TYPE_CHECKING:\n    from house.one import a"),
        ("import house.two", "import house.one"),
    ],
)
def test_each_kind_of_circle_is_caught(one: str, two: str) -> None:
    assert walls.circles(walls.graph({"one": one, "two": two}, "house")) == ["one → two → one"]


def test_a_module_in_no_room_is_named() -> None:
    arrows = walls.graph({"stray": "from house.top import x", "top": ""}, "house")
    assert walls.breaches(arrows, SKETCH) == ["stray imports top: no room: stray may not import top"]


# --- what starts fast ------------------------------------------------------------------------------------------------


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
