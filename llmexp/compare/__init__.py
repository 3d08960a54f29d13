"""Runs → differences with intervals, verdicts in words.

    runs = load_runs([sweep_dir])
    comparison = compare(runs, Options(primary="ttft_s/p95"))
    write(comparison, sweep_dir)            # comparison.csv, .json, .html and plots
    print(comparison.headline)

`compare` is pure. Names are imported when first used: `python -m llmexp.compare --help` must not wait for numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmexp.compare.comparison import compare
    from llmexp.compare.model import Comparison, Options
    from llmexp.compare.output import render, write
    from llmexp.results.run import Run, load_runs

__all__ = ["Comparison", "Options", "Run", "compare", "load_runs", "render", "write"]

_HOMES = {
    "compare.comparison": ("compare",),
    "compare.model": ("Comparison", "Options"),
    "compare.output": ("render", "write"),
    "results.run": ("Run", "load_runs"),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"llmexp.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
