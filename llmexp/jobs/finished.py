"""Whether a job is finished: every request that was asked for was sent, and every one that was sent has a row.

Fewer may be sent for a reason that is known, such as `run.timeout_s`; that is said. What nobody can explain, and a load
without a single answer, is not finished, and a resumed sweep runs it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmexp.config import Config

if TYPE_CHECKING:
    from llmexp.benchmark import Measurement
    from llmexp.records.observed import Observed


@dataclass(frozen=True)
class Count:
    """A job's requests on their way."""

    asked: int | None
    """None: as many as there is time for."""
    sent: int
    recorded: int
    why: str | None = None
    """Why fewer were sent than asked for."""
    fault: str | None = None
    """Why the job is not finished."""

    def as_dict(self) -> dict[str, object]:
        """For the result's notes."""
        return {"asked": self.asked, "sent": self.sent, "recorded": self.recorded, "why": self.why}


def count(config: Config, measurement: Measurement, observed: Observed) -> Count:
    """The requests of a load that is over."""
    from llmexp.benchmark import sizing

    asked, recorded = sizing.most(config), len(observed)
    whole = len(measurement.watches) == measurement.workers
    sent = sum(watch.launched for watch in measurement.watches.values()) if whole else recorded
    why = _why_fewer(config, measurement, asked, sent)
    fault = None
    if measurement.workers and recorded != sent:
        fault = f"{sent} requests were sent and {recorded} have a row"
    elif asked is not None and sent < asked and why is None:
        fault = f"{sent} of {asked} requests were sent, and nothing says why"
    elif not observed.completed.any():
        failed, cut = int(observed.failed.sum()), int(observed.unfinished.sum())
        fault = f"no request was completed: {failed} failed, {cut} had no whole answer when the load ended"
    return Count(asked, sent, recorded, why, fault)


def _why_fewer(config: Config, measurement: Measurement, asked: int | None, sent: int) -> str | None:
    if asked is None or sent >= asked:
        return None
    if measurement.reason or measurement.enough:
        return measurement.reason or measurement.enough
    short = f"after {sent} of {asked} requests"
    if any(watch.stopped for watch in measurement.watches.values()):
        return f"run.timeout_s={config.run.timeout_s:g} ended the load {short}"
    if any(watch.not_sent for watch in measurement.watches.values()):
        return f"the ceiling of concurrency was reached until the end, {short}"
    from llmexp.benchmark import sizing

    if sizing.waits_for_answers(config):
        return f"sessions ended before their last turn, or did not fit whole, {short}"
    return None
