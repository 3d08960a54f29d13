"""A DCGM exporter: NVIDIA's figures as Prometheus text, of the GPUs of whatever machine it runs on."""

from __future__ import annotations

import contextlib
import http.client
import math
import ssl
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from llmexp.benchmark import prometheus
from llmexp.telemetry.reading import Reading, SourceError, chosen

TIMEOUT_S = 2.0
MAX_BYTES = 16 * 2**20
MIB = 2**20
ENERGY, POWER, UTILIZATION = (
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_GPU_UTIL",
)
ACTIVE, MEMORY = "DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_DEV_FB_USED"
NAMES = frozenset({ENERGY, POWER, UTILIZATION, ACTIVE, MEMORY})
"""mJ since the driver was loaded, W, %, a share, MiB."""


class Dcgm:
    """The GPUs of an exporter, or those of `model.gpus`."""

    interval_s = 0.1

    def __init__(self, url: str, gpus: tuple[int | str, ...] | None) -> None:
        self.name = url
        self._url = urlsplit(url)
        self._path = "/metrics" if self._url.path in ("", "/") else self._url.path
        self._gpus = gpus
        self._connection: http.client.HTTPConnection | None = None

    def read(self) -> Mapping[str, Reading]:
        """What each GPU says."""
        text = self._fetch()
        by_gpu: dict[str, list[prometheus.Sample]] = {}
        seen: dict[tuple[str, str], None] = {}
        for sample in prometheus.parse(text, NAMES):
            if not math.isfinite(sample.value):
                continue
            index, uuid = sample.labels.get("gpu", ""), sample.labels.get("UUID", "") or sample.labels.get("uuid", "")
            seen[index, uuid] = None
            if chosen(int(index) if index.isdigit() else None, uuid, self._gpus):
                by_gpu.setdefault(uuid or f"{sample.labels.get('Hostname', '')}/{index}", []).append(sample)
        missing = [one for one in self._gpus or () if not any(_is(gpu, one) for gpu in seen)]
        if not by_gpu or missing:
            wanted = "no GPU" if self._gpus is None else f"not every GPU of model.gpus={list(self._gpus)}"
            there = ", ".join(f"{index} ({uuid})" if uuid else index for index, uuid in seen) or "none"
            raise SourceError(f"{self.name} tells of {wanted}; there are: {there}")
        return {gpu: _reading(samples) for gpu, samples in by_gpu.items()}

    def _fetch(self) -> str:
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.request("GET", f"{self._path}{f'?{self._url.query}' if self._url.query else ''}")
            response = self._connection.getresponse()
            body = response.read(MAX_BYTES)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise SourceError(f"{self.name}: {error or type(error).__name__}") from None
        if response.status != 200:
            self.close()
            raise SourceError(f"{self.name} answers {response.status}")
        return body.decode(errors="replace")

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None


def _is(gpu: tuple[str, str], wanted: int | str) -> bool:
    index, uuid = gpu
    return chosen(int(index) if index.isdigit() else None, uuid, (wanted,))


def _reading(samples: Iterable[prometheus.Sample]) -> Reading:
    """Figures of one GPU. Lines of its MIG instances and of several pods repeat what the whole GPU draws."""
    values: dict[str, list[prometheus.Sample]] = {}
    for sample in samples:
        values.setdefault(sample.name, []).append(sample)

    def of(name: str, scale: float) -> float | None:
        found = values.get(name)
        return max(one.value for one in found) * scale if found else None

    utilization = of(UTILIZATION, 1e-2)
    return Reading(
        of(ENERGY, 1e-3), of(POWER, 1.0), of(ACTIVE, 1.0) if utilization is None else utilization, _memory(values)
    )


def _memory(values: Mapping[str, list[prometheus.Sample]]) -> float | None:
    """Each MIG instance has memory of its own; a repeated line has not, and the whole GPU's holds all of theirs."""
    found = {one.labels.get("GPU_I_ID", ""): one.value for one in values.get(MEMORY, ())}
    whole = found.pop("", 0.0) if found else None
    return None if whole is None else max(whole, sum(found.values())) * MIB
