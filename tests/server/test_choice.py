"""What a request of `/predict` may choose by path and header: version, label, signature, numbers, sequence."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.server.lane import Lane
from tests import tflite
from tests.server.inprocess import InProcess, error_of
from tests.server.test_express import Connection, Loop, request

ONE = {"instance": [1, 2, 3, 4]}
STABLE, NEWEST = {"prediction": [3, 5, 7, 9]}, {"prediction": [10, 20, 30, 40]}

LABELS = """
[versions]
all = true

[labels]
stable = 3
canary = 12
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    folder = tmp_path_factory.mktemp("choice") / "models"
    for version, model in ((3, tflite.affine()), (12, tflite.affine(10.0, 0.0))):
        (folder / "m" / str(version)).mkdir(parents=True)
        (folder / "m" / str(version) / "m.tflite").write_bytes(model)
    (folder / "m" / "model.toml").write_text(LABELS)
    for name, model in (("two", tflite.two_signatures()), ("account", tflite.account()), ("raw", tflite.quantized())):
        (folder / f"{name}.tflite").write_bytes(model)
    for name, dtype in (("string", "string"), ("complex", "complex64")):
        (folder / f"{name}.tflite").write_bytes(tflite.identity(dtype))
    (folder / "real").mkdir()
    (folder / "real" / "real.tflite").write_bytes(tflite.quantized())
    (folder / "real" / "model.toml").write_text('numbers = "real"\n')
    with InProcess(folder, default_model="m") as served:
        yield served


def ask(served: InProcess, path: str, document: Any = ONE, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return served.request("POST", path, json=document, headers=named)


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        *((path, NEWEST) for path in ("/predict", "/predict/m", "/predict/m/versions/12", "/predict/m/labels/canary")),
        *((path, STABLE) for path in ("/predict/m/versions/3", "/predict/m/versions/003", "/predict/m/labels/stable")),
    ],
)
def test_a_path_chooses_the_version(served: InProcess, path: str, answer: object) -> None:
    assert ask(served, path).json() == answer


def test_the_documentation_has_the_paths_of_versions_of_which_there_are_several(served: InProcess) -> None:
    paths = served.get("/openapi.json").json()["paths"]

    shown = {path for path in paths if path.startswith("/predict/") and "/versions/" in path}
    assert shown == {"/predict/m/versions/3", "/predict/m/versions/12"}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/predict/m/versions/4", "model 'm' has no version 4; its versions are 3, 12"),
        ("/predict/m/versions/0", "model 'm' has no version 0; its versions are 3, 12"),
        (f"/predict/m/versions/{2**63 - 1}", f"model 'm' has no version {2**63 - 1}; its versions are 3, 12"),
        (f"/predict/m/versions/{2**63}", f"no version '{2**63}': versions are positive integers below 2^63"),
        ("/predict/m/versions/-3", "no version '-3': versions are positive integers below 2^63"),
        ("/predict/m/versions/3.0", "no version '3.0': versions are positive integers below 2^63"),
        (
            "/predict/m/versions/" + "9" * 5000,
            "no version '" + "9" * 80 + "': versions are positive integers below 2^63",
        ),
        ("/predict/m/labels/Stable", "model 'm' has no label 'Stable'; its labels are canary, stable"),
        ("/predict/two/labels/stable", "model 'two' has no label 'stable'; it has none"),
        ("/predict/nobody/versions/1", "no model 'nobody'; the models are account, complex, m, raw, real, string, two"),
    ],
)
def test_a_version_or_label_that_there_is_not_is_404_with_those_that_there_are(
    served: InProcess, path: str, message: str
) -> None:
    assert error_of(ask(served, path), 404) == message


def test_a_header_chooses_the_signature(served: InProcess) -> None:
    both = {"instances": [{"left": [1, 2], "right": [10, 20]}]}

    assert ask(served, "/predict/two", both, litepool_signature="add").json() == {"predictions": [[11, 22]]}
    assert ask(served, "/predict/two").json() == STABLE
    assert error_of(ask(served, "/predict/two", both, litepool_signature="sub"), 404) == (
        "model 'two' has no signature 'sub'; its signatures are 'serving_default', 'add'"
    )


@pytest.mark.parametrize(
    ("model", "numbers", "values"),
    [
        ("raw", None, [-1, 0, 1, 127]),
        ("raw", "raw", [-1, 0, 1, 127]),
        ("raw", "real", [0, 0.5, 1, 64]),
        ("real", None, [0, 0.5, 1, 64]),
        ("real", "raw", [-1, 0, 1, 127]),
    ],
)
def test_a_header_or_else_model_toml_chooses_what_the_numbers_of_a_quantized_model_are(
    served: InProcess, model: str, numbers: str | None, values: list[float]
) -> None:
    headers = {} if numbers is None else {"litepool_numbers": numbers}

    assert ask(served, f"/predict/{model}", {"instance": values}, **headers).json() == {"prediction": values}


def test_raw_integers_are_no_fractions_and_another_word_is_none(served: InProcess) -> None:
    fraction = {"instance": [0.5, 0, 0, 0]}

    assert "for input 'x', found the number 0.5" in error_of(
        ask(served, "/predict/real", fraction, litepool_numbers="raw"), 400
    )
    assert error_of(ask(served, "/predict/raw", fraction, litepool_numbers="float"), 400) == (
        "Litepool-Numbers: expected raw or real, found 'float'"
    )


def test_strings_go_in_and_out_and_bytes_that_are_no_text_as_base64(served: InProcess) -> None:
    record = ["", "two words", "gr\u00fc\u00df \U0001f600", {"b64": "//79"}]

    assert ask(served, "/predict/string", {"instances": [record, ["a"] * 4]}).json() == {
        "predictions": [record, ["a"] * 4]
    }
    assert "for input 'x', found the number 1" in error_of(
        ask(served, "/predict/string", {"instance": ["a", "b", "c", 1]}), 400
    )


def test_a_complex_number_is_a_pair(served: InProcess) -> None:
    record = [[1, 2], [0, -1.5], [1e30, 0], [0, 0]]

    assert ask(served, "/predict/complex", {"instance": record}).json() == {"prediction": record}


def test_a_sequence_is_begun_gone_on_with_by_any_signature_and_ended(served: InProcess) -> None:
    def total(name: str, **headers: str) -> object:
        response = ask(served, "/predict/account", {"instance": [1, 1, 1, 1]}, litepool_sequence_id=name, **headers)
        assert response.status_code == 200, response.text
        return response.json()["prediction"][0]

    assert total("a", litepool_sequence_start="true") == 1
    assert total("b", litepool_sequence_start="true") == 1
    assert [total("a"), total("a"), total("b")] == [2, 3, 2]
    assert total("a", litepool_signature="peek") == 4
    assert total("a", litepool_sequence_end="true") == 4
    assert ask(served, "/predict/account", {"instance": [1, 1, 1, 1]}).json()["prediction"][0] == 1
    gone = error_of(ask(served, "/predict/account", {"instance": [1, 1, 1, 1]}, litepool_sequence_id="a"), 400)
    assert gone.startswith("there is no sequence 'a': ")
    assert total("b") == 3


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"litepool_sequence_id": "a"}, "model 'm' keeps no state between requests: send it no sequence id"),
        (
            {"litepool_sequence_start": "true"},
            "Litepool-Sequence-Start without Litepool-Sequence-Id: name the sequence",
        ),
        ({"litepool_sequence_id": ""}, "Litepool-Sequence-Id: expected 1 to 128 printable ASCII characters, found ''"),
    ],
)
def test_a_sequence_where_there_can_be_none_is_400(served: InProcess, headers: dict[str, str], message: str) -> None:
    assert error_of(ask(served, "/predict", **headers), 400) == message


# The express lane gives the same answers, or leaves the request to the application.


class OnLoop(Loop):
    """The stand-in for a connection's loop, beside the application's, which is the real one."""

    def __init__(self, served: InProcess) -> None:
        super().__init__()
        self.real = served._runner.get_loop()


def by_express(served: InProcess, lane: Lane, whole: bytes) -> tuple[int, bytes] | None:
    """Status and body of the answer to a request; None where it is left to the application."""
    loop = OnLoop(served)
    connection = Connection(loop, lane=lane)
    connection.feed(whole)
    for task in loop.tasks:
        task.close()
    if loop.tasks:
        return None

    async def answered() -> tuple[int, bytes]:
        while not connection.answers():  # noqa: ASYNC110  What answers tells nobody else.
            await asyncio.sleep(0)
        (answer,) = connection.answers()
        return answer

    return served.run(answered())


BOTH = b'{"instance": {"left": [1, 2], "right": [10, 20]}}'
RECORD = b'{"instance": [1, 2, 3, 4]}'
HALF = b'{"instance": [0.5, 0, 0, 0]}'


@pytest.mark.parametrize(
    ("path", "headers", "body", "express"),
    [
        ("/predict", {}, RECORD, True),
        ("/predict/m/versions/3", {}, RECORD, True),
        ("/predict/m/versions/12", {}, RECORD, True),
        ("/predict/m/labels/stable", {}, RECORD, True),
        ("/predict/m/labels/canary", {}, b"{}", True),
        ("/predict/m/versions/03", {}, RECORD, False),
        ("/predict/m/versions/4", {}, RECORD, False),
        ("/predict/m/labels/none", {}, RECORD, False),
        ("/predict/two", {"Litepool-Signature": "add"}, BOTH, True),
        ("/predict/two", {"litepool-signature": "add"}, RECORD, True),
        ("/predict/two", {"Litepool-Signature": "sub"}, BOTH, True),
        ("/predict/two", {"Litepool-Signature": ""}, RECORD, True),
        ("/predict/real", {}, HALF, True),
        ("/predict/real", {"Litepool-Numbers": "raw"}, HALF, True),
        ("/predict/raw", {"Litepool-Numbers": "real"}, HALF, True),
        ("/predict/raw", {"Litepool-Numbers": "REAL"}, HALF, True),
        ("/predict/raw", {"Litepool-Numbers": "real", "Accept": "application/x-npy"}, HALF, True),
        ("/predict/account", {}, RECORD, True),
        ("/predict/account", {"Litepool-Sequence-Id": "e"}, RECORD, False),
        ("/predict/account", {"Litepool-Sequence-Start": "true"}, RECORD, False),
        ("/predict/account", {"Litepool-Sequence-End": "true"}, RECORD, False),
    ],
)
def test_the_express_lane_answers_as_the_application_does_whether_it_knows_the_head_or_not(
    served: InProcess, path: str, headers: dict[str, str], body: bytes, express: bool
) -> None:
    by_asgi = served.request("POST", path, content=body, headers=headers)
    lane = Lane(1 << 16)
    lane.open(served.services.dataplane)
    lines = b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items())

    for _ in range(3):
        answer = by_express(served, lane, request(body, path.encode(), lines))
        assert answer == ((by_asgi.status_code, by_asgi.content) if express else None)
