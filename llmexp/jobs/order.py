"""The order in which the jobs of a sweep run."""

from __future__ import annotations

import random
from collections.abc import Sequence

from llmexp.jobs.spec import Spec


def in_blocks(found: Sequence[Spec], seed: int) -> list[Spec]:
    """Repeat by repeat, shuffled inside each, so that drift favours no stack.

    With `run.order=grouped`, jobs that can share a started server stand together inside their block: the groups are
    shuffled, and the jobs inside each.
    """
    order: list[Spec] = []
    for repeat in sorted({spec.repeat for spec in found}):
        draw = random.Random(f"{seed}/{repeat}")
        block = [spec for spec in found if spec.repeat == repeat]
        draw.shuffle(block)
        order += _grouped(block) if block[0].config.run.order == "grouped" else block
    return order


def _grouped(block: list[Spec]) -> list[Spec]:
    """Each job moved up to the first one that uses the same server."""
    groups: dict[object, list[Spec]] = {}
    for spec in block:
        groups.setdefault(_server_of(spec), []).append(spec)
    return [spec for group in groups.values() for spec in group]


def _server_of(spec: Spec) -> object:
    """What jobs on the same server have in common; a job that shares none stands for itself."""
    from llmexp import endpoints

    identity = None if spec.config.rehearse else endpoints.identity_of(spec.config.model)
    return spec.number if identity is None else identity
