"""`litepool bench` against a real server."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.process import LITEPOOL, Litepool, environment
from tests.tflite import affine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Litepool]:
    folder = tmp_path_factory.mktemp("models")
    (folder / "twice.tflite").write_bytes(affine())
    settings: dict[str, str | Path] = {"cache_dir": tmp_path_factory.mktemp("cache")}
    with Litepool(folder, "--workers", "1", settings=settings) as litepool:
        yield litepool.wait_ready()


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(LITEPOOL), "bench", "--seconds", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), timeout=60)


def test_it_measures_each_number_of_connections_with_the_model_s_own_record(server: Litepool) -> None:
    done = bench("twice", "--url", server.url, "--connections", "1,4")
    assert done.returncode == 0, done.stderr
    head, *rows = [line.split() for line in done.stdout.splitlines()]
    assert head[0] == "connections"
    assert [row[0] for row in rows] == ["1", "4"]
    for _, rate, p50, p99, failed in rows:
        assert float(rate.replace(",", "")) > 0
        assert 0 < float(p50.replace(",", "")) <= float(p99.replace(",", ""))
        assert failed == "0"
    with server.client() as client:
        counted = client.get("/metrics").body.decode()
    assert 'litepool_requests_total{code="OK",model="twice",version="1"}' in counted


def test_a_model_that_is_not_served_is_named_with_those_that_are(server: Litepool) -> None:
    done = bench("other", "--url", server.url)
    assert done.returncode == 1
    assert "does not serve /predict/other; it serves /predict, /predict/twice" in done.stderr


def test_no_server_is_one_sentence() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        done = bench("--url", "http://{}:{}".format(*silent.getsockname()))
    assert done.returncode == 1
    assert done.stderr.startswith("litepool: no Litepool answers at ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("wrong", ["0", "", "a,b", "2,x", "2,", "2,0", "\u00b2"])
def test_a_wrong_number_of_connections_is_refused(wrong: str) -> None:
    done = bench("--connections", wrong)
    assert done.returncode == 2
    assert "--connections" in done.stderr


@pytest.mark.parametrize("wrong", ["0", "-1"])
def test_a_run_without_length_is_refused(wrong: str) -> None:
    done = bench("--seconds", wrong)
    assert done.returncode == 2
    assert "--seconds" in done.stderr
