"""Percentiles and the middle of several rounds."""

import math

import numpy as np
import pytest

from benchmarks.stats import CURVE, Summary, corrected, curve, percentile

HUNDRED = np.arange(100, 0, -1, dtype=np.float64)


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (1, 1), (50, 50), (99, 99), (99.1, 100), (100, 100)])
def test_a_percentile_is_a_sample_with_that_share_at_or_below_it(percent: float, expected: float) -> None:
    assert percentile(HUNDRED, percent) == expected


def test_a_single_sample_is_every_percentile() -> None:
    assert [percentile(np.array([7.0]), percent) for percent in CURVE] == [7.0] * len(CURVE)


def test_no_samples_have_no_percentile() -> None:
    assert math.isnan(percentile(np.array([]), 50))


def test_a_curve_never_falls() -> None:
    values = list(curve(np.random.default_rng(1).exponential(100, 1000)).values())
    assert values == sorted(values)


def test_a_stall_counts_for_the_requests_that_it_kept_from_being_sent() -> None:
    # wrk's own stats_correct with an expected 100: 350 stands for 250 and 150 too, 200 and 199 for themselves.
    assert sorted(corrected(np.array([90.0, 350.0, 200.0, 199.0]), 100)) == [90, 150, 199, 200, 250, 350]


def test_without_an_expectation_nothing_is_corrected() -> None:
    assert corrected(HUNDRED, 0).tolist() == HUNDRED.tolist()
    assert corrected(np.array([]), 100).tolist() == []


def test_a_summary_keeps_the_noise_beside_the_median() -> None:
    assert Summary.of([3.0, 1.0, 10.0]) == Summary(median=3.0, least=1.0, most=10.0)
