"""What happens between composing a config and Hydra's first write: refusals, and the job's folder becomes ours.

Hydra makes the output folder by its name alone, which two commands of the same second share. This callback
(`hydra.callbacks` in conf/config.yaml) runs before that, and puts the name of a folder that nobody else has in its
place. An exception here would become a warning, so what is wrong ends the process as Hydra's own errors do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from llmexp.errors import ConfigError
from llmexp.jobs import lock
from llmexp.jobs.spec import refuse_credentials

OWN = {
    "launcher": ("hydra_plugins.llmexp_launcher.LlmexpLauncher", "are run"),
    "sweeper": ("hydra_plugins.llmexp_sweeper.LlmexpSweeper", "are made"),
}
"""The parts of Hydra's that a sweep needs to be ours: what `conf/config.yaml` selects, and what each does."""


class BeforeTheFolder(Callback):
    """Claims the folder of a job alone; a sweep's is claimed once all of its jobs are checked."""

    def on_run_start(self, config: DictConfig, **_: object) -> None:
        """Called with the composed config, which the job will get."""
        with _ends_the_process():
            refuse_credentials(config)
            folder = lock.claim(Path(str(config.hydra.run.dir)), promise=True)
        with open_dict(config):
            config.hydra.run.dir = str(folder.path)

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Called before there is a sweeper: another than ours would write `multirun.yaml` first and ask then."""
        with _ends_the_process():
            _refuse_others(config)
            refuse_credentials(config)


def _refuse_others(config: DictConfig) -> None:
    """`ConfigError` where a sweep would be made or run by others than us."""
    problems = [
        f"hydra/{part}: sweeps {does} by llmexp's own, which keeps one limit and one folder for all jobs; leave it out"
        for part, (own, does) in OWN.items()
        if OmegaConf.select(config, f"hydra.{part}._target_") != own
    ]
    if problems:
        raise ConfigError("\n".join(problems))


@contextmanager
def _ends_the_process() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_status)
