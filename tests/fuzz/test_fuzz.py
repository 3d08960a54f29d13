"""The corpus and what hypothesis draws, through every target; `run.py` goes on from here by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
SEEDS = {name: [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))] for name in TARGETS}
QUICK = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name: str) -> None:
    assert SEEDS[name]
    for data in SEEDS[name]:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
@QUICK
def test_damaged_seeds_and_noise(name: str, data: st.DataObject) -> None:
    """Pieces of seeds with bytes between them, which gets further than bytes alone."""
    piece = st.builds(lambda seed, at, size: seed[at : at + size], *_slices(SEEDS[name]))
    drawn = data.draw(st.lists(st.one_of(piece, st.binary(max_size=12)), max_size=8))
    TARGETS[name](b"".join(drawn))


def _slices(seeds: list[bytes]) -> tuple[st.SearchStrategy[bytes], st.SearchStrategy[int], st.SearchStrategy[int]]:
    longest = max(map(len, seeds), default=1)
    return st.sampled_from(seeds), st.integers(0, longest), st.integers(0, longest)
