"""Several hosts on one machine: minutes, and root. Run with `pytest -m hosts tests/hosts`."""

from __future__ import annotations

import pytest
from support.hosts import missing


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = "hosts" in (config.getoption("-m") or "")
    why = missing() if asked else "run with -m hosts"
    for item in items:
        if why is not None and item.get_closest_marker("hosts"):
            item.add_marker(pytest.mark.skip(reason=why))
