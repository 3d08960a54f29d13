"""The small model, really served: started, asked, measured by its own metrics, stopped however the job ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_endpoints_process import ended

from llmexp import endpoints
from llmexp.config import Model, Tokens, Workload
from llmexp.endpoints import llamacpp
from llmexp.errors import JobError

pytestmark = pytest.mark.service

CONF = Path(__file__).parents[1] / "conf" / "model" / "smollm2.yaml"
WORKLOAD = Workload(input_tokens=Tokens(mean=128.0, stddev=16.0), output_tokens=Tokens(mean=64.0, stddev=8.0))


def smollm2(**changes: Any) -> Model:
    """The model as it ships, with other deployment settings."""
    tree = yaml.safe_load(CONF.read_text())
    tree["deployment"] |= changes
    return Model.model_validate_json(json.dumps(tree))


def ask(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        found: dict[str, Any] = json.load(response)
    return found


def test_the_shipped_model_answers(tmp_path: Path) -> None:
    model = smollm2(slots=2)
    with endpoints.opened(model, WORKLOAD, 4, rehearse=False, log_dir=tmp_path) as running:
        assert running.base_url is not None
        assert running.metrics_url is not None
        messages = [{"role": "user", "content": "Name a colour."}]
        chat = ask(f"{running.base_url}/chat/completions", {"messages": messages, "max_tokens": 5, "ignore_eos": True})
        tokens = ask(f"{running.base_url.removesuffix('/v1')}/tokenize", {"content": "Hello brave new world"})
        with urllib.request.urlopen(running.metrics_url, timeout=5) as response:
            metrics = response.read().decode()
        pid = running.pids[0]
    assert chat["usage"]["completion_tokens"] == 5
    assert chat["model"] == model.name
    assert len(tokens["tokens"]) == 4
    assert "llamacpp:tokens_predicted_total 5" in metrics
    facts = running.facts
    assert (facts["engine"], facts["slots"], facts["threads"]) == ("llama.cpp", 2, model.deployment.threads)  # type: ignore[union-attr]
    assert facts["context_tokens"] == 512
    assert facts["weights_sha256"] == model.deployment.sha256  # type: ignore[union-attr]
    assert facts["prompt_cache"] is True
    assert (tmp_path / "endpoint.log").stat().st_size > 0
    assert ended(pid, 0.1)


@pytest.mark.parametrize("after_s", [0.0, 0.4, 3.0])
def test_it_ends_when_the_job_is_killed_even_while_it_loads(after_s: float, tmp_path: Path) -> None:
    endpoints.prepare(smollm2(), rehearse=False)
    script = (
        "import sys; sys.path.insert(0, 'tests')\nfrom pathlib import Path\nimport time\n"
        "from llmexp import endpoints\nfrom llmexp.endpoints import process\n"
        "from test_endpoints_llamacpp import WORKLOAD, smollm2\n"
        "start = process.start_module\n"
        "def shown(*arguments):\n    found = start(*arguments)\n    print(found.pid, flush=True)\n    return found\n"
        "process.start_module = shown\n"
        f"with endpoints.opened(smollm2(), WORKLOAD, 4, rehearse=False, log_dir=Path({str(tmp_path)!r})):\n"
        "    time.sleep(60)\n"
    )
    root = str(Path(__file__).parents[1])
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root)
    try:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        time.sleep(after_s)
    finally:
        process.kill()
        process.communicate()
    assert ended(child)


def test_a_file_that_is_no_model_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + os.urandom(1000))
    monkeypatch.setenv("LLMEXP_GGUF", str(broken))
    with (
        pytest.raises(JobError, match=r"broken\.gguf"),
        endpoints.opened(smollm2(), WORKLOAD, 4, rehearse=False, log_dir=tmp_path),
    ):
        pytest.fail("it cannot serve")


# --- context, without a server ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "longest"),
    [
        ({"mean": 100.0}, 100),
        ({"mean": 100.0, "stddev": 25.0}, 200),
        ({"mean": 100.0, "stddev": 25.0, "max": 150}, 150),
        ({"dist": "uniform", "min": 1, "max": 70}, 70),
        ({"dist": "empirical", "file": "x"}, None),
    ],
)
def test_the_longest_that_is_planned_for(tokens: dict[str, Any], longest: int | None) -> None:
    assert llamacpp.longest(Tokens(**tokens)) == longest


def test_context_follows_from_the_workload() -> None:
    assert llamacpp.context_of(WORKLOAD) == 512  # 192 + 96 + 128, in steps of 256
    conversation = WORKLOAD.model_copy(update={"kind": "conversation", "turns": 3})
    assert llamacpp.context_of(conversation) == 1280
    assert llamacpp.context_of(WORKLOAD.model_copy(update={"prefix_tokens": 1000})) == 1536
    assert llamacpp.context_of(Workload(kind="file", file="x")) == llamacpp.UNKNOWN_CONTEXT
