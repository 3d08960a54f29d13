"""Who used the machine: real processes that burn CPU, ours and a stranger's."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import psutil
import pytest

from llmexp.benchmark.host_load import LoadWatch

pytestmark = pytest.mark.service

BURN_S = 1.0
BURN = f"""
import sys, time
while time.process_time() < {BURN_S}: pass
sys.stdin.read()
"""


@contextmanager
def child() -> Iterator[int]:
    """A process of ours that is about to burn `BURN_S` of CPU."""
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE) as burner:
        yield burner.pid
        burner.communicate()


@contextmanager
def stranger() -> Iterator[int]:
    """The same, started by a process that has ended: nobody's child."""
    start = f"""
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", {BURN!r}], stdout=subprocess.DEVNULL).pid)
"""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as pipe:
        said = subprocess.run(
            [sys.executable, "-c", start], stdin=pipe.stdout, stdout=subprocess.PIPE, check=True, text=True
        )
        yield int(said.stdout)
        pipe.communicate()


@pytest.mark.parametrize(("burner", "theirs"), [(child, False), (stranger, True)])
def test_cpu_time_goes_to_who_burnt_it(burner: Callable[[], AbstractContextManager[int]], theirs: bool) -> None:
    watch = LoadWatch("127.0.0.1", 1, ())
    began = time.monotonic()
    with burner() as pid:
        with watch:
            left_s = 0.95 * BURN_S - _cpu_s(pid)
            while _cpu_s(pid) < 0.95 * BURN_S:  # counted in hundredths
                time.sleep(0.02)
        burnt = left_s / ((time.monotonic() - began) * (psutil.cpu_count() or 1))
    assert watch.other_share is not None
    assert watch.client_cpu_s is not None
    if theirs:
        assert watch.other_share > 0.8 * burnt
        assert watch.client_cpu_s < 0.5 * left_s
    else:
        assert watch.client_cpu_s > 0.8 * left_s


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
