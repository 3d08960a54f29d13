"""The search for the highest load that keeps the service level. Pure: it is told outcomes and says what to probe next.

    search = Search(start=1.0, max_probes=12, precision=0.05)
    while (level := search.next()) is not None:
        search.tell(level, probe(level))
    search.interval

It doubles (after three doublings: ×4) until a level fails, or halves until one passes, bisects between the two in equal
ratios until they are within `precision`, and then probes both once more. A level whose two outcomes disagree is taken
for neither side: the interval opens to its neighbours, which are probed where they are far.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

RESERVED = 2
"""Probes kept for repeating the boundary."""
DOUBLINGS = 3
RESOLUTION = 0.02
"""Rates closer than this cannot be told apart by a probe (see `probes.length`); the interval is wider by it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a probe said of its level."""

    passed: bool
    alone: bool = False
    """Its requests hardly overlapped, so that no lower level can do better."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the capacity lies, as far as the probes tell. None: that side was not found."""

    low: float | None
    high: float | None
    estimate: float | None
    passed_at: float | None
    """The highest level that passed with all below it."""
    failed_at: float | None
    """The lowest level that failed with all above it."""
    reason: str | None
    """In words, what was not found or is not certain."""


@dataclass
class Search:
    """One search. With `integer`, levels are whole numbers from 1 and neighbours end the bisection."""

    start: float
    max_probes: int = 12
    precision: float = 0.05
    integer: bool = False
    told: dict[float, list[Outcome]] = field(default_factory=dict)
    _stopped: str | None = None

    @property
    def probes(self) -> int:
        """Probes told so far."""
        return sum(map(len, self.told.values()))

    def next(self) -> float | None:
        """The level to probe now; None: the search is over."""
        if self._stopped or self.probes >= self.max_probes:
            return None
        return self._wanted() if self.told else self._rounded(self.start)

    def _wanted(self) -> float | None:
        low, high = self._sides()
        if high is None:
            return self._higher()
        if low is None:
            return self._lower()
        disputed = self._between(low, high)
        if disputed:
            return self._beside(low, high, disputed) or self._repeat(low, high)
        return self._middle(low, high) or self._repeat(low, high)

    def tell(self, level: float, outcome: Outcome) -> None:
        """What a probe at this level said."""
        self.told.setdefault(level, []).append(outcome)

    def stop(self, reason: str) -> None:
        """End the search early, for example for money."""
        self._stopped = self._stopped or reason

    @property
    def interval(self) -> Interval:
        """What is known by now."""
        low, high = self._sides()
        margin = 0.0 if self.integer else RESOLUTION
        return Interval(
            low=None if low is None else low / (1 + margin),
            high=None if high is None else high * (1 + margin),
            estimate=self._estimate(low, high),
            passed_at=low,
            failed_at=high,
            reason="; ".join(self._remarks(low, high)) or None,
        )

    # -- the next level -----------------------------------------------------------------------------------------------

    def _sides(self) -> tuple[float | None, float | None]:
        """The highest level with no failure up to it, the lowest with no pass from it on."""
        passed = [level for level, seen in self.told.items() if any(one.passed for one in seen)]
        failed = [level for level, seen in self.told.items() if not all(one.passed for one in seen)]
        low = max((level for level in passed if not failed or level < min(failed)), default=None)
        high = min((level for level in failed if not passed or level > max(passed)), default=None)
        return low, high

    def _higher(self) -> float:
        highest, rises = max(self.told), sum(level > self.start for level in self.told)
        return self._rounded(highest * (self._small_step(highest) or (2 if rises < DOUBLINGS else 4)))

    def _lower(self) -> float | None:
        lowest = min(self.told)
        if any(one.alone for one in self.told[lowest]) or (self.integer and lowest <= 1):
            return None
        return self._rounded(lowest / (self._small_step(lowest) or 2))

    def _small_step(self, level: float) -> float | None:
        """At a disputed level the boundary is near."""
        disputed = len({one.passed for one in self.told[level]}) > 1
        return None if not disputed else max(1 + self.precision, (level + 1) / level if self.integer else 0.0)

    def _between(self, low: float, high: float) -> list[float]:
        """Levels that probes disagreed about."""
        return sorted(level for level in self.told if low < level < high)

    def _middle(self, low: float, high: float) -> float | None:
        """Between the sides, while they are apart and probes are left beside the repeats."""
        if self._near(low, high) or self.max_probes - self.probes <= RESERVED:
            return None
        middle = self._rounded(math.sqrt(low * high))
        return min(max(middle, low + 1), high - 1) if self.integer else middle

    def _beside(self, low: float, high: float, disputed: list[float]) -> float | None:
        """A step below or above what is disputed, where the sides lie further off than two such steps."""
        step = 1 + self.precision
        below, above = self._rounded(disputed[0] / step), self._rounded(disputed[-1] * step)
        if self.integer:
            below, above = min(below, disputed[0] - 1), max(above, disputed[-1] + 1)
        if below > low * step:
            return below
        return above if above * step < high else None

    def _near(self, low: float, high: float) -> bool:
        return (self.integer and high - low <= 1) or high / low <= 1 + self.precision

    def _repeat(self, low: float, high: float) -> float | None:
        return next((level for level in (low, high) if len(self.told[level]) == 1), None)

    def _rounded(self, level: float) -> float:
        return float(max(1, round(level))) if self.integer else float(f"{level:.4g}")

    # -- the answer ---------------------------------------------------------------------------------------------------

    def _estimate(self, low: float | None, high: float | None) -> float | None:
        if low is None or high is None:
            return None
        return low if self.integer else math.sqrt(low * high)

    def _remarks(self, low: float | None, high: float | None) -> list[str]:
        said = [self._stopped] if self._stopped else []
        if not self.told:
            said.append("no level was probed")
        elif high is None:
            said.append(f"no level failed: the capacity is at least {max(self.told):g}")
        elif low is None:
            lowest = min(self.told)
            alone = any(one.alone for one in self.told[lowest])
            why = ", where requests hardly overlap: this service level is out of reach at any load" if alone else ""
            said.append(f"no level passed: the capacity is below {lowest:g}{why}")
        elif not self._near(low, high) and not self._stopped:
            said.append(self._wide(low, high))
        return said

    def _wide(self, low: float, high: float) -> str:
        disputed = [f"{level:g}" for level in self._between(low, high)]
        if disputed:
            return f"probes disagreed about {', '.join(disputed)}, so the interval reaches to the neighbours"
        return f"capacity.max_probes ({self.max_probes}) ended the search before capacity.precision was reached"
