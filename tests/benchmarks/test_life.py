"""What a server lives through, on the page and on disk; the scenarios have their own tests, tests/e2e/test_life.py."""

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks import life
from benchmarks.__main__ import default_out, parse
from benchmarks.life import Life, chapter
from benchmarks.paths import CACHE, RESULTS

READING = {"own_mb": 100.0, "pss_mb": 120.0, "processes": 4, "threads": 12, "descriptors": 76}
SWAPS = {
    "answered": 123_456,
    "versions": 61,
    "served": 60,
    "late_s": [0.8, 1.5],
    "quiet_p99_us": [1000.0, 1200.0, 5000.0],
    "swaps_p99_us": [1500.0, 1800.0, 6000.0],
    "ratio": 1.5,
    "rps": [20_000.0, 18_000.0],
    "faults": [],
}


def made_up() -> Life:
    return Life(
        date="2026-01-01 00:00 UTC",
        machine={},
        versions={},
        method={
            "rounds": 3,
            "swaps_each": 20,
            "connections": {"swaps": 32, "mixing": 32},
            "settings": {"poll_seconds": "0.2", "settle_seconds": "0.3"},
        },
        swaps={"a few bytes": SWAPS},
        hostile={
            "threats": 21,
            "flips": 10,
            "served": 4,
            "crashed": 2,
            "answered": 9000,
            "most_ms": 12.5,
            "faults": ["worker 1 died"],
        },
        reloads={
            "reloads": 200,
            "growth_mb": 0.4,
            "noise_mb": 0.6,
            "faults": [],
            "readings": [READING, READING | {"threads": 13}],
        },
        mixing={
            "answered": 100_000,
            "exact": 99_000,
            "largest": 2e-7,
            "faults": [],
            "by_model": {"proven": 60_000, "whole": 40_000},
            "classes": {"proven": "merged", "whole": "whole"},
        },
    )


def test_the_page_has_the_figures_of_every_scenario() -> None:
    page = "\n".join(chapter(made_up()))

    assert "| a few bytes | 123,456 | 60 of 61 | 0.80 s | 1.20 ms | 1.80 ms | 1.50 | 20,000 | 18,000 |" in page
    assert "2 crashed the child process" in page
    assert "threads 12 and 13" in page
    assert "| `proven` | merged | 60,000 |" in page
    assert "2.0e-07" in page


def test_the_page_says_whether_there_were_faults() -> None:
    lived = made_up()
    sound = dataclasses.replace(lived, hostile=lived.hostile | {"faults": []})

    assert "1 fault was seen" in next(chapter(lived))
    assert "no fault was seen" in next(chapter(sound))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    made_up().save(tmp_path / "life.json")

    assert life.load(tmp_path / "life.json") == made_up()


def test_only_a_whole_run_is_kept_where_the_page_is_made_from() -> None:
    assert default_out(parse(["--life"])) == RESULTS / "life.json"
    assert default_out(parse(["--life", "--quick"])) == CACHE / "results" / "life.json"


def test_results_of_another_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "life.json").write_text(json.dumps({"format": 0}))

    with pytest.raises(ValueError, match="expected format 1, found 0"):
        life.load(tmp_path / "life.json")
