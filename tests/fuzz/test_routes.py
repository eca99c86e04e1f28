"""Whatever request comes to the server's port, it is answered or refused as it should be, and so is the next."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.bound import Wants
from app.repository.manager import Target
from tests import tflite
from tests.fuzz.budget import budget, try_all
from tests.fuzz.checks import check_message
from tests.fuzz.connection import Edge, Response
from tests.fuzz.requests import PATHS, READ, STRANGE, Request, predictions, requests
from tests.server.inprocess import InProcess

MODELS = {
    "affine": tflite.affine,
    "pair": tflite.two_in_two_out,
    "lookup": tflite.lookup,
    "whole": tflite.whole,
    "sum": tflite.running_sum,
}

MOST_BYTES = 1 << 14

GOOD = b'POST /v1/models/affine:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 25\r\n\r\n{"instances":[[1,2,3,4]]}'


def write_models(folder: Path) -> Path:
    folder.mkdir()
    for name, make in MODELS.items():
        (folder / f"{name}.tflite").write_bytes(make())
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    folder = write_models(tmp_path_factory.mktemp("fuzz") / "models")
    with InProcess(folder, default_model="affine", max_body_bytes=MOST_BYTES) as served:
        yield served


@pytest.fixture(scope="module")
def edge(served: InProcess) -> Edge:
    return Edge(served, MOST_BYTES)


def check_response(response: Response) -> None:
    assert response.status < 500 or response.status in (503, 504), response
    if response.status < 400:
        return
    if response.headers[b"content-type"].startswith(b"text/plain"):
        # Of what is no HTTP it is uvicorn's parser that tells.
        assert response.body == b"Invalid HTTP request received."
        return
    assert response.headers[b"content-type"] == b"application/json"
    body = json.loads(response.body)
    assert body.keys() == {"error"}
    check_message(body["error"])


@budget
def test_no_request_does_more_than_be_answered_or_refused(served: InProcess, edge: Edge, share: int) -> None:
    def check(request: bytes) -> None:
        for response in edge.send(request, head=request.startswith(b"HEAD")):
            check_response(response)
        (good,) = edge.send(GOOD)
        assert (good.status, json.loads(good.body)) == (200, {"predictions": [[3, 5, 7, 9]]})

    signatures = {
        name: served.services.dataplane.route(Target(name), Wants()).bound.servable.signature for name in MODELS
    }
    try_all("routes", requests(predictions(signatures)), check, share, many=1500)


@pytest.mark.parametrize("name", sorted(set(READ)))
def test_no_header_s_value_is_the_server_s_fault(edge: Edge, name: bytes) -> None:
    for value in STRANGE:
        for path in (b"/predict/affine", b"/v1/models/affine:predict", b"/v2/models/affine/infer"):
            request = Request(b"POST", path, ((b"Content-Length", b"2"), (name, value)), b"{}")
            for response in edge.send(request.written()):
                check_response(response)
                # A bug in what the parser calls would be told as that.
                assert b"is not valid HTTP" not in response.body or value == b"\0" or name == b"Transfer-Encoding"


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"])
def test_no_path_is_the_server_s_fault(edge: Edge, method: bytes) -> None:
    for path in PATHS:
        for odd in (
            path,
            path + b"/",
            path + b"%00",
            path.replace(b"affine", b"%ff"),
            path + b"?x=%ff&y",
            path + b":predict",
        ):
            (response,) = edge.send(Request(method, odd, ((b"Host", b"x"),), b"").written(), head=method == b"HEAD")
            if method == b"HEAD":
                assert response.status < 500
            else:
                check_response(response)
