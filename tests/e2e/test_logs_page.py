"""The page that takes logs to a verdict: its commands one after the other, on the logs that lie beside it."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from e2e.conftest import Tool

from llmexp.convert.__main__ import main

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = [
    shlex.split(line)[2:]
    for block in re.findall(r"^```bash\n(.*?)^```$", (DOCS / "logs.md").read_text(), re.MULTILINE | re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
pytestmark = pytest.mark.e2e


def test_every_log_is_converted_and_every_job_can_be_planned(
    tool: Tool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(DOCS / "logs", tool.directory / "logs")
    monkeypatch.chdir(tool.directory)
    converted = [arguments for module, *arguments in COMMANDS if module == "llmexp.convert"]
    assert len(converted) == 8
    for arguments in converted:
        assert main(arguments) == 0, capsys.readouterr().err
        assert Path(arguments[-1]).stat().st_size
    jobs = [arguments for module, *arguments in COMMANDS if module == "llmexp"]
    assert len(jobs) >= 6
    for arguments in jobs:
        done = tool.run(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        assert "nothing was sent" in done.stdout


def test_a_log_s_sessions_are_replayed_at_the_log_s_times(tool: Tool) -> None:
    source = DOCS / "logs" / "openai.jsonl"
    assert main([str(source), "--from", "openai", "--to", str(tool.directory / "chats.jsonl")]) == 0
    profile = "model.deployment.profile"
    fast = [f"{profile}.ttft.mean_s=0.02", f"{profile}.inter_token.mean_s=0.002", f"{profile}.prompt_cache=true"]
    replay = ["workload=sessions", "workload.file=chats.jsonl", "load=replay", "load.file=chats.jsonl"]
    done = tool.run("model=simulated", *fast, *replay, "tracking=none", "run.warmup_requests=1")
    assert done.returncode == 0, done.stderr
    (result,) = tool.results()
    metrics = result["metrics"]
    assert (metrics["requests_completed"], metrics["sessions_completed"]) == (8, 4)
    assert metrics["window_s"] >= 4.5 + 0.3  # when the last session began, and the pause before its second turn
    assert metrics["turns"][1]["cached_share"] > 0
    assert metrics["requests_off_script"] == 4
    assert "Turn by turn" in (result["folder"] / "report.html").read_text()
