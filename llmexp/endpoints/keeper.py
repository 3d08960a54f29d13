"""The process that keeps a started server: it starts the command, takes its output, and ends its whole process tree.

It stands between the job and the server, in a session of its own, and outlives the job by as long as it takes to clean
up. Every descendant of the command, however often it forks or detaches itself, stays its descendant: on Linux orphans
come to it. It begins to clean up when the pipe from the job ends or the kernel says that its parent is gone
(`llmexp.endpoints.warden`, which cleans up in its place should it be killed itself).

Its stdin holds JSON lines: the settings, then `{"log": path, "head": text}` for each job that goes on with the server.
Its stdout answers with one line: `{"ended": exit status, "tail": last lines}`, when the server ends by itself.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from llmexp import secrets
from llmexp.endpoints import descendants

KILL_S = 10.0
TAIL_LINES = 12
LOG_BYTES = 64 * 2**20
"""A log is cut there: a server that repeats one line for ever must not fill the disk."""
_TAIL_BYTES = 2**14
LONGEST_LINE, HELD_BACK = 2**16, 2**14
"""Bytes of a line that wait for its end, and how many of those that do not may hold the beginning of a secret."""
_TICK_S = 0.25


class Log:
    """The server's output in a file, without secrets, and its last lines."""

    def __init__(self, path: Path, environment: Mapping[str, str], secret_names: Iterable[str] = ()) -> None:
        """`secret_names`: variables that hold a secret, whatever they are called."""
        secrets.learn(environment)
        secrets.register(*(environment.get(name, "").strip() for name in secret_names))
        self._pending = b""
        self._tail = b""
        self._open(path)

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._room = LOG_BYTES

    def move(self, path: Path, head: str) -> None:
        """Go on in another file, which begins with a line of ours."""
        self.flush()
        self._file.close()
        self._open(path)
        self._write(head.encode() + b"\n")

    def take(self, piece: bytes) -> None:
        """Bytes as they come; what a secret may straddle waits for the end of its line."""
        self._pending += piece
        whole, newline, rest = self._pending.rpartition(b"\n")
        if newline:
            self._pending = rest
            self._write(self._clean((whole if self._room > 0 else _end_of(whole)) + newline))
        elif len(self._pending) > LONGEST_LINE:
            clean = self._clean(self._pending)
            self._write(clean[:-HELD_BACK])
            self._pending = clean[-HELD_BACK:]

    def flush(self) -> None:
        """Write what has no end of line yet."""
        self._write(self._clean(self._pending))
        self._pending = b""

    def tail(self) -> list[str]:
        """The last lines."""
        text = (self._tail + self._clean(self._pending)).decode(errors="replace")
        return [line.rstrip()[:500] for line in re.split(r"[\r\n]+", text) if line.strip()][-TAIL_LINES:]

    def _clean(self, data: bytes) -> bytes:
        return secrets.redact(data.decode(errors="surrogateescape")).encode(errors="surrogateescape")

    def _write(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        if not data or self._room <= 0:
            return
        self._room -= len(data)
        with suppress(OSError):  # a full disk costs the log, not the server
            self._file.write(data if self._room > 0 else b"\n[the log is cut here: it has reached its largest size]\n")


class Keeper:
    """One server and everything that it starts."""

    def __init__(self, settings: Mapping[str, str | float | None]) -> None:
        environment = _environment(settings)
        self._log = Log(Path(str(settings["log"])), os.environ, str(settings["secret_names"]).split())
        self._control = b""
        self._stop_s = float(settings["stop_s"] or 0)
        self._wake, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self._asked = 0
        """How often we were told to stop: the second time there is no patience left."""
        for number in (signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, _ignore)  # a handler, not SIG_IGN, which the server would inherit
        signal.signal(signal.SIGTERM, self._terminated)
        signal.signal(signal.SIGHUP, self._orphaned)
        self._status: int | None = None
        self._gone = False
        self._root = subprocess.Popen(
            ["/bin/sh", "-c", str(settings["command"])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            preexec_fn=_die_with_us,  # noqa: PLW1509 -- this process has one thread
        )
        assert self._root.stdout is not None
        self._output: int | None = self._root.stdout.fileno()
        os.set_blocking(self._output, False)

    def _terminated(self, _signal: int, _frame: object) -> None:
        self._asked += 1

    def _orphaned(self, _signal: int, _frame: object) -> None:
        self._asked = max(1, self._asked)

    def run(self) -> None:
        """Until we are asked to stop, or the server has ended by itself."""
        while not self._asked and not self.over:
            self._wait(_TICK_S)
        if not self._asked:
            self._drain()
            self._tell(ended=self._status, tail=self._log.tail())
        self.end()

    @property
    def over(self) -> bool:
        """Whether the server ended: failed, or nothing is left of it. A daemon's first process ends well."""
        return self._gone or (self._status is not None and self._status != 0)

    def end(self) -> None:
        """End every descendant: asked first, killed then."""
        descendants.send(signal.SIGTERM)
        self._until_gone(self._stop_s, patient=True)
        deadline = time.monotonic() + KILL_S
        while not self._gone and time.monotonic() < deadline:
            descendants.send(signal.SIGKILL)
            self._until_gone(0.05, patient=False)
        self._drain()
        self._log.flush()

    def _until_gone(self, seconds: float, *, patient: bool) -> None:
        deadline, asked = time.monotonic() + seconds, self._asked
        while not self._gone and (left := deadline - time.monotonic()) > 0:
            if patient and self._asked > max(asked, 1):
                return
            self._wait(min(left, _TICK_S))

    # -- what happens -------------------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        watched = [self._wake]
        watched += [] if self._asked else [0]
        watched += [] if self._output is None else [self._output]
        readable, _, _ = select.select(watched, [], [], seconds)
        if self._wake in readable:
            os.read(self._wake, 4096)
        if 0 in readable:
            self._listen()
        if self._output in readable:
            self._take()
        self._reap()

    def _listen(self) -> None:
        """A line of the job, or the end of its pipe."""
        piece = os.read(0, 65536)
        if not piece:
            self._asked += 1
            return
        *lines, self._control = (self._control + piece).split(b"\n")
        for line in lines:
            order = json.loads(line)
            self._log.move(Path(order["log"]), order["head"])

    def _take(self) -> bool:
        if self._output is None:
            return False
        try:
            piece = os.read(self._output, 65536)
        except BlockingIOError:
            return False
        if not piece:
            self._output = None
            return False
        self._log.take(piece)
        return True

    def _drain(self) -> None:
        """What the server wrote last."""
        deadline = time.monotonic() + 1.0
        while self._take() and time.monotonic() < deadline:
            pass

    def _reap(self) -> None:
        """Collect who has ended, orphans too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._gone = True
                return
            if not pid:
                return
            if pid == self._root.pid:
                self._status = self._root.returncode = os.waitstatus_to_exitcode(status)

    @staticmethod
    def _tell(**facts: object) -> None:
        with suppress(OSError):
            os.write(1, json.dumps(facts).encode() + b"\n")


def _end_of(lines: bytes) -> bytes:
    """As many whole lines as the tail has room for."""
    end = lines[-_TAIL_BYTES:]
    return end[end.find(b"\n") + 1 :]


def _ignore(_signal: int, _frame: object) -> None:
    """Wake up, and nothing else."""


def _environment(settings: Mapping[str, str | float | None]) -> dict[str, str]:
    """The user's own: what starting this module added is taken back."""
    environment = dict(os.environ)
    for name in ("PYTHONPATH", "PATH"):
        value = settings[name]
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = str(value)
    return environment


def _die_with_us() -> None:
    """In the child, before the command: whoever kills this keeper kills the server."""
    descendants.on_end_of_parent(signal.SIGKILL)


def main() -> None:
    """Entry of `python -m llmexp.endpoints.keeper WARDEN`: the pid of its parent."""
    secrets.guard_streams()
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 1)
        if not piece:
            raise SystemExit("no settings: this module is started by llmexp, not by hand")
        line += piece
    settings: dict[str, str | float | None] = json.loads(line)
    descendants.adopt()
    keeper = Keeper(settings)
    descendants.on_end_of_parent(signal.SIGHUP)
    if os.getppid() != int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGHUP)
    keeper.run()


if __name__ == "__main__":
    main()
