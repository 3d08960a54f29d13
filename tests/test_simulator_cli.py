"""`python -m llmexp.simulate` as a user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from support.simulated import body

from llmexp import simulate
from llmexp.endpoints.simulator import truth

pytestmark = pytest.mark.service

COMMAND = [sys.executable, "-m", "llmexp.simulate"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(number: signal.Signals, tmp_path: Path) -> None:
    log = tmp_path / "truth.jsonl"
    flags = ["--port", "0", "--ttft", "0.01", "--inter-token", "0.001", "--slots", "2", "--truth", str(log)]
    process = subprocess.Popen([*COMMAND, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        assert base_url.startswith("http://127.0.0.1:")
        assert base_url.endswith("/v1")
        content = json.dumps(body("openai", 3, stream=False)).encode()
        with urllib.request.urlopen(f"{base_url}/chat/completions", content, timeout=5) as response:
            assert json.load(response)["usage"]["completion_tokens"] == 3
        process.send_signal(number)
        output, errors = process.communicate(timeout=10)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert output == ""
    assert "ready" in errors
    assert "Traceback" not in errors
    assert [line["outcome"] for line in truth.read(log)] == ["finished"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shape", "colour=red"], "--shape: must name one of head, role"),
        (["--shape", "body=round"], "shape.body: must be one of chunked, length, close, got 'round'"),
        (["--shape", "comments=many"], "--shape comments: must be a number"),
        (["--failure", "odd"], "failure: must be one of"),
        (["--slots", "0"], "slots: must be at least 1, got 0"),
        (["--tls-cert", "/nowhere.pem"], "/nowhere.pem"),
    ],
)
def test_wrong_flags_are_explained(flags: list[str], message: str) -> None:
    done = subprocess.run([*COMMAND, "--port", "0", *flags], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "99999"], "--port: must be from 0 to 65535, got 99999 (see "),
        (["--port", "many"], "--port: must be a whole number, got 'many' (see "),
        (["--ttft", "-1"], "--ttft: must be at least 0, got -1 (see "),
        (["--ttft-cv", "much"], "--ttft-cv: must be a number, got 'much' (see "),
        (["--wire", "odd"], "--wire: must be one of 'openai', 'anthropic', 'bedrock', "),
        (["--failure-rate", "2"], "--failure-rate: must be from 0 to 1, got 2"),
        (["--idle-close", "-3"], "--idle-close: must be at least 0, got -3"),
        (["--answers", "/nowhere"], "--answers: '/nowhere' cannot be opened (No such file or directory)"),
        (["--port", "0", "--host", "256.0.0.1"], "--host, --port: cannot listen on 256.0.0.1:0 ("),
    ],
)
def test_a_wrong_value_is_told_by_its_flag(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status: object = simulate.main(flags)
    except SystemExit as end:
        status = end.code
    assert status == 2
    assert capsys.readouterr().err.startswith(message)


def test_help_is_there_at_once() -> None:
    began = time.monotonic()
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=20, check=True)
    assert time.monotonic() - began < 3
    assert "in_stream" in done.stdout
    assert "--inter-token" in done.stdout
