"""The command line as a user meets it: exit statuses, one clear message, nothing sent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmexp import __version__

pytestmark = pytest.mark.e2e

SECRETS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "LLMEXP_SAGEMAKER_ENDPOINT")


@pytest.fixture
def llmexp(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Runs the command in an empty directory, without credentials."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if name not in SECRETS and "AWS" not in name}
        clean |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path), **environment}
        return subprocess.run(
            [sys.executable, "-m", "llmexp", *arguments],
            cwd=tmp_path,
            env=clean,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["concurrency=0"], "concurrency: must be at least 1, got 0"),
        (["model=sonet"], "model=sonet: no such option; did you mean model=sonnet?"),
        (["concurrency=1,4"], "concurrency=1,4: several values make a sweep: add -m"),
        (["sonnet"], "sonnet: is no override; write key=value"),
        (["--config-dir", "nowhere", "model=gpt"], "--config-dir: no such directory: 'nowhere'"),
        (["model=gpt"], "environment variable OPENAI_API_KEY is not set"),
        (["-m", "concurrency=4,0,-1"], "concurrency: must be at least 1, got -1"),
        (["-m", "model=gpt,claude"], "environment variable ANTHROPIC_API_KEY is not set"),
        (
            ["-m", "hydra/sweeper=basic", "hydra/launcher=basic", "+model.params.api_key=hunter2hunter2"],
            "hydra/sweeper: sweeps are made by llmexp's own",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_command_exits_2_with_one_clear_message(  # type: ignore[no-untyped-def]
    llmexp, arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = llmexp(*arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "earch path" not in done.stderr
    assert not done.stdout.strip()
    assert list(tmp_path.iterdir()) == []


CREDENTIALS = {
    "model.base_url": "http://user:hunter-2222@h/v1?api_key=hunter-3333",
    "+model.params.access_token": "hunter-2222",
    "+model.params.extra.api_key": "hunter-2222",
    "+tracking.tags.api_key": "hunter-2222",
    "model.metrics_url": "http://u:hunter-2222@h/metrics",
    "tracking.uri": "postgresql://me:hunter-2222@h/db",
    "+model.headers.X-Any": "${oc.env:S}",
    "+model.headers.Authorization": "hunter-2222",
}


@pytest.mark.parametrize("sweep", [[], ["-m", "concurrency=1,2"]], ids=["job", "sweep"])
def test_a_credential_is_refused_before_a_file_is_written(llmexp, tmp_path: Path, sweep: list[str]) -> None:  # type: ignore[no-untyped-def]
    given = [f"{key}='{value}'" for key, value in CREDENTIALS.items()]
    done = llmexp("model=openai_compatible", "model.name=m", *given, *sweep, S="hunter-4444")
    assert done.returncode == 2
    for key in CREDENTIALS:
        assert f"{key.lstrip('+')}: " in done.stderr
    assert "hunter" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_config_that_is_no_yaml_is_named_with_its_line(llmexp, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    mine = tmp_path / "mine" / "model"
    mine.mkdir(parents=True)
    (mine / "ours.yaml").write_text("name: one\nparams: [1, 2\n")
    done = llmexp("--config-dir", "mine", "model=ours")
    assert done.returncode == 2
    assert "ours.yaml" in done.stderr
    assert "line" in done.stderr
    assert "Traceback" not in done.stderr


def test_options_are_listed_shown_and_copied_into_a_folder_of_ones_own(llmexp, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert "workload/chat" in llmexp("--options").stdout
    assert "workload/chat" not in llmexp("--options", "model").stdout
    assert llmexp("--show", "model/gpt").stdout.startswith("# A GPT by OpenAI's API.")
    assert llmexp("--copy", "model/gpt", "mine").returncode == 0
    again = llmexp("--copy", "model/gpt", "mine")
    assert again.returncode == 2
    assert "exists already" in again.stderr
    copied = tmp_path / "mine" / "model" / "gpt.yaml"
    copied.write_text(copied.read_text().replace("gpt-5.6", "gpt-of-ours"))
    assert "name: gpt-of-ours" in llmexp("model=gpt", "--config-dir", "mine", "--cfg", "job").stdout


def test_the_version_is_the_tools_own(llmexp) -> None:  # type: ignore[no-untyped-def]
    assert llmexp("--version").stdout == f"llmexp {__version__}\n"


def test_help_and_the_composed_config_come_without_a_job(llmexp, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert "python -m llmexp -m model=sonnet,llama" in llmexp("--help").stdout
    shown = llmexp("--cfg", "job", "model=sonnet", "concurrency=3")
    assert shown.returncode == 0
    assert "concurrency: 3" in shown.stdout
    assert not (tmp_path / "outputs").exists()


def test_the_plan_costs_nothing(llmexp) -> None:  # type: ignore[no-untyped-def]
    done = llmexp("-m", "model=sonnet,llama", "concurrency=1,4,16", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert [line.split("  ")[0] for line in done.stdout.splitlines() if line.startswith("sonnet")] == [
        "sonnet · c1",
        "sonnet · c4",
        "sonnet · c16",
    ]
    assert "Total:" in done.stdout


def test_the_plan_names_what_will_not_work_and_leaves_no_folder(llmexp, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = llmexp(
        "-m", "model=gpt,sonnet", "concurrency=1", "model.region=us-east-9", "run.max_requests=5000", "dry_run=true"
    )
    assert done.returncode == 2  # 5,000 requests of these models cost more than 10 USD
    assert "environment variable OPENAI_API_KEY is not set" in done.stderr
    assert "AWS has no region 'us-east-9'" in done.stderr
    assert "run.timeout_s=300 ends the load after about" in done.stderr
    assert "run.max_usd: this is estimated at" in done.stderr
    assert "nothing was sent" in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_plan_knows_inference_profiles_of_other_continents(llmexp) -> None:  # type: ignore[no-untyped-def]
    done = llmexp("model=sonnet", "model.region=eu-west-1", "dry_run=true")
    assert done.returncode == 0
    assert "is an inference profile of another part of the world than region eu-west-1" in done.stderr


def test_a_sweep_that_would_cost_too_much_does_not_start(llmexp) -> None:  # type: ignore[no-untyped-def]
    done = llmexp("model=gpt", "run.max_requests=100000", "run.max_usd=0.01", OPENAI_API_KEY="nobody's")
    assert done.returncode == 2
    assert "run.max_usd" in done.stderr


def test_a_users_own_directory_adds_to_every_group(llmexp, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    mine = tmp_path / "mine"
    (mine / "model").mkdir(parents=True)
    (mine / "workload").mkdir()
    (mine / "model" / "ours.yaml").write_text("name: our-model\nbase_url: http://127.0.0.1:1/v1\n")
    (mine / "workload" / "tiny.yaml").write_text("input_tokens: {mean: 40}\noutput_tokens: {mean: 5}\n")
    done = llmexp("model=ours", "--config-dir", str(mine), "workload=tiny", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "name: our-model" in done.stdout
    assert "mean: 40" in done.stdout
