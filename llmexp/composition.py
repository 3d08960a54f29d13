"""Composing a configuration by Hydra: where its files lie, the schema under them, and doing it without a command line.

Hydra is imported inside functions: `--help` does without it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp import command_line, secrets

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from llmexp.jobs.spec import Composed


def conf_dir() -> Path:
    """The folder of shipped configs: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def quiet_environment() -> None:
    """Libraries underneath must not phone anywhere or write over the tables."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


def store_schema() -> None:
    """Put the schema where `conf/config.yaml` finds it: every key with its default lies under the composition."""
    from hydra.core.config_store import ConfigStore

    from llmexp import config

    ConfigStore.instance().store(name="llmexp_schema", node=config.schema_node(), provider="llmexp")


@contextlib.contextmanager
def opened(config_dir: Path | None) -> Iterator[None]:
    """Hydra ready to compose from our folder and the user's own; what it was before comes back afterwards."""
    from hydra import initialize_config_dir

    store_schema()
    before = list(command_line.own_folders)
    command_line.own_folders[:] = [] if config_dir is None else [config_dir]
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir()), job_name="llmexp"):
            yield
    finally:
        command_line.own_folders[:] = before


def compose_all(overrides: Sequence[str]) -> list[Composed]:
    """Every combination that the overrides ask for, values with commas swept, inside `opened`."""
    from hydra import compose
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    secrets.learn_words(overrides)
    parser = OverridesParser.create()
    given = parser.parse_overrides(list(overrides))
    # The first value of each: enough to read what an experiment's file sweeps over.
    single = [combination[0] for combination in BasicSweeper.split_arguments(given, None)]
    first = compose(config_name="config", overrides=single[0], return_hydra_config=True)
    swept = OmegaConf.select(first, "hydra.sweeper.params") or {}
    named = [f"{key}={value}" for key, value in swept.items()]
    both = parser.parse_overrides([*named, *overrides])
    (combinations,) = BasicSweeper.split_arguments(both, None)
    return [_composed(list(combination), number) for number, combination in enumerate(combinations)]


def _composed(overrides: list[str], number: int) -> Composed:
    from hydra import compose
    from hydra.core.utils import filter_overrides
    from omegaconf import open_dict

    from llmexp.jobs.spec import Composed, refuse_credentials

    config: DictConfig = compose(config_name="config", overrides=overrides, return_hydra_config=True)
    refuse_credentials(config)
    with open_dict(config):
        config.hydra.job.id = str(number)
        config.hydra.job.num = number
        config.hydra.runtime.output_dir = str(config.hydra.run.dir)
        config.hydra.sweep.dir = str(config.hydra.sweep.dir)
    return Composed.split(config, tuple(filter_overrides(overrides)))
