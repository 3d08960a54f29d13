"""Ray: started on this machine or joined elsewhere, asked whether it lives, restarted, ended.

Ray is started once per process and kept for all jobs of a sweep. In local mode it joins no other Ray of this host,
listens on loopback alone and takes only calls that carry a token of its own, which lies in a private folder.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp.benchmark import ray_parts
from llmexp.config import Ray
from llmexp.config.places import socket_folder
from llmexp.errors import ConfigError, JobError, leave_at_once
from llmexp.secrets import register

if TYPE_CHECKING:
    import psutil

ATTEMPTS = 3
START_S = 90.0
SIGNALS_S = 0.005
"""A signal that came while Ray starts is answered so soon, but for the moment in which it connects."""
HELD_BACK = frozenset({signal.SIGTERM})
"""Ray puts a handler of its own below Python's, which has the process aborted after 3 s. No thread takes such a signal
before ours is back in its place."""
STOP_S = 15.0
COMING_S = 3.0
"""One that is interrupted while it starts may take so long to come up."""
DEAD_S = 2.0
"""One that is dead or hangs gets no longer to say goodbye."""
LOOK_S = 1.0
"""How often it is looked whether Ray's processes live while something is waited for."""
DEAD_FOR_S = 5.0
"""A process of Ray's may be stopped for so long."""
HELD_S = 60.0
"""Ray connects with Python's lock held. Where one of its processes is stopped just then, nothing of ours runs any more,
Ctrl-C included: after so long the process ends itself and says where it hung."""
REACH_S = 3.0
CORE_PROCESSES = ("gcs_server", "raylet")
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
log = logging.getLogger("llmexp")


# --- start and end ---------------------------------------------------------------------------------------------------


class _Keeper(threading.Thread):
    """Starts Ray, and lives as long as Ray does: Linux ends Ray's processes with the thread that started them.

    The main thread, which takes the signals, can so wait with a limit.
    """

    def __init__(self, start: Callable[[], None]) -> None:
        super().__init__(name="ray", daemon=True)
        self._start_ray = start
        self.error: BaseException | None = None
        self.given_up = False
        """Another one takes its place: the Ray that it might find when it comes to itself is not its own."""
        self.connecting = threading.Lock()
        """Held while Ray puts its handler of signals in place of ours."""
        self.started = threading.Event()
        self.stopping = threading.Event()
        self.ended = threading.Event()

    def run(self) -> None:
        import ray

        leave_signals_to_main_thread()
        try:
            with ray_parts.connecting(self.connecting):
                self._start_ray()
        except BaseException as error:  # noqa: BLE001 -- handed to the thread that waits
            self.error = error
        self.started.set()
        self.stopping.wait()
        if not self.given_up:
            with contextlib.suppress(Exception):
                ray.shutdown()
        self.ended.set()


@dataclass
class _Running:
    """The Ray that this process uses."""

    asked: Ray
    keeper: _Keeper | None
    """None: somebody else started it in this process; it is used and left."""
    folder: Path | None = None
    processes: list[psutil.Process] = field(default_factory=list)
    """What it started, where it is ours."""

    @property
    def core(self) -> list[psutil.Process]:
        """The processes without which it is dead."""
        return _core(self.processes)


class _ThisProcess:
    """A process uses one Ray at a time."""

    running: _Running | None = None


_process = _ThisProcess()


def ensure_ray(asked: Ray) -> None:
    """Have the Ray that the config names: start it, join it, or start it anew where it died."""
    running = _process.running
    if running is not None and is_initialized():
        same = (running.asked.kind, running.asked.address) == (asked.kind, asked.address)
        if running.keeper is None or (same and alive()):
            return
        if same:
            log.warning("Ray has died; it is started again")
        stop_ray()
    if is_initialized():
        _process.running = _Running(asked, None)
    elif asked.kind == "local":
        _process.running = _started(asked)
    else:
        _process.running = _joined(asked)


def is_initialized() -> bool:
    """Whether this process uses a Ray. It is not imported for that: it reads its environment when it is."""
    module = sys.modules.get("ray")
    return module is not None and bool(module.is_initialized())


def alive() -> bool:
    """Whether Ray can be used; asks no part of Ray that might not answer."""
    running = _process.running
    if running is None or not is_initialized():
        return False
    if running.processes:
        return len(running.core) == len(CORE_PROCESSES) and all(map(_lives, running.core))
    import ray

    return running.keeper is None or _answers(ray.get_runtime_context().gcs_address)


def session() -> object:
    """Stands for the Ray that runs now; another one after a restart."""
    return _process.running


def stop_ray() -> None:
    """End the Ray that `ensure_ray` started, or leave the one that it joined."""
    limit_s = STOP_S if alive() else DEAD_S
    running, _process.running = _process.running, None
    if running is None or running.keeper is None:
        return
    running.keeper.stopping.set()
    try:
        if not running.keeper.ended.wait(limit_s):
            log.warning("Ray did not end within %.0f s: its processes are killed", limit_s)
    finally:  # an interrupt here must not leave what nobody knows of any more
        _end(running.processes)
        if running.folder is not None:
            shutil.rmtree(running.folder, ignore_errors=True)


atexit.register(stop_ray)


def _started(asked: Ray) -> _Running:
    """Ray on this machine, for this process."""
    options = _options()
    for attempt in range(ATTEMPTS):
        # Ray opens its own folder to everybody, so it gets one inside.
        folder, before = socket_folder(), _children()

        def start(folder: Path = folder) -> None:
            import ray

            with ray_parts.heeded(), ray_parts.without_watchers(), ray_parts.hearing(HELD_BACK):
                ray.init(
                    address="local",
                    include_dashboard=False,
                    num_cpus=os.cpu_count(),
                    _temp_dir=str(folder / "r"),
                    **options,
                )

        with (
            ray_parts.variables(ray_parts.COMMON, ray_parts.QUIET, ray_parts.LOOPBACK),
            ray_parts.variables(_own_token(folder), override=True),
        ):
            error = _wait(keeper := _Keeper(start), before)
        if error is None:
            return _Running(asked, keeper, folder, _since(before))
        _give_up(keeper, before)
        log.warning("Ray did not start: %s", error)
        if attempt + 1 == ATTEMPTS:
            raise JobError(f"Ray did not start on this machine: {error}. Its logs are in {folder}") from error
        shutil.rmtree(folder, ignore_errors=True)
    raise AssertionError


def _give_up(keeper: _Keeper, before: list[psutil.Process]) -> None:
    """A start that failed or hangs: its processes are ended, which frees the thread that waits for them.

    Ray gives a busy machine 30 s, then raises a bare Exception and leaves behind what it had started.
    """
    keeper.given_up = not keeper.started.is_set()
    if keeper.given_up:
        _end(_since(before))
    keeper.stopping.set()
    keeper.ended.wait(STOP_S)
    _end(_since(before))


def _joined(asked: Ray) -> _Running:
    """The cluster that `ray.address` names."""
    if asked.address is not None and asked.address.startswith("ray://"):
        raise ConfigError(
            f"ray.address: Ray Client cannot time other hosts, got '{asked.address}'; run the command on a node of the "
            "cluster and give HOST:PORT of its head, or auto"
        )
    if asked.address is not None and ":" in asked.address and not _answers(asked.address):
        raise ConfigError(
            f"ray.address: nothing answers at {asked.address}; start it with `ray start --head`, or mend the address"
        )
    with ray_parts.variables(ray_parts.COMMON, _token_at_hand()), ray_parts.without_log_lines():
        keeper = _Keeper(lambda: _join(asked))
        error = _wait(keeper)
    if error is not None:
        keeper.stopping.set()
        raise ConfigError(_refusal(asked, error)) from error
    return _Running(asked, keeper)


def _join(asked: Ray) -> None:
    import ray

    with ray_parts.heeded():
        ray.init(address=asked.address, **_options())


def _wait(keeper: _Keeper, before: list[psutil.Process] | None = None) -> BaseException | None:
    """Let it start; what went wrong. `before`: this process's children, where it starts more."""
    faulthandler.dump_traceback_later(HELD_S, exit=True, file=2)
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    keeper.start()
    began = looked = lived = time.monotonic()
    try:
        while not keeper.started.wait(SIGNALS_S):
            if signal.sigpending() & HELD_BACK and keeper.connecting.acquire(blocking=False):
                try:
                    _take_signals(heard)
                finally:
                    keeper.connecting.release()
                signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
            now = time.monotonic()
            if now - looked > LOOK_S:
                looked = now
                faulthandler.dump_traceback_later(HELD_S, exit=True, file=2)
                if before is None or all(map(_lives, _core(_since(before)))):
                    lived = now
                elif now - lived > DEAD_FOR_S:
                    return TimeoutError("one of its processes died or was stopped meanwhile")
            if now - began > START_S:
                return TimeoutError(f"it was not up within {START_S:.0f} s")
        _take_signals(heard)
    except BaseException:
        # Half started, it is let come up and then ended by its thread; a process that does not wait so long takes it
        # along. What connects to a Ray that was killed is ended by Ray after a minute, or crashes.
        keeper.stopping.set()
        signal.alarm(0)  # where a thread of somebody else's has run into Ray's handler
        try:
            keeper.ended.wait(COMING_S)
        finally:
            if not keeper.ended.is_set():
                ray_parts.leave_without_goodbye()
                leave_at_once()
        raise
    finally:
        faulthandler.cancel_dump_traceback_later()
        _take_signals(heard)
    return keeper.error


def leave_signals_to_main_thread() -> None:
    """No thread but the main one takes `HELD_BACK`: for those that may live while Ray starts. What the calling thread
    starts, threads and processes, leaves them alone too.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)


def _take_signals(heard: set[int]) -> None:
    """Our handlers stand where Ray put its own, and what has come meanwhile is answered: this raises then."""
    if threading.current_thread() is threading.main_thread():
        for number in HELD_BACK:
            signal.signal(number, signal.getsignal(number) or signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, heard)


def _options() -> dict[str, object]:
    return {"configure_logging": True, "logging_level": logging.ERROR, "log_to_driver": False}


def _own_token(folder: Path) -> dict[str, str]:
    """A token that only this Ray takes, in a file that only this user reads."""
    path = folder / "token"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token := secrets.token_hex(32))
    register(token)
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


def _token_at_hand() -> dict[str, str]:
    """Have Ray use the token that this user has; clusters without authentication do not mind."""
    named = any(os.environ.get(name) for name in TOKEN_VARIABLES)
    for path in filter(None, (os.environ.get("RAY_AUTH_TOKEN_PATH"), str(_default_token()))):
        with contextlib.suppress(OSError, ValueError):
            register(Path(path).read_text(encoding="utf-8").strip())
    return {"RAY_AUTH_MODE": "token"} if named or _default_token().exists() else {}


def _default_token() -> Path:
    return Path.home() / ".ray" / "auth_token"


def _refusal(asked: Ray, error: BaseException) -> str:
    where = asked.address or "auto"
    said = next(iter(str(error).splitlines()), "") or type(error).__name__
    if where == "auto":
        hint = "start one with `ray start --head`, or name the HOST:PORT of its head"
    elif _token_at_hand():
        hint = "its Ray may want another token than the one in RAY_AUTH_TOKEN or ~/.ray/auth_token"
    else:
        hint = "if it uses token authentication, put its token into RAY_AUTH_TOKEN or ~/.ray/auth_token"
    return f"ray.address: cannot join the cluster at {where}: {said}; {hint}"


# --- processes -------------------------------------------------------------------------------------------------------


def _children() -> list[psutil.Process]:
    import psutil

    return psutil.Process().children(recursive=True)


def _since(before: list[psutil.Process]) -> list[psutil.Process]:
    """Children that were not there before."""
    return [child for child in _children() if child not in before]


def _core(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if _name(process) in CORE_PROCESSES]


def _name(process: psutil.Process) -> str:
    import psutil

    with contextlib.suppress(psutil.Error):
        return process.name()
    return ""


_NO_LIFE = ("zombie", "dead", "stopped")
"""States of a process that nobody can use: psutil's words."""


def _lives(process: psutil.Process) -> bool:
    import psutil

    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() not in _NO_LIFE
    return False


def _end(processes: list[psutil.Process]) -> None:
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S):
            return True
    except (OSError, ValueError):
        return False
