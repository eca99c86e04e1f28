"""The schema is valid OpenAPI 3.1, has each model's real shapes, and its examples work as they stand."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import InvalidArgument
from app.protocols.predict_json import PredictJson
from app.server import openapi
from app.tensors import STRING, Scaling, Signature, make_signature
from tests.server.conftest import HOSTILE, PAIR_SAMPLES
from tests.server.inprocess import InProcess
from tests.server.schema import faults
from tests.signatures import spec

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
NPY = "application/x-npy"


@pytest.fixture(scope="module")
def document(good: InProcess) -> dict[str, Any]:
    response = good.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    found: dict[str, Any] = response.json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def predictions(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The operation of each route that predicts."""
    return {path: operation for path, _, operation in operations(document) if path.startswith("/predict")}


def walk(part: Any) -> Iterator[Any]:
    yield part
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from walk(inner)


def body_schema(operation: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = operation["requestBody"]["content"]["application/json"]["schema"]
    return found


def answer_schema(operation: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = operation["responses"]["200"]["content"]["application/json"]["schema"]
    return found


def examples(document: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    for path, operation in predictions(document).items():
        for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
            yield path, example["value"], operation


# What OpenAPI 3.1 asks of a document


def test_it_says_which_openapi_it_is_and_what_it_describes(document: dict[str, Any]) -> None:
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert document["info"]["title"] == "Litepool"
    assert isinstance(document["info"]["version"], str)
    assert document.keys() <= {"openapi", "info", "paths", "components", "tags", "servers"}


def test_every_operation_has_an_id_of_its_own_and_answers_with_known_statuses(document: dict[str, Any]) -> None:
    ids = []
    for path, method, operation in operations(document):
        assert path.startswith("/")
        assert method in METHODS
        ids.append(operation["operationId"])
        assert operation["responses"]
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d|default", status)
            assert isinstance(response["description"], str)
            for media in response.get("content", {}).values():
                assert isinstance(media.get("schema", {}), dict)
    assert len(ids) == len(set(ids))


def test_every_parameter_of_a_path_is_declared(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        declared = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path))
        assert all(each["required"] for each in operation.get("parameters", []) if each["in"] == "path")


def test_every_reference_leads_somewhere(document: dict[str, Any], one_model: Path) -> None:
    _check_references(document)
    with InProcess(one_model, model_control=True) as served:
        controlled = served.get("/openapi.json").json()
    assert "/models/{model}/load" in controlled["paths"]
    _check_references(controlled)


def _check_references(document: dict[str, Any]) -> None:
    references = [part["$ref"] for part in walk(document) if isinstance(part, dict) and "$ref" in part]

    assert references
    for reference in references:
        target: Any = document
        assert reference.startswith("#/")
        for name in reference[2:].split("/"):
            target = target[name]
        assert target


def test_every_schema_has_a_type_that_json_knows(document: dict[str, Any]) -> None:
    schemas = [body_schema(operation) for operation in predictions(document).values()]
    schemas += [answer_schema(operation) for operation in predictions(document).values()]
    for part in walk(schemas):
        if isinstance(part, dict) and isinstance(part.get("type"), str):
            assert part["type"] in {"object", "array", "number", "integer", "boolean", "string"}
            assert part["type"] != "array" or "items" in part


# What is in it


def test_every_route_is_in_it(document: dict[str, Any], good: InProcess) -> None:
    names = [model["name"] for model in good.get("/models").json()["models"]]

    # Those of other servers' formats are held by the tests of these.
    assert {path for path in document["paths"] if not path.startswith(("/v1", "/v2"))} == {
        *("/predict", "/healthz", "/livez", "/readyz", "/models", "/models/{model}", "/metrics"),
        "/models/{model}/versions/{version}",
        *(f"/predict/{name}" for name in names),
    }


def test_predict_is_described_as_the_default_model_is(document: dict[str, Any]) -> None:
    default, named = document["paths"]["/predict"]["post"], document["paths"]["/predict/affine"]["post"]

    assert default["requestBody"] == named["requestBody"]
    assert default["responses"] == named["responses"]


@pytest.mark.parametrize(
    ("model", "good_bodies", "bad_bodies"),
    [
        (
            "affine",
            [{"instance": [1, 2.5, 3, 4]}, {"instances": [[1, 2, 3, 4]] * 3}, {"inputs": [[1, 2, 3, 4]]}],
            [{"instance": [1, 2, 3]}, {"instances": []}, {"inputs": [1, 2, 3, 4]}, {}, {"instance": ["1", 2, 3, 4]}],
        ),
        (
            "pair",
            [{"instance": {"left": [1, 2, 3], "right": [1, 2, 3]}}],
            [{"instance": {"left": [1, 2, 3]}}, {"instance": {"left": [1, 2, 3], "right": [1, 2]}}],
        ),
        ("whole", [{"instance": [[1, 2], [3, 4], [5, 6]]}], [{"instance": [[1, 2], [3, 4]]}]),
        ("inner", [{"instance": [[1, 2, 3]]}, {"instance": [[1, 2, 3]] * 9}], [{"instance": [[1, 2]]}]),
        ("scalar", [{"instance": 1}, {"instances": [1, 2]}], [{"instance": [1]}]),
        ("int8", [{"instance": [-128, 0, 0, 127]}], [{"instance": [0, 0, 0, 128]}, {"instance": [0.5, 0, 0, 0]}]),
        ("bool", [{"instance": [True, False, True, True]}], [{"instance": [1, 0, 1, 1]}]),
    ],
)
def test_the_schema_takes_what_the_server_takes_and_nothing_that_it_refuses(
    document: dict[str, Any], good: InProcess, model: str, good_bodies: list[Any], bad_bodies: list[Any]
) -> None:
    operation = predictions(document)[f"/predict/{model}"]
    for body in good_bodies:
        assert faults(body, body_schema(operation)) == []
        response = good.post(f"/predict/{model}", body)
        assert response.status_code == 200
        assert faults(response.json(), answer_schema(operation)) == []
    for body in bad_bodies:
        assert faults(body, body_schema(operation))
        assert good.post(f"/predict/{model}", body).status_code == 400


ODD = make_signature(
    "s",
    (spec("text", "string", (-1,)), spec("wave", "complex64", (-1, 2)), spec("raw", "int8", (-1,), Scaling(0.5, -3))),
    (spec("text", "string", (-1, -1)),),
)
GOOD_ODD = {"text": "a", "wave": [[1, 2], [3, -0.5]], "raw": -128}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"text": ""},
        {"text": {"b64": "/w=="}},
    ],
)
def test_strings_and_complex_numbers_are_described_as_they_are_taken(change: dict[str, Any]) -> None:
    body = {"instances": [GOOD_ODD | change, GOOD_ODD]}

    assert faults(body, openapi.request_schema(ODD)) == []
    assert PredictJson(ODD).decode(json.dumps(body).encode()).rows == 2


@pytest.mark.parametrize(
    "change",
    [
        {"text": 1},
        {"text": None},
        {"text": {"b64": 1}},
        {"text": {"b64": "", "x": ""}},
        {"text": {}},
        {"text": ["a"]},
        {"wave": [1, 2]},
        {"wave": [[1, 2], [3]]},
        {"wave": [[1, 2], [3, 4, 5]]},
        {"wave": [[1, 2], [3, True]]},
        {"raw": 0.5},
        {"raw": 128},
    ],
)
def test_what_is_no_string_or_complex_number_does_not_fit_the_schema_either(change: dict[str, Any]) -> None:
    body = {"instances": [GOOD_ODD | change, GOOD_ODD]}

    assert faults(body, openapi.request_schema(ODD))
    with pytest.raises(InvalidArgument):
        PredictJson(ODD).decode(json.dumps(body).encode())


def test_an_answer_of_strings_fits_its_schema() -> None:
    call = PredictJson(ODD).decode(json.dumps({"instance": GOOD_ODD}).encode())
    answer = json.loads(PredictJson(ODD).encode(call, [np.array([[b"a", b"\xff"]], STRING)]))

    assert answer == {"prediction": ["a", {"b64": "/w=="}]}
    assert faults(answer, openapi.answer_schema(ODD)) == []


def test_what_a_quantized_tensor_means_is_said_in_both_views() -> None:
    def described(signature: Signature) -> dict[str, Any]:
        record = openapi.request_schema(signature)["oneOf"][0]["properties"]["instance"]
        found: dict[str, Any] = record["properties"]["raw"]
        return found

    assert described(ODD) == {
        "type": "integer",
        "minimum": -128,
        "maximum": 127,
        "description": "raw: the real number is 0.5 * (raw + 3)",
    }
    assert described(ODD.real()) == {
        "type": "number",
        "format": "float",
        "description": "a real number, kept as 0.5 * (raw + 3)",
    }


def test_npy_is_not_offered_for_strings() -> None:
    assert not openapi.npy_holds(ODD.inputs)
    assert not openapi.npy_holds(ODD.inputs[:1])
    assert openapi.npy_holds(ODD.inputs[1:2])


def test_every_example_fits_the_schema_and_works_as_it_stands(document: dict[str, Any], good: InProcess) -> None:
    shown = list(examples(document))

    assert {path for path, _, _ in shown} == predictions(document).keys()
    for path, value, operation in shown:
        assert faults(value, body_schema(operation)) == [], path
        response = good.post(path, value)
        assert response.status_code == 200, (path, response.text)
        assert faults(response.json(), answer_schema(operation)) == [], path


def test_the_examples_of_a_model_with_samples_are_its_samples(document: dict[str, Any]) -> None:
    assert [value for path, value, _ in examples(document) if path == "/predict/pair"] == [
        sample["request"] for sample in PAIR_SAMPLES
    ]


def test_npy_is_offered_where_it_is_taken_and_given(document: dict[str, Any]) -> None:
    shown = predictions(document)
    one, two = shown["/predict/affine"], shown["/predict/pair"]

    assert NPY in one["requestBody"]["content"]
    assert NPY in one["responses"]["200"]["content"]
    assert NPY not in two["requestBody"]["content"]
    assert NPY not in two["responses"]["200"]["content"]


def test_errors_are_described_by_their_one_form(document: dict[str, Any], good: InProcess) -> None:
    schema = document["components"]["schemas"]["Error"]
    assert faults(good.post("/predict", {}).json(), schema) == []
    for operation in predictions(document).values():
        assert {"400", "404", "413", "415", "503", "504"} <= operation["responses"].keys()
        for status, response in operation["responses"].items():
            if status != "200":
                assert response["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}


def test_a_description_is_passed_on_as_it_is(document: dict[str, Any]) -> None:
    assert document["paths"]["/predict/pair"]["post"]["description"] == HOSTILE


def test_a_model_that_failed_has_no_route_in_it(mixed: InProcess) -> None:
    paths = mixed.get("/openapi.json").json()["paths"]

    assert {path for path in paths if path.startswith("/predict")} == {
        "/predict",
        "/predict/affine",
    }
    assert "broken" not in json.dumps(paths)
