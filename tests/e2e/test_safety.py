"""Through the door: no secret gets out, no folder is shared, no limit is passed."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
from e2e.conftest import FAST, Tool
from support.echo_server import echoing

pytestmark = pytest.mark.e2e
KEY, GATE, PROXY = "sk-live/0123+456789ab=", "gate-keeper-4242", "pr0xy-passw0rd"


def texts(directory: Path) -> dict[str, bytes]:
    """Every file below, Parquet as its text columns hold it."""
    found = {}
    for path in directory.rglob("*"):
        if path.suffix == ".parquet":
            found[str(path)] = json.dumps(pq.read_table(path).to_pylist(), ensure_ascii=False).encode()
        elif path.is_file():
            found[str(path)] = path.read_bytes()
    return found


def test_what_a_server_echoes_reaches_no_file_no_database_and_no_stream(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    monkeypatch.setenv("PLAIN", GATE)  # a name that says nothing: known because headers_env names it
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{PROXY}@127.0.0.1:9")
    with echoing() as url:
        model = ("model=openai_compatible", f"model.base_url={url}", "model.name=m", "model.api_key_env=SOME_KEY")
        done = tool.run(
            *model, "+model.headers_env.X-Gate=PLAIN", "run.max_requests=8", "run.save_text=true", "concurrency=2"
        )
    assert done.returncode == 1, done.stderr
    (result,) = tool.results()
    assert set(result["errors"]) == {"auth"}
    assert result["metrics"]["requests_completed"] >= 3
    found = texts(tool.directory) | {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
    assert any(name.endswith("mlflow.db") for name in found)
    assert any("***" in content.decode(errors="replace") for name, content in found.items() if "parquet" in name)
    for value in (KEY, GATE, PROXY):
        encoded = base64.b64encode(value.encode()).decode().rstrip("=")[:-1]
        quoted = value.replace("/", "\\/").replace("=", "\\u003d")
        for form in (value, quote(value, safe=""), encoded, quoted, quoted.replace("\\", 2 * "\\")):
            leaks = [name for name, content in found.items() if form.encode() in content]
            assert not leaks, f"{form} in {leaks}"
    for name in ("stdout", "stderr"):
        assert b"\x1b]0;" not in found[name]
        assert b"\x07" not in found[name]
    assert "\\x1b" in result["errors"]["auth"]["examples"][0]["message"]


def test_two_commands_at_once_share_nothing_and_a_second_resume_is_refused(tool: Tool) -> None:
    sweep = ("-m", *FAST, "concurrency=4,8", "run.max_requests=40", "tracking=none", "hydra.sweep.dir=out/same")
    first, second = tool.start(*sweep), tool.start(*sweep)
    folders = {}
    for process in (first, second):
        assert process.stderr is not None
        line = next(line for line in iter(process.stderr.readline, "") if "→" in line)
        folders[process.pid] = Path(line.rpartition("→ ")[2].strip())
    assert sorted(path.name for path in folders.values()) == ["same", "same-2"]
    refused = tool.run(*sweep, f"run.resume={folders[first.pid]}")
    assert refused.returncode == 2
    assert f"process {first.pid} on " in refused.stderr
    for process in (first, second):
        process.communicate(timeout=120)
        assert process.returncode == 0
    for folder in folders.values():
        assert [len(pq.read_table(folder / str(job) / "requests.parquet")) for job in (0, 1)] == [40, 40]


def test_a_limit_holds_whatever_the_server_makes_of_it(tool: Tool) -> None:
    price = ("model.price.usd_per_million_input_tokens=0", "model.price.usd_per_million_output_tokens=1000")
    lengths = ("workload.output_tokens.mean=50", "workload.output_tokens.stddev=0", "concurrency=2")
    sweep = ("-m", *FAST, *price, *lengths, "run.warmup_requests=2", "run.max_requests=12", "tracking=none")
    thinking = ("model.price.usd_per_million_reasoning_tokens=5000", "model.deployment.profile.reasoning_tokens=40")
    command = (*sweep, *thinking, "run.max_usd=1.6", "run.seed=1,2")
    done = tool.run(*command)
    assert done.returncode == 1, done.stderr
    assert "run.max_usd" in done.stderr + done.stdout
    (ledger,) = tool.directory.rglob("ledger.json")
    spent = sum(entry["billed"] for entry in json.loads(ledger.read_text())["entries"].values())
    assert 1.2 < spent <= 1.6
    again = tool.run(*command, f"run.resume={ledger.parent}")
    assert again.returncode == 2
    assert "are spent" in again.stderr
