"""What jobs are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmexp import composition
from llmexp.jobs import spec as jobs

pytestmark = pytest.mark.e2e  # whole commands, composed as the user's are


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine" / "model"
    folder.mkdir(parents=True)
    for name in ("vllm_a", "vllm_b"):
        (folder / f"{name}.yaml").write_text("defaults: [openai_compatible]\nname: llama\nbase_url: http://h:8000/v1\n")
    return folder.parent


def names(overrides: list[str], mine: Path) -> list[str]:
    with composition.opened(mine):
        return [spec.name for spec in jobs.specs(composition.compose_all(overrides))]


def test_a_sweeps_jobs_are_called_by_stack_load_and_repeat(mine: Path) -> None:
    found = names(["model=vllm_a,vllm_b", "concurrency=1,8", "run.repeats=2"], mine)
    assert found[:4] == ["vllm_a · c1 · r1", "vllm_a · c8 · r1", "vllm_b · c1 · r1", "vllm_b · c8 · r1"]
    assert found[-1] == "vllm_b · c8 · r2"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=openai_compatible", "model.name=my/model", "model.base_url=http://127.0.0.1:1/v1"], ["my/model"]),
        (["model=vllm_a"], ["vllm_a"]),
        (["model=vllm_a", "model.name=x,y"], ["x", "y"]),
        (["model=vllm_a", "load=poisson", "load.rate=2,4.5"], ["vllm_a · 2/s", "vllm_a · 4.5/s"]),
        (["model=vllm_a", "workload=chat,qa"], ["vllm_a · chat", "vllm_a · qa"]),
        (
            ["model=vllm_a", r"model.base_url=http\://127.0.0.1\:1/v1,http\://127.0.0.1\:2/v1"],
            ["vllm_a · base_url=http://127.0.0.1:1/v1", "vllm_a · base_url=http://127.0.0.1:2/v1"],
        ),
        (["model=simulated", "model.deployment.profile.slots=1,4"], ["simulated · slots=1", "simulated · slots=4"]),
    ],
)
def test_what_varies_stands_behind_the_stack(mine: Path, overrides: list[str], expected: list[str]) -> None:
    assert names(overrides, mine) == expected
