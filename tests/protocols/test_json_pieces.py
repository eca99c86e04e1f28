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
from tests.signatures import one_in


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
        return "[" + draw(st.sampled_from([",", ", ", " , "])).join(part(sizes[1:]) for _ in range(size)) + "]"

    key = draw(st.sampled_from(["instances", "inputs", "instances ", "instance"]))
    tail = draw(st.sampled_from(["}", "} ", " }\n", "", "]}", ",}"])) if flawed else "}"
    return f'{{"{key}": {part((draw(st.integers(1, 6)), *shape))}{tail}'.encode()


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
        found, wanted = outcome(codec, body, whole=False), outcome(codec, body, whole=True)
        if isinstance(wanted, str) or isinstance(found, str):
            assert isinstance(found, str), f"read by pieces, refused as a whole: {wanted}"
            assert isinstance(wanted, str), f"read as a whole, refused by pieces: {found}"
            return
        assert (found.rows, found.form) == (wanted.rows, wanted.form)
        np.testing.assert_array_equal(found.inputs[0], wanted.inputs[0], strict=True)

    check()


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
