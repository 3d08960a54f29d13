"""Shows that the comparison keeps its promises: few false verdicts, enough power, and it is fast.

    python benchmarks/compare_bars.py              aa, power and speed, about a minute
    python benchmarks/compare_bars.py aa power     two of them
    python benchmarks/compare_bars.py real         over sockets: 180 jobs, about 20 minutes

- `aa`: 400 sweeps over stacks that are alike. At most 27 may contain a false verdict on the primary metric: what a true
  5 % allows. Shown for the default margin and, as the harder case, for none at all.
- `power`: 5 blocks of 200 requests a side, coefficient of variation 0.3 within a run and 2 % between runs, margin 3 %:
  a true 15 % difference in mean TTFT is called in at least 90 % of sweeps.
- `real`: 30 sweeps of three blocks over sockets, over one simulated endpoint under two names. At most 4 may contain a
  false verdict. One long sweep is cut into thirty, so that jobs are shuffled and run as any sweep's are.
- `speed`: comparing 100 runs of 10,000 requests takes under 10 s and under 1 GB, files and page included.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.synthetic import Truth, config, write_job  # type: ignore[import-not-found]

from llmexp.compare import Options, Run, compare
from llmexp.results import load_runs, parse
from llmexp.results.requests import Requests

SWEEPS = 400
REAL_SWEEPS = 30
REAL_BLOCKS = 3
TWIN = """\
defaults: [simulated, _self_]
deployment:
  profile:
    ttft: {mean_s: 0.04, cv: 0.3}
    inter_token: {mean_s: 0.004, cv: 0.3}
"""


@dataclass(frozen=True)
class Sweep:
    """The shape of a simulated sweep."""

    stacks: int = 2
    cells: int = 1
    blocks: int = 5
    requests: int = 200
    cv: float = 0.3
    cv_between: float = 0.02
    unlike: float = 1.0
    """Each further cell, and each further stack, scatters so many times as much between runs."""
    drift: float = 0.0
    """Standard deviation of what a block adds to all its runs alike."""


def simulate(shape: Sweep, rng: np.random.Generator, effect: float = 1.0) -> list[Run]:
    """One sweep's runs; the last stack's mean TTFT is `effect` times the others'."""
    runs = []
    for block in range(shape.blocks):
        drift = np.exp(rng.normal(0, shape.drift))
        for cell in range(shape.cells):
            for stack in range(shape.stacks):
                spread = shape.cv_between * shape.unlike ** (cell + stack)
                mean = 0.2 * drift * (effect if stack == shape.stacks - 1 else 1.0) * np.exp(rng.normal(0, spread))
                truth = Truth(model=f"stack{stack}", concurrency=2**cell, repeat=block, requests=shape.requests)
                runs.append(_run(truth, mean * _lognormal(rng, shape.cv, shape.requests)))
    return runs


def _lognormal(rng: np.random.Generator, cv: float, count: int) -> np.ndarray:
    sigma = np.sqrt(np.log1p(cv * cv))
    drawn: np.ndarray = np.exp(rng.normal(-sigma * sigma / 2, sigma, count))
    return drawn


_CONFIGS: dict[tuple[str, int], dict[str, object]] = {}


def _run(truth: Truth, ttft_s: np.ndarray) -> Run:
    """A run that holds what a comparison of TTFT reads."""
    tree = _CONFIGS.setdefault((truth.model, truth.concurrency), config(truth))
    count = len(ttft_s)
    index, flags, blank = np.arange(count), np.ones(count, dtype=bool), np.full(count, np.nan)
    requests = Requests(
        index=index,
        completed=flags,
        failed=~flags,
        started_s=index.astype(float),
        ended_s=index + ttft_s,
        ttft_s=ttft_s,
        e2e_latency_s=ttft_s,
        time_per_output_token_s=blank,
        response_ttft_s=ttft_s,
        response_latency_s=ttft_s,
        input_tokens=np.full(count, 128.0),
        output_tokens=np.full(count, 64.0),
        max_tokens=np.full(count, 64.0),
        turn=blank,
        digest=index.astype("S16"),
        right=blank,
        answer=np.zeros(count, dtype="S16"),
    )
    job = {"id": f"{truth.model}-{truth.repeat}", "model": truth.model, "repeat": truth.repeat, "sweep": "s"}
    spread = {"mean": float(ttft_s.mean()), "p95": float(np.percentile(ttft_s, 95)), "count": count}
    return Run(parse({"job": job, "config": tree, "metrics": {"ttft_s": spread}}, "made up"), None, requests)


# --- the bars --------------------------------------------------------------------------------------------------------


def false_verdicts(shape: Sweep, options: Options, seed: int, sweeps: int = SWEEPS) -> int:
    """How many of so many A/A sweeps contain a `lower` or `higher` on the primary metric."""
    rng = np.random.default_rng(seed)
    return sum(
        any(verdict.call in ("lower", "higher") for verdict in compare(simulate(shape, rng), options).verdicts)
        for _ in range(sweeps)
    )


def called(shape: Sweep, options: Options, effect: float, seed: int, sweeps: int = SWEEPS) -> float:
    """Share of sweeps in which the true effect is called, in its direction."""
    rng = np.random.default_rng(seed)
    right = "higher" if effect > 1 else "lower"
    hits = sum(compare(simulate(shape, rng, effect), options).verdicts[0].call == right for _ in range(sweeps))
    return hits / sweeps


def aa() -> Iterator[tuple[str, str, bool]]:
    """False verdicts among sweeps of stacks that are alike."""
    shapes = {
        "2 stacks, 1 load, 5 repeats": Sweep(),
        "2 stacks, 1 load, 3 repeats, drift 10 %": Sweep(blocks=3, drift=0.1),
        "3 stacks, 3 loads, 3 repeats": Sweep(stacks=3, cells=3, blocks=3),
        "2 stacks, 30 requests, between runs 20 %": Sweep(requests=30, cv_between=0.2),
        "3 stacks, 3 loads, 3 repeats, scatter unlike": Sweep(stacks=3, cells=3, blocks=3, cv_between=0.01, unlike=2.5),
    }
    for margin in (0.03, 0.0):
        for at, (name, shape) in enumerate(shapes.items()):
            count = false_verdicts(shape, Options(margin=margin), seed=2026 + at)
            yield f"A/A, {name}, margin {100 * margin:g} %", f"{count} of {SWEEPS} sweeps (bar: 27)", count <= 27


def power() -> Iterator[tuple[str, str, bool]]:
    """How often a true 15 % is called."""
    for effect in (1.15, 0.85):
        share = called(Sweep(), Options(margin=0.03), effect, seed=7)
        yield (
            f"power, true effect ×{effect:g}, 5 repeats of 200 requests",
            f"{100 * share:.1f} % (bar: 90 %)",
            share >= 0.9,
        )


def speed() -> Iterator[tuple[str, str, bool]]:
    """100 runs of 10,000 requests from files to page, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(100):
            truth = Truth(
                f"stack{number % 5}",
                ttft_s=0.2 + 0.02 * (number % 5),
                requests=10_000,
                concurrency=4 ** (number // 5 % 4),
                repeat=number // 20,
            )
            write_job(Path(folder) / str(number), truth, number)
        busy = _cpu_s()
        begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        subprocess.run([sys.executable, "-m", "llmexp.compare", folder], check=True, stdout=subprocess.DEVNULL)
        seconds, after = time.perf_counter() - begin, _cpu_s()
        peak = max(before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 2**20
        page = (Path(folder) / "comparison.html").stat().st_size / 2**20
    yield (
        "speed, 100 runs of 10,000 requests",
        f"{seconds:.1f} s, {after - busy:.1f} s of CPU (bar: 10 s)",
        seconds < 10,
    )
    yield "memory, 100 runs of 10,000 requests", f"{peak:.2f} GB (bar: 1 GB)", peak < 1
    yield "page, 100 runs of 10,000 requests", f"{page:.2f} MB (bar: 3 MB)", page < 3


def _cpu_s() -> float:
    """CPU of child processes so far: what the comparison takes when nothing else wants the cores."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def real() -> Iterator[tuple[str, str, bool]]:
    """False verdicts among real sweeps of one endpoint against itself."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for twin in ("left", "right"):
            (folder / "conf" / "model").mkdir(parents=True, exist_ok=True)
            (folder / "conf" / "model" / f"{twin}.yaml").write_text(TWIN, encoding="utf-8")
        command = [sys.executable, "-m", "llmexp", "--config-dir", "conf", "-m", "model=left,right", "tracking=none"]
        job = ["concurrency=4", "run.max_requests=32", "run.warmup_requests=4", "workload=qa", "hydra.sweep.dir=sweep"]
        subprocess.run(
            [*command, *job, f"run.repeats={REAL_SWEEPS * REAL_BLOCKS}"],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        runs = load_runs([folder / "sweep"])
        for margin in (0.03, 0.0):
            false = sum(
                any(verdict.call in ("lower", "higher") for verdict in compare(block, Options(margin=margin)).verdicts)
                for block in _thirds(runs)
            )
            yield (
                f"A/A over sockets, 2 stacks, 3 repeats of 32 requests, margin {100 * margin:g} %",
                f"{false} of {REAL_SWEEPS} sweeps (bar: 4)",
                false <= 4,
            )


def _thirds(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """The runs of one long sweep as sweeps of `REAL_BLOCKS` blocks each."""
    for first in range(0, REAL_SWEEPS * REAL_BLOCKS, REAL_BLOCKS):
        taken = [run for run in runs if first <= run.block < first + REAL_BLOCKS]
        if len(taken) != 2 * REAL_BLOCKS:
            raise SystemExit(
                f"blocks {first} to {first + REAL_BLOCKS - 1} hold {len(taken)} runs, not {2 * REAL_BLOCKS}"
            )
        yield taken


BARS = {"aa": aa, "power": power, "speed": speed, "real": real}
DEFAULT = ("aa", "power", "speed")


def main() -> int:
    """Print each bar; 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bars", nargs="*", help="which of: aa, power, speed, real (default: all but real)")
    chosen = parser.parse_args().bars or list(DEFAULT)
    passed = True
    for bar in chosen:
        for name, measured, good in BARS[bar]():
            passed &= good
            print(f"{'ok  ' if good else 'MISS'}  {name}: {measured}", flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
