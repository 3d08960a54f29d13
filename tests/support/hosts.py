"""Hosts that differ as hosts do, on one machine: addresses, monotonic clocks and files of their own. Needs root.

    a    10.77.0.1   driver and head of the Ray cluster, this machine's clock
    b    10.77.0.2   a node whose monotonic clock is 50,000 s ahead, without the files below /tmp
    c    10.77.0.3   the same with a clock 20,000 s behind b's, for tests that end a node
    d    10.77.0.4   a node like these, far away: every packet takes 15 ms

Each is a network namespace; a bridge in `a` joins them and leads nowhere else. What runs inside is ended with them.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SUBNET = "10.77.0"
AHEAD_S = {"b": 50_000, "c": 30_000, "d": 20_000}
NUMBERS = {"a": 1, "b": 2, "c": 3, "d": 4}
FAR_MS = {"d": 15.0}
UP_S = 90.0
PORT = 6390


def missing() -> str | None:
    """Why there can be no such hosts here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network and time namespaces need root on Linux"
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return "needs ip (iproute2) and unshare (util-linux)"
    probe = ["unshare", "--net", "--mount", "--time", "--monotonic", "1000", "--fork", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        return "this kernel or container allows no namespaces"
    return None


@dataclass
class Hosts:
    """The hosts while they are there."""

    prefix: str
    directory: Path
    token: str
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    links: list[subprocess.Popen[str]] = field(default_factory=list)
    replaced: dict[str, dict[Path, Path]] = field(default_factory=dict)
    """Host → file → the file that stands in its place there."""

    def address(self, host: str) -> str:
        """Its IPv4 address."""
        return f"{SUBNET}.{NUMBERS[host]}"

    @property
    def head(self) -> str:
        """What `ray.address` takes."""
        return f"{self.address('a')}:{PORT}"

    def command(self, host: str, *command: str) -> list[str]:
        """A command line that runs on this host, with its clock and its files."""
        mounts = "".join(f"mount --bind {there} {here} && " for here, there in self.replaced.get(host, {}).items())
        inside = ["ip", "netns", "exec", f"{self.prefix}{host}"]
        if host == "a":
            return [*inside, *command]
        ahead = str(AHEAD_S[host])
        hide = f'{mounts}mount -t tmpfs tmpfs /tmp && cd / && exec "$@"'
        clock = ["unshare", "--mount", "--time", "--monotonic", ahead, "--boottime", ahead, "--fork"]
        return [*inside, *clock, "sh", "-c", hide, "sh", *command]

    def start(
        self, host: str, *command: str, environment: Mapping[str, str] | None = None, log: str | None = None
    ) -> subprocess.Popen[str]:
        """Start a command on this host. Its output goes to a file of this name, else to pipes."""
        output = subprocess.PIPE if log is None else (self.directory / log).open("w")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_", "AWS_"))}
        process = subprocess.Popen(
            self.command(host, *command),
            cwd=self.directory,
            env={**clean, "HOME": str(self.directory / f"home-{host}"), "COLUMNS": "110", **(environment or {})},
            stdout=output,
            stderr=subprocess.PIPE if log is None else subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        if log is not None and not isinstance(output, int):
            output.close()
        self.started.append(process)
        return process

    @property
    def ray_environment(self) -> dict[str, str]:
        """What Ray's own processes are told."""
        quiet = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_worker_niceness": "0"}
        return quiet | {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}

    def start_ray(self, host: str, *options: str, environment: Mapping[str, str] | None = None) -> None:
        """The head on `a`, a node elsewhere."""
        python = Path(sys.executable).parent
        where = ["--head", f"--port={PORT}", "--include-dashboard=false"] if host == "a" else [f"--address={self.head}"]
        command = [str(python / "ray"), "start", *where, f"--node-ip-address={self.address(host)}", "--num-cpus=2"]
        env = {**self.ray_environment, "PATH": f"{python}:{os.environ['PATH']}", **(environment or {})}
        self.start(host, *command, "--block", "--disable-usage-stats", *options, environment=env, log=f"ray-{host}.log")

    def pids(self, host: str) -> list[int]:
        """Every process on this host."""
        done = subprocess.run(
            ["ip", "netns", "pids", f"{self.prefix}{host}"], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in done.stdout.split()]

    def end(self, host: str) -> None:
        """End every process on this host at once, as if it had lost its power."""
        for _ in range(20):
            pids = self.pids(host)
            if not pids:
                return
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.1)

    def run(
        self,
        *arguments: str,
        module: str = "llmexp",
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """The tool on `a`, with the token and no other setting of Ray."""
        process = self.start_tool(*arguments, module=module, environment=environment)
        out, err = process.communicate(timeout=timeout_s)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start_tool(
        self, *arguments: str, module: str = "llmexp", environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """The same, left running."""
        env = {"RAY_AUTH_TOKEN": self.token, **(environment or {})}
        return self.start("a", sys.executable, "-m", module, *arguments, environment=env)

    def wait_for_nodes(self, count: int) -> None:
        """Until so many nodes are up."""
        ask = (
            "import logging, ray; ray.init(address='auto', logging_level=logging.ERROR, log_to_driver=False)\n"
            "print(sum(node['Alive'] for node in ray.nodes()))"
        )
        deadline = time.monotonic() + UP_S
        while True:
            env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_ADDRESS": self.head}
            process = self.start("a", sys.executable, "-c", ask, environment=env)
            out, err = process.communicate(timeout=UP_S)
            if out.split()[-1:] == [str(count)]:
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"the nodes did not come up: {out}{err}")
            time.sleep(0.5)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _slow_link(one: str, device: str, other: str, delay_ms: float) -> subprocess.Popen[str]:
    """Devices `device` here and `eth0` there, and what carries packets between them."""
    script = str(Path(__file__).with_name("slow_link.py"))
    command = [sys.executable, script, one, device, other, "eth0", str(delay_ms)]
    link = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert link.stdout is not None
    assert link.stdout.readline() == "ready\n"
    return link


@contextmanager
def hosts(directory: Path, names: Sequence[str] = ("a", "b")) -> Iterator[Hosts]:
    """Make the hosts, without Ray; end whatever runs on them, and them, at the end."""
    found = Hosts(f"llx{uuid.uuid4().hex[:5]}", directory, secrets.token_hex(32))
    try:
        for name in names:
            _ip("netns", "add", f"{found.prefix}{name}")
            _ip("-n", f"{found.prefix}{name}", "link", "set", "lo", "up")
            (directory / f"home-{name}").mkdir(parents=True, exist_ok=True)
        main = f"{found.prefix}a"
        _ip("-n", main, "link", "add", "br0", "type", "bridge")
        _ip("-n", main, "addr", "add", f"{found.address('a')}/24", "dev", "br0")
        _ip("-n", main, "link", "set", "br0", "up")
        for name in names[1:]:
            other, end = f"{found.prefix}{name}", f"to-{name}"
            if name in FAR_MS:
                found.links.append(_slow_link(main, end, other, FAR_MS[name]))
            else:
                _ip("-n", main, "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", other)
            _ip("-n", main, "link", "set", end, "master", "br0")
            _ip("-n", main, "link", "set", end, "up")
            _ip("-n", other, "addr", "add", f"{found.address(name)}/24", "dev", "eth0")
            _ip("-n", other, "link", "set", "eth0", "up")
        yield found
    finally:
        for name in reversed(names):
            found.end(name)
        for link in found.links:
            link.kill()
        for process in [*found.started, *found.links]:
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        for name in reversed(names):
            subprocess.run(["ip", "netns", "delete", f"{found.prefix}{name}"], check=False, capture_output=True)


@contextmanager
def cluster(
    directory: Path, *, nodes: Sequence[str] = ("a", "b"), names: Sequence[str] = ("a", "b")
) -> Iterator[Hosts]:
    """The hosts with a Ray cluster over the `nodes` among them."""
    with hosts(directory, names) as found:
        for name in nodes:
            found.start_ray(name)
            if name == "a":
                found.wait_for_nodes(1)
        found.wait_for_nodes(len(nodes))
        yield found
