"""Lengths: moments as asked, bounds kept, each index by itself."""

from __future__ import annotations

from statistics import fmean, stdev

import pytest

from llmexp.config import Tokens
from llmexp.errors import ConfigError
from llmexp.workload.lengths import lengths, uniform

DRAWS = 8000


def drawn(tokens: Tokens, seed: int = 3) -> list[int]:
    made = lengths("workload.input_tokens", tokens)
    return [made.draw(seed, "input", index) for index in range(DRAWS)]


@pytest.mark.parametrize("dist", ["normal", "lognormal"])
@pytest.mark.parametrize(("mean", "sd"), [(150, 80), (550, 150), (128, 16), (30, 20)])
def test_truncation_bends_neither_mean_nor_stddev(dist: str, mean: float, sd: float) -> None:
    values = drawn(Tokens(dist=dist, mean=mean, stddev=sd))  # type: ignore[arg-type]
    assert fmean(values) == pytest.approx(mean, abs=4 * sd / DRAWS**0.5)
    assert stdev(values) == pytest.approx(sd, rel=0.06)
    assert min(values) >= 1


@pytest.mark.parametrize(
    "tokens",
    [
        Tokens(mean=30, stddev=60),
        Tokens(mean=100, stddev=5, min=98, max=120),
        Tokens(mean=150, stddev=80, max=200),
        Tokens(dist="lognormal", mean=150, stddev=300, max=1000),
    ],
)
def test_where_bounds_exclude_both_moments_the_mean_is_kept(tokens: Tokens) -> None:
    values = drawn(tokens)
    assert fmean(values) == pytest.approx(tokens.mean, rel=0.02)
    assert min(values) >= (tokens.min or 1)
    assert max(values) <= (tokens.max or 270)


def test_uniform_covers_its_bounds_evenly() -> None:
    values = drawn(Tokens(dist="uniform", min=3, max=7))
    shares = [values.count(value) / DRAWS for value in range(3, 8)]
    assert sum(shares) == 1
    assert all(share == pytest.approx(0.2, abs=0.02) for share in shares)


@pytest.mark.parametrize("tokens", [Tokens(dist="fixed", mean=4), Tokens(mean=4), Tokens(mean=4, stddev=0)])
def test_without_a_deviation_every_length_is_the_mean(tokens: Tokens) -> None:
    assert set(drawn(tokens)) == {4}


@pytest.mark.parametrize(("name", "text"), [("counts.txt", "10\n20\n20\n400\n"), ("counts.json", "[10, 20, 20, 400]")])
def test_empirical_repeats_the_files_shares_within_bounds(tmp_path, name: str, text: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / name
    path.write_text(text)
    values = drawn(Tokens(dist="empirical", file=str(path), max=100))
    assert set(values) == {10, 20, 100}
    assert values.count(20) / DRAWS == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("text", ["", "ten\n", "[1, null]"])
def test_a_bad_file_of_counts_is_named(tmp_path, text: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "counts.txt"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"workload\.output_tokens\.file: .*counts\.txt"):
        lengths("workload.output_tokens", Tokens(dist="empirical", file=str(path)))


def test_a_draw_depends_on_seed_stream_and_index_alone() -> None:
    made = lengths("key", Tokens(mean=500, stddev=100))
    forwards = [made.draw(1, "input", index) for index in range(50)]
    backwards = [made.draw(1, "input", index) for index in reversed(range(50))]
    assert forwards == backwards[::-1]
    assert forwards != [made.draw(2, "input", index) for index in range(50)]
    assert forwards != [made.draw(1, "output", index) for index in range(50)]


def test_draws_stay_what_they_were() -> None:
    made = lengths("key", Tokens(mean=550, stddev=150))
    assert [made.draw(11111, "input", index) for index in range(6)] == PINNED
    assert min(uniform(0, "a", index) for index in range(1000)) > 0
    assert max(uniform(0, "a", index) for index in range(1000)) < 1


PINNED = [566, 678, 665, 420, 562, 346]
