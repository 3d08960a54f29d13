"""Who else uses a machine while a load runs: the endpoint, if it is here, and everybody else.

Reads CPU times before and after, so that watching costs nothing in between.
"""

from __future__ import annotations

import contextlib
import os
import time


class LoadWatch:
    """A context that compares the machine's CPU time with that of our own processes and the endpoint's."""

    def __init__(self, host: str, port: int, endpoint_pids: tuple[int, ...], ours: tuple[int, ...] = ()) -> None:
        """`ours`: processes that are the client's with all below them; none: this one."""
        self._ours = ours or (os.getpid(),)
        self._host = host
        self._port = port
        self._pids = endpoint_pids
        self._cores = 1
        self._before: dict[str, float] = {}
        self.other_share: float | None = None
        """Share of all cores that neither we nor the endpoint used, of what was busy in between."""
        self.endpoint_share: float | None = None
        """Share of all cores that the endpoint used, when it runs on this machine; None otherwise."""
        self.client_cpu_s: float | None = None

    def __enter__(self) -> LoadWatch:
        import psutil

        self._cores = len(psutil.cpu_times(percpu=True))
        if not self._pids:
            self._pids = _listeners(self._host, self._port)
        self._before = self._read()
        return self

    def __exit__(self, *_exc: object) -> None:
        after = self._read()
        spent = {name: after[name] - self._before[name] for name in after}
        total = spent["total"]
        if not after["idle"]:
            return  # this system does not tell
        others = total - spent["idle"] - spent["ours"] - spent["endpoint"]
        self.other_share = max(0.0, others / total)
        self.endpoint_share = spent["endpoint"] / total if self._pids else None
        self.client_cpu_s = spent["ours"]

    def _read(self) -> dict[str, float]:
        import psutil

        # A tickless Linux counts idle time exactly, but busy time by who runs when the clock ticks: if a load wakes by
        # timers, the columns sum to 10 % more or less than went by. Busy is the clock's time less the idle one.
        times = psutil.cpu_times()
        endpoint = {pid for root in self._pids for pid in _tree(root)}
        ours = {pid for root in self._ours for pid in _tree(root)} - endpoint
        return {
            "total": time.monotonic() * self._cores,
            "idle": times.idle + getattr(times, "iowait", 0.0),
            "ours": sum(map(_cpu_s, ours)),
            "endpoint": sum(map(_cpu_s, endpoint)),
        }


def _tree(pid: int) -> list[int]:
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    return []


def _cpu_s(pid: int) -> float:
    import psutil

    with contextlib.suppress(psutil.Error):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    return 0.0


def _listeners(host: str, port: int) -> tuple[int, ...]:
    """Processes of this machine that listen where the target is, when the target is this machine."""
    import psutil

    if host not in ("localhost", "::1") and not host.startswith("127."):
        return ()
    found: set[int] = set()
    with contextlib.suppress(psutil.Error):
        found = {
            c.pid
            for c in psutil.net_connections(kind="tcp")
            if c.status == psutil.CONN_LISTEN and c.pid and c.laddr and c.laddr.port == port
        }
    return tuple(found)
