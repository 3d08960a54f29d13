"""Servers that a command line starts: `model.deployment.kind` is `served`.

A server is kept by a process of its own (`llmexp.endpoints.keeper`, under a warden) that ends its whole tree however we
end. `Servers` keeps it from job to job: one that wants the same command takes over the server of the job before it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO
from urllib.parse import urlsplit

from llmexp.config import Model, Served, credentials
from llmexp.endpoints import command, engine_facts
from llmexp.endpoints.keeper import KILL_S
from llmexp.endpoints.process import own_pid, start_module
from llmexp.errors import ConfigError, JobError
from llmexp.secrets import redact, trimmed

LOG = "server.log"
PORTS = range(18_000, 32_000)
"""Below the ports that Linux gives to outgoing connections, so that none of those takes the one that we chose."""
ATTEMPTS = 4
POLL_S = 0.1
STOP_S = 5.0
"""How long a server may take to end by itself once it has been asked."""
ANSWER_S = 5.0
VERSION_S = 60.0
_TAKEN = ("address already in use", "errno 98", "eaddrinuse", "port is already", "couldn't bind", "could not bind")


def identity(model: Model, host: str = "127.0.0.1") -> str | None:
    """Two models with the same one can use the same server; None where the job starts no server by a command."""
    deployment = model.deployment
    if not isinstance(deployment, Served):
        return None
    return json.dumps(
        [
            command.fill(model, deployment, host=host, port=command.UNFILLED_PORT),
            command.ready(model, deployment, host=host, port=command.UNFILLED_PORT),
            deployment.port,
        ]
    )


@dataclass
class Server:
    """A server that runs, as the job sees it."""

    identity: str
    command: str
    """Without its port, which differs from start to start."""
    address: str
    """`http://HOST:PORT`."""
    started_by: Path
    """The job's directory that has the beginning of its log."""
    _process: subprocess.Popen[bytes] = field(repr=False)
    ready_s: float = 0.0
    """From its start to its first answer."""
    facts: dict[str, object] = field(default_factory=dict)
    _ended: str | None = None
    _sessions: set[int] = field(default_factory=set)
    """Of its processes, by which they are found where the process that keeps them was killed."""

    @property
    def pid(self) -> int:
        """Of the first process that keeps it; the server's own are below it."""
        return self._process.pid

    def ended(self) -> str | None:
        """How it ended, with its last lines; None while it runs."""
        if self._ended is None:
            assert self._process.stdout is not None
            readable, _, _ = select.select([self._process.stdout], [], [], 0)
            if readable:
                self._ended = _epitaph(self._process.stdout.readline())
        return self._ended

    def go_on(self, log: Path) -> None:
        """Let what it writes from here on go to another job's log."""
        assert self._process.stdin is not None
        head = f"[this server was started for another job; the beginning of its log is {self.started_by / LOG}]"
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps({"log": str(log.resolve()), "head": head}).encode() + b"\n")

    def stop(self) -> None:
        """End its whole process tree; returns when nothing of it is left."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(STOP_S + KILL_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        except BaseException:
            # Interrupted again: no more patience, but nothing may be left.
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(KILL_S)
            raise
        finally:
            if process.poll() is not None:
                _read_to_end(process.stdout, KILL_S)
                process.stdout.close()
            if process.returncode != 0:
                self._kill_rest()

    def note_sessions(self) -> None:
        """Remember which sessions its processes are in."""
        import psutil

        with contextlib.suppress(psutil.Error, OSError):
            for child in psutil.Process(self.pid).children(recursive=True):
                self._sessions.add(os.getsid(child.pid))
        self._sessions -= {os.getsid(0), self.pid}

    def _kill_rest(self) -> None:
        """What outlived its keeper."""
        import psutil

        for process in psutil.process_iter() if self._sessions else ():
            with contextlib.suppress(psutil.Error, OSError):
                if os.getsid(process.pid) in self._sessions:
                    process.kill()


def _read_to_end(stream: IO[bytes], seconds: float) -> None:
    """The keeper holds this pipe until its work is done, even where its warden was killed before it."""
    deadline = time.monotonic() + seconds
    while select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0] and stream.read(4096):
        pass


def _epitaph(line: bytes) -> str:
    try:
        told = json.loads(line)
        status, tail = told["ended"], told["tail"]
    except (ValueError, KeyError):
        return "the process that keeps the server was killed"
    if status is None or status == 0:
        how = "ended by itself"
    elif status < 0:
        how = f"was ended by {_signal_name(-status)}"
    else:
        # A shell says so of a child that a signal ended.
        by = f" ({_signal_name(status - 128)})" if 128 < status < 128 + signal.NSIG else ""
        how = f"ended with exit status {status}{by}"
    lines = "".join(f"\n  {line}" for line in tail)
    return f"{how}; {f'its last lines:{lines}' if tail else 'it wrote nothing'}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Servers:
    """The started server of a command's jobs, at most one at a time. A context: nothing is left behind it."""

    def __init__(self) -> None:
        self._server: Server | None = None

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def make_room(self, wanted: str | None) -> None:
        """Stop the server unless it is the one that the next job wants and still serves."""
        server = self._server
        if server is not None and (wanted != server.identity or server.ended() is not None):
            self.stop()

    def serve(self, model: Model, deployment: Served, log_dir: Path, host: str) -> tuple[Server, bool]:
        """The model's server, answering, and whether it was started for this."""
        wanted = identity(model, host)
        assert wanted is not None
        self.make_room(wanted)
        if self._server is not None and _answers(_ready_url(model, deployment, self._server.address), model):
            self._server.go_on(log_dir / LOG)
            return self._server, False
        self.stop()
        self._server = _started(model, deployment, log_dir, host, wanted)
        return self._server, True

    def stop(self) -> None:
        """End the server, if there is one."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()


# --- start -----------------------------------------------------------------------------------------------------------


class _PortTakenError(Exception):
    """Another program listens there."""


def _started(model: Model, deployment: Served, log_dir: Path, host: str, wanted: str) -> Server:
    for attempt in range(ATTEMPTS):
        port = deployment.port or free_port(host)
        if deployment.port and not _is_free(host, port):
            raise JobError(f"model.deployment.port: another program listens on {port}; stop it, or set null")
        try:
            return _start(model, deployment, log_dir, host, port, wanted)
        except _PortTakenError as error:
            if deployment.port or attempt + 1 == ATTEMPTS:
                raise JobError(str(error)) from None
    raise AssertionError("unreachable")


def _start(model: Model, deployment: Served, log_dir: Path, host: str, port: int, wanted: str) -> Server:
    line = command.fill(model, deployment, host=host, port=port)
    log = (log_dir / LOG).resolve()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(f"$ {redact(line)}\n")
    process = start_module("llmexp.endpoints.warden", log_dir / "endpoint.log", str(own_pid() or 0))
    shown = command.fill(model, deployment, host=host, port=command.UNFILLED_PORT)
    server = Server(wanted, shown, f"http://{_in_url(host)}:{port}", log_dir.resolve(), process)
    assert process.stdin is not None
    settings = {
        "command": command.direct(line),
        "log": str(log),
        "stop_s": STOP_S,
        "secret_names": " ".join(_secret_names(model, line)),
        "PATH": command.search_path(),
        "PYTHONPATH": os.environ.get("PYTHONPATH"),
    }
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(settings).encode() + b"\n")
        _await_ready(server, model, deployment, port)
        server.facts = engine_facts.ask(server.address, _key(model))
        if "engine_version" not in server.facts:
            server.facts |= _version(deployment)
    except BaseException:
        server.stop()
        raise
    return server


def _secret_names(model: Model, line: str) -> list[str]:
    """Variables whose values the server knows as secrets: what it prints of them does not go into its log."""
    named = [model.api_key_env, *model.headers_env.values(), *credentials.variables_given(line)]
    return sorted({name for name in named if name})


def _await_ready(server: Server, model: Model, deployment: Served, port: int) -> None:
    """Returns when the server answers. Raises `JobError` with its last lines when it ends or takes too long."""
    url, began = _ready_url(model, deployment, server.address), time.monotonic()
    over = began + model.ready_timeout_s
    while True:
        server.note_sessions()
        if (how := server.ended()) is not None:
            if any(words in how.lower() for words in _TAKEN):
                raise _PortTakenError(f"the server found port {port} taken: it {how}")
            raise JobError(f"the server {how}\n  all of it: {server.started_by / LOG}")
        if _answers(url, model, over - time.monotonic()):
            _check_whose(server, port)
            server.note_sessions()
            server.ready_s = time.monotonic() - began
            return
        if time.monotonic() > over:
            raise JobError(
                f"{url} did not answer within {model.ready_timeout_s:g} s (model.ready_timeout_s)"
                f"{_tail_of(server.started_by / LOG)}"
            )
        time.sleep(POLL_S)


def _tail_of(log: Path) -> str:
    lines = log.read_bytes()[-4096:].decode(errors="replace").splitlines()[-8:]
    return "".join([f"; the end of {log}:", *(f"\n  {line}" for line in lines)])


def _ready_url(model: Model, deployment: Served, address: str) -> str:
    parts = urlsplit(address)
    ready = command.ready(model, deployment, host=parts.hostname or "", port=parts.port or 0)
    return ready if ready.startswith(("http://", "https://")) else f"{address}/{ready.lstrip('/')}"


def _answers(url: str, model: Model, within_s: float = ANSWER_S) -> bool:
    """Whether the server is ready. One that asks for a key is: whether ours is right shows in the load."""
    status = status_of(url, model, max(POLL_S, min(within_s, ANSWER_S)))
    return status is not None and (200 <= status < 300 or status in (401, 403))


def status_of(url: str, model: Model, timeout_s: float) -> int | None:
    """What GET answers; None when nobody does."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = connect(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request("GET", f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}", headers=_key(model))
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _key(model: Model) -> dict[str, str]:
    key = os.environ.get(model.api_key_env) if model.api_key_env else None
    return {"Authorization": f"Bearer {key}"} if key else {}


# --- ports -----------------------------------------------------------------------------------------------------------


def free_port(host: str) -> int:
    """A port that nobody listens on."""
    draw = random.SystemRandom()
    for _ in range(200):
        port = draw.choice(PORTS)
        if _is_free(host, port):
            return port
    raise ConfigError("model.deployment.port: found no free port; name one")


def _is_free(host: str, port: int) -> bool:
    """Whether a server could listen there, on this address and on all of them."""
    for address in dict.fromkeys((host, "0.0.0.0")):  # noqa: S104 -- nothing listens: it is bound and let go
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((address, port))
            except OSError:
                return False
    return True


def _check_whose(server: Server, port: int) -> None:
    """Raises `_PortTakenError` when another program took the port before our server did, and answers in its place."""
    import psutil

    try:
        sockets = psutil.net_connections(kind="tcp")
        keeper = psutil.Process(server.pid)
        ours = {keeper.pid, *(child.pid for child in keeper.children(recursive=True))}
    except psutil.Error:
        return
    found: set[int] = set()
    for one in sockets:
        if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid is not None:
            found.add(one.pid)
    if not found or found & ours or any(_is_proxy(pid) for pid in found):
        return
    raise _PortTakenError(f"another program (pid {min(found)}) took port {port} before the server did")


def _is_proxy(pid: int) -> bool:
    """A container engine listens for its containers."""
    import psutil

    with contextlib.suppress(psutil.Error):
        return any(word in psutil.Process(pid).name() for word in ("docker", "rootless", "podman", "pasta", "conmon"))
    return False


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


# --- facts -----------------------------------------------------------------------------------------------------------


def facts(server: Server, deployment: Served, *, fresh: bool) -> dict[str, object]:
    """What is logged with a run: settings, command, what the server says of itself, and whether this job started it."""
    settings = {key: value for key, value in deployment.settings.items() if value not in (None, "")}
    return {
        **settings,
        **server.facts,
        "command": server.command,
        "fresh_server": fresh,
        "server_ready_s": round(server.ready_s, 3),
    }


def _version(deployment: Served) -> Mapping[str, object]:
    """The last line that the version command prints: what comes before it are warnings."""
    if deployment.version is None:
        return {}
    environment = {**os.environ, "PATH": command.search_path()}
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", deployment.version],
            capture_output=True,
            text=True,
            check=False,
            timeout=VERSION_S,
            stdin=subprocess.DEVNULL,
            env=environment,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    lines = [line.strip() for line in (done.stdout or done.stderr).splitlines() if line.strip()]
    return {"engine_version": trimmed(lines[-1], 200)} if done.returncode == 0 and lines else {}
