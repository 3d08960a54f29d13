"""Runs of a known truth: job directories, or runs in memory, as a real job would leave them.

Everything after the wire is real (Arrow form, summary, comparison); only the times are drawn. A seed gives the same run
again.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from llmexp import records, report
from llmexp.compare import Comparison, compare, load_runs, write
from llmexp.config import Slo, defaults
from llmexp.metrics import summary as metrics

START_NS = 1_000_000_000_000
WALL_NS = 1_790_000_000_000_000_000


@dataclass(frozen=True)
class Truth:
    """How a stack behaves, and where it is measured."""

    model: str = "sonnet"
    ttft_s: float = 0.2
    cv: float = 0.3
    """Coefficient of variation of TTFT from request to request."""
    cv_between: float = 0.02
    """… of the run's own mean, from run to run."""
    time_per_output_token_s: float = 0.02
    output_tokens: float = 64.0
    output_stddev: float = 8.0
    answered: float = 1.0
    """Answered tokens over asked ones."""
    error_rate: float = 0.0
    unfinished: int = 0
    usd_per_million_output_tokens: float | None = 15.0
    requests: int = 200
    concurrency: int = 4
    rate: float | None = None
    """Requests per second of an open loop; None: closed."""
    repeat: int = 0
    workload_seed: int = 11111
    prompts: str = "quick"
    max_tokens: int | None = None
    """The same limit for all; None: each its own length."""
    rehearsal: bool = False
    verdict: str = "valid"
    version: str = "0.1.0"
    sweep: str | None = "sweep-1"
    status: str = "finished"
    slo: tuple[tuple[str, float], ...] = ()
    enforce: bool = False
    slots: int | None = None
    compare: tuple[tuple[str, Any], ...] = ()
    tokens_per_chunk: int = 1
    right: float | None = None
    """Share of right answers; None: answers are not graded."""
    agreement: float = 0.0
    """Correlation of answers to the same prompt, of this stack and of any other."""
    settled: bool = False
    """The same answer to a prompt in every repeat."""
    ungraded: float = 0.0
    """Share of completed answers without a grade."""
    margin: float = 0.02
    temperature: float | None = None
    timings: bool = True
    """False: chunks are left out, for simulations where only TTFT counts."""


def table(truth: Truth, seed: int) -> pa.Table:
    """The requests of one run."""
    rng = np.random.default_rng(seed)
    n = truth.requests
    asked, prompt_tokens = _workload(truth)
    run_mean = truth.ttft_s * _lognormal(rng, truth.cv_between, 1)[0]
    ttft = run_mean * _lognormal(rng, truth.cv, n)
    tokens = np.maximum(1, np.round(asked * truth.answered)).astype(np.int64)
    chunks = -(-tokens // truth.tokens_per_chunk)
    pace = truth.time_per_output_token_s * _lognormal(rng, truth.cv_between, 1)[0] * _lognormal(rng, 0.05, n)
    generating = pace * np.maximum(tokens - np.minimum(tokens, truth.tokens_per_chunk), 0)
    intended, sent = _sends(truth, ttft + generating, rng)
    first = sent + np.round(ttft * 1e9).astype(np.int64)
    last = first + np.round(generating * 1e9).astype(np.int64)
    failed = rng.random(n) < truth.error_rate
    unfinished = np.zeros(n, dtype=bool)
    unfinished[n - truth.unfinished :] = truth.unfinished > 0
    failed &= ~unfinished
    status = np.where(failed, "failed", np.where(unfinished, "unfinished", "completed"))
    lengths = np.where(failed, 0, chunks) if truth.timings else np.zeros(n, dtype=np.int64)
    at, counts = _chunks(first, last, tokens, lengths, truth.tokens_per_chunk)
    columns: dict[str, Any] = {
        "index": np.arange(n),
        "worker": np.zeros(n),
        "status": status,
        "intended_ns": intended,
        "dispatched_ns": intended,
        "sent_ns": sent,
        "wait_s": np.zeros(n),
        "connect_s": np.zeros(n),
        "first_byte_ns": pa.array(first, mask=failed),
        "first_token_ns": pa.array(first, mask=failed),
        "first_answer_token_ns": pa.array(first, mask=failed),
        "last_token_ns": pa.array(last, mask=failed),
        "end_ns": np.where(failed, sent + 10_000_000, last + 1_000_000),
        "chunk_ns": pa.ListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), at),
        "chunk_tokens": pa.ListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), counts),
        "input_tokens": pa.array(prompt_tokens, mask=failed),
        "input_tokens_source": ["server"] * n,
        "input_tokens_counted": prompt_tokens,
        "output_tokens": pa.array(tokens, mask=failed),
        "output_tokens_source": ["server"] * n,
        "chunk_tokens_source": ["server"] * n,
        "error_class": pa.array(["server"] * n, mask=~failed),
        "error_code": pa.array(["500"] * n, mask=~failed),
        "error_message": pa.array(["overloaded"] * n, mask=~failed),
        "max_tokens": np.full(n, truth.max_tokens) if truth.max_tokens else asked,
        "prompt_digest": _digests(truth, n),
        "stale_connections": np.zeros(n),
        "turn": np.zeros(n),
        "reasoning_streamed": np.zeros(n, dtype=bool),
        "finish_reason": ["stop"] * n,
        **_grades(truth, status == "completed", rng),
    }
    schema = records.schema().with_metadata(
        {"schema_version": "1", "anchor": json.dumps({"wall_ns": WALL_NS, "monotonic_ns": START_NS})}
    )
    arrays = [
        pa.array(columns[field.name]).cast(field.type) if field.name in columns else pa.nulls(n, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _grades(truth: Truth, completed: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """The columns of a graded run."""
    if truth.right is None:
        return {}
    n = len(completed)
    if truth.settled:
        rng = np.random.default_rng([truth.workload_seed, sum(truth.model.encode())])
    right = rng.random(n) < chances(truth, n)
    known = completed & (rng.random(n) >= truth.ungraded)
    return {
        "right": pa.array(right, mask=~known),
        "score": pa.array(right.astype(float), mask=~known),
        "grade_status": pa.array(np.where(known, "graded", "ungraded"), mask=~completed),
        "answer_digest": pa.array([f"{index}-{answer}" for index, answer in enumerate(right)], mask=~completed),
    }


def chances(truth: Truth, n: int) -> np.ndarray:
    """How likely a right answer to each prompt is: the same for all stacks that agree, prompt by prompt."""
    assert truth.right is not None
    if not truth.agreement:
        return np.full(n, truth.right)
    prompts = np.random.default_rng([truth.workload_seed, 7])
    weight = 1 / truth.agreement - 1
    return prompts.beta(truth.right * weight, (1 - truth.right) * weight, n)


def _lognormal(rng: np.random.Generator, cv: float, n: int) -> np.ndarray:
    """Mean 1 and this coefficient of variation."""
    sigma = np.sqrt(np.log1p(cv * cv))
    return np.exp(rng.normal(-sigma * sigma / 2, sigma, n))


def _workload(truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """Asked output tokens and prompt tokens: the same for every stack and repeat."""
    rng = np.random.default_rng(truth.workload_seed)
    asked = np.maximum(1, np.round(rng.normal(truth.output_tokens, truth.output_stddev, truth.requests)))
    return asked.astype(np.int64), np.maximum(1, rng.normal(128, 16, truth.requests)).astype(np.int64)


def _digests(truth: Truth, n: int) -> list[str]:
    head = hashlib.sha256(f"{truth.prompts}/{truth.workload_seed}".encode()).hexdigest()[:8]
    return [f"{head}{index:08x}{truth.max_tokens or 0:016x}" for index in range(n)]


def _sends(truth: Truth, service_s: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Intended and sent times: streams that wait for their answers, or a Poisson schedule."""
    if truth.rate is not None:
        at = START_NS + np.round(np.cumsum(rng.exponential(1 / truth.rate, truth.requests)) * 1e9).astype(np.int64)
        return at, at + 50_000
    free = [0.0] * truth.concurrency
    starts = np.empty(truth.requests)
    for index, seconds in enumerate(service_s.tolist()):
        starts[index] = heapq.heappop(free)
        heapq.heappush(free, starts[index] + seconds + 0.001)
    at = START_NS + np.round(starts * 1e9).astype(np.int64)
    return at, at + 20_000


def _chunks(
    first: np.ndarray, last: np.ndarray, tokens: np.ndarray, lengths: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spaced chunks of `size` tokens, flat; the last one holds the rest."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    share = position / np.maximum(lengths[owner] - 1, 1)
    at = first[owner] + np.round(share * (last - first)[owner]).astype(np.int64)
    counts = np.where(position == lengths[owner] - 1, tokens[owner] - (lengths[owner] - 1) * size, size)
    return at, counts.astype(np.int32)


# --- result.json -----------------------------------------------------------------------------------------------------


def config(truth: Truth) -> dict[str, Any]:
    """The composed tree."""
    tree = defaults()
    tree["model"] |= {"name": f"{truth.model}-1"}
    tree["model"]["price"]["usd_per_million_output_tokens"] = truth.usd_per_million_output_tokens
    if truth.slots is not None:
        tree["model"]["deployment"] = {"kind": "llamacpp", "slots": truth.slots}
    tree["workload"]["input_tokens"] |= {"mean": 128.0, "stddev": 16.0}
    tree["workload"]["output_tokens"] |= {"mean": truth.output_tokens, "stddev": truth.output_stddev}
    tree["concurrency"] = None if truth.rate else truth.concurrency
    if truth.rate:
        tree["load"] |= {"kind": "poisson", "rate": truth.rate}
    tree["run"] |= {"max_requests": truth.requests, "seed": truth.workload_seed}
    tree["slo"] |= dict(truth.slo) | {"enforce": truth.enforce}
    tree["rehearse"] = truth.rehearsal
    tree["compare"] |= dict(truth.compare)
    if truth.right is not None:
        tree["quality"] |= {"kind": "number", "margin": truth.margin}
    if truth.temperature is not None:
        tree["model"]["params"] = {"temperature": truth.temperature}
    return tree


def result(truth: Truth, requests: pa.Table, seed: int) -> dict[str, Any]:
    """What `result.json` holds."""
    tree = config(truth)
    observed = metrics.observe(requests)
    price = truth.usd_per_million_output_tokens
    summary = metrics.summarize(
        observed,
        slo=Slo(**dict(truth.slo)),
        open_loop=truth.rate is not None,
        cost=None if price is None else lambda _i, _c, output, _r, _w: output * price / 1e6,
        streams=truth.concurrency,
    )
    where = f"rate={truth.rate:g}" if truth.rate else f"concurrency={truth.concurrency}"
    reasons = [
        {"reason": "loop_lag", "level": truth.verdict, "measured": 0.03, "limit": 0.025, "remedy": "fewer streams"}
    ]
    name = f"model={truth.model} {where} repeat={truth.repeat + 1}"
    return {
        "schema_version": 1,
        "job": {
            "id": hashlib.sha256(f"{truth}/{seed}".encode()).hexdigest()[:32],
            "key": hashlib.sha256(repr(truth).encode()).hexdigest()[:16],
            "name": name,
            "model": truth.model,
            "index": 0,
            "repeat": truth.repeat,
            "overrides": [f"model={truth.model}", where],
            "sweep": truth.sweep,
            "rehearsal": truth.rehearsal,
        },
        "status": truth.status,
        "reason": None if truth.status == "finished" else "the endpoint went away",
        "started_at": "2026-11-24T10:00:00.000000Z",
        "ended_at": "2026-11-24T10:01:00.000000Z",
        "config": tree,
        "environment": {
            "versions": {"llmexp": truth.version, "python": "3.11.7"},
            "host": {"name": "bench-1", "cpus": 2},
            "git_commit": "a" * 40,
        },
        "deployment": {"kind": "llamacpp", "slots": truth.slots} if truth.slots else {},
        "metrics": summary,
        "curves": metrics.curves(observed) or {},
        "errors": metrics.errors(observed),
        "validity": {"verdict": truth.verdict, "reasons": reasons if truth.verdict != "valid" else []},
        "client": {"loop_lag_s": {"p50": 0.0002, "p99": 0.001}, "cpu_share": 0.1},
        "cost": {"usd": summary["cost_usd"]},
        "notes": {"remarks": []},
    }


def run(truth: Truth, seed: int) -> Any:
    """A run in memory."""
    from llmexp.results import Run, parse
    from llmexp.results.requests import from_table

    requests = table(truth, seed)
    return Run(parse(result(truth, requests, seed), "here"), None, from_table(requests))


def write_job(directory: Path, truth: Truth, seed: int) -> Path:
    """A job directory: `result.json` and `requests.parquet`."""
    import pyarrow.parquet as pq

    directory.mkdir(parents=True)
    requests = table(truth, seed)
    pq.write_table(requests, directory / records.PARQUET, compression="zstd")
    (directory / "result.json").write_text(json.dumps(result(truth, requests, seed), allow_nan=False))
    return directory


def write_sweep(directory: Path, stacks: list[Truth], concurrencies: list[int], repeats: int, seed: int = 1) -> Path:
    """A sweep: every stack at every concurrency, so many times."""
    number = 0
    for repeat in range(repeats):
        for truth in stacks:
            for concurrency in concurrencies:
                write_job(
                    directory / str(number), replace(truth, concurrency=concurrency, repeat=repeat), seed + number
                )
                number += 1
    return directory


def run_sweep(directory: Path) -> Comparison:
    """Compare a sweep's jobs and write every file of the comparison, as a sweep does at its end."""
    comparison = compare(load_runs([directory]))
    write(comparison, directory)
    report.comparison(comparison, directory)
    return comparison
