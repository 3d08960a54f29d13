"""One round of chaos: a sweep with a budget and a secret, something cruel done to it, a resume; and what must hold.

A round is drawn from its seed alone. What must hold whatever was done:

- a job that is `finished` has as many rows as requests were asked for, each index once;
- a job that is not finished keeps every whole batch of rows, and its result says why;
- the resumed sweep ends with all jobs finished, and its exit status counts what stands;
- the ledger's bills never pass the limit, over the command and its resumes;
- the planted secret is in no file, no database and on neither stream;
- no process of the round is left, and no folder is locked.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from llmexp import records

SECRET = "sk-chaos-0123456789abcdef"
ASKED = 24
LIMIT_USD = 5.0
JOBS = (1, 3)
MARK = "LLMEXP_CHAOS_ROUND"
SWEEP = (
    "-m",
    "model=simulated",
    "model.deployment.profile.ttft.mean_s=0.05",
    "model.deployment.profile.inter_token.mean_s=0.005",
    "model.price.usd_per_million_input_tokens=1",
    "model.price.usd_per_million_output_tokens=1000",
    "model.headers_env.X-Gate=CHAOS_KEY",
    f"run.max_requests={ASKED}",
    "run.warmup_requests=2",
    "run.timeout_s=60",
    "run.max_error_rate=1",
    f"run.max_usd={LIMIT_USD:g}",
    f"concurrency={','.join(map(str, JOBS))}",
    "hydra.sweep.dir=sweep",
)
ROLES = {
    "driver": lambda line: "-m llmexp " in line,
    "worker": lambda line: line.startswith("ray::Worker"),
    "companion": lambda line: line.startswith("ray::Companion"),
    "raylet": lambda line: "/raylet/raylet " in line or line.startswith("raylet"),
    "gcs": lambda line: "gcs_server" in line,
    "endpoint": lambda line: "llmexp.endpoints.simulator" in line,
}
FAILURES = ("server", "hung", "cut", "reset", "garbage", "in_stream", "empty", "throttled")


@dataclass
class Round:
    """What was done, and what came of it."""

    seed: int
    cruelty: str = ""
    seconds: float = 0.0
    statuses: list[int] = field(default_factory=list)
    """Of the command and of each resume."""
    broken: list[str] = field(default_factory=list)
    """Invariants that did not hold."""


def play(directory: Path, seed: int) -> Round:
    """One round in an empty directory."""
    draw = random.Random(seed)
    played = Round(seed)
    began = time.monotonic()
    mark = uuid.uuid4().hex
    overrides = list(SWEEP)
    if draw.random() < 0.3:
        kind = ",".join(draw.sample(FAILURES, 2))
        overrides += ["model.deployment.profile.failure_rate=0.2", f"model.deployment.profile.failure='{kind}'"]
        overrides += ["run.timeout_s=12", "run.grace_s=2"]
    process = _start(directory, overrides, mark, played)
    name, act = _cruelty(draw)
    played.cruelty = name
    act(process, mark)
    _end(process, played, directory)
    for _ in range(2):
        if played.statuses[-1] == 0:
            break
        resume = [*overrides, "run.resume=sweep"] if (directory / "sweep/sweep.json").exists() else overrides
        _end(_start(directory, resume, mark, played), played, directory)
    _check_processes(mark, played)
    _check_files(directory, played)
    if played.statuses[-1] != 0:
        played.broken.append(f"not whole after two resumes: exit {played.statuses}")
    played.seconds = time.monotonic() - began
    return played


# --- what is done ----------------------------------------------------------------------------------------------------


def _cruelty(draw: random.Random) -> tuple[str, Callable[[subprocess.Popen[bytes], str], None]]:
    after = draw.uniform(0.5, 14.0)
    kind = draw.choice(["kill", "kill", "kill", "signal", "twice", "freeze", "nothing"])
    if kind == "kill":
        role = draw.choice(list(ROLES))
        return f"SIGKILL to a {role} after {after:.1f} s", lambda process, mark: _kill(process, mark, role, after)
    if kind in ("signal", "twice"):
        number = draw.choice([signal.SIGINT, signal.SIGTERM])
        times = 2 if kind == "twice" else 1
        said = f"{number.name} {'twice ' if times == 2 else ''}after {after:.1f} s"
        return said, lambda process, _mark: _signal(process, number, after, times)
    if kind == "freeze":
        return f"a companion stopped for 3 s after {after:.1f} s", lambda process, mark: _freeze(process, mark, after)
    return "nothing", lambda _process, _mark: None


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it still runs after so long."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def _kill(process: subprocess.Popen[bytes], mark: str, role: str, after: float) -> None:
    if not _wait(process, after):
        return
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        found = [one for one in _ours(mark) if ROLES[role](_line(one))]
        if found:
            found[0].kill()
            return
        time.sleep(0.1)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals, after: float, times: int) -> None:
    for at in range(times):
        if _wait(process, after if at == 0 else 0.3):
            process.send_signal(number)


def _freeze(process: subprocess.Popen[bytes], mark: str, after: float) -> None:
    if not _wait(process, after):
        return
    found = [one for one in _ours(mark) if ROLES["companion"](_line(one))]
    for one in found[:1]:
        try:
            one.suspend()
            time.sleep(3)
        finally:
            one.resume()


# --- processes -------------------------------------------------------------------------------------------------------


def _start(directory: Path, overrides: list[str], mark: str, played: Round) -> subprocess.Popen[bytes]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_"))}
    environment = {**clean, "AWS_EC2_METADATA_DISABLED": "true", "CHAOS_KEY": SECRET, MARK: mark}
    number = len(played.statuses)
    with (directory / f"stdout{number}").open("wb") as out, (directory / f"stderr{number}").open("wb") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "llmexp", *overrides],
            cwd=directory,
            env=environment,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )


def _end(process: subprocess.Popen[bytes], played: Round, directory: Path) -> None:
    try:
        played.statuses.append(process.wait(150))
    except subprocess.TimeoutExpired:
        process.kill()
        played.statuses.append(process.wait())
        said = (directory / f"stderr{len(played.statuses) - 1}").read_bytes()[-300:]
        played.broken.append(f"hung for 150 s: {said!r}")


def _ours(mark: str) -> list[psutil.Process]:
    """Every process that was started in this round, however far it has drifted from its parents."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _check_processes(mark: str, played: Round) -> None:
    deadline = time.monotonic() + 40
    while (left := _ours(mark)) and time.monotonic() < deadline:
        time.sleep(0.5)
    for process in left:
        played.broken.append(f"left behind: {_line(process)[:120]}")
        try:
            process.kill()
        except psutil.Error:
            continue


# --- files -----------------------------------------------------------------------------------------------------------


def _check_files(directory: Path, played: Round) -> None:
    sweep = directory / "sweep"
    for folder in sorted(sweep.glob("[0-9]*")):
        played.broken += [f"{folder.name}: {problem}" for problem in job_problems(folder)]
    played.broken += [f"secret in {name}" for name in leaks(directory)]
    billed = ledger_usd(sweep)
    if billed > LIMIT_USD + 1e-6:
        played.broken.append(f"{billed:.4f} USD were billed, the limit is {LIMIT_USD}")
    if list(directory.rglob(".lock")) and played.statuses[-1] == 0:
        played.broken.append("a lock was left by a process that ended well")


def job_problems(folder: Path, asked: int = ASKED) -> list[str]:
    """What does not hold in a job's folder."""
    try:
        result = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError) as error:
        return [] if "attempt" in folder.name else [f"no result: {error}"]
    found = []
    rows = records.read(folder).column("index").to_pylist() if records.exists(folder) else []
    if len(set(rows)) != len(rows):
        found.append(f"{len(rows) - len(set(rows))} rows twice")
    if result["status"] == "finished":
        metrics = result["metrics"]
        counted = sum(metrics[f"requests_{name}"] for name in ("completed", "failed", "unfinished"))
        due = asked if (result["notes"].get("requests") or {}).get("why") is None else len(rows)
        if not len(rows) == counted == due:
            found.append(f"finished with {len(rows)} rows, {counted} counted, {due} asked for")
    elif not result["reason"]:
        found.append(f"{result['status']} without a reason")
    return found


def leaks(directory: Path) -> list[str]:
    """Files that hold the planted secret."""
    found = []
    for path in directory.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if path.suffix == ".parquet" and content:
            try:
                content = json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
            except (OSError, ValueError):
                continue
        if SECRET.encode() in content:
            found.append(path.name)
    return found


def ledger_usd(sweep: Path) -> float:
    """What the ledger says was billed."""
    try:
        entries = json.loads((sweep / "ledger.json").read_text())["entries"]
    except (OSError, ValueError):
        return 0.0
    return float(sum(entry["billed"] for entry in entries.values()))
