"""A folder has one owner: the process that made it, or took it up again, for as long as that process runs.

The operating system holds the lock (`flock` on `.lock` inside the folder), so a process that was killed leaves no
obstacle. The file says who the owner is; nothing but that sentence depends on its content, except on disks that know no
locks: there it is all there is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from llmexp.errors import ConfigError

LOCK = ".lock"
OURS = ("result.json", "requests.arrows", "requests.parquet", "sweep.json", "multirun.yaml", ".hydra")
"""What a job or a sweep leaves in its folder: a folder that holds one of these is taken."""
SWEEP, MULTIRUN, RESULT = "sweep.json", "multirun.yaml", "result.json"
PART = re.compile(r"\d+(?:\.attempt\d+)?")
GROUPS: dict[str, tuple[str, ...]] = {"probes": (RESULT,), "judge": (RESULT,), "trials": (SWEEP, MULTIRUN)}
"""Folders that hold parts of a job or of a search: SWEEP/1/probes/03, SWEEP/0/judge/1, SEARCH/trials/2. Each with the
files by which the whole above it is known.
"""
_held: dict[Path, Folder] = {}
_promised: set[Path] = set()
"""Claimed for whoever claims them next in this process: Hydra wants a folder's name before its job begins."""
log = logging.getLogger("llmexp")


@dataclass(frozen=True)
class Folder:
    """A folder that this process owns."""

    path: Path
    descriptor: int
    made: tuple[Path, ...] = ()
    """The folder and those above it, as far as this process made them."""

    def release(self) -> None:
        """Let others have it; a second call does nothing."""
        if _held.pop(self.path, None) is None:
            return
        _promised.discard(self.path)
        if _is_there(self.path / LOCK, self.descriptor):  # the folder may have been moved, and another have its name
            with contextlib.suppress(OSError):
                (self.path / LOCK).unlink()
        os.close(self.descriptor)

    def drop_if_empty(self) -> None:
        """Release it, and remove it if this process made it and nothing was written."""
        self.release()
        with contextlib.suppress(OSError):
            for path in self.made:
                path.rmdir()


def hold(path: Path) -> Folder:
    """The folder that is there, for this process alone; `ConfigError` names the process that owns it."""
    path = path.resolve()
    if path in _held:
        raise ConfigError(f"{path}: another command of this process is at work in this folder; wait until it has ended")
    folder = _lock(path)
    if folder is None:
        raise ConfigError(f"{path}: {_owner(path)} is at work in this folder; wait until it has ended, or end it")
    return folder


@contextlib.contextmanager
def held(path: Path) -> Iterator[Folder]:
    """The folder for as long as the block; for a part of a sweep or of a job, the whole, which its command holds."""
    folder = hold(whole(path))
    try:
        yield folder
    finally:
        folder.release()


@contextlib.contextmanager
def all_held(path: Path) -> Iterator[None]:
    """The folder, or each sweep and job below one that holds several, for as long as the block."""
    with contextlib.ExitStack() as stack:
        for one in wholes(path):
            stack.enter_context(held(one))
        yield


def wholes(path: Path) -> list[Path]:
    """What commands hold at or below a folder: sweeps, and jobs alone."""
    found = {whole(job.parent) for job in path.glob("**/result.json")}
    return sorted(found) or [path]


def at_work(path: Path) -> str | None:
    """The process that is at work in a folder, in words; None where it is nobody else, as far as can be seen."""
    folder = whole(path)
    if folder in _held or not (folder / LOCK).exists():
        return None
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        return "another user's process"
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(folder)
    except OSError:
        return _owner(folder) if _signer_lives(folder) else None
    finally:
        os.close(descriptor)
    return None


def is_taken(path: Path) -> bool:
    """Whether a folder is a sweep's or a job's, or a part of one: to be held by whoever writes there."""
    return _holds_ours(whole(path))


def _holds_ours(path: Path) -> bool:
    return any((path / name).exists() for name in OURS)


def whole(path: Path) -> Path:
    """The outermost sweep or job that a folder is a part of: what the command that made it holds."""
    path = path.resolve()
    while (above := _above(path)) is not None:
        path = above
    return path


def _above(path: Path) -> Path | None:
    """The job or the sweep that a folder is a part of, by the names of both: a file of that name may be anybody's."""
    above = path.parent
    marks: tuple[str, ...] = (SWEEP, MULTIRUN)
    if path.name in GROUPS:
        marks = GROUPS[path.name]
    elif not PART.fullmatch(path.name):
        return None
    elif above.name in GROUPS:
        above, marks = above.parent, GROUPS[above.name]
    return above if any((above / mark).exists() for mark in marks) else None


def claim(wanted: Path, *, promise: bool = False) -> Folder:
    """A folder of this name for this command alone; where it is taken, one with a number behind the name.

    `promise`: the next claim of it in this process gets it.
    """
    wanted = wanted.resolve()
    if wanted in _promised:
        _promised.discard(wanted)
        return _held[wanted]
    for path in _names(wanted):
        if path in _held:
            continue
        if path.name.isdigit() and (path.parent / SWEEP).exists():
            continue  # a sweep gives numbers to its own jobs
        made = _make(path)
        if not made and _holds_ours(path):
            continue
        folder = _lock(path, made)
        if folder is None:
            continue
        if not _holds_ours(path):
            _promised.update({path} if promise else ())
            return folder
        folder.release()
    raise AssertionError("names do not end")


def _forget_in_child() -> None:
    """A process that was forked off owns nothing, and must not keep the lock of a parent that dies."""
    for folder in _held.values():
        with contextlib.suppress(OSError):
            os.close(folder.descriptor)
    _held.clear()
    _promised.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def _names(wanted: Path) -> Iterator[Path]:
    yield wanted
    number = 2
    while True:
        yield wanted.with_name(f"{wanted.name}-{number}")
        number += 1


def _make(path: Path) -> tuple[Path, ...]:
    """The folders that this call made: this one and those above it; none where it was there."""
    above = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir()
    except FileExistsError:
        if path.is_dir():
            return ()
        raise ConfigError(f"{path}: is a file, and a folder is to be made there; choose another name") from None
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be made ({error.strerror}); set paths.outputs to a folder of yours"
        ) from None
    return (path, *above)


def _lock(path: Path, made: tuple[Path, ...] = ()) -> Folder | None:
    """The folder, locked; None where another process holds it."""
    while True:
        try:
            descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written to ({error.strerror}); choose another folder") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            if _signer_lives(path):
                os.close(descriptor)
                return None
            log.warning(
                "%s: this disk knows no locks (%s): see to it that one command works here", path, error.strerror
            )
        if _is_there(path / LOCK, descriptor):
            break
        os.close(descriptor)  # its owner removed it between our two calls
    _sign(descriptor)
    folder = _held[path] = Folder(path, descriptor, made)
    return folder


def _is_there(file: Path, descriptor: int) -> bool:
    """Whether the name still leads to the file that was locked."""
    try:
        return os.path.samestat(file.lstat(), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _sign(descriptor: int) -> None:
    """Say who holds it. A full disk may keep the words away, never the lock."""
    words = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(words).encode(), 0)


def _signer_lives(path: Path) -> bool:
    """Whether the process that signed is another one of this machine and still there."""
    try:
        words = json.loads((path / LOCK).read_text(encoding="utf-8"))
        pid, host = int(words["pid"]), words["host"]
        if host != socket.gethostname() or pid == os.getpid():
            return False
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def _owner(path: Path) -> str:
    try:
        words = json.loads((path / LOCK).read_text(encoding="utf-8"))
        return f"process {words['pid']} on {words['host']}, since {words['since']},"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
