"""Two hosts against one: the same load, the same endpoint, numbers side by side. Needs root (namespaces).

    sudo python benchmarks/hosts.py [streams ...]

The second host has a monotonic clock 50,000 s ahead and no files of ours. Before our own runs, a bare-socket client
(`fidelity.py`'s) sends the same load, half of it from each host. Bars: offset within 2 ms of the true one, uncertainty
at most 1 ms, tokens/s within 1 %, window and requests in flight as on one host, TTFT at most 1.5 ms at p50 and 12 ms at
p99 beyond the bare client's. Endpoint, hosts and clients share this machine's cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.hosts import AHEAD_S, Hosts, cluster, missing  # type: ignore[import-not-found]

TTFT_S, GAP_S, TOKENS, ROUNDS = 0.2, 0.02, 128, 3
TTFT_P50_S, TTFT_P99_S = 0.0015, 0.012
SAME = 0.01
"""How far tokens/s, window and requests in flight may be from those on one host."""


@dataclass(frozen=True)
class Seen:
    """A run's numbers."""

    window_s: float
    in_flight: float
    tokens_per_s: float
    ttft_p50_s: float
    ttft_p99_s: float
    offset_error_s: float
    uncertainty_s: float
    verdict: str
    reasons: list[str]


def main(levels: list[int]) -> int:
    """Both runs at each level; 1 where a bar is passed."""
    why = missing()
    if why is not None:
        print(why)
        return 2
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder)) as hosts:
        endpoint = ["--host", hosts.address("a"), "--port", "8900", "--ttft", str(TTFT_S), "--inter-token", str(GAP_S)]
        hosts.start("a", sys.executable, "-m", "llmexp.simulate", *endpoint, log="endpoint.log")
        while "ready" not in (hosts.directory / "endpoint.log").read_text():
            time.sleep(0.1)
        held = [_level(hosts, streams) for streams in levels]
    return 0 if all(held) else 1


def _level(hosts: Hosts, streams: int) -> bool:
    bare_p50_s, bare_p99_s = _bare(hosts, streams)
    one = _run(hosts, streams, "one", ["ray.workers=2"])
    two = _run(hosts, streams, "two", ["ray=cluster", f"ray.address={hosts.head}", "ray.workers=2"])
    print(f"{streams} streams: window s, in flight, tokens/s, TTFT p50/p99 ms beyond the endpoint's, verdict")
    print(f"  bare client{'':27}{_beyond(bare_p50_s, bare_p99_s):>12}")
    for name, seen in (("one host", one), ("two hosts", two)):
        beyond = _beyond(seen.ttft_p50_s, seen.ttft_p99_s)
        line = f"{seen.window_s:7.3f} {seen.in_flight:7.1f} {seen.tokens_per_s:9.0f}  {beyond:>12}  {seen.verdict}"
        print(f"  {name:<11}{line}", *(f"\n    {reason}" for reason in seen.reasons))
    print(f"  offset off by {two.offset_error_s * 1e3:.3f} ms, known to {two.uncertainty_s * 1e3:.3f} ms", flush=True)
    same = (
        (two.tokens_per_s, one.tokens_per_s),
        (two.window_s, one.window_s),
        (two.in_flight, one.in_flight),
    )
    return (
        two.offset_error_s <= 0.002
        and two.uncertainty_s <= 0.001
        and all(abs(mine / other - 1) <= SAME for mine, other in same)
        and two.ttft_p50_s - bare_p50_s <= TTFT_P50_S
        and two.ttft_p99_s - bare_p99_s <= TTFT_P99_S
    )


def _beyond(p50_s: float, p99_s: float) -> str:
    return f"+{(p50_s - TTFT_S) * 1e3:.1f}/+{(p99_s - TTFT_S) * 1e3:.1f}"


def _bare(hosts: Hosts, streams: int) -> tuple[float, float]:
    """TTFT p50 and p99 of a bare client, a half of the streams from each host at the same time."""
    script = str(Path(__file__).with_name("fidelity.py"))
    load = ["--streams", str(streams // 2), "--tokens", str(TOKENS), "--requests", str(ROUNDS * streams // 2)]
    command = [sys.executable, script, "--bare", f"http://{hosts.address('a')}:8900", *load]
    both = [hosts.start(host, *command) for host in ("a", "b")]
    ttfts_s: list[float] = []
    for process in both:
        out, err = process.communicate(timeout=180)
        if process.returncode:
            raise subprocess.SubprocessError(err)
        ttfts_s += [(first - sent) / 1e9 for sent, first, _, _ in json.loads(out)["seen"].values()]
    p50_s, p99_s = np.quantile(ttfts_s, [0.5, 0.99])
    return float(p50_s), float(p99_s)


def _run(hosts: Hosts, streams: int, name: str, ray: list[str]) -> Seen:
    folder = hosts.directory / f"{name}-{streams}"
    done = hosts.run(
        *ray,
        "model=openai_compatible",
        f"model.base_url=http://{hosts.address('a')}:8900/v1",
        "model.name=simulated",
        f"workload.output_tokens.mean={TOKENS}",
        "workload.output_tokens.stddev=0",
        f"concurrency={streams}",
        f"run.max_requests={ROUNDS * streams}",
        "tracking=none",
        f"hydra.run.dir={folder}",
        timeout_s=180,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "result.json").read_text())
    metrics, used = result["metrics"], result["client"]["hosts"]
    other = [host for host in used if host["address"] == hosts.address("b")]
    errors = [abs(host["clock_offset_s"] - AHEAD_S["b"]) for host in other]
    return Seen(
        metrics["window_s"],
        metrics["inflight_mean"],
        metrics["output_tokens_per_s"],
        metrics["ttft_s"]["p50"],
        metrics["ttft_s"]["p99"],
        max(errors, default=0.0),
        max(host["clock_uncertainty_s"] for host in used),
        result["validity"]["verdict"],
        [reason["seen"] for reason in result["validity"]["reasons"] if reason["level"] != "note"],
    )


if __name__ == "__main__":
    sys.exit(main([int(level) for level in sys.argv[1:]] or [64, 512]))
