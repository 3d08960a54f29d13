"""A round of each kind, a full disk, and networks that must stay silent."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import chaos, chaos_checks
from support.chaos_kinds import KINDS

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
SMALL = (
    "model=simulated",
    "model.deployment.profile.inter_token.mean_s=0.005",
    "run.max_requests=6",
    "run.warmup_requests=1",
)


@pytest.mark.parametrize("seed", range(len(KINDS)), ids=[kind.name for kind in KINDS])
def test_what_must_hold_holds(seed: int, tmp_path: Path) -> None:
    played = chaos.play(tmp_path, seed)
    assert played.broken == [], played


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=False)
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("size", ["64k", "110k", "400k"])
def test_a_full_disk_costs_files_and_never_the_words(size: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size) as disk:
        done = subprocess.run(
            [sys.executable, "-m", "llmexp", "-m", *SMALL, "concurrency=1,2", "tracking=none"],
            cwd=disk,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        folders = list(disk.glob("outputs/*/*/[0-9]*"))
        found = [problem for folder in folders for problem in chaos_checks.job_problems(folder, asked=6)]
        assert [problem for problem in found if not problem.startswith("no result")] == []
        finished = [folder for folder in folders if chaos_checks.status_of(folder) == "finished"]
    # What is made of the numbers may be missing; the numbers may not.
    assert done.returncode in ((0,) if len(finished) == 2 else (1, 2)), done.stderr
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr


SILENT = """
tx() { awk '/v0:/ {print $11}' /proc/net/dev; }
ip link set lo up
ip link add v0 type veth peer name v1
for i in v0 v1; do echo 1 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; done
ip addr add 10.9.9.1/24 dev v0 && ip link set v0 up && ip link set v1 up
ip neigh add 10.9.9.2 lladdr 02:00:00:00:00:02 dev v0 nud permanent
ip route add default via 10.9.9.2
before=$(tx); "$@"; echo "status $? packets $(( $(tx) - before ))"
"""


def alone(*command: str, cwd: Path) -> str:
    """The last line of a command in a network of its own, whose only way out counts and leads nowhere."""
    if os.geteuid() or shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs root, unshare and ip")
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", SILENT, "sh", *command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout.splitlines()[-1]


def test_no_packet_leaves_that_nobody_asked_for(tmp_path: Path) -> None:
    control = [sys.executable, "-c", "import socket; socket.socket(2, 2).sendto(b'x', ('192.0.2.1', 9))"]
    assert alone(*control, cwd=tmp_path) == "status 0 packets 1"
    tool = [sys.executable, "-m", "llmexp", "-m", *SMALL, "concurrency=1,2"]
    assert alone(*tool, cwd=tmp_path) == "status 0 packets 0"


def test_a_proxy_that_logs_is_asked_for_nothing(tmp_path: Path) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def listen() -> None:
            while True:
                try:
                    connection, _ = proxy.accept()
                except OSError:
                    return
                heard.append(connection.recv(200))
                connection.close()

        threading.Thread(target=listen, daemon=True).start()
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
        done = subprocess.run(
            [sys.executable, "-m", "llmexp", "-m", *SMALL, "concurrency=1,2"],
            cwd=tmp_path,
            env={**os.environ, **dict.fromkeys(names, url)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        proxy.shutdown(socket.SHUT_RDWR)
    assert done.returncode == 0, done.stderr
    assert heard == []
