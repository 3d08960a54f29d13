"""Which sources a job has, by its configuration and by what this machine can tell."""

from __future__ import annotations

from llmexp.config import Config
from llmexp.telemetry.dcgm import Dcgm
from llmexp.telemetry.nvml import INSTALL, Nvml, driver_is_here
from llmexp.telemetry.rapl import Rapl
from llmexp.telemetry.reading import SourceError
from llmexp.telemetry.watch import PowerWatch

STARTED = ("served", "llamacpp")
"""Kinds of deployment whose server runs on this machine because the job starts it."""


def choose(config: Config) -> tuple[PowerWatch, PowerWatch]:
    """Watches of the GPUs and of the CPU, to be entered around the load."""
    model = config.model
    started = model.deployment.kind in STARTED and not config.rehearse
    if config.rehearse or model.gpu_metrics == "none":
        return PowerWatch(None), PowerWatch(None)
    return _gpus(config, started=started), _cpu(started=started)


def _gpus(config: Config, *, started: bool) -> PowerWatch:
    asked, gpus = config.model.gpu_metrics, config.model.chosen_gpus
    if asked is not None and asked != "nvml":
        return PowerWatch(Dcgm(asked, gpus))
    if asked is None and not started:
        return PowerWatch(None)
    try:
        return PowerWatch(Nvml(gpus))
    except SourceError as error:
        silent = asked is None and gpus is None
        if silent and INSTALL in str(error) and driver_is_here():
            return PowerWatch(None, str(error))
        return PowerWatch(None, None if silent else str(error))


def _cpu(*, started: bool) -> PowerWatch:
    if not started:
        return PowerWatch(None)
    try:
        return PowerWatch(Rapl())
    except SourceError:
        return PowerWatch(None)
