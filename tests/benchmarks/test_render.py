"""The page and the pictures from small results."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import life
from benchmarks.paths import DOCS, RESULTS
from benchmarks.plots import followed
from benchmarks.ratios import AIMS
from benchmarks.render import document, read, render
from benchmarks.results import load
from tests.benchmarks import sample


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sample.bench().save(tmp_path / "results" / "bench.json")
    sample.peers().save(tmp_path / "results" / "peers.json")
    sample.wires().save(tmp_path / "results" / "wires.json")
    return tmp_path


def page(folder: Path) -> str:
    render(folder / "results", folder / "docs")
    return (folder / "docs" / "benchmarks.md").read_text()


def test_results_read_back_as_they_were_written(folder: Path) -> None:
    assert load(folder / "results" / "bench.json") == sample.bench()


def test_results_of_another_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text('{"format": 0}')
    with pytest.raises(ValueError, match="expected format 1, found 0"):
        load(tmp_path / "bench.json")


def test_every_server_is_in_the_tables_with_its_median_and_noise(folder: Path) -> None:
    text = page(folder)
    assert "| Litepool | 120 us<br><sub>108 us to 144 us</sub> |" in text
    assert "| Snail | 900 us<br>" in text


def test_aims_show_what_was_measured_and_whether_it_was_reached(folder: Path) -> None:
    assert "| requests/s at 32 connections, float32, over the floor's | 0.85 or more | 0.900 | yes |" in page(folder)


def test_every_picture_of_the_page_is_there_and_is_svg(folder: Path) -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page(folder))
    assert len(pictures) == 6
    for picture in pictures:
        root = ElementTree.parse(folder / "docs" / picture).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_the_same_results_give_the_same_bytes(folder: Path) -> None:
    page(folder)
    first = {path: path.read_bytes() for path in (folder / "docs").rglob("*.*")}
    page(folder)
    assert {path: path.read_bytes() for path in (folder / "docs").rglob("*.*")} == first


def test_what_was_not_measured_is_said_and_not_guessed(tmp_path: Path) -> None:
    sample.results().save(tmp_path / "results" / "bench.json")
    assert page(tmp_path).count("| not measured | - |") == len(AIMS)


def test_no_results_at_all_still_give_a_page(tmp_path: Path) -> None:
    assert "# Benchmarks" in page(tmp_path)


def test_the_page_in_docs_is_what_the_results_say() -> None:
    lived = life.load(RESULTS / "life.json")
    bench, peers, wires = (read(RESULTS / f"{name}.json") for name in ("bench", "peers", "wires"))
    text = "\n\n".join(document(bench, peers, lived, wires)) + "\n"
    assert (DOCS / "benchmarks.md").read_text() == text


def test_tables_have_as_many_cells_in_every_row_as_in_their_head(folder: Path) -> None:
    for block in page(folder).split("\n\n"):
        if block.startswith("| "):
            assert len({line.count("|") for line in block.splitlines()}) == 1


def test_a_point_at_which_the_server_fell_behind_is_not_drawn() -> None:
    assert [rate for rate, _, _ in followed(sample.entry("floor", "floor", 100, 400))] == [100, 200]
