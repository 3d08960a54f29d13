"""Numbers of whole sessions, and of their turns. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llmexp.metrics.distributions import distribution
from llmexp.metrics.latencies import between
from llmexp.metrics.timeline import Span, ends_ns
from llmexp.records.observed import Bools, Floats, Ints, Observed, known

MOST_TURNS = 500
"""Turns listed, at most."""
Numbers = dict[str, object]
NOTHING: Numbers = dict.fromkeys(
    ("session_duration_s", "sessions_completed", "sessions_per_s", "turns_skipped", "requests_off_script", "turns")
)
"""A run without sessions."""


class _Sessions(NamedTuple):
    """One entry a session that was sent."""

    started_ns: Ints
    last_token_ns: Ints
    ended_ns: Ints
    sent: Ints
    """Turns that were sent."""
    completed: Bools
    """Every turn of the session was."""
    skipped: Ints
    """Turns that were not sent since one before them failed."""


def of_sessions(observed: Observed, span: Span | None) -> Numbers:
    """The numbers of a run's sessions, and its latencies turn by turn."""
    found = _gathered(observed)
    if found is None:
        return dict(NOTHING)
    completed = int(found.completed.sum())
    spans_s = (found.last_token_ns - found.started_ns)[found.completed] / 1e9
    return {
        "session_duration_s": distribution(spans_s),
        "sessions_completed": completed,
        "sessions_per_s": None if span is None else completed / span.duration_s,
        "turns_skipped": int(found.skipped.sum()),
        "requests_off_script": int((observed.off_script & observed.completed).sum()),
        "turns": _by_turn(observed),
    }


def sessions_held(observed: Observed, streams: int) -> float | None:
    """Share of the asked concurrency that sessions held, first to last session's first `sent`.

    None where there are none, or where none had to wait for another to end.
    """
    found = _gathered(observed)
    if found is None or len(found.started_ns) <= streams:
        return None
    first, last = int(found.started_ns.min()), int(found.started_ns.max())
    if first == last:
        return None
    inside = np.minimum(found.ended_ns, last) - np.minimum(found.started_ns, last)
    return float(inside.sum()) / (last - first) / streams


def _gathered(observed: Observed) -> _Sessions | None:
    mine = known(observed.session, observed.sent_ns)
    if not mine.any():
        return None
    _, whose = np.unique(observed.session[mine], return_inverse=True)
    count = int(whose.max()) + 1
    sent = np.bincount(whose, minlength=count)
    turns = _most(whose, observed.session_turns[mine], count)
    completed = np.bincount(whose, weights=observed.completed[mine], minlength=count).astype(np.int64)
    failed = np.bincount(whose, weights=observed.failed[mine], minlength=count) > 0
    started = -_most(whose, -observed.sent_ns[mine], count)
    return _Sessions(
        started_ns=started,
        last_token_ns=_most(whose, observed.last_token_ns[mine], count),
        ended_ns=_most(whose, ends_ns(observed)[mine], count),
        sent=sent,
        completed=completed == turns,
        skipped=np.where(failed, np.maximum(turns - sent, 0), 0),
    )


def _most(whose: Ints, values: Ints, count: int) -> Ints:
    """The largest value of each session."""
    most = np.full(count, np.iinfo(np.int64).min, dtype=np.int64)
    np.maximum.at(most, whose, values)
    return most


def _by_turn(observed: Observed) -> list[dict[str, object]]:
    """What each turn was like, over all sessions that came so far."""
    mine = known(observed.session)
    last = min(int(observed.turn[mine].max()), MOST_TURNS - 1)
    return [_turn(observed, number, mine & (observed.turn == number)) for number in range(last + 1)]


def _turn(observed: Observed, number: int, here: Bools) -> dict[str, object]:
    done = here & observed.completed
    cached = done & known(observed.cached_tokens, observed.input_tokens)
    total = int(observed.input_tokens[cached].sum())
    return {
        "turn": number,
        "requests_completed": int(done.sum()),
        "requests_failed": int((here & observed.failed).sum()),
        "ttft_s": distribution(between(observed.first_token_ns, observed.sent_ns, done)),
        "e2e_latency_s": distribution(between(observed.last_token_ns, observed.sent_ns, done)),
        "response_latency_s": distribution(between(observed.last_token_ns, observed.intended_ns, done)),
        "input_tokens": distribution(_counts(observed.input_tokens, done)),
        "output_tokens": distribution(_counts(observed.output_tokens, done)),
        "cached_tokens": distribution(_counts(observed.cached_tokens, done)),
        "cached_share": int(observed.cached_tokens[cached].sum()) / total if total else None,
    }


def _counts(values: Ints, chosen: Bools) -> Floats:
    return values[chosen & known(values)].astype(float)
