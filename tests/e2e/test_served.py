"""A server that a command starts, through the whole tool: settings compared, and nothing left behind by a kill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from e2e.conftest import Tool

pytestmark = pytest.mark.e2e
SERVE = f"{sys.executable} -m llmexp.simulate --port {{port}} --slots {{slots}} --ttft 0.05 --inter-token 0.002"


def served(tool: Tool, *more: str) -> tuple[str, ...]:
    """A model of the user's own, in a folder of theirs."""
    folder = tool.directory / "own" / "model"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(f"defaults: [served]\nname: sim\ndeployment:\n  command: {SERVE}\n  slots: 4\n")
    return ("--config-dir", str(folder.parent), "model=mine", "tracking=none", "workload.output_tokens.mean=8", *more)


def test_two_settings_of_a_started_server_get_a_verdict(tool: Tool) -> None:
    more = ("concurrency=4", "run.max_requests=8", "run.warmup_requests=0", "run.repeats=3", "run.order=grouped")
    done = tool.run("-m", *served(tool, "model.deployment.slots=1,4", *more))
    assert done.returncode == 0, done.stderr
    comparison = json.loads(next(tool.directory.rglob("comparison.json")).read_text())
    verdict = next(row for row in comparison["verdicts"] if row["metric"] == "ttft_s/mean")
    assert verdict["verdict"], verdict
    if verdict["verdict"] != "refused":  # a busy machine's runs are invalid
        assert "slots=4's mean TTFT is" in done.stdout.replace("\n", " ")
    for result in tool.results():
        assert {"fresh_server", "command", "engine", "slots"} <= result["deployment"].keys()
        assert (result["folder"] / "server.log").exists()


def serving(driver: int) -> set[int]:
    """What this command started to serve, and who keeps it; other commands may run beside it."""
    found = set()
    for process in psutil.Process(driver).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if any(word in line for word in ("endpoints.keeper", "endpoints.warden", "llmexp.simulate --port")):
                found.add(process.pid)
    return found


def test_kill_9_of_the_driver_leaves_no_server(tool: Tool) -> None:
    driver = tool.start(*served(tool, "run.max_requests=null", "run.timeout_s=100"))
    deadline = time.monotonic() + 60
    while not list(Path(tool.directory).rglob("requests.arrows")) and time.monotonic() < deadline:
        time.sleep(0.1)
    started = serving(driver.pid)
    assert len(started) == 3
    os.kill(driver.pid, signal.SIGKILL)
    deadline = time.monotonic() + 15
    while any(psutil.pid_exists(pid) for pid in started) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in started if psutil.pid_exists(pid)]
