"""The aims, computed from results."""

import pytest

from benchmarks.ratios import AIMS, Aim, best_peer
from tests.benchmarks import sample


def aim(words: str) -> Aim:
    return next(aim for aim in AIMS if words in aim.label)


@pytest.mark.parametrize(
    ("words", "value", "reached"),
    [
        ("float32, over the floor's", 0.9, True),
        ("the same with int8", 1.2, True),
        ("less the floor's", 20, True),
        ("8 connections over FastAPI", 9, True),
        ("batch of 256 in JSON", 5, True),
        ("batch of 256 in .npy", 1200 / (1000 + 1000), True),
        ("over the best peer", 5.5, True),
        ("slow model busy", 2.5, True),
        ("70% of saturation", 3, True),
        ("growth of memory", 0, True),
    ],
)
def test_each_aim_is_found_in_the_figures(words: str, value: float, reached: bool) -> None:
    found = aim(words).find(sample.bench(), sample.peers())
    assert found == pytest.approx(value)
    assert found is not None
    assert aim(words).reached(found) == reached


@pytest.mark.parametrize("row", AIMS, ids=lambda row: row.label)
def test_an_aim_without_its_figures_is_open(row: Aim) -> None:
    assert row.find(None, None) is None
    assert row.find(sample.results(), sample.results()) is None


def test_an_aim_knows_both_of_its_sides() -> None:
    assert aim("float32, over the floor's").reached(0.85)
    assert not aim("float32, over the floor's").reached(0.84)
    assert aim("less the floor's").reached(30)
    assert not aim("less the floor's").reached(31)


def test_the_best_peer_is_the_one_with_most_requests_and_never_one_of_ours() -> None:
    best = best_peer(sample.peers())
    assert best is not None
    assert best.server == "hare"
