"""The file of a job: `result.json`.

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
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from llmexp.metrics.validity import Validity

RESULT = "result.json"
JsonObject: TypeAlias = dict[str, Any]
"""The content of `result.json` as it is read back."""
SCHEMA_VERSION = 1


def build(
    *,
    job: Mapping[str, Any],
    status: str,
    reason: str | None,
    started: datetime,
    config: Mapping[str, Any],
    ended: datetime | None = None,
    environment: Mapping[str, Any] | None = None,
    deployment: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    curves: Mapping[str, Any] | None = None,
    errors: Mapping[str, Any] | None = None,
    validity: Validity | None = None,
    client: Mapping[str, Any] | None = None,
    cost: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
    server: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of `result.json`, ready to be written: plain values without NaN.

    `status` is `finished`, `failed` or `interrupted`. Without `metrics` it says that nothing was measured.
    """
    from llmexp.metrics.validity import ClientFacts, judge
    from llmexp.results.environment import environment as here

    verdict = validity or judge(ClientFacts(requests_completed=0))
    tree = {
        "schema_version": SCHEMA_VERSION,
        "job": job,
        "status": status,
        "reason": reason,
        "started_at": timestamp(started),
        "ended_at": ended and timestamp(ended),
        "config": config,
        "environment": here() if environment is None else environment,
        "deployment": deployment or {},
        "metrics": metrics or {},
        "curves": curves or {},
        "server": server or {},
        "errors": errors or {},
        "validity": verdict.as_dict(),
        "client": client or {},
        "cost": cost or {},
        "notes": {**(notes or {}), "remarks": remarks(metrics or {}, notes or {}, server or {})},
    }
    plain: dict[str, Any] = strict(tree)
    return plain


def remarks(metrics: Mapping[str, Any], notes: Mapping[str, Any], server: Mapping[str, Any]) -> list[str]:
    """What a reader of these numbers should know, in words."""
    problem = (server.get("source") or {}).get("problem")
    found = [f"The server's metrics were not read: {problem}."] if problem else []
    found += [check["remark"] for check in server.get("checks") or () if check["remark"]]
    cut = metrics.get("requests_unfinished")
    if notes.get("ended_early"):
        found.append(f"The load ended early: {notes['ended_early']}. {cut or 0} requests in flight were cut.")
    elif cut:
        found.append(
            f"{cut} request{'s were' if cut > 1 else ' was'} cut when run.grace_s ended: latencies are censored, "
            "for the slowest answers are not among them. Raise run.grace_s, or run.timeout_s."
        )
    length = notes.get("output_length")
    if length and not length["held"]:
        found.append(
            f"{length['share_held']:.0%} of the answers had the length asked for (±{length['tolerance']:.0%}): "
            f"{length['asked_mean']:.0f} tokens were asked on average, {length['answered_mean']:.0f} came. A stack "
            "that answers at another length does other work; workload.force_output helps where the server knows it."
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


def read(directory: Path) -> JsonObject:
    """The content of `result.json`."""
    tree: JsonObject = json.loads((directory / RESULT).read_text(encoding="utf-8"))
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
