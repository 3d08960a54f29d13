"""Marks that several files share."""

from __future__ import annotations

import pytest

THROUGH_LITELLM = [
    pytest.mark.service,
    pytest.mark.timeout(120),
    # LiteLLM's own, and those of what it imports.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
