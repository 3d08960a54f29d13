"""The notebook of the documentation, cell by cell, as a person runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"
SHOWN = """
import ast
def show(source):
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), globals())
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), globals())
        page = getattr(value, "_repr_html_", None)
        print("PAGE" if page and "iframe" in page() else repr(value))
"""


@pytest.mark.e2e
def test_every_cell_runs_and_shows_something(tmp_path: Path) -> None:
    cells = [
        "".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"
    ]
    program = SHOWN + "\n".join(f"show({cell!r})" for cell in cells)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "('finished', " in done.stdout
    assert done.stdout.count("PAGE") == 2
    assert "concurency: unknown key; did you mean concurrency?" in done.stdout
