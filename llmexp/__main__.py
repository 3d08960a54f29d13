"""The door: Hydra in, exit status out.

Nothing heavy is imported before a job is known to run: `--help` does not even import Hydra, `--cfg job` little else.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llmexp import command_line, secrets
from llmexp import errors as outcome
from llmexp.errors import FAILED, INTERRUPTED, WRONG, ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def conf_dir() -> Path:
    """The folder of shipped configs: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def main() -> None:
    """Entry point of `python -m llmexp` and of the console script."""
    arguments = sys.argv[1:]
    answered = command_line.answer(arguments, conf_dir())
    if answered is not None:
        sys.exit(answered)
    secrets.guard_streams()
    _quiet_environment()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        sys.argv[1:] = command_line.arranged(arguments)
        with command_line.errors_are_raised():
            _hydra()
    except ConfigError as error:
        print(error, file=sys.stderr)
        outcome.report(error.exit_status)
    except KeyboardInterrupt:
        outcome.report(INTERRUPTED)
    except SystemExit as end:
        # Hydra exits 1 for its own composition errors; before any of our code ran that means a wrong config.
        code = end.code if isinstance(end.code, int) else FAILED if end.code else 0
        outcome.report(WRONG if code == FAILED and not outcome.reported() else code)
    except Exception as error:
        explained = None if outcome.reported() else command_line.explain(error, arguments, conf_dir())
        if explained is None:
            raise
        print(explained, file=sys.stderr)
        outcome.report(WRONG)
    sys.stdout.flush()
    sys.exit(outcome.final())


def _quiet_environment() -> None:
    """Libraries underneath must not phone anywhere or write over the tables."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


def _terminated(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _hydra() -> None:
    import hydra
    from hydra.core.config_store import ConfigStore

    from llmexp import config

    ConfigStore.instance().store(name="llmexp_schema", node=config.schema_node(), provider="llmexp")

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def run(composed: DictConfig) -> Any:
        from hydra.core.hydra_config import HydraConfig

        from llmexp.jobs import sweep

        command_line.composed()
        try:
            status = sweep.run_composed(composed, cast("DictConfig", HydraConfig.get())).status
        except ConfigError as error:
            # Hydra would show a traceback.
            print(error, file=sys.stderr)
            status = error.exit_status
        outcome.report(status)

    run()


if __name__ == "__main__":
    main()
