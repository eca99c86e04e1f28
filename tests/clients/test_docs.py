"""docs/clients.md has every call of every client, and says of none that it works which no program here makes."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.clients.programs import SCRIPTS, python_of_clients
from tests.e2e.process import ROOT

PAGE = (ROOT / "docs" / "clients.md").read_text()
TRITON = ("http", "http.aio", "grpc", "grpc.aio")


def table(name: str) -> list[tuple[set[str], list[str]]]:
    """The rows of a table: the calls that the first cell names, and the other cells."""
    (_, rest) = PAGE.split(f"<!-- {name} -->\n")
    lines = rest.split(f"<!-- end {name} -->")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [(set(re.findall(r"`(\w+)`", first)), cells) for first, *cells in rows]


def column(name: str, number: int) -> dict[str, str]:
    """What a table says of each call of one client: `yes` or `no`."""
    return {call: cells[number] for calls, cells in table(name) for call in calls if cells[number] != "-"}


def surface(client: str) -> set[str]:
    """The public methods of a client's class."""
    command = [str(python_of_clients()), str(SCRIPTS / "surface.py"), client]
    return set(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def made(*programs: str) -> set[str]:
    """The methods that programs call, by their text."""
    return set(re.findall(r"\.(\w+)\b", "".join((SCRIPTS / f"{name}.py").read_text() for name in programs)))


def check(told: dict[str, str], methods: set[str], *programs: str) -> None:
    assert set(told.values()) <= {"yes", "no"}
    assert set(told) == methods
    called = {call for call, word in told.items() if word == "yes"} - {"close", "plugin"}
    assert called <= made(*programs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRITON)
def test_every_method_of_tritonclient_is_in_the_table(kind: str) -> None:
    told = column("tritonclient", TRITON.index(kind))
    check(told, surface(f"tritonclient.{kind}.InferenceServerClient"), "triton", f"triton_{kind.replace('.', '_')}")


@pytest.mark.slow
def test_every_method_of_kserve_is_in_the_table() -> None:
    methods = surface("kserve.InferenceRESTClient")
    v2, v1, by_grpc = (column("kserve", number) for number in range(3))
    check(v1 | v2, methods, "kserve_rest")
    check(by_grpc, surface("kserve.InferenceGRPCClient"), "kserve_grpc")


def test_every_call_of_tensorflow_serving_is_in_the_table() -> None:
    spec = importlib.util.find_spec("tensorflow_serving")
    assert spec is not None
    assert spec.origin is not None
    stubs = [Path(spec.origin).parent / "apis" / f"{name}_service_pb2_grpc.py" for name in ("prediction", "model")]
    calls = {call for stub in stubs for call in re.findall(r"self\.(\w+) = channel", stub.read_text())}
    check(column("serving", 0), calls, "serving_grpc")
