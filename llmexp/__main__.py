"""The door: Hydra in, exit status out.

Nothing heavy is imported before a job is known to run: `--help` does not even import Hydra, `--cfg job` little else.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, cast

from llmexp import command_line, mistakes, secrets
from llmexp import errors as outcome
from llmexp.composition import conf_dir, quiet_environment, store_schema
from llmexp.errors import FAILED, INTERRUPTED, WRONG, ConfigError
from llmexp.terminal import out

if TYPE_CHECKING:
    from omegaconf import DictConfig

AGAIN_S = 0.02


def main() -> None:
    """Entry point of `python -m llmexp` and of the console script."""
    out.open_closed()
    arguments = sys.argv[1:]
    secrets.guard_streams()
    answered = command_line.answer(arguments, conf_dir())
    if answered is not None:
        sys.exit(answered)
    quiet_environment()
    signal.signal(signal.SIGTERM, _terminated)
    sys.unraisablehook = _unheard
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
        explained = None if outcome.reported() else mistakes.explain(error, arguments, conf_dir())
        if outcome.is_interrupt(error):
            outcome.report(INTERRUPTED)
        elif explained is None:
            raise
        else:
            print(explained, file=sys.stderr)
            outcome.report(WRONG)
    out.finish()
    outcome.leave(outcome.final())


def _terminated(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _unheard(told: sys.UnraisableHookArgs) -> None:
    """An interrupt that fell into a callback of Python's memory management, which swallows it, comes again at once."""
    if isinstance(told.exc_value, KeyboardInterrupt):
        again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGTERM))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(told)


def _hydra() -> None:
    import hydra

    store_schema()

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def run(composed: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        from llmexp.jobs import command

        command_line.composed()
        try:
            status = command.run_composed(composed, cast("DictConfig", HydraConfig.get())).status
        except ConfigError as error:
            # Hydra would show a traceback.
            print(error, file=sys.stderr)
            status = error.exit_status
        outcome.report(status)

    run()


if __name__ == "__main__":
    main()
