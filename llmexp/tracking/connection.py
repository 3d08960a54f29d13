"""Reaching MLflow: which store, quietly, created once, and every trouble in one sentence."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import warnings
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from llmexp.errors import ConfigError, LlmexpError, RecordingError
from llmexp.secrets import redact

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
"""MLflow's settings unless the user has set them: an absent server costs seconds, stdout stays clean."""


def store_uri(uri: str | None, cwd: Path) -> str:
    """`uri`, else MLFLOW_TRACKING_URI, else what plain `mlflow ui` in `cwd` reads; SQLite paths made absolute.

    Raises `ConfigError` where MLflow has no such stores.
    """
    if problem := uri_problem(uri):
        raise ConfigError(problem)
    named = uri or os.environ.get("MLFLOW_TRACKING_URI") or _default_uri(cwd)
    path = sqlite_path(named, cwd)
    return named if path is None else f"sqlite:///{path}"


SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks", "file", "")
"""Stores that MLflow knows by itself; packages may add others."""


def uri_problem(uri: str | None) -> str | None:
    """Why no MLflow could have a store at `uri`, or where the environment says; None where one might."""
    key, named = ("tracking.uri", uri) if uri else ("MLFLOW_TRACKING_URI", os.environ.get("MLFLOW_TRACKING_URI"))
    if not named:
        return None
    scheme = named.partition(":")[0].partition("+")[0] if ":" in named else ""
    if scheme in SCHEMES or any(plugin.name == scheme for plugin in entry_points(group="mlflow.tracking_store")):
        return None
    return (
        f"{key}: MLflow has no stores of the kind '{scheme}:', got '{shown_uri(named)}'; write sqlite:///mlflow.db, "
        "the address of a server (http://HOST:5000), or tracking=none"
    )


def sqlite_path(uri: str, cwd: Path) -> Path | None:
    """The file of a `sqlite:///` address; None for any other store."""
    prefix = "sqlite:///"
    if not uri.startswith(prefix) or uri == prefix or ":memory:" in uri or "?" in uri:
        return None
    return cwd.absolute() / unquote(uri.removeprefix(prefix))


def _default_uri(cwd: Path) -> str:
    """mlflow.db, unless MLflow itself would still use a directory of runs that an old version left here."""
    allowed = os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1")
    if allowed and any(cwd.glob("mlruns/[0-9]*/meta.yaml")):
        return (cwd.absolute() / "mlruns").as_uri()
    return "sqlite:///mlflow.db"


def shown_uri(uri: str) -> str:
    """The address without a password in it."""
    return redact(uri)


def connect(uri: str) -> MlflowClient:
    """A client on the store; a SQLite database is created first, by one process alone."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    path = sqlite_path(uri, Path.cwd())
    with contextlib.nullcontext() if path is None else created_alone(path):
        if path is not None and not path.exists():
            _create(path)
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return client


def _create(database: Path) -> None:
    """Make it under another name first: one that was interrupted half-made could never be used again."""
    from mlflow.tracking import MlflowClient

    partial = database.with_name(f".{database.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        MlflowClient(tracking_uri=f"sqlite:///{partial}").search_experiments(max_results=1)
        partial.replace(database)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def created_alone(database: Path) -> Iterator[None]:
    """Holds a lock: several processes that create a database at the same time would all fail.

    The lock is on the folder itself, so there is no file of ours that anybody could put a link in the place of.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(database.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a disk that knows no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def recording(uri: str) -> Iterator[None]:
    """Turns whatever goes wrong inside into one `RecordingError`; whoever catches it knows how to do it later.

    Warnings in there are about MLflow's own insides, and no business of the user's.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except LlmexpError:
        raise
    except Exception as error:
        raise RecordingError(f"MLflow at {shown_uri(uri)}: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """The innermost reason in one line: what MLflow wraps around a refused connection is longer than it is useful."""
    text = " ".join(str(error).split())
    refused = re.search(r"\[Errno -?\d+\] [^'\")]+|timed out|Name or service not known", text)
    if refused and "http" in text:
        return f"cannot be reached ({refused.group().strip()})"
    return redact(text)[:300] or type(error).__name__
