"""What happens between composing a config and Hydra's first write: the job's folder becomes ours.

Hydra makes the output folder by its name alone, which two commands of the same second share. This callback
(`hydra.callbacks` in conf/config.yaml) runs before that, and puts the name of a folder that nobody else has in its
place. An exception here would become a warning, so what is wrong ends the process as Hydra's own errors do.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict

from llmexp.errors import ConfigError
from llmexp.jobs import lock
from llmexp.jobs.spec import refuse_credentials


class BeforeTheFolder(Callback):
    """Claims the folder of a job alone; a sweep's is claimed once all of its jobs are checked."""

    def on_run_start(self, config: DictConfig, **_: object) -> None:
        """Called with the composed config, which the job will get."""
        try:
            refuse_credentials(config)
            folder = lock.claim(Path(str(config.hydra.run.dir)), promise=True)
        except ConfigError as error:
            sys.stderr.write(f"{error}\n")
            sys.exit(error.exit_status)
        with open_dict(config):
            config.hydra.run.dir = str(folder.path)
