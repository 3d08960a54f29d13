"""Hydra's sweeper for the cross product of all values, as its basic one, but without a write of its own.

The basic sweeper makes the folder and writes `multirun.yaml` before anybody has seen the jobs' configs; here the
launcher checks all of them first, then makes a folder that is ours, then writes.
"""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn

ConfigStore.instance().store(
    group="hydra/sweeper",
    name="llmexp",
    node={"_target_": "hydra_plugins.llmexp_sweeper.LlmexpSweeper", "max_batch_size": None, "params": None},
    provider="llmexp",
)


class LlmexpSweeper(BasicSweeper):
    """Hands all jobs to the launcher at once: they share one Ray, one store and one comparison."""

    def sweep(self, arguments: list[str]) -> Sequence[Sequence[JobReturn]]:
        """All combinations of the values given."""
        assert self.hydra_context is not None
        assert self.launcher is not None
        given = [*self._parse_config(), *arguments]
        overrides = OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(given)
        (batch,) = self.split_arguments(overrides, None)
        return [self.launcher.launch(batch, initial_job_idx=0)]
