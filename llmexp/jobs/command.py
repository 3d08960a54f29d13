"""What a command asks for: one job, a sweep of repeats, or a search for settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmexp.jobs.spec import Composed, typed_overrides
from llmexp.jobs.sweep import Outcome
from llmexp.jobs.sweep import run_composed as run_jobs

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run_composed(task: DictConfig, hydra: DictConfig) -> Outcome:
    """A command without `-m`."""
    from omegaconf import OmegaConf

    if not OmegaConf.select(task, "search.enabled"):
        return run_jobs(task, hydra)
    from llmexp.jobs import tune

    return tune.run(Composed(task, hydra, typed_overrides(hydra)))
