"""How often is a run at many streams `valid`, and what does the event loop's lag come to?

    python benchmarks/loop_lag.py [--streams 1024] [--tries 10]

Each try is a job of its own on kept workers, against the simulator on the same machine (TTFT 200 ms, 20 ms a token, 128
tokens). A try during which other programs used more than a tenth of the CPU says nothing about the client and is
marked. Exit status 1 when fewer than nine in ten of the undisturbed tries are valid.

Where late turns come from, as profiled at 1,024 streams on two cores: not from bursts of endings (3 ms at once was the
most seen), nor from handing tapes over (0.1 ms a turn), nor from the collector (1 to 2 ms, a few times a run). In the
late turns that were looked at, the worker had waited for a core that the simulator or another program held for the
rest of its slice. Asking for short slices (`llmexp/worker/scheduling.py`) brought the p99 of one worker's lag from 9
to 11 ms down to 6 on a busy machine, and of two workers from 2.8 to 1.7 ms where others had to give way. What then
still made runs `degraded` was the start: a pause of 6 ms held up sixty streams, which followed in a burst; now those
behind keep their distance.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from llmexp.calibrate.measure import TTFT_S, Load, Point, config_of, measure_at
from llmexp.endpoints import Running
from llmexp.endpoints.process import serving

BAR = 0.9


def one_try(load: Load) -> Point:
    """One job."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = folder / "truth.jsonl"
        settings = {"ttft": {"mean_s": TTFT_S}, "inter_token": {"mean_s": load.gap_s}, "truth": str(truth)}
        with serving("llmexp.endpoints.simulator", settings, log=folder / "endpoint.log", timeout_s=30) as child:
            running = Running(f"{child.ready['address']}/v1", {}, (child.pid,))
            finish = measure_at(load, config_of(load), running, folder)
        return finish(truth)


def line(point: Point) -> str:
    """What a try showed."""
    lag_ms = (point.loop_lag_p99_s or 0.0) * 1e3
    held, cpu = point.held or 0.0, point.worker_cpu_share or 0.0
    noise = "  other programs were at work" if point.disturbed else ""
    return f"{point.workers:7}  {lag_ms:10.2f}  {held:6.1%}  {cpu:6.0%}  {point.verdict}{noise}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description="How often is a run at many streams valid?")
    parser.add_argument("--streams", type=int, default=1024, help="in flight (%(default)s)")
    parser.add_argument("--tries", type=int, default=10, help="jobs (%(default)s)")
    parser.add_argument("--tokens", type=int, default=128, help="of each answer (%(default)s)")
    given = parser.parse_args(arguments)
    from llmexp import benchmark
    from llmexp.config import Ray

    load = Load(given.streams, tokens=given.tokens)
    print(f"about {given.tries * load.expected_s:.0f} s", file=sys.stderr)
    print(f"{'workers':>7}  {'lag p99 ms':>10}  {'held':>6}  {'CPU':>6}  verdict")
    benchmark.ensure_ray(Ray())
    points = []
    for _ in range(given.tries):
        points.append(one_try(load))
        print(line(points[-1]), flush=True)
        for reason in points[-1].reasons:
            print(f"         {reason}", flush=True)
    benchmark.stop_ray()
    calm = [point for point in points if not point.disturbed]
    valid = sum(point.verdict == "valid" for point in calm)
    print(f"{valid} of {len(calm)} undisturbed tries are valid; {len(points) - len(calm)} were disturbed")
    return 1 if valid < BAR * len(calm) else 0


if __name__ == "__main__":
    sys.exit(main())
