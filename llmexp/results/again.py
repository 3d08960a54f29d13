"""The command that repeats a job: what its page and its run in MLflow tell."""

from __future__ import annotations

import shlex

from llmexp.json_types import number
from llmexp.results.run import Run

_OF_THE_SWEEP = ("run.resume=", "run.rerun_invalid=", "run.repeats=")
"""What says how a sweep is run, and nothing of one job."""


def command(run: Run) -> str:
    """The command that repeats this very job: its own folder of configs, one repeat, the prompts byte for byte."""
    overrides = [one for one in map(str, run.result.job.overrides) if not one.lstrip("+").startswith(_OF_THE_SWEEP)]
    folders = [word for folder in run.config_dirs for word in ("--config-dir", folder)]
    own = [] if any(one.lstrip("+").startswith("run.nonce=") for one in overrides) else _nonce(run)
    if any(one.lstrip("+").startswith("experiment=") for one in overrides):
        own.append("hydra.mode=RUN")
    repeats = ["run.repeats=1"] if number(run.config, "run", "repeats") not in (None, 1) else []
    return shlex.join(["python", "-m", "llmexp", *folders, *overrides, *own, *repeats])


def _nonce(run: Run) -> list[str]:
    nonce = run.result.notes.nonce
    return [f"run.nonce={nonce}"] if nonce else []
