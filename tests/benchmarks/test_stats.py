"""Percentiles and the middle of several rounds."""

import math

import numpy as np
import pytest

from benchmarks.stats import CURVE, Summary, curve, percentile

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


def test_a_summary_keeps_the_noise_beside_the_median() -> None:
    assert Summary.of([3.0, 1.0, 10.0]) == Summary(median=3.0, least=1.0, most=10.0)
