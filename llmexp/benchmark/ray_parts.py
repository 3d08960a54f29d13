"""What we use of Ray beyond its public interface, all of it. Each part has a way back where a version has it no more.

Settings go by environment variables (`RAY_…`): a name that Ray does not know is no error there.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

from llmexp.secrets import redact

QUIET: Mapping[str, str] = {
    # Ray runs its workers at niceness 15: stamps would wait for whatever else this machine does.
    "RAY_worker_niceness": "0",
    # One node and a handful of actors need no reports ten times a second.
    "RAY_raylet_report_resources_period_milliseconds": "2000",
    "RAY_raylet_check_gc_period_milliseconds": "2000",
    "RAY_health_check_period_ms": "10000",
    "RAY_metrics_report_interval_ms": "60000",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_enable_metrics_collection": "false",
}
LOOPBACK: Mapping[str, str] = {
    # Ray's switch for desktops whose firewalls ask about every listener: all of its processes stay on loopback.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
COMMON: Mapping[str, str] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_Part = Callable[..., object]
_LOG_LINE = re.compile(rb"\[\d{4}-\d\d-\d\d [\d:,]+ [A-Z] \d+ \d+\] ")
WATCHERS = ("start_api_server", "start_monitor", "start_log_monitor")
"""What Ray starts that works for nobody here. The first is the dashboard's head, which starts without a dashboard too
and asks cloud providers' metadata addresses where it runs; the others read files and ask many times a second.
"""


@contextlib.contextmanager
def without_watchers() -> Iterator[None]:
    """Ray starts none of `WATCHERS` inside. Where it calls them otherwise, it starts them all the same."""
    node = _node_class()
    with contextlib.ExitStack() as stack:
        for name in WATCHERS:
            stack.enter_context(_replaced(node, name, lambda _start: _nothing))
        yield


@contextlib.contextmanager
def without_log_lines() -> Iterator[None]:
    """Keep Ray's own log off stderr: a cluster that refuses us is told in one sentence, not once a second.

    What others write to stderr meanwhile comes afterwards.
    """
    with contextlib.ExitStack() as stack:
        try:
            kept = os.dup(2)
            held = stack.enter_context(tempfile.TemporaryFile())
        except OSError:
            yield
            return
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            held.seek(0)
            lines = [line for line in held.read().splitlines(keepends=True) if not _LOG_LINE.match(line)]
            said = redact(b"".join(lines).decode("utf-8", "surrogateescape"))
            with contextlib.suppress(OSError):
                os.write(kept, said.encode("utf-8", "surrogateescape"))
            os.close(kept)


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Ray heeds the environment as it is now, also where it was imported earlier and has read it."""
    with contextlib.suppress(ImportError, AttributeError):
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined, unused-ignore]

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()
    constants = _constants()
    kept = getattr(constants, "ENABLE_RAY_CLUSTER", None)
    if kept is not None and os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") == "0":
        constants.ENABLE_RAY_CLUSTER = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if kept is not None:
            constants.ENABLE_RAY_CLUSTER = kept  # type: ignore[attr-defined]


@contextlib.contextmanager
def connecting(lock: threading.Lock) -> Iterator[None]:
    """`lock` is held inside while Ray connects, which is when it puts its handlers of signals in place."""

    def locked(connect: _Part) -> _Part:
        def call(*given: object, **named: object) -> object:
            with lock:
                return connect(*given, **named)

        return call

    with _replaced(_raylet(), "CoreWorker", locked):
        yield


@contextlib.contextmanager
def hearing(numbers: Iterable[int]) -> Iterator[None]:
    """Ray's own processes take these signals, also where the thread that starts them leaves them alone.

    Where Ray prepares its processes otherwise, they do not, and are killed when they end.
    """

    def unblocking(prepare: _Part) -> _Part:
        def call(*given: object, **named: object) -> object:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
            return prepare(*given, **named)

        return call

    with _replaced(_utils(), "set_kill_on_parent_death_linux", unblocking):
        yield


@contextlib.contextmanager
def _replaced(owner: object, name: str, by: Callable[[_Part], _Part]) -> Iterator[None]:
    """What `owner` calls by this name is another inside; nothing changes where it has no such name."""
    kept = getattr(owner, name, None)
    if kept is not None:
        setattr(owner, name, by(kept))
    try:
        yield
    finally:
        if kept is not None:
            setattr(owner, name, kept)


def leave_without_goodbye() -> None:
    """Let the process end without Ray's own farewell, which waits for parts that are not there any more, and without
    what its threads would say of them.
    """
    before = threading.excepthook

    def heard(said: threading.ExceptHookArgs) -> None:
        if said.thread is None or not said.thread.name.startswith("ray_"):
            before(said)

    threading.excepthook = heard
    with contextlib.suppress(ImportError, AttributeError):
        from ray._private import worker

        atexit.unregister(worker.shutdown)


def _constants() -> object:
    try:
        from ray._private import ray_constants
    except ImportError:
        return object()
    found: object = ray_constants
    return found


def _raylet() -> object:
    try:
        from ray import _raylet
    except ImportError:
        return object()
    found: object = _raylet
    return found


def _utils() -> object:
    try:
        from ray._private import utils
    except ImportError:
        return object()
    found: object = utils
    return found


def _node_class() -> type:
    try:
        from ray._private.node import Node
    except ImportError:
        return type("NoNode", (), {})
    found: type = Node
    return found


def _nothing(*_args: object, **_options: object) -> None:
    """Stands where Ray starts a watcher."""


@contextlib.contextmanager
def variables(*settings: Mapping[str, str], override: bool = False) -> Iterator[None]:
    """The environment with these, for what is started inside. What a user has set stays, unless overridden."""
    wanted = {name: value for one in settings for name, value in one.items()}
    before = {name: os.environ.get(name) for name in wanted}
    for name, value in wanted.items():
        if override or before[name] is None:
            os.environ[name] = value
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old
