"""What holds for every test."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that runs the tests in the background has its children ignore Ctrl-C, and theirs inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
