"""The decisions of a run: what is chosen, where it is written, how far the open loop climbs."""

import pytest

from benchmarks.__main__ import choose, default_out, main, method, parse
from benchmarks.extras import growth
from benchmarks.measure import rates
from benchmarks.method import QUICK, Method
from benchmarks.paths import CACHE, RESULTS
from benchmarks.probe import cpu_between
from benchmarks.wires import METHOD as WIRES


def names(*arguments: str) -> list[str]:
    return [server.name for server in choose(parse(arguments))]


def test_a_plain_run_measures_the_baselines_and_litepool() -> None:
    found = names()
    assert found[0] == "floor"
    assert {"litepool", "litepool-int8", "litepool-asgi", "naive", "keras-call", "keras-predict"} == set(found[1:])


def test_peers_are_held_against_the_floor_and_litepool_in_the_same_run() -> None:
    assert names("--peers")[:3] == ["floor", "litepool-int8", "litepool"]
    assert {"litserve", "bentoml", "mlserver", "kserve", "triton", "ray"} <= set(names("--peers"))


def test_only_names_what_is_measured_be_it_peer_or_not() -> None:
    assert names("--only", "kserve", "floor") == ["floor", "kserve"]


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "nobody"])
    assert "nobody" in capsys.readouterr().err


@pytest.mark.parametrize("part", [["--quick"], ["--only", "floor"], ["--models", "mlp"], ["--check"]])
def test_a_part_of_a_run_leaves_the_published_results_alone(part: list[str]) -> None:
    assert default_out(parse(part)) == CACHE / "results" / "bench.json"


def test_a_whole_run_writes_the_published_results() -> None:
    assert default_out(parse([])) == RESULTS / "bench.json"
    assert default_out(parse(["--peers"])) == RESULTS / "peers.json"


def test_the_wire_formats_have_results_of_their_own() -> None:
    assert default_out(parse(["--wires"])) == RESULTS / "wires.json"
    assert default_out(parse(["--wires", "--quick"])) == CACHE / "results" / "wires.json"
    assert method(parse(["--wires"])) == WIRES
    assert method(parse(["--wires", "--quick"])) == QUICK


@pytest.mark.parametrize(
    ("arguments", "program", "package"), [([], "wrk", "wrk"), (["--wires"], "h2load", "nghttp2-client")]
)
def test_a_load_generator_that_is_missing_is_named_with_its_package(
    arguments: list[str],
    program: str,
    package: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None if name == program else name)
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        f"{program} is needed and was not found; on Debian and Ubuntu: apt-get install {package}\n"
    )


def test_options_change_the_method_and_leave_the_rest() -> None:
    assert method(parse(["--rounds", "5"])) == Method(rounds=5)
    assert method(parse(["--quick"])) == QUICK


def test_the_open_loop_starts_well_below_what_the_closed_loop_did() -> None:
    assert rates((10, 100, 1000, 10000), 20000) == [1000, 10000]
    assert rates((10, 100), 20000) == [100]


def test_growth_is_of_the_later_readings_over_the_earlier_and_leaves_the_warm_up_out() -> None:
    found = growth([50, 60, 100, 102, 101, 101, 104, 106])
    assert (found["early_pss_mb"], found["growth_mb"], found["noise_mb"]) == (101, 4, 2)


def test_cpu_time_of_a_process_that_came_later_counts_from_its_start() -> None:
    assert cpu_between({1: 2.0, 2: 1.0}, {1: 2.5, 3: 0.25}) == pytest.approx(0.75)
