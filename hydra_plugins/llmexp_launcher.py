"""Hydra's launcher for sweeps: validates every job before the first request, then hands all of them to `llmexp.sweep`.

Hydra finds it in the namespace package `hydra_plugins`; `conf/config.yaml` selects it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

if TYPE_CHECKING:
    from llmexp.jobs.spec import Composed

# A plain mapping: Hydra runs this file outside sys.modules, where no dataclass with postponed annotations can be made.
ConfigStore.instance().store(
    group="hydra/launcher",
    name="llmexp",
    node={"_target_": "hydra_plugins.llmexp_launcher.LlmexpLauncher"},
    provider="llmexp",
)


class LlmexpLauncher(Launcher):
    """Composes all jobs of a batch and runs them as one sweep."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.hydra_context = hydra_context
        self.task_function = task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the batch; its exit status goes to `llmexp.outcome`, so that Hydra never ends a sweep early."""
        from llmexp import command_line
        from llmexp import errors as outcome
        from llmexp.errors import ConfigError
        from llmexp.jobs import sweep
        from llmexp.jobs.spec import refuse_credentials

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        try:
            refuse_credentials(self.config)
            composed = [self._compose(overrides, initial_job_idx + at) for at, overrides in enumerate(job_overrides)]
            command_line.composed()
            status = sweep.run_sweep(composed, str(self.config.hydra.sweep.dir), self.config).status
        except ConfigError as error:
            print(error, file=sys.stderr)
            sys.exit(error.exit_status)
        outcome.report(status)
        return [self._returned(job) for job in composed]

    def _compose(self, overrides: Sequence[str], number: int) -> Composed:
        from llmexp.jobs.spec import Composed as Split
        from llmexp.jobs.spec import refuse_credentials

        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        refuse_credentials(config)
        return Split.split(config, tuple(filter_overrides(overrides)))

    def _returned(self, composed: Composed) -> JobReturn:
        ret = JobReturn()
        ret.cfg = composed.task
        ret.overrides = composed.overrides
        ret.status = JobStatus.COMPLETED
        ret.return_value = None
        return ret
