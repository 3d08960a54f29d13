"""What some runs answered, by prompt. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmexp.compare.shares import Answers, Side, values_of
from llmexp.results.run import Run

RIGHT = "right_share"


def answers_of(runs: Sequence[Run]) -> Answers:
    """The answers of some runs; what was sent and got no whole answer has no grade."""
    asked = [run.requests.completed | run.requests.failed for run in runs]
    return Answers(
        np.concatenate([run.requests.digest[sent] for run, sent in zip(runs, asked, strict=True)]),
        np.concatenate([np.full(int(sent.sum()), run.block) for run, sent in zip(runs, asked, strict=True)]),
        np.concatenate([run.requests.right[sent] for run, sent in zip(runs, asked, strict=True)]),
    )


def side_of(runs: Sequence[Run]) -> Side | None:
    """A stack's share of right answers by prompt; None without a grade."""
    graded = answers_of(runs).graded
    return Side.of(values_of(graded, np.unique(graded.prompt)), len(graded.right)) if len(graded.right) else None


def digests_by_prompt(runs: Sequence[Run]) -> dict[bytes, list[bytes]]:
    """Prompt's digest → the digests of the answers to it."""
    found: dict[bytes, list[bytes]] = {}
    for run in runs:
        for prompt, answer in zip(run.requests.digest.tolist(), run.requests.answer.tolist(), strict=True):
            if answer:
                found.setdefault(prompt, []).append(answer)
    return found
