"""Shows that a capacity search keeps its promise: the truth lies inside an interval no wider than ±10 %.

    python benchmarks/capacity_bars.py                 10 seeds, about 1 minute each on a quiet machine
    python benchmarks/capacity_bars.py --seeds 3

For each seed a whole job runs against the simulator over sockets: known slots, known mean service time, constant
arrivals, so that capacity = slots / service time. Lengths, gaps and the search's starting point differ by seed. Passed:
at least 9 of 10 intervals hold the truth and none is wider than ±10 %.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmexp.benchmark import stop_ray
from llmexp.config import Config, defaults, load
from llmexp.jobs.job import measure

SLOTS, TTFT_S, GAP_S, TOKENS = 8, 0.06, 0.02, 18
SERVICE_S = TTFT_S + (TOKENS - 1) * GAP_S
TRUTH = SLOTS / SERVICE_S
WIDEST = 1.1 / 0.9
BAR = 0.9


@dataclass(frozen=True)
class Found:
    """One seed's search."""

    seed: int
    low: float | None
    high: float | None
    probes: int
    seconds: float
    validity: str

    @property
    def width(self) -> float:
        """The half width as a share of the middle; infinite where a side is missing."""
        if self.low is None or self.high is None:
            return math.inf
        return (self.high - self.low) / (self.high + self.low)

    @property
    def holds(self) -> bool:
        """Whether the interval is narrow enough and the truth inside."""
        if self.low is None or self.high is None:
            return False
        return self.low <= TRUTH <= self.high and self.high / self.low <= WIDEST


def config(seed: int, cv: float) -> Config:
    """A search whose truth is known; the start differs by seed within a factor of two."""
    tree: dict[str, Any] = defaults()
    profile = {
        "ttft": {"mean_s": TTFT_S, "cv": cv},
        "inter_token": {"mean_s": GAP_S, "cv": cv},
        "slots": SLOTS,
        "seed": seed,
    }
    profile = {**tree["model"]["rehearsal"], **profile}
    tree["model"] |= {"name": "simulated", "deployment": {"kind": "simulated", "profile": profile}}
    tree["workload"]["input_tokens"] |= {"mean": 32.0, "stddev": 4.0}
    tree["workload"]["output_tokens"] |= {"mean": float(TOKENS), "stddev": 0.0}
    tree["load"]["kind"] = "constant"
    tree["slo"]["ttft_s"] = 0.3
    start = TRUTH * random.Random(seed).uniform(0.5, 1.0)
    tree["capacity"] |= {"enabled": True, "start": float(f"{start:.3g}"), "probe_s": 4.0, "precision": 0.07}
    tree["run"] |= {"max_requests": None, "seed": seed, "timeout_s": 60.0}
    return load(tree)


def search(seed: int, cv: float, directory: Path) -> Found:
    """One whole job."""
    began = time.monotonic()
    result = measure(config(seed, cv), directory, quiet=True)
    low, high, probes = (result.metrics.number(f"capacity/{name}") for name in ("low", "high", "probes"))
    seconds = time.monotonic() - began
    return Found(seed, low, high, int(probes or 0), seconds, result.validity.verdict)


def main() -> int:
    """Run the seeds, print a line for each; 0 when the bar is passed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--cv", type=float, default=0.1, help="coefficient of variation of the simulator's times")
    asked = parser.parse_args()
    print(f"truth: {SLOTS} slots / {SERVICE_S:g} s = {TRUTH:.3f} requests/s")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(asked.seeds):
            one = search(seed, asked.cv, Path(folder) / str(seed))
            found.append(one)
            ends = " to ".join("none" if end is None else f"{end:.2f}" for end in (one.low, one.high))
            print(
                f"seed {seed}: {ends} (±{one.width:.1%}), {one.probes} probes, {one.seconds:.0f} s, {one.validity}: "
                f"{'holds' if one.holds else 'MISSES'}",
                flush=True,
            )
    stop_ray()
    held = sum(one.holds for one in found)
    passed = held >= BAR * len(found)
    print(f"{held} of {len(found)} hold the truth within ±10 %: {'passed' if passed else 'FAILED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
