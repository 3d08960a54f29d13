"""The statistics against known truths: coverage, levels, exact small cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmexp.compare import stats
from llmexp.compare.stats import Estimate
from llmexp.metrics import distributions

RNG_SEED = 5


def test_of_blocks_is_the_t_interval():
    estimate = stats.of_blocks([1.0, 2.0, 3.0])
    assert (estimate.mean, estimate.df) == (2.0, 2)
    low, high = estimate.interval(0.05)
    half = 4.302653 / math.sqrt(3)
    assert (low, high) == pytest.approx((2 - half, 2 + half), rel=1e-5)


def test_no_scatter_gives_a_point_and_a_certain_p():
    estimate = stats.of_blocks([0.5, 0.5, 0.5])
    assert estimate.interval(0.05) == (0.5, 0.5)
    assert estimate.p_beyond(0.1) == 0.0
    assert estimate.p_beyond(0.6) == 1.0


def test_the_p_value_and_the_interval_agree_about_the_margin():
    rng = np.random.default_rng(RNG_SEED)
    for _ in range(200):
        estimate = Estimate(float(rng.normal()), float(rng.uniform(0.1, 1)), 4)
        low, high = estimate.interval(0.05)
        assert (low > 0.2 or high < -0.2) == (estimate.p_beyond(0.2) < 0.05)


def test_welch_for_groups_that_share_no_block():
    estimate = stats.of_two_groups([10.0, 11.0, 12.0], [1.0, 1.0, 1.0])
    assert estimate.mean == 10.0
    assert estimate.df == pytest.approx(2)
    assert stats.of_two_groups([2.0, 2.0], [1.0, 1.0]).interval(0.05) == (1.0, 1.0)


@pytest.mark.parametrize(("percent", "needed"), [(50, 5), (75, 11), (90, 29), (95, 59), (99, 299), (25, 11), (5, 59)])
def test_a_percentile_needs_its_number_of_values(percent, needed):
    values = np.arange(1.0, needed + 1)
    assert distributions.needed(percent) == needed
    assert stats.of_percentile(values, percent, 0.05) is not None
    assert stats.of_percentile(values[:-1], percent, 0.05) is None


def test_order_statistics_for_the_median_of_twenty():
    """Ranks 6 and 15: the classical binomial interval of 95.9 %, in an order that shows no correlation."""
    values = np.array([[low, high] for low, high in zip(range(1, 11), range(20, 10, -1), strict=True)], float).ravel()
    assert stats.of_percentile(values, 50, 0.05) == (6.0, 15.0)


@pytest.mark.parametrize(("percent", "n"), [(50, 60), (95, 200)])
def test_percentile_intervals_cover_the_truth(percent, n):
    rng = np.random.default_rng(RNG_SEED)
    truth = math.exp({50: 0.0, 95: 1.6448536}[percent])
    inside = 0
    for _ in range(400):
        low, high = stats.of_percentile(rng.lognormal(0, 1, n), percent, 0.05)
        inside += low <= truth <= high
    assert inside / 400 >= 0.92


def test_mean_intervals_cover_the_truth_of_correlated_requests():
    """A queue makes neighbours alike; an interval for independent values would cover far too seldom."""
    rng = np.random.default_rng(RNG_SEED)
    inside = naive = 0
    for _ in range(300):
        noise = rng.normal(size=600)
        values = np.empty(600)
        values[0] = noise[0]
        for at in range(1, 600):
            values[at] = 0.7 * values[at - 1] + noise[at]
        low, high = stats.of_mean(values).interval(0.05)
        inside += low <= 0 <= high
        naive += abs(values.mean()) <= 1.96 * values.std(ddof=1) / math.sqrt(600)
    assert inside / 300 >= 0.9
    assert naive / 300 < 0.75


def test_independent_values_are_hardly_inflated():
    rng = np.random.default_rng(RNG_SEED)
    factors = [stats.inflation(rng.normal(size=300)) for _ in range(50)]
    assert 1 <= np.median(factors) < 1.3
    assert stats.inflation(np.ones(100)) == 1.0


def test_too_few_values_have_no_mean_interval():
    assert stats.of_mean(np.array([1.0, 2.0])) is None


def test_pairing_prompts_takes_out_what_a_prompt_adds_to_both():
    rng = np.random.default_rng(RNG_SEED)
    prompt = rng.lognormal(0, 0.5, 200)
    left, right = prompt * rng.lognormal(0, 0.05, 200), 1.1 * prompt * rng.lognormal(0, 0.05, 200)
    paired = stats.log_ratio_of_means(right, left, paired=True)
    unpaired = stats.log_ratio_of_means(right, left, paired=False)
    assert paired.mean == pytest.approx(unpaired.mean)
    assert paired.se < unpaired.se / 4
    assert paired.interval(0.05)[0] < math.log(1.1) < paired.interval(0.05)[1]


def test_shares():
    assert stats.of_share(0, 0, 0.05) is None
    low, high = stats.of_share(0, 20, 0.05)
    assert low == 0.0
    assert high == pytest.approx(0.1611, abs=1e-3)
    assert stats.of_share(20, 20, 0.05)[1] == 1.0


def test_recovered_difference_of_equal_sides_is_symmetric():
    difference, low, high = stats.recover((2.0, 1.0, 3.0), (2.0, 1.0, 3.0))
    assert (difference, low, high) == pytest.approx((0.0, -math.sqrt(2), math.sqrt(2)))


def test_holm_steps_down_and_stops():
    steps = stats.holm([0.03, 0.01, 0.04], 0.05)
    assert [step.rejected for step in steps] == [False, True, False]
    assert [step.alpha for step in steps] == pytest.approx([0.025, 0.05 / 3, 0.025])
    assert all(step.rejected for step in stats.holm([0.04, 0.01, 0.02], 0.05))
    assert stats.holm([], 0.05) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_never_bolder_than_no_correction_nor_more_timid_than_bonferroni(p_values):
    for p, step in zip(p_values, stats.holm(p_values, 0.05), strict=True):
        assert not step.rejected or p <= 0.05
        assert step.rejected or p > 0.05 / len(p_values)


def test_moderation_leaves_a_lone_comparison_alone():
    lone = [Estimate(0.1, 0.02, 2)]
    assert stats.moderate(lone, 2) == lone
    certain = [Estimate(0.1, 0.0, 2), Estimate(0.1, 0.02, 2)]
    assert stats.moderate(certain, 4) == certain


def test_moderation_borrows_from_comparisons_that_scatter_alike():
    alike = [Estimate(0.1, se, 2) for se in (0.018, 0.02, 0.022)]
    moderated = stats.moderate(alike, 6)
    assert [estimate.df for estimate in moderated] == [4, 4, 4]
    assert all(0.018 < estimate.se < 0.022 for estimate in moderated)
    assert [estimate.mean for estimate in moderated] == [0.1] * 3


def test_moderation_hardly_borrows_from_comparisons_that_scatter_unlike():
    unlike = [Estimate(0.1, se, 2) for se in (0.0001, 0.01, 1.0)]
    assert all(estimate.df < 2.8 for estimate in stats.moderate(unlike, 6))


def test_what_would_tell_shrinks_with_the_gap_and_honours_its_limits():
    wide = stats.needed(Estimate(0.10, 0.05, 4), 5, 0.0, 0.03, 0.05)
    narrow = stats.needed(Estimate(0.20, 0.05, 4), 5, 0.0, 0.03, 0.05)
    assert wide.blocks > narrow.blocks > 5
    assert wide.growth is None, "scatter between repeats does not shrink with more requests"
    assert stats.needed(Estimate(0.03, 0.05, 4), 5, 0.0, 0.03, 0.05).blocks is None


def test_more_requests_tell_where_their_scatter_is_the_trouble():
    estimate = Estimate(0.10, 0.03, 4)
    more = stats.needed(estimate, 5, within_variance=estimate.se**2 * 5, margin=0.03, alpha=0.05)
    assert more.growth == pytest.approx((stats.t_quantile(0.975, 4) * 0.03 / 0.07) ** 2)
