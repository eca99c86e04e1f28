"""The wire formats: what is kept of a run, and what the page makes of it."""

import dataclasses
import subprocess
from pathlib import Path

import pytest

from benchmarks import wires
from benchmarks.check import WrongAnswerError
from benchmarks.method import QUICK
from benchmarks.ratios import Aim
from benchmarks.results import Entry, Results, load
from benchmarks.servers import Server
from benchmarks.ways import FLOOR, HOSTS, TRITON, Host, Way
from benchmarks.wires import WireRun
from benchmarks.wires_page import AIMS, chapter
from tests.benchmarks import sample


def aim(words: str) -> Aim:
    return next(aim for aim in AIMS if words in aim.label)


@pytest.mark.parametrize(
    ("words", "value", "reached"),
    [
        ("1 connection", 1.1, True),
        ("the same at 8", 1.1, True),
        ("the same at 32", 1.1, True),
        ("batch of 256", 1500 / (400 + 1000), True),
        ("`Predict` over Triton's JSON", 2, True),
        ("`ModelInfer` over the same", 2.25, True),
        ("`Predict` over Triton's gRPC", 16 / 6, True),
        ("`ModelInfer` over Triton's gRPC", 3, True),
    ],
)
def test_each_aim_is_the_middle_of_the_rounds_own_ratios(words: str, value: float, reached: bool) -> None:
    found = aim(words).find(sample.wires(), None)
    assert found == pytest.approx(value)
    assert found is not None
    assert aim(words).reached(found) == reached


def test_a_ratio_is_of_one_round_and_not_of_the_medians() -> None:
    results = sample.wires()
    faster, slower = (results.entry(f"litepool.{name}", "mlp") for name in ("v2-binary", "predict-json"))
    assert faster is not None
    assert slower is not None
    faster.rounds = [{"c8.rps": rps} for rps in (10, 200, 50)]
    slower.rounds = [{"c8.rps": rps} for rps in (100, 100, 50)]
    assert aim("the same at 8").find(results, None) == 1


@pytest.mark.parametrize("row", AIMS, ids=lambda row: row.label)
def test_an_aim_without_its_figures_is_open(row: Aim) -> None:
    assert row.find(None, None) is None
    assert row.find(sample.results(), None) is None


def test_the_page_has_a_row_for_each_way_in_each_table_that_it_was_measured_for() -> None:
    results = sample.wires()
    quiet = results.entry("triton-native.v2-json", "mlp")
    assert quiet is not None
    quiet.rounds = [{name: value for name, value in found.items() if "batch" not in name} for found in quiet.rounds]
    page = "\n\n".join(chapter(results))
    assert page.count("| Litepool.Grpc-Infer | ") == 3
    assert page.count("| Triton-Native.V2-Json | ") == 2
    assert "over 8 and 32" in page
    assert "nghttp2/9.9.9" in page


def test_the_page_says_what_failed() -> None:
    results = sample.wires()
    results.entries[1].error = "WrongAnswerError: differs"
    assert "Litepool.Predict-Json failed; 3 rounds of it were measured before." in chapter(results)


def a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: tuple[Host, ...] = HOSTS) -> WireRun:
    monkeypatch.setattr(wires, "prepare", lambda _model: None)
    monkeypatch.setattr(wires, "invokes", lambda *_: None)
    quiet = [dataclasses.replace(host, server=dataclasses.replace(host.server, prepare=lambda: None)) for host in hosts]
    return WireRun(quiet, QUICK, tmp_path / "wires.json")


class Live:
    """A server that has been started, as far as a check sees it."""

    port = 1

    def __enter__(self) -> "Live":
        return self

    def __exit__(self, *_: object) -> None:
        return None


def test_a_server_that_does_not_start_ends_all_its_ways_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path, monkeypatch, (FLOOR, TRITON))

    def started(server: Server, *_: object, **__: object) -> Live:
        if server.name == "triton-native":
            raise subprocess.SubprocessError("it never starts")
        return Live()

    monkeypatch.setattr(wires, "started", started)
    monkeypatch.setattr(wires, "compare", lambda *_: None)
    run.check()
    assert {each.server: each.error for each in run.failed} == {
        f"triton-native.{way.name}": "SubprocessError: it never starts" for way in TRITON.ways
    }


def test_a_way_with_a_wrong_answer_is_not_measured_and_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path, monkeypatch, (TRITON,))
    measured: list[str] = []

    class Session:
        def __init__(self, *_: object) -> None: ...
        def warm_up(self, way: object) -> None: ...
        def batch(self, *_: object) -> None: ...
        def closed(self, way: object, each: Entry, _connections: int) -> None:
            measured.append(each.server)

    def compare(_host: object, way: Way, *_: object) -> None:
        if way.name == "v2-binary":
            raise WrongAnswerError("differs")

    monkeypatch.setattr(wires, "started", lambda *_, **__: Live())
    monkeypatch.setattr(wires, "compare", compare)
    monkeypatch.setattr(wires, "Session", Session)
    run.check()
    run.measure()

    assert [each.server for each in run.failed] == ["triton-native.v2-binary"]
    assert set(measured) == {"triton-native.v2-json", "triton-native.grpc-infer"}
    kept: Results = load(tmp_path / "wires.json")
    assert [len(each.rounds) for each in kept.entries] == [1, 0, 1]
