"""The files of a job: `result.json`, and LLMPerf's two beside it.

`result.json` is strict JSON (what does not exist is null, never NaN) and is replaced in one step, so that a reader
sees the old one or the new one, never half of one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from llmexp.config import Slo
    from llmexp.metrics import Cost
    from llmexp.observed import Observed
    from llmexp.validity import Validity

RESULT = "result.json"
SCHEMA_VERSION = 1
Status = Literal["finished", "failed", "interrupted"]


def measured(
    observed: Observed,
    *,
    slo: Slo,
    open_loop: bool,
    cost: Cost | None = None,
    usd_per_hour: float | None = None,
    streams: int | None = None,
    stationary: bool = True,
) -> dict[str, Any]:
    """All that the records say, under the names of `result.json`; arguments as `metrics.summarize` takes them."""
    from llmexp import metrics

    summary = metrics.summarize(
        observed,
        slo=slo,
        open_loop=open_loop,
        cost=cost,
        usd_per_hour=usd_per_hour,
        streams=streams,
        stationary=stationary,
    )
    return {
        "metrics": summary,
        "percentiles_uncarried": metrics.uncarried(summary),
        "curves": metrics.curves(observed),
        "errors": metrics.errors(observed),
        "output_length": metrics.output_length(observed),
        "token_sources": metrics.token_sources(observed),
    }


def build(
    *,
    job: Mapping[str, Any],
    status: Status,
    reason: str | None,
    started_at: datetime,
    ended_at: datetime,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    deployment: Mapping[str, Any],
    measured: Mapping[str, Any],
    validity: Validity,
    client: Mapping[str, Any],
    cost: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of `result.json`, ready to be written: plain values without NaN."""
    tree = {
        "schema_version": SCHEMA_VERSION,
        "job": job,
        "status": status,
        "reason": reason,
        "started_at": timestamp(started_at),
        "ended_at": timestamp(ended_at),
        "config": config,
        "environment": environment,
        "deployment": deployment,
        **measured,
        "validity": validity.as_dict(),
        "client": client,
        "cost": cost,
        "notes": [*notes, *remarks(measured)],
    }
    plain: dict[str, Any] = strict(tree)
    return plain


def remarks(measured: Mapping[str, Any]) -> list[str]:
    """What a reader of these numbers should know, in words."""
    found = []
    cut = measured["metrics"]["requests_unfinished"]
    if cut:
        found.append(
            f"{cut} request{'s were' if cut > 1 else ' was'} cut when run.grace_s ended: latencies are censored, "
            "for the slowest answers are not among them. Raise run.grace_s, or run.timeout_s."
        )
    length = measured["output_length"]
    if length and not length["held"]:
        found.append(
            f"{length['share_held']:.0%} of the answers had the length asked for (±{length['tolerance']:.0%}): "
            f"{length['asked_mean']:.0f} tokens were asked on average, {length['answered_mean']:.0f} came. A stack that "
            "answers at another length does other work; workload.force_output helps where the server knows it."
        )
    return found


def strict(value: Any) -> Any:
    """The value as strict JSON holds it: numpy's numbers as Python's, NaN and infinities as null."""
    if isinstance(value, Mapping):
        return {str(key): strict(one) for key, one in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool):
        return value
    if isinstance(value, Sequence):
        return [strict(one) for one in value]
    if hasattr(value, "tolist"):
        return strict(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int) else str(value)


def timestamp(moment: datetime) -> str:
    """UTC, ISO 8601, in microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def write(directory: Path, result: Mapping[str, Any]) -> Path:
    """Write `result.json`."""
    return write_json(directory / RESULT, result, indent=1)


def read(directory: Path) -> dict[str, Any]:
    """The content of `result.json`."""
    tree: dict[str, Any] = json.loads((directory / RESULT).read_text(encoding="utf-8"))
    return tree


def write_json(path: Path, value: Any, indent: int) -> Path:
    """Strict JSON in one step: written beside its place, then moved there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=indent, allow_nan=False, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return path
