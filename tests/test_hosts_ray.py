"""A Ray of our own: where it listens, who may call it, that it is asked whether it lives, and that nothing stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from llmexp.benchmark.patience import patiently
from llmexp.errors import JobError

pytestmark = pytest.mark.service
LIMIT_S = 150
LIFE = """
import json, os, stat, sys, time
from pathlib import Path
import psutil
from llmexp.benchmark import cluster, pairs
from llmexp.config import Ray
from llmexp.errors import JobError

me, told = psutil.Process(), {}
before = set(os.environ)
cluster.ensure_ray(Ray())
import ray
running = cluster.session()
token = running.folder / "token"
told["modes"] = [stat.S_IMODE(path.stat().st_mode) for path in (running.folder, token)]
told["variables"] = sorted(name for name in set(os.environ) - before if "TOKEN" in name)

def addresses():
    pids = {me.pid, *(child.pid for child in me.children(recursive=True))}
    listening = [c for c in psutil.net_connections("inet") if c.pid in pids and c.status == "LISTEN"]
    return sorted({c.laddr.ip.removeprefix("::ffff:") for c in listening})

@ray.remote(num_cpus=0)
class Actor:
    def environment(self):
        return [os.nice(0)]
    def never(self):
        time.sleep(600)

told["niceness"] = ray.get(Actor.remote().environment.remote())[0]
told["addresses"] = addresses()
told["names"] = sorted({child.name() for child in me.children(recursive=True)})
told["alive"] = [cluster.alive()]
first = running.folder
gcs = running.core[0]
gcs.kill()
gcs.wait()
told["alive"].append(cluster.alive())
cluster.ensure_ray(Ray())
told["alive"].append(cluster.alive())
told["answers"] = ray.get(Actor.remote().environment.remote(), timeout=60)[0]
second = cluster.session().folder
unanswered = Actor.remote().never.remote()
hung = cluster.session().core[-1]
hung.suspend()
while hung.status() != psutil.STATUS_STOPPED:
    time.sleep(0.01)
told["alive"].append(cluster.alive())
cluster.LOOK_S = cluster.DEAD_FOR_S = 0.2
try:
    pairs.answers([None], [unanswered], 300, "answer")
except JobError as error:
    told["said"] = str(error)
hung.resume()
children = me.children(recursive=True)
cluster.stop_ray()
psutil.wait_procs(children, timeout=10)
told["left"] = [child.name() for child in children if child.is_running() and child.status() != "zombie"]
told["folders"] = [folder.exists() for folder in (first, second)]
print(json.dumps(told))
"""
WITHOUT_NAMES = """
from ray._private import node, ray_constants
def start_head_processes(self):
    self.start_gcs_server()
    self._write_cluster_info_to_kv()
node.Node.start_head_processes = start_head_processes
for name in ("start_api_server", "start_monitor"):
    delattr(node.Node, name)
from llmexp.benchmark import cluster, pairs
from llmexp.config import Ray
from llmexp.errors import JobError
cluster.ensure_ray(Ray())
import ray
print(ray.get(ray.remote(lambda: 42).remote(), timeout=60))
cluster.stop_ray()
"""

STOPPED_IN_ITS_START = """
import threading, time
import psutil
from llmexp.benchmark import cluster
from llmexp.config import Ray
cluster.LOOK_S = cluster.DEAD_FOR_S = 0.2
cluster.STOP_S = 1.0
stopped = threading.Event()
def stop():
    while not (found := [one for one in psutil.Process().children() if one.name() == "raylet"]):
        time.sleep(0.01)
    found[0].suspend()
    stopped.set()
threading.Thread(target=stop).start()
cluster.ensure_ray(Ray())
import ray
print(stopped.is_set(), cluster.alive(), ray.get(ray.put(42), timeout=60))
cluster.stop_ray()
"""
STOPPED_WHILE_CONNECTING = """
import sys
import psutil
import ray
from llmexp.benchmark import cluster
from llmexp.config import Ray
cluster.HELD_S = 2.0
connecting = ray._raylet.CoreWorker
def stopped(*given, **named):
    for child in psutil.Process().children():
        if child.name() == "gcs_server":
            child.suspend()
            print("stopped", flush=True)
    return connecting(*given, **named)
ray._raylet.CoreWorker = stopped
cluster.ensure_ray(Ray())
print("up")
"""

TOLD_TO_END_WHILE_CONNECTING = """
import os, signal
import psutil
import ray
from llmexp.benchmark import cluster
from llmexp.config import Ray
signal.signal(signal.SIGTERM, signal.default_int_handler)
cluster.SIGNALS_S = 60.0  # Ray's handler is still there when the signal comes
connecting = ray._raylet.CoreWorker
def told(*given, **named):
    worker = connecting(*given, **named)
    os.kill(os.getpid(), signal.SIGTERM)
    return worker
ray._raylet.CoreWorker = told
try:
    cluster.ensure_ray(Ray())
except KeyboardInterrupt:
    left = psutil.Process().children()
    psutil.wait_procs(left, timeout=10)
    print("interrupted", [one.name() for one in left if one.is_running() and one.status() != "zombie"])
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_ray_listens_on_loopback_has_its_own_token_is_restarted_and_leaves_nothing() -> None:
    told = json.loads(run(LIFE))
    assert told["addresses"] == ["127.0.0.1"]
    assert told["modes"] == [0o700, 0o600]
    assert told["variables"] == []
    assert not [name for name in told["names"] if "dashboard.py" in name or "monitor" in name]
    assert (told["niceness"], told["answers"]) == (0, 0)
    assert told["alive"] == [True, False, True, False]
    assert told["said"] == "Ray died, or one of its processes was stopped, before the load began"
    assert told["left"] == []
    assert told["folders"] == [False, False]


def test_what_hangs_is_waited_for_with_a_limit_and_takes_signals() -> None:
    assert patiently(lambda: 42) == 42
    with pytest.raises(KeyError, match="its own"):
        patiently(lambda: {}["its own"])
    never = threading.Event()
    with pytest.raises(JobError, match="a part of it has hung for 0 s"):
        patiently(never.wait, 0.05)
    ring = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    ring.start()
    with pytest.raises(KeyboardInterrupt):
        patiently(never.wait, 30.0)
    ring.join()
    never.set()


def test_a_ray_that_names_its_parts_otherwise_starts_all_the_same() -> None:
    assert run(WITHOUT_NAMES) == "42"


def test_a_start_whose_parts_are_stopped_is_given_up_and_made_again() -> None:
    assert run(STOPPED_IN_ITS_START) == "True True 42"


def test_a_start_that_holds_the_interpreter_ends_the_process_and_says_where() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_WHILE_CONNECTING], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (1, "stopped")
    assert "in connect" in done.stderr


def test_a_signal_that_comes_while_ray_connects_is_ours_to_answer() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TOLD_TO_END_WHILE_CONNECTING],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "interrupted []", "")
