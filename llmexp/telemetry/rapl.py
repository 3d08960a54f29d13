"""The CPU's energy by RAPL, as Linux shows it where it may be read (often by root alone)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmexp.telemetry.reading import Reading, SourceError

ROOT = Path("/sys/class/powercap")
_COUNTED = ("package", "dram")
_SECOND = "intel-rapl-mmio"
"""Another way to the figures of the same packages."""


class Rapl:
    """Packages and their memory; parts inside a package are in its own figure."""

    name = "rapl"
    interval_s = 0.25

    def __init__(self, root: Path = ROOT) -> None:
        """Raises `SourceError` where nothing can be read."""
        self._zones: dict[str, tuple[Path, float]] = {}
        self._last: dict[str, float] = {}
        self._turns: dict[str, int] = {}
        for zone in sorted(root.glob("*-rapl*:*")):
            try:
                name = (zone / "name").read_text().strip()
                (zone / "energy_uj").read_text()
                top = float((zone / "max_energy_range_uj").read_text())
            except (OSError, ValueError):
                continue
            if name.startswith(_COUNTED):
                self._zones[f"{zone.name} {name}"] = (zone / "energy_uj", top)
        if any(not name.startswith(_SECOND) for name in self._zones):
            self._zones = {name: zone for name, zone in self._zones.items() if not name.startswith(_SECOND)}
        if not self._zones:
            raise SourceError("RAPL cannot be read")

    def read(self) -> Mapping[str, Reading]:
        """Joules of each zone; a counter that began anew goes on."""
        found = {}
        for name, (path, top) in self._zones.items():
            try:
                value = float(path.read_text())
            except (OSError, ValueError) as error:
                raise SourceError(f"RAPL: {error}") from None
            if value < self._last.get(name, 0.0):
                self._turns[name] = self._turns.get(name, 0) + 1
            self._last[name] = value
            found[name] = Reading(energy_j=(value + self._turns.get(name, 0) * top) * 1e-6)
        return found

    def close(self) -> None:
        """Nothing is held."""
