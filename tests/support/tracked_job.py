"""Job and sweep directories as `results.py` writes them, small and made up, for the tests around MLflow."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from llmexp import records
from llmexp.config import defaults

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415478da63f8cfc0000003010100c9fe92ef"
    "0000000049454e44ae426082"
)


def spread(mean: float, count: int = 200) -> dict[str, float]:
    """A plausible latency distribution around a mean."""
    shares = {"min": 0.6, "p25": 0.85, "p50": 0.97, "p75": 1.1, "p90": 1.3, "p95": 1.45, "p99": 1.9, "max": 2.2}
    return {
        "count": count,
        "mean": mean,
        "stddev": 0.3 * mean,
        **{name: mean * share for name, share in shares.items()},
    }


def metrics(concurrency: int, ttft_s: float, requests: int) -> dict[str, Any]:
    per_token_s = 0.02 * (1 + concurrency / 40)
    return {
        "ttft_s": spread(ttft_s, requests),
        "time_per_output_token_s": spread(per_token_s, requests),
        "inter_token_latency_s": spread(per_token_s, 64 * requests),
        "e2e_latency_s": spread(ttft_s + 64 * per_token_s, requests),
        "time_to_first_answer_token_s": None,
        "output_tokens_per_s": concurrency * 64 / (ttft_s + 64 * per_token_s),
        "requests_per_s": concurrency / (ttft_s + 64 * per_token_s),
        "requests_completed": requests,
        "requests_failed": 1,
        "requests_unfinished": 0,
        "error_rate": 1 / (requests + 1),
        "inflight_mean": 0.99 * concurrency,
        "cost_usd": 0.004 * requests,
        "usd_per_million_output_tokens": math.nan,
        "slo": {"met": True, "attainment": 0.98},
    }


def config(model: str, concurrency: int | None) -> dict[str, Any]:
    tree = defaults()
    tree["model"] |= {"name": f"{model}-1b", "params": {"temperature": 0.0, "stop": ["\n", "END"]}}
    tree["workload"]["input_tokens"] |= {"mean": 128.0, "stddev": 16.0}
    tree["workload"]["output_tokens"] |= {"mean": 64.0, "stddev": 8.0}
    tree["concurrency"] = concurrency
    tree["tracking"]["tags"] = {"team": "search"}
    return tree


def result(
    job_id: str, model: str = "sonnet", concurrency: int | None = 4, ttft_s: float = 0.4, **changes: Any
) -> dict[str, Any]:
    job = {
        "id": job_id,
        "key": f"k-{job_id}",
        "name": f"{model} c={concurrency}",
        "model": model,
        "index": 0,
        "repeat": 1,
    }
    job |= {"overrides": [f"model={model}", f"concurrency={concurrency}"], "sweep": None, "rehearsal": False}
    tree: dict[str, Any] = {
        "schema_version": 1,
        "job": job | changes.pop("job", {}),
        "status": "finished",
        "reason": None,
        "started_at": "2026-01-05T10:00:00.000000Z",
        "ended_at": "2026-01-05T10:00:30.500000Z",
        "config": config(model, concurrency),
        "environment": {"versions": {"llmexp": "0.1.0"}, "host": {"name": "bench-1"}, "git_commit": "a" * 40},
        "deployment": {
            "instance_type": "ml.g5.2xlarge",
            "instances": 1,
            "container": {"image": "djl:0.27"},
            "region": None,
        },
        "metrics": metrics(concurrency or 4, ttft_s, 200),
        "curves": {
            "step_s": 1,
            "t_s": list(range(30)),
            "inflight": [min(concurrency or 4, second + 1) for second in range(30)],
            "output_tokens_per_s": [100.0 + second for second in range(30)],
        },
        "errors": {
            "throttled": {
                "count": 1,
                "codes": {"429": 1},
                "examples": [{"index": 3, "code": "429", "message": "slow down"}],
            }
        },
        "validity": {"verdict": "valid", "reasons": []},
        "client": {
            "loop_lag_s": {"p50": 0.0002, "p99": 0.001},
            "cpu_share": 0.12,
            "workers": ["w0"],
            "rss_bytes": 2.1e8,
        },
        "cost": {"usd": 0.8},
        "server": {},
        "notes": {"remarks": ["3 requests were cut when run.grace_s ended."]},
    }
    return tree | changes


def write_job(directory: Path, tree: dict[str, Any], requests: int = 8, workload: str = "quick") -> Path:
    """A whole job directory."""
    hydra = directory / ".hydra"
    hydra.mkdir(parents=True)
    choices = f"model: {tree['job']['model']}\n      workload: {workload}\n      load: closed"
    (hydra / "hydra.yaml").write_text(f"hydra:\n  runtime:\n    choices:\n      {choices}\n")
    (hydra / "config.yaml").write_text("concurrency: 4\n")
    (directory / "result.json").write_text(json.dumps(tree))
    (directory / "quick_summary.json").write_text("{}")
    (directory / "report.html").write_text("<h1>The job at a glance</h1>")
    (directory / "timeline.png").write_bytes(PNG)
    with records.Writer(directory, {"wall_ns": 10**18, "monotonic_ns": 0}) as writer:
        writer.append(records.to_batch([_record(index, workload) for index in reversed(range(requests))]))
    records.to_parquet(directory)
    return directory


def _record(index: int, workload: str) -> records.Record:
    at_ns = index * 10**9
    return records.Record(index, 0, "completed", at_ns, at_ns, at_ns, prompt_digest=f"{workload}-{index}")


def write_sweep(directory: Path, sweep_id: str, jobs: dict[str, dict[str, Any]], requests: int = 8) -> Path:
    """A sweep's directory: folder name → result."""
    for name, tree in jobs.items():
        tree["job"]["sweep"] = sweep_id
        write_job(directory / name, tree, requests)
    (directory / "comparison.csv").write_text("metric,sonnet,llama\nttft_s/mean,0.4,0.7\n")
    (directory / "comparison.html").write_text(
        '<h1 id="top">sonnet is faster</h1><a href="#top">up</a> <a href="0/report.html">sonnet c=4</a>'
    )
    (directory / "multirun.yaml").write_text("hydra: {}\n")
    return directory
