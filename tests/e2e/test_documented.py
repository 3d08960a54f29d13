"""Every command that README and documentation show, run as it stands: jobs up to their plan, tools to their help.

The README's two commands are not among them: one is a test of its own (`test_jobs`), the other runs this.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.conftest import Tool

ROOT = Path(__file__).parents[2]
GENERATED = ("config.md", "metrics.md", "files.md")
ON_LOGS = "logs.md"
"""Its commands need each other's files: `test_logs_page` runs them."""
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in (*GENERATED, ON_LOGS)),
]
COMMAND = re.compile(
    r"^(?: {4})?(python (?:-m|scripts/|benchmarks/).*)$|`(python (?:-m|scripts/|benchmarks/)[^`\n]*)`", re.MULTILINE
)
OWN_FILE = re.compile(r"^```yaml\n# (mine/\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A file of a user's own folder, as a page shows it."""
ANSWERED = ("--options", "--show", "--copy", "--help", "--version")
PLACEHOLDER = re.compile(r"…|^[A-Z_]{3,}(\.[a-z]+)?$")
pytestmark = pytest.mark.e2e


def documented() -> list[str]:
    """The commands, each once."""
    found: dict[str, None] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for match in COMMAND.finditer(text):
            command = (match[1] or match[2]).partition(" #")[0]
            found[" ".join(command.split())] = None
    return list(found)


def what(command: str) -> str:
    """The module or file that a command runs."""
    words = command.split()
    return words[2] if words[1] == "-m" else words[1]


AT_ONCE = [
    command for command in documented() if what(command) == "llmexp" and set(shlex.split(command)) & set(ANSWERED)
]
JOBS = [command for command in documented() if what(command) == "llmexp" and command not in AT_ONCE]
TOOLS = [command for command in documented() if what(command).startswith(("llmexp.", "benchmarks/", "scripts/build"))]
SCRIPTS = [command for command in documented() if what(command).startswith("scripts/") and "llm" in command]


def test_the_pages_show_commands() -> None:
    assert len(JOBS) >= 8
    assert len(TOOLS) >= 5
    assert SCRIPTS


@pytest.mark.parametrize("command", JOBS)
def test_a_documented_job_can_be_planned(tool: Tool, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMEXP_SAGEMAKER_ENDPOINT", "llama")
    (tool.directory / "questions.jsonl").write_text('{"question": "How many legs has a spider?", "answer": "8"}\n' * 20)
    for page in PAGES:
        for name, text in OWN_FILE.findall(page.read_text(encoding="utf-8")):
            (tool.directory / name).parent.mkdir(parents=True, exist_ok=True)
            (tool.directory / name).write_text(text)
    arguments = [one for one in shlex.split(command)[3:] if not one.startswith(("run.resume=", "dry_run="))]
    done = tool.run(*arguments, "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "requests" in done.stdout
    assert "nothing was sent" in done.stdout


@pytest.mark.parametrize("command", AT_ONCE)
def test_what_is_answered_at_once_is_answered(tool: Tool, command: str) -> None:
    done = tool.run(*shlex.split(command)[3:])
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", TOOLS)
def test_a_documented_tool_takes_its_flags(tmp_path: Path, command: str) -> None:
    words = shlex.split(command)[1:]
    # A flag whose value is a placeholder goes with it.
    arguments = [
        one
        for one, following in zip(words, [*words[1:], ""], strict=True)
        if not PLACEHOLDER.search(one) and not (one.startswith("--") and PLACEHOLDER.search(following))
    ]
    if arguments[0].startswith("benchmarks/"):
        arguments[0] = str(ROOT / arguments[0])
    done = subprocess.run(
        [sys.executable, *arguments, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    shown = [flag for flag in arguments if flag.startswith("--")]
    assert all(flag in done.stdout for flag in shown)


@pytest.mark.parametrize("command", [command for command in SCRIPTS if "…" not in command])
def test_a_documented_script_measures(tool: Tool, command: str) -> None:
    server = tool.start("--port", "0", "--ttft", "0.02", "--inter-token", "0.001", module="llmexp.simulate")
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    words = shlex.split(command)[1:]
    done = subprocess.run(
        [
            sys.executable,
            ROOT / words[0],
            *words[1:],
            "--max-num-completed-requests",
            "4",
            "--num-concurrent-requests",
            "2",
        ],
        cwd=tool.directory,
        env={**os.environ, "OPENAI_API_BASE": url, "OPENAI_API_KEY": "none"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tool.directory / "results").iterdir())) == 2
