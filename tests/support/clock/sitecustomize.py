"""A wall clock that jumps: what `time.time` says moves by CHAOS_CLOCK_JUMP_S once the real time passes CHAOS_CLOCK_AT.

Put first on PYTHONPATH, so that every Python process of a command has the same false clock, Ray's included. The
monotonic clock, on which everything is measured, does not jump on any machine.
"""

import os
import time

_AT, _JUMP_S = float(os.environ["CHAOS_CLOCK_AT"]), float(os.environ["CHAOS_CLOCK_JUMP_S"])
_time, _time_ns = time.time, time.time_ns


def _false() -> float:
    now = _time()
    return now + _JUMP_S if now > _AT else now


def _false_ns() -> int:
    now = _time_ns()
    return now + int(_JUMP_S * 1e9) if now > _AT * 1e9 else now


time.time, time.time_ns = _false, _false_ns
