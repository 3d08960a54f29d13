"""The process above a server's keeper: it kills what is left of the server when somebody killed the keeper.

    the job ── warden ── keeper ── /bin/sh ── the server and all that it starts

The job and one of the other two may be killed, and nothing stays: the keeper notices the end of the job (its pipe ends)
and of the warden (the kernel tells it); the warden notices the end of the keeper, whose orphans come to it. Whoever
kills warden and keeper at once ends the command's first process too, which the kernel sees to, but not what detached
itself from it. The pipes of the job pass through to the keeper; signals are handed on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

from llmexp.endpoints import descendants

KILL_S = 10.0


def main() -> None:
    """Entry of `python -m llmexp.endpoints.warden JOB`: the pid whose death ends all, or 0."""
    job = int(sys.argv[1])
    descendants.adopt()
    command = [sys.executable, "-m", "llmexp.endpoints.keeper", str(os.getpid())]
    keeper = subprocess.Popen(command, start_new_session=True)

    def hand_on(number: int, _frame: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(keeper.pid, number)

    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, hand_on)
    # The pipe must end with the keeper, and the keeper alone says what it has to say.
    for pipe in (0, 1):
        os.close(pipe)
    if job:
        descendants.on_end_of_parent(signal.SIGHUP)
        if os.getppid() != job:
            os.kill(keeper.pid, signal.SIGHUP)
    _await(keeper.pid)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _end_the_rest()


def _await(pid: int) -> None:
    """Until it has ended; orphans that end are collected."""
    while True:
        with suppress(ChildProcessError):
            if os.waitpid(-1, 0)[0] != pid:
                continue
        return


def _end_the_rest() -> None:
    deadline = time.monotonic() + KILL_S
    while time.monotonic() < deadline:
        descendants.send(signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.02)


if __name__ == "__main__":
    main()
