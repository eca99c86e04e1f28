"""Large bodies read piece by piece are read as they would be in one."""

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidArgument
from app.protocols import json_pieces
from app.protocols.call import Call, Form
from app.protocols.predict_json import PredictJson
from tests.signatures import one_in, two_in


@pytest.fixture(autouse=True, scope="module")
def _everything_is_large() -> Any:
    """Pieces of a few bytes, for bodies of any size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_pieces, "LARGE", 0)
        patch.setattr(json_pieces, "_PIECE", 12)
        patch.setattr(json_pieces, "_PIECE_NUMBERS", 5)
        yield


numbers = st.sampled_from(["1", "-2.5", "3e3", "0.1", "16777217"])
odd = st.sampled_from(["true", "null", '"7"', "NaN", "1e39", "[1]", "", "[]", "x"])


@st.composite
def bodies(draw: st.DrawFn, shape: tuple[int, ...]) -> bytes:
    """A list of records of `shape`, mostly right."""
    flawed = draw(st.booleans())

    def part(sizes: tuple[int, ...]) -> str:
        if flawed and draw(st.integers(0, 15)) == 0:
            return draw(odd)
        if not sizes:
            return draw(numbers)
        size = sizes[0] + (draw(st.integers(-1, 1)) if flawed and draw(st.integers(0, 15)) == 0 else 0)
        comma, end = draw(st.sampled_from([",", ", ", " , "])), draw(st.sampled_from(["]", " ]", "\n]"]))
        return "[" + comma.join(part(sizes[1:]) for _ in range(size)) + end

    key = draw(st.sampled_from(["instances", "inputs", "instances "]))
    tail = draw(st.sampled_from(["}", "} ", " }\n", "", "]}", ",}"])) if flawed else "}"
    return f'{{"{key}": {part((draw(st.integers(1, 6)), *shape))}{tail}'.encode()


def checked(codec: PredictJson, body: bytes) -> None:
    """That a body is the same call by pieces and as a whole, or refused by both."""
    found, wanted = outcome(codec, body, whole=False), outcome(codec, body, whole=True)
    if isinstance(wanted, str) or isinstance(found, str):
        assert isinstance(found, str), f"read by pieces, refused as a whole: {wanted}"
        assert isinstance(wanted, str), f"read as a whole, refused by pieces: {found}"
        return
    assert (found.rows, found.form) == (wanted.rows, wanted.form)
    for ours, theirs in zip(found.inputs, wanted.inputs, strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)


def outcome(codec: PredictJson, body: bytes, whole: bool) -> Call | str:
    try:
        return codec._decode_slow(body) if whole else codec.decode(body)
    except InvalidArgument as error:
        return error.message


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1,), (2, 1, 2)])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_pieces_give_what_the_whole_gives(shape: tuple[int, ...], dtype: str) -> None:
    codec = PredictJson(one_in(dtype, (-1, *shape)))

    @given(bodies(shape))
    def check(body: bytes) -> None:
        checked(codec, body)

    check()


@given(st.data(), st.sampled_from([(4, 2), (3, 1), (2, 2, 3)]))
def test_a_single_record_in_pieces_is_what_it_is_as_a_whole(data: st.DataObject, shape: tuple[int, ...]) -> None:
    body = data.draw(bodies(shape[1:])).replace(b'"instances"', b'"instance"').replace(b'"inputs"', b'"instance"')

    checked(PredictJson(one_in(shape=(-1, *shape))), body)


def test_a_single_record_of_another_size_is_refused_with_both_sizes() -> None:
    codec = PredictJson(one_in(shape=(-1, 4, 2)))

    with pytest.raises(InvalidArgument, match=r"^instance: expected .*4.*, found a list of 5$"):
        codec.decode(json.dumps({"instance": [[1.5, 2.5]] * 5}).encode())


def few(size: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(-9, 9), min_size=size, max_size=size)


people = st.lists(st.fixed_dictionaries({"age": few(1), "body": few(3)}), min_size=1, max_size=12)


@given(people, st.sampled_from([None, 0, 2]), st.binary(max_size=1), st.data())
def test_records_that_are_objects_are_read_in_pieces_as_they_are_as_a_whole(
    records: list[dict[str, Any]], indent: int | None, noise: bytes, data: st.DataObject
) -> None:
    codec = PredictJson(two_in())
    body = json.dumps({"instances": records}, indent=indent).encode()
    place = data.draw(st.integers(0, len(body)))

    checked(codec, body)
    checked(codec, body[:place] + noise + body[place:])


def test_a_fault_in_a_far_object_is_named_by_its_place_in_the_whole() -> None:
    codec = PredictJson(one_in(shape=(-1, 3)))
    records: list[Any] = [{"x": [1.0, 2.0, 3.0]} for _ in range(500)]
    records[321]["x"][1] = "seven"

    with pytest.raises(InvalidArgument, match=r'^instances\[321\]\.x\[1\]: .* found the string "seven"$'):
        codec.decode(json.dumps({"instances": records}).encode())


def test_a_fault_far_into_the_list_is_named_by_its_place_in_the_whole() -> None:
    rows: list[list[Any]] = [[1.0, 2.0, 3.0] for _ in range(500)]
    rows[321][1] = "seven"
    codec = PredictJson(one_in(shape=(-1, 3)))
    with pytest.raises(InvalidArgument, match=r'^instances\[321\]\[1\]: .* found the string "seven"$'):
        codec.decode(json.dumps({"instances": rows}).encode())


@pytest.mark.parametrize("shape", [(7, 3), (1, 3), (11, 2, 2), (4,)])
def test_an_answer_written_in_pieces_is_the_answer(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    assert json_pieces.dump_rows(values) == orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)


def test_a_large_answer_is_the_same_text_as_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = PredictJson(one_in(shape=(-1, 3)))
    values = np.array([[0.1, np.nan, 3.0], [1e-7, -0.0, 1e20]], np.float32)
    call = Call((values,), 2, Form.INSTANCES)
    small = codec.encode(call, [values])
    monkeypatch.setattr("app.protocols.predict_json._LARGE_ANSWER", 1)
    assert codec.encode(call, [values]) == small == b'{"predictions":[[0.1,null,3.0],[1e-7,-0.0,1e+20]]}'


@pytest.mark.parametrize("form", list(Form))
def test_a_large_answer_of_any_form_and_of_several_outputs_is_the_same_text(
    monkeypatch: pytest.MonkeyPatch, form: Form
) -> None:
    for signature in (one_in(shape=(-1, 3)), two_in()):
        codec = PredictJson(signature)
        outputs = [np.full((2, *signature.record_shape(spec)), 0.5, np.float32) for spec in signature.outputs]
        call = Call((outputs[0],), 2, form)
        small = codec.encode(call, outputs)
        with monkeypatch.context() as patch:
            patch.setattr("app.protocols.predict_json._LARGE_ANSWER", 1)
            assert codec.encode(call, outputs) == small
        json.loads(small)
