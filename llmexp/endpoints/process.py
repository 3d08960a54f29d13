"""A child process that serves on loopback and cannot outlive the job that started it.

One pipe, the child's stdin, carries its settings (one JSON line: nothing secret shows in `ps`) and is then its
lifeline: when the last writing end closes, whatever the reason, the child ends. On Linux the kernel kills it besides
when the parent dies, so that a child stuck in a library call goes too. It runs in a session of its own: Ctrl-C in a
terminal reaches the parent alone, which stops the child when it has no more use for it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from llmexp.endpoints import descendants
from llmexp.errors import JobError
from llmexp.secrets import guard_streams, redact

STOP_S = 5.0
"""How long a child may take to end by itself before it is killed."""
_LOG_LINES = 8


@dataclass(frozen=True, slots=True)
class Child:
    """A child that said it is ready."""

    pid: int
    ready: dict[str, object]
    """What it said."""
    status: Callable[[], int | None] = lambda: None
    """Its exit status; None while it runs."""


# --- in the parent ---------------------------------------------------------------------------------------------------


@contextmanager
def serving(module: str, settings: Mapping[str, object], *, log: Path, timeout_s: float) -> Iterator[Child]:
    """`python -m module`, ready to serve; stopped when the block ends, however it ends.

    What the child prints goes to `log`. Raises `JobError` with the log's last lines if it ends early or takes longer
    than `timeout_s`.
    """
    process = start_module(module, log)
    try:
        ready = _hand_over(process, {**settings, "parent": own_pid()}, module, log, timeout_s)
        yield Child(process.pid, ready, process.poll)
    finally:
        _stop(process)
        clean(log)


def clean(log: Path) -> None:
    """Take secrets out of what an ended child wrote past its guarded streams, as libraries in C do."""
    with suppress(OSError):
        said = log.read_text(encoding="utf-8", errors="surrogateescape")
        if (shown := redact(said)) != said:
            log.write_text(shown, encoding="utf-8", errors="surrogateescape")


def start_module(module: str, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """`python -m module` with pipes to it and from it, in a session of its own; what it prints goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    with log.open("ab") as sink:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )


def own_pid() -> int | None:
    """The pid whose death kills the child; None off the main thread, because Linux counts a thread's end as death."""
    return os.getpid() if threading.current_thread() is threading.main_thread() else None


def _hand_over(
    process: subprocess.Popen[bytes], settings: Mapping[str, object], module: str, log: Path, timeout_s: float
) -> dict[str, object]:
    """Sends the settings and returns the child's answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(settings).encode() + b"\n")
    line = _line_within(process.stdout, timeout_s)
    if line is None:
        raise JobError(f"{module} was not ready within {timeout_s:g} s{_tail(log)}")
    if not line.endswith(b"\n"):
        raise JobError(f"{module} ended before it was ready{_tail(log)}")
    ready: dict[str, object] = json.loads(line)
    if "error" in ready:
        raise JobError(str(ready["error"]))
    return ready


def _line_within(stream: IO[bytes], timeout_s: float) -> bytes | None:
    """A line; shorter where the stream ends early, None where time is up."""
    deadline = time.monotonic() + timeout_s
    line = b""
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            return None
        piece = stream.read(65536)
        if not piece:
            break
        line += piece
    return line


def _tail(log: Path) -> str:
    """The end of the log, as it stands below an error message."""
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:] if log.exists() else []
    return "\n".join([f"; the end of {log}:", *(f"  {line}" for line in lines)]) if lines else f"; {log} is empty"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the child: asked by the end of its lifeline, killed when it does not listen or we are interrupted."""
    try:
        if process.stdin is not None:
            process.stdin.close()
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


# --- in the child ----------------------------------------------------------------------------------------------------


class Lifeline:
    """The child's side: its settings, the way to say that it is ready, and the end of the parent."""

    def __init__(self) -> None:
        guard_streams()
        self._answers = os.dup(1)
        os.dup2(2, 1)  # from here on, what any library prints goes to the log
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.settings: dict[str, object] = json.loads(_read_line(0))
        parent = self.settings.pop("parent", None)
        if parent is not None:
            _die_with(parent)

    def ready(self, facts: Mapping[str, object]) -> None:
        """Tells the parent; to be called once."""
        os.write(self._answers, json.dumps(facts).encode() + b"\n")
        os.close(self._answers)

    def watch(self, on_end: Callable[[], object]) -> None:
        """Calls `on_end` in a thread when the parent is gone or wants us to stop."""
        threading.Thread(target=self._wait, args=(on_end,), daemon=True, name="lifeline").start()

    @staticmethod
    def _wait(on_end: Callable[[], object]) -> None:
        while os.read(0, 4096):
            pass
        on_end()


def _read_line(fd: int) -> bytes:
    """Bytes up to a newline, without reading past it."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(fd, 4096)
        if not piece:
            raise SystemExit("no settings: this module is started by llmexp, not by hand")
        line += piece
    return line


def _die_with(parent: int) -> None:
    """Linux: SIGKILL to us when the parent dies. Elsewhere the pipe alone has to do."""
    if sys.platform != "linux":
        return
    descendants.on_end_of_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
