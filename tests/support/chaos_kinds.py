"""The kinds of cruelty, each played in its turn (see `support.chaos`)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from support.chaos import SUPPORT, Kind, Play

INTERRUPTED = frozenset({130})
STARTING = frozenset({130, -signal.SIGTERM, -signal.SIGINT})
"""Before any code of ours runs, Python itself answers a signal."""
SHORT = ("run.timeout_s=12", "run.grace_s=2")
PARTS = ("worker", "companion", "raylet", "gcs_server", "endpoint", "keeper")


# --- signals to processes --------------------------------------------------------------------------------------------


def _to(role: str, number: signal.Signals, *, most_s: float = 7.0) -> Callable[[Play], None]:
    """The signal, once the process is there, at a random moment of its life."""

    def act(at: Play) -> None:
        at.begin()
        if at.find(role) is None:
            return
        after = at.draw.uniform(0.0, most_s)
        at.played.cruelty = f"{number.name} to the {role} {after:.1f} s after it was there"
        if at.goes_on(after):
            _strike(at, role, lambda found: found.send_signal(number))

    return act


def _strike(at: Play, role: str, how: Callable[[psutil.Process], None]) -> None:
    """Do something to the process of this role, where the command has not ended first."""
    found = at.find(role)
    with suppress(psutil.Error):
        if found is not None:
            how(found)


def _to_driver(number: signal.Signals, times: int) -> Callable[[Play], None]:
    def act(at: Play) -> None:
        at.begin()
        after, again = at.draw.uniform(0.5, 18.0), at.draw.uniform(0.0, 2.0)
        at.played.cruelty = f"{number.name} to the driver after {after:.1f} s"
        if not at.goes_on(after):
            return
        at.running.send_signal(number)
        if times == 2 and at.goes_on(again):
            at.played.cruelty += f" and {again:.1f} s later"
            at.running.send_signal(number)
        status = at.end(at.running, "the command")
        begun = at.has_begun()
        if status not in (INTERRUPTED | {0} if begun else STARTING | {0}):
            at.played.broken.append(f"{number.name} ended it with {status}")

    return act


def _stopped_and_interrupted(at: Play) -> None:
    """A process hangs, and somebody loses patience."""
    at.begin()
    role, number = at.draw.choice(PARTS), at.draw.choice([signal.SIGINT, signal.SIGTERM])
    if at.find(role) is None or not at.goes_on(at.draw.uniform(0.0, 6.0)):
        return
    at.played.cruelty = f"the {role} stopped, and {number.name} to the driver"
    _strike(at, role, psutil.Process.suspend)
    if at.goes_on(2.0):
        at.running.send_signal(number)
        status = at.end(at.running, "the command")
        if status not in INTERRUPTED | {0}:
            at.played.broken.append(f"{number.name} ended it with {status}")


def _several(at: Play) -> None:
    """Two processes are killed, one soon after the other."""
    at.begin()
    roles = at.draw.sample(PARTS, 2)
    at.played.cruelty = f"SIGKILL to the {roles[0]} and the {roles[1]}"
    if at.find("worker") is None or not at.goes_on(at.draw.uniform(0.0, 6.0)):
        return
    for role in roles:
        _strike(at, role, psutil.Process.kill)
        at.goes_on(at.draw.uniform(0.0, 1.5))


def _freeze(at: Play) -> None:
    at.begin()
    role = at.draw.choice([*PARTS, "driver"])
    if at.find(role) is None or not at.goes_on(at.draw.uniform(0.0, 7.0)):
        return
    at.played.cruelty = f"the {role} stopped for 3 s"
    _strike(at, role, _frozen)


def _frozen(found: psutil.Process) -> None:
    found.suspend()
    time.sleep(3.0)
    found.resume()


# --- the machine -----------------------------------------------------------------------------------------------------


def _full_disk(at: Play) -> None:
    """The sweep's folder on a disk that is too small; there is room again when it is resumed."""
    disk = at.directory / "disk"
    size = f"{int(10 ** at.draw.uniform(1.3, 3.0))}k"
    disk.mkdir()
    if not _mount(disk, f"size={size}"):
        at.played.cruelty = "nothing: mounting needs root"
        at.begin()
        return
    at.played.cruelty = f"a disk of {size}"
    at.place = "disk/sweep"
    try:
        at.begin()
        at.end(at.running, "the command on a full disk")
    finally:
        # The rest of the round is played, and looked at, where there is room.
        held = at.directory / "held"
        shutil.copytree(disk, held)
        subprocess.run(["umount", "-l", str(disk)], check=True)
        disk.rmdir()
        held.rename(disk)


def _mount(path: Path, options: str) -> bool:
    return (
        os.geteuid() == 0
        and subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=False).returncode == 0
    )


def _clock(jump_s: float) -> Callable[[Play], None]:
    def act(at: Play) -> None:
        after = at.draw.uniform(2.0, 14.0)
        at.played.cruelty = f"the wall clock jumps by {jump_s:+g} s after {after:.1f} s"
        at.environment = {
            "PYTHONPATH": str(SUPPORT / "clock"),
            "CHAOS_CLOCK_AT": str(time.time() + after),
            "CHAOS_CLOCK_JUMP_S": str(jump_s),
        }
        at.begin()
        at.end(at.running, "the command under a false clock")
        at.environment = {}

    return act


def _nothing(at: Play) -> None:
    at.begin()


# --- several commands ------------------------------------------------------------------------------------------------


def _two_commands(at: Play) -> None:
    at.begin()
    time.sleep(at.draw.choice([0.0, 0.0, at.draw.uniform(0.0, 6.0)]))
    other = at.end(at.start(at.overrides), "the second command")
    if other != 0:
        at.played.broken.append(f"the second command ended with {other}")
    found = sorted(path.name for path in at.directory.glob("sweep*"))
    if found != ["sweep", "sweep-2"]:
        at.played.broken.append(f"two commands made the folders {found}")


def _two_resumes(at: Play) -> None:
    """The driver is killed; two resumes begin at once."""
    at.begin()
    if at.find("companion") is None:
        return
    at.goes_on(at.draw.uniform(0.0, 6.0))
    at.running.kill()
    at.running.wait()
    if not at.has_begun():
        return
    both = [at.start([*at.overrides, f"run.resume={at.place}"]) for _ in range(2)]
    statuses = sorted(at.end(one, "one of two resumes") for one in both)
    at.played.statuses += statuses
    if statuses not in ([0, 2], [0, 0]):
        at.played.broken.append(f"two resumes at once ended with {statuses}")
    at.played.statuses.sort(reverse=True)


def _onlookers(at: Play) -> None:
    """Other commands on the folder of a sweep that runs."""
    at.begin()
    while not at.has_begun() and at.running.poll() is None:
        time.sleep(0.1)
    at.goes_on(at.draw.uniform(1.0, 8.0))
    for module, given in (
        ("llmexp.relog", [at.place]),
        ("llmexp.regrade", [f"{at.place}/0", "quality=contains"]),
        ("llmexp.compare", [at.place, "--outputs", "."]),
    ):
        alone = at.running.poll() is None
        status = at.end(at.start(given, module), module)
        alone = alone and at.running.poll() is None
        if alone and status not in ((2,) if module != "llmexp.compare" else (0, 2)):
            at.played.broken.append(f"{module} on a sweep at work ended with {status}")
    at.played.cruelty = "relog, regrade and compare on a sweep at work"


def _short_of_money(at: Play) -> None:
    """Answers six times as long as the plan reckons, half of the time with the driver killed under them."""
    at.begin()
    if at.draw.random() < 0.5 and at.find("companion") is not None and at.goes_on(at.draw.uniform(1.0, 5.0)):
        at.played.cruelty = "too little money, and SIGKILL to the driver"
        at.running.kill()


# --- all of them -----------------------------------------------------------------------------------------------------

DRIVER_GONE = frozenset({-signal.SIGKILL})
_failing = ("server,hung,cut", "reset,garbage,slow", "in_stream,empty,throttled", "stalled,dead,unavailable")
KINDS: tuple[Kind, ...] = (
    Kind("nothing", _nothing),
    Kind("SIGKILL driver", _to("driver", signal.SIGKILL, most_s=18.0), DRIVER_GONE),
    *(Kind(f"SIGKILL {role}", _to(role, signal.SIGKILL)) for role in PARTS),
    *(Kind(f"{one.name} driver", _to_driver(one, 1), STARTING) for one in (signal.SIGINT, signal.SIGTERM)),
    *(Kind(f"{one.name} driver twice", _to_driver(one, 2), STARTING) for one in (signal.SIGINT, signal.SIGTERM)),
    *(Kind(f"SIGTERM {role}", _to(role, signal.SIGTERM)) for role in PARTS),
    *(Kind(f"SIGSTOP {role}", _to(role, signal.SIGSTOP), overrides=SHORT) for role in PARTS),
    Kind("frozen for 3 s", _freeze),
    Kind("stopped, then a signal", _stopped_and_interrupted, STARTING | {1}, overrides=SHORT),
    Kind("two are killed", _several),
    Kind("disk full", _full_disk, frozenset({1, 2})),
    Kind("clock forward", _clock(3600.0)),
    Kind("clock back", _clock(-3600.0)),
    Kind("slow endpoint", _nothing, server=" --ttft 1 --ttft-cv 1 --inter-token 0.05 --slots 2", overrides=SHORT),
    *(
        Kind(f"endpoint: {names}", _nothing, server=f" --failure-rate 0.3 --failure {names}", overrides=SHORT)
        for names in _failing
    ),
    Kind("hostile endpoint", _nothing, last=frozenset({0, 1}), overrides=(*SHORT, "run.max_usd=null"), honest=False),
    Kind("hostile endpoint, a limit", _nothing, last=frozenset({0, 1, 2}), overrides=SHORT, honest=False),
    Kind("two commands", _two_commands),
    Kind("two resumes", _two_resumes, DRIVER_GONE),
    Kind("onlookers", _onlookers),
    Kind(
        "too little money",
        _short_of_money,
        frozenset({1}) | DRIVER_GONE,
        frozenset({1, 2}),
        overrides=("workload.output_tokens.mean=10", "workload.output_tokens.stddev=0", "+model.params.max_tokens=60"),
        limit_usd=1.0,
    ),
)
