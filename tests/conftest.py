"""What holds for every test."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from llmexp.secrets import values

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that runs the tests in the background has its children ignore Ctrl-C, and theirs inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _secrets_of_this_test() -> Iterator[None]:
    """What a test registers as a secret is none for the next."""
    before = set(values._known)
    yield
    if values._known != before:
        values._known, values._pattern = before, None
