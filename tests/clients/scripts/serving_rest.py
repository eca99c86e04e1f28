"""TensorFlow Serving's REST, by `requests`, as its documentation shows it."""

import base64
import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests

from calls import Addresses, call, equal, run


class Serving:
    """`requests`, with the beginning of every URL."""

    def __init__(self, session: requests.Session, address: str) -> None:
        self._session = session
        self._begin = f"http://{address}/v1/models/"

    def get(self, path: str) -> requests.Response:
        return self._session.get(self._begin + path, timeout=60)

    def post(self, path: str, document: Any, **options: Any) -> requests.Response:
        """POST a document, which `requests` writes by `json.dumps`: with NaN and Infinity as tokens."""
        return self._session.post(self._begin + path, data=json.dumps(document), timeout=60, **options)


@contextmanager
def client(addresses: Addresses) -> Iterator[Serving]:
    with requests.Session() as session:
        yield Serving(session, addresses.http)


def answered(response: requests.Response, expected: Any) -> None:
    equal((response.status_code, response.headers["Content-Type"]), (200, "application/json"))
    equal(response.json(), expected)


def told(response: requests.Response, status: int, *words: str) -> None:
    equal(response.status_code, status)
    (message,) = response.json().values()
    equal(list(response.json()), ["error"])
    missing = [word for word in words if word.lower() not in message.lower()]
    assert not missing, f"expected {missing} in {message!r}"


@call
def predicts_rows(serving: Serving) -> None:
    answered(serving.post("m:predict", {"instances": [1.0, 2.0, 5.0]}), {"predictions": [2.5, 3.0, 4.5]})
    answered(serving.post("m:predict", {"instances": [{"x": 1}, {"x": 2}]}), {"predictions": [2.5, 3.0]})
    document = {"signature_name": "serving_default", "instances": [1.0]}
    answered(serving.post("m:predict", document), {"predictions": [2.5]})
    answered(serving.post("classes:predict", {"instances": [[1, 2, 3, 4]]}), {"predictions": [[3.0, 5.0, 7.0, 9.0]]})


@call
def predicts_columns(serving: Serving) -> None:
    answered(serving.post("m:predict", {"inputs": [1.0, 2.0, 5.0]}), {"outputs": [2.5, 3.0, 4.5]})
    answered(serving.post("m:predict", {"inputs": {"x": [1.0]}}), {"outputs": [2.5]})
    document = {"inputs": {"left": [[1, 2, 3]], "right": [[1, 1, 1]]}}
    answered(serving.post("two:predict", document), {"outputs": {"total": [[9.0]], "difference": [[0.0, 1.0, 2.0]]}})


@call
def predicts_rows_of_several_inputs(serving: Serving) -> None:
    rows = [{"left": [1, 2, 3], "right": [1, 1, 1]}, {"right": [0, 0, 0], "left": [1, 0, 0]}]
    answers = [{"total": [9.0], "difference": [0.0, 1.0, 2.0]}, {"total": [1.0], "difference": [1.0, 0.0, 0.0]}]
    answered(serving.post("two:predict", {"instances": rows}), {"predictions": answers})
    told(serving.post("two:predict", {"instances": [[1, 2, 3]]}), 400, "list of objects")
    told(serving.post("two:predict", {"instances": [{"left": [1, 2, 3]}]}), 400, "left", "right")


@call
def predicts_with_versions_and_labels(serving: Serving) -> None:
    for path, offset in (
        ("half", 3.0),
        ("half/versions/1", 2.0),
        ("half/versions/2", 3.0),
        ("half/labels/stable", 2.0),
        ("half/labels/canary", 3.0),
    ):
        answered(serving.post(f"{path}:predict", {"instances": [0.0]}), {"predictions": [offset]})
    told(serving.post("half/versions/7:predict", {"instances": [0.0]}), 404, "half", "7")
    told(serving.post("half/labels/other:predict", {"instances": [0.0]}), 404, "other")
    told(serving.post("nowhere:predict", {"instances": [0.0]}), 404, "nowhere")


@call
def predicts_numbers_that_are_not_finite(serving: Serving) -> None:
    response = serving.post("m:predict", {"instances": [float("nan"), float("inf"), float("-inf")]})
    equal(response.status_code, 200)
    equal([repr(number) for number in response.json()["predictions"]], ["nan", "inf", "-inf"])
    assert "NaN" in response.text, response.text


@call
def predicts_strings(serving: Serving) -> None:
    given = [["grüß", {"b64": base64.b64encode(b"gott").decode()}]]
    # An output whose name ends in _bytes is answered in base64, and no other.
    in_base64 = [{"b64": base64.b64encode(text).decode()} for text in ("grüß".encode(), b"gott")]
    expected = {"y": ["grüß", "gott"], "y_bytes": in_base64}
    answered(serving.post("words:predict", {"instances": given}), {"predictions": [expected]})
    answered(
        serving.post("words:predict", {"inputs": given}), {"outputs": {"y": [["grüß", "gott"]], "y_bytes": [in_base64]}}
    )
    told(serving.post("words:predict", {"instances": [[{"b64": "?"}, "a"]]}), 400, "base64")


@call
def predicts_every_type(serving: Serving) -> None:
    row = {"bool": [True, False], "string": ["owl", ""], "float32": [0.1, 2], "float64": [0.1, 2], "float16": [0.5, 2]}
    for bits in (8, 16, 32, 64):
        row[f"int{bits}"] = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1]
        row[f"uint{bits}"] = [0, 2**bits - 1]
    answered(
        serving.post("types:predict", {"instances": [row]}), {"predictions": [{f"same_{k}": v for k, v in row.items()}]}
    )


@call
def predicts_from_compressed_bodies(serving: Serving) -> None:
    body = gzip.compress(json.dumps({"instances": [1.0] * 10_000}).encode())
    response = serving._session.post(
        serving._begin + "m:predict", data=body, headers={"Content-Encoding": "gzip"}, timeout=60
    )
    answered(response, {"predictions": [2.5] * 10_000})
    response = serving._session.post(
        serving._begin + "m:predict", data=b"none", headers={"Content-Encoding": "gzip"}, timeout=60
    )
    told(response, 400, "gzip")


@call
def predicts_with_whatever_headers_and_query(serving: Serving) -> None:
    for headers in ({}, {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}, {"Accept": "text/html"}):
        answered(serving.post("m:predict?of=mine", {"instances": [1.0]}, headers=headers), {"predictions": [2.5]})


@call
def is_told_what_is_wrong_with_a_request(serving: Serving) -> None:
    for document, words in (
        ({}, ("Missing 'inputs' or 'instances' key",)),
        ([], ("object",)),
        ({"instances": []}, ("No values in 'instances' array",)),
        ({"instances": 1.0}, ("'instances'", "list")),
        ({"instances": [1.0], "inputs": [1.0]}, ("'inputs' or 'instances'",)),
        ({"instances": ["a"]}, ("is not of expected type: float",)),
        ({"instances": [None]}, ("float",)),
        ({"instances": [True]}, ("float",)),
        ({"instances": [{"z": 1.0}]}, ("does not have named input: z",)),
        ({"instances": [{"x": 1.0}, 2.0]}, ("1",)),
        ({"signature_name": 7, "instances": [1.0]}, ("signature_name", "string")),
        ({"signature_name": "other", "instances": [1.0]}, ('"other" not found',)),
    ):
        told(serving.post("m:predict", document), 400, *words)
    for body in (b"", b"{", b"\xff", b'{"instances": [1.0'):
        response = serving._session.post(serving._begin + "m:predict", data=body, timeout=60)
        told(response, 400, "JSON")
    told(serving.post("m:frobnicate", {}), 400, "Malformed request: POST /v1/models/m:frobnicate")
    told(serving.get("m:predict"), 400, "Malformed request: GET /v1/models/m:predict")


@call
def classifies(serving: Serving) -> None:
    examples = [{"x": [1.0, 4.0, 2.0, 3.0]}, {"x": [9, 6, 7, 8]}]
    expected = [
        [["cat", 3.0], ["dog", 9.0], ["owl", 5.0], ["yak", 7.0]],
        [["cat", 19.0], ["dog", 13.0], ["owl", 15.0], ["yak", 17.0]],
    ]
    answered(serving.post("classes:classify", {"examples": examples}), {"results": expected})
    context = {"context": {"x": [1.0, 4.0, 2.0, 3.0]}, "examples": [{}]}
    answered(serving.post("classes:classify", context), {"results": expected[:1]})
    told(serving.post("classes:classify", {"examples": [{"z": [1.0]}]}), 400, "x")
    told(serving.post("classes:classify", {"instances": [[1.0]]}), 400, "examples")


@call
def regresses(serving: Serving) -> None:
    answered(serving.post("m:regress", {"examples": [{"x": 1.0}, {"x": [2.0]}]}), {"results": [2.5, 3.0]})
    told(serving.post("classes:regress", {"examples": [{"x": [1.0, 2.0, 3.0, 4.0]}]}), 400, "y")


@call
def reads_the_status(serving: Serving) -> None:
    def versions(path: str) -> dict[str, str]:
        response = serving.get(path)
        equal(response.status_code, 200)
        listed = response.json()["model_version_status"]
        for each in listed:
            equal(each["status"], {"error_code": "OK", "error_message": ""})
        return {each["version"]: each["state"] for each in listed}

    equal(versions("m"), {"1": "AVAILABLE"})
    equal(versions("half"), {"1": "AVAILABLE", "2": "AVAILABLE"})
    equal(versions("half/versions/1"), {"1": "AVAILABLE"})
    equal(versions("half/labels/canary"), {"2": "AVAILABLE"})
    told(serving.get("nowhere"), 404, "nowhere")
    told(serving.get("half/versions/7"), 404, "half", "7")
    told(serving.get("half/labels/other"), 404, "other")


@call
def reads_the_metadata(serving: Serving) -> None:
    for path, version in (
        ("half/metadata", "2"),
        ("half/versions/1/metadata", "1"),
        ("half/labels/stable/metadata", "1"),
    ):
        response = serving.get(path)
        equal(response.status_code, 200)
        document = response.json()
        equal(document["model_spec"], {"name": "half", "signature_name": "", "version": version})
        signature = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
        equal(signature["method_name"], "tensorflow/serving/predict")
        for tensor in (signature["inputs"]["x"], signature["outputs"]["y"]):
            equal(tensor["dtype"], "DT_FLOAT")
            equal(tensor["tensor_shape"], {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False})
    told(serving.get("nowhere/metadata"), 404, "nowhere")


@call
def lists_the_models(serving: Serving) -> None:
    response = serving._session.get(serving._begin.rstrip("/"), timeout=60)
    equal(response.status_code, 200)
    assert "half" in response.text, response.text


if __name__ == "__main__":
    run(client)
