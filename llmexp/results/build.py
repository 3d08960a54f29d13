"""What a job left → its `Result`, with remarks in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from llmexp.json_types import Tree, branch, items, number, text
from llmexp.metrics.validity import ClientFacts, Validity, judge
from llmexp.metrics.wording import counted
from llmexp.records import REMARKS
from llmexp.results.environment import environment as here
from llmexp.results.files import strict
from llmexp.results.model import JobInfo, Result, Status


def build(
    *,
    job: JobInfo,
    status: Status,
    reason: str | None,
    started: datetime,
    config: Tree,
    ended: datetime | None = None,
    environment: Tree | None = None,
    deployment: Tree | None = None,
    metrics: Tree | None = None,
    curves: Tree | None = None,
    errors: Tree | None = None,
    validity: Validity | None = None,
    client: Tree | None = None,
    cost: Tree | None = None,
    notes: Tree | None = None,
    server: Tree | None = None,
) -> Result:
    """The result of a job, plain values without NaN. Without `metrics` it says that nothing was measured."""
    tree = {
        "config": config,
        "environment": here() if environment is None else environment,
        "deployment": deployment or {},
        "metrics": metrics or {},
        "curves": curves or {},
        "server": server or {},
        "errors": errors or {},
        "client": client or {},
        "cost": cost or {},
        "notes": {**(notes or {}), "remarks": remarks(metrics or {}, notes or {}, server or {}, status)},
    }
    plain = strict(tree)
    assert isinstance(plain, dict)
    return Result.model_validate(
        {
            **plain,
            "job": job,
            "status": status,
            "reason": reason,
            "started_at": started,
            "ended_at": ended,
            "validity": validity or judge(ClientFacts(requests_completed=0, ended_by=reason)),
        }
    )


def remarks(metrics: Tree, notes: Tree, server: Tree, status: Status = "finished") -> list[str]:
    """What a reader of these numbers should know, in words."""
    problem = text(server, "source", "problem")
    found = [f"The server's metrics were not read: {problem}."] if problem else []
    found += [said for check in items(server, "checks") if (said := text(check, "remark"))]
    for name in ("gpu", "cpu"):
        if problem := text(server, "power", name, "problem"):
            found.append(f"Energy of the {name.upper()} is not known: {problem}.")
    cut = int(number(metrics, "requests_unfinished") or 0)
    if early := text(notes, "ended_early"):
        found.append(f"The load ended early: {early}. {cut} requests in flight were cut.")
    elif cut:
        found.append(_censored(cut, status))
    found += [f"{said}." for said in items(notes, "workload")]
    if (why := text(notes, "requests", "why")) and not text(notes, "ended_early"):
        found.append(f"Fewer requests were sent than asked for: {why}.")
    for name in branch(notes, "streams"):
        rows = int(number(notes, "streams", name) or 0)
        found.append(f"{counted(rows, 'answer')}: {REMARKS.get(name, name)}.")
    length = branch(notes, "output_length")
    if length and not length.get("held"):
        found.append(_other_lengths(length))
    return found


def _censored(cut: int, status: Status) -> str:
    """What requests that the client cut mean for the latencies, and by what they were cut."""
    were = f"{cut} request{'s were' if cut > 1 else ' was'}"
    if status == "interrupted":
        return f"{were} cut when the job was interrupted: latencies are censored."
    return (
        f"{were} cut when run.grace_s ended: latencies are censored, for the slowest answers are not among them. "
        "Raise run.grace_s, or run.timeout_s."
    )


def _other_lengths(length: Mapping[str, object]) -> str:
    held, tolerance, asked, answered = (
        number(length, name) or 0.0 for name in ("share_held", "tolerance", "asked_mean", "answered_mean")
    )
    return (
        f"{held:.0%} of the answers had the length asked for (±{tolerance:.0%}): {asked:.0f} tokens were asked on "
        f"average, {answered:.0f} came. A stack that answers at another length does other work; workload.force_output "
        "helps where the server knows it."
    )
