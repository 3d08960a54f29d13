"""Cruelty to whole runs: minutes each. Run with `pytest -m chaos tests/chaos`; `play.py` here plays for longer."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "chaos" in (config.getoption("-m") or ""):
        return
    for item in items:
        if item.get_closest_marker("chaos"):
            item.add_marker(pytest.mark.skip(reason="run with -m chaos"))
