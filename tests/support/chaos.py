"""One round of chaos: a sweep with a budget and a secret, something cruel done to it, resumes; and what must hold.

A round is drawn from its seed alone: the seed's kind, and the moment. What must hold whatever was done:

- a job that is `finished` has as many rows as requests were asked for, each index once, or says why there are fewer;
  no row was not sent, by the server's own count; a job that is not finished says why;
- the resumed sweep ends with all jobs finished, and no command takes longer than `PATIENCE_S`;
- the ledgers know of all that the server generated, and that is no more than the limit and what was in flight;
- the planted secret is in no file, no database, no temporary folder and on neither stream, in no writing;
- no process of the round is left, no folder is locked, no run in MLflow is running, nobody was shown a traceback;
- a signal ends the command with 130.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from support import chaos_checks as checks
from support.chaos_checks import ASKED, LIMIT_USD, SECRET, WARM_UP

JOBS = (1, 3)
LOSING = ("SIGKILL endpoint", "SIGKILL keeper", "SIGSTOP endpoint", "SIGSTOP keeper", "two are killed", "stopped")
"""Kinds under which the server may not write all that it knows."""
PATIENCE_S = 150.0
MARK = "LLMEXP_CHAOS_ROUND"
SUPPORT = Path(__file__).resolve().parent
SWEEP = (
    "-m",
    "model=served",
    "model.name=simulated",
    "model.price.usd_per_million_input_tokens=1",
    "model.price.usd_per_million_output_tokens=1000",
    "+model.headers_env.X-Gate=CHAOS_KEY",
    "workload.output_tokens.mean=40",
    "workload.output_tokens.stddev=5",
    f"run.max_requests={ASKED}",
    f"run.warmup_requests={WARM_UP}",
    "run.timeout_s=60",
    "model.ready_timeout_s=60",  # one that is stopped in its start is waited for so long
    "run.max_error_rate=1",
    f"concurrency={','.join(map(str, JOBS))}",
)
SERVER = "{python} -m llmexp.simulate --port {{port}} --ttft 0.05 --inter-token 0.005 --truth {truth}"


def _starts(*words: str) -> Callable[[list[str]], bool]:
    return lambda line: line[1 : 1 + len(words)] == list(words)


ROLES: dict[str, Callable[[list[str]], bool]] = {
    "driver": _starts("-m", "llmexp"),
    "endpoint": lambda line: line[1:3] == ["-m", "llmexp.simulate"] or "hostile_server" in "".join(line[1:2]),
    "keeper": _starts("-m", "llmexp.endpoints.keeper"),
    "worker": lambda line: line[0].startswith("ray::Worker"),
    "companion": lambda line: line[0].startswith("ray::Companion"),
    "raylet": lambda line: line[0].endswith("raylet"),
    "gcs_server": lambda line: line[0].endswith("gcs_server"),
}


@dataclass
class Round:
    """What was done, and what came of it."""

    seed: int
    kind: str = ""
    cruelty: str = ""
    seconds: float = 0.0
    statuses: list[int] = field(default_factory=list)
    """Of the command and of each resume."""
    broken: list[str] = field(default_factory=list)
    """Invariants that did not hold."""


@dataclass(frozen=True)
class Kind:
    """A cruelty, and what may come of it."""

    name: str
    act: Callable[[Play], None]
    first: frozenset[int] = frozenset({0, 1})
    """Exit statuses that the command itself may have."""
    last: frozenset[int] = frozenset({0})
    """That the last resume may have."""
    server: str = ""
    """More flags for the simulator."""
    overrides: tuple[str, ...] = ()
    limit_usd: float = LIMIT_USD
    honest: bool = True
    """Whether the server's log says the truth and survives."""


@dataclass
class Play:
    """A round that is being played."""

    directory: Path
    draw: random.Random
    kind: Kind
    played: Round
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    place: str = "sweep"
    started: int = 0

    @property
    def overrides(self) -> list[str]:
        """The command's."""
        server = SERVER.format(python=sys.executable, truth=self.directory / "truth.jsonl") + self.kind.server
        if not self.kind.honest:
            server = f"{sys.executable} {SUPPORT / 'hostile_server.py'} {{port}}"
        own = [f"model.deployment.command='{server}'", f"run.max_usd={self.kind.limit_usd:g}"]
        return [*SWEEP, *own, *self.kind.overrides, f"hydra.sweep.dir={self.place}"]

    def begin(self) -> None:
        """Start the command."""
        self.process = self.start(self.overrides)

    def start(self, overrides: list[str], module: str = "llmexp") -> subprocess.Popen[bytes]:
        """A command of ours, with the secret and the round's mark in its environment."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_"))}
        temporary = self.directory / "t"
        temporary.mkdir(exist_ok=True)
        own = {"AWS_EC2_METADATA_DISABLED": "true", "CHAOS_KEY": SECRET, MARK: self.mark, "TMPDIR": str(temporary)}
        number, self.started = self.started, self.started + 1
        with (
            (self.directory / f"stdout{number}").open("wb") as out,
            (self.directory / f"stderr{number}").open("wb") as err,
        ):
            return subprocess.Popen(
                [sys.executable, "-m", module, *overrides],
                cwd=self.directory,
                env={**clean, **own, **self.environment},
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def end(self, process: subprocess.Popen[bytes], what: str = "it") -> int:
        """Its exit status; broken where it takes longer than anybody would wait."""
        try:
            return process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            said = (self.directory / f"stderr{self.started - 1}").read_bytes()[-300:]
            self.played.broken.append(f"{what} hung for {PATIENCE_S:g} s: {said!r}")
            return process.wait()

    @property
    def running(self) -> subprocess.Popen[bytes]:
        """The command."""
        assert self.process is not None
        return self.process

    def goes_on(self, seconds: float) -> bool:
        """Whether it still runs after so long."""
        try:
            self.running.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def find(self, role: str) -> psutil.Process | None:
        """A process of this role, waited for; None where the command ends first."""
        while self.running.poll() is None:
            found = [one for one in ours(self.mark) if ROLES[role](_line(one))]
            if found:
                return self.draw.choice(found)
            time.sleep(0.1)
        return None

    def has_begun(self) -> bool:
        """Whether there is a sweep to go on with."""
        return (self.directory / self.place / "sweep.json").exists()


def play(directory: Path, seed: int) -> Round:
    """One round in an empty directory."""
    from support.chaos_kinds import KINDS

    kind = KINDS[seed % len(KINDS)]
    played = Round(seed, kind.name, kind.name)
    at = Play(directory, random.Random(seed), kind, played)
    began = time.monotonic()
    try:
        kind.act(at)
        played.statuses.insert(0, at.end(at.running, "the command"))
        if played.statuses[0] not in kind.first | {0}:
            played.broken.append(f"exit status {played.statuses[0]}")
        _resume(at)
        _check_processes(at)
        _check_files(at)
    finally:
        _kill_all(at.mark)
    played.seconds = time.monotonic() - began
    return played


def _resume(at: Play) -> None:
    """Until all of it is there, twice at the most."""
    statuses = at.played.statuses
    for _ in range(2):
        if statuses[-1] in at.kind.last and statuses[-1] == 0:
            return
        again = [*at.overrides, f"run.resume={at.place}"] if at.has_begun() else at.overrides
        statuses.append(at.end(at.start(again), "a resume"))
        if statuses[-1] in at.kind.last:
            return
    at.played.broken.append(f"not whole after two resumes: exit {statuses}")


# --- what must hold --------------------------------------------------------------------------------------------------


def _check_files(at: Play) -> None:
    directory, broken = at.directory, at.played.broken
    for folder in checks.job_folders(directory):
        broken += [f"{folder.name}: {problem}" for problem in checks.job_problems(folder)]
    broken += [f"the secret is in {name}" for name in checks.leaks(directory)]
    broken += [f"{name} is locked" for name in checks.locked(directory)]
    broken += [f"MLflow takes '{name}' for running" for name in checks.running_in_mlflow(directory)]
    broken += checks.money_problems(directory, at.kind.limit_usd, honest=at.kind.honest)
    broken += checks.words_problems(directory)
    lines, rows = checks.truth_lines(directory), checks.sent_rows(directory)
    lost = at.kind.name.startswith(LOSING)
    if at.kind.honest and not lost and rows > len(lines):
        broken.append(f"{rows} rows were sent, the server saw {len(lines)} requests")
    if at.kind.name == "nothing":
        if len(lines) != len(JOBS) * (ASKED + WARM_UP):
            broken.append(f"the server saw {len(lines)} requests")
        broken += [f"{path.name} was left among temporary files" for path in (directory / "t").iterdir()]


def ours(mark: str) -> list[psutil.Process]:
    """Every process that was started in this round, however far it has drifted from its parents."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() or [""]
    except psutil.Error:
        return [""]


def _check_processes(at: Play) -> None:
    deadline = time.monotonic() + 40
    while (left := ours(at.mark)) and time.monotonic() < deadline:
        time.sleep(0.5)
    at.played.broken += [f"left behind: {' '.join(_line(process))[:120]}" for process in left]


def _kill_all(mark: str) -> None:
    for process in ours(mark):
        try:
            process.kill()
        except psutil.Error:
            continue
