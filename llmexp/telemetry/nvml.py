"""NVIDIA's GPUs of this machine, by NVML (the package nvidia-ml-py, and the driver's own library)."""

from __future__ import annotations

import contextlib
import ctypes.util
import importlib.util
from collections.abc import Callable, Mapping

from llmexp.telemetry.reading import Reading, SourceError, chosen

INSTALL = "install the package nvidia-ml-py (llmexp's extra `gpu`)"


class Nvml:
    """All GPUs, or those of `model.gpus`."""

    name = "nvml"
    interval_s = 0.1

    def __init__(self, gpus: tuple[int | str, ...] | None) -> None:
        """Raises `SourceError` where there is nothing to read."""
        if importlib.util.find_spec("pynvml") is None:
            raise SourceError(f"NVML cannot be read: {INSTALL}")
        import pynvml

        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise SourceError(f"NVML cannot be read: {error}") from None
        self._handles = self._find(gpus)

    def _find(self, gpus: tuple[int | str, ...] | None) -> dict[str, object]:
        nvml, found, seen = self._nvml, {}, []
        try:
            for index in range(nvml.nvmlDeviceGetCount()):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                uuid = str(nvml.nvmlDeviceGetUUID(handle))
                seen.append(f"{index} ({uuid})")
                if chosen(index, uuid, gpus):
                    found[uuid] = handle
        except nvml.NVMLError as error:
            self.close()
            raise SourceError(f"NVML cannot be read: {error}") from None
        if not found or (gpus is not None and len(found) < len(gpus)):
            self.close()
            wanted = "" if gpus is None else f" of model.gpus={list(gpus)}"
            raise SourceError(f"NVML shows not every GPU{wanted}; there are: {', '.join(seen) or 'none'}")
        return found

    def read(self) -> Mapping[str, Reading]:
        """What each GPU says; a figure that it does not have is None."""
        nvml = self._nvml
        return {
            uuid: Reading(
                self._scaled(nvml.nvmlDeviceGetTotalEnergyConsumption, handle, 1e-3),
                self._scaled(nvml.nvmlDeviceGetPowerUsage, handle, 1e-3),
                self._scaled(lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu, handle, 1e-2),
                self._scaled(lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used, handle, 1.0),
            )
            for uuid, handle in self._handles.items()
        }

    def _scaled(self, ask: Callable[[object], float], handle: object, scale: float) -> float | None:
        nvml = self._nvml
        try:
            return float(ask(handle)) * scale
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission):
            return None
        except nvml.NVMLError as error:
            raise SourceError(f"NVML: {error}") from None

    def close(self) -> None:
        """Let go of the library."""
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()


def driver_is_here() -> bool:
    """Whether this machine has NVIDIA's driver, so that a missing package is worth a word."""
    return ctypes.util.find_library("nvidia-ml") is not None
