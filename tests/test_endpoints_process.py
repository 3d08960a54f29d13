"""A child that serves cannot outlive its parent: real processes, ended in every way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from llmexp.endpoints.process import serving
from llmexp.errors import JobError

pytestmark = pytest.mark.service

SIMULATOR = "llmexp.endpoints.simulator"
PARENT = """
import sys, threading, time, urllib.request
from pathlib import Path
from llmexp.endpoints.process import serving

def serve():
    with serving({module!r}, {{}}, log=Path({log!r}), timeout_s=20) as child:
        print(child.pid, flush=True)
        try:
            {body}
        except KeyboardInterrupt:
            with urllib.request.urlopen(child.ready["address"] + "/health", timeout=5) as response:
                print("still serving", response.status, flush=True)
            raise

{start}
"""


def ended(pid: int, within_s: float = 5.0) -> bool:
    """Whether a process is gone, or a zombie that nobody has collected."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


@contextmanager
def parent(folder: Path, body: str, start: str = "serve()") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process in a group of its own that serves a simulator; (it, the simulator's pid)."""
    script = PARENT.format(module=SIMULATOR, log=str(folder / "endpoint.log"), body=body, start=start)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def test_it_ends_with_the_block(tmp_path: Path) -> None:
    with serving(SIMULATOR, {}, log=tmp_path / "endpoint.log", timeout_s=20) as child:
        assert psutil.pid_exists(child.pid)
        assert child.ready["address"].startswith("http://127.0.0.1:")
        began = time.monotonic()
    assert ended(child.pid, 0.1)
    assert time.monotonic() - began < 3


def test_it_ends_with_an_exception(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        serving(SIMULATOR, {}, log=tmp_path / "endpoint.log", timeout_s=20) as child,
    ):
        print(1 / 0)
    assert ended(child.pid, 0.1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_when_the_parent_is_killed(number: signal.Signals, tmp_path: Path) -> None:
    with parent(tmp_path, "time.sleep(60)") as (process, child):
        process.send_signal(number)
        assert ended(child)


def test_it_ends_with_a_parent_that_started_it_in_a_thread(tmp_path: Path) -> None:
    """There the kernel's signal is not used; the thread's end alone does not end the child."""
    start = "threading.Thread(target=serve).start(); time.sleep(60)"
    with parent(tmp_path, "time.sleep(60)", start) as (process, child):
        assert not ended(child, 0.3)
        process.kill()
        assert ended(child)


def test_ctrl_c_reaches_the_parent_first(tmp_path: Path) -> None:
    with parent(tmp_path, "time.sleep(60)") as (process, child):
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=10)
        assert ended(child, 0.5)
    assert output.strip() == "still serving 200"


def test_it_ends_when_the_parent_exits_without_cleaning_up(tmp_path: Path) -> None:
    with parent(tmp_path, "import os; os._exit(3)") as (process, child):
        assert process.wait(timeout=10) == 3
        assert ended(child)


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    with serving(SIMULATOR, {}, log=tmp_path / "endpoint.log", timeout_s=20) as child:
        os.kill(child.pid, signal.SIGSTOP)
        began = time.monotonic()
    assert ended(child.pid, 0.1)
    assert time.monotonic() - began < 10


def test_a_child_that_is_too_slow_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(JobError, match=r"not ready within 0\.001 s"),
        serving(SIMULATOR, {}, log=tmp_path / "endpoint.log", timeout_s=0.001),
    ):
        pytest.fail("it cannot be ready")
    assert not [process for process in psutil.Process().children() if process.status() != psutil.STATUS_ZOMBIE]


def test_a_child_that_ends_early_shows_its_log(tmp_path: Path) -> None:
    with (
        pytest.raises(JobError, match=r"(?s)ended before it was ready.*endpoint\.log.*ConfigError: failure"),
        serving(SIMULATOR, {"failure": "odd"}, log=tmp_path / "endpoint.log", timeout_s=20),
    ):
        pytest.fail("it cannot be ready")


def test_settings_do_not_show_in_the_process_list(tmp_path: Path) -> None:
    secret = "wJalrXUtnFEMI"
    settings = {"aws": ["AKIATEST", secret, None]}
    with serving(SIMULATOR, settings, log=tmp_path / "endpoint.log", timeout_s=20) as child:
        process = psutil.Process(child.pid)
        assert secret not in " ".join(process.cmdline())
        assert secret not in str(process.environ())
