"""Triton's own load tool, which asks for metadata, configuration and statistics before and after it sends a load."""

import csv
import platform
import re
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import Served
from tests.clients.programs import PATIENCE, perf_analyzer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="perf_analyzer is for Linux on x86_64"
    ),
]

CONCURRENCIES = (1, 4)

# Three short windows for each, whatever they show. Not `--request-count`: where all are answered before the tool looks,
# it waits for more for ever.
WINDOWS = ["--measurement-interval", "200", "--stability-percentage", "999"]


def load(served: Served, folder: Path, model: str, protocol: str, *options: str) -> str:
    """Send requests for a moment, one and several at a time, and see in the tool's report that they are answered.

    Returns:
        What it prints.
    """
    report = folder / "report.csv"
    address = served.http if protocol == "http" else served.grpc
    command: list[str | Path] = [perf_analyzer(), "-m", model, "-u", address, "-i", protocol, "-f", report, *options]
    command += ["--concurrency-range", ":".join(map(str, (*CONCURRENCIES, 3))), *WINDOWS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    with report.open() as lines:
        rows = list(csv.DictReader(lines))
    assert sorted(int(row["Concurrency"]) for row in rows) == list(CONCURRENCIES)
    assert all(float(row["Inferences/Second"]) > 0 for row in rows)
    return done.stdout


def check_statistics(printed: str, batch: int = 1) -> None:
    """See that the tool has found the server's statistics of what it sent."""
    inferences, requests = (
        [int(count) for count in re.findall(rf"{what} count: (\d+)", printed)]
        for what in ("Inference", "Successful request")
    )
    assert len(requests) == len(CONCURRENCIES)
    assert all(requests)
    # They are taken under load, so that what is under way may be in one number and not yet in the other.
    for several, one in zip(inferences, requests, strict=True):
        assert abs(several / batch - one) <= 2 * max(CONCURRENCIES), printed


@pytest.mark.parametrize("form", ["binary", "json"])
def test_it_loads_the_server_over_http(served: Served, tmp_path: Path, form: str) -> None:
    forms = ["--input-tensor-format", form, "--output-tensor-format", form]
    printed = load(served, tmp_path, "two", "http", *forms)
    check_statistics(printed)


@pytest.mark.parametrize("mode", [["--sync"], ["--async"], ["--streaming", "--async"]], ids=" ".join)
def test_it_loads_the_server_over_grpc(served: Served, tmp_path: Path, mode: list[str]) -> None:
    printed = load(served, tmp_path, "two", "grpc", *mode)
    check_statistics(printed)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_it_sends_strings(served: Served, tmp_path: Path, protocol: str) -> None:
    load(served, tmp_path, "words", protocol)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_it_sends_batches(served: Served, tmp_path: Path, protocol: str) -> None:
    printed = load(served, tmp_path, "classes", protocol, "-b", "8")
    check_statistics(printed, batch=8)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_it_compresses_over_grpc(served: Served, tmp_path: Path, algorithm: str) -> None:
    load(served, tmp_path, "two", "grpc", "--grpc-compression-algorithm", algorithm)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_it_keeps_sequences(served: Served, tmp_path: Path, protocol: str) -> None:
    load(served, tmp_path, "sum", protocol, "--sync", "--sequence-length", "5")


def test_it_loads_the_server_as_tensorflow_serving(served: Served, tmp_path: Path) -> None:
    options = ["--service-kind", "tfserving", "--shape", "x:1,4"]
    load(served, tmp_path, "classes", "grpc", *options)
