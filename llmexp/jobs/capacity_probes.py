"""One probe of a capacity search: what is sent, and what it says of its level. Pure.

How long: a rate just above capacity shows slowly, for the queue grows by only `excess` seconds a second. Waiting until
it passes the threshold would take minutes; but the growth itself shows within a few service times. So a probe at a rate
fails when its requests miss the service level, **or** when latency rises over it in such a way that the service level
would be missed within `HORIZON` times its length. With at least 10 answers' durations and 6 times the largest threshold
a probe tells a rate 2 % above capacity from one below (excess = threshold / (HORIZON × length)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from llmexp.config import Config, Slo
from llmexp.jobs.capacity_search import Outcome
from llmexp.json_types import Tree, branch, text
from llmexp.metrics.distributions import seconds
from llmexp.metrics.quality import right_share
from llmexp.metrics.service_level import meets, right_enough
from llmexp.records.observed import Floats, Ints, Observed, known

HORIZON = 10
ANSWERS = 10
THRESHOLDS = 6
LEAST_REQUESTS = 20
LEAST_GRADED = 100
"""Where right answers are asked: of 20 a share is known to no better than 18 points, of 100 to 8."""
ROUNDS = 8
"""Requests of each stream of a closed loop."""
BLOCKS = 6
QUANTILE = 2.776
"""Student's t at 97.5 % with BLOCKS − 2 degrees of freedom."""
FILLING = 0.15
"""Share of a probe in which the server fills, at least; no trend is read from it."""
ALONE = 0.5
"""Requests in flight on average below which they hardly overlap."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe found."""

    passed: bool
    attainment: float | None
    """Share of requests that kept the service level; those that the end of the grace cut did not."""
    growth: float | None
    """Seconds by which latency rose each second, where it certainly did."""
    alone: bool
    why: str

    @property
    def outcome(self) -> Outcome:
        """What the search is told."""
        return Outcome(self.passed, self.alone)


# --- what is sent ----------------------------------------------------------------------------------------------------


def length(config: Config, level: float, e2e_s: float | None) -> int:
    """Requests of a probe. `e2e_s` is how long an answer takes, as far as earlier probes told."""
    run = config.run
    least = LEAST_REQUESTS if config.slo.right_share is None else LEAST_GRADED
    if config.capacity.of == "concurrency":
        wanted = max(least, ROUNDS * round(level))
    else:
        asked = [limit for name, limit in config.slo.thresholds.items() if name != "time_per_output_token_s"]
        duration_s = max(config.capacity.probe_s, ANSWERS * (e2e_s or 0.0), THRESHOLDS * max(asked, default=0.0))
        wanted = min(max(least, math.ceil(level * duration_s)), math.ceil(level * run.timeout_s))
    return max(1, min(wanted, config.max_requests or wanted))


def tree_of(tree: Tree, config: Config, level: float, requests: int, tries: int, nonce: str) -> dict[str, object]:
    """The composed config with the load of one probe in place.

    A level that is probed again gets another seed of its schedule and lengths: its second outcome is to say something.
    """
    run = {**branch(tree, "run"), "max_requests": requests, "seed": config.run.seed + tries, "nonce": nonce}
    run["warmup_requests"] = max(1, config.run.warmup_requests)
    load, concurrency = {**branch(tree, "load"), "kind": kind(config)}, tree.get("concurrency")
    if config.capacity.of == "concurrency":
        concurrency, load["rate"] = round(level), None
    else:
        load["rate"] = level
        run["timeout_s"] = min(config.run.timeout_s, requests / level + 1.0)
    capacity = {**branch(tree, "capacity"), "enabled": False}
    return {**tree, "run": run, "load": load, "concurrency": concurrency, "capacity": capacity, "model": _quiet(tree)}


def kind(config: Config) -> str:
    """The load of every probe: closed for concurrency; for rates, arrivals as chosen, else evenly spaced."""
    if config.capacity.of == "concurrency":
        return "closed"
    return config.load.kind if config.load.kind in ("poisson", "burst") else "constant"


def _quiet(tree: Tree) -> dict[str, object]:
    """The model without what a run asks of its provider afterwards: a minute and a half for each probe."""
    model = dict(branch(tree, "model"))
    if text(model, "deployment", "kind") == "sagemaker":
        model["deployment"] = {**branch(model, "deployment"), "cloudwatch": False}
    return model


# --- what it says ----------------------------------------------------------------------------------------------------


def misses_allowed(slo: Slo, requests: int) -> int:
    """How many of so many requests may miss the service level."""
    return math.floor(requests * (1 - slo.attainment) + 1e-9)


def judge(observed: Observed, slo: Slo, *, of_rate: bool, stopped: bool = False) -> Verdict:
    """Whether the level of this probe was carried. `stopped`: it ended early because the service level was lost."""
    answered = int((observed.completed | observed.failed).sum())
    total = answered + (0 if stopped else int(observed.unfinished.sum()))
    if not total:
        return Verdict(passed=False, attainment=None, growth=None, alone=False, why="no request was answered")
    good = meets(observed, slo, open_loop=of_rate)
    share = float(good.sum()) / total
    alone = of_rate and _overlap(observed) < ALONE
    if share < slo.attainment:
        early = ", stopped early" if stopped else ""
        return Verdict(passed=False, attainment=share, growth=None, alone=alone, why=f"service level missed{early}")
    right = right_share(observed)
    if not right_enough(right, slo.right_share):
        why = f"too few right answers: {right or 0:.1%}, {slo.right_share or 0:.1%} are asked"
        return Verdict(passed=False, attainment=share, growth=None, alone=alone, why=why)
    growth = _growth_that_matters(observed, slo) if of_rate else None
    why = "carried" if growth is None else f"the queue grew by {growth:.1%} of the time"
    return Verdict(passed=growth is None, attainment=share, growth=growth, alone=alone, why=why)


def e2e_s(observed: Observed) -> float | None:
    """How long an answer takes, from its send: the median."""
    done = observed.completed & known(observed.sent_ns, observed.last_token_ns)
    return float(np.median(seconds(observed.last_token_ns - observed.sent_ns)[done])) if done.any() else None


def _overlap(observed: Observed) -> float:
    """Requests in flight, on average between the first send and the last."""
    done = observed.completed & known(observed.sent_ns, observed.last_token_ns)
    if int(done.sum()) < 2:
        return 0.0
    sent = observed.sent_ns[done]
    busy_ns = int((observed.last_token_ns[done] - sent).sum())
    span_ns = int(sent.max() - sent.min()) * len(sent) / (len(sent) - 1)
    return busy_ns / span_ns if span_ns else float(len(sent))


def _growth_that_matters(observed: Observed, slo: Slo) -> float | None:
    """How fast latency certainly grew, when that would break the service level within the horizon."""
    done = observed.completed & known(observed.first_token_ns, observed.last_token_ns)
    at, order = _since_start(observed.intended_ns[done])
    for stamps, limit in ((observed.first_token_ns, slo.ttft_s), (observed.last_token_ns, slo.e2e_latency_s)):
        latency = seconds(stamps[done] - observed.intended_ns[done])[order]
        trend = _trend(at, latency, e2e_s(observed) or 0.0)
        if trend is None:
            continue
        slope, latest = trend
        slack_s = _patience(observed) if limit is None else max(limit - latest, 0.0)
        if slope * HORIZON * float(at[-1]) > slack_s:
            return slope
    return None


def _patience(observed: Observed) -> float:
    """Seconds of queue that end a probe where no threshold says it: as long as an answer takes."""
    return max(1.0, e2e_s(observed) or 0.0)


def _since_start(intended_ns: Ints) -> tuple[Floats, Ints]:
    order: Ints = np.argsort(intended_ns, kind="stable")
    return seconds(intended_ns[order] - intended_ns[order[:1]]), order


def _trend(at: Floats, latency: Floats, answer_s: float) -> tuple[float, float] | None:
    """(slope that is certainly exceeded, median of the last block); None where no rise is certain.

    Medians of blocks carry the line, so that single stalls do not; what comes while the server fills is left out.
    """
    if not len(at):
        return None
    late = at >= max(FILLING * at[-1], min(answer_s, at[-1] / 3))
    if int(late.sum()) < 2 * BLOCKS:
        return None
    parts = zip(np.array_split(at[late], BLOCKS), np.array_split(latency[late], BLOCKS), strict=True)
    x, y = (np.array(values) for values in zip(*((part.mean(), np.median(lat)) for part, lat in parts), strict=True))
    spread = x - x.mean()
    slope = float((spread * y).sum() / (spread**2).sum())
    rest = y - y.mean() - slope * spread
    error = math.sqrt(float((rest**2).sum()) / (BLOCKS - 2) / float((spread**2).sum()))
    sure = slope - QUANTILE * error
    return (sure, float(y[-1])) if sure > 0 else None
