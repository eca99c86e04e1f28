"""TensorFlow Serving's REST, with the words and the statuses of the original where they make sense here."""

import base64
import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import tflite
from tests.server.inprocess import InProcess, error_of
from tests.server.schema import faults

LABELS = "versions = { all = true }\nlabels = { stable = 1, canary = 2 }\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    """`m` is y = x/2 + 2 for records of rank 0; `two` has two versions and two labels; the others say what they are."""
    folder = tmp_path_factory.mktemp("serving") / "models"
    for version, scale in ((1, 1.0), (2, 2.0)):
        (folder / "two" / str(version)).mkdir(parents=True)
        (folder / "two" / str(version) / "model.tflite").write_bytes(tflite.affine(scale=scale, offset=0.0))
    (folder / "two" / "model.toml").write_text(LABELS)
    (folder / "m.tflite").write_bytes(tflite.affine(0.5, 2.0, (-1,)))
    (folder / "pair.tflite").write_bytes(tflite.two_in_two_out())
    (folder / "names.tflite").write_bytes(tflite.two_signatures())
    (folder / "whole.tflite").write_bytes(tflite.whole())
    (folder / "one.tflite").write_bytes(tflite.fixed_one())
    (folder / "int8.tflite").write_bytes(tflite.identity("int8"))
    (folder / "uint8.tflite").write_bytes(tflite.identity("uint8"))
    (folder / "bool.tflite").write_bytes(tflite.identity("bool"))
    (folder / "text.tflite").write_bytes(tflite.identity("string"))
    (folder / "labelled").mkdir()
    (folder / "labelled" / "model.tflite").write_bytes(tflite.affine(scale=1.0, offset=0.0))
    (folder / "labelled" / "model.toml").write_text('class_labels = ["a", "b", "\u00e9\\"", "d"]\n')
    (folder / "broken.tflite").write_bytes(tflite.truncated(tflite.affine()))
    with InProcess(folder, default_model="m", max_body_bytes=4096) as server:
        yield server


def predict(served: InProcess, body: str, model: str = "m") -> Any:
    return served.send(f"/v1/models/{model}:predict", body.encode())


# What the rules of the original come to, word for word


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ('{"instances":[1.0,2.0,5.0]}', '{"predictions":[2.5,3.0,4.5]}'),
        ('{"inputs":[1.0,2.0,5.0]}', '{"outputs":[2.5,3.0,4.5]}'),
        ('{"instances":[{"x":1.0},{"x":2.0}]}', '{"predictions":[2.5,3.0]}'),
        ('{"inputs":{"x":[1.0]}}', '{"outputs":[2.5]}'),
        ('{"instances":[1,2]}', '{"predictions":[2.5,3.0]}'),
        ('{"instances":[NaN]}', '{"predictions":[NaN]}'),
        ('{"instances":[Infinity,-Infinity]}', '{"predictions":[Infinity,-Infinity]}'),
        ('{"signature_name":"serving_default","instances":[1.0]}', '{"predictions":[2.5]}'),
        ('{"instances":[1.0],"signature_name":""}', '{"predictions":[2.5]}'),
        ('{"instances":[1.0],"more":{"y":1}}', '{"predictions":[2.5]}'),
        ('{"instances":[1.0]} {"instances":[2.0]}', '{"predictions":[2.5]}'),
        ('{"inputs":{"x":[1.0],"z":[2.0]}}', '{"outputs":[2.5]}'),
        ('{"instances":[1e39]}', '{"predictions":[Infinity]}'),
    ],
)
def test_a_good_request_is_answered_as_the_original_answers_it(served: InProcess, body: str, answer: str) -> None:
    response = predict(served, body)

    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.text == answer


# Python before 3.12 does not read so many lists in each other, and later ones do.
TOO_DEEP = "nested too deeply" if sys.version_info < (3, 12) else "Encountered list at unexpected level: 32"
BAD = [
    ("m", "", 400, "JSON Parse error: The document is empty"),
    ("m", " \n", 400, "JSON Parse error: The document is empty"),
    ("m", '{"instances"', 400, "JSON Parse error: Expecting ':' delimiter"),
    ("m", '{"instances":[1.0,]}', 400, "at offset: "),
    ("m", "[1.0]", 400, "Is not object"),
    ("m", '"instances"', 400, "Is not object"),
    ("m", "{}", 400, "Missing 'inputs' or 'instances' key"),
    ("m", '{"instance":1.0}', 400, "Missing 'inputs' or 'instances' key"),
    ("m", '{"instances":[1.0],"inputs":[1.0]}', 400, "expecting only one of 'inputs' or 'instances' keys to exist"),
    ("m", '{"instances":[]}', 400, "No values in 'instances' array"),
    ("m", '{"instances":1.0}', 400, "Expecting 'instances' value to be an list/array"),
    ("m", '{"instances":["a"]}', 400, 'JSON Value: "a" Type: String is not of expected type: float'),
    ("m", '{"instances":[true]}', 400, "JSON Value: true Type: True is not of expected type: float"),
    ("m", '{"instances":[null]}', 400, "JSON Value: null Type: Null is not of expected type: float"),
    (
        "m",
        '{"instances":[1.0,"a"]}',
        400,
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: ",
    ),
    ("m", '{"instances":[[1.0],[1.0,2.0]]}', 400, "Expecting tensor size: 1 but got: 2"),
    ("m", '{"instances":[[1.0],1.0]}', 400, "Expecting shape [1] but got: []"),
    ("m", '{"instances":[[1.0,[2.0]]]}', 400, "Encountered list at unexpected level: 1 expected < 1"),
    ("m", '{"instances":[[[1.0],2.0]]}', 400, "found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
    ("m", '{"inputs":[[1.0],[1.0,2.0]]}', 400, "Encountered list at unexpected size: 2 at level: 1 expected size: 1"),
    ("m", '{"instances":[{"z":1.0}]}', 400, "JSON object: does not have named input: z"),
    ("m", '{"instances":[{}]}', 400, "keys must be equal to: x"),
    ("m", '{"instances":[{"x":1.0},1.0]}', 400, "Expecting object but got list at item 1 of input list"),
    ("m", '{"instances":[1.0,{"x":1.0}]}', 400, "Expecting value/list but got object at item 1 of input list"),
    ("m", '{"instances":[[[1.0]]]}', 400, "expected shape [-1] for input 'x', found [1, 1, 1]"),
    ("m", '{"inputs":{"z":[1.0]}}', 400, "Missing named input: x in 'inputs' object"),
    ("m", '{"inputs":[]}', 400, "found [0]"),
    ("m", '{"instances":[1e400]}', 400, "Number too big to be stored in double, found 1e400"),
    ("m", '{"signature_name":7,"instances":[1.0]}', 400, "'signature_name' key must be a string value"),
    ("m", '{"signature_name":"z","instances":[1.0]}', 400, 'Serving signature name: "z" not found in signature def'),
    ("m", '{"instances":[1.0],"signature_name":"z"}', 400, 'Serving signature name: "z" not found in signature def'),
    ("m", '{"instances":[' + "[" * 2000 + "]" * 2000 + "]}", 400, TOO_DEEP),
    ("m", '{"instances":[' + "[" * 500 + "]" * 500 + "]}", 400, "Encountered list at unexpected level: 32"),
    ("m", '{"instances":[' + "1.0," * 1200 + "1.0]}", 413, "4096"),
    ("none", '{"instances":[1]}', 404, "Servable not found for request: Latest(none)"),
    ("m/versions/7", '{"instances":[1]}', 404, "Servable not found for request: Specific(m, 7)"),
    (
        "m/versions/x",
        '{"instances":[1]}',
        400,
        "Failed to convert version: x to numeric: versions are positive integers",
    ),
    (f"m/versions/{2**63}", '{"instances":[1]}', 400, f"Failed to convert version: {2**63} to numeric"),
    (f"m/versions/{2**63 - 1}", '{"instances":[1]}', 404, f"not found for request: Specific(m, {2**63 - 1})"),
    ("m/labels/x", '{"instances":[1]}', 404, "Unrecognized servable version label: x"),
    ("broken", '{"instances":[1]}', 503, "broken"),
    ("pair", '{"instances":[[1,2,3]]}', 400, "instances is a plain list, but expecting list of objects"),
    ("pair", '{"inputs":[[1,2,3]]}', 400, "inputs is a plain value/list, but expecting an object"),
    ("pair", '{"inputs":{"left":[[1,2,3]]}}', 400, "Missing named input: right in 'inputs' object"),
    ("pair", '{"instances":[{"left":[1,2,3]}]}', 400, "keys must be equal to: left,right"),
    ("pair", '{"instances":[{"left":[1,2,3],"right":["a",2,3]}]}', 400, "Failed to process element: 0 key: right of"),
    ("pair", '{"inputs":{"left":[[1,2,3]],"right":[[1,2,3],[1,2,3]]}}', 400, "as many records in each input"),
    ("int8", '{"instances":[[1.0,2,3,4]]}', 400, "JSON Value: 1.0 Type: Number is not of expected type: int8"),
    ("int8", '{"instances":[[300,2,3,4]]}', 400, "out of range for int8"),
    ("uint8", '{"instances":[[-1,2,3,4]]}', 400, "out of range for uint8"),
    ("bool", '{"instances":[[1,true,true,true]]}', 400, "JSON Value: 1 Type: Number is not of expected type: bool"),
    ("text", '{"instances":[["a",1,"c","d"]]}', 400, "JSON Value: 1 Type: Number is not of expected type: string"),
    ("text", '{"instances":[["a",{"b64":"*"},"c","d"]]}', 400, "Unable to base64 decode"),
    ("text", '{"instances":[["a",{"b":"*"},"c","d"]]}', 400, "not formatted correctly for base64 data"),
    ("whole", '{"instances":[[1,2],[3,4]]}', 400, "the model has no batch dimension"),
]


@pytest.mark.parametrize(("model", "body", "status", "words"), BAD)
def test_a_bad_request_is_refused_with_the_status_and_the_words_of_the_original(
    served: InProcess, model: str, body: str, status: int, words: str
) -> None:
    assert words in error_of(predict(served, body, model), status)


def test_what_is_refused_says_also_where_and_what_was_expected(served: InProcess) -> None:
    message = error_of(predict(served, '{"instances":[[1,2,3,"a"]]}', "two/versions/1"), 400)

    assert message == (
        "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"a\" Type: String is "
        "not of expected type: float (instances[0][3]: expected one float32 number for input 'x', found the string "
        '"a")'
    )


def test_several_outputs_are_named_in_rows_and_in_columns(served: InProcess) -> None:
    row = {"left": [1, 2, 3], "right": [4, 5, 6]}
    rows = predict(served, json.dumps({"instances": [row, row]}), "pair").json()
    columns = predict(served, json.dumps({"inputs": {name: [values] * 2 for name, values in row.items()}}), "pair")

    assert rows == {"predictions": [{"total": [21.0], "difference": [-3.0, -3.0, -3.0]}] * 2}
    assert columns.json() == {"outputs": {"total": [[21.0]] * 2, "difference": [[-3.0, -3.0, -3.0]] * 2}}


def test_rows_of_a_model_without_a_batch_dimension_are_its_one_tensor(served: InProcess) -> None:
    tensor = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    answer = [[3.0, 5.0], [7.0, 9.0], [11.0, 13.0]]

    assert predict(served, json.dumps({"instances": tensor}), "whole").json() == {"predictions": answer}
    assert predict(served, json.dumps({"inputs": tensor}), "whole").json() == {"outputs": answer}


def test_a_model_of_one_record_takes_as_many_as_are_sent(served: InProcess) -> None:
    answer = predict(served, '{"instances":[[1,1,1,1],[2,2,2,2]]}', "one")

    assert answer.json() == {"predictions": [[3.0] * 4, [5.0] * 4]}


def test_strings_are_bytes_in_base64(served: InProcess) -> None:
    encoded = {"b64": base64.b64encode(b"\xff\x00").decode()}
    response = predict(served, json.dumps({"instances": [["a", {"b64": "Yg=="}, "\u00e9", encoded]]}), "text")

    assert response.json() == {"predictions": [["a", "b", "\u00e9", encoded]]}


def test_a_version_and_a_label_are_asked_for_by_the_path(served: InProcess) -> None:
    body = '{"instances":[[1,2,3,4]]}'
    once, twice = {"predictions": [[1.0, 2.0, 3.0, 4.0]]}, {"predictions": [[2.0, 4.0, 6.0, 8.0]]}

    assert predict(served, body, "two").json() == twice
    assert predict(served, body, "two/versions/1").json() == once
    assert predict(served, body, "two/labels/stable").json() == once
    assert predict(served, body, "two/labels/canary").json() == twice


def test_the_body_names_the_signature_first_or_last_or_in_letters_that_are_escaped(served: InProcess) -> None:
    row = '{"left":[1,2],"right":[3,4]}'
    for body in (
        f'{{"signature_name":"add","instances":[{row}]}}',
        f'{{"instances":[{row}],"signature_name":"add"}}',
        f'{{"instances":[{row}],"signature_name":"a\\u0064d"}}',
    ):
        assert predict(served, body, "names").json() == {"predictions": [[4.0, 6.0]]}
    assert predict(served, '{"instances":[[1,2,3,4]]}', "names").json() == {"predictions": [[3.0, 5.0, 7.0, 9.0]]}


def test_the_verb_may_be_in_any_case_and_a_query_means_nothing(served: InProcess) -> None:
    assert served.send("/V1/Models/m:Predict", b'{"instances":[1.0]}').json() == {"predictions": [2.5]}
    assert served.send("/V1/Models/m:Explain", b'{"instances":[1.0]}').status_code == 400
    assert served.send("/v1/models/m:Predict", b'{"instances":[1.0]}').json() == {"predictions": [2.5]}
    assert served.send("/v1/models/m:predict?x=1", b'{"instances":[1.0]}').json() == {"predictions": [2.5]}


def test_a_body_in_gzip_is_read_and_one_that_grows_too_large_is_refused(served: InProcess) -> None:
    path = "/v1/models/m:predict"
    small, large = gzip.compress(b'{"instances":[1.0]}'), gzip.compress(b" " * 10000)

    assert served.send(path, small, content_encoding="gzip").json() == {"predictions": [2.5]}
    error_of(served.send(path, large, content_encoding="gzip"), 413)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/m:predict"),
        ("POST", "/v1/models/m"),
        ("POST", "/v1/models/m:explain"),
        ("POST", "/v1/models/m/versions/1/labels/x:predict"),
        ("GET", "/v1/"),
        ("PUT", "/v1/models/m"),
        ("DELETE", "/v1/other"),
    ],
)
def test_what_is_none_of_its_paths_is_malformed(served: InProcess, method: str, path: str) -> None:
    assert f"Malformed request: {method} {path}" in error_of(served.request(method, path), 400)


# Status, metadata and the list


def test_probes_may_ask_by_head(served: InProcess) -> None:
    assert served.request("HEAD", "/v1/models/m").status_code == 200
    assert served.request("HEAD", "/v1/models/none").status_code == 404


def status_of(version: int) -> dict[str, Any]:
    return {"version": str(version), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


def test_the_status_of_a_model_is_that_of_its_versions_the_newest_first(served: InProcess) -> None:
    assert served.get("/v1/models/m").json()["model_version_status"] == [status_of(1)]
    assert served.get("/v1/models/two").json()["model_version_status"] == [status_of(2), status_of(1)]
    assert served.get("/v1/models/two/versions/1").json()["model_version_status"] == [status_of(1)]
    assert served.get("/v1/models/two/labels/canary").json()["model_version_status"] == [status_of(2)]


def test_a_model_that_failed_is_at_its_end_and_says_why(served: InProcess) -> None:
    found = served.get("/v1/models/broken").json()
    (version,) = found["model_version_status"]

    assert version["state"] == "END"
    assert version["status"]["error_code"] == "FAILED_PRECONDITION"
    assert version["status"]["error_message"]
    assert found["ready"] is False


def test_the_client_of_kserve_finds_its_answers_at_the_same_paths(served: InProcess) -> None:
    assert served.get("/v1/models/m").json()["ready"] is True
    assert served.get("/v1/models/m").json()["name"] == "m"
    names = served.get("/v1/models").json()["models"]
    assert "m" in names
    assert "broken" not in names


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/v1/models/none", 404, "Could not find any versions of model none"),
        ("/v1/models/two/versions/7", 404, "Could not find version 7 of model two"),
        ("/v1/models/two/versions/x", 400, "Failed to convert version: x to numeric: versions are positive integers"),
        ("/v1/models/two/labels/x", 404, "Unrecognized servable version label: x"),
        ("/v1/models/none/metadata", 404, "Servable not found for request: Latest(none)"),
        ("/v1/models/two/versions/7/metadata", 404, "Servable not found for request: Specific(two, 7)"),
        ("/v1/models/two/labels/x/metadata", 404, "Unrecognized servable version label: x"),
        ("/v1/models/broken/metadata", 503, "broken"),
    ],
)
def test_what_there_is_not_is_not_found(served: InProcess, path: str, status: int, words: str) -> None:
    assert words in error_of(served.get(path), status)


def test_the_metadata_are_the_signatures_with_sizes_as_strings(served: InProcess) -> None:
    def tensor(name: str, *sizes: str) -> dict[str, Any]:
        dims = [{"size": size, "name": ""} for size in sizes]
        return {
            "dtype": "DT_FLOAT",
            "tensor_shape": {"dim": dims, "unknown_rank": False},
            "name": f"{name}:0",
        }

    assert served.get("/v1/models/two/labels/stable/metadata").json() == {
        "model_spec": {"name": "two", "signature_name": "", "version": "1"},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    "serving_default": {
                        "inputs": {"x": tensor("x", "-1", "4")},
                        "outputs": {"y": tensor("y", "-1", "4")},
                        "method_name": "tensorflow/serving/predict",
                    }
                }
            }
        },
    }


def test_the_schema_has_each_of_its_paths_and_its_answers_fit_it(served: InProcess) -> None:
    paths = served.get("/openapi.json").json()["paths"]
    places = ("", "/versions/{version}", "/labels/{label}")

    def schemas(verb: str) -> tuple[Any, Any]:
        operation = paths[f"/v1/models/{{model}}:{verb}"]["post"]
        return (
            operation["requestBody"]["content"]["application/json"]["schema"],
            operation["responses"]["200"]["content"]["application/json"]["schema"],
        )

    expected = {"/v1/models"}
    for place in places:
        expected |= {
            f"/v1/models/{{model}}{place}{end}" for end in ("", "/metadata", ":predict", ":classify", ":regress")
        }
    assert {path for path in paths if path.startswith("/v1")} == expected
    for verb, model, body in (
        ("predict", "m", {"instances": [1, 2]}),
        ("predict", "m", {"inputs": [1, 2], "signature_name": "serving_default"}),
        ("classify", "two", {"examples": [{"x": [1, 2, 3, 4]}]}),
        ("regress", "m", {"examples": [{"x": 1}, {"x": 2}], "context": {"x": 7}}),
    ):
        request, answer = schemas(verb)
        assert faults(body, request) == []
        response = served.post(f"/v1/models/{model}:{verb}", body)
        assert response.status_code == 200, response.text
        assert faults(response.json(), answer) == []


# Classify and regress


def test_a_regression_is_the_outputs_one_number_for_each_example(served: InProcess) -> None:
    answer = served.send("/v1/models/m:regress", b'{"examples":[{"x":1},{"x":[2.0]},{"x":NaN}]}')

    assert answer.text == '{"results":[2.5,3.0,NaN]}'


def test_a_classification_pairs_labels_with_scores_and_numbers_classes_that_have_none(served: InProcess) -> None:
    body = b'{"examples":[{"x":[1,2,3,4]},{"x":[0,0,0,NaN]}]}'
    labelled = served.send("/v1/models/labelled:classify", body)
    unlabelled = served.send("/v1/models/two/versions/1:classify", body)

    assert labelled.text == (
        '{"results":[[["a",1.0],["b",2.0],["\u00e9\\"",3.0],["d",4.0]],[["a",0.0],["b",0.0],["\u00e9\\"",0.0],["d",NaN]]]}'
    )
    assert unlabelled.json()["results"][0] == [["0", 1.0], ["1", 2.0], ["2", 3.0], ["3", 4.0]]


BAD_EXAMPLES = [
    ("m:regress", "", 400, "JSON Parse error: The document is empty"),
    ("m:regress", "[]", 400, "Is not object"),
    ("m:regress", "{}", 400, "key 'examples' is expected and was not found"),
    ("m:regress", '{"examples":[]}', 400, "'examples' value is an empty array"),
    ("m:regress", '{"examples":{}}', 400, "Expecting 'examples' value to be an list/array"),
    ("m:regress", '{"examples":[1.0]}', 400, "Example must be JSON object but got JSON Number"),
    ("m:regress", '{"examples":[{"x":1}],"context":1}', 400, "Example must be JSON object but got JSON Number"),
    ("m:regress", '{"examples":[{"x":null}]}', 400, "Feature: x has element with unexpected JSON type: Null"),
    ("m:regress", '{"examples":[{"x":[[1]]}]}', 400, "Feature: x has element with unexpected JSON type: Array"),
    ("m:regress", '{"examples":[{"x":{"y":1}}]}', 400, "Feature: x has element with unexpected JSON type: Object"),
    ("m:regress", '{"examples":[{"x":[1,"a"]}]}', 400, "Unexpected element type in feature: x"),
    ("m:regress", '{"examples":[{"x":"a"}]}', 400, "Data types don't match. Data type: bytes"),
    ("m:regress", '{"examples":[{"x":{"b64":"*"}}]}', 400, "Unable to base64 decode"),
    ("m:regress", '{"examples":[{"x":[1,2]}]}', 400, "Number of float32 values != expected"),
    ("m:regress", '{"examples":[{"y":1}]}', 400, "Feature: x (data type: float32) is required but could not be found"),
    ("m:regress", '{"examples":[{"x":18446744073709551615}]}', 400, "Only int64 is supported"),
    ("m:regress", '{"examples":[{"x":1}],"signature_name":"z"}', 400, "No signature was found with the name: z; "),
    ("m:regress", '{"examples":[{"x":1}],"signature_name":1}', 400, "'signature_name' key must be a string value"),
    ("m:classify", '{"examples":[{"x":1}]}', 400, "Expected classification signature outputs"),
    ("two:regress", '{"examples":[{"x":[1,2,3,4]}]}', 400, "Expected output Tensor shape"),
    ("whole:regress", '{"examples":[{"x":1}]}', 400, "no batch dimension"),
    ("int8:classify", '{"examples":[{"x":[1,2,3,4]}]}', 400, "Expected classification signature outputs"),
    ("none:classify", '{"examples":[{"x":1}]}', 404, "Servable not found for request: Latest(none)"),
]


@pytest.mark.parametrize(("path", "body", "status", "words"), BAD_EXAMPLES)
def test_bad_examples_are_refused_with_the_status_and_the_words_of_the_original(
    served: InProcess, path: str, body: str, status: int, words: str
) -> None:
    assert words in error_of(served.send(f"/v1/models/{path}", body.encode()), status)


# Pages of other sites


def test_without_the_setting_no_other_site_is_let_in(served: InProcess) -> None:
    response = served.request("OPTIONS", "/v1/models/m:predict", headers={"origin": "https://a.example"})

    assert response.status_code == 400
    assert "access-control-allow-origin" not in response.headers


def test_with_the_setting_browsers_are_told_that_they_may(one_model: Path) -> None:
    asked = {"origin": "https://a.example", "access-control-request-method": "POST"}
    with InProcess(one_model, cors_origins="https://a.example, https://b.example") as server:
        before = server.request("OPTIONS", "/v1/models/affine:predict", headers=asked)
        answer = server.send("/v1/models/affine:predict", b'{"instances":[[1,2,3,4]]}', origin="https://b.example")
        refused = server.send("/v1/models/affine:predict", b"{}", origin="https://a.example")
        other = server.send("/v1/models/affine:predict", b"{}", origin="https://c.example")

    assert before.headers["access-control-allow-origin"] == "https://a.example"
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://b.example"
    assert refused.status_code == 400
    assert refused.headers["access-control-allow-origin"] == "https://a.example"
    assert "access-control-allow-origin" not in other.headers
