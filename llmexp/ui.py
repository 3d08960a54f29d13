"""MLflow's pages on the store in use: `python -m llmexp.ui`. Ctrl-C ends it.

The same as `mlflow ui` in this directory, with what that needs to start without a network: LiteLLM's packaged price
list (MLflow waits for the download of the newest one, and hangs without a network), one worker, no telemetry.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, cast

from llmexp import secrets
from llmexp.errors import OK, WRONG, ConfigError, LlmexpError
from llmexp.plain_flags import Parser, port
from llmexp.tracking.connection import ENVIRONMENT, created_alone, shown_uri, sqlite_path, store_uri
from llmexp.tracking.view import QUERY, VIEW, VIEW_TAG

START_S = 120.0
"""MLflow answers after 5 s on a quiet machine, after a minute on a crowded one."""
STOP_S = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until interrupted."""
    secrets.guard_streams()
    asked = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        serve(store_uri(asked.uri, Path.cwd()), asked.host, asked.port, asked.experiment)
    except KeyboardInterrupt:
        return OK
    except LlmexpError as error:
        print(error, file=sys.stderr)
        return WRONG
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m llmexp.ui", description="MLflow's UI on the store in use.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", default=5000, type=port, help="port to listen on (default: %(default)s)")
    parser.add_argument("--uri", help="the store; default: MLFLOW_TRACKING_URI, else mlflow.db in this directory")
    parser.add_argument("--experiment", default="llmexp", help="the experiment to open (default: %(default)s)")
    return parser


def serve(uri: str, host: str, port: int, experiment: str) -> None:
    """Starts MLflow's server, says where it is, and stays until it ends. A server needs no second one."""
    if uri.startswith(("http://", "https://")):
        print(f"The runs are on a server that has its own pages: {shown_uri(uri)}")
        return
    _check_free(host, port)
    root = f"http://{_linked(host)}:{port}"
    with tempfile.TemporaryFile("w+") as log:
        process = _start(uri, host, port, log)
        try:
            with _creating(uri):
                _wait_ready(process, root, log)
            print(f"MLflow on {shown_uri(uri)}\n  {root}{_page(root, experiment)}\nCtrl-C ends it.", flush=True)
            if process.wait() != 0:
                raise ConfigError(f"MLflow's server ended by itself:\n{_tail(log)}")
        finally:
            _stop(process)


def _creating(uri: str) -> AbstractContextManager[None]:
    """Keeps jobs from creating the same database while the server does."""
    path = sqlite_path(uri, Path.cwd())
    return nullcontext() if path is None or path.exists() else created_alone(path)


def _page(root: str, experiment: str) -> str:
    """The path of the experiment's runs, seen through our saved view; of the front page where there are none yet."""
    asked = urllib.parse.urlencode({"experiment_name": experiment})
    try:
        with _open(f"{root}/api/2.0/mlflow/experiments/get-by-name?{asked}") as answer:
            found = json.load(answer)["experiment"]
    except OSError:
        return "/"
    saved = any(tag["key"] == VIEW_TAG for tag in found.get("tags", []))
    view = f"&viewStateShareKey={VIEW}" if saved else ""
    return f"/#/experiments/{found['experiment_id']}/runs?{QUERY}{view}"


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"--port: {port} on {host} cannot be had ({error.strerror}); try --port {port + 1}"
            ) from None


def _start(uri: str, host: str, port: int, log: IO[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port)]
    # The store's address by a variable: a command line with its password shows to every user of this machine.
    own = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment = {**ENVIRONMENT, **os.environ, **own}
    return subprocess.Popen(
        [*command, "--workers", "1"],
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        start_new_session=True,
    )


def _wait_ready(process: subprocess.Popen[str], root: str, log: IO[str]) -> None:
    deadline = time.monotonic() + START_S
    while not _answers(root):
        if process.poll() is not None:
            raise ConfigError(f"MLflow's server did not start: {_reason(log)}")
        if time.monotonic() > deadline:
            raise ConfigError(f"MLflow's server did not answer within {START_S:g} s:\n{_tail(log)}")
        time.sleep(0.1)


def _reason(log: IO[str]) -> str:
    """The error at the end of a traceback, in one line; the last lines where there is none."""
    told = _tail(log)
    errors = [line for line in told.splitlines() if re.match(r"[\w.]+(Error|Exception): ", line)]
    return errors[-1] if errors else f"\n{told}"


def _answers(root: str) -> bool:
    try:
        with _open(f"{root}/health"):
            return True
    except OSError:
        return False


def _open(address: str) -> AbstractContextManager[IO[bytes]]:
    """This machine's own server, past any proxy that the environment names."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return cast("AbstractContextManager[IO[bytes]]", opener.open(address, timeout=10))


def _linked(host: str) -> str:
    """The host as a link names it."""
    near = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104
    return f"[{near}]" if ":" in near and not near.startswith("[") else near


def _tail(log: IO[str]) -> str:
    log.seek(0)
    return "\n".join(log.read().splitlines()[-15:])


def _stop(process: subprocess.Popen[str]) -> None:
    """Ends the server with all its workers: asked first, then made to."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(STOP_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
