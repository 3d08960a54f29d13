"""Ctrl-C and SIGTERM while something comes to an end: real signals to this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from llmexp.errors import ConfigError, is_interrupt
from llmexp.jobs.signals import SIGNALS, shielded

pytestmark = pytest.mark.service


def send(number: int) -> None:
    """A signal, handled before this returns."""
    os.kill(os.getpid(), number)
    signal.sigtimedwait([], 0)


@pytest.mark.parametrize("number", SIGNALS)
def test_one_signal_waits_and_is_told_afterwards(number: int) -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    done = []
    with shielded() as shield:
        assert not shield.rung
        send(number)
        done.append("recorded")
    assert shield.rung
    assert done == ["recorded"]
    assert [signal.getsignal(one) for one in SIGNALS] == before


@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_ends_it_at_once(second: int) -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    done = []

    def work() -> None:
        with shielded():
            send(signal.SIGTERM)
            send(second)
            done.append("never")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert not done
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_threads_that_get_no_signals_are_left_alone() -> None:
    seen = []

    def work() -> None:
        with shielded() as shield:
            seen.append(shield.rung)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_what_a_library_makes_of_ctrl_c_is_known_for_one() -> None:
    """OmegaConf's clean-up fails on what was half done, and raises that anew without a cause."""

    def clean_up() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            {}["half done"]

    def compose() -> None:
        try:
            clean_up()
        except KeyError as error:
            raise ConfigError(str(error)) from None

    with pytest.raises(ConfigError) as caught:
        compose()
    assert is_interrupt(caught.value)
    with pytest.raises(KeyError) as other:
        {}["a fault"]
    assert not is_interrupt(other.value)


SWALLOWED = """
import os, signal, sys, time
from llmexp import __main__ as door
signal.signal(signal.SIGTERM, door._terminated)
sys.unraisablehook = door._unheard
class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.001)
try:
    last = Last()
    del last
    time.sleep(20)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_that_python_swallows_comes_again() -> None:
    done = subprocess.run([sys.executable, "-c", SWALLOWED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")
