"""samples.json."""

import json
from pathlib import Path
from typing import IO, Any

import pytest

from app.errors import ModelError
from app.repository.samples import Sample, differs, read_samples, records_of


def read(folder: Path, samples: Any) -> list[Sample]:
    (folder / "samples.json").write_text(json.dumps(samples))
    return read_samples(folder)


def test_without_a_file_or_a_folder_there_are_none(tmp_path: Path) -> None:
    assert read_samples(None) == read_samples(tmp_path) == []


def test_samples_keep_their_order_and_all_they_say(tmp_path: Path) -> None:
    full = {"about": "a 7", "request": {"instance": [1, 2]}, "answer": {"prediction": 7}, "tolerance": 0.5}

    first, second = read(tmp_path, [full, {"request": {"instances": [[0]]}}])

    assert first.model_dump() == full
    assert second == Sample(request={"instances": [[0]]}, answer=None, about="", tolerance=None)


@pytest.mark.parametrize(
    ("samples", "place"),
    [
        ({}, ""),
        ([[]], "[0]"),
        ([{"request": {}}, {}], "[1].request"),
        ([{"request": []}], "[0].request"),
        ([{"request": {}, "answer": 5}], "[0].answer"),
        ([{"request": {}, "about": None}], "[0].about"),
        ([{"request": {}, "reply": {}}], "[0].reply"),
        ([{"request": {}, "tolerance": -1}], "[0].tolerance"),
        ([{"request": {}, "tolerance": float("nan")}], "[0].tolerance"),
    ],
)
def test_another_form_is_refused_by_its_place(tmp_path: Path, samples: Any, place: str) -> None:
    with pytest.raises(ModelError) as caught:
        read(tmp_path, samples)

    assert caught.value.message.startswith(f"samples.json{place}: ")


@pytest.mark.parametrize("content", [b"", b"[", b"\xff", b"[" * 100_000])
def test_what_is_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "samples.json").write_bytes(content)

    with pytest.raises(ModelError, match=r"^samples\.json: Invalid JSON"):
        read_samples(tmp_path)


def test_a_file_that_cannot_be_read_is_not_called_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> IO[bytes]:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "samples.json").touch()
    monkeypatch.setattr(Path, "open", refuse)

    with pytest.raises(ModelError, match=r"^samples\.json cannot be read: Permission denied$"):
        read_samples(tmp_path)


def test_a_file_of_more_than_64_mib_is_refused_without_being_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "samples.json").open("wb") as stream:
        stream.truncate(1 << 40)

    with pytest.raises(ModelError, match=r"^samples\.json is larger than 64 MiB: keep only some of the samples$"):
        read_samples(tmp_path)


def test_a_file_of_64_mib_is_read(tmp_path: Path) -> None:
    (tmp_path / "samples.json").write_bytes(b"[]" + b" " * (64 * 2**20 - 2))

    assert read_samples(tmp_path) == []


# Comparing answers

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ({"prediction": 1.0}, {"prediction": 1}),
        ({"prediction": [0.5, 99.0]}, {"prediction": [1.4, 100.0]}),
        ({"predictions": [[0.5], [100.9]]}, {"predictions": [[1.4], [100.0]]}),
        ({"prediction": {"a": 0.5, "b": [-10]}}, {"prediction": {"b": [-10.05], "a": 0.505}}),
        ({"predictions": [{"a": 0.0}, {"a": -100}]}, {"predictions": [{"a": 0.9}, {"a": -100.5}]}),
        ({"outputs": {"a": [[1.0]], "b": [[0.0]]}}, {"outputs": {"a": [[1.0]], "b": [[0]]}}),
        ({"prediction": [0.005, 0]}, {"prediction": [0, 0.0]}),
        ({"prediction": ["a", True, None, []]}, {"prediction": ["a", True, None, []]}),
        ({"prediction": [None, None, None]}, {"prediction": [NAN, INF, -INF]}),
        ({"prediction": [NAN, 100.5]}, {"prediction": [None, 100]}),
        ({"prediction": [1, 10**400]}, {"prediction": [1.0, 10**400]}),
    ],
    ids=str,
)
def test_numbers_may_be_off_by_the_tolerance_of_their_outputs_scale_and_the_rest_is_the_same(
    answer: dict[str, Any], wanted: dict[str, Any]
) -> None:
    assert differs(answer, wanted, 0.01) is None


@pytest.mark.parametrize(
    ("answer", "wanted", "difference"),
    [
        ({"prediction": 1.5}, {"prediction": 1}, "prediction is 1.5, and 1 within 0.01 of 1 was wanted"),
        (
            {"prediction": {"a": 0.5, "b": 100.0}},
            {"prediction": {"a": 1.4, "b": 100}},
            "prediction.a is 0.5, and 1.4 within 0.01 of 1.4 was wanted",
        ),
        (
            {"predictions": [{"a": [0, 5]}, {"a": [100, 5]}]},
            {"predictions": [{"a": [0, 5]}, {"a": [102, 5]}]},
            "predictions[1].a[0] is 100, and 102 within 0.01 of 102 was wanted",
        ),
        ({"prediction": [0.02]}, {"prediction": [0.0]}, "prediction[0] is 0.02, and 0.0 within 0.01 of 1 was wanted"),
        ({"prediction": [None]}, {"prediction": [5]}, "prediction[0] is null, and 5 within 0.01 of 5 was wanted"),
        ({"prediction": [5]}, {"prediction": [NAN]}, "prediction[0] is 5, and nan was wanted"),
        ({"prediction": [True]}, {"prediction": [1]}, "prediction[0] is True, and 1 within 0.01 of 1 was wanted"),
        ({"prediction": [0]}, {"prediction": [False]}, "prediction[0] is 0, and False was wanted"),
        ({"prediction": "7"}, {"prediction": 7}, "prediction is '7', and 7 within 0.01 of 7 was wanted"),
        ({"prediction": "cat"}, {"prediction": "dog"}, "prediction is 'cat', and 'dog' was wanted"),
        ({"prediction": [1, 2]}, {"prediction": [1, 2, 3]}, "prediction has 2 values, and 3 were wanted"),
        ({"prediction": [1, 2]}, {"prediction": 1}, "prediction is a list of 2, and 1 within 0.01 of 1 was wanted"),
        ({"prediction": 1}, {"prediction": {"a": 1}}, "prediction is 1, and an object was wanted"),
        (
            {"prediction": 1},
            {"predictions": [1]},
            "the answer has the keys 'prediction', and 'predictions' were wanted",
        ),
        (
            {"prediction": {"a": 1, "b": 2}},
            {"prediction": {"a": 1}},
            "prediction has the keys 'a', 'b', and 'a' were wanted",
        ),
        ({}, {"prediction": 1}, "the answer has the keys none, and 'prediction' were wanted"),
        ({"prediction": 1.0}, {"prediction": 10**400}, f"prediction is 1.0, and {str(10**400)[:100]} was"),
    ],
    ids=str,
)
def test_the_first_difference_is_named_by_its_place(
    answer: dict[str, Any], wanted: dict[str, Any], difference: str
) -> None:
    found = differs(answer, wanted, 0.01)

    assert found is not None
    assert found.startswith(difference)


def test_a_tolerance_of_nothing_wants_the_same_numbers() -> None:
    assert differs({"prediction": 0.5}, {"prediction": 0.5}, 0) is None
    assert differs({"prediction": 0.5}, {"prediction": 0.5000001}, 0) is not None


@pytest.mark.parametrize(
    ("request_body", "records"),
    [
        ({"instance": {"b64": "/wA="}}, {"": [b"\xff"]}),
        ({"instance": [{"b64": "YQ=="}, "b"]}, {"": [["a", "b"]]}),
        ({"instances": [{"x": {"b64": "YQ=="}}, {"x": {"b64": "YmI="}}]}, {"x": [b"a", b"bb"]}),
        ({"instance": {"b64": "*"}}, {"b64": ["*"]}),
        ({"instance": {"b64": 1}}, {"b64": [1]}),
    ],
)
def test_records_of_bytes_are_those_that_their_base64_stands_for(
    request_body: dict[str, Any], records: dict[str, Any]
) -> None:
    """NumPy's own strings, which these become for a while, have no zero bytes at their ends."""
    found = records_of([Sample(request=request_body)])

    assert {name: array.tolist() for name, array in found.items()} == records
